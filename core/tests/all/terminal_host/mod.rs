//! A host of fake terminals on a virtual clock, and clients that check everything
//! they hear: bytes in order by their offsets, exits once and last.
#![allow(clippy::unwrap_used)]

mod asks;
mod peer;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use castra_core::boundary::{Change, Effect, EffectError, EffectErrorKind, Source};
use castra_core::config::Identity;
use castra_core::entropy::Entropy;
use castra_core::event::Event as Happened;
use castra_core::id::{ConnId, EffectId, TerminalId};
use castra_core::terminals::{
    Deed, Exit, Launch, News, RestoredTerminals, Snapshot, TerminalRecord, TerminalsConfig, Token,
};
use castra_core::time::{Now, Time, WallTime};
use castra_core::{Engine, Input, Output, Terminals};
pub(crate) use peer::Peer;

pub(crate) const TOKEN: &str = "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ01";
pub(crate) const PID: u32 = 31_166;
pub(crate) const UID: u32 = 1000;

/// What a terminal prints at an offset.
pub(crate) const fn byte(offset: u64) -> u8 {
    ((offset * 31 + offset / 256 + 7) % 251) as u8
}

#[derive(Debug, Default)]
pub(crate) struct Fake {
    pub(crate) first: u64,
    /// How much was printed.
    pub(crate) end: u64,
    /// How much of it was told.
    pub(crate) told: u64,
    pub(crate) credit: usize,
    pub(crate) input: Vec<u8>,
    pub(crate) launch: Option<Launch>,
    pub(crate) tail: Option<String>,
    pub(crate) exit: Option<Exit>,
    pub(crate) ended: bool,
    pub(crate) deeds: Vec<String>,
}

pub(crate) struct Host {
    pub(crate) engine: Terminals,
    pub(crate) now: Now,
    pub(crate) fakes: BTreeMap<u32, Fake>,
    pub(crate) peers: BTreeMap<ConnId, Peer>,
    /// How much output there was of what ended.
    pub(crate) ends: BTreeMap<u32, u64>,
    pub(crate) wake: Option<Time>,
    pub(crate) effects: VecDeque<(EffectId, Effect)>,
    /// Effects stay open.
    pub(crate) held_spawns: bool,
    pub(crate) held_writes: bool,
    pub(crate) held_persists: bool,
    pub(crate) held_looks: bool,
    pub(crate) failing_disk: bool,
    pub(crate) no_screen: bool,
    pub(crate) spawn_error: Option<EffectErrorKind>,
    pub(crate) records: BTreeMap<u32, TerminalRecord>,
    pub(crate) tails: BTreeMap<u32, String>,
    pub(crate) reserved: u32,
    pub(crate) happened: Vec<Happened>,
    pub(crate) door: usize,
    pub(crate) reading: BTreeMap<ConnId, usize>,
    pub(crate) stopped: bool,
    pub(crate) next_conn: u32,
}

pub(crate) fn config() -> TerminalsConfig {
    TerminalsConfig {
        token: Some(Token::new(TOKEN.into())),
        identity: Identity { version: "0.2.0".into(), pid: PID, uid: UID, ..Identity::default() },
        ..TerminalsConfig::default()
    }
}

pub(crate) fn start_of_time() -> Now {
    Now {
        boot: Time::from_millis(1_000_000),
        suspended: Duration::ZERO,
        wall: WallTime::from_unix_millis(1_795_188_257_000),
    }
}

impl Host {
    pub(crate) fn new() -> Self {
        Self::with(config(), RestoredTerminals { next_id: 1, ..RestoredTerminals::default() })
    }

    pub(crate) fn with(config: TerminalsConfig, restored: RestoredTerminals) -> Self {
        Self::at(config, restored, BTreeMap::new(), start_of_time())
    }

    /// A daemon that finds terminals that ran on.
    pub(crate) fn at(
        config: TerminalsConfig,
        restored: RestoredTerminals,
        fakes: BTreeMap<u32, Fake>,
        now: Now,
    ) -> Self {
        let no_screen = !config.screen;
        let records =
            restored.records.iter().map(|(record, _)| (record.terminal.0, record.clone())).collect();
        let engine = Terminals::new(config, restored, Entropy::chosen(0), now);
        let mut host = Self {
            engine,
            now,
            fakes,
            peers: BTreeMap::new(),
            ends: BTreeMap::new(),
            wake: None,
            effects: VecDeque::new(),
            held_spawns: false,
            held_writes: false,
            held_persists: false,
            held_looks: false,
            failing_disk: false,
            no_screen,
            spawn_error: None,
            records,
            tails: BTreeMap::new(),
            reserved: 0,
            happened: Vec::new(),
            door: 0,
            reading: BTreeMap::new(),
            stopped: false,
            next_conn: 0,
        };
        host.drain();
        host.run();
        host
    }

    pub(crate) fn handle(&mut self, input: Input<'_, TerminalsConfig>) {
        assert!(!self.stopped || matches!(input, Input::Tick | Input::Done { .. } | Input::Terminal { .. }));
        self.engine.handle(self.now, input);
        self.drain();
        #[cfg(feature = "model")]
        if let Err(unguarded) = self.engine.check_obligations() {
            panic!("{unguarded}");
        }
    }

