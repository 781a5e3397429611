//! How often something failed lately, and whether that is too often.

use std::collections::VecDeque;
use std::time::Duration;

use tokio::time::Instant;

/// So many failures within a minute disable a plugin.
pub(super) const FAILURES: usize = 5;
const MINUTE: Duration = Duration::from_secs(60);

/// The failures of the last minute; once they were too many, that stays.
#[derive(Debug, Default)]
pub(super) struct Failures {
    at: VecDeque<Instant>,
    too_many: bool,
}

impl Failures {
    /// Notes one more. Whether it was the one too many.
    pub(super) fn add(&mut self) -> bool {
        let now = Instant::now();
        self.at.retain(|at| now - *at < MINUTE);
        self.at.push_back(now);
        let before = self.too_many;
        self.too_many |= self.at.len() >= FAILURES;
        self.too_many && !before
    }

    /// How many there were within the last minute, at the last one.
    pub(super) fn count(&self) -> usize {
        self.at.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn five_within_a_minute_are_too_many_and_stay_so() {
        let mut failures = Failures::default();
        for _ in 0..4 {
            assert!(!failures.add());
        }
        tokio::time::advance(MINUTE).await;
        for _ in 0..4 {
            assert!(!failures.add());
        }
        assert_eq!(failures.count(), 4);
        assert!(failures.add() && !failures.add());
        tokio::time::advance(MINUTE).await;
        assert!((0..5).all(|_| !failures.add()), "it is said once");
    }
}
