//! The shares of a group's members as bars.

use super::drawing::Drawing;
use super::{Picture, fact};
use crate::lab::model::Rule;
use crate::lab::report::Case;

const FLOOR: i32 = 112;
const TALLEST: i64 = 58;

pub(super) fn draw(picture: &Picture<'_>) -> String {
    let mut drawing = Drawing::default();
    for (cell, (name, left)) in picture.row.cells.iter().zip([("TCP", 8), ("UDP", 240)]) {
        drawing.host(name, (left, 8), (220, 138));
        match cell {
            Some(case) => bars(&mut drawing, picture, case, left),
            None => drawing.text("note middle", (left + 110, 84), "- does not apply"),
        }
    }
    picture.finish(drawing, 154)
}

fn bars(drawing: &mut Drawing, picture: &Picture<'_>, case: &Case, left: i32) {
    let counts: Vec<i64> = fact(case, "counts")
        .and_then(|counts| counts.as_array())
        .map(|counts| counts.iter().filter_map(serde_json::Value::as_i64).collect())
        .unwrap_or_default();
    let most = counts.iter().copied().max().unwrap_or(0).max(1);
    let first_is = match case.rule {
        Rule::StalledMember => Some(("lost", "stalled")),
        Rule::CloseLosesQueue | Rule::CloseLosesDatagrams | Rule::QueueMigrates => Some(("bad", "closed")),
        _ => None,
    };
    for (member, x) in (0..4).zip((left + 16..).step_by(50)) {
        let count = counts.get(member).copied();
        let height = count.map_or(TALLEST, |count| count * TALLEST / most) as i32;
        let fate = first_is.filter(|_| member == 0);
        let class = fate.map_or("good", |(class, _)| class);
        let known = if count.is_some() { "" } else { " broken" };
        drawing.rect(&format!("bar {class}{known}"), (x, FLOOR - height.max(2)), (38, height.max(2)));
        let label = count.map_or_else(|| "?".to_owned(), |count| count.to_string());
        drawing.text("small middle", (x + 19, FLOOR - height.max(2) - 4), &label);
        if let Some((class, word)) = fate {
            drawing.text(&format!("note middle {class}"), (x + 19, FLOOR + 13), word);
        }
    }
    let outcome = picture.outcome(case).map_or_else(|| "? not tried".to_owned(), ToString::to_string);
    drawing.text("note middle strong", (left + 110, FLOOR + 28), &outcome);
}
