//! Dials: a name look-up, then one address after the other, within a deadline.

use std::collections::VecDeque;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use castra_core::boundary::{EffectError, EffectErrorKind, Remote, Via};
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
    active: Vec<Dial>,
    noticed: Vec<ConnId>,
    /// A look-up is under way. It may outlive the dial that asked, and then
    /// serves the next one: a dead name server must not pile up questions.
    looking_up: bool,
}

#[derive(Debug)]
struct Dial {
    effect: EffectId,
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
    pub(crate) const fn new(address: Option<ConnectAddress>) -> Self {
        Self { address, active: Vec::new(), noticed: Vec::new(), looking_up: false }
    }

    pub(crate) fn notice(&mut self, conn: ConnId) {
        self.noticed.push(conn);
    }

    pub(crate) fn deadline(&self) -> Option<Time> {
        self.active
            .iter()
            .map(|dial| match dial.phase {
                Phase::Resolving => dial.deadline,
                Phase::Connecting { until, .. } => until.min(dial.deadline),
                Phase::Retrying { at, .. } => at.min(dial.deadline),
            })
            .min()
    }

    fn position(&self, effect: EffectId) -> Option<usize> {
        self.active.iter().position(|dial| dial.effect == effect)
    }
}

impl<N: Net, W: Work> Ports<N, W> {
    /// Begins a dial to the configured address.
    pub(crate) fn dial(&mut self, now: Time, effect: EffectId, deadline: Time) {
        let targets = match self.dials.address.clone() {
            None => {
                return self.dial_failed(
                    effect,
                    EffectErrorKind::Unreachable,
                    "no address to dial".to_owned(),
                );
            }
            Some(ConnectAddress::Unix { path }) => vec![Target::Unix(path)],
            Some(ConnectAddress::Vsock { cid, port }) => vec![Target::Vsock { cid, port }],
            Some(ConnectAddress::Serial { device }) => vec![Target::Serial(device)],
            Some(ConnectAddress::Tcp { host, port }) => match host.parse::<IpAddr>() {
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
        self.dials.active.push(Dial {
            effect,
            deadline,
            phase: Phase::Resolving,
            rest: targets.into(),
            trouble: "the name has no address".to_owned(),
        });
        if !resolving {
            self.dial_next(now, effect);
        }
    }

    /// A look-up ended. Of a dial that ended first, nothing is said again.
    pub(crate) fn resolved(&mut self, now: Time, result: &Result<Vec<SocketAddr>, EffectError>) {
        self.dials.looking_up = false;
        let waiting = |dial: &Dial| matches!(dial.phase, Phase::Resolving);
        while let Some(at) = self.dials.active.iter().position(waiting) {
            match result {
                Ok(addresses) => {
                    let dial = &mut self.dials.active[at];
                    dial.rest = addresses.iter().copied().map(Target::Tcp).collect();
                    let effect = dial.effect;
                    self.dial_next(now, effect);
                }
                Err(error) => {
                    let effect = self.dials.active.swap_remove(at).effect;
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
        let effects: Vec<_> = match self.dials.deadline() {
            Some(first) if first <= now => self.dials.active.iter().map(|dial| dial.effect).collect(),
            Some(_) | None => return,
        };
        for effect in effects {
            let Some(at) = self.dials.position(effect) else { continue };
            let dial = &mut self.dials.active[at];
            if dial.deadline <= now {
                let dial = self.dials.active.swap_remove(at);
                self.dial_abandon(&dial.phase);
                self.dial_failed(effect, EffectErrorKind::TimedOut, "no answer in time".to_owned());
                continue;
            }
            match &dial.phase {
                Phase::Connecting { conn, until } if *until <= now => {
                    let conn = *conn;
                    dial.trouble = "no answer in time".to_owned();
                    self.net.close(conn);
                    self.slots.remove(conn);
                    self.dial_next(now, effect);
                }
                Phase::Retrying { target, at } if *at <= now => {
                    let target = target.clone();
                    dial.rest.push_front(target);
                    self.dial_next(now, effect);
                }
                Phase::Resolving | Phase::Connecting { .. } | Phase::Retrying { .. } => {}
            }
        }
    }

    /// The engine no longer wants it; it is still told the end, once.
    pub(crate) fn cancel_dial(&mut self, effect: EffectId) {
        if let Some(at) = self.dials.position(effect) {
            let dial = self.dials.active.swap_remove(at);
            self.dial_abandon(&dial.phase);
            self.dial_failed(effect, EffectErrorKind::Cancelled, "cancelled".to_owned());
        }
    }

    fn dial_next(&mut self, now: Time, effect: EffectId) {
        while let Some(at) = self.dials.position(effect) {
            let dial = &mut self.dials.active[at];
            let Some(target) = dial.rest.pop_front() else {
                let dial = self.dials.active.swap_remove(at);
                self.dial_failed(effect, EffectErrorKind::Unreachable, dial.trouble);
                return;
            };
            // Each address gets an equal share of the time that is left.
            let share = dial.deadline.since(now) / (dial.rest.len() as u32 + 1);
            let conn = self.slots.next_id();
            match self.net.connect(conn, &target) {
                Ok(()) => {
                    let stage = Stage::Connecting;
                    dial.phase = Phase::Connecting { conn, until: now + share };
                    self.slots.occupy(conn, stage);
                    self.dial_check(now, conn);
                    return;
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    dial.phase = Phase::Retrying { target, at: now + RETRY };
                    return;
                }
                Err(error) => dial.trouble = describe(&target, &error),
            }
        }
    }

    fn dial_check(&mut self, now: Time, conn: ConnId) {
        let found = self
            .dials
            .active
            .iter_mut()
            .find(|dial| matches!(dial.phase, Phase::Connecting { conn: other, .. } if other == conn));
        let Some(dial) = found else { return };
        let effect = dial.effect;
        match self.net.connected(conn) {
            Ok(remote) => self.dial_succeeded(effect, conn, remote),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => {
                dial.trouble = error.to_string();
                self.net.close(conn);
                self.slots.remove(conn);
                self.dial_next(now, effect);
            }
        }
    }

    fn dial_succeeded(&mut self, effect: EffectId, conn: ConnId, remote: Remote) {
        self.dials.active.retain(|dial| dial.effect != effect);
        let transport = match &self.dials.address {
            Some(ConnectAddress::Tcp { .. }) | None => castra_core::boundary::Transport::Tcp,
            Some(ConnectAddress::Unix { .. }) => castra_core::boundary::Transport::Unix,
            Some(ConnectAddress::Vsock { .. }) => castra_core::boundary::Transport::Vsock,
            Some(ConnectAddress::Serial { .. }) => castra_core::boundary::Transport::Serial,
        };
        let via = Via::Link(transport);
        // It stays in its stage until the engine knows of it: bytes can't come first.
        self.pending.push_back(Pending::Opened { conn, via, effect, remote });
    }

    fn dial_abandon(&mut self, phase: &Phase) {
        if let Phase::Connecting { conn, .. } = phase {
            self.net.close(*conn);
            self.slots.remove(*conn);
        }
    }

    fn dial_failed(&mut self, effect: EffectId, kind: EffectErrorKind, message: String) {
        self.pending.push_back(Pending::Done(effect, Err(EffectError { kind, message })));
    }
}

fn describe(target: &Target, error: &io::Error) -> String {
    match target {
        Target::Tcp(address) => format!("{address}: {error}"),
        Target::Unix(path) | Target::Serial(path) => format!("{}: {error}", path.display()),
        Target::Vsock { cid, port } => format!("vsock {cid}:{port}: {error}"),
    }
}
