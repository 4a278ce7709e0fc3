//! The frames of managed attach on the link.

use alloc::borrow::Cow;
use alloc::boxed::Box;
use alloc::string::String;

use serde::{Deserialize, Deserializer, Serialize};
use serde_json::value::RawValue;

use super::{ActionStatus, AttachId, Secret};
use crate::link::message::BadJson;

/// The only version of the handshake.
pub const SCHEMA: u32 = 1;

/// What a guest sends.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(tag = "type")]
pub enum AttachRequest {
    /// It is attached: among the first frames of a session.
    #[serde(rename = "attached")]
    Attached {
        /// Under this session.
        session_id: AttachId,
    },
    /// Attach over the link.
    #[serde(rename = "attach")]
    Attach {
        /// The handshake's.
        session_id: AttachId,
        /// The handshake's.
        code: Secret,
        /// The handshake's.
        handshake_id: AttachId,
    },
    /// How it goes: whenever that changes.
    #[serde(rename = "attach_state")]
    State(AttachState),
    /// What became of an action.
    #[serde(rename = "action_ack")]
    Ack {
        /// Which.
        id: AttachId,
        /// What.
        status: ActionStatus,
        /// Why, if it was not applied; a word of at most 64 bytes.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        error_code: Option<String>,
    },
    /// The lease is to go on.
    #[serde(rename = "lease_renew")]
    LeaseRenew {
        /// Whose.
        session_id: AttachId,
    },
}

/// How an agent's attaching goes. Also what its own clients are shown.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct AttachState {
    /// The session that it is about; none: nothing was asked of the agent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session_id: Option<AttachId>,
    /// The handshake that it is about; none: the agent's configuration.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub handshake_id: Option<AttachId>,
    /// Whether it is attached.
    pub attached: bool,
    /// The attempt of this series that is under way, or was last; from 1.
    pub attempt: u32,
    /// Attempts of this series that failed.
    pub failure_count: u32,
    /// Since the last one began; absent: there was none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_attempt_age_ms: Option<u64>,
    /// When the next one begins; 0: it is under way; null: there is none.
    pub next_retry_ms: Option<u64>,
    /// Why the last one failed, or the handshake was refused.
    pub last_error: Option<AttachError>,
}

/// Why an attempt or a handshake came to nothing.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct AttachError {
    /// A word of [`AttachErrorCode`], or `http_NNN`.
    pub code: String,
    /// For people; at most 128 bytes, no secret.
    pub message: String,
}

/// Words of [`AttachError::code`] and of `attach_refused`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum AttachErrorCode {
    /// The link is not keyed, and the agent trusts no such broker.
    UnkeyedLink,
    /// The address is neither configured nor from a broker that proved itself.
    UntrustedUrl,
    /// A field outside the block says something else than the block.
    Mismatch,
    /// There is no block.
    NoBlock,
    /// Another schema, or fields that are missing or not what they should be.
    Malformed,
    /// No bearer is there for that address.
    NoToken,
    /// The code is too old.
    Expired,
    /// The address can't be reached.
    Unreachable,
    /// No answer in time.
    TimedOut,
    /// The answer is too long, or not what it should be.
    BadAnswer,
    /// The link was lost.
    LinkLost,
    /// The broker knows no such attachment, or it is another's.
    UnknownSession,
    /// The code is wrong, was used for something else, or is too old.
    InvalidCode,
    /// The broker could not make it durable.
    StorageFailed,
    /// The manager released the guest.
    Released,
}

impl AttachErrorCode {
    /// The word.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::UnkeyedLink => "unkeyed_link",
            Self::UntrustedUrl => "untrusted_url",
            Self::Mismatch => "mismatch",
            Self::NoBlock => "no_block",
            Self::Malformed => "malformed",
            Self::NoToken => "no_token",
            Self::Expired => "expired",
            Self::Unreachable => "unreachable",
            Self::TimedOut => "timed_out",
            Self::BadAnswer => "bad_answer",
            Self::LinkLost => "link_lost",
            Self::UnknownSession => "unknown_session",
            Self::InvalidCode => "invalid_code",
            Self::StorageFailed => "storage_failed",
            Self::Released => "released",
        }
    }
}

