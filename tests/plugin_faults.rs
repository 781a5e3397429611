//! Plugins that fail, and what becomes of them and of everybody else.

#[path = "support/command.rs"]
#[expect(dead_code, reason = "each of the black-box tests needs a part of it")]
mod command;
#[path = "support/plugins.rs"]
#[expect(dead_code, reason = "each of the tests of plugins needs a part of it")]
mod plugins;

use std::time::Duration;

use command::is_there;
use greetd::Registry;
use greetd::hosts::Timing;
use plugins::*;

/// A plugin that does as it is told, a handler of it that is served, and neighbours: a built-in handler and a plugin that
/// does no wrong.
struct Street {
    plugin: greetd::hosts::Plugin,
    served: Served,
    neighbours: Neighbours,
    folder: tempfile::TempDir,
}

impl Street {
    async fn with(timing: Timing) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let (plugin, mut registry) = unstable(folder.path(), timing).await;
        load(&sample("python/hello.py")).await.register(&mut registry).unwrap();
        // Who does not read is waited for no longer than that.
        let served = Served::at(&registry, "tcp://127.0.0.1:0?framing=lines&write-timeout=500ms", "unstable").await;
        plugin.observe(served.running.observer());
        let neighbours = Neighbours::of(&registry, &["hello", "py-hello"]).await;
        Street { plugin, served, neighbours, folder }
    }

    async fn ends(self) {
        self.neighbours.lost_nothing().await;
        self.served.running.drain(PATIENCE).await;
    }
}

fn quick() -> Timing {
    Timing { answer: Duration::from_secs(1), ..timing() }
}

/// Of a plugin that fails as a whole.
async fn fails_and_runs_again(deed: &str, reason: &str) {
    let street = Street::with(quick()).await;
    let served = &street.served;
    let (mut bystander, before) = opened(served).await;
    let (mut session, same) = opened(served).await;
    assert_eq!(before, same, "one child serves all sessions");
    if deed == "kill -9" {
        let pid = before.trim_start_matches("pid ").parse().unwrap();
        nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGKILL).unwrap();
    } else {
        says(&mut session, deed).await;
    }
    sees_the_end(&mut session).await;
    sees_the_end(&mut bystander).await;
    counted(served, "plugin.failed", reason, 1).await;
    counted(served, "plugin.restarted", "", 1).await;
    let (mut session, after) = opened(served).await;
    assert_ne!(before, after, "after {deed} it was started again");
    says(&mut session, "hello").await;
    hears(&mut session, "hello").await;
    assert_eq!(served.counters().total("plugin.failed"), 1, "{deed}");
    drop(session);
    street.ends().await;
}

#[tokio::test]
async fn a_plugin_that_dies_is_started_again_and_its_neighbours_lose_nothing() {
    if is_there("python3") {
        for deed in ["kill -9", "die", "exit", "fork", "close stdout"] {
            fails_and_runs_again(deed, "died").await;
        }
    }
}

#[tokio::test]
async fn a_plugin_that_falls_silent_is_started_again_and_its_neighbours_lose_nothing() {
    if is_there("python3") {
        for deed in ["stop", "deaf", "mute", "partial", "dribble"] {
            fails_and_runs_again(deed, "silent").await;
        }
    }
}

#[tokio::test]
async fn a_plugin_that_talks_nonsense_is_started_again_and_its_neighbours_lose_nothing() {
    if is_there("python3") {
        for deed in ["garbage", "type", "huge"] {
            fails_and_runs_again(deed, "protocol").await;
        }
        fails_and_runs_again("give up", "gave-up").await;
    }
}

/// What it does to one session costs that session alone.
async fn costs_one_session(deed: &str, fault: Option<&str>) {
    let street = Street::with(timing()).await;
    let served = &street.served;
    let (mut bystander, pid) = opened(served).await;
    let (mut session, same) = opened(served).await;
    assert_eq!(same, pid);
    says(&mut session, deed).await;
    if let Some(fault) = fault {
        counted(served, "plugin.session-failed", fault, 1).await;
    }
    within(&format!("the end of a session after {deed}"), async {
        while served.counters().total("session.closed") == 0 {
            says(&mut bystander, "and you?").await;
            hears(&mut bystander, "and you?").await;
        }
    })
    .await;
    let (_, same) = opened(served).await;
    assert_eq!((same, served.counters().total("plugin.failed")), (pid, 0), "it was not started again");
    drop((bystander, session));
    street.ends().await;
}

#[tokio::test]
async fn what_goes_wrong_in_one_session_costs_that_session_alone() {
    if is_there("python3") {
        costs_one_session("raise", Some("error")).await;
        costs_one_session("twice", Some("unasked")).await;
        // What it is sent is not read: nobody takes the flood.
        costs_one_session("push", Some("flood")).await;
        costs_one_session("posthumous", None).await;
    }
}

