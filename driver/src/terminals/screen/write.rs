//! A screen as sequences that bring it about on a new terminal.

use std::fmt::Write;

use alacritty_terminal::grid::{Cursor, Dimensions, Grid};
use alacritty_terminal::index::{Column, Line};
use alacritty_terminal::term::TermMode;
use alacritty_terminal::term::cell::{Cell, Flags};
use alacritty_terminal::vte::ansi::{CharsetIndex, CursorShape, CursorStyle, KeyboardModes, ModifyOtherKeys};

use super::hidden::{Mirrored, is_blank};
use super::style::{self, Style};

/// Modes that are on or off, with the number by which they are set.
const PRIVATE_MODES: [(TermMode, u16); 11] = [
    (TermMode::APP_CURSOR, 1),
    (TermMode::LINE_WRAP, 7),
    (TermMode::SHOW_CURSOR, 25),
    (TermMode::MOUSE_REPORT_CLICK, 1000),
    (TermMode::MOUSE_DRAG, 1002),
    (TermMode::MOUSE_MOTION, 1003),
    (TermMode::FOCUS_IN_OUT, 1004),
    (TermMode::ALTERNATE_SCROLL, 1007),
    (TermMode::URGENCY_HINTS, 1042),
    (TermMode::BRACKETED_PASTE, 2004),
    (TermMode::SGR_MOUSE, 1006),
];

/// A new terminal, and what is the same for both screens.
pub(super) fn begin(out: &mut String, it: &Mirrored) {
    out.push_str("\x1bc\x1b[3J\x1b]104\x1b\\\x1b]110\x1b\\\x1b]111\x1b\\\x1b]112\x1b\\");
    let hidden = &it.hidden;
    for title in &hidden.titles {
        set_title(out, title.as_deref());
        out.push_str("\x1b[22t");
    }
    if !hidden.titles.is_empty() || hidden.title.is_some() {
        set_title(out, hidden.title.as_deref());
    }
    for index in 0..=258 {
        let Some(rgb) = it.term.colors()[index] else { continue };
        match index {
            0..=255 => put(out, format_args!("\x1b]4;{index};")),
            _ => put(out, format_args!("\x1b]{};", index - 246)),
        }
        put(out, format_args!("rgb:{:02x}/{:02x}/{:02x}\x1b\\", rgb.r, rgb.g, rgb.b));
    }
    if hidden.tabs.iter().enumerate().any(|(column, stop)| *stop != (column % 8 == 0)) {
        out.push_str("\x1b[3g");
        for column in (0..hidden.tabs.len()).filter(|column| hidden.tabs[*column]) {
            put(out, format_args!("\x1b[{}G\x1bH", column + 1));
        }
    }
}

fn set_title(out: &mut String, title: Option<&str>) {
    put(out, format_args!("\x1b]2;{}\x1b\\", title.unwrap_or_default()));
}

/// What a screen shows, with at most so many lines of its history. `saves`: and what
/// was saved of its cursor.
pub(super) fn screen(out: &mut String, grid: &Grid<Cell>, history: usize, saves: bool) {
    let rows = grid.screen_lines() as i32;
    if saves {
        place(out, grid, &grid.saved_cursor, 0, true);
        out.push_str("\x1b7");
        style::charsets_reset(out);
        out.push_str("\x1b[2K\x1b[H");
    } else {
        out.push_str("\x1b[H");
    }
    let history = grid.history_size().min(history) as i32;
    let mut style = Style::default();
    let mut continued = false;
    for line in -history..rows {
        let wraps = is_wrapped(grid, line);
        row(out, grid, line, continued, wraps, &mut style);
        if !wraps && line + 1 < rows {
            style.turn(out, &Cell::default());
            out.push_str("\r\n");
        }
        continued = wraps;
    }
    style.turn(out, &Cell::default());
    // The last line can't wrap into the next; into a region that it is outside of, it can.
    if rows > 2 && is_wrapped(grid, rows - 1) {
        out.push_str("\x1b[1;2r");
        last(out, grid, rows - 1, rows, &mut style);
        cell(out, &grid[Line(rows - 1)][Column(0)], &mut style);
        style.turn(out, &Cell::default());
        out.push_str("\x1b[r");
    }
}

