//! Holds what is said of peers and their messages against what is durable: on the
//! broker's disk, and on each agent's.
//!
//! | promise | what must hold |
//! |---|---|
//! | P1 | both guests of a relation see it, or neither; the broker's memory is what is durable, but for writes whose end it has not been told |
//! | P2 | what is so already is not written again; one key is one message; the answer is the same again |
//! | P3 | a message is in the inbox of whom it is for, once, in order and unchanged, or its sender is told why not; nobody hears of strangers |

mod answers;
mod frames;
mod inboxes;
mod records;

use std::collections::{BTreeMap, BTreeSet};

use castra_core::Broker;
use castra_core::boundary::Change;
use castra_core::event::Fact;
use castra_core::id::{EffectId, GuestName};
use castra_core::peers::{Expiry, Fate, Message, MessageId, Pair, Relation};
use castra_core::time::Time;

use crate::net::NodeId;
use crate::outcome::{Counts, count};

pub(crate) use answers::{Answered, Asked};
pub(crate) use frames::{MESSAGE, messages_in};
use inboxes::Kept;
use records::{Bonds, Records};

/// A broken promise.
pub(crate) type Wrong = (&'static str, String);

type Checked = Result<(), Wrong>;

/// All that is known of peers in a world.
#[derive(Debug, Default)]
pub(crate) struct Peers {
    /// On the broker's disk.
    durable: Records,
    /// As the broker has to see it: what was durable when it started, and what it
    /// was told since.
    seen: Records,
    /// Written by the broker, and the end not told.
    writes: BTreeMap<EffectId, Vec<Change>>,
    bonds: Bonds,
    letters: BTreeMap<MessageId, Letter>,
    /// Which message a key of a sender stands for.
    keys: BTreeMap<(GuestName, Box<str>), MessageId>,
    /// Texts whose senders were told that they were not taken.
    denied: BTreeSet<String>,
    inboxes: BTreeMap<NodeId, Kept>,
    /// Who wrote the messages of each of the plan's acts, and whether the operator did.
    origins: Vec<(GuestName, bool)>,
    /// Guests that ever had a key.
    pub(crate) keyed: BTreeSet<GuestName>,
    /// Messages whose fate was just decided: an event has to say so.
    untold: Vec<MessageId>,
    /// Most records of one guest.
    peers_max: usize,
    pub(crate) counts: Counts,
    now: Time,
}

/// A message that the broker took, durably.
#[derive(Debug)]
struct Letter {
    /// Its place among all.
    order: u64,
    from: GuestName,
    to: GuestName,
    authenticated: bool,
    text: Box<str>,
    key: Option<Box<str>>,
    /// What is durable of its end.
    fate: Fate,
    /// Its expiry was to be written: should that have failed, it is late if it comes.
    doomed: bool,
    sent: bool,
    /// It is or was in an inbox of its receiver.
    received: bool,
}

impl Peers {
    /// `origins`: of each of the plan's acts, whose it is, and whether the operator does it.
    pub(crate) fn new(origins: Vec<(GuestName, bool)>, peers_max: usize) -> Self {
        Self { origins, peers_max, ..Self::default() }
    }

    pub(crate) fn at(&mut self, now: Time) {
        self.now = now;
    }

    /// A broker starts on what is durable.
    pub(crate) fn begins(&mut self) {
        self.seen = self.durable.clone();
        self.writes.clear();
        self.untold.clear();
        self.bonds.update(&self.durable, &self.seen, self.now);
    }

    /// The broker's disk is gone.
    pub(crate) fn loses(&mut self) {
        self.durable = Records::default();
        self.keys.clear();
    }

    /// The broker writes.
    pub(crate) fn writes(&mut self, effect: EffectId, changes: &[Change]) -> Checked {
        let about_peers = |change: &&Change| crate::disk::is_about_peers(change);
        let changes: Vec<Change> = changes.iter().filter(about_peers).cloned().collect();
        let result = changes.iter().try_for_each(|change| self.may_write(change));
        if !changes.is_empty() {
            self.writes.insert(effect, changes);
        }
        result
    }

    fn may_write(&mut self, change: &Change) -> Checked {
        match change {
            Change::SetRelation { pair, relation } if self.seen.relation(pair) == *relation => {
                Err(("P2", format!("{} is written, and was so already", bond(pair, *relation))))
            }
            Change::SetMessage(message) => self.may_take(message),
            Change::SetFate { number, fate } => self.may_end(*number, *fate),
            _ => Ok(()),
        }
    }

    fn may_take(&self, message: &Message) -> Checked {
        let Message { number, id, from, to, .. } = message;
        match self.seen.message(*number) {
            Some((known, _)) if known == *id => Ok(()),
            Some(_) => Err(("P3", format!("message {number} is written over"))),
            None if !self.seen.are_linked(*from, *to) => {
                Err(("P3", format!("{id} is taken, and {from} and {to} are no peers")))
            }
            None => Ok(()),
        }
    }

    fn may_end(&mut self, number: u64, fate: Fate) -> Checked {
        let id = self.seen.message(number).map(|(id, _)| id);
        let Some((id, letter)) = id.and_then(|id| Some((id, self.letters.get_mut(&id)?))) else {
            return Err(("P3", format!("message {number} has a fate, and there is no such message")));
        };
        let honest = self.inboxes.values().any(|kept| kept.is_of(&letter.to));
        match fate {
            Fate::Delivered { .. } | Fate::Rejected { .. } if !honest => Ok(()),
            Fate::Delivered { .. } if !letter.received => {
                Err(("P3", format!("{id} is called delivered, and is not in the inbox of {}", letter.to)))
            }
            Fate::Rejected { .. } if letter.authenticated || letter.received => {
                Err(("P3", format!("{id} is called rejected, and its receiver has no reason to")))
            }
            Fate::Expired { .. } => {
                letter.doomed = true;
                Ok(())
            }
            _ => Ok(()),
        }
    }

    /// The broker is told how a write ended.
    pub(crate) fn written(&mut self, effect: EffectId, durable: bool) {
        let Some(changes) = self.writes.remove(&effect) else { return };
        if !durable {
            count(&mut self.counts, "not_written");
            return;
        }
        for change in &changes {
            let ends = match change {
                Change::SetFate { number, fate } => {
                    let open = |before| match before {
                        Fate::Queued => true,
                        Fate::Expired { .. } => matches!(fate, Fate::Delivered { .. }),
                        Fate::Delivered { .. } | Fate::Rejected { .. } => false,
                    };
                    self.seen.message(*number).filter(|(_, before)| open(*before))
                }
                Change::DropMessage { number } => {
                    self.seen.message(*number).filter(|(_, before)| *before == Fate::Queued)
                }
                _ => None,
            };
            self.untold.extend(ends.map(|(id, _)| id));
            self.seen.apply(change);
        }
        self.bonds.update(&self.durable, &self.seen, self.now);
    }

    /// A change became durable on the broker's disk.
    pub(crate) fn durable(&mut self, change: &Change) -> Checked {
        let result = match change {
            Change::SetMessage(message) if self.durable.message(message.number).is_none() => {
                self.take(message)
            }
            Change::SetFate { number, fate } => {
                if let Some((id, _)) = self.durable.message(*number)
                    && let Some(letter) = self.letters.get_mut(&id)
                {
                    letter.fate = *fate;
                }
                Ok(())
            }
            Change::DropMessage { number } => {
                if let Some((id, _)) = self.durable.message(*number)
                    && let Some(letter) = self.letters.get(&id)
                    && let Some(key) = &letter.key
                {
                    self.keys.remove(&(letter.from, key.clone()));
                }
                Ok(())
            }
            Change::SetRelation { .. } | Change::SetPolicy { .. } | Change::Forget { .. } => Ok(()),
            _ => Ok(()),
        };
        self.durable.apply(change);
        if matches!(change, Change::SetRelation { .. } | Change::Forget { .. }) {
            self.bonds.update(&self.durable, &self.seen, self.now);
        }
        result?;
        match change {
            Change::SetRelation { pair, .. } => {
                let most = pair.both().iter().map(|guest| self.durable.count(guest)).max().unwrap_or(0);
                if most > self.peers_max {
                    return Err((
                        "S6",
                        format!("{most} peers of one guest, with {} allowed", self.peers_max),
                    ));
                }
                Ok(())
            }
            _ => Ok(()),
        }
    }

    /// A new message is durable.
    fn take(&mut self, message: &Message) -> Checked {
        let Message { id, from, to, from_authenticated, text, key, .. } = message.clone();
        count(&mut self.counts, "taken");
        let origin = act_of(&text).and_then(|act| self.origins.get(act)).copied();
        if origin.is_none_or(|(guest, _)| guest != from) {
            return Err(("P3", format!("{id} is taken for {from}'s, and another wrote it")));
        }
        let proven = origin.is_some_and(|(_, host)| host) || self.keyed.contains(&from);
        if from_authenticated && !proven {
            return Err(("P3", format!("{from} is called proven, the sender of {id}, and has no key")));
        }
        if self.denied.contains(&*text) {
            return Err(("P3", format!("the sender of {id} was told that it was not taken, and it is")));
        }
        if let Some(key) = &key
            && let Some(other) = self.keys.insert((from, key.clone()), id)
        {
            return Err(("P2", format!("{from}'s key {key} makes two messages, {other} and {id}")));
        }
        let letter = Letter {
            order: self.letters.len() as u64,
            from,
            to,
            authenticated: from_authenticated,
            text,
            key,
            fate: Fate::Queued,
            doomed: false,
            sent: false,
            received: false,
        };
        if self.letters.insert(id, letter).is_some() {
            return Err(("P3", format!("{id} is the id of two messages")));
        }
        Ok(())
    }

    /// The broker sends a message to `guest`.
    pub(crate) fn sends(&mut self, id: &MessageId, guest: Option<GuestName>) -> Checked {
        let Some(letter) = self.letters.get_mut(id) else {
            return Err(("P3", format!("{id} is sent, and is not durable")));
        };
        let again = std::mem::replace(&mut letter.sent, true);
        if guest.is_some_and(|guest| guest != letter.to) {
            return Err(("P3", format!("{id}, which is for {}, is sent to {guest:?}", letter.to)));
        }
        let (from, to) = (letter.from, letter.to);
        match self.seen.find(id) {
            _ if !self.seen.are_linked(from, to) => {
                Err(("P3", format!("{id} is sent to {to}, and {from} is no peer of it")))
            }
            None => Err(("P3", format!("{id} is sent, and the broker has not been told that it is durable"))),
            Some(Fate::Queued) => {
                count(&mut self.counts, if again { "sent_again" } else { "sent" });
                Ok(())
            }
            Some(fate) => Err(("P3", format!("{id} is sent, and has its fate: {fate:?}"))),
        }
    }

    /// An event came out of the broker.
    pub(crate) fn event(&mut self, fact: &Fact) -> Checked {
        let (id, word, fits) = match fact {
            Fact::MessageDelivered { id, .. } => {
                (id, "delivered", self.is(id, |fate| matches!(fate, Fate::Delivered { .. })))
            }
            Fact::MessageExpired { id, reason: None, .. } => {
                (id, "rejected", self.is(id, |fate| matches!(fate, Fate::Rejected { .. })))
            }
            Fact::MessageExpired { id, reason: Some(reason), .. } => {
                let word = match reason {
                    Expiry::Ttl => "expired_ttl",
                    Expiry::Unlinked => "expired_unlinked",
                    Expiry::Policy => "expired_policy",
                    Expiry::Forgotten => "expired_forgotten",
                    Expiry::NotQueued => "expired_not_queued",
                };
                (id, word, self.is(id, |fate| matches!(fate, Fate::Expired { .. })))
            }
            _ => return Ok(()),
        };
        count(&mut self.counts, word);
        let Some(at) = self.untold.iter().position(|other| other == id) else {
            return Err(("P3", format!("{id} is said to be {word}, and nothing of that became durable")));
        };
        self.untold.swap_remove(at);
        if fits { Ok(()) } else { Err(("P3", format!("{id} is said to be {word}, and is not"))) }
    }

    /// Whether a message's fate is such; of one without a record nobody knows any more.
    fn is(&self, id: &MessageId, such: impl Fn(Fate) -> bool) -> bool {
        self.seen.find(id).is_none_or(such)
    }

    /// The broker has said everything.
    pub(crate) fn check(&mut self, broker: &Broker) -> Checked {
        if let Some(id) = self.untold.pop() {
            self.untold.clear();
            return Err(("P3", format!("{id} has its fate, and nobody is told")));
        }
        let mut relations = self.seen.relations();
        for (pair, relation, [low, high]) in broker.relations() {
            let expected = relations.next();
            let linked = relation == Relation::Linked;
            if (low, high) != (linked, linked) {
                let [one, other] = pair.both();
                let text =
                    format!("{one} and {other} are {relation:?}: {one} sees {low}, {other} sees {high}");
                return Err(("P1", text));
            }
            if expected != Some((pair, relation)) {
                let expected = expected.map(|(pair, relation)| bond(&pair, Some(relation)));
                let text = format!("{}, and by the disk {expected:?}", bond(&pair, Some(relation)));
                return Err(("P1", text));
            }
        }
        match relations.next() {
            Some((pair, relation)) => Err((
                "P1",
                format!("{} on the disk, and the broker doesn't know", bond(&pair, Some(relation))),
            )),
            None => Ok(()),
        }
    }

    /// Nothing is on its way any more: memory is what is durable.
    pub(crate) fn rests(&self) -> Checked {
        if self.writes.is_empty() && self.seen != self.durable {
            return Err(("P1", "the broker's memory and its disk went apart".to_owned()));
        }
        Ok(())
    }

    /// Messages that have yet to be delivered, to somebody who `takes` them.
    pub(crate) fn owed(
        &self,
        takes: impl Fn(&GuestName) -> bool,
    ) -> impl Iterator<Item = (MessageId, GuestName)> {
        let queued = self.seen.queued().filter_map(|id| Some((id, self.letters.get(&id)?)));
        queued
            .filter(move |(_, letter)| takes(&letter.to) && self.seen.are_linked(letter.from, letter.to))
            .map(|(id, letter)| (id, letter.to))
    }
}

/// The number of the act that wrote a text.
fn act_of(text: &str) -> Option<usize> {
    text.strip_prefix('m')?.split('.').next()?.parse().ok()
}

fn bond(pair: &Pair, relation: Option<Relation>) -> String {
    let [one, other] = pair.both();
    match relation {
        Some(Relation::Linked) => format!("{one} and {other} are linked"),
        Some(Relation::Missing(missing)) => format!("{one} and {other} were linked, {missing} is missing"),
        None => format!("{one} and {other} are nothing to each other"),
    }
}
