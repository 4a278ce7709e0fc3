//! The broker's engine.

use alloc::vec::Vec;

use crate::auth::Key;
use crate::boundary::{Engine, Input, Output};
use crate::config::BrokerConfig;
use crate::entropy::Entropy;
use crate::id::GuestName;
use crate::queue::Outbox;
use crate::time::{Now, WallTime};

/// What survives a restart. Reachability never does.
#[derive(Debug, Default)]
pub struct Restored {
    /// How often a broker was started on this state directory, this start
    /// included; already durable.
    pub incarnation: u32,
    /// Every name that has, or ever had (`None`), a token.
    pub tokens: Vec<(GuestName, Option<Key>)>,
    /// Wall time of the newest proof known of each name.
    pub last_seen: Vec<(GuestName, WallTime)>,
}

/// The broker.
#[derive(Debug)]
pub struct Broker {
    out: Outbox,
}

impl Broker {
    /// A broker that has heard of nobody yet. `config` was checked.
    #[must_use]
    pub fn new(_config: BrokerConfig, _restored: Restored, _entropy: Entropy, _now: Now) -> Self {
        Self { out: Outbox::default() }
    }
}

impl Engine for Broker {
    type Config = BrokerConfig;

    fn handle(&mut self, _now: Now, _input: Input<'_, BrokerConfig>) {}

    fn poll_output(&mut self) -> Output<'_> {
        self.out.poll(|| None)
    }
}
