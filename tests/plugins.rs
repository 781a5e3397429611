//! Handlers in programs of their own: what they do over every transport, and what becomes of them when they fail.

#[path = "support/command.rs"]
#[expect(dead_code, reason = "each of the black-box tests needs a part of it")]
mod command;

use command::is_there;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use greetd::hosts::{Environment, Plugin, Reloaded, Timing};
use greetd::server::Running;
use greetd::{Endpoint, Registry, Server, Session};

/// Far longer than anything here takes; what is awaited in vain then fails with words.
const PATIENCE: Duration = Duration::from_secs(20);

fn sample(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("plugins").join(path)
}

/// Patience for a machine that builds other things besides.
fn timing() -> Timing {
    Timing { start: PATIENCE, answer: PATIENCE }
}

async fn load(path: &Path) -> Plugin {
    Plugin::load(path, &Environment::default(), timing()).await.unwrap()
}

/// A Python program in a folder of its own.
fn program(folder: &Path, text: &str) -> PathBuf {
    let path = folder.join("plugin.py");
    write_program(&path, &format!("#!/usr/bin/env python3\n{text}"));
    path
}

fn write_program(path: &Path, text: &str) {
    // In the place of an old one, not into it: it may be running.
    let new = path.with_extension("new");
    std::fs::write(&new, text).unwrap();
    std::fs::set_permissions(&new, std::fs::Permissions::from_mode(0o755)).unwrap();
    std::fs::rename(new, path).unwrap();
}

/// A handler that is served at one endpoint.
struct Served {
    registry: Registry,
    endpoint: Endpoint,
    running: Running,
}

impl Served {
    async fn at(registry: &Registry, endpoint: &str, handler: &str) -> Self {
        let parsed: Endpoint = endpoint.parse().unwrap();
        let service = registry.service(&parsed, handler).unwrap();
        let bound = Server::new().serve(service).bind().await.unwrap();
        let mut endpoint: Endpoint = bound.listeners()[0].to_string().parse().unwrap();
        endpoint.options = parsed.options;
        Served { registry: registry.clone(), endpoint, running: bound.start() }
    }

    async fn call(&self) -> Session {
        self.registry.dialler(&self.endpoint).unwrap().dial().await.unwrap()
    }

    async fn ends(self) {
        let drained = self.running.drain(PATIENCE).await;
        assert_eq!(drained.cut, 0, "nothing is left to be cut");
    }
}

async fn within<T>(what: &str, future: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, future).await.unwrap_or_else(|_| panic!("waited in vain for {what}"))
}

async fn says(session: &mut Session, message: &str) {
    session.send(message.as_bytes()).await.unwrap();
    session.flush().await.unwrap();
}

async fn hears(session: &mut Session, message: &str) {
    let heard = within(message, session.recv()).await.unwrap();
    let heard = heard.unwrap_or_else(|| panic!("the session ended before {message}"));
    assert_eq!(String::from_utf8_lossy(&heard), message);
}

async fn sees_the_end(session: &mut Session) {
    assert_eq!(within("the end", session.recv()).await.unwrap_or_default(), None);
}

/// The endpoints of every transport that this build has.
fn endpoints(registry: &Registry, folder: &Path) -> Vec<String> {
    let mut endpoints = Vec::new();
    for item in registry.items(greetd::registry::Kind::Transport) {
        match item.name {
            "tcp" => endpoints.push("tcp://127.0.0.1:0?framing=raw".to_owned()),
            "udp" => endpoints.push("udp://127.0.0.1:0".to_owned()),
            "unix" | "unixpacket" | "unixgram" => {
                endpoints.push(format!("{}://{}", item.name, folder.join(item.name).display()));
            }
            "memory" => {
                endpoints
                    .extend(["stream", "messages", "datagrams"].map(|kind| format!("memory://plugins?kind={kind}")));
            }
            _ => {}
        }
    }
    endpoints
}

