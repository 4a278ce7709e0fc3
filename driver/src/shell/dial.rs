//! Dials: a name look-up, then one address after the other, within a deadline.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use castra_core::boundary::{DialTarget, EffectError, EffectErrorKind, Remote, Transport, Via};
use castra_core::id::{ConnId, EffectId};
use castra_core::time::Time;

use super::ports::{Pending, Ports};
use super::slots::Stage;
use crate::address::ConnectAddress;
use crate::net::{Net, Target};
use crate::work::{Job, JobId, Work};

/// A full queue at the other end gives no edge when it empties.
const RETRY: Duration = Duration::from_millis(20);

#[derive(Debug)]
pub(crate) struct Dials {
    address: Option<ConnectAddress>,
    /// The socket of this process's own terminals.
    terminals: Option<PathBuf>,
    active: BTreeMap<EffectId, Dial>,
    /// Which dial a connection belongs to, and when each is looked at next: a
    /// process may have thousands under way.
    conns: BTreeMap<ConnId, EffectId>,
    due: BTreeSet<(Time, EffectId)>,
    noticed: Vec<ConnId>,
    /// A look-up is under way. It may outlive the dial that asked, and then
    /// serves the next one: a dead name server must not pile up questions.
    looking_up: bool,
}

#[derive(Debug)]
struct Dial {
    via: Via,
    deadline: Time,
    phase: Phase,
    rest: VecDeque<Target>,
    trouble: String,
}

#[derive(Debug)]
enum Phase {
    Resolving,
    /// Under way until `until`, when the next address gets its turn.
    Connecting {
        conn: ConnId,
        until: Time,
    },
    Retrying {
        target: Target,
        at: Time,
    },
}

impl Dials {
    pub(crate) const fn new(address: Option<ConnectAddress>, terminals: Option<PathBuf>) -> Self {
        Self {
            address,
            terminals,
            active: BTreeMap::new(),
            conns: BTreeMap::new(),
            due: BTreeSet::new(),
            noticed: Vec::new(),
            looking_up: false,
        }
    }

    pub(crate) fn notice(&mut self, conn: ConnId) {
        self.noticed.push(conn);
    }

    pub(crate) fn deadline(&self) -> Option<Time> {
        self.due.first().map(|(at, _)| *at)
    }

    /// The dial enters a phase.
    fn enter(&mut self, effect: EffectId, phase: Phase) {
        let Some(dial) = self.active.get_mut(&effect) else { return };
        let before = std::mem::replace(&mut dial.phase, phase);
        self.due.remove(&(before.due(dial.deadline), effect));
        self.due.insert((dial.phase.due(dial.deadline), effect));
        if let Phase::Connecting { conn, .. } = before {
            self.conns.remove(&conn);
        }
        if let Phase::Connecting { conn, .. } = dial.phase {
            self.conns.insert(conn, effect);
        }
    }

    fn remove(&mut self, effect: EffectId) -> Option<Dial> {
        let dial = self.active.remove(&effect)?;
        self.due.remove(&(dial.phase.due(dial.deadline), effect));
        if let Phase::Connecting { conn, .. } = dial.phase {
            self.conns.remove(&conn);
        }
        Some(dial)
    }
}

impl Phase {
    /// When a dial in this phase is looked at next.
    fn due(&self, deadline: Time) -> Time {
        match self {
            Self::Resolving => deadline,
            Self::Connecting { until, .. } => deadline.min(*until),
            Self::Retrying { at, .. } => deadline.min(*at),
        }
    }
}

impl<N: Net, W: Work> Ports<N, W> {
    /// Begins a dial to a configured address.
    pub(crate) fn dial(&mut self, now: Time, effect: EffectId, deadline: Time, to: DialTarget) {
        let address = match to {
            DialTarget::Link => self.dials.address.clone(),
            DialTarget::Terminals => self.dials.terminals.clone().map(|path| ConnectAddress::Unix { path }),
        };
        let Some(address) = address else {
            let error = "no address to dial".to_owned();
            return self.dial_failed(effect, EffectErrorKind::Unreachable, error);
        };
        let via = match to {
            DialTarget::Link => Via::Link(transport(&address)),
            DialTarget::Terminals => Via::Terminals,
        };
        let targets = match address {
            ConnectAddress::Unix { path } => vec![Target::Unix(path)],
            ConnectAddress::Vsock { cid, port } => vec![Target::Vsock { cid, port }],
            ConnectAddress::Serial { device } => vec![Target::Serial(device)],
            ConnectAddress::Tcp { host, port } => match host.parse::<IpAddr>() {
                Ok(ip) => vec![Target::Tcp(SocketAddr::new(ip, port))],
                Err(_) => {
                    if !std::mem::replace(&mut self.dials.looking_up, true) {
                        self.work.submit(JobId::Effect(effect), Job::Resolve { host, port });
                    }
                    Vec::new()
                }
            },
        };
        let resolving = targets.is_empty();
        let trouble = "the name has no address".to_owned();
        let dial = Dial { via, deadline, phase: Phase::Resolving, rest: targets.into(), trouble };
        self.dials.active.insert(effect, dial);
        self.dials.due.insert((deadline, effect));
        if !resolving {
            self.dial_next(now, effect);
        }
    }

