//! Which connected sockets can be read or written: an epoll instance of our own, beneath tokio's reactor.
//!
//! tokio's reactor keeps 256 bytes for each descriptor. A [`Selector`] keeps 24, and is itself the one descriptor that the
//! reactor watches for all of them; epoll(7) allows an instance to watch another.
//!
//! # A round
//! 1. The reactor finds the selector ready, in its own turn on the runtime's thread, and wakes it: the waker that was left
//!    there is no task but the selector itself ([`Wake`]).
//! 2. The selector asks its epoll instance for what has happened, notes it, and wakes the tasks that wait for it. All this
//!    is done before the reactor's turn is over: a task that lets it have one (`yield_now`) then knows of all that has come,
//!    as with tokio's own sockets.
//! 3. Of the tasks that a large round woke, the last that reads looks anew before: under load one system call does where
//!    asking the reactor first would need two. tokio lets the reactor have its turn every 61 tasks in any case,
//!    greetd itself every 128.
//!
//! # Life cycle
//! There is one for each thread and runtime, made with the first socket that is opened there. It belongs to the thread, as
//! the session's buffers do, and to the sockets that are in it, so that a thread which serves one connection after the
//! other keeps it in between. It has no task, and so nothing that must be stopped. When the runtime ends it tells those who
//! still wait, on another runtime, and is let go by the thread when that opens a socket elsewhere.
//!
//! A socket that is closed leaves an epoll instance by itself. Whoever holds a copy of its descriptor keeps it there,
//! edge-triggered and silent but for what happens to it; such an event names a generation that no socket has any more.

use std::cell::RefCell;
use std::collections::HashMap;
use std::future::{Future, poll_fn};
use std::io;
use std::mem::{self, MaybeUninit};
use std::os::fd::{AsFd, OwnedFd};
use std::pin::pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::task::{Context, Poll, Wake, Waker};

use rustix::event::Timespec;
use rustix::event::epoll::{self, CreateFlags, Event, EventData, EventFlags};
use rustix::io::Errno;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::runtime::{Handle, Id};
use tokio::task::unconstrained;

use super::reactor::register;

/// How many events one system call brings.
const EVENTS: usize = 256;
/// A round that woke so many is followed by another without the reactor: the busier, the surer that something has come.
const LARGE_ROUND: usize = 4;

thread_local! {
    static SELECTORS: RefCell<Vec<(Id, Arc<Selector>)>> = const { RefCell::new(Vec::new()) };
}

/// See the module's documentation.
pub(super) struct Selector {
    epoll: AsyncFd<OwnedFd>,
    /// What the reactor wakes.
    waker: Waker,
    slots: Mutex<Slots>,
    /// The runtime has ended. It is set under the lock.
    ended: AtomicBool,
}

impl Selector {
    /// The selector of this thread and of the runtime that it is in.
    fn current() -> io::Result<Arc<Self>> {
        let runtime = Handle::current().id();
        SELECTORS.with_borrow_mut(|selectors| {
            // The number of a runtime that has ended may be another's now.
            if let Some((_, found)) = selectors.iter().find(|(id, found)| *id == runtime && !found.has_ended()) {
                return Ok(found.clone());
            }
            selectors.retain(|(_, other)| !other.has_ended());
            let made = Self::new()?;
            selectors.push((runtime, made.clone()));
            Ok(made)
        })
    }

    fn new() -> io::Result<Arc<Self>> {
        let epoll = register(epoll::create(CreateFlags::CLOEXEC)?, Interest::READABLE)?;
        let selector = Arc::new_cyclic(|itself: &Weak<Selector>| Selector {
            epoll,
            waker: Waker::from(Arc::new(Woken(itself.clone()))),
            slots: Mutex::default(),
            ended: AtomicBool::new(false),
        });
        selector.turn();
        Ok(selector)
    }

    /// Looks as long as the reactor says that there is something, and leaves the waker for the next time.
    fn turn(&self) {
        let mut cx = Context::from_waker(&self.waker);
        loop {
            // Whatever the task has used up of its turn that happens to run: asked within its budget, the reactor might wake
            // the selector from here, and that again and again.
            match pin!(unconstrained(poll_fn(|cx| self.epoll.poll_read_ready(cx)))).poll(&mut cx) {
                Poll::Pending => return,
                Poll::Ready(Ok(mut ready)) => {
                    self.look();
                    // Where another thread has heard of more meanwhile, this does nothing.
                    ready.clear_ready();
                }
                Poll::Ready(Err(_)) => return self.end(),
            }
        }
    }

