//! A session for each peer of a datagram socket, all within the socket's own task.
//!
//! A datagram is laid into its peer's [`Mailbox`], whose session is run here, in place, as soon as the batch that it came
//! in is delivered: no task and no channel per peer. The table is bounded. When it is full the peer that was silent for
//! longest makes room (second chance: a peer heard since the hand last passed is passed over once). A peer whose session
//! is busy loses its own datagrams once its mailbox is full, and delays nobody.

mod mailbox;

use std::collections::{HashSet, VecDeque};
use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};

use bytes::Bytes;
use futures_util::task::waker_ref;
use tokio::task::coop::has_budget_remaining;
use tokio::task::yield_now;

use super::Report;
use super::connection::Record;
use super::conversation::Ending;
use super::listening::{Listening, Permit};
use super::port::Port;
use crate::error::Result;
use crate::event::{CloseReason, Event, Loss, Refusal};
use crate::link::{MessageStream, Peer};
use crate::session::{Session, WATERMARK, WireLink};
use crate::transport::Datagrams;
use mailbox::{Ends, Letter, Mailbox, Woken};

/// How many datagrams are delivered and sessions run, in all, before the reactor has its turn. A batch is not torn apart for
/// that unless it is longer: answers to one peer had better leave together.
const STEPS_AT_ONCE: usize = 1024;
/// How many datagrams are delivered before their sessions run, where more than one batch has come: the more there are the
/// more often there are several to one peer, but their answers are to leave within one turn of the runtime's.
const DELIVERED_AT_ONCE: usize = 128;

/// Serves the socket until the server drains.
pub(super) async fn serve(listening: &Arc<Listening>, port: Port) -> Report {
    let hub = listening.hub.clone();
    let mut draining = pin!(hub.shutdown.draining());
    let mut cutting = pin!(hub.shutdown.cutting());
    let mut receives = true;
    let mut table = Table {
        listening: listening.clone(),
        port: Arc::new(SharedPort { port: Mutex::new(port), buffered: AtomicUsize::new(0) }),
        known: HashSet::new(),
        slots: Vec::new(),
        free: Vec::new(),
        hand: 0,
        queue: VecDeque::new(),
        woken: Arc::default(),
    };
    poll_fn(|cx| {
        if receives && draining.as_mut().poll(cx).is_ready() {
            receives = false;
            // What came in one batch with what was delivered before; nothing more is received.
            table.deliver_received(cx, usize::MAX);
        }
        if cutting.as_mut().poll(cx).is_ready() {
            return Poll::Ready(());
        }
        table.poll(cx, receives)
    })
    .await;
    // What is left tells that it is cut.
    drop(table);
    listening.report(false)
}

/// The peers and their sessions.
struct Table {
    listening: Arc<Listening>,
    port: Arc<SharedPort>,
    known: HashSet<Arc<Mailbox>>,
    /// The sessions, each in the place that its mailbox tells, and the places that are free. The hand goes round over them.
    slots: Vec<Option<Slot>>,
    free: Vec<u32>,
    hand: usize,
    /// The places of those whose turn it is, in order.
    queue: VecDeque<u32>,
    /// Those who were woken while this was elsewhere.
    woken: Arc<Woken>,
}

struct Slot {
    mailbox: Arc<Mailbox>,
    session: Pin<Box<dyn Future<Output = ()> + Send>>,
    heard: bool,
}

impl Table {
    /// Until nobody has anything to do: those who were woken run, what they sent leaves, and what came meanwhile is
    /// delivered, one batch at a time. Ready when nothing more is received, all sessions are over and everything has left.
    fn poll(&mut self, cx: &mut Context<'_>, receives: bool) -> Poll<()> {
        let mut steps = STEPS_AT_ONCE;
        loop {
            self.woken.take(&mut self.queue);
            while steps > 0
                && has_budget_remaining()
                && let Some(place) = self.queue.pop_front()
            {
                steps -= 1;
                self.run(place, cx);
            }
            let sent = self.port.with(|port| port.poll_send_all(cx));
            if steps == 0 || !has_budget_remaining() {
                // A runtime runs a task that was woken by itself many times before the reactor looks who else has
                // something to say. This one is woken once it has: a flood of datagrams holds up no connection.
                let _ = pin!(yield_now()).poll(cx);
                return Poll::Pending;
            }
            if receives && let Poll::Ready(delivered) = self.poll_receive(cx) {
                steps = steps.saturating_sub(delivered);
                continue;
            }
            if !receives && self.known.is_empty() && sent.is_ready() {
                return Poll::Ready(());
            }
            if self.woken.is_quiet(cx) {
                return Poll::Pending;
            }
        }
    }

