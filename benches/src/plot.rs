//! The growth of costs as a picture: an SVG file that needs nothing else, for
//! light and dark pages. Guests to the right, each step ten times as many;
//! upwards, how many times the cost beside a thousand guests, each step twice.

use std::fmt::Write;

use crate::growth::{COSTS, Row, base};

const WIDTH: f64 = 790.0;
const HEIGHT: f64 = 430.0;
const LEFT: f64 = 56.0;
const RIGHT: f64 = 520.0;
const TOP: f64 = 74.0;
const BOTTOM: f64 = 372.0;
/// From one label's baseline to the next.
const LINE: f64 = 17.0;

/// Okabe and Ito's colours, which colour-blind people tell apart; on paper and on a dark screen.
const COLOURS: [(&str, &str); COSTS.len()] = [
    ("#8a3f7d", "#d99acb"),
    ("#0072b2", "#56b4e9"),
    ("#b35900", "#e69f00"),
    ("#00785a", "#2cc99b"),
    ("#5b616b", "#a2a8b3"),
    ("#b8003a", "#ff7a90"),
];
/// Markers say the same again.
const MARKERS: [&str; COSTS.len()] = [
    "M-4-4h8v8h-8z",
    "M-4.5 0a4.5 4.5 0 1 0 9 0a4.5 4.5 0 1 0-9 0z",
    "M0-5.5L5 4H-5z",
    "M0-5.5L5.5 0L0 5.5L-5.5 0z",
    "M-4.5-4.5L4.5 4.5M-4.5 4.5L4.5-4.5",
    "M0 5.5L5-4H-5z",
];

/// The picture of these rows, of which there is at least one.
#[must_use]
pub fn plot(rows: &[Row]) -> String {
    let base = base(rows);
    let ratios: Vec<_> = rows.iter().map(|row| (row.guests, row.ratios(base))).collect();
    let axes = Axes::new(&ratios);
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" width=\"{WIDTH}\" \
         height=\"{HEIGHT}\" role=\"img\" aria-label=\"Cost by number of guests\">\n<style>\n{}</style>\n\
         <rect class=\"ground\" width=\"100%\" height=\"100%\"/>\n\
         <text class=\"title\" x=\"{LEFT}\" y=\"28\">What one guest costs beside how many others</text>\n\
         <text class=\"dim\" x=\"{LEFT}\" y=\"48\">the broker's engine alone; cost beside {} guests = 1</text>\n",
        style(),
        thousands(base.guests)
    );
    axes.draw(&mut svg);
    let ends = labels(&ratios, &axes);
    for (cost, name) in COSTS.iter().enumerate() {
        let points: Vec<_> =
            ratios.iter().map(|(guests, ratios)| (axes.x(*guests), axes.y(ratios[cost]))).collect();
        let path: Vec<_> = points.iter().map(|(x, y)| format!("{x:.1} {y:.1}")).collect();
        let _ = writeln!(svg, "<path class=\"line c{cost}\" d=\"M{}\"/>", path.join("L"));
        for ((x, y), row) in points.iter().zip(rows) {
            let _ = writeln!(
                svg,
                "<path class=\"mark m{cost}\" transform=\"translate({x:.1} {y:.1})\" d=\"{}\"><title>{}: {} beside {} guests</title></path>",
                MARKERS[cost],
                name,
                amount(cost, row.costs[cost]),
                thousands(row.guests)
            );
        }
        let Some((last, row)) = points.last().zip(rows.last()) else { continue };
        let (x, y) = (RIGHT + 22.0, ends[cost]);
        let _ = writeln!(
            svg,
            "<path class=\"lead c{cost}\" d=\"M{:.1} {:.1}L{:.1} {:.1}\"/>\n\
             <text class=\"label t{cost}\" x=\"{x:.1}\" y=\"{:.1}\">{name} <tspan class=\"dim\">×{:.2}, {}</tspan></text>",
            last.0 + 7.0,
            last.1,
            x - 4.0,
            y,
            y + 4.0,
            row.ratios(base)[cost],
            amount(cost, row.costs[cost]),
        );
    }
    svg.push_str("</svg>\n");
    svg
}

