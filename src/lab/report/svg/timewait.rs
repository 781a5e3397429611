//! The end of a connection as a time line, and what the next server meets.

use super::drawing::Drawing;
use super::{Picture, length};
use crate::lab::model::Rule;

const CLIENT: i32 = 50;
const SERVER: i32 = 104;
const CLOSED: i32 = 190;
const AGAIN: i32 = 360;

/// How the drawn connection ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    Server,
    Client,
    Reset,
    Open,
}

/// One table: a picture of its rows together.
pub(super) fn draw(picture: &Picture<'_>) -> String {
    let section = picture.section;
    let rules: Vec<Rule> = section.cases().map(|case| case.rule).collect();
    let end = match () {
        () if rules.contains(&Rule::ClientWaits) => End::Client,
        () if rules.contains(&Rule::ResetLeavesNothing) => End::Reset,
        () if rules.contains(&Rule::TimeWait) => End::Server,
        () => End::Open,
    };
    let mut drawing = Drawing::default();
    drawing.text("note", (8, 18), "time →");
    drawing.text("name", (8, CLIENT + 5), "client");
    drawing.text("name", (8, SERVER + 5), "server");
    let over = if end == End::Open { AGAIN } else { CLOSED };
    for y in [CLIENT, SERVER] {
        drawing.line("life", (66, y), (440, y));
        drawing.rect("pill taken", (90, y - 8), (over - 90, 16));
    }
    drawing.text("small middle good", (140, CLIENT + 4), "connection");
    drawing.text("small middle good", (140, SERVER + 4), "connection");
    match end {
        End::Server => goodbye(&mut drawing, "FIN", SERVER, CLIENT, true),
        End::Client => goodbye(&mut drawing, "FIN", CLIENT, SERVER, true),
        End::Reset => goodbye(&mut drawing, "RST", SERVER, CLIENT, false),
        End::Open => {}
    }
    drawing.line("arrow none broken", (AGAIN, 24), (AGAIN, SERVER + 18));
    drawing.text("note middle", (AGAIN, 18), "a new server binds");
    let columns: Vec<&str> = section.columns.iter().map(|column| column.name.as_str()).collect();
    for (row, y) in section.rows.iter().zip((SERVER + 44..).step_by(18)) {
        let held: Vec<&str> = row
            .cells
            .iter()
            .zip(&columns)
            .filter_map(|(cell, column)| (picture.glyph(cell.as_ref()?) == 'x').then_some(*column))
            .collect();
        let untried = row.cells.iter().flatten().all(|case| picture.glyph(case) == '?');
        let (class, says) = match (held.is_empty(), untried) {
            (_, true) => ("none", "? not tried".to_owned()),
            (true, _) => ("good", "# free".to_owned()),
            (false, _) => ("bad", format!("x on {}", held.join(", "))),
        };
        drawing.text("small", (8, y), &row.name);
        drawing.text(&format!("small {class}"), (196, y), &says);
    }
    picture.finish(drawing, SERVER + 44 + 18 * length(&section.rows))
}

/// The last word of a connection, and who has to wait for a minute because of it.
fn goodbye(drawing: &mut Drawing, word: &str, from: i32, to: i32, waits: bool) {
    let class = if waits { "arrow lost" } else { "arrow bad" };
    drawing.line(class, (CLOSED, from), (CLOSED + 26, to));
    drawing.text("note", (CLOSED + 18, i32::midpoint(from, to) + 4), word);
    if waits {
        drawing.rect("waiting", (CLOSED + 2, from - 8), (220, 16));
        drawing.text("small middle lost", (CLOSED + 84, from + 4), "TIME_WAIT, a minute");
    }
}
