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

mod alarm;
mod clock;
pub mod compare;
mod connection;
mod flight;
mod html;
mod line;
pub mod message;
pub mod objective;
mod pace;
mod pattern;
pub mod report;
mod talk;
pub mod tally;
#[cfg(test)]
mod tests;

use std::pin::pin;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval_at, sleep_until, timeout};

use crate::service::Dialler;
use alarm::Alarm;
use clock::{Clock, Moment, nanoseconds};
pub use connection::Unreached;
use message::{Expectation, Source};
use report::{Report, Settings};
use tally::Tally;

/// A load that is counted in messages ends after this time at the latest.
const LONGEST: Duration = Duration::from_secs(86_400);
/// It also ends when for so many times the patience, and at least for so long, nothing has come.
const PATIENT: u32 = 3;
const STALLED: Duration = Duration::from_secs(5);
/// How often it tells how far it is.
const WATCH: Duration = Duration::from_millis(250);
const TICKS_A_SECOND: u64 = 4;

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
    /// How long the first connection waits for what the server says first. Where it says nothing no other one waits.
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
        /// Whether a timer of the kernel is used, which is finer than the runtime's; not on a paused clock.
        precise: bool,
    },
    /// Connects, hears the greeting, closes, and begins anew.
    Connect {
        /// Connections a second, of all together; as many as possible where there is none.
        rate: Option<f64>,
        /// As for [`Mode::Open`].
        precise: bool,
    },
    /// Connects and holds.
    Idle,
}

impl Mode {
    fn rate(self) -> Option<f64> {
        match self {
            Mode::Open { rate, .. } => Some(rate),
            Mode::Connect { rate, .. } => rate,
            Mode::Closed { .. } | Mode::Idle => None,
        }
    }

    fn is_precise(self) -> bool {
        matches!(self, Mode::Open { precise: true, .. } | Mode::Connect { precise: true, .. })
    }
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
pub struct Progress<'a> {
    /// Since it began to be measured; none while it warms up.
    pub elapsed: Option<Duration>,
    /// How much of it is done, from 0 to 1.
    pub done: f64,
    /// Whether a second has become full just now, which is the last of `seconds` then.
    pub is_new_second: bool,
    /// What each full second brought.
    pub seconds: &'a [tally::Second],
    /// How many connections are open.
    pub open: u64,
    /// What was counted so far.
    pub tally: &'a Tally,
}

/// What the server does when it is connected to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
enum Greeting {
    Unknown,
    None,
    Said,
}

/// What all connections share.
struct Shared {
    dialler: Dialler,
    load: Load,
    clock: Clock,
    begin: Moment,
    desk: Mutex<Desk>,
    alarm: Alarm,
    /// Set when nothing more is to be asked.
    stop: AtomicBool,
    /// Set before that where the time is over: what an open load had to ask until then is still asked.
    ran_out: AtomicBool,
    greeting: AtomicU8,
    /// How many connections are open.
    open: AtomicU64,
}

/// What whoever runs at the moment has to itself.
struct Desk {
    tally: Tally,
    /// How many requests may still be sent.
    budget: u64,
    /// What is read goes through it.
    scratch: Vec<u8>,
}

impl Desk {
    /// Takes some requests that are due then out of the budget, at most so many.
    #[inline]
    fn may_ask(&mut self, due: Moment, most: u64) -> u64 {
        if due < self.tally.begin {
            return most;
        }
        let some = most.min(self.budget);
        self.budget -= some;
        some
    }

    /// Requests that may be asked later.
    fn give_back(&mut self, due: Moment, count: u64) {
        if due >= self.tally.begin {
            self.budget += count;
        }
    }

    fn may_connect(&mut self, due: Moment) -> bool {
        due < self.tally.end && self.may_ask(due, 1) == 1
    }
}

