//! What a person sees of a load: how far it is, and its result.

use std::cell::Cell;
use std::fmt::Write as _;
use std::io::{self, IsTerminal as _};

use comfy_table::{CellAlignment, Table, presets};
use indicatif::{ProgressBar, ProgressStyle};

use crate::cli::output;
use crate::load::compare::Row;
use crate::load::report::{Report, thousands, time};
use crate::load::{self, Load};

/// Steps of the bar.
const STEPS: u64 = 1000;
/// How wide the bars of the histogram are at most, and how many there are.
const BAR: u64 = 40;
const BARS: usize = 12;

/// How far a load is: a bar on a terminal, a line a second elsewhere, both on stderr.
pub(super) struct Progress {
    bar: Option<ProgressBar>,
    warned: Cell<bool>,
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
        Progress { bar, warned: Cell::new(false) }
    }

    pub(super) fn show(&self, progress: load::Progress<'_>) {
        let Some(elapsed) = progress.elapsed else { return };
        let line = progress.last.map_or(String::new(), |second| {
            format!(
                "{:>5.0} s  {:>10}/s  p50 {:>9}  p99 {:>9}  max {:>9}  failed {}",
                elapsed.as_secs_f64(),
                thousands(second.answered),
                time(second.p50),
                time(second.p99),
                time(second.max),
                thousands(progress.failed)
            )
        });
        match &self.bar {
            None => output::tell(line),
            Some(bar) => {
                if !self.warned.replace(true) {
                    // What is left is told from here on, not from the warm-up.
                    bar.reset_eta();
                }
                bar.set_position(load::whole(progress.done * load::ratio(STEPS, 1)));
                bar.set_message(line);
            }
        }
    }

    pub(super) fn end(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

/// The result in words.
pub(super) fn result(report: &Report) -> String {
    let counts = &report.counts;
    let mut text = format!(
        "{}: {} connections, {}\n\n",
        report.settings.endpoint, report.settings.connections, report.settings.load
    );
    let mut rows = table();
    let mut row = |name: &str, value: String| {
        rows.add_row([name.to_owned(), value]);
    };
    if counts.sent > 0 {
        row("replies a second", thousands(load::whole(report.rate)));
        row("right replies", format!("{} in {:.2} s", thousands(counts.answered), report.seconds));
        row("wrong, missing", format!("{}, {}", thousands(counts.wrong), thousands(counts.missing)));
    }
    let odd = [
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
    if counts.sent == 0 {
        row("open at the end", thousands(report.open_at_end));
    }
    for (word, count) in &report.errors {
        row(word, thousands(*count));
    }
    if report.lateness.p99 > 2_000_000 {
        row("asked late", format!("p99 {}: this machine could not keep the rate", time(report.lateness.p99)));
    }
    let _ = writeln!(text, "{rows}");
    if report.latency.count > 0 {
        let mut percentiles = table();
        for (name, value) in report.latency.percentiles() {
            percentiles.add_row([name.to_owned(), time(value)]);
        }
        let mean = format!("{} ± {}", time(load::whole(report.latency.mean)), time(load::whole(report.latency.stdev)));
        percentiles.add_row(["mean".to_owned(), mean]);
        let _ = write!(text, "\nlatency\n{percentiles}\n\n{}", histogram(report));
    }
    text
}

/// Bars over equal steps from the shortest latency to the 99th percentile, and one for the rest.
fn histogram(report: &Report) -> String {
    let (least, most) = (report.latency.min, report.latency.p99.max(report.latency.min + 1));
    let step = ((most - least) / (BARS as u64 - 1)).max(1);
    let mut counts = [0_u64; BARS];
    for (value, count) in &report.histogram {
        counts[((value.saturating_sub(least) / step) as usize).min(BARS - 1)] += count;
    }
    let highest = counts.iter().copied().max().unwrap_or(0).max(1);
    let mut text = String::new();
    for (index, count) in counts.into_iter().enumerate() {
        let bar = "■".repeat((count * BAR / highest) as usize);
        let from = least + step * index as u64;
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
            format!("{:+.1} %", 100.0 * row.change),
            row.spread.map_or(String::new(), |spread| format!("±{:.1} %", 100.0 * spread)),
            if row.change.abs() > 0.0 && !row.is_beyond_chance() { "may be chance" } else { "" }.to_owned(),
        ]);
    }
    let mut text = String::new();
    for ((name, a), (_, b)) in first.settings.rows().into_iter().zip(second.settings.rows()).filter(|(a, b)| a != b) {
        let _ = writeln!(text, "{name} differs: {a} and {b}");
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
