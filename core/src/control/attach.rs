//! What the control socket answers about managed attach.

use alloc::string::String;
use alloc::vec::Vec;

use serde::{Deserialize, Serialize};

use crate::attach::wire::AttachError;
use crate::attach::{AttachId, ManagerUrl, Route, Stage};
use crate::id::GuestName;

/// `data` of `adopted`.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Adopted {
    /// Who.
    pub guest: GuestName,
    /// The attachment's session.
    pub session_id: AttachId,
    /// The private beach.
    pub private_beach_id: AttachId,
    /// Where the guest is told to attach.
    pub manager_url: ManagerUrl,
    /// The newest handshake.
    pub handshake_id: AttachId,
    /// How far it got.
    pub stage: Stage,
}

/// `data` of `released`.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Released {
    /// Who.
    pub guest: GuestName,
    /// The session that it had.
    pub session_id: AttachId,
    /// Actions that waited, and are dropped.
    pub dropped: u64,
}

/// `data` of `attachments`; from an agent its own, if it has one.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Attachments {
    /// By guest.
    pub attachments: Vec<AttachmentRow>,
}

/// One attachment.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct AttachmentRow {
    /// Who.
    pub guest: GuestName,
    /// Its session.
    pub session_id: AttachId,
    /// The private beach.
    pub private_beach_id: AttachId,
    /// Where the guest is told to attach.
    pub manager_url: ManagerUrl,
    /// The newest handshake; null: the agent's configuration.
    pub handshake_id: Option<AttachId>,
    /// How far it got.
    pub stage: Stage,
    /// How actions travel now; null: they can't.
    pub route: Option<Route>,
    /// How long the code is still good; null: there is none.
    pub code_expires_in_ms: Option<u64>,
    /// How long the lease still lasts; null: there is none.
    pub lease_expires_in_ms: Option<u64>,
    /// Since the agent's last poll; null: it never polled since this start.
    pub last_poll_age_ms: Option<u64>,
    /// Actions that wait.
    pub queued: u64,
    /// The agent's attempt that is under way, or was last; null: it didn't say.
    pub attempt: Option<u32>,
    /// The agent's attempts of this series that failed.
    pub failure_count: Option<u32>,
    /// Since the last attempt began; null: there was none, or it didn't say.
    pub last_attempt_age_ms: Option<u64>,
    /// When it tries again; 0: it does; null: it doesn't, as far as is known.
    pub next_retry_ms: Option<u64>,
    /// Why the last attempt failed, or the handshake was refused.
    pub last_error: Option<AttachError>,
}

/// `data` of `action`.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ActionAnswer {
    /// For whom.
    pub guest: GuestName,
    /// The action's id.
    pub id: AttachId,
    /// `queued`, or what became of it.
    pub status: String,
    /// Why, if it was not applied.
    pub error_code: Option<String>,
}

/// `data` of `actions`.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Actions {
    /// In the order in which they were taken; at most [`Actions::MAX`].
    pub actions: Vec<ActionRow>,
    /// How many there are in all.
    pub total: u64,
}

impl Actions {
    /// Most actions in one answer.
    pub const MAX: usize = 1000;
}

/// One action that waits.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ActionRow {
    /// For whom.
    pub guest: GuestName,
    /// Its id.
    pub id: AttachId,
    /// Its kind.
    pub action_type: String,
    /// Since it was taken.
    pub age_ms: u64,
    /// When it expires.
    pub expires_in_ms: u64,
    /// Whether it was sent, and waits for its ack.
    pub sent: bool,
}
