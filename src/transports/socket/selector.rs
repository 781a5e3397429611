//! Which connected sockets can be read or written: an epoll instance of our own, beneath tokio's reactor.
//!
//! tokio's reactor keeps 256 bytes for each descriptor. A [`Selector`] keeps 32, and is itself the one descriptor that the
//! reactor watches for all of them; epoll(7) allows an instance to watch another.
//!
//! # A round
//! 1. The reactor finds the selector ready, in its own turn on the runtime's thread, and wakes it: the waker that was left
//!    there is no task but the selector itself ([`Wake`]).
//! 2. The selector asks its epoll instance for what has happened, notes it, reads it for some of those that wait for it
//!    ([`ahead`](super::ahead)), and wakes them. All this is done before the reactor's turn is over: a task that lets it have
//!    one (`yield_now`) then knows of all that has come, as with tokio's own sockets.
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
use std::future::{Future, poll_fn};
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::pin::pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::task::{Context, Poll, Wake, Waker};

use rustix::event::Timespec;
use rustix::event::epoll::{self, CreateFlags, EventFlags};
use rustix::io::Errno;
use tokio::io::unix::AsyncFd;
use tokio::io::{Interest, ReadBuf};
use tokio::runtime::{Handle, Id, RuntimeFlavor};
use tokio::task::unconstrained;

use super::reactor::register;
use super::slots::{Asks, Key, Says, Slots};

/// How many events one system call brings.
const EVENTS: usize = 256;
thread_local! {
    static SELECTORS: RefCell<Vec<(Id, Arc<Selector>)>> = const { RefCell::new(Vec::new()) };
}

