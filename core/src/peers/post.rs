//! Messages on their way: taken from a sender, sent to a receiver, acknowledged;
//! and the lists and inboxes that show them.

use alloc::borrow::Cow;
use alloc::boxed::Box;
use alloc::string::String;
use alloc::vec::Vec;
use core::time::Duration;

use super::lanes::Op;
use super::machine::{AGAIN, Follower, From, Peers};
use super::mailbox::Draft;
use super::requests::{Answer, Asker, Kind};
use super::wire::PeerFrame;
use super::writes::told;
use super::{
    Expiry, Fate, KEY_MAX, Listed, Message, MessageId, Outcome, Pair, Policy, Presence, Relation, TEXT_MAX,
    Visibility,
};
use crate::auth::TAG_DIGITS;
use crate::broker::cx::Cx;
use crate::broker::guests::Guests;
use crate::control::reply::InboxMessage;
use crate::id::{ConnId, GuestName};
use crate::link::inbox::SERIAL_FRAME_MAX;
use crate::link::message::append_json;
use crate::status::State;

/// Most unanswered requests of one guest.
const REQUESTS_MAX: usize = 16;

/// Most bytes of text in one answer: whoever wants more asks for what is before it.
pub(crate) const INBOX_BYTES_MAX: usize = 1 << 20;

/// A message to be sent.
#[derive(Clone, Debug)]
pub(crate) struct Sending {
    pub(crate) from: GuestName,
    pub(crate) from_authenticated: bool,
    pub(crate) to: Option<GuestName>,
    pub(crate) text: String,
    pub(crate) wake: bool,
    pub(crate) queue: bool,
    pub(crate) key: Option<String>,
}

impl Peers {
    /// Whether a guest has as many unanswered requests as it may.
    pub(crate) fn is_busy(&self, conn: ConnId) -> bool {
        self.requests.count_of(conn) >= REQUESTS_MAX
    }

    /// Takes a message, or says why not.
    pub(crate) fn send(
        &mut self,
        cx: &mut Cx,
        guests: &Guests,
        asker: Asker,
        sending: Sending,
        timeout: Option<Duration>,
    ) {
        let timeout = timeout.unwrap_or(cx.config.peers.timeout);
        let Sending { from, from_authenticated, to, text, wake, queue, key } = sending;
        if text.len() > TEXT_MAX {
            let why = alloc::format!("a text has at most {TEXT_MAX} bytes, this one has {}", text.len());
            return self.answer(asker, Answer::new(Outcome::TooLarge).because(why));
        }
        if key.as_ref().is_some_and(|key| key.is_empty() || key.chars().count() > KEY_MAX) {
            let why = alloc::format!("a key has 1 to {KEY_MAX} characters");
            return self.answer(asker, Answer::new(Outcome::InvalidRequest).because(why));
        }
        let linked = |to: &GuestName| guests.relations.are_linked(from, *to);
        let Some(to) = to else { return self.answer(asker, Answer::new(Outcome::NotPeer)) };
        let about = |outcome| Answer::new(outcome).about(to, from);
        // A guest can't tell strangers from nobody.
        if !asker.is_guest() && guests.find(&to).is_none() && !linked(&to) {
            return self.answer(asker, about(Outcome::Unknown));
        }
        let Some(pair) = Pair::new(from, to) else { return self.answer(asker, about(Outcome::Itself)) };
        let known = key.as_deref().and_then(|key| self.mailbox.by_key(from, key));
        if let Some(number) = known.filter(|_| !planted!(cx.config, KeyForgotten)) {
            return self.send_again(cx, guests, asker, (number, to), timeout);
        }
        if !linked(&to) {
            return self.answer(asker, about(Outcome::NotPeer));
        }
        if self.policy_of(cx, guests, &to) == Policy::Deny {
            return self.answer(asker, about(Outcome::Rejected).because("policy"));
        }
        let there = guests.find(&to).and_then(|row| guests.status(cx, row, cx.now));
        if !queue && there.is_none_or(|status| status.state != State::Reachable) {
            return self.answer(asker, about(Outcome::NotReachable));
        }
        if self.lanes.is_full(&pair, cx.config.peers.operations_max) {
            return self.answer(asker, about(Outcome::Busy).because("too much is going on between the two"));
        }
        let id = MessageId(cx.entropy.nonce().0);
        let key = key.map(String::into_boxed_str);
        let draft = Draft { from, to, from_authenticated, text: text.into_boxed_str(), wake, key };
        let message = match self.mailbox.admit(&cx.config.peers, draft, id, cx.now.wall) {
            Ok(message) => message,
            Err(outcome) => {
                let why = "too much waits already; see castra peers";
                return self.answer(asker, about(outcome).because(why));
            }
        };
        if frame_of(&message).len() + TAG_DIGITS + 1 > SERIAL_FRAME_MAX {
            self.mailbox.release(&message);
            let why = "the text takes more than a frame, once it is written as JSON";
            return self.answer(asker, about(Outcome::TooLarge).because(why));
        }
        // Taking it back takes time, too.
        let until = (!queue).then(|| cx.at() + (timeout - timeout / 4));
        let kind = Kind::Send { number: message.number, to, queue, until };
        let command = self.requests.open(cx, asker, kind, timeout);
        self.lanes.push(pair, Op::Send { command, message, queue });
        self.advance(cx, guests, pair);
    }

