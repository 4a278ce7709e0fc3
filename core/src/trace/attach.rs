//! Settings of managed attach in their written form.

use alloc::vec::Vec;
use core::net::SocketAddr;
use core::time::Duration;

use serde::{Deserialize, Serialize};

use super::settings::nanos;
use crate::attach::{AttachSettings, Hint, ManagerSettings, ManagerUrl};

#[derive(Serialize, Deserialize)]
#[serde(remote = "ManagerSettings", deny_unknown_fields)]
pub(super) struct ManagerMirror {
    http: Option<SocketAddr>,
    advertise: Option<ManagerUrl>,
    #[serde(with = "nanos")]
    code_ttl: Duration,
    #[serde(with = "nanos")]
    lease_ttl: Duration,
    #[serde(with = "nanos")]
    first_frames: Duration,
    attachments_max: usize,
    queue_max: usize,
    #[serde(default = "queues_bytes_max")]
    queues_bytes_max: usize,
    in_flight_max: usize,
    #[serde(with = "nanos")]
    action_ttl: Duration,
    #[serde(with = "nanos")]
    action_ttl_max: Duration,
    #[serde(with = "nanos")]
    polled_within: Duration,
    #[serde(with = "nanos")]
    poll_max: Duration,
    connections_max: usize,
    #[serde(with = "nanos")]
    request_timeout: Duration,
    #[serde(with = "nanos")]
    idle_timeout: Duration,
    #[serde(with = "nanos")]
    wait_timeout: Duration,
    stale_session_idle_secs: u32,
    viewer_health_interval_secs: u32,
}

/// Traces of before it was a setting.
fn queues_bytes_max() -> usize {
    ManagerSettings::default().queues_bytes_max
}

#[derive(Serialize, Deserialize)]
#[serde(remote = "AttachSettings", deny_unknown_fields)]
pub(super) struct AttachMirror {
    managers: Vec<ManagerUrl>,
    hint: Option<Hint>,
    attempts_max: u32,
    #[serde(with = "nanos")]
    backoff_first: Duration,
    #[serde(with = "nanos")]
    backoff_most: Duration,
    jitter_percent: u32,
    #[serde(with = "nanos")]
    retry_after_max: Duration,
    #[serde(with = "nanos")]
    request_timeout: Duration,
    #[serde(with = "nanos")]
    poll_timeout: Duration,
    #[serde(with = "nanos")]
    poll_rest_first: Duration,
    #[serde(with = "nanos")]
    poll_rest_most: Duration,
    answer_max: usize,
    renew_percent: u32,
    #[serde(with = "nanos")]
    remember: Duration,
    remembered_max: usize,
    #[serde(with = "nanos")]
    apply_timeout: Duration,
    #[serde(with = "nanos")]
    clock_slack: Duration,
    #[serde(with = "nanos")]
    wait_timeout: Duration,
}
