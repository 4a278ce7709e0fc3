//! The machine: sessions, policies, and what time brings.

use alloc::collections::{BTreeMap, BTreeSet, VecDeque};
use alloc::vec::Vec;
use core::time::Duration;

use super::lanes::{Lanes, Op};
use super::mailbox::{Doom, Mailbox};
use super::requests::{Answer, Asker, Kind, Registration, Request, Requests, Stage};
use super::wire::PeerFrame;
use super::{Expiry, Fate, Outcome, PEERS_V1, Pair, Policy, RestoredPeers};
use crate::boundary::{Change, Effect, Wakeup};
use crate::broker::cx::Cx;
use crate::broker::facts::{CommandId, TimerKey};
use crate::broker::guests::{Guests, Row};
use crate::event::Fact;
use crate::id::{ConnId, EffectId, GuestName};
use crate::time::Time;
use crate::timers::TimerId;

/// How long it takes until something that could not be written is tried again.
pub(super) const AGAIN: Duration = Duration::from_secs(30);

/// Peers and their messages, of a broker.
#[derive(Clone, Debug)]
pub(crate) struct Peers {
    pub(super) mailbox: Mailbox,
    pub(super) lanes: Lanes,
    pub(super) requests: Requests,
    /// Sessions that take part, or for whose guest mail waits.
    pub(super) seats: BTreeMap<ConnId, Seat>,
    /// Policies on their way to the disk, and what is to follow.
    policies: BTreeMap<EffectId, (GuestName, Policy)>,
    being_kept: BTreeSet<GuestName>,
    wanted: BTreeMap<GuestName, Policy>,
    /// Policies that could not be written, and when that is tried again.
    unkept: BTreeSet<(Time, GuestName)>,
    /// What time brings to sessions.
    pub(super) due: BTreeSet<(Time, ConnId)>,
    /// Messages whose expiry could not be written, and when it is tried again.
    pub(super) doomed: BTreeSet<(Time, u64, Expiry)>,
    timer: TimerId,
    /// Guests whose mail may flow.
    pub(super) stirred: BTreeSet<GuestName>,
    pub(super) followers: BTreeMap<ConnId, Follower>,
    /// What is to be said, in order.
    pub(crate) post: VecDeque<Post>,
}

/// A session, as far as peers are concerned.
#[derive(Clone, Debug)]
pub(super) struct Seat {
    pub(super) guest: GuestName,
    since: Time,
    pub(super) stated: Option<Policy>,
    pub(super) hold: bool,
    /// Sent without an acknowledgement, and when each is sent again.
    pub(super) sent: VecDeque<(u64, Time)>,
    /// When time brings something to it.
    pub(super) due: Option<Time>,
}

/// A control client that follows an inbox.
#[derive(Clone, Copy, Debug)]
pub(super) struct Follower {
    pub(super) guest: GuestName,
    pub(super) last: u64,
}

/// Something to be said.
#[derive(Clone, Debug)]
pub(crate) enum Post {
    /// To whoever asked.
    Answer(Asker, Answer),
    /// To a guest, if it is there and has room.
    Frame(ConnId, PeerFrame<'static>),
}

impl Peers {
    pub(crate) fn new(cx: &mut Cx, guests: &mut Guests, restored: RestoredPeers) -> Self {
        let mut peers = Self {
            mailbox: Mailbox::default(),
            lanes: Lanes::default(),
            requests: Requests::default(),
            seats: BTreeMap::new(),
            policies: BTreeMap::new(),
            being_kept: BTreeSet::new(),
            wanted: BTreeMap::new(),
            unkept: BTreeSet::new(),
            due: BTreeSet::new(),
            doomed: BTreeSet::new(),
            timer: cx.timers.insert(TimerKey::Mail),
            stirred: BTreeSet::new(),
            followers: BTreeMap::new(),
            post: VecDeque::new(),
        };
        #[cfg(feature = "planted")]
        {
            guests.relations.planted = cx.config.planted;
        }
        for (pair, relation) in restored.relations {
            guests.relations.set(pair, Some(relation));
            guests.keep_rows(cx, pair);
        }
        for (guest, policy) in restored.policies {
            guests.relations.set_policy(guest, policy);
        }
        peers.mailbox.restore(restored.messages, cx.now, cx.config.peers.message_ttl);
        // A guest was forgotten, and the broker with it, before its mail expired.
        for to in peers.mailbox.receivers().collect::<Vec<_>>() {
            for number in peers.mailbox.queue(&to).collect::<Vec<_>>() {
                let Some(message) = peers.mailbox.get(number) else { continue };
                if !guests.relations.are_linked(message.from, to) {
                    peers.expire(cx, guests, number, Expiry::Forgotten);
                }
            }
        }
        peers.rearm(cx);
        peers
    }

