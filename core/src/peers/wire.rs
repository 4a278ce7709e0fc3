//! The `peer_*` frames.

use alloc::borrow::Cow;
use alloc::string::String;
use alloc::vec::Vec;

use serde::{Deserialize, Serialize};

use super::{Listed, MessageId, Outcome, Policy};
use crate::id::GuestName;
use crate::time::WallTime;

/// What a guest sends. Names are texts: one that no guest can have is `unknown`,
/// not the end of the session.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(tag = "type")]
pub enum PeerRequest {
    /// Whom this guest takes as a peer. The first frame of a session, and again
    /// whenever it changes.
    #[serde(rename = "peer_policy")]
    Policy {
        /// Whom.
        policy: Policy,
        /// Nothing is to be registered from here for now.
        #[serde(default, skip_serializing_if = "core::ops::Not::not")]
        hold: bool,
    },
    /// Let us be peers.
    #[serde(rename = "peer_register")]
    Register {
        /// Returned in the answer.
        id: u64,
        /// Whom with.
        name: String,
        /// The caller's bound.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        timeout_ms: Option<u64>,
    },
    /// Let us be peers no more.
    #[serde(rename = "peer_unregister")]
    Unregister {
        /// Returned in the answer.
        id: u64,
        /// Whom with.
        name: String,
        /// The caller's bound.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        timeout_ms: Option<u64>,
    },
    /// Whom do I know?
    #[serde(rename = "peer_list")]
    List {
        /// Returned in the answer.
        id: u64,
    },
    /// Tell a peer.
    #[serde(rename = "peer_send")]
    Send {
        /// Returned in the answer.
        id: u64,
        /// Whom.
        to: String,
        /// What.
        text: String,
        /// Whether it needs attention.
        #[serde(default = "yes")]
        wake: bool,
        /// Whether it may wait.
        #[serde(default = "yes")]
        queue: bool,
        /// Makes a retry safe.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        key: Option<String>,
        /// How long the answer may wait for the delivery.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        timeout_ms: Option<u64>,
    },
    /// The answer to a `peer_offer`.
    #[serde(rename = "peer_answer")]
    Answer {
        /// The offer's.
        id: u64,
        /// Yes or no.
        accept: bool,
        /// Why not.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        reason: Option<String>,
    },
    /// A message is in the inbox, durably; or it will never be.
    #[serde(rename = "peer_ack")]
    Ack {
        /// The message's.
        id: MessageId,
        /// The guest would not have it.
        #[serde(default, skip_serializing_if = "core::ops::Not::not")]
        rejected: bool,
    },
}

/// What a broker sends.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(tag = "type")]
pub enum PeerFrame<'a> {
    /// The answer to a request.
    #[serde(rename = "peer_result")]
    Result(PeerResult),
    /// Somebody wants to be a peer.
    #[serde(rename = "peer_offer")]
    Offer {
        /// To be returned in the answer.
        id: u64,
        /// Who.
        from: GuestName,
        /// Whether that name was proven with a key.
        from_authenticated: bool,
    },
    /// Somebody is a peer now.
    #[serde(rename = "peer_added")]
    Added {
        /// Who.
        name: GuestName,
    },
    /// Somebody is a peer no more.
    #[serde(rename = "peer_removed")]
    Removed {
        /// Who.
        name: GuestName,
    },
    /// A message.
    #[serde(rename = "peer_message")]
    Message {
        /// To be acknowledged.
        id: MessageId,
        /// Who sent it.
        from: GuestName,
        /// Whether that name was proven with a key.
        from_authenticated: bool,
        /// What it says.
        #[serde(borrow)]
        text: Cow<'a, str>,
        /// When the broker took it.
        sent_at: WallTime,
        /// Whether it needs attention.
        wake: bool,
    },
}

/// How a guest's request ended.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct PeerResult {
    /// The request's.
    pub id: u64,
    /// How.
    pub outcome: Outcome,
    /// Why, where that helps.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Whom it was about, as the broker understood it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub peer: Option<GuestName>,
    /// The message's id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message_id: Option<MessageId>,
    /// The listing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub peers: Option<Vec<Listed>>,
}

impl PeerResult {
    /// An outcome and nothing else.
    #[must_use]
    pub const fn new(id: u64, outcome: Outcome) -> Self {
        Self { id, outcome, reason: None, peer: None, message_id: None, peers: None }
    }
}

const fn yes() -> bool {
    true
}
