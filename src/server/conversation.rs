//! Runs one handler over one session: the clocks, the drain, a panic, and the write when the handler waits.
//!
//! The same code serves connections and the peers of a datagram socket. Nothing here is touched per message but one
//! lock, taken when the handler waits: deadlines are recorded, and one armed timer checks them when it fires.

use std::any::Any;
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::{Pin, pin};
use std::task::{Context, Poll};

use pin_project_lite::pin_project;
use tokio::task::coop::unconstrained;
use tokio::time::{Instant, Sleep, sleep_until};

use super::busy;
use super::shutdown::{Phase, Shutdown, Watch};
use crate::error::Error;
use crate::event::CloseReason;
use crate::handler::{Conversation, Handler};
use crate::limits::Limits;
use crate::session::{Session, Wire, WireRef};

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

    /// `broken` says whether the session's own link failed; a handler has others, whose failures it may hand on.
    fn of_error(error: &Error, broken: bool) -> Self {
        let (reason, orderly) = match error {
            Error::Link(_) | Error::Closed if broken => (CloseReason::Disconnected, false),
            Error::Framing(_) | Error::TooLong { .. } => (CloseReason::Protocol, true),
            _ => (CloseReason::Failed, true),
        };
        Ending { reason, error: Some(error.to_string()), orderly }
    }
}

/// Runs the handler to its end.
pub(super) fn converse<'a>(
    handler: &'a dyn Handler,
    session: &'a mut Session,
    limits: &'a Limits,
    shutdown: &'a Shutdown,
    opened: Instant,
) -> Conversing<'a> {
    let clocks = Clocks::new(limits, opened, session.peer().connected());
    Conversing {
        watch: shutdown.watch(),
        wire: session.wire().clone(),
        timer: sleep_until(clocks.first()),
        clocks,
        conversation: Contained(Some(handler.serve(session))),
        turn: None,
    }
}

pin_project! {
    /// A conversation under its clocks. It is most of what an idle connection costs, so it is written out: an async
    /// block would hold places for what it has at hand only while it is run.
    pub(super) struct Conversing<'a> {
        conversation: Contained<'a>,
        wire: WireRef,
        watch: Watch<'a>,
        clocks: Clocks<'a>,
        #[pin]
        timer: Sleep,
        // The turn that the reactor has before a drain ends the session.
        turn: Option<Box<Turn>>,
    }
}

type Turn = Pin<Box<dyn Future<Output = ()> + Send>>;

impl Future for Conversing<'_> {
    type Output = Ending;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Ending> {
        busy::note_run();
        let mut this = self.project();
        match this.watch.phase(cx) {
            Phase::Running => {}
            Phase::Cutting => return Poll::Ready(Ending::cut(CloseReason::Cut)),
            Phase::Draining if this.clocks.ending.is_some() => {}
            // The reactor has a turn first: of a connection that was accepted just now it does not know yet that
            // something has come, which is still to be answered.
            Phase::Draining => {
                let turn = this.turn.get_or_insert_with(|| Box::new(Box::pin(tokio::task::yield_now())));
                if turn.as_mut().as_mut().poll(cx).is_ready() {
                    this.wire.lock().end();
                    this.clocks.ending = Some(CloseReason::Drained);
                }
            }
        }
        loop {
            if let Poll::Ready(ending) = this.conversation.poll(this.clocks.ending, this.wire, cx) {
                return Poll::Ready(ending);
            }
            let mut wire = this.wire.lock();
            wire.set_driver(cx.waker());
            if let Poll::Ready(Err(error)) = wire.poll_flush(cx) {
                return Poll::Ready(Ending::of_error(&error, wire.is_broken()));
            }
            match this.clocks.check(&mut wire, this.timer.as_mut(), cx) {
                Clock::Runs => return Poll::Pending,
                Clock::Cut(reason) => return Poll::Ready(Ending::cut(reason)),
                // The handler is asked once more: `recv` gives `None` now.
                Clock::Ends => wire.end(),
            }
        }
    }
}

/// A handler's conversation, whose panics stay inside: while it runs, and while what it leaves is dropped.
struct Contained<'a>(Option<Conversation<'a>>);

impl Contained<'_> {
    fn poll(&mut self, ending: Option<CloseReason>, wire: &WireRef, cx: &mut Context<'_>) -> Poll<Ending> {
        let Some(conversation) = &mut self.0 else { return Poll::Pending };
        // The handler's own state is dropped with the session, so nobody sees what a panic left half done.
        match catch_unwind(AssertUnwindSafe(|| conversation.as_mut().poll(cx))) {
            Ok(Poll::Pending) => Poll::Pending,
            Ok(Poll::Ready(Ok(()))) => Poll::Ready(Ending::orderly(ending.unwrap_or(CloseReason::Finished))),
            Ok(Poll::Ready(Err(error))) => Poll::Ready(Ending::of_error(&error, wire.lock().is_broken())),
            Err(panic) => Poll::Ready(Ending {
                reason: CloseReason::Panicked,
                error: Some(panic_text(panic.as_ref()).to_owned()),
                // What it answered before is owed to the peer.
                orderly: true,
            }),
        }
    }
}