    /// A session began.
    pub(crate) fn on_established(&mut self, cx: &Cx, guests: &Guests, conn: ConnId, row: &Row) {
        if guests.relations.is_empty() {
            return;
        }
        let guest = row.name();
        let concerned = guests.relations.policy(&guest) != Policy::Default || self.mailbox.has_mail(&guest);
        if concerned {
            self.seat(cx, conn, guest, row.since);
        }
    }

    /// The session's seat; a new one if need be.
    pub(super) fn seat(&mut self, cx: &Cx, conn: ConnId, guest: GuestName, since: Time) -> &mut Seat {
        let settled = since + cx.config.peers.policy_timeout;
        let seat = self.seats.entry(conn).or_insert_with(|| Seat {
            guest,
            since,
            stated: None,
            hold: false,
            sent: VecDeque::new(),
            due: None,
        });
        if seat.stated.is_none() && seat.due.is_none() && settled > cx.at() {
            seat.due = Some(settled);
            self.due.insert((settled, conn));
        }
        seat
    }

    /// The open, proven session of a guest.
    pub(super) fn session_of(guests: &Guests, guest: &GuestName) -> Option<(ConnId, RowView)> {
        let row = guests.get(guests.find(guest)?)?;
        let conn = row.session.filter(|_| row.proven)?;
        let takes_part = row.capabilities.has(PEERS_V1);
        Some((conn, RowView { since: row.since, authenticated: row.authenticated, takes_part }))
    }

    /// The session that a guest's mail goes to: one that takes part.
    pub(super) fn receiver(&self, guests: &Guests, guest: &GuestName) -> Option<(ConnId, RowView)> {
        Self::session_of(guests, guest).filter(|(conn, view)| {
            view.takes_part || self.seats.get(conn).is_some_and(|seat| seat.stated.is_some())
        })
    }

    /// Whom a guest takes, as far as that is known.
    pub(super) fn policy_of(&self, cx: &Cx, guests: &Guests, guest: &GuestName) -> Policy {
        let session = Self::session_of(guests, guest);
        let stated = session.as_ref().and_then(|(conn, _)| self.seats.get(conn)?.stated);
        let settled = session.is_some_and(|(_, view)| {
            view.takes_part && cx.at() >= view.since + cx.config.peers.policy_timeout
        });
        // A session that takes part and states nothing has the default.
        stated.unwrap_or_else(|| if settled { Policy::Default } else { guests.relations.policy(guest) })
    }

    /// A connection is gone, or its session is.
    pub(crate) fn on_lost(&mut self, cx: &mut Cx, guests: &Guests, conn: ConnId) {
        self.followers.remove(&conn);
        for id in self.requests.of_conn(conn) {
            // What is on its way may still happen; nobody waits for it any more.
            let request = self.requests.close(cx, id);
            if let Some(Request { kind: Kind::Send { number, queue: false, .. }, .. }) = request
                && !self.requests.is_awaited(number)
                && self.mailbox.get(number).is_some_and(|message| message.fate == Fate::Queued)
            {
                self.expire(cx, guests, number, Expiry::NotQueued);
            }
        }
        let Some(seat) = self.seats.remove(&conn) else { return };
        if let Some(at) = seat.due {
            self.due.remove(&(at, conn));
        }
        for id in self.requests.sends_to(seat.guest) {
            self.give_up_waiting(cx, guests, id);
        }
    }

