//! What every machine of the broker works with, and the facts by which they meet.

use alloc::collections::{BTreeSet, VecDeque};
use alloc::vec::Vec;
use core::time::Duration;

use crate::boundary::{Effect, EffectError, Wakeup};
use crate::broker::facts::{Notice, TimerKey};
use crate::broker::ring::Ring;
use crate::capabilities::Capabilities;
use crate::config::BrokerConfig;
use crate::entropy::Entropy;
use crate::event::{Cursor, Event, Fact, MESSAGE_MAX, SessionEnd, Storage, shortened};
use crate::id::{EffectId, Epoch, GuestName};
use crate::liveness::Stall;
use crate::queue::Outbox;
use crate::status::Reason;
use crate::time::{Now, Time, millis};
use crate::timers::Timers;

/// Shared by all machines; only the engine owns it.
#[derive(Clone, Debug)]
pub(crate) struct Cx {
    pub(crate) config: BrokerConfig,
    pub(crate) now: Now,
    pub(crate) out: Outbox,
    pub(crate) entropy: Entropy,
    pub(crate) timers: Timers<TimerKey>,
    pub(crate) ring: Ring,
    /// [`BrokerConfig::linger`], which every keepalive asks for.
    pub(crate) linger: Duration,
    pub(crate) stall: Option<Stall>,
    pub(crate) draining: bool,
    pub(crate) incarnation: u32,
    pub(crate) statistics: Statistics,
    /// What machines have to tell each other; the engine routes it.
    pub(crate) notices: VecDeque<Notice>,
    /// Capabilities that were said lately: guests of a kind share theirs.
    pub(super) said: VecDeque<Capabilities>,
    /// What guests' streams brought in this call.
    pub(crate) tunnel_bytes: Vec<u8>,
    pub(super) sessions_begun: u64,
    pub(super) reserved_incarnation: u32,
    /// Effects of no machine: reserved incarnations and removed records.
    pub(super) background: BTreeSet<EffectId>,
}

/// Most different capabilities that are shared.
const SAID_MAX: usize = 8;

/// Counted no-ops and refusals. Not part of the state: nothing depends on them.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[non_exhaustive]
pub struct Statistics {
    /// Inputs for connections or effects that are gone.
    pub stale_inputs: u64,
    /// Times the boot clock went back and was clamped.
    pub clock_regressions: u64,
    /// Proofs for a forgotten or already answered challenge.
    pub late_proofs: u64,
    /// Wrong proofs and proofs of challenges never sent.
    pub strikes: u64,
    /// Half-open connections evicted.
    pub evictions: u64,
    /// Challenges not sent because the guest did not read.
    pub challenges_blocked: u64,
    /// 0.1 bus messages not delivered because a subscriber did not read.
    pub messages_dropped: u64,
}

impl Cx {
    pub(crate) fn new(config: BrokerConfig, incarnation: u32, entropy: Entropy, now: Now) -> Self {
        let (ring, linger) = (Ring::new(incarnation, config.event_ring), config.linger());
        Self {
            config,
            now,
            out: Outbox::default(),
            entropy,
            timers: Timers::default(),
            ring,
            linger,
            stall: None,
            draining: false,
            incarnation,
            statistics: Statistics::default(),
            notices: VecDeque::new(),
            tunnel_bytes: Vec::new(),
            said: VecDeque::new(),
            sessions_begun: 0,
            reserved_incarnation: incarnation,
            background: BTreeSet::new(),
        }
    }

    /// Takes the shell's time, never backwards.
    pub(crate) fn advance(&mut self, now: Now) {
        let regressed = now.boot < self.now.boot;
        if regressed {
            self.statistics.clock_regressions += 1;
        }
        self.now = Now {
            boot: now.boot.max(self.now.boot),
            suspended: now.suspended.max(self.now.suspended),
            wall: now.wall,
        };
    }

    /// The boot-time clock.
    pub(crate) const fn at(&self) -> Time {
        self.now.boot
    }

    /// The stall that a call at `now` would notice: an armed deadline is over by
    /// more than the threshold. `suspended` is the total since the last call.
    pub(crate) fn stall_seen(&self, now: Now) -> Option<Stall> {
        let deadline = self.missed()?;
        if now.boot <= deadline {
            return None;
        }
        let late = now.boot.since(deadline);
        // Almost always nothing is late at all.
        if late.is_zero() || late <= self.config.stall_threshold() {
            return None;
        }
        let suspended = now.suspended.saturating_sub(self.now.suspended);
        // A guest that still was excused when the next stall began stays so.
        let began = match &self.stall {
            Some(last) if deadline <= last.woke + self.config.window => last.began,
            _ => deadline,
        };
        let reason = if suspended >= late / 2 { Reason::ClockJumped } else { Reason::BrokerStalled };
        Some(Stall { began, woke: now.boot, reason })
    }

    /// Since when a stall would count: from the earliest deadline, or, if that was
    /// missed by the last stall already and its turn hasn't come yet, from its end.
    pub(crate) fn missed(&self) -> Option<Time> {
        let deadline = self.timers.next()?.at;
        Some(self.stall.map_or(deadline, |last| deadline.max(last.woke)))
    }

