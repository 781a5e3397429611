//! The client: what it prints, how it ends, and what it says when nobody answers.

#[path = "support/command.rs"]
#[expect(dead_code, reason = "each of the tests of the command line needs a part of it")]
mod command;

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::Command;

use command::{Daemon, Ran, bytes_of, command, greetd, greetd_reading, python, run, tool};
use socket2::{Domain, Socket, Type};

/// The endpoint of a server of `tests/programs`, which says its port first.
fn python_server(scheme: &str, program: &str) -> Option<(Daemon, String)> {
    let mut server = Daemon::python(program)?;
    let port = server.line();
    Some((server, format!("{scheme}://127.0.0.1:{port}")))
}

/// A daemon and its endpoint.
fn serving(arguments: &[&str]) -> (Daemon, String) {
    let mut daemon = Daemon::start(arguments);
    let endpoint = daemon.endpoint();
    (daemon, endpoint)
}

/// A server that does this with its only connection.
fn once(serve: impl FnOnce(TcpStream) + Send + 'static) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || serve(listener.accept().unwrap().0));
    format!("tcp://{address}")
}

/// An address that nobody answers at: bound, so that nobody else takes it, and not listening.
fn nobody(kind: Type) -> (Socket, SocketAddr) {
    let socket = Socket::new(Domain::IPV4, kind, None).unwrap();
    socket.bind(&"127.0.0.1:0".parse::<SocketAddr>().unwrap().into()).unwrap();
    let address = socket.local_addr().unwrap().as_socket().unwrap();
    (socket, address)
}

fn printed(ran: &Ran) -> &str {
    assert_eq!((ran.code, ran.stderr.as_str()), (0, ""), "{ran:?}");
    &ran.stdout
}

#[test]
fn the_server_of_a_tutorial_answers_each_message() {
    let Some((_server, endpoint)) = python_server("tcp", "tcp_server.py") else { return };
    let ran = greetd(&["call", &endpoint, "Genji", "Hanzo", "Mcree", "exit"]);
    assert_eq!(printed(&ran), "welcome\nHello Genji\nHello Hanzo\nHello Mcree\n");
    // Without `exit` the end of what is sent ends the conversation.
    assert_eq!(printed(&greetd(&["call", &endpoint, "Genji"])), "welcome\nHello Genji\n");
}

#[test]
fn the_udp_server_of_a_tutorial_answers_each_message() {
    let Some((_server, endpoint)) = python_server("udp", "udp_server.py") else { return };
    assert_eq!(printed(&greetd(&["call", &endpoint, "Genji", "Hanzo"])), "Hello,Genji\nHello,Hanzo\n");
}

#[test]
fn a_server_of_lines_is_called_with_the_framing_lines() {
    let Some((_server, endpoint)) = python_server("tcp", "line_server.py") else { return };
    assert_eq!(printed(&greetd(&["call", "-f", "lines", &endpoint, "Genji", "Hanzo"])), "GENJI\nHANZO\n");
}

#[test]
fn lines_from_a_pipe_are_messages_and_each_waits_for_its_reply() {
    let (_daemon, endpoint) = serving(&["-b", "127.0.0.1:0"]);
    let ran = greetd_reading(b"Genji\nHanzo\n", &["call", &endpoint]);
    assert_eq!(printed(&ran), "welcome\nHello Genji\nHello Hanzo\n");
    // The last line may lack its end, and there may be none at all.
    assert_eq!(printed(&greetd_reading(b"Genji", &["call", &endpoint])), "welcome\nHello Genji\n");
    assert_eq!(printed(&greetd_reading(b"", &["call", &endpoint])), "welcome\n");
}

#[test]
fn datagrams_are_called_from_a_pipe_too() {
    let (_daemon, endpoint) = serving(&["-t", "udp", "-b", "127.0.0.1:0"]);
    assert_eq!(printed(&greetd_reading(b"Genji\nHanzo\n", &["call", &endpoint])), "Hello,Genji\nHello,Hanzo\n");
}