    /// Notes what has happened, and wakes whoever waits for it.
    fn look(&self) {
        loop {
            let mut events = [MaybeUninit::uninit(); EVENTS];
            let now = Timespec { tv_sec: 0, tv_nsec: 0 };
            let happened = match epoll::wait(&self.epoll, &mut events[..], Some(&now)) {
                Ok((happened, _)) => happened,
                Err(Errno::INTR) => continue,
                // There is no other that a valid call can give.
                Err(_) => return,
            };
            let mut woken = self.lock().note(happened);
            // Not under the lock: what a waker does is not known here.
            woken.drain(..).for_each(Waker::wake);
            self.lock().woken = woken;
            if happened.len() < EVENTS {
                return;
            }
        }
    }

    /// The runtime has ended: nothing will be heard of any more.
    fn end(&self) {
        let woken = {
            let mut slots = self.lock();
            self.ended.store(true, Ordering::Relaxed);
            slots.end()
        };
        woken.into_iter().for_each(Waker::wake);
    }

    fn has_ended(&self) -> bool {
        self.ended.load(Ordering::Relaxed)
    }

    /// Nothing panics under the lock.
    fn lock(&self) -> MutexGuard<'_, Slots> {
        self.slots.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The reactor's way to a selector, which may be gone.
struct Woken(Weak<Selector>);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if let Some(selector) = self.0.upgrade() {
            selector.turn();
        }
    }
}

/// A socket's place in a selector.
pub(super) struct Place {
    selector: Arc<Selector>,
    key: u32,
}

impl Place {
    /// Lets this thread's selector watch a socket: for what comes, and, if `room`, for room to write as well. It must be
    /// called within a tokio runtime.
    pub(super) fn take(socket: impl AsFd, room: bool) -> io::Result<Self> {
        let selector = Selector::current()?;
        let (key, generation) = selector.lock().open();
        // From here on the place is given back if this fails.
        let place = Place { selector, key };
        let (data, wanted) = (name(key, generation), wanted(room));
        match epoll::add(&place.selector.epoll, &socket, data, wanted) {
            // Of a closed descriptor somebody else has a copy, and this is another one, under its old number.
            Err(Errno::EXIST) => epoll::modify(&place.selector.epoll, &socket, data, wanted)?,
            added => added?,
        }
        Ok(place)
    }

    /// Whether something can be read: bytes, the end, or an error. It says so once for each time that something came,
    /// and again and again at the end. `in_vain` tells that what it said last was not so. Says whether the end is known.
    ///
    /// Whoever asks is woken by what comes after this, whatever the answer was.
    #[inline]
    pub(super) fn poll_readable(&self, cx: &mut Context<'_>, in_vain: bool) -> Poll<io::Result<bool>> {
        // Dropped after the lock is let go, as what belongs to others always is.
        let _previous;
        let mut slots = self.selector.lock();
        if self.selector.has_ended() {
            return Poll::Ready(Err(ended()));
        }
        let slot = &mut slots.all[self.key as usize];
        if !slot.reader.as_ref().is_some_and(|reader| reader.will_wake(cx.waker())) {
            _previous = slot.reader.replace(cx.waker().clone());
        }
        if !slot.is(READABLE | AT_END) {
            return Poll::Pending;
        }
        let at_end = slot.is(AT_END);
        slot.state &= if in_vain { !(READABLE | AT_END) } else { !READABLE };
        if slots.was_last(self.key) {
            drop(slots);
            self.selector.look();
        }
        Poll::Ready(Ok(at_end))
    }

    /// Will be read, whether or not it is known that something can be.
    pub(super) fn set_reading(&self, cx: &mut Context<'_>) -> io::Result<bool> {
        match self.poll_readable(cx, false) {
            Poll::Ready(readable) => readable,
            Poll::Pending => Ok(false),
        }
    }

    /// Whether there may be room to write, or an error; once for each time that there was some.
    pub(super) fn poll_writable(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let _previous;
        let mut slots = self.selector.lock();
        if self.selector.has_ended() {
            return Poll::Ready(Err(ended()));
        }
        let slot = &mut slots.all[self.key as usize];
        if slot.is(WRITABLE) {
            slot.state &= !WRITABLE;
            return Poll::Ready(Ok(()));
        }
        slot.state |= AWAITS_ROOM;
        _previous = slots.writers.insert(self.key, cx.waker().clone());
        Poll::Pending
    }

