//! What is counted while a load runs, all together and second by second.

use std::collections::BTreeMap;
use std::time::Duration;

use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use crate::verdict::Verdict;

/// Latencies are kept in nanoseconds up to a minute, exact to three digits.
const LONGEST: Duration = Duration::from_secs(60);

/// An empty histogram of latencies.
pub(super) fn latencies() -> Histogram<u64> {
    let most = LONGEST.as_nanos() as u64;
    Histogram::new_with_bounds(1, most, 3).expect("these bounds are sound: one, a minute, three digits")
}

/// A latency as it is recorded; what lasts longer than a minute is a minute.
pub(super) fn nanoseconds(latency: Duration) -> u64 {
    u64::try_from(latency.min(LONGEST).as_nanos()).unwrap_or(u64::MAX).max(1)
}

/// How often each thing happened to requests that were due while it was measured.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counts {
    /// Requests that were sent.
    pub sent: u64,
    /// Right replies.
    pub answered: u64,
    /// Replies that were not what was expected.
    pub wrong: u64,
    /// Requests that were given up, or had no reply at the end.
    pub missing: u64,
    /// Replies that came after their request was given up.
    pub late: u64,
    /// Replies that came more than once.
    pub duplicates: u64,
    /// Replies to a request that came after the reply to a later one.
    pub reordered: u64,
    /// Replies to nothing that was asked.
    pub unasked: u64,
    /// Bytes in the messages sent.
    pub bytes_out: u64,
    /// Bytes in the right replies.
    pub bytes_in: u64,
}

/// One second of the run.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Second {
    /// Right replies.
    pub answered: u64,
    /// What failed: wrong and missing replies, connections that broke.
    pub failed: u64,
    /// Latencies in nanoseconds: the median, the 99th percentile, the longest.
    pub p50: u64,
    /// The 99th percentile.
    pub p99: u64,
    /// The longest.
    pub max: u64,
}

/// What one load has counted so far.
#[derive(Debug)]
pub struct Tally {
    pub(super) begin: Instant,
    pub(super) end: Instant,
    pub(super) counts: Counts,
    pub(super) latency: Histogram<u64>,
    /// How long connecting took, the layers' handshakes and the greeting included.
    pub(super) connecting: Histogram<u64>,
    /// How late requests were sent: where this is long, the load generator was the bottleneck.
    pub(super) lateness: Histogram<u64>,
    pub(super) errors: BTreeMap<&'static str, u64>,
    pub(super) seconds: Vec<Second>,
    current: Histogram<u64>,
    failed_now: u64,
}

impl Tally {
    /// Counts from `begin` to `end`.
    pub fn new(begin: Instant, end: Instant) -> Self {
        Tally {
            begin,
            end,
            counts: Counts::default(),
            latency: latencies(),
            connecting: latencies(),
            lateness: latencies(),
            errors: BTreeMap::new(),
            seconds: Vec::new(),
            current: latencies(),
            failed_now: 0,
        }
    }

    /// Whether what was due then counts.
    pub fn measures(&self, due: Instant) -> bool {
        (self.begin..self.end).contains(&due)
    }

    pub(super) fn sent(&mut self, due: Instant, now: Instant, bytes: usize) {
        if self.measures(due) {
            self.counts.sent += 1;
            self.counts.bytes_out += bytes as u64;
            // In a closed load everything is due when it is sent.
            if due < now {
                self.lateness.saturating_record(nanoseconds(now - due));
            }
        }
    }

    pub(super) fn answered(&mut self, due: Instant, now: Instant, bytes: usize) {
        if self.measures(due) {
            self.counts.answered += 1;
            self.counts.bytes_in += bytes as u64;
            self.current.saturating_record(nanoseconds(now - due));
        }
    }

    pub(super) fn wrong(&mut self, due: Instant) {
        if self.measures(due) {
            self.counts.wrong += 1;
            self.failed_now += 1;
        }
    }

    pub(super) fn missing(&mut self, due: Instant) {
        if self.measures(due) {
            self.counts.missing += 1;
            self.failed_now += 1;
        }
    }

    pub(super) fn failed(&mut self, verdict: Verdict) {
        *self.errors.entry(verdict.word()).or_default() += 1;
        self.failed_now += 1;
    }

    /// Nothing more will come: what has no reply has none.
    pub(super) fn finish(&mut self) {
        if !self.current.is_empty() || self.failed_now > 0 {
            self.turn();
        }
        let counts = &mut self.counts;
        counts.missing = counts.sent.saturating_sub(counts.answered + counts.wrong);
    }

    /// A second is over: what it brought joins the rest.
    pub(super) fn turn(&mut self) {
        // Both have the same bounds, so nothing can be out of them.
        let _ = self.latency.add(&self.current);
        let now = &self.current;
        self.seconds.push(Second {
            answered: now.len(),
            failed: self.failed_now,
            p50: now.value_at_quantile(0.5),
            p99: now.value_at_quantile(0.99),
            max: now.max(),
        });
        self.current.reset();
        self.failed_now = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn what_was_due_outside_of_the_measurement_does_not_count() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut tally = Tally::new(at(1), at(3));
        for second in 0..4 {
            tally.sent(at(second), at(second), 10);
            tally.answered(at(second), at(second + 1), 10);
        }
        assert_eq!((tally.counts.sent, tally.counts.answered, tally.counts.bytes_in), (2, 2, 20));
    }

    #[tokio::test(start_paused = true)]
    async fn a_latency_is_exact_to_three_digits_and_nothing_is_too_long_to_be_counted() {
        let start = Instant::now();
        let mut tally = Tally::new(start, start + Duration::from_secs(1));
        tally.answered(start, start + Duration::from_micros(123_456), 0);
        tally.turn();
        assert!(tally.latency.max().abs_diff(123_456_000) < 123_456);
        tally.answered(start, start + Duration::from_secs(3600), 0);
        tally.turn();
        assert_eq!((tally.latency.len(), tally.current.len()), (2, 0));
        assert_eq!((tally.seconds[0].answered, tally.seconds[1].answered), (1, 1));
    }
}
