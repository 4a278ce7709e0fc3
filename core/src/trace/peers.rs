//! Settings of peers in their written form.

use alloc::vec::Vec;
use core::time::Duration;

use serde::{Deserialize, Serialize};

use super::settings::nanos;
use crate::id::GuestName;
use crate::peers::{InboxSettings, PeerSettings, Policy};

#[derive(Serialize, Deserialize)]
#[serde(remote = "PeerSettings", deny_unknown_fields)]
pub(super) struct PeerMirror {
    #[serde(with = "nanos")]
    timeout: Duration,
    #[serde(with = "nanos")]
    offer_timeout: Duration,
    #[serde(with = "nanos")]
    policy_timeout: Duration,
    peers_max: usize,
    registrations_per_minute: u32,
    operations_max: usize,
    queue_messages: usize,
    queue_bytes: usize,
    #[serde(with = "nanos")]
    message_ttl: Duration,
    history_messages: usize,
    mail_bytes_max: usize,
    #[serde(default = "mail_bytes_unproven")]
    mail_bytes_unproven: usize,
    unacknowledged_max: usize,
    #[serde(with = "nanos")]
    redelivery: Duration,
    restorable: Vec<GuestName>,
    #[serde(with = "nanos")]
    restore_timeout: Duration,
}

/// Traces of before it was a setting.
fn mail_bytes_unproven() -> usize {
    PeerSettings::default().mail_bytes_unproven
}

#[derive(Serialize, Deserialize)]
#[serde(remote = "InboxSettings", deny_unknown_fields)]
struct InboxMirror {
    policy: Policy,
    require_authenticated: bool,
    messages_max: usize,
    bytes_max: usize,
    #[serde(with = "nanos")]
    remember: Duration,
    remembered_max: usize,
    #[serde(with = "nanos")]
    timeout: Duration,
    event_ring: usize,
}

/// Settings that may be absent.
pub(super) mod inbox {
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    use super::InboxMirror;
    use crate::peers::InboxSettings;

    #[derive(Serialize)]
    struct Shown<'a>(#[serde(with = "InboxMirror")] &'a InboxSettings);

    #[derive(Deserialize)]
    struct Read(#[serde(with = "InboxMirror")] InboxSettings);

    pub(in crate::trace) fn serialize<S: Serializer>(
        settings: &Option<InboxSettings>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        settings.as_ref().map(Shown).serialize(serializer)
    }

    pub(in crate::trace) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Option<InboxSettings>, D::Error> {
        Ok(Option::<Read>::deserialize(deserializer)?.map(|Read(settings)| settings))
    }
}
