//! What happened, once, in a fixed form: JSON for programs, one line for people.

mod attach;
mod escaped;
mod terminal;
mod text;
mod words;

use alloc::string::String;
use core::fmt;
use core::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use crate::capabilities::Capabilities;
use crate::endpoint::{Remote, Transport};
use crate::id::{Epoch, GuestName};
use crate::peers::{Expiry, MessageId, Outcome};
use crate::status::{Reason, State};
use crate::time::WallTime;

pub use attach::{AttachFact, Source as AttachSource};
pub use escaped::Escaped;
pub use terminal::TerminalFact;
pub use words::{Failure, LinkEnd, SessionEnd, Storage, TunnelEnd};

/// Greatest length of an event's JSON, in bytes.
pub const EVENT_BYTES_MAX: usize = 512;

/// Greatest length of an error message in an event, in bytes.
pub const MESSAGE_MAX: usize = 128;

/// Greatest length of a foreign code in an event, in bytes.
pub const CODE_MAX: usize = 32;

/// Foreign text for an event: at most `most` bytes, without control characters,
/// which JSON writes as six bytes each.
#[must_use]
pub fn shortened(text: &str, most: usize) -> String {
    let mut short = String::new();
    for character in text.chars() {
        if short.len() + character.len_utf8() > most {
            break;
        }
        short.push(if is_hidden(character) { '?' } else { character });
    }
    short
}

/// Controls, and what turns the direction of text, breaks its lines or can't be seen
/// (Unicode's categories Cc, Cf, Zl and Zp, as far as anybody obeys them).
fn is_hidden(character: char) -> bool {
    character.is_control()
        || matches!(
            character,
            '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{feff}'
                | '\u{200b}'..='\u{200f}'
                | '\u{2028}'..='\u{202e}'
                | '\u{2060}'..='\u{206f}'
                | '\u{fff9}'..='\u{fffb}'
                | '\u{e0000}'..='\u{e007f}'
        )
}

/// An event's place: `INCARNATION-N`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Cursor {
    /// The broker's incarnation.
    pub incarnation: u32,
    /// The event's number in it, from 1.
    pub number: u64,
}

impl fmt::Display for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.incarnation, self.number)
    }
}

/// Why a text is not a cursor.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("a cursor looks like 7-1042: copy it from an event or from the last reply")]
pub struct InvalidCursor;

impl FromStr for Cursor {
    type Err = InvalidCursor;

    fn from_str(text: &str) -> Result<Self, InvalidCursor> {
        let (incarnation, number) = text.split_once('-').ok_or(InvalidCursor)?;
        Ok(Self {
            incarnation: incarnation.parse().map_err(|_| InvalidCursor)?,
            number: number.parse().map_err(|_| InvalidCursor)?,
        })
    }
}

impl Serialize for Cursor {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Cursor {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = <alloc::borrow::Cow<'de, str>>::deserialize(deserializer)?;
        text.parse().map_err(de::Error::custom)
    }
}

/// Something that happened.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Event {
    /// Its place in the stream.
    pub cursor: Cursor,
    /// When, by the wall clock.
    pub at: WallTime,
    /// Whom it is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub guest: Option<GuestName>,
    /// What.
    #[serde(flatten)]
    pub fact: Fact,
}

/// How much somebody should care.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Level {
    /// Ordinary.
    Info,
    /// Look at it when you have time.
    Warn,
    /// Something is broken.
    Error,
}

