//! What changes of attachments amount to: the whole of it, in memory.

use alloc::collections::BTreeMap;
use alloc::vec::Vec;

use super::{Action, Applied, AttachId, Attachment, RestoredManager};
use crate::boundary::Change;
use crate::id::GuestName;

/// The records that [`Change`]s make, a broker's and an agent's. The simulation's disk
/// is one; the databases are held against it.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct AttachLedger {
    attachments: BTreeMap<GuestName, Attachment>,
    actions: BTreeMap<u64, Action>,
    applied: BTreeMap<(AttachId, AttachId), Applied>,
}

impl AttachLedger {
    /// Makes one change. One that is not about attachments changes nothing here.
    pub fn apply(&mut self, change: &Change) {
        match change {
            Change::SetAttachment(attachment) => {
                self.attachments.insert(attachment.guest, (**attachment).clone());
            }
            Change::DropAttachment { guest } | Change::Forget { guest } => {
                self.attachments.remove(guest);
                self.actions.retain(|_, action| action.guest != *guest);
            }
            Change::SetAction(action) => {
                self.actions.insert(action.number, (**action).clone());
            }
            Change::DropAction { number } => {
                self.actions.remove(number);
            }
            Change::SetApplied(applied) => {
                self.applied.insert((applied.session.clone(), applied.id.clone()), (**applied).clone());
            }
            Change::DropApplied { session, id } => {
                self.applied.remove(&(session.clone(), id.clone()));
            }
            _ => {}
        }
    }

    /// What a broker that starts now finds.
    #[must_use]
    pub fn restored(&self) -> RestoredManager {
        RestoredManager {
            attachments: self.attachments.values().cloned().collect(),
            actions: self.actions.values().cloned().collect(),
        }
    }

    /// What an agent that starts now finds.
    #[must_use]
    pub fn applied(&self) -> Vec<Applied> {
        self.applied.values().cloned().collect()
    }
}
