//! The first line: what an engine is made of. The mirrors name every field, so
//! that a new one can't be forgotten.

use alloc::borrow::Cow;
use alloc::boxed::Box;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;
use core::time::Duration;

use serde::{Deserialize, Serialize};

use super::attach::{AttachMirror, ManagerMirror};
use super::form::At;
use super::peers::{PeerMirror, inbox};
use super::tunnel::TunnelMirror;
use crate::RestoredAgent;
use crate::attach::{AttachSettings, ManagerSettings, RestoredManager};
use crate::auth::Key;
use crate::capabilities::Capabilities;
use crate::config::{AgentConfig, BrokerConfig, Identity};
use crate::entropy::Entropy;
use crate::id::GuestName;
use crate::peers::{InboxSettings, PeerSettings, RestoredPeers};
use crate::time::WallTime;
use crate::tunnel::TunnelSettings;
use crate::{Agent, Broker, Engine, Restored};

/// What an engine's [`Entropy`] starts from. Never shown by `Debug`: it predicts
/// every nonce and every token that is issued.
#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Seed {
    /// For [`Entropy::seeded`].
    Seeded(#[serde(with = "hexadecimal")] [u8; 32]),
    /// For [`Entropy::chosen`].
    Chosen(u32),
}

impl Seed {
    /// The generator at its start.
    #[must_use]
    pub fn entropy(self) -> Entropy {
        match self {
            Self::Seeded(seed) => Entropy::seeded(seed),
            Self::Chosen(fraction) => Entropy::chosen(fraction),
        }
    }
}

impl fmt::Debug for Seed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Seed(..)")
    }
}

/// The first line.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Header<'a> {
    pub(super) castra_trace: u32,
    /// The program's.
    pub(super) version: Cow<'a, str>,
    /// For who opens the file.
    pub(super) notice: Cow<'a, str>,
    pub(super) at: At,
    pub(super) entropy: Seed,
    pub(super) engine: Start,
}

/// What of a first line every version has.
#[derive(Deserialize)]
pub(super) struct Version {
    pub(super) castra_trace: u32,
    pub(super) version: String,
}

/// What makes an engine, besides its entropy and the time.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub(super) enum Start {
    Broker {
        config: Box<BrokerSettings>,
        #[serde(with = "RestoredMirror")]
        restored: Restored,
    },
    Agent {
        config: Box<AgentSettings>,
        #[serde(default)]
        restored: RestoredAgent,
    },
}

/// An engine whose inputs have a written form.
pub(super) trait Traced: Engine {
    /// The written form of its configuration.
    type Settings: Serialize + for<'de> Deserialize<'de> + Bounded + Clone + Into<Self::Config>;

    fn settings(config: &Self::Config) -> Self::Settings;
}

/// Within what an engine may be told.
pub(super) trait Bounded {
    /// # Errors
    /// What is out of bounds.
    fn check(&self) -> Result<(), String>;
}

