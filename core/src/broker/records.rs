//! castra 0.1 record files, written behind: a name at most once per
//! `record_interval`, `records_per_second` in all; sessions that begin or end
//! first, then whose record is oldest; everything at drain.

use alloc::boxed::Box;
use alloc::collections::{BTreeMap, BTreeSet, VecDeque};
use core::time::Duration;

use crate::boundary::{Effect, EffectError, Wakeup};
use crate::broker::cx::Cx;
use crate::broker::facts::{RowId, TimerKey, Urgency};
use crate::broker::guests::Guests;
use crate::event::{Fact, MESSAGE_MAX, Storage, shortened};
use crate::id::EffectId;
use crate::legacy::Record;
use crate::time::{Time, WallTime};
use crate::timers::TimerId;

#[derive(Clone, Debug)]
pub(crate) struct Records {
    pub(super) transitions: VecDeque<RowId>,
    pub(super) refreshes: VecDeque<RowId>,
    pub(super) writing: BTreeMap<EffectId, RowId>,
    /// The second that is being counted, and how many were written in it.
    pub(super) second: (Time, u32),
    pub(super) timer: TimerId,
    pub(super) failing: bool,
}

impl Records {
    pub(crate) fn new(cx: &mut Cx) -> Self {
        Self {
            transitions: VecDeque::new(),
            refreshes: VecDeque::new(),
            writing: BTreeMap::new(),
            second: (Time::ZERO, 0),
            timer: cx.timers.insert(TimerKey::Records),
            failing: false,
        }
    }

    /// The row has evidence that its record lacks.
    pub(crate) fn mark(&mut self, guests: &mut Guests, id: RowId, urgency: Urgency) {
        let Some(row) = guests.get_mut(id) else { return };
        if seconds(row.last_wall) == seconds(row.record.written) || row.evidence.is_none() {
            return;
        }
        match (row.queued, urgency) {
            (None, Urgency::Transition) | (Some(Urgency::Refresh), Urgency::Transition) => {
                self.transitions.push_back(id);
            }
            (None, Urgency::Refresh) => self.refreshes.push_back(id),
            (Some(_), _) => return,
        }
        row.queued = Some(urgency);
        self.prune(guests);
    }

    /// A refresh that became a transition leaves a void entry behind: no more of
    /// those than rows.
    fn prune(&mut self, guests: &Guests) {
        if self.refreshes.len() <= 2 * guests.len() + 64 {
            return;
        }
        let mut kept = BTreeSet::new();
        self.refreshes.retain(|id| {
            let queued = guests.get(*id).and_then(|row| row.queued);
            queued == Some(Urgency::Refresh) && kept.insert(*id)
        });
    }

    /// Writes what may be written now; arms the timer for the rest.
    pub(crate) fn pump(&mut self, cx: &mut Cx, guests: &mut Guests, everything: bool) {
        let now = cx.at();
        if self.transitions.is_empty() && self.refreshes.is_empty() {
            return;
        }
        if now.since(self.second.0) >= Duration::from_secs(1) {
            self.second = (now, 0);
        }
        let mut postponed: Option<Time> = None;
        for _ in 0..self.transitions.len() + self.refreshes.len() {
            if !everything && self.second.1 >= cx.config.records_per_second {
                let next = self.second.0 + Duration::from_secs(1);
                postponed = Some(postponed.map_or(next, |at| at.min(next)));
                break;
            }
            let Some((id, urgency)) = self.pop() else { break };
            let Some(row) = guests.get_mut(id).filter(|row| row.queued == Some(urgency)) else {
                continue;
            };
            let free_at = row.record.written_at.map_or(now, |at| at + cx.config.record_interval);
            if free_at > now && !everything {
                match urgency {
                    Urgency::Transition => self.transitions.push_back(id),
                    Urgency::Refresh => self.refreshes.push_back(id),
                }
                postponed = Some(postponed.map_or(free_at, |at| at.min(free_at)));
                continue;
            }
            row.queued = None;
            let Some(wall) = row.last_wall else { continue };
            row.record.written = Some(wall);
            row.record.written_at = Some(now);
            self.second.1 += 1;
            let record = Record {
                vm: row.name(),
                timestamp: wall.unix_seconds(),
                capabilities: row.capabilities.clone(),
            };
            let effect = cx.out.effect(Effect::WriteRecord(Box::new(record)));
            self.writing.insert(effect, id);
        }
        if let Some(at) = postponed {
            cx.timers.arm_by(self.timer, at, Wakeup::Record);
        }
    }

    /// An effect of ours ended; false: it isn't ours.
    pub(crate) fn on_done(
        &mut self,
        cx: &mut Cx,
        guests: &mut Guests,
        effect: EffectId,
        result: &Result<(), EffectError>,
    ) -> bool {
        let Some(id) = self.writing.remove(&effect) else { return false };
        match result {
            Ok(()) => {
                if core::mem::take(&mut self.failing) {
                    cx.event(None, Fact::StorageRecovered { what: Storage::Records });
                }
            }
            Err(error) => {
                // The next evidence tries again.
                if let Some(row) = guests.get_mut(id) {
                    row.record.written = None;
                }
                if !core::mem::replace(&mut self.failing, true) {
                    let message = shortened(&error.message, MESSAGE_MAX);
                    cx.event(None, Fact::StorageFailed { what: Storage::Records, message });
                }
            }
        }
        true
    }

    /// Whether records are on their way to the disk, or wait to be.
    pub(crate) fn is_busy(&self) -> bool {
        !(self.writing.is_empty() && self.transitions.is_empty() && self.refreshes.is_empty())
    }

    #[cfg(feature = "model")]
    pub(super) fn has_queued(&self) -> bool {
        !(self.transitions.is_empty() && self.refreshes.is_empty())
    }

    fn pop(&mut self) -> Option<(RowId, Urgency)> {
        let transition = self.transitions.pop_front().map(|id| (id, Urgency::Transition));
        transition.or_else(|| self.refreshes.pop_front().map(|id| (id, Urgency::Refresh)))
    }
}

/// Records hold whole seconds.
fn seconds(wall: Option<WallTime>) -> Option<u64> {
    wall.map(WallTime::unix_seconds)
}