    fn drain(&mut self) {
        loop {
            match self.engine.poll_output() {
                Output::Transmit { conn, bytes } => {
                    let peer = self.peers.get_mut(&conn).unwrap();
                    assert!(bytes.len() <= peer.room, "{} bytes into room for {}", bytes.len(), peer.room);
                    peer.room -= bytes.len();
                    peer.buffer.extend(bytes);
                }
                Output::Read { source: Source::TerminalDoor, credit } => self.door = credit,
                Output::Read { source: Source::Terminal(terminal), credit } => {
                    let fake = self.fakes.get_mut(&terminal.0).unwrap();
                    assert_eq!(fake.credit, 0, "two grants at once");
                    fake.credit = credit;
                }
                Output::Read { source: Source::Conn(conn), credit } => {
                    self.reading.insert(conn, credit);
                }
                Output::Close { conn, .. } => {
                    let peer = self.peers.get_mut(&conn).unwrap();
                    peer.open = false;
                    // The shell sends what it has.
                    peer.take(usize::MAX, &self.ends);
                }
                Output::Effect { id, effect } => self.effects.push_back((id, effect)),
                Output::Event(event) => self.happened.push(event),
                Output::Stopped => self.stopped = true,
                Output::Wait(deadline) => {
                    self.wake = deadline.map(|deadline| deadline.at);
                    return;
                }
                other => panic!("unexpected {other:?}"),
            }
        }
    }

    /// One write of the journal that was held up ends; what follows is held up again.
    pub(crate) fn persist_one(&mut self) {
        self.end_one(|effect| matches!(effect, Effect::Persist(_)));
    }

    /// One write to a terminal, as [`Host::persist_one`].
    pub(crate) fn write_one(&mut self) {
        self.end_one(|effect| matches!(effect, Effect::Terminal { deed: Deed::Write(_), .. }));
    }

    fn end_one(&mut self, is_meant: impl Fn(&Effect) -> bool) {
        let place = self.effects.iter().position(|(_, effect)| is_meant(effect)).unwrap();
        let (id, effect) = self.effects.remove(place).unwrap();
        let result = self.carry_out(effect);
        self.handle(Input::Done { effect: id, result });
        self.run();
    }

    /// Until nobody has anything to do at this instant.
    pub(crate) fn run(&mut self) {
        loop {
            let before = self.effects.len();
            let mut worked = false;
            for _ in 0..before {
                let Some((id, effect)) = self.effects.pop_front() else { break };
                if self.is_held(&effect) {
                    self.effects.push_back((id, effect));
                    continue;
                }
                worked = true;
                let result = self.carry_out(effect);
                self.handle(Input::Done { effect: id, result });
            }
            for terminal in self.fakes.keys().copied().collect::<Vec<_>>() {
                worked |= self.tell(terminal);
            }
            for conn in self.peers.keys().copied().collect::<Vec<_>>() {
                if self.peers[&conn].eager {
                    worked |= self.read(conn, usize::MAX) > 0;
                }
            }
            if !worked {
                return;
            }
        }
    }

    fn is_held(&self, effect: &Effect) -> bool {
        match effect {
            Effect::Persist(_) => self.held_persists,
            Effect::Terminal { deed: Deed::Spawn { .. }, .. } => self.held_spawns,
            Effect::Terminal { deed: Deed::Write(_), .. } => self.held_writes,
            Effect::Terminal { deed: Deed::Snapshot { .. }, .. } => self.held_looks,
            _ => false,
        }
    }

    fn carry_out(&mut self, effect: Effect) -> Result<(), EffectError> {
        let failed = |kind, message: &str| Err(EffectError { kind, message: message.into() });
        let (terminal, deed) = match effect {
            Effect::Persist(_) if self.failing_disk => return failed(EffectErrorKind::Storage, "disk full"),
            Effect::Persist(batch) => {
                batch.into_iter().for_each(|change| self.commit(change));
                return Ok(());
            }
            Effect::Terminal { terminal, deed } => (terminal, deed),
            other => panic!("unexpected {other:?}"),
        };
        if let Deed::Spawn { launch, first, tail } = deed {
            if let Some(kind) = self.spawn_error {
                return failed(kind, "it can't be started");
            }
            let fake = Fake {
                first,
                end: first,
                told: first,
                launch: Some(*launch),
                tail: tail.map(|tail| tail.content),
                ..Fake::default()
            };
            assert!(self.fakes.insert(terminal.0, fake).is_none_or(|fake| fake.ended), "an id twice");
            let news = News::Started { pid: 100 + terminal.0, pts: "/dev/pts/1".into(), start_time: 7 };
            self.handle(Input::Terminal { terminal, news });
            return Ok(());
        }
        let Some(fake) = self.fakes.get_mut(&terminal.0) else {
            return failed(EffectErrorKind::Terminal, "there is no such terminal");
        };
        fake.deeds.push(format!("{deed:?}"));
        match deed {
            Deed::Write(bytes) => {
                assert!(!bytes.is_empty() && bytes.len() <= castra_core::terminals::WRITE_MAX);
                fake.input.extend(bytes);
            }
            Deed::Resize { cols, rows } => {
                if let Some(launch) = &mut fake.launch {
                    (launch.cols, launch.rows) = (cols, rows);
                }
            }
            Deed::Kill => {
                fake.exit = fake.exit.or(Some(Exit { code: 137, signal: Some(9) }));
            }
            Deed::Snapshot { history_lines } => {
                if self.no_screen {
                    return failed(EffectErrorKind::Terminal, "nobody keeps a model");
                }
                let snapshot = Snapshot {
                    content: format!("screen at {} with {history_lines}", fake.told),
                    offset: fake.told,
                    cols: 80,
                    rows: 24,
                    ..Snapshot::default()
                };
                self.handle(Input::Terminal { terminal, news: News::Snapshot(Box::new(snapshot)) });
            }
            Deed::Release => {
                self.fakes.remove(&terminal.0);
            }
            _ => {}
        }
        Ok(())
    }

