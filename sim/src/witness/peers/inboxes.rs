//! What is durable in the inboxes of agents.

use std::collections::{BTreeMap, BTreeSet};

use castra_core::boundary::Change;
use castra_core::id::GuestName;
use castra_core::peers::{Fate, MessageId, Received};

use super::{Checked, Peers};
use crate::net::NodeId;
use crate::outcome::count;

/// The disk of one agent.
#[derive(Clone, Debug)]
pub(super) struct Kept {
    guest: GuestName,
    /// Most messages.
    most: usize,
    /// Only from senders with a key.
    strict: bool,
    held: BTreeMap<u64, MessageId>,
    /// Everything that was ever in it.
    ever: BTreeSet<MessageId>,
    acknowledged: BTreeSet<MessageId>,
    /// The newest of each sender.
    newest: BTreeMap<GuestName, u64>,
}

impl Kept {
    pub(super) fn is_of(&self, guest: &GuestName) -> bool {
        self.guest == *guest
    }
}

impl Peers {
    /// An agent has a disk; a twin's is what its original's was.
    pub(crate) fn add_inbox(
        &mut self,
        node: NodeId,
        guest: GuestName,
        (most, strict): (usize, bool),
        original: Option<NodeId>,
    ) {
        let kept = original.and_then(|original| self.inboxes.get(&original).cloned()).unwrap_or(Kept {
            guest,
            most,
            strict,
            held: BTreeMap::new(),
            ever: BTreeSet::new(),
            acknowledged: BTreeSet::new(),
            newest: BTreeMap::new(),
        });
        self.inboxes.insert(node, kept);
    }

    /// Changes became durable on an agent's disk.
    pub(crate) fn received(&mut self, node: NodeId, changes: &[Change]) -> Checked {
        for change in changes {
            match change {
                Change::SetReceived(message) => self.receive(node, message)?,
                Change::DropReceived { number } => {
                    if let Some(kept) = self.inboxes.get_mut(&node)
                        && kept.held.remove(number).is_some()
                    {
                        count(&mut self.counts, "made_room");
                    }
                }
                _ => {}
            }
        }
        match self.inboxes.get(&node) {
            Some(kept) if kept.held.len() > kept.most => {
                let text = format!("{} messages in the inbox of {}", kept.held.len(), kept.guest);
                Err(("S6", text))
            }
            _ => Ok(()),
        }
    }

    fn receive(&mut self, node: NodeId, message: &Received) -> Checked {
        let Received { number, id, from, from_authenticated, text, .. } = message;
        let Some(kept) = self.inboxes.get_mut(&node) else { return Ok(()) };
        let guest = kept.guest;
        if kept.held.get(number) == Some(id) {
            // The end of its first write was not known.
            count(&mut self.counts, "written_again");
            return Ok(());
        }
        if let Some(other) = kept.held.insert(*number, *id) {
            return Err(("P3", format!("{id} is written over {other} in the inbox of {guest}")));
        }
        if !kept.ever.insert(*id) {
            return Err(("P3", format!("{id} is in the inbox of {guest} twice")));
        }
        let Some(letter) = self.letters.get_mut(id) else {
            return Err(("P3", format!("{id} is in the inbox of {guest}, and nobody sent it")));
        };
        let wrong = |what: &str| Err(("P3", format!("{id} is in the inbox of {guest}: {what}")));
        letter.received = true;
        if letter.to != guest {
            return wrong(&format!("it is for {}", letter.to));
        }
        if (letter.from, letter.authenticated) != (*from, *from_authenticated) {
            return wrong(&format!("it is from {}, not from {from}", letter.from));
        }
        if letter.text != *text {
            return wrong("it was changed on its way");
        }
        if kept.strict && !letter.authenticated {
            return wrong("its sender is not proven with a key");
        }
        if matches!(letter.fate, Fate::Rejected { .. }) {
            return wrong("its sender was told that it was rejected");
        }
        let newest = kept.newest.entry(*from).or_insert(letter.order);
        if *newest > letter.order && !letter.doomed {
            return wrong("a later one of its sender's came before it");
        }
        *newest = letter.order.max(*newest);
        count(&mut self.counts, "received");
        Ok(())
    }

    /// An agent acknowledges a message.
    pub(crate) fn acknowledges(&mut self, node: NodeId, id: &MessageId, rejected: bool) -> Checked {
        let Some(kept) = self.inboxes.get_mut(&node).filter(|_| !rejected) else { return Ok(()) };
        if !kept.ever.contains(id) {
            return Err(("P3", format!("{} acknowledges {id}, which is not in its inbox", kept.guest)));
        }
        if !kept.acknowledged.insert(*id) {
            count(&mut self.counts, "acknowledged_again");
        }
        Ok(())
    }

    /// Whether a guest keeps what it says that it keeps: others may say anything.
    pub(super) fn is_honest(&self, guest: &GuestName) -> bool {
        self.inboxes.values().any(|kept| kept.is_of(guest))
    }

    /// Whether a message was ever durable in an agent's inbox.
    pub(super) fn has_received(&self, node: NodeId, id: &MessageId) -> bool {
        self.inboxes.get(&node).is_some_and(|kept| kept.ever.contains(id))
    }
}
