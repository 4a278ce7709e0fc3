//! What a terminal's output looks like on a screen.

use std::sync::Arc;

use castra_core::terminals::Snapshot;

/// A model of a terminal's screen, fed with its output.
pub trait Model: Send {
    /// Takes output.
    fn feed(&mut self, bytes: &[u8]);

    /// Takes a new size.
    fn resize(&mut self, cols: u16, rows: u16);

    /// What it shows, with at most `history_lines` of history. Its `offset` and `cwd`
    /// are the caller's to fill in.
    fn snapshot(&mut self, history_lines: u32) -> Snapshot;

    /// How many of the last bytes fed are not in a snapshot made now: the start of
    /// something that isn't whole.
    fn unsettled(&self) -> usize {
        0
    }

    /// What it answered to queries in the output since the last call.
    fn take_replies(&mut self) -> Vec<u8>;

    /// Forgets its history.
    fn clear_scrollback(&mut self);
}

/// Makes an empty model of so many columns and rows.
pub type MakeModel = Arc<dyn Fn(u16, u16) -> Box<dyn Model> + Send + Sync>;

/// A model of `cols` and `rows` that shows `content`, which was written for a terminal
/// of another size perhaps.
pub(super) fn showing(
    make: &MakeModel,
    content: &str,
    content_size: (u16, u16),
    (cols, rows): (u16, u16),
) -> Box<dyn Model> {
    let mut model = make(content_size.0.max(1), content_size.1.max(1));
    model.feed(content.as_bytes());
    if content_size != (cols, rows) {
        model.resize(cols, rows);
    }
    // Answers to queries of long ago are nobody's.
    model.take_replies();
    model
}
