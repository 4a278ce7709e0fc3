//! The agent's engine.

use crate::boundary::{Engine, Input, Output};
use crate::config::AgentConfig;
use crate::entropy::Entropy;
use crate::queue::Outbox;
use crate::time::Now;

/// The agent.
#[derive(Debug)]
pub struct Agent {
    out: Outbox,
}

impl Agent {
    /// An agent that dials at once.
    #[must_use]
    pub fn new(_config: AgentConfig, _entropy: Entropy, _now: Now) -> Self {
        Self { out: Outbox::default() }
    }
}

impl Engine for Agent {
    type Config = AgentConfig;

    fn handle(&mut self, _now: Now, _input: Input<'_, AgentConfig>) {}

    fn poll_output(&mut self) -> Output<'_> {
        self.out.poll(|| None)
    }
}
