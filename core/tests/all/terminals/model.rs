//! Random lives of a daemon, its terminals and its clients: at most one owner, and
//! only its commands act (O1); everybody sees the bytes in order without a gap or
//! is told (O2); an end is told once, after the last byte (O3). And any cut of what
//! a client sends gives the same.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;

use crate::terminal_host::*;
use castra_core::id::{ConnId, TerminalId};
use castra_core::terminals::wire::{Answer, Attach, Create, Handshake, Request, Role, Secret};
use castra_core::terminals::{Held, RestorePolicy, RestoredTerminals, TerminalsConfig};
use proptest::prelude::*;

#[derive(Clone, Debug)]
enum Op {
    Open {
        id: u8,
        stream: bool,
    },
    Close(u8),
    Create {
        by: u8,
        key: bool,
    },
    Attach {
        by: u8,
        terminal: u8,
        observe: bool,
        resume: Option<u32>,
    },
    Detach {
        by: u8,
        terminal: u8,
    },
    Input {
        by: u8,
        terminal: u8,
        length: u8,
    },
    Takeover {
        by: u8,
        terminal: u8,
    },
    Kill {
        by: u8,
        terminal: u8,
    },
    Print {
        terminal: u8,
        count: u32,
    },
    Exit {
        terminal: u8,
    },
    Read {
        by: u8,
        count: u32,
    },
    Eager(u8, bool),
    Hold(u8, bool),
    Pass(u16),
    /// kill -9 of the daemon.
    Crash,
}

fn op() -> impl Strategy<Value = Op> {
    let (by, terminal) = (0u8..4, 0u8..3);
    prop_oneof![
        3 => (0u8..2, prop::bool::weighted(0.3)).prop_map(|(id, stream)| Op::Open { id, stream }),
        1 => by.clone().prop_map(Op::Close),
        2 => (by.clone(), any::<bool>()).prop_map(|(by, key)| Op::Create { by, key }),
        4 => (by.clone(), terminal.clone(), any::<bool>(), prop::option::of(0u32..3_000_000))
            .prop_map(|(by, terminal, observe, resume)| Op::Attach { by, terminal, observe, resume }),
        1 => (by.clone(), terminal.clone()).prop_map(|(by, terminal)| Op::Detach { by, terminal }),
        3 => (by.clone(), terminal.clone(), 0u8..40)
            .prop_map(|(by, terminal, length)| Op::Input { by, terminal, length }),
        1 => (by.clone(), terminal.clone()).prop_map(|(by, terminal)| Op::Takeover { by, terminal }),
        1 => (by.clone(), terminal.clone()).prop_map(|(by, terminal)| Op::Kill { by, terminal }),
        4 => (terminal.clone(), 1u32..900_000).prop_map(|(terminal, count)| Op::Print { terminal, count }),
        1 => terminal.prop_map(|terminal| Op::Exit { terminal }),
        3 => (by.clone(), 1u32..200_000).prop_map(|(by, count)| Op::Read { by, count }),
        2 => (by, any::<bool>()).prop_map(|(by, eager)| Op::Eager(by, eager)),
        2 => (0u8..4, any::<bool>()).prop_map(|(what, held)| Op::Hold(what, held)),
        3 => (1u16..4000).prop_map(Op::Pass),
        1 => Just(Op::Crash),
    ]
}

struct Run {
    host: Host,
    conns: Vec<ConnId>,
    names: BTreeMap<ConnId, (String, Role)>,
    /// Input that was granted, and not to a daemon that died.
    granted: BTreeMap<u32, u64>,
    asks: Vec<(ConnId, u32)>,
}

impl Run {
    fn new() -> Self {
        let host = Host::with(settings(), RestoredTerminals { next_id: 1, ..RestoredTerminals::default() });
        Self { host, conns: vec![], names: BTreeMap::new(), granted: BTreeMap::new(), asks: vec![] }
    }

    fn conn(&self, by: u8) -> Option<ConnId> {
        self.conns.get(usize::from(by)).copied().filter(|conn| self.host.peers[conn].open)
    }

    fn terminal(&self, number: u8) -> u32 {
        u32::from(number) + 1
    }

    fn request(&mut self, by: u8, request: &Request<'_>) -> Option<(ConnId, u32)> {
        let conn = self.conn(by)?;
        let seq = self.host.ask(conn, request);
        if let Request::Detach { session } = request {
            // Its answer may be read already.
            let peer = self.host.peer(conn);
            if peer.answers.contains_key(&seq) {
                peer.watched.remove(session);
            } else {
                peer.detaching.insert(seq, *session);
            }
        }
        self.asks.push((conn, seq));
        Some((conn, seq))
    }

