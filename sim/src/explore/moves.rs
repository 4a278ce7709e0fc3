//! What may happen next, and what it does.

use castra_core::RestoredAgent;
use castra_core::boundary::{
    CloseCause, Effect, EffectError, EffectErrorKind, Origin, Output, Remote, Transport, Via,
};
use castra_core::config::{AgentConfig, BrokerConfig};
use castra_core::id::{ConnId, EffectId};
use castra_core::status::State as Verdict;
use castra_core::time::Now;
use castra_core::{Agent, Engine, Input};

use super::checks::{Broken, Witness};
use super::state::{Limits, Parcel, State, Stream, broker, entropy};
use super::story::Story;
use super::{Bounds, TICK};
use crate::choice::Choice;

/// Something that may happen.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Move {
    /// The next message on a stream reaches the broker.
    ToBroker(usize),
    /// The next message on a stream reaches the guest.
    ToGuest(usize),
    /// The broker's deadline has come.
    WakeBroker,
    /// A guest's deadline has come.
    WakeGuest(usize),
    /// A guest starts.
    Start(usize),
    /// A dial succeeds.
    Connect(usize),
    /// A tick passes.
    Pass,
    /// A dial fails.
    Refuse(usize),
    /// A guest dies and nobody is told.
    Crash(usize),
    Freeze(usize),
    Thaw(usize),
    /// A connection breaks; both ends will hear of it.
    Reset(usize),
    /// The broker dies, and a new one starts.
    Restart,
}

/// More than anybody sends within one call.
const ROOM: usize = 2100;

/// Too little for a frame, enough for a line, and not so little that a link is
/// no longer read from.
const FULL: usize = ROOM / 3;

impl State {
    /// What may happen now. Whoever is late acts before more time passes.
    pub(super) fn moves(&self, bounds: &Bounds) -> Vec<Move> {
        let mut moves = Vec::new();
        let faults = &bounds.faults;
        let due = |deadline: Option<_>| deadline.is_some_and(|at| at <= self.now);
        let mut late = due(self.broker_deadline);
        for (index, stream) in self.streams.iter().enumerate() {
            let guest = &self.guests[stream.guest];
            if stream.broker_open && !stream.to_broker.is_empty() {
                moves.push(Move::ToBroker(index));
            }
            // A guest that can't write doesn't read.
            let reads = stream.guest_open && guest.frozen.is_none();
            if reads && !stream.to_guest.is_empty() && stream.to_broker.len() < bounds.in_flight {
                moves.push(Move::ToGuest(index));
            }
            let broken =
                |lane: &std::collections::VecDeque<Parcel>| matches!(lane.front(), Some(Parcel::End));
            if faults.reset
                && ((stream.broker_open && !broken(&stream.to_broker))
                    || (stream.guest_open && !broken(&stream.to_guest)))
            {
                moves.push(Move::Reset(index));
            }
        }
        if late {
            moves.push(Move::WakeBroker);
        }
        for (index, guest) in self.guests.iter().enumerate() {
            if guest.agent.is_none() {
                moves.push(Move::Start(index));
                continue;
            }
            if faults.crash {
                moves.push(Move::Crash(index));
            }
            if guest.frozen.is_some() {
                moves.push(Move::Thaw(index));
                continue;
            }
            if due(guest.deadline) {
                late = true;
                moves.push(Move::WakeGuest(index));
            }
            if guest.dial.is_some() {
                let streams = self.streams.iter().filter(|stream| stream.guest == index).count();
                if streams < bounds.streams {
                    moves.push(Move::Connect(index));
                }
                if faults.refuse {
                    moves.push(Move::Refuse(index));
                }
            }
            if faults.freeze {
                moves.push(Move::Freeze(index));
            }
        }
        if faults.restart {
            moves.push(Move::Restart);
        }
        if !late {
            moves.push(Move::Pass);
        }
        moves
    }

    /// Lets one thing happen that `choice` picks, and checks what comes of it.
    pub(super) fn step(
        &mut self,
        bounds: &Bounds,
        limits: &Limits,
        choice: &mut dyn Choice,
        story: &mut Story,
    ) -> Result<(), Broken> {
        let moves = self.moves(bounds);
        let chosen = moves[choice.below(u32::try_from(moves.len()).unwrap_or(u32::MAX)) as usize];
        story.begin(self, chosen);
        self.apply(bounds, chosen, story)?;
        self.streams.retain(|stream| stream.broker_open || stream.guest_open);
        self.check(bounds, limits.window)
    }

