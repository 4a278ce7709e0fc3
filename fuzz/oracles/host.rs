//! An engine behind a shell that keeps the rules of the boundary, and looks after
//! every input at what came out and at what is left.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use castra_core::boundary::{
    CloseCause, Deadline, Effect, EffectError, EffectErrorKind, Origin, PeerCred, Remote, Source, Transport,
    Via,
};
use castra_core::event::{EVENT_BYTES_MAX, Event};
use castra_core::id::{ConnId, EffectId};
use castra_core::time::{Now, Time, WallTime};
use castra_core::{Input, Output};

use super::subject::Subject;

/// Outputs of one input: more are no answer, but a spin.
const OUTPUTS_MAX: usize = 200_000;

/// Calls at one instant without anything that comes out.
const IDLE_TICKS_MAX: usize = 200;

/// The shell's end of a connection.
#[derive(Clone, Debug)]
pub(crate) struct Wire {
    pub(crate) via: Via,
    pub(crate) room: usize,
    /// What was transmitted and nobody took yet.
    pub(crate) sent: Vec<u8>,
    /// What the engine reads of it at a time; 0: nothing.
    pub(crate) credit: usize,
    /// The other end will send no more.
    pub(crate) finished: bool,
    /// The engine ended its direction.
    half_closed: bool,
    /// It was never accepted: no door's credit was asked for.
    uninvited: bool,
}

impl Wire {
    fn new(via: Via, room: usize) -> Self {
        let (sent, credit) = (Vec::new(), usize::MAX);
        Self { via, room, sent, credit, finished: false, half_closed: false, uninvited: false }
    }
}

pub(crate) struct Host<E: Subject> {
    pub(crate) engine: E,
    pub(crate) now: Now,
    pub(crate) wires: BTreeMap<ConnId, Wire>,
    /// Connections that the engine closed, with what was transmitted.
    pub(crate) closed: Vec<(ConnId, Wire)>,
    /// Open effects, in order.
    pub(crate) effects: VecDeque<(EffectId, Effect)>,
    /// What happened, as JSON.
    pub(crate) events: Vec<String>,
    /// What was asked for, as far as it may be shown.
    pub(crate) asked: Vec<String>,
    pub(crate) deadline: Option<Deadline>,
    pub(crate) stopped: bool,
    /// Of everything that came out, in order.
    pub(crate) digest: u64,
    bounds: E::Bounds,
    latest: Time,
    /// How often each slot was used.
    slots: Vec<u32>,
    /// Doors at which nobody may come in.
    shut: Vec<Source>,
}

/// 2026, a while after the boot.
pub(crate) fn start() -> Now {
    Now {
        boot: Time::from_millis(1_000_000),
        suspended: Duration::ZERO,
        wall: WallTime::from_unix_millis(1_795_188_257_000),
    }
}

impl<E: Subject> Host<E> {
    pub(crate) fn new(engine: E, config: &E::Config) -> Self {
        let mut host = Self {
            engine,
            now: start(),
            wires: BTreeMap::new(),
            closed: Vec::new(),
            effects: VecDeque::new(),
            events: Vec::new(),
            asked: Vec::new(),
            deadline: None,
            stopped: false,
            digest: 0xcbf2_9ce4_8422_2325,
            bounds: E::bounds(config, None),
            latest: start().boot,
            slots: Vec::new(),
            shut: Vec::new(),
        };
        host.drain();
        host.settle();
        host
    }

    /// One input, then the drain; what was cut off goes on at once.
    pub(crate) fn give(&mut self, input: Input<'_, E::Config>) {
        match &input {
            Input::Closed { conn, .. } => drop(self.wires.remove(conn)),
            Input::Writable { conn, room } => {
                if let Some(wire) = self.wires.get_mut(conn) {
                    wire.room = *room;
                }
            }
            Input::Finished { conn } => {
                if let Some(wire) = self.wires.get_mut(conn) {
                    wire.finished = true;
                }
            }
            Input::Reload(config) => self.bounds = E::bounds(config, Some(self.bounds)),
            Input::Done { effect, .. } | Input::Answered { effect, .. } => {
                self.effects.retain(|(id, _)| id != effect);
            }
            _ => {}
        }
        self.handle(input);
        self.settle();
    }

    fn handle(&mut self, input: Input<'_, E::Config>) {
        self.engine.handle(self.now, input);
        self.latest = self.latest.max(self.now.boot);
        self.drain();
    }

