//! What a load met, as it is printed, kept and compared.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::Duration;

use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};

use super::tally::{Counts, Second, Tally, latencies};
use super::{Length, Load, Mode, ratio};
use crate::options::Period;
use crate::service::Dialler;

/// What stands for the message where none is sent.
const NO_MESSAGE: &str = "none";

/// The result of one load. Latencies are in nanoseconds.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Report {
    /// What was asked for.
    pub settings: Settings,
    /// How long it was measured, in seconds.
    pub seconds: f64,
    /// Right replies a second.
    pub rate: f64,
    /// How often each thing happened.
    pub counts: Counts,
    /// From when a request was due to its reply.
    pub latency: Latency,
    /// From the call to the greeting, the layers' handshakes included.
    pub connecting: Latency,
    /// How late requests were sent: how much the load itself was behind.
    pub lateness: Latency,
    /// How many connections were open at the end.
    pub open_at_end: u64,
    /// Whether it ran to its end, rather than being stopped before.
    #[serde(default)]
    pub complete: bool,
    /// Connections that failed, by verdict.
    pub errors: BTreeMap<String, u64>,
    /// For each verdict the first failure in words.
    #[serde(default)]
    pub reasons: BTreeMap<String, String>,
    /// Second by second.
    pub timeline: Vec<Second>,
    /// All latencies: each value, and how often it was met.
    pub histogram: Vec<(u64, u64)>,
}

/// What was asked for, in words.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Settings {
    /// Where.
    pub endpoint: String,
    /// How: closed, open, connect, idle.
    pub load: String,
    /// How many connections.
    pub connections: usize,
    /// For how long, or how many.
    pub length: String,
    /// How long it ran before it was measured.
    #[serde(default)]
    pub warm_up: String,
    /// Over what time connections were opened.
    #[serde(default)]
    pub ramp: String,
    /// How long a reply might take.
    #[serde(default)]
    pub timeout: String,
    /// What was sent.
    pub message: String,
    /// What was expected.
    pub expectation: String,
    /// The version of greetd that asked.
    pub version: String,
}

impl Settings {
    pub(super) fn of(dialler: &Dialler, load: &Load) -> Self {
        Settings {
            endpoint: dialler.endpoint().to_string(),
            load: match load.mode {
                Mode::Closed { depth } => format!("closed, {depth} in flight on each connection"),
                Mode::Open { rate, .. } => format!("open, {rate} requests a second"),
                Mode::Connect { rate: None, .. } => "connect, hear the greeting, close".to_owned(),
                Mode::Connect { rate: Some(rate), .. } => {
                    format!("{rate} times a second connect, hear the greeting, close")
                }
                Mode::Idle => "connect and hold".to_owned(),
            },
            connections: load.connections,
            length: match load.length {
                Length::Count(count) if talks(load.mode) => format!("{} requests", thousands(count)),
                Length::Count(count) => format!("{} connections", thousands(count)),
                Length::Time(time) => Period(time).to_string(),
            },
            warm_up: Period(load.warm_up).to_string(),
            ramp: Period(load.ramp).to_string(),
            timeout: Period(load.patience).to_string(),
            message: if talks(load.mode) { load.source.to_string() } else { NO_MESSAGE.to_owned() },
            expectation: if talks(load.mode) { load.expectation.to_string() } else { "a greeting, or none".to_owned() },
            version: env!("CARGO_PKG_VERSION").to_owned(),
        }
    }

    /// As rows of a table.
    pub fn rows(&self) -> [(&'static str, String); 10] {
        [
            ("endpoint", self.endpoint.clone()),
            ("load", self.load.clone()),
            ("connections", self.connections.to_string()),
            ("length", self.length.clone()),
            ("warm-up", self.warm_up.clone()),
            ("ramp", self.ramp.clone()),
            ("timeout", self.timeout.clone()),
            ("message", self.message.clone()),
            ("expectation", self.expectation.clone()),
            ("greetd", self.version.clone()),
        ]
    }
}

/// How some latencies are distributed, in nanoseconds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "the names say it")]
pub struct Latency {
    pub count: u64,
    pub min: u64,
    pub mean: f64,
    pub stdev: f64,
    pub p50: u64,
    pub p75: u64,
    pub p90: u64,
    #[serde(default)]
    pub p95: u64,
    pub p99: u64,
    pub p999: u64,
    pub p9999: u64,
    pub max: u64,
}

impl Latency {
    /// Of those.
    pub fn of(histogram: &Histogram<u64>) -> Self {
        if histogram.is_empty() {
            return Latency::default();
        }
        let at = |share| histogram.value_at_quantile(share);
        Latency {
            count: histogram.len(),
            min: histogram.min(),
            mean: histogram.mean(),
            stdev: histogram.stdev(),
            p50: at(0.5),
            p75: at(0.75),
            p90: at(0.9),
            p95: at(0.95),
            p99: at(0.99),
            p999: at(0.999),
            p9999: at(0.9999),
            max: histogram.max(),
        }
    }

    /// The percentiles that are shown, with their names.
    pub fn percentiles(&self) -> [(&'static str, u64); 8] {
        [
            ("p50", self.p50),
            ("p75", self.p75),
            ("p90", self.p90),
            ("p95", self.p95),
            ("p99", self.p99),
            ("p99.9", self.p999),
            ("p99.99", self.p9999),
            ("max", self.max),
        ]
    }
}

impl Report {
    pub(super) fn of(settings: Settings, tally: &Tally, measured: Duration, open_at_end: u64, complete: bool) -> Self {
        let seconds = measured.as_secs_f64();
        let rate = if seconds > 0.0 { ratio(tally.counts.answered, 1) / seconds } else { 0.0 };
        let values = tally.latency.iter_recorded();
        Report {
            settings,
            seconds,
            rate,
            counts: tally.counts,
            latency: Latency::of(&tally.latency),
            connecting: Latency::of(&tally.connecting),
            lateness: Latency::of(&tally.lateness),
            open_at_end,
            complete,
            errors: tally.errors.iter().map(|(word, failed)| ((*word).to_owned(), failed.count)).collect(),
            reasons: tally.errors.iter().map(|(word, failed)| ((*word).to_owned(), failed.first.clone())).collect(),
            timeline: tally.seconds.clone(),
            histogram: values.map(|value| (value.value_iterated_to(), value.count_at_value())).collect(),
        }
    }