    /// Whether a connection's command may act, by what was so before it.
    fn may_command(&self, by: u8, terminal: u32) -> bool {
        let Some(conn) = self.conn(by) else { return false };
        let (name, role) = &self.names[&conn];
        let view = self.host.engine.terminals().find(|view| view.terminal == TerminalId(terminal));
        let Some(view) = view.filter(|view| matches!(view.state.as_str(), "running" | "starting")) else {
            return false;
        };
        *role == Role::Control
            && match view.owner {
                None => true,
                Some((owner, None)) => owner == name,
                Some((_, Some(owner))) => owner == conn,
            }
    }

    fn step(&mut self, op: &Op) {
        match *op {
            Op::Open { id, stream } => {
                if self.conns.len() >= 5 {
                    return;
                }
                let name = ["A", "B"][usize::from(id)];
                let role = if stream { Role::Stream } else { Role::Control };
                let conn = self.host.client(name, role);
                self.conns.push(conn);
                self.names.insert(conn, (name.into(), role));
            }
            Op::Close(by) => {
                if let Some(conn) = self.conn(by) {
                    self.host.close(conn);
                    self.conns.retain(|open| *open != conn);
                    self.asks.retain(|ask| ask.0 != conn);
                }
            }
            Op::Create { by, key } => {
                let create = Create { session_key: key.then_some("key"), ..Create::default() };
                if self.host.engine.sizes().terminals < 4 {
                    self.request(by, &Request::Create(Box::new(create)));
                }
            }
            Op::Attach { by, terminal, observe, resume } => {
                let session = self.terminal(terminal);
                let resume_from = resume.map(u64::from);
                self.request(
                    by,
                    &Request::Attach(Attach { session, observe, resume_from, ..Attach::default() }),
                );
            }
            Op::Detach { by, terminal } => {
                let session = self.terminal(terminal);
                self.request(by, &Request::Detach { session });
            }
            Op::Input { by, terminal, length } => {
                let session = self.terminal(terminal);
                let may = self.may_command(by, session);
                let data = vec![by; usize::from(length)];
                let held = self.conn(by).is_some_and(|conn| !self.host.peers[&conn].eager);
                if held {
                    return;
                }
                if let Some((conn, seq)) = self.request(by, &Request::Input { session, data: Secret(&data) })
                    && let Some(answer) = self.host.answer(conn, seq)
                {
                    let granted = matches!(answer, Answer::Granted(_));
                    assert_eq!(granted, may, "{answer:?}");
                    if granted {
                        *self.granted.entry(session).or_default() += u64::from(length);
                    }
                }
            }
            Op::Takeover { by, terminal } => {
                let session = self.terminal(terminal);
                self.request(by, &Request::Takeover { session });
            }
            Op::Kill { by, terminal } => {
                let session = self.terminal(terminal);
                self.request(by, &Request::Kill { session });
            }
            Op::Print { terminal, count } => {
                let session = self.terminal(terminal);
                if self.host.fakes.get(&session).is_some_and(|fake| fake.exit.is_none()) {
                    self.host.print(session, count.into());
                }
            }
            Op::Exit { terminal } => {
                let session = self.terminal(terminal);
                if self.host.fakes.get(&session).is_some_and(|fake| fake.exit.is_none()) {
                    self.host.exit(session, 1);
                }
            }
            Op::Read { by, count } => {
                if let Some(conn) = self.conn(by) {
                    self.host.read(conn, count as usize);
                    self.host.run();
                }
            }
            Op::Eager(by, eager) => {
                if let Some(conn) = self.conn(by) {
                    self.host.peer(conn).eager = eager;
                    self.host.run();
                }
            }
            Op::Hold(what, held) => {
                let host = &mut self.host;
                match what {
                    0 => host.held_looks = held,
                    1 => host.held_persists = held,
                    2 => host.held_writes = held,
                    _ => host.held_spawns = held,
                }
                host.run();
            }
            Op::Pass(millis) => self.host.pass(millis.into()),
            Op::Crash => self.crash(),
        }
        self.host.check();
    }

