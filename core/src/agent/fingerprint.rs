//! The agent's state, written down for an explorer. Every field of every state
//! is named here: a new one can't be forgotten.

use super::handshake::{Handshake, Stage};
use super::inbox::{Arrived, Inbox, Offer, Writing};
use super::link::{Link, State};
use super::local::Local;
use super::session::Session;
use super::wire::Wire;
use super::{Agent, Life};
use crate::config::AgentConfig;
use crate::fingerprint::Canon;
use crate::peers::Received;
use crate::time::nanos;

impl Agent {
    /// Writes this agent's state into `canon`, after the broker's, between two
    /// calls of `handle`.
    pub fn canonical(&self, canon: &mut Canon) {
        let Self {
            config,
            entropy: _,
            out: _,
            now: _,
            events: _,
            ignored: _,
            link,
            local,
            inbox,
            tunnel,
            attach,
            life,
            longest: _,
        } = self;
        debug_assert!(tunnel.is_idle(), "streams are not written down");
        debug_assert!(attach.is_idle(), "attachments are not written down");
        canon.name(&config.name);
        match life {
            Life::Serving => canon.word(0),
            Life::Draining { deadline } => canon.time(*deadline),
            Life::Stopped => canon.word(1),
        }
        link.canonical(canon, config);
        let Local { clients, pending, last_id: _, draining, released: _ } = local;
        debug_assert!(clients.is_empty(), "local clients are not written down");
        canon.word((clients.len() + pending.len()) as u64);
        canon.flag(*draining);
        if let Some(inbox) = inbox {
            inbox.canonical(canon);
        }
    }
}

impl Inbox {
    fn canonical(&self, canon: &mut Canon) {
        let Self {
            settings: _,
            messages,
            bytes: _,
            last: _,
            seen,
            by_age: _,
            arrived,
            writing,
            failing,
            offers,
            hold,
            stated: (policy, held),
        } = self;
        canon.word(messages.len() as u64);
        messages.iter().for_each(|message| write(canon, message));
        canon.word(seen.len() as u64);
        for (id, until) in seen {
            canon.bytes(&id.0);
            canon.time(*until);
        }
        canon.word(arrived.len() as u64);
        for Arrived { message, tried } in arrived {
            write(canon, message);
            canon.flag(*tried);
        }
        canon.flag(writing.is_some());
        if let Some(Writing { effect: _, messages, dropped, forgotten }) = writing {
            canon.word(messages.len() as u64);
            messages.iter().for_each(|message| write(canon, message));
            canon.word(*dropped as u64);
            canon.word(forgotten.len() as u64);
            forgotten.iter().for_each(|id| canon.bytes(&id.0));
        }
        canon.flag(*failing);
        canon.word(offers.len() as u64);
        for Offer { id, from, until } in offers {
            canon.word(*id);
            canon.name(from);
            canon.time(*until);
        }
        canon.flag(*hold);
        canon.bytes(policy.as_str().as_bytes());
        canon.flag(*held);
    }
}

/// The times of a message and its place are for people only.
fn write(canon: &mut Canon, message: &Received) {
    let Received { number: _, id, from, from_authenticated, text, sent_at: _, delivered_at: _, wake } =
        message;
    canon.bytes(&id.0);
    canon.name(from);
    canon.flag(*from_authenticated);
    canon.bytes(text.as_bytes());
    canon.flag(*wake);
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
        let Self { epoch, interval, window, since, tags, quiet_until, patient, frame_since } = self;
        debug_assert!(tags.is_none(), "keys are not written down");
        canon.epoch(Some(*epoch));
        canon.word(nanos(*interval));
        canon.word(nanos(*window));
        // It only tells whether the backoff begins anew.
        let rested = canon.is_older(*since, config.backoff_reset);
        canon.maybe((!rested).then_some(*since));
        canon.time(*quiet_until);
        canon.flag(*patient);
        canon.maybe(*frame_since);
    }
}
