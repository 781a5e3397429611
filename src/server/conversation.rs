//! Runs one handler over one session: the clocks, the drain, a panic, and the write when the handler waits.
//!
//! The same code serves connections and the peers of a datagram socket. Nothing here is touched per message but one
//! lock, taken when the handler waits: deadlines are recorded, and one armed timer checks them when it fires.

use std::any::Any;
use std::future::{Future, poll_fn};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::{Pin, pin};
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::time::{Instant, Sleep, sleep_until};

use super::shutdown::Shutdown;
use crate::error::{Error, Result};
use crate::event::CloseReason;
use crate::handler::Handler;
use crate::limits::Limits;
use crate::session::{Session, Wire};

/// How a conversation ended.
pub(super) struct Ending {
    pub(super) reason: CloseReason,
    /// What failed, where something did.
    pub(super) error: Option<String>,
    /// Whether the peer may still be sent what is buffered.
    pub(super) orderly: bool,
}

impl Ending {
    fn orderly(reason: CloseReason) -> Self {
        Ending { reason, error: None, orderly: true }
    }

    pub(super) fn cut(reason: CloseReason) -> Self {
        Ending { reason, error: None, orderly: false }
    }

    pub(super) fn of_error(error: &Error) -> Self {
        let (reason, orderly) = match error {
            _ if error.is_disconnect() => (CloseReason::Disconnected, false),
            Error::Link(_) => (CloseReason::Disconnected, false),
            Error::Framing(_) | Error::TooLong { .. } => (CloseReason::Protocol, true),
            _ => (CloseReason::Failed, true),
        };
        Ending { reason, error: Some(error.to_string()), orderly }
    }
}

/// Runs the handler to its end.
pub(super) async fn converse(
    handler: &dyn Handler,
    session: &mut Session,
    limits: &Limits,
    shutdown: &Shutdown,
    opened: Instant,
) -> Ending {
    let wire = session.wire().clone();
    let mut clocks = Clocks::new(limits, opened, session.peer().connected());
    let mut timer = pin!(sleep_until(clocks.armed));
    let mut draining = pin!(shutdown.draining());
    let mut waits_for_drain = false;
    let mut conversation = handler.serve(session);

    poll_fn(move |cx| {
        if clocks.ending.is_none() && drain_began(&mut waits_for_drain, draining.as_mut(), shutdown, cx) {
            wire.lock().end();
            clocks.ending = Some(CloseReason::Drained);
        }
        loop {
            if let Poll::Ready(ending) = poll_handler(conversation.as_mut(), clocks.ending, cx) {
                return Poll::Ready(ending);
            }
            let mut wire = wire.lock();
            wire.set_driver(cx.waker());
            if let Poll::Ready(Err(error)) = wire.poll_flush(cx) {
                return Poll::Ready(Ending::of_error(&error));
            }
            match clocks.check(&mut wire, timer.as_mut(), cx) {
                Clock::Runs => return Poll::Pending,
                Clock::Cut(reason) => return Poll::Ready(Ending::cut(reason)),
                // The handler is asked once more: `recv` gives `None` now.
                Clock::Ends => wire.end(),
            }
        }
    })
    .await
}

/// Waits in the list of those who are told only once; afterwards a look at the phase is enough, since whoever changes
/// it wakes this task.
fn drain_began(
    waits: &mut bool,
    draining: Pin<&mut impl Future<Output = ()>>,
    shutdown: &Shutdown,
    cx: &mut Context<'_>,
) -> bool {
    if *waits {
        return shutdown.is_draining();
    }
    *waits = true;
    draining.poll(cx).is_ready()
}

