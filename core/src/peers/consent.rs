//! Who may become whose peer.
//!
//! | a registration is | leaves it on | for |
//! |---|---|---|
//! | settling | the policy was stated, or need not be waited for | judged anew |
//! | asking | everybody said yes | storing |
//! | | one said no; nobody in time | refused |
//! | storing | durable | registered |
//! | | not durable | storage failed |
//! | refused, by a guest | as long as an offer takes | answered |

use alloc::vec::Vec;
use core::time::Duration;

use super::lanes::Op;
use super::machine::{From, Peers, Post};
use super::requests::{Answer, Asker, Kind, Registration, Request, Stage};
use super::wire::PeerFrame;
use super::{Outcome, Pair, Policy, bounded_reason};
use crate::broker::cx::Cx;
use crate::broker::facts::CommandId;
use crate::broker::guests::Guests;
use crate::event::{Fact, MESSAGE_MAX, shortened};
use crate::id::GuestName;
use crate::time::Time;

/// What becomes of a wish to be peers.
enum Judgement {
    Yes,
    No(&'static str),
    Ask(Vec<GuestName>),
    Settle(Time),
}

impl Peers {
    /// Two guests are to be peers. `target` is exact.
    pub(crate) fn register(
        &mut self,
        cx: &mut Cx,
        guests: &Guests,
        asker: Asker,
        (source, target): (GuestName, Option<GuestName>),
        timeout: Option<Duration>,
    ) {
        let timeout = timeout.unwrap_or(cx.config.peers.timeout);
        let by_guest = asker.is_guest();
        if by_guest && !self.requests.may_register(cx.at(), source, cx.config.peers.registrations_per_minute)
        {
            let answer = Answer::new(Outcome::Busy).because("too many registrations within a minute");
            return self.answer(asker, answer);
        }
        if let Some(target) = target.filter(|target| *target == source) {
            return self.answer(asker, Answer::new(Outcome::Itself).about(target, source));
        }
        if let Some(target) = target.filter(|target| guests.relations.are_linked(source, *target)) {
            return self.answer(asker, Answer::new(Outcome::Registered).about(target, source));
        }
        // Whatever is answered at once must not depend on whether the target exists.
        let own = |outcome| Answer { names: target.map(|target| (target, source)), ..Answer::new(outcome) };
        let busy = if by_guest {
            self.requests.awaits_registration(source)
        } else {
            self.requests.registrations(source).any(|(_, _, other, ..)| other == source)
        };
        let held = Self::session_of(guests, &source)
            .and_then(|(conn, _)| self.seats.get(&conn))
            .is_some_and(|seat| seat.hold);
        if busy || held {
            let why = if held { "the guest is on hold" } else { "a registration is in progress" };
            return self.answer(asker, own(Outcome::Busy).because(why));
        }
        let most = cx.config.peers.peers_max;
        let pair = target.and_then(|target| Pair::new(source, target));
        let known = pair.is_some_and(|pair| guests.relations.relation(&pair).is_some());
        if !known && guests.relations.count(&source) >= most {
            return self.answer(asker, own(Outcome::Full).because("too many peers"));
        }
        let (Some(target), Some(pair)) = (target.filter(|target| guests.find(target).is_some()), pair) else {
            return self.refuse_new(cx, asker, source, Answer::new(Outcome::Unknown), timeout);
        };
        let about = |outcome| Answer::new(outcome).about(target, source);
        if !known && guests.relations.count(&target) >= most {
            let answer = about(Outcome::Full).because("too many peers");
            return self.refuse_new(cx, asker, source, answer, timeout);
        }
        if self.lanes.is_full(&pair, cx.config.peers.operations_max) {
            let answer = about(Outcome::Busy).because("too much is going on between the two");
            return self.answer(asker, answer);
        }
        let stage = Stage::Settling { until: cx.at() };
        let id = self.requests.open(cx, asker, Kind::Register { source, target, stage }, timeout);
        self.judge(cx, guests, id);
    }

