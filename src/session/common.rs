//! A session's wire in common hands: those of the session, of its driver, and of its pushers.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::turn;
use super::wire::Wire;
use crate::framing::Framing;

/// A wire in common hands.
#[derive(Clone)]
pub(crate) struct WireRef(Arc<Common>);

struct Common {
    /// What bytes are framed in, where the link carries bytes.
    framing: Option<Arc<dyn Framing>>,
    wire: Mutex<Wire>,
}

impl WireRef {
    pub(super) fn new(wire: Wire, framing: Option<Arc<dyn Framing>>) -> Self {
        WireRef(Arc::new(Common { framing, wire: Mutex::new(wire) }))
    }

    #[inline]
    pub(super) fn framing(&self) -> Option<&dyn Framing> {
        self.0.framing.as_deref()
    }

    /// Which one it is, among all there are at this time.
    #[inline]
    pub(super) fn id(&self) -> usize {
        Arc::as_ptr(&self.0).addr()
    }

    /// Whether nobody else holds it.
    pub(super) fn is_only(&self) -> bool {
        Arc::strong_count(&self.0) == 1
    }

    /// As [`lock`](Self::lock), for the session itself: with what it has sent in this turn.
    pub(crate) fn lock_settled(&self) -> MutexGuard<'_, Wire> {
        let mut wire = self.lock();
        turn::hand_over(self.id(), &mut wire);
        wire
    }

    /// Tells the wire what the session has done in this turn, where it has done anything.
    pub(crate) fn settle(&self) {
        if turn::has_news(self.id()) {
            drop(self.lock_settled());
        }
    }

    /// A panic while the lock was held concerns this session alone, which its driver ends: the state stays usable.
    #[inline]
    pub(crate) fn lock(&self) -> MutexGuard<'_, Wire> {
        self.0.wire.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