fn is_wrapped(grid: &Grid<Cell>, line: i32) -> bool {
    grid[Line(line)][Column(grid.columns() - 1)].flags.contains(Flags::WRAPLINE)
}

fn row(out: &mut String, grid: &Grid<Cell>, line: i32, continued: bool, wraps: bool, style: &mut Style) {
    let row = &grid[Line(line)];
    let columns = grid.columns();
    let mut end = columns;
    if !wraps {
        while end > 0 && is_blank(&row[Column(end - 1)]) {
            end -= 1;
        }
        // The line before it wraps only when something follows; and if that scrolls, it
        // colours the whole line.
        if continued {
            end = if row[Column(0)].bg == Cell::default().bg { end.max(1) } else { columns };
        }
    } else if row[Column(columns - 1)].flags.contains(Flags::LEADING_WIDE_CHAR_SPACER)
        && line + 1 < grid.screen_lines() as i32
        && grid[Line(line + 1)][Column(0)].flags.contains(Flags::WIDE_CHAR)
        && Style::of(&row[Column(columns - 1)]).is_of(&grid[Line(line + 1)][Column(0)])
    {
        // The wide character makes its own room.
        end -= 1;
    }
    for column in 0..end {
        cell(out, &row[Column(column)], style);
    }
}

fn cell(out: &mut String, cell: &Cell, style: &mut Style) {
    if cell.flags.contains(Flags::WIDE_CHAR_SPACER) {
        return;
    }
    style.turn(out, cell);
    out.push(if cell.c == '\t' { ' ' } else { cell.c });
    if cell.extra.is_some() {
        out.extend(cell.zerowidth().into_iter().flatten());
    }
}

/// The character at the end of a line once more, so that the next one would wrap. In
/// origin mode the line's number, from 1, is another.
fn last(out: &mut String, grid: &Grid<Cell>, line: i32, number: i32, style: &mut Style) {
    let row = &grid[Line(line)];
    let columns = grid.columns();
    let wide = columns > 1 && row[Column(columns - 1)].flags.contains(Flags::WIDE_CHAR_SPACER);
    let column = columns - 1 - usize::from(wide);
    put(out, format_args!("\x1b[{number};{}H", column + 1));
    cell(out, &row[Column(column)], style);
}

/// Where a screen's cursor is, and with what it writes. `top`: the line that is
/// called the first.
pub(super) fn cursor(out: &mut String, grid: &Grid<Cell>, top: i32) {
    place(out, grid, &grid.cursor, top, false);
}

/// `blank`: the line is blank as yet.
fn place(out: &mut String, grid: &Grid<Cell>, cursor: &Cursor<Cell>, top: i32, blank: bool) {
    let line = cursor.point.line.0.clamp(0, grid.screen_lines() as i32 - 1);
    let column = cursor.point.column.0;
    put(out, format_args!("\x1b[{};{}H", line - top + 1, column + 1));
    if cursor.input_needs_wrap && column + 1 == grid.columns() {
        if blank {
            out.push(' ');
        } else {
            let mut style = Style::default();
            last(out, grid, line, line - top + 1, &mut style);
            style.turn(out, &Cell::default());
        }
    }
    style::pen(out, cursor);
}

