//! Attaching: what a guest has to know, and what its session says of it.

use alloc::borrow::Cow;
use alloc::boxed::Box;
use alloc::format;
use alloc::string::ToString;

use super::lanes::{Op, Why, Write};
use super::{Answer, Asker, Manager, Post, SeatStage, Who, attach_event};
use crate::attach::wire::{AttachError, AttachErrorCode, AttachRequest, AttachState, ManagerFrame};
use crate::attach::{AttachId, Route, Secret, Stage};
use crate::broker::clients::problem;
use crate::broker::cx::Cx;
use crate::control::reply::ErrorCode;
use crate::event::{AttachFact, Escaped, shortened};
use crate::id::{ConnId, GuestName};
use crate::time::millis;

/// Most `attach` frames of a session without an answer: an agent sends another only once
/// it gave up the last. More are not answered.
const ATTACHING_MAX: u8 = 16;

impl Manager {
    /// A guest says something over its own, proven session.
    pub(crate) fn on_frame(&mut self, cx: &mut Cx, guest: GuestName, conn: ConnId, request: AttachRequest) {
        match request {
            AttachRequest::Attached { session_id } => self.on_attached_frame(cx, guest, conn, session_id),
            AttachRequest::Attach { session_id, code, handshake_id } => {
                let (who, session, handshake) = (Who::Link(conn), session_id, handshake_id);
                let seat = self.adopted.get_mut(&guest).and_then(|adopted| adopted.seat.as_mut());
                let Some(seat) = seat.filter(|seat| seat.conn == conn) else {
                    return self.answer_attach(cx, guest, who, Err(AttachErrorCode::UnknownSession));
                };
                // Each has an answer of its own, as the agent counts those that it gave up.
                if seat.attaching < ATTACHING_MAX {
                    seat.attaching += 1;
                    self.push(guest, Op::Attach { who, session, handshake, code });
                }
            }
            AttachRequest::State(state) => self.on_state(cx, guest, state),
            AttachRequest::Ack { id, status, error_code } => {
                let code = error_code.map(|code| shortened(&code, 64));
                let settled = planted!(cx.config, ActionLostOnAck);
                if !self.settle_by_id(guest, &id, status, code, None) || settled {
                    self.say(conn, &ManagerFrame::Settled { id });
                }
            }
            AttachRequest::LeaseRenew { session_id } => {
                let Some(adopted) = self.adopted.get(&guest) else { return self.detach(conn, session_id) };
                if adopted.record.session != session_id {
                    return self.detach(conn, session_id);
                }
                if adopted.is_attached() {
                    // Only an agent that is attached renews.
                    self.on_attached_frame(cx, guest, conn, session_id);
                    if self.adopted.get(&guest).is_some_and(|adopted| !adopted.is_fast()) {
                        self.lease(cx, guest, conn);
                    }
                }
            }
        }
    }

    /// It says that it is attached.
    fn on_attached_frame(&mut self, cx: &Cx, guest: GuestName, conn: ConnId, session: AttachId) {
        let Some(adopted) = self.adopted.get(&guest) else { return self.detach(conn, session) };
        let seat = adopted.seat.as_ref().filter(|seat| seat.conn == conn).map(|seat| seat.stage);
        let settling = matches!(seat, Some(SeatStage::Settling(_)));
        let known = adopted.record.session == session;
        let is_attached = known && adopted.is_attached();
        if !known {
            self.detach(conn, session);
        }
        if is_attached && seat.is_some() {
            self.set_stage(guest, SeatStage::Fast);
            self.lease(cx, guest, conn);
        } else if settling {
            self.set_stage(guest, SeatStage::Told);
            self.renew(guest);
        }
    }

    /// How its attaching goes.
    fn on_state(&mut self, cx: &mut Cx, guest: GuestName, mut state: AttachState) {
        let Some(adopted) = self.adopted.get_mut(&guest) else { return };
        if let Some(AttachError { code, message }) = &mut state.last_error {
            *code = shortened(code, 64);
            *message = shortened(message, 128);
        }
        let record = &adopted.record;
        let is_ours = match (&state.handshake_id, &state.session_id) {
            (Some(handshake), _) => *handshake == record.handshake,
            (None, Some(session)) => *session == record.session,
            (None, None) => true,
        };
        let gave_up = is_ours && !state.attached && state.next_retry_ms.is_none() && !adopted.is_attached();
        let session = record.session.clone();
        let error = state.last_error.clone().filter(|_| gave_up);
        adopted.state = Some(state);
        let Some(AttachError { code, message }) = error else { return };
        if self.may_note(cx) {
            attach_event(cx, Some(guest), AttachFact::GivenUp { session, code: code.clone() });
        }
        for id in self.requests.adoptions_of(guest) {
            let text = format!(
                "{guest} did not attach: {} ({}); castra attachments shows how it goes",
                Escaped(&message),
                Escaped(&code)
            );
            self.fail(cx, id, problem(ErrorCode::Refused, text));
        }
    }

    /// Whether an attempt is right: `Ok(true)` if it is the first that is.
    fn judge(
        &self,
        cx: &Cx,
        guest: GuestName,
        (session, handshake, code): (&AttachId, &AttachId, &Secret),
    ) -> Result<bool, AttachErrorCode> {
        let adopted = self.adopted.get(&guest).filter(|adopted| adopted.record.session == *session);
        let Some(adopted) = adopted else { return Err(AttachErrorCode::UnknownSession) };
        let good = adopted.code_until.is_some_and(|until| until > cx.at());
        let same = adopted.record.code.as_ref().is_some_and(|kept| kept == code);
        if good && same && adopted.record.handshake == *handshake {
            return Ok(!adopted.is_attached());
        }
        Err(AttachErrorCode::InvalidCode)
    }

