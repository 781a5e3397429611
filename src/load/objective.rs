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
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Metric {
    /// A latency in nanoseconds: which quantile of the shown ones.
    Latency(usize),
    Mean,
    Rate,
    Failures,
    Wrong,
    Missing,
}

const LATENCIES: [&str; 7] = ["p50", "p75", "p90", "p99", "p99.9", "p99.99", "max"];
const FORM: &str = "write a metric (p50, p75, p90, p99, p99.9, p99.99, max, mean, rate, failures, wrong, missing), < or >, \
                    and a time or a number, as in `p99 > 5ms`";

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
            latency => match LATENCIES.iter().position(|known| *known == latency) {
                Some(index) => Metric::Latency(index),
                None => return Err(format!("`{latency}` is no metric: {FORM}")),
            },
        };
        let bound = match metric {
            Metric::Latency(_) | Metric::Mean => {
                let period: Period = bound.parse().map_err(|error| format!("`{bound}`: {error}"))?;
                period.duration().as_secs_f64() * 1e9
            }
            _ => bound.parse().map_err(|_| format!("`{bound}` is no number"))?,
        };
        Ok(Objective { text: text.trim().to_owned(), metric, above: sign == '>', bound })
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
            Metric::Latency(index) => {
                let value = latency.percentiles()[index].1;
                (ratio(value, 1), time(value))
            }
            Metric::Mean => (latency.mean, time(whole(latency.mean))),
            Metric::Rate => (report.rate, format!("{:.0}", report.rate)),
            Metric::Failures => count(report.failures()),
            Metric::Wrong => count(report.counts.wrong),
            Metric::Missing => count(report.counts.missing),
        };
        let fails = if self.above { value > self.bound } else { value < self.bound };
        fails.then(|| format!("`{self}`: it was {shown}"))
    }
}

fn count(number: u64) -> (f64, String) {
    (ratio(number, 1), number.to_string())
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
    }

    #[test]
    #[expect(clippy::reversed_empty_ranges, reason = "no latencies at all")]
    fn where_nothing_was_answered_no_latency_is_good_enough() {
        assert_eq!(missed("p50 > 1s", 1..=0).unwrap(), "`p50 > 1s`: there were no replies");
    }

    #[test]
    fn what_is_no_objective_is_told_what_one_is() {
        for wrong in ["", "p99", "p98 > 1ms", "p99 > soon", "rate > fast"] {
            assert!(wrong.parse::<Objective>().is_err(), "{wrong}");
        }
    }
}
