//! A packet, two sockets that take it in, and an arrow to whoever gets it.

use super::drawing::Drawing;
use super::{Picture, word, word_of};
use crate::lab::report::Case;

pub(super) fn draw(picture: &Picture<'_>) -> String {
    let mut drawing = Drawing::default();
    drawing.host("client", (8, 8), (86, 92));
    drawing.host("server", (226, 8), (234, 92));
    let Some(case) = picture.row.cells.iter().flatten().next() else { return picture.finish(drawing, 108) };
    let outcome = picture.outcome(case).map(ToString::to_string);
    let says = outcome.as_deref().unwrap_or("? not tried");
    for (name, word, y) in [("first", "the first", 38), ("second", "the second", 68)] {
        let gets = says == word || says.starts_with("both");
        drawing.pill(&format!("{name}  {}", bound(case, name)), gets, (238, y), 210);
        if gets {
            drawing.arrow('#', (160, y + 10), 236);
        }
    }
    drawing.line("arrow good", (94, 54), (160, 54));
    drawing.line(
        "arrow good",
        (160, if says == "the second" { 54 } else { 48 }),
        (160, if says == "the first" { 54 } else { 78 }),
    );
    drawing.text("small middle", (160, 28), &format!("to {}", word(case, "to")));
    drawing.text("note end strong", (448, 28), says);
    picture.finish(drawing, 108)
}

fn bound(case: &Case, socket: &str) -> String {
    let address = word_of(case, socket, "address");
    match word_of(case, socket, "device") {
        "" => address.to_owned(),
        device => format!("{address}%{device}"),
    }
}
