//! A broker and two agents, and the pipes between them. Nothing moves by itself.

use std::time::Duration;

use castra_core::boundary::{DialTarget, Effect, Origin, Transport, Via};
use castra_core::config::AgentConfig;
use castra_core::id::{ConnId, EffectId};
use castra_core::{Agent, Broker, Input};

use super::choices::Choices;
use super::host::Host;
use super::scene::{agent, agent_config, broker, broker_config, key};
use super::subject::Subject;

pub(crate) struct Rig {
    pub(crate) broker: Host<Broker>,
    /// `devbox`, which has no token and may be adopted, and `keyed`, which has one.
    pub(crate) agents: [Host<Agent>; 2],
    pipes: Vec<Pipe>,
    serial: bool,
}

/// A link, from an agent's connection to the broker's.
#[derive(Clone, Copy)]
struct Pipe {
    guest: usize,
    inner: ConnId,
    outer: ConnId,
}

/// Room of a connection that is a pipe's end.
const ROOM: usize = 64 * 1024;

/// Does the same to whoever is meant.
macro_rules! with {
    ($rig:expr, $who:expr, |$host:ident| $does:expr) => {
        match $who % 3 {
            0 => {
                let $host = &mut $rig.broker;
                $does
            }
            1 => {
                let $host = &mut $rig.agents[0];
                $does
            }
            _ => {
                let $host = &mut $rig.agents[1];
                $does
            }
        }
    };
}
pub(crate) use with;

impl Rig {
    pub(crate) fn new(how: u8) -> Self {
        let serial = how & 0x10 != 0;
        let config = |name| AgentConfig { serial, once: how & 0x20 != 0, ..agent_config(name) };
        let token = if how & 0x40 == 0 { Some(key()) } else { None };
        Self {
            broker: broker(&broker_config()),
            agents: [agent(&config("devbox")), agent(&AgentConfig { token, ..config("keyed") })],
            pipes: Vec::new(),
            serial,
        }
    }

    pub(crate) fn agent(&mut self, who: u8) -> &mut Host<Agent> {
        &mut self.agents[usize::from(who % 3 == 2)]
    }

    /// Time passes for one of them, or for all; or one of them sleeps through it.
    pub(crate) fn pass(&mut self, who: u8, span: Duration) {
        if who % 4 == 3 {
            self.broker.live(span);
            self.agents.iter_mut().for_each(|agent| agent.live(span));
        } else if who & 0x80 == 0 {
            with!(self, who % 4, |host| host.live(span));
        } else {
            with!(self, who % 4, |host| {
                host.jump(span);
                host.settle();
            });
        }
    }

    /// A part of what is on its way arrives.
    pub(crate) fn deliver(&mut self, choices: &mut Choices<'_>) {
        let Some(place) = choices.place(self.pipes.len()) else { return };
        let (inwards, most) = (choices.byte().is_multiple_of(2), choices.pick(&[1, 2, 5, 40, 300, 5000]));
        self.carry(self.pipes[place], inwards, most);
    }

    /// Whether anything moved.
    fn carry(&mut self, pipe: Pipe, inwards: bool, most: usize) -> bool {
        let Self { broker, agents, .. } = self;
        let agent = &mut agents[pipe.guest];
        if inwards {
            carry(broker, pipe.outer, agent, pipe.inner, most)
        } else {
            carry(agent, pipe.inner, broker, pipe.outer, most)
        }
    }

    /// A dial of an agent's link ends: at the broker, at nobody that it knows, or not at all.
    pub(crate) fn dial(&mut self, choices: &mut Choices<'_>) {
        let (who, how) = (choices.byte(), choices.byte());
        let guest = usize::from(who % 3 == 2);
        let Some((effect, to)) = dialled(&self.agents[guest]) else { return };
        match (how % 4, to) {
            (0, _) => self.agents[guest].done(effect, false),
            (1, DialTarget::Link) => {
                let via = Via::Link(self.transport());
                self.agents[guest].open(via, Origin::Dialled(effect), ROOM, None);
            }
            _ => self.connect(guest, effect, to),
        }
    }

