//! What is durable: one batch at a time; what changes meanwhile goes together in
//! the next one.

use alloc::boxed::Box;
use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec::Vec;

use super::Tail;
use super::cx::{Cx, Purpose, TimerKey};
use super::engine::Terminals;
use crate::boundary::{Batch, Change, Effect, EffectError, Wakeup};
use crate::event::{Fact, MESSAGE_MAX, Storage, shortened};
use crate::id::TerminalId;
use crate::timers::TimerId;

/// Numbers that are reserved at once.
const BLOCK: u32 = 64;

#[derive(Clone, Debug)]
pub(super) struct Journal {
    /// The next number.
    next: u32,
    /// Numbers below this are reserved, durably.
    reserved: u32,
    /// What waits to be written.
    dirty: Pending,
    /// What is being written.
    flight: Option<Pending>,
    /// Records that somebody waits for.
    fresh: BTreeSet<TerminalId>,
    timer: TimerId,
    /// Somebody waits for `dirty`, or it has waited long enough.
    pub(super) is_due: bool,
    failing: bool,
}

/// Changes, by what they are about.
#[derive(Clone, Debug, Default)]
struct Pending {
    reserve: Option<u32>,
    records: BTreeSet<TerminalId>,
    tails: BTreeMap<TerminalId, Box<Tail>>,
    drops: BTreeSet<TerminalId>,
}

impl Pending {
    fn is_empty(&self) -> bool {
        self.reserve.is_none() && self.records.is_empty() && self.tails.is_empty() && self.drops.is_empty()
    }

    /// What was not written stands behind what is newer.
    fn take_back(&mut self, older: Self) {
        self.reserve = self.reserve.max(older.reserve);
        self.records.extend(older.records);
        self.drops.extend(older.drops);
        for (terminal, tail) in older.tails {
            self.tails.entry(terminal).or_insert(tail);
        }
        let Self { records, tails, drops, .. } = self;
        records.retain(|terminal| !drops.contains(terminal));
        tails.retain(|terminal, _| !drops.contains(terminal));
    }
}

impl Journal {
    /// Numbers below `next` were given out.
    pub(super) fn new(cx: &mut Cx, next: u32) -> Self {
        let next = next.max(1);
        let dirty = Pending { reserve: Some(next.saturating_add(BLOCK)), ..Pending::default() };
        let timer = cx.timers.insert(TimerKey::Journal);
        Self {
            next,
            reserved: next,
            dirty,
            flight: None,
            fresh: BTreeSet::new(),
            timer,
            is_due: true,
            failing: false,
        }
    }

    /// A number that was never given out; `None`: none is reserved.
    pub(super) fn next_id(&mut self) -> Option<TerminalId> {
        let reserving = self.flight.as_ref().is_some_and(|flight| flight.reserve.is_some());
        if self.reserved - self.next <= BLOCK / 4 && self.dirty.reserve.is_none() && !reserving {
            self.dirty.reserve = Some(self.reserved.saturating_add(BLOCK));
            self.is_due |= !self.failing;
        }
        if self.next == self.reserved {
            return None;
        }
        self.next += 1;
        Some(TerminalId(self.next - 1))
    }

    /// Numbers up to this one are taken.
    pub(super) fn stay_above(&mut self, number: u32) {
        if number >= self.next {
            self.next = number.saturating_add(1);
            self.reserved = self.next;
            self.dirty.reserve = Some(self.next.saturating_add(BLOCK));
        }
    }

    /// Whether a first number has still to be reserved: a create may wait for that.
    pub(super) fn is_reserving(&self) -> bool {
        self.next == self.reserved && !self.failing
    }

    /// A record changed; nobody waits for it.
    pub(super) fn mark(&mut self, terminal: TerminalId) {
        self.dirty.records.insert(terminal);
    }

    /// A record changed, and somebody waits for it.
    pub(super) fn mark_new(&mut self, terminal: TerminalId) {
        self.mark(terminal);
        self.fresh.insert(terminal);
        self.is_due = true;
    }

