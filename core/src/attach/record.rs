//! What is durable on both sides.

use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;

use serde::{Deserialize, Serialize};

use super::{AttachId, ManagerUrl, Secret};
use crate::id::GuestName;
use crate::time::WallTime;

/// Broker: a guest that is adopted. One record for each guest, written whole.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Attachment {
    /// Which guest.
    pub guest: GuestName,
    /// Lives until the release.
    pub session: AttachId,
    /// The private beach.
    pub beach: AttachId,
    /// Where the guest is told to attach.
    pub url: ManagerUrl,
    /// It is to attach over its link, whatever else there is.
    #[serde(default)]
    pub link_only: bool,
    /// The newest handshake.
    pub handshake: AttachId,
    /// Its token: the bearer of everything that the guest asks.
    pub token: Secret,
    /// Its code; gone with its expiry.
    pub code: Option<Secret>,
    /// When the code was issued. Its age is counted on the boot-time clock; this is
    /// for display and for the next start.
    pub issued_at: WallTime,
    /// How far it got.
    pub stage: Stage,
}

/// How far an attachment got.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Stage {
    /// The guest has not used the code.
    Pending,
    /// It has.
    Attached,
}

impl Stage {
    /// The word.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Attached => "attached",
        }
    }
}

/// How something of an attachment travels.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Route {
    /// Frames on the link.
    Link,
    /// HTTP.
    Http,
}

impl Route {
    /// The word.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Link => "link",
            Self::Http => "http",
        }
    }
}

/// Broker: an action that waits for its ack. It leaves by that, by its expiry or with
/// the attachment. What it types is never shown by `Debug`.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Action {
    /// Its place among all of this broker's.
    pub number: u64,
    /// For whom.
    pub guest: GuestName,
    /// What the agent calls it.
    pub id: AttachId,
    /// `action_type`.
    pub kind: String,
    /// A JSON object of at most [`super::PAYLOAD_MAX`] bytes.
    pub payload: String,
    /// When it was taken.
    pub queued_at: WallTime,
    /// How long it may wait, in milliseconds.
    pub ttl_ms: u64,
}

impl Action {
    /// What a record costs beside its texts, reckoned.
    const RECORD_BYTES: usize = 256;

    /// Bytes that it counts for where the queues of all guests are bounded together.
    #[must_use]
    pub fn cost(&self) -> usize {
        Self::cost_of(&self.kind, &self.payload)
    }

    pub(crate) const fn cost_of(kind: &str, payload: &str) -> usize {
        kind.len() + payload.len() + Self::RECORD_BYTES
    }
}

impl fmt::Debug for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Action")
            .field("number", &self.number)
            .field("guest", &self.guest)
            .field("id", &self.id)
            .field("kind", &self.kind)
            .field("payload_bytes", &self.payload.len())
            .finish_non_exhaustive()
    }
}

/// What became of an action.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ActionStatus {
    /// It was applied.
    Ok,
    /// It was not, or perhaps not wholly: see the code.
    Rejected,
    /// It was too late.
    Expired,
    /// Somebody else owns what it is about.
    Preempted,
}

impl ActionStatus {
    /// The word.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Rejected => "rejected",
            Self::Expired => "expired",
            Self::Preempted => "preempted",
        }
    }
}

/// Why an action was not applied. What a manager or agent of another make says is kept
/// as [`ActionCode::Other`].
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum ActionCode {
    /// The agent ended while it applied it: perhaps it was, perhaps in part.
    Interrupted,
    /// The link is not keyed, and the agent trusts no such broker.
    UnkeyedLink,
    /// The agent is not attached.
    NotAttached,
    /// No such kind of action.
    UnknownType,
    /// The payload is not what its kind asks for.
    BadPayload,
    /// No such terminal, or its program ended.
    NoTerminal,
    /// The agent hosts no terminals.
    NoTerminals,
    /// Somebody owns the terminal.
    Owned,
    /// The terminal didn't take it in time: perhaps in part.
    TimedOut,
    /// The terminal couldn't take it.
    Failed,
    /// The agent can't remember what it applied: it has no database, or that failed.
    NoStorage,
    /// The agent remembers as much as it may.
    Busy,
    /// Something that another make says.
    #[serde(other)]
    Other,
}

impl ActionCode {
    /// The word.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Interrupted => "interrupted",
            Self::UnkeyedLink => "unkeyed_link",
            Self::NotAttached => "not_attached",
            Self::UnknownType => "unknown_type",
            Self::BadPayload => "bad_payload",
            Self::NoTerminal => "no_terminal",
            Self::NoTerminals => "no_terminals",
            Self::Owned => "owned",
            Self::TimedOut => "timed_out",
            Self::Failed => "failed",
            Self::NoStorage => "no_storage",
            Self::Busy => "busy",
            Self::Other => "other",
        }
    }
}

/// Agent: an action that it began to apply.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Applied {
    /// The attachment's session.
    pub session: AttachId,
    /// Which action of it.
    pub id: AttachId,
    /// What became of it; `None`: it was begun. Whoever finds that at a start was
    /// interrupted.
    pub outcome: Option<(ActionStatus, Option<ActionCode>)>,
    /// When the manager confirmed the ack; from then on it may be forgotten after
    /// [`super::AttachSettings::remember`].
    pub settled_at: Option<WallTime>,
}

/// What a broker finds of attachments at its start.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct RestoredManager {
    /// By guest.
    pub attachments: Vec<Attachment>,
    /// By number.
    pub actions: Vec<Action>,
}
