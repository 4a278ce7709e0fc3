//! The frames of phase B. Each is read twice, borrowed: its type, then its body.

use alloc::borrow::Cow;
use alloc::vec::Vec;
use core::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::attach::wire::{AttachRequest, ManagerFrame};
use crate::control::reply::{ErrorCode, Target};
use crate::event::SessionEnd;
use crate::id::{GuestName, Nonce};
use crate::link::line::append_number;
use crate::peers::wire::{PeerFrame, PeerRequest};
use crate::tunnel::wire::{Encoded, TunnelFrame};

/// The JSON is not an object with the fields its type asks for.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("not a JSON object of this protocol")]
pub struct BadJson;

impl From<serde_json::Error> for BadJson {
    fn from(_: serde_json::Error) -> Self {
        Self
    }
}

/// What a guest sends.
#[derive(Debug)]
pub enum GuestFrame<'a> {
    /// Evidence.
    Proof(Proof),
    /// Leave-taking.
    Goodbye,
    /// Round-trip time, asked by the guest.
    Ping {
        /// Returned.
        id: u64,
    },
    /// The answer to our ping.
    Pong {
        /// Ours.
        id: u64,
    },
    /// 0.1: keeps a 0.1 session open. Never evidence of a proven one.
    Heartbeat,
    /// 0.1.
    Subscribe {
        /// What to; absent or blank is answered with an error.
        topic: Option<Cow<'a, str>>,
    },
    /// 0.1.
    Publish(Publish<'a>),
    /// `status`, `wait`, `ping_guest`: as on control, for itself and its peers.
    Request(GuestRequest),
    /// Peers and their messages.
    Peer(PeerRequest),
    /// A manager's guest.
    Attach(AttachRequest),
    /// A stream to its terminals.
    Tunnel(TunnelFrame<Encoded<'a>>),
    /// A type nobody knows (here), or none at all.
    Unknown(Option<Cow<'a, str>>),
}

/// `proof`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Deserialize)]
pub struct Proof {
    /// Which challenge.
    pub seq: u64,
    /// Its nonce.
    pub proof: Nonce,
}

/// `publish`.
#[derive(Debug, Deserialize)]
pub struct Publish<'a> {
    /// Where to; `broadcast` if absent.
    #[serde(borrow, default)]
    pub topic: Option<Cow<'a, str>>,
    /// What.
    #[serde(borrow, default)]
    pub payload: Option<&'a RawValue>,
}

/// A question that a guest asks the broker.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct GuestRequest {
    /// Which.
    #[serde(rename = "type")]
    pub kind: GuestRequestKind,
    /// Returned in the answer.
    pub id: u64,
    /// Whom; empty: itself.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub guests: Vec<GuestName>,
    /// `wait`: what for.
    #[serde(rename = "for", default, skip_serializing_if = "Option::is_none")]
    pub target: Option<Target>,
    /// `wait`: one is enough.
    #[serde(default)]
    pub any: bool,
    /// The caller's bound.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout_ms: Option<u64>,
}

/// Which question.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum GuestRequestKind {
    /// `status`.
    Status,
    /// `wait`.
    Wait,
    /// `ping_guest`.
    PingGuest,
    /// `restore`: run a peer's start command.
    Restore,
}

impl GuestRequestKind {
    /// The word on the wire.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Status => "status",
            Self::Wait => "wait",
            Self::PingGuest => "ping_guest",
            Self::Restore => "restore",
        }
    }
}

#[derive(Deserialize)]
struct TypeOf<'a> {
    #[serde(rename = "type", borrow, default)]
    kind: Option<Text<'a>>,
}

/// Borrows where it can. serde borrows a `Cow` only as a direct field: inside an
/// `Option` it allocates.
#[derive(Deserialize)]
#[serde(transparent)]
struct Text<'a>(#[serde(borrow)] Cow<'a, str>);

#[derive(Deserialize)]
struct IdOnly {
    id: u64,
}

#[derive(Deserialize)]
struct TopicOnly<'a> {
    #[serde(borrow, default)]
    topic: Option<Text<'a>>,
}

/// The number and the nonce of a frame that is written exactly as we write it:
/// all but a few are. Whatever deviates is left to serde, which says the same of these.
fn plain(json: &[u8], head: &[u8], middle: &[u8]) -> Option<(u64, Nonce)> {
    let (number, rest) = plain_number(json, head)?;
    let nonce = rest.strip_prefix(middle)?.strip_suffix(PLAIN_END)?;
    Some((number, Nonce(crate::hex::decode(nonce).ok()?)))
}

