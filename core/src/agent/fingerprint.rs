//! The agent's state, written down for an explorer. Every field of every state
//! is named here: a new one can't be forgotten.

use super::handshake::{Handshake, Stage};
use super::link::{Link, State};
use super::local::Local;
use super::session::Session;
use super::wire::Wire;
use super::{Agent, Life};
use crate::config::AgentConfig;
use crate::fingerprint::Canon;
use crate::time::nanos;

impl Agent {
    /// Writes this agent's state into `canon`, after the broker's, between two
    /// calls of `handle`.
    pub fn canonical(&self, canon: &mut Canon) {
        let Self { config, entropy: _, out: _, now: _, events: _, ignored: _, link, local, life, longest: _ } =
            self;
        canon.name(&config.name);
        match life {
            Life::Serving => canon.word(0),
            Life::Draining { deadline } => canon.time(*deadline),
            Life::Stopped => canon.word(1),
        }
        link.canonical(canon, config);
        let Local { clients, pending, last_id: _, draining } = local;
        debug_assert!(clients.is_empty(), "local clients are not written down");
        canon.word((clients.len() + pending.len()) as u64);
        canon.flag(*draining);
    }
}

impl Link {
    fn canonical(&self, canon: &mut Canon, config: &AgentConfig) {
        let Self { state, backoff, attempt: _, last_error: _ } = self;
        canon.word(nanos(backoff.range(config.backoff_first, config.backoff_most)));
        match state {
            State::Dialing { effect: _, deadline } => {
                canon.word(1);
                canon.time(*deadline);
            }
            State::Handshaking { wire, handshake, deadline } => {
                canon.word(2);
                wire.canonical(canon);
                handshake.canonical(canon, wire);
                canon.time(*deadline);
            }
            State::Up { wire, session } => {
                canon.word(3);
                wire.canonical(canon);
                session.canonical(canon, config);
            }
            State::Backoff { until, wire } => {
                canon.word(4);
                canon.time(*until);
                if let Some(wire) = wire {
                    wire.canonical(canon);
                }
            }
            State::Ended => canon.word(5),
        }
    }
}

impl Wire {
    fn canonical(&self, canon: &mut Canon) {
        let Self { sender, inbox, serial } = self;
        canon.conn(sender.conn());
        canon.word(sender.waiting() as u64);
        canon.bytes(inbox.unfinished());
        canon.flag(*serial);
    }
}

impl Handshake {
    fn canonical(&self, canon: &mut Canon, wire: &Wire) {
        let Self { name: _, token, nonce: _, hello: _, stage, skipping } = self;
        debug_assert!(token.is_none(), "keys are not written down");
        canon.flag(*skipping);
        match stage {
            Stage::Seeking(tail) => canon.bytes(tail),
            Stage::Greeted(heard) => canon.word(1 + u64::from(*heard)),
            Stage::Proving { challenge, transcript: _ } => {
                canon.word(3);
                canon.nonce(wire.conn(), None, &challenge.nonce);
                canon.epoch(Some(challenge.epoch));
            }
        }
    }
}

impl Session {
    fn canonical(&self, canon: &mut Canon, config: &AgentConfig) {
        let Self { epoch, interval, window, since, tags, quiet_until, patient } = self;
        debug_assert!(tags.is_none(), "keys are not written down");
        canon.epoch(Some(*epoch));
        canon.word(nanos(*interval));
        canon.word(nanos(*window));
        // It only tells whether the backoff begins anew.
        let rested = canon.is_older(*since, config.backoff_reset);
        canon.maybe((!rested).then_some(*since));
        canon.time(*quiet_until);
        canon.flag(*patient);
    }
}