/// A session that is cut is dropped where it waits, in a task that may serve other peers too.
impl Drop for Contained<'_> {
    fn drop(&mut self) {
        let conversation = self.0.take();
        let _ = catch_unwind(AssertUnwindSafe(|| drop(conversation)));
    }
}

/// What a panic said.
fn panic_text(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("a panic without a text")
}

/// The idle, write and total clocks of one session, over one timer.
struct Clocks<'a> {
    limits: &'a Limits,
    opened: Instant,
    /// When a message last came or went.
    active: Instant,
    /// How many messages had come and gone by then.
    moved: u64,
    /// Since when nothing of what waits to be written was taken.
    stalled: Option<Instant>,
    /// Until when the handler may take to notice that `recv` gives `None`.
    grace: Option<Instant>,
    /// Why `recv` gives `None` already.
    ending: Option<CloseReason>,
    /// Whether what is sent counts as activity. That a datagram was sent says nothing of whether its peer is there: one
    /// that left a busy room would otherwise be sent its talk for ever.
    sending_counts: bool,
    /// Whether the timer knows whom to wake.
    waits: bool,
    /// Whether the handler waited for a message when the timer was set: only then does the idle clock run.
    set_for_receiving: bool,
}

/// What the clocks say.
enum Clock {
    Runs,
    Ends,
    Cut(CloseReason),
}

impl<'a> Clocks<'a> {
    fn new(limits: &'a Limits, opened: Instant, connected: bool) -> Self {
        Clocks {
            limits,
            opened,
            active: opened,
            moved: 0,
            stalled: None,
            grace: None,
            ending: None,
            sending_counts: connected,
            waits: false,
            set_for_receiving: false,
        }
    }

    /// When a session in which nothing happens is over.
    fn first(&self) -> Instant {
        self.next(true).0
    }

    /// Called when the handler waits. Makes sure that the timer fires at the next deadline or before.
    #[inline]
    fn check(&mut self, wire: &mut Wire, timer: Pin<&mut Sleep>, cx: &mut Context<'_>) -> Clock {
        let receiving = wire.take_receiving();
        let sooner = self.note(wire) || (receiving && !self.set_for_receiving);
        // Nearly always: it is armed, it is not due, and it fires before the deadline, which is looked at then.
        if self.waits && !sooner && !timer.is_elapsed() { Clock::Runs } else { self.set(timer, receiving, cx) }
    }

    /// Notes what came and went since this was last called; whether a clock began to run with it.
    #[inline]
    fn note(&mut self, wire: &mut Wire) -> bool {
        let totals = wire.totals();
        let moved = totals.messages_in + if self.sending_counts { totals.messages_out } else { 0 };
        if moved != self.moved {
            self.moved = moved;
            self.active = Instant::now();
        }
        let progressed = wire.take_progress();
        if wire.buffered() == 0 {
            self.stalled = None;
            return false;
        }
        let begins = self.stalled.is_none();
        if progressed || begins {
            self.stalled = Some(Instant::now());
        }
        begins
    }

    /// Arms the timer for the next deadline, or says that it has passed.
    fn set(&mut self, mut timer: Pin<&mut Sleep>, receiving: bool, cx: &mut Context<'_>) -> Clock {
        self.set_for_receiving = receiving;
        loop {
            let (deadline, clock) = self.next(receiving);
            if deadline < timer.deadline() {
                timer.as_mut().reset(deadline);
            }
            // Whatever the handler has used up of its turn: a timer that were not asked for that would never fire.
            self.waits = pin!(unconstrained(timer.as_mut())).poll(cx).is_pending();
            if self.waits {
                return Clock::Runs;
            }
            if Instant::now() >= deadline {
                return self.expire(clock);
            }
            timer.as_mut().reset(deadline);
        }
    }

    /// The deadline that comes first.
    fn next(&self, receiving: bool) -> (Instant, CloseReason) {
        // While the handler works nothing is idle; the timer then only looks again later.
        let idle_since = if receiving && self.ending.is_none() { self.active } else { Instant::now() };
        let idle = (idle_since + self.limits.idle_timeout, CloseReason::Idle);
        let others = [
            self.stalled.map(|since| (since + self.limits.write_timeout, CloseReason::WriteTimeout)),
            self.limits.total_timeout.map(|total| (self.opened + total, CloseReason::TotalTimeout)),
            self.grace.map(|at| (at, self.ending.unwrap_or(CloseReason::Idle))),
        ];
        others.into_iter().flatten().fold(idle, |first, other| if other.0 < first.0 { other } else { first })
    }

    fn expire(&mut self, clock: CloseReason) -> Clock {
        match clock {
            CloseReason::Idle if self.ending.is_none() => {
                self.ending = Some(CloseReason::Idle);
                self.grace = Some(Instant::now() + self.limits.write_timeout);
                Clock::Ends
            }
            reason => Clock::Cut(reason),
        }
    }
}
