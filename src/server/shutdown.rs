//! The two steps of a shutdown, as all sessions see them: drain, then cut.

use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Mutex, PoisonError};
use std::task::{Context, Poll, Waker};

/// Where the shutdown stands. Asking costs one atomic load; watching, one place in a table.
#[derive(Debug, Default)]
pub(super) struct Shutdown {
    phase: AtomicU8,
    watching: Mutex<Places>,
}

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

impl Shutdown {
    /// From now on no session begins, and idle ones end.
    pub(super) fn drain(&self) {
        self.advance(Phase::Draining);
    }

    /// From now on every session is cut.
    pub(super) fn cut(&self) {
        self.advance(Phase::Cutting);
    }

    fn advance(&self, phase: Phase) {
        self.phase.fetch_max(phase as u8, Ordering::SeqCst);
        let wakers = self.places().wakers();
        wakers.into_iter().for_each(Waker::wake);
    }

    pub(super) fn phase(&self) -> Phase {
        match self.phase.load(Ordering::SeqCst) {
            0 => Phase::Running,
            1 => Phase::Draining,
            _ => Phase::Cutting,
        }
    }

    pub(super) fn is_draining(&self) -> bool {
        self.phase() >= Phase::Draining
    }

    /// A watch for one task.
    pub(super) fn watch(&self) -> Watch<'_> {
        Watch { shutdown: self, place: None }
    }

    pub(super) async fn draining(&self) {
        self.reached(Phase::Draining).await;
    }

    pub(super) async fn cutting(&self) {
        self.reached(Phase::Cutting).await;
    }

    async fn reached(&self, wanted: Phase) {
        let mut watch = self.watch();
        std::future::poll_fn(|cx| watch.poll_reached(cx, wanted)).await;
    }

    fn places(&self) -> std::sync::MutexGuard<'_, Places> {
        self.watching.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Wakes one task whenever the phase changes. It stays in the task that asks it first.
#[derive(Debug)]
pub(super) struct Watch<'a> {
    shutdown: &'a Shutdown,
    place: Option<u32>,
}

impl Watch<'_> {
    /// The phase now; when it changes, the task is woken.
    pub(super) fn phase(&mut self, cx: &mut Context<'_>) -> Phase {
        if self.place.is_none() {
            // Registered before the look, so that a change between the two is not missed.
            self.place = Some(self.shutdown.places().enter(cx.waker().clone()));
        }
        self.shutdown.phase()
    }

    /// Waits for that phase, or for one beyond.
    pub(super) fn poll_reached(&mut self, cx: &mut Context<'_>, wanted: Phase) -> Poll<()> {
        if self.phase(cx) >= wanted { Poll::Ready(()) } else { Poll::Pending }
    }
}

impl Drop for Watch<'_> {
    fn drop(&mut self) {
        if let Some(place) = self.place {
            self.shutdown.places().leave(place);
        }
    }
}

/// Who watches: a table whose places are used again.
#[derive(Debug, Default)]
struct Places {
    wakers: Vec<Option<Waker>>,
    free: Vec<u32>,
}

impl Places {
    fn enter(&mut self, waker: Waker) -> u32 {
        let Some(place) = self.free.pop() else {
            let place = u32::try_from(self.wakers.len()).expect("a machine holds fewer tasks than that");
            self.wakers.push(Some(waker));
            return place;
        };
        self.wakers[place as usize] = Some(waker);
        place
    }

    fn leave(&mut self, place: u32) {
        self.wakers[place as usize] = None;
        self.free.push(place);
    }

    fn wakers(&self) -> Vec<Waker> {
        self.wakers.iter().flatten().cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::FutureExt;

    #[test]
    fn a_place_is_used_again_and_a_phase_is_never_taken_back() {
        let shutdown = Shutdown::default();
        for _ in 0..3 {
            assert!(shutdown.draining().now_or_never().is_none());
        }
        assert_eq!(shutdown.places().wakers.len(), 1);
        shutdown.cut();
        shutdown.drain();
        assert_eq!(shutdown.phase(), Phase::Cutting);
        assert!(shutdown.draining().now_or_never().is_some());
    }

    #[tokio::test]
    async fn whoever_watches_is_woken_at_each_step() {
        let shutdown = std::sync::Arc::new(Shutdown::default());
        let watching = tokio::spawn({
            let shutdown = shutdown.clone();
            async move {
                shutdown.draining().await;
                shutdown.cutting().await;
            }
        });
        tokio::task::yield_now().await;
        shutdown.drain();
        tokio::task::yield_now().await;
        assert!(!watching.is_finished());
        shutdown.cut();
        watching.await.unwrap();
    }
}
