//! The faults end: everybody who waits is served, every end is told, queues drain.

use std::time::Duration;

use castra_core::time::Time;

use super::World;
use crate::terminals::client::Around;
use crate::terminals::witness::DAEMON;
use crate::violation::Violation;

/// Until everybody has seen everything.
const CATCH_UP: Duration = Duration::from_secs(120);
/// Until every program that is to be ended has ended: hang-up, kill, what lingers, and
/// the daemon's own bounds.
const END: Duration = Duration::from_secs(30);
/// Beyond the time for which ended terminals are kept.
const FORGET: Duration = Duration::from_secs(630);

impl World {
    pub(super) fn make_peace(&mut self) -> Result<(), Violation> {
        self.peaceful = true;
        self.frozen_until = Time::ZERO;
        self.descriptors_until = Time::ZERO;
        if self.boots_at.is_some() {
            self.boots_at = Some(self.now);
        }
        {
            let mut hub = self.hub.borrow_mut();
            hub.release_all();
            hub.nodes[DAEMON].descriptors = None;
            self.host.borrow_mut().heal();
            for client in &mut self.clients {
                client.calm_down(&mut hub);
            }
        }
        for wake in &mut self.wakes {
            *wake = self.now;
        }
        self.leave_the_dishonest();
        // Clients that are denied for want of room come when others have left.
        self.run_until_quiet(CATCH_UP, "everybody has seen everything", |world| {
            // With few places some have to wait until others leave.
            world.lacks().filter(|text| !world.plan.small_tables || !text.contains("is not served"))
        })?;
        self.end_all();
        self.run_until_quiet(END, "every program has ended, and everybody knows", |world| {
            let running = world.host.borrow().running();
            match running.first() {
                Some(terminal) => Some(format!("terminal {terminal} still runs")),
                None => world.lacks(),
            }
        })?;
        self.leave();
        self.run_until_quiet(FORGET, "nothing is left", Self::leftovers)
    }

    /// Runs until nothing is missing.
    fn run_until_quiet(
        &mut self,
        most: Duration,
        goal: &'static str,
        missing: impl Fn(&Self) -> Option<String>,
    ) -> Result<(), Violation> {
        let end = self.now + most;
        let mut looked = Time::ZERO;
        self.run_until(end, |world| {
            // Looking costs time; once a millisecond will do.
            let due = world.now.since(looked) >= Duration::from_millis(1);
            if due {
                looked = world.now;
            }
            due && missing(world).is_none()
        })?;
        let Some(text) = missing(self) else { return Ok(()) };
        let text = format!("{} s after the faults ended, {goal}: but {text}", most.as_secs());
        Err(Violation { promise: "L3", at: self.now, guest: None, text })
    }

    fn lacks(&self) -> Option<String> {
        if self.daemon.is_none() || self.leaves_by.is_some() {
            return Some("no daemon serves".to_owned());
        }
        let host = self.host.borrow();
        if let Some(text) =
            self.clients.iter().filter(|client| !client.over).find_map(|client| client.lacks(&host))
        {
            return Some(text);
        }
        None
    }

    fn leave_the_dishonest(&mut self) {
        let mut hub = self.hub.borrow_mut();
        let mut witness = self.witness.borrow_mut();
        let mut around =
            Around { hub: &mut hub, witness: &mut witness, token: super::TOKEN, calm: None, peaceful: true };
        for client in &mut self.clients {
            if !client.is_honest() {
                client.rest(&mut around, Duration::ZERO);
            }
        }
    }

    /// An operator comes and ends all terminals. With few places somebody leaves for it.
    fn end_all(&mut self) {
        if self.plan.small_tables {
            self.leave();
        }
        use crate::terminals::plan::{Act, Client, Deed, Kind, Reading};
        let acts = vec![Act { after_ms: 0, deed: Deed::KillAll, which: 0 }];
        let client = Client {
            kind: Kind::Control,
            name: 200,
            starts_ms: 0,
            acts,
            reads: Reading::Freely,
            modern: false,
        };
        let index = self.clients.len();
        self.come(client, index);
        if let Some(client) = self.clients.last_mut() {
            client.is_operator = true;
        }
        for wake in &mut self.wakes {
            *wake = self.now;
        }
    }

    fn leave(&mut self) {
        let mut hub = self.hub.borrow_mut();
        let mut witness = self.witness.borrow_mut();
        let mut around =
            Around { hub: &mut hub, witness: &mut witness, token: super::TOKEN, calm: None, peaceful: true };
        for client in &mut self.clients {
            client.rest(&mut around, Duration::ZERO);
            client.over = true;
        }
    }

    fn leftovers(&self) -> Option<String> {
        let host = self.host.borrow();
        if host.kept() > 0 {
            return Some(format!("the host keeps {} terminals", host.kept()));
        }
        if host.journal.len() > 0 {
            return Some(format!("the journal keeps {} terminals", host.journal.len()));
        }
        if host.is_busy() {
            return Some("the host has something to do".to_owned());
        }
        let open = self.hub.borrow().nodes[DAEMON].open;
        (open > 0).then(|| format!("{open} connections are open"))
    }
}
