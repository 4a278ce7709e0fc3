//! The emulator, with what it hides beside it.
//!
//! It also keeps the emulator out of states that no sequence could bring about
//! again: halves of wide characters, a pending wrap on a line that was wrapped.

use std::collections::BTreeSet;

use alacritty_terminal::grid::Dimensions;
use alacritty_terminal::index::{Column, Line};
use alacritty_terminal::term::cell::{Cell, Flags};
use alacritty_terminal::term::{Term, TermMode};
use alacritty_terminal::vte::ansi::{
    Attr, CharsetIndex, ClearMode, CursorShape, CursorStyle, Handler, Hyperlink, KeyboardModes,
    KeyboardModesApplyBehavior, LineClearMode, Mode, ModifyOtherKeys, NamedPrivateMode, PrivateMode, Rgb,
    StandardCharset, TabulationClearMode,
};
use unicode_width::UnicodeWidthChar;

use super::{Replies, Size};

/// Longest title and address of a link, in bytes.
const TEXT_MAX: usize = 1024;
/// Most saved titles, and saved keyboard modes of a screen.
const STACK_MAX: usize = 32;
/// Most modes that the emulator doesn't know.
const MODES_MAX: usize = 32;
/// Most characters without a width in one cell.
const COMBINED_MAX: usize = 16;

/// What the emulator hides.
#[derive(Clone, PartialEq, Debug)]
pub(super) struct Hidden {
    pub(super) title: Option<String>,
    pub(super) titles: Vec<Option<String>>,
    pub(super) tabs: Vec<bool>,
    /// First and last line of the scroll region, from 0.
    pub(super) region: (usize, usize),
    pub(super) charset: CharsetIndex,
    pub(super) cursor_style: Option<CursorStyle>,
    /// Saved keyboard modes of the active screen and of the other.
    pub(super) keyboard: Vec<KeyboardModes>,
    pub(super) other_keyboard: Vec<KeyboardModes>,
    /// Private modes that are on and mean nothing to the emulator.
    pub(super) modes: BTreeSet<u16>,
    pub(super) other_keys: Option<ModifyOtherKeys>,
}

impl Hidden {
    pub(super) fn new(cols: u16, rows: u16) -> Self {
        Self {
            title: None,
            titles: Vec::new(),
            tabs: default_tabs(usize::from(cols)),
            region: (0, usize::from(rows) - 1),
            charset: CharsetIndex::default(),
            cursor_style: None,
            keyboard: Vec::new(),
            other_keyboard: Vec::new(),
            modes: BTreeSet::new(),
            other_keys: None,
        }
    }
}

fn default_tabs(cols: usize) -> Vec<bool> {
    (0..cols).map(|column| column % 8 == 0).collect()
}

/// The emulator, and what it hides.
pub(super) struct Mirrored {
    pub(super) term: Term<Replies>,
    pub(super) hidden: Hidden,
    /// The screen that isn't shown got another size.
    other_resized: bool,
}

impl Mirrored {
    pub(super) const fn new(term: Term<Replies>, hidden: Hidden) -> Self {
        Self { term, hidden, other_resized: false }
    }

    pub(super) fn resize(&mut self, size: Size) {
        let cols = self.term.columns();
        if (cols, self.term.screen_lines()) == (size.cols, size.rows) {
            return;
        }
        self.term.resize(size);
        if cols != size.cols {
            let mut column = self.hidden.tabs.len();
            self.hidden.tabs.resize_with(size.cols, || {
                column += 1;
                (column - 1).is_multiple_of(8)
            });
        }
        self.hidden.region = (0, size.rows - 1);
        self.heal_all();
        self.other_resized = true;
    }

    /// Switches to the other screen. What a resize left there is put right first.
    pub(super) fn switch(&mut self) {
        self.term.swap_alt();
        if std::mem::take(&mut self.other_resized) {
            self.heal_all();
        }
    }

    /// After a resize. Touching every cell also makes the emulator clear them all when
    /// it clears next, which a row that grew would not be.
    fn heal_all(&mut self) {
        let grid = self.term.grid_mut();
        let (top, bottom) = (-(grid.history_size() as i32), grid.screen_lines() as i32);
        let last = grid.columns() - 1;
        for cursor in [&mut grid.cursor, &mut grid.saved_cursor] {
            cursor.input_needs_wrap &= cursor.point.column.0 == last;
        }
        for line in top..bottom {
            self.heal(line);
        }
    }

