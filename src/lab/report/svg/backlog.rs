//! The queue of a listener that never accepts: whoever is in it, and whoever waits outside without a word.

use super::drawing::Drawing;
use super::{Picture, count};

/// So many places of a queue are drawn one by one.
const SHOWN: u64 = 7;

pub(super) fn draw(picture: &Picture<'_>) -> String {
    let mut counts = picture.row.cells.iter().flatten().map(|case| count(picture.outcome(case)));
    let mut next = || counts.next().flatten().unwrap_or_default();
    let (complete, waiting, refused, let_in) = (next(), next(), next(), next());
    let mut drawing = Drawing::default();
    drawing.host("clients", (8, 8), (86, 134));
    drawing.host("server", (214, 8), (246, 134));
    drawing.text("note end", (448, 28), &picture.row.name);
    let drawn = if complete > SHOWN { SHOWN - 1 } else { complete };
    let mut x = 228;
    for _ in 0..drawn {
        drawing.rect("pill taken", (x, 42), (24, 26));
        drawing.text("middle small good", (x + 12, 59), "#");
        x += 30;
    }
    if complete > drawn {
        drawing.text("address", (x + 2, 59), "…");
    }
    drawing.text("note", (228, 84), &format!("{complete} complete and wait to be accepted"));
    drawing.arrow('#', (94, 55), 212);
    drawing.text("note middle", (153, 48), &format!("{complete} connect"));
    drawing.arrow('.', (94, 108), 212);
    drawing.text("note middle", (153, 101), &format!("{waiting} wait"));
    drawing.text("note middle", (153, 126), "SYN dropped");
    let refusals = if refused == 0 { "nobody is refused".to_owned() } else { format!("{refused} are refused") };
    drawing.text("note", (228, 112), &format!("queue full: {refusals}"));
    drawing.text("note", (228, 130), &format!("after accept(): {let_in} more get in"));
    picture.finish(drawing, 150)
}
