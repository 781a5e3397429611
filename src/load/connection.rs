//! One connection of a load, or one socket: it is opened, used, and opened again where it fails.

use std::future::poll_fn;
use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use tokio::time::{sleep, timeout};

use super::clock::{Moment, nanoseconds};
use super::line::Line;
use super::pace::Schedule;
use super::talk::Talk;
use super::{Greeting, Mode, Shared};
use crate::error::Error;
use crate::service::DialError;
use crate::verdict::Verdict;

/// How long a connection that failed waits before it is tried again.
const RETRY_PAUSE: Duration = Duration::from_millis(100);

/// What ended a connection, or kept it from being made.
pub(super) struct Broken {
    pub(super) verdict: Verdict,
    /// In words.
    pub(super) what: String,
    /// Whether it had been of use before.
    pub(super) was_useful: bool,
}

impl Broken {
    pub(super) fn new(verdict: Verdict, what: impl Into<String>) -> Self {
        Broken { verdict, what: what.into(), was_useful: false }
    }
}

/// Why the first connection was not made.
#[derive(Debug)]
pub enum Unreached {
    /// The call failed.
    Failed(DialError),
    /// There was no answer for as long as one was waited for.
    Silent(Duration),
    /// It ended before anything was asked.
    Ended(Error),
}

/// A connection that is open, and when it was begun and had been opened.
pub(super) struct Opening {
    line: Line,
    begun: Moment,
    opened: Moment,
}

/// Connects, and hears what the server says first.
pub(super) async fn open(shared: &Shared, begun: Moment) -> Result<Opening, Unreached> {
    let patience = shared.load.patience;
    let attempt = async {
        let opened = shared.dialler.open().await.map_err(Unreached::Failed)?;
        let connected = opened.peer.connected();
        let line = Line::new(opened.link, shared.dialler.framing(), shared.load.source.pattern());
        let mut line = line.map_err(|error| Unreached::Ended(error.into()))?;
        if !connected {
            return Ok((line, shared.clock.now()));
        }
        let before = shared.clock.now();
        let wait = match shared.greeting() {
            // A greeting that is known to come has as long as a reply.
            Greeting::Said => patience,
            Greeting::Unknown => shared.load.greeting,
            Greeting::None => return Ok((line, before)),
        };
        match timeout(wait, next(shared, &mut line)).await {
            Ok(Ok(Some(_))) => {
                shared.learn(Greeting::Said);
                Ok((line, shared.clock.now()))
            }
            Ok(Ok(None)) => Err(Unreached::Ended(Error::Closed)),
            Ok(Err(error)) => Err(Unreached::Ended(error)),
            Err(_) if shared.greeting() == Greeting::Said => Err(Unreached::Silent(wait)),
            Err(_) => {
                shared.learn(Greeting::None);
                // That nothing was said took no time of the server's.
                Ok((line, before))
            }
        }
    };
    let (line, opened) = timeout(patience, attempt).await.map_err(|_| Unreached::Silent(patience))??;
    Ok(Opening { line, begun, opened })
}

/// Keeps connection number `index` busy until the load stops; the first time with what was opened already.
pub(super) async fn run(shared: Arc<Shared>, index: usize, mut opening: Option<Opening>) {
    let load = &shared.load;
    if opening.is_none() {
        sleep(load.ramp.mul_f64(super::ratio(index as u64, load.connections as u64))).await;
    }
    let mut schedule = match load.mode {
        Mode::Open { rate, .. } | Mode::Connect { rate: Some(rate), .. } => {
            let mut schedule = Schedule::new(rate, load.connections, index, shared.begin);
            // What was due before it began to be busy is another's, unless it is to connect then: that it is there for.
            if matches!(load.mode, Mode::Open { .. }) || !load.ramp.is_zero() {
                schedule.skip_to(shared.clock.now());
            }
            Some(schedule)
        }
        _ => None,
    };
    while !shared.stops() {
        match once(&shared, index, opening.take(), schedule.as_mut()).await {
            Ok(Ended::Stopped) => return,
            Ok(Ended::Again) => {}
            Err(broken) => {
                shared.desk().tally.failed(broken.verdict, || broken.what);
                if !broken.was_useful {
                    sleep(RETRY_PAUSE).await;
                }
            }
        }
    }
}

