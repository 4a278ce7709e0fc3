//! What the control socket answers. Events of the stream: [`crate::event::Event`].

use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;

use serde::{Deserialize, Serialize};
use zeroize::Zeroize;

use crate::event::{Cursor, Event};
use crate::id::{Epoch, GuestName, RequestId};
use crate::peers::{Listed, MessageId, Outcome};
use crate::status::{GuestStatus, State};
use crate::time::WallTime;

/// One line of an answer: `{"id":…,"event":…,"data":…}`.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Envelope<D> {
    /// The request's id; absent on the lines of a stream and when none could be read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<RequestId>,
    /// What `data` is.
    pub event: String,
    /// The document itself.
    pub data: D,
}

/// Why a request failed.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ErrorCode {
    /// Not a request of this protocol.
    InvalidRequest,
    /// No such method.
    UnknownMethod,
    /// No such guest.
    UnknownGuest,
    /// The guest has no proven session now.
    NotReachable,
    /// The deadline passed.
    Timeout,
    /// The caller may not.
    Forbidden,
    /// The guest said no.
    Refused,
    /// The guest's agent can't do this.
    Unsupported,
    /// Too much at once; try again.
    Busy,
    /// It could not be made durable; nothing changed.
    StorageFailed,
    /// The broker takes leave.
    ShuttingDown,
    /// A guest is no peer of its own.
    #[serde(rename = "self")]
    Itself,
    /// No guest is called so, or begins so.
    Unknown,
    /// Several guests' names begin so.
    Ambiguous,
    /// The other guest would not.
    Rejected,
    /// They are no peers.
    NotPeer,
    /// A queue or a table is.
    Full,
    /// The text or its frame is.
    TooLarge,
    /// The guest is adopted already, otherwise.
    Conflict,
    /// No manager adopted the guest, or it has not attached.
    NotAttached,
    /// The guest's lease is over, and it has not renewed it.
    MissingLease,
    /// The guest is neither reachable nor polling.
    GuestOffline,
    /// A bug.
    Internal,
}

impl ErrorCode {
    /// Every code.
    pub const ALL: [Self; 23] = [
        Self::InvalidRequest,
        Self::UnknownMethod,
        Self::UnknownGuest,
        Self::NotReachable,
        Self::Timeout,
        Self::Forbidden,
        Self::Refused,
        Self::Unsupported,
        Self::Busy,
        Self::StorageFailed,
        Self::ShuttingDown,
        Self::Itself,
        Self::Unknown,
        Self::Ambiguous,
        Self::Rejected,
        Self::NotPeer,
        Self::Full,
        Self::TooLarge,
        Self::Conflict,
        Self::NotAttached,
        Self::MissingLease,
        Self::GuestOffline,
        Self::Internal,
    ];

    /// The code that `word` names; `None`: one that a later version knows.
    #[must_use]
    pub fn from_word(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|code| code.as_str() == word)
    }

    /// The word.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::InvalidRequest => "invalid_request",
            Self::UnknownMethod => "unknown_method",
            Self::UnknownGuest => "unknown_guest",
            Self::NotReachable => "not_reachable",
            Self::Timeout => "timeout",
            Self::Forbidden => "forbidden",
            Self::Refused => "refused",
            Self::Unsupported => "unsupported",
            Self::Busy => "busy",
            Self::StorageFailed => "storage_failed",
            Self::ShuttingDown => "shutting_down",
            Self::Itself => "self",
            Self::Unknown => "unknown",
            Self::Ambiguous => "ambiguous",
            Self::Rejected => "rejected",
            Self::NotPeer => "not_peer",
            Self::Full => "full",
            Self::TooLarge => "too_large",
            Self::Conflict => "conflict",
            Self::NotAttached => "not_attached",
            Self::MissingLease => "missing_lease",
            Self::GuestOffline => "guest_offline",
            Self::Internal => "internal",
        }
    }
}

impl fmt::Display for ErrorCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// `data` of an `error`.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ErrorBody {
    /// What kind.
    pub code: ErrorCode,
    /// What happened, with what, and what to do.
    pub message: String,
}

/// `data` of `info`.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Info {
    /// `broker` or `agent`.
    pub role: String,
    /// Program version.
    pub version: String,
    /// Process.
    pub pid: u32,
    /// How often a broker was started on this state directory; null from an agent.
    pub incarnation: Option<u32>,
    /// State directory; empty from an agent.
    pub state_dir: String,
    /// Where it listens (agent: what it is connected to).
    pub listen: Vec<String>,
    /// When it started.
    pub started_at: WallTime,
    /// Bounds in force.
    pub limits: Limits,
    /// Settings in force.
    pub config: Settings,
    /// The agent's own view of its link; null from a broker.
    pub link: Option<LinkInfo>,
}

/// Bounds in force.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Limits {
    /// Most rows.
    pub guests: u64,
    /// Most half-open connections.
    pub half_open: u64,
    /// Most control clients.
    pub control_clients: u64,
    /// Most unanswered requests of one control client.
    pub control_requests: u64,
    /// Longest request line in bytes.
    pub request_bytes: u64,
    /// Longest frame in bytes.
    pub frame_bytes: u64,
    /// Events kept.
    pub events: u64,
}