/// What a broker sends.
#[derive(Clone, Debug, Serialize)]
#[serde(tag = "type")]
pub enum ManagerFrame<'a> {
    /// Attach yourself.
    #[serde(rename = "manager_handshake")]
    Handshake(Box<Handshake>),
    /// A handshake whose fields are not what they should be. Never sent.
    #[serde(skip)]
    Malformed,
    /// The attachment is over.
    #[serde(rename = "manager_detach")]
    Detach {
        /// Which.
        session_id: AttachId,
    },
    /// The code was right.
    #[serde(rename = "attached")]
    Attached {
        /// Under this session.
        session_id: AttachId,
        /// Always true.
        ok: bool,
        /// `code`.
        attach_method: &'static str,
    },
    /// The code was not.
    #[serde(rename = "attach_refused")]
    Refused {
        /// A word of [`AttachErrorCode`].
        code: Cow<'a, str>,
        /// For people.
        message: Cow<'a, str>,
    },
    /// Do this.
    #[serde(rename = "action")]
    Action {
        /// To be acknowledged.
        id: AttachId,
        /// What kind.
        action_type: Cow<'a, str>,
        /// What exactly.
        payload: &'a RawValue,
        /// How long it may wait, counted from receipt.
        ttl_ms: u64,
    },
    /// The ack of an action is durable: the agent may forget it after a while.
    #[serde(rename = "action_settled")]
    Settled {
        /// Which.
        id: AttachId,
    },
    /// The lease goes on.
    #[serde(rename = "lease")]
    Lease {
        /// Whose.
        session_id: AttachId,
        /// For how long, counted from receipt.
        lease_ttl_ms: u64,
    },
}

/// `manager_handshake` as it stands on the wire: whatever is there, unchecked.
#[derive(Clone, PartialEq, Eq, Default, Debug, Serialize, Deserialize)]
#[serde(default)]
pub struct Handshake {
    /// [`SCHEMA`].
    pub schema: Option<u32>,
    /// Which.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub handshake_id: Option<String>,
    /// `renegotiate`, or `refresh`: token and transport stay.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub handshake_kind: Option<String>,
    /// The attachment's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub session_id: Option<String>,
    /// The private beach.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub private_beach_id: Option<String>,
    /// Where to attach.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub manager_url: Option<String>,
    /// The bearer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub controller_token: Option<Secret>,
    /// For display.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lease_expires_at_ms: Option<i64>,
    /// How long the lease lasts, from receipt.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lease_ttl_ms: Option<u64>,
    /// What to do; without it nothing is done.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub controller_auto_attach: Option<Block>,
    /// For display.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stale_session_idle_secs: Option<u32>,
    /// For display.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub viewer_health_interval_secs: Option<u32>,
}

/// `controller_auto_attach`.
#[derive(Clone, PartialEq, Eq, Default, Debug, Serialize, Deserialize)]
#[serde(default)]
pub struct Block {
    /// The private beach.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub private_beach_id: Option<String>,
    /// The code.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub attach_code: Option<Secret>,
    /// Where to attach; absent: where the agent's configuration says.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub manager_url: Option<String>,
    /// For display; decides only without `ttl_ms`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub issued_at_ms: Option<i64>,
    /// For display; decides only without `ttl_ms`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expires_at_ms: Option<i64>,
    /// How long the code is good, counted from receipt.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ttl_ms: Option<u64>,
}

/// What any of these frames may hold, but for the handshake.
#[derive(Deserialize)]
struct Fields<'a> {
    #[serde(default)]
    session_id: Option<AttachId>,
    #[serde(default)]
    id: Option<AttachId>,
    #[serde(borrow, default)]
    action_type: Option<Cow<'a, str>>,
    #[serde(borrow, default, deserialize_with = "whatever_is_there")]
    payload: Option<&'a RawValue>,
    #[serde(default)]
    ttl_ms: Option<u64>,
    #[serde(default)]
    lease_ttl_ms: Option<u64>,
    #[serde(borrow, default)]
    code: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    message: Option<Cow<'a, str>>,
}

/// A null is there, too: what it means is the action's affair, not the frame's.
fn whatever_is_there<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<&'de RawValue>, D::Error> {
    <&RawValue>::deserialize(deserializer).map(Some)
}

