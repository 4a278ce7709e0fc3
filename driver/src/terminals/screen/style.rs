//! Styles as sequences.

use std::fmt::Write;

use alacritty_terminal::grid::Cursor;
use alacritty_terminal::term::cell::{Cell, Flags, Hyperlink};
use alacritty_terminal::vte::ansi::{CharsetIndex, Color, NamedColor, StandardCharset};

/// Flags that a style consists of.
const STYLED: Flags = Flags::INVERSE
    .union(Flags::BOLD_ITALIC)
    .union(Flags::ALL_UNDERLINES)
    .union(Flags::DIM)
    .union(Flags::HIDDEN)
    .union(Flags::STRIKEOUT);

/// What a character looks like.
#[derive(Clone, PartialEq, Debug)]
pub(super) struct Style {
    fg: Color,
    bg: Color,
    flags: Flags,
    underline: Option<Color>,
    link: Option<Hyperlink>,
}

impl Default for Style {
    fn default() -> Self {
        Self::of(&Cell::default())
    }
}

impl Style {
    pub(super) fn of(cell: &Cell) -> Self {
        Self {
            fg: cell.fg,
            bg: cell.bg,
            flags: cell.flags & STYLED,
            underline: cell.underline_color(),
            link: cell.hyperlink(),
        }
    }

    /// Whether `cell` looks like this.
    pub(super) fn is_of(&self, cell: &Cell) -> bool {
        self.fg == cell.fg && self.bg == cell.bg && self.flags == cell.flags & STYLED && {
            // Most cells have nothing rare, and most styles neither.
            match (&cell.extra, &self.underline, &self.link) {
                (None, None, None) => true,
                _ => self.underline == cell.underline_color() && self.link == cell.hyperlink(),
            }
        }
    }

    /// Appends what turns `self` into the style of `cell`.
    pub(super) fn turn(&mut self, out: &mut String, cell: &Cell) {
        if self.is_of(cell) {
            return;
        }
        let wanted = Self::of(cell);
        if (self.fg, self.bg, self.flags, self.underline)
            != (wanted.fg, wanted.bg, wanted.flags, wanted.underline)
        {
            out.push_str("\x1b[0");
            for (flag, code) in [
                (Flags::BOLD, "1"),
                (Flags::DIM, "2"),
                (Flags::ITALIC, "3"),
                (Flags::UNDERLINE, "4"),
                (Flags::DOUBLE_UNDERLINE, "4:2"),
                (Flags::UNDERCURL, "4:3"),
                (Flags::DOTTED_UNDERLINE, "4:4"),
                (Flags::DASHED_UNDERLINE, "4:5"),
                (Flags::INVERSE, "7"),
                (Flags::HIDDEN, "8"),
                (Flags::STRIKEOUT, "9"),
            ] {
                if wanted.flags.contains(flag) {
                    out.push(';');
                    out.push_str(code);
                }
            }
            color(out, wanted.fg, 30);
            color(out, wanted.bg, 40);
            if let Some(underline) = wanted.underline {
                color(out, underline, 50);
            }
            out.push('m');
        }
        if self.link != wanted.link {
            link(out, wanted.link.as_ref());
        }
        *self = wanted;
    }
}

fn link(out: &mut String, link: Option<&Hyperlink>) {
    match link {
        // Writing to a text can't fail.
        Some(link) => drop(write!(out, "\x1b]8;id={};{}\x1b\\", link.id(), link.uri())),
        None => out.push_str("\x1b]8;;\x1b\\"),
    }
}

/// `base`: 30 for characters, 40 for what is behind them, 50 for their underline.
fn color(out: &mut String, color: Color, base: u16) {
    let written = match color {
        Color::Named(NamedColor::Foreground | NamedColor::Background) => Ok(()),
        Color::Named(named) => match named as u16 {
            number @ 0..=7 => write!(out, ";{}", base + number),
            number @ 8..=15 => write!(out, ";{}", base + 60 + number - 8),
            _ => Ok(()),
        },
        Color::Indexed(index) => write!(out, ";{};5;{index}", base + 8),
        Color::Spec(rgb) => write!(out, ";{};2;{};{};{}", base + 8, rgb.r, rgb.g, rgb.b),
    };
    debug_assert!(written.is_ok(), "a text takes everything");
}

/// Appends the pen and the character sets of a cursor.
pub(super) fn pen(out: &mut String, cursor: &Cursor<Cell>) {
    Style::default().turn(out, &cursor.template);
    for (index, start) in
        [(CharsetIndex::G0, '('), (CharsetIndex::G1, ')'), (CharsetIndex::G2, '*'), (CharsetIndex::G3, '+')]
    {
        if cursor.charsets[index] == StandardCharset::SpecialCharacterAndLineDrawing {
            out.push('\x1b');
            out.push(start);
            out.push('0');
        }
    }
}

/// Appends what makes pen and character sets those of a new terminal.
pub(super) fn charsets_reset(out: &mut String) {
    out.push_str("\x1b[m\x1b]8;;\x1b\\\x1b(B\x1b)B\x1b*B\x1b+B");
}
