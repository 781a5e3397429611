//! Drawings: one a row of most experiments, one a table of some, each saying what the result means.

mod backlog;
mod conflict;
mod delivery;
mod drawing;
mod errno;
mod reach;
mod reuseport;
mod timewait;
mod topology;
mod udp_reply;

use serde_json::Value;

use super::{Case, Report, Row, Section, Shown};
use crate::lab::outcome::Outcome;
use drawing::Drawing;

pub(super) use conflict::stamp;
pub(super) use topology::topology;

/// What a drawing is of.
#[derive(Debug, Clone, Copy)]
struct Picture<'a> {
    id: &'a str,
    report: &'a Report,
    section: &'a Section,
    row: &'a Row,
}

/// The drawing of a whole table, where the experiment has one.
pub(super) fn of_section(id: &str, section: &Section, report: &Report) -> Option<String> {
    let row = section.rows.first()?;
    match report.experiment {
        "conflict" if section.shown == Shown::Glyphs => Some(conflict::draw(id, section, report)),
        "timewait" => Some(timewait::draw(&Picture { id, report, section, row })),
        _ => None,
    }
}

/// The drawing of a row, where the experiment has one.
pub(super) fn of_row(id: &str, section: &Section, row: &Row, report: &Report) -> Option<String> {
    let picture = Picture { id, report, section, row };
    match report.experiment {
        "reach" => Some(reach::draw(&picture)),
        "backlog" => Some(backlog::draw(&picture)),
        "reuseport" => Some(reuseport::draw(&picture)),
        "delivery" => Some(delivery::draw(&picture)),
        "udp-reply" => Some(udp_reply::draw(&picture)),
        "errno" => errno::draw(&picture),
        _ => None,
    }
}

impl Picture<'_> {
    fn glyph(&self, case: &Case) -> char {
        case.glyph(self.report.is_prediction())
    }

    /// What is drawn: what the kernel did, or what is predicted where nothing was run; nothing where it was not tried.
    fn outcome<'a>(&self, case: &'a Case) -> Option<&'a Outcome> {
        match &case.observed {
            None if self.report.is_prediction() => Some(&case.predicted),
            observed => observed.as_ref(),
        }
    }

    fn finish(&self, drawing: Drawing, height: i32) -> String {
        let title = format!("{}: {}. {}", self.section.title, self.row.name, self.row.why);
        drawing.finish(self.id, &title, (468, height))
    }
}

/// A text that can stand anywhere in a page.
pub(super) fn escaped(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => safe.push_str("&amp;"),
            '<' => safe.push_str("&lt;"),
            '>' => safe.push_str("&gt;"),
            '"' => safe.push_str("&quot;"),
            '\'' => safe.push_str("&#39;"),
            other => safe.push(other),
        }
    }
    safe
}

/// The word that colours a glyph, beside its shape.
pub(super) fn class_of(glyph: char) -> &'static str {
    match glyph {
        '#' => "good",
        'x' => "bad",
        '.' | '!' => "lost",
        _ => "none",
    }
}

/// What a case says of itself under that name.
fn fact<'a>(case: &'a Case, name: &str) -> Option<&'a Value> {
    case.what.iter().find(|(known, _)| *known == name).map(|(_, value)| value)
}

fn word<'a>(case: &'a Case, name: &str) -> &'a str {
    fact(case, name).and_then(Value::as_str).unwrap_or_default()
}

/// A field of a fact that has several.
fn word_of<'a>(case: &'a Case, name: &str, field: &str) -> &'a str {
    fact(case, name).and_then(|value| value[field].as_str()).unwrap_or_default()
}

fn count(outcome: Option<&Outcome>) -> Option<u64> {
    match outcome {
        Some(Outcome::Count(count)) => Some(*count),
        _ => None,
    }
}

/// As a coordinate.
fn length<T>(all: &[T]) -> i32 {
    i32::try_from(all.len()).unwrap_or(0)
}
