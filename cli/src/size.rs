//! Sizes as people write them.

/// Reads `8MiB`, `512KiB`, `1GiB`, or bytes without a unit.
///
/// # Errors
/// Not a number, another unit, or more than fits.
pub(crate) fn parse(text: &str) -> Result<usize, String> {
    let text = text.trim();
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let factor: usize = match unit.trim() {
        "" | "B" => 1,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        _ => 0,
    };
    let number = number.parse::<usize>().ok().filter(|_| factor > 0);
    let number = number.ok_or("write it like 512KiB, 8MiB or 1GiB")?;
    number.checked_mul(factor).ok_or_else(|| "more than there can be".into())
}

/// A size as [`parse`] reads it, exact.
pub(crate) fn format(bytes: usize) -> String {
    match bytes {
        0 => "0".into(),
        _ if bytes.is_multiple_of(1 << 30) => format!("{}GiB", bytes >> 30),
        _ if bytes.is_multiple_of(1 << 20) => format!("{}MiB", bytes >> 20),
        _ if bytes.is_multiple_of(1 << 10) => format!("{}KiB", bytes >> 10),
        _ => bytes.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_as_people_write_them_and_written_back_exactly() {
        for (text, bytes, again) in [
            ("8MiB", 8 << 20, "8MiB"),
            ("512 KiB", 512 << 10, "512KiB"),
            ("1024KiB", 1 << 20, "1MiB"),
            ("1GiB", 1 << 30, "1GiB"),
            ("1000", 1000, "1000"),
            ("33000B", 33000, "33000"),
            ("0", 0, "0"),
        ] {
            assert_eq!(parse(text), Ok(bytes), "{text}");
            assert_eq!(format(bytes), again);
        }
    }

    #[test]
    fn a_size_without_sense_is_refused_with_advice() {
        for text in ["", "MiB", "-1", "8MB", "1.5MiB", "8 parsecs"] {
            assert_eq!(parse(text).unwrap_err(), "write it like 512KiB, 8MiB or 1GiB", "{text}");
        }
        assert_eq!(parse("99999999999999GiB").unwrap_err(), "more than there can be");
    }
}