#[derive(Clone, Serialize, Deserialize)]
#[serde(transparent)]
pub(super) struct BrokerSettings(#[serde(with = "BrokerMirror")] pub(super) BrokerConfig);

#[derive(Clone, Serialize, Deserialize)]
#[serde(transparent)]
pub(super) struct AgentSettings(#[serde(with = "AgentMirror")] pub(super) AgentConfig);

impl Traced for Broker {
    type Settings = BrokerSettings;

    fn settings(config: &BrokerConfig) -> BrokerSettings {
        BrokerSettings(config.clone())
    }
}

impl Traced for Agent {
    type Settings = AgentSettings;

    fn settings(config: &AgentConfig) -> AgentSettings {
        AgentSettings(config.clone())
    }
}

impl From<BrokerSettings> for BrokerConfig {
    fn from(settings: BrokerSettings) -> Self {
        settings.0
    }
}

impl From<AgentSettings> for AgentConfig {
    fn from(settings: AgentSettings) -> Self {
        settings.0
    }
}

/// The ring is allocated whole, at start.
const EVENT_RING_MAX: usize = 1 << 20;

impl Bounded for BrokerSettings {
    fn check(&self) -> Result<(), String> {
        if self.0.event_ring > EVENT_RING_MAX {
            return Err(alloc::format!("event_ring must be at most {EVENT_RING_MAX}"));
        }
        self.0.check().map_err(|error| alloc::format!("{error}"))
    }
}

impl Bounded for AgentSettings {
    fn check(&self) -> Result<(), String> {
        Ok(())
    }
}

#[derive(Serialize, Deserialize)]
#[serde(remote = "Restored", deny_unknown_fields)]
struct RestoredMirror {
    incarnation: u32,
    #[serde(with = "keys")]
    tokens: Vec<(GuestName, Option<Key>)>,
    #[serde(with = "seen")]
    last_seen: Vec<(GuestName, WallTime)>,
    #[serde(default)]
    peers: RestoredPeers,
    #[serde(default)]
    manager: RestoredManager,
}

#[derive(Serialize, Deserialize)]
#[serde(remote = "BrokerConfig", deny_unknown_fields)]
struct BrokerMirror {
    #[serde(with = "nanos")]
    window: Duration,
    #[serde(with = "nanos")]
    interval: Duration,
    #[serde(with = "nanos")]
    handshake_timeout: Duration,
    half_open_max: usize,
    #[serde(with = "nanos")]
    half_open_grace: Duration,
    #[serde(with = "nanos")]
    conflict_timeout: Duration,
    #[serde(with = "nanos")]
    frame_timeout: Duration,
    #[serde(with = "nanos")]
    session_linger: Duration,
    #[serde(default = "linger_windows")]
    linger_windows: u32,
    #[serde(with = "nanos")]
    legacy_heartbeat_timeout: Duration,
    takeover_max: u8,
    #[serde(with = "nanos")]
    takeover_period: Duration,
    require_token: bool,
    accept_unproven: bool,
    only_known: bool,
    guests: Vec<GuestName>,
    max_guests: usize,
    control_clients_max: usize,
    control_requests_max: usize,
    #[serde(with = "nanos")]
    request_timeout_max: Duration,
    #[serde(with = "nanos")]
    wait_timeout: Duration,
    #[serde(with = "nanos")]
    ping_timeout: Duration,
    #[serde(with = "nanos")]
    storage_timeout: Duration,
    #[serde(with = "nanos")]
    retry_after: Duration,
    #[serde(with = "nanos")]
    record_interval: Duration,
    records_per_second: u32,
    event_ring: usize,
    #[serde(default, with = "PeerMirror")]
    peers: PeerSettings,
    #[serde(default, with = "TunnelMirror")]
    tunnel: TunnelSettings,
    #[serde(default, with = "ManagerMirror")]
    manager: ManagerSettings,
    #[serde(with = "IdentityMirror")]
    identity: Identity,
    // A bug on purpose is not part of what was recorded.
    #[cfg(feature = "planted")]
    #[serde(skip)]
    planted: Option<crate::planted::Bug>,
}

/// What it was before it was a setting.
const fn linger_windows() -> u32 {
    20
}

#[derive(Serialize, Deserialize)]
#[serde(remote = "AgentConfig", deny_unknown_fields)]
struct AgentMirror {
    name: GuestName,
    capabilities: Capabilities,
    #[serde(with = "key")]
    token: Option<Key>,
    #[serde(with = "hexadecimal")]
    boot: [u8; 16],
    once: bool,
    serial: bool,
    #[serde(with = "nanos")]
    dial_timeout: Duration,
    #[serde(with = "nanos")]
    handshake_timeout: Duration,
    silent_intervals: u32,
    #[serde(with = "nanos")]
    backoff_first: Duration,
    #[serde(with = "nanos")]
    backoff_most: Duration,
    #[serde(with = "nanos")]
    backoff_reset: Duration,
    #[serde(with = "nanos")]
    retry_after_max: Duration,
    control_clients_max: usize,
    control_requests_max: usize,
    #[serde(with = "nanos")]
    request_timeout_max: Duration,
    #[serde(with = "nanos")]
    wait_timeout: Duration,
    #[serde(with = "nanos")]
    ping_timeout: Duration,
    #[serde(default, with = "inbox")]
    inbox: Option<InboxSettings>,
    #[serde(default)]
    terminals: bool,
    #[serde(default)]
    trust_unkeyed_broker: bool,
    #[serde(default, with = "TunnelMirror")]
    tunnel: TunnelSettings,
    #[serde(default, with = "AttachMirror")]
    attach: AttachSettings,
    #[serde(with = "IdentityMirror")]
    identity: Identity,
    // A bug on purpose is not part of what was recorded.
    #[cfg(feature = "planted")]
    #[serde(skip)]
    planted: Option<crate::planted::Bug>,
}

#[derive(Serialize, Deserialize)]
#[serde(remote = "Identity", deny_unknown_fields)]
struct IdentityMirror {
    version: String,
    pid: u32,
    uid: u32,
    state_dir: String,
    listen: Vec<String>,
    #[serde(with = "millis")]
    started_at: WallTime,
}

/// A duration in nanoseconds, at most ten years.
pub(super) mod nanos {
    use core::time::Duration;

    use serde::{Deserialize, Deserializer, Serializer, de, ser};

    const MAX: Duration = Duration::from_secs(10 * 366 * 24 * 3600);

    pub(in crate::trace) fn serialize<S: Serializer>(
        span: &Duration,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        if *span > MAX {
            return Err(ser::Error::custom("a duration of more than ten years"));
        }
        serializer.serialize_u64(crate::time::nanos(*span))
    }

    pub(in crate::trace) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Duration, D::Error> {
        let span = Duration::from_nanos(u64::deserialize(deserializer)?);
        if span > MAX { Err(de::Error::custom("a duration of more than ten years")) } else { Ok(span) }
    }
}

/// Wall time in milliseconds: exact, where RFC 3339 ends with the year 9999.
mod millis {
    use serde::{Deserialize, Deserializer, Serializer};

    use crate::time::WallTime;

    pub(super) fn serialize<S: Serializer>(time: &WallTime, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_i64(time.unix_millis())
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<WallTime, D::Error> {
        i64::deserialize(deserializer).map(WallTime::from_unix_millis)
    }
}

/// Fixed bytes in hex.
mod hexadecimal {
    use alloc::borrow::Cow;
    use alloc::string::String;

    use serde::{Deserialize, Deserializer, Serializer, de};

    pub(super) fn serialize<S: Serializer, const N: usize>(
        bytes: &[u8; N],
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        let mut text = String::with_capacity(2 * N);
        // Writing to a string can't fail.
        let _ = crate::hex::write(&mut text, bytes);
        serializer.serialize_str(&text)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>, const N: usize>(
        deserializer: D,
    ) -> Result<[u8; N], D::Error> {
        let text = <Cow<'de, str>>::deserialize(deserializer)?;
        crate::hex::decode(text.as_bytes()).map_err(de::Error::custom)
    }
}

/// A token, in hex. [`Key`] itself has no written form, so that only a trace writes one.
pub(super) mod key {
    use alloc::borrow::Cow;

    use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

    use crate::auth::Key;

    pub(in crate::trace) fn serialize<S: Serializer>(
        key: &Option<Key>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        key.as_ref().map(Key::expose_token).serialize(serializer)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Key>, D::Error> {
        let token = <Option<Cow<'de, str>>>::deserialize(deserializer)?;
        token.map(|token| token.parse().map_err(de::Error::custom)).transpose()
    }
}

mod keys {
    use alloc::vec::Vec;

    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    use crate::auth::Key;
    use crate::id::GuestName;

    #[derive(Serialize, Deserialize)]
    struct Pair(GuestName, #[serde(with = "super::key")] Option<Key>);

    pub(super) fn serialize<S: Serializer>(
        tokens: &[(GuestName, Option<Key>)],
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(tokens.iter().map(|(name, key)| Pair(*name, key.clone())))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Vec<(GuestName, Option<Key>)>, D::Error> {
        let pairs = Vec::<Pair>::deserialize(deserializer)?;
        Ok(pairs.into_iter().map(|Pair(name, key)| (name, key)).collect())
    }
}

mod seen {
    use alloc::vec::Vec;

    use serde::{Deserialize, Deserializer, Serializer};

    use crate::id::GuestName;
    use crate::time::WallTime;

    pub(super) fn serialize<S: Serializer>(
        seen: &[(GuestName, WallTime)],
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(seen.iter().map(|(name, at)| (name, at.unix_millis())))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Vec<(GuestName, WallTime)>, D::Error> {
        let pairs = Vec::<(GuestName, i64)>::deserialize(deserializer)?;
        Ok(pairs.into_iter().map(|(name, at)| (name, WallTime::from_unix_millis(at))).collect())
    }
}
