//! Holds what the broker says against the truth, after every event.

pub(crate) mod attach;
pub(crate) mod peers;
mod rules;
mod sums;

use std::time::Duration;

use castra_core::boundary::{Deadline, Wakeup};
use castra_core::event::{Event, Fact};
use castra_core::id::{ConnId, Epoch, GuestName};
use castra_core::status::{Glance, Reason, State};
use castra_core::time::{Now, Time};
use castra_core::{Broker, Sizes};

use crate::net::{NodeId, Owner, Shared};
use crate::outcome::{Outcome, count};
use crate::truth::Truth;
use crate::violation::{PROMISES, Violation};

use peers::Peers;
pub(crate) use peers::{MESSAGE, messages_in};

/// The process that is the broker.
pub(crate) const BROKER: NodeId = 0;

/// A verdict's change: when, of which guest, to what.
pub(crate) type Said = (Time, usize, State, Option<Reason>);

/// What is remembered of a guest between two events.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Row {
    pub(crate) known: bool,
    pub(crate) state: Option<State>,
    pub(crate) reason: Option<Reason>,
    proof_at: Option<Time>,
    /// When that last changed.
    heard: Option<Time>,
    epoch: Option<Epoch>,
    session: Option<ConnId>,
    /// Whether its evidence is a proof, not a claim.
    pub(crate) proven: bool,
    /// The epoch of its newest greeting.
    greeted: Option<Epoch>,
    /// The incarnation that the broker's word rests on.
    pub(crate) owner: Option<Owner>,
    /// When it was last called reachable, and waiting.
    pub(crate) reachable_at: Option<Time>,
    pub(crate) waiting_at: Option<Time>,
    /// A look is due when its proof becomes too old.
    watched: bool,
}

/// What an event was, as far as the checks ask.
#[derive(Clone, Copy, Debug)]
enum Cause {
    Bytes(ConnId),
    Tick { due: bool },
    Other,
}

/// Sees everything that goes in and comes out, and knows what is true.
#[derive(Debug)]
pub(crate) struct Witness {
    pub(crate) truth: Truth,
    pub(crate) rows: Vec<Row>,
    pub(crate) violation: Option<Violation>,
    /// The one promise that is asked for, if not all are.
    pub(crate) only: Option<String>,
    pub(crate) outcome: Outcome,
    pub(crate) bounds: Sizes,
    /// Which processes know the key of guest `i`, if it is keyed now.
    pub(crate) keyholders: Vec<Option<Vec<NodeId>>>,
    pub(crate) origin: Time,
    /// Verdicts as they change, if somebody wants to know.
    pub(crate) verdicts: Option<Vec<Said>>,
    /// The broker's window, and how often it asks.
    window: Duration,
    interval: Duration,
    pub(crate) hub: Shared,
    /// Every token that was ever durable.
    pub(crate) durable: Vec<String>,
    /// What is known of peers, in worlds that have some.
    pub(crate) peers: Option<Box<Peers>>,
    /// What is known of managed attach, in worlds that have it.
    pub(crate) attach: Option<Box<attach::Managing>>,
    /// Whom the present event called reachable so far.
    called_reachable: Vec<usize>,
    /// Who is, or last was, at the other end of each of the broker's connections.
    owners: Vec<Option<(ConnId, Owner)>>,
    wakeups: [u64; 32],
    cause: Cause,
    /// Rows that the broker has.
    known: usize,
    greeted_now: bool,
    produced: bool,
    /// Whose name each process claims.
    pub(crate) claims: Vec<Option<GuestName>>,
    now: Now,
}

impl Row {
    /// Whether the broker says of it what it said after the last event.
    fn says(&self, glance: &Glance) -> bool {
        self.known
            && self.state == Some(glance.state)
            && self.reason == glance.reason
            && self.proof_at == glance.proof_at
            && self.epoch == glance.epoch
            && self.session == glance.session
            && self.proven == glance.proven
    }

    /// The broker knows nothing of it any more.
    fn forget(&mut self) {
        let Self { owner, reachable_at, waiting_at, watched, .. } = *self;
        *self = Self { owner, reachable_at, waiting_at, watched, ..Self::default() };
    }
}

