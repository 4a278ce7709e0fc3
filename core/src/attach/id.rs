//! Names of sessions, beaches, handshakes and actions.

use alloc::borrow::Cow;
use alloc::sync::Arc;
use core::fmt;
use core::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use crate::entropy::Entropy;

/// `[A-Za-z0-9._-]{1,64}`: what names an attachment's session, a private beach, a
/// manager's handshake or an action.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AttachId(Arc<str>);

/// Why a text names nothing here.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("an id has 1 to 64 letters, digits, dots, underscores or hyphens")]
pub struct InvalidAttachId;

impl AttachId {
    /// Greatest length in bytes.
    pub const MAX: usize = 64;

    /// A random UUID (RFC 9562, version 4).
    pub(crate) fn random(entropy: &mut Entropy) -> Self {
        let mut bytes = [0; 16];
        entropy.fill(&mut bytes);
        bytes[6] = 0x40 | bytes[6] & 0x0f;
        bytes[8] = 0x80 | bytes[8] & 0x3f;
        let mut digits = alloc::vec::Vec::with_capacity(36);
        for (index, part) in [0..4, 4..6, 6..8, 8..10, 10..16].into_iter().enumerate() {
            if index > 0 {
                digits.push(b'-');
            }
            crate::hex::append(&mut digits, &bytes[part]);
        }
        Self(str::from_utf8(&digits).unwrap_or_default().into())
    }

    /// No other comes before it.
    pub(crate) fn least() -> Self {
        Self("-".into())
    }

    /// Its text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for AttachId {
    type Err = InvalidAttachId;

    fn from_str(text: &str) -> Result<Self, InvalidAttachId> {
        let fits = |byte: &u8| byte.is_ascii_alphanumeric() || b"._-".contains(byte);
        if (1..=Self::MAX).contains(&text.len()) && text.as_bytes().iter().all(fits) {
            return Ok(Self(text.into()));
        }
        Err(InvalidAttachId)
    }
}

impl fmt::Display for AttachId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl fmt::Debug for AttachId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Serialize for AttachId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

impl<'de> Deserialize<'de> for AttachId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        <Cow<'de, str>>::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::AttachId;
    use crate::entropy::Entropy;

    #[test]
    fn an_id_is_short_and_harmless() {
        for good in ["a", "6f1c-._Z", &"x".repeat(64)] {
            assert_eq!(good.parse::<AttachId>().map(|id| id.as_str().len()), Ok(good.len()));
        }
        for bad in ["", "a b", "ä", "a/b", "a\n", &"x".repeat(65)] {
            assert!(bad.parse::<AttachId>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn random_ids_are_uuids_of_version_4() {
        let mut entropy = Entropy::seeded([7; 32]);
        let id = AttachId::random(&mut entropy);
        let parts: Vec<usize> = id.as_str().split('-').map(str::len).collect();
        assert_eq!(parts, [8, 4, 4, 4, 12]);
        assert_eq!(id.as_str().as_bytes()[14], b'4');
        assert!(b"89ab".contains(&id.as_str().as_bytes()[19]));
        assert_ne!(AttachId::random(&mut entropy), id);
    }

    use alloc::vec::Vec;
}