    /// The same key again: the first message's outcome is the answer.
    fn send_again(
        &mut self,
        cx: &mut Cx,
        guests: &Guests,
        asker: Asker,
        (number, to): (u64, GuestName),
        timeout: Duration,
    ) {
        let fate = self.mailbox.get(number).map(|message| (message.fate, told(message, message.fate)));
        let there = self.receiver(guests, &to).is_some();
        match fate {
            Some((fate, answer)) if fate != Fate::Queued || !there => self.answer(asker, answer),
            // It waits, or is on its way to the disk: so does this. Whether it may
            // be queued is for the first to say.
            Some(_) | None => {
                let kind = Kind::Send { number, to, queue: true, until: None };
                self.requests.open(cx, asker, kind, timeout);
            }
        }
    }

    /// Sends what may be sent now. `send` says whether there was room.
    pub(crate) fn deliver(
        &mut self,
        cx: &mut Cx,
        guests: &Guests,
        mut send: impl FnMut(&mut Cx, ConnId, &[u8]) -> bool,
    ) {
        let mut too_soon: Vec<(Pair, u64)> = Vec::new();
        for guest in core::mem::take(&mut self.stirred) {
            if !self.mailbox.has_mail(&guest) {
                continue;
            }
            let Some((conn, view)) = self.receiver(guests, &guest) else { continue };
            let now = cx.at();
            let again = now + cx.config.peers.redelivery;
            self.seat(cx, conn, guest, view.since);
            let Some(seat) = self.seats.get_mut(&conn) else { continue };
            let settled = seat.stated.is_some() || now >= view.since + cx.config.peers.policy_timeout;
            if seat.stated == Some(Policy::Deny) {
                seat.sent.clear();
                continue;
            }
            if !settled {
                continue;
            }
            let mut has_room = true;
            for (number, at) in &mut seat.sent {
                let due = *at <= now && has_room;
                if let Some(message) = self.mailbox.unheld(*number).filter(|_| due) {
                    has_room = send(cx, conn, &frame_of(message));
                    *at = if has_room { again } else { *at };
                }
            }
            // By number, but a lower one may get to the disk later: whatever was not sent is sent.
            for message in self.mailbox.sendable(&guest) {
                if seat.sent.len() >= cx.config.peers.unacknowledged_max || !has_room {
                    break;
                }
                if seat.sent.iter().any(|(number, _)| *number == message.number) {
                    continue;
                }
                has_room = send(cx, conn, &frame_of(message));
                if has_room {
                    seat.sent.push_back((message.number, again));
                    if planted!(cx.config, DeliveredWhenSent) {
                        too_soon.extend(Pair::new(message.from, message.to).zip(Some(message.number)));
                    }
                }
            }
            let next = seat.sent.iter().map(|(_, at)| *at).filter(|at| *at > now).min();
            let before = seat.due;
            if let Some(at) = next.filter(|at| before.is_none_or(|before| *at < before || before <= now)) {
                if let Some(before) = before {
                    self.due.remove(&(before, conn));
                }
                seat.due = Some(at);
                self.due.insert((at, conn));
            }
        }
        for (pair, number) in too_soon {
            self.lanes.push(pair, Op::Settle { number, fate: Fate::Delivered { at: cx.now.wall } });
            self.advance(cx, guests, pair);
        }
    }

