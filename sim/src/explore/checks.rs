//! What must be so in every state, and of every step.

use core::fmt;
use core::time::Duration;

use castra_core::event::{Event, Fact};
use castra_core::id::{ConnId, Epoch};
use castra_core::status::State as Verdict;
use castra_core::time::Time;

use super::Bounds;
use super::state::{Guest, State};

/// A broken promise.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Broken {
    /// S1: called reachable, and the life that proved itself last ran too long ago.
    FalseReachable {
        /// Who.
        guest: String,
        /// How long ago it ran.
        ran: Duration,
    },
    /// S3: an age that fell without a proof, or a reachable guest beyond its window.
    Age {
        /// Who.
        guest: String,
        /// What is wrong with it.
        what: &'static str,
    },
    /// S4: two sessions of a name, or a session of nobody.
    Session {
        /// Who.
        guest: String,
        /// What is wrong with it.
        what: &'static str,
    },
    /// S5: greeted twice, or reachable without a greeting.
    Greeting {
        /// Who.
        guest: String,
        /// What is wrong with it.
        what: &'static str,
    },
    /// S6: something is left behind, or beyond its bound.
    Residue {
        /// What.
        what: String,
    },
    /// L1: something could wait for ever.
    Hanging {
        /// Who owes what.
        what: String,
    },
    /// L3: nothing goes wrong any more, and a guest that lives isn't reachable.
    NotConverged {
        /// Who.
        guest: String,
        /// How long it had.
        within: Duration,
    },
    /// L2: woken for a deadline, it did nothing and wants no later one.
    Spin {
        /// Who.
        who: String,
    },
}

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::FalseReachable { guest, ran } => {
                write!(f, "S1: {guest} is called reachable, and last ran {} s ago", ran.as_secs())
            }
            Self::Age { guest, what } => write!(f, "S3: {guest}: {what}"),
            Self::Session { guest, what } => write!(f, "S4: {guest}: {what}"),
            Self::Greeting { guest, what } => write!(f, "S5: {guest}: {what}"),
            Self::Residue { what } => write!(f, "S6: {what}"),
            Self::Hanging { what } => write!(f, "L1: {what}"),
            Self::NotConverged { guest, within } => {
                write!(
                    f,
                    "L3: from here nothing goes wrong, and {guest} isn't reachable within {} s",
                    within.as_secs()
                )
            }
            Self::Spin { who } => write!(f, "L2: {who} is woken and does nothing, again and again"),
        }
    }
}

/// What one call of the broker did.
#[derive(Debug)]
pub(super) struct Witness {
    /// Bytes of this connection were handed in.
    conn: Option<ConnId>,
    late: bool,
    pub(super) progress: bool,
    before: Vec<Before>,
    greeted: Vec<bool>,
}

/// A row before the call.
#[derive(Clone, Copy, Debug)]
struct Before {
    proof_at: Option<Time>,
    epoch: Option<Epoch>,
    session: Option<ConnId>,
}

impl Witness {
    pub(super) fn new(state: &State, conn: Option<ConnId>, late: bool) -> Self {
        let rows = state.broker.glances(state.clock());
        let before = rows
            .map(|row| Before { proof_at: row.proof_at, epoch: row.epoch, session: row.session })
            .collect();
        Self { conn, late, progress: false, before, greeted: vec![false; state.guests.len()] }
    }

    /// S4 and S5 of what the broker writes down.
    pub(super) fn note(&mut self, guests: &mut [Guest], event: &Event) -> Result<(), Broken> {
        let Some(index) = guests.iter().position(|guest| Some(guest.name) == event.guest) else {
            return Ok(());
        };
        let guest = &mut guests[index];
        let greeting = |what| Err(Broken::Greeting { guest: guest.name.to_string(), what });
        match &event.fact {
            Fact::HandshakeSuccess { epoch, once, .. } => {
                if guest.greeted || self.greeted[index] {
                    return greeting("greeted while a session stands");
                }
                if self.before[index].epoch.is_some_and(|before| before >= *epoch) {
                    return greeting("greeted with an epoch that isn't higher than the last");
                }
                self.greeted[index] = true;
                guest.greeted = !once;
            }
            Fact::SessionClosed { .. } => {
                if !guest.greeted {
                    return greeting("a session ended that was never greeted");
                }
                guest.greeted = false;
            }
            Fact::VerdictChanged { to: Verdict::Reachable, .. } if !guest.greeted && !self.greeted[index] => {
                return greeting("announced as reachable without a greeting");
            }
            _ => {}
        }
        Ok(())
    }

