//! Actions: into the queue, over the link or a poll, and out by ack, expiry or release.

use alloc::boxed::Box;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::time::Duration;

use serde::Serialize;
use serde_json::value::RawValue;

use super::adopt::not_adopted;
use super::lanes::Op;
use super::requests::Kind;
use super::{Answer, Asker, Call, Due, Manager, Post, Reply, Waiting};
use crate::attach::wire::ManagerFrame;
use crate::attach::{Action, ActionStatus, AttachId};
use crate::broker::clients::problem;
use crate::broker::commands::unknown;
use crate::broker::cx::Cx;
use crate::broker::facts::CommandId;
use crate::broker::guests::Guests;
use crate::control::attach::ActionAnswer;
use crate::control::reply::{ErrorBody, ErrorCode};
use crate::id::{ConnId, GuestName};
use crate::link::message::append_json;
use crate::time::{Time, millis};

/// Most bytes of JSON in one answer to a poll.
pub(super) const POLL_BYTES: usize = 48 * 1024;

/// What a guest is to do.
#[derive(Debug)]
pub(crate) struct Wanted {
    pub(crate) kind: String,
    pub(crate) payload: String,
    pub(crate) ttl: Option<Duration>,
    pub(crate) wait: bool,
}

impl Wanted {
    /// What [`Action::cost`] will be.
    fn cost(&self) -> usize {
        Action::cost_of(&self.kind, &self.payload)
    }
}

/// An action in the answer to a poll.
#[derive(Serialize)]
struct Polled<'a> {
    id: &'a AttachId,
    action_type: &'a str,
    payload: &'a RawValue,
    expires_at: Option<()>,
    ttl_ms: u64,
}

impl Manager {
    /// An adopted guest is to do something.
    pub(crate) fn send_action(
        &mut self,
        cx: &mut Cx,
        guests: &Guests,
        asker: Asker,
        guest: GuestName,
        wanted: Wanted,
        timeout: Option<Duration>,
    ) {
        if let Err(error) = self.may_take(cx, guests, &guest, &wanted) {
            return self.post.push_back(Post::Reply(asker, Err(error)));
        }
        let settings = &cx.config.manager;
        let ttl = wanted.ttl.unwrap_or(settings.action_ttl);
        if ttl > settings.action_ttl_max {
            let text = format!("ttl_ms may be at most {}", millis(settings.action_ttl_max));
            return self.reply_error(asker, ErrorCode::InvalidRequest, &text);
        }
        let timeout = timeout.unwrap_or(settings.wait_timeout);
        let Some(adopted) = self.adopted.get_mut(&guest) else { return };
        adopted.entering += 1;
        self.bytes += wanted.cost();
        self.last += 1;
        let action = Action {
            number: self.last,
            guest,
            id: AttachId::random(&mut cx.entropy),
            kind: wanted.kind,
            payload: wanted.payload,
            queued_at: cx.now.wall,
            ttl_ms: millis(ttl),
        };
        let kind = Kind::Send { number: action.number, wait: wanted.wait, durable: false };
        let command = self.requests.open(cx, asker, guest, kind, timeout);
        self.push(guest, Op::Enqueue { command, action: Box::new(action) });
    }

    /// Whether a guest can take an action: what it can't is refused early.
    fn may_take(
        &self,
        cx: &Cx,
        guests: &Guests,
        guest: &GuestName,
        wanted: &Wanted,
    ) -> Result<(), ErrorBody> {
        let Some(adopted) = self.adopted.get(guest) else {
            let known = guests.find(guest).is_some();
            return Err(if known { not_adopted(guest) } else { unknown(guest) });
        };
        if !adopted.is_attached() {
            let text =
                format!("{guest} is adopted, but has not attached; castra attachments shows how it goes");
            return Err(problem(ErrorCode::NotAttached, text));
        }
        // Whoever is there and has not said so on its link yet is about to, or to poll.
        if !guests.is_reachable(cx, guest) && !Self::polls(adopted, cx, cx.at()) {
            let text = format!("{guest} is neither reachable nor polling; castra status {guest} says why");
            return Err(problem(ErrorCode::GuestOffline, text));
        }
        if !adopted.has_lease(cx.at()) {
            let text = format!("the lease of {guest} is over, and its agent has not renewed it");
            return Err(problem(ErrorCode::MissingLease, text));
        }
        let most = cx.config.manager.queue_max;
        if adopted.queue.len() + adopted.entering >= most {
            return Err(problem(ErrorCode::Full, format!("{most} actions wait for {guest} already")));
        }
        let most = cx.config.manager.queues_bytes_max;
        if self.bytes + wanted.cost() > most {
            let text = format!("all actions that wait may take {most} bytes together, and it would be more");
            return Err(problem(ErrorCode::Full, text));
        }
        Ok(())
    }