/// The number after `head`, and what follows it.
#[inline]
pub(crate) fn plain_number<'a>(json: &'a [u8], head: &[u8]) -> Option<(u64, &'a [u8])> {
    let rest = json.strip_prefix(head)?;
    let count = rest.iter().position(|byte| !byte.is_ascii_digit())?;
    let (digits, rest) = rest.split_at(count);
    // 19 digits always fit.
    if !matches!(digits, [_] | [b'1'..=b'9', ..]) || count > 19 {
        return None;
    }
    Some((digits.iter().fold(0, |number, digit| 10 * number + u64::from(digit - b'0')), rest))
}

const CHALLENGE_HEAD: &[u8] = br#"{"type":"challenge","seq":"#;
const CHALLENGE_MIDDLE: &[u8] = br#","nonce":""#;
const PROOF_HEAD: &[u8] = br#"{"type":"proof","seq":"#;
const PROOF_MIDDLE: &[u8] = br#","proof":""#;
const PLAIN_END: &[u8] = br#""}"#;

/// Its type. serde reads structs from arrays, too: those are no frames.
fn type_of(json: &[u8]) -> Result<Option<Cow<'_, str>>, BadJson> {
    // serde doesn't look into the strings that it skips.
    let text = str::from_utf8(json).map_err(|_| BadJson)?;
    if !text.trim_ascii_start().starts_with('{') {
        return Err(BadJson);
    }
    Ok(serde_json::from_str::<TypeOf<'_>>(text)?.kind.map(|Text(kind)| kind))
}

impl<'a> GuestFrame<'a> {
    /// Reads a frame's JSON.
    ///
    /// # Errors
    /// Not a JSON object, or a known type without its fields.
    pub fn parse(json: &'a [u8]) -> Result<Self, BadJson> {
        if let Some((seq, proof)) = plain(json, PROOF_HEAD, PROOF_MIDDLE) {
            return Ok(Self::Proof(Proof { seq, proof }));
        }
        if let Some(data) = TunnelFrame::plain(json) {
            return Ok(Self::Tunnel(data));
        }
        let Some(kind) = type_of(json)? else {
            return Ok(Self::Unknown(None));
        };
        Ok(match &*kind {
            "proof" => Self::Proof(serde_json::from_slice(json)?),
            "goodbye" => Self::Goodbye,
            "ping" => Self::Ping { id: serde_json::from_slice::<IdOnly>(json)?.id },
            "pong" => Self::Pong { id: serde_json::from_slice::<IdOnly>(json)?.id },
            "heartbeat" => Self::Heartbeat,
            "subscribe" => Self::Subscribe {
                topic: serde_json::from_slice::<TopicOnly<'_>>(json)?.topic.map(|Text(topic)| topic),
            },
            "publish" => Self::Publish(serde_json::from_slice(json)?),
            "status" | "wait" | "ping_guest" | "restore" => Self::Request(serde_json::from_slice(json)?),
            "peer_policy" | "peer_register" | "peer_unregister" | "peer_list" | "peer_send"
            | "peer_answer" | "peer_ack" => Self::Peer(serde_json::from_slice(json)?),
            "attached" | "attach" | "attach_state" | "action_ack" | "lease_renew" => {
                Self::Attach(serde_json::from_slice(json)?)
            }
            // Guests are told of streams, and ask for none.
            "term_open" => Self::Unknown(Some(kind)),
            _ => match TunnelFrame::parse(&kind, json)? {
                Some(frame) => Self::Tunnel(frame),
                None => Self::Unknown(Some(kind)),
            },
        })
    }
}

/// What a broker sends.
#[derive(Debug)]
pub enum BrokerFrame<'a> {
    /// Prove yourself.
    Challenge {
        /// Its number.
        seq: u64,
        /// What to return.
        nonce: Nonce,
    },
    /// The broker closes.
    Bye(Bye<'a>),
    /// Round-trip time, asked by the broker.
    Ping {
        /// Returned.
        id: u64,
    },
    /// The answer to our ping.
    Pong {
        /// Ours.
        id: u64,
    },
    /// The answer to a [`GuestRequest`].
    Result {
        /// Its id.
        id: u64,
        /// The document.
        data: &'a RawValue,
    },
    /// A failed [`GuestRequest`].
    Error {
        /// Its id.
        id: u64,
        /// Why.
        code: ErrorCode,
    },
    /// Peers and their messages.
    Peer(PeerFrame<'a>),
    /// A manager.
    Manager(ManagerFrame<'a>),
    /// A stream to this guest's terminals.
    Tunnel(TunnelFrame<Encoded<'a>>),
    /// Anything else.
    Unknown,
}

/// `bye`.
#[derive(Debug, Deserialize)]
pub struct Bye<'a> {
    /// Why.
    #[serde(borrow)]
    pub code: Cow<'a, str>,
    /// When to come back at the earliest.
    #[serde(default)]
    pub retry_after_ms: Option<u64>,
}

#[derive(Deserialize)]
struct ChallengeBody {
    seq: u64,
    nonce: Nonce,
}

#[derive(Deserialize)]
struct ResultBody<'a> {
    id: u64,
    #[serde(borrow)]
    data: &'a RawValue,
}

#[derive(Deserialize)]
struct ErrorBody<'a> {
    #[serde(default)]
    id: Option<u64>,
    #[serde(borrow, default)]
    code: Option<Text<'a>>,
}

