//! Runs one handler over one session: the clocks, the drain, a panic, and the write when the handler waits.
//!
//! The same code serves connections and the peers of a datagram socket. Nothing here is touched per message but one
//! lock, taken when the handler waits: deadlines are recorded, and checked when the watchman wakes the session for one.

use std::any::Any;
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use super::busy;
use super::moment::Moment;
use super::round::{self, Step};
use super::watchman::{Phase, Watch};
use crate::error::{Error, Result};
use crate::event::CloseReason;
use crate::handler::{Conversation, Handler};
use crate::limits::Limits;
use crate::session::turn::{self, Sent, Taking};
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
    watch: &'a mut Watch,
    begun: Moment,
) -> Conversing<'a> {
    let (wire, connected) = (session.wire().clone(), session.peer().connected());
    let conversation = Contained::begin(handler, session);
    // Asked when the conversation is made: whoever made it may have let others push.
    let gathers = wire.lock().lets_gather();
    Conversing { watch, wire, gathers, clocks: Clocks::new(limits, begun, connected), conversation }
}

/// A conversation under its clocks. It is much of what an idle connection costs, so it is written out: an async block
/// would hold places for what it has at hand only while it is run.
pub(super) struct Conversing<'a> {
    conversation: Contained<'a>,
    wire: WireRef,
    /// Whether the handler's next turn may go by without a look at the wire.
    gathers: bool,
    watch: &'a mut Watch,
    clocks: Clocks<'a>,
}

type Turn = Pin<Box<dyn Future<Output = ()> + Send>>;

impl Future for Conversing<'_> {
    type Output = Ending;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Ending> {
        let this = self.get_mut();
        let step = round::step();
        let mut failed = false;
        if step == Step::Settling {
            // It has just answered, and later than it thought.
            this.clocks.active = this.watch.now();
            if let Some(ending) = ready!(this.settle(cx, None, &mut failed)) {
                return Poll::Ready(ending);
            }
        }
        busy::note_run();
        match this.watch.phase(cx) {
            Phase::Running => {}
            Phase::Cutting => return Poll::Ready(Ending::cut(CloseReason::Cut)),
            Phase::Draining if this.clocks.ending.is_some() => {}
            // The reactor has a turn first: of a connection that was accepted just now it does not know yet that
            // something has come, which is still to be answered.
            Phase::Draining => {
                let seldom = this.clocks.seldom.get_or_insert_default();
                let turn = seldom.turn.get_or_insert_with(|| Box::pin(tokio::task::yield_now()));
                if turn.as_mut().poll(cx).is_ready() {
                    this.wire.lock().end();
                    this.clocks.ending = Some(CloseReason::Drained);
                }
            }
        }
        loop {
            let mut turn = this.gathers.then(|| turn::take(&this.wire, cx.waker()));
            if let Poll::Ready(left) = this.conversation.poll(cx) {
                this.wire.settle();
                return Poll::Ready(left.ending(this.clocks.ending, &this.wire));
            }
            if step == Step::Running
                && let Some(taking) = turn.take()
            {
                match this.write_later(taking) {
                    Ok(()) => return Poll::Pending,
                    Err(taking) => turn = taking,
                }
            }
            if let Some(ending) = ready!(this.settle(cx, turn, &mut failed)) {
                return Poll::Ready(ending);
            }
        }
    }
}

impl Conversing<'_> {
    /// Leaves what the handler sent in its turn, where it waits now, to be written later, when others have run: then all is done
    /// that would be in [`settle`](Self::settle), without a look at the wire. Gives back a turn that is not over with it.
    #[inline]
    fn write_later(&mut self, turn: Taking) -> std::result::Result<(), Option<Taking>> {
        let sent = turn.finish().map_err(Some)?;
        let now = round::now(|| self.watch.now());
        self.clocks.note_sent(&sent, now);
        if self.clocks.keep_running(self.watch, true, now) {
            // Should it not be written entirely, the session settles once more before it runs.
            round::write_later(sent, &self.wire);
            return Ok(());
        }
        sent.give_back(&self.wire);
        Err(None)
    }

    /// What is done when the handler waits: writing, and a look at the clocks. Ready with an ending, or with none where the
    /// handler is to be asked once more: if writing `failed`, what it waits for, as a rule, gives it the same error; if not, it is
    /// ended here.
    fn settle(&mut self, cx: &mut Context<'_>, turn: Option<Taking>, failed: &mut bool) -> Poll<Option<Ending>> {
        let mut wire = self.wire.lock_settled();
        drop(turn);
        wire.set_driver(cx.waker());
        if let Poll::Ready(Err(error)) = wire.poll_flush(cx) {
            let ending = failed.then(|| Ending::of_error(&error, wire.is_broken()));
            (*failed, self.gathers) = (true, false);
            return Poll::Ready(ending);
        }
        self.gathers = wire.lets_gather();
        match self.clocks.check(&mut wire, self.watch) {
            Clock::Runs => Poll::Pending,
            Clock::Cut(reason) => Poll::Ready(Some(Ending::cut(reason))),
            // The handler is asked once more: `recv` gives `None` now.
            Clock::Ends => {
                self.gathers = wire.lets_gather();
                wire.end();
                Poll::Ready(None)
            }
        }
    }
}

