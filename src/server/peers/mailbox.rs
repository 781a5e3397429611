//! A peer's [`Mailbox`]: what came for it and its session has not received yet, and how that session is woken.
//!
//! It is all that is known of a peer beside its session, in one place of memory: of many peers hardly any is still in the
//! processor's cache when it speaks again, so each place that a datagram has to look at costs as much as a hundred
//! instructions.

use std::borrow::Borrow;
use std::collections::VecDeque;
use std::hash::{Hash, Hasher};
use std::net::{SocketAddr, SocketAddrV4};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use futures_util::task::{ArcWake, waker_ref};

use super::lock;
use crate::address::Address;

/// How many datagrams wait for a session, and how many bytes in all.
const MOST_DATAGRAMS: usize = 64;
const MOST_BYTES: usize = 256 * 1024;

/// Both ends: a peer that speaks to two of our addresses has two sessions.
#[derive(PartialEq, Eq)]
pub(super) struct Ends {
    pub(super) remote: Address,
    pub(super) local: Address,
}

/// In one piece where both are IPv4 addresses: each datagram costs this once.
impl Hash for Ends {
    fn hash<H: Hasher>(&self, state: &mut H) {
        match (&self.remote, &self.local) {
            (Address::Ip(SocketAddr::V4(remote)), Address::Ip(SocketAddr::V4(local))) => {
                let number = |end: &SocketAddrV4| u128::from(end.ip().to_bits()) << 16 | u128::from(end.port());
                state.write_u128(number(remote) << 64 | number(local));
            }
            (remote, local) => (remote, local).hash(state),
        }
    }
}

/// A datagram without its ends.
pub(super) struct Letter {
    pub(super) payload: Bytes,
    /// How long an answer to it may be.
    pub(super) reply_limit: Option<usize>,
}

/// What the table and the session of one peer share.
pub(super) struct Mailbox {
    pub(super) ends: Ends,
    /// Where the session is in the table.
    pub(super) place: u32,
    /// Whether the session is among the woken already, and whether it is to be cut.
    rung: AtomicBool,
    evicted: AtomicBool,
    mail: Mutex<Mail>,
    woken: Arc<Woken>,
}

#[derive(Default)]
struct Mail {
    /// As a rule a peer waits for its answer, so there is one at a time.
    first: Option<Letter>,
    others: VecDeque<Letter>,
    bytes: usize,
    receiver: Receiver,
}

/// Who waits for the next datagram.
#[derive(Default)]
enum Receiver {
    #[default]
    Nobody,
    /// The session, with the waker that it is run with.
    Session,
    /// A part of the session that has a waker of its own, as those of a `FuturesUnordered` have.
    Part(Waker),
}

impl Mailbox {
    /// One whose session is to be run for the first time.
    pub(super) fn new(ends: Ends, place: u32, woken: Arc<Woken>) -> Arc<Self> {
        Arc::new(Mailbox {
            ends,
            place,
            rung: AtomicBool::new(true),
            evicted: AtomicBool::new(false),
            mail: Mutex::default(),
            woken,
        })
    }

    /// Lays a datagram in, unless it is full. Says whether the session is among the woken from now on, which it was not.
    pub(super) fn deliver(&self, letter: Letter) -> Result<bool, Letter> {
        let receiver = {
            let mut mail = lock(&self.mail);
            mail.put(letter)?;
            std::mem::take(&mut mail.receiver)
        };
        match receiver {
            Receiver::Nobody => Ok(false),
            Receiver::Session => Ok(self.ring()),
            Receiver::Part(waker) => {
                waker.wake();
                Ok(false)
            }
        }
    }

    pub(super) fn poll_take(self: &Arc<Self>, cx: &mut Context<'_>) -> Poll<Letter> {
        let mut mail = lock(&self.mail);
        if let Some(letter) = mail.take() {
            return Poll::Ready(letter);
        }
        let is_own = waker_ref(self).will_wake(cx.waker());
        mail.receiver = if is_own { Receiver::Session } else { Receiver::Part(cx.waker().clone()) };
        Poll::Pending
    }

    /// Nobody waits for the next one any more. A waker that was left here may keep the mailbox itself.
    pub(super) fn forget_receiver(&self) {
        let receiver = std::mem::take(&mut lock(&self.mail).receiver);
        drop(receiver);
    }

    /// How many nobody will receive any more.
    pub(super) fn left(&self) -> usize {
        lock(&self.mail).len()
    }

    fn ring(&self) -> bool {
        !self.rung.swap(true, Ordering::AcqRel)
    }

    /// Whether the session's turn is still to come.
    pub(super) fn is_rung(&self) -> bool {
        self.rung.load(Ordering::Relaxed)
    }

    /// The session's turn has come: it may be woken anew while it runs, and sees what was done before it was woken.
    pub(super) fn answer_bell(&self) {
        self.rung.swap(false, Ordering::AcqRel);
    }

    /// The session is to be cut when it runs next.
    pub(super) fn evict(&self) {
        self.evicted.store(true, Ordering::Relaxed);
    }

    pub(super) fn is_evicted(&self) -> bool {
        self.evicted.load(Ordering::Relaxed)
    }
}

impl Mail {
    fn len(&self) -> usize {
        usize::from(self.first.is_some()) + self.others.len()
    }