    /// A guest states its policy.
    pub(crate) fn on_policy(
        &mut self,
        cx: &mut Cx,
        guests: &Guests,
        from: &From,
        policy: Policy,
        hold: bool,
    ) {
        let guest = from.guest;
        let seat = self.seat(cx, from.conn, guest, from.since);
        (seat.stated, seat.hold) = (Some(policy), hold);
        self.keep_policy(cx, guests, guest, policy);
        if policy == Policy::Deny {
            for number in self.mailbox.queue(&guest).collect::<Vec<_>>() {
                self.expire(cx, guests, number, Expiry::Policy);
            }
        }
        self.settled(cx, guests, guest);
    }

    /// A session's policy is known: whatever waited for that goes on.
    fn settled(&mut self, cx: &mut Cx, guests: &Guests, guest: GuestName) {
        let waiting =
            |(id, _, _, _, stage): Registration<'_>| matches!(stage, Stage::Settling { .. }).then_some(id);
        for id in self.requests.registrations(guest).filter_map(waiting).collect::<Vec<_>>() {
            self.judge(cx, guests, id);
        }
        self.stirred.insert(guest);
    }

    /// The policy is to be durable. One write a guest at a time; the last one counts.
    fn keep_policy(&mut self, cx: &mut Cx, guests: &Guests, guest: GuestName, policy: Policy) {
        if self.being_kept.contains(&guest) {
            self.wanted.insert(guest, policy);
            return;
        }
        self.wanted.remove(&guest);
        let before = guests.relations.policy(&guest);
        // As many as there may be guests: names cost nothing.
        let fits = before != Policy::Default || guests.relations.policies() < cx.config.max_guests;
        if before != policy && fits {
            let change = Change::SetPolicy { guest, policy };
            let effect = cx.out.effect(Effect::Persist(alloc::vec![change]));
            self.policies.insert(effect, (guest, policy));
            self.being_kept.insert(guest);
        }
    }

    /// A policy's write ended; false: it isn't one.
    pub(super) fn on_policy_done(
        &mut self,
        cx: &mut Cx,
        guests: &mut Guests,
        effect: EffectId,
        durable: bool,
    ) -> bool {
        let Some((guest, policy)) = self.policies.remove(&effect) else { return false };
        self.being_kept.remove(&guest);
        // The row may have been forgotten meanwhile: then the record goes with the next policy.
        if durable {
            guests.relations.set_policy(guest, policy);
        }
        if let Some(next) = self.wanted.remove(&guest) {
            self.keep_policy(cx, guests, guest, next);
        } else if !durable {
            self.wanted.insert(guest, policy);
            self.unkept.insert((cx.at() + AGAIN, guest));
        }
        true
    }

    /// Whether there is nothing at all.
    #[cfg(feature = "model")]
    pub(crate) fn is_idle(&self) -> bool {
        self.mailbox.size() == (0, 0)
            && self.requests.ids().is_empty()
            && self.seats.is_empty()
            && !self.is_storing()
    }

    pub(crate) fn is_storing(&self) -> bool {
        self.lanes.is_writing() || !self.policies.is_empty()
    }

    /// A guest was forgotten, durably.
    pub(crate) fn on_forgotten(&mut self, cx: &mut Cx, guests: &mut Guests, guest: GuestName) {
        self.wanted.remove(&guest);
        for peer in guests.relations.forget(&guest) {
            if let Some(pair) = Pair::new(guest, peer) {
                guests.keep_rows(cx, pair);
            }
            cx.event(Some(guest), Fact::PeerUnregistered { peer });
            self.tell(guests, peer, PeerFrame::Removed { name: guest });
            for number in self.mailbox.queued_between(&guest, &peer) {
                self.expire(cx, guests, number, Expiry::Forgotten);
            }
        }
    }

