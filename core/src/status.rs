//! The status document (schema 1): what `castra status --json` prints.
//! Meaning of every field: `docs/PROTOCOL.md`, "Status document".

use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;
use core::net::SocketAddr;

use serde::{Deserialize, Serialize};

use crate::capabilities::Capabilities;
use crate::endpoint::{Remote, Transport};
use crate::id::{BootTag, ConnId, Epoch, GuestName};
use crate::link::line::append_number;
use crate::link::message::append_json;
use crate::time::{Time, WallTime};

/// The document's version.
pub const SCHEMA: u32 = 1;

/// Whether a guest's agent is there now.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// No broker is serving. Only a client can say this.
    Offline,
    /// Not proven within the window; the reason says why.
    Waiting,
    /// Proven within the window.
    Reachable,
}

impl State {
    /// The word.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Offline => "offline",
            Self::Waiting => "waiting",
            Self::Reachable => "reachable",
        }
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// Why a guest is not reachable.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reason {
    /// No proof of it was ever known.
    NeverSeen,
    /// It said hello and has not proven itself yet.
    Handshaking,
    /// Its newest proof is older than the window.
    Stale,
    /// Its link ended without a goodbye.
    Disconnected,
    /// It took leave.
    Goodbye,
    /// Its last handshake was refused.
    Refused,
    /// It speaks castra 0.1, which proves nothing.
    Unproven,
    /// It was known before this broker started, and has not proven itself since.
    BrokerStarted,
    /// The broker itself was not running for a while, and the guest has not had its chance yet.
    BrokerStalled,
    /// The host was suspended, and the guest has not had its chance yet.
    ClockJumped,
    /// Several guests fight for the name.
    NameConflict,
    /// No broker serves (said by a client).
    NoBroker,
    /// A broker is there and doesn't answer (said by a client).
    BrokerNotAnswering,
}

impl Reason {
    /// The word.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::NeverSeen => "never_seen",
            Self::Handshaking => "handshaking",
            Self::Stale => "stale",
            Self::Disconnected => "disconnected",
            Self::Goodbye => "goodbye",
            Self::Refused => "refused",
            Self::Unproven => "unproven",
            Self::BrokerStarted => "broker_started",
            Self::BrokerStalled => "broker_stalled",
            Self::ClockJumped => "clock_jumped",
            Self::NameConflict => "name_conflict",
            Self::NoBroker => "no_broker",
            Self::BrokerNotAnswering => "broker_not_answering",
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// Something to know beside any state.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Warning {
    /// The evidence is a claim, not a proof.
    Unproven,
    /// More than three takeovers in ten seconds.
    NameConflict,
    /// Agent and broker are of different protocol versions.
    VersionSkew,
}

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Unproven => "unproven",
            Self::NameConflict => "name_conflict",
            Self::VersionSkew => "version_skew",
        })
    }
}

/// The whole answer to `status`.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct StatusOutcome {
    /// [`SCHEMA`].
    pub schema: u32,
    /// When the walk over the guests started.
    pub as_of: WallTime,
    /// One row a guest, by name.
    pub guests: Vec<GuestStatus>,
    /// The broker.
    pub broker: BrokerStatus,
}

/// One guest. Ages are milliseconds on the suspend-counting clock.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct GuestStatus {
    /// Its name.
    pub name: GuestName,
    /// The verdict.
    pub state: State,
    /// Whether the state is `reachable`.
    pub reachable: bool,
    /// Why not; null exactly when reachable.
    pub reason: Option<Reason>,
    /// Things to know beside the state.
    pub warnings: Vec<Warning>,
    /// Whether the newest evidence was a challenge's answer.
    pub proven: bool,
    /// Whether it was proven with a key.
    pub authenticated: bool,
    /// Age of the newest proof, from the sending of its challenge; null if this broker has none.
    pub last_handshake_age_ms: Option<u64>,
    /// Wall time of the newest proof ever known; null only if there never was one.
    pub last_handshake_at: Option<WallTime>,
    /// Since `ok`; null without a session.
    pub session_age_ms: Option<u64>,
    /// The window the verdict was judged by; null when no broker told it.
    pub window_ms: Option<u64>,
    /// How often it is challenged; null when no broker told it.
    pub interval_ms: Option<u64>,
    /// Its session's number; the last one's when there is none now.
    pub epoch: Option<Epoch>,
    /// The guest's boot id, shortened.
    pub boot: Option<BootTag>,
    /// What carries its link.
    pub transport: Option<Transport>,
    /// The other end of its link.
    pub remote: Option<Remote>,
    /// From the newest answered challenge's sending to its answer, in microseconds.
    pub rtt_us: Option<u64>,
    /// Completed exchanges, keepalives included.
    pub handshakes: u64,
    /// Refused handshakes under this name.
    pub refusals: u64,
    /// How often a session was superseded by another connection.
    pub takeovers: u64,
    /// What it says it can do.
    pub capabilities: Capabilities,
    /// Its peers.
    pub peers: Vec<GuestName>,
    /// Its managed attachment.
    pub attachment: Option<serde_json::Value>,
}