/// A handler's conversation, whose panics stay inside: when it begins, while it runs, and while what it leaves is dropped.
struct Contained<'a>(Option<Conversation<'a>>);

impl<'a> Contained<'a> {
    /// Where the handler panics before it has made a conversation, that is what its conversation does when it is run.
    fn begin(handler: &'a dyn Handler, session: &'a mut Session) -> Self {
        let begin = move || {
            // Given away, not lent for the time of the call.
            let session = session;
            handler.serve(session)
        };
        Contained(Some(
            catch_unwind(AssertUnwindSafe(begin)).unwrap_or_else(|panic| Box::pin(async { resume_unwind(panic) })),
        ))
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Left> {
        let Some(conversation) = &mut self.0 else { return Poll::Pending };
        // The handler's own state is dropped with the session, so nobody sees what a panic left half done.
        match catch_unwind(AssertUnwindSafe(|| conversation.as_mut().poll(cx))) {
            Ok(polled) => polled.map(Left::Returned),
            Err(panic) => Poll::Ready(Left::Panicked(panic)),
        }
    }
}

/// How a handler left its conversation.
enum Left {
    Returned(Result<()>),
    Panicked(Box<dyn Any + Send>),
}

impl Left {
    /// `ending` is why it was told that no more will come, where it was.
    fn ending(self, ending: Option<CloseReason>, wire: &WireRef) -> Ending {
        match self {
            Left::Returned(Ok(())) => Ending::orderly(ending.unwrap_or(CloseReason::Finished)),
            Left::Returned(Err(error)) => Ending::of_error(&error, wire.lock().is_broken()),
            Left::Panicked(panic) => Ending {
                reason: CloseReason::Panicked,
                error: Some(panic_text(panic.as_ref()).to_owned()),
                // What it answered before is owed to the peer.
                orderly: true,
            },
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

/// The idle, write and total clocks of one session.
struct Clocks<'a> {
    limits: &'a Limits,
    /// When a message last came or went.
    active: Moment,
    seldom: Option<Box<Seldom>>,
    /// How many messages had come and gone when it was last active, as far as that tells it apart from the time before.
    moved: u32,
    /// Why `recv` gives `None` already.
    ending: Option<CloseReason>,
    /// Whether what is sent counts as activity. That a datagram was sent says nothing of whether its peer is there: one
    /// that left a busy room would otherwise be sent its talk for ever.
    sending_counts: bool,
    /// Whether the handler waited for a message when the deadline was set: only then does the idle clock run. None where the
    /// deadline is that of another session, who had the watch before.
    set_for_receiving: Option<bool>,
}

/// What few sessions have use for.
struct Seldom {
    /// Until when some of what waits to be written must be taken.
    stalled: Moment,
    /// Until when the session may last in all.
    last: Moment,
    /// Until when the handler may take to notice that `recv` gives `None`.
    grace: Moment,
    /// The turn that the reactor has before a drain ends the session.
    turn: Option<Turn>,
}

impl Default for Seldom {
    fn default() -> Self {
        Seldom { stalled: Moment::NEVER, last: Moment::NEVER, grace: Moment::NEVER, turn: None }
    }
}

/// What the clocks say.
enum Clock {
    Runs,
    Ends,
    Cut(CloseReason),
}

impl<'a> Clocks<'a> {
    fn new(limits: &'a Limits, begun: Moment, connected: bool) -> Self {
        Clocks {
            limits,
            active: begun,
            seldom: limits
                .total_timeout
                .map(|total| Box::new(Seldom { last: begun.after(total), ..Seldom::default() })),
            moved: 0,
            ending: None,
            sending_counts: connected,
            set_for_receiving: None,
        }
    }

    /// Called when the handler waits. Makes sure that the session is woken at the next deadline or before.
    fn check(&mut self, wire: &mut Wire, watch: &mut Watch) -> Clock {
        let receiving = wire.take_receiving();
        let now = watch.now();
        let began = self.note(wire, now);
        if (began || !self.is_set(watch, receiving, now)) && !self.set(watch, receiving, now) {
            return self.expire(receiving, now);
        }
        Clock::Runs
    }

    /// Notes what came and went in a turn, of which nothing waits to be written when it is over.
    #[inline]
    fn note_sent(&mut self, sent: &Sent, now: Moment) {
        let (came, went) = sent.messages();
        let moved = came + if self.sending_counts { went } else { 0 };
        if moved > 0 {
            self.moved = self.moved.wrapping_add(moved);
            self.active = now;
        }
        if let Some(seldom) = &mut self.seldom {
            seldom.stalled = Moment::NEVER;
        }
    }

    /// Notes what came and went since this was last called; whether a clock began to run with it.
    #[inline]
    fn note(&mut self, wire: &mut Wire, now: Moment) -> bool {
        let totals = wire.totals();
        let moved = totals.messages_in + if self.sending_counts { totals.messages_out } else { 0 };
        #[expect(clippy::cast_possible_truncation, reason = "nobody moves four billion messages between two looks")]
        let moved = moved as u32;
        if moved != self.moved {
            self.moved = moved;
            self.active = now;
        }
        let progressed = wire.take_progress();
        if wire.buffered() == 0 {
            if let Some(seldom) = &mut self.seldom {
                seldom.stalled = Moment::NEVER;
            }
            return false;
        }
        let seldom = self.seldom.get_or_insert_default();
        let begins = seldom.stalled == Moment::NEVER;
        if progressed || begins {
            seldom.stalled = now.after(self.limits.write_timeout);
        }
        begins
    }

    /// Makes sure that the session is woken at the next deadline or before; not, where that has passed.
    #[inline]
    fn keep_running(&mut self, watch: &mut Watch, receiving: bool, now: Moment) -> bool {
        self.is_set(watch, receiving, now) || self.set(watch, receiving, now)
    }

    /// Nearly always: it will be woken, and before the deadline, which is looked at then.
    #[inline]
    fn is_set(&self, watch: &Watch, receiving: bool, now: Moment) -> bool {
        self.set_for_receiving.is_some_and(|was| was || !receiving) && now < watch.deadline()
    }

    /// Sets the next deadline, unless that has passed.
    fn set(&mut self, watch: &mut Watch, receiving: bool, now: Moment) -> bool {
        self.set_for_receiving = Some(receiving);
        let (deadline, _) = self.next(receiving, now);
        if deadline <= now {
            return false;
        }
        // One that comes sooner is looked at when it has come.
        if deadline < watch.deadline() || watch.deadline() <= now {
            watch.wake_at(deadline);
        }
        true
    }

    /// The deadline that comes first.
    fn next(&self, receiving: bool, now: Moment) -> (Moment, CloseReason) {
        // While the handler works nothing is idle; it is then only looked at again later.
        let idle_since = if receiving && self.ending.is_none() { self.active } else { now };
        let idle = (idle_since.after(self.limits.idle_timeout), CloseReason::Idle);
        let Some(seldom) = &self.seldom else { return idle };
        let others = [
            (seldom.stalled, CloseReason::WriteTimeout),
            (seldom.last, CloseReason::TotalTimeout),
            (seldom.grace, self.ending.unwrap_or(CloseReason::Idle)),
        ];
        others.into_iter().fold(idle, |first, other| if other.0 < first.0 { other } else { first })
    }

    /// What the deadline says that has passed.
    fn expire(&mut self, receiving: bool, now: Moment) -> Clock {
        match self.next(receiving, now).1 {
            CloseReason::Idle if self.ending.is_none() => {
                self.ending = Some(CloseReason::Idle);
                self.seldom.get_or_insert_default().grace = now.after(self.limits.write_timeout);
                Clock::Ends
            }
            reason => Clock::Cut(reason),
        }
    }
}
