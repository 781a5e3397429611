//! What a person sees of a load: how far it is, and its result.

use std::cell::Cell;
use std::fmt::Write as _;
use std::io::{self, IsTerminal as _};

use comfy_table::{CellAlignment, Table, presets};
use indicatif::{ProgressBar, ProgressStyle};

use crate::cli::output;
use crate::escape::Printable;
use crate::load::compare::{Judgement, Row};
use crate::load::report::{Latency, Report, thousands, time};
use crate::load::tally::Second;
use crate::load::{self, Load, Mode};

/// Steps of the bar.
const STEPS: u64 = 1000;
/// How wide the bars of the histogram are at most, and how many there are.
const BAR: u64 = 40;
const BARS: usize = 12;
const LIVE_BARS: usize = 8;

/// How far a load is: a bar, the percentiles and the histogram so far on a terminal, a line a second elsewhere; both on
/// stderr.
pub(super) struct Progress {
    bar: Option<ProgressBar>,
    measures: Cell<bool>,
    mode: Mode,
}

impl Progress {
    pub(super) fn new(load: &Load) -> Self {
        let bar = io::stderr().is_terminal().then(|| {
            let bar = ProgressBar::new(STEPS);
            let style = ProgressStyle::with_template("{bar:30} {percent:>3} %, {eta} left\n{msg}");
            bar.set_message(format!("{} connections, warming up for {:?}", load.connections, load.ramp + load.warm_up));
            match style {
                Ok(style) => bar.with_style(style),
                Err(_) => bar,
            }
        });
        Progress { bar, measures: Cell::new(false), mode: load.mode }
    }

    pub(super) fn show(&self, progress: &load::Progress<'_>) {
        let Some(elapsed) = progress.elapsed else { return };
        let seconds = elapsed.as_secs_f64();
        let failed = progress.tally.failures();
        let line = match (progress.seconds.last(), self.mode) {
            (_, Mode::Idle) => {
                format!("{seconds:>5.0} s  {} open  failed {}", thousands(progress.open), thousands(failed))
            }
            (Some(second), _) => brief(seconds, second, failed),
            (None, _) => String::new(),
        };
        match &self.bar {
            None if progress.is_new_second => output::tell(line),
            None => {}
            Some(bar) => {
                if !self.measures.replace(true) {
                    // What is left is told from here on, not from the warm-up.
                    bar.reset_eta();
                }
                bar.set_position(load::whole(progress.done * load::ratio(STEPS, 1)));
                bar.set_message(format!("{line}\n{}", live(progress)));
            }
        }
    }