/// What is to be done last: region, cursor, modes.
pub(super) fn end(out: &mut String, it: &Mirrored) {
    let (term, hidden) = (&it.term, &it.hidden);
    let grid = term.grid();
    let (top, bottom) = hidden.region;
    if (top, bottom) != (0, grid.screen_lines() - 1) {
        put(out, format_args!("\x1b[{};{}r", top + 1, bottom + 1));
    }
    let line = usize::try_from(grid.cursor.point.line.0).unwrap_or(0);
    if !term.mode().contains(TermMode::ORIGIN) {
        cursor(out, grid, 0);
    } else if (top..=bottom).contains(&line) {
        out.push_str("\x1b[?6h");
        cursor(out, grid, top as i32);
    } else {
        cursor(out, grid, 0);
        out.push_str("\x1b7\x1b[?6h\x1b8");
    }
    if hidden.charset == CharsetIndex::G1 {
        out.push('\x0e');
    }
    keyboard(out, &hidden.keyboard);
    let flags = *term.mode() & TermMode::KITTY_KEYBOARD_PROTOCOL;
    let of_stack = hidden.keyboard.last().copied().unwrap_or(KeyboardModes::NO_MODE);
    if flags != TermMode::from(of_stack) {
        put(
            out,
            format_args!(
                "\x1b[={}u",
                flags.bits() >> TermMode::DISAMBIGUATE_ESC_CODES.bits().trailing_zeros()
            ),
        );
    }
    modes(out, it, false);
}

/// Pushes what is on a stack of keyboard modes.
pub(super) fn keyboard(out: &mut String, stack: &[KeyboardModes]) {
    for modes in stack {
        put(out, format_args!("\x1b[>{}u", modes.bits()));
    }
}

/// The sequences of the modes alone: for a terminal in whatever modes.
pub(super) fn rehydrate(it: &Mirrored) -> String {
    let mut out = String::new();
    modes(&mut out, it, true);
    out
}

/// `all`: also what is as on a new terminal.
fn modes(out: &mut String, it: &Mirrored, all: bool) {
    let (mode, usual) = (*it.term.mode(), TermMode::default());
    for (flag, number) in PRIVATE_MODES {
        if all || mode.contains(flag) != usual.contains(flag) {
            put(out, format_args!("\x1b[?{number}{}", if mode.contains(flag) { 'h' } else { 'l' }));
        }
    }
    // After the other encoding of mice, which it excludes.
    let utf8 = mode.contains(TermMode::UTF8_MOUSE);
    if utf8 || all && !mode.contains(TermMode::SGR_MOUSE) {
        put(out, format_args!("\x1b[?1005{}", if utf8 { 'h' } else { 'l' }));
    }
    for (flag, number) in [(TermMode::INSERT, 4), (TermMode::LINE_FEED_NEW_LINE, 20)] {
        if all || mode.contains(flag) {
            put(out, format_args!("\x1b[{number}{}", if mode.contains(flag) { 'h' } else { 'l' }));
        }
    }
    if all || mode.contains(TermMode::APP_KEYPAD) {
        out.push_str(if mode.contains(TermMode::APP_KEYPAD) { "\x1b=" } else { "\x1b>" });
    }
    if let Some(CursorStyle { shape, blinking }) = it.hidden.cursor_style {
        let steady = match shape {
            CursorShape::Underline => 4,
            CursorShape::Beam => 6,
            _ => 2,
        };
        put(out, format_args!("\x1b[{} q", steady - u8::from(blinking)));
    } else if all {
        out.push_str("\x1b[0 q");
    }
    for number in &it.hidden.modes {
        put(out, format_args!("\x1b[?{number}h"));
    }
    match it.hidden.other_keys {
        Some(ModifyOtherKeys::EnableExceptWellDefined) => out.push_str("\x1b[>4;1m"),
        Some(ModifyOtherKeys::EnableAll) => out.push_str("\x1b[>4;2m"),
        Some(ModifyOtherKeys::Reset) | None if all => out.push_str("\x1b[>4;0m"),
        _ => {}
    }
}

/// Writing to a text can't fail.
fn put(out: &mut String, text: std::fmt::Arguments<'_>) {
    let written = out.write_fmt(text);
    debug_assert!(written.is_ok(), "a text takes everything");
}
