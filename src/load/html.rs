//! A result as one page that needs nothing else and reads on paper.

use std::fmt::Write as _;

use super::report::{Report, thousands, time};
use super::tally::Second;
use super::{ratio, whole};

const WIDTH: f64 = 760.0;
const HEIGHT: f64 = 240.0;
/// Beside the drawing, for numbers; below and above it, for words.
const LEFT: f64 = 130.0;
const BELOW: f64 = 50.0;
const ABOVE: f64 = 14.0;
const PLOT_WIDTH: f64 = WIDTH - LEFT - 10.0;
const PLOT_HEIGHT: f64 = HEIGHT - BELOW - ABOVE;
/// How many bars the histogram has.
const BARS: usize = 60;

const STYLE: &str = "body{font:15px/1.5 sans-serif;max-width:50em;margin:2em auto;padding:0 1em;color:#111;background:#fff}\
table{border-collapse:collapse;margin:1em 0}td,th{border-bottom:1px solid #ccc;padding:.2em 1em .2em 0;text-align:left;\
vertical-align:top}td.n{text-align:right;font-variant-numeric:tabular-nums}svg{width:100%;height:auto;font-size:13px}\
h1,code,td{overflow-wrap:anywhere}h2{break-after:avoid}table,figure{break-inside:avoid}figure{margin:1em 0}\
@media(max-width:600px){svg{font-size:22px}h1{font-size:1.4em}}@media print{body{margin:0;font-size:12px}}";

pub(super) fn page(report: &Report) -> String {
    let latency = &report.latency;
    let percentiles = latency.percentiles().map(|(name, value)| (name.to_owned(), time(value)));
    let settings = report.settings.rows().map(|(name, value)| (name.to_owned(), value));
    let rates: Vec<f64> = report.timeline.iter().map(Second::rate).collect();
    let slowest: Vec<f64> = report.timeline.iter().map(|second| ratio(second.p99, 1)).collect();
    let unit = report.unit();
    let stopped = if report.complete { "" } else { " It was stopped before its end." };
    format!(
        "<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><meta name=\"viewport\" \
         content=\"width=device-width\"><title>greetd bench {0}</title>\
         <style>{STYLE}</style></head><body>\n<h1>greetd bench <code>{0}</code></h1>\n\
         <p>{1} {unit} a second over {2:.1} s; half of them within {3}, 99 % within {4}.{stopped}</p>\n\
         <h2>Result</h2>{5}\n<h2>Latency</h2>{6}\n{7}\n<h2>Second by second</h2>\n{8}\n{9}\n<h2>Settings</h2>{10}\n\
         </body></html>\n",
        escaped(&report.settings.endpoint),
        thousands(whole(report.rate)),
        report.seconds,
        time(latency.p50),
        time(latency.p99),
        table(&figures(report, unit)),
        table(&percentiles),
        histogram(report, unit),
        timeline(report, &format!("{unit} a second; ✕ where some failed"), &rates, |value| thousands(whole(value))),
        timeline(report, "99th percentile of the latency", &slowest, |value| time(whole(value))),
        table(&settings),
    )
}

fn figures(report: &Report, unit: &str) -> Vec<(String, String)> {
    let counts = &report.counts;
    let mut figures = vec![
        (format!("{unit} a second"), thousands(whole(report.rate))),
        (format!("right {unit}"), thousands(counts.answered)),
        ("wrong replies".to_owned(), thousands(counts.wrong)),
        ("missing replies".to_owned(), thousands(counts.missing)),
    ];
    let others = [
        ("requests not sent in time", counts.unsent),
        ("late replies", counts.late),
        ("doubled replies", counts.duplicates),
        ("reordered replies", counts.reordered),
        ("replies to nothing", counts.unasked),
    ];
    let others = others.into_iter().filter(|(_, count)| *count > 0);
    figures.extend(others.map(|(name, count)| (name.to_owned(), thousands(count))));
    if counts.bytes_out > 0 {
        figures.push(("bytes sent".to_owned(), thousands(counts.bytes_out)));
        figures.push(("bytes received".to_owned(), thousands(counts.bytes_in)));
    }
    if report.connecting.count > 0 {
        let connecting = &report.connecting;
        let value = format!("p50 {}, p99 {}, max {}", time(connecting.p50), time(connecting.p99), time(connecting.max));
        figures.push((format!("making {} connections", thousands(connecting.count)), value));
    }
    figures.push(("open at the end".to_owned(), thousands(report.open_at_end)));
    figures.extend(report.errors.iter().map(|(word, count)| {
        let reason = report.reasons.get(word).map_or(String::new(), |reason| format!(" ({reason})"));
        (format!("connections that failed: {word}"), format!("{}{reason}", thousands(*count)))
    }));
    figures
}