    /// Says something to a guest, if it is there and takes part.
    pub(super) fn tell(&mut self, guests: &Guests, guest: GuestName, frame: PeerFrame<'static>) {
        if let Some((conn, view)) = Self::session_of(guests, &guest)
            && (view.takes_part || self.seats.contains_key(&conn))
        {
            self.post.push_back(Post::Frame(conn, frame));
        }
    }

    pub(super) fn answer(&mut self, asker: Asker, answer: Answer) {
        self.post.push_back(Post::Answer(asker, answer));
    }

    pub(super) fn conclude(&mut self, cx: &mut Cx, id: CommandId, answer: Answer) {
        if let Some(request) = self.requests.close(cx, id) {
            self.answer(request.asker, answer);
        }
    }

    /// A message will not be delivered: that is to be durable.
    pub(super) fn expire(&mut self, cx: &mut Cx, guests: &Guests, number: u64, why: Expiry) {
        if self.mailbox.doom(number, Doom::Expiry) {
            self.write_expiry(cx, guests, number, why);
        }
    }

    fn write_expiry(&mut self, cx: &mut Cx, guests: &Guests, number: u64, why: Expiry) {
        let Some(message) = self.mailbox.get(number) else { return };
        let Some(pair) = Pair::new(message.from, message.to) else { return };
        let fate = Fate::Expired { at: cx.now.wall, why };
        self.lanes.push(pair, Op::Settle { number, fate });
        self.advance(cx, guests, pair);
    }

    /// A request's time has come.
    pub(crate) fn on_request_timer(&mut self, cx: &mut Cx, guests: &Guests, id: CommandId) {
        let now = cx.at();
        let Some(request) = self.requests.get(id) else { return };
        match &request.kind {
            Kind::Hidden { until, answer, .. } if *until <= now => {
                let answer = answer.clone();
                self.conclude(cx, id, answer);
            }
            Kind::Register { stage: Stage::Asking { until, .. }, .. } if *until <= now => {
                self.refuse(cx, id, "timeout");
            }
            Kind::Register { stage: Stage::Settling { until }, .. } if *until <= now => {
                self.judge(cx, guests, id);
            }
            Kind::Send { number, to, queue, .. } if self.mailbox.get(*number).is_some() => {
                let (number, to, queue, over) = (*number, *to, *queue, request.deadline <= now);
                self.give_up_waiting(cx, guests, id);
                if over {
                    // Not to be queued, and not taken back in time.
                    let why = "it is being taken back; it may be delivered all the same";
                    self.conclude(cx, id, Answer::new(Outcome::Timeout).because(why));
                } else {
                    self.requests.turn(cx, id, Kind::Send { number, to, queue, until: None });
                }
            }
            Kind::Send { number, to, queue, .. } if request.deadline > now => {
                let kind = Kind::Send { number: *number, to: *to, queue: *queue, until: None };
                self.requests.turn(cx, id, kind);
            }
            kind => {
                let taking = matches!(kind, Kind::Send { number, .. } if self.lanes.is_taking(*number));
                let why = if taking || self.lanes.is_on_its_way(id) {
                    "the database did not answer in time; it may still happen"
                } else {
                    "nothing changed"
                };
                self.conclude(cx, id, Answer::new(Outcome::Timeout).because(why));
            }
        }
    }

