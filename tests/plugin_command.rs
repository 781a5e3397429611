//! `greetd --plugin`, `greetd plugin check` and `greetd plugin new`, from the outside.

#[path = "support/command.rs"]
#[expect(dead_code, reason = "each of the black-box tests needs a part of it")]
mod command;

use command::is_there;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

fn greetd(words: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_greetd"));
    command.args(words).stdin(Stdio::null());
    command
}

fn sample(path: &str) -> String {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("plugins").join(path).display().to_string()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn succeeds(output: &Output) -> String {
    assert!(output.status.success(), "{}{}", text(&output.stdout), text(&output.stderr));
    text(&output.stdout)
}

fn check(path: &str) -> Output {
    greetd(&["plugin", "check", path]).output().unwrap()
}

#[test]
fn every_sample_passes_the_check() {
    for (tool, path) in [
        ("python3", "python/hello.py"),
        ("python3", "python/plain.py"),
        ("bash", "shell/hello.sh"),
        ("node", "node/hello.mjs"),
    ] {
        if is_there(tool) {
            let report = succeeds(&check(&sample(path)));
            assert!(report.contains("bears peers that leave in the middle"), "{report}");
            assert!(report.ends_with("ok: ends when its stdin does\n") && !report.contains("warning"), "{report}");
        }
    }
}

#[test]
fn the_check_says_what_a_plugin_does_wrong() {
    if !is_there("python3") {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    for (fault, program, words) in [
        ("mute", "os.read(0, 1)", "closed its stdout where the opening of a connection was to be answered"),
        ("print", "print('x' * 20, flush=True); time.sleep(9)", "which would be a frame of 2021161080 bytes"),
        (
            "twice",
            "while os.read(0, 65536): os.write(1, struct.pack('<IBI', 0, 7, 1) * 2)",
            "answered the opening of a session of datagrams in session 1, not in 2",
        ),
        (
            "type",
            "os.read(0, 65536); os.write(1, struct.pack('<IBI', 0, 99, 1)); time.sleep(9)",
            "wrote a frame of type 99, which plugins do not send",
        ),
        (
            "late",
            "known = {}\ndef take(n):\n    data = b''\n    \
             while len(data) < n: data += os.read(0, n - len(data))\n    return data\n\
             while True:\n    n, kind, session = struct.unpack('<IBI', take(9))\n    take(n)\n    \
             if kind == 1: known[session] = 1; os.write(1, struct.pack('<IBI', 0, 7, session))\n    \
             if kind == 2 and session < 4000000000: known[session]; os.write(1, struct.pack('<IBI', 0, 7, session))\n    \
             if kind == 5: known.pop(session, None)\n",
            "the last that it said on stderr is: KeyError",
        ),
        (
            "error",
            "os.read(0, 65536); os.write(1, struct.pack('<IBI', 3, 6, 1) + b'no\\n'); time.sleep(9)",
            "answered the opening of a connection with an error: no\\n",
        ),
        (
            "flood",
            "def take(n):\n    data = b''\n    \
             while len(data) < n: data += os.read(0, n - len(data))\n    return data\n\
             while True:\n    n, kind, session = struct.unpack('<IBI', take(9))\n    \
             if n > 9999: break\n    take(n)\n    \
             if kind < 3: os.write(1, struct.pack('<IBI', 0, 7, session))\n\
             while True: os.write(1, struct.pack('<IBI', 65536, 4, session) + b'x' * 65536)\n",
            "bytes where it was to read",
        ),
    ] {
        let path = folder.path().join(fault);
        let program = format!(
            "#!/usr/bin/env python3\nimport os, struct, time\nos.write(1, b'greetd-plugin 1 {fault}\\n')\n{program}\n"
        );
        std::fs::write(&path, program).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
        let output = check(&path.display().to_string());
        let error = text(&output.stderr);
        assert!(error.contains(&format!("unexpected: {fault}: ")) && error.contains(words), "{error}");
        assert_eq!(output.status.code(), Some(18));
    }
}

#[test]
fn a_new_plugin_passes_the_check_as_it_is() {
    let folder = tempfile::tempdir().unwrap();
    for (lang, tool, file) in [
        ("python", "python3", "my-python.py"),
        ("shell", "bash", "my-shell.sh"),
        ("js", "node", "my-js.mjs"),
        ("c", "cc", "my-c"),
    ] {
        let name = format!("my-{lang}");
        succeeds(&greetd(&["plugin", "new", "--lang", lang, &name]).current_dir(&folder).output().unwrap());
        if !is_there(tool) {
            continue;
        }
        let path = folder.path().join(&name).join(file);
        if lang == "c" {
            let source = path.with_extension("c");
            assert!(Command::new("cc").args(["-O2", "-o"]).args([&path, &source]).status().unwrap().success());
        }
        let report = succeeds(&check(&path.display().to_string()));
        assert!(report.starts_with(&format!("ok: names its handlers: {name}\n")), "{report}");
    }
    let rust = ["plugin", "new", "--lang", "rust", "my-rust"];
    succeeds(&greetd(&rust).current_dir(&folder).output().unwrap());
    let manifest = std::fs::read_to_string(folder.path().join("my-rust/Cargo.toml")).unwrap();
    assert!(manifest.contains(&format!("greetd = {{ path = {:?} }}", env!("CARGO_MANIFEST_DIR"))), "{manifest}");
    let elsewhere = [&rust[..4], &["other", "--source", "/"]].concat();
    let error = text(&greetd(&elsewhere).current_dir(&folder).output().unwrap().stderr);
    assert!(error.contains("failed to find greetd's source in /: name its folder with --source"), "{error}");
    let again = greetd(&["plugin", "new", "--lang", "c", "my-c"]).current_dir(&folder).output().unwrap();
    assert!(text(&again.stderr).contains("failed to write my-c: File exists (EEXIST)"), "nothing is written over");
}

#[test]
fn plugins_are_listed_beside_what_is_compiled_in() {
    if is_there("python3") {
        let plugin = sample("python/hello.py");
        let list = succeeds(&greetd(&["list", "handlers", "--json", "--plugin", &plugin]).output().unwrap());
        let list: serde_json::Value = serde_json::from_str(&list).unwrap();
        let named = |name: &str| list["handlers"].as_array().unwrap().iter().any(|handler| handler["name"] == name);
        assert!(named("py-hello") && named("exec") && named("hello"), "{list}");
    }
}

#[test]
fn a_plugin_that_takes_a_known_name_is_refused() {
    if is_there("python3") {
        let plugin = sample("python/plain.py");
        let output = greetd(&["--plugin", &plugin, "--plugin", &plugin, "--bind", "127.0.0.1:0"]).output().unwrap();
        let error = text(&output.stderr);
        assert!(error.contains("there is a handler named `plain-hello` already"), "{error}");
        assert_eq!(output.status.code(), Some(1));
    }
}

/// A daemon, killed when the test is over.
struct Daemon(Child, BufReader<std::process::ChildStdout>);

impl Daemon {
    fn start(words: &[&str]) -> Self {
        let mut child = greetd(words).stdout(Stdio::piped()).spawn().unwrap();
        let stdout = BufReader::new(child.stdout.take().unwrap());
        Daemon(child, stdout)
    }

    /// Where the next listener is.
    fn address(&mut self) -> String {
        let mut line = String::new();
        self.1.read_line(&mut line).unwrap();
        let address = line.strip_prefix("listening tcp://").and_then(|rest| rest.split(' ').next());
        address.unwrap_or_else(|| panic!("it listens: {line}")).to_owned()
    }

    fn signal(&self, signal: nix::sys::signal::Signal) {
        nix::sys::signal::kill(nix::unistd::Pid::from_raw(self.0.id().cast_signed()), signal).unwrap();
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn call(address: &str) -> TcpStream {
    let stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    stream
}

fn hears(stream: &mut TcpStream, words: &str) {
    let mut heard = vec![0; words.len()];
    stream.read_exact(&mut heard).unwrap();
    assert_eq!(text(&heard), words);
}

#[test]
fn several_plugins_are_served_at_once_and_greet_as_the_built_in_handler_does() {
    if !(is_there("python3") && is_there("bash")) {
        return;
    }
    let (python, shell) = (sample("python/hello.py"), sample("shell/hello.sh"));
    let mut daemon = Daemon::start(&[
        "--plugin",
        &python,
        "--plugin",
        &shell,
        "-l",
        "tcp://127.0.0.1:0=py-hello",
        "-l",
        "tcp://127.0.0.1:0=sh-hello",
        "-l",
        "tcp://127.0.0.1:0=hello",
    ]);
    for _ in 0..3 {
        let mut stream = call(&daemon.address());
        hears(&mut stream, "welcome");
        stream.write_all(b"Genji").unwrap();
        hears(&mut stream, "Hello Genji");
        stream.write_all(b"exit").unwrap();
        assert_eq!(stream.read(&mut [0; 9]).unwrap(), 0);
    }
    daemon.signal(nix::sys::signal::Signal::SIGTERM);
    assert!(daemon.0.wait().unwrap().success());
}

fn write_says(path: &Path, word: &str) {
    let new = path.with_extension("new");
    let samples = sample("python");
    let text = format!(
        "#!/usr/bin/env python3\nimport sys\nsys.path.insert(0, '{samples}')\nfrom greetd import serve\n\
         def says(session):\n    while True:\n        yield b'{word}'\nserve(says=says)\n"
    );
    std::fs::write(&new, text).unwrap();
    std::fs::set_permissions(&new, std::fs::Permissions::from_mode(0o755)).unwrap();
    std::fs::rename(new, path).unwrap();
}

#[test]
fn sighup_loads_a_changed_plugin_again_and_ends_no_session() {
    if !is_there("python3") {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let path: PathBuf = folder.path().join("says.py");
    write_says(&path, "old");
    let plugin = path.display().to_string();
    let mut daemon = Daemon::start(&["--plugin", &plugin, "-H", "says", "-b", "127.0.0.1:0"]);
    let address = daemon.address();
    let mut early = call(&address);
    hears(&mut early, "old");
    write_says(&path, "new");
    daemon.signal(nix::sys::signal::Signal::SIGHUP);
    // The new one is tried first: until it stands, the old one serves.
    let took_over = (0..10_000).any(|_| {
        let mut heard = [0; 3];
        call(&address).read_exact(&mut heard).unwrap();
        assert!(heard == *b"old" || heard == *b"new");
        heard == *b"new"
    });
    assert!(took_over);
    early.write_all(b"and you?").unwrap();
    hears(&mut early, "old");
}
