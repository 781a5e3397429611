//! The sessions of a runtime of one thread: a crew, all of it within one task.
//!
//! A task for each session would cost an idle connection the runtime's own record of it, and each message a way through
//! the runtime's scheduler. Here a wake lays a session's place into a queue, and the crew's task runs whoever is in it.
//!
//! # Whose turn is it?
//! That of whoever was woken first. The runtime gives a task a budget for one turn, which all sessions of a crew share.
//! When one of them has used it up, the crew stops there and then: those behind it keep their order, the reactor and the
//! other tasks have a turn, and it goes on with a new budget. So a session that never waits holds up the others for no
//! longer than a task of its own would. That is why this is no `FuturesUnordered`, which goes on to ask all the others
//! in vain: those that wait could then be passed over for ever.
//!
//! Some turns are taken together (`round`): first the handlers run, then what they sent is written.

use std::collections::VecDeque;
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use futures_util::task::{ArcWake, waker_ref};
use tokio::runtime::Handle;
use tokio::task::coop::has_budget_remaining;
use tokio::task::yield_now;

use super::connection::Arrival;
use super::round::{self, Step, TOGETHER, Unwritten};
use super::watchman::{Watch, Watchman};

/// How many sessions run before the reactor has its turn. It is as many as a runtime runs tasks unless it is told
/// otherwise (tokio's `event_interval`), and so few that a budget is seldom used up by sessions that have a message each.
const AT_ONCE: usize = 61;

/// How many places are left as they are for the next, with the memory of the session that ended.
const KEPT: usize = 64;

/// A crew, to those that bring it sessions. When this is dropped, it ends with its last session.
pub(super) struct Crew(Arc<Inbox>);

impl Crew {
    /// A crew without sessions, in a task of that runtime. `run` makes a session of a connection.
    pub(super) fn start<S: Session>(runtime: &Handle, watchman: Arc<Watchman>, run: fn(Arrival, Watch) -> S) -> Self {
        let inbox = Arc::new(Inbox(Mutex::default()));
        runtime.spawn(Members::new(inbox.clone(), watchman, run));
        Crew(inbox)
    }

    /// Begins a session in the crew's own thread. If its runtime is no more, the connection is closed.
    pub(super) fn begin(&self, arrival: Arrival) {
        let task = {
            let mut news = self.0.lock();
            if news.closed {
                return;
            }
            news.arrivals.push(arrival);
            news.task.take()
        };
        if let Some(task) = task {
            task.wake();
        }
    }
}

impl Drop for Crew {
    fn drop(&mut self) {
        self.0.close();
    }
}

/// What reaches a crew from without.
struct Inbox(Mutex<News>);

#[derive(Default)]
struct News {
    arrivals: Vec<Arrival>,
    /// The places of those that were woken, each at most once.
    woken: VecDeque<u32>,
    /// The crew's task, until it was told that there is news.
    task: Option<Waker>,
    /// No more sessions come, or none would be run any more.
    closed: bool,
}

impl Inbox {
    fn lock(&self) -> MutexGuard<'_, News> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn close(&self) {
        let (task, arrivals) = {
            let mut news = self.lock();
            news.closed = true;
            (news.task.take(), std::mem::take(&mut news.arrivals))
        };
        // Neither is let go of under the lock: a connection that is closed tells others.
        drop(arrivals);
        if let Some(task) = task {
            task.wake();
        }
    }
}

/// Who is woken on behalf of the session in one place. It stays with the place: a wake that comes too late runs whoever
/// is there by then once in vain.
struct Bell {
    inbox: Arc<Inbox>,
    place: u32,
    /// Whether it is among the woken already.
    rung: AtomicBool,
}

impl Bell {
    /// It may ring anew. Called before anything is done for whoever it rang for, who then sees what was done before it rang.
    #[inline]
    fn hear(&self) {
        self.rung.swap(false, Ordering::AcqRel);
    }
}

impl ArcWake for Bell {
    fn wake_by_ref(bell: &Arc<Self>) {
        if bell.rung.swap(true, Ordering::AcqRel) {
            return;
        }
        let task = {
            let mut news = bell.inbox.lock();
            news.woken.push_back(bell.place);
            news.task.take()
        };
        if let Some(task) = task {
            task.wake();
        }
    }
}

/// What a crew runs. All are of one type, so that a place has a pointer to its own and nothing else. Each leaves its watch.
pub(super) trait Session: Future<Output = Watch> + Send + 'static {}

impl<S: Future<Output = Watch> + Send + 'static> Session for S {}

/// The memory of a session, and the session while it lasts.
type Running<S> = Pin<Box<Option<S>>>;

struct Place<S> {
    session: Option<Running<S>>,
    bell: Arc<Bell>,
}

/// What a session that has ended leaves to the next one in its place.
struct Left<S> {
    place: u32,
    memory: Running<S>,
    watch: Watch,
}

/// The crew's task.
struct Members<S> {
    inbox: Arc<Inbox>,
    watchman: Arc<Watchman>,
    /// Makes a session, which is an `S`.
    begin: fn(Arrival, Watch) -> S,
    places: Vec<Place<S>>,
    /// The places that are free: those that were left a moment ago with what was left there, and others.
    left: Vec<Left<S>>,
    free: Vec<u32>,
    /// The places of those whose turn it is, in order.
    woken: VecDeque<u32>,
    /// The places of those that have run, and what each of them sent.
    unsettled: VecDeque<(u32, Unwritten)>,
    /// Empty; kept for its memory.
    arrivals: Vec<Arrival>,
}

