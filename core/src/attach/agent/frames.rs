//! What comes over the link, and what goes out there.

use alloc::string::ToString;
use alloc::vec::Vec;
use core::time::Duration;

use serde_json::value::RawValue;

use super::actions::Ack;
use super::handshake::{Asked, id, judge};
use super::payload::Incoming;
use super::series::{Failure, Step};
use super::{Controller, Uplink};
use crate::agent::Context;
use crate::attach::wire::{AttachErrorCode, AttachRequest, Handshake, ManagerFrame};
use crate::attach::{ActionCode, ActionStatus, AttachId, Route};
use crate::event::{AttachFact, Fact};
use crate::time::Time;

impl Controller {
    /// The link has a session: `first` is said before anything else.
    pub(crate) fn on_up(&mut self, cx: &mut Context<'_>, keyed: bool, first: &mut Vec<AttachRequest>) {
        let trusted = keyed || cx.config.trust_unkeyed_broker || planted!(cx.config, AttachWithoutTrust);
        self.link = Some(Uplink { trusted, greeted: false, stale: 0 });
        let Some(series) = &mut self.series else { return };
        self.stirred = true;
        if series.step == Step::Linkless {
            series.step = Step::Resting { until: cx.now.boot };
        }
        self.choose_route(cx);
        if let (Some((Route::Link, session)), Some(link)) = (&self.route, &mut self.link) {
            link.greeted = true;
            first.push(AttachRequest::Attached { session_id: session.clone() });
            first.push(AttachRequest::LeaseRenew { session_id: session.clone() });
            self.lease.ask(cx.now.boot + cx.config.attach.request_timeout);
            self.lease.unsaid = false;
        }
    }

    pub(crate) fn on_lost(&mut self, cx: &mut Context<'_>) {
        self.link = None;
        self.refusal = None;
        self.actions.on_route_lost(Route::Link);
        let Some(series) = &self.series else { return };
        self.stirred = true;
        if matches!(series.step, Step::Framed { .. }) {
            self.fail(cx, Failure::of(AttachErrorCode::LinkLost, true));
        }
        self.choose_route(cx);
    }

    pub(crate) fn on_frame(&mut self, cx: &mut Context<'_>, frame: ManagerFrame<'_>) {
        self.stirred = true;
        let trusted = self.link.is_some_and(|link| link.trusted);
        match frame {
            ManagerFrame::Handshake(handshake) => self.on_handshake(cx, &handshake, trusted),
            ManagerFrame::Malformed => {
                cx.event(Fact::Attach(AttachFact::Received { handshake: None, session: None }));
                let reason = if trusted { AttachErrorCode::Malformed } else { AttachErrorCode::UnkeyedLink };
                self.refuse(cx, None, None, reason);
            }
            ManagerFrame::Action { id, action_type, payload, ttl_ms } => {
                if !trusted {
                    let outcome = (ActionStatus::Rejected, Some(ActionCode::UnkeyedLink));
                    return self.actions.refuse(cx, id, outcome, Route::Link);
                }
                let expires = Some(cx.now.boot + Duration::from_millis(ttl_ms));
                let incoming = Incoming { id, kind: action_type, payload: RawValue::get(payload), expires };
                let session = self.broker_session();
                self.actions.take(cx, session.as_ref(), incoming, Route::Link);
            }
            // Nobody else may say anything of an attachment.
            _ if !trusted => {}
            ManagerFrame::Attached { session_id, .. } => self.on_attached(cx, &session_id),
            ManagerFrame::Refused { code, .. } => {
                if self.is_answer() {
                    self.fail(cx, Failure::refused(&code));
                }
            }
            ManagerFrame::Detach { session_id } => self.on_detach(cx, &session_id),
            ManagerFrame::Settled { id } => {
                if let Some(session) = self.broker_session() {
                    self.actions.settle(cx, &(session, id));
                }
            }
            ManagerFrame::Lease { session_id, lease_ttl_ms } => {
                if self.broker_session() == Some(session_id) {
                    let ttl = Duration::from_millis(lease_ttl_ms);
                    self.lease.granted(cx.now.boot, ttl, &cx.config.attach);
                }
            }
        }
    }

    fn on_handshake(&mut self, cx: &mut Context<'_>, handshake: &Handshake, trusted: bool) {
        let named = id(handshake.handshake_id.as_deref()).ok();
        let session = id(handshake.session_id.as_deref()).ok();
        let received = AttachFact::Received { handshake: named.clone(), session: session.clone() };
        cx.event(Fact::Attach(received));
        let attached = self.broker_session();
        match judge(handshake, trusted, attached.as_ref(), &cx.config.attach, cx.now) {
            Err(reason) => self.refuse(cx, named, session, reason),
            Ok(Asked::Refresh(ttl)) => {
                if let Some(ttl) = ttl {
                    self.lease.granted(cx.now.boot, ttl, &cx.config.attach);
                }
            }
            Ok(Asked::Attach(target)) => {
                self.no_block = false;
                let same = |step: Step| !matches!(step, Step::Over);
                let current = self.series.as_ref().filter(|series| same(series.step));
                if current.is_none_or(|series| series.target.handshake != target.handshake) {
                    self.follow(cx, target);
                }
            }
        }
    }

