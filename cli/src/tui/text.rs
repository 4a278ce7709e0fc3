//! Foreign text for a screen: escaped, cut, wrapped. Pure.

use castra_core::time::WallTime;

use crate::output::printable;

/// `text`, safe, cut to `width`.
pub(crate) fn fit(text: &str, width: usize) -> String {
    let mut text = printable(text);
    if text.len() > width {
        text.truncate(width.saturating_sub(2));
        text.push_str(&".."[..width.min(2)]);
    }
    text
}

/// `text`, safe, as lines of at most `width` columns with `indent` before each.
/// Only its own line ends end a line; a word that is too long is cut.
pub(crate) fn wrap(text: &str, width: usize, indent: &str) -> Vec<String> {
    let room = width.saturating_sub(indent.len()).max(1);
    let mut lines = vec![];
    for line in text.replace('\t', " ").lines() {
        let safe = printable(line);
        let mut rest = safe.as_str();
        while rest.len() > room {
            // The blank at which a line ends is in neither line.
            let (end, next) = match rest[..=room].rfind(' ').filter(|end| *end > 0) {
                Some(blank) => (blank, blank + 1),
                None => (room, room),
            };
            lines.push(format!("{indent}{}", &rest[..end]));
            rest = &rest[next..];
        }
        lines.push(format!("{indent}{rest}"));
    }
    lines
}

/// The time of day, with the date if that is another: in UTC.
pub(crate) fn clock(at: WallTime, now: WallTime) -> String {
    let (at, now) = (at.to_string(), now.to_string());
    match (at.split_once('T'), now.split_once('T')) {
        (Some((day, time)), Some((today, _))) => {
            let short = |text: &str, from, to| text.get(from..to).unwrap_or_default().to_owned();
            if day == today {
                format!("{}Z", short(time, 0, 8))
            } else {
                format!("{} {}Z", short(day, 5, 10), short(time, 0, 5))
            }
        }
        _ => at,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_wrapped_at_blanks_and_long_words_are_cut() {
        assert_eq!(wrap("one two three", 7, ""), ["one two", "three"]);
        assert_eq!(wrap("one two three", 9, "  "), ["  one two", "  three"]);
        assert_eq!(wrap("abcdefghij", 4, ""), ["abcd", "efgh", "ij"]);
        assert_eq!(wrap("a\n\nb\tc", 9, ""), ["a", "", "b c"]);
        assert_eq!(wrap("", 9, ""), [""; 0]);
        assert_eq!(wrap("ab", 0, "  "), ["  a", "  b"]);
        assert_eq!(wrap(" abcdef", 3, ""), [" ab", "cde", "f"]);
    }

    #[test]
    fn no_text_brings_a_control_character_to_the_screen() {
        for line in wrap("\u{1b}[2J\u{9b}31m\r\u{7}\u{202e}evil", 10, "") {
            assert!(line.bytes().all(|byte| (b' '..=b'~').contains(&byte)) && line.len() <= 10, "{line:?}");
        }
        assert_eq!(fit("\u{1b}", 20), "\\u{1b}");
        assert_eq!(fit("abcdef", 5), "abc..");
        assert_eq!((fit("abc", 1), fit("abc", 0)), (".".into(), String::new()));
    }

    #[test]
    fn times_of_today_bear_no_date() {
        let at = |text: &str| serde_json::from_str::<WallTime>(&format!("\"{text}\"")).unwrap();
        let now = at("2026-11-21T19:08:09.5Z");
        assert_eq!(clock(at("2026-11-21T03:04:05.678Z"), now), "03:04:05Z");
        assert_eq!(clock(at("2026-11-20T23:59:59.999Z"), now), "11-20 23:59Z");
    }
}
