//! The two steps of a shutdown: drain, then cut.

use std::future::poll_fn;
use std::sync::Arc;

use super::watchman::{Phase, Watch, Watchman};

/// Where the shutdown stands, of which the watchmen of all runtimes are told: the server's own, then the workers'. When
/// it is dropped they are dismissed.
pub(super) struct Shutdown {
    watchmen: Vec<Arc<Watchman>>,
}

impl Shutdown {
    pub(super) fn new(own: Arc<Watchman>) -> Self {
        Shutdown { watchmen: vec![own] }
    }

    /// Adds that of another runtime.
    pub(super) fn add(&mut self, watchman: &Arc<Watchman>) {
        self.watchmen.push(watchman.clone());
    }

    fn own(&self) -> &Arc<Watchman> {
        &self.watchmen[0]
    }

    /// From now on no session begins, and idle ones end.
    pub(super) fn drain(&self) {
        self.advance(Phase::Draining);
    }

    /// From now on every session is cut.
    pub(super) fn cut(&self) {
        self.advance(Phase::Cutting);
    }

    fn advance(&self, phase: Phase) {
        self.watchmen.iter().for_each(|watchman| watchman.advance(phase));
    }

    pub(super) fn is_draining(&self) -> bool {
        self.own().phase() >= Phase::Draining
    }

    /// A watch for one task of the runtime that the server was started on.
    pub(super) fn watch(&self) -> Watch {
        self.own().watch()
    }

    pub(super) async fn draining(&self) {
        self.reached(Phase::Draining).await;
    }

    pub(super) async fn cutting(&self) {
        self.reached(Phase::Cutting).await;
    }

    async fn reached(&self, wanted: Phase) {
        let mut watch = self.watch();
        poll_fn(|cx| watch.poll_reached(cx, wanted)).await;
    }
}

impl Drop for Shutdown {
    fn drop(&mut self) {
        self.watchmen.iter().for_each(|watchman| watchman.dismiss());
    }
}
