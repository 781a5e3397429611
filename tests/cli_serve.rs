//! The daemon: what it says when it is ready, how it serves, how it ends, and what it says when it cannot bind.

#[path = "support/command.rs"]
#[expect(dead_code, reason = "each of the tests of the command line needs a part of it")]
mod command;

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::unix::process::CommandExt as _;

use command::{Daemon, command, greetd, left_out, python, run, tool};
use nix::sys::signal::Signal;
use socket2::{Domain, Socket, Type};

/// The address in an endpoint such as `tcp://127.0.0.1:8080`.
fn address(endpoint: &str) -> SocketAddr {
    endpoint.split_once("://").unwrap().1.parse().unwrap()
}

#[test]
fn one_line_a_listener_and_nothing_else_goes_to_stdout() {
    let mut daemon =
        Daemon::start(&["-l", "tcp://127.0.0.1:0", "-l", "udp://127.0.0.1:0=echo", "-l", "tcp://[::1]:0", "-v"]);
    let lines: Vec<_> = (0..3).map(|_| daemon.line()).collect();
    let without_port: Vec<_> = lines
        .iter()
        .map(|line| {
            let (address, handler) = line.rsplit_once(' ').unwrap();
            let (address, port) = address.rsplit_once(':').unwrap();
            assert_ne!(port.parse::<u16>().unwrap(), 0, "{line}");
            format!("{address} {handler}")
        })
        .collect();
    assert_eq!(
        without_port,
        [
            "listening tcp://127.0.0.1 handler=hello",
            "listening udp://127.0.0.1 handler=echo",
            "listening tcp://[::1] handler=hello"
        ]
    );
    let ended = daemon.stop();
    assert_eq!((ended.code, ended.stdout.as_str()), (0, ""), "{ended:?}");
    assert!(ended.stderr.contains("drain.finished"), "{ended:?}");
}

#[test]
fn the_transport_the_handler_and_the_address_are_what_was_asked_for() {
    for arguments in [
        &["--transport", "udp", "--handler", "hello", "--bind", "127.0.0.1:0"][..],
        &["serve", "-t", "udp", "-H", "hello", "-b", "127.0.0.1:0"],
    ] {
        let mut daemon = Daemon::start(arguments);
        let endpoint = daemon.endpoint();
        assert!(endpoint.starts_with("udp://127.0.0.1:"), "{endpoint}");
        let client = UdpSocket::bind("127.0.0.1:0").unwrap();
        client.send_to(b"Genji", address(&endpoint)).unwrap();
        let mut reply = [0; 64];
        let length = client.recv(&mut reply).unwrap();
        assert_eq!(&reply[..length], b"Hello,Genji");
        assert_eq!(daemon.stop().code, 0);
    }
}

#[test]
fn the_clients_of_a_tutorial_are_greeted() {
    for (transport, program, expected) in [
        ("tcp", "tcp_client.py", "welcome\nHello Genji\nHello Hanzo\nHello Mcree\n"),
        ("udp", "udp_client.py", "Hello,Genji\nHello,Hanzo\nHello,Mcree\n"),
    ] {
        let Some(mut client) = python(program) else { return };
        let mut daemon = Daemon::start(&["-t", transport, "-b", "127.0.0.1:0"]);
        let port = address(&daemon.endpoint()).port();
        client.arg(port.to_string());
        let (code, stdout, stderr) = run(client, b"");
        assert_eq!((code, String::from_utf8(stdout).unwrap().as_str()), (0, expected), "{stderr}");
        assert_eq!(daemon.stop().code, 0);
    }
}

