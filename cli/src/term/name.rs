//! Names of terminals: what, and on which machine.

use std::fmt;
use std::str::FromStr;

use castra_core::id::GuestName;
use castra_core::terminals::KEY_MAX;

/// On which machine terminals are: this one, or a guest.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Place(pub(crate) Option<GuestName>);

/// Which terminal.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Which {
    /// The one of this key.
    Key(String),
    /// The one of this number.
    Id(u32),
}

/// A terminal as a command line names it: `NAME`, `#ID`, `GUEST/NAME`, `GUEST/#ID`.
/// With nothing before the `/` it is on this machine, whatever follows.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct TermName {
    pub(crate) place: Place,
    pub(crate) which: Which,
}

impl FromStr for TermName {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (guest, rest) = match text.split_once('/') {
            Some(("", rest)) => (None, rest),
            Some((guest, rest)) => (
                Some(guest.parse().map_err(|_| {
                    format!("{guest:?} is no guest's name; a terminal here whose own name has a / is /NAME")
                })?),
                rest,
            ),
            None => (None, text),
        };
        let rest = rest.trim();
        if rest.is_empty() {
            return Err("the terminal's name is missing".into());
        }
        if rest.len() > KEY_MAX {
            return Err(format!("a terminal's name has at most {KEY_MAX} bytes"));
        }
        let which = match rest.strip_prefix('#').map(str::parse) {
            Some(Ok(id)) => Which::Id(id),
            _ => Which::Key(rest.into()),
        };
        Ok(Self { place: Place(guest), which })
    }
}

impl FromStr for Place {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let name = text.strip_suffix('/').unwrap_or(text);
        name.parse().map(|name| Self(Some(name))).map_err(|_| format!("{name:?} is no guest's name"))
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.map_or(Ok(()), |guest| write!(f, "{guest}/"))
    }
}

impl fmt::Display for TermName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.which {
            // As it must be written.
            Which::Key(key) if self.place.0.is_none() && key.contains('/') => write!(f, "/{key}"),
            Which::Key(key) => write!(f, "{}{key}", self.place),
            Which::Id(id) => write!(f, "{}#{id}", self.place),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_says_which_machine_and_which_terminal_and_is_written_back_the_same() {
        let guest = Some("devbox".parse().unwrap());
        for (text, guest, which) in [
            ("build", None, Which::Key("build".into())),
            ("#7", None, Which::Id(7)),
            ("devbox/build", guest, Which::Key("build".into())),
            ("devbox/#7", guest, Which::Id(7)),
            ("devbox/a/b", guest, Which::Key("a/b".into())),
            ("/a/b", None, Which::Key("a/b".into())),
            ("#seven", None, Which::Key("#seven".into())),
        ] {
            let name: TermName = text.parse().unwrap();
            assert_eq!(name, TermName { place: Place(guest), which }, "{text}");
            assert_eq!(name.to_string(), text);
        }
        let trimmed: TermName = "devbox/ build ".parse().unwrap();
        assert_eq!(trimmed.to_string(), "devbox/build");
    }

    #[test]
    fn a_name_without_sense_is_refused_with_the_reason() {
        for (text, why) in [
            ("", "is missing"),
            ("devbox/", "is missing"),
            ("/", "is missing"),
            (" ", "is missing"),
            ("../etc/build", "is no guest's name; a terminal here"),
            (&"x".repeat(257), "at most 256 bytes"),
        ] {
            let error = text.parse::<TermName>().unwrap_err();
            assert!(error.contains(why), "{text}: {error}");
        }
    }

    #[test]
    fn a_place_is_a_guest_with_or_without_the_slash() {
        let place = Place(Some("devbox".parse().unwrap()));
        assert_eq!("devbox/".parse(), Ok(place));
        assert_eq!("devbox".parse(), Ok(place));
        assert!("".parse::<Place>().is_err());
        assert!("a/b".parse::<Place>().is_err());
    }
}
