//! Wakes whoever watches a runtime's clock: at the moment that was asked for, and at each step of a shutdown.
//!
//! A timer of the runtime's own would cost each session 112 bytes. Few of them are ever due: a session asks for its first
//! deadline, and once a minute or so it is woken, to find that it has a later one. So here is one table, and one timer for
//! the first that is due.
//!
//! Most sessions ask for the same time from now on, so that their deadlines come in order, and short ones leave long before
//! theirs. So the deadlines stand in a heap, where one that is later than all others is just put at the end, and one that
//! was given up stays until it is found there, or until most of them are such.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::future::{Future, poll_fn};
use std::pin::pin;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use tokio::runtime::Handle;
use tokio::time::sleep_until;

use super::moment::{Era, Moment};

/// How far a shutdown is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Phase {
    /// There is none.
    Running,
    /// No session begins, and idle ones end.
    Draining,
    /// Every session is cut.
    Cutting,
}

/// Knows the time of one runtime, and whom to wake when. Asking costs no lock; being woken, one place in a table.
#[derive(Debug)]
pub(super) struct Watchman {
    era: Era,
    phase: AtomicU8,
    table: Mutex<Table>,
}

#[derive(Debug)]
struct Table {
    /// Who watches; places are used again.
    places: Vec<Place>,
    free: Vec<u32>,
    /// When whoever is in that place is to be woken. It is so where the place says the same.
    deadlines: BinaryHeap<Reverse<(Moment, u32)>>,
    /// How many of them are so.
    awaited: usize,
    /// For what the timer is set, and the task that set it.
    alarm: Moment,
    task: Option<Waker>,
    dismissed: bool,
}

#[derive(Debug)]
struct Place {
    waker: Option<Waker>,
    /// When it is to be woken.
    deadline: Moment,
}

/// So many deadlines that were given up may stay in any case.
const GIVEN_UP: usize = 64;

impl Watchman {
    fn new(era: Era) -> Self {
        let table = Table {
            places: Vec::new(),
            free: Vec::new(),
            deadlines: BinaryHeap::new(),
            awaited: 0,
            alarm: Moment::NEVER,
            task: None,
            dismissed: false,
        };
        Watchman { era, phase: AtomicU8::new(Phase::Running as u8), table: Mutex::new(table) }
    }

    /// One that keeps the clock in a task of that runtime, until he is dismissed.
    pub(super) fn start(era: Era, runtime: &Handle) -> Arc<Self> {
        let watchman = Arc::new(Watchman::new(era));
        runtime.spawn(watchman.clone().keep());
        watchman
    }

    async fn keep(self: Arc<Self>) {
        let mut timer = pin!(sleep_until(self.era.instant(Moment::PAST)));
        poll_fn(|cx| {
            while let Some(first) = self.wake_due(cx) {
                if first == Moment::NEVER {
                    return Poll::Pending;
                }
                let first = self.era.instant(first);
                if timer.deadline() != first {
                    timer.as_mut().reset(first);
                }
                if timer.as_mut().poll(cx).is_pending() {
                    return Poll::Pending;
                }
            }
            Poll::Ready(())
        })
        .await;
    }

    /// Wakes those whose moment has come, and says when the next of them is due; none when the watchman is dismissed.
    fn wake_due(&self, cx: &Context<'_>) -> Option<Moment> {
        let mut due = Vec::new();
        let first = {
            let mut table = self.table();
            if table.dismissed {
                return None;
            }
            table.task = Some(cx.waker().clone());
            let now = self.now();
            table.alarm = loop {
                match table.first() {
                    Some((at, place)) if at <= now => {
                        table.set(place, Moment::NEVER);
                        due.extend(table.places[place as usize].waker.clone());
                    }
                    first => break first.map_or(Moment::NEVER, |(at, _)| at),
                }
            };
            table.alarm
        };
        due.into_iter().for_each(Waker::wake);
        Some(first)
    }

    /// Goes on to that phase; none is taken back.
    pub(super) fn advance(&self, phase: Phase) {
        self.phase.fetch_max(phase as u8, Ordering::SeqCst);
        let wakers: Vec<Waker> = self.table().places.iter().filter_map(|place| place.waker.clone()).collect();
        wakers.into_iter().for_each(Waker::wake);
    }

    /// Nobody will watch any more.
    pub(super) fn dismiss(&self) {
        let task = {
            let mut table = self.table();
            table.dismissed = true;
            table.task.take()
        };
        if let Some(task) = task {
            task.wake();
        }
    }

    #[inline]
    pub(super) fn now(&self) -> Moment {
        self.era.now()
    }

