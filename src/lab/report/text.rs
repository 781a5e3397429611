//! A report as text of at most 80 columns, for a terminal.

use std::fmt::Write as _;

use super::{Case, Report, Row, Section, Shown};

/// How wide a line may be.
const WIDTH: usize = 80;
/// Where the sentence under a row begins.
const WHY_INDENT: usize = 6;

/// How it is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Style {
    /// Colours beside the glyphs, which carry the meaning alone.
    pub colour: bool,
}

/// The whole report. No line is longer than 80 columns.
pub fn as_text(report: &Report, style: Style) -> String {
    let mut text = String::new();
    push(&mut text, style.bold(report.title));
    push(&mut text, wrapped(report.about, 0));
    let predicted = report.is_prediction();
    for section in &report.sections {
        match section.shown {
            Shown::Glyphs => glyphs(&mut text, section, predicted, style),
            Shown::Words => words(&mut text, section, predicted, style),
            Shown::Summed => {}
        }
    }
    summaries(&mut text, report, style);
    if report.sections.iter().any(|section| section.shown == Shown::Glyphs) {
        let meanings = report.legend.iter().map(|(glyph, meaning)| format!("{glyph} {meaning}"));
        let more = [
            (report.tried() < report.cases().count() && !predicted).then(|| "? not tried".to_owned()),
            (report.differing() > 0).then(|| "* the kernel differs from the model".to_owned()),
        ];
        let legend: Vec<_> = meanings.chain(more.into_iter().flatten()).collect();
        text.push('\n');
        push(&mut text, wrapped(&legend.join(", "), 0));
    }
    for case in report.cases().filter(|case| case.differs()) {
        push(&mut text, wrapped(&difference(report, case), 2));
    }
    for limit in &report.limits {
        push(&mut text, wrapped(limit, 0));
    }
    push(&mut text, wrapped(&report.summary(), 0));
    text
}

/// A case that came out otherwise, in a sentence.
pub(super) fn difference(report: &Report, case: &Case) -> String {
    let what: Vec<_> = case.what.iter().map(|(name, value)| format!("{name} {}", plain(value))).collect();
    let observed = case.observed.as_ref().map_or_else(String::new, ToString::to_string);
    let what = what.join(", ");
    if report.is_of_steps() {
        // Perhaps nobody predicted it: its author expects what he likes.
        return format!("* {what}: expected {}, observed {observed} (the model's rule: {})", case.predicted, case.rule);
    }
    format!("* {what}: predicted {} ({}), observed {observed}", case.predicted, case.rule)
}