    fn transport(&self) -> Transport {
        if self.serial { Transport::Serial } else { Transport::Tcp }
    }

    fn connect(&mut self, guest: usize, effect: EffectId, to: DialTarget) {
        if to == DialTarget::Terminals {
            // Whoever is there says nothing of itself.
            self.agents[guest].open(Via::Terminals, Origin::Dialled(effect), ROOM, None);
            return;
        }
        let via = Via::Link(self.transport());
        let Some(outer) = self.broker.accept(via, ROOM, None) else {
            return self.agents[guest].done(effect, false);
        };
        let inner = self.agents[guest].open(via, Origin::Dialled(effect), ROOM, None);
        self.pipes.push(Pipe { guest, inner, outer });
    }

    /// Everything that is on its way arrives, and every effect but HTTP ends well.
    pub(crate) fn flow(&mut self) {
        for _ in 0..40 {
            let mut moved = false;
            for pipe in self.pipes.clone() {
                moved |= self.carry(pipe, true, usize::MAX);
                moved |= self.carry(pipe, false, usize::MAX);
            }
            moved |= oblige(&mut self.broker);
            for guest in 0..self.agents.len() {
                if let Some((effect, to)) = dialled(&self.agents[guest]) {
                    self.connect(guest, effect, to);
                    moved = true;
                }
                moved |= oblige(&mut self.agents[guest]);
            }
            if !moved {
                return;
            }
        }
    }

    /// All end; what came out of each.
    pub(crate) fn finish(mut self) -> [u64; 3] {
        let [first, second] = &mut self.agents;
        self.broker.finish();
        first.finish();
        second.finish();
        [self.broker.digest, first.digest, second.digest]
    }
}

fn dialled(host: &Host<Agent>) -> Option<(EffectId, DialTarget)> {
    host.effects.iter().find_map(|(id, effect)| match effect {
        Effect::Dial { to, .. } => Some((*id, *to)),
        _ => None,
    })
}

fn oblige<E: Subject>(host: &mut Host<E>) -> bool {
    let is_done = |effect: &Effect| !matches!(effect, Effect::Dial { .. } | Effect::Http(_));
    let next = host.effects.iter().find(|(_, effect)| is_done(effect)).map(|(id, _)| *id);
    next.is_some_and(|effect| {
        host.done(effect, true);
        true
    })
}

/// From one end to the other: bytes first, then the end.
fn carry<A: Subject, B: Subject>(
    from: &mut Host<A>,
    source: ConnId,
    to: &mut Host<B>,
    sink: ConnId,
    most: usize,
) -> bool {
    let Some(there) = to.wires.get(&sink) else {
        // Whoever writes to nobody is told.
        let known = from.wires.contains_key(&source);
        if known {
            from.close(source);
        }
        return known;
    };
    let most = most.min(there.credit);
    let open = from.wires.contains_key(&source);
    let said = match from.wires.get_mut(&source) {
        Some(wire) => Some(&mut wire.sent),
        None => from.closed.iter_mut().find(|(conn, _)| *conn == source).map(|(_, wire)| &mut wire.sent),
    };
    let part: Vec<u8> = said.map_or_else(Vec::new, |sent| sent.drain(..most.min(sent.len())).collect());
    if part.is_empty() {
        let over = !open && there.credit > 0;
        if over {
            to.close(sink);
        }
        return over;
    }
    to.write_all(sink, &part);
    if let Some(wire) = from.wires.get(&source) {
        let free = ROOM.saturating_sub(wire.sent.len());
        if wire.room < ROOM / 2 && free >= ROOM / 2 {
            from.give(Input::Writable { conn: source, room: free });
        }
    }
    true
}
