//! The one result model that every experiment fills and every form of output reads.
//!
//! A [`Report`] has sections, a section is a table, a cell of it is a [`Case`]: what was tried, what the model said,
//! what the kernel did, the rule behind it, and the system calls that show it.

mod html;
mod json;
mod markdown;
mod svg;
mod text;

use serde::ser::SerializeMap;
use serde::{Serialize, Serializer};
use serde_json::Value;

use super::model::Rule;
use super::outcome::Outcome;
use super::socket::Call;
use crate::verdict::Verdict;

pub use html::as_html;
pub use json::{all_as_json, as_json};
pub use markdown::as_markdown;
pub use text::{Style, as_text, wrapped_after};

/// What the glyphs mean where calls are made.
pub const CALLS: &[(char, &str)] =
    &[('#', "reached"), ('x', "refused"), ('.', "timed out"), ('!', "arrived, and the reply was lost")];
/// What the glyphs mean where sockets bind.
pub const BINDS: &[(char, &str)] = &[('#', "the bind succeeds"), ('x', "it fails")];

/// What one experiment found.
#[derive(Debug, Clone)]
pub struct Report {
    /// The experiment's name, as on the command line.
    pub experiment: &'static str,
    /// What it asks, in one line.
    pub title: &'static str,
    /// What there is to know before reading the tables, in a few sentences.
    pub about: &'static str,
    /// What the glyphs mean in its tables.
    pub legend: &'static [(char, &'static str)],
    /// The kernel that ran it; `None` where nothing was run.
    pub kernel: Option<String>,
    /// What could not be tried or set, and what would allow it.
    pub limits: Vec<String>,
    /// The tables.
    pub sections: Vec<Section>,
    /// The result in one sentence, where it is not the count of cases.
    pub closing: Option<String>,
}

/// A table.
#[derive(Debug, Clone, Default)]
pub struct Section {
    /// Its heading.
    pub title: String,
    /// What it shows, in a sentence or two; may be empty.
    pub about: String,
    /// Whether its cells are shown as glyphs, or in words.
    pub shown: Shown,
    /// Its place in a summary of many such tables: which summary, which row, which column.
    pub summed_at: Option<[String; 3]>,
    /// What the rows are, over their names.
    pub row_head: &'static str,
    /// The columns.
    pub columns: Vec<Column>,
    /// The rows.
    pub rows: Vec<Row>,
}

/// Tables of which each one is shown as a cell.
#[derive(Debug)]
pub struct Summary<'a> {
    /// The heading.
    pub title: &'a str,
    /// The names of the rows.
    pub rows: Vec<&'a str>,
    /// The names of the columns.
    pub columns: Vec<&'a str>,
    /// The tables, row by row.
    pub sections: Vec<&'a Section>,
}

/// How a cell is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Shown {
    /// As one character.
    #[default]
    Glyphs,
    /// As predicted and observed outcome.
    Words,
    /// As one cell of a summary, because it comes out like another table, or all its cells do alike.
    Summed,
}

/// The head of a column.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Column {
    /// What a run of columns has in common, such as who dials; may be empty.
    pub group: String,
    /// The column's own name.
    pub name: String,
}

/// A line of a table.
#[derive(Debug, Clone)]
pub struct Row {
    /// What was bound, or how.
    pub name: String,
    /// One cell a column; `None` where the question makes no sense.
    pub cells: Vec<Option<Case>>,
    /// Why it came out like this, in a sentence.
    pub why: String,
}

/// One try.
#[derive(Debug, Clone)]
pub struct Case {
    /// What was tried, as names and values in the order in which they are shown.
    pub what: Vec<(&'static str, Value)>,
    /// What the model said.
    pub predicted: Outcome,
    /// What the kernel did; `None` where it was not tried.
    pub observed: Option<Outcome>,
    /// The rule behind the prediction.
    pub rule: Rule,
    /// The system calls that were made.
    pub evidence: Vec<Call>,
}

impl Case {
    /// A case that is predicted and not yet tried.
    pub fn predicted(what: Vec<(&'static str, Value)>, predicted: Outcome, rule: Rule) -> Self {
        Case { what, predicted, observed: None, rule, evidence: Vec::new() }
    }

    /// Whether it was tried and came out otherwise.
    pub fn differs(&self) -> bool {
        self.observed.as_ref().is_some_and(|observed| *observed != self.predicted)
    }

    /// Notes what the kernel did.
    pub fn observe(&mut self, observed: Outcome, evidence: Vec<Call>) {
        self.observed = Some(observed);
        self.evidence = evidence;
    }

    /// What is shown where there is room for one character: `?` stands for not tried.
    pub fn glyph(&self, only_predicted: bool) -> char {
        match &self.observed {
            Some(observed) => observed.glyph(),
            None if only_predicted => self.predicted.glyph(),
            None => '?',
        }
    }
}

impl Section {
    /// All cases, row by row.
    pub fn cases(&self) -> impl Iterator<Item = &Case> {
        self.rows.iter().flat_map(|row| row.cells.iter().flatten())
    }