    /// L3: from here on nothing goes wrong, everything arrives within its tick,
    /// and whoever is dead or frozen comes back. Who lives must be reachable soon.
    pub(super) fn converge(mut self, bounds: &Bounds, limits: &Limits) -> Result<(), Broken> {
        let end = self.now + limits.patience;
        let mut busy = 0;
        while self.now < end {
            let calm = |chosen: &Move| match chosen {
                Move::Refuse(_) | Move::Crash(_) | Move::Freeze(_) | Move::Reset(_) | Move::Restart => false,
                Move::ToBroker(_)
                | Move::ToGuest(_)
                | Move::WakeBroker
                | Move::WakeGuest(_)
                | Move::Start(_)
                | Move::Connect(_)
                | Move::Thaw(_)
                | Move::Pass => true,
            };
            // Time is the last thing to pass.
            let Some(chosen) = self.moves(bounds).into_iter().find(calm) else { break };
            busy = if chosen == Move::Pass { 0 } else { busy + 1 };
            // Without a pause, tries that fail for ever take no time.
            if busy > 1000 {
                break;
            }
            // What else is broken, the search finds by its shortest way.
            if self.apply(bounds, chosen, &mut Story::silent()).is_err() {
                return Ok(());
            }
            self.streams.retain(|stream| stream.broker_open || stream.guest_open);
        }
        match self.broker.glances(self.clock()).find(|row| row.state != Verdict::Reachable) {
            None => Ok(()),
            Some(row) => Err(Broken::NotConverged { guest: row.name.to_string(), within: limits.patience }),
        }
    }

    fn apply(&mut self, bounds: &Bounds, chosen: Move, story: &mut Story) -> Result<(), Broken> {
        match chosen {
            Move::ToBroker(index) => self.deliver_to_broker(bounds, index, story),
            Move::ToGuest(index) => self.deliver_to_guest(bounds, index, story),
            Move::WakeBroker => self.tell_broker(bounds, Input::Tick, story),
            Move::WakeGuest(guest) => self.tell_guest(guest, Input::Tick, story),
            Move::Start(guest) => {
                let config = AgentConfig { name: self.guests[guest].name, ..bounds.agent.clone() };
                self.guests[guest].agent =
                    Some(Agent::new(config, RestoredAgent::default(), entropy(bounds), self.clock()));
                self.drain_guest(guest, false, story)
            }
            Move::Connect(guest) => self.connect(bounds, guest, story),
            Move::Pass => {
                self.now = self.now + TICK;
                Ok(())
            }
            Move::Refuse(guest) => {
                let Some(effect) = self.guests[guest].dial.take() else { return Ok(()) };
                let error = EffectError { kind: EffectErrorKind::Unreachable, message: String::new() };
                self.tell_guest(guest, Input::Done { effect, result: Err(error) }, story)
            }
            Move::Crash(guest) => {
                self.crash(guest);
                Ok(())
            }
            Move::Freeze(guest) => {
                self.guests[guest].frozen = Some(self.now);
                Ok(())
            }
            Move::Thaw(guest) => {
                self.guests[guest].frozen = None;
                Ok(())
            }
            Move::Reset(index) => {
                let stream = &mut self.streams[index];
                stream.to_broker.clear();
                stream.to_guest.clear();
                stream.end_broker();
                stream.end_guest();
                Ok(())
            }
            Move::Restart => {
                self.incarnation += 1;
                self.broker = broker(bounds, self.incarnation, self.now);
                for stream in &mut self.streams {
                    stream.broker_open = false;
                    stream.to_broker.clear();
                    stream.end_guest();
                }
                for guest in &mut self.guests {
                    guest.greeted = false;
                }
                self.drain_broker(bounds, &mut Witness::new(self, None, false), story)
            }
        }
    }

    fn crash(&mut self, guest: usize) {
        let last = self.guests[guest].frozen.take().unwrap_or(self.now);
        self.guests[guest].agent = None;
        self.guests[guest].deadline = None;
        self.guests[guest].dial = None;
        for stream in self.streams.iter_mut().filter(|stream| stream.guest == guest) {
            stream.died.get_or_insert(last);
            stream.guest_open = false;
            stream.to_guest.clear();
        }
    }