    /// S3 and S4 of what became of the ages; L2.
    pub(super) fn check(&self, state: &State) -> Result<(), Broken> {
        for (index, row) in state.broker.glances(state.clock()).enumerate() {
            let before = self.before[index];
            if row.proof_at == before.proof_at {
                continue;
            }
            let age = |what| Err(Broken::Age { guest: row.name.to_string(), what });
            if row.proof_at < before.proof_at {
                return age("a proof is forgotten, or an older one counts");
            }
            // The same call may end the session.
            let proven = self.conn.is_some_and(|conn| [row.session, before.session].contains(&Some(conn)));
            if !proven && !self.greeted[index] {
                return age("it fell without a proof in its own session");
            }
        }
        let due = state.broker_deadline.is_some_and(|at| at <= state.now);
        if self.late && due && !self.progress {
            return Err(Broken::Spin { who: "the broker".into() });
        }
        Ok(())
    }
}

impl State {
    /// S1, S3, S4, S6 and L1.
    pub(super) fn check(&self, bounds: &Bounds, window: Duration) -> Result<(), Broken> {
        for (index, row) in self.broker.glances(self.clock()).enumerate() {
            let guest = &self.guests[index];
            let name = || row.name.to_string();
            if row.session.is_some() != guest.greeted {
                return Err(Broken::Session { guest: name(), what: "its session and its greeting disagree" });
            }
            let stream = row.session.map(|conn| self.stream(conn).map(|index| &self.streams[index]));
            if stream.is_some_and(|stream| stream.is_none_or(|s| !s.broker_open || s.guest != index)) {
                return Err(Broken::Session {
                    guest: name(),
                    what: "its session has no connection of its own",
                });
            }
            if row.state != Verdict::Reachable {
                continue;
            }
            if row.proof_at.is_none_or(|at| at > self.now || self.now.since(at) > window) {
                return Err(Broken::Age { guest: name(), what: "reachable beyond the window" });
            }
            let ran = stream.flatten().map(|stream| self.now.since(self.last_ran(stream)));
            match ran {
                Some(ran) if ran <= window => {}
                Some(ran) => return Err(Broken::FalseReachable { guest: name(), ran }),
                None => {
                    return Err(Broken::Session { guest: name(), what: "reachable without a session" });
                }
            }
        }
        self.check_sizes(bounds)?;
        let hanging = |who: &str, owes| Err(Broken::Hanging { what: format!("{who}: {owes}") });
        if let Err(owes) = self.broker.check_obligations() {
            return hanging("the broker", owes);
        }
        for guest in &self.guests {
            if let Some(Err(owes)) = guest.agent.as_ref().map(castra_core::Agent::check_obligations) {
                return hanging(guest.name.as_str(), owes);
            }
        }
        Ok(())
    }

    fn check_sizes(&self, bounds: &Bounds) -> Result<(), Broken> {
        let sizes = self.broker.sizes();
        let open = self.streams.iter().filter(|stream| stream.broker_open).count();
        let residue = |what: String| Err(Broken::Residue { what });
        if sizes.links != open || sizes.half_open > open || sizes.guests != self.guests.len() {
            return residue(format!("{open} connections are open, and the broker keeps {sizes:?}"));
        }
        // The door, the records, the mail, the streams, attachments and the drain have one each.
        if sizes.timers != 6 + open {
            return residue(format!("{} timers for {open} connections", sizes.timers));
        }
        // A call may say a few things beyond the bound; then it is told that there is no room.
        let most = bounds.in_flight + 3;
        let longest =
            self.streams.iter().map(|stream| stream.to_broker.len().max(stream.to_guest.len())).max();
        if longest.is_some_and(|longest| longest > most) {
            return residue(format!("more than {most} messages in flight"));
        }
        Ok(())
    }
}
