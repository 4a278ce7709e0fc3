//! What is durable of actions: one write at a time, for all that there is to write.

use alloc::boxed::Box;
use alloc::vec::Vec;
use core::time::Duration;

use super::actions::{Actions, Key, Phase, Task};
use crate::agent::Context;
use crate::attach::{ActionCode, ActionStatus, Applied};
use crate::boundary::{Change, Effect, EffectError};
use crate::event::{self, Fact, Storage};
use crate::id::EffectId;
use crate::time::Time;

/// A write on its way.
#[derive(Clone, Debug)]
pub(super) struct Writing {
    effect: EffectId,
    pub(super) begun: Vec<Task>,
    pub(super) ended: Vec<Key>,
    stale: Vec<Key>,
    forgotten: Vec<(Time, Key)>,
}

/// Actions are forgotten this much later than they may be: many at once.
const TOGETHER: Duration = Duration::from_secs(10);

/// Most that one write forgets, or says anew.
const ROWS_MAX: usize = 256;

impl Actions {
    /// Writes what there is, unless something is being written.
    pub(super) fn write(&mut self, cx: &mut Context<'_>) {
        let forgets = self.forgets_at().is_some_and(|at| at <= cx.now.boot);
        let idle = self.arrived.is_empty() && self.ended.is_empty() && self.undone.is_empty() && !forgets;
        if self.writing.is_some() || idle {
            return;
        }
        let begun: Vec<Task> = self.arrived.drain(..).collect();
        let ended = core::mem::take(&mut self.ended);
        let old = self.forget.iter().take_while(|(at, _)| *at <= cx.now.boot).take(ROWS_MAX);
        let forgotten: Vec<(Time, Key)> = old.cloned().collect();
        let undone = core::mem::take(&mut self.undone);
        let dropped = forgotten.iter().map(|(_, key)| key).chain(&undone);
        for key in ended.iter().chain(dropped.clone()) {
            self.stale.remove(key);
        }
        let stale: Vec<Key> = self.stale.iter().take(ROWS_MAX).cloned().collect();
        let dropped = dropped.cloned().map(|(session, id)| Change::DropApplied { session, id });
        let mut batch: Vec<Change> = dropped.collect();
        for Task { key, .. } in &begun {
            if let Some(known) = self.known.get_mut(key) {
                known.phase = Phase::Beginning;
            }
        }
        for key in begun.iter().map(|task| &task.key).chain(&ended).chain(&stale) {
            self.stale.remove(key);
            if let Some(known) = self.known.get(key) {
                let (session, id) = key.clone();
                let applied = Applied { session, id, outcome: known.outcome, settled_at: known.settled };
                batch.push(Change::SetApplied(Box::new(applied)));
            }
        }
        let effect = cx.out.effect(Effect::Persist(batch));
        self.writing = Some(Writing { effect, begun, ended, stale, forgotten });
    }

    /// A write ended. False: it is not ours.
    pub(super) fn on_written(
        &mut self,
        cx: &mut Context<'_>,
        effect: EffectId,
        result: &Result<(), EffectError>,
    ) -> bool {
        let Some(Writing { begun, ended, stale, forgotten, .. }) =
            self.writing.take_if(|writing| writing.effect == effect)
        else {
            return false;
        };
        self.report(cx, result);
        let written = result.is_ok();
        for task in begun {
            let known = self.known.get_mut(&task.key).filter(|known| known.phase == Phase::Beginning);
            match known {
                // Its session is over.
                None => {}
                Some(known) if written => {
                    known.phase = Phase::Ready;
                    self.ready.push_back(task);
                }
                Some(known) => {
                    // Perhaps the disk says that it was begun all the same.
                    known.outcome = Some((ActionStatus::Rejected, Some(ActionCode::NoStorage)));
                    self.stale.insert(task.key.clone());
                    self.finish(cx, task.key);
                }
            }
        }
        for key in ended {
            if !written {
                self.stale.insert(key.clone());
            }
            self.finish(cx, key);
        }
        if written {
            for old in forgotten {
                self.known.remove(&old.1);
                self.forget.remove(&old);
            }
            self.retry_at = None;
        } else {
            self.stale.extend(stale);
            self.retry_at = Some(cx.now.boot + TOGETHER);
        }
        true
    }

    fn report(&mut self, cx: &mut Context<'_>, result: &Result<(), EffectError>) {
        match result {
            Ok(()) => {
                if core::mem::take(&mut self.failing) {
                    cx.event(Fact::StorageRecovered { what: Storage::Database });
                }
            }
            Err(error) => {
                if !core::mem::replace(&mut self.failing, true) {
                    let message = event::shortened(&error.message, event::MESSAGE_MAX);
                    cx.event(Fact::StorageFailed { what: Storage::Database, message });
                }
            }
        }
    }

    fn forgets_at(&self) -> Option<Time> {
        let at = self.forget.first().map(|(at, _)| *at + TOGETHER)?;
        Some(self.retry_at.map_or(at, |retry_at| at.max(retry_at)))
    }

    pub(super) fn next_deadline(&self) -> Option<Time> {
        let forgets = self.forgets_at().filter(|_| self.writing.is_none());
        self.typing.as_ref().and_then(|typing| typing.deadline).into_iter().chain(forgets).min()
    }
}
