//! A result as one page that needs nothing else and reads on paper.

use std::fmt::Write as _;

use super::report::{Report, thousands, time};
use super::{ratio, whole};

const WIDTH: f64 = 760.0;
const HEIGHT: f64 = 240.0;
const MARGIN: f64 = 70.0;
/// How many bars the histogram has.
const BARS: usize = 60;

const STYLE: &str = "body{font:15px/1.5 sans-serif;max-width:50em;margin:2em auto;padding:0 1em;color:#111;background:#fff}\
table{border-collapse:collapse;margin:1em 0}td,th{border-bottom:1px solid #ccc;padding:.2em 1em .2em 0;text-align:left}\
td.n{text-align:right;font-variant-numeric:tabular-nums}svg{width:100%;height:auto}code{overflow-wrap:anywhere}";

pub(super) fn page(report: &Report) -> String {
    let counts = &report.counts;
    let latency = &report.latency;
    let mut figures = vec![
        ("replies a second", thousands(whole(report.rate))),
        ("right replies", thousands(counts.answered)),
        ("wrong replies", thousands(counts.wrong)),
        ("missing replies", thousands(counts.missing)),
        ("late, doubled, reordered", format!("{}, {}, {}", counts.late, counts.duplicates, counts.reordered)),
        ("bytes out and in", format!("{}, {}", thousands(counts.bytes_out), thousands(counts.bytes_in))),
    ];
    figures.extend(report.errors.iter().map(|(word, count)| (word.as_str(), thousands(*count))));
    let percentiles = latency.percentiles().map(|(name, value)| (name, time(value)));
    let settings = report.settings.rows().map(|(name, value)| (name, value));
    format!(
        "<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><title>greetd bench {0}</title>\
         <style>{STYLE}</style></head><body>\n<h1>greetd bench <code>{0}</code></h1>\n\
         <p>{1} replies a second over {2:.1} s; half of them within {3}, 99 % within {4}.</p>\n\
         <h2>Result</h2>{5}\n<h2>Latency</h2>{6}\n{7}\n<h2>Second by second</h2>\n{8}\n<h2>Settings</h2>{9}\n</body></html>\n",
        escaped(&report.settings.endpoint),
        thousands(whole(report.rate)),
        report.seconds,
        time(latency.p50),
        time(latency.p99),
        table(&figures),
        table(&percentiles),
        histogram(report),
        timeline(report),
        table(&settings),
    )
}

fn table(rows: &[(&str, String)]) -> String {
    let row = |(name, value): &(&str, String)| {
        format!("<tr><th>{}</th><td class=\"n\">{}</td></tr>\n", escaped(name), escaped(value))
    };
    format!("<table>\n{}</table>", rows.iter().map(row).collect::<String>())
}

/// How many replies took how long: bars of equal width on a logarithmic scale of time.
fn histogram(report: &Report) -> String {
    let (least, most) = (ratio(report.latency.min.max(1), 1), ratio(report.latency.max.max(2), 1));
    let span = (most / least).ln().max(f64::EPSILON);
    let mut bars = [0_u64; BARS];
    for (value, count) in &report.histogram {
        let place = (ratio((*value).max(1), 1) / least).ln() / span * ratio(BARS as u64, 1);
        #[expect(clippy::cast_sign_loss, reason = "no value is below the least")]
        let index = (place as usize).min(BARS - 1);
        bars[index] += count;
    }
    let highest = bars.iter().copied().max().unwrap_or(0).max(1);
    let width = (WIDTH - MARGIN) / ratio(BARS as u64, 1);
    let mut drawing = String::new();
    for (index, count) in bars.iter().enumerate().filter(|(_, count)| **count > 0) {
        let (x, height) = (MARGIN + width * ratio(index as u64, 1), (HEIGHT - 40.0) * ratio(*count, highest));
        // Writing to a text cannot fail.
        let _ = writeln!(
            drawing,
            "<rect x=\"{x:.1}\" y=\"{:.1}\" width=\"{:.1}\" height=\"{height:.1}\" fill=\"#0b5fa5\"/>",
            HEIGHT - 20.0 - height,
            width - 1.0
        );
    }
    for (quarter, anchor) in (0_u32..=4).zip(["start", "middle", "middle", "middle", "end"]) {
        let share = f64::from(quarter) / 4.0;
        #[expect(clippy::cast_sign_loss, reason = "times are positive")]
        let value = (least * (span * share).exp()) as u64;
        let x = MARGIN + (WIDTH - MARGIN) * share;
        let _ = writeln!(
            drawing,
            "<text x=\"{x:.1}\" y=\"{}\" text-anchor=\"{anchor}\">{}</text>",
            HEIGHT - 4.0,
            time(value)
        );
    }
    let _ =
        writeln!(drawing, "<text x=\"{}\" y=\"20\" text-anchor=\"end\">{}</text>", MARGIN - 6.0, thousands(highest));
    svg("how many replies took how long", &drawing)
}

/// Replies in each second as a line, failures as crosses on it.
fn timeline(report: &Report) -> String {
    let highest = report.timeline.iter().map(|second| second.answered).max().unwrap_or(0).max(1);
    let last = ratio(report.timeline.len().saturating_sub(1).max(1) as u64, 1);
    let place = |index: usize, answered: u64| {
        let x = MARGIN + (WIDTH - MARGIN - 10.0) * ratio(index as u64, 1) / last;
        (x, HEIGHT - 20.0 - (HEIGHT - 40.0) * ratio(answered, highest))
    };
    let points = report.timeline.iter().enumerate().map(|(index, second)| place(index, second.answered));
    let line: Vec<String> = points.map(|(x, y)| format!("{x:.1},{y:.1}")).collect();
    let mut drawing =
        format!("<polyline points=\"{}\" fill=\"none\" stroke=\"#0b5fa5\" stroke-width=\"2\"/>\n", line.join(" "));
    for (index, second) in report.timeline.iter().enumerate().filter(|(_, second)| second.failed > 0) {
        let (x, y) = place(index, second.answered);
        let _ = writeln!(
            drawing,
            "<text x=\"{x:.1}\" y=\"{y:.1}\" fill=\"#a00\" text-anchor=\"middle\">✕<title>{} failed</title></text>",
            second.failed
        );
    }
    let _ =
        writeln!(drawing, "<text x=\"{}\" y=\"20\" text-anchor=\"end\">{}</text>", MARGIN - 6.0, thousands(highest));
    let _ = writeln!(
        drawing,
        "<text x=\"{MARGIN}\" y=\"{0}\">1 s</text><text x=\"{1}\" y=\"{0}\" text-anchor=\"end\">{2} s</text>",
        HEIGHT - 4.0,
        WIDTH - 10.0,
        report.timeline.len()
    );
    svg("replies in each second", &drawing)
}

fn svg(title: &str, drawing: &str) -> String {
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" font-size=\"12\" role=\"img\">\
         <title>{title}</title>\n{drawing}</svg>"
    )
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use crate::load::report::tests::report;

    #[test]
    fn the_page_needs_nothing_else_and_shows_all_replies() {
        let page = report(1..=1000).html();
        assert!(page.contains("framing=&lt;lines>"));
        // The name of a format, which nothing is fetched from.
        assert_eq!(page.matches("http").count(), page.matches("http://www.w3.org/2000/svg").count());
        assert!(!page.contains("<script") && !page.contains("<link"));
        assert!(page.contains(">1,000<") && page.matches("<rect").count() > 5);
    }

    #[test]
    fn a_result_without_replies_still_makes_a_page() {
        assert!(report([]).html().contains("0 replies a second"));
    }
}