    /// Ticks while it asks for one now: it must get somewhere (L2).
    pub(crate) fn settle(&mut self) {
        let mut idle = 0;
        // A clock that went back is clamped.
        while let Some(due) = self.deadline.filter(|due| due.at <= self.latest.max(self.now.boot)) {
            let before = self.digest;
            self.handle(Input::Tick);
            idle = if before == self.digest { idle + 1 } else { 0 };
            assert!(idle < IDLE_TICKS_MAX, "L2: it spins, for {:?}", due.why);
        }
    }

    fn drain(&mut self) {
        for _ in 0..OUTPUTS_MAX {
            let output = self.engine.poll_output();
            match output {
                Output::Transmit { conn, bytes } => {
                    let wire = self.wires.get_mut(&conn).expect("only open connections are written to");
                    assert!(!wire.half_closed, "nothing follows the end of a direction");
                    let left = wire.room.checked_sub(bytes.len());
                    wire.room = left.expect("never more than the room");
                    wire.sent.extend_from_slice(bytes);
                    fold(&mut self.digest, &[u64::from(conn.index) << 8 | 1]);
                    bytes.iter().for_each(|byte| fold(&mut self.digest, &[u64::from(*byte)]));
                }
                Output::Discard { conn } => {
                    let wire = self.wires.get_mut(&conn).expect("only open connections are written to");
                    wire.sent.clear();
                    fold(&mut self.digest, &[u64::from(conn.index) << 8 | 2]);
                }
                Output::Read { source, credit } => {
                    self.shut.retain(|door| *door != source);
                    match source {
                        Source::Conn(conn) => {
                            let wire = self.wires.get_mut(&conn);
                            wire.expect("only open connections are read from").credit = credit;
                        }
                        door if credit == 0 => self.shut.push(door),
                        _ => {}
                    }
                    fold(&mut self.digest, &[3, credit as u64]);
                }
                Output::Finish { conn } => {
                    let wire = self.wires.get_mut(&conn).expect("only open connections end");
                    assert!(!wire.half_closed, "a direction ends once");
                    wire.half_closed = true;
                    fold(&mut self.digest, &[u64::from(conn.index) << 8 | 4]);
                }
                Output::Close { conn, why } => {
                    let wire = self.wires.remove(&conn).expect("closed once");
                    self.closed.push((conn, wire));
                    fold(&mut self.digest, &[u64::from(conn.index) << 8 | 5, why as u64]);
                }
                Output::Effect { id, effect } => {
                    let asked = format!("{effect:?}");
                    asked.bytes().for_each(|byte| fold(&mut self.digest, &[u64::from(byte)]));
                    self.asked.push(asked);
                    self.effects.push_back((id, effect));
                }
                Output::Cancel { effect } => fold(&mut self.digest, &[6, effect.0]),
                Output::Event(event) => {
                    let json = check_event(&event);
                    json.bytes().for_each(|byte| fold(&mut self.digest, &[u64::from(byte)]));
                    self.events.push(json);
                }
                Output::Stopped => {
                    assert!(!std::mem::replace(&mut self.stopped, true), "it stops once");
                    fold(&mut self.digest, &[7]);
                }
                Output::Wait(deadline) => {
                    self.deadline = deadline;
                    // Those that no door let in, and streams that shake hands again.
                    let beside = |wire: &&Wire| wire.uninvited || wire.via == Via::Link(Transport::Serial);
                    let beside = self.wires.values().filter(beside).count();
                    return self.engine.check(self.now, self.bounds, self.wires.len(), beside);
                }
                other => panic!("an output that no shell knows: {other:?}"),
            }
        }
        panic!("outputs without an end");
    }

    /// A connection that the shell accepts, unless that door is shut.
    pub(crate) fn accept(&mut self, via: Via, room: usize, uid: Option<u32>) -> Option<ConnId> {
        let door = match via {
            Via::Link(_) => Source::LinkDoor,
            Via::Control => Source::ControlDoor,
            Via::Terminals => Source::TerminalDoor,
            Via::Manager => Source::ManagerDoor,
        };
        let cred = uid.map(|uid| PeerCred { uid, gid: 1000, pid: 4 });
        (!self.shut.contains(&door)).then(|| self.open(via, Origin::Accepted, room, cred))
    }

    pub(crate) fn open(
        &mut self,
        via: Via,
        origin: Origin,
        room: usize,
        peer_cred: Option<PeerCred>,
    ) -> ConnId {
        let conn = self.slot();
        let mut wire = Wire::new(via, room);
        wire.uninvited = matches!(origin, Origin::Dialled(_));
        self.wires.insert(conn, wire);
        if let Origin::Dialled(effect) = origin {
            self.effects.retain(|(id, _)| *id != effect);
        }
        let remote = Remote::Ip("127.0.0.1:5000".parse().expect("an address"));
        let local = matches!(via, Via::Link(_)).then(|| "127.0.0.1:7070".parse().expect("an address"));
        self.give(Input::Opened { conn, via, origin, remote, local, peer_cred, room });
        conn
    }

