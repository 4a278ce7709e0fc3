//! The truth rules behind the verdict (DESIGN, 3), and what must not pile up or come late.

use castra_core::Sizes;
use castra_core::status::{Glance, Reason};
use castra_core::time::{Now, Time};

use super::{BROKER, Cause, Witness};
use crate::boundary::Boundary;
use crate::net::Heard;

/// Writes that a message can have to wait for: what became of it, its text's end, its
/// own; each perhaps once more, behind one that is on its way.
const OPERATIONS: usize = 6;

impl Witness {
    /// Truth rule 1: evidence is an echo of a challenge, dated from its sending.
    pub(super) fn echo(&mut self, index: usize, glance: &Glance, proof_at: Time) {
        let conn = match (glance.session, self.cause) {
            (Some(conn), _) | (None, Cause::Bytes(conn)) => conn,
            (None, Cause::Tick { .. } | Cause::Other) => return,
        };
        let heard = self.hub.borrow().can_know(BROKER, conn, proof_at);
        let text = match heard {
            Heard::Maybe => return,
            Heard::NotYet => "its proof answers what it has not read yet",
            Heard::Never => "it gave no true answer, and its proof counts",
            Heard::Nothing => "its proof is dated from a moment at which nothing was sent to it",
        };
        self.blame("rule 1", Some(index), text.to_owned());
    }

    /// Truth rule 4: a broker that did not run blames nobody, and excuses for one window.
    pub(super) fn excuse(&mut self, index: usize, glance: &Glance, now: Time) {
        let heard = self.rows[index].heard;
        let times = (self.window, self.interval);
        match (glance.reason, glance.proof_at) {
            (Some(Reason::BrokerStalled | Reason::ClockJumped), _)
                if !self.truth.broker.may_excuse(heard, self.window, now) =>
            {
                let text = format!("{:?}, and it had its chance to answer", glance.reason);
                self.blame("rule 4", Some(index), text);
            }
            (Some(Reason::Stale), Some(proof_at))
                if glance.session.is_some()
                    && glance.proven
                    && self.truth.broker.must_excuse(proof_at, heard, times, now) =>
            {
                let text = "stale, and the broker did not run while it could have answered".to_owned();
                self.blame("rule 4", Some(index), text);
            }
            _ => {}
        }
    }

    /// L5: nothing that others do delays the broker, unless it did not run.
    pub(crate) fn punctual(&mut self, now: Now, boundary: &Boundary) {
        let Some(awake) = self.truth.broker.awake() else { return };
        if let Some((deadline, late)) = boundary.lateness(awake, now.boot) {
            self.at(now);
            self.blame("L5", None, format!("the broker is called {late:?} late for {deadline:?}"));
        }
    }

    /// S6: no table grows beyond its bound.
    pub(super) fn sizes(&mut self, sizes: Sizes) {
        let bounds = self.bounds;
        if sizes.guests > bounds.guests
            || sizes.half_open > bounds.half_open
            || sizes.clients > bounds.clients
            || sizes.links > bounds.links
            || sizes.message_bytes > bounds.message_bytes
            || sizes.messages > bounds.messages
            || sizes.streams > bounds.streams
            || sizes.attachments > bounds.attachments
            || sizes.http_clients > bounds.http_clients
            || sizes.stream_bytes > bounds.stream_bytes
            || sizes.peer_operations > bounds.peer_operations + OPERATIONS * sizes.messages
        {
            self.blame("S6", None, format!("{sizes:?} is over {bounds:?}"));
        }
    }

    /// S6: after `Closed` nothing is left behind. `open`: what the broker's kernel holds for it.
    pub(crate) fn leftovers(&mut self, sizes: Sizes, open: usize) {
        if sizes.links + sizes.clients + sizes.http_clients > open {
            let text = format!("{} links and {} clients on {open} connections", sizes.links, sizes.clients);
            self.blame("S6", None, text);
        }
    }
}
