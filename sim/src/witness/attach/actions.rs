//! Actions: taken, typed, acknowledged, and out of the queue.

use std::time::Duration;

use castra_core::attach::{Action, ActionStatus, AttachId};
use castra_core::id::GuestName;
use castra_core::time::Time;

use super::{Checked, Managing};
use crate::net::NodeId;
use crate::outcome::count;

/// An action that was durable in the broker's queue.
#[derive(Debug)]
pub(super) struct Taken {
    pub(super) guest: GuestName,
    number: u64,
    /// Its place among all.
    order: u64,
    since: Time,
    /// It was asked for at most so long before.
    written_for: Duration,
    ttl: Duration,
    /// It is in the queue.
    pub(super) waits: bool,
    /// A process in the guest's place said what became of it.
    acked: bool,
    /// The broker was started since the wall clock was set: it may be wrong about the age.
    ages_unsure: bool,
    /// It was typed, as a whole.
    typed: bool,
}

impl Taken {
    /// The broker starts: what it took was asked for before it was durable, and from
    /// then on its age counts now.
    pub(super) fn grows_older(&mut self, ages_unsure: bool) {
        self.since = self.since - core::mem::take(&mut self.written_for);
        self.ages_unsure |= ages_unsure;
    }
}

/// The longest that a write takes.
const WRITTEN_FOR: Duration = Duration::from_secs(15);

/// What tells an action's text from all others.
pub(super) fn label(text: &str) -> &str {
    text.split(' ').next().unwrap_or_default()
}

impl Managing {
    /// An action is durable.
    pub(super) fn take(&mut self, action: &Action) -> Checked {
        #[derive(serde::Deserialize)]
        struct Payload {
            bytes: String,
        }
        let Action { number, guest, id, payload, ttl_ms, .. } = action;
        let text = serde_json::from_str::<Payload>(payload).map(|payload| payload.bytes).unwrap_or_default();
        let text = label(&text).to_owned();
        let step = text.strip_prefix('a').and_then(|rest| rest.split('.').next()?.parse::<usize>().ok());
        if step.and_then(|step| self.steps.get(step)) != Some(guest) {
            return Err(("A5", format!("{id} is taken for {guest}, and nobody asked for that")));
        }
        if let Some(other) = self.texts.insert(text.clone(), id.clone()) {
            return Err(("A5", format!("{text} is taken twice, as {other} and {id}")));
        }
        count(&mut self.counts, "taken");
        let order = self.taken.len() as u64 + 1;
        let taken = Taken {
            guest: *guest,
            number: *number,
            order,
            since: self.now,
            written_for: WRITTEN_FOR,
            ttl: Duration::from_millis(*ttl_ms),
            waits: true,
            acked: false,
            ages_unsure: false,
            typed: false,
        };
        if self.taken.insert(id.clone(), taken).is_some() {
            return Err(("A5", format!("{id} is the id of two actions")));
        }
        let waiting = self.taken.values().filter(|taken| taken.waits && taken.guest == *guest).count();
        if waiting > self.queue_max {
            let text = format!("{waiting} actions wait for {guest}, with {} allowed", self.queue_max);
            return Err(("S6", text));
        }
        Ok(())
    }

    /// An action left the queue, durably.
    pub(super) fn drop_action(&mut self, number: u64) -> Checked {
        let found = self.taken.iter_mut().find(|(_, taken)| taken.waits && taken.number == number);
        let Some((id, taken)) = found else { return Ok(()) };
        taken.waits = false;
        let expired = self.now.since(taken.since) >= taken.ttl;
        if !taken.acked && !expired && !taken.ages_unsure {
            return Err(("A5", format!("{id} left the queue, and neither its ack nor its time had come")));
        }
        count(&mut self.counts, if taken.acked { "settled" } else { "expired" });
        Ok(())
    }

    /// The guest is released: nothing waits for it.
    pub(super) fn release(&mut self, guest: &GuestName) {
        for taken in self.taken.values_mut().filter(|taken| taken.guest == *guest) {
            taken.waits = false;
        }
    }

    /// Somebody in the guest's place says what became of an action.
    pub(super) fn acknowledges(&mut self, id: &AttachId, status: ActionStatus) -> Checked {
        let Some(taken) = self.taken.get_mut(id) else { return Ok(()) };
        taken.acked = true;
        // A twin knows what its original did.
        if status == ActionStatus::Ok && !taken.typed {
            return Err(("A5", format!("{} says ok to {id}, and did not type it", taken.guest)));
        }
        count(&mut self.counts, status.as_str());
        Ok(())
    }

    /// The broker tells the guest that an ack is durable.
    pub(super) fn settles(&self, id: &AttachId) -> Checked {
        match self.taken.get(id) {
            Some(taken) if taken.waits => {
                Err(("A5", format!("{id} is said to be settled, and waits on the disk")))
            }
            _ => Ok(()),
        }
    }

    /// An agent has something typed.
    pub(crate) fn begins_typing(&mut self, node: NodeId) -> Checked {
        let Some(agent) = self.agents.get_mut(&node) else { return Ok(()) };
        if std::mem::replace(&mut agent.typing, true) {
            return Err(("A5", format!("{} has two things typed at once", agent.guest)));
        }
        Ok(())
    }

    /// What an agent had typed is over.
    pub(crate) fn ends_typing(&mut self, node: NodeId) -> Checked {
        self.agents.get_mut(&node).into_iter().for_each(|agent| agent.typing = false);
        Ok(())
    }

    /// A terminal really took something.
    pub(crate) fn typed(&mut self, node: NodeId, bytes: &[u8]) -> Checked {
        let text = label(str::from_utf8(bytes).unwrap_or_default()).to_owned();
        count(&mut self.counts, "typed");
        let Some(agent) = self.agents.get_mut(&node) else { return Ok(()) };
        let guest = agent.guest;
        let Some(taken) = self.texts.get(&text).and_then(|id| self.taken.get_mut(id)) else {
            return Err(("A5", format!("{text} is typed in {guest}, and was never taken")));
        };
        taken.typed = true;
        if taken.guest != guest {
            return Err(("A5", format!("{text} is typed in {guest}, and is for {}", taken.guest)));
        }
        if !agent.typed.insert(text.clone()) {
            return Err(("A5", format!("{text} is typed in {guest} twice")));
        }
        if agent.newest > taken.order {
            return Err(("A5", format!("{text} is typed in {guest} after what was taken later")));
        }
        agent.newest = taken.order;
        Ok(())
    }

    /// Somebody is told what became of an action.
    pub(crate) fn told_of_action(&self, id: &AttachId, status: &str) -> Checked {
        let Some(taken) = self.taken.get(id) else {
            return Err(("S2", format!("{id} is said to be {status}, and never was durable")));
        };
        match status {
            "ok" if !taken.typed => Err(("A5", format!("{id} is said to be ok, and was not typed"))),
            "queued" => Ok(()),
            _ if taken.waits => Err(("A5", format!("{id} is said to be {status}, and waits on the disk"))),
            _ => Ok(()),
        }
    }
}
