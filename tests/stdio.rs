//! The daemon on what it was started with: pipes, a terminal, and the sockets of inetd(8) and systemd(1).

#[path = "support/command.rs"]
#[expect(dead_code, reason = "each of the tests of the command line needs a part of it")]
mod command;

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::os::fd::OwnedFd;
use std::process::{Child, Command, Stdio};

use command::{PATIENCE, command, greetd_reading};
use nix::fcntl::{F_GETFL, OFlag, fcntl};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// A program that is killed with the test.
struct Started(Child);

impl Started {
    /// As inetd(8) starts it: the socket is standard input, output and error.
    fn by_inetd(arguments: &[&str], socket: impl Into<OwnedFd>) -> Self {
        let socket = socket.into();
        let mut command = command(arguments);
        command.stdin(socket.try_clone().unwrap()).stdout(socket.try_clone().unwrap()).stderr(socket);
        Started(command.spawn().unwrap())
    }

    fn terminate(&self) {
        kill(Pid::from_raw(self.0.id().cast_signed()), Signal::SIGTERM).unwrap();
    }

    fn code(&mut self) -> Option<i32> {
        self.0.wait().unwrap().code()
    }
}

impl Drop for Started {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn call(listener: &TcpListener) -> TcpStream {
    let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    client.set_read_timeout(Some(PATIENCE)).unwrap();
    client
}

fn hears(stream: &mut impl std::io::Read, expected: &str) {
    let mut heard = vec![0; expected.len()];
    stream.read_exact(&mut heard).unwrap();
    assert_eq!(String::from_utf8_lossy(&heard), expected);
}

#[test]
fn a_conversation_over_pipes_has_stdout_to_itself_and_ends_the_daemon() {
    let ran = greetd_reading(b"Genji\nHanzo\n", &["-l", "stdio://?framing=lines"]);
    assert_eq!(ran.code, 0, "{ran:?}");
    assert_eq!(ran.stdout, "welcome\nHello Genji\nHello Hanzo\n");
    assert!(ran.stderr.contains("listening stdio:// handler=hello"), "{ran:?}");
}

#[test]
fn a_connection_from_inetd_carries_the_conversation_alone() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut client = call(&listener);
    let accepted = listener.accept().unwrap().0;
    let mut daemon = Started::by_inetd(&["-l", "stdio://?framing=lines", "-v"], accepted);
    hears(&mut client, "welcome\n");
    client.write_all(b"Genji\nexit\n").unwrap();
    let mut rest = String::new();
    client.read_to_string(&mut rest).unwrap();
    assert_eq!(rest, "Hello Genji\n");
    drop(client);
    assert_eq!(daemon.code(), Some(0));
}

#[test]
fn a_listening_socket_from_inetd_is_accepted_from_until_the_daemon_is_told_to_stop() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut daemon = Started::by_inetd(&["-t", "stdio"], listener.try_clone().unwrap());
    let mut clients = [call(&listener), call(&listener)];
    for client in &mut clients {
        hears(client, "welcome");
        client.write_all(b"Genji").unwrap();
        hears(client, "Hello Genji");
    }
    drop(clients);
    daemon.terminate();
    assert_eq!(daemon.code(), Some(0));
}

#[test]
fn a_datagram_socket_from_inetd_is_served_as_datagrams() {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    let mut daemon = Started::by_inetd(&["-t", "stdio"], socket.try_clone().unwrap());
    let client = UdpSocket::bind("127.0.0.1:0").unwrap();
    client.set_read_timeout(Some(PATIENCE)).unwrap();
    client.send_to(b"Genji", socket.local_addr().unwrap()).unwrap();
    let mut reply = [0; 64];
    let (length, from) = client.recv_from(&mut reply).unwrap();
    assert_eq!((&reply[..length], from), (&b"Hello,Genji"[..], socket.local_addr().unwrap()));
    daemon.terminate();
    assert_eq!(daemon.code(), Some(0));
}

#[test]
fn a_terminal_blocks_its_other_readers_as_before() {
    let terminal = nix::pty::openpty(None, None).unwrap();
    let ours = terminal.slave.try_clone().unwrap();
    let mut command = command(&["-l", "stdio://?framing=lines"]);
    command.stdin(terminal.slave.try_clone().unwrap()).stdout(terminal.slave).stderr(Stdio::null());
    let mut daemon = Started(command.spawn().unwrap());
    let mut typist = File::from(terminal.master);
    // The terminal ends its lines with CR and LF, and echoes what is typed.
    hears(&mut typist, "welcome\r\n");
    typist.write_all(b"Genji\n").unwrap();
    hears(&mut typist, "Genji\r\nHello Genji\r\n");
    let flags = OFlag::from_bits_truncate(fcntl(&ours, F_GETFL).unwrap());
    assert!(!flags.contains(OFlag::O_NONBLOCK));
    typist.write_all(b"exit\n").unwrap();
    hears(&mut typist, "exit\r\n");
    drop(typist);
    assert_eq!(daemon.code(), Some(0));
}

/// Starts the daemon as systemd does: the socket is descriptor 3 and has a name, for that process alone.
fn by_systemd(endpoint: &str, socket: impl Into<OwnedFd>) -> Started {
    let mut shell = Command::new("sh");
    let binary = env!("CARGO_BIN_EXE_greetd");
    let script = "exec 3<&0 </dev/null; export LISTEN_PID=$$ LISTEN_FDS=1 LISTEN_FDNAMES=web; exec \"$0\" -l \"$1\"";
    shell.args(["-c", script, binary, endpoint]).stdin(socket.into()).stdout(Stdio::piped()).stderr(Stdio::piped());
    Started(shell.spawn().unwrap())
}

#[test]
fn a_socket_that_systemd_passes_is_found_by_its_name() {
    for endpoint in ["tcp://fd:web", "tcp://fd:3"] {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut daemon = by_systemd(endpoint, listener.try_clone().unwrap());
        let mut client = call(&listener);
        hears(&mut client, "welcome");
        let expected = format!("listening tcp://{} handler=hello\n", listener.local_addr().unwrap());
        hears(daemon.0.stdout.as_mut().unwrap(), &expected);
        drop(client);
        daemon.terminate();
        assert_eq!(daemon.code(), Some(0));
    }
}

#[test]
fn a_socket_that_systemd_passes_and_that_does_not_suit_is_refused_in_words() {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    let mut daemon = by_systemd("tcp://fd:web", socket);
    let mut said = String::new();
    daemon.0.stderr.take().unwrap().read_to_string(&mut said).unwrap();
    assert!(said.contains("fd:3 is an IPv4 datagram socket; `tcp` needs"), "{said}");
    assert_eq!(daemon.code(), Some(2));
}

#[test]
fn the_peer_is_told_of_the_end_also_where_another_process_holds_the_socket() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut client = call(&listener);
    let socket = listener.accept().unwrap().0;
    // As a shell that started the daemon and has not ended yet.
    let _held = socket.try_clone().unwrap();
    let mut greetd = Started::by_inetd(&["-l", "stdio://"], socket);
    hears(&mut client, "welcome");
    client.shutdown(std::net::Shutdown::Write).unwrap();
    let mut rest = Vec::new();
    client.read_to_end(&mut rest).expect("the end is told");
    assert_eq!(greetd.code(), Some(0));
}
