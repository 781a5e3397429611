//! Drawings: a small writer that escapes what it is given, and the pictures made with it.

use std::fmt::Write as _;

use super::{Case, Report, Row, Section};

/// A drawing that grows. Whatever text it is given is escaped.
#[derive(Debug, Default)]
pub(super) struct Drawing {
    body: String,
}

impl Drawing {
    fn rect(&mut self, class: &str, (x, y): (i32, i32), (width, height): (i32, i32)) {
        let _ =
            write!(self.body, r#"<rect class="{class}" x="{x}" y="{y}" width="{width}" height="{height}" rx="6"/>"#);
    }

    fn text(&mut self, class: &str, (x, y): (i32, i32), text: &str) {
        let _ = write!(self.body, r#"<text class="{class}" x="{x}" y="{y}">{}</text>"#, escaped(text));
    }

    fn line(&mut self, class: &str, (x1, y1): (i32, i32), (x2, y2): (i32, i32)) {
        let _ = write!(self.body, r#"<path class="{class}" d="M{x1} {y1}L{x2} {y2}"/>"#);
    }

    /// The head of an arrow that comes from the left (1) or from the right (-1).
    fn head(&mut self, class: &str, (x, y): (i32, i32), direction: i32) {
        let back = x - 7 * direction;
        let _ = write!(self.body, r#"<path class="{class} head" d="M{x} {y}L{back} {}L{back} {}Z"/>"#, y - 4, y + 4);
    }

    /// The whole picture; `title` is what a screen reader says in its place.
    fn finish(self, id: &str, title: &str, (width, height): (i32, i32)) -> String {
        format!(
            r#"<svg role="img" aria-labelledby="{id}" viewBox="0 0 {width} {height}"><title id="{id}">{}</title>{}</svg>"#,
            escaped(title),
            self.body
        )
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

/// The two hosts and the cables between them.
pub(super) fn topology() -> String {
    let mut drawing = Drawing::default();
    for (x, name, lines) in [
        (
            10,
            "client",
            ["lo  127.0.0.1  ::1", "eth0  198.51.100.100", "2001:db8:1::100  fe80::100", "eth1  no address", ""],
        ),
        (
            420,
            "server",
            ["lo  127.0.0.1  ::1", "eth0  198.51.100.1  .2", "2001:db8:1::1  ::2  fe80::1", "eth1  203.0.113.1", ""],
        ),
    ] {
        drawing.rect("host", (x, 10), (230, 130));
        drawing.text("name", (x + 14, 34), name);
        for (line, y) in lines.iter().zip((58..).step_by(22)) {
            drawing.text("address", (x + 14, y), line);
        }
    }
    for (y, name) in [(75, "a cable: eth0 to eth0"), (119, "a cable: eth1 to eth1")] {
        drawing.line("cable", (240, y), (420, y));
        drawing.text("note middle", (330, y - 7), name);
    }
    drawing.finish("topology", "Two hosts, client and server, joined by two cables", (660, 150))
}

/// Where the addresses of the server stand in a picture.
const PILL: (i32, i32) = (196, 150);
const FIRST: i32 = 44;
const STEP: i32 = 25;

/// One bind: the addresses of the server, those that the listener takes in shaded, and an arrow for every call, from
/// the client on the left and from a program on the server itself on the right.
pub(super) fn bind(id: &str, section: &Section, row: &Row, report: &Report) -> String {
    let glyph = |case: &Case| case.glyph(report.is_prediction());
    let (from_server, from_client): (Vec<&Case>, Vec<&Case>) =
        row.cells.iter().flatten().partition(|case| word(case, "from") == "server");
    let mut drawing = Drawing::default();
    let height = FIRST + STEP * i32::try_from(from_server.len()).unwrap_or(0) + 12;
    drawing.rect("host", (8, 8), (98, height - 16));
    drawing.text("name", (20, 28), "client");
    drawing.rect("host", (180, 8), (PILL.1 + 130, height - 16));
    drawing.text("name", (PILL.0, 28), "server");
    drawing.text("note", (372, 28), "from itself");
    for (place, (own, far)) in from_server.iter().zip(&from_client).enumerate() {
        let y = FIRST + STEP * i32::try_from(place).unwrap_or(0);
        let middle = y + 10;
        let taken = [own, far].iter().any(|case| matches!(glyph(case), '#' | '!'));
        drawing.rect(if taken { "pill taken" } else { "pill" }, (PILL.0, y), (PILL.1, 20));
        drawing.text("address", (PILL.0 + 9, y + 14), word(own, "to"));
        // A loopback address that the client dials never leaves it.
        let is_home = far.rule == crate::lab::model::Rule::LoopbackStaysHome;
        let (begin, end) = if is_home { (30, 96) } else { (106, PILL.0 - 2) };
        arrow(&mut drawing, glyph(far), (begin, middle), (end, middle));
        arrow(&mut drawing, glyph(own), (430, middle), (PILL.0 + PILL.1 + 2, middle));
    }
    let title = format!("{}, bound to {}: {}", section.title, row.name, row.why);
    drawing.finish(id, &title, (468, height))
}

/// An arrow that says how a call ended, by its shape and by its glyph.
fn arrow(drawing: &mut Drawing, glyph: char, (from, y): (i32, i32), (to, _): (i32, i32)) {
    let direction = if to > from { 1 } else { -1 };
    let class = class_of(glyph);
    match glyph {
        '#' => {
            drawing.line(&format!("arrow {class}"), (from, y), (to - 6 * direction, y));
            drawing.head(class, (to, y), direction);
        }
        '!' => {
            drawing.line(&format!("arrow {class}"), (from, y - 3), (to - 6 * direction, y - 3));
            drawing.head(class, (to, y - 3), direction);
            // The way back ends half-way.
            drawing.line(&format!("arrow {class} broken"), (to, y + 5), (i32::midpoint(from, to), y + 5));
            drawing.text(&format!("mark {class}"), (i32::midpoint(from, to) - 9 * direction - 3, y + 10), "!");
        }
        'x' => {
            let stop = to - 12 * direction;
            drawing.line(&format!("arrow {class}"), (from, y), (stop - 5 * direction, y));
            drawing.text(&format!("mark {class}"), (stop - 4, y + 4), "×");
        }
        '.' => {
            drawing.line(&format!("arrow {class} broken"), (from, y), (to - 14 * direction, y));
        }
        other => drawing.text("mark none", (i32::midpoint(from, to), y + 4), &other.to_string()),
    }
}

fn word<'a>(case: &'a Case, name: &str) -> &'a str {
    case.what.iter().find(|(known, _)| *known == name).and_then(|(_, value)| value.as_str()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_text_gets_out_of_its_place() {
        let mut drawing = Drawing::default();
        drawing.text("note", (0, 0), "</svg><script>\"'&");
        assert!(drawing.finish("x", "<b>", (1, 1)).contains("&lt;/svg&gt;&lt;script&gt;&quot;&#39;&amp;"));
    }
}
