//! A host of fake terminals on a virtual clock, and clients that check everything
//! they hear: bytes in order by their offsets, exits once and last.
#![allow(dead_code, clippy::unwrap_used)]

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use castra_core::boundary::{
    Change, CloseCause, Effect, EffectError, EffectErrorKind, Origin, PeerCred, Remote, Source, Via,
};
use castra_core::config::Identity;
use castra_core::entropy::Entropy;
use castra_core::event::Event as Happened;
use castra_core::id::{ConnId, EffectId, TerminalId};
use castra_core::terminals::wire::{
    Answer, Attach, CLIENT_FRAME_MAX, Create, ErrorCode, Event, Frames, Granted, Handshake, Message, Request,
    Role, Secret,
};
use castra_core::terminals::{
    Deed, Exit, Launch, News, RestoredTerminals, Snapshot, TerminalRecord, TerminalsConfig, Token,
};
use castra_core::time::{Now, Time, WallTime};
use castra_core::{Engine, Input, Output, Terminals};

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

#[derive(Debug)]
pub(crate) struct Peer {
    pub(crate) capacity: usize,
    /// What the engine thinks there is room for.
    room: usize,
    buffer: VecDeque<u8>,
    frames: Frames,
    pub(crate) answers: BTreeMap<u32, Vec<u8>>,
    pub(crate) events: Vec<Vec<u8>>,
    /// The next offset of what it watches.
    pub(crate) watched: BTreeMap<u32, u64>,
    pub(crate) received: BTreeMap<u32, u64>,
    pub(crate) skipped: BTreeMap<u32, u64>,
    pub(crate) exits: BTreeMap<u32, u32>,
    /// What the answer of that number ends.
    pub(crate) detaching: BTreeMap<u32, u32>,
    seq: u32,
    /// Reads everything at once.
    pub(crate) eager: bool,
    pub(crate) open: bool,
}

pub(crate) struct Host {
    pub(crate) engine: Terminals,
    pub(crate) now: Now,
    pub(crate) fakes: BTreeMap<u32, Fake>,
    pub(crate) peers: BTreeMap<ConnId, Peer>,
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
    next_conn: u32,
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
                    peer.take(usize::MAX, &self.fakes);
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

    pub(crate) fn open_as(&mut self, cred: Option<PeerCred>, capacity: usize) -> ConnId {
        let conn = ConnId { index: self.next_conn, generation: 0 };
        self.next_conn += 1;
        self.peers.insert(conn, Peer::new(capacity));
        let (via, origin, remote) = (Via::Terminals, Origin::Accepted, Remote::Unknown);
        self.handle(Input::Opened { conn, via, origin, remote, peer_cred: cred, room: capacity });
        conn
    }

    pub(crate) fn open(&mut self) -> ConnId {
        self.open_as(Some(PeerCred { uid: UID, gid: UID, pid: 4 }), 128 * 1024)
    }

    /// A client that is known.
    pub(crate) fn client(&mut self, id: &str, role: Role) -> ConnId {
        let conn = self.open();
        let seq = self.ask(conn, &Request::Handshake(Handshake::new(TOKEN, id, role)));
        assert!(matches!(self.answer(conn, seq), Some(Answer::Handshake { .. })));
        conn
    }

    pub(crate) fn control(&mut self, id: &str) -> ConnId {
        self.client(id, Role::Control)
    }

    pub(crate) fn close(&mut self, conn: ConnId) {
        self.handle(Input::Closed { conn, why: CloseCause::Eof });
        self.peers.get_mut(&conn).unwrap().open = false;
        self.run();
    }

    pub(crate) fn ask(&mut self, conn: ConnId, request: &Request<'_>) -> u32 {
        let peer = self.peers.get_mut(&conn).unwrap();
        peer.seq += 1;
        let seq = peer.seq;
        let mut frame = Vec::new();
        request.append(seq, &mut frame);
        self.send(conn, &frame);
        seq
    }

    pub(crate) fn send(&mut self, conn: ConnId, bytes: &[u8]) {
        self.handle(Input::Bytes { conn, bytes });
        self.run();
    }

