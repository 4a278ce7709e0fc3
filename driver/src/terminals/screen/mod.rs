//! What a terminal shows: an emulator that is fed with a program's output, and
//! writes down its whole state so that another terminal can go on from there.
//!
//! The emulator is `alacritty_terminal`. It hides some of its state, so a handler
//! (`hidden`) stands before it, mirrors what it hides and passes everything on;
//! `write` makes sequences of it, `tail` knows what is still unfinished.
//!
//! # What is not restored
//!
//! Blinking and overlined text, double-width lines, images and sixels, left and
//! right margins, protected cells and the character that REP would repeat: the
//! emulator doesn't know them. 47 and 1047 are taken for 1049. A cursor that is
//! outside the scroll region in origin mode comes back without what was saved by
//! DECSC; and on a screen of one or two lines it is forgotten that the last one
//! goes on in the next.

mod hidden;
mod style;
mod tail;
mod write;

#[cfg(test)]
mod tests;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, PoisonError};

use alacritty_terminal::event::{Event, EventListener};
use alacritty_terminal::grid::Dimensions;
use alacritty_terminal::index::{Column, Line};
use alacritty_terminal::term::cell::Flags;
use alacritty_terminal::term::{Config, Osc52, Term, TermMode};
use alacritty_terminal::vte::ansi::{Processor, Timeout};
use castra_core::terminals::{Modes, Snapshot};

use self::hidden::{Hidden, Mirrored};
use self::tail::Tail;
use crate::terminals::porter::Model;

/// Answers that nobody fetched, in bytes.
const REPLIES_MAX: usize = 64 * 1024;

/// A model of a terminal.
pub struct Screen {
    inner: Mirrored,
    parser: Processor<NoWaiting>,
    tail: Tail,
    replies: Replies,
    history: usize,
}

impl std::fmt::Debug for Screen {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Screen")
    }
}

/// Synchronized updates are for who draws; here they are output like any other.
#[derive(Default)]
struct NoWaiting;

impl Timeout for NoWaiting {
    fn set_timeout(&mut self, _: std::time::Duration) {}

    fn clear_timeout(&mut self) {}

    fn pending_timeout(&self) -> bool {
        false
    }
}

/// What the emulator has to say.
#[derive(Clone, Default)]
struct Replies(Arc<Mutex<Vec<u8>>>);

impl EventListener for Replies {
    fn send_event(&self, event: Event) {
        // Colours, sizes in pixels and clipboards are a matter of who draws.
        if let Event::PtyWrite(text) = event {
            let mut replies = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            if replies.len() + text.len() <= REPLIES_MAX {
                replies.extend_from_slice(text.as_bytes());
            }
        }
    }
}

#[derive(Clone, Copy)]
struct Size {
    cols: usize,
    rows: usize,
}

impl Size {
    /// The emulator has no room for a wide character in one column.
    fn new(cols: u16, rows: u16) -> Self {
        Self { cols: usize::from(cols.max(2)), rows: usize::from(rows.max(1)) }
    }
}

impl Dimensions for Size {
    fn total_lines(&self) -> usize {
        self.rows
    }

    fn screen_lines(&self) -> usize {
        self.rows
    }

    fn columns(&self) -> usize {
        self.cols
    }
}

impl Screen {
    /// An empty screen of that size (at least 2 columns and 1 row), with at most
    /// `history` lines above it.
    #[must_use]
    pub fn new(cols: u16, rows: u16, history: usize) -> Self {
        let replies = Replies::default();
        let inner = Mirrored::new(
            term(Size::new(cols, rows), history, &replies),
            Hidden::new(cols.max(2), rows.max(1)),
        );
        Self { inner, parser: Processor::new(), tail: Tail::default(), replies, history }
    }

    /// Takes output. Any cut of a stream gives the same screen.
    pub fn feed(&mut self, bytes: &[u8]) {
        let (inner, parser) = (&mut self.inner, &mut self.parser);
        let tail = &mut self.tail;
        let fed = catch_unwind(AssertUnwindSafe(|| tail.cut(bytes, |piece| parser.advance(inner, piece))));
        if fed.is_err() {
            // A defect of the emulator costs what it showed, not the terminal.
            let size = Size { cols: self.inner.term.columns(), rows: self.inner.term.screen_lines() };
            let hidden = Hidden::new(size.cols as u16, size.rows as u16);
            self.inner = Mirrored::new(term(size, self.history, &self.replies), hidden);
            self.parser = Processor::new();
            self.tail = Tail::default();
        }
    }

    /// How many of the last bytes fed are not in the state yet: an escape sequence
    /// or a character that isn't whole. A snapshot is of what came before them.
    #[must_use]
    pub fn unsettled(&self) -> usize {
        self.tail.unsettled()
    }

    /// Takes a new size.
    pub fn resize(&mut self, cols: u16, rows: u16) {
        self.inner.resize(Size::new(cols, rows));
    }

    /// Forgets the history.
    pub fn clear_scrollback(&mut self) {
        self.inner.term.grid_mut().clear_history();
    }

