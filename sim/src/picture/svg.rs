//! Writing SVG: escaped, in order, and no text over another.

use core::fmt::{self, Write as _};

/// Height of a line of text.
pub(super) const LINE: f64 = 12.0;

/// Average width of a character.
const CHARACTER: f64 = 6.1;

/// Most characters of one text.
const LONGEST: usize = 72;

/// Bold ones are wider.
const BOLD: f64 = 6.8;

/// How wide `text` is, about.
pub(super) fn width(text: &str) -> f64 {
    text.chars().count() as f64 * CHARACTER
}

/// Text that may stand anywhere in XML. What XML can't hold becomes `\u{…}`.
pub(super) fn escape(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => safe.push_str("&amp;"),
            '<' => safe.push_str("&lt;"),
            '>' => safe.push_str("&gt;"),
            '"' => safe.push_str("&quot;"),
            '\'' => safe.push_str("&#39;"),
            // Control characters, direction marks and whatever else isn't seen.
            ' '..='~' | '\u{a1}'..='\u{24f}' | '\u{2013}'..='\u{2026}' => safe.push(character),
            _ => safe.extend(character.escape_unicode()),
        }
    }
    safe
}

/// Where a text grows from its place.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Anchor {
    /// To the right.
    Start,
    /// To both sides.
    Middle,
    /// To the left.
    End,
}

/// A drawing.
#[derive(Default)]
pub(super) struct Svg {
    pub(super) body: String,
    /// Left, right and baseline of every text.
    taken: Vec<(f64, f64, f64)>,
}

impl Svg {
    pub(super) fn raw(&mut self, what: fmt::Arguments<'_>) {
        // Writing to a string can't fail.
        let _ = self.body.write_fmt(what);
        self.body.push('\n');
    }

    pub(super) fn line(&mut self, class: &str, (x1, y1): (f64, f64), (x2, y2): (f64, f64)) {
        self.raw(format_args!(
            "<line class=\"{class}\" x1=\"{x1:.1}\" y1=\"{y1:.1}\" x2=\"{x2:.1}\" y2=\"{y2:.1}\"/>"
        ));
    }

    /// A rectangle that says `tip` under the pointer.
    pub(super) fn block(&mut self, class: &str, (x, y): (f64, f64), (wide, high): (f64, f64), tip: &str) {
        self.raw(format_args!(
            "<rect class=\"{class}\" x=\"{x:.1}\" y=\"{y:.1}\" width=\"{wide:.1}\" height=\"{:.1}\"><title>{}</title></rect>",
            high.max(1.0),
            escape(tip)
        ));
    }

    /// Text at the first of `places` where it covers no other; else nowhere.
    pub(super) fn text(
        &mut self,
        class: &str,
        anchor: Anchor,
        places: impl IntoIterator<Item = (f64, f64)>,
        text: &str,
    ) -> bool {
        let text = shortened(text);
        let bold = matches!(class, "broken" | "fault" | "reach" | "wait");
        let wide = if bold { text.chars().count() as f64 * BOLD } else { width(&text) };
        for (x, y) in places {
            let left = match anchor {
                Anchor::Start => x,
                Anchor::Middle => x - wide / 2.0,
                Anchor::End => x - wide,
            };
            let right = left + wide;
            if left < 0.0 || self.taken.iter().any(|taken| overlaps(taken, left, right, y)) {
                continue;
            }
            self.taken.push((left, right, y));
            let anchor = match anchor {
                Anchor::Start => "start",
                Anchor::Middle => "middle",
                Anchor::End => "end",
            };
            self.raw(format_args!(
                "<text class=\"{class}\" x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\">{}</text>",
                escape(&text)
            ));
            return true;
        }
        false
    }
}

impl Svg {
    /// How far the texts reach to the right and down.
    pub(super) fn reach(&self) -> (f64, f64) {
        self.taken.iter().fold((0.0, 0.0), |(x, y), (_, right, base)| (right.max(x), base.max(y)))
    }
}

/// The whole is in the tooltips.
fn shortened(text: &str) -> String {
    match text.char_indices().nth(LONGEST) {
        Some((at, _)) => format!("{}…", &text[..at]),
        None => text.to_owned(),
    }
}

fn overlaps(&(l, r, base): &(f64, f64, f64), left: f64, right: f64, y: f64) -> bool {
    left < r && right > l && (base - y).abs() < LINE - 1.5
}

/// `text` in lines of at most `most` characters, cut between words.
pub(super) fn wrap(text: &str, most: usize) -> Vec<String> {
    let mut lines = vec![String::new()];
    for word in text.split_whitespace() {
        let last = lines.len() - 1;
        let line = &mut lines[last];
        if !line.is_empty() && line.chars().count() + 1 + word.chars().count() > most {
            lines.push(word.to_owned());
        } else {
            if !line.is_empty() {
                line.push(' ');
            }
            line.push_str(word);
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_moved_to_the_first_free_place_or_left_out() {
        let mut svg = Svg::default();
        assert!(svg.text("t", Anchor::Start, [(10.0, 20.0)], "first"));
        assert!(svg.text("t", Anchor::Start, [(12.0, 22.0), (12.0, 34.0)], "second"));
        assert!(!svg.text("t", Anchor::Start, [(12.0, 22.0)], "third"));
        assert!(svg.body.contains("y=\"34.0\""), "{}", svg.body);
    }

    #[test]
    fn hostile_text_stays_text() {
        assert_eq!(escape("<b>&\"'\u{1b}\u{202e}"), "&lt;b&gt;&amp;&quot;&#39;\\u{1b}\\u{202e}");
    }

    #[test]
    fn wrapped_text_keeps_its_words() {
        assert_eq!(wrap("one two three", 7), ["one two", "three"]);
        assert_eq!(wrap("unbreakable", 3), ["unbreakable"]);
    }
}
