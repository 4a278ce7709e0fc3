//! What every machine of the engine works with.

use alloc::collections::VecDeque;

use super::Deed;
use super::config::TerminalsConfig;
use super::wire::Level;
use crate::boundary::{Effect, Source};
use crate::event::{Cursor, Event, Fact, TerminalFact};
use crate::id::{ConnId, EffectId, TerminalId};
use crate::queue::Outbox;
use crate::time::{Now, Time};
use crate::timers::Timers;

/// Time, settings, outputs.
#[derive(Clone, Debug)]
pub(super) struct Cx {
    pub(super) config: TerminalsConfig,
    pub(super) out: Outbox,
    pub(super) now: Now,
    pub(super) timers: Timers<TimerKey>,
    pub(super) statistics: Statistics,
    pub(super) notices: VecDeque<Notice>,
    /// What effects are for, by their rising numbers.
    effects: VecDeque<(EffectId, Purpose)>,
    incarnation: u32,
    events: u64,
}

/// Whose timer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum TimerKey {
    Client(ConnId),
    Session(TerminalId),
    Asks,
    Journal,
    Drain,
}

/// What an effect was for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Purpose {
    Spawn(TerminalId),
    Adopt(TerminalId),
    Write(TerminalId),
    Look(TerminalId),
    /// A request that is answered by how it ends.
    Ask(u64),
    Persist,
    /// How it ends changes nothing.
    Nothing,
}

/// What one machine leaves for another.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Notice {
    /// Somebody's subscriber is that far behind.
    Warn { to: ConnId, terminal: TerminalId, lag: u64, level: Level },
    /// A subscriber lost output, and has room for what the screen shows.
    Behind { conn: ConnId, terminal: TerminalId },
    /// A subscriber of the terminal took some.
    Taken(TerminalId),
    /// A subscription is over.
    Over { conn: ConnId, terminal: TerminalId },
}

/// Counters that nothing depends on.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Statistics {
    /// Inputs for what was gone.
    pub stale_inputs: u64,
    /// Handshakes that succeeded.
    pub handshakes: u64,
    /// Handshakes that were refused.
    pub refused_handshakes: u64,
    /// Terminals that were started.
    pub created: u64,
    /// Programs that ended.
    pub exits: u64,
    /// Attaches that were answered.
    pub attaches: u64,
    /// How long they took in all, in microseconds.
    pub attach_micros: u64,
    /// How long the longest took.
    pub attach_micros_max: u64,
    /// Output that came, in bytes.
    pub output_bytes: u64,
    /// Input that was taken, in bytes.
    pub input_bytes: u64,
    /// Subscribers that lost output and were told what the screen shows.
    pub resyncs: u64,
    /// Output that they lost, in bytes.
    pub skipped_bytes: u64,
    /// Changes of a subscriber's level.
    pub backpressure_warnings: u64,
    /// How often a program had to wait for its owner.
    pub throttles: u64,
    /// Requests refused for want of ownership.
    pub owner_denials: u64,
    /// Terminals that were taken over.
    pub takeovers: u64,
    /// Terminals that ran on while the daemon was away.
    pub adopted: u64,
    /// Terminals that were started anew.
    pub restored: u64,
    /// Terminals that were lost.
    pub unrecoverable: u64,
    /// Writes of the journal that failed.
    pub storage_failures: u64,
}

impl Cx {
    pub(super) fn new(config: TerminalsConfig, incarnation: u32, now: Now) -> Self {
        Self {
            config,
            out: Outbox::default(),
            now,
            timers: Timers::default(),
            statistics: Statistics::default(),
            notices: VecDeque::new(),
            effects: VecDeque::new(),
            incarnation,
            events: 0,
        }
    }

    pub(super) const fn at(&self) -> Time {
        self.now.boot
    }

    /// Seconds since 1970.
    pub(super) fn wall_seconds(&self) -> i64 {
        i64::try_from(self.now.wall.unix_seconds()).unwrap_or(i64::MAX)
    }

    pub(super) fn effect(&mut self, effect: Effect, purpose: Purpose) -> EffectId {
        let id = self.out.effect(effect);
        self.effects.push_back((id, purpose));
        id
    }

    pub(super) fn deed(&mut self, terminal: TerminalId, deed: Deed, purpose: Purpose) {
        self.effect(Effect::Terminal { terminal, deed }, purpose);
    }

    /// What the effect was for.
    pub(super) fn settle(&mut self, effect: EffectId) -> Option<Purpose> {
        let place = self.effects.binary_search_by_key(&effect, |entry| entry.0).ok()?;
        self.effects.remove(place).map(|entry| entry.1)
    }

    /// Effects without an end.
    pub(super) fn open_effects(&self) -> usize {
        self.effects.len()
    }

    /// Whether an effect of this purpose goes on.
    #[cfg(feature = "model")]
    pub(super) fn is_open(&self, purpose: Purpose) -> bool {
        self.effects.iter().any(|entry| entry.1 == purpose)
    }

    pub(super) fn event(&mut self, fact: TerminalFact) {
        self.plain_event(Fact::Terminal(fact));
    }

    pub(super) fn plain_event(&mut self, fact: Fact) {
        self.events += 1;
        let cursor = Cursor { incarnation: self.incarnation, number: self.events };
        self.out.event(Event { cursor, at: self.now.wall, guest: None, fact });
    }

    /// How many connections may still come.
    pub(super) fn door(&mut self, clients: usize, draining: bool) {
        // One too many is let in to hear that.
        let free = if draining { 0 } else { self.config.connections_max.saturating_sub(clients).max(1) };
        self.out.read(Source::TerminalDoor, free);
    }
}
