//! Operations on their way to the disk, and what follows once they are there.

use alloc::vec::Vec;

use super::lanes::Op;
use super::machine::Peers;
use super::mailbox::Doom;
use super::requests::{Answer, Kind};
use super::wire::PeerFrame;
use super::{Expiry, Fate, Message, Outcome, Pair, Relation};
use crate::boundary::{Change, Effect, EffectError};
use crate::broker::cx::Cx;
use crate::broker::guests::Guests;
use crate::event::{Fact, MESSAGE_MAX, Storage, shortened};
use crate::id::{EffectId, GuestName};

impl Peers {
    /// Writes what waits for the pair, unless a write of it is on its way.
    pub(super) fn advance(&mut self, cx: &mut Cx, guests: &Guests, pair: Pair) {
        loop {
            let group = self.lanes.take(&pair);
            if group.is_empty() {
                return;
            }
            let mut changes = Vec::new();
            let mut kept = Vec::new();
            for op in group {
                if let Some(op) = self.prepare(cx, guests, pair, op, &mut changes) {
                    kept.push(op);
                }
            }
            if !kept.is_empty() {
                let effect = cx.out.effect(Effect::Persist(changes));
                return self.lanes.begin(pair, effect, kept);
            }
        }
    }

    /// What an operation changes, as things are now; `None`: nothing, and whoever
    /// waits has been answered.
    fn prepare(
        &mut self,
        cx: &mut Cx,
        guests: &Guests,
        pair: Pair,
        op: Op,
        changes: &mut Vec<Change>,
    ) -> Option<Op> {
        let relation = guests.relations.relation(&pair);
        match op {
            // Whoever was told that it failed, or left, must not find it done later.
            Op::Link { command, .. } | Op::Unlink { command, .. } if self.requests.get(command).is_none() => {
                None
            }
            Op::Link { command, source } => {
                let target = pair.other(&source)?;
                if pair.both().iter().any(|guest| guests.find(guest).is_none()) {
                    if self.requests.get(command).is_some_and(|request| request.asker.is_guest()) {
                        self.refuse(cx, command, "unknown");
                    } else {
                        self.conclude(cx, command, Answer::new(Outcome::Unknown).about(target, source));
                    }
                    return None;
                }
                if relation == Some(Relation::Linked) {
                    self.conclude(cx, command, Answer::new(Outcome::Registered).about(target, source));
                    return None;
                }
                let most = cx.config.peers.peers_max;
                if relation.is_none() && pair.both().iter().any(|guest| self.count(guests, guest) >= most) {
                    if self.requests.get(command).is_some_and(|request| request.asker.is_guest()) {
                        self.refuse(cx, command, "full");
                    } else {
                        let answer = Answer::new(Outcome::Full).about(target, source);
                        self.conclude(cx, command, answer.because("too many peers"));
                    }
                    return None;
                }
                changes.push(Change::SetRelation { pair, relation: Some(Relation::Linked) });
                Some(Op::Link { command, source })
            }
            Op::Unlink { command, source, .. } => {
                if relation.is_none() {
                    let answer = Answer::new(Outcome::Unregistered).about(pair.other(&source)?, source);
                    self.conclude(cx, command, answer);
                    return None;
                }
                let [low, high] = pair.both();
                let mut expired = self.mailbox.queued_between(&low, &high);
                if planted!(cx.config, UnlinkKeepsMail) {
                    expired.clear();
                }
                for number in &expired {
                    self.mailbox.doom(*number, Doom::Unlink);
                }
                changes.push(Change::SetRelation { pair, relation: None });
                let fate = Fate::Expired { at: cx.now.wall, why: Expiry::Unlinked };
                changes.extend(expired.iter().map(|number| Change::SetFate { number: *number, fate }));
                Some(Op::Unlink { command, source, expired })
            }
            Op::Send { command, message, queue } => {
                // Whoever brought it may have left; whoever brought it again waits.
                let wanted = self.requests.is_awaited(message.number);
                if !wanted || relation != Some(Relation::Linked) {
                    self.mailbox.release(&message);
                    let answer = Answer::new(Outcome::NotPeer).about(message.to, message.from);
                    for id in self.requests.of_message(message.number) {
                        self.conclude(cx, id, answer.clone());
                    }
                    return None;
                }
                changes.push(Change::SetMessage(message.clone()));
                Some(Op::Send { command, message, queue })
            }
            Op::Settle { number, fate } => {
                let before = self.mailbox.get(number)?.fate;
                let arrived = matches!(fate, Fate::Delivered { .. });
                // What expired may have been in the inbox all the while.
                let counts = before == Fate::Queued || (arrived && matches!(before, Fate::Expired { .. }));
                counts.then(|| {
                    changes.push(Change::SetFate { number, fate });
                    Op::Settle { number, fate }
                })
            }
            Op::Trim { number } => {
                let message = self.mailbox.get(number)?;
                changes.push(match self.mailbox.trimmed(number) {
                    Some(_) if message.text.is_empty() => return None,
                    Some(trimmed) => Change::SetMessage(trimmed.into()),
                    None => Change::DropMessage { number },
                });
                Some(Op::Trim { number })
            }
            Op::Leave { number } => {
                self.mailbox.get(number)?;
                changes.push(Change::DropMessage { number });
                Some(Op::Leave { number })
            }
        }
    }

