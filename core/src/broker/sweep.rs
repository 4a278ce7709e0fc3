//! What concerns everybody, a part at a time: whoever looked at ten thousand
//! guests at once would hear none of them meanwhile.

use super::Broker;
use crate::boundary::Wakeup;
use crate::id::{ConnId, GuestName};
use crate::time::Time;

/// Most timers fired …
const TIMERS: usize = 256;
/// … and most rows and connections visited at one time.
const VISITS: usize = 1024;

/// What may be done at one time. A shell's clock stands still within a turn, in
/// which it calls more than once.
#[derive(Clone, Copy, Debug)]
pub(super) struct Allowance {
    at: Time,
    pub(super) timers: usize,
    visits: usize,
}

/// What is not done yet. As long as there is any of it, no timer fires.
#[derive(Clone, Debug, Default)]
pub(super) struct Sweeps {
    /// Connections from this slot on are to be challenged.
    challenge: Option<u32>,
    /// Rows behind this name are to be judged.
    judge: Option<Behind>,
    /// Connections from this slot on are to be woken for what they owe now.
    rearm: Option<u32>,
}

#[derive(Clone, Debug)]
enum Behind {
    Nobody,
    Name(GuestName),
}

impl Allowance {
    pub(super) const fn new(at: Time) -> Self {
        Self { at, timers: TIMERS, visits: VISITS }
    }

    /// Another time, or a call for what was put off: it begins anew.
    pub(super) fn renew(&mut self, now: Time, tick: bool) {
        if tick || now != self.at {
            *self = Self::new(now);
        }
    }
}

impl Sweeps {
    /// A stall was noticed, or proofs have to be younger from now on: everybody
    /// is challenged at once, and judged anew.
    pub(super) fn challenge_everybody(&mut self) {
        self.challenge = Some(0);
    }

    /// Another configuration counts.
    pub(super) fn judge_everybody(&mut self) {
        (self.judge, self.rearm) = (Some(Behind::Nobody), Some(0));
    }

    pub(super) const fn is_done(&self) -> bool {
        self.challenge.is_none() && self.judge.is_none() && self.rearm.is_none()
    }
}

impl Broker {
    /// Goes on, as far as one time's allowance goes.
    pub(super) fn sweep(&mut self) {
        if self.sweeps.is_done() {
            return;
        }
        if let Some(first) = self.sweeps.challenge {
            self.sweeps.challenge = self.visit_links(first, Self::challenge_at_once);
        }
        while let Some(behind) = &self.sweeps.judge
            && self.allowance.visits > 0
        {
            self.allowance.visits -= 1;
            let last = match behind {
                Behind::Nobody => None,
                Behind::Name(name) => Some(name),
            };
            let id = self.guests.after(last);
            self.sweeps.judge = id.and_then(|id| self.guests.get(id)).map(|row| Behind::Name(row.name()));
            if let Some(id) = id {
                self.guests.announce(&mut self.cx, id);
            }
        }
        if let Some(first) = self.sweeps.rearm {
            self.sweeps.rearm = self.visit_links(first, |broker, conn| {
                let Self { cx, guests, links, .. } = broker;
                links.rearm(cx, Some(guests), conn);
            });
        }
    }

    /// Visits connections from a slot on; the slot to go on with.
    fn visit_links(&mut self, first: u32, visit: impl Fn(&mut Self, ConnId)) -> Option<u32> {
        let mut next = first;
        while let Some(conn) = self.links.table.next_from(next) {
            if self.allowance.visits == 0 {
                return Some(conn.index);
            }
            self.allowance.visits -= 1;
            visit(self, conn);
            next = conn.index + 1;
        }
        None
    }

    fn challenge_at_once(&mut self, conn: ConnId) {
        let Self { cx, links, .. } = self;
        let now = cx.at();
        let Some(link) = links.table.get_mut(conn) else { return };
        if let Some(session) = &mut link.session {
            if !session.is_legacy() {
                session.challenge_at_once(now, cx.config.interval);
            }
            cx.timers.arm_by(link.timer, now, Wakeup::Session);
        }
    }
}
