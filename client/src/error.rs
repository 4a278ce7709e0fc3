//! Why there is no good answer.

use std::io;
use std::path::Path;
use std::time::Duration;

use castra_core::control::reply::{ErrorBody, ErrorCode};
use rustix::io::Errno;

/// Why there is no good answer. Its text says what happened, with what, and what to do; it is
/// one line of printable ASCII, whoever the words came from.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Nobody listens.
    #[error(
        "no broker serves at {path}: start one with `castra up`, or say where it is with --state-dir or CASTRA_STATE_DIR"
    )]
    NoBroker {
        /// The socket.
        path: String,
    },
    /// Somebody listens and says nothing.
    #[error(
        "the broker at {path} did not answer within {}: it is stopped or overloaded; `castra down --force` ends it",
        span(*bound)
    )]
    NotAnswering {
        /// The socket.
        path: String,
        /// How long it was waited for.
        bound: Duration,
    },
    /// It hung up instead of answering, or ended a stream.
    #[error("the broker at {path} closed the connection without an answer: it is stopping; try again")]
    Closed {
        /// The socket.
        path: String,
    },
    /// The kernel forbids it.
    #[error(
        "may not talk to the broker at {path}: its socket belongs to another user; be that user, or root"
    )]
    Denied {
        /// The socket.
        path: String,
    },
    /// No socket can have that name.
    #[error("{path} can't be a socket's path ({why}): choose a shorter state directory")]
    BadPath {
        /// The path.
        path: String,
        /// What the system says.
        why: io::Error,
    },
    /// The broker says no. A wait that was not satisfied in time is one of these:
    /// [`ErrorCode::Timeout`].
    #[error("{} ({})", printable(&.0.message), .0.code)]
    Refused(ErrorBody),
    /// The broker says no, with a code that is newer than this program.
    #[error("{} ({})", printable(message), printable(code))]
    RefusedOtherwise {
        /// The code.
        code: String,
        /// What happened, with what, and what to do.
        message: String,
    },
    /// Not the control protocol, or a document with words that are newer than this program.
    #[error(
        "the answer from {path} is not of control protocol v1 ({}): are castra and its broker of one version?",
        printable(what)
    )]
    Protocol {
        /// The socket, or what kind of answer it was.
        path: String,
        /// What is wrong with it.
        what: String,
    },
    /// The system failed.
    #[error("talking to {path} failed: {error}")]
    Io {
        /// The socket.
        path: String,
        /// What the system says.
        error: io::Error,
    },
}

impl Error {
    /// What kind of no the broker said; `None`: it is no answer of a broker, or a newer code.
    #[must_use]
    pub const fn code(&self) -> Option<ErrorCode> {
        match self {
            Self::Refused(body) => Some(body.code),
            _ => None,
        }
    }

    pub(crate) fn io(path: &str, error: Errno) -> Self {
        Self::Io { path: path.into(), error: error.into() }
    }
}

/// `text` on one line, with everything that isn't printable ASCII escaped: safe for a
/// terminal and a log, whoever wrote it.
#[must_use]
pub fn printable(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            ' '..='~' => safe.push(character),
            _ => safe.extend(character.escape_unicode()),
        }
    }
    safe
}

/// A path for messages: [`printable`].
#[must_use]
pub fn shown(path: &Path) -> String {
    printable(&path.display().to_string())
}

/// As people write it, to the nearest millisecond.
fn span(bound: Duration) -> String {
    let millis = (bound + Duration::from_micros(500)).as_millis();
    if millis.is_multiple_of(1000) { format!("{}s", millis / 1000) } else { format!("{millis}ms") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_text_of_an_error_reaches_a_terminal_unescaped() {
        let hostile = "a\u{1b}[2J\nb\u{202e}";
        let body = ErrorBody { code: ErrorCode::Busy, message: hostile.into() };
        let otherwise = Error::RefusedOtherwise { code: hostile.into(), message: hostile.into() };
        let protocol = Error::Protocol { path: shown(Path::new(hostile)), what: hostile.into() };
        for error in [Error::Refused(body), otherwise, protocol] {
            let text = error.to_string();
            assert!(text.contains(r"a\u{1b}[2J\u{a}b\u{202e}"), "{text}");
            assert!(text.bytes().all(|byte| (b' '..=b'~').contains(&byte)), "{text}");
        }
    }

    #[test]
    fn a_bound_is_told_as_people_write_it() {
        assert_eq!(span(Duration::from_secs(2)), "2s");
        assert_eq!(span(Duration::from_micros(299_700)), "300ms");
    }
}
