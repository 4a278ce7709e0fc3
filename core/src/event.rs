//! What happened, once, in a fixed form: JSON for programs, one line for people.

use alloc::string::String;
use core::fmt;
use core::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use crate::boundary::{Remote, Transport};
use crate::capabilities::Capabilities;
use crate::id::{Epoch, GuestName};
use crate::status::{Reason, State};
use crate::time::WallTime;

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
        short.push(if character.is_control() { '?' } else { character });
    }
    short
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

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Info => "INFO",
            Self::Warn => "WARN",
            Self::Error => "ERROR",
        })
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
}

/// Why a handshake came to nothing. The first eight are the protocol's refusal codes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Failure {
    /// Not a line of the protocol.
    BadLine,
    /// Not a guest name.
    BadName,
    /// Only known names are admitted.
    UnknownName,
    /// The name is keyed, or all must be.
    TokenRequired,
    /// The proof is wrong.
    BadProof,
    /// A live session holds the name.
    NameInUse,
    /// A conflict is being decided, or a table is full.
    Busy,
    /// The deadline passed.
    Timeout,
    /// The connection ended first.
    Disconnected,
    /// The half-open table was full.
    Evicted,
    /// The broker stopped.
    Shutdown,
}

impl Failure {
    /// The word, on the wire and in events.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::BadLine => "bad-line",
            Self::BadName => "bad-name",
            Self::UnknownName => "unknown-name",
            Self::TokenRequired => "token-required",
            Self::BadProof => "bad-proof",
            Self::NameInUse => "name-in-use",
            Self::Busy => "busy",
            Self::Timeout => "timeout",
            Self::Disconnected => "disconnected",
            Self::Evicted => "evicted",
            Self::Shutdown => "shutdown",
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// Why a session ended.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SessionEnd {
    /// The guest took leave.
    Goodbye,
    /// The link ended.
    Disconnected,
    /// Another connection proved itself under the name.
    Superseded,
    /// Three wrong proofs in a row.
    Strikes,
    /// A frame's tag was wrong.
    BadMac,
    /// Bytes that are no frame.
    BadFrame,
    /// No proof for too long.
    Stale,
    /// The guest did not read for a window.
    Slow,
    /// The name's token was issued anew or revoked.
    TokenChanged,
    /// The guest was forgotten.
    Forgotten,
    /// A 0.1 session without heartbeat.
    HeartbeatTimeout,
    /// The broker stopped.
    Shutdown,
    /// A new handshake on the same serial stream took its place.
    Replaced,
    /// A new handshake on the same serial stream was begun and not finished.
    Resynchronised,
}

impl SessionEnd {
    /// The word; where the broker says `bye`, its code.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Goodbye => "goodbye",
            Self::Disconnected => "disconnected",
            Self::Superseded => "superseded",
            Self::Strikes => "strikes",
            Self::BadMac => "bad-mac",
            Self::BadFrame => "bad-frame",
            Self::Stale => "stale",
            Self::Slow => "slow",
            Self::TokenChanged => "token-changed",
            Self::Forgotten => "forgotten",
            Self::HeartbeatTimeout => "heartbeat-timeout",
            Self::Shutdown => "shutdown",
            Self::Replaced => "replaced",
            Self::Resynchronised => "resynchronised",
        }
    }
}

impl fmt::Display for SessionEnd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// Why an agent has no link.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LinkEnd {
    /// The dial failed.
    Unreachable,
    /// The dial or the handshake took too long.
    Timeout,
    /// The link ended.
    Disconnected,
    /// No challenge for three intervals.
    Silent,
    /// The broker said `bye`.
    Bye,
    /// What came is not the protocol.
    Protocol,
    /// The agent stops.
    Stopping,
    /// A single handshake was asked for, and it succeeded.
    Finished,
}

impl LinkEnd {
    /// The word.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Unreachable => "unreachable",
            Self::Timeout => "timeout",
            Self::Disconnected => "disconnected",
            Self::Silent => "silent",
            Self::Bye => "bye",
            Self::Protocol => "protocol",
            Self::Stopping => "stopping",
            Self::Finished => "finished",
        }
    }
}

/// What could not be written.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Storage {
    /// The database.
    Database,
    /// castra 0.1 records.
    Records,
    /// The log or the event file (said by the shell).
    Log,
}

