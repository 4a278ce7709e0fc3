//! Cuts a byte stream into lines and frames, without copying what arrives whole.

use alloc::vec::Vec;

/// Longest line of phase A, in bytes, with its end.
pub const LINE_MAX: usize = 512;

/// Longest frame payload, in bytes.
pub const FRAME_MAX: usize = 65_536;

/// Longest frame payload that a sender may use on a serial stream: the greatest
/// length whose bytes hold no `0xFF`.
pub const SERIAL_FRAME_MAX: usize = 65_278;

/// On serial streams: drops what is unfinished and returns to phase A.
pub const RESYNC: u8 = 0xFF;

/// What has arrived of a line or frame that isn't whole yet.
#[derive(Clone, Debug, Default)]
pub struct Inbox {
    partial: Vec<u8>,
    /// `partial` was handed out and is void.
    spent: bool,
}

/// A line is longer than its bound.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("the line is longer than {limit} bytes")]
pub struct LineTooLong {
    /// The bound, with the line end.
    pub limit: usize,
}

/// A frame's length is zero or above [`FRAME_MAX`].
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("a frame has 1 to {FRAME_MAX} bytes, not {length}")]
pub struct BadLength {
    /// What was announced.
    pub length: u32,
}

/// Buffers larger than this are given back once they are empty.
const KEPT: usize = 512;

impl Inbox {
    /// The next whole line of at most `limit` bytes with its end, without `\n`
    /// or `\r\n`. `input` moves past what was taken; `None`: all of it was, and
    /// the line isn't whole.
    ///
    /// # Errors
    /// A line over `limit`. The stream can't be followed after that.
    pub fn line<'a, 'b: 'a>(
        &'a mut self,
        input: &mut &'b [u8],
        limit: usize,
    ) -> Result<Option<&'a [u8]>, LineTooLong> {
        self.recycle();
        let end = line_end(input);
        let taken = end.map_or(input.len(), |end| end + 1);
        if self.partial.len() + taken > limit || (end.is_none() && self.partial.len() + taken >= limit) {
            return Err(LineTooLong { limit });
        }
        let (head, rest) = input.split_at(taken);
        *input = rest;
        if end.is_none() {
            self.partial.extend_from_slice(head);
            return Ok(None);
        }
        let line = if self.partial.is_empty() {
            head
        } else {
            self.partial.extend_from_slice(head);
            self.spent = true;
            &self.partial
        };
        let line = line.strip_suffix(b"\n").unwrap_or(line);
        Ok(Some(line.strip_suffix(b"\r").unwrap_or(line)))
    }

    /// The next whole frame's payload. `input` moves past what was taken;
    /// `None`: all of it was, and the frame isn't whole.
    ///
    /// # Errors
    /// A length out of bounds. The stream can't be followed after that.
    pub fn frame<'a, 'b: 'a>(&'a mut self, input: &mut &'b [u8]) -> Result<Option<&'a [u8]>, BadLength> {
        self.recycle();
        if self.partial.is_empty()
            && let Ok(Some(length)) = announced(input)
            && input.len() >= 4 + length
        {
            let (head, rest) = input.split_at(4 + length);
            *input = rest;
            return Ok(Some(&head[4..]));
        }
        self.fill(input, 4);
        let Some(length) = announced(&self.partial)? else { return Ok(None) };
        self.fill(input, 4 + length);
        if self.partial.len() < 4 + length {
            return Ok(None);
        }
        self.spent = true;
        Ok(Some(&self.partial[4..]))
    }

    /// What has arrived of an unfinished line or frame.
    #[must_use]
    pub fn unfinished(&self) -> &[u8] {
        if self.spent { &[] } else { &self.partial }
    }

    /// Whether nothing unfinished is held: the stream is at a boundary.
    #[must_use]
    pub fn is_at_boundary(&self) -> bool {
        self.spent || self.partial.is_empty()
    }

    /// Drops what is unfinished.
    pub fn clear(&mut self) {
        self.spent = true;
        self.recycle();
    }

    fn fill(&mut self, input: &mut &[u8], until: usize) {
        let wanted = until.saturating_sub(self.partial.len()).min(input.len());
        let (head, rest) = input.split_at(wanted);
        self.partial.extend_from_slice(head);
        *input = rest;
    }

    fn recycle(&mut self) {
        if self.spent {
            self.spent = false;
            self.partial.clear();
            self.partial.shrink_to(KEPT);
        }
    }
}

/// Where the first line ends. Looking for it in pieces is several times as fast
/// as byte by byte: `contains` looks at words.
fn line_end(input: &[u8]) -> Option<usize> {
    const PIECE: usize = 64;
    let piece = input.chunks(PIECE).position(|piece| piece.contains(&b'\n'))? * PIECE;
    input[piece..].iter().position(|&byte| byte == b'\n').map(|end| piece + end)
}

fn announced(bytes: &[u8]) -> Result<Option<usize>, BadLength> {
    let Some(head) = bytes.first_chunk::<4>() else { return Ok(None) };
    let length = u32::from_be_bytes(*head);
    match usize::try_from(length) {
        Ok(size @ 1..=FRAME_MAX) => Ok(Some(size)),
        _ => Err(BadLength { length }),
    }
}

/// Appends a frame to `out`: length, the JSON that `write` appends, and the tag
/// that `seal` appends to it. On a serial stream the JSON is padded with one
/// space where a byte of the length would be [`RESYNC`].
pub fn append_frame(
    out: &mut Vec<u8>,
    serial: bool,
    tag_length: usize,
    write: impl FnOnce(&mut Vec<u8>),
    seal: impl FnOnce(&mut Vec<u8>, core::ops::Range<usize>),
) {
    let start = out.len();
    out.extend_from_slice(&[0; 4]);
    write(out);
    let length = out.len() - start - 4 + tag_length;
    if serial && (length & 0xFF == 0xFF || length >> 8 == 0xFF) {
        out.push(b' ');
    }
    let json = start + 4..out.len();
    seal(out, json);
    // Senders keep below FRAME_MAX, so the length fits.
    let length = (out.len() - start - 4) as u32;
    out[start..start + 4].copy_from_slice(&length.to_be_bytes());
}
