//! One bind: the addresses of the server, those that the listener takes in shaded, and an arrow for every call, from
//! the client on the left and from a program on the server itself on the right.

use super::drawing::Drawing;
use super::{Picture, length, word};
use crate::lab::model::Rule;
use crate::lab::report::Case;

/// Where the addresses of the server stand.
const PILL: (i32, i32) = (196, 150);
const FIRST: i32 = 44;
const STEP: i32 = 25;

pub(super) fn draw(picture: &Picture<'_>) -> String {
    let (from_server, from_client): (Vec<&Case>, Vec<&Case>) =
        picture.row.cells.iter().flatten().partition(|case| word(case, "from") == "server");
    let mut drawing = Drawing::default();
    let height = FIRST + STEP * length(&from_server) + 12;
    drawing.host("client", (8, 8), (98, height - 16));
    drawing.host("server", (180, 8), (PILL.1 + 130, height - 16));
    drawing.text("note", (372, 28), "from itself");
    for ((own, far), y) in from_server.iter().zip(&from_client).zip((FIRST..).step_by(STEP as usize)) {
        let middle = y + 10;
        let (own_glyph, far_glyph) = (picture.glyph(own), picture.glyph(far));
        let taken = [own_glyph, far_glyph].iter().any(|glyph| matches!(glyph, '#' | '!'));
        drawing.pill(word(own, "to"), taken, (PILL.0, y), PILL.1);
        // A loopback address that the client dials never leaves it.
        let (begin, end) = if far.rule == Rule::LoopbackStaysHome { (24, 92) } else { (106, PILL.0 - 2) };
        drawing.arrow(far_glyph, (begin, middle), end);
        drawing.arrow(own_glyph, (430, middle), PILL.0 + PILL.1 + 2);
    }
    picture.finish(drawing, height)
}
