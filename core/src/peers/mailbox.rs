//! Messages: what waits for whom, what became of the rest, and the bounds of both.

use alloc::boxed::Box;
use alloc::collections::{BTreeMap, BTreeSet, VecDeque};
use alloc::vec::Vec;
use core::time::Duration;

use super::{Fate, Message, MessageId, Outcome, PeerSettings};
use crate::id::GuestName;
use crate::time::{Now, Time, WallTime};

/// What a record costs beside its text, reckoned.
const RECORD_BYTES: usize = 512;

/// All messages of a broker.
#[derive(Clone, Debug, Default)]
pub(crate) struct Mailbox {
    messages: BTreeMap<u64, Kept>,
    /// The messages to each guest.
    inboxes: BTreeSet<(GuestName, u64)>,
    ids: BTreeMap<MessageId, u64>,
    /// Which message a sender's key stands for; also of one on its way to the disk.
    keys: BTreeMap<(GuestName, Box<str>), u64>,
    ways: BTreeMap<(GuestName, GuestName), Way>,
    /// What waits for each guest, in order.
    queues: BTreeMap<GuestName, BTreeSet<u64>>,
    /// What was delivered since this broker started, in that order.
    delivered: BTreeMap<(GuestName, u64), u64>,
    deliveries: u64,
    /// When each message leaves.
    expiry: BTreeSet<(Time, u64)>,
    /// Of all messages, those on their way to the disk included.
    bytes: usize,
    /// Of them, those of senders that are not proven with a key.
    unproven: usize,
    last_number: u64,
}

/// A message, and where else it is known.
#[derive(Clone, Debug)]
struct Kept {
    message: Message,
    leaves: Time,
    delivery: Option<u64>,
    /// It is to expire: it isn't sent any more.
    doom: Option<Doom>,
    /// Its acknowledgement is on its way to the disk.
    settling: bool,
    /// Its end is on its way to the disk.
    leaving: bool,
}

/// What a message is to end by.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Doom {
    /// The two part, if that gets to the disk.
    Unlink,
    /// It expires: that is tried until it gets to the disk.
    Expiry,
}

/// From one guest to another.
#[derive(Clone, Debug, Default)]
struct Way {
    queued: usize,
    queued_bytes: usize,
    /// Ended, with their text still kept; oldest first.
    ended: VecDeque<u64>,
    last_sent_at: Option<WallTime>,
    last_delivered_at: Option<WallTime>,
}

/// What the two ends of a way last did, and what waits.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Traffic {
    pub(crate) queued: u64,
    pub(crate) last_sent_at: Option<WallTime>,
    pub(crate) last_delivered_at: Option<WallTime>,
}

/// A message as its sender brings it.
#[derive(Clone, Debug)]
pub(crate) struct Draft {
    pub(crate) from: GuestName,
    pub(crate) to: GuestName,
    pub(crate) from_authenticated: bool,
    pub(crate) text: Box<str>,
    pub(crate) wake: bool,
    pub(crate) key: Option<Box<str>>,
}

impl Mailbox {
    /// What was found at start. The age of a message is the wall clock's, once;
    /// from here on the boot clock counts.
    pub(crate) fn restore(&mut self, messages: Vec<Message>, now: Now, ttl: Duration) {
        for message in messages {
            let age = now.wall.unix_millis().saturating_sub(message.sent_at.unix_millis());
            let age = Duration::from_millis(u64::try_from(age).unwrap_or(0)).min(ttl);
            self.charge(&message);
            self.last_number = self.last_number.max(message.number);
            if let Some(key) = &message.key {
                self.keys.insert((message.from, key.clone()), message.number);
            }
            if message.fate == Fate::Queued {
                let way = self.ways.entry((message.from, message.to)).or_default();
                way.queued += 1;
                way.queued_bytes += message.text.len();
            }
            self.insert(message, now.boot + (ttl - age));
        }
    }