    /// What the two guests' policies make of a registration.
    pub(super) fn judge(&mut self, cx: &mut Cx, guests: &Guests, id: CommandId) {
        let Some(Request { asker, began, kind: Kind::Register { source, target, .. }, .. }) =
            self.requests.get(id)
        else {
            return;
        };
        let (source, target, by_guest, began) = (*source, *target, asker.is_guest(), *began);
        let judgement = if by_guest && self.is_wanted_by(source, target) {
            Judgement::Yes
        } else {
            let concerned: &[GuestName] = if by_guest { &[target] } else { &[target, source] };
            self.weigh(cx, guests, concerned, by_guest)
        };
        match judgement {
            Judgement::Yes => self.store_link(cx, guests, id),
            Judgement::No(why) => self.refuse(cx, id, why),
            Judgement::Settle(until) => {
                self.requests.turn(
                    cx,
                    id,
                    Kind::Register { source, target, stage: Stage::Settling { until } },
                );
            }
            // However long the policy took: a guest hears of every refusal as late.
            Judgement::Ask(_) if by_guest && began + cx.config.peers.offer_timeout <= cx.at() => {
                self.refuse(cx, id, "timeout");
            }
            Judgement::Ask(whom) => {
                for guest in &whom {
                    let from = if *guest == target { source } else { target };
                    let authenticated = !by_guest
                        || Self::session_of(guests, &from).is_some_and(|(_, view)| view.authenticated);
                    if let Some((conn, _)) = Self::session_of(guests, guest) {
                        let offer = PeerFrame::Offer { id: id.0, from, from_authenticated: authenticated };
                        self.post.push_back(Post::Frame(conn, offer));
                    }
                }
                let since = if by_guest { began } else { cx.at() };
                let until = since + cx.config.peers.offer_timeout;
                let stage = Stage::Asking { until, whom };
                self.requests.turn(cx, id, Kind::Register { source, target, stage });
            }
        }
        // Both want it: whoever was asked says so by asking.
        if by_guest {
            let meant = |(id, request, from, to, stage): Registration<'_>| {
                let asked = matches!(stage, Stage::Asking { whom, .. } if whom.contains(&source));
                (request.asker.is_guest() && asked && from == target && to == source).then_some(id)
            };
            let meant: Vec<CommandId> = self.requests.registrations(source).filter_map(meant).collect();
            for id in meant {
                self.accept(cx, guests, id, source);
            }
        }
    }

    /// Whether `other` asks to be a peer of `guest` just now.
    fn is_wanted_by(&self, guest: GuestName, other: GuestName) -> bool {
        self.requests.registrations(guest).any(|(_, request, source, target, _)| {
            request.asker.is_guest() && source == other && target == guest
        })
    }

    fn weigh(&self, cx: &Cx, guests: &Guests, concerned: &[GuestName], by_guest: bool) -> Judgement {
        let mut asked = Vec::new();
        for guest in concerned {
            let session = Self::session_of(guests, guest);
            if let Some((conn, view)) = &session
                && view.takes_part
                && self.seats.get(conn).is_none_or(|seat| seat.stated.is_none())
            {
                let settled = view.since + cx.config.peers.policy_timeout;
                if cx.at() < settled {
                    return Judgement::Settle(settled);
                }
            }
            match self.policy_of(cx, guests, guest) {
                Policy::Deny => return Judgement::No("policy"),
                Policy::Accept => {}
                Policy::Default if !by_guest => {}
                Policy::Default | Policy::Ask if session.is_some() => asked.push(*guest),
                Policy::Default | Policy::Ask => return Judgement::No("ask_offline"),
            }
        }
        if asked.is_empty() { Judgement::Yes } else { Judgement::Ask(asked) }
    }

    /// A guest answers an offer.
    pub(crate) fn on_offer_answer(
        &mut self,
        cx: &mut Cx,
        guests: &Guests,
        from: &From,
        offer: u64,
        answer: Result<(), Option<&str>>,
    ) {
        let (id, guest) = (CommandId(offer), from.guest);
        let asked = self.requests.get(id).is_some_and(|request| match &request.kind {
            Kind::Register { stage: Stage::Asking { whom, .. }, .. } => whom.contains(&guest),
            _ => false,
        });
        match answer {
            _ if !asked => cx.statistics.stale_inputs += 1,
            Ok(()) => self.accept(cx, guests, id, guest),
            Err(None) => self.refuse(cx, id, "refused"),
            Err(Some(reason)) => {
                let why = alloc::format!("refused: {}", bounded_reason(reason));
                self.refuse(cx, id, &why);
            }
        }
    }

