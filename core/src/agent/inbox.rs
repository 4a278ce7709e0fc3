//! The inbox: what other guests said, durably, each thing once; and who wants to
//! be a peer.
//!
//! A message:
//!
//! | state | leaves it on | for |
//! |---|---|---|
//! | arrived | nothing is being written | being written, with all others that arrived |
//! | | the session ended, its sender is a peer no more | forgotten, unless a write of it failed |
//! | being written | done | kept, and acknowledged |
//! | | failed | arrived: written again with whatever comes next |
//! | kept | there is no room | dropped; its id stays remembered |
//!
//! One write at a time keeps the order of what one guest says, also over a write
//! that failed. How such a write left the disk is not known: its messages keep
//! their numbers, so that writing them again writes nothing twice.

use alloc::collections::{BTreeMap, BTreeSet, VecDeque};
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::time::Duration;

use super::{Context, Mailbox};
use crate::RestoredAgent;
use crate::boundary::{Change, Deadline, Effect, EffectError, Wakeup};
use crate::control::reply::{ErrorBody, ErrorCode};
use crate::event::{self, Fact, Storage};
use crate::id::{EffectId, GuestName};
use crate::peers::wire::PeerRequest;
use crate::peers::{InboxSettings, MessageId, Policy, Received, bounded_reason};
use crate::time::{Now, Time};

/// The inbox.
#[derive(Clone, Debug)]
pub(super) struct Inbox {
    pub(super) settings: InboxSettings,
    /// By number.
    pub(super) messages: VecDeque<Received>,
    /// Of their texts.
    pub(super) bytes: usize,
    /// The newest number that was given.
    pub(super) last: u64,
    /// Ids, and from when on each may be forgotten.
    pub(super) seen: BTreeMap<MessageId, Time>,
    pub(super) by_age: BTreeSet<(Time, MessageId)>,
    pub(super) arrived: VecDeque<Arrived>,
    pub(super) writing: Option<Writing>,
    /// The last write failed.
    pub(super) failing: bool,
    pub(super) offers: Vec<Offer>,
    /// Nothing is to be registered from here.
    pub(super) hold: bool,
    /// What the broker of this session was told last.
    pub(super) stated: (Policy, bool),
}

/// A message that is not kept yet.
#[derive(Clone, Debug)]
pub(super) struct Arrived {
    pub(super) message: Received,
    /// A write of it failed: it may be on the disk all the same.
    pub(super) tried: bool,
}

/// A write on its way.
#[derive(Clone, Debug)]
pub(super) struct Writing {
    pub(super) effect: EffectId,
    pub(super) messages: Vec<Received>,
    /// How many of the oldest go.
    pub(super) dropped: usize,
    /// Ids that go.
    pub(super) forgotten: Vec<MessageId>,
}

/// Somebody wants to be a peer.
#[derive(Clone, Debug)]
pub(super) struct Offer {
    pub(super) id: u64,
    pub(super) from: GuestName,
    pub(super) until: Time,
}

/// A message, as it comes from the broker.
pub(super) struct Incoming<'a> {
    pub(super) id: MessageId,
    pub(super) from: GuestName,
    pub(super) from_authenticated: bool,
    pub(super) text: &'a str,
    pub(super) sent_at: crate::time::WallTime,
    pub(super) wake: bool,
}

/// The broker's own bound: a later answer is of no use to it.
pub(super) const OFFER_TIMEOUT: Duration = Duration::from_secs(2);

/// Most open offers; those beyond are left to the broker's bound.
const OFFERS_MAX: usize = 64;

/// Most messages that are not kept yet: as many as a broker sends without an
/// acknowledgement. Those beyond are not taken, and so are sent again.
const UNKEPT_MAX: usize = 16;

/// Most ids that one write forgets.
const FORGOTTEN_MAX: usize = 64;

impl Inbox {
    pub(super) fn new(settings: InboxSettings, restored: RestoredAgent, now: Now) -> Self {
        let mut inbox = Self {
            bytes: restored.messages.iter().map(|message| message.text.len()).sum(),
            last: restored.messages.last().map_or(0, |message| message.number),
            messages: restored.messages.into(),
            seen: BTreeMap::new(),
            by_age: BTreeSet::new(),
            arrived: VecDeque::new(),
            writing: None,
            failing: false,
            offers: Vec::new(),
            hold: false,
            stated: (Policy::Default, false),
            settings,
        };
        for (id, at) in restored.seen {
            // The only use of the wall clock: how old it is now. From here on the
            // boot clock counts.
            let age = now.wall.unix_millis().saturating_sub(at.unix_millis());
            let age = Duration::from_millis(u64::try_from(age).unwrap_or(0)).min(inbox.settings.remember);
            inbox.remember(id, now.boot + (inbox.settings.remember - age));
        }
        inbox
    }

