//! Requests and replies on one connection that is open.
//!
//! What it costs decides how much a load can ask: the clock is read once for what one read brings, requests that leave
//! together are counted together, and so are replies to requests that left together.

use std::future::{Future as _, poll_fn};
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::time::{Sleep, sleep_until};

use super::clock::{Moment, nanoseconds};
use super::connection::{Broken, Ended, broken_link};
use super::flight::{InOrder, Numbered, Reply};
use super::line::{Line, Stream};
use super::message::Source;
use super::pace::Schedule;
use super::pattern::Pattern;
use super::tally::Tally;
use super::{Desk, Mode, Shared};
use crate::verdict::Verdict;

/// How many requests an open load may have in flight on one connection. What is due then waits, and its latency runs.
const DEEPEST: u64 = 4096;

/// Requests and replies on one connection.
pub(super) struct Talk<'a> {
    shared: &'a Shared,
    index: usize,
    line: Line,
    ear: Ear<'a>,
    pace: Pace<'a>,
    patience: Moment,
    /// When the timer fires, which looks for requests to give up.
    armed: Moment,
    timer: Pin<Box<Sleep>>,
    /// Whether the timer has this task's waker.
    is_waiting: bool,
}

enum Pace<'a> {
    Closed { depth: u64 },
    Open { schedule: &'a mut Schedule },
}

/// Holds what comes against what was asked.
struct Ear<'a> {
    shared: &'a Shared,
    flight: Flight,
    /// Whether a reply may come in pieces: a stream without a framing.
    in_pieces: bool,
    pieces: Vec<u8>,
    heard: u64,
}

/// What waits for a reply.
enum Flight {
    /// Replies come in the order of their requests, or do not say which they answer.
    InOrder(InOrder),
    Numbered(Numbered),
}

impl Flight {
    #[inline]
    fn sent(&mut self, due: Moment, count: u64) {
        match self {
            Flight::InOrder(flight) => flight.sent(due, count),
            Flight::Numbered(flight) => (0..count).for_each(|_| {
                flight.sent(due);
            }),
        }
    }

    #[inline]
    fn next(&self) -> u64 {
        match self {
            Flight::InOrder(flight) => flight.next(),
            Flight::Numbered(flight) => flight.next(),
        }
    }

    #[inline]
    fn waiting(&self) -> u64 {
        match self {
            Flight::InOrder(flight) => flight.waiting(),
            Flight::Numbered(flight) => flight.waiting(),
        }
    }
}

/// What became of the requests that are due.
enum Asked {
    /// As many as may be in flight are.
    All,
    /// The next is due then.
    Until(Moment),
    /// There is no room for more at once.
    Full,
    /// No more is to be asked.
    Enough,
}

impl<'a> Talk<'a> {
    pub(super) fn new(shared: &'a Shared, line: Line, index: usize, schedule: Option<&'a mut Schedule>) -> Self {
        let pace = match (shared.load.mode, schedule) {
            (_, Some(schedule)) => Pace::Open { schedule },
            (Mode::Closed { depth }, None) => Pace::Closed { depth: depth as u64 },
            (_, None) => Pace::Closed { depth: 0 },
        };
        let route = shared.dialler.route();
        let capabilities = route.capabilities;
        let ordered = capabilities.ordered && capabilities.reliable
            || matches!(shared.load.source, Source::Fixed(_) | Source::Numbered(0));
        let patience = nanoseconds(shared.load.patience);
        let armed = shared.clock.now() + patience / 4;
        Talk {
            ear: Ear {
                shared,
                flight: if ordered {
                    Flight::InOrder(InOrder::default())
                } else {
                    Flight::Numbered(Numbered::default())
                },
                in_pieces: capabilities.connected && !route.keeps_messages,
                pieces: Vec::new(),
                heard: 0,
            },
            timer: Box::pin(sleep_until(shared.clock.instant(armed))),
            armed,
            is_waiting: false,
            shared,
            index,
            line,
            pace,
            patience,
        }
    }