    #[inline]
    pub(super) fn phase(&self) -> Phase {
        match self.phase.load(Ordering::SeqCst) {
            0 => Phase::Running,
            1 => Phase::Draining,
            _ => Phase::Cutting,
        }
    }

    /// A watch for one task.
    pub(super) fn watch(self: &Arc<Self>) -> Watch {
        Watch { watchman: self.clone(), place: None, deadline: Moment::PAST }
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Table {
    fn enter(&mut self, waker: Waker) -> u32 {
        let Some(place) = self.free.pop() else {
            let place = u32::try_from(self.places.len()).expect("a machine holds fewer tasks than that");
            self.places.push(Place { waker: Some(waker), deadline: Moment::NEVER });
            return place;
        };
        self.places[place as usize].waker = Some(waker);
        place
    }

    fn leave(&mut self, place: u32) {
        self.set(place, Moment::NEVER);
        self.places[place as usize].waker = None;
        self.free.push(place);
    }

    /// Whoever is in that place is to be woken then, and not when it was before.
    fn set(&mut self, place: u32, deadline: Moment) {
        let before = std::mem::replace(&mut self.places[place as usize].deadline, deadline);
        if before == deadline {
            return;
        }
        self.awaited -= usize::from(before != Moment::NEVER);
        if deadline != Moment::NEVER {
            self.awaited += 1;
            self.deadlines.push(Reverse((deadline, place)));
        }
        if self.deadlines.len() > 2 * self.awaited + GIVEN_UP {
            let places = &self.places;
            self.deadlines.retain(|Reverse((at, place))| places[*place as usize].deadline == *at);
            if self.deadlines.len() > self.awaited {
                // Those that were given up and asked for again, as that of a session that may last for so long in all.
                let mut left = std::mem::take(&mut self.deadlines).into_vec();
                left.sort_unstable();
                left.dedup();
                self.deadlines = left.into();
            }
        }
    }

    /// The first deadline, and whose it is.
    fn first(&mut self) -> Option<(Moment, u32)> {
        loop {
            let Reverse((at, place)) = *self.deadlines.peek()?;
            if self.places[place as usize].deadline == at {
                return Some((at, place));
            }
            self.deadlines.pop();
        }
    }
}

/// Wakes one task whenever the phase changes and when its deadline has come. It stays in the task that asks it first.
///
/// There it may be handed on from one session to the next in the same place, with its deadline: whoever is woken too soon
/// asks for a later one, as ever. Most have ended long before.
#[derive(Debug)]
pub(super) struct Watch {
    watchman: Arc<Watchman>,
    deadline: Moment,
    place: Option<u32>,
}

impl Watch {
    /// The phase now; when it changes, the task is woken.
    #[inline]
    pub(super) fn phase(&mut self, cx: &Context<'_>) -> Phase {
        // Registered before the look, so that a change between the two is not missed.
        if self.place.is_none() {
            self.register(cx);
        }
        self.watchman.phase()
    }

    #[cold]
    fn register(&mut self, cx: &Context<'_>) {
        self.place = Some(self.watchman.table().enter(cx.waker().clone()));
    }

    /// Waits for that phase, or for one beyond.
    pub(super) fn poll_reached(&mut self, cx: &Context<'_>, wanted: Phase) -> Poll<()> {
        if self.phase(cx) >= wanted { Poll::Ready(()) } else { Poll::Pending }
    }

    #[inline]
    pub(super) fn now(&self) -> Moment {
        self.watchman.now()
    }

    /// When the task is woken; it may have been already.
    #[inline]
    pub(super) fn deadline(&self) -> Moment {
        self.deadline
    }

    /// Has the task woken then, in the place of what was asked for before. It has asked for the phase already.
    pub(super) fn wake_at(&mut self, deadline: Moment) {
        let Some(place) = self.place else { return };
        self.deadline = deadline;
        let task = {
            let mut table = self.watchman.table();
            table.set(place, deadline);
            // A timer that fires too soon is set again then.
            if deadline < table.alarm { table.task.take() } else { None }
        };
        if let Some(task) = task {
            task.wake();
        }
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        if let Some(place) = self.place {
            self.watchman.table().leave(place);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::{Instant, sleep};

    use super::*;

    fn seconds(count: u64) -> Duration {
        Duration::from_secs(count)
    }

    /// Waits for that long, by the watchman's clock.
    async fn watch_for(watchman: &Arc<Watchman>, time: Duration) {
        let mut watch = watchman.watch();
        let deadline = watch.now().after(time);
        poll_fn(|cx| {
            watch.phase(cx);
            if watch.now() >= deadline {
                return Poll::Ready(());
            }
            watch.wake_at(deadline);
            Poll::Pending
        })
        .await;
    }

    #[tokio::test(start_paused = true)]
    async fn each_is_woken_at_its_own_moment_and_leaves_nothing_behind() {
        let watchman = Arc::new(Watchman::new(Era::begin()));
        let keeping = tokio::spawn(watchman.clone().keep());
        // In this order, so that one comes before all that are known, one between them, and some at the same moment.
        let waiting = [5, 2, 3, 3, 7].map(|time| {
            let watchman = watchman.clone();
            tokio::spawn(async move {
                let start = Instant::now();
                watch_for(&watchman, seconds(time)).await;
                assert_eq!(start.elapsed(), seconds(time));
            })
        });
        // One that does not wait to the end.
        tokio::select! {
            () = watch_for(&watchman, seconds(4)) => unreachable!(),
            () = sleep(seconds(1)) => {}
        }
        for waited in waiting {
            waited.await.unwrap();
        }
        {
            let table = watchman.table();
            assert!(table.deadlines.is_empty() && table.places.iter().all(|place| place.waker.is_none()));
            assert_eq!(table.free.len(), 6);
        }
        watchman.dismiss();
        keeping.await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn a_deadline_may_be_put_off_and_brought_forward() {
        let watchman = Arc::new(Watchman::new(Era::begin()));
        tokio::spawn(watchman.clone().keep());
        let start = Instant::now();
        let mut watch = watchman.watch();
        let mut asked = [9, 20, 3].map(|time| watchman.now().after(seconds(time))).into_iter();
        let mut woken = 0;
        poll_fn(|cx| {
            watch.phase(cx);
            for deadline in asked.by_ref() {
                watch.wake_at(deadline);
            }
            woken += 1;
            if woken > 1 { Poll::Ready(()) } else { Poll::Pending }
        })
        .await;
        assert_eq!(start.elapsed(), seconds(3));
        sleep(seconds(30)).await;
        assert!(watchman.table().deadlines.is_empty());
    }

    #[tokio::test]
    async fn deadlines_that_were_given_up_do_not_pile_up() {
        let watchman = Arc::new(Watchman::new(Era::begin()));
        let cx = Context::from_waker(Waker::noop());
        let mut lasting = watchman.watch();
        lasting.phase(&cx);
        lasting.wake_at(watchman.now().after(seconds(100)));
        for _ in 0..10_000 {
            let mut watch = watchman.watch();
            watch.phase(&cx);
            watch.wake_at(watch.now().after(seconds(60)));
        }
        assert!(watchman.table().deadlines.len() <= 2 + GIVEN_UP);
        drop(lasting);
        let mut table = watchman.table();
        assert_eq!((table.first(), table.awaited), (None, 0));
    }

    /// Otherwise the table is looked through for what was given up each time that a deadline is asked for, in vain.
    #[tokio::test]
    async fn a_deadline_that_is_asked_for_again_and_again_does_not_fill_the_table() {
        let watchman = Arc::new(Watchman::new(Era::begin()));
        let cx = Context::from_waker(Waker::noop());
        let [near, far] = [1, 100].map(|time| watchman.now().after(seconds(time)));
        let mut watches: Vec<_> = (0..100).map(|_| watchman.watch()).collect();
        let mut least = usize::MAX;
        for round in 0..8 {
            for watch in &mut watches {
                watch.phase(&cx);
                watch.wake_at(near);
                watch.wake_at(far);
                if round > 4 {
                    least = least.min(watchman.table().deadlines.len());
                }
            }
        }
        assert!(least <= watches.len() + 2, "{least} deadlines");
    }

    #[tokio::test]
    async fn whoever_watches_is_woken_at_each_step_of_a_shutdown_and_none_is_taken_back() {
        let watchman = Arc::new(Watchman::new(Era::begin()));
        let watching = tokio::spawn({
            let watchman = watchman.clone();
            async move {
                let mut watch = watchman.watch();
                poll_fn(|cx| watch.poll_reached(cx, Phase::Draining)).await;
                poll_fn(|cx| watch.poll_reached(cx, Phase::Cutting)).await;
            }
        });
        tokio::task::yield_now().await;
        watchman.advance(Phase::Draining);
        tokio::task::yield_now().await;
        assert!(!watching.is_finished());
        watchman.advance(Phase::Cutting);
        watchman.advance(Phase::Draining);
        watching.await.unwrap();
        assert_eq!(watchman.phase(), Phase::Cutting);
    }
}
