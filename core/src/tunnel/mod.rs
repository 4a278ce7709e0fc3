//! A byte stream between a client of the broker's control socket and the terminals
//! of a guest, carried over the guest's link. It knows nothing of terminals: bytes,
//! credit, and an end in each direction.
//!
//! `wire` has the frames; `pace` says how many bytes may be on their way at once;
//! `end` is the local connection of a stream; `streams` are those of one session, the
//! same on both sides; `splice` joins two connections of one process, for clients
//! inside the guest. The engines own what differs: who may open one, and where it leads.
//!
//! **Terminals never delay challenges.** A stream's bytes are sent only while half of
//! the link's send buffer is free, leave three eighths of it free, and are no more at
//! once than the link carried in about a quarter of a second before.

pub(crate) mod end;
pub(crate) mod pace;
pub(crate) mod splice;
mod stream;
pub(crate) mod streams;
pub mod wire;

use core::time::Duration;

use crate::auth::TAG_DIGITS;

/// The capability of a guest whose agent leads streams to its terminals.
pub const TERMINALS_V1: &str = "terminals-v1";

/// Bounds and times of streams.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TunnelSettings {
    /// Most streams of a broker.
    pub streams_max: usize,
    /// Most streams of a guest: more are `busy`.
    pub streams_per_guest: usize,
    /// What this side takes of a stream before anybody took it from here, in bytes.
    pub window: usize,
    /// Broker: from the request to its answer, unless the request asks for less.
    pub open_timeout: Duration,
    /// Agent: bound of the dial to its terminals; less than the broker's
    /// [`TunnelSettings::open_timeout`], so that the broker hears why.
    pub dial_timeout: Duration,
    /// How long the last bytes of a stream wait for somebody to take any of them.
    pub linger: Duration,
    /// Bytes of all streams of a link that may be unacknowledged, at first.
    pub pace_first: usize,
    /// Fewest of them.
    pub pace_least: usize,
    /// Most of them.
    pub pace_most: usize,
    /// Bytes that come back sooner than this let more be on their way.
    pub pace_quick: Duration,
    /// Bytes that come back later than this let fewer be on their way.
    pub pace_slow: Duration,
}

impl TunnelSettings {
    /// Most bytes that a broker's streams hold.
    #[must_use]
    pub const fn bytes_max(&self) -> usize {
        // A client is read from, a whole read at a time, until enough is held.
        self.streams_max * (self.window + stream::QUEUE + crate::sender::READ_CREDIT)
    }
}

impl Default for TunnelSettings {
    fn default() -> Self {
        Self {
            streams_max: 64,
            streams_per_guest: 16,
            window: 128 * 1024,
            open_timeout: Duration::from_secs(5),
            dial_timeout: Duration::from_secs(4),
            linger: Duration::from_secs(5),
            pace_first: 8 * 1024,
            pace_least: 2 * 1024,
            pace_most: 128 * 1024,
            pace_quick: Duration::from_millis(100),
            pace_slow: Duration::from_millis(250),
        }
    }
}

/// What a `term` frame takes besides its data: JSON, length, tag, padding.
const FRAME_OVERHEAD: usize = 96 + TAG_DIGITS;

/// How many bytes of streams one frame may carry into a send buffer of which `room`
/// of `capacity` bytes are free. While less than half is free the shell will say when
/// there is more; what stays free lets a link be read from and challenges be sent.
pub(crate) fn data_room(room: usize, capacity: usize) -> usize {
    if room < capacity / 2 {
        return 0;
    }
    let spare = room - capacity / 8 * 3;
    (spare.saturating_sub(FRAME_OVERHEAD) / 4 * 3).min(wire::DATA_MAX)
}
