//! How long agents rest between tries: full jitter below a range that doubles
//! up to a bound (DESIGN, A2).

use std::time::Duration;

use castra_core::config::AgentConfig;
use castra_core::event::{Fact, LinkEnd};
use castra_core::time::Time;

/// One agent's tries, counted apart from it.
#[derive(Debug, Default)]
pub(crate) struct Pauses {
    failures: u32,
    up: Option<Time>,
}

impl Pauses {
    /// An agent says something about its link.
    ///
    /// # Errors
    /// It rests for longer than it may.
    pub(crate) fn event(&mut self, fact: &Fact, now: Time) -> Result<(), String> {
        let (retry_ms, asked_to_wait) = match fact {
            Fact::LinkUp { .. } => {
                self.up = Some(now);
                return Ok(());
            }
            Fact::LinkDown { reason, retry_ms, .. } => (*retry_ms, *reason == LinkEnd::Bye),
            Fact::LinkRefused { retry_ms, .. } | Fact::BrokerUnproven { retry_ms } => (*retry_ms, false),
            _ => return Ok(()),
        };
        let Some(retry_ms) = retry_ms else { return Ok(()) };
        let config = AgentConfig::new(crate::world::name(0));
        if self.up.take().is_some_and(|up| now.since(up) >= config.backoff_reset) {
            self.failures = 0;
        }
        let doubled = config.backoff_first.saturating_mul(2_u32.saturating_pow(self.failures));
        self.failures += 1;
        let range = doubled.min(config.backoff_most);
        let most = range + if asked_to_wait { config.retry_after_max } else { Duration::ZERO };
        if Duration::from_millis(retry_ms) < most {
            return Ok(());
        }
        Err(format!("rests for {retry_ms} ms, and has to rest for less than {} ms", most.as_millis()))
    }
}