    /// Where the next character wraps the line, nothing has wrapped it so far. And on
    /// a screen of one or two lines, or of one character a line, no sequence could wrap
    /// the last one.
    pub(super) fn settle_wrap(&mut self) {
        let grid = self.term.grid_mut();
        let (rows, columns) = (grid.screen_lines(), grid.columns());
        let last = &mut grid[Line(rows as i32 - 1)][Column(columns - 1)];
        let fills = columns == 1 || columns == 2 && last.flags.contains(Flags::WIDE_CHAR_SPACER);
        if rows <= 2 || fills {
            last.flags.remove(Flags::WRAPLINE);
        }
        if grid.cursor.input_needs_wrap {
            grid.cursor_cell().flags.remove(Flags::WRAPLINE);
        }
    }

    /// The keyboard's flags, whatever the stack says.
    pub(super) fn set_keyboard_flags(&mut self, flags: TermMode) {
        let mut modes = KeyboardModes::NO_MODE;
        for (flag, mode) in [
            (TermMode::DISAMBIGUATE_ESC_CODES, KeyboardModes::DISAMBIGUATE_ESC_CODES),
            (TermMode::REPORT_EVENT_TYPES, KeyboardModes::REPORT_EVENT_TYPES),
            (TermMode::REPORT_ALTERNATE_KEYS, KeyboardModes::REPORT_ALTERNATE_KEYS),
            (TermMode::REPORT_ALL_KEYS_AS_ESC, KeyboardModes::REPORT_ALL_KEYS_AS_ESC),
            (TermMode::REPORT_ASSOCIATED_TEXT, KeyboardModes::REPORT_ASSOCIATED_TEXT),
        ] {
            modes.set(mode, flags.contains(flag));
        }
        Handler::set_keyboard_mode(&mut self.term, modes, KeyboardModesApplyBehavior::Replace);
    }

    /// Halves of wide characters become blanks, and marks of wrapping that mean
    /// nothing go.
    fn heal(&mut self, line: i32) {
        let grid = self.term.grid_mut();
        let last = grid.columns() - 1;
        let row = &mut grid[Line(line)];
        let mut column = 0;
        for cell in &mut row[Column(0)..Column(last)] {
            cell.flags.remove(Flags::WRAPLINE | Flags::LEADING_WIDE_CHAR_SPACER);
        }
        while column <= last {
            let wide_next = column < last && row[Column(column + 1)].flags.contains(Flags::WIDE_CHAR_SPACER);
            let cell = &mut row[Column(column)];
            if cell.flags.contains(Flags::WIDE_CHAR) {
                if wide_next {
                    column += 2;
                    continue;
                }
                cell.clear_wide();
            }
            cell.flags.remove(Flags::WIDE_CHAR_SPACER);
            column += 1;
        }
    }

    fn heal_cursor(&mut self) {
        let line = self.term.grid().cursor.point.line.0;
        self.heal(line);
    }

    /// Whether the cell that a character without a width would go to is full.
    fn is_combined_enough(&self) -> bool {
        let grid = self.term.grid();
        let point = grid.cursor.point;
        let mut column = point.column.0;
        if !grid.cursor.input_needs_wrap {
            column = column.saturating_sub(1);
        }
        if grid[point.line][Column(column)].flags.contains(Flags::WIDE_CHAR_SPACER) {
            column = column.saturating_sub(1);
        }
        grid[point.line][Column(column)].zerowidth().is_some_and(|marks| marks.len() >= COMBINED_MAX)
    }

    fn enter_alternate(&mut self) {
        if self.term.mode().contains(TermMode::ALT_SCREEN) {
            return;
        }
        self.switch();
        // What was saved on it last time is gone with what it showed.
        let grid = self.term.grid_mut();
        grid.saved_cursor = grid.cursor.clone();
        let blank: Cell = grid.cursor.template.bg.into();
        for line in 0..grid.screen_lines() as i32 {
            grid[Line(line)][..].fill(blank.clone());
        }
        std::mem::swap(&mut self.hidden.keyboard, &mut self.hidden.other_keyboard);
    }

    fn leave_alternate(&mut self) {
        if !self.term.mode().contains(TermMode::ALT_SCREEN) {
            return;
        }
        // A program that left its keyboard modes behind left them with its screen.
        self.pop_keyboard_modes(u16::MAX);
        self.switch();
        std::mem::swap(&mut self.hidden.keyboard, &mut self.hidden.other_keyboard);
    }

