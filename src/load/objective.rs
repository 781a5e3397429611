//! What a load is to reach: `p99 > 5ms` names what would be a failure.

use std::fmt;
use std::str::FromStr;

use super::report::{Report, time};
use super::{ratio, whole};
use crate::options::Period;

/// A comparison that must not hold.
#[derive(Debug, Clone, PartialEq)]
pub struct Objective {
    text: String,
    metric: Metric,
    above: bool,
    bound: f64,
    /// Whether the bound is a percentage of what was asked.
    is_share: bool,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Metric {
    /// The latency in nanoseconds that such a share of all does not exceed.
    Latency(f64),
    Mean,
    Rate,
    Failures,
    Wrong,
    Missing,
}

const FORM: &str = "write a metric (p50, p99.9 or any percentile, max, mean, rate, failures, wrong, missing), < or >, and a \
                    time, a number or, of what was asked, a percentage, as in `p99 > 5ms` or `missing > 1%`";

impl FromStr for Objective {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (sign, (name, bound)) = ['<', '>']
            .into_iter()
            .find_map(|sign| Some((sign, text.split_once(sign)?)))
            .ok_or_else(|| FORM.to_owned())?;
        let (name, bound) = (name.trim(), bound.trim());
        let metric = match name {
            "mean" => Metric::Mean,
            "rate" => Metric::Rate,
            "failures" => Metric::Failures,
            "wrong" => Metric::Wrong,
            "missing" => Metric::Missing,
            "max" => Metric::Latency(1.0),
            latency => match percentile(latency) {
                Some(share) => Metric::Latency(share),
                None => return Err(format!("`{latency}` is no metric: {FORM}")),
            },
        };
        let share = bound.strip_suffix('%').map(str::trim_end);
        let bound = match metric {
            // As a time it would be seconds, which hardly any load takes: such an objective is met whatever happens.
            Metric::Latency(_) | Metric::Mean if number(bound).is_ok_and(|bound| bound != 0.0) => {
                return Err(format!("`{bound}` has no unit: write `{name} {sign} {bound}ms`, or what you mean"));
            }
            Metric::Latency(_) | Metric::Mean => {
                let period: Period = bound.parse().map_err(|error| format!("`{bound}`: {error}"))?;
                period.duration().as_secs_f64() * 1e9
            }
            Metric::Rate => number(bound)?,
            _ => number(share.unwrap_or(bound))?,
        };
        let is_share = share.is_some() && matches!(metric, Metric::Failures | Metric::Wrong | Metric::Missing);
        Ok(Objective { text: text.trim().to_owned(), metric, above: sign == '>', bound, is_share })
    }
}

impl Objective {
    /// What the report has there, in words, if that is a failure.
    pub fn missed(&self, report: &Report) -> Option<String> {
        let latency = &report.latency;
        let (value, shown) = match self.metric {
            // Without a single reply no latency is good enough.
            Metric::Latency(_) | Metric::Mean if latency.count == 0 => {
                return Some(format!("`{self}`: there were no replies"));
            }
            Metric::Latency(share) => {
                let value = report.latencies().value_at_quantile(share);
                (ratio(value, 1), time(value))
            }
            Metric::Mean => (latency.mean, time(whole(latency.mean))),
            Metric::Rate => (report.rate, format!("{:.0}", report.rate)),
            Metric::Failures => self.count(report.failures(), report),
            Metric::Wrong => self.count(report.counts.wrong, report),
            Metric::Missing => self.count(report.counts.missing + report.counts.unsent, report),
        };
        let fails = if self.above { value > self.bound } else { value < self.bound };
        fails.then(|| format!("`{self}`: it was {shown}"))
    }

    fn count(&self, number: u64, report: &Report) -> (f64, String) {
        if !self.is_share {
            return (ratio(number, 1), number.to_string());
        }
        // A connection that failed may fail again, so this may be more than a hundred.
        let share = 100.0 * ratio(number, (report.counts.sent + report.counts.unsent).max(1));
        (share, format!("{share:.3} %"))
    }
}

/// The share that `p99.9` means.
fn percentile(name: &str) -> Option<f64> {
    let digits = name.strip_prefix('p').filter(|digits| digits.starts_with(|digit: char| digit.is_ascii_digit()))?;
    digits.parse().ok().filter(|percent| (0.0..=100.0).contains(percent)).map(|percent: f64| percent / 100.0)
}

fn number(text: &str) -> Result<f64, String> {
    text.parse().ok().filter(|number: &f64| number.is_finite()).ok_or_else(|| format!("`{text}` is no number"))
}

impl fmt::Display for Objective {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::load::report::tests::report;

    fn missed(objective: &str, latencies: std::ops::RangeInclusive<u64>) -> Option<String> {
        objective.parse::<Objective>().unwrap().missed(&report(latencies))
    }

    #[test]
    fn an_objective_names_what_would_be_a_failure() {
        assert_eq!(missed("p99 > 5ms", 1..=1000), None);
        assert!(missed("p99 > 500us", 1..=1000).unwrap().starts_with("`p99 > 500us`: it was 9"));
        assert_eq!(missed("max<500us", 1000..=1000), None);
        assert!(missed("rate < 101", 1..=1000).is_some());
        assert_eq!(missed("failures > 0", 1..=10), None);
        assert_eq!(missed("missing > 0.1%", 1..=10), None);
        assert!(missed("p99.5 > 994us", 1..=1000).unwrap().starts_with("`p99.5 > 994us`: it was 99"));
    }

    #[test]
    #[expect(clippy::reversed_empty_ranges, reason = "no latencies at all")]
    fn where_nothing_was_answered_no_latency_is_good_enough() {
        assert_eq!(missed("p50 > 1s", 1..=0).unwrap(), "`p50 > 1s`: there were no replies");
    }

    #[test]
    fn a_share_is_of_what_was_asked() {
        let mut lossy = report(1..=200);
        lossy.counts.missing = 3;
        let missed = |objective: &str| objective.parse::<Objective>().unwrap().missed(&lossy);
        assert_eq!(missed("missing > 1%").unwrap(), "`missing > 1%`: it was 1.500 %");
        assert_eq!(missed("failures > 2 %"), None);
    }

    #[test]
    fn a_latency_without_a_unit_is_asked_for_it() {
        for (wrong, remedy) in [("p50 > 5", "`p50 > 5ms`"), ("mean<2.5", "`mean < 2.5ms`")] {
            let error = wrong.parse::<Objective>().unwrap_err();
            assert!(error.contains("no unit") && error.contains(remedy), "{error}");
        }
        assert!(missed("max > 0", 1..=1000).is_some());
    }

    proptest::proptest! {
        #[test]
        fn whatever_is_written_is_an_objective_or_an_error_and_can_be_held(text in "[a-z0-9.]{0,8} ?[<>]? ?[0-9.a-z%-]{0,8}") {
            if let Ok(objective) = text.parse::<Objective>() {
                proptest::prop_assert_eq!(objective.to_string(), text.trim());
                objective.missed(&report(1..=3));
            }
        }
    }

    #[test]
    fn what_is_no_objective_is_told_what_one_is() {
        for wrong in
            ["", "p99", "p101 > 1ms", "p > 1ms", "pinf > 1s", "p99 > soon", "rate > fast", "rate > 5%", "wrong > nan"]
        {
            assert!(wrong.parse::<Objective>().is_err(), "{wrong}");
        }
    }
}