    /// Delivers what has come, if only one batch of it; says how many datagrams that was.
    fn poll_receive(&mut self, cx: &mut Context<'_>) -> Poll<usize> {
        let mut delivered = 0;
        while delivered < DELIVERED_AT_ONCE {
            let next = self.port.with(|port| port.poll_next(cx).map(|datagrams| (datagrams, port.reply_limit())));
            match next {
                Poll::Ready((datagrams, limit)) => delivered += self.deliver(cx, datagrams, limit),
                Poll::Pending if delivered > 0 => break,
                Poll::Pending => return Poll::Pending,
            }
            delivered += self.deliver_received(cx, STEPS_AT_ONCE);
        }
        Poll::Ready(delivered)
    }

    /// Delivers what was received already, but no more than so much at once, or little more. Says how much.
    fn deliver_received(&mut self, cx: &mut Context<'_>, most: usize) -> usize {
        let mut delivered = 0;
        while delivered < most {
            let next = self.port.with(|port| port.next_received().map(|datagrams| (datagrams, port.reply_limit())));
            let Some((datagrams, limit)) = next else { break };
            delivered += self.deliver(cx, datagrams, limit);
        }
        delivered
    }

    /// Delivers what came together from one peer; says how many datagrams that was.
    fn deliver(&mut self, cx: &mut Context<'_>, mut datagrams: Datagrams, limit: Option<usize>) -> usize {
        let mut before = 0;
        while let Some(first) = datagrams.split_first() {
            self.deliver_one(cx, first, limit);
            before += 1;
        }
        self.deliver_one(cx, datagrams, limit);
        before + 1
    }

    fn deliver_one(
        &mut self,
        cx: &mut Context<'_>,
        Datagrams { payload, remote, local, .. }: Datagrams,
        reply_limit: Option<usize>,
    ) {
        let ends = Ends { remote, local };
        let place = if let Some(mailbox) = self.known.get(&ends) {
            let place = mailbox.place;
            if let Some(slot) = &mut self.slots[place as usize] {
                slot.heard = true;
            }
            place
        } else {
            let Some(place) = self.begin(cx, ends) else { return };
            place
        };
        let Err(letter) = self.lay_in(place, Letter { payload, reply_limit }) else { return };
        // A session that has not had its turn is not busy. It has it now, once the mailbox is full.
        let Some(mailbox) = self.slots[place as usize].as_ref().map(|slot| slot.mailbox.clone()) else { return };
        if mailbox.is_rung() {
            self.run(place, cx);
            if self.lay_in(place, letter).is_ok() {
                return;
            }
        }
        self.note_lost(&mailbox.ends);
    }

    fn lay_in(&mut self, place: u32, letter: Letter) -> std::result::Result<(), Letter> {
        let Some(slot) = &self.slots[place as usize] else { return Err(letter) };
        if slot.mailbox.deliver(letter)? {
            self.queue.push_back(place);
        }
        Ok(())
    }

    fn note_lost(&self, ends: &Ends) {
        self.port.with(|port| port.note_loss(&ends.remote, Loss::Overflow, None));
    }

    /// Begins a session for a new peer, and makes room for it where there is none.
    fn begin(&mut self, cx: &mut Context<'_>, ends: Ends) -> Option<u32> {
        if self.known.len() >= self.listening.service.limits.max_sessions {
            self.evict(cx);
        }
        let refuse = |reason: Refusal| {
            let reason = reason.word();
            let listener = &self.listening.name;
            self.listening.observe(&Event::DatagramIgnored { listener, remote: &ends.remote, reason });
            None
        };
        // The table's own size bounds the listener's sessions.
        let Some(mut permit) = Permit::take(&self.listening) else { return refuse(Refusal::MaxSessions) };
        if !permit.admit_source(&ends.remote) {
            return refuse(Refusal::MaxSessionsPerIp);
        }
        let begun = self.listening.hub.now();
        let peer = Peer::new(ends.local.clone(), ends.remote.clone(), self.listening.service.route.clone());
        let place = self.free.pop().unwrap_or_else(|| {
            self.slots.push(None);
            u32::try_from(self.slots.len() - 1).expect("a machine holds fewer sessions than that")
        });
        let mailbox = Mailbox::new(ends, place, self.woken.clone());
        let link = PeerLink { mailbox: mailbox.clone(), port: self.port.clone(), reply_limit: None };
        let session = Session::over(WireLink::Messages(Box::new(link)), peer);
        let mut record = Record::begin(permit, session, begun);
        let mut watch = self.listening.hub.shutdown.watch();
        let of_session = mailbox.clone();
        let session = Box::pin(async move {
            let ending = {
                let mut conversation = pin!(record.converse_in_span(&mut watch));
                poll_fn(|cx| {
                    if of_session.is_evicted() {
                        return Poll::Ready(Ending::cut(CloseReason::Evicted));
                    }
                    conversation.as_mut().poll(cx)
                })
                .await
            };
            record.end(&ending);
        });
        self.known.insert(mailbox.clone());
        // A peer is spared once it was heard a second time: sources that speak once displace one another.
        self.slots[place as usize] = Some(Slot { mailbox, session, heard: false });
        self.queue.push_back(place);
        Some(place)
    }