#[test]
fn options_of_the_command_line_reach_every_listener_and_a_query_goes_before_them() {
    let mut daemon = Daemon::start(&[
        "-l",
        "tcp://127.0.0.1:0?framing=lines=upper",
        "-l",
        "tcp://127.0.0.1:0=upper",
        "-f",
        "netstring",
    ]);
    for (asked, answer) in [("a\n", "A\n"), ("1:a,", "1:A,")] {
        let mut client = TcpStream::connect(address(&daemon.endpoint())).unwrap();
        client.write_all(asked.as_bytes()).unwrap();
        client.shutdown(std::net::Shutdown::Write).unwrap();
        let mut answered = String::new();
        client.read_to_string(&mut answered).unwrap();
        assert_eq!(answered, answer);
    }
}

/// A session that writes without end to a client that reads no more: more waits to be written than fits between them.
fn stuck(drain_timeout: &str) -> (Daemon, Socket) {
    let mut daemon = Daemon::start(&[
        "-b",
        "127.0.0.1:0",
        "-H",
        "chargen",
        "--send-buffer",
        "4KiB",
        "--drain-timeout",
        drain_timeout,
    ]);
    let client = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    client.set_recv_buffer_size(4096).unwrap();
    client.connect(&address(&daemon.endpoint()).into()).unwrap();
    (&client).read_exact(&mut [0]).unwrap();
    (daemon, client)
}

#[test]
fn sessions_that_will_not_end_are_cut_at_the_deadline_and_that_is_a_failure() {
    let (daemon, _client) = stuck("50ms");
    let ended = daemon.stop();
    assert_eq!(ended.code, 1, "{ended:?}");
    let last = ended.stderr.lines().last().unwrap();
    assert_eq!(last, "failed: 1 session had to be cut at the end of the drain; 0 had ended by themselves");
}

#[test]
fn a_second_signal_ends_the_drain_at_once() {
    let (mut daemon, _client) = stuck("1h");
    daemon.signal(Signal::SIGTERM);
    daemon.wait_for("drain.started");
    daemon.signal(Signal::SIGINT);
    assert_eq!(daemon.wait().code, 1);
}

#[test]
fn an_idle_session_does_not_hold_up_the_end() {
    let mut daemon = Daemon::start(&["-b", "127.0.0.1:0", "--drain-timeout", "1s"]);
    let mut client = TcpStream::connect(address(&daemon.endpoint())).unwrap();
    client.read_exact(&mut [0; 7]).unwrap();
    assert_eq!(daemon.stop().code, 0);
    assert_eq!(client.read_to_end(&mut Vec::new()).unwrap(), 0);
}

#[test]
fn signals_without_a_meaning_yet_are_said_and_end_nothing() {
    let mut daemon = Daemon::start(&["-b", "127.0.0.1:0"]);
    let at = address(&daemon.endpoint());
    daemon.signal(Signal::SIGHUP);
    daemon.wait_for("SIGHUP is ignored");
    daemon.signal(Signal::SIGUSR2);
    daemon.wait_for("SIGUSR2 is ignored");
    TcpStream::connect(at).unwrap().read_exact(&mut [0; 7]).unwrap();
    assert_eq!(daemon.stop().code, 0);
}

#[test]
fn a_reader_of_the_listening_line_that_is_gone_ends_the_daemon_quietly() {
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let mut command = command(&["-b", "127.0.0.1:0", "-q"]);
    let output = command.stdout(writer).output().unwrap();
    assert_eq!((output.status.code(), output.stderr.len()), (Some(0), 0), "{output:?}");
}

#[test]
fn the_soft_limit_of_open_files_goes_to_the_hard_one() {
    let Some(mut shell) = tool("sh") else { return };
    shell.args(["-c", "ulimit -Sn 64; exec \"$@\"", "sh", env!("CARGO_BIN_EXE_greetd"), "-b", "127.0.0.1:0"]);
    let mut daemon = Daemon::spawn(shell);
    daemon.line();
    let limits = std::fs::read_to_string(format!("/proc/{}/limits", daemon.pid())).unwrap();
    let files = limits.lines().find(|line| line.starts_with("Max open files")).unwrap();
    let words: Vec<_> = files.split_whitespace().collect();
    assert_eq!(words[3], words[4], "{files}");
}