    /// Takes a message in, on its way to the disk.
    ///
    /// # Errors
    /// What is full.
    pub(crate) fn admit(
        &mut self,
        settings: &PeerSettings,
        draft: Draft,
        id: MessageId,
        at: WallTime,
    ) -> Result<Box<Message>, Outcome> {
        let Draft { from, to, from_authenticated, text, wake, key } = draft;
        let way = self.ways.entry((from, to)).or_default();
        let message = Message {
            number: self.last_number + 1,
            id,
            from,
            to,
            from_authenticated,
            text,
            sent_at: at,
            wake,
            key,
            fate: Fate::Queued,
        };
        let full = way.queued >= settings.queue_messages
            || way.queued_bytes + message.text.len() > settings.queue_bytes
            || self.bytes + cost(&message) > settings.mail_bytes_max
            || (!from_authenticated && self.unproven + cost(&message) > settings.mail_bytes_unproven);
        if full {
            return Err(Outcome::Full);
        }
        way.queued += 1;
        way.queued_bytes += message.text.len();
        self.charge(&message);
        self.last_number += 1;
        if let Some(key) = &message.key {
            self.keys.insert((from, key.clone()), message.number);
        }
        Ok(Box::new(message))
    }

    /// An admitted message did not get to the disk.
    pub(crate) fn release(&mut self, message: &Message) {
        self.leave_queue((message.from, message.to), message.text.len());
        self.refund(message.from_authenticated, cost(message));
        if let Some(key) = &message.key {
            self.keys.remove(&(message.from, key.clone()));
        }
    }

    /// An admitted message is durable.
    pub(crate) fn insert(&mut self, message: Message, leaves: Time) {
        let number = message.number;
        self.ids.insert(message.id, number);
        self.expiry.insert((leaves, number));
        let way = self.ways.entry((message.from, message.to)).or_default();
        way.last_sent_at = way.last_sent_at.max(Some(message.sent_at));
        match message.fate {
            Fate::Queued => {
                self.queues.entry(message.to).or_default().insert(number);
            }
            Fate::Delivered { at } => way.last_delivered_at = way.last_delivered_at.max(Some(at)),
            Fate::Rejected { .. } | Fate::Expired { .. } => {}
        }
        if message.fate != Fate::Queued && !is_blank(&message) {
            way.ended.push_back(number);
        }
        self.inboxes.insert((message.to, number));
        let kept = Kept { message, leaves, delivery: None, doom: None, settling: false, leaving: false };
        self.messages.insert(number, kept);
    }

    /// What became of a message is durable. False: it was so already, or it is gone.
    pub(crate) fn settle(&mut self, number: u64, fate: Fate) -> bool {
        let Some(kept) = self.messages.get_mut(&number) else { return false };
        let message = &mut kept.message;
        let before = message.fate;
        // What is in an inbox stays there, whatever is decided later.
        let final_already = matches!(before, Fate::Delivered { .. } | Fate::Rejected { .. });
        if before == fate || final_already {
            return false;
        }
        message.fate = fate;
        let (from, to, bytes) = (message.from, message.to, message.text.len());
        if let Fate::Delivered { .. } = fate {
            self.deliveries += 1;
            kept.delivery = Some(self.deliveries);
            self.delivered.insert((to, self.deliveries), number);
        }
        if before == Fate::Queued {
            self.leave_queue((from, to), bytes);
            if let Some(queue) = self.queues.get_mut(&to) {
                queue.remove(&number);
                if queue.is_empty() {
                    self.queues.remove(&to);
                }
            }
        }
        let way = self.ways.entry((from, to)).or_default();
        if before == Fate::Queued {
            way.ended.push_back(number);
        }
        if let Fate::Delivered { at } = fate {
            way.last_delivered_at = way.last_delivered_at.max(Some(at));
        }
        true
    }

    fn leave_queue(&mut self, way: (GuestName, GuestName), bytes: usize) {
        if let Some(way) = self.ways.get_mut(&way) {
            way.queued -= 1;
            way.queued_bytes -= bytes;
        }
    }

    /// Takes out the oldest ended message of a way that keeps more texts than it may.
    pub(crate) fn take_overdue(&mut self, way: (GuestName, GuestName), most: usize) -> Option<u64> {
        let ended = &mut self.ways.get_mut(&way)?.ended;
        if ended.len() > most { ended.pop_front() } else { None }
    }

