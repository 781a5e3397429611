//! Curves as SVG that reads on paper: lines told apart by their dashes as well as by their colour.

use std::fmt::Write as _;

use crate::growth::Curve;
use crate::report::{thousands, time};

const WIDTH: f64 = 720.0;
const HEIGHT: f64 = 360.0;
const LEFT: f64 = 70.0;
const RIGHT: f64 = 190.0;
const TOP: f64 = 40.0;
const BOTTOM: f64 = 50.0;
const STYLES: [(&str, &str); 3] = [("#555", "6 4"), ("#0b5fa5", ""), ("#a33", "2 3")];

/// Sizes on a logarithmic scale, costs on a linear one that begins at 0.
pub(crate) fn curve(curve: &Curve) -> String {
    let points = || curve.lines.iter().flat_map(|(_, points)| points);
    let most = points().map(|(_, cost)| cost.quartiles.1).fold(1.0, f64::max) * 1.1;
    let largest = points().map(|(size, _)| f64::from(*size)).fold(10.0, f64::max).log10();
    let x = |size: u32| LEFT + (WIDTH - LEFT - RIGHT) * f64::from(size).log10() / largest;
    let y = |cost: f64| HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * cost / most;

    let mut out = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" font-family=\"sans-serif\" \
         font-size=\"12\" role=\"img\">\n<title>{0}</title>\n<rect width=\"100%\" height=\"100%\" fill=\"#fff\"/>\n\
         <text x=\"{LEFT}\" y=\"20\" font-weight=\"bold\">{0}</text>\n",
        escaped(curve.title)
    );
    // Writing to a text cannot fail.
    let _ = (|| -> std::fmt::Result {
        for step in 0..=4 {
            let cost = most * f64::from(step) / 4.0;
            let at = y(cost);
            writeln!(out, "<path d=\"M{LEFT} {at:.1}H{:.1}\" stroke=\"#ddd\"/>", WIDTH - RIGHT)?;
            let label = if step == 0 { "0".to_owned() } else { time(cost) };
            writeln!(out, "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{label}</text>", LEFT - 6.0, at + 4.0)?;
        }
        for (size, _) in &curve.lines[0].1 {
            let label = thousands(f64::from(*size));
            writeln!(
                out,
                "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{label}</text>",
                x(*size),
                HEIGHT - 30.0
            )?;
        }
        let middle = f64::midpoint(LEFT, WIDTH - RIGHT);
        writeln!(out, "<text x=\"{middle:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{}</text>", HEIGHT - 10.0, curve.of)?;
        for ((name, points), (colour, dashes)) in curve.lines.iter().zip(STYLES) {
            let path: Vec<String> =
                points.iter().map(|(size, cost)| format!("{:.1} {:.1}", x(*size), y(cost.median))).collect();
            let line = format!("fill=\"none\" stroke=\"{colour}\" stroke-width=\"2\"");
            writeln!(out, "<path d=\"M{}\" {line} stroke-dasharray=\"{dashes}\"/>", path.join("L"))?;
            for (size, cost) in points {
                let (low, high) = cost.quartiles;
                writeln!(out, "<path d=\"M{:.1} {:.1}V{:.1}\" {line}/>", x(*size), y(low), y(high))?;
            }
            if let Some((size, cost)) = points.last() {
                let (x, y) = (x(*size) + 8.0, y(cost.median) + 4.0);
                writeln!(out, "<text x=\"{x:.1}\" y=\"{y:.1}\" fill=\"{colour}\">{}</text>", escaped(name))?;
            }
        }
        Ok(())
    })();
    out + "</svg>\n"
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::statistics::Summary;

    #[test]
    fn a_flat_curve_is_drawn_flat_and_inside_of_the_picture() {
        let points = vec![(1, Summary::of([5e3])), (10, Summary::of([5e3])), (100, Summary::of([5e3]))];
        let drawn = curve(&Curve { name: "x", title: "a < b", of: "things", lines: vec![("one & all", points)] });
        assert!(drawn.contains("a &lt; b") && drawn.contains("one &amp; all"));
        let flat = y_values(&drawn);
        assert!(flat.iter().all(|y| (y - flat[0]).abs() < 0.1 && (0.0..HEIGHT).contains(y)), "{flat:?}");
    }

    fn y_values(drawn: &str) -> Vec<f64> {
        let path = drawn.lines().find(|line| line.contains("stroke-dasharray")).unwrap();
        let data = path.split('"').nth(1).unwrap().trim_start_matches('M');
        data.split('L').map(|point| point.split(' ').nth(1).unwrap().parse().unwrap()).collect()
    }
}