    /// An action is not on its way into the queue any more: it is in it, or won't be.
    pub(super) fn leave_entrance(&mut self, guest: GuestName) {
        if let Some(adopted) = self.adopted.get_mut(&guest) {
            adopted.entering = adopted.entering.saturating_sub(1);
        }
    }

    /// An action is not to enter the queue after all.
    pub(super) fn turn_away(&mut self, action: &Action) {
        self.bytes = self.bytes.saturating_sub(action.cost());
        self.leave_entrance(action.guest);
    }

    /// An action waits, durably.
    pub(super) fn on_enqueued(&mut self, cx: &mut Cx, command: CommandId, action: Action) {
        let (guest, number, id) = (action.guest, action.number, action.id.clone());
        let expires = cx.at() + Duration::from_millis(action.ttl_ms);
        self.keep(action, expires);
        super::attach_event(cx, Some(guest), crate::event::AttachFact::Queued { id });
        self.stirred.insert(guest);
        match self.requests.get(command).map(|request| request.kind) {
            Some(Kind::Send { wait: true, .. }) => {
                self.requests.turn(command, Kind::Send { number, wait: true, durable: true });
            }
            Some(_) => self.say_queued(cx, guest, command, number),
            None => {}
        }
    }

    /// Nobody waits for its end any more: it stays in the queue.
    pub(super) fn say_queued(&mut self, cx: &mut Cx, guest: GuestName, command: CommandId, number: u64) {
        let waiting = self.adopted.get(&guest).and_then(|adopted| adopted.queue.get(&number));
        let Some(id) = waiting.map(|waiting| waiting.action.id.clone()) else { return };
        let answer = ActionAnswer { guest, id, status: "queued".into(), error_code: None };
        self.conclude(cx, command, Ok(Reply::Action(answer)));
    }

    /// The guest says what became of an action. False: there is no such action.
    pub(super) fn settle_by_id(
        &mut self,
        guest: GuestName,
        id: &AttachId,
        status: ActionStatus,
        code: Option<String>,
        call: Option<Call>,
    ) -> bool {
        let Some(adopted) = self.adopted.get_mut(&guest) else { return false };
        let Some(number) = adopted.ids.get(id).copied() else { return false };
        let Some(waiting) = adopted.queue.get_mut(&number) else { return false };
        waiting.acks.extend(call);
        if !core::mem::replace(&mut waiting.settling, true) {
            let code = code.filter(|_| status != ActionStatus::Ok);
            self.push(guest, Op::Settle { number, status, code, acked: true });
        }
        true
    }

    /// An action's time is over; or what couldn't be written is looked at again.
    pub(super) fn on_action_due(&mut self, cx: &Cx, guests: &Guests, guest: GuestName, number: u64) {
        let Some(adopted) = self.adopted.get_mut(&guest) else { return };
        let Some(waiting) = adopted.queue.get_mut(&number) else { return };
        if waiting.expires > cx.at() {
            waiting.due = waiting.expires;
            self.due.insert((waiting.expires, Due::Action(guest, number)));
            if self.flows(cx, guests, &guest) {
                self.stirred.insert(guest);
            }
        } else if !core::mem::replace(&mut waiting.settling, true) {
            let status = ActionStatus::Expired;
            self.push(guest, Op::Settle { number, status, code: None, acked: false });
        }
    }

    /// An action is done with, durably.
    pub(super) fn on_settled(
        &mut self,
        cx: &mut Cx,
        guest: GuestName,
        number: u64,
        (status, code, acked): (ActionStatus, Option<String>, bool),
    ) {
        let Some(adopted) = self.adopted.get_mut(&guest) else { return };
        let Some(Waiting { action, due, acks, .. }) = adopted.queue.remove(&number) else { return };
        adopted.ids.remove(&action.id);
        self.bytes = self.bytes.saturating_sub(action.cost());
        self.due.remove(&(due, Due::Action(guest, number)));
        let conn = adopted.seat.as_mut().map(|seat| {
            seat.sent.remove(&number);
            seat.conn
        });
        let id = action.id;
        let fact = crate::event::AttachFact::Settled { id: id.clone(), status, code: code.clone() };
        super::attach_event(cx, Some(guest), fact);
        if let Some(conn) = conn.filter(|_| acked) {
            self.say(conn, &ManagerFrame::Settled { id: id.clone() });
        }
        acks.into_iter().for_each(|call| self.count_ack(call));
        let status = String::from(status.as_str());
        let answer = ActionAnswer { guest, id, status, error_code: code };
        for command in self.requests.of_action(number) {
            self.conclude(cx, command, Ok(Reply::Action(answer.clone())));
        }
        self.stirred.insert(guest);
    }

