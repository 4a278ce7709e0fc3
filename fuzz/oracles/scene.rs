//! Engines to be spoken to, and how a stream is brought to one of them.

#[cfg(feature = "planted")]
use std::cell::Cell;
use std::collections::BTreeMap;
use std::time::Duration;

use castra_core::attach::{Action, Attachment, Hint, ManagerUrl, RestoredManager, Stage};
use castra_core::auth::Key;
use castra_core::boundary::{CloseCause, Via};
use castra_core::config::{AgentConfig, BrokerConfig, Identity};
use castra_core::entropy::Entropy;
use castra_core::id::{ConnId, GuestName};
use castra_core::peers::InboxSettings;
#[cfg(feature = "planted")]
use castra_core::planted::Bug;
use castra_core::time::WallTime;
use castra_core::{Agent, Broker, Input, Restored, RestoredAgent};

use super::choices::Cuts;
use super::host::{Host, start};
use super::subject::Subject;

/// The words of the byte examples in `docs/PROTOCOL.md`.
pub(crate) const URL: &str = "http://10.0.2.2:7171";
pub(crate) const TOKEN: &str = "TOKEN-0123456789";
pub(crate) const CODE: &str = "CODE-42";

pub(crate) fn name(text: &str) -> GuestName {
    text.parse().expect("a name")
}

pub(crate) fn key() -> Key {
    Key::from_bytes([7; 32])
}

fn identity() -> Identity {
    Identity { uid: 1000, version: "fuzz".into(), ..Identity::default() }
}

/// A broker with bounds that are soon reached, and a manager.
pub(crate) fn broker_config() -> BrokerConfig {
    let mut config = BrokerConfig {
        half_open_max: 4,
        guests: vec![name("devbox")],
        max_guests: 6,
        control_clients_max: 3,
        control_requests_max: 5,
        request_timeout_max: Duration::from_secs(60),
        event_ring: 64,
        identity: identity(),
        ..BrokerConfig::default()
    };
    config.peers.peers_max = 2;
    config.peers.queue_messages = 3;
    config.peers.queue_bytes = 64 * 1024;
    config.peers.mail_bytes_max = 256 * 1024;
    config.peers.operations_max = 4;
    config.peers.restorable = vec![name("devbox")];
    config.tunnel.streams_max = 3;
    config.tunnel.streams_per_guest = 2;
    config.manager.http = Some("10.0.2.2:7171".parse().expect("an address"));
    config.manager.attachments_max = 3;
    config.manager.queue_max = 4;
    config.manager.in_flight_max = 2;
    config.manager.connections_max = 3;
    #[cfg(feature = "planted")]
    (config.planted = planted());
    config
}

pub(crate) fn agent_config(guest: &str) -> AgentConfig {
    let mut config = AgentConfig {
        control_clients_max: 3,
        control_requests_max: 5,
        request_timeout_max: Duration::from_secs(60),
        inbox: Some(InboxSettings { messages_max: 3, event_ring: 16, ..InboxSettings::default() }),
        terminals: true,
        trust_unkeyed_broker: true,
        identity: identity(),
        ..AgentConfig::new(name(guest))
    };
    config.attach.remembered_max = 4;
    #[cfg(feature = "planted")]
    (config.planted = planted());
    config
}

/// An agent that its operator told where to attach.
pub(crate) fn hinted_config() -> AgentConfig {
    let mut config = agent_config("devbox");
    let manager: ManagerUrl = URL.parse().expect("an address");
    config.attach.managers = vec![manager.clone()];
    config.attach.hint = Some(Hint {
        manager,
        beach: "beach-1".parse().expect("an id"),
        code: CODE.parse().expect("a secret"),
        token: TOKEN.parse().expect("a secret"),
    });
    config
}

/// A guest that is adopted, and an action that waits for it.
pub(crate) fn adopted() -> RestoredManager {
    let guest = name("devbox");
    let attachment = Attachment {
        guest,
        session: "sess-1".parse().expect("an id"),
        beach: "beach-1".parse().expect("an id"),
        url: URL.parse().expect("an address"),
        link_only: false,
        handshake: "hand-1".parse().expect("an id"),
        token: TOKEN.parse().expect("a secret"),
        code: Some(CODE.parse().expect("a secret")),
        issued_at: start().wall,
        stage: Stage::Pending,
    };
    let action = Action {
        number: 1,
        guest,
        id: "act-1".parse().expect("an id"),
        kind: "terminal_write".into(),
        payload: r#"{"bytes":"ls\n"}"#.into(),
        queued_at: start().wall,
        ttl_ms: 600_000,
    };
    RestoredManager { attachments: vec![attachment], actions: vec![action] }
}