/// The tutorial's conversation, in both dialects.
async fn greets(registry: &Registry, endpoint: &str, handler: &str) {
    let served = Served::at(registry, endpoint, handler).await;
    let mut session = served.call().await;
    if session.peer().connected() {
        hears(&mut session, "welcome").await;
        for name in ["Genji", "Hanzo", "Mcree"] {
            says(&mut session, name).await;
            hears(&mut session, &format!("Hello {name}")).await;
        }
        says(&mut session, "exit").await;
        sees_the_end(&mut session).await;
    } else {
        for name in ["Genji", "Hanzo", "Mcree"] {
            says(&mut session, name).await;
            hears(&mut session, &format!("Hello,{name}")).await;
        }
    }
    drop(session);
    served.ends().await;
}

async fn sample_greets(path: &Path, handler: &str) {
    let folder = tempfile::tempdir().unwrap();
    let plugin = load(path).await;
    assert_eq!(plugin.names(), [handler]);
    let mut registry = Registry::builtin();
    plugin.register(&mut registry).unwrap();
    for endpoint in endpoints(&registry, folder.path()) {
        greets(&registry, &endpoint, handler).await;
    }
}

#[tokio::test]
async fn the_python_samples_greet_over_every_transport() {
    if is_there("python3") {
        sample_greets(&sample("python/hello.py"), "py-hello").await;
        sample_greets(&sample("python/plain.py"), "plain-hello").await;
    }
}

#[tokio::test]
async fn the_shell_sample_greets_over_every_transport() {
    if is_there("bash") {
        sample_greets(&sample("shell/hello.sh"), "sh-hello").await;
    }
}

#[tokio::test]
async fn the_node_sample_greets_over_every_transport() {
    if is_there("node") {
        sample_greets(&sample("node/hello.mjs"), "node-hello").await;
    }
}

#[tokio::test]
async fn the_c_sample_greets_over_every_transport() {
    if is_there("cc") {
        let folder = tempfile::tempdir().unwrap();
        let program = folder.path().join("hello");
        let source = sample("c/hello.c");
        let built =
            std::process::Command::new("cc").args(["-Wall", "-Werror", "-o"]).arg(&program).arg(source).status();
        assert!(built.unwrap().success());
        sample_greets(&program, "c-hello").await;
    }
}

#[tokio::test]
async fn a_program_for_each_session_greets_over_every_transport() {
    if is_there("python3") {
        let folder = tempfile::tempdir().unwrap();
        let registry = Registry::builtin();
        let handler = format!("exec:{}", sample("exec/hello.py").display());
        for endpoint in endpoints(&registry, folder.path()) {
            greets(&registry, &endpoint, &handler).await;
        }
    }
}

#[tokio::test]
async fn a_program_for_each_session_is_told_who_calls_and_sees_nothing_else() {
    if is_there("python3") {
        let registry = Registry::builtin();
        // A descriptor that would pass on to any child, as one that was inherited does.
        let passed_on = std::fs::File::open("/dev/null").unwrap();
        rustix::io::fcntl_setfd(&passed_on, rustix::io::FdFlags::empty()).unwrap();
        let script = "import os\n\
                      print(sorted(os.environ.items()), sorted(os.listdir('/proc/self/fd')), os.getpgrp() == os.getpid())";
        let served = Served::at(&registry, "tcp://127.0.0.1:0", &format!("exec:python3 -c \"{script}\"")).await;
        let mut session = served.call().await;
        let mine = session.peer().local.ip().unwrap().port();
        let port = served.endpoint.to_string();
        let port = port.trim_start_matches("tcp://127.0.0.1:").split('?').next().unwrap();
        // os.listdir itself holds descriptor 3.
        let wanted = format!(
            "[('GREETD_CONNECTED', 'yes'), ('LANG', 'C.UTF-8'), ('PATH', '/usr/local/bin:/usr/bin:/bin'), \
             ('PROTO', 'TCP'), ('REMOTE_ADDR', '127.0.0.1'), ('REMOTE_PORT', '{mine}'), ('TCPLOCALIP', '127.0.0.1'), \
             ('TCPLOCALPORT', '{port}'), ('TCPREMOTEIP', '127.0.0.1'), ('TCPREMOTEPORT', '{mine}')] \
             ['0', '1', '2', '3'] True\n"
        );
        hears(&mut session, &wanted).await;
        sees_the_end(&mut session).await;
        served.ends().await;
    }
}