    /// Whether something that somebody waits for is not durable yet.
    pub(super) fn is_new(&self, terminal: TerminalId) -> bool {
        self.fresh.contains(&terminal)
    }

    pub(super) fn set_tail(&mut self, terminal: TerminalId, tail: Box<Tail>) {
        self.dirty.tails.insert(terminal, tail);
        self.is_due |= !self.failing;
    }

    /// `recorded`: there may be a record.
    pub(super) fn drop_terminal(&mut self, terminal: TerminalId, recorded: bool) {
        self.dirty.records.remove(&terminal);
        self.dirty.tails.remove(&terminal);
        self.fresh.remove(&terminal);
        if recorded {
            self.dirty.drops.insert(terminal);
            self.is_due |= !self.failing;
        }
    }

    /// Nothing waits for company any more.
    pub(super) fn hurry(&mut self) {
        self.is_due |= !self.dirty.is_empty() && !self.failing;
    }

    /// Whether everything is durable.
    pub(super) fn is_idle(&self) -> bool {
        self.flight.is_none() && self.dirty.is_empty()
    }

    /// Whether something waits and nothing would write it.
    #[cfg(feature = "model")]
    pub(super) fn is_unguarded(&self, cx: &Cx) -> bool {
        self.flight.is_none() && !self.dirty.is_empty() && cx.timers.armed(self.timer).is_none()
    }
}

impl Terminals {
    /// Writes what is due, unless something is being written.
    pub(super) fn write_journal(&mut self) {
        let Self { cx, journal, sessions, .. } = self;
        if journal.flight.is_some() || journal.dirty.is_empty() {
            return;
        }
        if !journal.is_due {
            let by = cx.at() + if journal.failing { cx.config.storage_retry } else { cx.config.record_delay };
            cx.timers.arm_by(journal.timer, by, Wakeup::Record);
            return;
        }
        journal.is_due = false;
        cx.timers.disarm(journal.timer);
        let pending = core::mem::take(&mut journal.dirty);
        let mut batch = Batch::new();
        batch.extend(pending.reserve.map(Change::SetTerminalIds));
        for session in pending.records.iter().filter_map(|terminal| sessions.get(terminal)) {
            batch.push(Change::SetTerminal(Box::new(session.record(cx))));
        }
        for (&terminal, tail) in &pending.tails {
            batch.push(Change::SetTail { terminal, tail: tail.clone() });
        }
        batch.extend(pending.drops.iter().map(|&terminal| Change::DropTerminal { terminal }));
        journal.flight = Some(pending);
        cx.effect(Effect::Persist(batch), Purpose::Persist);
    }

    pub(super) fn on_persisted(&mut self, result: &Result<(), EffectError>) {
        let Some(flight) = self.journal.flight.take() else { return };
        let records: Vec<TerminalId> = flight.records.iter().copied().collect();
        match result {
            Ok(()) => {
                if let Some(reserved) = flight.reserve {
                    self.journal.reserved = self.journal.reserved.max(reserved);
                }
                if core::mem::take(&mut self.journal.failing) {
                    self.cx.plain_event(Fact::StorageRecovered { what: Storage::Database });
                }
                for terminal in records {
                    // Changed again meanwhile: the next record is the one that is waited for.
                    if !self.journal.dirty.records.contains(&terminal) {
                        self.journal.fresh.remove(&terminal);
                        self.on_recorded(terminal);
                    }
                }
                for session in flight.tails.keys().copied().collect::<Vec<_>>() {
                    self.let_go(session);
                }
            }
            Err(error) => {
                self.cx.statistics.storage_failures += 1;
                if !core::mem::replace(&mut self.journal.failing, true) {
                    let message = shortened(&error.message, MESSAGE_MAX);
                    self.cx.plain_event(Fact::StorageFailed { what: Storage::Database, message });
                }
                self.journal.dirty.take_back(flight);
                self.journal.is_due = false;
                for terminal in records {
                    self.on_unrecorded(terminal, &error.message);
                }
            }
        }
        self.start_waiting();
    }
}