pub(crate) fn broker(config: &BrokerConfig) -> Host<Broker> {
    let restored = Restored {
        incarnation: 7,
        tokens: vec![(name("keyed"), Some(key())), (name("revoked"), None)],
        last_seen: vec![(name("seen"), WallTime::from_unix_millis(1_795_188_000_000))],
        manager: adopted(),
        ..Restored::default()
    };
    let engine = Broker::new(config.clone(), restored, Entropy::seeded([7; 32]), start());
    Host::new(engine, config)
}

pub(crate) fn agent(config: &AgentConfig) -> Host<Agent> {
    let engine = Agent::new(config.clone(), RestoredAgent::default(), Entropy::seeded([9; 32]), start());
    Host::new(engine, config)
}

#[cfg(feature = "planted")]
thread_local! {
    /// The bug on purpose in every engine; at first the one of `CASTRA_FUZZ_BUG`.
    pub(crate) static PLANTED: Cell<Option<Bug>> = Cell::new(
        std::env::var("CASTRA_FUZZ_BUG").ok().map(|word| word.parse().expect("a bug's word")),
    );
}

#[cfg(feature = "planted")]
pub(crate) fn planted() -> Option<Bug> {
    PLANTED.get()
}

/// How a stream is cut.
#[derive(Clone, Copy)]
pub(crate) enum Pieces {
    Whole,
    Bytes,
    Seeded(u16),
}

/// What a stream brought about.
#[derive(PartialEq, Eq, Debug, Default)]
pub(crate) struct Outcome {
    /// What each connection was sent; those in `open` were not closed by the engine.
    pub(crate) sent: BTreeMap<ConnId, Vec<u8>>,
    pub(crate) open: Vec<ConnId>,
    pub(crate) events: Vec<String>,
    pub(crate) asked: Vec<String>,
}

/// Brings a stream to a connection that was accepted for it, ends it, and lets everything
/// come to its end. Which kinds of effect fail is the stream's choice, whatever the order
/// that its cut brings them in. Time passes only when the engine wants no more bytes and
/// nothing else can be done.
pub(crate) fn bring<E: Subject>(
    host: &mut Host<E>,
    via: Via,
    stream: &[u8],
    pieces: Pieces,
) -> (ConnId, Outcome) {
    let conn = host.accept(via, usize::MAX / 2, Some(1000)).expect("the door is open");
    let mut cuts = Cuts::new(if let Pieces::Seeded(seed) = pieces { seed } else { 0 });
    let salt = stream.iter().fold(0_u64, |salt, byte| mixed(salt, *byte));
    let mut rest = stream;
    while !rest.is_empty() && host.wires.contains_key(&conn) {
        let piece = match pieces {
            Pieces::Whole => rest.len(),
            Pieces::Bytes => 1,
            Pieces::Seeded(_) => cuts.next(rest.len()),
        };
        let taken = host.write(conn, &rest[..piece]);
        rest = &rest[taken..];
        if taken == 0 && !step(host, salt) {
            break;
        }
    }
    if host.wires.contains_key(&conn) {
        host.give(Input::Finished { conn });
    }
    for _ in 0..10_000 {
        if !host.wires.contains_key(&conn) || !step(host, salt) {
            break;
        }
    }
    let mut outcome =
        Outcome { events: host.events.clone(), asked: host.asked.clone(), ..Outcome::default() };
    for (conn, wire) in &host.closed {
        outcome.sent.insert(*conn, wire.sent.clone());
    }
    for (conn, wire) in &host.wires {
        outcome.sent.insert(*conn, wire.sent.clone());
        outcome.open.push(*conn);
    }
    if host.wires.contains_key(&conn) {
        host.give(Input::Closed { conn, why: CloseCause::Reset });
    }
    (conn, outcome)
}

/// FNV-1a, a byte further.
const fn mixed(sum: u64, byte: u8) -> u64 {
    (sum ^ byte as u64).wrapping_mul(0x0100_0000_01b3)
}

/// The oldest effect ends, or time passes to the next deadline, if that is within ten
/// minutes: every request is answered by then.
fn step<E: Subject>(host: &mut Host<E>, salt: u64) -> bool {
    if let Some((id, effect)) = host.effects.front() {
        let (id, text) = (*id, format!("{effect:?}"));
        let kind = text.bytes().take_while(u8::is_ascii_alphanumeric).fold(salt, mixed);
        host.done(id, kind % 3 != 0);
        return true;
    }
    let end = start().boot + Duration::from_secs(600);
    let Some(due) = host.deadline.filter(|due| due.at <= end) else { return false };
    host.live(due.at.since(host.now.boot));
    true
}