    /// The daemon dies; what was under way is done or not; another one begins.
    fn crash(&mut self) {
        let host = &mut self.host;
        let fakes = std::mem::take(&mut host.fakes);
        let held = fakes.iter().map(|(number, fake)| Held {
            terminal: TerminalId(*number),
            pid: 100 + number,
            start_time: 7,
            pts: String::new(),
            cols: 80,
            rows: 24,
            first: fake.end.saturating_sub(1 << 20).max(fake.first),
            end: fake.end,
        });
        let held: Vec<Held> = held.collect();
        let records = host.records.values().map(|record| (record.clone(), None)).collect();
        let restored = RestoredTerminals { next_id: host.reserved, records, held, boot: [0; 16] };
        let fakes = fakes
            .into_iter()
            .map(|(number, fake)| {
                let told = fake.end.saturating_sub(1 << 20).max(fake.first);
                (number, Fake { told, credit: 0, ended: false, ..fake })
            })
            .collect();
        let now = host.now;
        self.host = Host::at(settings(), restored, fakes, now);
        (self.conns, self.names, self.asks) = (vec![], BTreeMap::new(), vec![]);
        self.granted.clear();
        for fake in self.host.fakes.values_mut() {
            fake.input.clear();
        }
    }

    /// Peace: everybody reads, nothing is held up.
    fn finish(mut self) {
        let host = &mut self.host;
        (host.held_looks, host.held_persists, host.held_writes, host.held_spawns) =
            (false, false, false, false);
        host.peers.values_mut().for_each(|peer| peer.eager = true);
        host.run();
        host.pass(20_000);
        for (conn, seq) in &self.asks {
            let open = host.peers[conn].open;
            assert!(!open || host.answer(*conn, *seq).is_some(), "no answer to {seq}");
        }
        for (terminal, length) in &self.granted {
            if let Some(fake) = host.fakes.get(terminal).filter(|fake| !fake.ended && fake.exit.is_none()) {
                assert_eq!(fake.input.len() as u64, *length, "input of terminal {terminal}");
            }
        }
        for (conn, peer) in host.peers.iter().filter(|(_, peer)| peer.open) {
            for (session, next) in &peer.watched {
                let view = host.engine.terminals().find(|view| view.terminal.0 == *session).unwrap();
                assert_eq!(view.end, *next, "{conn:?} lacks output of {session}");
                assert_ne!(view.state.as_str(), "exited", "{conn:?} was not told of the end of {session}");
                assert!(view.watchers.contains(conn));
            }
            assert!(peer.exits.values().all(|times| *times == 1));
        }
        for fake in host.fakes.values() {
            assert!(fake.told == fake.end && fake.exit.is_none(), "an end that nobody was told of");
        }
        host.check();
    }
}

fn settings() -> TerminalsConfig {
    TerminalsConfig { restore: RestorePolicy::None, ..config() }
}

proptest! {
    #[test]
    fn whatever_happens_owners_bytes_and_ends_are_told_as_they_are(ops in prop::collection::vec(op(), 1..60)) {
        let mut run = Run::new();
        run.step(&Op::Open { id: 0, stream: false });
        run.step(&Op::Open { id: 1, stream: true });
        run.step(&Op::Create { by: 0, key: false });
        for by in 0..2 {
            run.step(&Op::Attach { by, terminal: 0, observe: false, resume: None });
        }
        for op in &ops {
            run.step(op);
        }
        run.finish();
    }

    #[test]
    fn any_cut_of_what_a_client_sends_gives_the_same(cuts in prop::collection::vec(1usize..90, 1..60)) {
        let mut stream = Vec::new();
        let requests = [
            Request::Handshake(Handshake::new(TOKEN, "A", Role::Control)),
            Request::Create(Box::default()),
            Request::List,
            Request::Attach(Attach { session: 1, ..Attach::default() }),
            Request::Input { session: 1, data: Secret(&[5; 3000]) },
            Request::Takeover { session: 9 },
            Request::Resize { session: 1, cols: 7, rows: 8 },
            Request::Kill { session: 1 },
            Request::Metrics,
        ];
        for (seq, request) in requests.iter().enumerate() {
            request.append(seq as u32 + 1, &mut stream);
        }
        let heard = |mut pieces: Vec<&[u8]>| {
            let mut host = Host::new();
            let conn = host.open();
            for piece in pieces.drain(..) {
                host.handle(castra_core::Input::Bytes { conn, bytes: piece });
            }
            host.run();
            host.pass(10);
            let fake = host.fakes.remove(&1).map(|fake| (fake.input, fake.deeds));
            let peer = host.peers.remove(&conn).unwrap();
            (peer.answers, peer.events, fake)
        };
        let whole = heard(vec![&stream]);
        prop_assert_eq!(whole.0.len(), requests.len());
        let (mut rest, mut pieces, mut cut) = (stream.as_slice(), vec![], cuts.iter().cycle());
        while !rest.is_empty() {
            pieces.push(rest.split_off(..(*cut.next().unwrap()).min(rest.len())).unwrap());
        }
        prop_assert_eq!(heard(pieces), whole);
    }
}