impl Witness {
    pub(crate) fn new(
        hub: Shared,
        (window, interval): (Duration, Duration),
        guests: usize,
        bounds: Sizes,
        now: Now,
    ) -> Self {
        Self {
            truth: Truth::default(),
            rows: vec![Row::default(); guests],
            violation: None,
            only: None,
            outcome: Outcome { runs: 1, ..Outcome::default() },
            bounds,
            keyholders: vec![None; guests],
            origin: now.boot,
            verdicts: None,
            window,
            interval,
            hub,
            durable: Vec::new(),
            peers: None,
            attach: None,
            called_reachable: Vec::new(),
            owners: Vec::new(),
            wakeups: [0; 32],
            cause: Cause::Other,
            known: 0,
            greeted_now: false,
            produced: false,
            claims: Vec::new(),
            now,
        }
    }

    /// Something is wrong; the first wrong thing counts.
    pub(crate) fn blame(&mut self, promise: &'static str, guest: Option<usize>, text: String) {
        debug_assert!(PROMISES.contains(&promise), "{promise} is in no list");
        let asked = self.only.as_ref().is_none_or(|only| only == promise);
        if asked && self.violation.is_none() {
            let at = Time::from_nanos(self.now.boot.as_nanos() - self.origin.as_nanos());
            self.violation = Some(Violation { promise, at, guest, text });
        }
    }

    pub(crate) fn at(&mut self, now: Now) {
        self.now = now;
    }

    /// An input goes into the broker. `source`: the connection that it is about,
    /// if it opens or brings bytes.
    pub(crate) fn input(
        &mut self,
        now: Now,
        source: Option<ConnId>,
        bytes: bool,
        tick: Option<Option<Deadline>>,
    ) {
        self.now = now;
        if let Some(conn) = source {
            let index = conn.index as usize;
            if self.owners.len() <= index {
                self.owners.resize(index + 1, None);
            }
            // Behind a serial device another life may sit now.
            self.owners[index] = self.hub.borrow().peer(BROKER, conn).map(|owner| (conn, owner));
        }
        let bytes_on = source.filter(|_| bytes);
        self.greeted_now = false;
        self.produced = false;
        self.called_reachable.clear();
        self.cause = match (bytes_on, tick) {
            (Some(conn), _) => Cause::Bytes(conn),
            (None, Some(deadline)) => {
                let due = deadline.filter(|deadline| deadline.at <= now.boot);
                Cause::Tick { due: due.is_some_and(|deadline| deadline.why != Wakeup::More) }
            }
            (None, None) => Cause::Other,
        };
    }

    fn owner_of(&self, conn: ConnId) -> Option<Owner> {
        let (known, owner) = self.owners.get(conn.index as usize)?.as_ref()?;
        (*known == conn).then_some(*owner)
    }

    /// An engine was woken for a deadline.
    pub(crate) fn woken(&mut self, why: Wakeup) {
        self.wakeups[why as usize & 31] += 1;
    }

    /// Something came out of the broker.
    pub(crate) fn produced(&mut self) {
        self.produced = true;
    }

    /// An event came out of the broker.
    pub(crate) fn event(&mut self, event: &Event) {
        self.produced = true;
        let guest = event.guest.as_ref().and_then(number);
        match &event.fact {
            Fact::HandshakeSuccess { epoch, proven: true, once, .. } => {
                self.outcome.sessions += 1;
                self.greeted_now = true;
                let Some(index) = guest.filter(|index| *index < self.rows.len()) else { return };
                if self.rows[index].greeted >= Some(*epoch) {
                    self.blame("S5", guest, format!("epoch {epoch} is greeted twice, or too late"));
                }
                let owner = match self.cause {
                    Cause::Bytes(conn) if *once => self.owner_of(conn),
                    _ => None,
                };
                if self.called_reachable.contains(&index) {
                    self.blame("S5", guest, format!("called reachable before epoch {epoch} is greeted"));
                }
                let row = &mut self.rows[index];
                row.greeted = Some(*epoch);
                row.owner = owner;
            }
            Fact::HandshakeFailure { reason, .. } => count(&mut self.outcome.refusals, reason.as_str()),
            Fact::VerdictChanged { to: State::Reachable, .. } => self.called_reachable.extend(guest),
            Fact::SessionClosed { reason, .. } => count(&mut self.outcome.ends, reason.as_str()),
            Fact::Attach(fact) => self.of_attach(|attach| attach.broker_says(fact)),
            fact => self.of_peers(|peers| peers.event(fact)),
        }
    }

