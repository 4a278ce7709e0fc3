//! What of a stream isn't whole yet: the start of an escape sequence, or of a character.

/// Room that stays allocated between sequences, in bytes.
const KEPT: usize = 1024;
/// Longest sequence that is passed on, in bytes. Of a longer one (an image, say)
/// the rest is dropped.
const SEQUENCE_MAX: usize = 64 * 1024;

const ESCAPE: u8 = 0x1b;
const BELL: u8 = 0x07;
const CANCEL: u8 = 0x18;
const SUBSTITUTE: u8 = 0x1a;

/// Where in a sequence a stream is.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
enum State {
    /// In none.
    #[default]
    Ground,
    /// After ESC, and perhaps intermediates.
    Escape,
    /// After ESC [.
    Control,
    /// After ESC ], which a bell ends too.
    System,
    /// After ESC P, X, ^ or _.
    Text,
}

/// Follows a stream.
#[derive(Debug, Default)]
pub(super) struct Tail {
    state: State,
    /// The sequence so far, without controls that took effect at once.
    sequence: Vec<u8>,
    /// The sequence became too long: it was broken off, and its rest is dropped.
    dropping: bool,
    /// A character that isn't whole; at most three bytes.
    character: Vec<u8>,
}

impl Tail {
    /// Passes a piece of the stream on, without what is dropped of it. A character
    /// is passed on when it is whole.
    pub(super) fn cut(&mut self, mut bytes: &[u8], mut pass: impl FnMut(&[u8])) {
        while !bytes.is_empty() {
            if self.state == State::Ground {
                if !self.character.is_empty() {
                    bytes = self.complete(bytes, &mut pass);
                    continue;
                }
                // Only what follows the last escape can be unfinished.
                let start = memrchr(ESCAPE, bytes).unwrap_or(bytes.len());
                let (text, rest) = bytes.split_at(start);
                let begun = if rest.is_empty() { begun(text) } else { 0 };
                let (whole, begun) = text.split_at(text.len() - begun);
                pass_whole(whole, &mut pass);
                self.character.extend_from_slice(begun);
                let Some((escape, rest)) = rest.split_first() else { return };
                self.begin();
                pass(std::slice::from_ref(escape));
                bytes = rest;
                continue;
            }
            let dropped = self.dropping;
            let used = self.follow(bytes);
            let (sequence, rest) = bytes.split_at(used);
            if !dropped {
                pass(sequence);
            }
            if self.state == State::Ground {
                self.dropping = false;
            } else if self.sequence.len() > SEQUENCE_MAX && !self.dropping {
                pass(&[CANCEL]);
                self.dropping = true;
                self.sequence = Vec::new();
            }
            bytes = rest;
        }
    }

    /// How many of the last bytes are neither in the state of whoever got them nor in
    /// what [`Tail::append_opened`] appends.
    pub(super) fn unsettled(&self) -> usize {
        match self.state {
            State::Ground => self.character.len(),
            _ => begun(&self.sequence),
        }
    }

    /// Appends what brings another terminal to the same place in a sequence.
    pub(super) fn append_opened(&self, out: &mut String) {
        match self.state {
            State::Ground => {}
            State::System if self.dropping => out.push_str("\x1b]9999;"),
            _ if self.dropping => out.push_str("\x1bX"),
            _ => {
                let whole = self.sequence.len() - begun(&self.sequence);
                out.push_str(&String::from_utf8_lossy(&self.sequence[..whole]));
            }
        }
    }

    fn begin(&mut self) {
        self.state = State::Escape;
        self.sequence.clear();
        self.sequence.shrink_to(KEPT);
        self.sequence.push(ESCAPE);
    }

    /// Goes on in a sequence; how many bytes of it there are. A new escape begins another.
    fn follow(&mut self, bytes: &[u8]) -> usize {
        for (index, byte) in bytes.iter().copied().enumerate() {
            let over = match (self.state, byte) {
                (_, CANCEL | SUBSTITUTE) => true,
                (_, ESCAPE) => {
                    if std::mem::take(&mut self.dropping) {
                        // What was dropped ends here; the escape itself is passed on.
                        self.begin();
                        self.sequence.clear();
                        return index;
                    }
                    self.begin();
                    continue;
                }
                // They take effect at once.
                (State::Escape | State::Control, 0..=0x1f) => continue,
                (State::Escape, b'[') => self.enter(State::Control),
                (State::Escape, b']') => self.enter(State::System),
                (State::Escape, b'P' | b'X' | b'^' | b'_') => self.enter(State::Text),
                (State::Escape, 0x30..=0x7e) => true,
                (State::Control, 0x40..=0x7e) => true,
                (State::System, BELL) => true,
                _ => false,
            };
            if over {
                self.state = State::Ground;
                return index + 1;
            }
            if !self.dropping {
                self.sequence.push(byte);
                if self.sequence.len() > SEQUENCE_MAX {
                    return index + 1;
                }
            }
        }
        bytes.len()
    }

    fn enter(&mut self, state: State) -> bool {
        self.state = state;
        false
    }

    /// Goes on in a character; what comes after it.
    fn complete<'a>(&mut self, bytes: &'a [u8], pass: &mut impl FnMut(&[u8])) -> &'a [u8] {
        let (first, rest) = bytes.split_at(1);
        let continues = (0x80..=0xbf).contains(&first[0]);
        if continues {
            self.character.extend_from_slice(first);
        }
        if !continues || begun(&self.character) == 0 {
            // What is broken off is so for good: nobody waits for its rest.
            pass(String::from_utf8_lossy(&std::mem::take(&mut self.character)).as_bytes());
        }
        if continues { rest } else { bytes }
    }
}

/// Passes a text on that nothing continues: a start of a character at its end is
/// broken off.
fn pass_whole(text: &[u8], pass: &mut impl FnMut(&[u8])) {
    let (whole, broken) = text.split_at(text.len() - begun(text));
    if !broken.is_empty() {
        pass_whole(whole, pass);
        pass(String::from_utf8_lossy(broken).as_bytes());
    } else if !whole.is_empty() {
        pass(whole);
    }
}

/// How many bytes at the end of a text are the start of a character.
fn begun(text: &[u8]) -> usize {
    let last = &text[text.len().saturating_sub(3)..];
    let start = last.iter().rposition(|byte| !(0x80..=0xbf).contains(byte));
    let Some(start) = start.map(|start| &last[start..]) else { return 0 };
    // Whatever could be said of it, more bytes could make it a character.
    if std::str::from_utf8(start).is_err_and(|error| error.error_len().is_none()) { start.len() } else { 0 }
}

fn memrchr(needle: u8, bytes: &[u8]) -> Option<usize> {
    bytes.iter().rposition(|byte| *byte == needle)
}
