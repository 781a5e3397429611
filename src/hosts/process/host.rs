//! Keeps one program running: started, watched, started again with back-off, given up in public.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Notify, watch};
use tokio::time::{sleep, timeout};

use super::Timing;
use super::link::Link;
use super::running::{Fault, Running};
use crate::error::Error;
use crate::event::{Event, PluginFault};
use crate::hosts::child::Program;
use crate::hosts::failures::{FAILURES, Failures};
use crate::hosts::observed::Observed;

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

/// What a program must do to take the place of another one.
pub(super) struct Expected<'a> {
    pub(super) names: &'a [String],
    /// The openings of sessions, each to be answered.
    pub(super) trials: &'a [Vec<u8>],
}

#[derive(Clone)]
enum State {
    Running(Arc<Link>),
    /// It died, and is started again.
    Restarting,
    Disabled(Arc<str>),
}

impl Host {
    /// Starts the program, holds it against what is expected of it, and then keeps it running in a task.
    pub(super) async fn start(
        program: Program,
        name: String,
        timing: Timing,
        observed: Observed,
        expected: Option<Expected<'_>>,
    ) -> Result<Self, String> {
        let running = Running::start(&program, &name, &timing, &observed).await;
        let mut running = running.map_err(|error| error.to_string())?;
        if let Some(Expected { names, trials }) = expected {
            if running.names != names {
                let (new, old) = (running.names.join(", "), names.join(", "));
                return Err(format!("now names the handlers {new}, where {old} are served; start greetd anew"));
            }
            for trial in trials {
                running.try_out(trial, timing.answer).await?;
            }
        }
        let names = running.names.clone();
        let (state, seen) = watch::channel(State::Running(running.link.clone()));
        let unneeded = Arc::new(Notify::new());
        let keeper = Keeper { program, name, timing: timing.clone(), names: names.clone(), observed, state };
        tokio::spawn(keeper.keep(running, unneeded.clone()));
        Ok(Host { state: seen, unneeded, timing, names })
    }

    /// The link to the child that runs; waits a while for one that is being started again.
    pub(super) async fn link(&self) -> Result<Arc<Link>, Error> {
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
    observed: Observed,
    state: watch::Sender<State>,
}

impl Keeper {
    async fn keep(self, mut running: Running, unneeded: Arc<Notify>) {
        let mut failures = Failures::default();
        loop {
            let fault = tokio::select! {
                fault = running.run() => fault,
                () = unneeded.notified() => {
                    // Nobody is left who could ask for the link, and the link holds the child's stdin.
                    self.state.send_replace(State::Restarting);
                    return running.wind_up(WIND_UP).await;
                }
            };
            drop(running);
            self.state.send_replace(State::Restarting);
            let restarted = tokio::select! {
                restarted = self.restart(fault, &mut failures) => restarted,
                () = unneeded.notified() => return,
            };
            let Some(again) = restarted else {
                // Disabled; the state is kept for those who ask.
                return unneeded.notified().await;
            };
            running = again;
            self.observed.tell(&Event::PluginRestarted { plugin: &self.name });
            self.state.send_replace(State::Running(running.link.clone()));
        }
    }

    /// Starts it again after a pause, until it runs or has failed too often.
    async fn restart(&self, mut fault: Fault, failures: &mut Failures) -> Option<Running> {
        let plugin = &*self.name;
        loop {
            let too_many = failures.add();
            let pause = (FIRST_PAUSE * 2u32.pow(failures.count() as u32 - 1)).min(LONGEST_PAUSE);
            let Fault { kind: reason, words } = fault;
            let again = Some(pause).filter(|_| !too_many);
            self.observed.tell(&Event::PluginFailed { plugin, reason, error: &words, again });
            if too_many {
                let words = format!("{FAILURES} failures within a minute; the last: {words}");
                self.observed.tell(&Event::PluginDisabled { plugin, error: &words });
                self.state.send_replace(State::Disabled(format!("the plugin {plugin} is disabled: {words}").into()));
                return None;
            }
            sleep(pause).await;
            let words = match Running::start(&self.program, plugin, &self.timing, &self.observed).await {
                Ok(running) if running.names == self.names => return Some(running),
                Ok(running) => format!("now names other handlers: {}", running.names.join(", ")),
                Err(error) => error.to_string(),
            };
            fault = Fault::new(PluginFault::NotStarted, words);
        }
    }
}
