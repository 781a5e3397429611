//! Busy polling: a runtime that looks for the next message again and again, rather than to sleep until it is woken.
//!
//! To be woken costs more than to answer: the processor comes out of its idle state, the kernel's scheduler runs, the
//! caches are cold. Whoever counts microseconds and has a processor to spare may look again instead. It is bounded: a
//! runtime with nothing to do for as long as was asked sleeps as any other.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::task::{Poll, Waker};
use std::time::{Duration, Instant};

use tokio::task::yield_now;

thread_local! {
    /// How often a session was run on this thread.
    static RUNS: Cell<u64> = const { Cell::new(0) };
    /// The loop that sleeps until a session runs.
    static SLEEPER: RefCell<Option<Waker>> = const { RefCell::new(None) };
}

/// A session has something to do.
#[inline]
pub(super) fn note_run() {
    RUNS.set(RUNS.get().wrapping_add(1));
    if SLEEPER.with_borrow(Option::is_some) {
        wake_sleeper();
    }
}

#[cold]
fn wake_sleeper() {
    if let Some(sleeper) = SLEEPER.take() {
        sleeper.wake();
    }
}

/// Keeps the runtime of one thread that it is spawned on awake, for as long as `limit` after a session was last run there.
/// It never ends, and occupies a processor while it keeps awake.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")] async fn main() {
/// tokio::spawn(greetd::server::busy_poll(std::time::Duration::from_micros(200)));
/// # }
/// ```
pub async fn busy_poll(limit: Duration) {
    loop {
        stay_awake(limit).await;
        let seen = RUNS.get();
        poll_fn(|cx| {
            if RUNS.get() != seen {
                return Poll::Ready(());
            }
            SLEEPER.set(Some(cx.waker().clone()));
            Poll::Pending
        })
        .await;
    }
}

/// Until no session was run for that long. Each turn lets the reactor look, without a wait.
async fn stay_awake(limit: Duration) {
    let mut seen = RUNS.get();
    // The clock of the machine: this is about its processor, and no test may stop it.
    let mut since = Instant::now();
    while since.elapsed() < limit {
        yield_now().await;
        let runs = RUNS.get();
        if runs != seen {
            seen = runs;
            since = Instant::now();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn it_sleeps_when_nothing_has_run_for_as_long_as_was_asked_and_wakes_with_the_next_session() {
        let polling = tokio::spawn(busy_poll(Duration::from_micros(100)));
        for _ in 0..3 {
            // It yields while it is awake: once it sleeps it has left its waker.
            while SLEEPER.with_borrow(Option::is_none) {
                yield_now().await;
            }
            note_run();
            assert!(SLEEPER.with_borrow(Option::is_none), "it is woken");
        }
        assert!(!polling.is_finished());
    }
}