/// Settings in force.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Settings {
    /// How old the newest proof of a reachable guest may be.
    pub window_ms: u64,
    /// How often an open session is challenged.
    pub interval_ms: u64,
    /// From accept to `ok`.
    pub handshake_timeout_ms: u64,
    /// Every guest must have a token.
    pub require_token: bool,
    /// 0.1 guests may count as reachable.
    pub accept_unproven: bool,
    /// Unknown names are refused.
    pub only_known: bool,
}

/// The agent's own view of its link.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct LinkInfo {
    /// Who the guest is.
    pub name: GuestName,
    /// `dialing`, `handshaking`, `up` or `backoff`.
    pub state: String,
    /// The session's number, when up.
    pub epoch: Option<Epoch>,
    /// Whether the broker proved itself with the key.
    pub authenticated: bool,
    /// When it dials again, in milliseconds, while backing off.
    pub retry_ms: Option<u64>,
    /// Why the last link ended.
    pub last_error: Option<String>,
}

/// `data` of `waited`.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Waited {
    /// Always true: an unsatisfied wait is a `timeout` error.
    pub satisfied: bool,
    /// The guests asked for, as they are now; names not seen yet are absent.
    pub guests: Vec<GuestStatus>,
}

/// `data` of `pong`.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Pong {
    /// Who answered.
    pub guest: GuestName,
    /// Round-trip time in microseconds. Not evidence.
    pub rtt_us: u64,
}

/// `data` of `events`.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Events {
    /// Oldest first.
    pub events: Vec<Event>,
    /// Where to go on: pass it as `since`.
    pub cursor: Cursor,
    /// Whether events between `since` and the first one are lost.
    #[serde(default, skip_serializing_if = "core::ops::Not::not")]
    pub gap: bool,
}

/// `data` of a stream's `gap` line.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Gap {
    /// Where the stream goes on.
    pub cursor: Cursor,
}

/// `data` of `token_issued`.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TokenIssued {
    /// Whose.
    pub guest: GuestName,
    /// The secret: 64 hex digits, shown this once.
    pub token: String,
}

impl Drop for TokenIssued {
    fn drop(&mut self) {
        self.token.zeroize();
    }
}

impl fmt::Debug for TokenIssued {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TokenIssued").field("guest", &self.guest).finish_non_exhaustive()
    }
}

/// `data` of `token_revoked` and of `forgotten`.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct GuestOnly {
    /// Whose or who.
    pub guest: GuestName,
}

/// `data` of `token_listed`.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct TokenListed {
    /// By name.
    pub tokens: Vec<TokenState>,
}

/// One name that has, or had, a token.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct TokenState {
    /// Whose.
    pub guest: GuestName,
    /// False after `token revoke`: nobody can prove the name until a new one is issued.
    pub valid: bool,
}

/// `data` of `peers_listed`.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct PeersListed {
    /// The guest itself first, then its peers by name.
    pub peers: Vec<Listed>,
}

/// `data` of `peer_registered` and `peer_unregistered`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct PeerChanged {
    /// Who they are.
    pub result: PeerNames,
    /// `registered` or `unregistered`.
    pub outcome: Outcome,
}

/// Two guests.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct PeerNames {
    /// The one that was named.
    pub peer: GuestName,
    /// The one that asked, or was asked for.
    pub source: GuestName,
}

/// `data` of `peer_message_result`: a message that was taken.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct MessageResult {
    /// Its id.
    pub id: MessageId,
    /// `delivered`, `queued`, `rejected` or `expired`.
    pub outcome: Outcome,
    /// Why, if it was not delivered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// `data` of `inbox`, and of each line that `follow` adds.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Inbox {
    /// Oldest first.
    pub messages: Vec<InboxMessage>,
}

/// One message, as it is shown to whoever reads an inbox.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct InboxMessage {
    /// Its id.
    pub id: MessageId,
    /// Who sent it.
    pub from: GuestName,
    /// Whether that name was proven with a key.
    pub from_authenticated: bool,
    /// What it says.
    pub text: String,
    /// When the broker took it.
    pub sent_at: WallTime,
    /// When it got into the guest's inbox; null: it waits.
    pub delivered_at: Option<WallTime>,
    /// Whether it needs attention.
    pub wake: bool,
}

/// `data` of `restored`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct GuestRestored {
    /// Who.
    pub guest: GuestName,
    /// Whether its start command was run; false: it was reachable already.
    pub started: bool,
}

/// `data` of `reloaded` and `shutting_down`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Empty {}

/// What `wait` waits for.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Target {
    /// Proven within the window.
    Reachable,
    /// Known, and not reachable.
    Waiting,
}

impl Target {
    /// Whether a guest in `state` satisfies it.
    #[must_use]
    pub fn is_met_by(self, state: State) -> bool {
        match self {
            Self::Reachable => state == State::Reachable,
            Self::Waiting => state == State::Waiting,
        }
    }
}
