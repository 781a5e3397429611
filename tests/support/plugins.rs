//! Handlers that are not compiled in, served in this process, and whoever calls them.

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use greetd::event::Counters;
use greetd::hosts::{Environment, Plugin, Timing};
use greetd::server::Running;
use greetd::{Endpoint, Registry, Server, Session};

/// Far longer than anything here takes; what is awaited in vain then fails with words.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

pub(crate) fn sample(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("plugins").join(path)
}

/// The sample in C, built.
pub(crate) fn compiled(folder: &Path) -> PathBuf {
    let program = folder.join("hello");
    let mut compiler = std::process::Command::new("cc");
    compiler.args(["-Wall", "-Werror", "-o"]).arg(&program).arg(sample("c/hello.c"));
    assert!(compiler.status().unwrap().success());
    program
}

/// Patience for a machine that builds other things besides.
pub(crate) fn timing() -> Timing {
    Timing { start: PATIENCE, answer: PATIENCE }
}

pub(crate) async fn load(path: &Path) -> Plugin {
    Plugin::load(path, &Environment::default(), timing()).await.unwrap()
}

/// A Python program in a folder of its own.
pub(crate) fn program(folder: &Path, text: &str) -> PathBuf {
    let path = folder.join("plugin.py");
    write_program(&path, &format!("#!/usr/bin/env python3\n{text}"));
    path
}

pub(crate) fn write_program(path: &Path, text: &str) {
    // In the place of an old one, not into it: it may be running.
    let new = path.with_extension("new");
    std::fs::write(&new, text).unwrap();
    std::fs::set_permissions(&new, std::fs::Permissions::from_mode(0o755)).unwrap();
    std::fs::rename(new, path).unwrap();
}

/// A handler that is served at one endpoint.
pub(crate) struct Served {
    pub(crate) registry: Registry,
    pub(crate) endpoint: Endpoint,
    pub(crate) running: Running,
}

impl Served {
    pub(crate) async fn at(registry: &Registry, endpoint: &str, handler: &str) -> Self {
        let parsed: Endpoint = endpoint.parse().unwrap();
        let service = registry.service(&parsed, handler).unwrap();
        let bound = Server::new().serve(service).bind().await.unwrap();
        let mut endpoint: Endpoint = bound.listeners()[0].to_string().parse().unwrap();
        endpoint.options = parsed.options;
        Served { registry: registry.clone(), endpoint, running: bound.start() }
    }

    pub(crate) async fn call(&self) -> Session {
        self.registry.dialler(&self.endpoint).unwrap().dial().await.unwrap()
    }

    pub(crate) fn counters(&self) -> &Counters {
        self.running.counters()
    }

    pub(crate) async fn ends(self) {
        let drained = self.running.drain(PATIENCE).await;
        assert_eq!(drained.cut, 0, "nothing is left to be cut");
    }
}

pub(crate) async fn within<T>(what: &str, future: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, future).await.unwrap_or_else(|_| panic!("waited in vain for {what}"))
}

pub(crate) async fn says(session: &mut Session, message: &str) {
    session.send(message.as_bytes()).await.unwrap();
    session.flush().await.unwrap();
}

pub(crate) async fn hears(session: &mut Session, message: &str) {
    let heard = within(message, session.recv()).await.unwrap();
    let heard = heard.unwrap_or_else(|| panic!("the session ended before {message}"));
    assert_eq!(String::from_utf8_lossy(&heard), message);
}

pub(crate) async fn sees_the_end(session: &mut Session) {
    assert_eq!(within("the end", session.recv()).await.unwrap_or_default(), None);
}

