//! Two results held against each other, with how much each of them varied from second to second.

use serde::Serialize;

use super::report::{Report, thousands, time};
use super::tally::Second;
use super::{ratio, whole};

/// With fewer full seconds than this nobody knows how much they vary.
const FEWEST_SECONDS: usize = 4;

/// One figure of two results.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Row {
    /// Its name.
    pub metric: &'static str,
    /// What the first has, for people.
    pub first: String,
    /// What the second has, for people.
    pub second: String,
    /// By what share of the first the second differs; none where the first has none of it.
    pub change: Option<f64>,
    /// How far apart the middle half of the seconds of either result lies, as a share of its median. None where it was
    /// not taken second by second, or too few of them.
    pub spread: Option<f64>,
    /// What to think of it.
    pub judgement: Judgement,
}

/// Whether a change means something.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Judgement {
    /// There is none.
    Same,
    /// It is less than the results varied by themselves.
    Chance,
    /// It is more, for the better.
    Better,
    /// It is more, for the worse.
    Worse,
    /// How much the figure varies by itself is not known.
    Unknown,
}

/// Compares two results, figure by figure.
pub fn compare(first: &Report, second: &Report) -> Vec<Row> {
    let row = |metric, value: fn(&Report) -> u64, shown: fn(u64) -> String, of: Option<fn(&Second) -> u64>| {
        let (a, b) = (value(first), value(second));
        let change = match (a, b) {
            (0, 0) => Some(0.0),
            (0, _) => None,
            _ => Some(ratio(b, a) - 1.0),
        };
        let spread = of.and_then(|of| Some(spread(&first.timeline, of)?.max(spread(&second.timeline, of)?)));
        let more_is_better = metric == "replies a second";
        let direction = if (b > a) == more_is_better { Judgement::Better } else { Judgement::Worse };
        let judgement = match (change, spread) {
            _ if a == b => Judgement::Same,
            // One failure more is one too many.
            _ if metric == "failures" => direction,
            (Some(change), Some(spread)) if change.abs() <= spread => Judgement::Chance,
            (_, Some(_)) => direction,
            (_, None) => Judgement::Unknown,
        };
        Row { metric, first: shown(a), second: shown(b), change, spread, judgement }
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

fn spread(timeline: &[Second], of: fn(&Second) -> u64) -> Option<f64> {
    let mut values: Vec<u64> = timeline.iter().filter(|second| second.is_whole()).map(of).collect();
    if values.len() < FEWEST_SECONDS {
        return None;
    }
    values.sort_unstable();
    let at = |quarters: usize| values[(values.len() - 1) * quarters / 4];
    Some(if at(2) == 0 { 0.0 } else { ratio(at(3) - at(1), at(2)) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::load::report::tests::report;

    fn with_seconds(latency: u64, answered: [u64; 5]) -> Report {
        let mut report = report([latency; 100]);
        let second = |answered| Second { seconds: 1.0, answered, failed: 0, p50: latency, p99: latency, max: latency };
        report.timeline = answered.map(second).to_vec();
        report
    }

    #[test]
    fn a_change_within_the_spread_may_be_chance() {
        let rows = compare(&with_seconds(100, [80, 90, 100, 110, 120]), &with_seconds(150, [80, 90, 100, 110, 120]));
        assert_eq!((rows[0].change, rows[0].spread, rows[0].judgement), (Some(0.0), Some(0.2), Judgement::Same));
        let median = &rows[1];
        assert!((median.change.unwrap() - 0.5).abs() < 0.01, "{median:?}");
        assert_eq!(median.judgement, Judgement::Worse);
        let mut slower = with_seconds(100, [80, 90, 100, 110, 120]);
        slower.rate *= 0.9;
        let rows = compare(&with_seconds(100, [80, 90, 100, 110, 120]), &slower);
        assert_eq!(rows[0].judgement, Judgement::Chance);
    }

    #[test]
    fn failures_where_there_were_none_are_always_a_change() {
        let mut worse = with_seconds(100, [1; 5]);
        worse.counts.wrong = 1;
        let rows = compare(&with_seconds(100, [1; 5]), &worse);
        let failures = rows.last().unwrap();
        assert_eq!((failures.change, failures.judgement), (None, Judgement::Worse));
    }

    #[test]
    fn of_a_few_seconds_nobody_knows_the_spread() {
        let mut short = with_seconds(100, [1; 5]);
        short.timeline.truncate(3);
        // The last, cut short, does not count either.
        short.timeline.push(Second { seconds: 0.2, ..short.timeline[0].clone() });
        let rows = compare(&short, &with_seconds(200, [1; 5]));
        assert_eq!((rows[1].spread, rows[1].judgement), (None, Judgement::Unknown));
    }
}