    /// Records of the guest, those that are being written included.
    fn count(&self, guests: &Guests, guest: &GuestName) -> usize {
        let fresh = |pair: &&Pair| pair.other(guest).is_some() && guests.relations.relation(pair).is_none();
        guests.relations.count(guest) + self.lanes.linking().filter(fresh).count()
    }

    /// An effect of ours ended; false: it isn't ours.
    pub(crate) fn on_done(
        &mut self,
        cx: &mut Cx,
        guests: &mut Guests,
        effect: EffectId,
        result: &Result<(), EffectError>,
    ) -> bool {
        if self.on_policy_done(cx, guests, effect, result.is_ok()) {
            self.note_failure(cx, result);
            return true;
        }
        let Some((pair, ops)) = self.lanes.end(effect) else { return false };
        for op in ops {
            match result {
                Ok(()) => self.apply(cx, guests, pair, op),
                Err(_) if planted!(cx.config, CommitFailureIgnored) => self.apply(cx, guests, pair, op),
                Err(error) => self.undo(cx, op, error),
            }
        }
        self.note_failure(cx, result);
        self.advance(cx, guests, pair);
        true
    }

    fn note_failure(&self, cx: &mut Cx, result: &Result<(), EffectError>) {
        if let Err(error) = result {
            let message = shortened(&error.message, MESSAGE_MAX);
            cx.event(None, Fact::StorageFailed { what: Storage::Database, message });
        }
    }

    /// It is durable: memory follows, and whoever has to know is told.
    fn apply(&mut self, cx: &mut Cx, guests: &mut Guests, pair: Pair, op: Op) {
        match op {
            Op::Link { command, source } => {
                let Some(target) = pair.other(&source) else { return };
                guests.relations.set(pair, Some(Relation::Linked));
                guests.keep_rows(cx, pair);
                cx.event(Some(source), Fact::PeerRegistered { peer: target });
                self.tell(guests, source, PeerFrame::Added { name: target });
                self.tell(guests, target, PeerFrame::Added { name: source });
                self.conclude(cx, command, Answer::new(Outcome::Registered).about(target, source));
                self.on_linked(cx, pair);
            }
            Op::Unlink { command, source, expired } => {
                let Some(target) = pair.other(&source) else { return };
                let was_linked = guests.relations.relation(&pair) == Some(Relation::Linked);
                guests.relations.set(pair, None);
                guests.keep_rows(cx, pair);
                if was_linked {
                    cx.event(Some(source), Fact::PeerUnregistered { peer: target });
                    self.tell(guests, source, PeerFrame::Removed { name: target });
                    self.tell(guests, target, PeerFrame::Removed { name: source });
                }
                let fate = Fate::Expired { at: cx.now.wall, why: Expiry::Unlinked };
                for number in expired {
                    self.settle(cx, guests, number, fate);
                }
                self.tidy(guests, pair);
                self.conclude(cx, command, Answer::new(Outcome::Unregistered).about(target, source));
            }
            Op::Send { message, queue, .. } => self.on_taken(cx, guests, pair, *message, queue),
            Op::Settle { number, fate } => self.settle(cx, guests, number, fate),
            Op::Trim { number } => {
                if self.mailbox.trimmed(number).is_some() {
                    self.mailbox.blank(number);
                } else {
                    self.mailbox.remove(number);
                    self.tidy(guests, pair);
                }
            }
            Op::Leave { number } => {
                let Some(message) = self.mailbox.remove(number) else { return };
                self.tidy(guests, pair);
                if message.fate == Fate::Queued {
                    self.on_ended(cx, guests, &message, Fate::Expired { at: cx.now.wall, why: Expiry::Ttl });
                }
            }
        }
    }

    /// It is not durable: nothing changed.
    fn undo(&mut self, cx: &mut Cx, op: Op, error: &EffectError) {
        let failed = || {
            let why = shortened(&error.message, MESSAGE_MAX);
            Answer::new(Outcome::StorageFailed).because(why)
        };
        match op {
            Op::Link { command, .. } => self.conclude(cx, command, failed()),
            Op::Unlink { command, expired, .. } => {
                for number in expired {
                    self.mailbox.spare(number);
                    self.stirred.extend(self.mailbox.get(number).map(|message| message.to));
                }
                self.conclude(cx, command, failed());
            }
            Op::Send { message, .. } => {
                self.mailbox.release(&message);
                for id in self.requests.of_message(message.number) {
                    self.conclude(cx, id, failed());
                }
            }
            // Sent again later, and acknowledged again.
            Op::Settle { number, fate: Fate::Delivered { .. } | Fate::Rejected { .. } | Fate::Queued } => {
                self.mailbox.unsettle(number);
            }
            Op::Settle { number, fate: Fate::Expired { why, .. } } => self.expire_later(cx, number, why),
            // Tried again with the next message that ends, and after a while.
            Op::Trim { number } => self.mailbox.keep_text(number),
            Op::Leave { number } => {
                self.mailbox.set_leaving(number, false);
            }
        }
    }

