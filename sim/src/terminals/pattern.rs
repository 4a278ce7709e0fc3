//! Bytes that say where they belong: output is a function of the terminal and the
//! offset, a snapshot names the prefix that it shows, input names who wrote it. So
//! everybody can check everything that they get, and nobody keeps streams.

use std::collections::VecDeque;

use castra_core::terminals::{Modes, Snapshot};

/// Eight bytes of a terminal's output.
fn word(terminal: u32, index: u64) -> [u8; 8] {
    // SplitMix64 (Steele, Lea, Flood 2014).
    let mut z = (index ^ u64::from(terminal) << 40).wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    (z ^ z >> 31).to_le_bytes()
}

/// What a terminal's program writes at `offset`.
pub(super) fn output(terminal: u32, offset: u64, length: usize) -> Vec<u8> {
    let skip = (offset % 8) as usize;
    let words = (skip + length).div_ceil(8) as u64;
    let mut bytes = Vec::with_capacity(words as usize * 8);
    for index in offset / 8..offset / 8 + words {
        bytes.extend_from_slice(&word(terminal, index));
    }
    bytes.truncate(skip + length);
    bytes.drain(..skip);
    bytes
}

/// Whether `bytes` are what was written at `offset`.
pub(super) fn is_output(terminal: u32, offset: u64, bytes: &[u8]) -> bool {
    output(terminal, offset, bytes.len()) == bytes
}

/// What a screen shows after `offset` bytes, in about `size` bytes.
pub(super) fn snapshot(terminal: u32, offset: u64, (cols, rows): (u16, u16), size: usize) -> Snapshot {
    let mut content = format!("{terminal} {offset} {cols}x{rows} ");
    content.extend(std::iter::repeat_n('.', size.saturating_sub(content.len())));
    Snapshot {
        rehydrate: format!("{terminal} {offset}"),
        content,
        cols,
        rows,
        cursor_x: 0,
        cursor_y: 0,
        modes: Modes::default(),
        cwd: None,
        title: None,
        offset,
    }
}

/// What a snapshot says of itself.
///
/// # Errors
/// What is wrong with it.
pub(super) fn check_snapshot(terminal: u32, snapshot: &Snapshot) -> Result<u64, String> {
    let mut words = snapshot.content.split(' ');
    let mut number = || words.next().and_then(|word| word.parse::<u64>().ok());
    let (whose, offset) = (number(), number());
    let (Some(whose), Some(offset)) = (whose, offset) else {
        return Err(format!("a snapshot of terminal {terminal} is not what its screen shows"));
    };
    if whose != u64::from(terminal) {
        return Err(format!("a snapshot of terminal {terminal} shows terminal {whose}"));
    }
    // What is made up of the tail of a former life has nothing but its text.
    if snapshot.rehydrate.is_empty() {
        return Ok(offset);
    }
    if offset != snapshot.offset || snapshot.rehydrate != format!("{terminal} {offset}") {
        let text =
            format!("a snapshot of terminal {terminal} shows {offset} bytes, and says {}", snapshot.offset);
        return Err(text);
    }
    Ok(offset)
}

/// Who wrote a piece of input: the client, which of its connections, which piece.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) struct Author {
    pub(super) client: u8,
    pub(super) life: u16,
    pub(super) number: u32,
}

/// Begins each piece of a client's input.
const MARK: u8 = 0xc1;
/// Begins what a screen model answers.
const REPLY: u8 = 0xc2;
/// Bytes of a piece besides its filling.
pub(super) const HEADER: usize = 12;

/// A piece of input with `filling` more bytes.
pub(super) fn input(author: Author, filling: usize) -> Vec<u8> {
    let mut bytes = vec![MARK, author.client];
    bytes.extend_from_slice(&author.life.to_be_bytes());
    bytes.extend_from_slice(&author.number.to_be_bytes());
    bytes.extend_from_slice(&(filling as u32).to_be_bytes());
    bytes.extend((0..filling).map(|at| (author.number as usize + at) as u8));
    bytes
}

/// What a screen model answers to a query.
pub(super) fn reply() -> Vec<u8> {
    vec![REPLY; 4]
}

