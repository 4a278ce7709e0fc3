//! What really is: known to the world alone, never to an engine; and the
//! promises that are held against it.

use core::time::Duration;
use std::cell::Cell;
use std::collections::BTreeSet;
use std::rc::Rc;

use castra_core::event::{Event, Fact, LinkEnd};
use castra_core::id::{Epoch, GuestName};
use castra_core::status::GuestStatus;
use castra_core::time::Time;

use super::TICK;
use super::clock::UPTIME;
use crate::outcome::{Counts, count};
use crate::violation::Violation;

/// A broken promise, at `now` on the boot clock.
pub(crate) fn broken(
    promise: &'static str,
    now: Time,
    guest: Option<usize>,
    text: impl Into<String>,
) -> Violation {
    Violation { promise, at: Time::ZERO + now.since(UPTIME), guest, text: text.into() }
}

/// Who did what, and when.
#[derive(Debug)]
pub(crate) struct Truth {
    window: Duration,
    /// When each guest last said anything: alive means that it did something.
    pub(crate) spoke: Vec<Rc<Cell<Option<Time>>>>,
    /// Since when the broker serves without a break.
    pub(crate) serving_since: Option<Time>,
    /// Sessions that were greeted.
    greeted: BTreeSet<Epoch>,
    /// Those of state directories that are lost.
    past_sessions: u64,
    /// When the last one was lost.
    pub(crate) lost: Option<Time>,
    /// What the last look at the broker showed.
    seen: Vec<Option<Seen>>,
    /// How sessions and links ended.
    pub(crate) ends: Counts,
    /// Looks in which a guest was reachable.
    pub(crate) reachable_seen: u64,
}

#[derive(Clone, Copy, Debug)]
struct Seen {
    /// When the challenge of the newest proof was sent, and how many proofs there were.
    proof: Time,
    proofs: u64,
}

impl Truth {
    pub(crate) fn new(guests: usize, window: Duration) -> Self {
        Self {
            window,
            spoke: (0..guests).map(|_| Rc::default()).collect(),
            serving_since: None,
            greeted: BTreeSet::new(),
            past_sessions: 0,
            lost: None,
            seen: vec![None; guests],
            ends: Counts::new(),
            reachable_seen: 0,
        }
    }

    pub(crate) fn sessions(&self) -> u64 {
        self.past_sessions + self.greeted.len() as u64
    }

    /// A new broker knows nothing of the last one's proofs.
    pub(crate) fn broker_started(&mut self, now: Time) {
        self.seen.fill(None);
        self.serving_since = Some(now);
    }

    /// A state directory that was emptied counts its epochs anew.
    pub(crate) fn state_lost(&mut self, now: Time) {
        self.past_sessions += self.greeted.len() as u64;
        self.greeted.clear();
        self.lost = Some(now);
    }

    /// S1's right side: whether `guest` did anything since `since`. Within a step
    /// turmoil runs one host after the other, so that what the first says at the
    /// step's end may reach the second at its beginning.
    pub(crate) fn spoke_since(&self, guest: usize, since: Time) -> bool {
        self.spoke[guest].get().is_some_and(|last| last + TICK >= since)
    }

    /// What an engine told of an end.
    pub(crate) fn note_end(&mut self, event: &Event) {
        let end = match &event.fact {
            Fact::SessionClosed { reason, .. } => reason.as_str(),
            Fact::LinkDown { reason: LinkEnd::Silent, .. } => "link silent",
            Fact::LinkDown { reason: LinkEnd::Timeout, .. } => "link timeout",
            _ => return,
        };
        count(&mut self.ends, end);
    }

    /// S5: what the broker told of its sessions.
    pub(crate) fn heard(&mut self, now: Time, event: &Event) -> Result<(), Violation> {
        self.note_end(event);
        let broken = |text: String| Err(broken("S5", now, event.guest.as_ref().and_then(guest_of), text));
        match event.fact {
            Fact::HandshakeSuccess { epoch, .. } if !self.greeted.insert(epoch) => {
                broken(format!("session {epoch} was greeted twice"))
            }
            Fact::SessionClosed { epoch, .. } if !self.greeted.contains(&epoch) => {
                broken(format!("session {epoch} ended and was never greeted"))
            }
            _ => Ok(()),
        }
    }

    /// One row of the broker's status, held against the truth.
    pub(crate) fn check(&mut self, now: Time, row: &GuestStatus) -> Result<(), Violation> {
        let Some(guest) = guest_of(&row.name).filter(|guest| *guest < self.seen.len()) else { return Ok(()) };
        let broken = |promise, text| Err(broken(promise, now, Some(guest), text));
        if row.reachable {
            self.reachable_seen += 1;
            if !self.spoke_since(guest, now - self.window) {
                let last = self.spoke[guest].get().map(|last| now.since(last));
                return broken("S1", format!("{} is reachable, and was last alive {last:?} ago", row.name));
            }
            if row.epoch.is_none_or(|epoch| !self.greeted.contains(&epoch)) {
                return broken("S5", format!("{} is reachable before it was greeted", row.name));
            }
        }
        let Some(age_ms) = row.last_handshake_age_ms else { return Ok(()) };
        let age = Duration::from_millis(age_ms);
        if row.reachable && age > self.window {
            return broken("S3", format!("{} is reachable {age_ms} ms after its proof", row.name));
        }
        // Ages are told in whole milliseconds, rounded down.
        let proof = now - age;
        let before = self.seen[guest].replace(Seen { proof, proofs: row.handshakes });
        if let Some(before) = before
            && proof > before.proof + Duration::from_millis(1)
        {
            if row.handshakes == before.proofs {
                return broken("S3", format!("{} is younger without a proof", row.name));
            }
            // It answered a challenge of that time: so it spoke then or later.
            if !self.spoke_since(guest, proof) {
                return broken("S3", format!("{} has a proof that it did not send", row.name));
            }
        } else if let Some(before) = before {
            // Rounding must not add up.
            self.seen[guest] = Some(Seen { proof: before.proof, proofs: row.handshakes });
        }
        Ok(())
    }
}

/// What guest number `index` is called.
pub(crate) fn name_of(index: usize) -> GuestName {
    match format!("guest-{index}").parse() {
        Ok(name) => name,
        Err(_) => unreachable!("guest-N is a name"),
    }
}

/// Which guest is called so.
pub(crate) fn guest_of(name: &GuestName) -> Option<usize> {
    name.as_str().strip_prefix("guest-")?.parse().ok()
}
