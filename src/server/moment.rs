//! Moments as one number each: a session holds several.

use std::time::Duration;

use tokio::time::Instant;

/// When the server began: what its moments are counted from.
#[derive(Debug, Clone, Copy)]
pub(super) struct Era(Instant);

/// A moment of an era, to the nanosecond. It lasts for 584 years.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Moment(u64);

impl Era {
    /// One that begins now.
    pub(super) fn begin() -> Self {
        Era(Instant::now())
    }

    #[inline]
    pub(super) fn now(self) -> Moment {
        Moment(nanoseconds(self.0.elapsed()))
    }

    pub(super) fn instant(self, moment: Moment) -> Instant {
        self.0 + Duration::from_nanos(moment.0)
    }
}

impl Moment {
    /// The era's first: it has always passed.
    pub(super) const PAST: Moment = Moment(0);
    /// One that does not come.
    pub(super) const NEVER: Moment = Moment(u64::MAX);

    #[must_use]
    pub(super) fn after(self, time: Duration) -> Moment {
        Moment(self.0.saturating_add(nanoseconds(time)))
    }

    pub(super) fn since(self, earlier: Moment) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }
}

#[inline]
fn nanoseconds(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_moment_is_the_instant_that_it_was_and_never_comes_after_all() {
        let era = Era::begin();
        let (start, second) = (Instant::now(), Duration::from_secs(1));
        tokio::time::advance(second).await;
        let now = era.now();
        assert_eq!(era.instant(now), start + second);
        assert_eq!(now.after(second).since(now), second);
        assert_eq!(now.since(now.after(second)), Duration::ZERO);
        assert!(Moment::PAST < now && now.after(Duration::MAX) == Moment::NEVER);
    }
}
