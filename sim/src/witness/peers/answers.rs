//! What was told to those who asked.

use castra_core::control::reply::InboxMessage;
use castra_core::id::GuestName;
use castra_core::peers::{Fate, Listed, MessageId, Outcome};
use castra_core::time::Time;

use super::{Checked, Peers};
use crate::net::NodeId;

/// A request, and whoever made it.
#[derive(Clone, Debug)]
pub(crate) struct Asked {
    /// In whose name.
    pub(crate) guest: GuestName,
    /// With whom.
    pub(crate) other: Option<GuestName>,
    /// The agent that was asked; `None`: the broker was.
    pub(crate) agent: Option<NodeId>,
    pub(crate) began: Time,
    /// Of a message: its text, its key, whether it may wait.
    pub(crate) text: String,
    pub(crate) key: Option<String>,
    pub(crate) queue: bool,
}

/// What it came to.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Answered<'a> {
    /// An outcome, of this message.
    Message(MessageId, Outcome),
    /// An error, by its word.
    Error(&'a str),
}

impl Peers {
    /// Somebody was told what became of its message.
    pub(crate) fn told_of_message(&mut self, asked: &Asked, answered: Answered<'_>) -> Checked {
        match answered {
            Answered::Message(id, outcome) => self.told_outcome(asked, id, outcome),
            Answered::Error(word) => self.told_error(asked, word),
        }
    }

    fn told_outcome(&self, asked: &Asked, id: MessageId, outcome: Outcome) -> Checked {
        let guest = asked.guest;
        let Some(letter) = self.letters.get(&id) else {
            return Err(("P3", format!("{guest} is told {outcome} of {id}, which is not durable")));
        };
        let again = asked.key.as_deref().is_some_and(|key| letter.key.as_deref() == Some(key));
        if letter.from != guest || (*letter.text != *asked.text && !again) {
            return Err(("P2", format!("{guest} is told of {id}, which is another message")));
        }
        let so = match outcome {
            Outcome::Delivered => letter.received || !self.is_honest(&letter.to),
            Outcome::Expired => matches!(letter.fate, Fate::Expired { .. }) || letter.received,
            Outcome::Rejected => matches!(letter.fate, Fate::Rejected { .. }),
            _ => true,
        };
        // What has no record any more is not looked at again: its time was over.
        if so || (outcome != Outcome::Delivered && self.durable.find(&id).is_none()) {
            return Ok(());
        }
        Err(("P3", format!("{guest} is told {outcome} of {id}, and it is {:?}", letter.fate)))
    }

    fn told_error(&mut self, asked: &Asked, word: &str) -> Checked {
        let never = match word {
            "full" | "not_peer" | "too_large" | "self" | "unknown" => true,
            "storage_failed" => asked.queue,
            "not_reachable" => asked.agent.is_none(),
            _ => false,
        };
        if !never {
            return Ok(());
        }
        let taken = self.letters.iter().find(|(_, letter)| *letter.text == *asked.text);
        match taken {
            // That its expiry was not durable is what it was told.
            Some((_, letter)) if word == "storage_failed" && letter.doomed => Ok(()),
            Some((id, _)) => {
                Err(("P3", format!("{} is told {word}, and {id} was taken all the same", asked.guest)))
            }
            None => {
                self.denied.insert(asked.text.clone());
                Ok(())
            }
        }
    }

    /// Somebody was told what two guests are to each other.
    pub(crate) fn told_of_relation(&self, asked: &Asked, register: bool, word: &str) -> Checked {
        let Asked { guest, began, agent, .. } = *asked;
        let Some(other) = asked.other else { return Ok(()) };
        let linked = self.bonds.stayed_linked(guest, other, began);
        match word {
            "registered" if !self.bonds.were_linked(guest, other, began) => {
                Err(("P1", format!("{guest} and {other} are said to be peers, and are not")))
            }
            "unregistered" if linked => {
                Err(("P1", format!("{guest} and {other} are said to be no peers, and are")))
            }
            // What is so already is said to be so, whatever else goes on.
            "rejected" | "full" | "storage_failed" | "ambiguous" if register && linked => {
                Err(("P2", format!("{guest} and {other} are peers, and to register them again is {word}")))
            }
            "busy" if register && linked && agent.is_none() => {
                Err(("P2", format!("{guest} and {other} are peers, and to register them again is {word}")))
            }
            "storage_failed" if !register && self.bonds.stayed_strangers(guest, other, began) => {
                Err(("P2", format!("{guest} and {other} are no peers, and to unregister them is {word}")))
            }
            _ => Ok(()),
        }
    }

    /// Somebody was told whom a guest knows.
    pub(crate) fn listed(&self, asked: &Asked, rows: &[Listed]) -> Checked {
        let Asked { guest, began, .. } = *asked;
        if rows.first().is_none_or(|row| row.name != guest) {
            return Err(("P3", format!("a list for {guest} does not begin with itself")));
        }
        let stranger = rows[1..].iter().find(|row| !self.bonds.were_known(guest, row.name, began));
        match stranger {
            Some(row) => Err(("P3", format!("{} is listed for {guest}, which does not know it", row.name))),
            None => Ok(()),
        }
    }

    /// A guest was told how another is, and who that one's peers are.
    pub(crate) fn looked(&self, asked: &Asked, name: GuestName, peers: &[GuestName]) -> Checked {
        let Asked { guest, began, .. } = *asked;
        let knows = |other: GuestName| other == guest || self.bonds.were_linked(guest, other, began);
        match core::iter::once(name).chain(peers.iter().copied()).find(|other| !knows(*other)) {
            Some(other) => Err(("P3", format!("{guest} is told of {other}, which is no peer of it"))),
            None => Ok(()),
        }
    }

    /// Somebody was shown messages of a guest's inbox.
    pub(crate) fn shown(&self, asked: &Asked, messages: &[InboxMessage]) -> Checked {
        for message in messages {
            let id = message.id;
            let wrong = |what: &str| Err(("P3", format!("{id} is shown of {}'s inbox: {what}", asked.guest)));
            let Some(letter) = self.letters.get(&id) else { return wrong("nobody sent it") };
            if letter.to != asked.guest || letter.from != message.from || *letter.text != *message.text {
                return wrong("it is another's, or was changed");
            }
            let there = match asked.agent {
                Some(node) => self.has_received(node, &id),
                None => message.delivered_at.is_none() || letter.received || !self.is_honest(&letter.to),
            };
            if !there {
                return wrong("it is not there");
            }
        }
        Ok(())
    }
}