    /// The text of an ended message could not be taken away: it is the next to go.
    pub(crate) fn keep_text(&mut self, number: u64) {
        let Some(message) = self.get(number) else { return };
        let way = (message.from, message.to);
        self.ways.entry(way).or_default().ended.push_front(number);
    }

    /// An ended message without its text, if its key has to be remembered.
    pub(crate) fn trimmed(&self, number: u64) -> Option<Message> {
        let message = self.get(number).filter(|message| message.key.is_some())?;
        Some(Message { text: Box::default(), ..message.clone() })
    }

    /// The text of an ended message is durably gone.
    pub(crate) fn blank(&mut self, number: u64) {
        let Some(Kept { message, delivery, .. }) = self.messages.get_mut(&number) else { return };
        let (proven, bytes) = (message.from_authenticated, message.text.len());
        message.text = Box::default();
        if let Some(delivery) = delivery.take() {
            self.delivered.remove(&(message.to, delivery));
        }
        self.refund(proven, bytes);
    }

    fn charge(&mut self, message: &Message) {
        self.bytes += cost(message);
        if !message.from_authenticated {
            self.unproven += cost(message);
        }
    }

    const fn refund(&mut self, proven: bool, bytes: usize) {
        self.bytes -= bytes;
        if !proven {
            self.unproven -= bytes;
        }
    }

    /// A record is durably gone.
    pub(crate) fn remove(&mut self, number: u64) -> Option<Message> {
        let Kept { message, leaves, delivery, .. } = self.messages.remove(&number)?;
        let way = (message.from, message.to);
        self.ids.remove(&message.id);
        self.expiry.remove(&(leaves, number));
        self.inboxes.remove(&(message.to, number));
        self.refund(message.from_authenticated, cost(&message));
        if let Some(key) = &message.key {
            self.keys.remove(&(message.from, key.clone()));
        }
        if message.fate == Fate::Queued {
            self.leave_queue(way, message.text.len());
            if let Some(queue) = self.queues.get_mut(&message.to) {
                queue.remove(&number);
                if queue.is_empty() {
                    self.queues.remove(&message.to);
                }
            }
        }
        if let Some(delivery) = delivery {
            self.delivered.remove(&(message.to, delivery));
        }
        if let Some(kept) = self.ways.get_mut(&way) {
            kept.ended.retain(|other| *other != number);
        }
        Some(message)
    }

    /// Nothing goes this way any more; what is left of it is forgotten once it is empty.
    pub(crate) fn tidy(&mut self, way: (GuestName, GuestName)) {
        if self.ways.get(&way).is_some_and(|kept| kept.queued == 0 && kept.ended.is_empty()) {
            self.ways.remove(&way);
        }
    }

    pub(crate) fn get(&self, number: u64) -> Option<&Message> {
        self.messages.get(&number).map(|kept| &kept.message)
    }

    pub(crate) fn find(&self, id: &MessageId) -> Option<&Message> {
        self.get(*self.ids.get(id)?)
    }

    /// The number of the message that the sender's key stands for.
    pub(crate) fn by_key(&self, from: GuestName, key: &str) -> Option<u64> {
        self.keys.get(&(from, Box::from(key))).copied()
    }

    /// What waits for a guest.
    pub(crate) fn queue(&self, to: &GuestName) -> impl Iterator<Item = u64> {
        self.queues.get(to).into_iter().flatten().copied()
    }

    /// What of it may be sent.
    pub(crate) fn sendable(&self, to: &GuestName) -> impl Iterator<Item = &Message> {
        self.queue(to).filter_map(|number| self.unheld(number))
    }

    /// A message, unless it is to expire.
    pub(crate) fn unheld(&self, number: u64) -> Option<&Message> {
        let kept = self.messages.get(&number).filter(|kept| kept.doom.is_none() && !kept.leaving)?;
        Some(&kept.message)
    }

    /// A message is to end so; false: it is to expire already.
    pub(crate) fn doom(&mut self, number: u64, doom: Doom) -> bool {
        let Some(kept) = self.messages.get_mut(&number) else { return false };
        let before = kept.doom;
        if before != Some(Doom::Expiry) {
            kept.doom = Some(doom);
        }
        before != Some(Doom::Expiry)
    }

