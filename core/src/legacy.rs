//! What castra 0.1 programs read and write, as data. Formats: `docs/PROTOCOL.md`, "castra 0.1".

use serde::Serialize;

use crate::capabilities::Capabilities;
use crate::id::GuestName;

/// The content of `handshakes/NAME.json`. Times are Unix seconds.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Record {
    /// The guest.
    pub vm: GuestName,
    /// Wall time of the newest proof (of an accepted unproven guest: of its newest evidence).
    pub timestamp: u64,
    /// What the guest says it can do.
    #[serde(skip_serializing_if = "Capabilities::is_empty")]
    pub capabilities: Capabilities,
}
