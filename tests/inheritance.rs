//! What programs that greetd starts get of it: what they are given, and nothing else.

#[path = "support/command.rs"]
#[expect(dead_code, reason = "each of the black-box tests needs a part of it")]
mod command;

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::path::Path;

use command::{Daemon, PATIENCE, is_there};

/// `O_CLOEXEC`, as fdinfo shows it; proc_pid_fdinfo(5).
const CLOSES_AT_EXEC: u32 = 0o2_000_000;

/// The descriptors above 2 that a program would inherit from the process.
fn passed_on(process: u32) -> Vec<String> {
    let folder = std::path::PathBuf::from(format!("/proc/{process}"));
    let mut passed_on = Vec::new();
    for entry in std::fs::read_dir(folder.join("fdinfo")).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        let info = std::fs::read_to_string(folder.join("fdinfo").join(&name)).unwrap();
        let flags = info.lines().find_map(|line| line.strip_prefix("flags:")).unwrap().trim();
        if name.parse::<u32>().unwrap() > 2 && u32::from_str_radix(flags, 8).unwrap() & CLOSES_AT_EXEC == 0 {
            let what = std::fs::read_link(folder.join("fd").join(&name));
            passed_on.push(format!("{name}: {what:?}"));
        }
    }
    passed_on
}

/// Which descriptors must be closed for a child is looked up once, before anything is served: it must stay right.
#[test]
fn whatever_a_busy_daemon_opens_closes_by_itself_when_a_program_is_started() {
    if !is_there("python3") {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).display().to_string();
    let plugin = Path::new(env!("CARGO_MANIFEST_DIR")).join("plugins/python/hello.py").display().to_string();
    let listeners = [
        "tcp://127.0.0.1:0=exec:cat".to_owned(),
        "tcp://127.0.0.1:0=py-hello".to_owned(),
        format!("unix://{}=hello", path("stream")),
        format!("unixpacket://{}=hello", path("packets")),
        format!("unixgram://{}=hello", path("datagrams")),
        "udp://127.0.0.1:0=hello".to_owned(),
        "udp://[::1]:0=exec:cat".to_owned(),
    ];
    let mut arguments = vec!["--workers", "2", "--plugin", &plugin];
    arguments.extend(listeners.iter().flat_map(|listener| ["-l", listener]));
    let mut daemon = Daemon::start(&arguments);
    let endpoints: Vec<_> = listeners.iter().map(|_| daemon.endpoint()).collect();
    let connected = |endpoint: &str| {
        let mut stream = TcpStream::connect(endpoint.trim_start_matches("tcp://")).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.write_all(b"Genji").unwrap();
        assert!(stream.read(&mut [0; 99]).unwrap() > 0);
        stream
    };
    // A session of each kind is open while it is looked at.
    let _sessions = [connected(&endpoints[0]), connected(&endpoints[1])];
    let mut unix = UnixStream::connect(path("stream")).unwrap();
    assert!(unix.read(&mut [0; 99]).unwrap() > 0);
    let called = command::greetd(&["call", &endpoints[6], "Genji"]);
    assert_eq!(called.stdout, "Genji\n");
    // What it inherited itself, from whatever runs these tests, was looked up.
    let inherited = passed_on(std::process::id());
    let opened: Vec<_> = passed_on(daemon.pid()).into_iter().filter(|open| !inherited.contains(open)).collect();
    assert_eq!(opened, Vec::<String>::new());
}

/// A plugin says what it sees, and leaves a process behind.
const PRYING: &str = r#"#!/usr/bin/env python3
import os, subprocess, sys
sys.path.insert(0, os.environ["SAMPLES"])
from greetd import serve
child = subprocess.Popen(["sleep", "1000"])

def prying(session):
    # os.listdir itself holds descriptor 3.
    yield repr((sorted(os.listdir("/proc/self/fd")), sorted(os.environ), os.getpgrp() == os.getpid(), child.pid)).encode()
    yield b""

serve(prying=prying)
"#;

#[test]
fn a_plugin_sees_three_descriptors_and_its_own_environment_and_dies_with_what_it_started() {
    if !is_there("python3") {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("prying.py");
    std::fs::write(&path, PRYING).unwrap();
    std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let samples = concat!("SAMPLES=", env!("CARGO_MANIFEST_DIR"), "/plugins/python");
    let mut command = command::command(&["--plugin", &path.display().to_string(), "-H", "prying", "-b", "127.0.0.1:0"]);
    command.args(["--plugin-env", samples, "--plugin-env", "NAMED"]).env("NAMED", "x").env("SECRET", "of greetd");
    let mut daemon = Daemon::spawn(command);
    let mut stream = TcpStream::connect(daemon.address()).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut seen = [0; 999];
    let size = stream.read(&mut seen).unwrap();
    let seen = String::from_utf8_lossy(&seen[..size]).into_owned();
    let (seen, child) = seen.trim_end_matches(')').rsplit_once(", ").unwrap();
    let variables = "['LANG', 'NAMED', 'PATH', 'SAMPLES']";
    // Some Pythons name their character set when they start.
    let seen = seen.replace("'LC_CTYPE', ", "");
    assert_eq!(seen, format!("(['0', '1', '2', '3'], {variables}, True"));
    drop(stream);
    assert_eq!(daemon.stop().code, 0);
    let stat = format!("/proc/{child}/stat");
    command::until("the end of what the plugin started", || {
        std::fs::read_to_string(&stat).map_or(true, |stat| stat.contains(") Z "))
    });
}
