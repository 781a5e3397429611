//! Reports as one page that stands for itself: it fetches nothing, works without a network, and prints.

use std::fmt::Write as _;

use serde_json::json;

use super::svg::{self, class_of, escaped};
use super::text::difference;
use super::{Case, Report, Row, Section, Shown};

const STYLE: &str = include_str!("page.css");
const SCRIPT: &str = include_str!("page.js");

/// The page of these reports. The system calls behind a cell are shown when it is clicked or gets the focus.
pub fn as_html(reports: &[Report]) -> String {
    let mut page = Page::default();
    for report in reports {
        page.report(report);
    }
    let title = "What bind really does";
    let contents = match reports {
        [_] => String::new(),
        all => contents(all),
    };
    // What stands in a script element ends at the first `</`, wherever it is.
    let calls = json!(page.calls).to_string().replace("</", "<\\/");
    format!(
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <meta name=\"color-scheme\" content=\"light dark\">\n<title>{title}</title>\n<style>\n{STYLE}</style>\n</head>\n\
         <body>\n<a class=\"skip\" href=\"#content\">To the results</a>\n<header>\n<h1>{title}</h1>\n\
         <p>Predicted by a model, tried on the kernel that is running, in two hosts that existed for the moment. \
         Choose a cell to see the system calls behind it.</p>\n<figure class=\"topology\">{topology}</figure>\n\
         {contents}</header>\n<main id=\"content\">\n{body}</main>\n\
         <aside id=\"evidence\" aria-live=\"polite\" aria-label=\"The system calls behind a cell\" hidden></aside>\n\
         <script type=\"application/json\" id=\"calls\">{calls}</script>\n<script>\n{SCRIPT}</script>\n\
         </body>\n</html>\n",
        topology = svg::topology(),
        body = page.body,
    )
}

fn contents(reports: &[Report]) -> String {
    let mut list = String::from("<nav aria-label=\"Experiments\"><ul>");
    for report in reports {
        let _ = write!(list, "<li><a href=\"#{}\">{}</a></li>", report.experiment, escaped(report.title));
    }
    list + "</ul></nav>\n"
}

#[derive(Default)]
struct Page {
    body: String,
    /// What a cell shows when it is chosen, by the number in its `data-case`.
    calls: Vec<serde_json::Value>,
    drawings: usize,
}

impl Page {
    fn report(&mut self, report: &Report) {
        let state = if report.differing() == 0 { "good" } else { "bad" };
        let _ = write!(
            self.body,
            "<section id=\"{}\" class=\"experiment\">\n<h2>{}</h2>\n<p>{}</p>\n<p class=\"summary {state}\">{}</p>\n",
            report.experiment,
            escaped(report.title),
            escaped(report.about),
            escaped(&report.summary()),
        );
        for limit in &report.limits {
            let _ = writeln!(self.body, "<p class=\"limit\">{}</p>", escaped(limit));
        }
        for case in report.cases().filter(|case| case.differs()) {
            let _ = writeln!(self.body, "<p class=\"limit\">{}</p>", escaped(&difference(case)));
        }
        if report.sections.iter().any(|section| section.shown == Shown::Glyphs) {
            self.legend(report);
        }
        for section in report.sections.iter().filter(|section| section.shown != Shown::Summed) {
            self.section(section, report);
        }
        self.summaries(report);
        self.body.push_str("</section>\n");
    }

    fn legend(&mut self, report: &Report) {
        self.body.push_str("<ul class=\"legend\">");
        for (glyph, meaning) in report.legend.iter().chain([&('-', "does not apply"), &('?', "not tried")]) {
            let class = class_of(*glyph);
            let _ = write!(self.body, "<li><span class=\"glyph {class}\">{glyph}</span> {meaning}</li>");
        }
        self.body.push_str("</ul>\n");
    }

    fn section(&mut self, section: &Section, report: &Report) {
        let _ = writeln!(self.body, "<h3>{}</h3>", escaped(&section.title));
        if !section.about.is_empty() {
            let _ = writeln!(self.body, "<p>{}</p>", escaped(&section.about));
        }
        if report.experiment == "reach" {
            self.gallery(section, report);
        }
        self.table(section, report);
    }

    /// A drawing of every row, with its sentence.
    fn gallery(&mut self, section: &Section, report: &Report) {
        self.body.push_str("<div class=\"gallery\">\n");
        for row in &section.rows {
            self.drawings += 1;
            let id = format!("drawing-{}", self.drawings);
            let _ = writeln!(
                self.body,
                "<figure><figcaption><b>{}</b> {}</figcaption>{}</figure>",
                escaped(&row.name),
                escaped(&row.why),
                svg::bind(&id, section, row, report),
            );
        }
        self.body.push_str("</div>\n");
    }

