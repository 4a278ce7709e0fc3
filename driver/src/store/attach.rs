//! Attachments and the actions that wait: a table each, their rows JSON. They hold
//! tokens and codes, as the database does anyway.

use castra_core::attach::{Action, Attachment, RestoredManager};
use castra_core::boundary::Change;
use castra_core::id::GuestName;
use redb::{Error, ReadTransaction, ReadableTable, Table, TableDefinition, WriteTransaction};

use super::peers::{damaged, parsed, row};

/// By guest.
const ATTACHMENTS: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("attachments");
/// By number.
const ACTIONS: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("actions");

/// The tables within one transaction.
pub(super) struct Tables<'t> {
    attachments: Table<'t, &'static str, &'static [u8]>,
    actions: Table<'t, u64, &'static [u8]>,
}

impl<'t> Tables<'t> {
    /// Opens them; those that are not there yet are created.
    pub(super) fn open(transaction: &'t WriteTransaction) -> Result<Self, Error> {
        let attachments = transaction.open_table(ATTACHMENTS)?;
        Ok(Self { attachments, actions: transaction.open_table(ACTIONS)? })
    }

    /// Makes one change; false: it isn't about attachments.
    pub(super) fn apply(&mut self, change: &Change) -> Result<bool, Error> {
        match change {
            Change::SetAttachment(attachment) => {
                self.attachments.insert(attachment.guest.as_str(), row(attachment)?.as_slice())?;
            }
            Change::DropAttachment { guest } => self.forget(guest)?,
            Change::SetAction(action) => {
                self.actions.insert(action.number, row(action)?.as_slice())?;
            }
            Change::DropAction { number } => {
                self.actions.remove(number)?;
            }
            _ => return Ok(false),
        }
        Ok(true)
    }

    /// The guest's attachment and its actions go.
    pub(super) fn forget(&mut self, guest: &GuestName) -> Result<(), Error> {
        self.attachments.remove(guest.as_str())?;
        let mut waiting = Vec::new();
        for entry in self.actions.iter()? {
            let (number, value) = entry?;
            let number = number.value();
            let action: Action = parsed(value.value(), "the action", number)?;
            if action.guest == *guest {
                waiting.push(number);
            }
        }
        for number in waiting {
            self.actions.remove(number)?;
        }
        Ok(())
    }
}

/// Everything in the tables.
pub(super) fn read(transaction: &ReadTransaction) -> Result<RestoredManager, Error> {
    let mut found = RestoredManager::default();
    for entry in transaction.open_table(ATTACHMENTS)?.iter()? {
        let (key, value) = entry?;
        let attachment: Attachment = parsed(value.value(), "the attachment", key.value())?;
        if attachment.guest.as_str() != key.value() {
            return Err(damaged("the attachment", key.value()));
        }
        found.attachments.push(attachment);
    }
    for entry in transaction.open_table(ACTIONS)?.iter()? {
        let (key, value) = entry?;
        let action: Action = parsed(value.value(), "the action", key.value())?;
        if action.number != key.value() {
            return Err(damaged("the action", key.value()));
        }
        found.actions.push(action);
    }
    Ok(found)
}