fn poll_handler(
    conversation: Pin<&mut (dyn Future<Output = Result<()>> + Send + '_)>,
    ending: Option<CloseReason>,
    cx: &mut Context<'_>,
) -> Poll<Ending> {
    // The handler's own state is dropped with the session, so nobody sees what a panic left half done.
    match catch_unwind(AssertUnwindSafe(|| conversation.poll(cx))) {
        Ok(Poll::Pending) => Poll::Pending,
        Ok(Poll::Ready(Ok(()))) => Poll::Ready(Ending::orderly(ending.unwrap_or(CloseReason::Finished))),
        Ok(Poll::Ready(Err(error))) => Poll::Ready(Ending::of_error(&error)),
        Err(panic) => Poll::Ready(Ending {
            reason: CloseReason::Panicked,
            error: Some(panic_text(panic.as_ref()).to_owned()),
            // What it answered before is owed to the peer.
            orderly: true,
        }),
    }
}

/// What a panic said.
fn panic_text(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("a panic without a text")
}

/// The idle, write and total clocks of one session, over one timer.
struct Clocks {
    idle: Duration,
    write: Duration,
    total: Option<Instant>,
    /// Whether what is sent counts as activity. That a datagram was sent says nothing of whether its peer is there: one
    /// that left a busy room would otherwise be sent its talk for ever.
    sending_counts: bool,
    /// When a message last came or went.
    active: Instant,
    /// How many messages had come and gone by then.
    moved: u64,
    /// Since when nothing of what waits to be written was taken.
    stalled: Option<Instant>,
    /// Why `recv` gives `None` already, and until when the handler may take to notice.
    ending: Option<CloseReason>,
    grace: Option<Instant>,
    /// When the timer will fire.
    armed: Instant,
}

/// What the clocks say.
enum Clock {
    Runs,
    Ends,
    Cut(CloseReason),
}

impl Clocks {
    fn new(limits: &Limits, opened: Instant, connected: bool) -> Self {
        let total = limits.total_timeout.map(|total| opened + total);
        let first = opened + limits.idle_timeout;
        Clocks {
            idle: limits.idle_timeout,
            write: limits.write_timeout,
            total,
            sending_counts: connected,
            active: opened,
            moved: 0,
            stalled: None,
            ending: None,
            grace: None,
            armed: total.map_or(first, |total| total.min(first)),
        }
    }

    /// Called when the handler waits. Makes sure that the timer fires at the next deadline or before.
    fn check(&mut self, wire: &mut Wire, mut timer: Pin<&mut Sleep>, cx: &mut Context<'_>) -> Clock {
        let totals = wire.totals();
        let moved = totals.messages_in + if self.sending_counts { totals.messages_out } else { 0 };
        if moved != self.moved {
            self.moved = moved;
            self.active = Instant::now();
        }
        let progressed = wire.take_progress();
        if wire.buffered() == 0 {
            self.stalled = None;
        } else if progressed || self.stalled.is_none() {
            self.stalled = Some(Instant::now());
        }

        loop {
            let (deadline, clock) = self.next(wire.is_receiving());
            if deadline < self.armed {
                self.armed = deadline;
                timer.as_mut().reset(deadline);
            }
            if timer.as_mut().poll(cx).is_pending() {
                return Clock::Runs;
            }
            if Instant::now() >= deadline {
                return self.expire(clock);
            }
            self.armed = deadline;
            timer.as_mut().reset(deadline);
        }
    }

    /// The deadline that comes first.
    fn next(&self, receiving: bool) -> (Instant, CloseReason) {
        // While the handler works nothing is idle; the timer then only looks again later.
        let idle_since = if receiving && self.ending.is_none() { self.active } else { Instant::now() };
        let idle = (idle_since + self.idle, CloseReason::Idle);
        let others = [
            self.stalled.map(|since| (since + self.write, CloseReason::WriteTimeout)),
            self.total.map(|at| (at, CloseReason::TotalTimeout)),
            self.grace.map(|at| (at, self.ending.unwrap_or(CloseReason::Idle))),
        ];
        others.into_iter().flatten().fold(idle, |first, other| if other.0 < first.0 { other } else { first })
    }

    fn expire(&mut self, clock: CloseReason) -> Clock {
        match clock {
            CloseReason::Idle if self.ending.is_none() => {
                self.ending = Some(CloseReason::Idle);
                self.grace = Some(Instant::now() + self.write);
                Clock::Ends
            }
            reason => Clock::Cut(reason),
        }
    }
}
