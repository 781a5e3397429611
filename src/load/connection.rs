//! One connection of a load, or one socket: it connects, asks, and hears.

use std::future::{Future, poll_fn};
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::time::{Instant, Sleep, sleep, sleep_until, timeout};

use super::flight::{Flight, Reply};
use super::message::Source;
use super::tally::{Tally, nanoseconds};
use super::{Mode, Shared};
use crate::error::Error;
use crate::service::DialError;
use crate::session::Session;
use crate::verdict::Verdict;

/// How long a connection that failed waits before it is tried again.
const RETRY_PAUSE: Duration = Duration::from_millis(100);
/// How many requests an open load may have in flight on one connection. What is due then waits, and its latency runs.
const DEEPEST: usize = 4096;
/// Timers are no finer than this.
const TICK: Duration = Duration::from_millis(1);

/// Until the load stops.
pub(super) async fn run(shared: Arc<Shared>, index: usize) {
    let load = &shared.load;
    let share = load.ramp.mul_f64(super::ratio(index as u64, load.connections as u64));
    sleep(share).await;
    while !shared.stops() {
        match once(&shared, index).await {
            Ok(Ended::Stopped) => return,
            Ok(Ended::Again) => {}
            Err(verdict) => {
                shared.tally().failed(verdict);
                sleep(RETRY_PAUSE).await;
            }
        }
    }
}

/// Why a connection is over.
enum Ended {
    Stopped,
    Again,
}

