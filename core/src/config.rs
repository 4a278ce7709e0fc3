//! Every duration and bound of the protocol, in one place for each engine.

use alloc::string::String;
use alloc::vec::Vec;
use core::time::Duration;

use crate::attach::{AttachSettings, ManagerSettings};
use crate::auth::Key;
use crate::capabilities::Capabilities;
use crate::id::GuestName;
use crate::peers::{InboxSettings, PeerSettings};
use crate::time::WallTime;
use crate::tunnel::TunnelSettings;

/// What a broker is told at start, and again by a reload.
#[derive(Clone, Debug)]
pub struct BrokerConfig {
    /// How old the newest proof of a reachable guest may be.
    pub window: Duration,
    /// How often an open session is challenged. The window holds at least
    /// three: [`BrokerConfig::check`].
    pub interval: Duration,
    /// From accept (serial: from the first byte) to `ok`.
    pub handshake_timeout: Duration,
    /// Most connections before their `ok`. Serial streams that shake hands again
    /// come on top: they were let in long ago, and can't be turned away.
    pub half_open_max: usize,
    /// How long a half-open connection without a valid hello is safe from eviction.
    pub half_open_grace: Duration,
    /// How long an incumbent may take to answer a conflict challenge.
    pub conflict_timeout: Duration,
    /// From a frame's first byte to its last.
    pub frame_timeout: Duration,
    /// How long a session without a proof stays open; at least
    /// [`BrokerConfig::linger_windows`] windows are granted.
    pub session_linger: Duration,
    /// See [`BrokerConfig::session_linger`].
    pub linger_windows: u32,
    /// A 0.1 session without a heartbeat is closed after this.
    pub legacy_heartbeat_timeout: Duration,
    /// More takeovers of one name than this within [`BrokerConfig::takeover_period`] are a conflict.
    pub takeover_max: u8,
    /// See [`BrokerConfig::takeover_max`].
    pub takeover_period: Duration,
    /// Every guest must have a token.
    pub require_token: bool,
    /// 0.1 guests, which prove nothing, may count as reachable.
    pub accept_unproven: bool,
    /// Names other than configured ones and ones with a token are refused.
    pub only_known: bool,
    /// Names known from the start.
    pub guests: Vec<GuestName>,
    /// Most rows.
    pub max_guests: usize,
    /// Most control clients at once.
    pub control_clients_max: usize,
    /// Most unanswered requests of one control client.
    pub control_requests_max: usize,
    /// Longest `timeout_ms` a request may ask for.
    pub request_timeout_max: Duration,
    /// Default bound of `wait`.
    pub wait_timeout: Duration,
    /// Default bound of `ping`.
    pub ping_timeout: Duration,
    /// Bound of requests that write durable state.
    pub storage_timeout: Duration,
    /// `retry_after_ms` of a shutdown's `bye`.
    pub retry_after: Duration,
    /// A name's 0.1 record is written at most this often.
    pub record_interval: Duration,
    /// Most 0.1 records written per second in all.
    pub records_per_second: u32,
    /// Events kept for `events`.
    pub event_ring: usize,
    /// Peers and their messages.
    pub peers: PeerSettings,
    /// Streams to guests' terminals.
    pub tunnel: TunnelSettings,
    /// Guests that this broker adopts.
    pub manager: ManagerSettings,
    /// What the process is, for `info` and `status`.
    pub identity: Identity,
    /// The bug that is planted, if any.
    #[cfg(feature = "planted")]
    pub planted: Option<crate::planted::Bug>,
}

/// What the process is. Display only, except `uid`.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Identity {
    /// Program version.
    pub version: String,
    /// Process id.
    pub pid: u32,
    /// The user it runs as: control clients must be this user or root.
    pub uid: u32,
    /// State directory.
    pub state_dir: String,
    /// Addresses it listens on, as a user would write them.
    pub listen: Vec<String>,
    /// When it started.
    pub started_at: WallTime,
}

/// Why a configuration is refused.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum ConfigError {
    /// The window holds fewer than three intervals.
    #[error(
        "the window ({window_ms} ms) must hold at least three intervals (3 x {interval_ms} ms): \
         one lost answer must not cost a healthy guest its verdict; raise --window or lower --interval"
    )]
    WindowTooShort {
        /// The window.
        window_ms: u64,
        /// The interval.
        interval_ms: u64,
    },
    /// A duration that has to pass can't be zero or absurd.
    #[error("{what} must be between {least_ms} ms and {most_ms} ms, not {got_ms} ms")]
    OutOfRange {
        /// Which setting.
        what: &'static str,
        /// What was asked for.
        got_ms: u64,
        /// Smallest allowed.
        least_ms: u64,
        /// Greatest allowed.
        most_ms: u64,
    },
}

impl BrokerConfig {
    /// Checks what the engine relies on.
    ///
    /// # Errors
    /// A window under three intervals, or a duration out of its range.
    pub fn check(&self) -> Result<(), ConfigError> {
        let hour = Duration::from_secs(3600);
        range("interval", self.interval, Duration::from_millis(10), hour)?;
        range("window", self.window, Duration::from_millis(30), 24 * hour)?;
        range("handshake timeout", self.handshake_timeout, Duration::from_millis(10), hour)?;
        // An agent remembers for longer what it received: nothing is delivered twice.
        range("message ttl", self.peers.message_ttl, Duration::from_millis(10), 7 * 24 * hour)?;
        if self.window < self.interval * 3 {
            return Err(ConfigError::WindowTooShort {
                window_ms: crate::time::millis(self.window),
                interval_ms: crate::time::millis(self.interval),
            });
        }
        Ok(())
    }