    /// What time brings to sessions, and to messages.
    pub(crate) fn on_mail_timer(&mut self, cx: &mut Cx, guests: &Guests) {
        while let Some((at, conn)) = self.due.first().copied().filter(|(at, _)| *at <= cx.at()) {
            self.due.remove(&(at, conn));
            let Some(seat) = self.seats.get_mut(&conn) else { continue };
            seat.due = None;
            let guest = seat.guest;
            if seat.stated.is_none() && at >= seat.since + cx.config.peers.policy_timeout {
                // A session that takes part and states nothing has the default.
                let silent = |(other, view): (ConnId, RowView)| other == conn && view.takes_part;
                if Self::session_of(guests, &guest).is_some_and(silent) {
                    self.keep_policy(cx, guests, guest, Policy::Default);
                }
                self.settled(cx, guests, guest);
            }
            self.stirred.insert(guest);
        }
        while let Some((at, number, why)) = self.doomed.first().copied().filter(|(at, ..)| *at <= cx.at()) {
            self.doomed.remove(&(at, number, why));
            self.write_expiry(cx, guests, number, why);
        }
        while let Some((at, guest)) = self.unkept.first().copied().filter(|(at, _)| *at <= cx.at()) {
            self.unkept.remove(&(at, guest));
            if let Some(policy) =
                self.wanted.get(&guest).copied().filter(|_| !self.being_kept.contains(&guest))
            {
                self.keep_policy(cx, guests, guest, policy);
            }
        }
        self.on_leaving(cx, guests);
    }

    /// Whether there is nothing to say, to send or to wait for: so it is after almost every event.
    pub(crate) fn is_quiet(&self, cx: &Cx) -> bool {
        self.post.is_empty()
            && self.stirred.is_empty()
            && self.followers.is_empty()
            && self.next_due().is_none()
            && cx.timers.armed(self.timer).is_none()
    }

    /// Wakes the machine when something is due next.
    pub(crate) fn rearm(&self, cx: &mut Cx) {
        match self.next_due() {
            Some(at) if cx.timers.armed(self.timer) == Some(at) => {}
            Some(at) => cx.timers.arm(self.timer, at, Wakeup::Mail),
            None => cx.timers.disarm(self.timer),
        }
    }

    /// When time brings something next.
    pub(super) fn next_due(&self) -> Option<Time> {
        let leaves = self.mailbox.next_to_leave().map(|(at, _)| at);
        let doomed = self.doomed.first().map(|(at, ..)| *at);
        let unkept = self.unkept.first().map(|(at, _)| *at);
        self.due.first().map(|(at, _)| *at).into_iter().chain(leaves).chain(doomed).chain(unkept).min()
    }

    #[cfg(feature = "model")]
    pub(super) fn armed(&self, cx: &Cx) -> Option<Time> {
        cx.timers.armed(self.timer)
    }

    /// The drain: whatever has not begun to be written is refused.
    pub(crate) fn on_drain(&mut self, cx: &mut Cx, guests: &Guests) {
        for message in self.lanes.abandon() {
            self.mailbox.release(&message);
        }
        for id in self.requests.ids() {
            match self.requests.get(id).map(|request| &request.kind) {
                Some(Kind::Send { number, .. }) if self.lanes.is_taking(*number) => {}
                // It was taken: its sender hears how it stands.
                Some(Kind::Send { number, .. }) if self.mailbox.get(*number).is_some() => {
                    self.give_up_waiting(cx, guests, id);
                }
                Some(_) if self.lanes.is_on_its_way(id) => {}
                Some(_) | None => self.conclude(cx, id, Answer::new(Outcome::ShuttingDown)),
            }
        }
    }

    /// The drain's deadline has come.
    pub(crate) fn abandon(&mut self, cx: &mut Cx) {
        for id in self.requests.ids() {
            self.conclude(cx, id, Answer::new(Outcome::ShuttingDown));
        }
    }
}

#[cfg(feature = "model")]
impl Post {
    pub(super) const fn is_for_client(&self) -> bool {
        matches!(self, Self::Answer(Asker::Client { .. }, _))
    }
}

/// What a row says of a session.
pub(super) struct RowView {
    pub(super) since: Time,
    pub(super) authenticated: bool,
    pub(super) takes_part: bool,
}

/// The session that a frame came over.
#[derive(Clone, Copy, Debug)]
pub(crate) struct From {
    pub(crate) conn: ConnId,
    pub(crate) guest: GuestName,
    pub(crate) since: Time,
    pub(crate) authenticated: bool,
}
