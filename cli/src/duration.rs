//! Durations as people write and read them.

use std::time::Duration;

use jiff::fmt::friendly::SpanParser;

/// Longer ones are a slip of the finger, and would overflow deadlines.
const MOST: Duration = Duration::from_secs(366 * 24 * 3600);

/// Reads `15s`, `500ms`, `2m`, `1h 30m`, `0.5s`, `7d`.
///
/// # Errors
/// A number without unit, a negative duration, a unit longer than days, or more than a year.
pub(crate) fn parse(text: &str) -> Result<Duration, String> {
    static PARSER: SpanParser = SpanParser::new();
    let (days, rest) = days(text.trim());
    let parsed = match (days, rest) {
        (Some(_), "") => Ok(Duration::ZERO),
        (_, rest) => PARSER.parse_unsigned_duration(rest),
    };
    let days = Duration::from_secs(days.unwrap_or(0).saturating_mul(24 * 3600));
    match parsed.map(|duration| duration.saturating_add(days)) {
        Ok(duration) if duration <= MOST => Ok(duration),
        Ok(_) => Err("longer than a year".into()),
        Err(_) if text.trim().parse::<f64>().is_ok() => {
            Err(format!("say the unit: {0}s, {0}ms or {0}m", text.trim()))
        }
        Err(_) => Err("write it like 15s, 500ms, 2m, 1h30m or 7d".into()),
    }
}

/// Days at the beginning, which the parser takes for something of a calendar; ours
/// have 24 hours.
fn days(text: &str) -> (Option<u64>, &str) {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let unit = text[digits..].trim_start();
    let rest = ["days", "day", "d"].iter().find_map(|word| unit.strip_prefix(word));
    match (text[..digits].parse(), rest) {
        (Ok(days), Some(rest)) if !rest.starts_with(|next: char| next.is_alphabetic()) => {
            (Some(days), rest.trim_start())
        }
        _ => (None, text),
    }
}

/// A duration as [`parse`] reads it, exact to the nanosecond.
pub(crate) fn format(span: Duration) -> String {
    let nanos = span.as_nanos();
    match nanos {
        _ if nanos.is_multiple_of(1_000_000_000) => format!("{}s", nanos / 1_000_000_000),
        _ if nanos.is_multiple_of(1_000_000) => format!("{}ms", nanos / 1_000_000),
        _ if nanos.is_multiple_of(1_000) => format!("{}us", nanos / 1_000),
        _ => format!("{nanos}ns"),
    }
}

/// An age in at most two units, rounded down: `0.8s`, `42s`, `3m12s`, `2h05m`, `3d04h`.
pub(crate) fn age(millis: u64) -> String {
    let seconds = millis / 1000;
    let (minutes, hours) = (seconds / 60, seconds / 3600);
    match seconds {
        0..10 => format!("{seconds}.{}s", millis % 1000 / 100),
        10..60 => format!("{seconds}s"),
        60..3600 => format!("{minutes}m{:02}s", seconds % 60),
        3600..86_400 => format!("{hours}h{:02}m", minutes % 60),
        _ => format!("{}d{:02}h", hours / 24, hours % 24),
    }
}

/// [`age`], or `-` for never.
pub(crate) fn age_or_never(millis: Option<u64>) -> String {
    millis.map_or_else(|| "-".into(), age)
}

/// A round-trip time in at most six columns, rounded down: `312us`, `1.2ms`, `87ms`, `2.5s`.
pub(crate) fn micros(micros: u64) -> String {
    match micros {
        0..1000 => format!("{micros}us"),
        1000..10_000 => format!("{}.{}ms", micros / 1000, micros % 1000 / 100),
        10_000..1_000_000 => format!("{}ms", micros / 1000),
        _ => age(micros / 1000),
    }
}

/// Milliseconds, as the protocol counts.
pub(crate) fn millis(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_as_people_write_them() {
        for (text, millis) in [
            ("15s", 15_000),
            ("500ms", 500),
            ("2m", 120_000),
            ("1h30m", 5_400_000),
            ("1h 30m", 5_400_000),
            ("0.5s", 500),
            ("0s", 0),
            (" 3 seconds ", 3000),
            ("7d", 7 * 86_400_000),
            ("1 day", 86_400_000),
            ("2days 1h", 2 * 86_400_000 + 3_600_000),
            ("1d12h30m", 86_400_000 + 45_000_000),
        ] {
            assert_eq!(parse(text), Ok(Duration::from_millis(millis)), "{text}");
        }
    }

    #[test]
    fn a_round_trip_takes_six_columns_at_most() {
        let written = [0, 999, 1000, 9999, 10_000, 999_999, 1_000_000, 75_000_000].map(micros);
        assert_eq!(written, ["0us", "999us", "1.0ms", "9.9ms", "10ms", "999ms", "1.0s", "1m15s"]);
    }

    #[test]
    fn a_duration_without_unit_or_sense_is_refused_with_advice() {
        assert_eq!(parse("15").unwrap_err(), "say the unit: 15s, 15ms or 15m");
        for text in
            ["", "s", "-5s", "5 parsecs", "1mo", "5s ago", "d", "-1d", "1dog", "1.5d", "1d 5", "1d ago"]
        {
            assert_eq!(parse(text).unwrap_err(), "write it like 15s, 500ms, 2m, 1h30m or 7d", "{text}");
        }
        assert_eq!(parse("367d").unwrap_err(), "longer than a year");
        assert_eq!(parse("18446744073709551615d 1h").unwrap_err(), "longer than a year");
        assert_eq!(parse("99999999h").unwrap_err(), "longer than a year");
    }

    #[test]
    fn a_formatted_duration_reads_back_as_itself() {
        for nanos in [0, 1, 1_500, 2_000_000, 1_500_000_000, 15_000_000_000, 90_000_000_001] {
            let span = Duration::from_nanos(nanos);
            assert_eq!(parse(&format(span)), Ok(span));
        }
    }

    #[test]
    fn ages_are_short_and_never_rounded_up() {
        for (millis, text) in [
            (0, "0.0s"),
            (812, "0.8s"),
            (9_999, "9.9s"),
            (10_000, "10s"),
            (59_999, "59s"),
            (192_000, "3m12s"),
            (3_599_999, "59m59s"),
            (7_500_000, "2h05m"),
            (3 * 86_400_000 + 4 * 3_600_000, "3d04h"),
            (u64::MAX, "213503982334d14h"),
        ] {
            assert_eq!(age(millis), text);
        }
        assert_eq!(age_or_never(None), "-");
    }
}