impl GuestStatus {
    /// Appends the row as JSON: what serde writes of it, at a fraction of the
    /// cost. The status of many guests is many of these.
    pub(crate) fn append(&self, out: &mut Vec<u8>) {
        let Self {
            name,
            state,
            reachable,
            reason,
            warnings,
            proven,
            authenticated,
            last_handshake_age_ms,
            last_handshake_at,
            session_age_ms,
            window_ms,
            interval_ms,
            epoch,
            boot,
            transport,
            remote,
            rtt_us,
            handshakes,
            refusals,
            takeovers,
            capabilities,
            peers,
            attachment,
        } = self;
        let mut row = Fields { out, begun: false };
        row.word("name", Some(name.as_bytes()));
        row.word("state", Some(state.as_str().as_bytes()));
        row.flag("reachable", *reachable);
        row.word("reason", reason.map(|reason| reason.as_str().as_bytes()));
        row.json("warnings", warnings);
        row.flag("proven", *proven);
        row.flag("authenticated", *authenticated);
        row.number("last_handshake_age_ms", *last_handshake_age_ms);
        row.text("last_handshake_at", last_handshake_at.as_ref());
        row.number("session_age_ms", *session_age_ms);
        row.number("window_ms", *window_ms);
        row.number("interval_ms", *interval_ms);
        row.number("epoch", epoch.map(|epoch| epoch.0));
        row.text("boot", boot.as_ref());
        row.text("transport", transport.as_ref());
        row.remote("remote", *remote);
        row.number("rtt_us", *rtt_us);
        row.number("handshakes", Some(*handshakes));
        row.number("refusals", Some(*refusals));
        row.number("takeovers", Some(*takeovers));
        row.words("capabilities", capabilities.as_str());
        row.json("peers", peers);
        row.json("attachment", attachment);
        out.push(b'}');
    }
}

/// An object in the making. Texts are written as they are: none of them needs escaping.
struct Fields<'a> {
    out: &'a mut Vec<u8>,
    begun: bool,
}

impl Fields<'_> {
    fn key(&mut self, key: &str) -> &mut Vec<u8> {
        let before: &[u8] = if core::mem::replace(&mut self.begun, true) { b",\"" } else { b"{\"" };
        self.out.extend_from_slice(before);
        self.out.extend_from_slice(key.as_bytes());
        self.out.extend_from_slice(b"\":");
        self.out
    }

    fn value(&mut self, key: &str, value: Option<&[u8]>) {
        self.key(key).extend_from_slice(value.unwrap_or(b"null"));
    }

    fn flag(&mut self, key: &str, flag: bool) {
        self.value(key, Some(if flag { b"true" } else { b"false" }));
    }

    fn number(&mut self, key: &str, number: Option<u64>) {
        match number {
            Some(number) => append_number(self.key(key), number),
            None => self.value(key, None),
        }
    }

    fn word(&mut self, key: &str, word: Option<&[u8]>) {
        let Some(word) = word else { return self.value(key, None) };
        let out = self.key(key);
        out.push(b'"');
        out.extend_from_slice(word);
        out.push(b'"');
    }

    fn text(&mut self, key: &str, value: Option<&impl fmt::Display>) {
        let Some(value) = value else { return self.value(key, None) };
        let out = self.key(key);
        out.push(b'"');
        // A vector takes every write.
        let _ = fmt::write(&mut Text(out), format_args!("{value}"));
        out.push(b'"');
    }

    /// Most links come from an IPv4 address, which the library formats slowly.
    fn remote(&mut self, key: &str, remote: Option<Remote>) {
        let Some(Remote::Ip(SocketAddr::V4(address))) = remote else {
            return self.text(key, remote.as_ref());
        };
        let out = self.key(key);
        let [a, b, c, d] = address.ip().octets();
        for (before, part) in [(b'"', a), (b'.', b), (b'.', c), (b'.', d)] {
            out.push(before);
            append_number(out, part.into());
        }
        out.push(b':');
        append_number(out, address.port().into());
        out.push(b'"');
    }

    /// An array of a comma list's words.
    fn words(&mut self, key: &str, list: &str) {
        let out = self.key(key);
        out.push(b'[');
        for (place, word) in list.split(',').filter(|word| !word.is_empty()).enumerate() {
            let before: &[u8] = if place > 0 { b",\"" } else { b"\"" };
            out.extend_from_slice(before);
            out.extend_from_slice(word.as_bytes());
            out.push(b'"');
        }
        out.push(b']');
    }

    fn json(&mut self, key: &str, value: &impl Serialize) {
        append_json(self.key(key), value);
    }
}

