//! The measured latencies as a picture: for a terminal, and as SVG.

use core::fmt::Write as _;
use core::time::Duration;

use super::Measured;

/// Bars of the histogram.
const BARS: usize = 20;

/// Width of the longest bar in characters.
const WIDTH: u64 = 50;

struct Histogram {
    /// Lower edge of the first bar, and what one covers, in microseconds.
    low: u64,
    step: u64,
    counts: [u64; BARS],
}

/// Covers everything measured, and the window.
fn histogram(measured: &Measured, window: Duration) -> Histogram {
    let micros = |span: &Duration| u64::try_from(span.as_micros()).unwrap_or(u64::MAX);
    let all: Vec<u64> = measured.latencies.iter().map(micros).collect();
    let window = micros(&window);
    let low = all.iter().copied().min().unwrap_or(0).min(window);
    let high = all.iter().copied().max().unwrap_or(0).max(window);
    let step = ((high - low) / BARS as u64 + 1).max(1);
    let mut counts = [0; BARS];
    for value in all {
        counts[((value - low) / step) as usize] += 1;
    }
    Histogram { low, step, counts }
}

/// A histogram of the detection latencies, a line a bar, all ASCII; the
/// window's bar says so. Empty without any latency.
#[must_use]
pub fn text(measured: &Measured, window: Duration) -> Vec<String> {
    if measured.latencies.is_empty() {
        return Vec::new();
    }
    let bars = histogram(measured, window);
    let most = bars.counts.iter().copied().max().unwrap_or(1).max(1);
    let window = u64::try_from(window.as_micros()).unwrap_or(u64::MAX);
    let mut lines = Vec::new();
    for (index, count) in bars.counts.into_iter().enumerate() {
        let from = bars.low + index as u64 * bars.step;
        let bar = "#".repeat(usize::try_from((count * WIDTH).div_ceil(most)).unwrap_or(0));
        let here = (from..from + bars.step).contains(&window);
        let mark = if here { " <- the window" } else { "" };
        let space = if bar.is_empty() { "" } else { " " };
        lines.push(format!("{:>9} |{space}{bar}{mark}", seconds(from)));
    }
    lines
}

fn seconds(micros: u64) -> String {
    format!("{}.{:03} s", micros / 1_000_000, micros % 1_000_000 / 1000)
}

/// The same as a picture of its own, light and dark.
#[must_use]
pub fn svg(measured: &Measured, window: Duration) -> String {
    let bars = histogram(measured, window);
    let most = bars.counts.iter().copied().max().unwrap_or(1).max(1);
    let (left, top, height, bar) = (60, 60, 240, 28);
    let right = left + BARS as u64 * bar;
    let base = top + height;
    let mut out = String::new();
    // Writing to a string can't fail.
    let _ = write!(
        out,
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {} {}\" font-family=\"sans-serif\" \
         font-size=\"13\">\n<title>How soon a silent death is noticed</title>\n<style>\
         .ground{{fill:#fff}}.ink{{fill:#1a1a1a}}.bar{{fill:#0072b2}}.axis{{stroke:#1a1a1a}}\
         .limit{{stroke:#c00000;stroke-width:2;stroke-dasharray:6 4}}.say{{fill:#c00000}}\
         @media(prefers-color-scheme:dark){{.ground{{fill:#16181c}}.ink{{fill:#e8e8e8}}\
         .bar{{fill:#56b4e9}}.axis{{stroke:#e8e8e8}}.limit{{stroke:#ff6b6b}}.say{{fill:#ff6b6b}}}}\
         </style>\n<rect class=\"ground\" width=\"100%\" height=\"100%\"/>\n",
        right + 40,
        base + 70,
    );
    let _ = writeln!(
        out,
        "<text class=\"ink\" x=\"{left}\" y=\"24\" font-size=\"16\">From a guest's silent death to the verdict: {} deaths</text>",
        measured.latencies.len()
    );
    for (index, count) in bars.counts.into_iter().enumerate() {
        let x = left + index as u64 * bar;
        let tall = count * height / most;
        let from = bars.low + index as u64 * bars.step;
        let _ = writeln!(
            out,
            "<rect class=\"bar\" x=\"{}\" y=\"{}\" width=\"{}\" height=\"{tall}\"><title>{} to {}: {count}</title></rect>",
            x + 1,
            base - tall,
            bar - 2,
            seconds(from),
            seconds(from + bars.step)
        );
        if index % 4 == 0 {
            let _ = writeln!(
                out,
                "<text class=\"ink\" x=\"{x}\" y=\"{}\" text-anchor=\"middle\">{}</text>",
                base + 20,
                seconds(from)
            );
        }
    }
    let micros = u64::try_from(window.as_micros()).unwrap_or(u64::MAX);
    let limit = left + (micros - bars.low) * bar / bars.step;
    let _ = write!(
        out,
        "<line class=\"axis\" x1=\"{left}\" y1=\"{base}\" x2=\"{right}\" y2=\"{base}\"/>\n\
         <text class=\"ink\" x=\"{}\" y=\"{}\" text-anchor=\"end\">{most}</text>\n\
         <line class=\"limit\" x1=\"{limit}\" y1=\"{}\" x2=\"{limit}\" y2=\"{base}\"/>\n\
         <text class=\"say\" x=\"{}\" y=\"{}\" text-anchor=\"end\">the window, {}</text>\n\
         <text class=\"ink\" x=\"{left}\" y=\"{}\">time until the guest is no longer called reachable</text>\n</svg>\n",
        left - 6,
        top + 10,
        top - 20,
        limit - 6,
        top - 10,
        seconds(micros),
        base + 48,
    );
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::picture::check::well_formed;

    fn some() -> Measured {
        let latencies = (0..100).map(|n| Duration::from_millis(2000 + n * 9)).collect();
        Measured { latencies, ..Measured::default() }
    }

    #[test]
    fn every_latency_is_in_a_bar_and_the_window_is_shown() {
        let window = Duration::from_secs(3);
        let bars = histogram(&some(), window);
        assert_eq!(bars.counts.iter().sum::<u64>(), 100);
        let lines = text(&some(), window);
        assert_eq!(lines.len(), BARS);
        assert!(lines[0].starts_with("  2.000 s | #"), "{lines:?}");
        assert_eq!(lines.iter().filter(|line| line.ends_with("<- the window")).count(), 1);
        assert!(lines.concat().is_ascii());
    }

    #[test]
    fn nothing_measured_is_no_division_by_zero() {
        let window = Duration::from_secs(3);
        assert!(text(&Measured::default(), window).is_empty());
        well_formed(&svg(&Measured::default(), window)).expect("well-formed");
        well_formed(&svg(&some(), window)).expect("well-formed");
    }
}
