//! Tables in Markdown, and where they are put. Writing to a text cannot fail, so what `write!` says is dropped.

use std::fmt::Write as _;
use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result};

use crate::Plan;
use crate::compile::home;
use crate::growth::Curve;
use crate::scenario::{Decides, IDLE, Measured, Scenario};
use crate::statistics::Summary;
use crate::{machine, svg};

/// One scenario: cost, ratio to the reference, system calls, latency.
pub(crate) fn table(scenario: &Scenario, results: &[Measured]) -> String {
    let unit = scenario.unit;
    let mut text = format!(
        "### {}\n\n| | CPU a {unit} | × the first | middle half | system calls | {unit}s a second | p50 | p99 | lost |\n\
         |---|---:|---:|---:|---:|---:|---:|---:|---:|\n",
        scenario.title
    );
    for measured in results {
        let of = |value: fn(&crate::process::Outcome) -> f64| Summary::of(measured.rounds.iter().map(value)).median;
        let ratio = ratio(scenario.decides, &results[0], measured);
        let lost: f64 = measured.rounds.iter().map(|round| round.lost).sum();
        let calls = measured.calls.map_or("–".to_owned(), |calls| format!("{calls:.2}"));
        let _ = writeln!(
            text,
            "| {} | {} | {:.2} | {:.2}–{:.2} | {calls} | {} | {} | {} | {lost} |",
            measured.name,
            time(of(|round| round.cpu_ns / round.messages)),
            ratio.median,
            ratio.quartiles.0,
            ratio.quartiles.1,
            thousands(of(|round| round.messages / round.seconds)),
            time(1e3 * of(|round| round.p50_us)),
            time(1e3 * of(|round| round.p99_us)),
        );
    }
    let _ = writeln!(text, "\nTo reach: {}.", scenario.goal);
    text
}

/// Each round against the reference in the same round.
fn ratio(decides: Decides, reference: &Measured, measured: &Measured) -> Summary {
    let pairs = measured.rounds.iter().zip(&reference.rounds);
    Summary::of(pairs.map(|(ours, theirs)| decides.cost(ours) / decides.cost(theirs)))
}

pub(crate) fn idle(rows: &[(&str, u64)]) -> String {
    let mut text = format!(
        "### Memory, {} idle TCP connections\n\n| | bytes a connection |\n|---|---:|\n",
        thousands(f64::from(IDLE))
    );
    for (name, bytes) in rows {
        let _ = writeln!(text, "| {name} | {bytes} |");
    }
    text + "\nTo reach: ≤ 640.\n"
}

pub(crate) fn start((taken, size): &(Vec<Duration>, u64)) -> String {
    let taken = Summary::of(taken.iter().map(Duration::as_secs_f64)).median;
    format!(
        "### Start\n\ngreetd listens {} after it was started; its binary has {:.1} MB.\n\nTo reach: ≤ 10 ms, ≤ 12 MB.\n",
        time(taken * 1e9),
        to_float(*size) / 1e6
    )
}

pub(crate) fn curve(curve: &Curve) -> String {
    let mut text = format!("### {}\n\n| {} |", curve.title, curve.of);
    let sizes: Vec<u32> = curve.lines[0].1.iter().map(|(size, _)| *size).collect();
    for size in &sizes {
        let _ = write!(text, " {} |", thousands(f64::from(*size)));
    }
    let _ = writeln!(text, "\n|---|{}", "---:|".repeat(sizes.len()));
    for (name, points) in &curve.lines {
        let _ = write!(text, "| {name} |");
        for (_, cost) in points {
            let _ = write!(text, " {} |", time(cost.median));
        }
        text += "\n";
    }
    text
}

const BEGIN: &str = "<!-- what follows is written by the suite -->\n";
const END: &str = "<!-- what the suite writes ends here -->\n";

/// Puts the tables into BENCHMARKS.md, between the two marks, and the curves beside it.
pub(crate) fn write(plan: &Plan, sections: &[String], curves: &[Curve]) -> Result<()> {
    let page = home().join("../BENCHMARKS.md");
    let text = fs::read_to_string(&page).with_context(|| format!("failed to read {}", page.display()))?;
    let (before, rest) = text.split_once(BEGIN).context("BENCHMARKS.md has lost its first mark")?;
    let (_, after) = rest.split_once(END).context("BENCHMARKS.md has lost its second mark")?;
    let mut results =
        format!("\n{}; {} rounds of {:?} each, in pieces, in turn.\n", machine::describe(), plan.rounds, plan.measured);
    for section in sections {
        let _ = write!(results, "\n{section}");
    }
    for curve in curves {
        fs::write(picture(curve.name), svg::curve(curve))?;
        let _ = writeln!(results, "\n![{}](benches/results/{}.svg)", curve.title, curve.name);
    }
    fs::write(&page, format!("{before}{BEGIN}{results}\n{END}{after}"))?;
    Ok(())
}

fn picture(name: &str) -> PathBuf {
    let folder = home().join("results");
    // Where it cannot be made, writing into it says so.
    let _ = fs::create_dir_all(&folder);
    folder.join(name).with_extension("svg")
}

/// Nanoseconds in the unit that suits them.
pub(crate) fn time(ns: f64) -> String {
    match ns {
        ns if ns <= 0.0 => "–".to_owned(),
        ns if ns < 1e3 => format!("{ns:.0} ns"),
        ns if ns < 1e5 => format!("{:.2} µs", ns / 1e3),
        ns if ns < 1e6 => format!("{:.0} µs", ns / 1e3),
        ns => format!("{:.1} ms", ns / 1e6),
    }
}

/// Exact up to 2⁵³.
#[expect(clippy::cast_precision_loss, reason = "sizes of files are far below")]
fn to_float(size: u64) -> f64 {
    size as f64
}

pub(crate) fn thousands(number: f64) -> String {
    let digits = format!("{number:.0}");
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
mod tests {
    use super::*;
    use crate::process::Outcome;

    #[test]
    fn each_round_is_held_against_the_reference_of_the_same_round() {
        let measured = |costs: &[f64]| Measured {
            name: "x",
            rounds: costs.iter().map(|&cpu_ns| Outcome { cpu_ns, messages: 1.0, ..Outcome::default() }).collect(),
            calls: None,
        };
        // The machine was three times as slow in the second round, for both.
        let ratio = ratio(Decides::Processor, &measured(&[10.0, 30.0, 10.0]), &measured(&[11.0, 33.0, 11.0]));
        assert!((ratio.median - 1.1).abs() < 1e-9 && (ratio.quartiles.1 - 1.1).abs() < 1e-9, "{ratio:?}");
    }

    #[test]
    fn numbers_are_written_with_their_unit_and_in_threes() {
        assert_eq!(
            [time(999.0), time(1_500.0), time(250_000.0), time(2e7)],
            ["999 ns", "1.50 µs", "250 µs", "20.0 ms"]
        );
        assert_eq!([thousands(7.0), thousands(1_234_567.0)], ["7", "1,234,567"]);
    }
}