/// The endpoints of every transport that this build has.
pub(crate) fn endpoints(registry: &Registry, folder: &Path) -> Vec<String> {
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
pub(crate) async fn greets(registry: &Registry, endpoint: &str, handler: &str) {
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

/// What a plugin does when it is sent a word that names a deed.
const DEEDS: &str = r#"
import os, signal, struct, sys, time
sys.path.insert(0, os.environ["SAMPLES"])
from greetd import serve

def frame(kind, session, payload=b""):
    return struct.pack("<IBI", len(payload), kind, session) + payload

def write(data):
    while data:
        data = data[os.write(1, data):]

def forever(deed):
    while True:
        deed()

def fork():
    if os.fork() == 0:
        os.setsid()
        time.sleep(1000)
    os._exit(0)

def unstable(session):
    deeds = {
        b"die": lambda: os.kill(os.getpid(), signal.SIGKILL),
        b"stop": lambda: os.kill(os.getpid(), signal.SIGSTOP),
        b"exit": lambda: os._exit(3),
        b"fork": fork,
        b"close stdout": lambda: os.close(1),
        b"garbage": lambda: write(b"Traceback (most recent call last):\n"),
        b"type": lambda: write(frame(99, session.number)),
        b"huge": lambda: write(struct.pack("<IBI", 2**32 - 1, 3, session.number)),
        b"give up": lambda: write(frame(6, 0, b"no more")),
        b"partial": lambda: (write(struct.pack("<IBI", 1000, 3, session.number) + b"a part"), time.sleep(1000)),
        b"dribble": lambda: (write(struct.pack("<IBI", 9999, 3, session.number)),
                             forever(lambda: (write(b"x"), time.sleep(0.05)))),
        b"deaf": lambda: time.sleep(1000),
        b"mute": lambda: forever(lambda: os.read(0, 65536) or os._exit(0)),
        b"twice": lambda: write(frame(7, session.number) * 2),
        b"bytewise": lambda: [write(bytes([byte])) for byte in frame(4, session.number, b"byte by byte")],
        b"posthumous": lambda: write(frame(5, session.number) + frame(3, session.number, b"still here") * 9
                                     + frame(4, session.number, b"and here")),
        b"push": lambda: [session.push(b"x" * 60000) for _ in range(1000)],
        b"nobody": lambda: [write(frame(4, 4000000000, b"x" * 1000000)) for _ in range(100)],
        b"loud": lambda: [os.write(2, b"x" * 99 + b"\n") for _ in range(300000)],
    }
    message = yield b"pid %d" % os.getpid()
    while True:
        if message in deeds:
            deeds[message]()
        if message == b"raise":
            raise ValueError("no\nsuch thing")
        if message == b"large":
            message = b"y" * 1000000
        message = yield None if message == b"quiet" else message

serve(unstable=unstable)
"#;

/// A plugin whose handler `unstable` does whatever it is told: see [`DEEDS`].
pub(crate) async fn unstable(folder: &Path, timing: Timing) -> (Plugin, Registry) {
    let path = program(folder, DEEDS);
    let samples = [("SAMPLES".into(), sample("python").into())];
    let plugin = Plugin::load(&path, &Environment::new(samples), timing).await.unwrap();
    let mut registry = Registry::builtin();
    plugin.register(&mut registry).unwrap();
    (plugin, registry)
}

/// A session of `unstable`, and which process serves it.
pub(crate) async fn opened(served: &Served) -> (Session, String) {
    let mut session = served.call().await;
    let pid = within("its number", session.recv()).await.unwrap().expect("it is served");
    (session, String::from_utf8(pid.to_vec()).unwrap())
}

/// Waits until something was counted.
pub(crate) async fn counted(served: &Served, name: &str, reason: &str, times: u64) {
    let what = format!("{name} {reason}, {times} times");
    within(&what, async {
        while served.counters().get(name, reason) < times {
            tokio::task::yield_now().await;
        }
    })
    .await;
    assert_eq!(served.counters().get(name, reason), times, "{what}");
}

/// Sessions with other handlers in the same process that talk without a pause.
pub(crate) struct Neighbours {
    served: Vec<Served>,
    talks: Vec<tokio::task::JoinHandle<u64>>,
    enough: tokio::sync::watch::Sender<bool>,
}

impl Neighbours {
    /// Four sessions with each of these handlers, which greet.
    pub(crate) async fn of(registry: &Registry, handlers: &[&str]) -> Self {
        let (enough, is_enough) = tokio::sync::watch::channel(false);
        let mut neighbours = Neighbours { served: Vec::new(), talks: Vec::new(), enough };
        for handler in handlers {
            let served = Served::at(registry, "tcp://127.0.0.1:0?framing=lines", handler).await;
            for _ in 0..4 {
                let (mut session, is_enough) = (served.call().await, is_enough.clone());
                neighbours.talks.push(tokio::spawn(async move {
                    hears(&mut session, "welcome").await;
                    let mut number = 0;
                    while !*is_enough.borrow() {
                        says(&mut session, &number.to_string()).await;
                        hears(&mut session, &format!("Hello {number}")).await;
                        number += 1;
                    }
                    number
                }));
            }
            neighbours.served.push(served);
        }
        neighbours
    }

    /// Each message of each session was answered, and none of them failed.
    pub(crate) async fn lost_nothing(self) {
        self.enough.send_replace(true);
        for talk in self.talks {
            assert!(talk.await.expect("it heard all that it should") > 0);
        }
        for served in self.served {
            assert_eq!(served.counters().total("session.closed"), served.counters().get("session.closed", "finished"));
            served.ends().await;
        }
    }
}
