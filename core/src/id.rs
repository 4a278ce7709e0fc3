//! Names and numbers.

use alloc::boxed::Box;
use alloc::string::{String, ToString};
use core::borrow::Borrow;
use core::fmt;
use core::marker::PhantomData;
use core::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// A guest's name: 1–64 bytes of `[A-Za-z0-9._-]`, the first alphanumeric, exact case.
///
/// Held inline so that events and rows copy it without allocating. It is safe
/// as a file name and in a terminal as it is.
#[derive(Clone, Copy)]
pub struct GuestName {
    length: u8,
    bytes: [u8; Self::MAX],
}

impl GuestName {
    /// Longest name, in bytes.
    pub const MAX: usize = 64;

    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        // The constructor admits ASCII only.
        core::str::from_utf8(self.as_bytes()).unwrap_or_default()
    }

    /// The name's bytes, which are ASCII.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes[..usize::from(self.length)]
    }
}

/// A [`GuestName`] where many are kept: most names are short.
#[derive(Clone, Debug)]
pub(crate) enum ShortName {
    Short(u8, [u8; Self::MAX]),
    Long(Box<GuestName>),
}

impl ShortName {
    /// Longest name that is held inline, in bytes.
    const MAX: usize = 22;

    pub(crate) fn new(name: &GuestName) -> Self {
        let mut bytes = [0; Self::MAX];
        match bytes.get_mut(..name.as_bytes().len()) {
            Some(short) => {
                short.copy_from_slice(name.as_bytes());
                Self::Short(name.length, bytes)
            }
            None => Self::Long(Box::new(*name)),
        }
    }

    pub(crate) fn unpack(&self) -> GuestName {
        match self {
            Self::Short(length, short) => {
                let mut bytes = [0; GuestName::MAX];
                bytes[..Self::MAX].copy_from_slice(short);
                GuestName { length: *length, bytes }
            }
            Self::Long(name) => **name,
        }
    }

    pub(crate) fn as_bytes(&self) -> &[u8] {
        match self {
            Self::Short(length, bytes) => &bytes[..usize::from(*length)],
            Self::Long(name) => name.as_bytes(),
        }
    }
}

/// Why a text is not a guest name.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("a guest name has 1 to 64 of A-Z a-z 0-9 . _ - and starts with a letter or digit")]
pub struct InvalidName;

impl FromStr for GuestName {
    type Err = InvalidName;

    fn from_str(text: &str) -> Result<Self, InvalidName> {
        Self::from_bytes(text.as_bytes())
    }
}

impl GuestName {
    pub(crate) fn from_bytes(source: &[u8]) -> Result<Self, InvalidName> {
        let valid = (1..=Self::MAX).contains(&source.len())
            && source[0].is_ascii_alphanumeric()
            && source.iter().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-'));
        if !valid {
            return Err(InvalidName);
        }
        let mut bytes = [0; Self::MAX];
        bytes[..source.len()].copy_from_slice(source);
        let length = u8::try_from(source.len()).map_err(|_| InvalidName)?;
        Ok(Self { length, bytes })
    }
}

impl PartialEq for GuestName {
    fn eq(&self, other: &Self) -> bool {
        self.as_bytes() == other.as_bytes()
    }
}

impl Eq for GuestName {}

impl PartialOrd for GuestName {
    fn partial_cmp(&self, other: &Self) -> Option<core::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for GuestName {
    fn cmp(&self, other: &Self) -> core::cmp::Ordering {
        self.as_bytes().cmp(other.as_bytes())
    }
}

impl core::hash::Hash for GuestName {
    fn hash<H: core::hash::Hasher>(&self, state: &mut H) {
        self.as_str().hash(state);
    }
}

impl Borrow<str> for GuestName {
    fn borrow(&self) -> &str {
        self.as_str()
    }
}

impl fmt::Debug for GuestName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self.as_str(), f)
    }
}

impl fmt::Display for GuestName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl Serialize for GuestName {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

impl<'de> Deserialize<'de> for GuestName {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        parse_text(deserializer)
    }
}