    /// A look-up ended. Of a dial that ended first, nothing is said again.
    pub(crate) fn resolved(&mut self, now: Time, result: &Result<Vec<SocketAddr>, EffectError>) {
        self.dials.looking_up = false;
        let waiting =
            |(effect, dial): (&EffectId, &Dial)| matches!(dial.phase, Phase::Resolving).then_some(*effect);
        while let Some(effect) = self.dials.active.iter().find_map(waiting) {
            match result {
                Ok(addresses) => {
                    if let Some(dial) = self.dials.active.get_mut(&effect) {
                        dial.rest = addresses.iter().copied().map(Target::Tcp).collect();
                    }
                    self.dial_next(now, effect);
                }
                Err(error) => {
                    self.dials.remove(effect);
                    self.dial_failed(effect, error.kind, error.message.clone());
                }
            }
        }
    }

    /// Looks after connects that moved and deadlines that passed.
    pub(crate) fn tend_dials(&mut self, now: Time) {
        for conn in std::mem::take(&mut self.dials.noticed) {
            self.dial_check(now, conn);
        }
        while let Some(&(at, effect)) = self.dials.due.first() {
            if at > now {
                return;
            }
            self.dial_due(now, effect);
        }
    }

    fn dial_due(&mut self, now: Time, effect: EffectId) {
        let Some(dial) = self.dials.active.get_mut(&effect) else { return };
        if dial.deadline <= now {
            self.dial_abandon(effect);
            self.dial_failed(effect, EffectErrorKind::TimedOut, "no answer in time".to_owned());
            return;
        }
        match &dial.phase {
            Phase::Connecting { conn, .. } => {
                let conn = *conn;
                dial.trouble = "no answer in time".to_owned();
                self.net.close(conn);
                self.slots.remove(conn);
            }
            Phase::Retrying { target, .. } => {
                let target = target.clone();
                dial.rest.push_front(target);
            }
            Phase::Resolving => {}
        }
        self.dial_next(now, effect);
    }

    /// The engine no longer wants it; it is still told the end, once.
    /// False: there is no such dial.
    pub(crate) fn cancel_dial(&mut self, effect: EffectId) -> bool {
        let is_dial = self.dials.active.contains_key(&effect);
        if is_dial {
            self.dial_abandon(effect);
            self.dial_failed(effect, EffectErrorKind::Cancelled, "cancelled".to_owned());
        }
        is_dial
    }

    fn dial_next(&mut self, now: Time, effect: EffectId) {
        while let Some(dial) = self.dials.active.get_mut(&effect) {
            let Some(target) = dial.rest.pop_front() else {
                if let Some(dial) = self.dials.remove(effect) {
                    self.dial_failed(effect, EffectErrorKind::Unreachable, dial.trouble);
                }
                return;
            };
            // Each address gets an equal share of the time that is left.
            let share = dial.deadline.since(now) / (dial.rest.len() as u32 + 1);
            let conn = self.slots.next_id();
            match self.net.connect(conn, &target) {
                Ok(()) => {
                    self.dials.enter(effect, Phase::Connecting { conn, until: now + share });
                    self.slots.occupy(conn, Stage::Connecting);
                    self.dial_check(now, conn);
                    return;
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.dials.enter(effect, Phase::Retrying { target, at: now + RETRY });
                    return;
                }
                Err(error) => dial.trouble = describe(&target, &error),
            }
        }
    }

    fn dial_check(&mut self, now: Time, conn: ConnId) {
        let Some(&effect) = self.dials.conns.get(&conn) else { return };
        match self.net.connected(conn) {
            Ok(remote) => self.dial_succeeded(effect, conn, remote),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => {
                if let Some(dial) = self.dials.active.get_mut(&effect) {
                    dial.trouble = error.to_string();
                }
                self.net.close(conn);
                self.slots.remove(conn);
                self.dial_next(now, effect);
            }
        }
    }

    fn dial_succeeded(&mut self, effect: EffectId, conn: ConnId, remote: Remote) {
        let Some(Dial { via, .. }) = self.dials.remove(effect) else { return };
        // It stays in its stage until the engine knows of it: bytes can't come first.
        self.pending.push_back(Pending::Opened { conn, via, effect, remote });
    }

    /// Forgets a dial, and what it has of a connection.
    fn dial_abandon(&mut self, effect: EffectId) {
        if let Some(Dial { phase: Phase::Connecting { conn, .. }, .. }) = self.dials.remove(effect) {
            self.net.close(conn);
            self.slots.remove(conn);
        }
    }

    fn dial_failed(&mut self, effect: EffectId, kind: EffectErrorKind, message: String) {
        self.pending.push_back(Pending::Done(effect, Err(EffectError { kind, message })));
    }
}

const fn transport(address: &ConnectAddress) -> Transport {
    match address {
        ConnectAddress::Tcp { .. } => Transport::Tcp,
        ConnectAddress::Unix { .. } => Transport::Unix,
        ConnectAddress::Vsock { .. } => Transport::Vsock,
        ConnectAddress::Serial { .. } => Transport::Serial,
    }
}

fn describe(target: &Target, error: &io::Error) -> String {
    match target {
        Target::Tcp(address) => format!("{address}: {error}"),
        Target::Unix(path) | Target::Serial(path) => format!("{}: {error}", path.display()),
        Target::Vsock { cid, port } => format!("vsock {cid}:{port}: {error}"),
    }
}