    fn put(&mut self, letter: Letter) -> Result<(), Letter> {
        let size = letter.payload.len();
        if self.len() >= MOST_DATAGRAMS || self.bytes + size > MOST_BYTES {
            return Err(letter);
        }
        self.bytes += size;
        if self.first.is_none() {
            self.first = Some(letter);
        } else {
            self.others.push_back(letter);
        }
        Ok(())
    }

    fn take(&mut self) -> Option<Letter> {
        let letter = self.first.take()?;
        self.bytes -= letter.payload.len();
        if self.others.capacity() > 0 {
            self.first = self.others.pop_front();
            if self.first.is_none() {
                // Who waits for the next one holds no room for many.
                self.others = VecDeque::new();
            }
        }
        Some(letter)
    }
}

/// Mailboxes are known by their ends.
impl PartialEq for Mailbox {
    fn eq(&self, other: &Self) -> bool {
        self.ends == other.ends
    }
}

impl Eq for Mailbox {}

impl Hash for Mailbox {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.ends.hash(state);
    }
}

impl Borrow<Ends> for Arc<Mailbox> {
    fn borrow(&self) -> &Ends {
        &self.ends
    }
}

/// The waker that the session is run with. One that is woken too late runs whoever has its place by then, once in vain.
impl ArcWake for Mailbox {
    fn wake_by_ref(mailbox: &Arc<Self>) {
        if mailbox.ring() {
            mailbox.woken.add(mailbox.place);
        }
    }
}

/// The places of those that were woken by others than the table, each at most once.
#[derive(Default)]
pub(super) struct Woken(Mutex<Bells>);

#[derive(Default)]
struct Bells {
    places: VecDeque<u32>,
    /// The table's task, while it waits to be told.
    task: Option<Waker>,
}

impl Woken {
    fn add(&self, place: u32) {
        let task = {
            let mut bells = lock(&self.0);
            bells.places.push_back(place);
            bells.task.take()
        };
        if let Some(task) = task {
            task.wake();
        }
    }

    /// Moves them to the end of that queue, for the task that runs them now.
    pub(super) fn take(&self, queue: &mut VecDeque<u32>) {
        let mut bells = lock(&self.0);
        bells.task = None;
        queue.append(&mut bells.places);
    }

    /// Whether there is none; the task is woken for the next one then.
    pub(super) fn is_quiet(&self, cx: &Context<'_>) -> bool {
        let mut bells = lock(&self.0);
        let quiet = bells.places.is_empty();
        if quiet {
            bells.task = Some(cx.waker().clone());
        }
        quiet
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::pin::pin;

    use futures_util::Stream;
    use futures_util::stream::FuturesUnordered;

    use super::*;

    fn mailbox() -> Arc<Mailbox> {
        Mailbox::new(Ends { remote: Address::named("a"), local: Address::Unnamed }, 0, Arc::default())
    }

    fn letter(size: usize) -> Letter {
        Letter { payload: Bytes::from(vec![0; size]), reply_limit: None }
    }

    fn taken(mailbox: &Arc<Mailbox>) -> Option<usize> {
        match mailbox.poll_take(&mut Context::from_waker(&waker_ref(mailbox))) {
            Poll::Ready(letter) => Some(letter.payload.len()),
            Poll::Pending => None,
        }
    }

    #[test]
    fn datagrams_are_taken_in_the_order_in_which_they_came_and_leave_room_for_as_many() {
        let mailbox = mailbox();
        for _ in 0..3 {
            assert_eq!((0..100).filter(|size| mailbox.deliver(letter(*size)).is_ok()).count(), MOST_DATAGRAMS);
            assert_eq!(std::iter::from_fn(|| taken(&mailbox)).collect::<Vec<_>>(), (0..64).collect::<Vec<_>>());
            assert!(mailbox.deliver(letter(MOST_BYTES)).is_ok());
            assert!(mailbox.deliver(letter(1)).is_err());
            assert_eq!((taken(&mailbox), taken(&mailbox)), (Some(MOST_BYTES), None));
        }
        assert_eq!(lock(&mailbox.mail).others.capacity(), 0, "one that waits holds no room for many");
    }

    #[test]
    fn a_session_that_waits_is_woken_once_and_one_that_does_something_else_is_not() {
        let mailbox = mailbox();
        mailbox.answer_bell();
        assert!(!mailbox.deliver(letter(1)).ok().unwrap(), "it has not asked");
        assert_eq!((taken(&mailbox), taken(&mailbox)), (Some(1), None));
        assert!(mailbox.deliver(letter(1)).ok().unwrap());
        assert!(!mailbox.deliver(letter(1)).ok().unwrap(), "it is woken already");
    }

    #[test]
    fn a_mailbox_that_a_part_of_its_session_waited_for_is_let_go_of_with_the_session() {
        let mailbox = mailbox();
        let waits = poll_fn(|cx| mailbox.poll_take(cx));
        let mut parts = pin!(std::iter::once(waits).collect::<FuturesUnordered<_>>());
        assert!(parts.as_mut().poll_next(&mut Context::from_waker(&waker_ref(&mailbox))).is_pending());
        parts.clear();
        parts.set(FuturesUnordered::new());
        mailbox.forget_receiver();
        assert_eq!(Arc::strong_count(&mailbox), 1);
    }
}