/// A connection, named by the shell: a slot and its generation, so that a late
/// word about a closed connection can't reach its successor.
///
/// Serialised as the pair of them.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(from = "(u32, u32)", into = "(u32, u32)")]
pub struct ConnId {
    /// The slot.
    pub index: u32,
    /// How often the slot was used before.
    pub generation: u32,
}

impl From<(u32, u32)> for ConnId {
    fn from((index, generation): (u32, u32)) -> Self {
        Self { index, generation }
    }
}

impl From<ConnId> for (u32, u32) {
    fn from(conn: ConnId) -> Self {
        (conn.index, conn.generation)
    }
}

/// A numbered effect. Numbers rise by one within one engine.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(transparent)]
pub struct EffectId(pub u64);

/// A terminal's number in its daemon: never given out twice, not even over restarts.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(transparent)]
pub struct TerminalId(pub u32);

impl fmt::Display for TerminalId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// The number of a link session: broker incarnation × 2³² + session counter.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Epoch(pub u64);

impl Epoch {
    /// The epoch of the `counter`th challenge of an incarnation.
    #[must_use]
    pub const fn new(incarnation: u32, counter: u32) -> Self {
        Self(((incarnation as u64) << 32) | counter as u64)
    }

    /// The broker incarnation that issued it.
    #[must_use]
    pub const fn incarnation(self) -> u32 {
        (self.0 >> 32) as u32
    }

    /// Its number within the incarnation.
    #[must_use]
    pub const fn counter(self) -> u32 {
        self.0 as u32
    }
}

impl fmt::Display for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

/// Sixteen bytes that are fresh whenever somebody has to be proven fresh.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Nonce(pub [u8; 16]);

impl Nonce {
    /// Compares in constant time.
    #[must_use]
    pub fn matches(&self, other: &Self) -> bool {
        use subtle::ConstantTimeEq;
        // As numbers: byte by byte takes eight times as long.
        let (ours, theirs) = (u128::from_ne_bytes(self.0), u128::from_ne_bytes(other.0));
        let difference = ours ^ theirs;
        ((difference >> 64) as u64 | difference as u64).ct_eq(&0).into()
    }
}

impl fmt::Display for Nonce {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        crate::hex::write(f, &self.0)
    }
}

impl FromStr for Nonce {
    type Err = crate::hex::InvalidHex;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        crate::hex::decode(text.as_bytes()).map(Self)
    }
}

impl Serialize for Nonce {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Nonce {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        parse_text(deserializer)
    }
}

/// The first four bytes of a guest's boot id: enough to tell two boots apart,
/// too little to repeat the id. Never the whole is shown.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct BootTag(pub [u8; 4]);

impl fmt::Display for BootTag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        crate::hex::write(f, &self.0)
    }
}

impl Serialize for BootTag {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for BootTag {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = <alloc::borrow::Cow<'de, str>>::deserialize(deserializer)?;
        crate::hex::decode(text.as_bytes()).map(Self).map_err(de::Error::custom)
    }
}

/// A request's id on control: a number or a text, echoed as it came.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
#[serde(untagged)]
pub enum RequestId {
    /// A number.
    Number(u64),
    /// A text of at most [`RequestId::MAX_TEXT`] bytes.
    Text(String),
}

impl RequestId {
    /// Longest textual id, in bytes; a longer one is an invalid request.
    pub const MAX_TEXT: usize = 128;
}

impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Number(number) => number.fmt(f),
            Self::Text(text) => text.escape_debug().to_string().fmt(f),
        }
    }
}

/// Reads a text and parses it, without allocating (`Cow<str>` would: serde reads
/// it as owned).
fn parse_text<'de, D: Deserializer<'de>, T: FromStr<Err: fmt::Display>>(
    deserializer: D,
) -> Result<T, D::Error> {
    struct Parse<T>(PhantomData<T>);

    impl<T: FromStr<Err: fmt::Display>> de::Visitor<'_> for Parse<T> {
        type Value = T;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a string")
        }

        fn visit_str<E: de::Error>(self, text: &str) -> Result<T, E> {
            text.parse().map_err(E::custom)
        }
    }

    deserializer.deserialize_str(Parse(PhantomData))
}
