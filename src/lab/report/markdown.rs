//! A report as Markdown, for a page that is kept.

use std::fmt::Write as _;

use super::text::{difference, said};
use super::{Case, Report, Section, Shown};

/// The whole report, its title as a heading of the second level. Nothing in it changes from run to run as long as
/// the kernel does the same; the kernel's name is in the last sentence alone.
pub fn as_markdown(report: &Report) -> String {
    let mut page = format!("## {}\n\n{}\n", report.title, report.about);
    for section in &report.sections {
        if section.shown != Shown::Summed {
            table(&mut page, section, report);
        }
    }
    summaries(&mut page, report);
    for case in report.cases().filter(|case| case.differs()) {
        let _ = write!(page, "\n{}\n", difference(report, case));
    }
    for limit in &report.limits {
        let _ = write!(page, "\n{limit}\n");
    }
    let _ = write!(page, "\n{}\n", report.summary());
    page
}

/// Each table of a summary as one cell.
fn summaries(page: &mut String, report: &Report) {
    for summary in report.summaries() {
        let _ = write!(page, "\n### {}\n\n`x`: whoever overlaps is refused; `#`: nobody is.\n", summary.title);
        let _ = write!(page, "\n| the second sets | {} |\n", summary.columns.join(" | "));
        let _ = writeln!(page, "|{}", "---|".repeat(1 + summary.columns.len()));
        for (row, sections) in summary.rows.iter().zip(summary.sections.chunks(summary.columns.len())) {
            let cells: Vec<_> = sections
                .iter()
                .map(|section| {
                    let star = if section.differs() { " \\*" } else { "" };
                    format!("`{}`{star}", section.glyph(report.is_prediction()))
                })
                .collect();
            let _ = writeln!(page, "| {row} | {} |", cells.join(" | "));
        }
    }
}

fn table(page: &mut String, section: &Section, report: &Report) {
    let _ = write!(page, "\n### {}\n", section.title);
    if !section.about.is_empty() {
        let _ = write!(page, "\n{}\n", section.about);
    }
    if section.shown == Shown::Glyphs {
        let legend: Vec<_> = report.legend.iter().map(|(glyph, meaning)| format!("`{glyph}` {meaning}")).collect();
        let _ = write!(page, "\n{}\n", legend.join(", "));
    }
    // A run of columns that have something in common becomes a table of its own, which a page can still show.
    let groups = section.columns.chunk_by(|one, other| one.group == other.group).collect::<Vec<_>>();
    let mut begin = 0;
    for (place, group) in groups.iter().enumerate() {
        let is_last = place + 1 == groups.len();
        let why = if is_last { " why |" } else { "" };
        let names: Vec<_> = group.iter().map(|column| escaped(&column.name)).collect();
        let names = names.join(" | ");
        let head = if group[0].group.is_empty() { String::new() } else { format!(" ({})", group[0].group) };
        let _ = write!(page, "\n| {}{head} | {names} |{why}\n", escaped(section.row_head));
        let _ = writeln!(page, "|{}", "---|".repeat(1 + group.len() + usize::from(is_last)));
        for row in &section.rows {
            let cells = row.cells[begin..begin + group.len()].iter();
            let cells: Vec<_> = cells.map(|cell| shown(cell.as_ref(), section, report)).collect();
            let cells = cells.join(" | ");
            let why = if is_last { format!(" {} |", escaped(&row.why)) } else { String::new() };
            let _ = writeln!(page, "| {} | {cells} |{why}", escaped(&row.name));
        }
        begin += group.len();
    }
}

fn shown(cell: Option<&Case>, section: &Section, report: &Report) -> String {
    let Some(case) = cell else { return "`-`".to_owned() };
    if section.shown == Shown::Words {
        return escaped(&said(case, report.is_prediction()));
    }
    format!("`{}`{}", case.glyph(report.is_prediction()), if case.differs() { " \\*" } else { "" })
}

fn escaped(text: &str) -> String {
    text.replace('|', "\\|").replace('*', "\\*").replace('_', "\\_")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lab::Experiment;

    #[test]
    fn every_row_of_a_table_has_as_many_cells_as_its_head() {
        for experiment in Experiment::ALL {
            let page = as_markdown(&experiment.predict());
            let mut bars = None;
            for line in page.lines() {
                if !line.starts_with('|') {
                    bars = None;
                    continue;
                }
                let count = line.replace("\\|", "").matches('|').count();
                assert_eq!(*bars.get_or_insert(count), count, "{line}");
            }
        }
    }
}
