//! Who is whose peer, and whom each guest takes: the memory of what is durable.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec::Vec;

use super::{Pair, Policy, Relation};
use crate::id::GuestName;

/// Relations and policies. A change is made here only once it is durable.
#[derive(Clone, Debug, Default)]
pub(crate) struct Registry {
    relations: BTreeMap<Pair, Relation>,
    /// Whom each guest has a relation with.
    sides: BTreeMap<GuestName, BTreeSet<GuestName>>,
    policies: BTreeMap<GuestName, Policy>,
    #[cfg(feature = "planted")]
    pub(crate) planted: Option<crate::planted::Bug>,
}

impl Registry {
    /// Whether there is nothing at all.
    pub(crate) fn is_empty(&self) -> bool {
        self.relations.is_empty() && self.policies.is_empty()
    }

    pub(crate) fn relation(&self, pair: &Pair) -> Option<Relation> {
        self.relations.get(pair).copied()
    }

    pub(crate) fn are_linked(&self, one: GuestName, other: GuestName) -> bool {
        self.sides.get(&one).is_some_and(|others| others.contains(&other))
            && Pair::new(one, other).is_some_and(|pair| self.relation(&pair) == Some(Relation::Linked))
    }

    /// Every pair with a relation.
    pub(crate) fn pairs(&self) -> impl Iterator<Item = (&Pair, Relation)> {
        self.relations.iter().map(|(pair, relation)| (pair, *relation))
    }

    /// Its peers by name, and who was one until it was forgotten.
    pub(crate) fn seen_by(&self, guest: &GuestName) -> impl Iterator<Item = (GuestName, Relation)> {
        let guest = *guest;
        self.sides.get(&guest).into_iter().flatten().filter_map(move |other| {
            let relation = self.relation(&Pair::new(guest, *other)?)?;
            (relation != Relation::Missing(guest)).then_some((*other, relation))
        })
    }

    /// Its peers, by name.
    pub(crate) fn peers_of(&self, guest: &GuestName) -> impl Iterator<Item = GuestName> {
        self.seen_by(guest).filter(|(_, relation)| *relation == Relation::Linked).map(|(other, _)| other)
    }

    /// Records of the guest, peers or not.
    pub(crate) fn count(&self, guest: &GuestName) -> usize {
        self.sides.get(guest).map_or(0, BTreeSet::len)
    }

    /// The relation is this from now on.
    pub(crate) fn set(&mut self, pair: Pair, relation: Option<Relation>) {
        let [low, high] = pair.both();
        match relation {
            Some(relation) => {
                self.relations.insert(pair, relation);
                self.sides.entry(low).or_default().insert(high);
                if !planted!(self, OneSidedPeer) {
                    self.sides.entry(high).or_default().insert(low);
                }
            }
            None => {
                self.relations.remove(&pair);
                for (one, other) in [(low, high), (high, low)] {
                    if let Some(others) = self.sides.get_mut(&one) {
                        others.remove(&other);
                        if others.is_empty() {
                            self.sides.remove(&one);
                        }
                    }
                }
            }
        }
    }

    /// How many policies there is a record of.
    pub(crate) fn policies(&self) -> usize {
        self.policies.len()
    }

    /// The guest's durable policy.
    pub(crate) fn policy(&self, guest: &GuestName) -> Policy {
        self.policies.get(guest).copied().unwrap_or_default()
    }

    pub(crate) fn set_policy(&mut self, guest: GuestName, policy: Policy) {
        if policy == Policy::Default {
            self.policies.remove(&guest);
        } else {
            self.policies.insert(guest, policy);
        }
    }

    /// The guest is forgotten, as [`crate::boundary::Change::Forget`] says. Its
    /// peers until now.
    pub(crate) fn forget(&mut self, guest: &GuestName) -> Vec<GuestName> {
        self.policies.remove(guest);
        let others: Vec<GuestName> = self.sides.get(guest).into_iter().flatten().copied().collect();
        let mut peers = Vec::new();
        for other in others {
            let Some(pair) = Pair::new(*guest, other) else { continue };
            match self.relation(&pair) {
                Some(Relation::Linked) => {
                    peers.push(other);
                    self.set(pair, Some(Relation::Missing(*guest)));
                }
                Some(Relation::Missing(missing)) if missing != *guest => self.set(pair, None),
                Some(Relation::Missing(_)) | None => {}
            }
        }
        peers
    }
}