    /// A session begins: what to say first.
    pub(super) fn on_up(&mut self) -> Option<PeerRequest> {
        self.stated = (Policy::Default, false);
        self.state()
    }

    /// The session is over: the broker will send again, and ask again.
    pub(super) fn on_lost(&mut self) {
        self.arrived.retain(|arrived| arrived.tried);
        self.offers.clear();
    }

    /// A message; what to say to it at once.
    pub(super) fn on_message(
        &mut self,
        cx: &mut Context<'_>,
        incoming: &Incoming<'_>,
    ) -> Option<PeerRequest> {
        let id = incoming.id;
        if self.seen.contains_key(&id) && !planted!(cx.config, DuplicateKept) {
            return Some(PeerRequest::Ack { id, rejected: false });
        }
        if self.is_unkept(&id) {
            // Its own acknowledgement comes with the write.
            self.write(cx);
            return None;
        }
        if self.settings.require_authenticated && !incoming.from_authenticated {
            cx.event(Fact::MessageExpired { id, to: cx.config.name, reason: None });
            return Some(PeerRequest::Ack { id, rejected: true });
        }
        if !self.has_room(cx.now.boot) {
            return None;
        }
        self.last += 1;
        let message = Received {
            number: self.last,
            id,
            from: incoming.from,
            from_authenticated: incoming.from_authenticated,
            text: incoming.text.into(),
            sent_at: incoming.sent_at,
            delivered_at: cx.now.wall,
            wake: incoming.wake,
        };
        self.arrived.push_back(Arrived { message, tried: false });
        self.write(cx);
        planted!(cx.config, AcknowledgedBeforeWrite).then_some(PeerRequest::Ack { id, rejected: false })
    }

    pub(super) fn on_offer(
        &mut self,
        cx: &mut Context<'_>,
        id: u64,
        from: GuestName,
        from_authenticated: bool,
    ) {
        self.offers.retain(|offer| offer.from != from);
        if self.offers.len() >= OFFERS_MAX {
            return;
        }
        self.offers.push(Offer { id, from, until: cx.now.boot + OFFER_TIMEOUT });
        cx.event(Fact::PeerOffer { from, from_authenticated });
    }

    pub(super) fn on_added(&mut self, cx: &mut Context<'_>, name: GuestName) {
        self.offers.retain(|offer| offer.from != name);
        cx.event(Fact::PeerRegistered { peer: name });
    }

    pub(super) fn on_removed(&mut self, cx: &mut Context<'_>, name: GuestName) {
        self.arrived.retain(|arrived| arrived.tried || arrived.message.from != name);
        cx.event(Fact::PeerUnregistered { peer: name });
    }

    /// A write ended: what to say, now that it is durable. `None`: not ours.
    pub(super) fn on_done(
        &mut self,
        cx: &mut Context<'_>,
        effect: EffectId,
        result: &Result<(), EffectError>,
    ) -> Option<Vec<PeerRequest>> {
        let Writing { messages, dropped, forgotten, .. } =
            self.writing.take_if(|writing| writing.effect == effect)?;
        if let Err(error) = result {
            if !core::mem::replace(&mut self.failing, true) {
                let message = event::shortened(&error.message, event::MESSAGE_MAX);
                cx.event(Fact::StorageFailed { what: Storage::Database, message });
            }
            for message in messages.into_iter().rev() {
                self.arrived.push_front(Arrived { message, tried: true });
            }
            return Some(Vec::new());
        }
        if core::mem::take(&mut self.failing) {
            cx.event(Fact::StorageRecovered { what: Storage::Database });
        }
        for id in forgotten {
            if let Some(at) = self.seen.remove(&id) {
                self.by_age.remove(&(at, id));
            }
        }
        let mut acks = Vec::with_capacity(messages.len());
        for message in messages {
            self.remember(message.id, cx.now.boot + self.settings.remember);
            cx.event(Fact::MessageDelivered { id: message.id, from: message.from });
            acks.push(PeerRequest::Ack { id: message.id, rejected: false });
            self.bytes += message.text.len();
            self.messages.push_back(message);
        }
        for message in self.messages.drain(..dropped.min(self.messages.len())) {
            self.bytes -= message.text.len();
        }
        self.write(cx);
        Some(acks)
    }

