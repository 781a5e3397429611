//! The two steps of a shutdown, as all sessions see them: drain, then cut.

use std::sync::atomic::{AtomicU8, Ordering};

use tokio::sync::Notify;

/// Where the shutdown stands. Asking costs one atomic load; waiting, one place in a list.
#[derive(Debug, Default)]
pub(super) struct Shutdown {
    phase: AtomicU8,
    changed: Notify,
}

const RUNNING: u8 = 0;
const DRAINING: u8 = 1;
const CUTTING: u8 = 2;

impl Shutdown {
    /// From now on no session begins, and idle ones end.
    pub(super) fn drain(&self) {
        self.advance(DRAINING);
    }

    /// From now on every session is cut.
    pub(super) fn cut(&self) {
        self.advance(CUTTING);
    }

    fn advance(&self, phase: u8) {
        self.phase.fetch_max(phase, Ordering::SeqCst);
        self.changed.notify_waiters();
    }

    pub(super) fn is_draining(&self) -> bool {
        self.phase.load(Ordering::SeqCst) > RUNNING
    }

    fn is_cutting(&self) -> bool {
        self.phase.load(Ordering::SeqCst) > DRAINING
    }

    pub(super) async fn draining(&self) {
        self.wait(Self::is_draining).await;
    }

    pub(super) async fn cutting(&self) {
        self.wait(Self::is_cutting).await;
    }

    async fn wait(&self, reached: impl Fn(&Self) -> bool) {
        loop {
            // Registered before the check, so that a change between the two is not missed.
            let changed = self.changed.notified();
            if reached(self) {
                return;
            }
            changed.await;
        }
    }
}
