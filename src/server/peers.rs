//! A session for each peer of a datagram socket, all within the socket's own task.
//!
//! A datagram is laid into its peer's inbox and wakes that peer's session, which is polled here, in place: no task and
//! no channel per peer. The table is bounded. When it is full the peer that was silent for longest makes room (second
//! chance: a peer heard since the hand last passed is passed over once). A peer whose session is busy loses its own
//! datagrams once its inbox is full, and delays nobody.

use std::collections::{HashMap, VecDeque};
use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Wake, Waker};

use bytes::Bytes;
use futures_util::Stream;
use futures_util::stream::FuturesUnordered;
use tokio::task::yield_now;

use super::Report;
use super::connection::Record;
use super::conversation::Ending;
use super::listening::Listening;
use super::port::Port;
use super::shutdown::Shutdown;
use crate::address::Address;
use crate::error::Result;
use crate::event::{CloseReason, Event, Loss, Refusal};
use crate::link::{MessageStream, Peer};
use crate::session::{Session, WATERMARK, WireLink};
use crate::transport::Datagram;

/// How many datagrams a busy session's inbox holds, and how many bytes in all.
const INBOX_DATAGRAMS: usize = 64;
const INBOX_BYTES: usize = 256 * 1024;
/// How many datagrams are taken from the socket before the sessions are polled.
const RECEIVED_AT_ONCE: usize = 256;

/// Serves the socket until the server drains.
pub(super) async fn serve(listening: &Arc<Listening>, port: Port) -> Report {
    let hub = listening.hub.clone();
    let mut draining = pin!(hub.shutdown.draining());
    let mut cutting = pin!(hub.shutdown.cutting());
    let mut waits_for_drain = true;
    let mut table = Table {
        listening: listening.clone(),
        port: Arc::new(Mutex::new(port)),
        peers: HashMap::new(),
        ring: Vec::new(),
        hand: 0,
        sessions: FuturesUnordered::new(),
        reactor: None,
    };
    poll_fn(|cx| {
        if waits_for_drain && draining.as_mut().poll(cx).is_ready() {
            waits_for_drain = false;
            table.deliver_received();
        }
        if waits_for_drain {
            table.receive(cx);
        }
        if cutting.as_mut().poll(cx).is_ready() {
            return Poll::Ready(());
        }
        table.poll_sessions(cx);
        let sent = lock(&table.port).poll_send_all(cx);
        if !waits_for_drain && table.sessions.is_empty() && sent.is_ready() {
            return Poll::Ready(());
        }
        Poll::Pending
    })
    .await;
    // What is left tells that it is cut.
    drop(table);
    listening.report(false)
}

type SessionFuture = Pin<Box<dyn Future<Output = (Key, u64)> + Send>>;

/// Both ends: a peer that speaks to two of our addresses has two sessions.
type Key = (Address, Address);

struct Table {
    listening: Arc<Listening>,
    port: Arc<Mutex<Port>>,
    peers: HashMap<Key, usize>,
    /// The peers, in a ring for the hand to walk over; each knows its own place by `peers`.
    ring: Vec<Slot>,
    hand: usize,
    sessions: FuturesUnordered<SessionFuture>,
    /// Set once so much was received that the others must be let in first.
    reactor: Option<Arc<ReactorTurn>>,
}

struct Slot {
    key: Key,
    /// Which session this is, since a peer may come back after its session ended.
    session: u64,
    inbox: Arc<Inbox>,
    heard: bool,
}

impl Table {
    fn receive(&mut self, cx: &mut Context<'_>) {
        if self.reactor.as_ref().is_some_and(|turn| !turn.is_over()) {
            return;
        }
        self.reactor = None;
        for _ in 0..RECEIVED_AT_ONCE {
            let (datagram, limit) = {
                let mut port = lock(&self.port);
                let Poll::Ready(datagram) = port.poll_next(cx) else { return };
                (datagram, port.reply_limit())
            };
            self.deliver(datagram, limit);
        }
        // There may be more: come back after the sessions had their turn, and the reactor too.
        self.reactor = Some(ReactorTurn::begin(cx));
    }

