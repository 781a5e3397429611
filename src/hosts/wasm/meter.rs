//! How long a guest may run: in slices, so that it shares its thread, and no longer than its deadline.
//!
//! A call that is done within its first slice, as nearly all are, costs nothing here. One that takes longer lets others
//! have their turn after each slice, and no more of them go on at once than there are processors: however many sessions
//! of a plugin are at long work, they hold up whoever else there is on the thread by a slice or two each time. The
//! thread's processor time is what is measured, so a busy machine makes nobody late.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use wasmtime::UpdateDeadline;

use super::ticker::TICK;

/// A guest ran longer than it may.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("took longer than {0:?}")]
pub(super) struct TooLate(pub(super) Duration);

/// Who may go on after a first slice.
#[derive(Debug)]
pub(super) struct Turns {
    permits: Arc<Semaphore>,
}

impl Default for Turns {
    fn default() -> Self {
        let processors = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        Turns { permits: Arc::new(Semaphore::new(processors)) }
    }
}

impl Turns {
    /// Waits where there is long work enough: a call of such a plugin may be long as well.
    pub(super) async fn not_crowded(&self) {
        if self.permits.available_permits() == 0 {
            // Only to wait in line: it is given back at once.
            drop(self.permits.acquire().await);
        }
    }
}

/// What one call has used of its time.
#[derive(Debug)]
pub(super) struct Meter {
    limit: Duration,
    spent: Duration,
    turns: Arc<Turns>,
    /// Only for calls that are longer than a slice.
    long: Option<Arc<Long>>,
}

/// A call that goes on.
#[derive(Debug, Default)]
struct Long {
    /// The processor time of its thread when it went on, in nanoseconds.
    since: AtomicU64,
    turn: Mutex<Option<OwnedSemaphorePermit>>,
}

impl Meter {
    pub(super) fn new(turns: Arc<Turns>) -> Self {
        Meter { limit: Duration::MAX, spent: Duration::ZERO, turns, long: None }
    }

    /// A call begins that may take so long.
    pub(super) fn begin(&mut self, limit: Duration) {
        *self = Meter { limit, spent: Duration::ZERO, turns: self.turns.clone(), long: None };
    }

    /// The call is over: others may have its turn.
    pub(super) fn end(&mut self) {
        self.long = None;
    }

    /// A slice is over.
    pub(super) fn slice(&mut self) -> Result<UpdateDeadline, TooLate> {
        self.spent += match &self.long {
            // The first slice lasted from the call to the next tick.
            None => TICK,
            Some(long) => Duration::from_nanos(thread_time().saturating_sub(long.since.load(Ordering::Relaxed))),
        };
        if self.spent >= self.limit {
            return Err(TooLate(self.limit));
        }
        let long = self.long.get_or_insert_default().clone();
        let permits = self.turns.permits.clone();
        Ok(UpdateDeadline::YieldCustom(
            1,
            Box::pin(async move {
                if long.turn.lock().unwrap_or_else(PoisonError::into_inner).is_none() {
                    let turn = permits.acquire_owned().await.ok();
                    *long.turn.lock().unwrap_or_else(PoisonError::into_inner) = turn;
                }
                tokio::task::yield_now().await;
                long.since.store(thread_time(), Ordering::Relaxed);
            }),
        ))
    }
}

/// The processor time of this thread, in nanoseconds.
fn thread_time() -> u64 {
    let now = clock_gettime(ClockId::ThreadCPUTime);
    now.tv_sec.unsigned_abs() * 1_000_000_000 + now.tv_nsec.unsigned_abs()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_call_ends_when_its_thread_has_worked_for_it_so_long_and_not_while_it_waits() {
        let limit = Duration::from_millis(5);
        let mut meter = Meter::new(Arc::default());
        meter.begin(limit);
        let mut slices = 0;
        let late = loop {
            match meter.slice() {
                Ok(UpdateDeadline::YieldCustom(1, turn)) => turn.await,
                Ok(_) => unreachable!("a slice ends with a turn for others"),
                Err(late) => break late,
            }
            slices += 1;
            let resumed = thread_time();
            while thread_time() - resumed < 1_000_000 {}
        };
        assert_eq!(late, TooLate(limit));
        assert!((2..=4).contains(&slices), "the first slice counts as one: {slices}");
    }

    #[tokio::test(start_paused = true)]
    async fn no_more_calls_go_on_than_there_are_processors() {
        let turns = Arc::<Turns>::default();
        let mut long = Vec::new();
        while turns.permits.available_permits() > 0 {
            let mut meter = Meter::new(turns.clone());
            meter.begin(Duration::MAX);
            let Ok(UpdateDeadline::YieldCustom(_, turn)) = meter.slice() else { panic!("it goes on") };
            turn.await;
            long.push(meter);
        }
        assert!(tokio::time::timeout(Duration::from_secs(1), turns.not_crowded()).await.is_err());
        long[0].end();
        turns.not_crowded().await;
    }
}