impl Level {
    /// The word.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Info => "INFO",
            Self::Warn => "WARN",
            Self::Error => "ERROR",
        }
    }
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// What happened. The serialised `kind` is the name in `docs/PROTOCOL.md`.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(tag = "kind")]
#[non_exhaustive]
pub enum Fact {
    /// The broker serves.
    #[serde(rename = "broker.started")]
    BrokerStarted {
        /// Guests known at start.
        guests: u64,
    },
    /// The broker takes leave.
    #[serde(rename = "broker.stopping")]
    BrokerStopping,
    /// The broker was not running for a while.
    #[serde(rename = "broker.stalled")]
    BrokerStalled {
        /// How late its deadline fired.
        late_ms: u64,
    },
    /// The host was suspended.
    #[serde(rename = "broker.clock_jumped")]
    ClockJumped {
        /// How late the broker's deadline fired.
        late_ms: u64,
        /// How much of it the host was suspended.
        suspended_ms: u64,
    },
    /// The configuration was read again.
    #[serde(rename = "broker.reloaded")]
    BrokerReloaded,
    /// A valid hello.
    #[serde(rename = "handshake.start")]
    HandshakeStart {
        /// What carries it.
        transport: Transport,
        /// The other end.
        remote: Remote,
    },
    /// A guest proved itself; for a 0.1 guest (`proven` false): it said hello.
    #[serde(rename = "handshake.success")]
    HandshakeSuccess {
        /// The session's number.
        epoch: Epoch,
        /// What carries it.
        transport: Transport,
        /// The other end.
        remote: Remote,
        /// What it says it can do.
        capabilities: Capabilities,
        /// Whether it answered a challenge.
        proven: bool,
        /// Whether with a key.
        authenticated: bool,
        /// Whether it opened no session.
        once: bool,
    },
    /// A handshake came to nothing.
    #[serde(rename = "handshake.failure")]
    HandshakeFailure {
        /// Why.
        reason: Failure,
        /// What carried it.
        transport: Transport,
        /// The other end.
        remote: Remote,
        /// What it said it can do, as far as it got.
        capabilities: Capabilities,
    },
    /// A session ended.
    #[serde(rename = "session.closed")]
    SessionClosed {
        /// Its number.
        epoch: Epoch,
        /// Why.
        reason: SessionEnd,
        /// How long it lasted.
        lasted_ms: u64,
    },
    /// What `status` says of a guest changed.
    #[serde(rename = "verdict.changed")]
    VerdictChanged {
        /// Before.
        from: State,
        /// After.
        to: State,
        /// Why, when not reachable.
        reason: Option<Reason>,
        /// Age of the newest proof.
        age_ms: Option<u64>,
    },
    /// Two connections claim one name.
    #[serde(rename = "name.conflict")]
    NameConflict {
        /// What carries the newcomer.
        transport: Transport,
        /// The newcomer.
        remote: Remote,
        /// Takeovers of the name so far.
        takeovers: u64,
    },
    /// A token was issued.
    #[serde(rename = "token.issued")]
    TokenIssued,
    /// A token was revoked.
    #[serde(rename = "token.revoked")]
    TokenRevoked,
    /// A guest's row was deleted.
    #[serde(rename = "guest.forgotten")]
    GuestForgotten,
    /// Two guests are peers.
    #[serde(rename = "peer.registered")]
    PeerRegistered {
        /// The other.
        peer: GuestName,
    },
    /// Two guests are peers no more.
    #[serde(rename = "peer.unregistered")]
    PeerUnregistered {
        /// The other.
        peer: GuestName,
    },
    /// A registration came to nothing.
    #[serde(rename = "peer.refused")]
    PeerRefused {
        /// Whom it was about.
        peer: GuestName,
        /// How it ended.
        outcome: Outcome,
        /// Why: [`shortened`] to [`MESSAGE_MAX`].
        reason: String,
    },
    /// The broker took a message, durably.
    #[serde(rename = "peer.message.sent")]
    MessageSent {
        /// Which.
        id: MessageId,
        /// To whom.
        to: GuestName,
        /// Of its text.
        bytes: u64,
    },
    /// A message is in its inbox. An agent says it of its own.
    #[serde(rename = "peer.message.delivered")]
    MessageDelivered {
        /// Which.
        id: MessageId,
        /// Who sent it.
        from: GuestName,
    },
    /// A message will not be delivered.
    #[serde(rename = "peer.message.expired")]
    MessageExpired {
        /// Which.
        id: MessageId,
        /// To whom.
        to: GuestName,
        /// Why; null: the receiver would not have it.
        reason: Option<Expiry>,
    },
    /// A guest's start command was run.
    #[serde(rename = "guest.started")]
    GuestStarted,
    /// Agent: somebody wants to be a peer, and waits for the answer.
    #[serde(rename = "peer.offer")]
    PeerOffer {
        /// Who.
        from: GuestName,
        /// Whether that name was proven with a key.
        from_authenticated: bool,
    },
    /// A stream leads to a guest's terminals.
    #[serde(rename = "terminal.tunnel.opened")]
    TunnelOpened {
        /// Its number.
        stream: u64,
    },
    /// Such a stream is over.
    #[serde(rename = "terminal.tunnel.closed")]
    TunnelClosed {
        /// Its number.
        stream: u64,
        /// Why.
        reason: TunnelEnd,
        /// What went to the guest (broker: was sent; agent: arrived).
        to_guest_bytes: u64,
        /// What came from the guest (broker: arrived; agent: was sent).
        from_guest_bytes: u64,
        /// How long it lasted.
        lasted_ms: u64,
    },
    /// Something could not be written.
    #[serde(rename = "storage.failed")]
    StorageFailed {
        /// What.
        what: Storage,
        /// The error: [`shortened`] to [`MESSAGE_MAX`].
        message: String,
    },
    /// It can be written again.
    #[serde(rename = "storage.recovered")]
    StorageRecovered {
        /// What.
        what: Storage,
    },
    /// The agent dials its broker.
    #[serde(rename = "link.dialing")]
    LinkDialing {
        /// Which try since the last session.
        attempt: u32,
    },
    /// The agent has a session.
    #[serde(rename = "link.up")]
    LinkUp {
        /// Its number.
        epoch: Epoch,
        /// Whether the broker proved itself with the key.
        authenticated: bool,
        /// How often the broker will ask.
        interval_ms: u64,
        /// How long the broker trusts an answer.
        window_ms: u64,
    },
    /// The agent's link ended, or could not be had.
    #[serde(rename = "link.down")]
    LinkDown {
        /// Why.
        reason: LinkEnd,
        /// When it dials again; null when it does not.
        retry_ms: Option<u64>,
        /// What the system said, when a dial failed: [`shortened`] to [`MESSAGE_MAX`].
        #[serde(default, skip_serializing_if = "Option::is_none")]
        error: Option<String>,
    },
    /// The broker refused the agent.
    #[serde(rename = "link.refused")]
    LinkRefused {
        /// The broker's code: [`shortened`] to [`CODE_MAX`].
        code: String,
        /// When the agent dials again; null when it does not.
        retry_ms: Option<u64>,
    },
    /// The broker could not prove that it knows the token; nothing was given to it.
    #[serde(rename = "broker_unproven")]
    BrokerUnproven {
        /// When the agent dials again; null when it does not.
        retry_ms: Option<u64>,
    },
    /// About terminals.
    #[serde(untagged)]
    Terminal(TerminalFact),
    /// About managed attach.
    #[serde(untagged)]
    Attach(AttachFact),
}

