//! A small writer of drawings that escapes what it is given.

use std::fmt::Write as _;

use super::{class_of, escaped};

/// A drawing that grows.
#[derive(Debug, Default)]
pub(super) struct Drawing {
    body: String,
}

impl Drawing {
    pub(super) fn rect(&mut self, class: &str, (x, y): (i32, i32), (width, height): (i32, i32)) {
        let _ =
            write!(self.body, r#"<rect class="{class}" x="{x}" y="{y}" width="{width}" height="{height}" rx="6"/>"#);
    }

    pub(super) fn text(&mut self, class: &str, (x, y): (i32, i32), text: &str) {
        let _ = write!(self.body, r#"<text class="{class}" x="{x}" y="{y}">{}</text>"#, escaped(text));
    }

    pub(super) fn line(&mut self, class: &str, (x1, y1): (i32, i32), (x2, y2): (i32, i32)) {
        let _ = write!(self.body, r#"<path class="{class}" d="M{x1} {y1}L{x2} {y2}"/>"#);
    }

    /// A box with a name in its corner: one of the hosts.
    pub(super) fn host(&mut self, name: &str, (x, y): (i32, i32), size: (i32, i32)) {
        self.rect("host", (x, y), size);
        self.text("name", (x + 12, y + 20), name);
    }

    /// A row of a box that is shaded where it is taken.
    pub(super) fn pill(&mut self, text: &str, taken: bool, (x, y): (i32, i32), width: i32) {
        self.rect(if taken { "pill taken" } else { "pill" }, (x, y), (width, 20));
        self.text("address", (x + 9, y + 14), text);
    }

    /// The head of an arrow that comes from the left (1) or from the right (-1).
    fn head(&mut self, class: &str, (x, y): (i32, i32), direction: i32) {
        let back = x - 7 * direction;
        let _ = write!(self.body, r#"<path class="{class} head" d="M{x} {y}L{back} {}L{back} {}Z"/>"#, y - 4, y + 4);
    }

    /// A level arrow that says how a call ended, by its shape and by its glyph.
    pub(super) fn arrow(&mut self, glyph: char, (from, y): (i32, i32), to: i32) {
        let direction = if to > from { 1 } else { -1 };
        let class = class_of(glyph);
        let middle = i32::midpoint(from, to);
        match glyph {
            '#' => {
                self.line(&format!("arrow {class}"), (from, y), (to - 6 * direction, y));
                self.head(class, (to, y), direction);
            }
            '!' => {
                self.line(&format!("arrow {class}"), (from, y - 3), (to - 6 * direction, y - 3));
                self.head(class, (to, y - 3), direction);
                // The way back ends half-way.
                self.line(&format!("arrow {class} broken"), (to, y + 5), (middle, y + 5));
                self.text(&format!("mark middle {class}"), (middle - 7 * direction, y + 10), "!");
            }
            'x' => {
                let stop = to - 9 * direction;
                self.line(&format!("arrow {class}"), (from, y), (stop - 7 * direction, y));
                self.text(&format!("mark middle {class}"), (stop, y + 5), "×");
            }
            '.' => self.line(&format!("arrow {class} broken"), (from, y), (to - 14 * direction, y)),
            other => self.text("mark middle none", (middle, y + 5), &other.to_string()),
        }
    }

    /// The whole picture; `title` is what a screen reader says in its place.
    pub(super) fn finish(self, id: &str, title: &str, (width, height): (i32, i32)) -> String {
        format!(
            r#"<svg role="img" aria-labelledby="{id}" viewBox="0 0 {width} {height}"><title id="{id}">{}</title>{}</svg>"#,
            escaped(title),
            self.body
        )
    }
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