#[test]
fn limits_that_need_more_files_than_there_may_be_are_told() {
    let Some(mut shell) = tool("sh") else { return };
    shell.args([
        "-c",
        "ulimit -n 100; exec \"$@\"",
        "sh",
        env!("CARGO_BIN_EXE_greetd"),
        "--check",
        "--max-sessions",
        "200",
    ]);
    let (code, _, stderr) = run(shell, b"");
    assert_eq!(code, 0);
    insta::assert_snapshot!(stderr, @r"
    ok: tcp://127.0.0.1:8080?max-sessions=200 handler=hello
    warning: 200 sessions (max-sessions) need 264 descriptors, and RLIMIT_NOFILE allows 100: raise its hard limit (LimitNOFILE= of systemd, or limits.conf), or lower --max-sessions to 36 in all
    ");
}

#[test]
fn a_check_opens_nothing() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let ran = greetd(&["--check", "--json", "-b", &address]);
    assert_eq!((ran.code, ran.stderr.as_str()), (0, ""));
    assert_eq!(ran.json()["listeners"][0]["endpoint"], format!("tcp://{address}"));
}

#[test]
fn the_holder_of_an_address_is_named() {
    let mut holder = Daemon::start(&["-b", "127.0.0.1:0"]);
    let endpoint = holder.endpoint();
    let at = address(&endpoint);
    let ran = greetd(&["-b", &at.to_string()]);
    assert_eq!((ran.code, ran.stdout.as_str()), (15, ""));
    let pid = holder.pid();
    assert_eq!(
        ran.stderr,
        format!(
            "in-use: failed to bind {endpoint}: bind({at}): Address already in use (EADDRINUSE)\n  greetd (pid {pid}) \
             has tcp {at} open: listening, backlog 0 of {}, SO_REUSEADDR, no SO_REUSEPORT\n  stop it (kill {pid}), or \
             bind another address or port; port 0 lets the kernel choose a free one\n",
            backlog()
        )
    );
    let ran = greetd(&["--json", "-b", &format!("0.0.0.0:{}", at.port())]);
    assert_eq!((ran.code, ran.stderr.as_str()), (15, ""));
    let object = ran.json();
    assert_eq!(object["verdict"], "in-use");
    assert_eq!(object["failed"]["errno"], "EADDRINUSE");
    let holder = &object["holders"][0];
    assert_eq!(holder["processes"][0]["pid"], pid);
    assert_eq!((&holder["state"], &holder["local"]), (&"listening".into(), &at.to_string().into()));
    assert_eq!(holder["options"]["reuse_addr"], true);
}

/// What the kernel makes of the default backlog.
fn backlog() -> u32 {
    std::fs::read_to_string("/proc/sys/net/core/somaxconn").unwrap().trim().parse::<u32>().unwrap().min(4096)
}

#[test]
fn a_holder_that_is_bound_and_does_not_listen_is_found() {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.bind(&"127.0.0.1:0".parse::<SocketAddr>().unwrap().into()).unwrap();
    let at = socket.local_addr().unwrap().as_socket().unwrap();
    let ran = greetd(&["-b", &at.to_string()]);
    assert_eq!(ran.code, 15);
    let pid = std::process::id();
    let holder = ran.stderr.lines().nth(1).unwrap();
    // A program that another test starts just now has it too, for a moment.
    assert!(holder.contains(&format!("(pid {pid})")), "{holder}");
    assert!(holder.contains(&format!(" tcp {at} open: bound but not listening")), "{holder}");
    assert!(holder.contains("no SO_REUSEADDR"), "{}", ran.stderr);
}