    pub(crate) fn answer(&self, conn: ConnId, seq: u32) -> Option<Answer<'_>> {
        match Message::parse(self.peers[&conn].answers.get(&seq)?).unwrap() {
            Message::Reply { answer, .. } => Some(answer),
            other => panic!("{other:?}"),
        }
    }

    /// Asks, and expects a yes at once.
    pub(crate) fn granted(&mut self, conn: ConnId, request: &Request<'_>) -> Granted<'_> {
        let seq = self.ask(conn, request);
        match self.answer(conn, seq) {
            Some(Answer::Granted(granted)) => *granted,
            other => panic!("{request:?}: {other:?}"),
        }
    }

    /// Asks, and expects a no at once.
    pub(crate) fn refused(&mut self, conn: ConnId, request: &Request<'_>) -> ErrorCode {
        let seq = self.ask(conn, request);
        self.answer(conn, seq).and_then(|answer| answer.code()).unwrap_or_else(|| panic!("{request:?}"))
    }

    pub(crate) fn create(&mut self, conn: ConnId) -> u32 {
        self.granted(conn, &Request::Create(Box::default())).session.unwrap()
    }

    pub(crate) fn keyed(&mut self, conn: ConnId, key: &str) -> u32 {
        let create = Create { session_key: Some(key), ..Create::default() };
        self.granted(conn, &Request::Create(Box::new(create))).session.unwrap()
    }

    pub(crate) fn attach(&mut self, conn: ConnId, session: u32) -> Granted<'_> {
        self.granted(conn, &Request::Attach(Attach { session, ..Attach::default() }))
    }

    pub(crate) fn input(&mut self, conn: ConnId, session: u32, data: &[u8]) -> Result<(), ErrorCode> {
        let seq = self.ask(conn, &Request::Input { session, data: Secret(data) });
        match self.answer(conn, seq) {
            Some(Answer::Granted(_)) => Ok(()),
            Some(answer) => Err(answer.code().unwrap()),
            None => panic!("no answer"),
        }
    }

    /// Events so far, which are forgotten.
    pub(crate) fn events(&mut self, conn: ConnId) -> Vec<String> {
        let frames = std::mem::take(&mut self.peers.get_mut(&conn).unwrap().events);
        frames
            .iter()
            .map(|frame| match Message::parse(frame).unwrap() {
                Message::Event(event) => format!("{event:?}"),
                other => panic!("{other:?}"),
            })
            .collect()
    }

    pub(crate) fn kinds(&self) -> Vec<&'static str> {
        self.happened.iter().map(|event| event.fact.kind()).collect()
    }

    /// A client takes so many bytes; how many there were.
    pub(crate) fn read(&mut self, conn: ConnId, most: usize) -> usize {
        let peer = self.peers.get_mut(&conn).unwrap();
        let taken = peer.take(most, &self.fakes);
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

impl Peer {
    fn new(capacity: usize) -> Self {
        Self {
            capacity,
            room: capacity,
            buffer: VecDeque::new(),
            frames: Frames::default(),
            answers: BTreeMap::new(),
            events: Vec::new(),
            watched: BTreeMap::new(),
            received: BTreeMap::new(),
            skipped: BTreeMap::new(),
            exits: BTreeMap::new(),
            detaching: BTreeMap::new(),
            seq: 0,
            eager: true,
            open: true,
        }
    }

    fn take(&mut self, most: usize, fakes: &BTreeMap<u32, Fake>) -> usize {
        let count = most.min(self.buffer.len());
        let bytes: Vec<u8> = self.buffer.drain(..count).collect();
        let (mut rest, mut frames) = (bytes.as_slice(), std::mem::take(&mut self.frames));
        while let Some(frame) = frames.next(&mut rest, CLIENT_FRAME_MAX).unwrap() {
            self.hear(frame, fakes);
        }
        self.frames = frames;
        count
    }

    /// O2 and O3, as a client sees them.
    fn hear(&mut self, frame: &[u8], fakes: &BTreeMap<u32, Fake>) {
        match Message::parse(frame).unwrap() {
            Message::Reply { seq, answer } => {
                if let Some(session) = self.detaching.remove(&seq) {
                    self.watched.remove(&session);
                }
                if let Answer::Granted(granted) = &answer
                    && let (Some(session), Some(offset)) = (granted.session, granted.offset)
                {
                    self.watched.insert(session, offset);
                    self.exits.remove(&session);
                }
                assert!(
                    seq == 0 || self.answers.insert(seq, frame.to_vec()).is_none(),
                    "two answers to {seq}"
                );
                if seq == 0 {
                    self.answers.insert(0, frame.to_vec());
                }
                return;
            }
            Message::Event(Event::Output { session, data, offset }) => {
                let next = self.watched.get_mut(&session).expect("output of what isn't watched");
                assert_eq!(offset, Some(*next), "a gap or a doubled byte");
                assert!(!data.is_empty() && data.len() <= 32 * 1024);
                for (place, got) in data.iter().enumerate() {
                    assert_eq!(*got, byte(*next + place as u64));
                }
                *next += data.len() as u64;
                *self.received.entry(session).or_default() += data.len() as u64;
                // Too many to keep.
                return;
            }
            Message::Event(Event::Resync { session, offset, skipped_bytes, .. }) => {
                let next = self.watched.get_mut(&session).expect("resync of what isn't watched");
                assert_eq!(*next + skipped_bytes, offset);
                *next = offset;
                *self.skipped.entry(session).or_default() += skipped_bytes;
            }
            Message::Event(Event::Exit { session, .. }) => {
                let next = self.watched.remove(&session).expect("exit of what isn't watched");
                if let Some(fake) = fakes.get(&session) {
                    assert_eq!(next, fake.end, "the exit came before the last byte");
                }
                *self.exits.entry(session).or_default() += 1;
            }
            Message::Event(_) => {}
            Message::Unknown => panic!("unknown"),
        }
        self.events.push(frame.to_vec());
    }
}