impl Fact {
    /// The name in `docs/PROTOCOL.md`.
    #[must_use]
    pub const fn kind(&self) -> &'static str {
        match self {
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
    pub const fn level(&self) -> Level {
        match self {
            Self::BrokerStalled { .. }
            | Self::ClockJumped { .. }
            | Self::HandshakeFailure { .. }
            | Self::NameConflict { .. }
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
            | Self::StorageRecovered { .. }
            | Self::LinkDialing { .. }
            | Self::LinkUp { .. }
            | Self::LinkDown { .. } => Level::Info,
        }
    }
}

/// The log form: one line, no time, no prefix, no level; fixed field order.
/// The greeting is that of `handshake.success`.
impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let guest = Optional(self.guest.as_ref());
        match &self.fact {
            Fact::BrokerStarted { guests } => {
                write!(f, "broker started incarnation={} guests={guests}", self.cursor.incarnation)
            }
            Fact::BrokerStopping => f.write_str("broker stopping"),
            Fact::BrokerStalled { late_ms } => write!(f, "broker stalled late_ms={late_ms}"),
            Fact::ClockJumped { late_ms, suspended_ms } => {
                write!(f, "clock jumped late_ms={late_ms} suspended_ms={suspended_ms}")
            }
            Fact::BrokerReloaded => f.write_str("configuration reloaded"),
            Fact::HandshakeStart { transport, remote } => {
                write!(f, "handshake start vm={guest} via={transport} remote={remote}")
            }
            Fact::HandshakeSuccess {
                epoch,
                transport,
                remote,
                capabilities,
                proven,
                authenticated,
                once,
            } => write!(
                f,
                "hello from vm:{guest} session=sess-{}-{} epoch={epoch} via={transport} remote={remote} proven={} auth={} once={} capabilities=[{capabilities}]",
                epoch.incarnation(),
                epoch.counter(),
                yes(*proven),
                if *authenticated { "hmac-sha256" } else { "none" },
                yes(*once),
            ),
            Fact::HandshakeFailure { reason, transport, remote, capabilities } => write!(
                f,
                "handshake failed vm={guest} reason={reason} via={transport} remote={remote} capabilities=[{capabilities}]"
            ),
            Fact::SessionClosed { epoch, reason, lasted_ms } => write!(
                f,
                "session closed vm={guest} session=sess-{}-{} reason={reason} lasted_ms={lasted_ms}",
                epoch.incarnation(),
                epoch.counter()
            ),
            Fact::VerdictChanged { from, to, reason, age_ms } => write!(
                f,
                "verdict vm={guest} from={from} to={to} reason={} age_ms={}",
                Optional(reason.as_ref()),
                Optional(age_ms.as_ref())
            ),
            Fact::NameConflict { transport, remote, takeovers } => {
                write!(f, "name conflict vm={guest} via={transport} remote={remote} takeovers={takeovers}")
            }
            Fact::TokenIssued => write!(f, "token issued vm={guest}"),
            Fact::TokenRevoked => write!(f, "token revoked vm={guest}"),
            Fact::GuestForgotten => write!(f, "guest forgotten vm={guest}"),
            Fact::StorageFailed { what, message } => {
                write!(f, "storage failed what={} error=\"{}\"", what.as_str(), Escaped(message))
            }
            Fact::StorageRecovered { what } => write!(f, "storage recovered what={}", what.as_str()),
            Fact::LinkDialing { attempt } => write!(f, "link dialing attempt={attempt}"),
            Fact::LinkUp { epoch, authenticated, interval_ms, window_ms } => write!(
                f,
                "link up epoch={epoch} auth={} interval_ms={interval_ms} window_ms={window_ms}",
                if *authenticated { "hmac-sha256" } else { "none" }
            ),
            Fact::LinkDown { reason, retry_ms } => {
                write!(f, "link down reason={} retry_ms={}", reason.as_str(), Optional(retry_ms.as_ref()))
            }
            Fact::LinkRefused { code, retry_ms } => {
                write!(f, "link refused code={} retry_ms={}", Escaped(code), Optional(retry_ms.as_ref()))
            }
            Fact::BrokerUnproven { retry_ms } => write!(
                f,
                "broker unproven: it does not know this guest's token retry_ms={}",
                Optional(retry_ms.as_ref())
            ),
        }
    }
}

impl Storage {
    /// The word.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Database => "database",
            Self::Records => "records",
            Self::Log => "log",
        }
    }
}

struct Optional<'a, T>(Option<&'a T>);

impl<T: fmt::Display> fmt::Display for Optional<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(value) => value.fmt(f),
            None => f.write_str("-"),
        }
    }
}

/// Text from outside, safe for a log and a terminal: everything that is not
/// printable ASCII, and `"` and `\`, is escaped.
#[derive(Clone, Copy, Debug)]
pub struct Escaped<'a>(pub &'a str);

impl fmt::Display for Escaped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        use fmt::Write;
        for character in self.0.chars() {
            match character {
                '"' | '\\' => write!(f, "\\{character}")?,
                ' '..='~' => f.write_char(character)?,
                _ => write!(f, "{}", character.escape_unicode())?,
            }
        }
        Ok(())
    }
}

const fn yes(flag: bool) -> &'static str {
    if flag { "yes" } else { "no" }
}
