//! Relations and messages, as one side knows them, and since when.

use std::collections::BTreeMap;

use castra_core::boundary::Change;
use castra_core::id::GuestName;
use castra_core::peers::{Fate, MessageId, Pair, Relation};
use castra_core::time::Time;

/// What changes amount to, as far as the checks ask.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(super) struct Records {
    relations: BTreeMap<Pair, Relation>,
    messages: BTreeMap<u64, (MessageId, Fate)>,
    numbers: BTreeMap<MessageId, u64>,
}

impl Records {
    pub(super) fn apply(&mut self, change: &Change) {
        match change {
            Change::SetRelation { pair, relation: Some(relation) } => {
                self.relations.insert(*pair, *relation);
            }
            Change::SetRelation { pair, relation: None } => {
                self.relations.remove(pair);
            }
            Change::Forget { guest } => {
                self.relations.retain(|pair, relation| match (pair.other(guest), *relation) {
                    (None, _) => true,
                    (Some(_), Relation::Linked) => {
                        *relation = Relation::Missing(*guest);
                        true
                    }
                    (Some(other), Relation::Missing(missing)) => missing != other,
                });
            }
            Change::SetMessage(message) => {
                let fate = self.messages.get(&message.number).map_or(Fate::Queued, |(_, fate)| *fate);
                self.messages.insert(message.number, (message.id, fate));
                self.numbers.insert(message.id, message.number);
            }
            Change::SetFate { number, fate } => {
                if let Some((_, kept)) = self.messages.get_mut(number) {
                    *kept = *fate;
                }
            }
            Change::DropMessage { number } => {
                if let Some((id, _)) = self.messages.remove(number) {
                    self.numbers.remove(&id);
                }
            }
            _ => {}
        }
    }

    pub(super) fn relation(&self, pair: &Pair) -> Option<Relation> {
        self.relations.get(pair).copied()
    }

    pub(super) fn relations(&self) -> impl Iterator<Item = (Pair, Relation)> {
        self.relations.iter().map(|(pair, relation)| (*pair, *relation))
    }

    pub(super) fn are_linked(&self, one: GuestName, other: GuestName) -> bool {
        Pair::new(one, other).is_some_and(|pair| self.relation(&pair) == Some(Relation::Linked))
    }

    /// Records of a guest.
    pub(super) fn count(&self, guest: &GuestName) -> usize {
        self.relations.keys().filter(|pair| pair.other(guest).is_some()).count()
    }

    pub(super) fn message(&self, number: u64) -> Option<(MessageId, Fate)> {
        self.messages.get(&number).copied()
    }

    pub(super) fn find(&self, id: &MessageId) -> Option<Fate> {
        self.message(*self.numbers.get(id)?).map(|(_, fate)| fate)
    }

    pub(super) fn queued(&self) -> impl Iterator<Item = MessageId> {
        self.messages.values().filter(|(_, fate)| *fate == Fate::Queued).map(|(id, _)| *id)
    }
}

/// Since when pairs are what they are.
#[derive(Debug, Default)]
pub(super) struct Bonds(BTreeMap<Pair, Bond>);

#[derive(Debug, Default)]
struct Bond {
    /// Since when the disk and the broker both have them as peers.
    linked: Option<Time>,
    /// Since when neither has; `None`: one has.
    unlinked: Option<Time>,
    /// Since when neither has any record of the two; `None`: one has.
    strangers: Option<Time>,
}

impl Bonds {
    /// Something changed, perhaps.
    pub(super) fn update(&mut self, durable: &Records, seen: &Records, now: Time) {
        let pairs: Vec<Pair> = durable.relations().chain(seen.relations()).map(|(pair, _)| pair).collect();
        for pair in pairs {
            self.0.entry(pair).or_insert_with(|| Bond {
                linked: None,
                unlinked: Some(Time::ZERO),
                strangers: Some(Time::ZERO),
            });
        }
        for (pair, bond) in &mut self.0 {
            let both = [durable.relation(pair), seen.relation(pair)];
            let linked = both.map(|relation| relation == Some(Relation::Linked));
            since(&mut bond.linked, linked == [true; 2], now);
            since(&mut bond.unlinked, linked == [false; 2], now);
            since(&mut bond.strangers, both == [None; 2], now);
        }
    }

    /// Whether they were peers at some moment since `from`.
    pub(super) fn were_linked(&self, one: GuestName, other: GuestName, from: Time) -> bool {
        self.bond(one, other).is_some_and(|bond| bond.unlinked.is_none_or(|at| at >= from))
    }

    /// Whether there was a record of the two at some moment since `from`.
    pub(super) fn were_known(&self, one: GuestName, other: GuestName, from: Time) -> bool {
        self.bond(one, other).is_some_and(|bond| bond.strangers.is_none_or(|at| at >= from))
    }

    /// Whether they were peers all the time since `from`.
    pub(super) fn stayed_linked(&self, one: GuestName, other: GuestName, from: Time) -> bool {
        self.bond(one, other).is_some_and(|bond| bond.linked.is_some_and(|at| at < from))
    }

    /// Whether there was no record of the two all the time since `from`.
    pub(super) fn stayed_strangers(&self, one: GuestName, other: GuestName, from: Time) -> bool {
        self.bond(one, other).is_none_or(|bond| bond.strangers.is_some_and(|at| at < from))
    }

    fn bond(&self, one: GuestName, other: GuestName) -> Option<&Bond> {
        self.0.get(&Pair::new(one, other)?)
    }
}

fn since(at: &mut Option<Time>, holds: bool, now: Time) {
    *at = if holds { at.or(Some(now)) } else { None };
}