/// Reads input again, however it was cut.
#[derive(Debug, Default)]
pub(super) struct Reader {
    bytes: VecDeque<u8>,
}

/// What was read.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Piece {
    /// Somebody's.
    Input(Author),
    /// The screen model's.
    Reply,
    /// A line that was to be typed at the start.
    Line,
}

impl Reader {
    /// What was begun will not go on.
    pub(super) fn forget(&mut self) {
        self.bytes.clear();
    }

    pub(super) fn push(&mut self, bytes: &[u8]) {
        self.bytes.extend(bytes);
    }

    /// The next piece that is whole.
    ///
    /// # Errors
    /// Bytes that nobody wrote, or in another order.
    pub(super) fn next(&mut self) -> Result<Option<Piece>, String> {
        match self.bytes.front() {
            None => Ok(None),
            Some(&MARK) => self.input(),
            Some(&REPLY) if self.bytes.len() < 4 => Ok(None),
            Some(&REPLY) => {
                let four: Vec<u8> = self.bytes.drain(..4).collect();
                if four == reply() { Ok(Some(Piece::Reply)) } else { Err("half an answer".to_owned()) }
            }
            Some(first) if first.is_ascii() => {
                let end = self.bytes.iter().position(|byte| matches!(byte, b'\n' | b'\r'));
                let Some(end) = end else { return Ok(None) };
                self.bytes.drain(..=end);
                Ok(Some(Piece::Line))
            }
            Some(first) => Err(format!("a byte {first:#04x} that nobody wrote there")),
        }
    }

    fn input(&mut self) -> Result<Option<Piece>, String> {
        if self.bytes.len() < HEADER {
            return Ok(None);
        }
        let head: Vec<u8> = self.bytes.iter().take(HEADER).copied().collect();
        let number = |from: usize, to: usize| {
            head[from..to].iter().fold(0_u32, |number, byte| number << 8 | u32::from(*byte))
        };
        let author = Author { client: head[1], life: number(2, 4) as u16, number: number(4, 8) };
        let filling = number(8, 12) as usize;
        if self.bytes.len() < HEADER + filling {
            return Ok(None);
        }
        let whole: Vec<u8> = self.bytes.drain(..HEADER + filling).collect();
        if whole != input(author, filling) {
            return Err(format!("another filling than {author:?} wrote"));
        }
        Ok(Some(Piece::Input(author)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn output_is_the_same_however_it_is_cut() {
        let whole = output(7, 1000, 300);
        for cut in [1, 7, 8, 9, 299] {
            let mut parts = output(7, 1000, cut);
            parts.extend(output(7, 1000 + cut as u64, 300 - cut));
            assert_eq!(parts, whole);
            assert!(is_output(7, 1000 + cut as u64, &whole[cut..]));
            assert!(!is_output(7, 1001 + cut as u64, &whole[cut..]) || cut == 299);
        }
        assert!(!is_output(8, 1000, &whole));
    }

    #[test]
    fn input_is_read_as_it_was_written_and_nothing_else_is() {
        let author = Author { client: 3, life: 2, number: 77 };
        let mut reader = Reader::default();
        let mut bytes = input(author, 40);
        bytes.extend(reply());
        bytes.extend(b"ls\r");
        for byte in bytes {
            reader.push(&[byte]);
        }
        let pieces: Vec<_> = std::iter::from_fn(|| reader.next().expect("what was written")).collect();
        assert_eq!(pieces, [Piece::Input(author), Piece::Reply, Piece::Line]);
        let mut spoilt = input(author, 40);
        spoilt[HEADER + 5] ^= 1;
        reader.push(&spoilt);
        reader.next().expect_err("spoilt");
        reader.forget();
        reader.push(&[0xff]);
        reader.next().expect_err("nobody's");
    }

    #[test]
    fn a_snapshot_says_what_it_shows() {
        let shown = snapshot(4, 1000, (80, 24), 300);
        assert_eq!((check_snapshot(4, &shown), shown.content.len()), (Ok(1000), 300));
        check_snapshot(5, &shown).expect_err("another terminal's");
        check_snapshot(4, &Snapshot { offset: 999, ..shown }).expect_err("another offset");
    }
}
