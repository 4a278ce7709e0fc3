//! The status line: the last row, kept from the program.
//!
//! The program believes in one row less, and the terminal scrolls above the line. Of
//! what the program writes only its own margins are changed; where it may have wiped
//! the line, the line is drawn again.

use crate::output::printable;
use crate::term::size::Size;

/// Sequences that are longer are none that matter here.
const SEQUENCE_MAX: usize = 64;

/// The line and what is needed to keep it.
#[derive(Debug)]
pub(super) struct Status {
    name: String,
    size: Size,
    text: String,
    lag: Option<String>,
    /// What stands there is not what should.
    stale: bool,
    /// The program has saved the cursor, and will want it back.
    saved: bool,
    scan: Scan,
    sequence: Vec<u8>,
}

/// Where in a sequence the output is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Scan {
    Ground,
    Escape,
    Control,
    /// A text for the terminal, until its end.
    Text {
        escaped: bool,
    },
}

impl Status {
    pub(super) fn new(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            size: Size::USUAL,
            text: String::new(),
            lag: None,
            stale: true,
            saved: false,
            scan: Scan::Ground,
            sequence: vec![],
        }
    }

    /// The last row that is the program's.
    const fn bottom(&self) -> u16 {
        if self.size.rows > 1 { self.size.rows - 1 } else { 1 }
    }

    /// The terminal has this size now, and so other margins.
    pub(super) fn resized(&mut self, size: Size, output: &mut Vec<u8>) {
        self.size = size;
        self.keep_margins(output);
    }

    /// The terminal is like new: a picture follows.
    pub(super) fn renewed(&mut self, output: &mut Vec<u8>) {
        (self.scan, self.saved, self.stale) = (Scan::Ground, false, true);
        self.sequence.clear();
        output.extend_from_slice(format!("\x1b[1;{}r", self.bottom()).as_bytes());
    }

    /// How far this reader is behind.
    pub(super) fn lag(&mut self, level: &str, bytes: u64) {
        self.lag = (level != "green").then(|| format!("{level}: {} KiB behind", bytes / 1024));
    }

    /// What the line says.
    pub(super) fn tell(&mut self, mine: bool, owner: Option<&str>, lost: bool) {
        let who = match owner {
            _ if mine => "you own it".into(),
            Some(owner) => format!("{} owns it, you watch", printable(owner)),
            None => "nobody owns it".into(),
        };
        let mut text = format!(" {}  {who}", self.name);
        if lost {
            text.push_str("  connection lost, trying");
        } else if let Some(lag) = &self.lag {
            text = format!("{text}  {lag}");
        }
        text.push_str("  Ctrl-\\ d detaches");
        // All of it is ASCII; the last column would scroll.
        text.truncate(usize::from(self.size.cols.saturating_sub(1)));
        self.stale |= text != self.text;
        self.text = text;
    }

    /// Draws the line if it needs to be, between what the program writes.
    pub(super) fn draw(&mut self, output: &mut Vec<u8>) {
        if !self.stale || self.saved || self.scan != Scan::Ground || self.size.rows < 2 {
            return;
        }
        self.stale = false;
        let (row, text) = (self.size.rows, &self.text);
        let line = format!("\x1b7\x1b[?6l\x1b[{row};1H\x1b[0;7m{text}\x1b[K\x1b[0m\x1b8");
        output.extend_from_slice(line.as_bytes());
    }

    /// Passes on what the program writes, with the margins that leave room.
    pub(super) fn pass(&mut self, bytes: &[u8], output: &mut Vec<u8>) {
        for &byte in bytes {
            match self.scan {
                Scan::Ground if byte == 0x1b => self.begin(byte),
                Scan::Ground => output.push(byte),
                Scan::Text { escaped } => {
                    output.push(byte);
                    self.scan = match byte {
                        0x07 | 0x18 | 0x1a => Scan::Ground,
                        b'\\' if escaped => Scan::Ground,
                        _ => Scan::Text { escaped: byte == 0x1b },
                    };
                }
                Scan::Escape | Scan::Control => self.inside(byte, output),
            }
        }
    }

    fn begin(&mut self, byte: u8) {
        self.sequence.clear();
        self.sequence.push(byte);
        self.scan = Scan::Escape;
    }

    fn inside(&mut self, byte: u8, output: &mut Vec<u8>) {
        if byte == 0x1b {
            output.append(&mut self.sequence);
            return self.begin(byte);
        }
        self.sequence.push(byte);
        let more = match (self.scan, byte) {
            (Scan::Escape, b'[') => {
                self.scan = Scan::Control;
                true
            }
            (Scan::Escape, b']' | b'P' | b'X' | b'^' | b'_') => {
                self.scan = Scan::Text { escaped: false };
                output.append(&mut self.sequence);
                return;
            }
            // Intermediate bytes, parameters, and controls that act in between.
            (Scan::Escape, 0x20..=0x2f) | (Scan::Control, 0x20..=0x3f) => true,
            (_, 0x00..=0x17 | 0x19 | 0x1c..=0x1f) => true,
            _ => false,
        };
        if more && self.sequence.len() < SEQUENCE_MAX {
            return;
        }
        self.scan = Scan::Ground;
        let sequence = std::mem::take(&mut self.sequence);
        self.whole(&sequence, output);
    }

    fn whole(&mut self, sequence: &[u8], output: &mut Vec<u8>) {
        if let Some(margins) = self.margins(sequence) {
            return output.extend_from_slice(margins.as_bytes());
        }
        output.extend_from_slice(sequence);
        match sequence {
            b"\x1b7" | b"\x1b[s" => self.saved = true,
            b"\x1b8" | b"\x1b[u" => self.saved = false,
            // The whole terminal, or its margins, are new.
            b"\x1bc" => self.renewed(output),
            b"\x1b[!p" => {
                self.keep_margins(output);
            }
            b"\x1b#8" => self.stale = true,
            _ => {}
        }
        if let [0x1b, b'[', .., last] = sequence {
            let other_screen = || {
                sequence.starts_with(b"\x1b[?")
                    && [&b"47"[..], b"1047", b"1049"].iter().any(|mode| {
                        sequence[3..sequence.len() - 1].split(|byte| *byte == b';').any(|one| one == *mode)
                    })
            };
            match last {
                b'J' => self.stale = true,
                // Where each screen has margins of its own.
                b'h' if other_screen() => self.keep_margins(output),
                b'l' if other_screen() => self.stale = true,
                _ => {}
            }
        }
    }

    /// The margins that leave room, and the cursor where it is.
    fn keep_margins(&mut self, output: &mut Vec<u8>) {
        self.stale = true;
        output.extend_from_slice(format!("\x1b7\x1b[1;{}r\x1b8", self.bottom()).as_bytes());
    }

    /// A program's margins, inside those that leave room.
    fn margins(&self, sequence: &[u8]) -> Option<String> {
        let inner = sequence.strip_prefix(b"\x1b[")?.strip_suffix(b"r")?;
        let mut numbers = std::str::from_utf8(inner).ok()?.split(';').map(|number| match number {
            "" => Some(0),
            number => number.parse::<u16>().ok(),
        });
        let top = numbers.next()??.max(1);
        let bottom = match numbers.next() {
            None => 0,
            Some(bottom) => bottom?,
        };
        let bottom = if bottom == 0 { self.bottom() } else { bottom.min(self.bottom()) };
        Some(format!("\x1b[{top};{bottom}r"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status() -> (Status, vt100::Parser) {
        let cells = |count| std::num::NonZeroU16::new(count).unwrap();
        let (mut status, mut parser) = (Status::new("build"), vt100::Parser::new(cells(6), cells(60), 0));
        let mut output = vec![];
        status.resized(Size { cols: 60, rows: 6 }, &mut output);
        status.tell(true, None, false);
        status.draw(&mut output);
        parser.process(&output);
        (status, parser)
    }

    fn after(chunks: &[&[u8]]) -> vt100::Parser {
        let (mut status, mut parser) = status();
        for chunk in chunks {
            let mut output = vec![];
            status.pass(chunk, &mut output);
            status.draw(&mut output);
            parser.process(&output);
        }
        parser
    }

    fn rows(parser: &vt100::Parser) -> Vec<String> {
        parser.screen().rows(0, 60).collect()
    }

    const LINE: &str = " build  you own it  Ctrl-\\ d detaches";

    #[test]
    fn the_line_stays_while_the_program_scrolls_wipes_and_sets_margins() {
        let many: String = (0..20).map(|line| format!("{line}\r\n")).collect();
        for chunks in [
            &[many.as_bytes()][..],
            &[b"\x1b[r", many.as_bytes()],
            &[b"\x1b[1;", b"6r", many.as_bytes()],
            &[b"\x1b[2J\x1b[H", many.as_bytes()],
            &[b"\x1bc", many.as_bytes()],
            &[b"\x1b[!p", many.as_bytes()],
            &[b"\x1b[?1049h", many.as_bytes()],
            &[b"\x1b[?1049h\x1b[?25l", b"\x1b[?1049l\x1b[J", many.as_bytes()],
        ] {
            let parser = after(chunks);
            assert_eq!(rows(&parser)[5].trim_end(), LINE, "{chunks:?}");
            assert_eq!(rows(&parser)[3].trim_end(), "19", "{chunks:?}");
        }
    }

    #[test]
    fn what_the_program_writes_goes_through_byte_for_byte_but_for_its_margins() {
        let (mut status, _) = status();
        let text =
            b"a\x1b[31mb\x1b]0;t\x07\x1b]8;;u\x1b\\c\x1bP1$r\x1b\\\x1b(B\x1b[2;3r\x1b[?6r\x1b[1 q\xff\x1b";
        let mut output = vec![];
        for byte in text {
            status.pass(&[*byte], &mut output);
        }
        status.pass(b"[m", &mut output);
        let mut expected = text.to_vec();
        expected.extend_from_slice(b"[m");
        assert_eq!(output, expected);
        output.clear();
        status.pass(b"\x1b[r\x1b[3r\x1b[;9r", &mut output);
        assert_eq!(output, b"\x1b[1;5r\x1b[3;5r\x1b[1;5r");
    }

    #[test]
    fn a_saved_cursor_is_the_programs() {
        let (mut status, _) = status();
        let mut output = vec![];
        status.pass(b"\x1b7\x1b[2J", &mut output);
        output.clear();
        status.draw(&mut output);
        assert_eq!(output, b"", "drawing would save another cursor over it");
        status.pass(b"\x1b8", &mut output);
        output.clear();
        status.draw(&mut output);
        assert!(!output.is_empty());
    }

    #[test]
    fn the_line_says_who_owns_it_and_how_the_connection_is_and_is_cut_to_fit() {
        let (mut status, _) = status();
        status.tell(false, Some("ann\u{1b}@box"), false);
        assert_eq!(status.text, " build  ann\\u{1b}@box owns it, you watch  Ctrl-\\ d detaches");
        status.lag("red", 700 * 1024);
        status.tell(true, None, false);
        assert!(status.text.contains("red: 700 KiB behind"), "{}", status.text);
        status.lag("green", 0);
        status.tell(false, None, true);
        assert!(status.text.starts_with(" build  nobody owns it  connection lost"), "{}", status.text);
        status.resized(Size { cols: 10, rows: 6 }, &mut vec![]);
        status.tell(true, None, false);
        assert_eq!(status.text, " build  y");
    }
}