    /// There is room on a link again.
    pub(crate) fn on_room(&mut self, conn: ConnId) {
        if let Some(seat) = self.seats.get(&conn) {
            self.stirred.insert(seat.guest);
        }
    }

    /// A guest has a message in its inbox, or would not have it.
    pub(crate) fn on_ack(
        &mut self,
        cx: &mut Cx,
        guests: &Guests,
        from: &From,
        id: &MessageId,
        rejected: bool,
    ) {
        let Some(message) = self.mailbox.find(id).filter(|message| message.to == from.guest) else {
            cx.statistics.stale_inputs += 1;
            return;
        };
        let number = message.number;
        let Some(pair) = Pair::new(message.from, message.to) else { return };
        if !self.mailbox.begin_settling(number) {
            return;
        }
        let at = cx.now.wall;
        let fate = if rejected { Fate::Rejected { at } } else { Fate::Delivered { at } };
        self.lanes.push(pair, Op::Settle { number, fate });
        self.advance(cx, guests, pair);
    }

    /// A message that was sent needs no acknowledgement any more.
    pub(super) fn forget_sent(&mut self, guests: &Guests, to: GuestName, number: u64) {
        if let Some((conn, _)) = Self::session_of(guests, &to)
            && let Some(seat) = self.seats.get_mut(&conn)
        {
            seat.sent.retain(|(other, _)| *other != number);
        }
    }

    /// Messages whose time is over leave.
    pub(super) fn on_leaving(&mut self, cx: &mut Cx, guests: &Guests) {
        while let Some((at, number)) = self.mailbox.next_to_leave().filter(|(at, _)| *at <= cx.at()) {
            // Looked at again, should it not get to the disk.
            self.mailbox.postpone(at, number, cx.at() + AGAIN);
            let Some(message) = self.mailbox.get(number) else { continue };
            let Some(pair) = Pair::new(message.from, message.to) else { continue };
            if !self.mailbox.set_leaving(number, true) {
                continue;
            }
            self.lanes.push(pair, Op::Leave { number });
            self.advance(cx, guests, pair);
        }
    }

    /// Its expiry could not be written: it is not sent any more by this broker, and
    /// tried again; after a crash it would be.
    pub(super) fn expire_later(&mut self, cx: &mut Cx, number: u64, why: Expiry) {
        self.doomed.insert((cx.at() + AGAIN, number, why));
        let Some(message) = self.mailbox.get(number) else { return };
        let answer = Answer { message: Some(message.id), ..Answer::new(Outcome::StorageFailed) };
        let answer = answer.because("it could not be taken back for sure: it may still be delivered");
        for id in self.requests.of_message(number) {
            self.conclude(cx, id, answer.clone());
        }
    }