    pub(super) async fn run(mut self) -> Result<Ended, Broken> {
        poll_fn(|cx| self.poll(cx)).await
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<Ended, Broken>> {
        let shared = self.shared;
        let mut desk = shared.desk();
        loop {
            let now = match self.hear(cx, &mut desk) {
                Ok(now) => now,
                Err(_) if shared.stops() => return Poll::Ready(Ok(Ended::Stopped)),
                Err(broken) => return Poll::Ready(Err(Broken { was_useful: self.ear.heard > 0, ..broken })),
            };
            if let Err(broken) = self.give_up(now, &mut desk.tally) {
                return Poll::Ready(Err(broken));
            }
            let asked = loop {
                let asked = match self.ask(now, &mut desk) {
                    Ok(asked) => asked,
                    Err(broken) => return Poll::Ready(Err(broken)),
                };
                match self.line.poll_flush(cx) {
                    Poll::Ready(Err(error)) => return Poll::Ready(Err(broken_link(&error))),
                    Poll::Ready(Ok(())) if matches!(asked, Asked::Full) => {}
                    _ => break asked,
                }
            };
            if matches!(asked, Asked::Enough) && self.ear.flight.waiting() == 0 {
                return Poll::Ready(Ok(Ended::Stopped));
            }
            if let Asked::Until(due) = asked {
                shared.alarm.set(self.index, due, cx);
            }
            if self.wait(cx, now).is_pending() {
                return Poll::Pending;
            }
        }
    }

    /// Takes all that came, and tells until when that was.
    fn hear(&mut self, cx: &mut Context<'_>, desk: &mut Desk) -> Result<Moment, Broken> {
        let Desk { tally, scratch, .. } = desk;
        let clock = self.shared.clock;
        let ended = || Broken::new(Verdict::Failed, "the server ended the connection");
        match &mut self.line {
            Line::Messages { messages, message } => {
                let mut now = None;
                while let Poll::Ready(came) = messages.poll_recv(cx) {
                    let reply = came.map_err(|error| broken_link(&error))?.ok_or_else(ended)?;
                    // What one read brings came at the same time, and is a burst at most.
                    let now = *now.get_or_insert_with(|| clock.now());
                    self.ear.hear(&reply, message, now, tally);
                }
                Ok(now.unwrap_or_else(|| clock.now()))
            }
            Line::Stream(stream) => {
                let mut now = None;
                while let Poll::Ready(came) = stream.poll_read(cx, scratch) {
                    let came = came.map_err(|error| broken_link(&error.into()))?;
                    let now = *now.insert(clock.now());
                    self.ear.hear_stream(stream, &scratch[..came], now, tally)?;
                    if came == 0 {
                        return Err(ended());
                    }
                }
                Ok(now.unwrap_or_else(|| clock.now()))
            }
        }
    }

    fn give_up(&mut self, now: Moment, tally: &mut Tally) -> Result<(), Broken> {
        let Some(until) = now.checked_sub(self.patience) else { return Ok(()) };
        let mut lost = 0;
        let mut missing = |due, count| {
            lost += count;
            tally.missing(due, count);
        };
        match &mut self.ear.flight {
            Flight::InOrder(flight) => flight.give_up(until, missing),
            Flight::Numbered(flight) => flight.give_up(until, |due| missing(due, 1)),
        }
        if lost > 0 && self.shared.dialler.route().capabilities.connected {
            let patience = self.shared.load.patience;
            return Err(Broken::new(Verdict::Timeout, format!("no reply within {patience:?}")));
        }
        Ok(())
    }

    /// Sends whatever is due, as far as there is room.
    #[inline]
    fn ask(&mut self, now: Moment, desk: &mut Desk) -> Result<Asked, Broken> {
        if self.shared.stops() && !(matches!(self.pace, Pace::Open { .. }) && self.shared.ran_out()) {
            return Ok(Asked::Enough);
        }
        match &mut self.pace {
            Pace::Closed { depth } => {
                let wanted = depth.saturating_sub(self.ear.flight.waiting());
                if wanted == 0 {
                    return Ok(Asked::All);
                }
                self.ask_together(now, now, wanted, desk)
            }
            Pace::Open { schedule } => {
                // Nobody waits longer than that, also not to be sent: what is due since then counts as not sent.
                schedule.skip_to(now.saturating_sub(self.patience));
                let mut due = schedule.due();
                loop {
                    if due > now {
                        return Ok(if due < desk.tally.end { Asked::Until(due) } else { Asked::Enough });
                    }
                    if self.ear.flight.waiting() >= DEEPEST {
                        return Ok(Asked::All);
                    }
                    match (self.ask_together(due, now, 1, desk)?, &mut self.pace) {
                        (Asked::All, Pace::Open { schedule }) => {
                            schedule.advance();
                            due = schedule.due();
                        }
                        (other, _) => return Ok(other),
                    }
                }
            }
        }
    }

    /// Sends so many requests that are due at the same time.
    #[inline]
    fn ask_together(&mut self, due: Moment, now: Moment, wanted: u64, desk: &mut Desk) -> Result<Asked, Broken> {
        if due >= desk.tally.end {
            return Ok(Asked::Enough);
        }
        let allowed = desk.may_ask(due, wanted);
        let first = self.ear.flight.next();
        let mut taken = 0;
        while taken < allowed && !self.line.is_full() {
            self.line.start_send(first + taken).map_err(|error| broken_link(&error))?;
            taken += 1;
        }
        if taken > 0 {
            self.ear.flight.sent(due, taken);
            desk.tally.sent(due, now, taken, taken * self.line.message_size() as u64);
        }
        if taken < allowed {
            desk.give_back(due, allowed - taken);
            return Ok(Asked::Full);
        }
        Ok(if allowed < wanted { Asked::Enough } else { Asked::All })
    }

    /// Until it is time to look for requests to give up. The timer is not touched for each reply: it fires, and is set
    /// again.
    fn wait(&mut self, cx: &mut Context<'_>, now: Moment) -> Poll<()> {
        if now >= self.armed {
            self.armed = now + self.patience / 4;
            self.timer.as_mut().reset(self.shared.clock.instant(self.armed));
            self.is_waiting = false;
        }
        if self.is_waiting {
            return Poll::Pending;
        }
        let fired = self.timer.as_mut().poll(cx);
        self.is_waiting = fired.is_pending();
        fired
    }
}

impl Ear<'_> {
    /// Takes what was read from a stream: as much as was predicted at once, else message by message.
    #[inline]
    fn hear_stream(&mut self, stream: &mut Stream, bytes: &[u8], now: Moment, tally: &mut Tally) -> Result<(), Broken> {
        let mut rest = bytes;
        if stream.is_clear()
            && self.pieces.is_empty()
            && let Flight::InOrder(flight) = &self.flight
            && let Some(oldest) = flight.oldest()
        {
            let (count, size) = stream.predicted(bytes, oldest, flight.waiting());
            self.all_right(count, stream.predicted_size(), now, tally);
            rest = &bytes[size..];
        }
        if rest.is_empty() && !bytes.is_empty() {
            return Ok(());
        }
        stream.keep(rest);
        self.decode_all(stream, now, tally)
    }