#[test]
fn a_pipe_gets_the_bytes_as_they_came() {
    let (_daemon, endpoint) = serving(&["-b", "127.0.0.1:0", "-H", "echo"]);
    let (code, stdout, stderr) = bytes_of(b"\x00\xff\x1b[31m\r\nb\n", &["call", &endpoint]);
    assert_eq!((code, stdout.as_slice()), (0, &b"\x00\xff\x1b[31m\r\nb\n"[..]), "{stderr}");
    // A reply that comes in many pieces is one line still.
    let mut long = vec![b'x'; 300_000];
    long.push(b'\n');
    let (code, stdout, stderr) = bytes_of(&long, &["call", &endpoint]);
    assert_eq!((code, stdout.len()), (0, long.len()), "{stderr}");
    assert!(stdout == long);
}

#[test]
fn a_reader_that_goes_away_ends_the_call_quietly() {
    let (_daemon, endpoint) = serving(&["-b", "127.0.0.1:0", "-H", "chargen"]);
    let (mut reader, writer) = std::io::pipe().unwrap();
    let mut child = command(&["call", &endpoint]).stdout(writer).stderr(std::process::Stdio::piped()).spawn().unwrap();
    reader.read_exact(&mut [0; 100]).unwrap();
    drop(reader);
    let mut said = String::new();
    child.stderr.take().unwrap().read_to_string(&mut said).unwrap();
    assert_eq!((child.wait().unwrap().code(), said.as_str()), (Some(0), ""));
}

#[test]
fn what_comes_after_the_last_reply_is_printed_until_the_server_ends() {
    let endpoint = once(|mut stream| {
        stream.write_all(b"welcome").unwrap();
        let mut asked = [0; 16];
        let length = stream.read(&mut asked).unwrap();
        stream.write_all(&asked[..length]).unwrap();
        assert_eq!(stream.read(&mut asked).unwrap(), 0, "the client says that it will send no more");
        stream.write_all(b"goodbye").unwrap();
    });
    assert_eq!(printed(&greetd(&["call", &endpoint, "Genji"])), "welcome\nGenji\ngoodbye\n");
}

#[test]
fn the_object_has_the_greeting_and_each_reply_with_its_time() {
    let (_daemon, endpoint) = serving(&["-b", "127.0.0.1:0"]);
    let object = greetd(&["call", "--json", &endpoint, "Genji", "exit"]).json();
    for time in [&object["connected_ms"], &object["took_ms"], &object["replies"][0]["after_ms"]] {
        assert!(time.as_f64().is_some_and(|time| time > 0.0 && time < 10_000.0), "{object}");
    }
    assert_eq!(object["remote"], endpoint.strip_prefix("tcp://").unwrap());
    assert!(object["local"].as_str().unwrap().starts_with("127.0.0.1:"), "{object}");
    assert_eq!(object["endpoint"], endpoint);
    assert_eq!((&object["verdict"], &object["greeting"]), (&"ok".into(), &"welcome".into()));
    assert_eq!((&object["replies"][0]["to"], &object["replies"][0]["reply"]), (&"Genji".into(), &"Hello Genji".into()));
    assert_eq!((object["replies"].as_array().unwrap().len(), &object["sent"]), (1, &2.into()));
}

#[test]
fn nobody_at_a_tcp_port_is_refused_and_who_has_the_port_is_named() {
    let (_socket, at) = nobody(Type::STREAM);
    let ran = greetd(&["call", &format!("tcp://{at}"), "x"]);
    assert_eq!((ran.code, ran.verdict()), (10, "refused"));
    let pid = std::process::id();
    let mut lines = ran.stderr.lines();
    assert_eq!(
        lines.next().unwrap(),
        format!("refused: failed to connect to tcp://{at}: connect({at}): Connection refused (ECONNREFUSED)")
    );
    // A program that another test starts just now has it too, for a moment.
    let holder = lines.next().unwrap();
    assert!(holder.contains(&format!("(pid {pid})")), "{ran:?}");
    assert!(holder.contains(&format!(" tcp {at} open: bound but not listening")), "{ran:?}");
    assert!(ran.stderr.contains(&format!("greetd why tcp://{at}")), "no other could be started there: {ran:?}");
    let object = greetd(&["call", "--json", &format!("tcp://{at}"), "x"]).json();
    assert_eq!((&object["verdict"], &object["tried"][0]["errno"]), (&"refused".into(), &"ECONNREFUSED".into()));
}