    pub(super) fn on_timer(&mut self, now: Time) {
        self.offers.retain(|offer| now < offer.until);
    }

    pub(super) fn next_deadline(&self) -> Option<Deadline> {
        let at = self.offers.iter().map(|offer| offer.until).min()?;
        Some(Deadline { at, why: Wakeup::Offer })
    }

    /// What the broker has to be told, if it is not what it was told last.
    pub(super) fn state(&mut self) -> Option<PeerRequest> {
        let (policy, hold) = (self.settings.policy, self.hold);
        let before = core::mem::replace(&mut self.stated, (policy, hold));
        (before != (policy, hold)).then_some(PeerRequest::Policy { policy, hold })
    }

    /// Writes what has arrived, unless something is being written.
    fn write(&mut self, cx: &mut Context<'_>) {
        if self.writing.is_some() || self.arrived.is_empty() {
            return;
        }
        let messages: Vec<Received> = self.arrived.drain(..).map(|arrived| arrived.message).collect();
        let mut batch = Vec::new();
        for message in &messages {
            batch.push(Change::SetReceived(message.clone().into()));
            batch.push(Change::SetSeen { id: message.id, at: Some(message.delivered_at) });
        }
        let dropped = self.surplus(&messages);
        let oldest = self.messages.iter().chain(&messages).take(dropped);
        batch.extend(oldest.map(|message| Change::DropReceived { number: message.number }));
        let forgotten: Vec<MessageId> = self.forgettable(cx.now.boot).collect();
        batch.extend(forgotten.iter().map(|&id| Change::SetSeen { id, at: None }));
        let effect = cx.out.effect(Effect::Persist(batch));
        self.writing = Some(Writing { effect, messages, dropped, forgotten });
    }

    /// How many of the oldest have to go for `more`; the newest always stays.
    fn surplus(&self, more: &[Received]) -> usize {
        let mut count = self.messages.len() + more.len();
        let mut bytes = self.bytes + more.iter().map(|message| message.text.len()).sum::<usize>();
        let mut oldest = self.messages.iter().chain(more);
        let mut dropped = 0;
        while count > 1 && (count > self.settings.messages_max || bytes > self.settings.bytes_max) {
            bytes -= oldest.next().map_or(0, |message| message.text.len());
            count -= 1;
            dropped += 1;
        }
        dropped
    }

    /// Whether one more message can be taken.
    fn has_room(&self, now: Time) -> bool {
        let unkept = self.arrived.len() + self.writing.as_ref().map_or(0, |writing| writing.messages.len());
        let remembered = self.seen.len() + unkept - self.forgettable(now).count();
        unkept < UNKEPT_MAX && remembered < self.settings.remembered_max
    }

    /// Ids that are old enough, as many as one write forgets.
    fn forgettable(&self, now: Time) -> impl Iterator<Item = MessageId> {
        let due = self.by_age.iter().take_while(move |(at, _)| *at <= now);
        due.take(FORGOTTEN_MAX).map(|(_, id)| *id)
    }

    fn remember(&mut self, id: MessageId, until: Time) {
        if self.seen.insert(id, until).is_none() {
            self.by_age.insert((until, id));
        }
    }

    fn is_unkept(&self, id: &MessageId) -> bool {
        let written = self.writing.iter().flat_map(|writing| &writing.messages);
        self.arrived.iter().map(|arrived| &arrived.message).chain(written).any(|message| message.id == *id)
    }
}

impl Mailbox for Inbox {
    fn settings(&self) -> &InboxSettings {
        &self.settings
    }

    fn kept(&self) -> &VecDeque<Received> {
        &self.messages
    }

    fn answer(
        &mut self,
        name: &GuestName,
        accept: bool,
        reason: Option<String>,
    ) -> Result<PeerRequest, ErrorBody> {
        let Some(index) = self.offers.iter().position(|offer| offer.from == *name) else {
            let message = format!("{name} does not wait for an answer, or not any more");
            return Err(ErrorBody { code: ErrorCode::Unknown, message });
        };
        let Offer { id, .. } = self.offers.swap_remove(index);
        let reason = reason.filter(|_| !accept).map(|reason| bounded_reason(&reason));
        Ok(PeerRequest::Answer { id, accept, reason })
    }

    fn hold(&mut self, hold: bool) -> Option<PeerRequest> {
        self.hold = hold;
        self.state()
    }
}
