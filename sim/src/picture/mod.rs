//! A run as a space-time diagram (Lamport 1978): one column per process, time
//! downwards, a message as an arrow from its sender to its receiver.
//!
//! One HTML file with everything in it, readable without any script; or the
//! drawing alone, as SVG, for where only images are shown.

#[cfg(test)]
pub(crate) mod check;
mod diagram;
mod scale;
mod style;
mod svg;
#[cfg(test)]
pub(crate) mod tests;

use core::fmt::Write as _;

use castra_core::time::Time;

use crate::chronicle::Chronicle;
use diagram::Diagram;
use style::DEFINITIONS;
use svg::{escape, wrap};

/// Draws a run. `rerun` is the command that runs it again. The same run gives
/// the same bytes.
#[must_use]
pub fn draw(chronicle: &Chronicle, rerun: Option<&str>) -> String {
    let title = match &chronicle.violation {
        Some(broken) => format!("A broken promise: {}", broken.promise),
        None => "A run in which every promise held".to_owned(),
    };
    let title = escape(&title);
    let mut page = String::new();
    // Writing to a string can't fail.
    let _ = write!(
        page,
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\"/>\n\
         <meta name=\"viewport\" content=\"width=device-width\"/>\n\
         <meta name=\"color-scheme\" content=\"light dark\"/>\n\
         <title>{title}</title>\n<style>{}</style>\n</head>\n<body>\n<h1>{title}</h1>\n",
        style::page()
    );
    if let Some(broken) = &chronicle.violation {
        let _ = writeln!(
            page,
            "<p class=\"broken\"><b>{}, at {}:</b> {}</p>",
            escape(&broken.promise),
            seconds(broken.at),
            escape(&chronicle.wrong().unwrap_or_default())
        );
    }
    let _ = writeln!(
        page,
        "<p>Time runs downwards. A column is a process, an arrow is a message, and the bar to the left of \
         a guest is what the broker says of it. Point at anything to read more.</p>"
    );
    let settings: Vec<_> =
        chronicle.settings.iter().map(|(name, value)| escape(&format!("{name} {value}"))).collect();
    if !settings.is_empty() {
        let _ = writeln!(page, "<p class=\"dim\">{}</p>", settings.join(" · "));
    }
    if let Some(rerun) = rerun {
        let _ = writeln!(page, "<p class=\"dim\">Again: <code>{}</code></p>", escape(rerun));
    }
    page.push_str(LEGEND);
    let diagram = Diagram::new(chronicle);
    let _ = write!(
        page,
        "<div class=\"heads\">\n{}</div>\n{}</body>\n</html>\n",
        diagram.heads().at(0.0),
        diagram.body(DEFINITIONS).at(0.0)
    );
    page
}

/// Draws a run as one image that needs nothing else. The same run gives the same bytes.
#[must_use]
pub fn svg(chronicle: &Chronicle, rerun: Option<&str>) -> String {
    let diagram = Diagram::new(chronicle);
    let heads = diagram.heads();
    let body = diagram.body(DEFINITIONS);
    let mut about: Vec<_> =
        chronicle.settings.iter().map(|(name, value)| format!("{name} {value}")).collect();
    about.push("time runs downwards; a bar is what the broker says of a guest".to_owned());
    let title = match (&chronicle.violation, chronicle.wrong()) {
        (Some(broken), Some(wrong)) => format!("{} is broken: {wrong}", broken.promise),
        _ => "A run in which every promise held".to_owned(),
    };
    let mut lines: Vec<_> = wrap(&title, 76).into_iter().map(|line| ("title", line)).collect();
    lines.push(("role", about.join("; ")));
    lines.extend(rerun.map(|rerun| ("role", format!("Again: {rerun}"))));
    let top = 16.0 + 18.0 * lines.len() as f64;
    let longest = lines.iter().map(|(_, line)| line.chars().count()).max().unwrap_or(0);
    let wide = body.wide.max(heads.wide).max(24.0 + 6.5 * longest as f64);
    let high = top + heads.high + body.high;
    let mut image = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{wide:.0}\" height=\"{high:.0}\" \
         viewBox=\"0 0 {wide:.0} {high:.0}\" role=\"img\" aria-label=\"Space-time diagram of a run\">\n\
         <style>{}</style>\n<rect class=\"ground\" width=\"{wide:.0}\" height=\"{high:.0}\"/>\n",
        style::alone()
    );
    // Writing to a string can't fail.
    for (index, (class, line)) in lines.iter().enumerate() {
        let y = 24 + index * 18;
        let _ = writeln!(image, "<text class=\"{class}\" x=\"12\" y=\"{y}\">{}</text>", escape(line));
    }
    let _ = writeln!(image, "{}{}</svg>", heads.at(top), body.at(top + heads.high));
    image
}

/// `1.204 s`, or to the microsecond where it isn't a whole millisecond.
pub(crate) fn seconds(time: Time) -> String {
    let nanos = time.as_nanos();
    let (whole, rest) = (nanos / 1_000_000_000, nanos % 1_000_000_000);
    match rest % 1_000_000 {
        0 => format!("{whole}.{:03} s", rest / 1_000_000),
        _ => format!("{whole}.{:06} s", rest / 1000),
    }
}

/// `1.204 s`, for where a millisecond is enough.
pub(crate) fn clock(time: Time) -> String {
    let millis = time.as_nanos() / 1_000_000;
    format!("{}.{:03} s", millis / 1000, millis % 1000)
}

/// How long it is from one to the other: `1.204 s`, `3.1 ms`, `40 us`.
pub(crate) fn span(from: Time, until: Time) -> String {
    let micros = until.since(from).as_micros();
    match micros {
        0..1000 => format!("{micros} us"),
        1000..100_000 => format!("{}.{} ms", micros / 1000, micros % 1000 / 100),
        _ => clock(Time::ZERO + until.since(from)),
    }
}

const LEGEND: &str = r#"<svg class="legend" width="1000" height="64" viewBox="0 0 1000 64" role="img" aria-label="Legend">
<line class="arrow" x1="4" y1="16" x2="44" y2="16" marker-end="url(#tip)"/><text x="50" y="20">message</text>
<line class="routine" x1="124" y1="16" x2="164" y2="16" marker-end="url(#tip-routine)"/><text x="172" y="20">challenge or proof</text>
<line class="late" x1="298" y1="16" x2="338" y2="16" marker-end="url(#tip-late)"/><text x="346" y="20">held back by a fault</text>
<line class="lost" x1="480" y1="16" x2="510" y2="16"/><path class="lost" d="M506 11l9 10m0 -10l-9 10"/><text x="524" y="20">never arrived</text>
<path class="bang" d="M640 21l5 -10l5 10z"/><text x="658" y="20">fault</text>
<circle class="begin" cx="714" cy="16" r="4"/><text x="726" y="20">starts</text>
<line class="end" x1="780" y1="16" x2="794" y2="16"/><text x="802" y="20">ends</text>
<line class="red" x1="846" y1="16" x2="876" y2="16"/><text x="884" y="20">broken promise</text>
<rect class="band-reach" x="4" y="38" width="40" height="10"/><text x="52" y="47">called reachable</text>
<rect class="band-wait" x="172" y="38" width="40" height="10"/><text x="220" y="47">called waiting, and why</text>
<rect class="stopped" x="372" y="36" width="40" height="14"/><text x="420" y="47">does not run</text>
<rect class="cut" x="506" y="36" width="40" height="14"/><text x="554" y="47">nothing passes</text>
<path class="edge" d="M654 39h40m-40 8h40"/><text x="702" y="47">a quiet stretch, drawn shorter than it was</text>
</svg>
"#;