fn table(rows: &[(String, String)]) -> String {
    let row = |(name, value): &(String, String)| {
        format!("<tr><th>{}</th><td class=\"n\">{}</td></tr>\n", escaped(name), escaped(value))
    };
    format!("<table>\n{}</table>", rows.iter().map(row).collect::<String>())
}

/// How many replies took how long: bars of equal width on a logarithmic scale of time.
fn histogram(report: &Report, unit: &str) -> String {
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
    let width = PLOT_WIDTH / ratio(BARS as u64, 1);
    let mut drawing = String::new();
    for (index, count) in bars.iter().enumerate().filter(|(_, count)| **count > 0) {
        let (x, height) = (LEFT + width * ratio(index as u64, 1), PLOT_HEIGHT * ratio(*count, highest));
        // Writing to a text cannot fail.
        let _ = writeln!(
            drawing,
            "<rect x=\"{x:.1}\" y=\"{:.1}\" width=\"{:.1}\" height=\"{height:.1}\" fill=\"#0b5fa5\"/>",
            ABOVE + PLOT_HEIGHT - height,
            width - 1.0
        );
    }
    let share = |quarter: u32| f64::from(quarter) / 2.0;
    let marks = [0, 1, 2].map(|half| (share(half), time(whole(least * (span * share(half)).exp()))));
    axes(&mut drawing, &thousands(highest), &marks);
    svg(&format!("{unit}, by how long they took (the scale of time is logarithmic)"), &drawing)
}

/// A value for each second as a line, with crosses where something failed.
fn timeline(report: &Report, title: &str, values: &[f64], shown: fn(f64) -> String) -> String {
    let highest = values.iter().copied().fold(f64::MIN_POSITIVE, f64::max);
    let last = ratio(values.len().saturating_sub(1).max(1) as u64, 1);
    let place = |(index, value): (usize, &f64)| {
        (LEFT + PLOT_WIDTH * ratio(index as u64, 1) / last, ABOVE + PLOT_HEIGHT * (1.0 - value / highest))
    };
    let points: Vec<(f64, f64)> = values.iter().enumerate().map(place).collect();
    let line: Vec<String> = points.iter().map(|(x, y)| format!("{x:.1},{y:.1}")).collect();
    let mut drawing =
        format!("<polyline points=\"{}\" fill=\"none\" stroke=\"#0b5fa5\" stroke-width=\"2\"/>\n", line.join(" "));
    for (second, (x, y)) in report.timeline.iter().zip(&points).filter(|(second, _)| second.failed > 0) {
        let _ = writeln!(
            drawing,
            "<text x=\"{x:.1}\" y=\"{y:.1}\" fill=\"#a00\" text-anchor=\"middle\">✕<title>{} failed</title></text>",
            second.failed
        );
    }
    let marks = [(0.0, "1 s".to_owned()), (1.0, format!("{} s", values.len()))];
    axes(&mut drawing, &shown(highest), &marks[..values.len().min(2)]);
    svg(title, &drawing)
}

/// The lines from which is measured, what is highest, and some marks below.
fn axes(drawing: &mut String, highest: &str, marks: &[(f64, String)]) {
    let bottom = ABOVE + PLOT_HEIGHT;
    let _ = writeln!(
        drawing,
        "<path d=\"M{LEFT} {ABOVE}V{bottom}H{0}\" fill=\"none\" stroke=\"#888\"/>\
         <text x=\"{1}\" y=\"{2}\" text-anchor=\"end\">{highest}</text><text x=\"{1}\" y=\"{bottom}\" text-anchor=\"end\">0</text>",
        LEFT + PLOT_WIDTH,
        LEFT - 6.0,
        ABOVE + 6.0,
    );
    for (share, text) in marks {
        let anchor = if *share <= 0.0 {
            "start"
        } else if *share >= 1.0 {
            "end"
        } else {
            "middle"
        };
        let (x, y) = (LEFT + PLOT_WIDTH * share, bottom + 22.0);
        let _ = writeln!(drawing, "<text x=\"{x:.1}\" y=\"{y}\" text-anchor=\"{anchor}\">{text}</text>");
    }
}

fn svg(title: &str, drawing: &str) -> String {
    format!(
        "<figure><figcaption>{title}</figcaption><svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\">\
         <title>{title}</title>\n{drawing}</svg></figure>"
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
