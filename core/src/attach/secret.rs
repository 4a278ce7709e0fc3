//! Codes, tokens and bearers.

use alloc::borrow::Cow;
use alloc::string::String;
use alloc::sync::Arc;
use core::fmt;
use core::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

use crate::entropy::Entropy;

/// 1 to 512 visible ASCII characters that nobody else may learn. Compared in
/// constant time, wiped on drop, never shown by `Debug`. Serialised as it is:
/// only frames, requests and databases hold one.
#[derive(Clone)]
pub struct Secret(Arc<Zeroizing<String>>);

/// Why a text is no secret. Says nothing of the text.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("a code or token has 1 to 512 visible ASCII characters")]
pub struct InvalidSecret;

impl Secret {
    /// Greatest length in bytes.
    pub const MAX: usize = 512;

    /// 32 random bytes as hex.
    pub(crate) fn random(entropy: &mut Entropy) -> Self {
        let mut bytes = Zeroizing::new([0; 32]);
        entropy.fill(&mut *bytes);
        let mut digits = String::with_capacity(64);
        // Writing to a string can't fail.
        let _ = crate::hex::write(&mut digits, &*bytes);
        Self(Arc::new(Zeroizing::new(digits)))
    }

    /// The text, for a frame, a request or a database.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl FromStr for Secret {
    type Err = InvalidSecret;

    fn from_str(text: &str) -> Result<Self, InvalidSecret> {
        if (1..=Self::MAX).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Ok(Self(Arc::new(Zeroizing::new(text.into()))));
        }
        Err(InvalidSecret)
    }
}

impl PartialEq for Secret {
    fn eq(&self, other: &Self) -> bool {
        self.expose().as_bytes().ct_eq(other.expose().as_bytes()).into()
    }
}

impl Eq for Secret {}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(..)")
    }
}

impl Serialize for Secret {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.expose())
    }
}

impl<'de> Deserialize<'de> for Secret {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        <Cow<'de, str>>::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use alloc::format;

    use super::Secret;
    use crate::entropy::Entropy;

    #[test]
    fn a_secret_is_shown_to_nobody_and_its_refusal_says_nothing_of_it() {
        let secret = Secret::random(&mut Entropy::seeded([3; 32]));
        assert_eq!(secret.expose().len(), 64);
        assert_eq!(format!("{secret:?}"), "Secret(..)");
        for bad in ["", "with space", "ümlaut", "line\n", &"x".repeat(513)] {
            let error = bad.parse::<Secret>().map_err(|error| format!("{error} {error:?}"));
            assert!(bad.is_empty() || !error.expect_err("no secret").contains(bad), "{bad:?}");
        }
        assert_eq!("CODE-42".parse(), Ok("CODE-42".parse::<Secret>().expect("a code")));
        assert_ne!("CODE-42".parse(), Ok("CODE-43".parse::<Secret>().expect("a code")));
    }
}
