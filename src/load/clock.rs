//! The time of a load: nanoseconds since it was started, which cost little to keep and to subtract.

use std::time::Duration;

use tokio::time::Instant;

/// Nanoseconds since the load was started.
pub(super) type Moment = u64;

/// Tells the time of one load. On tokio's clock, so that a test can pause it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Clock(Instant);

impl Clock {
    /// It is 0 now.
    pub(super) fn start() -> Self {
        Clock(Instant::now())
    }

    #[inline]
    pub(super) fn now(&self) -> Moment {
        nanoseconds(self.0.elapsed())
    }

    /// That moment, for tokio's timers.
    pub(super) fn instant(&self, moment: Moment) -> Instant {
        self.0 + Duration::from_nanos(moment)
    }
}

/// As many as fit, which is five centuries.
pub(super) fn nanoseconds(duration: Duration) -> Moment {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

pub(super) fn seconds(nanoseconds: Moment) -> f64 {
    super::ratio(nanoseconds, 1_000_000_000)
}