    /// The session of this broker's that the agent is attached to.
    fn broker_session(&self) -> Option<AttachId> {
        let series = self.series.as_ref().filter(|series| series.is_attached())?;
        series.target.handshake.as_ref().map(|_| series.target.session.clone())
    }

    /// Whether what the broker answers is about the attempt that is under way.
    fn is_answer(&mut self) -> bool {
        if let Some(link) = &mut self.link
            && link.stale > 0
        {
            link.stale -= 1;
            return false;
        }
        self.series.as_ref().is_some_and(|series| matches!(series.step, Step::Framed { sent: true, .. }))
    }

    fn on_attached(&mut self, cx: &mut Context<'_>, session: &AttachId) {
        let answer = self.is_answer();
        if answer && self.series.as_ref().is_some_and(|series| series.target.session == *session) {
            if let Some(link) = &mut self.link {
                link.greeted = true;
            }
            self.succeed(cx);
        }
    }

    fn on_detach(&mut self, cx: &mut Context<'_>, session: &AttachId) {
        let ours = self.series.as_ref().filter(|series| series.target.session == *session);
        if ours.is_some_and(|series| series.target.handshake.is_none()) {
            // Another manager's.
            return;
        }
        let (attached, trying) =
            ours.map_or((false, false), |series| (series.is_attached(), series.is_trying()));
        if trying {
            self.cancel_attempt(cx);
            self.fail(cx, Failure::of(AttachErrorCode::Released, false));
        }
        if attached {
            self.detach(cx, Failure::of(AttachErrorCode::Released, false).error, true);
        } else {
            self.actions.settle_session(cx, session);
        }
    }

    /// Whether something is to be said over the link.
    fn has_to_say(&mut self) -> bool {
        let Some(link) = self.link else { return false };
        let framed = |series: &super::Series| matches!(series.step, Step::Framed { sent: false, .. });
        let greets = matches!(self.route, Some((Route::Link, _)));
        self.refusal.is_some()
            || self.untold
            || self.series.as_ref().is_some_and(framed)
            || (greets && (!link.greeted || self.lease.unsaid))
            || self.actions.next_ack(Route::Link, greets).is_some()
    }

    /// Says what is to be said, as long as `send` says that it was sent.
    pub(crate) fn say(&mut self, now: Time, send: &mut dyn FnMut(&AttachRequest) -> bool) {
        if self.has_to_say() {
            self.say_all(now, send);
        }
        self.held_back = self.has_to_say();
    }

    fn say_all(&mut self, now: Time, send: &mut dyn FnMut(&AttachRequest) -> bool) {
        if let Some(state) = &self.refusal {
            if !send(&AttachRequest::State(state.clone())) {
                return;
            }
            self.refusal = None;
        }
        if self.untold {
            if let Some(state) = self.told(now)
                && !send(&AttachRequest::State(state))
            {
                return;
            }
            self.untold = false;
        }
        if self.say_attempt(send) && self.say_attached(send) {
            self.say_acks(send);
        }
    }

    /// True: there is more room.
    fn say_attempt(&mut self, send: &mut dyn FnMut(&AttachRequest) -> bool) -> bool {
        let Some(series) = &mut self.series else { return true };
        let (Step::Framed { sent: false, deadline }, Some(handshake)) =
            (series.step, &series.target.handshake)
        else {
            return true;
        };
        let request = AttachRequest::Attach {
            session_id: series.target.session.clone(),
            code: series.target.code.clone(),
            handshake_id: handshake.clone(),
        };
        if send(&request) {
            series.step = Step::Framed { sent: true, deadline };
            return true;
        }
        false
    }

    fn say_attached(&mut self, send: &mut dyn FnMut(&AttachRequest) -> bool) -> bool {
        let (Some((Route::Link, session)), Some(link)) = (&self.route, &mut self.link) else { return true };
        if !link.greeted {
            if !send(&AttachRequest::Attached { session_id: session.clone() }) {
                return false;
            }
            link.greeted = true;
        }
        if self.lease.unsaid {
            if !send(&AttachRequest::LeaseRenew { session_id: session.clone() }) {
                return false;
            }
            self.lease.unsaid = false;
        }
        true
    }

    fn say_acks(&mut self, send: &mut dyn FnMut(&AttachRequest) -> bool) {
        let remembered = matches!(self.route, Some((Route::Link, _)));
        while let Some(ack) = self.actions.next_ack(Route::Link, remembered) {
            let Ack { id, outcome: (status, code), .. } = &ack;
            let error_code = code.map(|code| code.as_str().to_string());
            if !send(&AttachRequest::Ack { id: id.clone(), status: *status, error_code }) {
                return;
            }
            self.actions.sent(&ack, Route::Link);
        }
    }
}
