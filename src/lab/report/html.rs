//! Reports as one page that stands for itself: it fetches nothing, works without a network, and prints.

mod data;

use std::fmt::Write as _;

use super::svg::{self, class_of, escaped};
use super::text::difference;
use super::{Case, Report, Row, Section, Shown};
use data::Data;

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
    let calls = page.data.as_json().to_string().replace("</", "<\\/");
    format!(
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <meta name=\"color-scheme\" content=\"light dark\">\n<title>{title}</title>\n<style>\n{STYLE}</style>\n</head>\n\
         <body>\n<a class=\"skip\" href=\"#content\">To the results</a>\n<header>\n<h1>{title}</h1>\n\
         <p>Predicted by a model, tried on the kernel that is running, in two hosts that existed for the moment. \
         Choose a cell to see the system calls behind it.</p>\n<figure class=\"topology\">{topology}</figure>\n\
         {contents}</header>\n<main id=\"content\">\n{body}</main>\n\
         <aside id=\"evidence\" aria-label=\"The system calls behind a cell\" hidden>\
         <button type=\"button\" class=\"close\">close</button>\
         <div class=\"matrix\"></div><div class=\"details\" aria-live=\"polite\"></div></aside>\n\
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
    data: Data,
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
            let _ = writeln!(self.body, "<p class=\"limit\">{}</p>", escaped(&difference(report, case)));
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
        let id = self.next_drawing();
        if let Some(drawing) = svg::of_section(&id, section, report) {
            let _ = writeln!(self.body, "<figure class=\"whole\">{drawing}</figure>");
        }
        self.gallery(section, report);
        self.table(section, report);
    }

    fn next_drawing(&mut self) -> String {
        self.drawings += 1;
        format!("drawing-{}", self.drawings)
    }

    /// A drawing of every row, with its sentence.
    fn gallery(&mut self, section: &Section, report: &Report) {
        let mut figures = String::new();
        for row in &section.rows {
            let id = self.next_drawing();
            if let Some(drawing) = svg::of_row(&id, section, row, report) {
                let (name, why) = (escaped(&row.name), escaped(&row.why));
                let _ = writeln!(figures, "<figure><figcaption><b>{name}</b> {why}</figcaption>{drawing}</figure>");
            }
        }
        if !figures.is_empty() {
            let _ = writeln!(self.body, "<div class=\"gallery\">\n{figures}</div>");
        }
    }

    fn table(&mut self, section: &Section, report: &Report) {
        let kind = if section.shown == Shown::Glyphs { "glyphs" } else { "words" };
        let _ = writeln!(
            self.body,
            "<div class=\"scroll\" tabindex=\"0\" role=\"region\" aria-label=\"{}\"><table class=\"{kind}\"><thead>",
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
        self.body.push_str("<th scope=\"col\" class=\"why\">why</th></tr></thead>\n<tbody>\n");
        for row in &section.rows {
            self.row(section, row, report, groups.first().map_or(0, |group| group.len()));
        }
        self.body.push_str("</tbody></table></div>\n");
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
            self.data.case(&heading, case),
            escaped(&heading),
            escaped(&outcome),
            escaped(&shown),
        );
    }

    /// Each table as a stamp that opens it.
    fn summaries(&mut self, report: &Report) {
        for summary in report.summaries() {
            let _ = write!(
                self.body,
                "<h3>{}</h3>\n<p>Each stamp is a table like the first one, rows and columns in the same order. \
                 <b>x</b>: whoever overlaps is refused. <b>#</b>: nobody is. Choose one to open it.</p>\n\
                 <div class=\"scroll\" tabindex=\"0\" role=\"region\" aria-label=\"{0}\"><table class=\"mixes\">\
                 <tr><td></td>",
                escaped(summary.title),
            );
            for column in &summary.columns {
                let _ = write!(self.body, "<th scope=\"col\">the second sets {}</th>", escaped(column));
            }
            self.body.push_str("</tr>\n");
            for (row, sections) in summary.rows.iter().zip(summary.sections.chunks(summary.columns.len())) {
                let _ = write!(self.body, "<tr><th scope=\"row\">{}</th>", escaped(row));
                for section in sections {
                    self.stamp(section, report);
                }
                self.body.push_str("</tr>\n");
            }
            self.body.push_str("</table></div>\n");
        }
    }

    fn stamp(&mut self, section: &Section, report: &Report) {
        let glyph = section.glyph(report.is_prediction());
        let (star, differs) = if section.differs() { ("*", "differs ") } else { ("", "") };
        let says = match glyph {
            'x' => "whoever overlaps is refused",
            '#' => "nobody is refused",
            _ => "not tried",
        };
        let title = section.summed_at.as_ref().map_or_else(
            || section.title.clone(),
            |[of, row, column]| format!("{of}: {row}, the second sets {column}"),
        );
        let _ = write!(
            self.body,
            "<td><button type=\"button\" class=\"{differs}glyph {}\" data-table=\"{}\" aria-label=\"{}: {says}\">\
             {}<span>{glyph}{star}</span></button></td>",
            class_of(glyph),
            self.data.table(&title, section, report),
            escaped(&title),
            svg::stamp(section, report.is_prediction()),
        );
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
        let (_, data) = page.split_once("id=\"calls\">").unwrap();
        let (data, _) = data.split_once("</script>").unwrap();
        let data: serde_json::Value = serde_json::from_str(&data.replace("<\\/", "</")).unwrap();
        let count = |of: &str| data[of].as_array().unwrap().len();
        let (cells, stamps) = (page.matches("data-case=").count(), page.matches("data-table=").count());
        assert_eq!((stamps, count("tables")), (48, 48));
        assert_eq!(count("cases"), cells + 48 * 81, "every pair behind a stamp is there too");
        assert_eq!(cells + stamps + 1, page.matches("<button type=\"button\"").count());
        assert!(cells > 700, "{cells}");
    }

    #[test]
    fn every_experiment_is_drawn() {
        for experiment in Experiment::ALL {
            let page = as_html(&[experiment.predict()]);
            // The picture of the two hosts is on every page.
            assert!(page.matches("<svg role=\"img\" aria-labelledby=").count() > 1, "{}", experiment.name());
        }
    }

    #[test]
    fn what_does_not_apply_is_a_dash() {
        assert!(as_html(&[Experiment::ReusePort.predict()]).contains("<span class=\"glyph none\">-</span>"));
    }

    #[test]
    fn what_a_user_wrote_cannot_become_markup() {
        let mut report = Experiment::Backlog.predict();
        report.sections[0].title = "</script><script>alert(1)</script>".to_owned();
        let page = as_html(&[report]);
        assert!(!page.contains("<script>alert"));
    }
}