    /// From now on the socket is watched for room as well.
    pub(super) fn watch_for_room(&self, socket: impl AsFd) -> io::Result<()> {
        let generation = self.selector.lock().all[self.key as usize].generation;
        Ok(epoll::modify(&self.selector.epoll, socket, name(self.key, generation), wanted(true))?)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _wakers = self.selector.lock().close(self.key);
    }
}

/// What the events of a place are to carry.
fn name(key: u32, generation: u32) -> EventData {
    EventData::new_u64(u64::from(generation) << 32 | u64::from(key))
}

fn wanted(room: bool) -> EventFlags {
    let incoming = EventFlags::IN | EventFlags::PRI | EventFlags::RDHUP | EventFlags::ET;
    if room { incoming | EventFlags::OUT } else { incoming }
}

fn ended() -> io::Error {
    io::Error::other("the runtime that the connection was opened in has ended")
}

/// Bytes have come since this was last taken.
const READABLE: u8 = 1;
/// The peer will send no more, or the connection failed: that does not pass. Or among what came is urgent data, at which a read
/// stops, so that it has to be read on as it has before an end.
const AT_END: u8 = 1 << 1;
/// There was room since this was last taken.
const WRITABLE: u8 = 1 << 2;
/// There is a waker in [`Slots::writers`].
const AWAITS_ROOM: u8 = 1 << 3;

/// What is known of one socket.
struct Slot {
    reader: Option<Waker>,
    generation: u32,
    state: u8,
    /// The round that woke its reader last.
    round: u8,
}

impl Slot {
    fn is(&self, any: u8) -> bool {
        self.state & any != 0
    }
}

#[derive(Default)]
struct Slots {
    all: Vec<Slot>,
    vacant: Vec<u32>,
    /// Who waits for room: few do, so idle sockets have no place for them.
    writers: HashMap<u32, Waker>,
    generation: u32,
    round: u8,
    /// How many were woken in this round, and how many of them have not waited again.
    round_size: usize,
    at_work: usize,
    /// Empty; kept for its memory.
    woken: Vec<Waker>,
}

impl Slots {
    /// A place, and its generation.
    fn open(&mut self) -> (u32, u32) {
        self.generation = self.generation.wrapping_add(1);
        let generation = self.generation;
        let slot = Slot { reader: None, generation, state: 0, round: self.round.wrapping_sub(1) };
        if let Some(key) = self.vacant.pop() {
            self.all[key as usize] = slot;
            return (key, generation);
        }
        self.all.push(slot);
        // As many as there are descriptors at most.
        ((self.all.len() - 1) as u32, generation)
    }

    /// Gives the place up; the wakers are to be dropped elsewhere.
    fn close(&mut self, key: u32) -> (Option<Waker>, Option<Waker>) {
        let slot = &mut self.all[key as usize];
        // No event has it: generations begin with 1.
        slot.generation = 0;
        let writer = if slot.is(AWAITS_ROOM) { self.writers.remove(&key) } else { None };
        let reader = slot.reader.take();
        self.vacant.push(key);
        (reader, writer)
    }

    /// Notes events; gives who is to be woken.
    fn note(&mut self, events: &[Event]) -> Vec<Waker> {
        let mut woken = mem::take(&mut self.woken);
        self.round = self.round.wrapping_add(1);
        for event in events {
            let (flags, name) = (event.flags, event.data.u64());
            let key = name as u32;
            let Some(slot) = self.all.get_mut(key as usize).filter(|slot| u64::from(slot.generation) == name >> 32)
            else {
                continue;
            };
            let known = slot.state;
            if flags.intersects(EventFlags::PRI | EventFlags::RDHUP | EventFlags::HUP | EventFlags::ERR) {
                slot.state |= AT_END;
            }
            if flags.contains(EventFlags::IN) {
                slot.state |= READABLE;
            }
            // Who was told, and has not looked since, is not told again.
            if slot.state & !known & (READABLE | AT_END) != 0
                && let Some(reader) = &slot.reader
            {
                slot.round = self.round;
                woken.push(reader.clone());
            }
            if flags.intersects(EventFlags::OUT | EventFlags::HUP | EventFlags::ERR) {
                slot.state |= WRITABLE;
                if slot.is(AWAITS_ROOM) {
                    slot.state &= !AWAITS_ROOM;
                    woken.extend(self.writers.remove(&key));
                }
            }
        }
        self.round_size = woken.len();
        self.at_work = woken.len();
        woken
    }

