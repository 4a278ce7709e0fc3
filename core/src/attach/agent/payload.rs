//! What actions ask for.

use alloc::borrow::Cow;
use alloc::string::String;
use alloc::vec::Vec;

use serde::Deserialize;
use serde_json::value::RawValue;

use super::handshake::left_until;
use crate::attach::{ActionCode, AttachId, AttachSettings, PAYLOAD_MAX, TERMINAL_WRITE};
use crate::boundary::Typed;
use crate::time::{Now, Time, WallTime};

/// The terminal that is meant if none is named.
const MAIN: &str = "main";

/// Longest name of a terminal, in bytes.
const NAME_MAX: usize = 64;

/// An action, as it comes.
#[derive(Debug)]
pub(super) struct Incoming<'a> {
    pub(super) id: AttachId,
    pub(super) kind: Cow<'a, str>,
    pub(super) payload: &'a str,
    /// When it is too late, if that is said.
    pub(super) expires: Option<Time>,
}

#[derive(Deserialize)]
struct Write<'a> {
    #[serde(borrow, default)]
    terminal: Option<Cow<'a, str>>,
    bytes: Bytes,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Bytes {
    Text(String),
    Plain(Vec<u8>),
}

/// What is to be typed, and where.
pub(super) fn read(kind: &str, payload: &str) -> Result<(String, Typed), ActionCode> {
    if kind != TERMINAL_WRITE {
        return Err(ActionCode::UnknownType);
    }
    // serde reads structs from arrays, too.
    let object = payload.trim_ascii_start().starts_with('{') && payload.len() <= PAYLOAD_MAX;
    let write: Option<Write<'_>> = object.then(|| serde_json::from_str(payload).ok()).flatten();
    let Some(Write { terminal, bytes }) = write else { return Err(ActionCode::BadPayload) };
    let terminal = terminal.unwrap_or(Cow::Borrowed(MAIN)).into_owned();
    if !(1..=NAME_MAX).contains(&terminal.len()) {
        return Err(ActionCode::BadPayload);
    }
    let bytes = match bytes {
        Bytes::Text(text) => text.into_bytes(),
        Bytes::Plain(bytes) => bytes,
    };
    Ok((terminal, Typed(bytes)))
}

#[derive(Deserialize)]
struct Polled<'a> {
    id: AttachId,
    #[serde(borrow, default)]
    action_type: Cow<'a, str>,
    #[serde(borrow, default)]
    payload: Option<&'a RawValue>,
    #[serde(default)]
    ttl_ms: Option<u64>,
    #[serde(default)]
    expires_at_ms: Option<i64>,
    #[serde(borrow, default)]
    expires_at: Option<&'a RawValue>,
}

/// The actions of a poll's answer; `None`: it is none. What has no id that could be
/// acknowledged is left out.
pub(super) fn polled<'a>(body: &'a [u8], settings: &AttachSettings, now: Now) -> Option<Vec<Incoming<'a>>> {
    if body.len() > settings.answer_max {
        return None;
    }
    let items: Vec<&RawValue> = serde_json::from_slice(body).ok()?;
    let objects = items.into_iter().map(RawValue::get).filter(|item| item.starts_with('{'));
    let read = objects.filter_map(|item| serde_json::from_str::<Polled<'a>>(item).ok());
    Some(read.map(|polled| polled.incoming(settings, now)).collect())
}

impl<'a> Polled<'a> {
    fn incoming(self, settings: &AttachSettings, now: Now) -> Incoming<'a> {
        let at = || self.expires_at.and_then(|at| serde_json::from_str::<WallTime>(at.get()).ok());
        let at = self.expires_at_ms.or_else(|| at().map(WallTime::unix_millis));
        let left = match (self.ttl_ms, at) {
            (Some(ttl), _) => Some(core::time::Duration::from_millis(ttl)),
            (None, at) => at.map(|at| left_until(at, settings.clock_slack, now)),
        };
        Incoming {
            id: self.id,
            kind: self.action_type,
            payload: self.payload.map_or("", RawValue::get),
            expires: left.map(|left| now.boot + left),
        }
    }
}