/// From guests and ratios to places.
struct Axes {
    guests: (f64, f64),
    /// Powers of two.
    ratios: (i32, i32),
}

impl Axes {
    fn new(ratios: &[(usize, [f64; COSTS.len()])]) -> Self {
        let guests = || ratios.iter().map(|(guests, _)| (*guests as f64).log10());
        let most = guests().fold(f64::NEG_INFINITY, f64::max);
        let least = guests().fold(f64::INFINITY, f64::min);
        let all = || ratios.iter().flat_map(|(_, ratios)| ratios).filter(|ratio| **ratio > 0.0);
        let high = all().fold(2.0, |most: f64, ratio| most.max(*ratio)).log2().ceil() as i32;
        let low = all().fold(0.5, |least: f64, ratio| least.min(*ratio)).log2().floor() as i32;
        Self { guests: (least, most.max(least + 1.0)), ratios: (low, high) }
    }

    fn x(&self, guests: usize) -> f64 {
        let (least, most) = self.guests;
        LEFT + (RIGHT - LEFT) * ((guests as f64).log10() - least) / (most - least)
    }

    /// A cost that is no number, or nothing, is at the bottom.
    fn y(&self, ratio: f64) -> f64 {
        let (low, high) = (f64::from(self.ratios.0), f64::from(self.ratios.1));
        let part = (ratio.log2() - low) / (high - low);
        if part.is_finite() { BOTTOM - (BOTTOM - TOP) * part } else { BOTTOM }
    }

    fn draw(&self, svg: &mut String) {
        for power in self.ratios.0..=self.ratios.1 {
            let y = self.y(f64::from(power).exp2());
            let class = if power == 0 { "one" } else { "grid" };
            let word = if power < 0 { format!("1/{}", 1 << -power) } else { format!("×{}", 1 << power) };
            let _ = writeln!(
                svg,
                "<path class=\"{class}\" d=\"M{LEFT} {y:.1}H{RIGHT}\"/>\n\
                 <text class=\"tick\" x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{word}</text>",
                LEFT - 10.0,
                y + 4.0
            );
        }
        for power in self.guests.0.ceil() as u32..=self.guests.1.floor() as u32 {
            let guests = 10_usize.pow(power);
            let x = self.x(guests);
            let _ = writeln!(
                svg,
                "<path class=\"grid\" d=\"M{x:.1} {BOTTOM}v5\"/>\n\
                 <text class=\"tick\" x=\"{x:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{}</text>",
                BOTTOM + 20.0,
                thousands(guests)
            );
        }
        let _ = writeln!(
            svg,
            "<text class=\"dim\" x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"middle\">guests</text>",
            f64::midpoint(LEFT, RIGHT),
            BOTTOM + 42.0
        );
    }
}

/// The heights of the labels behind the last points, apart from each other.
fn labels(ratios: &[(usize, [f64; COSTS.len()])], axes: &Axes) -> [f64; COSTS.len()] {
    let Some((_, last)) = ratios.last() else { return [BOTTOM; COSTS.len()] };
    let mut heights: [f64; COSTS.len()] = std::array::from_fn(|cost| axes.y(last[cost]));
    let mut order: Vec<_> = (0..COSTS.len()).collect();
    order.sort_by(|a, b| heights[*a].total_cmp(&heights[*b]));
    let mut least = f64::NEG_INFINITY;
    for &cost in &order {
        heights[cost] = heights[cost].max(least);
        least = heights[cost] + LINE;
    }
    // What was pushed out at the bottom goes back up.
    let mut most = BOTTOM;
    for &cost in order.iter().rev() {
        heights[cost] = heights[cost].min(most);
        most = heights[cost] - LINE;
    }
    heights
}

