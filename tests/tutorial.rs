//! What the tutorial's server does, and what it would choke on.

#[path = "support/command.rs"]
#[expect(dead_code, reason = "each of the black-box tests needs a part of it")]
mod command;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream, UdpSocket};

use command::{Daemon, PATIENCE, python, run};

/// CPython's test_socketserver: each transport, three clients at once; here with one and with two workers.
#[test]
fn three_clients_at_once_each_hear_their_own_answers_on_every_transport() {
    let folder = tempfile::tempdir().unwrap();
    for workers in ["1", "2"] {
        for transport in ["tcp", "udp", "unix", "unixpacket", "unixgram"] {
            let path = folder.path().join(format!("{transport}-{workers}")).display().to_string();
            let bind = if matches!(transport, "tcp" | "udp") { "127.0.0.1:0" } else { &path };
            let mut daemon = Daemon::start(&["-t", transport, "-H", "echo", "-b", bind, "--workers", workers]);
            let endpoint = daemon.endpoint();
            let (_, at) = endpoint.split_once("://").unwrap();
            let (host, port) = if bind == path { (at, "") } else { at.rsplit_once(':').unwrap() };
            let Some(mut clients) = python("three_clients.py") else { return };
            clients.args([transport, host, port]);
            let (code, printed, complaints) = run(clients, b"");
            assert_eq!((code, &*printed), (0, &b"ok\n"[..]), "{endpoint}, {workers} workers: {complaints}");
        }
    }
}

/// The logic in Python, as a plugin with and without the helper and as a program for each session, behind the tutorial's
/// own clients.
#[test]
fn the_tutorial_s_logic_outside_of_greetd_greets_the_tutorial_s_clients() {
    let folder = tempfile::tempdir().unwrap();
    let plugins = concat!(env!("CARGO_MANIFEST_DIR"), "/plugins");
    let (helped, plain) = (format!("{plugins}/python/hello.py"), format!("{plugins}/python/plain.py"));
    let on_connections = "welcome\nHello Genji\nHello Hanzo\nHello Mcree\n";
    let on_datagrams = "Hello,Genji\nHello,Hanzo\nHello,Mcree\n";
    for handler in ["py-hello", "plain-hello", &format!("exec:{plugins}/exec/hello.py")] {
        let path = folder.path().join("socket").display().to_string();
        for (transport, bind, client, expected) in [
            ("tcp", "127.0.0.1:0", "tcp_client.py", on_connections),
            ("udp", "127.0.0.1:0", "udp_client.py", on_datagrams),
            ("unix", &path, "unix_client.py", on_connections),
        ] {
            let Some(mut client) = python(client) else { return };
            let plugins = ["--plugin", &helped, "--plugin", &plain];
            let served = ["-t", transport, "-b", bind, "-H", handler, "--drain-timeout", "1s"];
            let mut daemon = Daemon::start(&[&plugins[..], &served[..]].concat());
            let endpoint = daemon.endpoint();
            client.arg(if bind == path { &path } else { endpoint.rsplit_once(':').unwrap().1 });
            let (code, printed, complaints) = run(client, b"");
            let printed = String::from_utf8(printed).unwrap();
            assert_eq!((code, &*printed), (0, expected), "{handler} over {endpoint}: {complaints}");
        }
    }
}

fn connect(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.set_nodelay(true).unwrap();
    stream
}

fn hears(stream: &mut TcpStream, expected: &[u8]) {
    let mut heard = vec![0; expected.len()];
    stream.read_exact(&mut heard).unwrap();
    assert_eq!(heard, expected);
}

#[test]
fn text_that_is_not_utf8_or_cut_inside_a_character_is_greeted_byte_for_byte_and_hurts_nobody() {
    let (_daemon, address) = Daemon::serving(&["--bind", "127.0.0.1:0"]);
    let (mut odd, mut other) = (connect(address), connect(address));
    hears(&mut odd, b"welcome");
    hears(&mut other, b"welcome");
    let snowman = "\u{2603}".as_bytes();
    for bytes in [&b"\xff\xfe"[..], &snowman[..1], &snowman[1..], b"\0", &[0x80; 900]] {
        odd.write_all(bytes).unwrap();
        hears(&mut odd, &[b"Hello ", bytes].concat());
    }
    other.write_all(b"Genji").unwrap();
    hears(&mut other, b"Hello Genji");
}

#[test]
fn text_longer_than_the_tutorial_s_buffer_has_one_answer() {
    let (_daemon, address) = Daemon::serving(&["-t", "udp", "--bind", "127.0.0.1:0"]);
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    socket.connect(address).unwrap();
    let text = vec![b'x'; 20_000];
    socket.send(&text).unwrap();
    let mut answer = vec![0; 65_536];
    let size = socket.recv(&mut answer).unwrap();
    assert_eq!(answer[..size], [b"Hello,", &text[..]].concat());
}

#[test]
fn exit_closes_that_connection_alone() {
    let (_daemon, address) = Daemon::serving(&["--bind", "127.0.0.1:0"]);
    let mut clients: Vec<TcpStream> = (0..50).map(|_| connect(address)).collect();
    for client in &mut clients {
        hears(client, b"welcome");
    }
    clients[17].write_all(b"exit").unwrap();
    let mut rest = Vec::new();
    clients[17].read_to_end(&mut rest).unwrap();
    assert_eq!(rest, b"");
    for (number, client) in clients.iter_mut().enumerate().filter(|(number, _)| *number != 17) {
        client.write_all(format!("{number}").as_bytes()).unwrap();
        hears(client, format!("Hello {number}").as_bytes());
    }
}
