//! The lines of a trace, and how they become ASCII.

use alloc::borrow::Cow;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt::{self, Write as _};
use core::time::Duration;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use serde_json::value::RawValue;

use crate::time::{Now, Time, WallTime};

/// How a recording ended, as its last line says.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Ended {
    /// With the program, in good order.
    Complete,
    /// Before the program did.
    Stopped {
        /// Why, for people.
        why: String,
    },
}

/// Any line but the first: a step (`at`, `in`, `out`) or the end.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Line<'a> {
    pub(super) at: Option<At>,
    #[serde(borrow, rename = "in")]
    pub(super) input: Option<&'a RawValue>,
    #[serde(borrow, rename = "out")]
    pub(super) outputs: Option<Vec<&'a RawValue>>,
    pub(super) end: Option<Ended>,
}

#[derive(Serialize)]
pub(super) struct Last<'a> {
    pub(super) end: &'a Ended,
}

/// Boot time in nanoseconds, the suspended total likewise, wall time in milliseconds.
#[derive(Clone, Copy, Serialize, Deserialize)]
pub(super) struct At(u64, u64, i64);

impl From<Now> for At {
    fn from(now: Now) -> Self {
        Self(now.boot.as_nanos(), crate::time::nanos(now.suspended), now.wall.unix_millis())
    }
}

impl From<At> for Now {
    fn from(At(boot, suspended, wall): At) -> Self {
        Self {
            boot: Time::from_nanos(boot),
            suspended: Duration::from_nanos(suspended),
            wall: WallTime::from_unix_millis(wall),
        }
    }
}

/// Bytes as a text of the characters U+0000 to U+00FF: the protocol is mostly
/// ASCII, so a person can read it, and nothing is lost.
pub(super) struct Text<'a>(pub(super) Cow<'a, [u8]>);

impl Serialize for Text<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match core::str::from_utf8(&self.0) {
            Ok(text) if text.is_ascii() => serializer.serialize_str(text),
            _ => serializer.collect_str(&Characters(&self.0)),
        }
    }
}

struct Characters<'a>(&'a [u8]);

impl fmt::Display for Characters<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|&byte| f.write_char(char::from(byte)))
    }
}

impl<'de> Deserialize<'de> for Text<'_> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = <Cow<'de, str>>::deserialize(deserializer)?;
        let bytes = text.chars().map(u8::try_from).collect::<Result<Vec<u8>, _>>();
        let bytes = bytes.map_err(|_| de::Error::custom("bytes are characters up to U+00FF"))?;
        Ok(Self(Cow::Owned(bytes)))
    }
}

/// `value` as JSON in printable ASCII: a terminal that shows it is not spoken to.
pub(super) fn json(value: &impl Serialize) -> Option<String> {
    let json = serde_json::to_string(value).ok()?;
    // Controls below U+0020 are escaped already, and only strings hold what is not ASCII.
    if json.bytes().all(|byte| (b' '..=b'~').contains(&byte)) {
        return Some(json);
    }
    let mut ascii = String::with_capacity(json.len() * 2);
    for character in json.chars() {
        match character {
            ' '..='~' => ascii.push(character),
            _ => {
                for unit in character.encode_utf16(&mut [0; 2]) {
                    // Writing to a string can't fail.
                    let _ = write!(ascii, "\\u{unit:04x}");
                }
            }
        }
    }
    Some(ascii)
}

/// The same as a line.
pub(super) fn line(value: &impl Serialize) -> Option<String> {
    let mut line = json(value)?;
    line.push('\n');
    Some(line)
}
