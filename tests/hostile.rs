//! Peers that mean harm, against the running daemon: none of them stops it, fills it or speaks in its name.

#[path = "support/command.rs"]
#[expect(dead_code, reason = "each of the black-box tests needs a part of it")]
mod command;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::time::{Duration, Instant};

use command::{Daemon, PATIENCE, greetd, until};

fn connect(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream
}

fn is_greeted(mut stream: &TcpStream) -> bool {
    let mut welcome = [0; 7];
    stream.read_exact(&mut welcome).is_ok() && &welcome == b"welcome"
}

/// R1 and R4: 100 clients where descriptors end at 32.
#[test]
fn at_the_end_of_descriptors_it_neither_spins_nor_ends_and_serves_the_next_as_soon_as_it_can() {
    let mut limited = std::process::Command::new("sh");
    let binary = env!("CARGO_BIN_EXE_greetd");
    limited.args(["-c", "ulimit -n 32; exec \"$0\" \"$@\"", binary, "--bind", "127.0.0.1:0", "--workers", "1"]);
    let mut daemon = Daemon::spawn(limited);
    let address = daemon.address();

    let clients: Vec<TcpStream> = (0..100).map(|_| connect(address)).collect();
    let held = clients.iter().filter(|client| is_greeted_within(client, Duration::from_millis(50))).count();
    assert!((5..32).contains(&held), "{held} of 100 are served");

    let (cpu, start) = (daemon.cpu_time(), Instant::now());
    std::thread::sleep(Duration::from_secs(2));
    let share = daemon.cpu_time().saturating_sub(cpu).as_secs_f64() / start.elapsed().as_secs_f64();
    assert!(share < 0.05, "it uses {:.1} % of a processor while it waits", share * 100.0);

    drop(clients);
    let left = Instant::now();
    until("the next client is served", || is_greeted_within(&connect(address), Duration::from_millis(200)));
    assert!(left.elapsed() < Duration::from_millis(1_100), "after {:?}", left.elapsed());
    let ended = daemon.stop();
    assert_eq!(ended.code, 0, "{ended:?}");
    let log = ended.stderr;
    let warnings = log.lines().filter(|line| line.contains("accept.failed")).count();
    assert!((1..=2).contains(&warnings), "one warning a minute, however often it happens:\n{log}");
}

fn is_greeted_within(stream: &TcpStream, time: Duration) -> bool {
    stream.set_read_timeout(Some(time)).unwrap();
    is_greeted(stream)
}

/// R12: chargen to a hundred readers that never read.
#[test]
fn readers_that_never_read_leave_memory_flat_and_are_cut() {
    let (daemon, address) =
        Daemon::serving(&["-H", "chargen", "--bind", "127.0.0.1:0", "--write-timeout", "3s", "--workers", "1"]);
    // What the first reader costs once for all, such as the thread's buffers, is there before.
    let first = connect(address);
    assert_eq!(first.peek(&mut [0; 8]).unwrap(), 8);
    let before = daemon.resident_kib();
    let clients: Vec<TcpStream> = (0..100).map(|_| connect(address)).collect();
    let start = Instant::now();
    let mut most = 0;
    while start.elapsed() < Duration::from_secs(2) {
        most = most.max(daemon.resident_kib());
        std::thread::sleep(Duration::from_millis(20));
    }
    let each = most.saturating_sub(before) / 100;
    assert!(each <= 64 + 4, "{each} KiB for each reader");
    // What the kernel holds for them is still theirs; the connections are gone from the daemon.
    until("all of them are cut", || daemon.descriptors() < 40);
    drop((first, clients));
}

/// R10: one byte a second, against a message that never ends.
#[test]
fn a_byte_now_and_then_does_not_hold_a_session() {
    let (_daemon, address) = Daemon::serving(&["-f", "lines", "--bind", "127.0.0.1:0", "--idle-timeout", "1s"]);
    let mut client = connect(address);
    let start = Instant::now();
    let reader = client.try_clone().unwrap();
    let ended = std::thread::spawn(move || {
        let mut all = Vec::new();
        let _ = { reader }.read_to_end(&mut all);
        (all, start.elapsed())
    });
    while !ended.is_finished() && start.elapsed() < PATIENCE {
        let _ = client.write_all(b"x");
        std::thread::sleep(Duration::from_millis(200));
    }
    let (all, lasted) = ended.join().unwrap();
    assert_eq!(all, b"welcome\n");
    assert!(lasted < Duration::from_secs(3), "{lasted:?}");
}