async fn once(shared: &Arc<Shared>, index: usize) -> Result<Ended, Verdict> {
    let begun = Instant::now();
    if shared.load.mode == Mode::Connect && !shared.may_ask(begun, shared.tally().begin) {
        return Ok(Ended::Stopped);
    }
    let mut session = shared.dialler.dial().await.map_err(|error| verdict_of_dial(&error))?;
    let connected = session.peer().connected();
    if connected {
        // Whether there is one depends on the service.
        if let Ok(heard) = timeout(shared.load.greeting, session.recv()).await {
            heard.map_err(|error| verdict_of(&error))?.ok_or(Verdict::Failed)?;
        }
    }
    let now = Instant::now();
    let in_time = {
        let mut tally = shared.tally();
        tally.connecting.saturating_record(nanoseconds(now - begun));
        tally.measures(begun)
    };
    let _open = Open::count(shared);
    match shared.load.mode {
        Mode::Connect => {
            let mut tally = shared.tally();
            tally.sent(begun, begun, 0);
            tally.answered(begun, now, 0);
            drop(tally);
            drop(session);
            Ok(if in_time || now < shared.tally().end { Ended::Again } else { Ended::Stopped })
        }
        Mode::Idle => match session.recv().await {
            Ok(Some(_)) => Err(Verdict::Unexpected),
            Ok(None) => Err(Verdict::Failed),
            Err(error) => Err(verdict_of(&error)),
        },
        Mode::Closed { .. } | Mode::Open { .. } => Talk::new(shared, session, index).run().await,
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

/// Requests and replies on one session.
struct Talk<'a> {
    shared: &'a Shared,
    session: Session,
    flight: Flight,
    begin: Instant,
    /// Whether replies come in the order of their requests, and none is lost.
    ordered: bool,
    /// Whether a reply may come in pieces: a stream without a framing.
    in_pieces: bool,
    pieces: Vec<u8>,
    pace: Pace,
    timer: Pin<Box<Sleep>>,
    message: Vec<u8>,
}

enum Pace {
    Closed { depth: usize },
    Open { next: Instant, interval: Duration, precise: bool },
}

impl<'a> Talk<'a> {
    fn new(shared: &'a Shared, session: Session, index: usize) -> Self {
        let now = Instant::now();
        let pace = match shared.load.mode {
            Mode::Open { rate, precise } => {
                let connections = super::ratio(shared.load.connections as u64, 1);
                let interval = Duration::from_secs_f64(connections / rate);
                // Connections take turns.
                let turn = interval.mul_f64(super::ratio(index as u64, shared.load.connections as u64));
                Pace::Open { next: now + turn, interval, precise }
            }
            Mode::Closed { depth } => Pace::Closed { depth },
            Mode::Connect | Mode::Idle => Pace::Closed { depth: 0 },
        };
        let route = shared.dialler.route();
        let ordered = route.capabilities.ordered && route.capabilities.reliable;
        Talk {
            shared,
            flight: Flight::default(),
            begin: shared.tally().begin,
            ordered: ordered || matches!(shared.load.source, Source::Fixed(_)),
            in_pieces: session.peer().connected() && !route.keeps_messages,
            pieces: Vec::new(),
            pace,
            timer: Box::pin(sleep_until(now)),
            message: Vec::new(),
            session,
        }
    }

    async fn run(mut self) -> Result<Ended, Verdict> {
        poll_fn(|cx| self.poll(cx)).await
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<Ended, Verdict>> {
        let shared = self.shared;
        loop {
            let mut tally = shared.tally();
            // What one read brings came at the same time.
            let mut came = None;
            while let Poll::Ready(received) = self.session.poll_recv(cx) {
                match received.map_err(|error| verdict_of(&error)) {
                    Ok(Some(reply)) => self.hear(&reply, *came.get_or_insert_with(Instant::now), &mut tally),
                    Ok(None) if shared.stops() => return Poll::Ready(Ok(Ended::Stopped)),
                    Ok(None) => return Poll::Ready(Err(Verdict::Failed)),
                    Err(verdict) => return Poll::Ready(Err(verdict)),
                }
            }
            let now = came.unwrap_or_else(Instant::now);
            let mut lost = 0;
            self.flight.give_up(shared.load.patience, now, |due| {
                lost += 1;
                tally.missing(due);
            });
            if lost > 0 && self.session.peer().connected() {
                return Poll::Ready(Err(Verdict::Timeout));
            }
            let asked = match self.ask_all(cx, now, &mut tally) {
                Ok(asked) => asked,
                Err(verdict) => return Poll::Ready(Err(verdict)),
            };
            if matches!(asked, Asked::Enough) && self.flight.waiting() == 0 {
                return Poll::Ready(Ok(Ended::Stopped));
            }
            if let Poll::Ready(Err(error)) = std::pin::pin!(self.session.flush()).poll(cx) {
                return Poll::Ready(Err(verdict_of(&error)));
            }
            drop(tally);
            if self.wait(cx, now, &asked).is_pending() {
                return Poll::Pending;
            }
        }
    }

    /// Sends whatever is due.
    fn ask_all(&mut self, cx: &mut Context<'_>, now: Instant, tally: &mut Tally) -> Result<Asked, Verdict> {
        loop {
            let due = match &self.pace {
                _ if self.shared.stops() => return Ok(Asked::Enough),
                Pace::Closed { depth } if self.flight.waiting() >= *depth => return Ok(Asked::All),
                Pace::Closed { .. } => now,
                Pace::Open { next, .. } if *next > now => return Ok(Asked::Until(*next)),
                Pace::Open { .. } if self.flight.waiting() >= DEEPEST => return Ok(Asked::All),
                Pace::Open { next, .. } => *next,
            };
            if due >= tally.end || !self.shared.may_ask(due, self.begin) {
                return Ok(Asked::Enough);
            }
            let source = &self.shared.load.source;
            source.write(self.flight.next() % source.distinct(), &mut self.message);
            match self.session.poll_send(cx, &[&self.message]) {
                Poll::Pending => {
                    self.give_back(due);
                    return Ok(Asked::All);
                }
                Poll::Ready(Err(error)) => return Err(verdict_of(&error)),
                Poll::Ready(Ok(())) => {}
            }
            self.flight.sent(due);
            tally.sent(due, now, self.message.len());
            if let Pace::Open { next, interval, .. } = &mut self.pace {
                *next += *interval;
            }
        }
    }

    fn give_back(&self, due: Instant) {
        if due >= self.begin {
            self.shared.budget.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn hear(&mut self, reply: &[u8], now: Instant, tally: &mut Tally) {
        let load = &self.shared.load;
        let whole;
        let reply = if self.pieces.is_empty() {
            reply
        } else {
            self.pieces.extend_from_slice(reply);
            whole = std::mem::take(&mut self.pieces);
            &whole
        };
        let number = if self.ordered {
            self.flight.oldest()
        } else {
            let modulus = load.source.distinct();
            let oldest = self.flight.oldest().unwrap_or(self.flight.next());
            // Numbers that begin anew mean the request that is nearest.
            load.source.number_in(reply).map(|said| {
                if modulus == u64::MAX {
                    said
                } else {
                    let behind = (said + modulus - oldest % modulus) % modulus;
                    if behind > modulus / 2 && oldest + behind >= modulus {
                        oldest + behind - modulus
                    } else {
                        oldest + behind
                    }
                }
            })
        };
        let Some(number) = number else {
            tally.counts.unasked += 1;
            return;
        };
        load.source.write(number % load.source.distinct(), &mut self.message);
        let is_right = load.expectation.is_met(reply, &self.message);
        if !is_right && self.in_pieces && load.expectation.may_follow(reply, &self.message) {
            self.pieces = reply.to_vec();
            return;
        }
        match self.flight.answered(number) {
            Reply::Answer { due, .. } if !is_right => tally.wrong(due),
            Reply::Answer { due, reordered } => {
                tally.counts.reordered += u64::from(reordered);
                tally.answered(due, now, reply.len());
            }
            Reply::Late { .. } => tally.counts.late += 1,
            Reply::Duplicate => tally.counts.duplicates += 1,
            Reply::Unasked => tally.counts.unasked += 1,
        }
    }

    /// Until the next request is due, or the oldest is given up.
    fn wait(&mut self, cx: &mut Context<'_>, now: Instant, asked: &Asked) -> Poll<()> {
        let next = match asked {
            Asked::Until(next) => *next,
            Asked::All | Asked::Enough => now + self.shared.load.patience,
        };
        if let Pace::Open { precise: true, .. } = self.pace
            && next - now < 2 * TICK
        {
            // The others have their turn first.
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        let at = next.min(now + self.shared.load.patience / 4);
        // A timer that fires sooner looks again; so it is not touched for each reply.
        if self.timer.deadline() > at || self.timer.is_elapsed() {
            let early = if matches!(self.pace, Pace::Open { precise: true, .. }) { TICK } else { Duration::ZERO };
            self.timer.as_mut().reset(at.checked_sub(early).unwrap_or(at));
        }
        self.timer.as_mut().poll(cx)
    }
}

/// What became of the requests that are due.
enum Asked {
    /// As many as may be in flight are.
    All,
    /// The next is due then.
    Until(Instant),
    /// No more is to be asked.
    Enough,
}

fn verdict_of(error: &Error) -> Verdict {
    match error {
        Error::Link(error) => of_link(error),
        Error::Framing(_) | Error::TooLong { .. } => Verdict::Unexpected,
        _ => Verdict::Failed,
    }
}

fn verdict_of_dial(error: &DialError) -> Verdict {
    match error {
        DialError::Connect(error) => error.decisive().map_or(Verdict::Failed, of_link),
        DialError::Slow { .. } => Verdict::Timeout,
        _ => Verdict::Failed,
    }
}

fn of_link(error: &io::Error) -> Verdict {
    Verdict::of_connect(error)
}