    /// What it answered to queries since the last call.
    pub fn take_replies(&mut self) -> Vec<u8> {
        std::mem::take(&mut *self.replies.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// The title that the program gave the terminal.
    #[must_use]
    pub fn title(&self) -> Option<&str> {
        self.inner.hidden.title.as_deref()
    }

    /// Everything, as sequences; at most `history_lines` of history.
    pub fn snapshot(&mut self, history_lines: usize) -> Snapshot {
        let content = self.content(history_lines);
        let term = &self.inner.term;
        let mode = *term.mode();
        let cursor = term.grid().cursor.point;
        Snapshot {
            content,
            rehydrate: write::rehydrate(&self.inner),
            cols: term.columns() as u16,
            rows: term.screen_lines() as u16,
            cursor_x: cursor.column.0 as u16,
            cursor_y: u16::try_from(cursor.line.0).unwrap_or(0),
            modes: Modes {
                application_cursor: mode.contains(TermMode::APP_CURSOR),
                bracketed_paste: mode.contains(TermMode::BRACKETED_PASTE),
                mouse_tracking: mode.intersects(TermMode::MOUSE_MODE),
                mouse_sgr: mode.contains(TermMode::SGR_MOUSE),
                focus_reporting: mode.contains(TermMode::FOCUS_IN_OUT),
                alternate_screen: mode.contains(TermMode::ALT_SCREEN),
                cursor_visible: mode.contains(TermMode::SHOW_CURSOR),
                auto_wrap: mode.contains(TermMode::LINE_WRAP),
            },
            cwd: None,
            title: self.inner.hidden.title.clone(),
            offset: 0,
        }
    }

    fn content(&mut self, history_lines: usize) -> String {
        let mut out = String::with_capacity(16 * 1024);
        self.inner.settle_wrap();
        write::begin(&mut out, &self.inner);
        if self.inner.term.mode().contains(TermMode::ALT_SCREEN) {
            // The inactive screen can only be read by switching to it, and switching
            // back empties the other: it is put back from a copy.
            let alternate = self.inner.term.grid().clone();
            let keyboard = *self.inner.term.mode() & TermMode::KITTY_KEYBOARD_PROTOCOL;
            self.inner.switch();
            self.inner.settle_wrap();
            write::screen(&mut out, self.inner.term.grid(), history_lines, false);
            write::cursor(&mut out, self.inner.term.grid(), 0);
            write::keyboard(&mut out, &self.inner.hidden.other_keyboard);
            self.inner.term.swap_alt();
            *self.inner.term.grid_mut() = alternate;
            self.inner.set_keyboard_flags(keyboard);
            out.push_str("\x1b[?1049h");
            style::charsets_reset(&mut out);
            out.push_str("\x1b[2J");
            write::screen(&mut out, self.inner.term.grid(), 0, true);
        } else {
            write::screen(&mut out, self.inner.term.grid(), history_lines, true);
        }
        write::end(&mut out, &self.inner);
        self.tail.append_opened(&mut out);
        out
    }

    /// Its characters, line by line, wrapped lines joined; at most `history_lines` of
    /// history.
    #[must_use]
    pub fn text(&self, history_lines: usize) -> String {
        let grid = self.inner.term.grid();
        let history = grid.history_size().min(history_lines) as i32;
        let (mut text, mut line_text) = (String::new(), String::new());
        for line in -history..grid.screen_lines() as i32 {
            let row = &grid[Line(line)];
            let wrapped = row[Column(grid.columns() - 1)].flags.contains(Flags::WRAPLINE);
            for column in 0..grid.columns() {
                let cell = &row[Column(column)];
                if cell.flags.intersects(Flags::WIDE_CHAR_SPACER | Flags::LEADING_WIDE_CHAR_SPACER) {
                    continue;
                }
                line_text.push(if cell.c == '\t' { ' ' } else { cell.c });
                line_text.extend(cell.zerowidth().into_iter().flatten());
            }
            if !wrapped {
                text.push_str(line_text.trim_end());
                text.push('\n');
                line_text.clear();
            }
        }
        text.push_str(line_text.trim_end());
        text
    }
}

impl Model for Screen {
    fn feed(&mut self, bytes: &[u8]) {
        Self::feed(self, bytes);
    }

    fn resize(&mut self, cols: u16, rows: u16) {
        Self::resize(self, cols, rows);
    }

    fn snapshot(&mut self, history_lines: u32) -> Snapshot {
        Self::snapshot(self, usize::try_from(history_lines).unwrap_or(usize::MAX))
    }

    fn unsettled(&self) -> usize {
        Self::unsettled(self)
    }

    fn take_replies(&mut self) -> Vec<u8> {
        Self::take_replies(self)
    }

    fn clear_scrollback(&mut self) {
        Self::clear_scrollback(self);
    }
}

fn term(size: Size, history: usize, replies: &Replies) -> Term<Replies> {
    let config = Config {
        scrolling_history: history,
        kitty_keyboard: true,
        osc52: Osc52::Disabled,
        ..Config::default()
    };
    Term::new(config, &size, replies.clone())
}
