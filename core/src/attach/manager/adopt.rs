//! Adopting and letting go.

use alloc::boxed::Box;
use alloc::format;
use core::time::Duration;

use super::lanes::{Op, Why, Write};
use super::requests::Kind;
use super::seats::session_of;
use super::{Asker, Manager, Post, Reply, SeatStage, attach_event};
use crate::attach::{AttachId, Attachment, ManagerUrl, Secret, Stage};
use crate::broker::clients::problem;
use crate::broker::commands::unknown;
use crate::broker::cx::Cx;
use crate::broker::facts::CommandId;
use crate::broker::guests::Guests;
use crate::control::attach::{Adopted as AdoptedAnswer, Released};
use crate::control::reply::{ErrorBody, ErrorCode};
use crate::event::AttachFact;
use crate::id::GuestName;

impl Manager {
    /// A guest is to be adopted.
    pub(crate) fn adopt(
        &mut self,
        cx: &mut Cx,
        guests: &Guests,
        asker: Asker,
        guest: GuestName,
        (beach, link, wait): (Option<AttachId>, bool, bool),
        timeout: Option<Duration>,
    ) {
        if guests.find(&guest).is_none() && !self.adopted.contains_key(&guest) {
            return self.post.push_back(Post::Reply(asker, Err(unknown(&guest))));
        }
        let timeout = timeout.unwrap_or(cx.config.manager.wait_timeout);
        let kind = Kind::Adopt { wait, durable: false };
        let command = self.requests.open(cx, asker, guest, kind, timeout);
        self.push(guest, Op::Adopt { command, beach, link });
    }

    /// An adopted guest is to be let go of.
    pub(crate) fn release(
        &mut self,
        cx: &mut Cx,
        guests: &Guests,
        asker: Asker,
        guest: GuestName,
        timeout: Option<Duration>,
    ) {
        if guests.find(&guest).is_none() && !self.adopted.contains_key(&guest) {
            return self.post.push_back(Post::Reply(asker, Err(unknown(&guest))));
        }
        let timeout = timeout.unwrap_or(cx.config.storage_timeout);
        let command = self.requests.open(cx, asker, guest, Kind::Release, timeout);
        self.push(guest, Op::Release { command });
    }

    /// What adopting comes to now. `None`: there is nothing to be written.
    pub(super) fn prepare_adoption(
        &mut self,
        cx: &mut Cx,
        guests: &Guests,
        guest: GuestName,
        command: CommandId,
        (beach, link): (Option<AttachId>, bool),
    ) -> Option<Write> {
        let session = session_of(guests, &guest);
        let Some(adopted) = self.adopted.get(&guest) else {
            if guests.find(&guest).is_none() {
                self.fail(cx, command, unknown(&guest));
                return None;
            }
            if session.is_some_and(|(_, takes_part)| !takes_part) {
                self.fail(cx, command, unsupported(&guest));
                return None;
            }
            let most = cx.config.manager.attachments_max;
            if self.adopted.len() + self.lanes.adoptions() >= most {
                let text = format!("{most} guests are adopted already; castra release lets one go");
                self.fail(cx, command, problem(ErrorCode::Full, text));
                return None;
            }
            let record = Attachment {
                guest,
                session: AttachId::random(&mut cx.entropy),
                beach: beach.unwrap_or_else(|| AttachId::random(&mut cx.entropy)),
                url: self.address(cx, session.map(|(conn, _)| conn), link),
                link_only: link,
                handshake: AttachId::random(&mut cx.entropy),
                token: Secret::random(&mut cx.entropy),
                code: Some(Secret::random(&mut cx.entropy)),
                issued_at: cx.now.wall,
                stage: Stage::Pending,
            };
            return Some(Write::Record {
                record: Box::new(record),
                why: Why::Adopted { command, fresh: true },
            });
        };
        let record = &adopted.record;
        if let Some(other) = beach.filter(|beach| *beach != record.beach) {
            let text = format!(
                "{guest} is adopted for the private beach {}, not {other}: release it first",
                record.beach
            );
            self.fail(cx, command, problem(ErrorCode::Conflict, text));
            return None;
        }
        if link && record.url != ManagerUrl::Link {
            let text = format!("{guest} is adopted over {}, not over its link: release it first", record.url);
            self.fail(cx, command, problem(ErrorCode::Conflict, text));
            return None;
        }
        if session.is_some_and(|(_, takes_part)| !takes_part) {
            self.fail(cx, command, unsupported(&guest));
            return None;
        }
        let pinned = Attachment { link_only: record.link_only || link, ..record.clone() };
        let told = adopted.seat.as_ref().is_some_and(|seat| !matches!(seat.stage, SeatStage::Settling(_)));
        if told {
            let refresh = adopted.is_attached();
            let record = self.renewed(cx, pinned, refresh);
            let why = Why::Renewed { command: Some(command), refresh };
            return Some(Write::Record { record: Box::new(record), why });
        }
        // Its session hasn't begun, or may still say that it is attached.
        if pinned != *record {
            let why = Why::Adopted { command, fresh: false };
            return Some(Write::Record { record: Box::new(pinned), why });
        }
        self.adopted_durably(cx, guest, command);
        None
    }