/// See the module's documentation.
pub(super) struct Selector {
    epoll: AsyncFd<OwnedFd>,
    /// What the reactor wakes.
    waker: Waker,
    slots: Mutex<Slots>,
    /// Whether sockets are read ahead: on a runtime of one thread. With several, whoever waits may be at work elsewhere, and would
    /// have to wait for the lock.
    reads_ahead: bool,
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
        let reads_ahead = Handle::current().runtime_flavor() == RuntimeFlavor::CurrentThread;
        let selector = Arc::new_cyclic(|itself: &Weak<Selector>| Selector {
            epoll,
            waker: Waker::from(Arc::new(Woken(itself.clone()))),
            slots: Mutex::default(),
            reads_ahead,
            ended: AtomicBool::new(false),
        });
        selector.turn();
        Ok(selector)
    }

    /// Lets this thread's selector watch a socket: for what comes, and, if `room`, for room to write as well. It may be read
    /// ahead where `whole` says that a read which does not fill its buffer has all that there is. It must be called within a
    /// tokio runtime.
    pub(super) fn watch(socket: &Arc<OwnedFd>, whole: bool, room: bool) -> io::Result<(Arc<Self>, Key)> {
        let selector = Selector::current()?;
        let ahead = (whole && selector.reads_ahead).then(|| socket.clone());
        let (key, generation) = selector.lock().open(ahead);
        let (data, wanted) = (key.event_data(generation), wanted(room));
        let added = match epoll::add(&selector.epoll, socket, data, wanted) {
            // Of a closed descriptor somebody else has a copy, and this is another one, under its old number.
            Err(Errno::EXIST) => epoll::modify(&selector.epoll, socket, data, wanted),
            added => added,
        };
        if let Err(errno) = added {
            let _ = selector.lock().close(key);
            return Err(errno.into());
        }
        Ok((selector, key))
    }

    /// Whether something can be read, or what was read already, into `buffer`. That something can be read it says once for each
    /// time that something came, and again and again at the end, until that was in vain.
    ///
    /// Whoever asks is woken by what comes after this, whatever the answer was.
    #[inline]
    pub(super) fn poll_readable(
        &self,
        key: Key,
        cx: &mut Context<'_>,
        asks: Asks,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<Says>> {
        // Dropped after the lock is let go, as what belongs to others always is.
        let _previous;
        let mut slots = self.lock();
        if self.has_ended() {
            return Poll::Ready(Err(ended()));
        }
        _previous = slots.set_reader(key, cx.waker());
        let Some(says) = slots.ask(key, asks, buffer) else { return Poll::Pending };
        if slots.was_last(key) {
            drop(slots);
            self.look();
        }
        Poll::Ready(Ok(says))
    }

    /// Whether there may be room to write, or an error; once for each time that there was some.
    pub(super) fn poll_writable(&self, key: Key, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let _previous;
        let mut slots = self.lock();
        if self.has_ended() {
            return Poll::Ready(Err(ended()));
        }
        if slots.take_room(key) {
            return Poll::Ready(Ok(()));
        }
        _previous = slots.set_writer(key, cx.waker());
        Poll::Pending
    }

    /// From now on the socket is watched for room as well.
    pub(super) fn watch_for_room(&self, key: Key, socket: impl AsFd) -> io::Result<()> {
        let generation = self.lock().generation(key);
        Ok(epoll::modify(&self.epoll, socket, key.event_data(generation), wanted(true))?)
    }

    /// The reader has read all that had come, and reads nothing before it asks again.
    #[inline]
    pub(super) fn let_wait(&self, key: Key) {
        if self.reads_ahead {
            self.lock().let_wait(key);
        }
    }

    /// The socket is to be closed. Says whether bytes were read that nobody has fetched.
    pub(super) fn forget(&self, key: Key) -> bool {
        let (unread, _wakers) = self.lock().close(key);
        unread
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
            self.lock().give_back(woken);
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

fn wanted(room: bool) -> EventFlags {
    let incoming = EventFlags::IN | EventFlags::PRI | EventFlags::RDHUP | EventFlags::ET;
    if room { incoming | EventFlags::OUT } else { incoming }
}

fn ended() -> io::Error {
    io::Error::other("the runtime that the connection was opened in has ended")
}

#[cfg(test)]
mod tests {
    use super::super::slots;
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

    /// A socket that is watched.
    struct Watched {
        selector: Arc<Selector>,
        key: Key,
        socket: Arc<OwnedFd>,
        peer: UnixStream,
    }

    impl Watched {
        fn new() -> Self {
            let (ours, peer) = UnixStream::pair().unwrap();
            ours.set_nonblocking(true).unwrap();
            let socket = Arc::new(OwnedFd::from(ours));
            let (selector, key) = Selector::watch(&socket, true, false).unwrap();
            Watched { selector, key, socket, peer }
        }

        fn poll(&self, cx: &mut Context<'_>, asks: Asks) -> Poll<Says> {
            self.selector.poll_readable(self.key, cx, asks, &mut ReadBuf::new(&mut [0; 64])).map(Result::unwrap)
        }
    }

    impl Drop for Watched {
        fn drop(&mut self) {
            self.selector.forget(self.key);
        }
    }

    #[tokio::test]
    async fn ten_thousand_sockets_that_come_and_go_leave_no_slot_behind() {
        let first = Watched::new();
        for _ in 0..10_000 {
            let copy = Arc::new(first.socket.try_clone().unwrap());
            let (selector, key) = Selector::watch(&copy, true, false).unwrap();
            selector.forget(key);
        }
        assert_eq!(first.selector.lock().sizes(), (2, 1, 0));
    }

    #[tokio::test]
    async fn an_event_of_a_socket_that_is_gone_is_not_taken_for_one_of_its_successor() {
        let mut gone = Watched::new();
        // A copy keeps the closed socket where it was.
        let _copy = gone.socket.try_clone().unwrap();
        gone.peer.write_all(b"x").unwrap();
        let _peer = gone.peer.try_clone().unwrap();
        let gone_key = gone.key;
        drop(gone);
        let next = Watched::new();
        assert_eq!(next.key, gone_key, "it has the place of the one that went");
        yield_now().await;
        let mut cx = Context::from_waker(Waker::noop());
        assert!(next.poll(&mut cx, Asks::First).is_pending());
    }

    #[tokio::test]
    async fn what_was_said_in_vain_is_not_said_again() {
        let ended = Watched::new();
        ended.peer.shutdown(std::net::Shutdown::Both).unwrap();
        yield_now().await;
        let mut cx = Context::from_waker(Waker::noop());
        for asks in [Asks::First, Asks::First, Asks::InVain] {
            assert!(ended.poll(&mut cx, asks).is_ready(), "the end stays");
        }
        assert!(ended.poll(&mut cx, Asks::InVain).is_pending(), "until it was none");
    }

    #[tokio::test]
    async fn the_last_that_reads_after_a_large_round_looks_for_the_next() {
        let count = Arc::new(Count::default());
        let waker = Waker::from(count.clone());
        let mut cx = Context::from_waker(&waker);
        let mut sockets: Vec<_> = (0..slots::LARGE_ROUND).map(|_| Watched::new()).collect();
        for socket in &mut sockets {
            assert!(socket.poll(&mut cx, Asks::First).is_pending());
            socket.peer.write_all(b"x").unwrap();
        }
        yield_now().await;
        assert_eq!(count.0.load(Ordering::Relaxed), slots::LARGE_ROUND);
        for socket in &mut sockets {
            socket.peer.write_all(b"y").unwrap();
        }
        // From here on the reactor has no turn.
        for socket in &sockets {
            assert_eq!(count.0.load(Ordering::Relaxed), slots::LARGE_ROUND);
            assert!(socket.poll(&mut cx, Asks::First).is_ready());
        }
        // The last one has taken what came before it looked.
        assert_eq!(count.0.load(Ordering::Relaxed), 2 * slots::LARGE_ROUND);
    }

    #[tokio::test]
    async fn a_waker_may_drop_what_it_wakes() {
        struct Owner(Mutex<Option<Watched>>);
        impl Wake for Owner {
            fn wake(self: Arc<Self>) {
                self.0.lock().unwrap().take();
            }
        }
        let watched = Watched::new();
        let (selector, mut peer) = (watched.selector.clone(), watched.peer.try_clone().unwrap());
        let owner = Arc::new(Owner(Mutex::new(Some(watched))));
        let waker = Waker::from(owner.clone());
        let mut cx = Context::from_waker(&waker);
        assert!(owner.0.lock().unwrap().as_ref().unwrap().poll(&mut cx, Asks::First).is_pending());
        peer.write_all(b"x").unwrap();
        yield_now().await;
        assert!(owner.0.lock().unwrap().is_none());
        assert_eq!(selector.lock().sizes(), (1, 1, 0));
    }
}
