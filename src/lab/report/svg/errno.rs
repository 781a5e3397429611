//! The obstacle on the wire, and what each kind of client hears of it.

use super::drawing::Drawing;
use super::{Picture, class_of, word};

pub(super) fn draw(picture: &Picture<'_>) -> Option<String> {
    let first = picture.row.cells.iter().flatten().next()?;
    let stop = match word(first, "where") {
        "client" => 84,
        "cable" => 150,
        "router" => 226,
        "server" => 372,
        _ => return None,
    };
    let mut drawing = Drawing::default();
    drawing.host("client", (8, 8), (92, 66));
    drawing.host("router", (196, 8), (78, 66));
    drawing.host("server", (370, 8), (90, 66));
    drawing.line("cable", (100, 52), (196, 52));
    drawing.line("cable", (274, 52), (370, 52));
    drawing.line("arrow none", (24, 42), (stop - 8, 42));
    let outcome = picture.outcome(first)?.to_string();
    let silent = outcome == "timeout";
    drawing.text(
        if silent { "mark middle lost" } else { "mark middle bad" },
        (stop + 1, 47),
        if silent { "●" } else { "×" },
    );
    if !silent {
        drawing.line("arrow bad broken", (stop - 8, 62), (24, 62));
    }
    let callers = picture.section.columns.iter().map(|column| column.name.as_str());
    for ((cell, caller), place) in picture.row.cells.iter().zip(callers).zip(0..) {
        let Some(case) = cell else { continue };
        let (x, y) = (8 + 232 * (place % 2), 96 + 20 * (place / 2));
        let heard = picture.outcome(case).map_or_else(|| "?".to_owned(), ToString::to_string);
        drawing.text("note", (x, y), caller);
        drawing.text(&format!("small {}", class_of(picture.glyph(case))), (x + 92, y), &heard);
    }
    Some(picture.finish(drawing, 126))
}