#[tokio::test]
async fn a_program_that_reads_lines_serves_datagrams_too() {
    let registry = Registry::builtin();
    let script = "while read -r name; do echo \"Hello,$name\"; done".replace(' ', "%20");
    let served =
        Served::at(&registry, "udp://127.0.0.1:0", &format!("exec?lines=yes&command=bash%20-c%20'{script}'")).await;
    let mut session = served.call().await;
    says(&mut session, "Genji").await;
    hears(&mut session, "Hello,Genji").await;
    served.running.drain(PATIENCE).await;
}

#[tokio::test]
async fn what_a_program_started_dies_with_its_session() {
    let registry = Registry::builtin();
    let served = Served::at(&registry, "tcp://127.0.0.1:0", "exec:sh -c 'sleep 1000 & echo $!; wait'").await;
    let mut session = served.call().await;
    let process = within("the number", session.recv()).await.unwrap().unwrap();
    let process = PathBuf::from("/proc").join(String::from_utf8(process.to_vec()).unwrap().trim()).join("stat");
    assert!(process.exists());
    served.running.drain(Duration::ZERO).await;
    let gone = || std::fs::read_to_string(&process).map_or(true, |stat| stat.contains(") Z "));
    within("the end of the grandchild", async {
        while !gone() {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

#[tokio::test]
async fn a_file_that_is_no_plugin_is_refused_in_words() {
    let folder = tempfile::tempdir().unwrap();
    let refusal = async |name: &str, mode: u32, content: &[u8]| {
        let path = folder.path().join(name);
        std::fs::write(&path, content).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
        let loaded = Plugin::load(&path, &Environment::default(), timing()).await;
        loaded.err().expect("it is no plugin").to_string()
    };
    for (name, mode, content, words) in [
        (
            "hello.py",
            0o755,
            &b"#!/bin/sh\necho Hello\n"[..],
            "hello.py: first line was 'Hello', expected 'greetd-plugin 1 NAME'. stdout is the protocol; print to stderr.",
        ),
        (
            "new",
            0o755,
            b"#!/bin/sh\necho greetd-plugin 2 hello\n",
            "new: made for plugin protocol 2; this greetd speaks 1",
        ),
        (
            "broken",
            0o755,
            b"#!/bin/sh\necho no such module >&2; exit 3\n",
            "broken: ended with status 3; the last that it said is: no such module, before its first line",
        ),
        (
            "text.py",
            0o644,
            b"print(1)",
            "text.py: is not executable. Begin it with #! and the path of its interpreter, and chmod +x it",
        ),
        (
            "lib.so",
            0o644,
            b"\x7fELF\x02\x01\x01",
            "lib.so: is a shared library; plugins are programs, or crates with a main of their own",
        ),
    ] {
        assert_eq!(refusal(name, mode, content).await, words);
    }
    let missing = Plugin::load(&folder.path().join("none"), &Environment::default(), timing()).await;
    assert_eq!(missing.err().unwrap().to_string(), "none: No such file or directory (ENOENT)");
    let silent = Timing { start: Duration::from_millis(50), ..timing() };
    let path = folder.path().join("silent");
    write_program(&path, "#!/bin/sh\nexec sleep 1000\n");
    assert_eq!(
        Plugin::load(&path, &Environment::default(), silent).await.err().unwrap().to_string(),
        "silent: said nothing within 50ms; expected the first line `greetd-plugin 1 NAME` on stdout, unbuffered"
    );
}

/// What a hostile plugin does when it is sent a word that names it.
const FAILURES: &str = r#"
import os, signal, struct, sys, time
sys.path.insert(0, os.environ["SAMPLES"])
from greetd import serve

def unstable(session):
    message = yield b"pid %d" % os.getpid()
    while True:
        if message == b"die":
            os.kill(os.getpid(), signal.SIGKILL)
        if message == b"stop":
            os.kill(os.getpid(), signal.SIGSTOP)
        if message == b"garbage":
            os.write(1, b"Traceback (most recent call last):\n")
        if message == b"type":
            os.write(1, struct.pack("<IBI", 0, 99, 1))
        if message == b"twice":
            session.push(b"once")
            os.write(1, struct.pack("<IBI", 0, 7, session.number) * 2)
        if message == b"raise":
            raise ValueError("no\nsuch thing")
        if message == b"flood":
            for _ in range(1000):
                session.push(b"x" * 60000)
        message = yield None if message == b"quiet" else message

serve(unstable=unstable)
"#;

async fn unstable(folder: &Path, timing: Timing) -> (Plugin, Registry) {
    let path = program(folder, FAILURES);
    let samples = [("SAMPLES".into(), sample("python").into())];
    let plugin = Plugin::load(&path, &Environment::new(samples), timing).await.unwrap();
    let mut registry = Registry::builtin();
    plugin.register(&mut registry).unwrap();
    (plugin, registry)
}

async fn opened(served: &Served) -> (Session, String) {
    let mut session = served.call().await;
    let pid = within("its number", session.recv()).await.unwrap().expect("it is served");
    (session, String::from_utf8(pid.to_vec()).unwrap())
}

#[tokio::test]
async fn a_plugin_that_dies_hangs_or_talks_nonsense_fails_its_sessions_and_is_started_again() {
    if !is_there("python3") {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let quick = Timing { answer: Duration::from_secs(2), ..timing() };
    let (_plugin, registry) = unstable(folder.path(), quick).await;
    let served = Served::at(&registry, "tcp://127.0.0.1:0?framing=lines", "unstable").await;
    let neighbours = Served::at(&registry, "tcp://127.0.0.1:0?framing=lines", "hello").await;
    let mut neighbour = neighbours.call().await;
    hears(&mut neighbour, "welcome").await;
    // Four: the fifth failure within a minute disables it.
    for failure in ["die", "stop", "garbage", "type"] {
        let (mut bystander, before) = opened(&served).await;
        let (mut session, same) = opened(&served).await;
        assert_eq!(before, same, "one child serves all sessions");
        says(&mut session, failure).await;
        sees_the_end(&mut session).await;
        sees_the_end(&mut bystander).await;
        says(&mut neighbour, failure).await;
        hears(&mut neighbour, &format!("Hello {failure}")).await;
        let (mut session, after) = opened(&served).await;
        assert_ne!(before, after, "after {failure} it was started again");
        says(&mut session, "hello").await;
        hears(&mut session, "hello").await;
    }
    within("eight failed sessions", async {
        while failed(&served) < 8 {
            tokio::task::yield_now().await;
        }
    })
    .await;
    let (mut session, _) = opened(&served).await;
    says(&mut session, "die").await;
    sees_the_end(&mut session).await;
    // It stays off, and whoever calls hears nothing but the end.
    let mut session = served.call().await;
    sees_the_end(&mut session).await;
}

#[tokio::test]
async fn what_goes_wrong_in_one_session_costs_that_session_alone() {
    if !is_there("python3") {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let (_plugin, registry) = unstable(folder.path(), timing()).await;
    // Who does not read is waited for no longer than that.
    let served = Served::at(&registry, "tcp://127.0.0.1:0?framing=lines&write-timeout=500ms", "unstable").await;
    let (mut bystander, pid) = opened(&served).await;
    for failure in ["raise", "flood"] {
        let (mut session, same) = opened(&served).await;
        assert_eq!(same, pid);
        let before = served.running.counters().total("session.closed");
        // What it is sent is not read: a flood finds nobody who takes it.
        says(&mut session, failure).await;
        within(&format!("a session that failed after {failure}"), async {
            while served.running.counters().total("session.closed") == before {
                says(&mut bystander, "and you?").await;
                hears(&mut bystander, "and you?").await;
            }
        })
        .await;
    }
    assert_eq!(failed(&served), 1, "the one that raised an error");
    assert_eq!(served.running.counters().get("session.closed", "write-timeout"), 1, "the one that did not read");
    let (_, same) = opened(&served).await;
    assert_eq!(same, pid, "it was not started again");
}

/// How many sessions failed so far.
fn failed(served: &Served) -> u64 {
    served.running.counters().get("session.closed", "failed")
}

#[tokio::test]
async fn a_thousand_sessions_share_one_child_and_each_keeps_its_order() {
    if !is_there("python3") {
        return;
    }
    let plugin = load(&sample("python/hello.py")).await;
    let mut registry = Registry::builtin();
    plugin.register(&mut registry).unwrap();
    let served = Served::at(&registry, "tcp://127.0.0.1:0?framing=lines", "py-hello").await;
    let mut sessions = Vec::new();
    // Both ends of each are here.
    let (_, most) = nix::sys::resource::getrlimit(nix::sys::resource::Resource::RLIMIT_NOFILE).unwrap();
    nix::sys::resource::setrlimit(nix::sys::resource::Resource::RLIMIT_NOFILE, most, most).unwrap();
    for _ in 0..1000 {
        sessions.push(served.call().await);
    }
    for (number, session) in sessions.iter_mut().enumerate() {
        for message in 0..10 {
            session.send(format!("{number}.{message}").as_bytes()).await.unwrap();
        }
        session.flush().await.unwrap();
    }
    for (number, session) in sessions.iter_mut().enumerate() {
        hears(session, "welcome").await;
        for message in 0..10 {
            hears(session, &format!("Hello {number}.{message}")).await;
        }
    }
    drop(sessions);
    served.ends().await;
}

#[tokio::test]
async fn options_behind_the_name_reach_the_plugin() {
    if !is_there("python3") {
        return;
    }
    let plugin = load(&sample("python/hello.py")).await;
    let mut registry = Registry::builtin();
    plugin.register(&mut registry).unwrap();
    let served = Served::at(&registry, "udp://127.0.0.1:0", "py-hello?word=Hi").await;
    let mut session = served.call().await;
    says(&mut session, "Genji").await;
    hears(&mut session, "Hi,Genji").await;
    served.running.drain(PATIENCE).await;
}

#[tokio::test]
async fn a_plugin_that_nobody_needs_any_more_hears_the_end_of_its_stdin() {
    if !is_there("python3") {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let text = "import os\nos.write(1, b'greetd-plugin 1 orderly\\n')\nwhile os.read(0, 9): pass\n\
                open(os.environ['FAREWELL'], 'w').close()\n";
    let path = program(folder.path(), text);
    let farewell = folder.path().join("farewell");
    let environment = Environment::new([("FAREWELL".into(), farewell.clone().into())]);
    let plugin = Plugin::load(&path, &environment, timing()).await.unwrap();
    drop(plugin);
    within("the end that it writes down", async {
        while !farewell.exists() {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

const SAYS: &str = "import sys, os\nsys.path.insert(0, os.environ['SAMPLES'])\nfrom greetd import serve\n\
                    def says(session):\n    while True:\n        yield b'WORD'\n";

#[tokio::test]
async fn a_plugin_that_changed_takes_over_new_sessions_and_one_that_is_broken_does_not() {
    if !is_there("python3") {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let written = |word: &str, end: &str| program(folder.path(), &format!("{}{end}", SAYS.replace("WORD", word)));
    let path = written("old", "serve(says=says)");
    let environment = Environment::new([("SAMPLES".into(), sample("python").into())]);
    let plugin = Plugin::load(&path, &environment, timing()).await.unwrap();
    let mut registry = Registry::builtin();
    plugin.register(&mut registry).unwrap();
    let served = Served::at(&registry, "tcp://127.0.0.1:0?framing=lines", "says").await;
    let mut early = served.call().await;
    hears(&mut early, "old").await;

    assert_eq!(plugin.reload().await.unwrap(), Reloaded::Unchanged);
    written("bad", "raise SystemExit(3)");
    assert_eq!(plugin.reload().await.unwrap_err().to_string(), "plugin.py: ended with status 3, before its first line");
    written("bad", "serve(other=says)");
    let error = plugin.reload().await.unwrap_err().to_string();
    assert_eq!(error, "plugin.py: now names the handlers other, where says are served; start greetd anew");
    let mut session = served.call().await;
    hears(&mut session, "old").await;

    written("new", "serve(says=says)");
    assert_eq!(plugin.reload().await.unwrap(), Reloaded::Changed);
    let mut late = served.call().await;
    hears(&mut late, "new").await;
    says(&mut early, "and you?").await;
    hears(&mut early, "old").await;
    drop((early, session, late));
    served.ends().await;
}