    fn connect(&mut self, bounds: &Bounds, guest: usize, story: &mut Story) -> Result<(), Broken> {
        let Some(effect) = self.guests[guest].dial.take() else { return Ok(()) };
        let free = (0..).find(|index| self.streams.iter().all(|stream| stream.conn.index != *index));
        let conn = ConnId { index: free.unwrap_or_default(), generation: self.dialled };
        self.dialled += 1;
        self.streams.push(Stream::new(conn, guest));
        let (via, remote, room) = (Via::Link(Transport::Tcp), Remote::Unknown, ROOM);
        let opened = |origin| Input::Opened { conn, via, origin, local: None, remote, peer_cred: None, room };
        self.tell_broker(bounds, opened(Origin::Accepted), story)?;
        let origin = Origin::Dialled(effect);
        self.tell_guest(
            guest,
            Input::Opened { conn, via, origin, local: None, remote, peer_cred: None, room },
            story,
        )
    }

    fn deliver_to_broker(&mut self, bounds: &Bounds, index: usize, story: &mut Story) -> Result<(), Broken> {
        let stream = &mut self.streams[index];
        let conn = stream.conn;
        match stream.to_broker.pop_front() {
            Some(Parcel::Bytes(bytes)) => {
                self.tell_broker(bounds, Input::Bytes { conn, bytes: &bytes }, story)
            }
            Some(Parcel::End) => {
                stream.broker_open = false;
                stream.to_broker.clear();
                self.tell_broker(bounds, Input::Closed { conn, why: CloseCause::Eof }, story)
            }
            None => Ok(()),
        }
    }

    fn deliver_to_guest(&mut self, bounds: &Bounds, index: usize, story: &mut Story) -> Result<(), Broken> {
        let stream = &mut self.streams[index];
        let (conn, guest) = (stream.conn, stream.guest);
        match stream.to_guest.pop_front() {
            Some(Parcel::Bytes(bytes)) => {
                self.tell_guest(guest, Input::Bytes { conn, bytes: &bytes }, story)?;
                self.tell_room(bounds, conn, story)
            }
            Some(Parcel::End) => {
                stream.guest_open = false;
                stream.to_guest.clear();
                self.tell_guest(guest, Input::Closed { conn, why: CloseCause::Eof }, story)
            }
            None => Ok(()),
        }
    }

    fn tell_broker(
        &mut self,
        bounds: &Bounds,
        input: Input<'_, BrokerConfig>,
        story: &mut Story,
    ) -> Result<(), Broken> {
        let conn = match &input {
            Input::Bytes { conn, .. } => Some(*conn),
            _ => None,
        };
        let late = self.broker_deadline.is_some_and(|at| at <= self.now);
        let mut witness = Witness::new(self, conn, late);
        self.broker.handle(self.clock(), input);
        self.drain_broker(bounds, &mut witness, story)?;
        witness.check(self)
    }

    /// Takes what the broker wants done, and answers its effects at once.
    fn drain_broker(
        &mut self,
        bounds: &Bounds,
        witness: &mut Witness,
        story: &mut Story,
    ) -> Result<(), Broken> {
        loop {
            let (mut done, mut sent): (Vec<EffectId>, Vec<ConnId>) = (Vec::new(), Vec::new());
            loop {
                let output = self.broker.poll_output();
                if !matches!(output, Output::Wait(_)) {
                    witness.progress = true;
                }
                match output {
                    Output::Transmit { conn, bytes } => {
                        story.said("the broker", conn, bytes);
                        if let Some(stream) = self.streams.iter_mut().find(|stream| stream.conn == conn) {
                            stream.room = stream.room.saturating_sub(bytes.len());
                            if stream.guest_open {
                                stream.to_guest.push_back(Parcel::Bytes(bytes.into()));
                            }
                        }
                        sent.push(conn);
                    }
                    Output::Close { conn, .. } => {
                        if let Some(stream) = self.streams.iter_mut().find(|stream| stream.conn == conn) {
                            stream.broker_open = false;
                            stream.to_broker.clear();
                            stream.end_guest();
                        }
                    }
                    Output::Effect { id, .. } => done.push(id),
                    Output::Event(event) => {
                        story.noted(&event);
                        witness.note(&mut self.guests, &event)?;
                    }
                    Output::Wait(deadline) => {
                        self.broker_deadline = deadline.map(|deadline| deadline.at);
                        break;
                    }
                    _ => {}
                }
            }
            if let Some(effect) = done.pop() {
                debug_assert!(done.is_empty(), "one record at a time");
                self.broker.handle(self.clock(), Input::Done { effect, result: Ok(()) });
                continue;
            }
            for conn in sent {
                self.tell_room(bounds, conn, story)?;
            }
            return Ok(());
        }
    }