    /// The end of an action could not be written: it waits as before, and is sent again.
    pub(super) fn unsettle(&mut self, cx: &Cx, guest: GuestName, number: u64) {
        let Some(adopted) = self.adopted.get_mut(&guest) else { return };
        if let Some(seat) = &mut adopted.seat {
            seat.sent.remove(&number);
        }
        let Some(waiting) = adopted.queue.get_mut(&number) else { return };
        waiting.settling = false;
        self.due.remove(&(waiting.due, Due::Action(guest, number)));
        waiting.due = if waiting.expires > cx.at() {
            waiting.expires.min(cx.at() + super::AGAIN)
        } else {
            cx.at() + super::AGAIN
        };
        self.due.insert((waiting.due, Due::Action(guest, number)));
        for call in core::mem::take(&mut waiting.acks) {
            self.fail_ack(call, Answer::storage_failed());
        }
    }

    /// Sends what may flow, through `send` until it says that there is no room; answers polls.
    pub(crate) fn flow(
        &mut self,
        cx: &mut Cx,
        guests: &Guests,
        mut send: impl FnMut(&mut Cx, ConnId, &[u8]) -> bool,
    ) {
        while let Some(guest) = self.stirred.pop_first() {
            let fast = self.flows(cx, guests, &guest);
            if fast {
                self.end_polls(guest, &Answer::actions(Vec::new()));
                self.flow_to(cx, guest, &mut send);
            } else if self.adopted.get(&guest).is_some_and(|adopted| !adopted.polls.is_empty())
                && let Some(json) = self.polled(cx.at(), guest)
            {
                self.end_polls(guest, &Answer::actions(json));
            }
        }
    }

    fn flow_to(
        &mut self,
        cx: &mut Cx,
        guest: GuestName,
        send: &mut impl FnMut(&mut Cx, ConnId, &[u8]) -> bool,
    ) {
        let most = cx.config.manager.in_flight_max;
        let now = cx.at();
        let Some(adopted) = self.adopted.get_mut(&guest) else { return };
        let Some(seat) = adopted.seat.as_mut().filter(|seat| seat.backlog.is_empty()) else { return };
        for (number, waiting) in &mut adopted.queue {
            if seat.sent.len() >= most {
                return;
            }
            // One that couldn't be settled rests until it is looked at again.
            let rests = waiting.due < waiting.expires;
            if rests || waiting.settling || waiting.expires <= now || seat.sent.contains(number) {
                continue;
            }
            let Ok(payload) = serde_json::from_str(&waiting.action.payload) else { continue };
            let mut json = Vec::new();
            append_json(
                &mut json,
                &ManagerFrame::Action {
                    id: waiting.action.id.clone(),
                    action_type: (&*waiting.action.kind).into(),
                    payload,
                    ttl_ms: millis(waiting.expires.since(now)),
                },
            );
            if !send(cx, seat.conn, &json) {
                return;
            }
            waiting.sent = true;
            seat.sent.insert(*number);
        }
    }

    /// The oldest actions of a guest as a poll answers them. `None`: there is none.
    pub(super) fn polled(&mut self, now: Time, guest: GuestName) -> Option<Vec<u8>> {
        let mut json = alloc::vec![b'['];
        for waiting in self.adopted.get_mut(&guest)?.queue.values_mut() {
            if waiting.settling || waiting.expires <= now {
                continue;
            }
            let Ok(payload) = serde_json::from_str(&waiting.action.payload) else { continue };
            let before = json.len();
            if before > 1 {
                json.push(b',');
            }
            let ttl_ms = millis(waiting.expires.since(now));
            let Action { id, kind, .. } = &waiting.action;
            append_json(&mut json, &Polled { id, action_type: kind, payload, expires_at: None, ttl_ms });
            if json.len() >= POLL_BYTES && before > 1 {
                json.truncate(before);
                break;
            }
            waiting.sent = true;
        }
        json.push(b']');
        (json.len() > 2).then_some(json)
    }
}