impl<'a> BrokerFrame<'a> {
    /// Reads a frame's JSON.
    ///
    /// # Errors
    /// Not a JSON object, or a known type without its fields.
    pub fn parse(json: &'a [u8]) -> Result<Self, BadJson> {
        if let Some((seq, nonce)) = plain(json, CHALLENGE_HEAD, CHALLENGE_MIDDLE) {
            return Ok(Self::Challenge { seq, nonce });
        }
        if let Some(data) = TunnelFrame::plain(json) {
            return Ok(Self::Tunnel(data));
        }
        let Some(kind) = type_of(json)? else {
            return Ok(Self::Unknown);
        };
        Ok(match &*kind {
            "challenge" => {
                let ChallengeBody { seq, nonce } = serde_json::from_slice(json)?;
                Self::Challenge { seq, nonce }
            }
            "bye" => Self::Bye(serde_json::from_slice(json)?),
            "ping" => Self::Ping { id: serde_json::from_slice::<IdOnly>(json)?.id },
            "pong" => Self::Pong { id: serde_json::from_slice::<IdOnly>(json)?.id },
            "result" => {
                let ResultBody { id, data } = serde_json::from_slice(json)?;
                Self::Result { id, data }
            }
            "peer_result" | "peer_offer" | "peer_added" | "peer_removed" | "peer_message" => {
                Self::Peer(serde_json::from_slice(json)?)
            }
            // An error without an id of ours answers a frame we don't wait for.
            "error" => match serde_json::from_slice::<ErrorBody<'_>>(json) {
                Ok(ErrorBody { id: Some(id), code }) => {
                    let code = code.and_then(|Text(word)| ErrorCode::from_word(&word));
                    Self::Error { id, code: code.unwrap_or(ErrorCode::Internal) }
                }
                Ok(_) | Err(_) => Self::Unknown,
            },
            _ => match ManagerFrame::parse(&kind, json)? {
                Some(frame) => Self::Manager(frame),
                None => TunnelFrame::parse(&kind, json)?.map_or(Self::Unknown, Self::Tunnel),
            },
        })
    }
}

/// Appends `{"type":"challenge",…}`.
pub fn append_challenge(out: &mut Vec<u8>, seq: u64, nonce: &Nonce) {
    append_plain(out, (CHALLENGE_HEAD, seq), (CHALLENGE_MIDDLE, nonce));
}

/// Appends `{"type":"proof",…}`.
pub fn append_proof(out: &mut Vec<u8>, seq: u64, nonce: &Nonce) {
    append_plain(out, (PROOF_HEAD, seq), (PROOF_MIDDLE, nonce));
}

fn append_plain(out: &mut Vec<u8>, (head, number): (&[u8], u64), (middle, nonce): (&[u8], &Nonce)) {
    out.extend_from_slice(head);
    append_number(out, number);
    out.extend_from_slice(middle);
    crate::hex::append(out, &nonce.0);
    out.extend_from_slice(PLAIN_END);
}

/// Appends `{"type":"ping","id":…}`, or `pong` if `answer`.
pub fn append_ping(out: &mut Vec<u8>, id: u64, answer: bool) {
    out.extend_from_slice(if answer { br#"{"type":"pong","id":"# } else { br#"{"type":"ping","id":"# });
    append_number(out, id);
    out.push(b'}');
}

/// Appends `{"type":"goodbye"}`.
pub fn append_goodbye(out: &mut Vec<u8>) {
    out.extend_from_slice(br#"{"type":"goodbye"}"#);
}

/// Appends `{"type":"bye",…}`.
pub fn append_bye(out: &mut Vec<u8>, code: SessionEnd, retry_after: Option<Duration>) {
    out.extend_from_slice(br#"{"type":"bye","code":""#);
    out.extend_from_slice(code.as_str().as_bytes());
    out.push(b'"');
    if let Some(retry_after) = retry_after {
        out.extend_from_slice(br#","retry_after_ms":"#);
        append_number(out, crate::time::millis(retry_after));
    }
    out.push(b'}');
}

/// Appends any serialisable value as JSON.
pub fn append_json(out: &mut Vec<u8>, value: &impl Serialize) {
    let before = out.len();
    // Our documents have string keys only and a vector takes every write.
    if value.serialize(&mut serde_json::Serializer::new(&mut *out)).is_err() {
        out.truncate(before);
    }
}