#[test]
fn a_listener_on_another_address_is_named_where_this_one_is_refused() {
    let listener = TcpListener::bind("127.0.0.2:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let ran = greetd(&["call", &format!("tcp://127.0.0.3:{port}"), "x"]);
    assert_eq!(ran.code, 10);
    assert!(ran.stderr.contains("none of these takes what is sent to 127.0.0.3:"), "{ran:?}");
    assert!(ran.stderr.contains(&format!(" tcp 127.0.0.2:{port} open: listening")), "{ran:?}");
}

#[test]
fn nobody_at_a_udp_port_is_refused_and_the_tcp_server_there_is_pointed_at() {
    let listener = TcpListener::bind("127.0.0.4:0").unwrap();
    let at = listener.local_addr().unwrap();
    let ran = greetd(&["call", &format!("udp://{at}"), "x"]);
    assert_eq!((ran.code, ran.verdict()), (10, "refused"), "{ran:?}");
    assert!(ran.stderr.contains(&format!("nothing on this machine is bound to udp port {}", at.port())), "{ran:?}");
    assert!(ran.stderr.ends_with(&format!("  call tcp://{at}\n")), "{ran:?}");
}

#[test]
fn no_reply_is_a_timeout_over_both_tcp_and_udp() {
    let (_socket, at) = nobody(Type::DGRAM);
    let ran = greetd(&["call", "--timeout", "300ms", &format!("udp://{at}"), "Genji"]);
    assert_eq!((ran.code, ran.verdict(), ran.stdout.as_str()), (11, "timeout", ""));
    assert!(
        ran.stderr
            .starts_with(&format!("timeout: failed to converse with udp://{at}: no reply to `Genji` within 300ms\n")),
        "{ran:?}"
    );
    assert!(ran.stderr.contains(&format!(" udp {at} open: unconnected")), "{ran:?}");

    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let endpoint = format!("tcp://{}", listener.local_addr().unwrap());
    let ran = greetd(&["call", "--timeout", "300ms", "--json", &endpoint, "Genji"]);
    assert_eq!((ran.code, ran.stderr.as_str()), (11, ""));
    assert_eq!((&ran.json()["verdict"], &ran.json()["sent"]), (&"timeout".into(), &1.into()));
}

#[test]
fn the_time_that_there_is_holds_for_a_server_that_never_pauses_too() {
    let (_daemon, endpoint) = serving(&["-b", "127.0.0.1:0", "-H", "chargen"]);
    let (code, stdout, stderr) = bytes_of(b"", &["call", "--timeout", "300ms", &endpoint, "x"]);
    assert_eq!(code, 11, "{stderr}");
    assert!(stderr.starts_with("timeout: ") && stderr.contains("it was not over within 300ms"), "{stderr}");
    assert!(!stdout.is_empty());
}

#[test]
fn a_server_that_ends_too_early_or_breaks_the_framing_is_unexpected() {
    let endpoint = once(drop);
    let ran = greetd(&["call", &endpoint, "Genji"]);
    assert_eq!((ran.code, ran.verdict()), (18, "unexpected"), "{ran:?}");
    assert!(ran.stderr.contains("it closed the connection before `Genji` could be sent"), "{ran:?}");

    let endpoint = once(drop);
    let ran = greetd_reading(b"Genji\n", &["call", &endpoint]);
    assert_eq!((ran.code, ran.verdict()), (18, "unexpected"), "{ran:?}");

    let endpoint = once(|mut stream| stream.write_all(b"HTTP/1.1 400 Bad Request\r\n").unwrap());
    let ran = greetd(&["call", "-f", "netstring", &endpoint, "Genji"]);
    assert_eq!((ran.code, ran.verdict()), (18, "unexpected"), "{ran:?}");
}

#[test]
fn a_message_that_cannot_be_sent_is_the_callers_own_mistake() {
    let (_daemon, endpoint) = serving(&["-b", "127.0.0.1:0", "-f", "lines"]);
    let ran = greetd(&["call", "-f", "lines", &endpoint, "a\nb"]);
    assert_eq!((ran.code, ran.verdict()), (2, "usage"), "{ran:?}");
    assert!(ran.stderr.starts_with("usage: failed to send `a\\nb` to tcp://"), "{ran:?}");
}

#[test]
fn a_server_that_resets_the_connection_after_the_last_reply_has_answered() {
    let endpoint = once(|mut stream| {
        stream.read_exact(&mut [0; 5]).unwrap();
        stream.write_all(b"Hello").unwrap();
        assert_eq!(stream.read(&mut [0; 5]).unwrap(), 0);
        socket2::SockRef::from(&stream).set_linger(Some(std::time::Duration::ZERO)).unwrap();
    });
    assert_eq!(printed(&greetd(&["call", &endpoint, "Genji"])), "Hello\n");
}

#[test]
fn a_name_without_an_address_is_unresolved() {
    let ran = greetd(&["call", "tcp://no-such-host.invalid:80", "x"]);
    assert_eq!((ran.code, ran.verdict()), (14, "unresolved"), "{ran:?}");
}

#[test]
fn only_the_family_that_was_asked_for_is_tried() {
    let (_daemon, endpoint) = serving(&["-b", "127.0.0.1:0"]);
    assert_eq!(greetd(&["call", "-4", &endpoint, "exit"]).code, 0);
    let ran = greetd(&["call", "-6", &endpoint, "exit"]);
    assert_ne!(ran.code, 0, "{ran:?}");
}

#[test]
fn without_a_route_it_is_unreachable_and_behind_a_filter_prohibited() {
    // Networks of its own: nothing of this machine's is touched.
    let in_namespace = |script: &str| -> Option<(i32, Vec<u8>, String)> {
        let mut unshare: Command = tool("unshare")?;
        tool("ip")?;
        unshare.args(["--user", "--map-root-user", "--net", "sh", "-ec", script, "sh", env!("CARGO_BIN_EXE_greetd")]);
        Some(run(unshare, b""))
    };
    if in_namespace("true").is_none_or(|(code, ..)| code != 0) {
        return command::left_out::<()>("unshare(1) or ip(8) does not work here").unwrap_or_default();
    }
    let Some((code, _, stderr)) = in_namespace("ip link set lo up; exec \"$1\" call tcp://203.0.113.1:80 x") else {
        return;
    };
    assert_eq!(code, 12, "{stderr}");
    assert!(stderr.starts_with("unreachable: "), "{stderr}");
    assert!(stderr.contains("this machine has no IPv4 address to call it from; it has 127.0.0.1 (lo)"), "{stderr}");

    let script = "ip link set lo up; ip route add prohibit 203.0.113.0/24; exec \"$1\" call tcp://203.0.113.1:80 x";
    let Some((code, _, stderr)) = in_namespace(script) else { return };
    assert_eq!(code, 13, "{stderr}");
    assert!(stderr.starts_with("prohibited: "), "{stderr}");
}

#[test]
fn a_person_on_a_terminal_sees_safe_replies_and_ends_with_ctrl_d() {
    let Some(mut typist) = python("typist.py") else { return };
    let (_daemon, endpoint) = serving(&["-b", "127.0.0.1:0", "-H", "hello?word=%1b[31mHello"]);
    let state = tempfile::tempdir().unwrap();
    // Each step waits for what the terminal shows, then types.
    typist.args(["welcome", "Genji\\r", "Hello Genji", "\\x04", "--", env!("CARGO_BIN_EXE_greetd"), "call", &endpoint]);
    typist.env("XDG_STATE_HOME", state.path()).env("TERM", "xterm");
    let (code, shown, stderr) = run(typist, b"");
    let shown = String::from_utf8_lossy(&shown);
    assert_eq!(code, 0, "{shown} {stderr}");
    assert!(shown.contains("\\x1b[31mHello Genji"), "the peer's escape sequence is shown, not obeyed: {shown:?}");
    let history = std::fs::read_to_string(state.path().join("greetd/call_history")).unwrap();
    assert!(history.lines().any(|line| line == "Genji"), "{history}");
}

#[test]
fn a_person_sees_the_last_words_of_a_server_that_ends_the_conversation() {
    let Some(mut typist) = python("typist.py") else { return };
    let endpoint = once(|mut stream| {
        stream.write_all(b"welcome").unwrap();
        stream.read_exact(&mut [0; 4]).unwrap();
        stream.write_all(b"goodbye").unwrap();
    });
    typist.args(["welcome", "exit\\r", "--", env!("CARGO_BIN_EXE_greetd"), "call", &endpoint]).env("TERM", "xterm");
    let state = tempfile::tempdir().unwrap();
    let (code, shown, stderr) = run(
        {
            typist.env("XDG_STATE_HOME", state.path());
            typist
        },
        b"",
    );
    let shown = String::from_utf8_lossy(&shown);
    assert_eq!(code, 0, "{shown} {stderr}");
    assert!(shown.contains("goodbye") && shown.contains("(the server ended the conversation)"), "{shown:?}");
}
