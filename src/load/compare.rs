//! Two results held against each other, with how much each of them varied from second to second.

use serde::Serialize;

use super::report::{Report, thousands, time};
use super::tally::Second;
use super::{ratio, whole};

/// One figure of two results.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Row {
    /// Its name.
    pub metric: &'static str,
    /// What the first has, for people.
    pub first: String,
    /// What the second has, for people.
    pub second: String,
    /// By what share of the first the second differs.
    pub change: f64,
    /// How far apart the middle half of the seconds of either result lies, as a share of its median: what is less may be
    /// chance. None where it was not taken second by second.
    pub spread: Option<f64>,
}

impl Row {
    /// Whether the two differ by more than each of them did from second to second.
    pub fn is_beyond_chance(&self) -> bool {
        self.spread.is_none_or(|spread| self.change.abs() > spread)
    }
}

/// Compares two results, figure by figure.
pub fn compare(first: &Report, second: &Report) -> Vec<Row> {
    let row = |metric, value: fn(&Report) -> u64, shown: fn(u64) -> String, of: Option<fn(&Second) -> u64>| {
        let (a, b) = (value(first), value(second));
        Row {
            metric,
            first: shown(a),
            second: shown(b),
            change: if a == 0 { if b == 0 { 0.0 } else { f64::INFINITY } } else { ratio(b, a) - 1.0 },
            spread: of.map(|of| spread(&first.timeline, of).max(spread(&second.timeline, of))),
        }
    };
    vec![
        row("replies a second", |report| whole(report.rate), thousands, Some(|second| second.answered)),
        row("p50", |report| report.latency.p50, time, Some(|second| second.p50)),
        row("p90", |report| report.latency.p90, time, None),
        row("p99", |report| report.latency.p99, time, Some(|second| second.p99)),
        row("p99.9", |report| report.latency.p999, time, None),
        row("max", |report| report.latency.max, time, Some(|second| second.max)),
        row("failures", Report::failures, thousands, None),
    ]
}

fn spread(timeline: &[Second], of: fn(&Second) -> u64) -> f64 {
    let mut values: Vec<u64> = timeline.iter().map(of).collect();
    values.sort_unstable();
    let at = |quarters: usize| values.get(values.len().saturating_sub(1) * quarters / 4).copied().unwrap_or(0);
    if at(2) == 0 { 0.0 } else { ratio(at(3) - at(1), at(2)) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::load::report::tests::report;

    fn with_seconds(latency: u64, answered: [u64; 5]) -> Report {
        let mut report = report([latency; 100]);
        let second = |answered| Second { answered, failed: 0, p50: latency, p99: latency, max: latency };
        report.timeline = answered.map(second).to_vec();
        report
    }

    #[test]
    fn a_change_within_the_spread_may_be_chance() {
        let rows = compare(&with_seconds(100, [80, 90, 100, 110, 120]), &with_seconds(150, [80, 90, 100, 110, 120]));
        assert_eq!((rows[0].metric, rows[0].change, rows[0].spread), ("replies a second", 0.0, Some(0.2)));
        assert!(!rows[0].is_beyond_chance());
        let median = &rows[1];
        assert!((median.change - 0.5).abs() < 0.01 && median.is_beyond_chance(), "{median:?}");
    }

    #[test]
    fn failures_where_there_were_none_are_always_a_change() {
        let mut worse = with_seconds(100, [1; 5]);
        worse.counts.wrong = 1;
        let rows = compare(&with_seconds(100, [1; 5]), &worse);
        assert!(rows.last().unwrap().is_beyond_chance());
    }
}