#[test]
fn connections_that_outlive_their_listener_are_counted() {
    // A listener without SO_REUSEADDR that closes first leaves its port taken.
    let listener = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    listener.bind(&"127.0.0.1:0".parse::<SocketAddr>().unwrap().into()).unwrap();
    listener.listen(1).unwrap();
    let at = listener.local_addr().unwrap().as_socket().unwrap();
    let mut client = TcpStream::connect(at).unwrap();
    drop(listener.accept().unwrap());
    drop(listener);
    client.read_to_end(&mut Vec::new()).unwrap();
    drop(client);
    let ran = greetd(&["-b", &at.to_string()]);
    assert_eq!(ran.code, 15, "{ran:?}");
    let cause = ran.stderr.lines().nth(1).unwrap();
    assert_eq!(cause, "  1 connection has the port, of a listener that is no more: 1 time-wait");
}

#[test]
fn listeners_of_one_command_that_are_in_each_others_way_are_named() {
    // An address of its own: nobody else takes the port in between.
    let free = TcpListener::bind("127.77.0.1:0").unwrap().local_addr().unwrap();
    let (one, other) = (format!("tcp://{free}"), format!("tcp://{free}=echo"));
    let ran = greetd(&["-l", &one, "-l", &other]);
    assert_eq!((ran.code, ran.verdict()), (15, "in-use"), "{ran:?}");
    assert!(ran.stderr.contains(&format!("another listener of this command has it: {one}\n")), "{ran:?}");
}

#[test]
fn the_holder_of_a_unix_socket_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("s").display().to_string();
    let mut holder = Daemon::start(&["-t", "unix", "-b", &path]);
    assert_eq!(holder.endpoint(), format!("unix://{path}"));
    let ran = greetd(&["-t", "unix", "-b", &path]);
    assert_eq!((ran.code, ran.verdict()), (15, "in-use"), "{ran:?}");
    assert!(ran.stderr.contains(&format!("greetd (pid {}) has {path} open: listening", holder.pid())), "{ran:?}");
    assert_eq!(greetd(&["call", &format!("unix://{path}"), "exit"]).stdout, "welcome\n");
    // Killed, it leaves its file behind.
    drop(holder);
    let ran = greetd(&["call", &format!("unix://{path}"), "exit"]);
    assert_eq!((ran.code, ran.verdict()), (10, "refused"), "{ran:?}");
    assert!(ran.stderr.contains("it was left behind by a process that is no more"), "{ran:?}");
}

#[test]
fn an_address_of_another_machine_is_answered_with_those_of_this_one() {
    let ran = greetd(&["-b", "203.0.113.77:0"]);
    assert_eq!((ran.code, ran.verdict()), (16, "not-local"));
    let cause = ran.stderr.lines().nth(1).unwrap();
    assert!(cause.starts_with("  203.0.113.77 is no address of this machine, which has "), "{cause}");
    assert!(cause.contains("127.0.0.1 (lo)"), "{cause}");
    assert!(greetd(&["-b", "203.0.113.77:0", "--json"]).json()["addresses"].as_array().unwrap().len() > 1);
}

#[test]
fn a_user_without_the_right_to_low_ports_is_told_of_both_ways_to_it() {
    const NOBODY: u32 = 65_534;
    if !nix::unistd::geteuid().is_root() {
        return left_out::<()>("another user can be tried as root alone").unwrap_or_default();
    }
    let mut command = command(&["-b", "127.0.0.1:1", "-q"]);
    command.uid(NOBODY).gid(NOBODY);
    let Ok(output) = command.output() else {
        return left_out::<()>("another user may not run the binary").unwrap_or_default();
    };
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(17), "{stderr}");
    assert!(stderr.starts_with("permission: failed to bind tcp://127.0.0.1:1: bind(127.0.0.1:1): Permission denied (EACCES)\n  port 1 is below net.ipv4.ip_unprivileged_port_start, which is "), "{stderr}");
    assert!(
        stderr.contains("CAP_NET_BIND_SERVICE") && stderr.contains("sysctl net.ipv4.ip_unprivileged_port_start=1"),
        "{stderr}"
    );
}

