//! What the agent owes, and whether it would be woken for it.

use core::time::Duration;

use super::inbox::OFFER_TIMEOUT;
use super::link::State;
use super::{Agent, Life};
use crate::attach::agent as attach;
use crate::config::AgentConfig;
use crate::obligations::Unguarded;

/// The longest bounds of any configuration that was in force: a reload that
/// shortens one leaves what is already open alone.
#[derive(Clone, Copy, Debug)]
pub(super) struct Longest {
    dial: Duration,
    handshake: Duration,
    redial: Duration,
    request: Duration,
    silent_intervals: u32,
    attach: attach::Longest,
}

impl Longest {
    pub(super) fn new(config: &AgentConfig) -> Self {
        Self {
            dial: config.dial_timeout,
            handshake: config.handshake_timeout,
            redial: config.retry_after_max + config.backoff_first.max(config.backoff_most),
            request: config
                .request_timeout_max
                .max(config.wait_timeout)
                .max(config.ping_timeout)
                .max(config.tunnel.dial_timeout)
                .max(config.tunnel.linger)
                .max(config.attach.wait_timeout)
                .max(config.inbox.as_ref().map_or(Duration::ZERO, |inbox| inbox.timeout)),
            silent_intervals: config.silent_intervals,
            attach: attach::Longest::new(&config.attach),
        }
    }

    pub(super) fn widen(&mut self, config: &AgentConfig) {
        let other = Self::new(config);
        *self = Self {
            dial: self.dial.max(other.dial),
            handshake: self.handshake.max(other.handshake),
            redial: self.redial.max(other.redial),
            request: self.request.max(other.request),
            silent_intervals: self.silent_intervals.max(other.silent_intervals),
            attach: self.attach.widest(other.attach),
        };
    }
}

impl Agent {
    /// Whether everything that this agent owes has an armed deadline in time: a
    /// wait without one could last for ever. To be asked between two calls of
    /// `handle`. Doesn't allocate; walks over the local requests.
    ///
    /// # Errors
    /// The first obligation that nothing guards.
    pub fn check_obligations(&self) -> Result<(), Unguarded> {
        let (now, longest) = (self.now.boot, &self.longest);
        let armed = self.next_deadline().map(|deadline| deadline.at);
        let guarded = |owes: Unguarded, deadline, most| {
            owes.unless_armed(armed, deadline)?;
            owes.unless_within(deadline, now, most)
        };
        match &self.link.state {
            State::Dialing { deadline, .. } => guarded(Unguarded::new("a dial"), *deadline, longest.dial)?,
            State::Handshaking { wire, deadline, .. } => {
                guarded(Unguarded::new("a handshake").on(wire.conn()), *deadline, longest.handshake)?;
            }
            State::Up { wire, session } => {
                let silence = session.interval.saturating_mul(longest.silent_intervals);
                let owes = Unguarded::new("a silent broker's end").on(wire.conn());
                guarded(owes, session.quiet_until(), silence)?;
            }
            State::Backoff { until, .. } => guarded(Unguarded::new("a redial"), *until, longest.redial)?,
            State::Ended => Unguarded::new("a link").unless(self.life != Life::Serving)?,
        }
        for (conn, deadline) in self.local.deadlines() {
            guarded(Unguarded::new("a local request").on(conn), deadline, longest.request)?;
        }
        self.tunnel.check(armed, now, longest.request)?;
        self.attach.check(armed, now, &longest.attach)?;
        // What is written ends with its `Done`, like every effect.
        for offer in self.inbox.iter().flat_map(|inbox| &inbox.offers) {
            guarded(Unguarded::new("an offer").of(offer.from), offer.until, OFFER_TIMEOUT)?;
        }
        match self.life {
            Life::Draining { deadline } => Unguarded::new("the drain").unless_armed(armed, deadline),
            Life::Serving | Life::Stopped => Ok(()),
        }
    }
}
