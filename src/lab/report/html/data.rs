//! What a page knows of its cells: every text once, and numbers that point to it, so that thousands of cases with all
//! their calls stay a small page.

use std::collections::HashMap;

use serde_json::{Value, json};

use crate::lab::report::{Case, Report, Section};

/// The cases behind the cells, in the order of the numbers that the cells carry.
#[derive(Debug, Default)]
pub(super) struct Data {
    texts: Vec<String>,
    known: HashMap<String, usize>,
    cases: Vec<Value>,
    tables: Vec<Value>,
}

impl Data {
    /// Keeps a case; gives its number.
    pub(super) fn case(&mut self, title: &str, case: &Case) -> usize {
        let observed = case.observed.as_ref().map(|observed| self.text(&observed.to_string()));
        let calls: Vec<usize> = case
            .evidence
            .iter()
            .flat_map(|call| [call.host.to_string(), call.call.clone(), call.result.clone()])
            .map(|text| self.text(&text))
            .collect();
        let kept = json!([
            self.text(title),
            self.text(&case.predicted.to_string()),
            observed,
            u8::from(case.differs()),
            self.text(case.rule.name()),
            self.text(case.rule.sentence()),
            calls,
        ]);
        self.cases.push(kept);
        self.cases.len() - 1
    }

    /// Keeps a whole table that the page itself does not show; gives its number.
    pub(super) fn table(&mut self, title: &str, section: &Section, report: &Report) -> usize {
        let mut rows = Vec::new();
        for row in &section.rows {
            let cells = row.cells.iter().zip(&section.columns).map(|(cell, column)| {
                cell.as_ref().map(|case| {
                    let number = self.case(&format!("{}, then {}", row.name, column.name), case);
                    json!([number, case.glyph(report.is_prediction()).to_string()])
                })
            });
            rows.push(json!([row.name, cells.collect::<Vec<_>>()]));
        }
        let columns: Vec<&str> = section.columns.iter().map(|column| column.name.as_str()).collect();
        self.tables.push(json!({ "title": title, "columns": columns, "rows": rows }));
        self.tables.len() - 1
    }

    pub(super) fn as_json(&self) -> Value {
        json!({ "texts": self.texts, "cases": self.cases, "tables": self.tables })
    }

    fn text(&mut self, text: &str) -> usize {
        if let Some(place) = self.known.get(text) {
            return *place;
        }
        self.texts.push(text.to_owned());
        self.known.insert(text.to_owned(), self.texts.len() - 1);
        self.texts.len() - 1
    }
}
