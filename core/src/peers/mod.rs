//! Peers: which guests know each other, and what became of their messages.
//!
//! A relation joins two guests and is one record: it is on both sides or on
//! neither. A message is a record too, and has one fate. The bytes:
//! `docs/PROTOCOL.md`, section 17.

mod consent;
pub(crate) mod lanes;
mod ledger;
pub(crate) mod machine;
pub(crate) mod mailbox;
#[cfg(feature = "model")]
mod obligations;
pub(crate) mod post;
pub(crate) mod registry;
pub(crate) mod requests;
mod settings;
pub mod wire;
mod writes;

use alloc::boxed::Box;
use alloc::string::String;
use core::fmt;
use core::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use crate::id::GuestName;
use crate::time::WallTime;

pub use ledger::Ledger;
pub use settings::{InboxSettings, PeerSettings};

/// The capability of an agent that takes part: without a `peer_policy` frame its
/// policy is [`Policy::Default`].
pub const PEERS_V1: &str = "peers-v1";

/// Longest text of a message, in bytes.
pub const TEXT_MAX: usize = 32_768;

/// Longest key of a message, in characters.
pub const KEY_MAX: usize = 64;

/// Longest reason that a guest gives, in bytes.
pub const REASON_MAX: usize = 128;

/// A message's number: `msg-` and 32 hex digits, drawn by the broker.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MessageId(pub [u8; 16]);

impl fmt::Display for MessageId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("msg-")?;
        crate::hex::write(f, &self.0)
    }
}

impl fmt::Debug for MessageId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Why a text is not a message's number.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("a message's id is msg- and 32 hex digits: copy it from the answer to a send, or from an inbox")]
pub struct InvalidMessageId;

impl FromStr for MessageId {
    type Err = InvalidMessageId;

    fn from_str(text: &str) -> Result<Self, InvalidMessageId> {
        let digits = text.strip_prefix("msg-").ok_or(InvalidMessageId)?;
        crate::hex::decode(digits.as_bytes()).map(Self).map_err(|_| InvalidMessageId)
    }
}

impl Serialize for MessageId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for MessageId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = <alloc::borrow::Cow<'de, str>>::deserialize(deserializer)?;
        text.parse().map_err(de::Error::custom)
    }
}

/// Two different guests, in order.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub struct Pair {
    low: GuestName,
    high: GuestName,
}

impl Pair {
    /// The two, in whichever order; `None`: they are one.
    #[must_use]
    pub fn new(one: GuestName, other: GuestName) -> Option<Self> {
        match one.cmp(&other) {
            core::cmp::Ordering::Less => Some(Self { low: one, high: other }),
            core::cmp::Ordering::Greater => Some(Self { low: other, high: one }),
            core::cmp::Ordering::Equal => None,
        }
    }

    /// Both, in order.
    #[must_use]
    pub const fn both(&self) -> [GuestName; 2] {
        [self.low, self.high]
    }

    /// The one that `guest` isn't; `None`: it is neither.
    #[must_use]
    pub fn other(&self, guest: &GuestName) -> Option<GuestName> {
        match (*guest == self.low, *guest == self.high) {
            (true, _) => Some(self.high),
            (_, true) => Some(self.low),
            _ => None,
        }
    }
}

/// What two guests are to each other, for as long as there is a record of it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Relation {
    /// Peers.
    Linked,
    /// They were, until this one was forgotten: the other still sees it as
    /// `missing`, until it unlinks. Nothing goes on between them.
    Missing(GuestName),
}

/// Whom a guest takes as a peer.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Policy {
    /// Whom the operator links; other guests after being asked.
    #[default]
    Default,
    /// Everybody.
    Accept,
    /// Everybody, after being asked.
    Ask,
    /// Nobody.
    Deny,
}

impl Policy {
    /// The word.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Default => "default",
            Self::Accept => "accept",
            Self::Ask => "ask",
            Self::Deny => "deny",
        }
    }
}

/// A message, as the broker keeps it.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Message {
    /// Its place: rises by one with each message of a state directory.
    pub number: u64,
    /// Its name.
    pub id: MessageId,
    /// Who sent it.
    pub from: GuestName,
    /// To whom.
    pub to: GuestName,
    /// Whether `from` was proven with a key, or it was the operator who sent it.
    pub from_authenticated: bool,
    /// What it says; empty once only the record is kept.
    pub text: Box<str>,
    /// When the broker took it.
    pub sent_at: WallTime,
    /// Whether it needs attention.
    pub wake: bool,
    /// Makes a retry safe.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<Box<str>>,
    /// What became of it. Has a record of its own.
    #[serde(skip)]
    pub fate: Fate,
}

impl fmt::Debug for Message {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // What guests say to each other is theirs.
        f.debug_struct("Message")
            .field("number", &self.number)
            .field("id", &self.id)
            .field("from", &self.from)
            .field("to", &self.to)
            .field("bytes", &self.text.len())
            .field("fate", &self.fate)
            .finish_non_exhaustive()
    }
}

/// What became of a message.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Fate {
    /// Waits to be delivered.
    #[default]
    Queued,
    /// Is in the receiver's inbox.
    Delivered {
        /// Since when.
        at: WallTime,
    },
    /// The receiver would not have it.
    Rejected {
        /// When.
        at: WallTime,
    },
    /// Will not be delivered.
    Expired {
        /// When that was decided.
        at: WallTime,
        /// Why.
        why: Expiry,
    },
}

