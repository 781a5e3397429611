//! The files of Unix sockets: what becomes of them when daemons start, are killed, and stop.

#[path = "support/command.rs"]
#[expect(dead_code, reason = "each of the tests of the command line needs a part of it")]
mod command;

use std::io::Read as _;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Command;

use command::{Daemon, PATIENCE, greetd};
use nix::sys::signal::Signal;

const EVERY_TRANSPORT: [&str; 3] = ["unix", "unixpacket", "unixgram"];

/// A directory, and an endpoint in it.
fn place(transport: &str) -> (tempfile::TempDir, PathBuf, String) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("x.sock");
    let endpoint = format!("{transport}://{}", path.display());
    (directory, path, endpoint)
}

fn serve(endpoint: &str) -> Daemon {
    let mut daemon = Daemon::start(&["-l", endpoint]);
    daemon.endpoint();
    daemon
}

fn mode(path: &Path) -> u32 {
    path.metadata().unwrap().permissions().mode() & 0o777
}

#[test]
fn a_daemon_replaces_what_a_killed_one_left_and_takes_its_file_with_it() {
    for transport in EVERY_TRANSPORT {
        let (_directory, path, endpoint) = place(transport);
        let killed = serve(&endpoint);
        killed.signal(Signal::SIGKILL);
        drop(killed);
        assert!(path.exists(), "{transport}");
        let daemon = serve(&endpoint);
        assert_eq!(daemon.stop().code, 0, "{transport}");
        assert!(!path.exists(), "{transport}");
    }
}

#[test]
fn a_second_daemon_is_refused_and_the_first_serves_on() {
    for transport in EVERY_TRANSPORT {
        let (_directory, path, endpoint) = place(transport);
        let _first = serve(&endpoint);
        let second = greetd(&["-l", &endpoint]);
        assert_eq!((second.code, second.verdict()), (15, "in-use"), "{second:?}");
        assert!(path.exists(), "{transport}");
        if transport == "unix" {
            let mut client = UnixStream::connect(&path).unwrap();
            client.set_read_timeout(Some(PATIENCE)).unwrap();
            let mut greeting = [0; 7];
            client.read_exact(&mut greeting).unwrap();
            assert_eq!(&greeting, b"welcome");
        }
    }
}

#[test]
fn a_file_that_is_no_socket_is_refused_and_stays() {
    for transport in EVERY_TRANSPORT {
        let (_directory, path, endpoint) = place(transport);
        std::fs::write(&path, "precious").unwrap();
        let refused = greetd(&["-l", &endpoint]);
        assert_eq!((refused.code, refused.verdict()), (15, "in-use"), "{refused:?}");
        assert!(refused.stderr.contains("the file is a regular file, no socket"), "{refused:?}");
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "precious");
    }
}

#[test]
fn only_the_owner_may_call_whatever_the_umask_says_unless_the_mode_does() {
    for (umask, query, expected) in
        [("000", "", 0o600), ("077", "", 0o600), ("077", "?mode=0666", 0o666), ("000", "?mode=0660", 0o660)]
    {
        let (_directory, path, endpoint) = place("unix");
        let mut shell = Command::new("sh");
        shell.args(["-c", "umask $1; exec \"$0\" -l \"$2\"", env!("CARGO_BIN_EXE_greetd"), umask]);
        shell.arg(format!("{endpoint}{query}"));
        let mut daemon = Daemon::spawn(shell);
        daemon.endpoint();
        assert_eq!(mode(&path), expected, "umask {umask}, {query}");
    }
}