    fn commit(&mut self, change: Change) {
        match change {
            Change::SetTerminalIds(next) => self.reserved = next,
            Change::SetTerminal(record) => {
                assert!(record.terminal.0 < self.reserved, "an id that was not reserved");
                self.records.insert(record.terminal.0, *record);
            }
            Change::SetTail { terminal, tail } => {
                self.tails.insert(terminal.0, tail.content);
            }
            Change::DropTerminal { terminal } => {
                self.records.remove(&terminal.0);
                self.tails.remove(&terminal.0);
            }
            other => panic!("unexpected {other:?}"),
        }
    }

    /// One piece of output within the grant, or the end.
    fn tell(&mut self, number: u32) -> bool {
        let fake = self.fakes.get_mut(&number).unwrap();
        let terminal = TerminalId(number);
        if fake.ended {
            return false;
        }
        if fake.told < fake.end && fake.credit > 0 {
            let length = (fake.end - fake.told).min(fake.credit as u64);
            let offset = fake.told;
            fake.told += length;
            fake.credit = 0;
            let bytes: Vec<u8> = (offset..offset + length).map(byte).collect();
            self.handle(Input::Terminal { terminal, news: News::Output { offset, bytes: bytes.into() } });
            return true;
        }
        if fake.told == fake.end
            && let Some(exit) = fake.exit
        {
            fake.ended = true;
            self.ends.insert(number, fake.end);
            self.handle(Input::Terminal { terminal, news: News::Exited(exit) });
            return true;
        }
        false
    }

    pub(crate) fn print(&mut self, terminal: u32, count: u64) {
        self.fakes.get_mut(&terminal).unwrap().end += count;
        self.run();
    }

    pub(crate) fn exit(&mut self, terminal: u32, code: i32) {
        self.fakes.get_mut(&terminal).unwrap().exit = Some(Exit { code, signal: None });
        self.run();
    }

    pub(crate) fn pass(&mut self, millis: u64) {
        let until = self.now.boot + Duration::from_millis(millis);
        while let Some(at) = self.wake.filter(|at| *at <= until) {
            self.go_to(at);
            self.handle(Input::Tick);
            self.run();
            assert!(self.wake.is_none_or(|next| next > at) || !self.effects.is_empty(), "it spins");
        }
        self.go_to(until);
    }

    fn go_to(&mut self, at: Time) {
        let passed = at.since(self.now.boot).as_millis() as i64;
        self.now.wall = WallTime::from_unix_millis(self.now.wall.unix_millis() + passed);
        self.now.boot = self.now.boot.max(at);
    }

    /// A client takes so many bytes; how many there were.
    pub(crate) fn read(&mut self, conn: ConnId, most: usize) -> usize {
        let peer = self.peers.get_mut(&conn).unwrap();
        let taken = peer.take(most, &self.ends);
        let free = peer.capacity - peer.buffer.len();
        if peer.open && peer.room < peer.capacity / 2 && free >= peer.capacity / 2 {
            peer.room = free;
            self.handle(Input::Writable { conn, room: free });
            return taken + 1;
        }
        taken
    }

    pub(crate) fn peer(&mut self, conn: ConnId) -> &mut Peer {
        self.peers.get_mut(&conn).unwrap()
    }

    /// What O1 and the bounds say of every state.
    pub(crate) fn check(&self) {
        let sizes = self.engine.sizes();
        assert!(sizes.clients <= config().connections_max && sizes.alive <= config().sessions_max);
        assert!(sizes.input_of_one <= config().input_max);
        let open: BTreeSet<ConnId> =
            self.peers.iter().filter(|(_, peer)| peer.open).map(|(conn, _)| *conn).collect();
        for view in self.engine.terminals() {
            assert!(view.owner.and_then(|owner| owner.1).is_none_or(|conn| open.contains(&conn)));
            assert!(view.watchers.iter().all(|conn| open.contains(conn)));
        }
    }
}