    /// The id of the next connection: a slot is used again, with another generation.
    fn slot(&mut self) -> ConnId {
        let taken = |index: usize| self.wires.keys().any(|conn| conn.index as usize == index);
        let index = (0..).find(|index| !taken(*index)).expect("a slot");
        if index == self.slots.len() {
            self.slots.push(0);
        }
        self.slots[index] += 1;
        ConnId { index: index as u32, generation: self.slots[index] }
    }

    /// As many bytes as it wants now. Returns how many it took.
    pub(crate) fn write(&mut self, conn: ConnId, bytes: &[u8]) -> usize {
        let Some(wire) = self.wires.get(&conn) else { return bytes.len() };
        let taken = if wire.finished { 0 } else { wire.credit.min(bytes.len()) };
        if taken > 0 {
            self.give(Input::Bytes { conn, bytes: &bytes[..taken] });
        }
        taken
    }

    /// All of it, as far as it wants any.
    pub(crate) fn write_all(&mut self, conn: ConnId, mut bytes: &[u8]) {
        while !bytes.is_empty() && self.wires.contains_key(&conn) {
            let taken = self.write(conn, bytes);
            bytes = &bytes[taken..];
            if taken == 0 {
                return;
            }
        }
    }

    pub(crate) fn close(&mut self, conn: ConnId) {
        self.give(Input::Closed { conn, why: CloseCause::Eof });
    }

    /// The end of an effect. What is answered otherwise when all is well fails here.
    pub(crate) fn done(&mut self, effect: EffectId, well: bool) {
        let meant = self.effects.iter().find(|(id, _)| *id == effect).map(|(_, meant)| meant);
        let has_answer = matches!(meant, Some(Effect::Dial { .. } | Effect::Http(_)));
        let kind = if has_answer { EffectErrorKind::Unreachable } else { EffectErrorKind::Storage };
        let error = || EffectError { kind, message: "no\u{1b}[31m \"luck\"".into() };
        let result = if well && !has_answer { Ok(()) } else { Err(error()) };
        self.give(Input::Done { effect, result });
    }

    pub(crate) fn jump(&mut self, span: Duration) {
        self.now.boot = self.now.boot + span;
        let wall = self.now.wall.unix_millis().saturating_add(i64::try_from(span.as_millis()).unwrap_or(0));
        self.now.wall = WallTime::from_unix_millis(wall);
    }

    /// Time passes, and it is woken whenever it asked for it.
    pub(crate) fn live(&mut self, span: Duration) {
        let end = self.now.boot.max(self.latest) + span;
        while let Some(due) = self.deadline.filter(|due| due.at <= end) {
            self.jump(due.at.since(self.now.boot));
            self.settle();
        }
        self.jump(end.since(self.now.boot));
        self.settle();
    }

    /// Everybody leaves, and it is told to stop: it does, and nothing is left.
    pub(crate) fn finish(&mut self) {
        let jump = self.latest.since(self.now.boot);
        self.jump(jump);
        for conn in self.wires.keys().copied().collect::<Vec<_>>() {
            if self.wires.contains_key(&conn) {
                self.close(conn);
            }
        }
        self.give(Input::Drain { deadline: self.now.boot + Duration::from_secs(2) });
        for _ in 0..1000 {
            let Some((effect, _)) = self.effects.front() else { break };
            self.done(*effect, false);
        }
        self.live(Duration::from_secs(60));
        assert!(self.stopped, "L1: a drain that does not end");
        assert!(self.wires.is_empty());
        self.engine.check_empty();
    }
}

/// What can be read in a log harms nobody, and comes back from its JSON.
fn check_event(event: &Event) -> String {
    let mut line = Vec::new();
    event.append_line(&mut line);
    let is_plain = line.iter().all(|byte| (b' '..=b'~').contains(byte));
    assert!(is_plain, "rule 8: {:?}", String::from_utf8_lossy(&line));
    let mut json = Vec::new();
    event.append_json(None, &mut json);
    assert!(json.len() <= EVENT_BYTES_MAX, "an event of {} bytes", json.len());
    let read: Event = serde_json::from_slice(&json).expect("an event can be read");
    assert_eq!(read, *event, "an event comes back");
    String::from_utf8(json).expect("JSON is text")
}

fn fold(digest: &mut u64, words: &[u64]) {
    for word in words {
        *digest = (*digest ^ word).wrapping_mul(0x0100_0000_01b3);
    }
}
