//! Lower-case hexadecimal, as the protocol writes it.

use core::fmt;

/// Why a text is not hexadecimal of the wanted length.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("expected {expected} lower-case hex digits")]
pub struct InvalidHex {
    /// How many digits the field has.
    pub expected: usize,
}

const DIGITS: &[u8; 16] = b"0123456789abcdef";

/// Writes `bytes` as hex.
pub(crate) fn write(out: &mut impl fmt::Write, bytes: &[u8]) -> fmt::Result {
    for &byte in bytes {
        out.write_char(char::from(DIGITS[usize::from(byte >> 4)]))?;
        out.write_char(char::from(DIGITS[usize::from(byte & 15)]))?;
    }
    Ok(())
}

/// Appends `bytes` as hex.
pub(crate) fn append(out: &mut alloc::vec::Vec<u8>, bytes: &[u8]) {
    for &byte in bytes {
        out.push(DIGITS[usize::from(byte >> 4)]);
        out.push(DIGITS[usize::from(byte & 15)]);
    }
}

/// Reads exactly `2 × N` lower-case hex digits.
///
/// # Errors
/// Any other length or character.
pub fn decode<const N: usize>(text: &[u8]) -> Result<[u8; N], InvalidHex> {
    let invalid = InvalidHex { expected: 2 * N };
    if text.len() != 2 * N {
        return Err(invalid);
    }
    let mut bytes = [0; N];
    for (byte, pair) in bytes.iter_mut().zip(text.chunks_exact(2)) {
        let (Some(high), Some(low)) = (digit(pair[0]), digit(pair[1])) else {
            return Err(invalid);
        };
        *byte = high << 4 | low;
    }
    Ok(bytes)
}

fn digit(character: u8) -> Option<u8> {
    match character {
        b'0'..=b'9' => Some(character - b'0'),
        b'a'..=b'f' => Some(character - b'a' + 10),
        _ => None,
    }
}