    /// Records the stall and says so. `before` is the time of the last call.
    pub(crate) fn note_stall(&mut self, stall: Stall, late: Duration, suspended: Duration) {
        self.stall = Some(stall);
        let late_ms = millis(late);
        self.event(
            None,
            if stall.reason == Reason::ClockJumped {
                Fact::ClockJumped { late_ms, suspended_ms: millis(suspended) }
            } else {
                Fact::BrokerStalled { late_ms }
            },
        );
    }

    /// The epoch of a new challenge. Well before an incarnation's numbers run
    /// out, the next incarnation is made durable, so that epochs rise for ever.
    pub(crate) fn next_epoch(&mut self) -> Epoch {
        self.sessions_begun += 1;
        let epoch = Epoch(Epoch::new(self.incarnation, 0).0 + self.sessions_begun);
        if epoch.counter() > u32::MAX / 2 && self.reserved_incarnation == epoch.incarnation() {
            self.reserved_incarnation += 1;
            let change = crate::boundary::Change::Incarnation(self.reserved_incarnation);
            let effect = self.out.effect(Effect::Persist(alloc::vec![change]));
            self.background.insert(effect);
        }
        epoch
    }

    /// The name's 0.1 record goes.
    pub(crate) fn remove_record(&mut self, name: GuestName) {
        let effect = self.out.effect(Effect::RemoveRecord(name));
        self.background.insert(effect);
    }

    /// An effect of no machine ended; false: it isn't one.
    pub(crate) fn on_done(&mut self, effect: EffectId, result: &Result<(), EffectError>) -> bool {
        let ours = self.background.remove(&effect);
        if let (true, Err(error)) = (ours, result) {
            let message = shortened(&error.message, MESSAGE_MAX);
            self.event(None, Fact::StorageFailed { what: Storage::Database, message });
        }
        ours
    }

    /// Whether such effects are in progress.
    pub(crate) fn is_busy(&self) -> bool {
        !self.background.is_empty()
    }

    /// The same capabilities, in the place where they are kept already, if they were said lately.
    pub(crate) fn shared(&mut self, capabilities: Capabilities) -> Capabilities {
        if let Some(known) = self.said.iter().find(|known| **known == capabilities) {
            return known.clone();
        }
        if self.said.len() == SAID_MAX {
            self.said.pop_front();
        }
        self.said.push_back(capabilities.clone());
        capabilities
    }

    /// Something happened.
    pub(crate) fn event(&mut self, guest: Option<GuestName>, fact: Fact) {
        let cursor = Cursor { incarnation: self.incarnation, number: self.ring.next_number() };
        let event = Event { cursor, at: self.now.wall, guest, fact };
        self.ring.push(&event);
        self.out.event(event);
    }

    pub(crate) fn notify(&mut self, notice: Notice) {
        self.notices.push_back(notice);
    }

    /// Asks to be called again at once.
    pub(crate) const fn more(&self) -> crate::boundary::Deadline {
        crate::boundary::Deadline { at: self.now.boot, why: Wakeup::More }
    }
}

/// `retry_after_ms` goes with this end alone.
pub(crate) fn retry_after(cx: &Cx, why: SessionEnd) -> Option<Duration> {
    (why == SessionEnd::Shutdown).then_some(cx.config.retry_after)
}

#[cfg(test)]
mod tests {
    use super::Cx;
    use crate::boundary::{Change, Effect, Output};
    use crate::config::BrokerConfig;
    use crate::entropy::Entropy;
    use crate::id::Epoch;
    use crate::time::Now;

    /// The incarnations that are made durable by one more epoch.
    fn reserved(cx: &mut Cx) -> (Epoch, Option<u32>) {
        let epoch = cx.next_epoch();
        let reserved = match cx.out.poll(|| None) {
            Output::Effect { effect: Effect::Persist(changes), .. } => match changes[..] {
                [Change::Incarnation(number)] => Some(number),
                _ => panic!("{changes:?}"),
            },
            _ => None,
        };
        (epoch, reserved)
    }

    // No broker of a test lives for 2³¹ sessions.
    #[test]
    fn the_next_incarnation_is_durable_long_before_the_numbers_of_this_one_run_out() {
        let mut cx = Cx::new(BrokerConfig::default(), 7, Entropy::chosen(0), Now::default());
        let half = u32::MAX / 2;
        for incarnation in 7..10 {
            cx.sessions_begun = (u64::from(incarnation - 7) << 32) + u64::from(half) - 1;
            assert_eq!(reserved(&mut cx), (Epoch::new(incarnation, half), None));
            assert_eq!(reserved(&mut cx), (Epoch::new(incarnation, half + 1), Some(incarnation + 1)));
            assert_eq!(reserved(&mut cx), (Epoch::new(incarnation, half + 2), None));
            cx.sessions_begun = (u64::from(incarnation - 7) << 32) + u64::from(u32::MAX);
            assert_eq!(reserved(&mut cx), (Epoch::new(incarnation + 1, 0), None));
        }
    }
}
