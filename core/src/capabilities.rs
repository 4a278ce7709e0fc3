//! The words a guest says of itself in its hello.

use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A guest's capabilities: sorted without regard to case, each once, visible
/// ASCII without commas; at most [`Capabilities::MAX_COUNT`] of them and
/// [`Capabilities::MAX_BYTES`] bytes in all, what is over is dropped.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct Capabilities(Option<Arc<str>>);

impl Capabilities {
    /// Most capabilities that are kept.
    pub const MAX_COUNT: usize = 16;
    /// Most bytes that are kept, commas included: so many that the largest event
    /// keeps within its bound.
    pub const MAX_BYTES: usize = 112;

    /// From a hello's comma list. Words that aren't visible ASCII are dropped.
    #[must_use]
    pub fn parse(list: &str) -> Self {
        Self::collect(list.split(','))
    }

    /// From single words, with the same rules.
    #[must_use]
    pub fn collect<'a>(words: impl Iterator<Item = &'a str>) -> Self {
        Self::gather(words.map(str::as_bytes))
    }

    pub(crate) fn gather<'a>(words: impl Iterator<Item = &'a [u8]>) -> Self {
        let mut kept: [&[u8]; Self::MAX_COUNT] = [b""; Self::MAX_COUNT];
        let (mut count, mut bytes) = (0, 0);
        for word in words {
            let fits = !word.is_empty()
                && word.iter().all(|b| b.is_ascii_graphic() && !matches!(b, b',' | b'"' | b'\\'))
                && !kept[..count].iter().any(|other| other.eq_ignore_ascii_case(word))
                && count < Self::MAX_COUNT
                && bytes + word.len() < Self::MAX_BYTES;
            if fits {
                bytes += word.len() + 1;
                kept[count] = word;
                count += 1;
            }
        }
        let kept = &mut kept[..count];
        // Each is there once: no two are equal.
        kept.sort_unstable_by(|a, b| lower(a).cmp(lower(b)));
        let mut list = [0; Self::MAX_BYTES];
        let mut end = 0;
        for word in kept {
            if end > 0 {
                list[end] = b',';
                end += 1;
            }
            list[end..end + word.len()].copy_from_slice(word);
            end += word.len();
        }
        // ASCII words make ASCII text.
        Self((end > 0).then(|| str::from_utf8(&list[..end]).unwrap_or_default().into()))
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_none()
    }

    /// Each capability.
    pub fn iter(&self) -> impl Iterator<Item = &str> {
        self.as_str().split(',').filter(|word| !word.is_empty())
    }

    /// Whether `capability` is among them, without regard to case.
    #[must_use]
    pub fn has(&self, capability: &str) -> bool {
        let words = self.as_str().as_bytes().split(|byte| *byte == b',');
        words.into_iter().any(|word| !word.is_empty() && word.eq_ignore_ascii_case(capability.as_bytes()))
    }

    /// The comma list.
    #[must_use]
    pub fn as_str(&self) -> &str {
        self.0.as_deref().unwrap_or_default()
    }
}

fn lower(word: &[u8]) -> impl Iterator<Item = u8> {
    word.iter().map(u8::to_ascii_lowercase)
}

impl fmt::Debug for Capabilities {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Capabilities").field(&self.as_str()).finish()
    }
}

impl fmt::Display for Capabilities {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0.as_deref().unwrap_or("-"))
    }
}

impl Serialize for Capabilities {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.iter())
    }
}

impl<'de> Deserialize<'de> for Capabilities {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let words = Vec::<String>::deserialize(deserializer)?;
        Ok(Self::collect(words.iter().map(String::as_str)))
    }
}
