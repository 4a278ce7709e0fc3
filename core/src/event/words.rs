//! Why things ended or failed: the words of events and of the wire.

use core::fmt;

use serde::{Deserialize, Serialize};

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

/// Why a stream to a guest's terminals ended.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TunnelEnd {
    /// Both ends said all they had to say.
    Finished,
    /// The client on the host went away.
    ClientLeft,
    /// The terminals in the guest closed it.
    GuestClosed,
    /// The session that carried it ended.
    SessionLost,
    /// It was not open in time, or nobody took its last bytes.
    Timeout,
    /// One end broke the rules.
    Protocol,
    /// One end's process stops.
    Stopping,
}

impl TunnelEnd {
    const ALL: [Self; 7] = [
        Self::Finished,
        Self::ClientLeft,
        Self::GuestClosed,
        Self::SessionLost,
        Self::Timeout,
        Self::Protocol,
        Self::Stopping,
    ];

    /// The end that `word` names; `None`: one that a later version knows.
    #[must_use]
    pub fn from_word(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|end| end.as_str() == word)
    }

    /// The word, on the wire and in events.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Finished => "finished",
            Self::ClientLeft => "client_left",
            Self::GuestClosed => "guest_closed",
            Self::SessionLost => "session_lost",
            Self::Timeout => "timeout",
            Self::Protocol => "protocol",
            Self::Stopping => "stopping",
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
