//! Standard output and error: quiet on a broken pipe, coloured only for eyes,
//! and safe whatever the text is.

use std::borrow::Cow;
use std::fmt::{self, Write as _};
use std::io::{self, IsTerminal, Write};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags};

use crate::args::ColorWhen;
use crate::exit::Failure;

pub(crate) use castra_client::printable;

/// Standard output. Data goes here and nothing else.
#[derive(Debug)]
pub(crate) struct Out {
    gone: bool,
    /// Whether a person looks at it.
    pub(crate) terminal: bool,
    /// Whether to colour.
    pub(crate) color: bool,
}

impl Out {
    pub(crate) fn new(when: ColorWhen) -> Self {
        let terminal = io::stdout().is_terminal();
        let no_color = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        let dumb = std::env::var_os("TERM").is_some_and(|value| value == "dumb");
        Self { gone: false, terminal, color: colored(when, terminal && !dumb, no_color) }
    }

    /// Writes `text` as it is and flushes. A reader that went away is no
    /// error: see [`Out::gone`].
    pub(crate) fn put(&mut self, text: &str) -> Result<(), Failure> {
        if self.gone {
            return Ok(());
        }
        let mut stdout = io::stdout().lock();
        match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
            Ok(()) => Ok(()),
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {
                self.gone = true;
                Ok(())
            }
            Err(error) => Err(Failure::io("can't write to standard output", &error)),
        }
    }

    /// Writes one line.
    pub(crate) fn line(&mut self, text: &str) -> Result<(), Failure> {
        self.put(&format!("{text}\n"))
    }

    /// Writes a JSON document on one line. Whoever it came from, it is safe for a terminal.
    pub(crate) fn json(&mut self, document: &str) -> Result<(), Failure> {
        if document.bytes().all(|byte| matches!(byte, b' '..=b'~')) {
            return self.line(document);
        }
        self.line(&ascii_json(document))
    }

    /// Whether nobody reads any more: a command that follows ends quietly.
    pub(crate) fn gone(&mut self) -> bool {
        if !self.gone {
            let stdout = io::stdout();
            self.gone = hung_up(&mut [PollFd::new(&stdout, PollFlags::empty())], Duration::ZERO);
        }
        self.gone
    }

    /// Waits, but not longer than until nobody reads any more.
    pub(crate) fn pause(&mut self, span: Duration) {
        if !self.gone {
            let stdout = io::stdout();
            self.gone = hung_up(&mut [PollFd::new(&stdout, PollFlags::empty())], span);
        }
    }
}

/// Whether the reader of the pipe is gone. Only an error says so: a terminal
/// or a file never does.
fn hung_up(stdout: &mut [PollFd<'_>; 1], span: Duration) -> bool {
    let timeout = crate::client::timespec(span);
    match rustix::event::poll(stdout, Some(&timeout)) {
        Ok(0) | Err(_) => false,
        Ok(_) => stdout[0].revents().intersects(PollFlags::ERR | PollFlags::NVAL),
    }
}

/// `--color` beats NO_COLOR only when it says `always`.
const fn colored(when: ColorWhen, terminal: bool, no_color: bool) -> bool {
    match when {
        ColorWhen::Always => true,
        ColorWhen::Never => false,
        ColorWhen::Auto => terminal && !no_color,
    }
}

/// Says something to the person, on standard error. Nobody listening is no error.
pub(crate) fn say(text: impl fmt::Display) {
    let _ = writeln!(io::stderr().lock(), "castra: {}", printable(&text.to_string()));
}

/// JSON with everything outside printable ASCII as `\u` escapes: the same
/// document, safe for a terminal.
pub(crate) fn ascii_json(json: &str) -> Cow<'_, str> {
    // A long status is, always.
    if json.bytes().all(|byte| (b' '..=b'~').contains(&byte)) {
        return Cow::Borrowed(json);
    }
    let mut safe = String::with_capacity(json.len());
    for character in json.chars() {
        match character {
            ' '..='~' => safe.push(character),
            // Between tokens only; inside a string JSON forbids them.
            '\n' | '\r' | '\t' => safe.push(' '),
            _ => {
                for unit in character.encode_utf16(&mut [0; 2]) {
                    let _ = write!(safe, "\\u{unit:04x}");
                }
            }
        }
    }
    Cow::Owned(safe)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn colour_needs_a_terminal_and_no_objection_unless_asked_for() {
        assert!(colored(ColorWhen::Auto, true, false));
        assert!(!colored(ColorWhen::Auto, true, true));
        assert!(!colored(ColorWhen::Auto, false, false));
        assert!(colored(ColorWhen::Always, false, true));
        assert!(!colored(ColorWhen::Never, true, false));
    }

    #[test]
    fn hostile_text_reaches_no_terminal() {
        assert_eq!(printable("a\u{1b}[2J\nb\u{202e}"), r"a\u{1b}[2J\u{a}b\u{202e}");
        assert_eq!(ascii_json("{\"a\":\"\u{9b}x\u{1f600}\"}"), "{\"a\":\"\\u009bx\\ud83d\\ude00\"}");
    }
}
