//! Sizes of terminals.

use std::fmt;
use std::os::fd::AsFd;
use std::str::FromStr;

/// Columns and rows, both at least 1.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Size {
    pub(crate) cols: u16,
    pub(crate) rows: u16,
}

impl Size {
    /// What a terminal has when nobody says.
    pub(crate) const USUAL: Self = Self { cols: 80, rows: 24 };

    /// The size of the terminal behind a descriptor, if it is one and knows it.
    pub(crate) fn of(terminal: impl AsFd) -> Option<Self> {
        let size = rustix::termios::tcgetwinsize(terminal).ok()?;
        (size.ws_col > 0 && size.ws_row > 0).then_some(Self { cols: size.ws_col, rows: size.ws_row })
    }
}

impl FromStr for Size {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let number = |text: &str| text.parse::<u16>().ok().filter(|number| *number > 0);
        text.split_once(['x', 'X'])
            .and_then(|(cols, rows)| Some(Self { cols: number(cols)?, rows: number(rows)? }))
            .ok_or_else(|| "write it as columns and rows, like 132x43".into())
    }
}

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}x{}", self.cols, self.rows)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_size_is_columns_and_rows_and_neither_may_be_zero() {
        assert_eq!("132x43".parse(), Ok(Size { cols: 132, rows: 43 }));
        assert_eq!("1X65535".parse::<Size>().unwrap().to_string(), "1x65535");
        for text in ["", "80", "80x", "x24", "0x24", "80x0", "80x65536", "-1x5", "80 x 24", "80x24x2"] {
            assert_eq!(text.parse::<Size>().unwrap_err(), "write it as columns and rows, like 132x43");
        }
    }

    #[test]
    fn what_is_no_terminal_has_no_size() {
        assert_eq!(Size::of(std::fs::File::open("/dev/null").unwrap()), None);
    }
}