    fn style(&mut self) -> &mut CursorStyle {
        self.hidden.cursor_style.get_or_insert_default()
    }
}

/// Passes calls on as they are.
macro_rules! pass_on {
    ($($name:ident($($argument:ident: $kind:ty),*);)*) => {
        $(
            #[inline]
            fn $name(&mut self, $($argument: $kind),*) {
                Handler::$name(&mut self.term, $($argument),*);
            }
        )*
    };
}

/// The same, and looks after the cursor's line.
macro_rules! pass_on_and_heal {
    ($($name:ident($($argument:ident: $kind:ty),*);)*) => {
        $(
            #[inline]
            fn $name(&mut self, $($argument: $kind),*) {
                Handler::$name(&mut self.term, $($argument),*);
                self.heal_cursor();
            }
        )*
    };
}

impl Handler for Mirrored {
    pass_on! {
        goto(line: i32, column: usize);
        goto_line(line: i32);
        goto_col(column: usize);
        move_up(rows: usize);
        move_down(rows: usize);
        identify_terminal(intermediate: Option<char>);
        device_status(what: usize);
        move_forward(columns: usize);
        move_backward(columns: usize);
        move_down_and_cr(rows: usize);
        move_up_and_cr(rows: usize);
        put_tab(count: u16);
        backspace();
        carriage_return();
        linefeed();
        bell();
        substitute();
        newline();
        scroll_up(rows: usize);
        scroll_down(rows: usize);
        insert_blank_lines(rows: usize);
        delete_lines(rows: usize);
        move_forward_tabs(count: u16);
        save_cursor_position();
        reverse_index();
        terminal_attribute(attribute: Attr);
        set_mode(mode: Mode);
        unset_mode(mode: Mode);
        report_mode(mode: Mode);
        report_private_mode(mode: PrivateMode);
        set_keypad_application_mode();
        unset_keypad_application_mode();
        configure_charset(index: CharsetIndex, charset: StandardCharset);
        set_color(index: usize, color: Rgb);
        reset_color(index: usize);
        decaln();
        text_area_size_chars();
        report_keyboard_mode();
    }

    pass_on_and_heal! {
        insert_blank(count: usize);
        erase_chars(count: usize);
        delete_chars(count: usize);
        clear_line(mode: LineClearMode);
        clear_screen(mode: ClearMode);
    }

    #[inline]
    fn input(&mut self, c: char) {
        if c >= '\u{300}' && c.width() == Some(0) && self.is_combined_enough() {
            return;
        }
        self.term.input(c);
        if self.term.mode().contains(TermMode::INSERT) {
            self.heal_cursor();
        }
    }

    fn move_backward_tabs(&mut self, count: u16) {
        self.term.move_backward_tabs(count);
        let grid = self.term.grid_mut();
        grid.cursor.input_needs_wrap &= grid.cursor.point.column.0 + 1 == grid.columns();
    }

    fn restore_cursor_position(&mut self) {
        self.term.restore_cursor_position();
        self.settle_wrap();
    }

    fn reset_state(&mut self) {
        self.leave_alternate();
        self.term.reset_state();
        let (cols, rows) = (self.term.columns(), self.term.screen_lines());
        self.hidden = Hidden::new(cols as u16, rows as u16);
    }

    fn set_horizontal_tabstop(&mut self) {
        self.term.set_horizontal_tabstop();
        let column = self.term.grid().cursor.point.column.0;
        self.hidden.tabs[column] = true;
    }

    fn clear_tabs(&mut self, mode: TabulationClearMode) {
        match mode {
            TabulationClearMode::Current => {
                let column = self.term.grid().cursor.point.column.0;
                self.hidden.tabs[column] = false;
            }
            TabulationClearMode::All => self.hidden.tabs.fill(false),
        }
        self.term.clear_tabs(mode);
    }

    fn set_scrolling_region(&mut self, top: usize, bottom: Option<usize>) {
        let rows = self.term.screen_lines();
        let end = bottom.unwrap_or(rows);
        // A region that begins below the screen would be none.
        if top < 1 || top >= end || top >= rows {
            return;
        }
        self.term.set_scrolling_region(top, bottom);
        self.hidden.region = (top - 1, end.min(rows) - 1);
    }

    fn set_active_charset(&mut self, index: CharsetIndex) {
        self.term.set_active_charset(index);
        self.hidden.charset = index;
    }

    fn set_title(&mut self, title: Option<String>) {
        // There is no sequence for none but an empty one.
        self.hidden.title = title.filter(|title| !title.is_empty()).map(|title| bounded(&title).to_owned());
    }