fn plain(value: &serde_json::Value) -> String {
    match value {
        serde_json::Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

/// A letter stands for each column, the same one wherever a name comes back in another group.
fn glyphs(text: &mut String, section: &Section, predicted: bool, style: Style) {
    heading(text, section, style);
    let letters = Letters::of(section);
    let entries: Vec<String> =
        letters.names.iter().zip('a'..).map(|(name, letter)| format!("{letter} {name}")).collect();
    let widest = entries.iter().map(|entry| width(entry)).max().unwrap_or(0) + 2;
    for line in entries.chunks(((WIDTH - 2) / widest).max(1)) {
        let line: String = line.iter().map(|entry| pad(entry, widest)).collect();
        push(text, format!("  {}", line.trim_end()));
    }
    let first = name_width(section);
    // A run of columns is as wide as its cells, or as what they have in common.
    let groups = section.columns.chunk_by(|one, other| one.group == other.group);
    let spans: Vec<(usize, usize, &str)> =
        groups.map(|group| (group.len(), width(&group[0].group).max(2 * group.len()) + 2, &*group[0].group)).collect();
    let heads: String = spans.iter().map(|&(_, span, head)| pad(head, span)).collect();
    push(text, format!("  {}  {}", pad("", first), heads.trim_end()));
    let line = |marks: &mut dyn Iterator<Item = String>| {
        let mut line = String::new();
        for &(count, span, _) in &spans {
            let cells: String = marks.take(count).collect();
            line += &cells;
            line += &" ".repeat(span - 2 * count);
        }
        line.trim_end().to_owned()
    };
    let mut heads = letters.of_columns.iter().map(|letter| format!("{letter} "));
    push(text, format!("  {}  {}", pad(section.row_head, first), line(&mut heads)));
    let common = section.common_why();
    for row in &section.rows {
        let mut marks = row.cells.iter().map(|cell| mark(cell.as_ref(), predicted, style));
        push(text, format!("  {}  {}", pad(&row.name, first), line(&mut marks)));
        if common.is_none() {
            push(text, wrapped(&row.why, WHY_INDENT));
        }
    }
    if let Some(why) = common {
        push(text, wrapped(why, WHY_INDENT));
    }
}

/// The glyph of a cell, and a star after it where the kernel differs.
fn mark(cell: Option<&Case>, predicted: bool, style: Style) -> String {
    let Some(case) = cell else { return "- ".to_owned() };
    let glyph = case.glyph(predicted);
    format!("{}{}", style.glyph(glyph), if case.differs() { '*' } else { ' ' })
}

/// The columns' names without repetition, and the letter of each column.
struct Letters<'a> {
    names: Vec<&'a str>,
    of_columns: Vec<char>,
}

impl<'a> Letters<'a> {
    fn of(section: &'a Section) -> Self {
        let mut letters = Letters { names: Vec::new(), of_columns: Vec::new() };
        for column in &section.columns {
            let place = letters.names.iter().position(|name| *name == column.name).unwrap_or_else(|| {
                letters.names.push(&column.name);
                letters.names.len() - 1
            });
            letters.of_columns.push(('a'..).nth(place).unwrap_or('?'));
        }
        letters
    }
}

fn words(text: &mut String, section: &Section, predicted: bool, style: Style) {
    heading(text, section, style);
    let first = name_width(section);
    let cell = |row: &Row, place: usize| {
        row.cells[place].as_ref().map_or_else(|| "-".to_owned(), |case| said(case, predicted))
    };
    let widths: Vec<usize> = (0..section.columns.len())
        .map(|place| {
            let cells = section.rows.iter().map(|row| width(&cell(row, place)));
            cells.chain([width(&section.columns[place].name)]).max().unwrap_or(0) + 1
        })
        .collect();
    let heads: String = section.columns.iter().zip(&widths).map(|(column, &width)| pad(&column.name, width)).collect();
    push(text, format!("  {} {}", pad(section.row_head, first), heads.trim_end()));
    for row in &section.rows {
        let cells: String = widths.iter().enumerate().map(|(place, &width)| pad(&cell(row, place), width)).collect();
        push(text, format!("  {} {}", pad(&row.name, first), cells.trim_end()));
        push(text, wrapped(&row.why, WHY_INDENT));
    }
}

/// An outcome in words, with a star where the kernel differs.
pub(super) fn said(case: &Case, predicted: bool) -> String {
    match &case.observed {
        Some(observed) if case.differs() => format!("{observed}*"),
        Some(observed) => observed.to_string(),
        None if predicted => case.predicted.to_string(),
        None => "?".to_owned(),
    }
}

/// Each table as one cell: the same letters and marks as anywhere.
fn summaries(text: &mut String, report: &Report, style: Style) {
    for summary in report.summaries() {
        push(text, format!("\n{}", style.bold(summary.title)));
        let first = summary.rows.iter().map(|row| width(row)).max().unwrap_or(0);
        let cell = summary.columns.iter().map(|column| width(column)).max().unwrap_or(0) + 2;
        let heads: String = summary.columns.iter().map(|column| pad(column, cell)).collect();
        push(text, format!("  {}  {}", pad("", first), "the second sets"));
        push(text, format!("  {}  {}", pad("", first), heads.trim_end()));
        for (row, sections) in summary.rows.iter().zip(summary.sections.chunks(summary.columns.len())) {
            let marks = sections.iter().map(|section| {
                let glyph = section.glyph(report.is_prediction());
                let star = if section.differs() { "*" } else { " " };
                format!("{}{star}{}", style.glyph(glyph), " ".repeat(cell - 2))
            });
            push(text, format!("  {}  {}", pad(row, first), marks.collect::<String>().trim_end()));
        }
        let pairs = summary.sections.first().map_or(0, |section| section.cases().count());
        let why = format!("x: whoever overlaps is refused; #: nobody is. Each mark stands for {pairs} pairs.");
        push(text, wrapped(&why, WHY_INDENT));
    }
}

fn heading(text: &mut String, section: &Section, style: Style) {
    push(text, format!("\n{}", style.bold(&section.title)));
    if !section.about.is_empty() {
        push(text, wrapped(&section.about, 0));
    }
}

fn name_width(section: &Section) -> usize {
    section.rows.iter().map(|row| width(&row.name)).chain([width(section.row_head)]).max().unwrap_or(0)
}

impl Style {
    fn bold(self, text: &str) -> String {
        if self.colour { format!("\x1b[1m{text}\x1b[0m") } else { text.to_owned() }
    }

    fn glyph(self, glyph: char) -> String {
        let colour = match glyph {
            '#' => 32,
            'x' => 31,
            '.' | '!' => 33,
            _ => return glyph.to_string(),
        };
        if self.colour { format!("\x1b[{colour}m{glyph}\x1b[0m") } else { glyph.to_string() }
    }
}

fn push(text: &mut String, line: impl std::fmt::Display) {
    // Writing to a text cannot fail.
    let _ = writeln!(text, "{line}");
}

fn width(text: &str) -> usize {
    text.chars().count()
}

fn pad(text: &str, to: usize) -> String {
    format!("{text:to$}")
}

/// Breaks a text into lines that fit, each begun with so many spaces.
pub(super) fn wrapped(text: &str, indent: usize) -> String {
    wrapped_after(&" ".repeat(indent), text, indent)
}

/// Breaks a text into lines of at most 80 columns, the first begun with what stands before it, the others with so many
/// spaces. A word that is longer than a line stays whole.
pub fn wrapped_after(before: &str, text: &str, indent: usize) -> String {
    let mut lines = vec![before.to_owned()];
    let mut is_begun = false;
    for word in text.split_whitespace() {
        match lines.last_mut() {
            Some(line) if !is_begun && (line.trim().is_empty() || width(line) + width(word) <= WIDTH) => {
                line.push_str(word);
            }
            Some(line) if is_begun && width(line) + 1 + width(word) <= WIDTH => {
                line.push(' ');
                line.push_str(word);
            }
            _ => lines.push(format!("{}{word}", " ".repeat(indent))),
        }
        is_begun = true;
    }
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lab::{Experiment, Outcome};

    #[test]
    fn no_line_of_any_experiment_is_wider_than_a_terminal() {
        for experiment in Experiment::ALL {
            let text = as_text(&experiment.predict(), Style::default());
            for line in text.lines() {
                assert!(width(line) <= WIDTH, "{}: {line}", experiment.name());
            }
        }
    }

    #[test]
    fn every_row_has_its_sentence() {
        for experiment in Experiment::ALL {
            for row in experiment.predict().sections.iter().flat_map(|section| &section.rows) {
                assert!(row.why.ends_with('.'), "{}: {}", row.name, row.why);
            }
        }
    }

    #[test]
    fn a_kernel_that_differs_is_starred_and_said() {
        let mut report = Experiment::Reach.predict();
        report.kernel = Some("Linux of another world".to_owned());
        for case in report.sections.iter_mut().flat_map(Section::cases_mut) {
            case.observe(case.predicted.clone(), Vec::new());
        }
        assert!(!as_text(&report, Style::default()).contains('*'));
        report.sections[0].rows[0].cells[0].as_mut().unwrap().observe(Outcome::Timeout, Vec::new());
        let text = as_text(&report, Style::default());
        assert!(text.contains(".*"), "{text}");
        assert!(text.contains("predicted connected (address-matches), observed timeout"), "{text}");
        assert!(text.contains("1 otherwise than predicted"), "{text}");
    }

    #[test]
    fn what_was_not_tried_is_a_question_mark() {
        let mut report = Experiment::Reach.predict();
        assert!(!as_text(&report, Style::default()).contains('?') || report.title.contains('?'));
        report.kernel = Some("Linux".to_owned());
        assert!(as_text(&report, Style::default()).contains("? ? ? ?"));
    }
}
