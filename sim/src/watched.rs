//! An engine under observation: the same engine, and somebody who counts,
//! fingerprints and checks.

use std::cell::RefCell;
use std::rc::Rc;

use castra_core::boundary::{Deadline, Effect};
use castra_core::config::{AgentConfig, BrokerConfig};
use castra_core::event::Fact;
use castra_core::time::Now;
use castra_core::{Agent, Broker, Engine, Input, Output};
use castra_driver::work::JobId;

use crate::boundary::{BOUNDARY, Boundary};
use crate::net::NodeId;
use crate::pauses::Pauses;
use crate::witness::Witness;

pub(crate) type Watching = Rc<RefCell<Witness>>;

/// What an observer asks of an engine.
pub(crate) trait Observe: Engine {
    /// An event is over.
    fn observe(&self, witness: &mut Witness, wait: Option<Deadline>);
    /// Whether this is the engine that makes claims about others.
    const CLAIMS: bool;
}

impl Observe for Broker {
    fn observe(&self, witness: &mut Witness, wait: Option<Deadline>) {
        witness.check(self, wait);
    }
    const CLAIMS: bool = true;
}

impl Observe for Agent {
    fn observe(&self, witness: &mut Witness, _: Option<Deadline>) {
        if let Err(unguarded) = self.check_obligations() {
            witness.blame("L1", None, format!("an agent: {unguarded}"));
        }
    }
    const CLAIMS: bool = false;
}

/// The engine with its observer.
#[derive(Debug)]
pub(crate) struct Watched<E> {
    pub(crate) engine: E,
    node: NodeId,
    witness: Watching,
    wait: Option<Deadline>,
    /// An event happened whose outcome was not yet looked at.
    open: bool,
    boundary: Boundary,
    pauses: Pauses,
}

impl<E: Observe> Watched<E> {
    pub(crate) fn new(engine: E, node: NodeId, witness: Watching) -> Self {
        Self {
            engine,
            node,
            witness,
            wait: None,
            open: true,
            boundary: Boundary::default(),
            pauses: Pauses::default(),
        }
    }

    /// Looks at what it says at a moment at which nothing happened.
    pub(crate) fn look(&mut self, now: Now) {
        self.settle();
        let mut witness = self.witness.borrow_mut();
        witness.look(now);
        self.engine.observe(&mut witness, None);
    }

    /// Looks at the outcome of the last event, unless that was done.
    pub(crate) fn settle(&mut self) {
        if std::mem::take(&mut self.open) {
            self.engine.observe(&mut self.witness.borrow_mut(), self.wait);
        }
    }
}

impl<E: Observe> Engine for Watched<E>
where
    E: Engine,
{
    type Config = E::Config;

    fn handle(&mut self, now: Now, input: Input<'_, E::Config>) {
        self.settle();
        {
            let mut witness = self.witness.borrow_mut();
            witness.outcome.events += 1;
            witness.digest(self.node as u64 ^ now.boot.as_nanos());
            digest(&mut witness, &input);
            let allowed = self.boundary.input(&witness.hub.borrow(), self.node, &input);
            if let Err(text) = allowed {
                witness.at(now);
                witness.blame(BOUNDARY, None, text);
            }
            if let (Input::Tick, Some(wait)) = (&input, self.wait)
                && wait.at <= now.boot
            {
                witness.woken(wait.why);
            }
            if E::CLAIMS {
                witness.punctual(now, &self.boundary);
                if let Input::Done { effect, result } = &input {
                    witness.at(now);
                    witness.of_peers(|peers| {
                        peers.written(*effect, result.is_ok());
                        Ok(())
                    });
                }
                let (source, bytes, tick) = match &input {
                    Input::Bytes { conn, .. } => (Some(*conn), true, None),
                    Input::Opened { conn, .. } => (Some(*conn), false, None),
                    Input::Tick => (None, false, Some(self.wait)),
                    _ => (None, false, None),
                };
                witness.input(now, source, bytes, tick);
            }
        }
        self.open = true;
        self.engine.handle(now, input);
    }

    fn poll_output(&mut self) -> Output<'_> {
        let output = self.engine.poll_output();
        let mut witness = self.witness.borrow_mut();
        self.boundary.output(&mut witness.hub.borrow_mut(), self.node, &output);
        match &output {
            Output::Wait(wait) => {
                self.wait = *wait;
                return output;
            }
            Output::Transmit { conn, bytes } => {
                witness.digest(u64::from(conn.index));
                witness.digest_bytes(bytes);
                if E::CLAIMS {
                    witness.said(*conn, bytes);
                } else {
                    witness.answered(self.node, bytes);
                }
            }
            Output::Effect { id, effect } => {
                witness.digest(id.0);
                if let Effect::Http(request) = effect {
                    let job = JobId::Effect(*id);
                    witness.of_attach(|attach| attach.asks(self.node, job, request));
                }
                if let Effect::Persist(changes) = effect
                    && E::CLAIMS
                {
                    witness.of_peers(|peers| peers.writes(*id, changes));
                }
                witness.digest(matches!(effect, Effect::Persist(_)).into());
            }
            Output::Event(event) if E::CLAIMS => {
                witness.digest_bytes(event.fact.kind().as_bytes());
                witness.event(event);
            }
            Output::Event(event) => {
                if let Fact::Attach(fact) = &event.fact {
                    witness.of_attach(|attach| attach.agent_says(self.node, fact));
                }
                let now = witness.hub.borrow().now;
                if let Err(text) = self.pauses.event(&event.fact, now) {
                    witness.blame("A2", None, format!("an agent {text}"));
                }
            }
            Output::Close { conn, why } => witness.digest(u64::from(conn.index) ^ (*why as u64) << 32),
            _ => witness.digest(1),
        }
        if E::CLAIMS {
            witness.produced();
        }
        output
    }
}

/// Folds an input into the fingerprint.
fn digest<C>(witness: &mut Witness, input: &Input<'_, C>) {
    match input {
        Input::Bytes { conn, bytes } => {
            witness.digest(u64::from(conn.index));
            witness.digest_bytes(bytes);
        }
        Input::Opened { conn, .. } => witness.digest(u64::from(conn.index) | 1 << 40),
        Input::Finished { conn } => witness.digest(u64::from(conn.index) | 2 << 40),
        Input::Writable { conn, room } => {
            witness.digest(u64::from(conn.index) | 3 << 40 | (*room as u64) << 44);
        }
        Input::Closed { conn, why } => witness.digest(u64::from(conn.index) | (4 + *why as u64) << 40),
        Input::Answered { effect, answer } => {
            witness.digest(effect.0 << 1 | 1 << 63);
            witness.digest_bytes(answer.body);
        }
        Input::Done { effect, result } => witness.digest(effect.0 << 1 | u64::from(result.is_ok())),
        _ => {}
    }
}

/// The broker and the agents, as the world runs them.
pub(crate) type WatchedBroker = Watched<Broker>;
/// See [`WatchedBroker`].
pub(crate) type WatchedAgent = Watched<Agent>;

const _: fn() = || {
    fn is_engine<E: Engine<Config = C>, C>() {}
    is_engine::<WatchedBroker, BrokerConfig>();
    is_engine::<WatchedAgent, AgentConfig>();
};
