//! A screen as a picture: its cells as SVG, the same bytes for the same screen.

use std::fmt::Write;

use ratatui::buffer::{Buffer, Cell};
use ratatui::style::{Color, Modifier};

/// A cell, a margin, and the bar of the window around it, in pixels.
const CELL: (f32, f32) = (8.4, 18.0);
const MARGIN: f32 = 14.0;
const BAR: f32 = 30.0;

const STYLE: &str = "\
.window { fill: #15171b; stroke: #41464f; }
.bar { fill: #24272d; }
.dot { fill: #545a66; }
text { font: 14px ui-monospace, 'DejaVu Sans Mono', Menlo, Consolas, monospace; fill: #e9ebee; white-space: pre; }
.name { fill: #a2a8b3; }
.bold { font-weight: 700; }
.green { fill: #2cc99b; }
.yellow { fill: #e6b422; }
.red { fill: #ff7a90; }
.paper { fill: #e9ebee; }
.ink { fill: #15171b; }
.faint { fill-opacity: 0.28; }
";

/// Draws `screen` in a window called `title`; `label` is for who does not see it.
pub(crate) fn svg(screen: &Buffer, title: &str, label: &str) -> String {
    let mut out = window(screen, title, label);
    for y in 0..screen.area.height {
        row(&mut out, screen, y);
    }
    out + "</svg>\n"
}

/// All but what is in it.
fn window(screen: &Buffer, title: &str, label: &str) -> String {
    let (columns, rows) = (screen.area.width, screen.area.height);
    let width = 2.0 * MARGIN + f32::from(columns) * CELL.0;
    let height = BAR + 2.0 * MARGIN + f32::from(rows) * CELL.1;
    let mut out = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width:.0} {height:.0}\" width=\"{width:.0}\" \
         height=\"{height:.0}\" role=\"img\" aria-label=\"{}\">\n<style>\n{STYLE}</style>\n",
        escape(label)
    );
    let edge = "<rect class=\"window\" x=\"0.5\" y=\"0.5\" rx=\"8\"";
    let _ = writeln!(out, "{edge} width=\"{:.0}\" height=\"{:.0}\"/>", width - 1.0, height - 1.0);
    let _ = writeln!(
        out,
        "<path class=\"bar\" d=\"M1 {BAR} V9 Q1 1 9 1 H{:.0} Q{:.0} 1 {:.0} 9 V{BAR} Z\"/>",
        width - 9.0,
        width - 1.0,
        width - 1.0
    );
    for dot in [18, 36, 54] {
        let _ = writeln!(out, "<circle class=\"dot\" cx=\"{dot}\" cy=\"15\" r=\"5\"/>");
    }
    let _ = writeln!(
        out,
        "<text class=\"name\" x=\"{:.0}\" y=\"20\" text-anchor=\"middle\">{}</text>",
        width / 2.0,
        escape(title)
    );
    out
}

/// Runs of cells that look the same.
fn row(out: &mut String, screen: &Buffer, y: u16) {
    let (top, mut x) = (BAR + MARGIN + f32::from(y) * CELL.1, 0);
    while x < screen.area.width {
        let cell = &screen[(x, y)];
        let kind = kind(cell);
        let end = (x..screen.area.width)
            .find(|next| {
                let next = &screen[(*next, y)];
                self::kind(next) != kind || class(next) != class(cell)
            })
            .unwrap_or(screen.area.width);
        let (left, wide) = (MARGIN + f32::from(x) * CELL.0, f32::from(end - x) * CELL.0);
        let class = class(cell);
        if cell.modifier.contains(Modifier::REVERSED) {
            let place =
                format!("x=\"{left:.1}\" y=\"{top:.1}\" width=\"{wide:.1}\" height=\"{:.1}\"", CELL.1);
            let _ = writeln!(out, "<rect class=\"paper\" {place}/>");
        }
        match kind {
            Kind::Blank => {}
            // Fonts draw them of any size: a rectangle is what they mean.
            Kind::Full | Kind::Empty => {
                let faint = if kind == Kind::Empty { " faint" } else { "" };
                let place =
                    format!("x=\"{left:.1}\" y=\"{:.1}\" width=\"{wide:.1}\" height=\"12\"", top + 3.0);
                let _ = writeln!(out, "<rect class=\"{class}{faint}\" {place}/>");
            }
            Kind::Text => {
                let text: String = (x..end).map(|x| screen[(x, y)].symbol()).collect();
                let class = if class.is_empty() { String::new() } else { format!(" class=\"{class}\"") };
                let place = format!("x=\"{left:.1}\" y=\"{:.1}\" textLength=\"{wide:.1}\"", top + 14.0);
                let _ = writeln!(out, "<text{class} {place}>{}</text>", escape(&text));
            }
        }
        x = end;
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Blank,
    Text,
    Full,
    Empty,
}

fn kind(cell: &Cell) -> Kind {
    match cell.symbol() {
        " " => Kind::Blank,
        "\u{2588}" => Kind::Full,
        "\u{2591}" => Kind::Empty,
        _ => Kind::Text,
    }
}

fn class(cell: &Cell) -> String {
    let color = match cell.fg {
        _ if cell.modifier.contains(Modifier::REVERSED) => "ink",
        Color::Green => "green",
        Color::Yellow => "yellow",
        Color::Red => "red",
        _ => "",
    };
    let bold = if cell.modifier.contains(Modifier::BOLD) { "bold" } else { "" };
    [color, bold].into_iter().filter(|word| !word.is_empty()).collect::<Vec<_>>().join(" ")
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}
