//! What changes of peers' records amount to: the whole of it, in memory.

use alloc::collections::BTreeMap;

use super::{Fate, Message, Pair, Policy, Relation, RestoredPeers};
use crate::boundary::Change;
use crate::id::GuestName;

/// The records that [`Change`]s make. The simulation's disk is one; the database
/// is held against it.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Ledger {
    relations: BTreeMap<Pair, Relation>,
    policies: BTreeMap<GuestName, Policy>,
    messages: BTreeMap<u64, Message>,
    fates: BTreeMap<u64, Fate>,
}

impl Ledger {
    /// Makes one change. One that is not about peers changes nothing here.
    pub fn apply(&mut self, change: &Change) {
        match change {
            Change::SetRelation { pair, relation: Some(relation) } => {
                self.relations.insert(*pair, *relation);
            }
            Change::SetRelation { pair, relation: None } => {
                self.relations.remove(pair);
            }
            Change::SetPolicy { guest, policy: Policy::Default } => {
                self.policies.remove(guest);
            }
            Change::SetPolicy { guest, policy } => {
                self.policies.insert(*guest, *policy);
            }
            Change::Forget { guest } => {
                self.policies.remove(guest);
                self.relations.retain(|pair, relation| match relation.after_forgetting(pair, guest) {
                    Some(after) => {
                        *relation = after;
                        true
                    }
                    None => false,
                });
            }
            Change::SetMessage(message) => {
                self.messages.insert(message.number, (**message).clone());
            }
            Change::SetFate { number, fate } => {
                self.fates.insert(*number, *fate);
            }
            Change::DropMessage { number } => {
                self.messages.remove(number);
                self.fates.remove(number);
            }
            Change::Incarnation(_)
            | Change::SetToken { .. }
            | Change::SetReceived(_)
            | Change::DropReceived { .. }
            | Change::SetSeen { .. }
            | Change::SetAttachment(_)
            | Change::DropAttachment { .. }
            | Change::SetAction(_)
            | Change::DropAction { .. }
            | Change::SetApplied(_)
            | Change::DropApplied { .. }
            | Change::SetTerminalIds(_)
            | Change::SetTerminal(_)
            | Change::SetTail { .. }
            | Change::DropTerminal { .. } => {}
        }
    }

    /// What a broker that starts now finds.
    #[must_use]
    pub fn restored(&self) -> RestoredPeers {
        let fate = |number| self.fates.get(number).copied().unwrap_or_default();
        RestoredPeers {
            relations: self.relations.iter().map(|(pair, relation)| (*pair, *relation)).collect(),
            policies: self.policies.iter().map(|(guest, policy)| (*guest, *policy)).collect(),
            messages: self
                .messages
                .iter()
                .map(|(number, message)| Message { fate: fate(number), ..message.clone() })
                .collect(),
        }
    }
}

impl Relation {
    /// What is left of `pair`'s relation when `guest` is forgotten; `None`: nothing.
    #[must_use]
    pub fn after_forgetting(self, pair: &Pair, guest: &GuestName) -> Option<Self> {
        match (pair.other(guest), self) {
            (None, relation) => Some(relation),
            (Some(_), Self::Linked) => Some(Self::Missing(*guest)),
            // Nobody is left to whom the other one could be missing.
            (Some(other), Self::Missing(missing)) if missing == other => None,
            (Some(_), missing) => Some(missing),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec::Vec;

    fn name(text: &str) -> GuestName {
        text.parse().expect("a name")
    }

    fn pair(one: &str, other: &str) -> Pair {
        Pair::new(name(one), name(other)).expect("two names")
    }

    fn relations(ledger: &Ledger) -> Vec<(Pair, Relation)> {
        ledger.restored().relations
    }

    #[test]
    fn a_forgotten_guest_is_missing_until_the_other_is_forgotten_too() {
        let mut ledger = Ledger::default();
        for (one, other) in [("a", "b"), ("b", "c"), ("c", "d")] {
            ledger.apply(&Change::SetRelation { pair: pair(one, other), relation: Some(Relation::Linked) });
        }
        ledger.apply(&Change::SetPolicy { guest: name("b"), policy: Policy::Deny });
        let forget = |guest| Change::Forget { guest: name(guest) };
        for _ in 0..2 {
            ledger.apply(&forget("b"));
            let missing = Relation::Missing(name("b"));
            let expected =
                [(pair("a", "b"), missing), (pair("b", "c"), missing), (pair("c", "d"), Relation::Linked)];
            assert_eq!(relations(&ledger), expected);
        }
        assert!(ledger.restored().policies.is_empty());
        ledger.apply(&forget("a"));
        ledger.apply(&forget("c"));
        assert_eq!(relations(&ledger), [(pair("c", "d"), Relation::Missing(name("c")))]);
    }
}