    /// Cuts the session of the peer that was silent for longest.
    fn evict(&mut self, cx: &mut Context<'_>) {
        if self.known.is_empty() {
            return;
        }
        // Each round of the hand takes a second chance away, so this ends after two of them at most.
        loop {
            self.hand = if self.hand + 1 < self.slots.len() { self.hand + 1 } else { 0 };
            let Some(slot) = &mut self.slots[self.hand] else { continue };
            if !std::mem::take(&mut slot.heard) {
                slot.mailbox.evict();
                let place = slot.mailbox.place;
                return self.run(place, cx);
            }
        }
    }

    /// Runs the session in that place, where there still is one.
    fn run(&mut self, place: u32, cx: &mut Context<'_>) {
        let Some(slot) = &mut self.slots[place as usize] else { return };
        slot.mailbox.answer_bell();
        let waker = waker_ref(&slot.mailbox);
        if slot.session.as_mut().poll(&mut Context::from_waker(&waker)).is_ready() {
            self.remove(place);
        }
        // So that nobody has to wait for what others sent.
        if self.port.buffered() >= WATERMARK {
            let _ = self.port.with(|port| port.poll_send_all(cx));
        }
    }

    fn remove(&mut self, place: u32) {
        let Some(Slot { mailbox, .. }) = self.slots[place as usize].take() else { return };
        self.known.remove(&mailbox);
        self.free.push(place);
        for _ in 0..mailbox.left() {
            self.note_lost(&mailbox.ends);
        }
    }
}

/// The socket in common hands.
struct SharedPort {
    port: Mutex<Port>,
    /// How much waits to leave, told without the lock: a session asks each time before it sends, and when it waits.
    buffered: AtomicUsize,
}

impl SharedPort {
    fn with<T>(&self, does: impl FnOnce(&mut Port) -> T) -> T {
        let mut port = lock(&self.port);
        let done = does(&mut port);
        self.buffered.store(port.outbox.buffered(), Ordering::Relaxed);
        done
    }

    fn buffered(&self) -> usize {
        self.buffered.load(Ordering::Relaxed)
    }
}

/// One peer's side of the socket, as its session sees it.
struct PeerLink {
    mailbox: Arc<Mailbox>,
    port: Arc<SharedPort>,
    reply_limit: Option<usize>,
}

impl MessageStream for PeerLink {
    fn poll_recv(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Bytes>>> {
        self.mailbox.poll_take(cx).map(|letter| {
            self.reply_limit = letter.reply_limit;
            Ok(Some(letter.payload))
        })
    }

    fn start_send(&mut self, parts: &[&[u8]]) -> Result<()> {
        let Ends { remote, local } = &self.mailbox.ends;
        self.port.with(|port| port.answer(parts, remote, local, &mut self.reply_limit))
    }

    /// What is taken is the socket's to send. Only when the socket has no room does the session wait for it.
    fn buffered(&self) -> usize {
        let buffered = self.port.buffered();
        if buffered < WATERMARK { 0 } else { buffered }
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<Result<()>> {
        self.port.with(|port| port.outbox.poll_room(cx)).map(Ok)
    }

    fn poll_finish(&mut self, cx: &mut Context<'_>) -> Poll<Result<()>> {
        self.poll_flush(cx)
    }

    fn reply_limit(&self) -> Option<usize> {
        self.reply_limit
    }
}

impl Drop for PeerLink {
    fn drop(&mut self) {
        self.mailbox.forget_receiver();
    }
}

/// These locks are never contended: all that takes them runs in the socket's task, but for pushers and wakers.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