    /// The broker has said everything: is it true?
    pub(crate) fn check(&mut self, broker: &Broker, wait: Option<Deadline>) {
        let now = self.now;
        if let Cause::Tick { due: true } = self.cause
            && !self.produced
            && wait.is_some_and(|wait| wait.at <= now.boot && wait.why != Wakeup::More)
        {
            self.blame("L2", None, format!("woken for a deadline, the broker asks for it again: {wait:?}"));
        }
        let mut seen = 0;
        for glance in broker.glances(now) {
            seen += 1;
            let Some(index) = number(&glance.name).filter(|index| *index < self.rows.len()) else {
                continue;
            };
            self.outcome.checks += 1;
            self.row(index, &glance, now.boot);
        }
        if seen < self.known {
            self.forget_all_but(broker);
        }
        self.known = seen;
        self.sizes(broker.sizes());
        self.of_peers(|peers| peers.check(broker));
        if let Err(unguarded) = broker.check_obligations() {
            self.blame("L1", None, unguarded.to_string());
        }
    }

    /// Rows that the operator had removed, or that made room.
    fn forget_all_but(&mut self, broker: &Broker) {
        let mut kept = vec![false; self.rows.len()];
        let rows = broker.glances(self.now).filter_map(|glance| number(&glance.name));
        rows.for_each(|index| kept.get_mut(index).into_iter().for_each(|kept| *kept = true));
        for (row, _) in self.rows.iter_mut().zip(kept).filter(|(_, kept)| !kept) {
            row.forget();
        }
    }

    fn row(&mut self, index: usize, glance: &Glance, now: Time) {
        let reachable = glance.state == State::Reachable;
        let owner = if self.rows[index].says(glance) {
            self.excuse(index, glance, now);
            self.rows[index].owner
        } else {
            self.news(index, glance, now)
        };
        let row = &mut self.rows[index];
        *(if reachable { &mut row.reachable_at } else { &mut row.waiting_at }) = Some(now);
        if reachable {
            self.outcome.reachable += 1;
            self.reachable(index, glance, owner, now);
        }
    }

    /// A row says something else than after the last event. Returns who is behind it now.
    fn news(&mut self, index: usize, glance: &Glance, now: Time) -> Option<Owner> {
        let before = self.rows[index];
        if before.state != Some(glance.state) || before.reason != glance.reason {
            if let Some(reason) = glance.reason {
                count(&mut self.outcome.reasons, reason.as_str());
            }
            if let Some(verdicts) = &mut self.verdicts {
                verdicts.push((now, index, glance.state, glance.reason));
            }
        }
        let owner = self.owner_behind(index, glance, before);
        if glance.proof_at != before.proof_at {
            self.proof(index, glance, before, owner);
            self.rows[index].heard = Some(self.now.boot);
        }
        self.excuse(index, glance, now);
        if glance.epoch < before.epoch && before.known && glance.epoch.is_some() {
            self.blame("S4", Some(index), format!("its epoch falls to {:?}", glance.epoch));
        }
        self.rows[index] = Row {
            known: true,
            state: Some(glance.state),
            reason: glance.reason,
            proof_at: glance.proof_at,
            epoch: glance.epoch,
            session: glance.session,
            proven: glance.proven,
            owner,
            ..self.rows[index]
        };
        owner
    }

    /// The incarnation at the other end of the session.
    fn owner_behind(&self, index: usize, glance: &Glance, before: Row) -> Option<Owner> {
        match glance.session {
            Some(conn) if glance.epoch == before.epoch && Some(conn) == before.session => before.owner,
            Some(conn) => self.owner_of(conn),
            // Of a one-shot guest the greeting told.
            None => self.rows[index].owner,
        }
    }

    /// A row's proof time changed: was there a proof?
    fn proof(&mut self, index: usize, glance: &Glance, before: Row, owner: Option<Owner>) {
        let Some(proof_at) = glance.proof_at else { return };
        // A proof, and behind it what ends the session.
        let session = glance.session.or(before.session);
        let answered = matches!(self.cause, Cause::Bytes(conn) if Some(conn) == session);
        if !answered && !self.greeted_now && glance.proven {
            let text = format!(
                "guest-{index}: its proof time goes from {:?} to {proof_at:?} without a proof of its session \
                 ({:?})",
                before.proof_at, self.cause
            );
            self.blame("S3", Some(index), text);
        }
        if proof_at > self.now.boot {
            self.blame("S3", Some(index), "its proof is dated in the future".to_owned());
        }
        if glance.proven {
            self.echo(index, glance, proof_at);
        }
        if glance.proven
            && let Some(owner) = owner
            && !self.truth.ran_within(owner, self.window, self.now.boot)
            && glance.state == State::Reachable
        {
            // Said by `reachable`, in the promise's own words.
            return;
        }
        if glance.proven && owner.is_some_and(|owner| !self.truth.ran_since(owner, proof_at)) {
            let text = "its proof is dated after the moment at which it last ran".to_owned();
            self.blame("S1", Some(index), text);
        }
    }