    /// The glyph that stands for the whole table: that of the worst cell; with `only_predicted`, of what is predicted.
    pub fn glyph(&self, only_predicted: bool) -> char {
        let glyphs: Vec<char> = self.cases().map(|case| case.glyph(only_predicted)).collect();
        ['x', '.', '!', '#'].into_iter().find(|glyph| glyphs.contains(glyph)).unwrap_or('?')
    }

    /// Whether any cell came out otherwise than predicted.
    pub fn differs(&self) -> bool {
        self.cases().any(Case::differs)
    }

    /// The sentence of all its rows, where they have but one.
    pub fn common_why(&self) -> Option<&str> {
        let first = &self.rows.first()?.why;
        (self.rows.len() > 1 && self.rows.iter().all(|row| row.why == *first)).then_some(first)
    }

    /// All cases, row by row, to be filled in.
    pub fn cases_mut(&mut self) -> impl Iterator<Item = &mut Case> {
        self.rows.iter_mut().flat_map(|row| row.cells.iter_mut().flatten())
    }

    /// A table in words, of one case a row.
    pub fn list(title: &str, about: &str, row_head: &'static str, column: &str, rows: Vec<(String, Case)>) -> Self {
        let rows = rows.into_iter().map(|(name, case)| Row {
            name,
            why: case.rule.sentence().to_owned(),
            cells: vec![Some(case)],
        });
        Section {
            title: title.to_owned(),
            about: about.to_owned(),
            shown: Shown::Words,
            summed_at: None,
            row_head,
            columns: vec![Column { group: String::new(), name: column.to_owned() }],
            rows: rows.collect(),
        }
    }
}

impl Report {
    /// Whether it tells of a scenario's steps, where what is written may stand in the model's place.
    fn is_of_steps(&self) -> bool {
        self.experiment == "run"
    }

    /// All cases.
    pub fn cases(&self) -> impl Iterator<Item = &Case> {
        self.sections.iter().flat_map(Section::cases)
    }

    /// The summaries of tables that are not shown one by one.
    pub fn summaries(&self) -> Vec<Summary<'_>> {
        let mut summaries: Vec<Summary<'_>> = Vec::new();
        for section in &self.sections {
            let Some([title, row, column]) = &section.summed_at else { continue };
            let place = summaries.iter().position(|summary| summary.title == title).unwrap_or_else(|| {
                summaries.push(Summary { title, rows: Vec::new(), columns: Vec::new(), sections: Vec::new() });
                summaries.len() - 1
            });
            let summary = &mut summaries[place];
            if !summary.rows.contains(&row.as_str()) {
                summary.rows.push(row);
            }
            if !summary.columns.contains(&column.as_str()) {
                summary.columns.push(column);
            }
            summary.sections.push(section);
        }
        summaries
    }

    /// Whether nothing was run.
    pub fn is_prediction(&self) -> bool {
        self.kernel.is_none()
    }

    /// In how many cases the kernel did otherwise than the model said.
    pub fn differing(&self) -> usize {
        self.cases().filter(|case| case.differs()).count()
    }

    /// `ok`, or `failed` where the kernel did otherwise than the model said.
    pub fn verdict(&self) -> Verdict {
        if self.differing() == 0 { Verdict::Ok } else { Verdict::Failed }
    }

    /// The result in one sentence.
    pub fn summary(&self) -> String {
        if let Some(closing) = &self.closing {
            return closing.clone();
        }
        let cases = self.cases().count();
        let Some(kernel) = &self.kernel else { return format!("{cases} cases predicted, none tried.") };
        let untried = match cases - self.tried() {
            0 => String::new(),
            untried => format!(", {untried} not tried"),
        };
        match self.differing() {
            0 => format!("{} cases on {kernel}, all as predicted{untried}.", self.tried()),
            some => format!("{} cases on {kernel}, {some} otherwise than predicted{untried}.", self.tried()),
        }
    }

    /// How many cases were tried.
    pub fn tried(&self) -> usize {
        self.cases().filter(|case| case.observed.is_some()).count()
    }
}

impl Serialize for Case {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        for (name, value) in &self.what {
            map.serialize_entry(name, value)?;
        }
        map.serialize_entry("predicted", &self.predicted)?;
        map.serialize_entry("observed", &self.observed)?;
        map.serialize_entry("rule", &self.rule)?;
        if !self.evidence.is_empty() {
            map.serialize_entry("evidence", &self.evidence)?;
        }
        map.end()
    }
}