    /// Tells the broker how much room there is, as the boundary asks for: when less
    /// than half was left and more is free, and here also when the stream is full.
    fn tell_room(&mut self, bounds: &Bounds, conn: ConnId, story: &mut Story) -> Result<(), Broken> {
        let Some(stream) = self.streams.iter_mut().find(|stream| stream.conn == conn && stream.broker_open)
        else {
            return Ok(());
        };
        let full = stream.to_guest.len() >= bounds.in_flight;
        let room = if full { FULL } else { ROOM };
        if full == (stream.room <= FULL) && (full || stream.room >= ROOM / 2) {
            return Ok(());
        }
        stream.room = room;
        self.tell_broker(bounds, Input::Writable { conn, room }, story)
    }

    fn tell_guest(
        &mut self,
        guest: usize,
        input: Input<'_, AgentConfig>,
        story: &mut Story,
    ) -> Result<(), Broken> {
        let (now, late): (Now, bool) =
            (self.clock(), self.guests[guest].deadline.is_some_and(|at| at <= self.now));
        if let Some(agent) = &mut self.guests[guest].agent {
            agent.handle(now, input);
        }
        self.drain_guest(guest, late, story)
    }

    fn drain_guest(&mut self, guest: usize, late: bool, story: &mut Story) -> Result<(), Broken> {
        let now = self.clock();
        let it = &mut self.guests[guest];
        let (name, Some(agent)) = (it.name, &mut it.agent) else { return Ok(()) };
        let mut progress = false;
        let mut sent = None;
        loop {
            let output = agent.poll_output();
            progress |= !matches!(output, Output::Wait(_));
            match output {
                Output::Transmit { conn, bytes } => {
                    story.said(name.as_str(), conn, bytes);
                    if let Some(stream) = self.streams.iter_mut().find(|stream| stream.conn == conn)
                        && stream.broker_open
                    {
                        stream.to_broker.push_back(Parcel::Bytes(bytes.into()));
                    }
                    sent = Some(conn);
                }
                Output::Close { conn, .. } => {
                    if let Some(stream) = self.streams.iter_mut().find(|stream| stream.conn == conn) {
                        stream.guest_open = false;
                        stream.to_guest.clear();
                        stream.end_broker();
                    }
                }
                Output::Effect { id, effect: Effect::Dial { .. } } => it.dial = Some(id),
                Output::Cancel { effect } => it.dial = it.dial.filter(|dial| *dial != effect),
                Output::Event(event) => story.noted(&event),
                Output::Wait(deadline) => {
                    it.deadline = deadline.map(|deadline| deadline.at);
                    if let Some(conn) = sent.take() {
                        agent.handle(now, Input::Writable { conn, room: ROOM });
                        continue;
                    }
                    break;
                }
                _ => {}
            }
        }
        if late && !progress && it.deadline.is_some_and(|at| at <= now.boot) {
            return Err(Broken::Spin { who: name.to_string() });
        }
        Ok(())
    }
}

impl Stream {
    fn new(conn: ConnId, guest: usize) -> Self {
        Self {
            conn,
            guest,
            died: None,
            broker_open: true,
            guest_open: true,
            room: ROOM,
            to_broker: std::collections::VecDeque::new(),
            to_guest: std::collections::VecDeque::new(),
        }
    }

    fn end_broker(&mut self) {
        if self.broker_open && !matches!(self.to_broker.back(), Some(Parcel::End)) {
            self.to_broker.push_back(Parcel::End);
        }
    }

    fn end_guest(&mut self) {
        if self.guest_open && !matches!(self.to_guest.back(), Some(Parcel::End)) {
            self.to_guest.push_back(Parcel::End);
        }
    }
}
