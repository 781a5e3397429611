//! A question, and the address that its answer comes from: without and with `IP_PKTINFO`.

use super::drawing::Drawing;
use super::{Picture, word};

pub(super) fn draw(picture: &Picture<'_>) -> String {
    let mut drawing = Drawing::default();
    drawing.host("client", (8, 8), (86, 156));
    drawing.host("server", (366, 8), (94, 156));
    for (case, (mode, y)) in picture.row.cells.iter().flatten().zip([("plain", 50), ("with IP_PKTINFO", 122)]) {
        let answer = picture.outcome(case).map(ToString::to_string);
        drawing.text("note", (378, y + 2), mode.split_once(' ').map_or(mode, |(_, option)| option));
        drawing.text("small middle", (230, y - 12), &format!("to {}", word(case, "to")));
        drawing.arrow('#', (94, y - 6), 364);
        let Some(answer) = answer else {
            drawing.text("mark middle none", (230, y + 14), "?");
            continue;
        };
        if let Some(from) = answer.strip_suffix(", lost") {
            drawing.text("small middle lost", (230, y + 28), &format!("from {from}"));
            drawing.arrow('.', (364, y + 12), 110);
            drawing.text("mark middle lost", (112, y + 17), "!");
            drawing.text("note", (20, y + 16), "drops it");
        } else {
            drawing.text("small middle good", (230, y + 28), &format!("from {answer}"));
            drawing.arrow('#', (364, y + 12), 96);
            drawing.text("note", (20, y + 16), "takes it");
        }
    }
    picture.finish(drawing, 172)
}