    /// The two did not part: the message goes on, unless it is to expire anyway.
    pub(crate) fn spare(&mut self, number: u64) {
        if let Some(kept) = self.messages.get_mut(&number) {
            kept.doom.take_if(|doom| *doom == Doom::Unlink);
        }
    }

    /// A message is acknowledged; false: it was already, however often it is said.
    pub(crate) fn begin_settling(&mut self, number: u64) -> bool {
        let Some(kept) = self.messages.get_mut(&number) else { return false };
        let open = matches!(kept.message.fate, Fate::Queued | Fate::Expired { .. });
        open && !core::mem::replace(&mut kept.settling, true)
    }

    /// The acknowledgement did not get to the disk.
    pub(crate) fn unsettle(&mut self, number: u64) {
        if let Some(kept) = self.messages.get_mut(&number) {
            kept.settling = false;
        }
    }

    /// A message is to leave, or is not after all; false: it is so already.
    pub(crate) fn set_leaving(&mut self, number: u64, leaving: bool) -> bool {
        let kept = self.messages.get_mut(&number);
        kept.is_some_and(|kept| core::mem::replace(&mut kept.leaving, leaving) != leaving)
    }

    /// Whether anything waits for a guest.
    pub(crate) fn has_mail(&self, to: &GuestName) -> bool {
        self.queues.contains_key(to)
    }

    /// What waits between two guests, both ways.
    pub(crate) fn queued_between(&self, one: &GuestName, other: &GuestName) -> Vec<u64> {
        let way = |from: &GuestName, to: &GuestName| {
            let from = *from;
            self.queue(to)
                .filter(move |number| self.get(*number).is_some_and(|message| message.from == from))
                .collect::<Vec<_>>()
        };
        let mut numbers = way(one, other);
        numbers.extend(way(other, one));
        numbers
    }

    /// Everybody for whom something waits.
    pub(crate) fn receivers(&self) -> impl Iterator<Item = GuestName> {
        self.queues.keys().copied()
    }

    pub(crate) fn traffic(&self, from: GuestName, to: GuestName) -> Traffic {
        self.ways.get(&(from, to)).map_or_else(Traffic::default, |way| Traffic {
            queued: way.queued as u64,
            last_sent_at: way.last_sent_at,
            last_delivered_at: way.last_delivered_at,
        })
    }

    /// The messages of an inbox after one: waiting or delivered, with their text.
    pub(crate) fn inbox(&self, to: GuestName, after: u64) -> impl DoubleEndedIterator<Item = &Message> {
        let shown = |message: &&Message| {
            message.fate == Fate::Queued
                || matches!(message.fate, Fate::Delivered { .. }) && !is_blank(message)
        };
        let range = self.inboxes.range((to, after + 1)..=(to, u64::MAX));
        range.filter_map(|(_, number)| self.get(*number)).filter(shown)
    }

    /// The last delivery so far.
    pub(crate) const fn deliveries(&self) -> u64 {
        self.deliveries
    }

    /// The first delivery to a guest after one of this broker's.
    pub(crate) fn delivered_after(&self, to: GuestName, after: u64) -> Option<(u64, &Message)> {
        let (&(_, place), number) = self.delivered.range((to, after + 1)..=(to, u64::MAX)).next()?;
        Some((place, self.get(*number)?))
    }

    /// When the next message leaves, and which.
    pub(crate) fn next_to_leave(&self) -> Option<(Time, u64)> {
        self.expiry.first().copied()
    }

    /// The message's leaving is put off.
    pub(crate) fn postpone(&mut self, at: Time, number: u64, until: Time) {
        if let Some(kept) = self.messages.get_mut(&number)
            && self.expiry.remove(&(at, number))
        {
            kept.leaves = until;
            self.expiry.insert((until, number));
        }
    }

    /// Bytes of all messages, and how many there are.
    pub(crate) fn size(&self) -> (usize, usize) {
        (self.bytes, self.messages.len())
    }
}

/// Whether of an ended message only the record is kept.
fn is_blank(message: &Message) -> bool {
    message.text.is_empty() && message.key.is_some()
}

fn cost(message: &Message) -> usize {
    message.text.len() + message.key.as_ref().map_or(0, |key| key.len()) + RECORD_BYTES
}