    /// Delivers what came in one batch with what was delivered before; nothing more is received.
    fn deliver_received(&mut self) {
        loop {
            let (datagram, limit) = {
                let mut port = lock(&self.port);
                let Some(datagram) = port.next_received() else { return };
                (datagram, port.reply_limit())
            };
            self.deliver(datagram, limit);
        }
    }

    fn deliver(&mut self, datagram: Datagram, limit: Option<usize>) {
        let key = (datagram.remote, datagram.local);
        let slot = if let Some(index) = self.peers.get(&key) {
            let slot = &mut self.ring[*index];
            slot.heard = true;
            slot
        } else {
            let Some(index) = self.begin(key) else { return };
            &mut self.ring[index]
        };
        if !slot.inbox.deliver(datagram.payload, limit) {
            lock(&self.port).note_loss(&slot.key.0, Loss::Overflow, None);
        }
    }

    /// Begins a session for a new peer, and makes room for it where there is none.
    fn begin(&mut self, key: Key) -> Option<usize> {
        if self.ring.len() >= self.listening.service.limits.max_sessions {
            self.evict();
        }
        let refuse = |reason: Refusal| {
            let reason = reason.word();
            let listener = &self.listening.name;
            self.listening.observe(&Event::DatagramIgnored { listener, remote: &key.0, reason });
            None
        };
        // The session of an evicted peer gives its permit back when it is next polled, so the table's own size, not
        // the listener's permits, is what bounds it.
        let Some(mut permit) = self.listening.permits.take() else { return refuse(Refusal::MaxSessions) };
        if !permit.admit_source(&key.0) {
            return refuse(Refusal::MaxSessionsPerIp);
        }
        let begun = self.listening.hub.now();
        let inbox = Arc::new(Inbox::default());
        let peer = Peer::new(key.1.clone(), key.0.clone(), self.listening.service.route.clone());
        let link = PeerLink { inbox: inbox.clone(), port: self.port.clone(), peer: peer.clone(), reply_limit: None };
        let session = Session::over(WireLink::Messages(Box::new(link)), peer);
        let mut record = Record::begin(self.listening.clone(), session, begun, Shutdown::OWN);
        let number = record.number();
        let (closed, ended_key) = (inbox.clone(), key.clone());
        self.sessions.push(Box::pin(async move {
            let ending = {
                let mut conversation = pin!(record.converse_in_span());
                poll_fn(|cx| {
                    if closed.poll_evicted(cx).is_ready() {
                        return Poll::Ready(Ending::cut(CloseReason::Evicted));
                    }
                    conversation.as_mut().poll(cx)
                })
                .await
            };
            let listening = record.end(&ending);
            drop(permit);
            listening.hub.session_ended.notify_one();
            (ended_key, number)
        }));
        let index = self.ring.len();
        // A peer is spared once it was heard a second time: sources that speak once displace one another.
        self.ring.push(Slot { key: key.clone(), session: number, inbox, heard: false });
        self.peers.insert(key, index);
        Some(index)
    }

    /// Takes the peer that was silent for longest out of the table; its session is cut.
    fn evict(&mut self) {
        // Each pass of the hand takes a second chance away, so this ends after two rounds at most.
        loop {
            self.hand = if self.hand + 1 < self.ring.len() { self.hand + 1 } else { 0 };
            let Some(slot) = self.ring.get_mut(self.hand) else { return };
            if !std::mem::take(&mut slot.heard) {
                slot.inbox.evict();
                self.remove(self.hand);
                return;
            }
        }
    }

    fn remove(&mut self, index: usize) {
        let slot = self.ring.swap_remove(index);
        for _ in 0..slot.inbox.left() {
            lock(&self.port).note_loss(&slot.key.0, Loss::Overflow, None);
        }
        self.peers.remove(&slot.key);
        if let Some(moved) = self.ring.get(index) {
            self.peers.insert(moved.key.clone(), index);
        }
    }

    fn poll_sessions(&mut self, cx: &mut Context<'_>) {
        while let Poll::Ready(Some((key, session))) = Pin::new(&mut self.sessions).poll_next(cx) {
            let index = self.peers.get(&key).copied();
            if let Some(index) = index.filter(|index| self.ring[*index].session == session) {
                self.remove(index);
            }
        }
    }
}

