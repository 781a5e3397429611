//! What each bind takes in: two of them meet where a column is shaded in both rows.

use std::fmt::Write as _;

use super::drawing::Drawing;
use super::{escaped, length, word_of};
use crate::lab::report::{Report, Section};

const FIRST: i32 = 84;
const STEP: i32 = 25;
const LEFT: i32 = 160;
const COLUMN: i32 = 92;

/// The columns are the specific addresses; a bind takes one in if it is refused beside it.
pub(super) fn draw(id: &str, section: &Section, report: &Report) -> String {
    let own = |place: usize| section.rows[place].cells[place].as_ref();
    let address = |place: usize| own(place).map_or("", |case| word_of(case, "first", "address"));
    let is_specific = |place: &usize| {
        let address = address(*place).parse::<std::net::IpAddr>();
        address.is_ok_and(|ip| !ip.is_unspecified() && ip.to_canonical() == ip)
    };
    // IPv4 first, so that what a family is shows as one run of columns.
    let mut specific: Vec<usize> = (0..section.rows.len()).filter(is_specific).collect();
    specific.sort_by_key(|place| address(*place).contains(':'));
    let in_v4: Vec<_> = specific.iter().filter(|place| !address(**place).contains(':')).collect();
    let of_v4 = length(&in_v4);
    let mut drawing = Drawing::default();
    let width = LEFT + COLUMN * length(&specific) + 12;
    drawing.host("IPv4", (LEFT - 6, 8), (COLUMN * of_v4, 30));
    drawing.host("IPv6", (LEFT + COLUMN * of_v4 + 2, 8), (COLUMN * (length(&specific) - of_v4), 30));
    let columns: Vec<(i32, usize)> =
        (LEFT..).step_by(COLUMN.unsigned_abs() as usize).zip(specific.iter().copied()).collect();
    for (x, place) in &columns {
        drawing.text("small middle", (x + COLUMN / 2 - 6, 62), address(*place));
    }
    for (row, y) in section.rows.iter().zip((FIRST - 6..).step_by(STEP as usize)) {
        drawing.text("address end", (LEFT - 16, y + 14), &row.name);
        for (x, place) in &columns {
            let meets = row.cells[*place].as_ref().is_some_and(|case| case.glyph(report.is_prediction()) == 'x');
            drawing.rect(if meets { "pill taken" } else { "pill" }, (*x, y), (COLUMN - 12, 20));
            if meets {
                drawing.text("small middle good", (x + COLUMN / 2 - 6, y + 14), "takes it in");
            }
        }
    }
    let title = "What each bind takes in. Two of them meet where a column is shaded in both rows.";
    drawing.finish(id, title, (width, FIRST + STEP * length(&section.rows)))
}

/// A whole table as small as a stamp: a dot for every pair that is refused.
pub(in crate::lab::report) fn stamp(section: &Section, only_predicted: bool) -> String {
    let (mut refused, mut allowed) = (String::new(), String::new());
    for (y, row) in section.rows.iter().enumerate() {
        for (x, case) in row.cells.iter().enumerate().filter_map(|(x, cell)| Some((x, cell.as_ref()?))) {
            let dots = if case.glyph(only_predicted) == 'x' { &mut refused } else { &mut allowed };
            let _ = write!(dots, "M{x}.1 {y}.1h.8v.8h-.8z");
        }
    }
    let size = section.rows.len();
    format!(
        r#"<svg class="stamp" aria-hidden="true" viewBox="0 0 {size} {size}"><path class="dots good" d="{}"/><path class="dots bad" d="{}"/></svg>"#,
        escaped(&allowed),
        escaped(&refused)
    )
}