    fn push_title(&mut self) {
        if self.hidden.titles.len() == STACK_MAX {
            self.hidden.titles.remove(0);
        }
        self.hidden.titles.push(self.hidden.title.clone());
    }

    fn pop_title(&mut self) {
        if let Some(title) = self.hidden.titles.pop() {
            self.hidden.title = title;
        }
    }

    fn set_cursor_style(&mut self, style: Option<CursorStyle>) {
        self.hidden.cursor_style = style;
        self.term.set_cursor_style(style);
    }

    fn set_cursor_shape(&mut self, shape: CursorShape) {
        self.style().shape = shape;
        self.term.set_cursor_shape(shape);
    }

    fn set_hyperlink(&mut self, link: Option<Hyperlink>) {
        let fits = |text: &str| text.len() <= TEXT_MAX && !text.chars().any(char::is_control);
        let link = link.filter(|link| fits(&link.uri) && link.id.as_deref().is_none_or(fits));
        self.term.set_hyperlink(link);
    }

    fn set_private_mode(&mut self, mode: PrivateMode) {
        match mode {
            PrivateMode::Unknown(47 | 1047)
            | PrivateMode::Named(NamedPrivateMode::SwapScreenAndSetRestoreCursor) => self.enter_alternate(),
            PrivateMode::Unknown(1048) => self.save_cursor_position(),
            PrivateMode::Unknown(mode) => {
                if self.hidden.modes.len() < MODES_MAX {
                    self.hidden.modes.insert(mode);
                }
            }
            PrivateMode::Named(named) => {
                self.term.set_private_mode(mode);
                match named {
                    NamedPrivateMode::BlinkingCursor => self.style().blinking = true,
                    NamedPrivateMode::ColumnMode => self.full_region(),
                    _ => {}
                }
            }
        }
    }

    fn unset_private_mode(&mut self, mode: PrivateMode) {
        match mode {
            PrivateMode::Unknown(47 | 1047)
            | PrivateMode::Named(NamedPrivateMode::SwapScreenAndSetRestoreCursor) => self.leave_alternate(),
            PrivateMode::Unknown(1048) => self.restore_cursor_position(),
            PrivateMode::Unknown(mode) => {
                self.hidden.modes.remove(&mode);
            }
            PrivateMode::Named(named) => {
                self.term.unset_private_mode(mode);
                match named {
                    NamedPrivateMode::BlinkingCursor => self.style().blinking = false,
                    NamedPrivateMode::ColumnMode => self.full_region(),
                    _ => {}
                }
            }
        }
    }

    fn push_keyboard_mode(&mut self, mode: KeyboardModes) {
        if self.hidden.keyboard.len() == STACK_MAX {
            // The emulator would let it grow further, and break at its own bound.
            let mut kept = self.hidden.keyboard.split_off(1);
            self.pop_keyboard_modes(u16::MAX);
            kept.drain(..).for_each(|mode| self.push_keyboard_mode(mode));
        }
        self.term.push_keyboard_mode(mode);
        self.hidden.keyboard.push(mode);
    }

    fn pop_keyboard_modes(&mut self, count: u16) {
        self.term.pop_keyboard_modes(count);
        let left = self.hidden.keyboard.len().saturating_sub(usize::from(count));
        self.hidden.keyboard.truncate(left);
    }

    fn set_keyboard_mode(&mut self, mode: KeyboardModes, behavior: KeyboardModesApplyBehavior) {
        Handler::set_keyboard_mode(&mut self.term, mode, behavior);
    }

    fn set_modify_other_keys(&mut self, mode: ModifyOtherKeys) {
        self.hidden.other_keys = Some(mode).filter(|mode| *mode != ModifyOtherKeys::Reset);
    }
}

impl Mirrored {
    fn full_region(&mut self) {
        self.hidden.region = (0, self.term.screen_lines() - 1);
    }
}

fn bounded(text: &str) -> &str {
    &text[..text.floor_char_boundary(TEXT_MAX)]
}

/// Whether a cell is as a new terminal's.
pub(super) fn is_blank(cell: &Cell) -> bool {
    let plain = Flags::WRAPLINE | Flags::LEADING_WIDE_CHAR_SPACER;
    matches!(cell.c, ' ' | '\t')
        && (cell.flags - plain).is_empty()
        && cell.extra.is_none()
        && cell.fg == Cell::default().fg
        && cell.bg == Cell::default().bg
}