/// Why a message will not be delivered.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Expiry {
    /// It waited too long.
    Ttl,
    /// The two are peers no more.
    Unlinked,
    /// The receiver turned to [`Policy::Deny`].
    Policy,
    /// One of the two was forgotten.
    Forgotten,
    /// Its sender wanted it delivered at once, or not at all.
    NotQueued,
}

impl Expiry {
    /// The word.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Ttl => "ttl",
            Self::Unlinked => "unlinked",
            Self::Policy => "policy",
            Self::Forgotten => "forgotten",
            Self::NotQueued => "not_queued",
        }
    }
}

/// A message in the inbox of an agent.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Received {
    /// Its place in this inbox: rises by one.
    pub number: u64,
    /// Its name.
    pub id: MessageId,
    /// Who sent it, as the broker says.
    pub from: GuestName,
    /// Whether that was proven with a key.
    pub from_authenticated: bool,
    /// What it says.
    pub text: Box<str>,
    /// When the broker took it.
    pub sent_at: WallTime,
    /// When it got here.
    pub delivered_at: WallTime,
    /// Whether it needs attention.
    pub wake: bool,
}

impl fmt::Debug for Received {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Received")
            .field("number", &self.number)
            .field("id", &self.id)
            .field("from", &self.from)
            .field("bytes", &self.text.len())
            .finish_non_exhaustive()
    }
}

/// What a broker still knows of peers after a restart.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RestoredPeers {
    /// Every relation there is a record of.
    pub relations: alloc::vec::Vec<(Pair, Relation)>,
    /// Policies other than the default.
    pub policies: alloc::vec::Vec<(GuestName, Policy)>,
    /// Every message there is a record of, by number, with its fate.
    #[serde(with = "with_fate")]
    pub messages: alloc::vec::Vec<Message>,
}

/// How an operation ended.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Outcome {
    /// They are peers.
    Registered,
    /// They are not, or not any more.
    Unregistered,
    /// Here they are.
    Listed,
    /// It is in the inbox.
    Delivered,
    /// It waits, durably.
    Queued,
    /// A guest is no peer of its own.
    #[serde(rename = "self")]
    Itself,
    /// No guest is called so.
    Unknown,
    /// Several guests' names begin so.
    Ambiguous,
    /// The other guest would not.
    Rejected,
    /// Too much at once, or the guest is on hold.
    Busy,
    /// They are no peers.
    NotPeer,
    /// A queue or a table is.
    Full,
    /// The text or its frame is.
    TooLarge,
    /// It will not be delivered.
    Expired,
    /// The other guest is not there now, and it was not to be queued.
    NotReachable,
    /// It could not be made durable; nothing changed.
    StorageFailed,
    /// Not in time.
    Timeout,
    /// The broker takes leave.
    ShuttingDown,
    /// The request makes no sense.
    InvalidRequest,
    /// A word that a later version knows.
    #[serde(other)]
    Other,
}

impl Outcome {
    /// The word.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Registered => "registered",
            Self::Unregistered => "unregistered",
            Self::Listed => "listed",
            Self::Delivered => "delivered",
            Self::Queued => "queued",
            Self::Itself => "self",
            Self::Unknown => "unknown",
            Self::Ambiguous => "ambiguous",
            Self::Rejected => "rejected",
            Self::Busy => "busy",
            Self::NotPeer => "not_peer",
            Self::Full => "full",
            Self::TooLarge => "too_large",
            Self::Expired => "expired",
            Self::NotReachable => "not_reachable",
            Self::StorageFailed => "storage_failed",
            Self::Timeout => "timeout",
            Self::ShuttingDown => "shutting_down",
            Self::InvalidRequest => "invalid_request",
            Self::Other => "other",
        }
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// One line of a listing.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Listed {
    /// Who.
    pub name: GuestName,
    /// Why it may be seen.
    pub visibility: Visibility,
    /// What can be done with it.
    pub state: Presence,
    /// Proven within the window.
    pub reachable: bool,
    /// Age of its newest proof.
    pub last_handshake_age_ms: Option<u64>,
    /// When the newest message to it was taken.
    pub last_sent_at: Option<WallTime>,
    /// When the newest message from it was delivered.
    pub last_received_at: Option<WallTime>,
    /// Messages to it that wait.
    pub queued: u64,
}

/// Why a guest may be seen by another.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Visibility {
    /// It is itself.
    #[serde(rename = "self")]
    Itself,
    /// It is a peer.
    Peer,
}

/// What can be done with a guest.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Presence {
    /// Reachable.
    Live,
    /// Not reachable, and has a start command.
    Restorable,
    /// Not reachable.
    Known,
    /// Forgotten.
    Missing,
}

impl Presence {
    /// The word.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Live => "live",
            Self::Restorable => "restorable",
            Self::Known => "known",
            Self::Missing => "missing",
        }
    }
}

/// A guest's own word, fit for an event or another guest: bounded, without control characters.
#[must_use]
pub fn bounded_reason(reason: &str) -> String {
    crate::event::shortened(reason, REASON_MAX)
}

/// A message with its fate beside it, which otherwise has a record of its own.
mod with_fate {
    use alloc::vec::Vec;

    use serde::{Deserialize, Deserializer, Serializer};

    use super::{Fate, Message};

    pub(super) fn serialize<S: Serializer>(messages: &[Message], serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(messages.iter().map(|message| (message, message.fate)))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<Message>, D::Error> {
        let pairs = Vec::<(Message, Fate)>::deserialize(deserializer)?;
        Ok(pairs.into_iter().map(|(message, fate)| Message { fate, ..message }).collect())
    }
}
