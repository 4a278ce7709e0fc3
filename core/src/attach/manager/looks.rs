//! What operators see.

use alloc::vec::Vec;

use super::{Adopted, Manager};
use crate::attach::{Route, Stage};
use crate::broker::cx::Cx;
use crate::broker::guests::Guests;
use crate::control::attach::{ActionRow, Actions, AttachmentRow, Attachments};
use crate::id::GuestName;
use crate::time::{Time, millis};

impl Manager {
    /// Every attachment.
    pub(crate) fn list(&self, cx: &Cx, guests: &Guests) -> Attachments {
        let rows = self.adopted.values().map(|adopted| self.row(cx, guests, adopted));
        Attachments { attachments: rows.collect() }
    }

    fn row(&self, cx: &Cx, guests: &Guests, adopted: &Adopted) -> AttachmentRow {
        let now = cx.at();
        let record = &adopted.record;
        let left =
            |until: Option<Time>| until.filter(|until| *until > now).map(|until| millis(until.since(now)));
        let attached = record.stage == Stage::Attached;
        let route = if self.flows(cx, guests, &record.guest) {
            Some(Route::Link)
        } else {
            (attached && Self::polls(adopted, cx, now)).then_some(Route::Http)
        };
        let state = adopted.state.as_ref();
        AttachmentRow {
            guest: record.guest,
            session_id: record.session.clone(),
            private_beach_id: record.beach.clone(),
            manager_url: record.url.clone(),
            handshake_id: Some(record.handshake.clone()),
            stage: record.stage,
            route,
            code_expires_in_ms: left(adopted.code_until),
            lease_expires_in_ms: left(adopted.lease_until),
            last_poll_age_ms: adopted.polled_at.map(|at| millis(now.since(at))),
            queued: adopted.queue.len() as u64,
            attempt: state.map(|state| state.attempt),
            failure_count: state.map(|state| state.failure_count),
            last_attempt_age_ms: state.and_then(|state| state.last_attempt_age_ms),
            next_retry_ms: state.and_then(|state| state.next_retry_ms),
            last_error: state.and_then(|state| state.last_error.clone()),
        }
    }

    /// Actions that wait: a guest's, or everybody's.
    pub(crate) fn list_actions(&self, cx: &Cx, guest: Option<GuestName>) -> Actions {
        let now = cx.at();
        let wanted =
            self.adopted.values().filter(|adopted| guest.is_none_or(|guest| guest == adopted.record.guest));
        let mut waiting: Vec<_> = wanted.flat_map(|adopted| &adopted.queue).collect();
        waiting.sort_unstable_by_key(|(number, _)| **number);
        let total = waiting.len() as u64;
        let rows = waiting.into_iter().take(Actions::MAX).map(|(_, waiting)| {
            let left = millis(waiting.expires.since(now));
            ActionRow {
                guest: waiting.action.guest,
                id: waiting.action.id.clone(),
                action_type: waiting.action.kind.clone(),
                age_ms: waiting.action.ttl_ms.saturating_sub(left),
                expires_in_ms: left,
                sent: waiting.sent,
            }
        });
        Actions { actions: rows.collect(), total }
    }

    /// Whether the guest is adopted.
    pub(crate) fn knows(&self, guest: &GuestName) -> bool {
        self.adopted.contains_key(guest)
    }
}