impl<S: Session> Future for Members<S> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        // What there was no budget left to write.
        self.settle();
        round::begin();
        let mut left = AT_ONCE;
        let mut asked = false;
        loop {
            if self.unsettled.len() >= TOGETHER || left == 0 || self.woken.is_empty() {
                self.settle();
            }
            if left == 0 || !has_budget_remaining() {
                // This task is woken once the reactor has had its turn.
                let _ = pin!(yield_now()).poll(cx);
                return Poll::Pending;
            }
            let Some(place) = self.woken.pop_front() else {
                if asked {
                    // Who is woken from now on wakes this task.
                    return Poll::Pending;
                }
                asked = true;
                if self.take_news(cx) {
                    return Poll::Ready(());
                }
                continue;
            };
            left -= 1;
            debug_assert!(
                self.unsettled.iter().all(|(other, _)| *other != place),
                "it would overtake what it has sent"
            );
            self.places[place as usize].bell.hear();
            if let Some(unwritten) = self.run(place, Step::Running) {
                self.unsettled.push_back((place, unwritten));
            }
        }
    }
}

impl<S: Session> Members<S> {
    fn new(inbox: Arc<Inbox>, watchman: Arc<Watchman>, begin: fn(Arrival, Watch) -> S) -> Self {
        let (places, left, free, arrivals) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        let (woken, unsettled) = (VecDeque::new(), VecDeque::new());
        Members { inbox, watchman, begin, places, left, free, woken, unsettled, arrivals }
    }

    /// Whether all is over.
    fn take_news(&mut self, cx: &Context<'_>) -> bool {
        {
            let mut news = self.inbox.lock();
            std::mem::swap(&mut self.woken, &mut news.woken);
            std::mem::swap(&mut self.arrivals, &mut news.arrivals);
            news.task = Some(cx.waker().clone());
            if news.closed && self.left.len() + self.free.len() == self.places.len() {
                return true;
            }
        }
        let mut arrivals = std::mem::take(&mut self.arrivals);
        for arrival in arrivals.drain(..) {
            let place = self.admit(arrival);
            // Its predecessor may have been woken too late. Nobody stands in there twice, and so none is run whose answers are yet
            // to be written.
            if !self.places[place as usize].bell.rung.swap(true, Ordering::AcqRel) {
                self.woken.push_back(place);
            }
        }
        self.arrivals = arrivals;
        false
    }

    fn admit(&mut self, arrival: Arrival) -> u32 {
        if let Some(Left { place, mut memory, watch }) = self.left.pop() {
            memory.set(Some((self.begin)(arrival, watch)));
            self.places[place as usize].session = Some(memory);
            return place;
        }
        let session = Some(Box::pin(Some((self.begin)(arrival, self.watchman.watch()))));
        if let Some(place) = self.free.pop() {
            self.places[place as usize].session = session;
            return place;
        }
        let place = u32::try_from(self.places.len()).expect("a machine holds fewer sessions than that");
        let bell = Arc::new(Bell { inbox: self.inbox.clone(), place, rung: AtomicBool::new(false) });
        self.places.push(Place { session, bell });
        place
    }

    /// Runs the session in that place. A panic ends that one alone, as it would a task.
    fn run(&mut self, number: u32, step: Step) -> Option<Unwritten> {
        let place = &mut self.places[number as usize];
        let session = place.session.as_mut().and_then(|running| running.as_mut().as_pin_mut())?;
        let waker = waker_ref(&place.bell);
        let mut polled = Ok(Poll::Pending);
        let unwritten = round::run(step, || {
            polled = catch_unwind(AssertUnwindSafe(|| session.poll(&mut Context::from_waker(&waker))));
        });
        match polled {
            Ok(Poll::Pending) => return unwritten,
            Ok(Poll::Ready(watch)) => self.end(number, Some(watch)),
            Err(_) => self.end(number, None),
        }
        None
    }

    /// Writes what those sent that have run. Where one of them has used up the budget nobody could write: the rest wait for the
    /// next turn, in which they come first.
    fn settle(&mut self) {
        let short = round::was_short();
        while has_budget_remaining()
            && let Some((place, unwritten)) = self.unsettled.pop_front()
        {
            match self.write(place, unwritten) {
                Ok(true) if short => {}
                Ok(_) => drop(self.run(place, Step::Settling)),
                Err(_) => self.end(place, None),
            }
        }
    }

    /// Whether all could be written. That is nearly always so, and then the session need not be run for it.
    fn write(&self, place: u32, unwritten: Unwritten) -> std::thread::Result<bool> {
        let waker = waker_ref(&self.places[place as usize].bell);
        let mut cx = Context::from_waker(&waker);
        catch_unwind(AssertUnwindSafe(|| unwritten.write(&mut cx)))
    }

    /// Lets go of the session in that place. Its memory and its watch are left to the next: where sessions are short, to ask
    /// for them anew was measured to be a good part of what one costs. Whoever wakes its watch runs nobody, once.
    fn end(&mut self, place: u32, watch: Option<Watch>) {
        let left = &mut self.places[place as usize];
        let Some(mut memory) = left.session.take() else { return };
        let dropped = catch_unwind(AssertUnwindSafe(|| memory.set(None)));
        match watch {
            Some(watch) if dropped.is_ok() && self.left.len() < KEPT => self.left.push(Left { place, memory, watch }),
            _ => self.free.push(place),
        }
    }
}

/// The runtime is no more, or all is over.
impl<S> Drop for Members<S> {
    fn drop(&mut self) {
        self.inbox.close();
    }
}