    /// A session without a proof for this long is closed.
    #[must_use]
    pub fn linger(&self) -> Duration {
        self.session_linger.max(self.window.saturating_mul(self.linger_windows))
    }

    /// A deadline that fires later than this means the broker itself was not running.
    #[must_use]
    pub fn stall_threshold(&self) -> Duration {
        Duration::from_secs(1).max(self.interval / 2)
    }
}

impl Default for BrokerConfig {
    fn default() -> Self {
        Self {
            window: Duration::from_secs(15),
            interval: Duration::from_secs(5),
            handshake_timeout: Duration::from_secs(2),
            half_open_max: 1024,
            half_open_grace: Duration::from_millis(250),
            conflict_timeout: Duration::from_millis(500),
            frame_timeout: Duration::from_secs(5),
            session_linger: Duration::from_secs(600),
            linger_windows: 20,
            legacy_heartbeat_timeout: Duration::from_secs(60),
            takeover_max: 3,
            takeover_period: Duration::from_secs(10),
            require_token: false,
            accept_unproven: false,
            only_known: false,
            guests: Vec::new(),
            max_guests: 100_000,
            control_clients_max: 256,
            control_requests_max: 64,
            request_timeout_max: Duration::from_secs(24 * 3600),
            wait_timeout: Duration::from_secs(30),
            ping_timeout: Duration::from_secs(2),
            storage_timeout: Duration::from_secs(5),
            retry_after: Duration::from_secs(1),
            record_interval: Duration::from_secs(1),
            records_per_second: 50,
            event_ring: 8192,
            peers: PeerSettings::default(),
            tunnel: TunnelSettings::default(),
            manager: ManagerSettings::default(),
            identity: Identity::default(),
            #[cfg(feature = "planted")]
            planted: None,
        }
    }
}

/// What an agent is told at start.
#[derive(Clone, Debug)]
pub struct AgentConfig {
    /// Who the guest is.
    pub name: GuestName,
    /// What it says it can do, besides `proof-v1`.
    pub capabilities: Capabilities,
    /// The token, if it has one: then the broker must prove itself too.
    pub token: Option<Key>,
    /// Random per boot of the guest.
    pub boot: [u8; 16],
    /// Prove once, then stop.
    pub once: bool,
    /// The link is a stream without connections.
    pub serial: bool,
    /// Bound of a dial.
    pub dial_timeout: Duration,
    /// From an open link to the broker's `ok`.
    pub handshake_timeout: Duration,
    /// The broker is gone after this many intervals without a challenge.
    pub silent_intervals: u32,
    /// Range of the first retry; doubles with each failure.
    pub backoff_first: Duration,
    /// Range of the last retries.
    pub backoff_most: Duration,
    /// A session this long resets the backoff.
    pub backoff_reset: Duration,
    /// A broker's `retry_after_ms` is honoured up to this.
    pub retry_after_max: Duration,
    /// Most local clients at once.
    pub control_clients_max: usize,
    /// Most unanswered requests of one local client.
    pub control_requests_max: usize,
    /// Longest `timeout_ms` a request may ask for.
    pub request_timeout_max: Duration,
    /// Default bound of `wait`.
    pub wait_timeout: Duration,
    /// Default bound of `ping` and of everything else that asks the broker.
    pub ping_timeout: Duration,
    /// The guest has an inbox and takes part; `None`: it has no peers' commands.
    pub inbox: Option<InboxSettings>,
    /// This process has a socket of terminals, which it can dial.
    pub terminals: bool,
    /// Whoever answers as the broker may use the terminals and adopt the guest, even
    /// if it can't prove itself with a token.
    pub trust_unkeyed_broker: bool,
    /// Streams to the terminals.
    pub tunnel: TunnelSettings,
    /// Managers that may adopt the guest.
    pub attach: AttachSettings,
    /// What the process is.
    pub identity: Identity,
    /// The bug that is planted, if any.
    #[cfg(feature = "planted")]
    pub planted: Option<crate::planted::Bug>,
}

impl AgentConfig {
    /// The defaults for a guest called `name`.
    #[must_use]
    pub fn new(name: GuestName) -> Self {
        Self {
            name,
            capabilities: Capabilities::default(),
            token: None,
            boot: [0; 16],
            once: false,
            serial: false,
            dial_timeout: Duration::from_secs(5),
            handshake_timeout: Duration::from_secs(5),
            silent_intervals: 3,
            backoff_first: Duration::from_secs(1),
            backoff_most: Duration::from_secs(10),
            backoff_reset: Duration::from_secs(30),
            retry_after_max: Duration::from_secs(60),
            control_clients_max: 16,
            control_requests_max: 64,
            request_timeout_max: Duration::from_secs(24 * 3600),
            wait_timeout: Duration::from_secs(30),
            ping_timeout: Duration::from_secs(2),
            inbox: None,
            terminals: false,
            trust_unkeyed_broker: false,
            tunnel: TunnelSettings::default(),
            attach: AttachSettings::default(),
            identity: Identity::default(),
            #[cfg(feature = "planted")]
            planted: None,
        }
    }
}

fn range(what: &'static str, got: Duration, least: Duration, most: Duration) -> Result<(), ConfigError> {
    if (least..=most).contains(&got) {
        return Ok(());
    }
    Err(ConfigError::OutOfRange {
        what,
        got_ms: crate::time::millis(got),
        least_ms: crate::time::millis(least),
        most_ms: crate::time::millis(most),
    })
}
