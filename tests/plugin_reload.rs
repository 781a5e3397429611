//! SIGHUP: a plugin that changed is loaded again while it is called without a pause, and nobody notices.

#[path = "support/command.rs"]
#[expect(dead_code, reason = "each of the black-box tests needs a part of it")]
mod command;

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;

use command::{Daemon, PATIENCE, is_there};
use nix::sys::signal::Signal;

/// In the place of an old one, not into it: it may be running.
fn write_plugin(path: &Path, serve: &str) {
    let new = path.with_extension("new");
    let samples = concat!(env!("CARGO_MANIFEST_DIR"), "/plugins/python");
    let text = format!(
        "#!/usr/bin/env python3\nimport os, sys, time\nsys.path.insert(0, '{samples}')\nfrom greetd import serve\n{serve}\n"
    );
    std::fs::write(&new, text).unwrap();
    std::fs::set_permissions(&new, std::fs::Permissions::from_mode(0o755)).unwrap();
    std::fs::rename(new, path).unwrap();
}

fn version(number: usize) -> String {
    format!("def says(session):\n    while True:\n        yield b'v{number}'\nserve(says=says)")
}

/// What does not stand, in one way or another.
const BAD: [&str; 5] = [
    "raise SystemExit(3)",
    "os.write(1, b'greetd-plugin 2 says\\n'); time.sleep(1000)",
    "print('Hello', flush=True)",
    "def other(session): yield\nserve(other=other)",
    "def says(session):\n    os._exit(4)\n    yield\nserve(says=says)",
];

fn connect(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(address).expect("nobody is refused");
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream
}

fn hears(stream: &mut TcpStream) -> [u8; 2] {
    let mut word = [0; 2];
    stream.read_exact(&mut word).expect("nobody is cut off");
    word
}

/// A thread that talks until it is told to end; what it does, it does again and again.
fn again_and_again(
    end: &Arc<AtomicBool>,
    times: &Arc<AtomicUsize>,
    mut talk: impl FnMut() + Send + 'static,
) -> JoinHandle<()> {
    let (end, times) = (end.clone(), times.clone());
    std::thread::spawn(move || {
        while !end.load(Ordering::Relaxed) {
            talk();
            times.fetch_add(1, Ordering::Relaxed);
        }
    })
}

#[test]
fn ten_reloads_five_of_them_bad_refuse_and_cut_nobody() {
    if !is_there("python3") {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("says.py");
    write_plugin(&path, &version(0));
    let mut daemon = Daemon::start(&["--plugin", &path.display().to_string(), "-H", "says", "-b", "127.0.0.1:0"]);
    let address = daemon.address();
    let (end, times) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let mut talks = Vec::new();
    for _ in 0..4 {
        // One session through all of it stays with the version that it began with.
        let mut stream = connect(address);
        assert_eq!(&hears(&mut stream), b"v0");
        talks.push(again_and_again(&end, &times, move || {
            stream.write_all(b"and you?").expect("nobody is cut off");
            assert_eq!(&hears(&mut stream), b"v0");
        }));
        talks.push(again_and_again(&end, &times, move || {
            let mut stream = connect(address);
            let word = hears(&mut stream);
            stream.write_all(b"still?").expect("nobody is cut off");
            assert_eq!(hears(&mut stream), word, "a session has one version");
        }));
    }
    for reload in 1..=5 {
        write_plugin(&path, BAD[reload - 1]);
        daemon.signal(Signal::SIGHUP);
        daemon.wait_for("plugin.not-reloaded");
        assert_eq!(&hears(&mut connect(address)), format!("v{}", reload - 1).as_bytes());
        write_plugin(&path, &version(reload));
        daemon.signal(Signal::SIGHUP);
        daemon.wait_for("plugin.reloaded");
        assert_eq!(&hears(&mut connect(address)), format!("v{reload}").as_bytes());
    }
    end.store(true, Ordering::Relaxed);
    for talk in talks {
        talk.join().expect("it heard all that it should");
    }
    assert!(times.load(Ordering::Relaxed) > 100);
    assert_eq!(daemon.stop().code, 0);
}