    pub(super) fn end(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

fn brief(seconds: f64, second: &Second, failed: u64) -> String {
    format!(
        "{seconds:>5.0} s  {:>10}/s  p50 {:>9}  p99 {:>9}  max {:>9}  failed {}",
        thousands(load::whole(second.rate())),
        time(second.p50),
        time(second.p99),
        time(second.max),
        thousands(failed)
    )
}

/// All latencies so far.
fn live(progress: &load::Progress<'_>) -> String {
    let so_far = progress.tally.so_far();
    if so_far.is_empty() {
        return String::new();
    }
    let latency = Latency::of(&so_far);
    let mut text = String::new();
    for (index, (name, value)) in latency.percentiles().into_iter().enumerate() {
        // Writing to a text cannot fail.
        let _ = write!(text, "{}{name:>8} {:<9}", if index == 4 { "\n" } else { "" }, time(value));
    }
    let values = so_far.iter_recorded().map(|value| (value.value_iterated_to(), value.count_at_value()));
    format!("{}\n{}", text, histogram(&latency, values, LIVE_BARS))
}

/// The result in words.
pub(super) fn result(report: &Report) -> String {
    let counts = &report.counts;
    let mut text = format!(
        "{}: {} connections, {}{}\n\n",
        Printable::line(report.settings.endpoint.as_bytes()),
        report.settings.connections,
        report.settings.load,
        if report.complete { "" } else { "; stopped before its end" }
    );
    let talked = counts.sent + counts.unsent > 0;
    let unit = report.unit();
    let mut rows = table();
    let mut row = |name: &str, value: String| {
        rows.add_row([name.to_owned(), value]);
    };
    if talked {
        row(&format!("{unit} a second"), thousands(load::whole(report.rate)));
        row(&format!("right {unit}"), format!("{} in {:.2} s", thousands(counts.answered), report.seconds));
        row("wrong, missing", format!("{}, {}", thousands(counts.wrong), thousands(counts.missing)));
    }
    if counts.bytes_out + counts.bytes_in > 0 && report.seconds > 0.0 {
        row(
            "sent, received",
            format!("{}, {}", throughput(counts.bytes_out, report), throughput(counts.bytes_in, report)),
        );
    }
    let odd = [
        ("not sent in time", counts.unsent),
        ("late", counts.late),
        ("duplicates", counts.duplicates),
        ("reordered", counts.reordered),
        ("unasked", counts.unasked),
    ];
    odd.into_iter().filter(|(_, count)| *count > 0).for_each(|(name, count)| row(name, thousands(count)));
    if report.connecting.count > 0 {
        let connecting = &report.connecting;
        row(
            "connecting",
            format!("p50 {}, p99 {}, max {}", time(connecting.p50), time(connecting.p99), time(connecting.max)),
        );
    }
    if !talked {
        row("open at the end", format!("{} of {}", thousands(report.open_at_end), report.settings.connections));
    }
    for (word, count) in &report.errors {
        let reason = report.reasons.get(word).map(String::as_str).unwrap_or_default();
        row(&format!("failed: {word}"), format!("{} ({})", thousands(*count), Printable::line(reason.as_bytes())));
    }
    if report.lateness.p99 > 2_000_000 {
        row("asked late", format!("p99 {}: the load could not be sent when it was due", time(report.lateness.p99)));
    }
    let _ = writeln!(text, "{rows}");
    if report.latency.count > 0 {
        let mut percentiles = table();
        for (name, value) in report.latency.percentiles() {
            percentiles.add_row([name.to_owned(), time(value)]);
        }
        let mean = format!("{} ± {}", time(load::whole(report.latency.mean)), time(load::whole(report.latency.stdev)));
        percentiles.add_row(["mean".to_owned(), mean]);
        let bars = histogram(&report.latency, report.histogram.iter().copied(), BARS);
        let _ = write!(text, "\nlatency\n{percentiles}\n\n{bars}");
    }
    text
}

fn throughput(bytes: u64, report: &Report) -> String {
    format!("{:.2} MB/s", load::ratio(bytes, 1_000_000) / report.seconds)
}

/// Bars over the latencies from the shortest to the longest, each of which begins as many times later as the one before.
fn histogram(latency: &Latency, values: impl Iterator<Item = (u64, u64)>, bars: usize) -> String {
    let least = load::ratio(latency.min.max(1), 1);
    let span = (load::ratio(latency.max.max(2), 1) / least).ln().max(f64::EPSILON) / load::ratio(bars as u64, 1);
    let mut counts = vec![0_u64; bars];
    for (value, count) in values {
        let bar = load::whole(((load::ratio(value.max(1), 1) / least).ln() / span).floor());
        counts[(bar as usize).min(bars - 1)] += count;
    }
    let highest = counts.iter().copied().max().unwrap_or(0).max(1);
    let mut text = String::new();
    for (index, count) in counts.into_iter().enumerate() {
        let bar = "■".repeat((count * BAR).div_ceil(highest) as usize);
        let from = load::whole(least * (span * load::ratio(index as u64, 1)).exp());
        // Writing to a text cannot fail.
        let _ = writeln!(text, "  from {:>9}  {:>10}  {bar}", time(from), thousands(count));
    }
    text
}

/// Two results side by side.
pub(super) fn comparison(first: &Report, second: &Report, rows: &[Row]) -> String {
    let mut shown = table();
    shown.add_row(["", "first", "second", "change", "spread", ""]);
    for row in rows {
        shown.add_row([
            row.metric.to_owned(),
            row.first.clone(),
            row.second.clone(),
            row.change.map_or("from none".to_owned(), |change| format!("{:+.1} %", 100.0 * change)),
            row.spread.map_or(String::new(), |spread| format!("±{:.1} %", 100.0 * spread)),
            match row.judgement {
                Judgement::Same | Judgement::Unknown => "",
                Judgement::Chance => "may be chance",
                Judgement::Better => "better",
                Judgement::Worse => "worse",
            }
            .to_owned(),
        ]);
    }
    let mut text = String::new();
    for ((name, a), (_, b)) in first.settings.rows().into_iter().zip(second.settings.rows()).filter(|(a, b)| a != b) {
        let (a, b) = (Printable::line(a.as_bytes()), Printable::line(b.as_bytes()));
        let _ = writeln!(text, "{name} differs: {a} and {b}");
    }
    if rows.iter().all(|row| row.spread.is_none()) {
        text.push_str("too short to know the spread: compare runs of some seconds\n");
    }
    format!("{text}{shown}\n")
}

fn table() -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    for index in 1..5 {
        if let Some(column) = table.column_mut(index) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    table
}
