//! What really is: known to the world alone, never to an engine; and the
//! promises that are held against it.

use core::fmt;
use core::time::Duration;
use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use castra_core::event::{Event, Fact};
use castra_core::id::{Epoch, GuestName};
use castra_core::status::GuestStatus;
use castra_core::time::Time;

use super::TICK;

/// The promises that this runner checks, as the design numbers them.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Promise {
    /// Nobody is falsely reachable.
    S1,
    /// What a client prints was true while it ran.
    S2,
    /// An age falls only at a proof, and reachable means within the window.
    S3,
    /// One greeting for each session, before it is first reachable.
    S5,
    /// Nobody spins.
    L2,
    /// When the faults end, whoever lives becomes reachable in time.
    L3,
    /// Each command gets one reply, by its deadline.
    L4,
    /// A host failed by itself.
    Host,
}

/// A broken promise.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Violation {
    /// Which.
    pub promise: Promise,
    /// When it was noticed, on the boot clock.
    pub at: Time,
    /// How.
    pub text: String,
}

impl Violation {
    pub(crate) fn new(promise: Promise, at: Time, text: impl Into<String>) -> Self {
        Self { promise, at, text: text.into() }
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} at {} ms: {}", self.promise, self.at.as_nanos() / 1_000_000, self.text)
    }
}

impl std::error::Error for Violation {}

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
    /// What the last look at the broker showed.
    seen: Vec<Option<Seen>>,
    /// How sessions and links ended.
    pub(crate) ends: BTreeMap<String, u64>,
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
            seen: vec![None; guests],
            ends: BTreeMap::new(),
            reachable_seen: 0,
        }
    }

    pub(crate) fn sessions(&self) -> usize {
        self.greeted.len()
    }

    /// A new broker knows nothing of the last one's proofs.
    pub(crate) fn broker_started(&mut self, now: Time) {
        self.seen.fill(None);
        self.serving_since = Some(now);
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
            Fact::SessionClosed { reason, .. } => format!("session {}", reason.as_str()),
            Fact::LinkDown { reason, .. } => format!("link {}", reason.as_str()),
            _ => return,
        };
        *self.ends.entry(end).or_default() += 1;
    }

    /// S5: what the broker told of its sessions.
    pub(crate) fn heard(&mut self, now: Time, event: &Event) -> Result<(), Violation> {
        self.note_end(event);
        let broken = |text: String| Err(Violation::new(Promise::S5, now, text));
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
        let broken = |promise, text| Err(Violation::new(promise, now, text));
        if row.reachable {
            self.reachable_seen += 1;
            if !self.spoke_since(guest, now - self.window) {
                let last = self.spoke[guest].get().map(|last| now.since(last));
                return broken(
                    Promise::S1,
                    format!("{} is reachable, and was last alive {last:?} ago", row.name),
                );
            }
            if row.epoch.is_none_or(|epoch| !self.greeted.contains(&epoch)) {
                return broken(Promise::S5, format!("{} is reachable before it was greeted", row.name));
            }
        }
        let Some(age_ms) = row.last_handshake_age_ms else { return Ok(()) };
        let age = Duration::from_millis(age_ms);
        if row.reachable && age > self.window {
            return broken(Promise::S3, format!("{} is reachable {age_ms} ms after its proof", row.name));
        }
        // Ages are told in whole milliseconds, rounded down.
        let proof = now - age;
        let before = self.seen[guest].replace(Seen { proof, proofs: row.handshakes });
        if let Some(before) = before
            && proof > before.proof + Duration::from_millis(1)
        {
            if row.handshakes == before.proofs {
                return broken(Promise::S3, format!("{} is younger without a proof", row.name));
            }
            // It answered a challenge of that time: so it spoke then or later.
            if !self.spoke_since(guest, proof) {
                return broken(Promise::S3, format!("{} has a proof that it did not send", row.name));
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
