//! What a terminal shows, by somebody else's emulator.

use std::num::NonZeroU16;

use rmpv::Value;

use super::{number, text};

/// A terminal that is fed with everything.
pub(crate) struct Oracle(vt100::Parser);

impl Oracle {
    pub(crate) fn new(cols: u16, rows: u16) -> Self {
        let side = |count| NonZeroU16::new(count).unwrap();
        Self(vt100::Parser::new(side(rows), side(cols), 0))
    }

    /// A new terminal that shows a snapshot.
    pub(crate) fn of(snapshot: &Value) -> Self {
        let side = |name| u16::try_from(number(snapshot, name)).unwrap();
        let mut oracle = Self::new(side("cols"), side("rows"));
        oracle.feed(text(snapshot, "content").as_bytes());
        oracle
    }

    pub(crate) fn feed(&mut self, bytes: &[u8]) {
        self.0.process(bytes);
    }

    /// The text, without trailing blanks.
    pub(crate) fn text(&self) -> String {
        self.0.screen().contents()
    }

    /// Fails unless both show the same: text, styles, cursor and modes.
    pub(crate) fn assert_same(&self, other: &Self) {
        let (ours, theirs) = (self.0.screen(), other.0.screen());
        assert_eq!(ours.contents(), theirs.contents());
        assert_eq!(ours.cursor_position(), theirs.cursor_position());
        let (rows, cols) = ours.size();
        let places = (0..rows.get()).flat_map(|row| (0..cols.get()).map(move |col| (row, col)));
        for (row, col) in places {
            assert_eq!(styled(ours, row, col), styled(theirs, row, col), "at {row}, {col}");
        }
        assert_eq!(ours.input_mode_formatted(), theirs.input_mode_formatted());
        assert_eq!(ours.hide_cursor(), theirs.hide_cursor());
    }
}

/// A cell, its colours and attributes. A blank one is one that was never written.
fn styled(screen: &vt100::Screen, row: u16, col: u16) -> impl PartialEq + std::fmt::Debug + '_ {
    let cell = screen.cell(row, col).unwrap();
    let text = if cell.has_contents() { cell.contents() } else { " " };
    let marks = [cell.bold(), cell.italic(), cell.underline(), cell.inverse(), cell.is_wide()];
    (text, cell.fgcolor(), cell.bgcolor(), marks)
}