    /// What an attempt comes to now. `None`: it is answered.
    pub(super) fn prepare_attach(
        &mut self,
        cx: &mut Cx,
        guest: GuestName,
        who: Who,
        claim: (&AttachId, &AttachId, &Secret),
    ) -> Option<Write> {
        match self.judge(cx, guest, claim) {
            Ok(true) => {
                let mut record = self.adopted.get(&guest)?.record.clone();
                record.stage = Stage::Attached;
                Some(Write::Record { record: Box::new(record), why: Why::Attached { who } })
            }
            Ok(false) => {
                self.answer_attach(cx, guest, who, Ok(()));
                None
            }
            Err(code) => {
                self.answer_attach(cx, guest, who, Err(code));
                None
            }
        }
    }

    /// The guest is attached, durably.
    pub(super) fn on_attached(&mut self, cx: &mut Cx, guest: GuestName, who: Who) {
        let Some(adopted) = self.adopted.get(&guest) else { return };
        let route = if matches!(who, Who::Link(_)) { Route::Link } else { Route::Http };
        let (handshake, session) = (adopted.record.handshake.clone(), adopted.record.session.clone());
        attach_event(cx, Some(guest), AttachFact::Accepted { handshake, session, route });
        self.answer_attach(cx, guest, who, Ok(()));
        self.tell_adopters(cx, guest);
    }

    /// Tells whoever tried how it went.
    pub(super) fn answer_attach(
        &mut self,
        cx: &mut Cx,
        guest: GuestName,
        who: Who,
        result: Result<(), AttachErrorCode>,
    ) {
        if let Who::Link(conn) = who
            && let Some(seat) = self.adopted.get_mut(&guest).and_then(|adopted| adopted.seat.as_mut())
            && seat.conn == conn
        {
            seat.attaching = seat.attaching.saturating_sub(1);
        }
        let adopted = self.adopted.get_mut(&guest);
        match (result, adopted) {
            (Ok(()), Some(adopted)) => {
                let ttl = cx.config.manager.lease_ttl;
                adopted.lease_until = Some(cx.at() + ttl);
                let session = adopted.record.session.clone();
                match who {
                    Who::Link(conn) => {
                        let is_seated = adopted.seat.as_ref().is_some_and(|seat| seat.conn == conn);
                        let frame =
                            ManagerFrame::Attached { session_id: session, ok: true, attach_method: "code" };
                        self.say(conn, &frame);
                        if is_seated {
                            self.set_stage(guest, SeatStage::Fast);
                        }
                    }
                    Who::Http(call) => {
                        let beach = adopted.record.beach.clone();
                        let expires = cx.now.wall.unix_millis().saturating_add_unsigned(millis(ttl));
                        let answer = Answer::attached(&session, &beach, millis(ttl), expires);
                        self.post.push_back(Post::Http(call, answer));
                    }
                }
            }
            (result, _) => {
                let code = result.err().unwrap_or(AttachErrorCode::UnknownSession);
                let (status, answer) = match code {
                    AttachErrorCode::UnknownSession => (404, Answer::unknown_session()),
                    AttachErrorCode::StorageFailed => (503, Answer::storage_failed()),
                    _ => (400, Answer::error(400, "bad_request", code.as_str(), None)),
                };
                if code != AttachErrorCode::StorageFailed {
                    self.note_refusal(cx, Some(guest), status, code.as_str());
                }
                match who {
                    Who::Link(conn) => {
                        let message = Cow::Borrowed(explained(code));
                        let code = Cow::Borrowed(code.as_str());
                        self.say(conn, &ManagerFrame::Refused { code, message });
                    }
                    Who::Http(call) => self.post.push_back(Post::Http(call, answer)),
                }
            }
        }
    }

    /// A code is too old. Nobody used it: the guest gets another, if it is there.
    pub(super) fn on_code_expired(&mut self, cx: &mut Cx, guest: GuestName) {
        let Some(adopted) = self.adopted.get_mut(&guest) else { return };
        adopted.code_until = None;
        let (handshake, session) = (adopted.record.handshake.clone(), adopted.record.session.clone());
        let told = adopted.seat.as_ref().is_some_and(|seat| seat.stage == SeatStage::Told);
        let pending = !adopted.is_attached();
        if pending {
            attach_event(cx, Some(guest), AttachFact::Expired { handshake: handshake.clone(), session });
        }
        if pending && told {
            self.renew(guest);
        } else {
            self.push(guest, Op::Lapse { handshake });
        }
    }

    /// What becomes of an expired code's record.
    pub(super) fn prepare_lapse(&self, guest: GuestName, handshake: &AttachId) -> Option<Write> {
        let record = &self.adopted.get(&guest)?.record;
        if record.handshake != *handshake || record.code.is_none() {
            return None;
        }
        let mut record = record.clone();
        record.code = None;
        Some(Write::Record { record: Box::new(record), why: Why::Lapsed })
    }

    /// Tells a client at once.
    pub(super) fn reply_error(&mut self, asker: Asker, code: ErrorCode, text: &str) {
        self.post.push_back(Post::Reply(asker, Err(problem(code, text.to_string()))));
    }
}

const fn explained(code: AttachErrorCode) -> &'static str {
    match code {
        AttachErrorCode::UnknownSession => "this guest is not adopted under that session",
        AttachErrorCode::StorageFailed => "the broker could not make it durable",
        _ => "the code is wrong, too old, or of another handshake",
    }
}