/// R46: peers' bytes in the log.
#[test]
fn nothing_that_a_peer_sends_forges_a_line_in_the_log() {
    for format in ["text", "json"] {
        let (daemon, address) = Daemon::serving(&[
            "-f",
            "lines",
            "--bind",
            "127.0.0.1:0",
            "--max-message",
            "64",
            "--log-level",
            "debug",
            "--log-format",
            format,
        ]);
        let forged = b"\nFORGED 2026-01-01T00:00:00Z ERROR all is lost\r\x1b[2J\x1b[31mFORGED\x07";
        for _ in 0..3 {
            let mut client = connect(address);
            let _ = client.write_all(&forged[1..]);
            let _ = client.write_all(&[b'x'; 200]);
            let mut rest = Vec::new();
            let _ = client.read_to_end(&mut rest);
        }
        let log = daemon.stop().stderr;
        assert!(log.lines().count() > 3, "the sessions are logged:\n{log}");
        for line in log.lines() {
            assert!(!line.starts_with("FORGED"), "{line:?}");
            assert!(!line.contains(['\x1b', '\r', '\x07']), "{line:?}");
        }
    }
}

#[test]
fn the_largest_datagram_is_answered_and_what_cannot_be_answered_hurts_nobody() {
    let (_daemon, address) = Daemon::serving(&["-t", "udp", "-H", "echo", "--bind", "127.0.0.1:0"]);
    let client = UdpSocket::bind("127.0.0.1:0").unwrap();
    client.set_read_timeout(Some(PATIENCE)).unwrap();
    client.connect(address).unwrap();
    let largest = vec![b'x'; 65_507];
    client.send(&largest).unwrap();
    let mut answer = vec![0; 65_536];
    assert_eq!(client.recv(&mut answer).unwrap(), largest.len());
    let one_more = client.send(&vec![b'x'; 65_508]).unwrap_err();
    assert_eq!(one_more.raw_os_error(), Some(nix::errno::Errno::EMSGSIZE as i32), "the kernel itself refuses it");

    // `hello` would answer the largest one with more than a datagram holds.
    let (_daemon, address) = Daemon::serving(&["-t", "udp", "--bind", "127.0.0.1:0"]);
    client.connect(address).unwrap();
    client.send(&largest).unwrap();
    client.send(b"Genji").unwrap();
    let size = client.recv(&mut answer).unwrap();
    assert_eq!(&answer[..size], b"Hello,Genji");
}

#[test]
fn what_was_answered_before_the_framing_was_broken_arrives() {
    let (_daemon, address) = Daemon::serving(&["-f", "lines", "--bind", "127.0.0.1:0"]);
    let mut client = connect(address);
    client.write_all(b"Genji\n").unwrap();
    client.write_all(&vec![b'x'; 200_000]).unwrap();
    client.shutdown(std::net::Shutdown::Write).unwrap();
    let mut all = Vec::new();
    client.read_to_end(&mut all).unwrap();
    assert_eq!(all, b"welcome\nHello Genji\n");
}

#[test]
fn silent_clients_and_half_open_ones_delay_nobody() {
    let (_daemon, address) = Daemon::serving(&["--bind", "127.0.0.1:0"]);
    let silent: Vec<TcpStream> = (0..200).map(|_| connect(address)).collect();
    let start = Instant::now();
    let client = connect(address);
    assert!(is_greeted(&client));
    assert!(start.elapsed() < Duration::from_secs(1));
    // Resets: closed with unread data.
    drop(silent);
    assert!(is_greeted(&connect(address)));
}

#[test]
fn the_default_reaches_this_host_alone() {
    let checked = greetd(&["--check", "--json"]);
    assert!(checked.stdout.contains("tcp://127.0.0.1:8080"), "{checked:?}");
}