/// Why a connection is over.
pub(super) enum Ended {
    Stopped,
    Again,
}

async fn once(
    shared: &Arc<Shared>,
    index: usize,
    mut opening: Option<Opening>,
    mut schedule: Option<&mut Schedule>,
) -> Result<Ended, Broken> {
    let mode = shared.load.mode;
    let mut begun = opening.as_ref().map_or_else(|| shared.clock.now(), |opening| opening.begun);
    if let (Mode::Connect { .. }, Some(schedule)) = (mode, &mut schedule) {
        schedule.skip_to(begun.saturating_sub(nanoseconds(shared.load.patience)));
        begun = wait_until_due(shared, index, schedule.due()).await;
        // What was opened before was not when it was due.
        opening = None;
    }
    if matches!(mode, Mode::Connect { .. }) && !shared.desk().may_connect(begun) {
        return Ok(Ended::Stopped);
    }
    let opening = match opening {
        Some(opening) => opening,
        None => open(shared, begun).await.map_err(|unreached| broken_by(&unreached))?,
    };
    {
        let tally = &mut shared.desk().tally;
        let connects = matches!(mode, Mode::Connect { .. });
        if !connects || tally.measures(begun) {
            tally.connecting.saturating_record(opening.opened.saturating_sub(begun).max(1));
        }
        if connects {
            tally.sent(begun, begun, 1, 0);
            tally.answered(begun, opening.opened.max(begun), 1, 0);
        }
    }
    let _open = Open::count(shared);
    match mode {
        Mode::Connect { .. } => {
            if let Some(schedule) = schedule {
                schedule.advance();
            }
            Ok(Ended::Again)
        }
        Mode::Idle => hold(shared, opening.line).await,
        Mode::Closed { .. } | Mode::Open { .. } => Talk::new(shared, opening.line, index, schedule).run().await,
    }
}

async fn wait_until_due(shared: &Shared, index: usize, due: Moment) -> Moment {
    poll_fn(|cx| {
        if shared.clock.now() >= due {
            return Poll::Ready(due);
        }
        shared.alarm.set(index, due, cx);
        Poll::Pending
    })
    .await
}

async fn next(shared: &Shared, line: &mut Line) -> crate::error::Result<Option<Bytes>> {
    poll_fn(|cx| line.poll_next(cx, &mut shared.desk().scratch)).await
}

/// Waits for the end; what is said meanwhile was not asked for.
async fn hold(shared: &Shared, mut line: Line) -> Result<Ended, Broken> {
    loop {
        match next(shared, &mut line).await {
            Ok(Some(_)) => shared.desk().tally.counts.unasked += 1,
            Ok(None) => return Err(Broken::new(Verdict::Failed, "the server ended the connection")),
            Err(error) => return Err(broken_link(&error)),
        }
    }
}

/// A connection that is open, as long as this lives.
struct Open<'a>(&'a Shared);

impl<'a> Open<'a> {
    fn count(shared: &'a Shared) -> Self {
        shared.open.fetch_add(1, Ordering::Relaxed);
        Open(shared)
    }
}

impl Drop for Open<'_> {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Ordering::Relaxed);
    }
}

pub(super) fn broken_link(error: &Error) -> Broken {
    let verdict = match error {
        Error::Link(error) => of_link(error),
        Error::Framing(_) | Error::TooLong { .. } => Verdict::Unexpected,
        _ => Verdict::Failed,
    };
    Broken::new(verdict, error.to_string())
}

fn broken_by(unreached: &Unreached) -> Broken {
    match unreached {
        Unreached::Silent(patience) => Broken::new(Verdict::Timeout, format!("no answer within {patience:?}")),
        Unreached::Ended(Error::Closed) => Broken::new(Verdict::Failed, "the server ended the connection at once"),
        Unreached::Ended(error) => broken_link(error),
        Unreached::Failed(error) => {
            let verdict = match error {
                DialError::Connect(error) => error.decisive().map_or(Verdict::Failed, of_link),
                DialError::Slow { .. } => Verdict::Timeout,
                _ => Verdict::Failed,
            };
            Broken::new(verdict, error.to_string())
        }
    }
}

fn of_link(error: &io::Error) -> Verdict {
    Verdict::of_connect(error)
}
