//! What must hold of whatever a database holds: every row is a line here.
//!
//! What can be read is written and read back the same, and an engine that starts from it
//! keeps its promises, however little the rows fit each other.

use castra_core::attach::{Action, Applied, AttachId, Attachment, RestoredManager};
use castra_core::entropy::Entropy;
use castra_core::id::GuestName;
use castra_core::peers::{Fate, Message, MessageId, Pair, Policy, Received, Relation, RestoredPeers};
use castra_core::terminals::{Held, RestoredTerminals, Tail, TerminalRecord, TerminalsConfig};
use castra_core::time::WallTime;
use castra_core::{Agent, Broker, Restored, RestoredAgent, Terminals};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::fmt::Debug;
use std::time::Duration;

use super::host::{Host, start};
use super::scene::{agent_config, broker_config};
use super::subject::Subject;

/// Panics if something that must hold doesn't.
pub(crate) fn check(data: &[u8]) {
    let mut broker = Restored { incarnation: 7, ..Restored::default() };
    let mut agent = RestoredAgent::default();
    let mut terminals = RestoredTerminals { next_id: 1, ..RestoredTerminals::default() };
    for line in data.split(|byte| *byte == b'\n').take(64) {
        read_broker(&mut broker, line);
        read_agent(&mut agent, line);
        read_terminal(&mut terminals, line);
    }
    // What a database can't hold twice, as its keys are.
    let RestoredManager { attachments, actions } = &mut broker.manager;
    unique(attachments, |attachment| attachment.guest);
    unique(actions, |action| action.number);
    let RestoredPeers { relations, policies, messages } = &mut broker.peers;
    unique(relations, |(pair, _)| *pair);
    unique(policies, |(guest, _)| *guest);
    unique(messages, |message| message.number);
    unique(&mut agent.messages, |received| received.number);
    unique(&mut agent.seen, |(id, _)| *id);
    unique(&mut agent.applied, |applied| (applied.session.clone(), applied.id.clone()));
    unique(&mut terminals.records, |(record, _)| record.terminal);
    terminals.next_id = terminals.records.last().map_or(1, |(record, _)| record.terminal.0.saturating_add(1));
    hold(&mut terminals);

    let config = broker_config();
    let wide = castra_core::config::BrokerConfig { max_guests: 4096, ..config };
    live(Broker::new(wide.clone(), broker, Entropy::seeded([1; 32]), start()), &wide);
    let config = agent_config("devbox");
    live(Agent::new(config.clone(), agent, Entropy::seeded([2; 32]), start()), &config);
    let config = TerminalsConfig::default();
    live(Terminals::new(config.clone(), terminals, Entropy::seeded([3; 32]), start()), &config);
}

fn unique<T, K: Ord>(rows: &mut Vec<T>, key: impl Fn(&T) -> K) {
    rows.sort_by_key(&key);
    rows.dedup_by_key(|row| key(row));
}

/// A day with failing effects, then the end.
fn live<E: Subject>(engine: E, config: &E::Config) {
    let mut host = Host::new(engine, config);
    for round in 0..40_u64 {
        match host.effects.front() {
            Some((effect, _)) => {
                let effect = *effect;
                host.done(effect, round % 4 > 0);
            }
            None => host.live(Duration::from_secs(round * 60)),
        }
    }
    host.finish();
}

/// A row, if it is one: it is written as it was read.
fn row<T: DeserializeOwned + Serialize + PartialEq + Debug>(line: &[u8]) -> Option<T> {
    let read: T = serde_json::from_slice(line).ok()?;
    let written = serde_json::to_vec(&read).expect("a row can be written");
    let again: T = serde_json::from_slice(&written).expect("a row can be read again");
    assert_eq!(again, read, "a row comes back");
    Some(read)
}

fn read_broker(restored: &mut Restored, line: &[u8]) {
    restored.manager.attachments.extend(row::<Attachment>(line));
    restored.manager.actions.extend(row::<Action>(line));
    restored.peers.messages.extend(row::<Message>(line));
    restored.peers.relations.extend(row::<(Pair, Relation)>(line));
    restored.peers.policies.extend(row::<(GuestName, Policy)>(line));
    restored.last_seen.extend(row::<(GuestName, WallTime)>(line));
    if let Some((number, fate)) = row::<(u64, Fate)>(line) {
        restored.peers.messages.iter_mut().filter(|message| message.number == number).for_each(|message| {
            message.fate = fate;
        });
    }
    if let Some(whole) = row::<RestoredPeers>(line) {
        restored.peers = whole;
    }
    if let Some(whole) = row::<RestoredManager>(line) {
        restored.manager = whole;
    }
}

fn read_agent(restored: &mut RestoredAgent, line: &[u8]) {
    restored.messages.extend(row::<Received>(line));
    restored.applied.extend(row::<Applied>(line));
    restored.seen.extend(row::<(MessageId, WallTime)>(line));
    let _ = row::<AttachId>(line);
}

fn read_terminal(restored: &mut RestoredTerminals, line: &[u8]) {
    if let Some(record) = row::<TerminalRecord>(line) {
        restored.records.push((record, None));
    }
    if let (Some(tail), Some((_, place))) = (row::<Tail>(line), restored.records.last_mut()) {
        *place = Some(tail);
    }
}

/// Every other terminal ran on.
fn hold(restored: &mut RestoredTerminals) {
    for (record, _) in restored.records.iter().step_by(2) {
        let TerminalRecord { terminal, pid, start_time, pts, reached, .. } = record.clone();
        let held = Held { terminal, pid, start_time, pts, cols: 80, rows: 24, first: 0, end: reached };
        restored.held.push(held);
    }
}