#[test]
fn an_interface_that_there_is_not_is_answered_with_those_that_there_are() {
    let ran = greetd(&["-b", "127.0.0.1:0", "--device", "nosuch0"]);
    assert!(ran.stderr.contains("setsockopt(SO_BINDTODEVICE, nosuch0)"), "{ran:?}");
    match ran.code {
        1 => assert!(ran.stderr.contains("the interfaces of this machine are lo"), "{ran:?}"),
        17 => assert!(ran.stderr.contains("CAP_NET_RAW"), "{ran:?}"),
        _ => panic!("{ran:?}"),
    }
}

#[test]
fn on_a_terminal_the_addresses_to_dial_are_shown_too() {
    let Some(mut typist) = python("typist.py") else { return };
    typist.args(["from other hosts", "\\x03", "--", env!("CARGO_BIN_EXE_greetd"), "-b", "127.0.0.1:0"]);
    let (code, shown, stderr) = run(typist, b"");
    let shown = String::from_utf8_lossy(&shown);
    assert_eq!(code, 0, "{shown} {stderr}");
    let endpoint = shown.lines().next().unwrap().split(' ').nth(1).unwrap();
    assert!(shown.contains(&format!("  from here: {endpoint} (lo)")), "{shown}");
    assert!(
        shown.contains("  from other hosts: not at all; to be reached by them, bind every address: --bind :"),
        "{shown}"
    );
}

#[test]
fn colour_is_for_terminals_that_did_not_decline_it() {
    for (no_color, coloured) in [("", true), ("1", false)] {
        let Some(mut typist) = python("typist.py") else { return };
        typist.args(["--", env!("CARGO_BIN_EXE_greetd"), "-t", "nothing"]).env("NO_COLOR", no_color);
        let (code, shown, _) = run(typist, b"");
        assert_eq!(code, 2);
        assert_eq!(shown.contains(&0x1b), coloured, "{}", String::from_utf8_lossy(&shown));
    }
}

#[test]
fn a_name_without_an_address_is_unresolved() {
    let ran = greetd(&["-b", "no-such-host.invalid:0"]);
    assert_eq!((ran.code, ran.verdict()), (14, "unresolved"), "{ran:?}");
}

#[test]
fn the_verdict_stands_before_whatever_was_logged_on_the_way_to_it() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let Some(mut shell) = tool("sh") else { return };
    // Too few descriptors for the sessions is a warning, and the address is taken.
    shell.args(["-c", "ulimit -n 100; exec \"$@\"", "sh", env!("CARGO_BIN_EXE_greetd"), "-b"]);
    shell.arg(taken.local_addr().unwrap().to_string());
    let (code, _, stderr) = run(shell, b"");
    assert_eq!(code, 15);
    assert!(stderr.starts_with("in-use: ") && stderr.contains(" WARN "), "{stderr}");
}

#[test]
fn a_log_in_json_is_an_object_a_line() {
    let mut daemon = Daemon::start(&["-b", "127.0.0.1:0", "--log-format", "json", "--log-level", "debug"]);
    let mut client = TcpStream::connect(address(&daemon.endpoint())).unwrap();
    client.read_exact(&mut [0; 7]).unwrap();
    let ended = daemon.stop();
    let lines: Vec<serde_json::Value> =
        ended.stderr.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|_| panic!("{line}"))).collect();
    let closed = lines.iter().find(|line| line["message"] == "session.closed").unwrap();
    assert_eq!((&closed["level"], &closed["bytes_out"]), (&"debug".into(), &7.into()), "{closed}");
}

#[test]
fn ready_is_one_object_where_json_was_asked_for() {
    let mut daemon = Daemon::start(&["-b", "127.0.0.1:0", "--json"]);
    let object: serde_json::Value = serde_json::from_str(&daemon.line()).unwrap();
    assert_eq!(object["verdict"], "ok");
    assert_eq!(object["listeners"][0]["handler"], "hello");
    let ended = daemon.stop();
    assert_eq!((ended.code, ended.stdout.as_str()), (0, ""));
}
