//! A load on any endpoint, and what it meets: how many replies, how fast, how many wrong or missing.
//!
//! # Closed and open
//! A *closed* load keeps so many requests in flight on each connection: a slow server is asked less often, so it shows
//! what the server can do. An *open* load asks at a rate, whatever the server does, as people do; a latency then runs
//! from the moment when its request was due, not from when it could be sent, so that a stall shows in all requests
//! that it delayed (otherwise the load would omit, in coordination with the server, those that matter).
//!
//! # What counts
//! Requests that are due within the measurement, which begins after the ramp and the warm-up. Each is answered, wrong
//! or missing; what fails besides is counted by its verdict, apart from the latencies.
//!
//! # Where there are no connections
//! Each message says its number, so that a reply finds its request: lost, late, doubled and reordered ones are counted.

pub mod compare;
mod connection;
pub mod flight;
mod html;
pub mod message;
pub mod objective;
pub mod report;
pub mod tally;
#[cfg(test)]
mod tests;

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval_at, sleep_until, timeout};

use crate::service::Dialler;
use message::{Expectation, Source};
use report::{Report, Settings};
use tally::Tally;

/// A load that is counted in messages ends after this time at the latest.
const LONGEST: Duration = Duration::from_secs(86_400);

/// What is done to the endpoint.
#[derive(Debug, Clone)]
pub struct Load {
    /// What each connection does.
    pub mode: Mode,
    /// How many connections, or sockets where there are no connections.
    pub connections: usize,
    /// When it ends.
    pub length: Length,
    /// How long it runs before it is measured.
    pub warm_up: Duration,
    /// Over what time the connections are opened.
    pub ramp: Duration,
    /// How long a reply may take; then its request is given up, and a connection broken off.
    pub patience: Duration,
    /// How long a connection waits for what the server says first. Nothing is asked before.
    pub greeting: Duration,
    /// What is sent.
    pub source: Source,
    /// What is to come back.
    pub expectation: Expectation,
}

/// What each connection does.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Mode {
    /// Keeps so many requests in flight.
    Closed {
        /// How many.
        depth: usize,
    },
    /// Asks at a rate.
    Open {
        /// Requests a second, of all connections together.
        rate: f64,
        /// Whether the last millisecond before a request is due is waited for by asking the clock again and again,
        /// since timers are no finer. It takes a processor as a whole.
        precise: bool,
    },
    /// Connects, hears the greeting, closes, and begins anew.
    Connect,
    /// Connects and holds.
    Idle,
}

/// When a load ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Length {
    /// After so many requests or connections, the warm-up's not counted.
    Count(u64),
    /// After this time, the warm-up's not counted.
    Time(Duration),
}

/// How far a load is.
#[derive(Debug, Clone, Copy)]
pub struct Progress<'a> {
    /// Since it began to be measured; none while it warms up.
    pub elapsed: Option<Duration>,
    /// What the last full second brought.
    pub last: Option<&'a tally::Second>,
    /// Right replies so far.
    pub answered: u64,
    /// What failed so far.
    pub failed: u64,
    /// How much of it is done, from 0 to 1.
    pub done: f64,
}

/// What all connections share.
struct Shared {
    dialler: Dialler,
    load: Load,
    tally: Mutex<Tally>,
    /// Set when nothing more is to be asked.
    stop: AtomicBool,
    /// How many requests may still be sent.
    budget: AtomicU64,
    /// How many connections are open, and how many were at most.
    open: AtomicU64,
}

impl Shared {
    fn tally(&self) -> MutexGuard<'_, Tally> {
        self.tally.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn stops(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    /// Takes one request, which is due then, out of the budget.
    fn may_ask(&self, due: Instant, begin: Instant) -> bool {
        if due < begin {
            return true;
        }
        let left = self.budget.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1));
        left.is_ok()
    }
}

/// Runs the load on the current runtime, and tells how far it is once a second.
pub async fn run(dialler: Dialler, load: Load, mut watch: impl FnMut(Progress<'_>)) -> Report {
    let settings = Settings::of(&dialler, &load);
    let begin = Instant::now() + load.ramp + load.warm_up;
    let (length, budget) = match load.length {
        Length::Time(time) => (time, u64::MAX),
        Length::Count(count) => (LONGEST, count),
    };
    let end = begin + length;
    let shared = Arc::new(Shared {
        tally: Mutex::new(Tally::new(begin, end)),
        stop: AtomicBool::new(false),
        budget: AtomicU64::new(budget),
        open: AtomicU64::new(0),
        dialler,
        load,
    });
    let mut connections = JoinSet::new();
    for index in 0..shared.load.connections {
        connections.spawn(connection::run(shared.clone(), index));
    }

    let mut seconds = interval_at(begin + Duration::from_secs(1), Duration::from_secs(1));
    seconds.set_missed_tick_behavior(MissedTickBehavior::Burst);
    watch(Progress { elapsed: None, last: None, answered: 0, failed: 0, done: 0.0 });
    loop {
        tokio::select! {
            biased;
            _ = seconds.tick() => {
                let mut tally = shared.tally();
                tally.turn();
                watch(progress(&tally, &shared, budget, length));
            }
            () = sleep_until(end) => break,
            ended = connections.join_next() => if ended.is_none() { break },
        }
    }
    let held = shared.open.load(Ordering::Relaxed);
    let measured = Instant::now().min(end).saturating_duration_since(begin);
    shared.stop.store(true, Ordering::Relaxed);
    // What was asked may still be answered.
    if shared.load.mode != Mode::Idle {
        let rest = async { while connections.join_next().await.is_some() {} };
        let _ = timeout(shared.load.patience, rest).await;
    }
    connections.shutdown().await;
    let mut tally = shared.tally();
    tally.finish();
    Report::of(settings, &tally, measured, held)
}

fn progress<'a>(tally: &'a Tally, shared: &Shared, budget: u64, length: Duration) -> Progress<'a> {
    let elapsed = Instant::now().saturating_duration_since(tally.begin);
    let done = match shared.load.length {
        Length::Time(_) => elapsed.as_secs_f64() / length.as_secs_f64(),
        Length::Count(_) => 1.0 - ratio(shared.budget.load(Ordering::Relaxed), budget),
    };
    Progress {
        elapsed: Some(elapsed),
        last: tally.seconds.last(),
        answered: tally.counts.answered,
        failed: tally.counts.wrong + tally.counts.missing + tally.errors.values().sum::<u64>(),
        done: done.clamp(0.0, 1.0),
    }
}

/// To the nearest whole number; what is below 0 is none.
#[expect(clippy::cast_sign_loss, reason = "a conversion from a float stops at the bounds")]
pub(crate) fn whole(number: f64) -> u64 {
    number.round() as u64
}

/// Exact enough for shares and rates.
#[expect(clippy::cast_precision_loss, reason = "counts beyond 2^53 do not occur, and would be off by a part in 10^15")]
pub(crate) fn ratio(part: u64, whole: u64) -> f64 {
    part as f64 / whole as f64
}
