//! Who is told what becomes of plugins.

use std::sync::{Arc, PoisonError, RwLock};

use crate::event::{Event, Log, Observer};

/// The log, until a server that has one of its own takes its place: plugins are there before the server is.
#[derive(Clone)]
pub(super) struct Observed(Arc<RwLock<Arc<dyn Observer>>>);

impl Default for Observed {
    fn default() -> Self {
        Observed(Arc::new(RwLock::new(Arc::new(Log::default()))))
    }
}

impl Observed {
    pub(super) fn by(&self, observer: Arc<dyn Observer>) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = observer;
    }

    pub(super) fn tell(&self, event: &Event<'_>) {
        let observer = self.0.read().unwrap_or_else(PoisonError::into_inner).clone();
        observer.observe(event);
    }
}