    fn decode_all(&mut self, stream: &mut Stream, now: Moment, tally: &mut Tally) -> Result<(), Broken> {
        loop {
            if self.pieces.is_empty()
                && let Flight::InOrder(flight) = &self.flight
                && let Some(oldest) = flight.oldest()
            {
                let count = stream.take_predicted(oldest, flight.waiting());
                self.all_right(count, stream.predicted_size(), now, tally);
            }
            let Some(reply) = stream.decode().map_err(|error| broken_link(&error))? else { return Ok(()) };
            let oldest = match &self.flight {
                Flight::InOrder(flight) => flight.oldest(),
                Flight::Numbered(_) => None,
            };
            let in_one_piece = self.pieces.is_empty();
            if self.hear(&reply, &mut stream.message, now, tally)
                && let Some(number) = oldest.filter(|_| in_one_piece)
            {
                stream.learn(number, &reply, &self.shared.load.expectation);
            }
        }
    }

    /// The oldest requests have their right replies.
    #[inline]
    fn all_right(&mut self, count: u64, size: usize, now: Moment, tally: &mut Tally) {
        if count > 0
            && let Flight::InOrder(flight) = &mut self.flight
        {
            flight.answered(count, |due, some| tally.answered(due, now, some, some * size as u64));
            self.heard += count;
        }
    }

    /// Takes one message, and tells whether it was a right reply.
    fn hear(&mut self, reply: &[u8], message: &mut Pattern, now: Moment, tally: &mut Tally) -> bool {
        self.heard += 1;
        let expectation = &self.shared.load.expectation;
        let whole;
        let reply = if self.pieces.is_empty() {
            reply
        } else {
            self.pieces.extend_from_slice(reply);
            whole = std::mem::take(&mut self.pieces);
            &whole
        };
        let number = match &mut self.flight {
            Flight::InOrder(flight) => flight.oldest(),
            // One that is not to hold the message answers the oldest, where it tells of none.
            Flight::Numbered(flight) => number_of(reply, message, flight)
                .or_else(|| if expectation.holds_message() { None } else { flight.oldest() }),
        };
        let Some(number) = number else {
            tally.counts.unasked += 1;
            return false;
        };
        let is_right = expectation.is_met(reply, message.at(number));
        if !is_right && self.in_pieces && expectation.may_follow(reply, message.at(number)) {
            self.pieces = reply.to_vec();
            return false;
        }
        let told = match &mut self.flight {
            Flight::Numbered(flight) => flight.answered(number),
            Flight::InOrder(flight) => {
                let mut told = Reply::Unasked;
                flight.answered(1, |due, _| told = Reply::Answer { due, reordered: false });
                told
            }
        };
        match told {
            Reply::Answer { due, .. } if !is_right => tally.wrong(due),
            Reply::Answer { due, reordered } => {
                tally.counts.reordered += u64::from(reordered);
                tally.answered(due, now, 1, reply.len() as u64);
                return true;
            }
            Reply::Late { .. } => tally.counts.late += 1,
            Reply::Duplicate => tally.counts.duplicates += 1,
            Reply::Unasked => tally.counts.unasked += 1,
        }
        false
    }
}

/// Which request a reply says that it answers. Numbers that begin anew mean the request that is nearest.
fn number_of(reply: &[u8], message: &Pattern, flight: &mut Numbered) -> Option<u64> {
    let said = message.number_in(reply)?;
    let Some(modulus) = message.distinct() else { return Some(said) };
    let oldest = flight.oldest().unwrap_or(flight.next());
    let behind = (said + modulus - oldest % modulus) % modulus;
    let ahead = oldest + behind;
    Some(if behind > modulus / 2 && ahead >= modulus { ahead - modulus } else { ahead })
}
