//! Handlers in programs of their own: what they do over every transport.

#[path = "support/command.rs"]
#[expect(dead_code, reason = "each of the black-box tests needs a part of it")]
mod command;
#[path = "support/plugins.rs"]
#[expect(dead_code, reason = "each of the tests of plugins needs a part of it")]
mod plugins;

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::time::Duration;

use command::is_there;
use greetd::Registry;
use greetd::hosts::check::check;
use greetd::hosts::{Environment, Plugin, Reloaded, Timing};
use plugins::*;

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
        sample_greets(&compiled(folder.path()), "c-hello").await;
    }
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
            "bare.py",
            0o755,
            b"print(1)",
            "bare.py: failed to start: Exec format error (ENOEXEC); begin it with #! and the path of its interpreter, or \
             build it for this machine",
        ),
        (
            "strange",
            0o755,
            b"#!/no/such/interpreter\n",
            "strange: failed to start: No such file or directory (ENOENT); either it is not there, or the interpreter \
             that its first line names is not",
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
    let path = folder.path().join("none");
    let missing = Plugin::load(&path, &Environment::default(), timing()).await;
    let words = format!("{}: No such file or directory (ENOENT)", path.display());
    assert_eq!(missing.err().unwrap().to_string(), words);
    let silent = Timing { start: Duration::from_millis(50), ..timing() };
    let path = folder.path().join("silent");
    write_program(&path, "#!/bin/sh\nexec sleep 1000\n");
    assert_eq!(
        Plugin::load(&path, &Environment::default(), silent).await.err().unwrap().to_string(),
        "silent: said nothing within 50ms; expected the first line `greetd-plugin 1 NAME` on stdout, unbuffered"
    );
}

#[tokio::test]
async fn the_check_does_not_wait_for_ever_for_one_that_pushes_and_never_answers() {
    if !is_there("python3") {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let pushes = "import os, struct\nos.write(1, b'greetd-plugin 1 pushes\\n')\n\
                  while True: os.write(1, struct.pack('<IBI', 2, 4, 1) + b'no')\n";
    let timing = Timing { answer: Duration::from_millis(200), ..timing() };
    let (path, environment) = (program(folder.path(), pushes), Environment::default());
    let checked = tokio::time::timeout(PATIENCE, check(&path, &environment, &timing)).await.expect("it ends");
    assert_eq!(
        checked.unwrap_err().to_string(),
        "plugin.py: did not answer the opening of a connection within 200ms; each wants a reply, silent, close or error"
    );
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
    written("bad", "def says(session):\n    raise KeyError('colour')\n    yield\nserve(says=says)");
    assert_eq!(plugin.reload().await.unwrap_err().to_string(), "plugin.py: says: KeyError('colour')");
    written("bad", "def says(session):\n    raise SystemExit(4)\n    yield\nserve(says=says)");
    assert_eq!(plugin.reload().await.unwrap_err().to_string(), "plugin.py: ended with status 4");
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

#[tokio::test]
async fn limits_bound_the_handlers_of_plugins_and_are_counted() {
    if !is_there("python3") {
        return;
    }
    let plugin = load(&sample("python/hello.py")).await;
    let mut registry = Registry::builtin();
    plugin.register(&mut registry).unwrap();
    let limits = "max-sessions=2&max-message=100&idle-timeout=1s";
    let mut served = Served::at(&registry, &format!("tcp://127.0.0.1:0?framing=length32&{limits}"), "py-hello").await;
    // Who calls keeps no limit.
    served.endpoint.options.set("max-message", "1000");
    let (mut one, mut two) = (served.call().await, served.call().await);
    hears(&mut one, "welcome").await;
    hears(&mut two, "welcome").await;
    says(&mut two, "Genji").await;
    hears(&mut two, "Hello Genji").await;
    let mut three = served.call().await;
    sees_the_end(&mut three).await;
    counted(&served, "connection.refused", "max-sessions", 1).await;
    says(&mut one, &"x".repeat(101)).await;
    sees_the_end(&mut one).await;
    counted(&served, "session.closed", "protocol", 1).await;
    sees_the_end(&mut two).await;
    counted(&served, "session.closed", "idle-timeout", 1).await;
    drop((one, two, three));
    served.ends().await;
}
