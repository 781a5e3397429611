//! Keeps one program running: started, watched, started again with back-off, given up in public.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Notify, watch};
use tokio::time::{sleep, timeout};

use super::Timing;
use super::link::Link;
use super::running::{Running, StartError};
use crate::error::{Error, Result};
use crate::hosts::child::Program;
use crate::hosts::failures::{FAILURES, Failures};

/// The pause before it is started again doubles, from the first to the last.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);
/// How long a child may take to end by itself when nobody needs it any more.
const WIND_UP: Duration = Duration::from_secs(2);

/// A program that is kept running as long as this is held.
pub(super) struct Host {
    state: watch::Receiver<State>,
    unneeded: Arc<Notify>,
    timing: Timing,
    pub(super) names: Vec<String>,
}

#[derive(Clone)]
enum State {
    Running(Arc<Link>),
    /// It died, and is started again.
    Restarting,
    Disabled(Arc<str>),
}

impl Host {
    /// Starts the program, and a task that keeps it running.
    pub(super) async fn start(program: Program, name: String, timing: Timing) -> Result<Self, StartError> {
        let running = Running::start(&program, &name, &timing).await?;
        let names = running.names.clone();
        let (state, seen) = watch::channel(State::Running(running.link.clone()));
        let unneeded = Arc::new(Notify::new());
        let keeper = Keeper { program, name, timing: timing.clone(), names: names.clone(), state };
        tokio::spawn(keeper.keep(running, unneeded.clone()));
        Ok(Host { state: seen, unneeded, timing, names })
    }

    /// The link to the child that runs; waits a while for one that is being started again.
    pub(super) async fn link(&self) -> Result<Arc<Link>> {
        if let State::Running(link) = &*self.state.borrow() {
            return Ok(link.clone());
        }
        let mut state = self.state.clone();
        let settled = state.wait_for(|state| !matches!(state, State::Restarting));
        match timeout(self.timing.answer, settled).await.map(|seen| seen.map(|state| state.clone())) {
            Ok(Ok(State::Running(link))) => Ok(link),
            Ok(Ok(State::Disabled(reason))) => Err(Error::handler(&*reason)),
            Ok(_) => Err(Error::handler("the plugin was unloaded")),
            Err(_) => Err(Error::handler("the plugin is being started again")),
        }
    }

    /// Whether it was given up.
    pub(super) fn is_disabled(&self) -> bool {
        matches!(*self.state.borrow(), State::Disabled(_))
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        self.unneeded.notify_one();
    }
}

struct Keeper {
    program: Program,
    name: String,
    timing: Timing,
    names: Vec<String>,
    state: watch::Sender<State>,
}

impl Keeper {
    async fn keep(self, mut running: Running, unneeded: Arc<Notify>) {
        let mut failures = Failures::default();
        loop {
            tracing::debug!(target: "greetd", plugin = self.name, "plugin.started");
            let reason = tokio::select! {
                reason = running.run() => reason,
                () = unneeded.notified() => {
                    // Nobody is left who could ask for the link, and the link holds the child's stdin.
                    self.state.send_replace(State::Restarting);
                    return running.wind_up(WIND_UP).await;
                }
            };
            drop(running);
            self.state.send_replace(State::Restarting);
            let restarted = tokio::select! {
                restarted = self.restart(reason, &mut failures) => restarted,
                () = unneeded.notified() => return,
            };
            let Some(again) = restarted else {
                // Disabled; the state is kept for those who ask.
                return unneeded.notified().await;
            };
            running = again;
            self.state.send_replace(State::Running(running.link.clone()));
        }
    }

    /// Starts it again after a pause, until it runs or has failed too often.
    async fn restart(&self, mut reason: String, failures: &mut Failures) -> Option<Running> {
        loop {
            if failures.add() {
                let plugin = &self.name;
                tracing::error!(target: "greetd", plugin, reason, failures = FAILURES, "plugin.disabled");
                let words =
                    format!("the plugin {plugin} is disabled: {FAILURES} failures within a minute; the last: {reason}");
                self.state.send_replace(State::Disabled(words.into()));
                return None;
            }
            let pause = (FIRST_PAUSE * 2u32.pow(failures.count() as u32 - 1)).min(LONGEST_PAUSE);
            tracing::warn!(target: "greetd", plugin = self.name, reason, again_in_s = pause.as_secs_f64(), "plugin.failed");
            sleep(pause).await;
            match Running::start(&self.program, &self.name, &self.timing).await {
                Ok(running) if running.names == self.names => return Some(running),
                Ok(running) => reason = format!("now names other handlers: {}", running.names.join(", ")),
                Err(error) => reason = error.to_string(),
            }
        }
    }
}
