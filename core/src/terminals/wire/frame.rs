//! Frames: `u32` length, big endian, and so many bytes.

use alloc::vec::Vec;

/// Longest frame that a daemon takes, in bytes, without its length.
pub const FRAME_MAX: usize = 4 * 1024 * 1024;

/// Longest frame that a client takes.
pub const CLIENT_FRAME_MAX: usize = 64 * 1024 * 1024;

/// Longest frame that a daemon takes before a client is known to it.
pub const GREETING_MAX: usize = 64 * 1024;

/// Bytes of a frame's length.
pub const HEADER: usize = 4;

/// Buffers larger than this are given back once they are empty.
const KEPT: usize = 64 * 1024;

/// A frame's length is zero or above the bound.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("a frame has 1 to {limit} bytes, not {length}")]
pub struct BadLength {
    /// What was announced.
    pub length: u32,
    /// The bound.
    pub limit: usize,
}

/// Appends a frame whose body `write` appends.
pub(super) fn append(out: &mut Vec<u8>, write: impl FnOnce(&mut Vec<u8>)) {
    let start = out.len();
    out.extend_from_slice(&[0; HEADER]);
    write(out);
    // Whoever writes keeps what it writes far below 4 GiB.
    let length = (out.len() - start - HEADER) as u32;
    out[start..start + HEADER].copy_from_slice(&length.to_be_bytes());
}

/// Cuts a byte stream into frames, without copying what arrives whole.
#[derive(Clone, Default)]
pub struct Frames {
    partial: Vec<u8>,
    /// `partial` was handed out and is void.
    spent: bool,
}

/// What is in a frame may be anything.
impl core::fmt::Debug for Frames {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "Frames({} bytes)", self.waiting())
    }
}

impl Frames {
    /// The next whole frame's body, of at most `limit` bytes. `input` moves past
    /// what was taken; `None`: all of it was, and the frame isn't whole. Memory
    /// grows with what arrived, not with what was announced.
    ///
    /// # Errors
    /// A length of zero or above `limit`. The stream can't be followed after that.
    pub fn next<'a, 'b: 'a>(
        &'a mut self,
        input: &mut &'b [u8],
        limit: usize,
    ) -> Result<Option<&'a [u8]>, BadLength> {
        if self.spent {
            self.partial.clear();
            self.partial.shrink_to(KEPT);
            self.spent = false;
        }
        if self.partial.is_empty() {
            let Some(length) = announced(input, limit)? else {
                self.partial.extend_from_slice(input);
                *input = &[];
                return Ok(None);
            };
            if let Some(frame) = input.split_off(..HEADER + length) {
                return Ok(Some(&frame[HEADER..]));
            }
        }
        self.fill(input, HEADER);
        let Some(length) = announced(&self.partial, limit)? else { return Ok(None) };
        self.fill(input, HEADER + length);
        if self.partial.len() < HEADER + length {
            return Ok(None);
        }
        self.spent = true;
        Ok(Some(&self.partial[HEADER..]))
    }

    /// Bytes of a frame that isn't whole.
    #[must_use]
    pub const fn waiting(&self) -> usize {
        if self.spent { 0 } else { self.partial.len() }
    }

    /// Takes until `partial` has so many bytes.
    fn fill(&mut self, input: &mut &[u8], length: usize) {
        let missing = length.saturating_sub(self.partial.len()).min(input.len());
        if let Some(head) = input.split_off(..missing) {
            self.partial.extend_from_slice(head);
        }
    }
}

fn announced(bytes: &[u8], limit: usize) -> Result<Option<usize>, BadLength> {
    let Some(header) = bytes.first_chunk::<HEADER>() else { return Ok(None) };
    let length = u32::from_be_bytes(*header);
    match usize::try_from(length) {
        Ok(size) if (1..=limit).contains(&size) => Ok(Some(size)),
        _ => Err(BadLength { length, limit }),
    }
}
