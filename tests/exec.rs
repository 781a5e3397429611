//! `exec:`: a program for each session, what it is given, what it does to others, and what is left of it.

#[path = "support/command.rs"]
#[expect(dead_code, reason = "each of the black-box tests needs a part of it")]
mod command;
#[path = "support/plugins.rs"]
#[expect(dead_code, reason = "each of the tests of plugins needs a part of it")]
mod plugins;

use std::path::PathBuf;
use std::time::Duration;

use command::is_there;
use greetd::{Registry, Session};
use plugins::*;

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
        let mine = session.peer().local().ip().unwrap().port();
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

/// A program that is served beside a built-in handler and a plugin which talk all the time.
struct Street {
    served: Served,
    neighbours: Neighbours,
    _folder: tempfile::TempDir,
}

impl Street {
    /// The program is a script of the shell, which says its number first.
    async fn with(script: &str, idle_timeout: &str) -> Self {
        let mut registry = Registry::builtin();
        load(&sample("python/hello.py")).await.register(&mut registry).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("script");
        write_program(&path, &format!("#!/bin/sh\necho $$\n{script}\n"));
        let clocks = format!("idle-timeout={idle_timeout}&write-timeout=500ms");
        let endpoint = format!("tcp://127.0.0.1:0?framing=raw&{clocks}");
        let served = Served::at(&registry, &endpoint, &format!("exec:{}", path.display())).await;
        let neighbours = Neighbours::of(&registry, &["hello", "py-hello"]).await;
        Street { served, neighbours, _folder: folder }
    }

    async fn opened(&self) -> (Session, String) {
        let mut session = self.served.call().await;
        let pid = within("its number", session.recv()).await.unwrap().expect("it is started");
        (session, String::from_utf8(pid.to_vec()).unwrap().trim().to_owned())
    }
}

/// Waits until a process is no more: neither running nor a zombie.
async fn gone(pid: &str) {
    let process = PathBuf::from("/proc").join(pid);
    within("the end of the program", async {
        while process.exists() {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

/// The session ends for that reason, its program with it, and nobody else notices.
async fn ends_alone(script: &str, reason: &str, deed: impl AsyncFn(&mut Session, &str)) {
    let street = Street::with(script, "500ms").await;
    let (mut session, pid) = street.opened().await;
    deed(&mut session, &pid).await;
    counted(&street.served, "session.closed", reason, 1).await;
    drop(session);
    gone(&pid).await;
    street.neighbours.lost_nothing().await;
    street.served.running.drain(PATIENCE).await;
}

async fn nothing(_: &mut Session, _: &str) {}

#[tokio::test]
async fn a_program_that_is_killed_or_fails_costs_its_session_alone() {
    if is_there("python3") {
        ends_alone("exec sleep 1000", "failed", async |_: &mut Session, pid: &str| {
            let pid = nix::unistd::Pid::from_raw(pid.parse().unwrap());
            nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL).unwrap();
        })
        .await;
        ends_alone("read -r word; exit 3", "failed", async |session: &mut Session, _: &str| {
            says(session, "go\n").await;
        })
        .await;
    }
}

#[tokio::test]
async fn a_program_that_stops_or_is_silent_ends_with_the_clock_of_its_session() {
    if is_there("python3") {
        ends_alone("kill -STOP $$", "idle-timeout", nothing).await;
        ends_alone("exec sleep 1000", "idle-timeout", nothing).await;
    }
}

#[tokio::test]
async fn a_program_that_floods_waits_for_its_peer_and_is_cut_by_the_write_clock() {
    if is_there("python3") {
        ends_alone("exec yes", "write-timeout", nothing).await;
    }
}

#[tokio::test]
async fn a_program_that_leaves_a_process_with_its_pipes_behind_ends_with_the_clock_of_its_session() {
    if is_there("python3") {
        ends_alone("read -r word; setsid sleep 2 & exit 0", "idle-timeout", nothing).await;
    }
}

#[tokio::test]
async fn a_program_that_is_loud_on_stderr_keeps_nobody_waiting() {
    if !is_there("python3") {
        return;
    }
    let street = Street::with("head -c 30000000 /dev/zero >&2; echo done; exec cat", "20s").await;
    let (mut session, _) = street.opened().await;
    hears(&mut session, "done\n").await;
    says(&mut session, "Genji").await;
    hears(&mut session, "Genji").await;
    drop(session);
    street.neighbours.lost_nothing().await;
    street.served.running.drain(PATIENCE).await;
}

#[tokio::test]
async fn a_program_that_reads_nothing_makes_its_peer_wait_and_nobody_else() {
    if !is_there("python3") {
        return;
    }
    let street = Street::with("exec sleep 1000", "20s").await;
    let (mut session, pid) = street.opened().await;
    let flood = vec![b'x'; 1 << 20];
    let sent = std::cell::Cell::new(0);
    let flooding = async {
        loop {
            session.send(&flood).await.unwrap();
            session.flush().await.unwrap();
            sent.set(sent.get() + 1);
        }
    };
    // It is no more than what the kernel's buffers hold.
    let stuck = async {
        let mut before = 0;
        loop {
            tokio::time::sleep(Duration::from_millis(300)).await;
            if sent.get() == before && before > 0 {
                break;
            }
            before = sent.get();
        }
    };
    tokio::select! {
        () = within("a flood that waits", stuck) => {}
        () = flooding => {}
    }
    assert!(sent.get() < 64, "{} MiB", sent.get());
    street.neighbours.lost_nothing().await;
    street.served.running.drain(Duration::ZERO).await;
    gone(&pid).await;
}

#[tokio::test]
async fn a_program_that_cannot_be_started_costs_the_sessions_that_ask_for_it() {
    let registry = Registry::builtin();
    let neighbours = Neighbours::of(&registry, &["hello"]).await;
    let served = Served::at(&registry, "tcp://127.0.0.1:0", "exec:/no/such/program").await;
    for _ in 0..3 {
        sees_the_end(&mut served.call().await).await;
    }
    counted(&served, "session.closed", "failed", 3).await;
    neighbours.lost_nothing().await;
    served.ends().await;
}

#[tokio::test]
async fn many_programs_started_at_once_each_serve_their_own_peer() {
    let registry = Registry::builtin();
    let neighbours = Neighbours::of(&registry, &["hello"]).await;
    let served = Served::at(&registry, "tcp://127.0.0.1:0?framing=lines", "exec:cat").await;
    let mut sessions = Vec::new();
    for number in 0..100 {
        let mut session = served.call().await;
        says(&mut session, &number.to_string()).await;
        sessions.push(session);
    }
    for (number, session) in sessions.iter_mut().enumerate() {
        hears(session, &number.to_string()).await;
    }
    drop(sessions);
    neighbours.lost_nothing().await;
    served.ends().await;
}