    /// What the two said to each other is forgotten once nothing of it is kept, and
    /// they are no peers.
    fn tidy(&mut self, guests: &Guests, pair: Pair) {
        if guests.relations.relation(&pair) != Some(Relation::Linked) {
            let [low, high] = pair.both();
            self.mailbox.tidy((low, high));
            self.mailbox.tidy((high, low));
        }
    }

    /// What became of a message is durable.
    pub(super) fn settle(&mut self, cx: &mut Cx, guests: &Guests, number: u64, fate: Fate) {
        if !self.mailbox.settle(number, fate) {
            return;
        }
        let Some(message) = self.mailbox.get(number) else { return };
        let head = Message { text: alloc::boxed::Box::default(), key: None, ..message.clone() };
        self.on_ended(cx, guests, &head, fate);
        let way = (head.from, head.to);
        let Some(pair) = Pair::new(head.from, head.to) else { return };
        while let Some(number) = self.mailbox.take_overdue(way, cx.config.peers.history_messages) {
            self.lanes.push(pair, Op::Trim { number });
        }
    }

    /// A message has its fate: everybody who waits for it hears of it.
    fn on_ended(&mut self, cx: &mut Cx, guests: &Guests, message: &Message, fate: Fate) {
        let Message { number, id, from, to, .. } = *message;
        let (fact, whose) = match fate {
            Fate::Queued => return,
            Fate::Delivered { .. } => (Fact::MessageDelivered { id, from }, to),
            Fate::Rejected { .. } => (Fact::MessageExpired { id, to, reason: None }, from),
            Fate::Expired { why, .. } => (Fact::MessageExpired { id, to, reason: Some(why) }, from),
        };
        cx.event(Some(whose), fact);
        for command in self.requests.of_message(number) {
            self.conclude(cx, command, told(message, fate));
        }
        self.forget_sent(guests, to, number);
        self.stirred.insert(to);
    }

    /// A message is durably taken.
    fn on_taken(&mut self, cx: &mut Cx, guests: &Guests, pair: Pair, message: Message, queue: bool) {
        let (number, id, from, to) = (message.number, message.id, message.from, message.to);
        let bytes = message.text.len() as u64;
        self.mailbox.insert(message, cx.at() + cx.config.peers.message_ttl);
        cx.event(Some(from), Fact::MessageSent { id, to, bytes });
        if guests.relations.relation(&pair) != Some(Relation::Linked) {
            // It was on its way when one of the two was forgotten.
            return self.expire(cx, guests, number, Expiry::Forgotten);
        }
        if !queue && !self.requests.is_awaited(number) {
            return self.expire(cx, guests, number, Expiry::NotQueued);
        }
        self.stirred.insert(to);
        if self.receiver(guests, &to).is_none() {
            for command in self.requests.of_message(number) {
                self.give_up_waiting(cx, guests, command);
            }
        }
    }

    /// Nobody waits for the delivery any more: its sender is told how it stands.
    pub(super) fn give_up_waiting(
        &mut self,
        cx: &mut Cx,
        guests: &Guests,
        id: crate::broker::facts::CommandId,
    ) {
        let Some(request) = self.requests.get(id) else { return };
        let Kind::Send { number, queue, .. } = request.kind else { return };
        let Some(message) = self.mailbox.get(number) else { return };
        let answer = told(message, message.fate);
        if queue || message.fate != Fate::Queued {
            return self.conclude(cx, id, answer);
        }
        // Not to be queued: it is taken back, and that is the answer.
        self.expire(cx, guests, number, Expiry::NotQueued);
    }
}

/// What a sender is told of its message.
pub(super) fn told(message: &Message, fate: Fate) -> Answer {
    let (outcome, reason) = match fate {
        Fate::Queued => (Outcome::Queued, None),
        Fate::Delivered { .. } => (Outcome::Delivered, None),
        Fate::Rejected { .. } => (Outcome::Rejected, Some("unauthenticated")),
        Fate::Expired { why, .. } => (Outcome::Expired, Some(why.as_str())),
    };
    let answer = Answer { message: Some(message.id), ..Answer::new(outcome) };
    let answer = answer.about(message.to, message.from);
    match reason {
        Some(reason) => answer.because(reason),
        None => answer,
    }
}
