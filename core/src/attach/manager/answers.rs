//! What HTTP clients ask, and what they are told.

use alloc::string::String;
use alloc::vec::Vec;

use super::lanes::Op;
use super::{Answer, Call, Manager, Post, Who};
use crate::attach::wire::AttachErrorCode;
use crate::attach::{ActionStatus, AttachId, Secret};
use crate::broker::cx::Cx;
use crate::broker::guests::Guests;
use crate::id::GuestName;
use crate::time::millis;

/// What an HTTP client asks.
#[derive(Debug)]
pub(crate) enum Ask {
    /// To be attached.
    Attach { beach: AttachId, handshake: Option<AttachId>, session: AttachId, code: Secret },
    /// For actions.
    Poll { session: AttachId },
    /// To be rid of actions.
    Ack { session: AttachId, acks: Vec<Ack> },
    /// That its lease goes on.
    Lease { session: AttachId },
}

/// What became of an action.
#[derive(Debug)]
pub(crate) struct Ack {
    pub(crate) id: AttachId,
    pub(crate) status: ActionStatus,
    pub(crate) code: Option<String>,
}

impl Ask {
    const fn session(&self) -> &AttachId {
        match self {
            Self::Attach { session, .. }
            | Self::Poll { session }
            | Self::Ack { session, .. }
            | Self::Lease { session } => session,
        }
    }
}

impl Manager {
    /// An HTTP client asks. `None`: the answer comes later, through the post.
    pub(crate) fn on_ask(
        &mut self,
        cx: &mut Cx,
        guests: &Guests,
        call: Call,
        bearer: &Secret,
        ask: Ask,
    ) -> Option<Answer> {
        let Some(guest) = self.by_session.get(ask.session()).copied() else {
            self.note_refusal(cx, None, 404, AttachErrorCode::UnknownSession.as_str());
            return Some(Answer::unknown_session());
        };
        let adopted = self.adopted.get_mut(&guest)?;
        if adopted.record.token != *bearer {
            self.note_refusal(cx, Some(guest), 401, "unauthorized");
            return Some(Answer::unauthorized());
        }
        if !matches!(ask, Ask::Attach { .. }) && !adopted.is_attached() {
            self.note_refusal(cx, Some(guest), 404, "not_attached");
            return Some(Answer::error(
                404,
                "not_found",
                "the session is not attached",
                Some("not_attached"),
            ));
        }
        let now = cx.at();
        match ask {
            Ask::Attach { beach, handshake, session, code } => {
                if adopted.record.beach != beach {
                    self.note_refusal(cx, Some(guest), 404, "unknown_beach");
                    return Some(Answer::error(404, "not_found", "private beach not found", None));
                }
                let Some(handshake) = handshake else {
                    self.note_refusal(cx, Some(guest), 400, "no_handshake");
                    return Some(Answer::error(400, "bad_request", "x-beach-handshake-id is missing", None));
                };
                self.push(guest, Op::Attach { who: Who::Http(call), session, handshake, code });
                None
            }
            Ask::Poll { .. } => {
                adopted.polled_at = Some(now);
                if !adopted.has_lease(now) {
                    return Some(Answer::missing_lease());
                }
                if self.flows(cx, guests, &guest) || cx.draining {
                    return Some(Answer::actions(Vec::new()));
                }
                if let Some(json) = self.polled(now, guest) {
                    return Some(Answer::actions(json));
                }
                self.adopted.get_mut(&guest)?.polls.insert(call);
                None
            }
            Ask::Ack { acks, .. } => {
                let mut waits = 0;
                for Ack { id, status, code } in acks {
                    waits += usize::from(self.settle_by_id(guest, &id, status, code, Some(call)));
                }
                if waits == 0 {
                    return Some(Answer::acknowledged());
                }
                self.acks.insert(call, waits);
                None
            }
            Ask::Lease { .. } => {
                let ttl = cx.config.manager.lease_ttl;
                adopted.lease_until = Some(now + ttl);
                Some(Answer::lease(
                    millis(ttl),
                    cx.now.wall.unix_millis().saturating_add_unsigned(millis(ttl)),
                ))
            }
        }
    }

    /// A poll's time is over, or its client is gone.
    pub(crate) fn end_call(&mut self, cx: &Cx, call: Call) {
        self.acks.remove(&call);
        for adopted in self.adopted.values_mut() {
            if adopted.polls.remove(&call) {
                adopted.polled_at = Some(cx.at());
            }
        }
    }

    /// All polls of a guest are answered.
    pub(super) fn end_polls(&mut self, guest: GuestName, answer: &Answer) {
        let Some(adopted) = self.adopted.get_mut(&guest) else { return };
        for call in core::mem::take(&mut adopted.polls) {
            self.post.push_back(Post::Http(call, answer.clone()));
        }
    }

    /// An action that a request acknowledged is settled.
    pub(super) fn count_ack(&mut self, call: Call) {
        let Some(left) = self.acks.get_mut(&call) else { return };
        *left -= 1;
        if *left == 0 {
            self.acks.remove(&call);
            self.post.push_back(Post::Http(call, Answer::acknowledged()));
        }
    }

    /// An action that a request acknowledged could not be settled.
    pub(super) fn fail_ack(&mut self, call: Call, answer: Answer) {
        if self.acks.remove(&call).is_some() {
            self.post.push_back(Post::Http(call, answer));
        }
    }
}