struct Text<'a>(&'a mut Vec<u8>);

impl fmt::Write for Text<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.0.extend_from_slice(text.as_bytes());
        Ok(())
    }
}

/// What a check asks of one guest after every event: the verdict and what it
/// rests on, without what only people read. [`crate::Broker::glances`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Glance {
    /// Its name.
    pub name: GuestName,
    /// The verdict.
    pub state: State,
    /// Why not; `None` exactly when reachable.
    pub reason: Option<Reason>,
    /// When the challenge was sent that its newest evidence answers (evidence of an
    /// accepted 0.1 guest: when it was received).
    pub proof_at: Option<Time>,
    /// The open session's connection.
    pub session: Option<ConnId>,
    /// Its session's number; the last one's when there is none now.
    pub epoch: Option<Epoch>,
    /// Whether the newest evidence was a challenge's answer.
    pub proven: bool,
}

/// The broker's part of the document.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct BrokerStatus {
    /// Whether it serves.
    pub state: BrokerState,
    /// Its process; null when there is none.
    pub pid: Option<u32>,
    /// Its version; null when unknown.
    pub version: Option<String>,
    /// When it started; null when unknown.
    pub started_at: Option<WallTime>,
    /// How often a broker was started on this state directory; null when unknown.
    pub incarnation: Option<u32>,
    /// Where it listens.
    pub listen: Vec<String>,
    /// Rows as written in this document.
    pub guests: u64,
    /// Reachable ones of them.
    pub reachable: u64,
}

/// Whether the broker serves.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BrokerState {
    /// It does.
    Serving,
    /// It is taking leave.
    Draining,
    /// It is there and doesn't answer within the client's bound (said by the client).
    NotAnswering,
    /// It is not there (said by the client).
    Offline,
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::string::ToString;
    use alloc::vec;

    fn check(row: &GuestStatus) {
        let mut written = Vec::new();
        row.append(&mut written);
        let serde = serde_json::to_string(row).unwrap_or_else(|error| error.to_string());
        assert_eq!(str::from_utf8(&written), Ok(serde.as_str()));
    }

    #[test]
    fn a_row_is_what_serde_writes() {
        let Ok(name) = "Dev.box_1-x".parse::<GuestName>() else { panic!("a name") };
        let mut row = GuestStatus {
            name,
            state: State::Waiting,
            reachable: false,
            reason: Some(Reason::BrokerStalled),
            warnings: Vec::new(),
            proven: false,
            authenticated: true,
            last_handshake_age_ms: None,
            last_handshake_at: None,
            session_age_ms: None,
            window_ms: None,
            interval_ms: None,
            epoch: None,
            boot: None,
            transport: None,
            remote: None,
            rtt_us: None,
            handshakes: 0,
            refusals: u64::MAX,
            takeovers: 10,
            capabilities: Capabilities::default(),
            peers: Vec::new(),
            attachment: None,
        };
        check(&row);
        row = GuestStatus {
            state: State::Reachable,
            reachable: true,
            reason: None,
            warnings: vec![Warning::Unproven, Warning::NameConflict],
            proven: true,
            authenticated: false,
            last_handshake_age_ms: Some(0),
            last_handshake_at: Some(WallTime::from_unix_millis(1_795_188_257_004)),
            session_age_ms: Some(99),
            window_ms: Some(15_000),
            interval_ms: Some(5000),
            epoch: Some(Epoch::new(7, 3)),
            boot: Some(BootTag([0, 0x1f, 0xff, 0xa0])),
            transport: Some(Transport::Tcp),
            rtt_us: Some(100),
            capabilities: Capabilities::parse("proof-v1,metrics,<&'>"),
            peers: vec![name, name],
            attachment: Some(serde_json::json!({"url": "a\"b"})),
            ..row
        };
        for text in ["127.0.0.1:5000", "10.20.255.0:1", "[fe80::1%2]:9", "uid:0,pid:12", "cid:3,port:4", "-"]
        {
            row.remote = text.parse().ok();
            check(&row);
        }
        for transport in [Transport::Unix, Transport::Vsock, Transport::Serial] {
            row.transport = Some(transport);
            check(&row);
        }
        row.capabilities = Capabilities::parse("one");
        row.last_handshake_at = Some(WallTime::from_unix_millis(-1));
        check(&row);
    }
}
