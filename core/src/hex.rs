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
    let start = out.len();
    out.resize(start + 2 * bytes.len(), 0);
    let (pairs, _) = out[start..].as_chunks_mut::<2>();
    for (pair, &byte) in pairs.iter_mut().zip(bytes) {
        *pair = [letter(byte >> 4), letter(byte & 15)];
    }
}

/// The digit of a value below 16. Without a table, so that many are done at once.
const fn letter(value: u8) -> u8 {
    value + b'0' + if value > 9 { b'a' - b'0' - 10 } else { 0 }
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
    let mut seen = 0;
    let (pairs, _) = text.as_chunks::<2>();
    for (byte, [high, low]) in bytes.iter_mut().zip(pairs) {
        let (high, low) = (digit(*high), digit(*low));
        seen |= high | low;
        *byte = high << 4 | (low & 15);
    }
    if seen > 15 { Err(invalid) } else { Ok(bytes) }
}

/// The digit's value; more than 15 if it is none. Without branches, as digits may be secret.
const fn digit(character: u8) -> u8 {
    let (number, letter) = (character.wrapping_sub(b'0'), character.wrapping_sub(b'a'));
    if number < 10 {
        number
    } else if letter < 6 {
        letter + 10
    } else {
        0x80
    }
}
