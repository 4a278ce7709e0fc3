//! A request that an agent wants made, and its answer.

use alloc::string::String;
use alloc::vec::Vec;
use core::time::Duration;

use serde::{Deserialize, Serialize};
use zeroize::Zeroize;

use super::url::Origin;
use super::{AttachId, Secret};
use crate::time::Time;

/// What [`crate::boundary::Effect::Http`] asks for. Redirects are not followed; nothing
/// but this goes out: no cookie, no proxy's credentials.
#[derive(Clone, Debug)]
pub struct HttpRequest {
    /// GET or POST.
    pub method: Method,
    /// Where to.
    pub to: Origin,
    /// The path, beginning with a slash.
    pub path: String,
    /// `Authorization: Bearer …`.
    pub bearer: Secret,
    /// `x-beach-handshake-id`.
    pub handshake: Option<AttachId>,
    /// It is counted, and goes out at most once, over a connection of its own. Others
    /// may go out again over a new connection, where an old one ended without a word.
    pub once: bool,
    /// JSON; empty: none. It may hold a code.
    pub body: Body,
    /// When to give up, on the boot-time clock.
    pub deadline: Time,
    /// Longest answer, in bytes; a longer one is a failure
    /// ([`crate::boundary::EffectErrorKind::BadAnswer`]).
    pub answer_max: usize,
}

/// A body that nobody sees by accident. Wiped on drop.
#[derive(Clone, Default)]
pub struct Body(pub Vec<u8>);

impl Drop for Body {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

impl core::fmt::Debug for Body {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "Body({} bytes)", self.0.len())
    }
}

/// How.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Method {
    /// GET.
    Get,
    /// POST.
    Post,
}

impl Method {
    /// The word.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Get => "GET",
            Self::Post => "POST",
        }
    }
}

/// A whole answer, whatever its status.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct HttpAnswer<'a> {
    /// 100 to 999.
    pub status: u16,
    /// `Retry-After`, in whichever form it came, counted from now.
    pub retry_after: Option<Duration>,
    /// At most [`HttpRequest::answer_max`] bytes.
    pub body: &'a [u8],
}