impl<'a> ManagerFrame<'a> {
    /// Reads a frame of this type; `None`: it is no frame of managed attach.
    ///
    /// # Errors
    /// A field is missing or not what it should be. A handshake is never an error,
    /// but [`ManagerFrame::Malformed`]: it costs no session.
    pub fn parse(kind: &str, json: &'a [u8]) -> Result<Option<Self>, BadJson> {
        if kind == "manager_handshake" {
            let handshake = serde_json::from_slice(json);
            return Ok(Some(handshake.map_or(Self::Malformed, |read| Self::Handshake(Box::new(read)))));
        }
        if !matches!(
            kind,
            "manager_detach" | "attached" | "attach_refused" | "action" | "action_settled" | "lease"
        ) {
            return Ok(None);
        }
        let fields: Fields<'a> = serde_json::from_slice(json)?;
        let session = fields.session_id.ok_or(BadJson);
        let id = fields.id.ok_or(BadJson);
        Ok(Some(match kind {
            "manager_detach" => Self::Detach { session_id: session? },
            "attached" => Self::Attached { session_id: session?, ok: true, attach_method: "code" },
            "attach_refused" => Self::Refused {
                code: fields.code.ok_or(BadJson)?,
                message: fields.message.unwrap_or_default(),
            },
            "action" => Self::Action {
                id: id?,
                action_type: fields.action_type.ok_or(BadJson)?,
                payload: fields.payload.ok_or(BadJson)?,
                ttl_ms: fields.ttl_ms.ok_or(BadJson)?,
            },
            "action_settled" => Self::Settled { id: id? },
            _ => Self::Lease { session_id: session?, lease_ttl_ms: fields.lease_ttl_ms.ok_or(BadJson)? },
        }))
    }
}

#[cfg(test)]
mod tests {
    use alloc::vec::Vec;

    use super::{AttachRequest, ManagerFrame};
    use crate::link::message::append_json;

    fn written(value: &impl serde::Serialize) -> alloc::string::String {
        let mut json = Vec::new();
        append_json(&mut json, value);
        alloc::string::String::from_utf8(json).expect("text")
    }

    #[test]
    fn what_a_broker_says_is_read_as_it_was_written() {
        for json in [
            r#"{"type":"manager_handshake","schema":1,"handshake_id":"h","session_id":"s","controller_token":"t"}"#,
            r#"{"type":"manager_detach","session_id":"s"}"#,
            r#"{"type":"attached","session_id":"s","ok":true,"attach_method":"code"}"#,
            r#"{"type":"attach_refused","code":"invalid_code","message":"no"}"#,
            r#"{"type":"action","id":"a","action_type":"terminal_write","payload":{"bytes":"ls\n"},"ttl_ms":5}"#,
            r#"{"type":"action_settled","id":"a"}"#,
            r#"{"type":"lease","session_id":"s","lease_ttl_ms":30000}"#,
        ] {
            let kind = json.split('"').nth(3).expect("a type");
            let frame = ManagerFrame::parse(kind, json.as_bytes()).expect("good").expect("known");
            assert_eq!(written(&frame), json);
        }
        assert!(matches!(ManagerFrame::parse("bye", b"{}"), Ok(None)));
        for bad in ["manager_detach", "attached", "attach_refused", "action", "action_settled", "lease"] {
            assert!(ManagerFrame::parse(bad, b"{}").is_err(), "{bad}");
        }
        for handshake in [r#"{"schema":"one"}"#, r#"{"controller_token":"two words"}"#] {
            let read = ManagerFrame::parse("manager_handshake", handshake.as_bytes());
            assert!(matches!(read, Ok(Some(ManagerFrame::Malformed))), "{handshake}");
        }
    }

    #[test]
    fn what_a_guest_says_is_read_as_it_was_written() {
        for json in [
            r#"{"type":"attached","session_id":"s"}"#,
            r#"{"type":"attach","session_id":"s","code":"CODE-42","handshake_id":"h"}"#,
            r#"{"type":"attach_state","attached":false,"attempt":2,"failure_count":1,"next_retry_ms":250,"last_error":{"code":"http_500","message":"the manager answered 500"}}"#,
            r#"{"type":"action_ack","id":"a","status":"rejected","error_code":"interrupted"}"#,
            r#"{"type":"action_ack","id":"a","status":"ok"}"#,
            r#"{"type":"lease_renew","session_id":"s"}"#,
        ] {
            let request: AttachRequest = serde_json::from_str(json).expect("good");
            assert_eq!(written(&request), json);
        }
    }
}