#[tokio::test]
async fn one_answer_that_is_late_costs_its_session_alone_while_the_others_are_answered() {
    if !is_there("python3") {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let text = "import sys, os\nsys.path.insert(0, os.environ['SAMPLES'])\nimport greetd\n\
                def slow(session):\n    message = yield b'ready'\n    while True:\n        message = yield message\n\
                step = greetd._step\n\
                greetd._step = lambda talks, number, advance: b'' if number == 1 else step(talks, number, advance)\n\
                greetd.serve(slow=slow)\n";
    let path = program(folder.path(), text);
    let samples = [("SAMPLES".into(), sample("python").into())];
    let environment = greetd::hosts::Environment::new(samples);
    let plugin = greetd::hosts::Plugin::load(&path, &environment, quick()).await.unwrap();
    let mut registry = Registry::builtin();
    plugin.register(&mut registry).unwrap();
    let served = Served::at(&registry, "tcp://127.0.0.1:0?framing=lines", "slow").await;
    plugin.observe(served.running.observer());
    let mut first = served.call().await;
    let mut second = served.call().await;
    hears(&mut second, "ready").await;
    let talking = async {
        loop {
            says(&mut second, "and you?").await;
            hears(&mut second, "and you?").await;
        }
    };
    tokio::select! {
        () = sees_the_end(&mut first) => {}
        () = talking => {}
    }
    assert_eq!(served.counters().get("plugin.session-failed", "overdue"), 1);
    assert_eq!(served.counters().total("plugin.failed"), 0);
    drop((first, second));
    served.running.drain(PATIENCE).await;
}

#[tokio::test]
async fn floods_that_go_nowhere_and_slow_frames_cost_nobody_anything() {
    if !is_there("python3") {
        return;
    }
    let street = Street::with(timing()).await;
    let (mut session, pid) = opened(&street.served).await;
    for deed in ["nobody", "loud"] {
        says(&mut session, deed).await;
        hears(&mut session, deed).await;
    }
    says(&mut session, "bytewise").await;
    hears(&mut session, "byte by byte").await;
    hears(&mut session, "bytewise").await;
    let (other, same) = opened(&street.served).await;
    assert_eq!((pid, street.served.counters().total("session.closed")), (same, 0));
    drop((session, other));
    street.ends().await;
}

#[tokio::test]
async fn a_plugin_that_stopped_is_seen_to_be_silent_though_nobody_waits_for_it() {
    if !is_there("python3") {
        return;
    }
    let street = Street::with(quick()).await;
    let served = &street.served;
    let (mut session, before) = opened(served).await;
    says(&mut session, "stop").await;
    // Nobody waits for an answer so long that it would be overdue.
    drop(session);
    let calling = async {
        loop {
            let mut caller = served.call().await;
            says(&mut caller, &"x".repeat(1000)).await;
        }
    };
    tokio::select! {
        () = calling => {}
        () = counted(served, "plugin.failed", "silent", 1) => {}
    }
    counted(served, "plugin.restarted", "", 1).await;
    let (_, after) = opened(served).await;
    assert_ne!(before, after);
    street.ends().await;
}

#[tokio::test]
async fn five_failures_within_a_minute_disable_a_plugin_until_it_is_loaded_again() {
    if !is_there("python3") {
        return;
    }
    let street = Street::with(timing()).await;
    let served = &street.served;
    for failure in 1..=5 {
        let (mut session, _) = opened(served).await;
        says(&mut session, "die").await;
        sees_the_end(&mut session).await;
        counted(served, "plugin.failed", "died", failure).await;
    }
    counted(served, "plugin.disabled", "", 1).await;
    assert_eq!(served.counters().total("plugin.restarted"), 4);
    // Whoever calls hears nothing but the end.
    let mut session = served.call().await;
    sees_the_end(&mut session).await;
    street.plugin.reload().await.unwrap();
    assert_eq!(served.counters().total("plugin.reloaded"), 1);
    let (session, _) = opened(served).await;
    drop(session);
    street.ends().await;
}

#[tokio::test]
async fn a_plugin_whose_file_became_another_version_fails_to_run_again_in_words() {
    if !is_there("python3") {
        return;
    }
    let street = Street::with(timing()).await;
    let served = &street.served;
    let (mut session, _) = opened(served).await;
    program(street.folder.path(), "print('greetd-plugin 2 unstable', flush=True)\nimport time; time.sleep(1000)\n");
    let error = street.plugin.reload().await.unwrap_err().to_string();
    assert_eq!(error, "plugin.py: made for plugin protocol 2; this greetd speaks 1");
    assert_eq!(served.counters().total("plugin.not-reloaded"), 1);
    says(&mut session, "hello").await;
    hears(&mut session, "hello").await;
    says(&mut session, "die").await;
    sees_the_end(&mut session).await;
    counted(served, "plugin.failed", "not-started", 4).await;
    counted(served, "plugin.disabled", "", 1).await;
    street.ends().await;
}

#[tokio::test]
async fn whoever_sends_much_at_once_is_answered_all_of_it() {
    if !is_there("python3") {
        return;
    }
    let street = Street::with(timing()).await;
    let served = Served::at(&street.served.registry, "tcp://127.0.0.1:0?framing=length32", "unstable").await;
    let (mut session, _) = opened(&served).await;
    let long = "z".repeat(100_000);
    {
        let (mut ears, mut mouth) = session.split();
        let speaking = async {
            for question in 0..100 {
                mouth.send(long.as_bytes()).await.unwrap();
                mouth.send(b"large").await.unwrap();
                mouth.send(question.to_string().as_bytes()).await.unwrap();
            }
            mouth.flush().await.unwrap();
        };
        let listening = async {
            for question in 0..100 {
                for size in [100_000, 1_000_000] {
                    let heard = ears.recv().await.unwrap().expect("it is answered");
                    assert_eq!(heard.len(), size, "{question}");
                }
                assert_eq!(ears.recv().await.unwrap().unwrap(), question.to_string().as_bytes());
            }
        };
        within("all answers", async { tokio::join!(speaking, listening) }).await;
    }
    assert_eq!(street.served.counters().total("plugin.session-failed"), 0);
    drop(session);
    served.ends().await;
    street.ends().await;
}