    /// Whether this one was the last at work of those that a large round woke.
    fn was_last(&mut self, key: u32) -> bool {
        let slot = &mut self.all[key as usize];
        if slot.round != self.round || self.at_work == 0 {
            return false;
        }
        slot.round = self.round.wrapping_sub(1);
        self.at_work -= 1;
        self.at_work == 0 && self.round_size >= LARGE_ROUND
    }

    fn end(&mut self) -> Vec<Waker> {
        let readers = self.all.iter_mut().filter_map(|slot| slot.reader.take());
        readers.chain(self.writers.drain().map(|(_, writer)| writer)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;
    use std::os::unix::net::UnixStream;
    use std::sync::atomic::AtomicUsize;

    use tokio::task::yield_now;

    #[derive(Default)]
    struct Count(AtomicUsize);

    impl Wake for Count {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn watched() -> (Place, UnixStream, UnixStream) {
        let (ours, theirs) = UnixStream::pair().unwrap();
        (Place::take(&ours, false).unwrap(), ours, theirs)
    }

    #[tokio::test]
    async fn ten_thousand_sockets_that_come_and_go_leave_no_slot_behind() {
        let (first, ours, _theirs) = watched();
        for _ in 0..10_000 {
            drop(Place::take(ours.try_clone().unwrap(), false).unwrap());
        }
        let slots = first.selector.lock();
        assert_eq!((slots.all.len(), slots.vacant.len(), slots.writers.len()), (2, 1, 0));
    }

    #[tokio::test]
    async fn an_event_of_a_socket_that_is_gone_is_not_taken_for_one_of_its_successor() {
        let (place, ours, mut theirs) = watched();
        // A copy keeps the closed socket where it was.
        theirs.write_all(b"x").unwrap();
        drop(place);
        let (next, _next_ours, _next_theirs) = watched();
        assert_eq!(next.key, 0, "it has the place of the one that went");
        yield_now().await;
        let mut cx = Context::from_waker(Waker::noop());
        assert!(next.poll_readable(&mut cx, false).is_pending());
        drop(ours);
    }

    #[tokio::test]
    async fn what_was_said_in_vain_is_not_said_again() {
        let (place, _ours, theirs) = watched();
        drop(theirs);
        yield_now().await;
        let mut cx = Context::from_waker(Waker::noop());
        for in_vain in [false, false, true] {
            assert!(place.poll_readable(&mut cx, in_vain).is_ready(), "the end stays");
        }
        assert!(place.poll_readable(&mut cx, true).is_pending(), "until it was none");
    }

    #[tokio::test]
    async fn the_last_that_reads_after_a_large_round_looks_for_the_next() {
        let count = Arc::new(Count::default());
        let waker = Waker::from(count.clone());
        let mut cx = Context::from_waker(&waker);
        let mut sockets: Vec<_> = (0..LARGE_ROUND).map(|_| watched()).collect();
        for (place, _, theirs) in &mut sockets {
            assert!(place.poll_readable(&mut cx, false).is_pending());
            theirs.write_all(b"x").unwrap();
        }
        yield_now().await;
        assert_eq!(count.0.load(Ordering::Relaxed), LARGE_ROUND);
        for (_, _, theirs) in &mut sockets {
            theirs.write_all(b"y").unwrap();
        }
        // From here on the reactor has no turn.
        for (place, ..) in &sockets {
            assert_eq!(count.0.load(Ordering::Relaxed), LARGE_ROUND);
            assert!(place.poll_readable(&mut cx, false).is_ready());
        }
        // The last one has taken what came before it looked.
        assert_eq!(count.0.load(Ordering::Relaxed), 2 * LARGE_ROUND);
    }

    #[tokio::test]
    async fn a_waker_may_drop_what_it_wakes() {
        struct Owner(Mutex<Option<Place>>);
        impl Wake for Owner {
            fn wake(self: Arc<Self>) {
                self.0.lock().unwrap().take();
            }
        }
        let (place, _ours, mut theirs) = watched();
        let selector = place.selector.clone();
        let owner = Arc::new(Owner(Mutex::new(Some(place))));
        let waker = Waker::from(owner.clone());
        let polled = owner.0.lock().unwrap().as_ref().unwrap().poll_readable(&mut Context::from_waker(&waker), false);
        assert!(polled.is_pending());
        theirs.write_all(b"x").unwrap();
        yield_now().await;
        assert!(owner.0.lock().unwrap().is_none());
        assert_eq!(selector.lock().vacant, [0]);
    }
}
