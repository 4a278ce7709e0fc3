//! Relations, policies and messages: a table each, their rows JSON.
//!
//! A message's fate has a table of its own: that a message was delivered is a
//! few bytes more in the next commit, not the whole message once more.

use castra_core::boundary::Change;
use castra_core::id::GuestName;
use castra_core::peers::{Fate, Message, Pair, Policy, Relation, RestoredPeers};
use redb::{Error, ReadTransaction, ReadableTable, Table, TableDefinition, WriteTransaction};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// By the two names, in order.
const RELATIONS: TableDefinition<'_, (&str, &str), &[u8]> = TableDefinition::new("relations");
/// By name; the default has no row.
const POLICIES: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("policies");
/// By number.
const MESSAGES: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("messages");
/// By the message's number; one that waits may have no row.
const FATES: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("fates");

/// The tables within one transaction.
pub(super) struct Tables<'t> {
    relations: Table<'t, (&'static str, &'static str), &'static [u8]>,
    policies: Table<'t, &'static str, &'static [u8]>,
    messages: Table<'t, u64, &'static [u8]>,
    fates: Table<'t, u64, &'static [u8]>,
}

impl<'t> Tables<'t> {
    /// Opens them; those that are not there yet are created.
    pub(super) fn open(transaction: &'t WriteTransaction) -> Result<Self, Error> {
        Ok(Self {
            relations: transaction.open_table(RELATIONS)?,
            policies: transaction.open_table(POLICIES)?,
            messages: transaction.open_table(MESSAGES)?,
            fates: transaction.open_table(FATES)?,
        })
    }

    /// Makes one change; false: it isn't about peers.
    pub(super) fn apply(&mut self, change: &Change) -> Result<bool, Error> {
        match change {
            Change::SetRelation { pair, relation } => self.relate(pair, *relation)?,
            Change::SetPolicy { guest, policy: Policy::Default } => {
                self.policies.remove(guest.as_str())?;
            }
            Change::SetPolicy { guest, policy } => {
                self.policies.insert(guest.as_str(), row(policy)?.as_slice())?;
            }
            Change::SetMessage(message) => {
                self.messages.insert(message.number, row(message)?.as_slice())?;
            }
            Change::SetFate { number, fate } => {
                self.fates.insert(number, row(fate)?.as_slice())?;
            }
            Change::DropMessage { number } => {
                self.messages.remove(number)?;
                self.fates.remove(number)?;
            }
            _ => return Ok(false),
        }
        Ok(true)
    }

    /// The guest's policy goes; to its peers it is missing from now on.
    pub(super) fn forget(&mut self, guest: &GuestName) -> Result<(), Error> {
        self.policies.remove(guest.as_str())?;
        let mut changed = Vec::new();
        for entry in self.relations.iter()? {
            let (key, value) = entry?;
            let (pair, relation) = relation(key.value(), value.value())?;
            let after = relation.after_forgetting(&pair, guest);
            if after != Some(relation) {
                changed.push((pair, after));
            }
        }
        changed.into_iter().try_for_each(|(pair, relation)| self.relate(&pair, relation))
    }

    fn relate(&mut self, pair: &Pair, relation: Option<Relation>) -> Result<(), Error> {
        let [low, high] = pair.both();
        let key = (low.as_str(), high.as_str());
        match relation {
            Some(relation) => self.relations.insert(key, row(&relation)?.as_slice()).map(drop)?,
            None => self.relations.remove(key).map(drop)?,
        }
        Ok(())
    }
}

/// Everything in the tables.
pub(super) fn read(transaction: &ReadTransaction) -> Result<RestoredPeers, Error> {
    let mut found = RestoredPeers::default();
    for entry in transaction.open_table(RELATIONS)?.iter()? {
        let (key, value) = entry?;
        found.relations.push(relation(key.value(), value.value())?);
    }
    for entry in transaction.open_table(POLICIES)?.iter()? {
        let (key, value) = entry?;
        let guest = key.value().parse().map_err(|_| damaged("the policy", key.value()))?;
        found.policies.push((guest, parsed(value.value(), "the policy", key.value())?));
    }
    let fates = transaction.open_table(FATES)?;
    for entry in transaction.open_table(MESSAGES)?.iter()? {
        let (key, value) = entry?;
        let number = key.value();
        let message: Message = parsed(value.value(), "the message", number)?;
        if message.number != number {
            return Err(damaged("the message", number));
        }
        let fate = match fates.get(number)? {
            Some(fate) => parsed(fate.value(), "the fate of the message", number)?,
            None => Fate::default(),
        };
        found.messages.push(Message { fate, ..message });
    }
    Ok(found)
}

fn relation((low, high): (&str, &str), value: &[u8]) -> Result<(Pair, Relation), Error> {
    let what = format_args!("{low} {high}").to_string();
    let pair = low.parse().ok().zip(high.parse().ok()).and_then(|(low, high)| Pair::new(low, high));
    // Were they out of order, the row could never be found again.
    let pair = pair.filter(|pair| pair.both()[0].as_str() == low);
    let pair = pair.ok_or_else(|| damaged("the relation", &what))?;
    let relation = parsed(value, "the relation", &what)?;
    match relation {
        Relation::Missing(guest) if pair.other(&guest).is_none() => Err(damaged("the relation", what)),
        relation => Ok((pair, relation)),
    }
}

pub(super) fn row(value: &impl Serialize) -> Result<Vec<u8>, Error> {
    serde_json::to_vec(value).map_err(|error| Error::Io(error.into()))
}

pub(super) fn parsed<T: DeserializeOwned>(
    value: &[u8],
    what: &str,
    of: impl std::fmt::Display,
) -> Result<T, Error> {
    serde_json::from_slice(value).map_err(|_| damaged(what, of))
}

pub(super) fn damaged(what: &str, of: impl std::fmt::Display) -> Error {
    Error::Corrupted(format!("{what} {:?}", of.to_string()))
}
