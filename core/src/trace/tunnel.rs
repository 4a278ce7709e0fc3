//! Settings of streams in their written form.

use core::time::Duration;

use serde::{Deserialize, Serialize};

use super::settings::nanos;
use crate::tunnel::TunnelSettings;

#[derive(Serialize, Deserialize)]
#[serde(remote = "TunnelSettings", deny_unknown_fields)]
pub(super) struct TunnelMirror {
    streams_max: usize,
    streams_per_guest: usize,
    window: usize,
    #[serde(with = "nanos")]
    open_timeout: Duration,
    #[serde(with = "nanos")]
    dial_timeout: Duration,
    #[serde(with = "nanos")]
    linger: Duration,
    pace_first: usize,
    pace_least: usize,
    pace_most: usize,
    #[serde(with = "nanos")]
    pace_quick: Duration,
    #[serde(with = "nanos")]
    pace_slow: Duration,
}