    fn accept(&mut self, cx: &mut Cx, guests: &Guests, id: CommandId, guest: GuestName) {
        let Some(Request { kind: Kind::Register { source, target, stage }, .. }) = self.requests.get(id)
        else {
            return;
        };
        let Stage::Asking { until, whom } = stage else { return };
        let (source, target, until) = (*source, *target, *until);
        let whom: Vec<GuestName> = whom.iter().copied().filter(|other| *other != guest).collect();
        if whom.is_empty() {
            return self.store_link(cx, guests, id);
        }
        let stage = Stage::Asking { until, whom };
        self.requests.turn(cx, id, Kind::Register { source, target, stage });
    }

    fn store_link(&mut self, cx: &mut Cx, guests: &Guests, id: CommandId) {
        let Some(Request { kind: Kind::Register { source, target, .. }, .. }) = self.requests.get(id) else {
            return;
        };
        let (source, target) = (*source, *target);
        let Some(pair) = Pair::new(source, target) else { return };
        self.requests.turn(cx, id, Kind::Register { source, target, stage: Stage::Storing });
        self.lanes.push(pair, Op::Link { command: id, source });
        self.advance(cx, guests, pair);
    }

    /// The two are peers: whoever else wanted that has it.
    pub(super) fn on_linked(&mut self, cx: &mut Cx, pair: Pair) {
        let [low, _] = pair.both();
        let same = |(id, _, source, target, stage): Registration<'_>| {
            let waits = !matches!(stage, Stage::Storing) && Pair::new(source, target) == Some(pair);
            waits.then_some((id, target, source))
        };
        for (id, target, source) in self.requests.registrations(low).filter_map(same).collect::<Vec<_>>() {
            self.conclude(cx, id, Answer::new(Outcome::Registered).about(target, source));
        }
    }

    /// A registration comes to nothing: somebody would not.
    pub(super) fn refuse(&mut self, cx: &mut Cx, id: CommandId, why: &str) {
        let Some(request) = self.requests.close(cx, id) else { return };
        let Kind::Register { source, target, .. } = request.kind else { return };
        let fact = Fact::PeerRefused {
            peer: target,
            outcome: Outcome::Rejected,
            reason: shortened(why, MESSAGE_MAX),
        };
        cx.event(Some(source), fact);
        let answer = Answer::new(Outcome::Rejected).about(target, source).because(why);
        self.hide(cx, request.asker, source, answer, (request.began, request.deadline));
    }

    /// Refuses at once, if the asker may know so soon.
    fn refuse_new(
        &mut self,
        cx: &mut Cx,
        asker: Asker,
        source: GuestName,
        answer: Answer,
        timeout: Duration,
    ) {
        let now = cx.at();
        self.hide(cx, asker, source, answer, (now, now + timeout));
    }

    /// A guest hears of every refusal alike, and as late: it can't tell who exists,
    /// nor what others think of it.
    fn hide(
        &mut self,
        cx: &mut Cx,
        asker: Asker,
        source: GuestName,
        answer: Answer,
        (began, deadline): (Time, Time),
    ) {
        if !asker.is_guest() {
            return self.answer(asker, answer);
        }
        let until = began + cx.config.peers.offer_timeout;
        let answer = Answer::new(Outcome::Rejected);
        if until <= cx.at() {
            return self.answer(asker, answer);
        }
        let left = deadline.since(cx.at());
        self.requests.open(cx, asker, Kind::Hidden { source, until, answer }, left);
    }

    /// Two guests are to be peers no more.
    pub(crate) fn unregister(
        &mut self,
        cx: &mut Cx,
        guests: &Guests,
        asker: Asker,
        (source, target): (GuestName, Option<GuestName>),
        timeout: Option<Duration>,
    ) {
        let Some(target) = target else { return self.answer(asker, Answer::new(Outcome::Unregistered)) };
        let about = |outcome| Answer::new(outcome).about(target, source);
        let Some(pair) = Pair::new(source, target) else { return self.answer(asker, about(Outcome::Itself)) };
        if self.lanes.is_full(&pair, cx.config.peers.operations_max) {
            return self.answer(asker, about(Outcome::Busy).because("too much is going on between the two"));
        }
        let timeout = timeout.unwrap_or(cx.config.peers.timeout);
        let command = self.requests.open(cx, asker, Kind::Unregister, timeout);
        self.lanes.push(pair, Op::Unlink { command, source, expired: Vec::new() });
        self.advance(cx, guests, pair);
    }
}
