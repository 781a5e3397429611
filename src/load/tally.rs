//! What is counted while a load runs, all together and second by second.

use std::collections::BTreeMap;

use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};

use super::clock::{Moment, seconds};
use super::ratio;
use crate::verdict::Verdict;

/// Latencies are kept in nanoseconds up to a minute, exact to three digits.
const LONGEST: u64 = 60_000_000_000;

/// An empty histogram of latencies.
pub(super) fn latencies() -> Histogram<u64> {
    Histogram::new_with_bounds(1, LONGEST, 3).expect("these bounds are sound: one, a minute, three digits")
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
    /// Requests that were due and could not be sent in time: the load was open, and there was no connection, no room in
    /// it, or no time left.
    #[serde(default)]
    pub unsent: u64,
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
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Second {
    /// How long it was, in seconds: the last may be shorter.
    #[serde(default = "whole_second")]
    pub seconds: f64,
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

impl Second {
    /// Right replies a second.
    pub fn rate(&self) -> f64 {
        if self.seconds > 0.0 { ratio(self.answered, 1) / self.seconds } else { 0.0 }
    }

    /// Whether it lasted for all of a second.
    pub fn is_whole(&self) -> bool {
        self.seconds >= 1.0
    }
}

fn whole_second() -> f64 {
    1.0
}

/// What one load has counted so far.
#[derive(Debug)]
pub struct Tally {
    pub(super) begin: Moment,
    pub(super) end: Moment,
    pub(super) counts: Counts,
    pub(super) latency: Histogram<u64>,
    /// How long connecting took, the layers' handshakes and the greeting included.
    pub(super) connecting: Histogram<u64>,
    /// How late requests were sent: where this is long, the load generator was the bottleneck.
    pub(super) lateness: Histogram<u64>,
    pub(super) errors: BTreeMap<&'static str, Failed>,
    pub(super) seconds: Vec<Second>,
    current: Histogram<u64>,
    failed_now: u64,
    turned: Moment,
}

/// What failed with one verdict.
#[derive(Debug, Default)]
pub(super) struct Failed {
    pub(super) count: u64,
    /// The first of them, in words.
    pub(super) first: String,
}

impl Tally {
    /// Counts what is due from `begin` to `end`.
    pub fn new(begin: Moment, end: Moment) -> Self {
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
            turned: begin,
        }
    }

    /// Whether what was due then counts.
    #[inline]
    pub fn measures(&self, due: Moment) -> bool {
        due >= self.begin && due < self.end
    }

    /// So many requests that were due then were sent now.
    #[inline]
    pub(super) fn sent(&mut self, due: Moment, now: Moment, count: u64, bytes: u64) {
        if self.measures(due) {
            self.counts.sent += count;
            self.counts.bytes_out += bytes;
            // In a closed load everything is due when it is sent.
            if due < now {
                self.lateness.saturating_record_n(now - due, count);
            }
        }
    }

    /// Right replies to so many requests that were due then came now.
    #[inline]
    pub(super) fn answered(&mut self, due: Moment, now: Moment, count: u64, bytes: u64) {
        if self.measures(due) {
            self.counts.answered += count;
            self.counts.bytes_in += bytes;
            self.current.saturating_record_n(now.saturating_sub(due).max(1), count);
        }
    }

    pub(super) fn wrong(&mut self, due: Moment) {
        if self.measures(due) {
            self.counts.wrong += 1;
            self.failed_now += 1;
        }
    }

    pub(super) fn missing(&mut self, due: Moment, count: u64) {
        if self.measures(due) {
            self.counts.missing += count;
            self.failed_now += count;
        }
    }

    pub(super) fn failed(&mut self, verdict: Verdict, what: impl FnOnce() -> String) {
        let failed = self.errors.entry(verdict.word()).or_default();
        if failed.count == 0 {
            failed.first = what();
        }
        failed.count += 1;
        self.failed_now += 1;
    }

    /// Nothing more will come: what has no reply has none.
    pub(super) fn finish(&mut self, now: Moment) {
        if !self.current.is_empty() || self.failed_now > 0 {
            self.turn(now.min(self.end));
        }
        let counts = &mut self.counts;
        counts.missing = counts.sent.saturating_sub(counts.answered + counts.wrong);
    }

    /// A second is over: what it brought joins the rest.
    pub(super) fn turn(&mut self, now: Moment) {
        // Both have the same bounds, so nothing can be out of them.
        let _ = self.latency.add(&self.current);
        let recent = &self.current;
        let (answered, failed, seconds) = (recent.len(), self.failed_now, seconds(now.saturating_sub(self.turned)));
        match self.seconds.last_mut() {
            // What came after the end belongs to the last second.
            Some(last) if seconds <= 0.0 => {
                last.answered += answered;
                last.failed += failed;
                last.max = last.max.max(recent.max());
            }
            _ => self.seconds.push(Second {
                seconds,
                answered,
                failed,
                p50: recent.value_at_quantile(0.5),
                p99: recent.value_at_quantile(0.99),
                max: recent.max(),
            }),
        }
        self.turned = self.turned.max(now);
        self.current.reset();
        self.failed_now = 0;
    }

    /// How many connections failed, whatever the verdict.
    pub fn failed_in_all(&self) -> u64 {
        self.errors.values().map(|failed| failed.count).sum()
    }

    /// What failed so far.
    pub fn failures(&self) -> u64 {
        self.counts.wrong + self.counts.missing + self.failed_in_all()
    }

    /// All latencies so far, those of the second that is not over yet among them.
    pub fn so_far(&self) -> Histogram<u64> {
        let mut all = self.latency.clone();
        // As above.
        let _ = all.add(&self.current);
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Moment = 1_000_000_000;

    #[test]
    fn what_was_due_outside_of_the_measurement_does_not_count() {
        let mut tally = Tally::new(SECOND, 3 * SECOND);
        for second in 0..4 {
            tally.sent(second * SECOND, second * SECOND, 1, 10);
            tally.answered(second * SECOND, (second + 1) * SECOND, 1, 10);
        }
        assert_eq!((tally.counts.sent, tally.counts.answered, tally.counts.bytes_in), (2, 2, 20));
    }

    #[test]
    fn a_latency_is_exact_to_three_digits_and_nothing_is_too_long_to_be_counted() {
        let mut tally = Tally::new(0, SECOND);
        tally.answered(0, 123_456_000, 1, 0);
        tally.turn(SECOND);
        assert!(tally.latency.max().abs_diff(123_456_000) < 123_456);
        tally.answered(0, 3600 * SECOND, 2, 0);
        tally.turn(2 * SECOND);
        assert_eq!((tally.latency.len(), tally.current.len()), (3, 0));
        assert_eq!((tally.seconds[0].answered, tally.seconds[1].answered), (1, 2));
    }

    #[test]
    fn the_last_second_may_be_a_short_one_and_takes_what_came_after_the_end() {
        let mut tally = Tally::new(0, SECOND + SECOND / 2);
        tally.answered(0, 1, 5, 0);
        tally.turn(SECOND);
        tally.answered(SECOND, SECOND + 1, 5, 0);
        tally.turn(SECOND + SECOND / 2);
        tally.answered(SECOND, 2 * SECOND, 1, 0);
        tally.finish(2 * SECOND);
        let seconds: Vec<_> = tally.seconds.iter().map(|second| (second.is_whole(), second.answered)).collect();
        assert_eq!(seconds, [(true, 5), (false, 6)]);
        assert!((tally.seconds[1].rate() - 12.0).abs() < 1e-9);
    }

    #[test]
    fn failures_are_counted_by_verdict_and_the_first_is_told_in_words() {
        let mut tally = Tally::new(0, SECOND);
        tally.failed(Verdict::Refused, || "the first".to_owned());
        tally.failed(Verdict::Refused, || "the second".to_owned());
        let failed = &tally.errors["refused"];
        assert_eq!((failed.count, failed.first.as_str()), (2, "the first"));
    }
}