    /// A guest and its peers.
    pub(crate) fn list(&self, cx: &Cx, guests: &Guests, guest: GuestName) -> Vec<Listed> {
        let restorable = &cx.config.peers.restorable;
        let line = |name: GuestName, visibility, missing: bool| {
            let status = guests.find(&name).and_then(|row| guests.status(cx, row, cx.now));
            let status = status.filter(|_| !missing);
            let reachable = status.as_ref().is_some_and(|status| status.reachable);
            let (out, back) = (self.mailbox.traffic(guest, name), self.mailbox.traffic(name, guest));
            Listed {
                name,
                visibility,
                state: match &status {
                    _ if missing => Presence::Missing,
                    _ if reachable => Presence::Live,
                    _ if restorable.contains(&name) => Presence::Restorable,
                    _ => Presence::Known,
                },
                reachable,
                last_handshake_age_ms: status.and_then(|status| status.last_handshake_age_ms),
                last_sent_at: out.last_sent_at,
                last_received_at: back.last_delivered_at,
                queued: out.queued,
            }
        };
        let mut listed = alloc::vec![line(guest, Visibility::Itself, false)];
        for (name, relation) in guests.relations.seen_by(&guest) {
            listed.push(line(name, Visibility::Peer, relation != Relation::Linked));
        }
        listed
    }

    /// Messages of a guest, oldest first: the next ones after one, or else the newest.
    pub(crate) fn inbox(
        &self,
        guest: GuestName,
        after: Option<&MessageId>,
        limit: usize,
    ) -> Vec<InboxMessage> {
        let mut bytes = 0;
        let fits = |message: &&Message| {
            bytes += message.text.len();
            bytes <= INBOX_BYTES_MAX
        };
        match after.and_then(|id| self.mailbox.find(id)) {
            Some(last) => {
                self.mailbox.inbox(guest, last.number).take(limit).take_while(fits).map(shown).collect()
            }
            None => {
                let newest = self.mailbox.inbox(guest, 0).rev().take(limit).take_while(fits);
                let mut messages: Vec<InboxMessage> = newest.map(shown).collect();
                messages.reverse();
                messages
            }
        }
    }

    /// A client follows an inbox from now on.
    pub(crate) fn follow(&mut self, conn: ConnId, guest: GuestName) {
        self.followers.insert(conn, Follower { guest, last: self.mailbox.deliveries() });
    }

    /// Who follows, but for those who don't any more.
    pub(crate) fn followers(&mut self, follows: impl Fn(ConnId) -> bool) -> Vec<ConnId> {
        self.followers.retain(|conn, _| follows(*conn));
        self.followers.keys().copied().collect()
    }

    /// The next message for a follower.
    pub(crate) fn next_for(&mut self, conn: ConnId) -> Option<InboxMessage> {
        let follower = self.followers.get_mut(&conn)?;
        let (place, message) = self.mailbox.delivered_after(follower.guest, follower.last)?;
        follower.last = place;
        Some(shown(message))
    }

    /// Sizes, for checks of their bounds: bytes and number of messages, operations in progress.
    pub(crate) fn sizes(&self) -> (usize, usize, usize) {
        let (bytes, messages) = self.mailbox.size();
        (bytes, messages, self.lanes.len())
    }
}

fn shown(message: &Message) -> InboxMessage {
    InboxMessage {
        id: message.id,
        from: message.from,
        from_authenticated: message.from_authenticated,
        text: String::from(&*message.text),
        sent_at: message.sent_at,
        delivered_at: match message.fate {
            Fate::Delivered { at } => Some(at),
            Fate::Queued | Fate::Rejected { .. } | Fate::Expired { .. } => None,
        },
        wake: message.wake,
    }
}

/// The frame that brings a message.
fn frame_of(message: &Message) -> Box<[u8]> {
    let mut json = Vec::new();
    let frame = PeerFrame::Message {
        id: message.id,
        from: message.from,
        from_authenticated: message.from_authenticated,
        text: Cow::Borrowed(&message.text),
        sent_at: message.sent_at,
        wake: message.wake,
    };
    append_json(&mut json, &frame);
    json.into_boxed_slice()
}