fn amount(cost: usize, amount: f64) -> String {
    match (cost, amount) {
        (0, bytes) => format!("{bytes:.0} B"),
        (_, nanos) if nanos >= 1000.0 => format!("{:.1} µs", nanos / 1000.0),
        (_, nanos) if nanos >= 10.0 => format!("{nanos:.0} ns"),
        (_, nanos) => format!("{nanos:.1} ns"),
    }
}

/// With thin spaces.
fn thousands(number: usize) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push('\u{2009}');
        }
        text.push(digit);
    }
    text
}

/// Not every program that shows a picture knows variables: the colours are written out.
fn style() -> String {
    let rules = |dark: bool| {
        let pick = |light: &'static str, night: &'static str| if dark { night } else { light };
        let (ground, ink) = (pick("#ffffff", "#15171b"), pick("#1b1d21", "#e9ebee"));
        let (dim, faint) = (pick("#5b616b", "#a2a8b3"), pick("#dfe3e8", "#33373f"));
        let mut rules = format!(
            ".ground {{ fill: {ground}; }}\n\
             text {{ font: 12px system-ui, sans-serif; fill: {ink}; }}\n\
             .title {{ font-size: 15px; font-weight: 700; }}\n\
             .dim, .tick {{ fill: {dim}; font-weight: 400; }}\n\
             .tick, .label {{ font-variant-numeric: tabular-nums; }}\n\
             .label {{ font-weight: 600; }}\n\
             .grid {{ stroke: {faint}; fill: none; }}\n\
             .one {{ stroke: {dim}; fill: none; stroke-dasharray: 3 3; }}\n\
             .line {{ fill: none; stroke-width: 2; stroke-linejoin: round; }}\n\
             .lead {{ fill: none; stroke-width: 1; opacity: 0.5; }}\n\
             .mark {{ stroke: {ground}; stroke-width: 1.2; }}\n"
        );
        for (cost, (light, night)) in COLOURS.into_iter().enumerate() {
            let colour = pick(light, night);
            let _ =
                writeln!(rules, ".c{cost} {{ stroke: {colour}; }} .m{cost}, .t{cost} {{ fill: {colour}; }}");
        }
        // A cross has no inside.
        let _ = writeln!(rules, ".m4 {{ stroke: {}; stroke-width: 2; }}", pick(COLOURS[4].0, COLOURS[4].1));
        rules
    };
    format!("{}@media (prefers-color-scheme: dark) {{\n{}}}\n", rules(false), rules(true))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows() -> Vec<Row> {
        let row = |guests, factor: f64| Row {
            guests,
            costs: [100.0, 50.0, 200.0, 10.0, 5.0, 20.0].map(|cost| cost * factor),
        };
        vec![row(10, 0.9), row(1000, 1.0), row(100_000, 3.0)]
    }

    #[test]
    fn labels_do_not_cover_each_other_and_stay_inside() {
        let ratios: Vec<_> = rows().iter().map(|row| (row.guests, row.ratios(base(&rows())))).collect();
        let mut heights = labels(&ratios, &Axes::new(&ratios));
        heights.sort_by(f64::total_cmp);
        assert!(heights.windows(2).all(|pair| pair[1] - pair[0] >= LINE - 0.01), "{heights:?}");
        assert!(heights[0] > TOP && heights[COSTS.len() - 1] <= BOTTOM, "{heights:?}");
    }

    #[test]
    fn the_picture_names_every_line_with_its_last_cost() {
        let svg = plot(&rows());
        for name in COSTS {
            assert!(svg.contains(&format!("{name} <tspan class=\"dim\">×3.00, ")), "{name}");
        }
        assert!(svg.contains("100\u{2009}000</text>") && svg.contains("×4</text>"));
        assert!(!svg.contains("NaN") && !svg.contains("inf"));
    }
}