impl Shared {
    fn desk(&self) -> MutexGuard<'_, Desk> {
        self.desk.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn stops(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    fn end(&self, ran_out: bool) {
        self.ran_out.store(ran_out, Ordering::Relaxed);
        self.stop.store(true, Ordering::Relaxed);
    }

    fn ran_out(&self) -> bool {
        self.ran_out.load(Ordering::Relaxed)
    }

    fn greeting(&self) -> Greeting {
        [Greeting::Unknown, Greeting::None, Greeting::Said][usize::from(self.greeting.load(Ordering::Relaxed))]
    }

    fn learn(&self, greeting: Greeting) {
        self.greeting.store(greeting as u8, Ordering::Relaxed);
    }

    /// How many requests were due in that time and are not among what was sent.
    fn unsent(&self, until: Moment, tally: &Tally) -> u64 {
        let Some(rate) = self.load.mode.rate() else { return 0 };
        let connections = self.load.connections;
        let schedules = (0..connections).map(|index| pace::Schedule::new(rate, connections, index, self.begin));
        let mut due: u64 = schedules.map(|schedule| schedule.between(self.begin, until)).sum();
        if let Length::Count(count) = self.load.length {
            due = due.min(count);
        }
        // A connection that failed was tried.
        let failed = if let Mode::Connect { .. } = self.load.mode { tally.failed_in_all() } else { 0 };
        due.saturating_sub(tally.counts.sent + failed)
    }
}

/// Runs the load on the current runtime until its end, or until `stop` is done, and tells how far it is.
///
/// The first connection is made before anything else: where that fails there is nothing to measure.
pub async fn run(
    dialler: Dialler,
    load: Load,
    stop: impl Future<Output = ()>,
    mut watch: impl FnMut(Progress<'_>),
) -> Result<Report, Unreached> {
    let settings = Settings::of(&dialler, &load);
    let mut stop = pin!(stop);
    let clock = Clock::start();
    let mut shared = Shared {
        desk: Mutex::new(Desk { tally: Tally::new(0, u64::MAX), budget: u64::MAX, scratch: vec![0; line::READ_SIZE] }),
        alarm: Alarm::default(),
        stop: AtomicBool::new(false),
        ran_out: AtomicBool::new(false),
        greeting: AtomicU8::new(Greeting::Unknown as u8),
        open: AtomicU64::new(0),
        begin: 0,
        clock,
        dialler,
        load,
    };
    let first = connection::open(&shared, clock.now()).await?;

    let begin = clock.now() + nanoseconds(shared.load.ramp + shared.load.warm_up);
    let (length, budget) = match shared.load.length {
        Length::Time(time) => (time, u64::MAX),
        Length::Count(count) => (LONGEST, count),
    };
    let end = begin + nanoseconds(length);
    shared.begin = begin;
    {
        let mut desk = shared.desk();
        desk.tally = Tally::new(begin, end);
        desk.budget = budget;
    }
    let shared = Arc::new(shared);
    let mut connections = JoinSet::new();
    let mut first = Some(first);
    for index in 0..shared.load.connections {
        connections.spawn(connection::run(shared.clone(), index, first.take()));
    }
    let ringing = shared.clone();
    let precise = shared.load.mode.is_precise();
    let mut helpers = JoinSet::new();
    helpers.spawn(async move { ringing.alarm.run(clock, precise).await });

    let mut ticks = interval_at(clock.instant(begin) + WATCH, WATCH);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
    let mut ticked = 0;
    let mut came = Came::default();
    let mut is_complete = false;
    watch(Progress {
        elapsed: None,
        done: 0.0,
        is_new_second: false,
        seconds: &[],
        open: 0,
        tally: &shared.desk().tally,
    });
    loop {
        tokio::select! {
            biased;
            _ = ticks.tick() => {
                ticked += 1;
                let mut desk = shared.desk();
                let second = begin + ticked / TICKS_A_SECOND * 1_000_000_000;
                let is_new_second = ticked % TICKS_A_SECOND == 0 && second < end;
                if is_new_second {
                    desk.tally.turn(second);
                }
                watch(progress(&desk, &shared, length, is_new_second));
                if matches!(shared.load.length, Length::Count(_)) && came.has_stalled(&desk.tally, &shared.load) {
                    break;
                }
            }
            () = sleep_until(clock.instant(end)) => {
                is_complete = true;
                break;
            }
            () = &mut stop => break,
            ended = connections.join_next() => if ended.is_none() {
                is_complete = true;
                break;
            },
        }
    }
    let stopped = clock.now();
    let held = shared.open.load(Ordering::Relaxed);
    // The last requests of an open load are due shortly before its end, and may be sent late as any other.
    let ran_out = is_complete && matches!(shared.load.length, Length::Time(_));
    shared.end(ran_out);
    // What was asked may still be answered.
    if shared.load.mode != Mode::Idle {
        let rest = async { while connections.join_next().await.is_some() {} };
        tokio::select! {
            // Until it was waited for and looked for again.
            _ = timeout(shared.load.patience.mul_f64(1.5), rest) => {}
            () = &mut stop, if is_complete => {}
        }
    }
    connections.shutdown().await;
    helpers.shutdown().await;
    let mut desk = shared.desk();
    let tally = &mut desk.tally;
    tally.finish(clock.now());
    let until = if ran_out { end } else { stopped.min(end) };
    tally.counts.unsent = shared.unsent(until, tally);
    let measured = Duration::from_nanos(until.saturating_sub(begin));
    Ok(Report::of(settings, tally, measured, held, is_complete))
}

/// What had come when, to see whether anything still does.
#[derive(Default)]
struct Came {
    counted: u64,
    ticks: u32,
}

impl Came {
    fn has_stalled(&mut self, tally: &Tally, load: &Load) -> bool {
        let counts = &tally.counts;
        let counted = counts.answered + counts.wrong + counts.duplicates + counts.late;
        if counted > self.counted {
            *self = Came { counted, ticks: 0 };
        }
        self.ticks += 1;
        // A slow rate is no standstill.
        let pause = load.mode.rate().map_or(Duration::ZERO, |rate| Duration::from_secs_f64((2.0 / rate).min(1e6)));
        load.mode != Mode::Idle && WATCH * self.ticks > (load.patience * PATIENT).max(STALLED) + pause
    }
}

fn progress<'a>(desk: &'a Desk, shared: &Shared, length: Duration, is_new_second: bool) -> Progress<'a> {
    let elapsed = Duration::from_nanos(shared.clock.now().saturating_sub(shared.begin));
    let done = match shared.load.length {
        Length::Time(_) => elapsed.as_secs_f64() / length.as_secs_f64(),
        Length::Count(count) => 1.0 - ratio(desk.budget, count),
    };
    Progress {
        elapsed: Some(elapsed),
        done: done.clamp(0.0, 1.0),
        is_new_second,
        seconds: &desk.tally.seconds,
        open: shared.open.load(Ordering::Relaxed),
        tally: &desk.tally,
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
