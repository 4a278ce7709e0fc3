//! Traces: everything that went into an engine and came out of it, as lines of
//! JSON (`docs/PROTOCOL.md`, "Traces").
//!
//! [`Recorded`] wraps an engine and writes, [`Replay`] feeds a trace to a new
//! engine and compares, byte for byte. A trace holds the seed and the tokens:
//! whoever reads it can prove every name in it. Nothing here shows more than
//! line numbers through `Debug`.

mod attach;
mod form;
mod peers;
mod recorded;
mod replay;
mod settings;
mod tunnel;
mod words;

pub use form::Ended;
pub use recorded::{Recorded, Sink};
pub use replay::{Difference, Outcome, Replay, Report, TraceError, replay};
pub use settings::Seed;

/// The version of the form: the first line's `castra_trace`.
pub const FORMAT: u32 = 1;

/// Longest line, in bytes with its end. A recording that would need a longer one stops.
pub const LINE_MAX: usize = 64 * 1024 * 1024;

/// The trace's last line, with its end.
#[must_use]
pub fn last_line(ended: &Ended) -> alloc::string::String {
    form::line(&form::Last { end: ended }).unwrap_or_default()
}
