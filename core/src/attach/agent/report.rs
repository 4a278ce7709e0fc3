//! How attaching goes, as the broker and local clients are told.

use alloc::format;
use alloc::string::{String, ToString};

use super::handshake::{Target, explained};
use super::{Controller, Series};
use crate::agent::Context;
use crate::attach::wire::{AttachError, AttachErrorCode, AttachState};
use crate::attach::{AttachId, Route, Stage};
use crate::control::attach::AttachmentRow;
use crate::event::{AttachFact, Escaped, Fact};
use crate::id::GuestName;
use crate::time::{Time, millis};

impl Controller {
    /// A handshake is of no use: the broker is told why, and nothing else changes.
    pub(super) fn refuse(
        &mut self,
        cx: &mut Context<'_>,
        handshake: Option<AttachId>,
        session: Option<AttachId>,
        reason: AttachErrorCode,
    ) {
        let again = core::mem::replace(&mut self.no_block, reason == AttachErrorCode::NoBlock);
        if !again || reason != AttachErrorCode::NoBlock {
            cx.event(Fact::Attach(AttachFact::Refused { handshake: handshake.clone(), reason }));
        }
        let error = AttachError { code: reason.as_str().to_string(), message: explained(reason).into() };
        self.refused = Some(error.clone());
        self.refusal = Some(AttachState {
            session_id: session,
            handshake_id: handshake,
            last_error: Some(error),
            ..AttachState::default()
        });
    }

    /// What the broker of this link is told of what it asked for itself.
    pub(super) fn told(&self, now: Time) -> Option<AttachState> {
        let trusted = self.link.is_some_and(|link| link.trusted);
        let series = self.series.as_ref().filter(|_| trusted)?;
        let handshake = series.target.handshake.clone()?;
        Some(AttachState {
            session_id: Some(series.target.session.clone()),
            handshake_id: Some(handshake),
            attached: series.is_attached(),
            attempt: series.attempt,
            failure_count: series.failures,
            last_attempt_age_ms: series.last_attempt.map(|at| millis(now.since(at))),
            next_retry_ms: retry_ms(series, now),
            last_error: series.last_error.clone(),
        })
    }

    /// The agent's own row, if it was asked to attach.
    pub(crate) fn row(&self, guest: GuestName, now: Time) -> Option<AttachmentRow> {
        let series = self.series.as_ref()?;
        let Target { session, handshake, beach, url, expires, .. } = &series.target;
        let attached = series.is_attached();
        let left = |at: Time| millis(at.since(now));
        Some(AttachmentRow {
            guest,
            session_id: session.clone(),
            private_beach_id: beach.clone(),
            manager_url: url.clone(),
            handshake_id: handshake.clone(),
            stage: if attached { Stage::Attached } else { Stage::Pending },
            route: self.route.as_ref().map(|(route, _): &(Route, AttachId)| *route),
            code_expires_in_ms: expires.filter(|at| !attached && now < *at).map(left),
            lease_expires_in_ms: self.lease.ends.filter(|at| attached && now < *at).map(left),
            last_poll_age_ms: self.polling.last_poll.map(|at| millis(now.since(at))),
            queued: self.actions.unfinished() as u64,
            attempt: Some(series.attempt),
            failure_count: Some(series.failures),
            last_attempt_age_ms: series.last_attempt.map(|at| millis(now.since(at))),
            next_retry_ms: retry_ms(series, now),
            last_error: series.last_error.clone(),
        })
    }

    /// Why the agent is not attached, for whoever waited for that.
    pub(crate) fn explain(&self, now: Time) -> String {
        let Some(series) = &self.series else {
            return match &self.refused {
                None => "no manager asked this guest to attach: castra adopt, on the host".into(),
                Some(error) => format!("the last handshake was refused: {}", Escaped(&error.message)),
            };
        };
        let mut text = format!("not attached after {} attempts", series.attempt);
        if let Some(error) = &series.last_error {
            text += &format!(" ({}: {})", Escaped(&error.code), Escaped(&error.message));
        }
        if let Some(until) = series.next_retry() {
            text += &format!(", next try in {} ms", millis(until.since(now)));
        }
        text
    }
}

/// Null is for whoever gave up: a broker answers those who wait with it.
fn retry_ms(series: &Series, now: Time) -> Option<u64> {
    let under_way = series.is_trying().then_some(0);
    series.next_retry().map(|until| millis(until.since(now))).or(under_way)
}