    /// How much failed: wrong and missing replies, requests that could not be sent, and connections that failed.
    pub fn failures(&self) -> u64 {
        self.counts.wrong + self.counts.missing + self.counts.unsent + self.errors.values().sum::<u64>()
    }

    /// What was counted: replies, or connections where nothing was asked.
    pub fn unit(&self) -> &'static str {
        if self.settings.message == NO_MESSAGE { "connections" } else { "replies" }
    }

    /// All latencies again.
    pub fn latencies(&self) -> Histogram<u64> {
        let mut histogram = latencies();
        for (value, count) in &self.histogram {
            // No value is beyond what the histogram takes: they come from its like.
            histogram.saturating_record_n(*value, *count);
        }
        histogram
    }

    /// In the text format of HdrHistogram's own plotter, with values in milliseconds.
    pub fn hgrm(&self) -> String {
        let histogram = self.latencies();
        let mut text =
            format!("{:>12} {:>14} {:>10} {:>14}\n\n", "Value", "Percentile", "TotalCount", "1/(1-Percentile)");
        let mut seen = 0;
        for step in histogram.iter_quantiles(5) {
            seen += step.count_since_last_iteration();
            let (value, share) = (ratio(step.value_iterated_to(), 1_000_000), step.quantile());
            // Writing to a text cannot fail.
            let _ = write!(text, "{value:>12.6} {share:>14.12} {seen:>10}");
            let _ = if share < 1.0 { writeln!(text, " {:>14.2}", 1.0 / (1.0 - share)) } else { writeln!(text) };
        }
        let (mean, stdev) = (histogram.mean() / 1e6, histogram.stdev() / 1e6);
        let (max, count) = (ratio(histogram.max(), 1_000_000), histogram.len());
        let _ = writeln!(text, "#[Mean    = {mean:>12.6}, StdDeviation   = {stdev:>12.6}]");
        let _ = writeln!(text, "#[Max     = {max:>12.6}, Total count    = {count:>12}]");
        text
    }

    /// One page that needs nothing else: the figures, the histogram, the timeline, the settings.
    pub fn html(&self) -> String {
        super::html::page(self)
    }
}

fn talks(mode: Mode) -> bool {
    matches!(mode, Mode::Closed { .. } | Mode::Open { .. })
}

/// Nanoseconds in the unit that suits them.
pub fn time(ns: u64) -> String {
    match ns {
        0..1_000 => format!("{ns} ns"),
        1_000..1_000_000 => format!("{:.1} µs", ratio(ns, 1_000)),
        1_000_000..1_000_000_000 => format!("{:.2} ms", ratio(ns, 1_000_000)),
        _ => format!("{:.2} s", ratio(ns, 1_000_000_000)),
    }
}

/// A number in groups of three digits.
pub fn thousands(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// Of latencies in microseconds, over ten seconds.
    pub(in crate::load) fn report(latencies: impl IntoIterator<Item = u64>) -> Report {
        let mut tally = Tally::new(0, 10_000_000_000);
        for latency in latencies {
            tally.sent(0, 0, 1, 16);
            tally.answered(0, latency * 1_000, 1, 22);
        }
        tally.finish(10_000_000_000);
        let settings = Settings {
            endpoint: "tcp://127.0.0.1:1?framing=<lines>".into(),
            load: "closed".into(),
            connections: 1,
            length: "10s".into(),
            warm_up: "0s".into(),
            ramp: "0s".into(),
            timeout: "2s".into(),
            message: "x".into(),
            expectation: "x".into(),
            version: "0".into(),
        };
        Report::of(settings, &tally, Duration::from_secs(10), 1, true)
    }

    #[test]
    fn a_report_is_the_same_after_it_was_kept_as_json() {
        let report = report(1..=1000);
        let again: Report = serde_json::from_str(&serde_json::to_string(&report).unwrap()).unwrap();
        assert_eq!(again.latency, report.latency);
        assert_eq!(Latency::of(&again.latencies()).p99, report.latency.p99);
        assert!(report.latency.p50.abs_diff(500_000) <= 1_000, "{:?}", report.latency);
        assert!((report.rate - 100.0).abs() < 1e-9);
    }

    #[test]
    fn the_percentile_file_ends_with_all_of_them() {
        let hgrm = report([1_000, 2_000, 3_000]).hgrm();
        let last = hgrm.lines().rfind(|line| !line.starts_with('#')).unwrap();
        let columns: Vec<&str> = last.split_whitespace().collect();
        assert_eq!(columns[1..], ["1.000000000000", "3"]);
        assert!(hgrm.contains("Total count    =            3"), "{hgrm}");
    }

    #[test]
    fn times_have_units_and_numbers_are_grouped() {
        assert_eq!(
            [time(999), time(1_500), time(2_500_000), time(3_000_000_000)],
            ["999 ns", "1.5 µs", "2.50 ms", "3.00 s"]
        );
        assert_eq!([thousands(7), thousands(1_234_567)], ["7", "1,234,567"]);
    }
}