    /// The record of a fresh handshake.
    pub(super) fn renewed(&self, cx: &mut Cx, mut record: Attachment, refresh: bool) -> Attachment {
        record.handshake = AttachId::random(&mut cx.entropy);
        record.code = Some(Secret::random(&mut cx.entropy));
        record.issued_at = cx.now.wall;
        if !refresh {
            record.token = Secret::random(&mut cx.entropy);
            record.stage = Stage::Pending;
            let conn = self.adopted.get(&record.guest).and_then(|adopted| adopted.seat.as_ref());
            record.url = self.address(cx, conn.map(|seat| seat.conn), record.link_only);
        }
        record
    }

    /// The record of an adoption is durable: it is answered now, or when the guest is attached.
    pub(super) fn adopted_durably(&mut self, cx: &mut Cx, guest: GuestName, command: CommandId) {
        let Some(Kind::Adopt { wait, .. }) = self.requests.get(command).map(|request| request.kind) else {
            return;
        };
        if wait && self.adopted.get(&guest).is_some_and(|adopted| !adopted.is_attached()) {
            return self.requests.turn(command, Kind::Adopt { wait, durable: true });
        }
        self.conclude_adoption(cx, guest, command);
    }

    fn conclude_adoption(&mut self, cx: &mut Cx, guest: GuestName, command: CommandId) {
        let Some(adopted) = self.adopted.get(&guest) else { return };
        let record = &adopted.record;
        let answer = AdoptedAnswer {
            guest,
            session_id: record.session.clone(),
            private_beach_id: record.beach.clone(),
            manager_url: record.url.clone(),
            handshake_id: record.handshake.clone(),
            stage: record.stage,
        };
        self.conclude(cx, command, Ok(Reply::Adopted(answer)));
    }

    /// The guest is attached: whoever waited for it hears of it.
    pub(super) fn tell_adopters(&mut self, cx: &mut Cx, guest: GuestName) {
        for command in self.requests.adoptions_of(guest) {
            self.conclude_adoption(cx, guest, command);
        }
    }

    /// It is released, or forgotten, durably. Returns whether it was adopted.
    pub(super) fn let_go(&mut self, cx: &mut Cx, guests: &mut Guests, guest: GuestName) -> Option<Released> {
        self.end_polls(guest, &super::Answer::unknown_session());
        let adopted = self.remove(cx, guests, guest)?;
        let session = adopted.record.session;
        let dropped = adopted.queue.len() as u64;
        if let Some(seat) = adopted.seat {
            self.detach(seat.conn, session.clone());
        }
        for call in adopted.queue.into_values().flat_map(|waiting| waiting.acks) {
            self.fail_ack(call, super::Answer::unknown_session());
        }
        attach_event(cx, Some(guest), AttachFact::Released { session: session.clone(), dropped });
        for id in self.requests.about(guest) {
            let over = match self.requests.get(id).map(|request| request.kind) {
                Some(Kind::Adopt { durable, .. } | Kind::Send { durable, .. }) => durable,
                Some(Kind::Release) | None => false,
            };
            if over {
                self.fail(cx, id, problem(ErrorCode::NotAttached, format!("{guest} was released meanwhile")));
            }
        }
        Some(Released { guest, session_id: session, dropped })
    }

    /// A guest was forgotten, durably, with all that was about it.
    pub(crate) fn on_forgotten(&mut self, cx: &mut Cx, guests: &mut Guests, guest: GuestName) {
        for op in self.lanes.void(guest) {
            self.drop_op(cx, guest, op);
        }
        self.let_go(cx, guests, guest);
        for id in self.requests.about(guest) {
            self.fail(cx, id, unknown(&guest));
        }
    }
}

pub(super) fn not_adopted(guest: &GuestName) -> ErrorBody {
    let text = format!("{guest} is not adopted; castra adopt {guest} does it");
    problem(ErrorCode::NotAttached, text)
}

fn unsupported(guest: &GuestName) -> ErrorBody {
    let text = format!("the agent of {guest} can't be adopted (it doesn't say {})", crate::attach::ATTACH_V1);
    problem(ErrorCode::Unsupported, text)
}
