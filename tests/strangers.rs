//! Programs that are not ours as clients and as servers: ncat, socat, curl, Python, systemd.

#[path = "support/command.rs"]
#[expect(dead_code, reason = "each of the black-box tests needs a part of it")]
mod command;

use std::process::{Child, Command, Stdio};

use command::{Daemon, greetd, is_there, run, until};

/// What a program says to that input.
fn says(program: Command, input: &str) -> String {
    let (_, printed, _) = run(program, input.as_bytes());
    String::from_utf8_lossy(&printed).into_owned()
}

#[test]
fn ncat_talks_to_it_over_every_transport_that_it_knows() {
    if !is_there("ncat") {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("socket").display().to_string();
    let at = |bind: &str, transport: &str| Daemon::start(&["-t", transport, "-H", "upper", "-b", bind]);

    let mut daemon = at("127.0.0.1:0", "tcp");
    let mut ncat = Command::new("ncat");
    ncat.args(["127.0.0.1", &daemon.address().port().to_string()]);
    assert_eq!(says(ncat, "over tcp\n"), "OVER TCP\n");

    let mut daemon = at("[::1]:0", "tcp");
    let mut ncat = Command::new("ncat");
    ncat.args(["-6", "::1", &daemon.address().port().to_string()]);
    assert_eq!(says(ncat, "over ipv6\n"), "OVER IPV6\n");

    let mut daemon = at("127.0.0.1:0", "udp");
    // It leaves when its input ends, so the input is kept open until the answer had time to come.
    let mut ncat = Command::new("sh");
    ncat.args(["-c", "(cat; sleep 1) | ncat -u 127.0.0.1 $0", &daemon.address().port().to_string()]);
    assert_eq!(says(ncat, "over udp\n"), "OVER UDP\n");

    let mut daemon = at(&path, "unix");
    assert_eq!(daemon.endpoint(), format!("unix://{path}"));
    let mut ncat = Command::new("ncat");
    ncat.args(["-U", &path]);
    assert_eq!(says(ncat, "over unix\n"), "OVER UNIX\n");
}

#[test]
fn socat_talks_to_it_with_half_close_kept() {
    if !is_there("socat") {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    for (transport, name) in [("tcp", "TCP"), ("unix", "UNIX-CONNECT"), ("unixpacket", "UNIX-CONNECT")] {
        let path = folder.path().join(transport).display().to_string();
        let bind = if transport == "tcp" { "127.0.0.1:0" } else { &path };
        let mut daemon = Daemon::start(&["-t", transport, "-H", "echo", "-b", bind]);
        let endpoint = daemon.endpoint();
        let (_, at) = endpoint.split_once("://").unwrap();
        let to = match transport {
            "unixpacket" => format!("{name}:{at},type=5"),
            _ => format!("{name}:{at}"),
        };
        let mut socat = Command::new("socat");
        socat.args(["-t", "5", "-", &to]);
        let sent = "x".repeat(60_000);
        assert!(says(socat, &sent) == sent, "all of it comes back over {transport}");
    }
}

#[test]
fn curl_s_telnet_is_greeted() {
    if !is_there("curl") {
        return;
    }
    let mut daemon = Daemon::start(&["-f", "lines", "-b", "127.0.0.1:0"]);
    let mut curl = Command::new("curl");
    curl.args(["-s", &format!("telnet://{}", daemon.address())]);
    let heard = says(curl, "Genji\nexit\n");
    assert_eq!(heard, "welcome\nHello Genji\n");
}

/// A server that is not ours, killed at the end.
struct Server(Child);

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn free_port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

fn listens(port: u16) -> bool {
    std::net::TcpStream::connect(("127.0.0.1", port)).is_ok()
}

#[test]
fn its_client_talks_to_socat() {
    if !is_there("socat") {
        return;
    }
    let port = free_port();
    let listen = format!("TCP-LISTEN:{port},bind=127.0.0.1,fork,reuseaddr");
    let socat = Command::new("socat").args([&listen, "PIPE"]).stdin(Stdio::null()).spawn().unwrap();
    let _server = Server(socat);
    until("socat listens", || listens(port));
    let called = greetd(&["call", &format!("tcp://127.0.0.1:{port}"), "one", "two"]);
    assert_eq!(called.stdout, "one\ntwo\n", "{called:?}");
}

#[test]
fn its_client_talks_to_ncat() {
    if !is_there("ncat") {
        return;
    }
    let port = free_port();
    let ncat = Command::new("ncat")
        .args(["-l", "-k", "127.0.0.1", &port.to_string(), "--exec", "/bin/cat"])
        .stdin(Stdio::null())
        .spawn()
        .unwrap();
    let _server = Server(ncat);
    until("ncat listens", || listens(port));
    let called = greetd(&["call", &format!("tcp://127.0.0.1:{port}"), "one", "two"]);
    assert_eq!(called.stdout, "one\ntwo\n", "{called:?}");
}

/// Activated by systemd's own tool: as inetd would, with the connection as standard input and output.
#[test]
fn systemd_hands_it_a_connection_as_inetd_does() {
    if !is_there("systemd-socket-activate") {
        return;
    }
    let port = free_port();
    let activate = Command::new("systemd-socket-activate")
        .args(["--inetd", "--accept", "-l", &format!("127.0.0.1:{port}")])
        .args([env!("CARGO_BIN_EXE_greetd"), "-t", "stdio", "-H", "hello"])
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let _server = Server(activate);
    until("systemd-socket-activate listens", || listens(port));
    for _ in 0..3 {
        let called = greetd(&["call", &format!("tcp://127.0.0.1:{port}"), "Genji", "exit"]);
        assert_eq!(called.stdout, "welcome\nHello Genji\n", "{called:?}");
    }
}

/// Activated with the listening socket itself, found by number and by name.
#[test]
fn systemd_hands_it_a_listening_socket() {
    if !is_there("systemd-socket-activate") {
        return;
    }
    for endpoint in ["fd:3", "fd:web"] {
        let port = free_port();
        let activate = Command::new("systemd-socket-activate")
            .args(["--fdname=web", "-l", &format!("127.0.0.1:{port}")])
            .args([env!("CARGO_BIN_EXE_greetd"), "-b", endpoint])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let _server = Server(activate);
        until("systemd-socket-activate listens", || listens(port));
        let called = greetd(&["call", &format!("tcp://127.0.0.1:{port}"), "Genji"]);
        assert_eq!(called.stdout, "welcome\nHello Genji\n", "{called:?}");
    }
}

#[test]
fn it_relays_between_programs_that_share_no_transport() {
    if !is_there("socat") || !is_there("ncat") {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("relay").display().to_string();
    let port = free_port();
    let listen = format!("TCP-LISTEN:{port},bind=127.0.0.1,fork,reuseaddr");
    let socat = Command::new("socat").args([&listen, "EXEC:/bin/cat"]).stdin(Stdio::null()).spawn().unwrap();
    let _server = Server(socat);
    until("socat listens", || listens(port));
    let to = format!("forward?to=tcp://127.0.0.1:{port}");
    let mut daemon = Daemon::start(&["-t", "unix", "-b", &path, "-H", &to]);
    assert_eq!(daemon.endpoint(), format!("unix://{path}"));
    let mut ncat = Command::new("ncat");
    ncat.args(["-U", &path]);
    let sent = "relayed\n".repeat(10_000);
    assert!(says(ncat, &sent) == sent, "all of it comes back");
}