/// Whether the reactor had its turn. A runtime runs a task that was woken by itself, or by one of its own sessions, many
/// times before the reactor looks who else has something to say: a flood of datagrams would hold up every connection.
struct ReactorTurn {
    over: AtomicBool,
    task: Waker,
}

impl ReactorTurn {
    /// Wakes the task when it is over.
    fn begin(cx: &mut Context<'_>) -> Arc<Self> {
        let turn = Arc::new(ReactorTurn { over: AtomicBool::new(false), task: cx.waker().clone() });
        let waker = Waker::from(turn.clone());
        let _ = pin!(yield_now()).poll(&mut Context::from_waker(&waker));
        turn
    }

    fn is_over(&self) -> bool {
        self.over.load(Ordering::Acquire)
    }
}

impl Wake for ReactorTurn {
    fn wake(self: Arc<Self>) {
        self.over.store(true, Ordering::Release);
        self.task.wake_by_ref();
    }
}

/// What came for one peer and is not yet received by its session.
#[derive(Default)]
struct Inbox(Mutex<InboxState>);

#[derive(Default)]
struct InboxState {
    datagrams: VecDeque<(Bytes, Option<usize>)>,
    bytes: usize,
    evicted: bool,
    receiver: Option<Waker>,
    session: Option<Waker>,
}

impl Inbox {
    /// How many nobody will receive any more.
    fn left(&self) -> usize {
        lock(&self.0).datagrams.len()
    }

    /// Whether there was room.
    fn deliver(&self, payload: Bytes, limit: Option<usize>) -> bool {
        let mut state = lock(&self.0);
        if state.datagrams.len() >= INBOX_DATAGRAMS || state.bytes + payload.len() > INBOX_BYTES {
            return false;
        }
        state.bytes += payload.len();
        state.datagrams.push_back((payload, limit));
        if let Some(receiver) = state.receiver.take() {
            receiver.wake();
        }
        true
    }

    fn poll_take(&self, cx: &mut Context<'_>) -> Poll<(Bytes, Option<usize>)> {
        let mut state = lock(&self.0);
        if let Some((payload, limit)) = state.datagrams.pop_front() {
            state.bytes -= payload.len();
            Poll::Ready((payload, limit))
        } else {
            state.receiver = Some(cx.waker().clone());
            Poll::Pending
        }
    }

    fn evict(&self) {
        let mut state = lock(&self.0);
        state.evicted = true;
        if let Some(session) = state.session.take() {
            session.wake();
        }
    }

    fn poll_evicted(&self, cx: &mut Context<'_>) -> Poll<()> {
        let mut state = lock(&self.0);
        if state.evicted {
            return Poll::Ready(());
        }
        if !state.session.as_ref().is_some_and(|waker| waker.will_wake(cx.waker())) {
            state.session = Some(cx.waker().clone());
        }
        Poll::Pending
    }
}

/// One peer's side of the socket, as its session sees it.
struct PeerLink {
    inbox: Arc<Inbox>,
    port: Arc<Mutex<Port>>,
    peer: Peer,
    reply_limit: Option<usize>,
}

impl MessageStream for PeerLink {
    fn poll_recv(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Bytes>>> {
        self.inbox.poll_take(cx).map(|(payload, limit)| {
            self.reply_limit = limit;
            Ok(Some(payload))
        })
    }

    fn start_send(&mut self, parts: &[&[u8]]) -> Result<()> {
        lock(&self.port).answer(parts, &self.peer.remote, self.peer.local(), &mut self.reply_limit)
    }

    /// What is taken is the socket's to send. Only when the socket has no room does the session wait for it.
    fn buffered(&self) -> usize {
        let buffered = lock(&self.port).outbox.buffered();
        if buffered < WATERMARK { 0 } else { buffered }
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<Result<()>> {
        lock(&self.port).outbox.poll_room(cx).map(Ok)
    }

    fn poll_finish(&mut self, cx: &mut Context<'_>) -> Poll<Result<()>> {
        self.poll_flush(cx)
    }

    fn reply_limit(&self) -> Option<usize> {
        self.reply_limit
    }
}

/// These locks are never contended: all that takes them runs in the socket's task, but for pushers.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