    fn table(&mut self, section: &Section, report: &Report) {
        let kind = if section.shown == Shown::Glyphs { "glyphs" } else { "words" };
        let _ = writeln!(
            self.body,
            "<div class=\"scroll\" tabindex=\"0\" role=\"region\" aria-label=\"{}\"><table class=\"{kind}\">",
            escaped(&section.title),
        );
        let groups: Vec<_> = section.columns.chunk_by(|one, other| one.group == other.group).collect();
        if groups.iter().any(|group| !group[0].group.is_empty()) {
            self.body.push_str("<tr><td></td>");
            for group in &groups {
                let _ = write!(
                    self.body,
                    "<th class=\"group\" scope=\"colgroup\" colspan=\"{}\">{}</th>",
                    group.len(),
                    escaped(&group[0].group)
                );
            }
            self.body.push_str("<td></td></tr>\n");
        }
        let _ = write!(self.body, "<tr><th scope=\"col\">{}</th>", escaped(section.row_head));
        for (place, group) in groups.iter().enumerate() {
            for (within, column) in group.iter().enumerate() {
                let edge = if place > 0 && within == 0 { " class=\"edge\"" } else { "" };
                let _ = write!(self.body, "<th scope=\"col\"{edge}><span>{}</span></th>", escaped(&column.name));
            }
        }
        self.body.push_str("<th scope=\"col\" class=\"why\">why</th></tr>\n");
        for row in &section.rows {
            self.row(section, row, report, groups.first().map_or(0, |group| group.len()));
        }
        self.body.push_str("</table></div>\n");
    }

    fn row(&mut self, section: &Section, row: &Row, report: &Report, edge: usize) {
        let _ = write!(self.body, "<tr><th scope=\"row\">{}</th>", escaped(&row.name));
        for (place, cell) in row.cells.iter().enumerate() {
            let class = if place == edge { " class=\"edge\"" } else { "" };
            let _ = write!(self.body, "<td{class}>");
            match cell {
                Some(case) => self.cell(section, row, place, case, report),
                None => self.body.push_str("<span class=\"glyph none\">-</span>"),
            }
            self.body.push_str("</td>");
        }
        let _ = writeln!(self.body, "<td class=\"why\">{}</td></tr>", escaped(&row.why));
    }

    fn cell(&mut self, section: &Section, row: &Row, place: usize, case: &Case, report: &Report) {
        let glyph = case.glyph(report.is_prediction());
        let outcome = case.observed.as_ref().unwrap_or(&case.predicted).to_string();
        let column = &section.columns[place];
        let heading = format!("{}, {}: {}", row.name, column.group, column.name);
        let shown = if section.shown == Shown::Glyphs { glyph.to_string() } else { outcome.clone() };
        let (star, class) = if case.differs() { ("*", "differs ") } else { ("", "") };
        let kind = if section.shown == Shown::Glyphs { class_of(glyph) } else { "word" };
        let _ = write!(
            self.body,
            "<button type=\"button\" class=\"{class}glyph {kind}\" data-case=\"{}\" aria-label=\"{}: {}\">{}{star}</button>",
            self.calls.len(),
            escaped(&heading),
            escaped(&outcome),
            escaped(&shown),
        );
        self.calls.push(json!({
            "title": heading,
            "predicted": case.predicted.to_string(),
            "observed": case.observed.as_ref().map(ToString::to_string),
            "differs": case.differs(),
            "rule": case.rule.name(),
            "sentence": case.rule.sentence(),
            "calls": case.evidence,
        }));
    }

    fn summaries(&mut self, report: &Report) {
        for summary in report.summaries() {
            let _ = write!(
                self.body,
                "<h3>{}</h3>\n<p>×: whoever overlaps is refused. #: nobody is.</p>\n\
                 <div class=\"scroll\" tabindex=\"0\" role=\"region\" aria-label=\"{0}\"><table class=\"glyphs mixes\">\
                 <tr><td></td>",
                escaped(summary.title),
            );
            for column in &summary.columns {
                let _ = write!(self.body, "<th scope=\"col\"><span>the second sets {}</span></th>", escaped(column));
            }
            self.body.push_str("</tr>\n");
            for (row, sections) in summary.rows.iter().zip(summary.sections.chunks(summary.columns.len())) {
                let _ = write!(self.body, "<tr><th scope=\"row\">{}</th>", escaped(row));
                for section in sections {
                    let glyph = section.glyph(report.is_prediction());
                    let star = if section.differs() { "*" } else { "" };
                    let class = class_of(glyph);
                    let _ = write!(self.body, "<td><span class=\"glyph {class}\">{glyph}{star}</span></td>");
                }
                self.body.push_str("</tr>\n");
            }
            self.body.push_str("</table></div>\n");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lab::Experiment;

    fn page() -> String {
        as_html(&Experiment::ALL.iter().map(|experiment| experiment.predict()).collect::<Vec<_>>())
    }

    #[test]
    fn the_page_fetches_nothing() {
        let page = page();
        for word in ["http://", "https://", "src=", "@import", "url("] {
            assert!(!page.contains(word), "{word}");
        }
    }

    #[test]
    fn every_cell_has_its_evidence_and_says_what_it_is() {
        let page = page();
        let count = page.matches("data-case=").count();
        let (_, calls) = page.split_once("id=\"calls\">").unwrap();
        let (calls, _) = calls.split_once("</script>").unwrap();
        let calls: Vec<serde_json::Value> = serde_json::from_str(&calls.replace("<\\/", "</")).unwrap();
        assert_eq!(count, calls.len());
        assert_eq!(count, page.matches("<button type=\"button\"").count());
        assert!(count > 700, "{count}");
        assert_eq!(page.matches("<svg role=\"img\" aria-labelledby=").count(), 1 + 2 * 13);
    }

    #[test]
    fn what_a_user_wrote_cannot_become_markup() {
        let mut report = Experiment::Backlog.predict();
        report.sections[0].title = "</script><script>alert(1)</script>".to_owned();
        let page = as_html(&[report]);
        assert!(!page.contains("<script>alert"));
    }
}