impl Fact {
    /// The name in `docs/PROTOCOL.md`.
    #[must_use]
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::Terminal(fact) => fact.kind(),
            Self::Attach(fact) => fact.kind(),
            Self::BrokerStarted { .. } => "broker.started",
            Self::BrokerStopping => "broker.stopping",
            Self::BrokerStalled { .. } => "broker.stalled",
            Self::ClockJumped { .. } => "broker.clock_jumped",
            Self::BrokerReloaded => "broker.reloaded",
            Self::HandshakeStart { .. } => "handshake.start",
            Self::HandshakeSuccess { .. } => "handshake.success",
            Self::HandshakeFailure { .. } => "handshake.failure",
            Self::SessionClosed { .. } => "session.closed",
            Self::VerdictChanged { .. } => "verdict.changed",
            Self::NameConflict { .. } => "name.conflict",
            Self::TokenIssued => "token.issued",
            Self::TokenRevoked => "token.revoked",
            Self::GuestForgotten => "guest.forgotten",
            Self::PeerRegistered { .. } => "peer.registered",
            Self::PeerUnregistered { .. } => "peer.unregistered",
            Self::PeerRefused { .. } => "peer.refused",
            Self::MessageSent { .. } => "peer.message.sent",
            Self::MessageDelivered { .. } => "peer.message.delivered",
            Self::MessageExpired { .. } => "peer.message.expired",
            Self::GuestStarted => "guest.started",
            Self::PeerOffer { .. } => "peer.offer",
            Self::TunnelOpened { .. } => "terminal.tunnel.opened",
            Self::TunnelClosed { .. } => "terminal.tunnel.closed",
            Self::StorageFailed { .. } => "storage.failed",
            Self::StorageRecovered { .. } => "storage.recovered",
            Self::LinkDialing { .. } => "link.dialing",
            Self::LinkUp { .. } => "link.up",
            Self::LinkDown { .. } => "link.down",
            Self::LinkRefused { .. } => "link.refused",
            Self::BrokerUnproven { .. } => "broker_unproven",
        }
    }

    /// How much somebody should care.
    #[must_use]
    pub fn level(&self) -> Level {
        match self {
            Self::Terminal(fact) => fact.level(),
            Self::Attach(fact) => fact.level(),
            Self::BrokerStalled { .. }
            | Self::ClockJumped { .. }
            | Self::HandshakeFailure { .. }
            | Self::NameConflict { .. }
            | Self::PeerRefused { .. }
            | Self::MessageExpired { .. }
            | Self::LinkRefused { .. }
            | Self::BrokerUnproven { .. } => Level::Warn,
            Self::StorageFailed { .. } => Level::Error,
            Self::BrokerStarted { .. }
            | Self::BrokerStopping
            | Self::BrokerReloaded
            | Self::HandshakeStart { .. }
            | Self::HandshakeSuccess { .. }
            | Self::SessionClosed { .. }
            | Self::VerdictChanged { .. }
            | Self::TokenIssued
            | Self::TokenRevoked
            | Self::GuestForgotten
            | Self::PeerRegistered { .. }
            | Self::PeerUnregistered { .. }
            | Self::MessageSent { .. }
            | Self::MessageDelivered { .. }
            | Self::GuestStarted
            | Self::PeerOffer { .. }
            | Self::TunnelOpened { .. }
            | Self::TunnelClosed { .. }
            | Self::StorageRecovered { .. }
            | Self::LinkDialing { .. }
            | Self::LinkUp { .. }
            | Self::LinkDown { .. } => Level::Info,
        }
    }
}
