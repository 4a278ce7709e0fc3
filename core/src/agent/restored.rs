//! What an agent still knows after a restart.

use alloc::vec::Vec;

use serde::{Deserialize, Serialize};

use crate::attach::Applied;
use crate::peers::{MessageId, Received};
use crate::time::WallTime;

/// What an agent's own database holds.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RestoredAgent {
    /// Messages, by number.
    pub messages: Vec<Received>,
    /// Every id that was received, and when; also of messages that are gone.
    pub seen: Vec<(MessageId, WallTime)>,
    /// Actions that it began to apply.
    #[serde(default)]
    pub applied: Vec<Applied>,
}
