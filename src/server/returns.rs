//! Tells those who wait that something has come back. Where nobody waits, as nearly always, that costs one look.

use std::pin::pin;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::Notify;

#[derive(Debug, Default)]
pub(super) struct Returns {
    waiting: AtomicUsize,
    told: Notify,
}

impl Returns {
    /// Something has come back.
    #[inline]
    pub(super) fn tell(&self) {
        // Whoever waits says so first, and then looks whether it is there already.
        if self.waiting.load(Ordering::SeqCst) > 0 {
            self.told.notify_waiters();
        }
    }

    /// Waits until it is there: it is looked at now, and each time that something has come back. Cancel-safe.
    pub(super) async fn until<T>(&self, mut there: impl FnMut() -> Option<T>) -> T {
        if let Some(there) = there() {
            return there;
        }
        let _waiting = Waiting::begin(&self.waiting);
        loop {
            let mut told = pin!(self.told.notified());
            told.as_mut().enable();
            if let Some(there) = there() {
                return there;
            }
            told.await;
        }
    }

    /// Waits for the next that comes back. Cancel-safe.
    pub(super) async fn next(&self) {
        let _waiting = Waiting::begin(&self.waiting);
        self.told.notified().await;
    }
}

struct Waiting<'a>(&'a AtomicUsize);

impl<'a> Waiting<'a> {
    fn begin(count: &'a AtomicUsize) -> Self {
        count.fetch_add(1, Ordering::SeqCst);
        Waiting(count)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}