    fn reachable(&mut self, index: usize, glance: &Glance, owner: Option<Owner>, now: Time) {
        if !glance.proven {
            // A claim, which the operator chose to believe.
            return;
        }
        let age = glance.proof_at.map(|at| now.since(at));
        if age.is_none_or(|age| age > self.window) {
            return self.blame("S3", Some(index), format!("reachable, and its proof is {age:?} old"));
        }
        let Some(owner) = owner else {
            return self.blame("S1", Some(index), "reachable, and nobody ever proved itself".to_owned());
        };
        if !self.truth.ran_within(owner, self.window, now) {
            let last = self.truth.last_ran(owner).map(|last| now.since(last));
            let text =
                format!("called reachable, though it last ran {} ago", seconds(last.unwrap_or_default()));
            return self.blame("S1", Some(index), text);
        }
        if let Some(holders) = &self.keyholders[index]
            && !holders.contains(&owner.node)
        {
            return self.blame("S1", Some(index), "a process without its key holds its name".to_owned());
        }
        if self.rows[index].greeted != glance.epoch {
            let text = format!("reachable in epoch {:?}, which was never greeted", glance.epoch);
            self.blame("S5", Some(index), text);
        }
    }

    /// When to look at a guest whose proof nobody watches yet.
    pub(crate) fn unwatched_expiry(&mut self, guest: usize) -> Option<Time> {
        let row = &self.rows[guest];
        if row.watched || row.proof_at.is_none() {
            return None;
        }
        let at = self.next_expiry(guest, self.now.boot);
        self.rows[guest].watched = at.is_some();
        at
    }

    /// A guest that is called reachable, although it did not run within the window:
    /// since when its newest proof counts.
    pub(crate) fn falsely_reachable(&self, guest: usize) -> Option<Time> {
        let row = self.rows.get(guest).filter(|row| row.proven && row.state == Some(State::Reachable))?;
        let ran = self.truth.ran_within(row.owner?, self.window, self.now.boot);
        row.proof_at.filter(|_| !ran)
    }

    /// The first moment at which its newest proof is too old, if that is to come.
    pub(crate) fn next_expiry(&mut self, guest: usize, now: Time) -> Option<Time> {
        let expires = |at: Time| at + self.window + Duration::from_nanos(1);
        let at = self.rows[guest].proof_at.map(expires).filter(|at| *at > now);
        self.rows[guest].watched &= at.is_some();
        at
    }

    /// Time passed, and nothing else.
    pub(crate) fn look(&mut self, now: Now) {
        self.now = now;
        self.cause = Cause::Other;
    }

    /// A new broker knows nobody.
    pub(crate) fn broker_restarted(&mut self, now: Now, state_lost: bool) {
        self.at(now);
        for (index, row) in self.rows.iter_mut().enumerate() {
            if let Some(verdicts) = self.verdicts.as_mut().filter(|_| row.known) {
                verdicts.push((now.boot, index, State::Offline, None));
            }
            let (greeted, epoch) = (row.greeted, row.epoch);
            row.forget();
            if !state_lost {
                row.greeted = greeted;
                row.epoch = epoch;
            }
        }
    }
}

/// The number in `guest-3`.
pub(crate) fn number(name: &GuestName) -> Option<usize> {
    let digits = name.as_bytes().strip_prefix(b"guest-")?;
    let next = |number: usize, digit: &u8| {
        let digit = char::from(*digit).to_digit(10)?;
        number.checked_mul(10)?.checked_add(digit as usize)
    };
    digits.iter().try_fold(0, next).filter(|_| !digits.is_empty())
}

fn seconds(duration: Duration) -> String {
    format!("{:.3} s", duration.as_secs_f64())
}
