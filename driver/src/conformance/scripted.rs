//! An engine that does what it is told and remembers what it was told.

use std::collections::{BTreeMap, VecDeque};

use castra_core::boundary::{
    CloseCause, CloseReason, Deadline, Effect, EffectErrorKind, Engine, Input, Origin, Output, PeerCred,
    Source, Via, Wakeup,
};
use castra_core::id::{ConnId, EffectId};
use castra_core::time::{Now, Time};

/// What the engine saw.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Seen {
    /// `Opened`.
    Opened(ConnId, Via, Origin, Option<PeerCred>),
    /// `Bytes`; their number (the bytes are in [`Scripted::bytes`]).
    Bytes(ConnId, usize),
    /// `Finished`.
    Finished(ConnId),
    /// `Writable`.
    Writable(ConnId, usize),
    /// `Closed`.
    Closed(ConnId, CloseCause),
    /// `Done`.
    Done(EffectId, Result<(), EffectErrorKind>),
    /// `Tick`.
    Tick,
    /// `Drain`.
    Drain,
}

/// What the engine says.
#[derive(Debug)]
pub enum Act {
    /// `Transmit`.
    Transmit(ConnId, Vec<u8>),
    /// `Discard`.
    Discard(ConnId),
    /// `Read`.
    Read(Source, usize),
    /// `Finish`.
    Finish(ConnId),
    /// `Close`.
    Close(ConnId, CloseReason),
    /// `Effect`.
    Effect(EffectId, Effect),
    /// `Cancel`.
    Cancel(EffectId),
    /// `Stopped`.
    Stopped,
}

/// The engine.
#[derive(Debug, Default)]
pub struct Scripted {
    /// Everything seen so far.
    pub seen: Vec<Seen>,
    /// Bytes by connection.
    pub bytes: BTreeMap<ConnId, Vec<u8>>,
    /// Send everything back.
    pub echo: bool,
    /// Free room by connection, as the shell told and as it was used.
    pub room: BTreeMap<ConnId, usize>,
    /// When to tick.
    pub wake: Option<Time>,
    /// Stop at the first tick.
    pub stop_on_tick: bool,
    /// Stop when it is asked to.
    pub stop_on_drain: bool,
    acts: VecDeque<Act>,
    current: Vec<u8>,
    undrained: bool,
}

impl Scripted {
    /// An effect that nobody asked for: its end is only an occasion to speak.
    pub const NUDGE: EffectId = EffectId(u64::MAX);

    /// Says this on the next occasion.
    pub fn act(&mut self, acts: impl IntoIterator<Item = Act>) {
        self.acts.extend(acts);
    }

    /// Every connection that was opened, in order.
    #[must_use]
    pub fn opened(&self) -> Vec<ConnId> {
        let open = |seen: &Seen| if let Seen::Opened(conn, ..) = seen { Some(*conn) } else { None };
        self.seen.iter().filter_map(open).collect()
    }

    /// How a connection ended, if it did.
    #[must_use]
    pub fn closed(&self, conn: ConnId) -> Option<CloseCause> {
        self.seen.iter().find_map(|seen| match seen {
            Seen::Closed(of, why) if *of == conn => Some(*why),
            _ => None,
        })
    }

    /// Whether this was seen.
    #[must_use]
    pub fn saw(&self, what: &Seen) -> bool {
        self.seen.contains(what)
    }

    /// What a connection brought.
    #[must_use]
    pub fn read(&self, conn: ConnId) -> &[u8] {
        self.bytes.get(&conn).map(Vec::as_slice).unwrap_or_default()
    }

    /// The last things seen, for a message.
    #[must_use]
    pub fn tail(&self) -> &[Seen] {
        &self.seen[self.seen.len().saturating_sub(8)..]
    }
}

impl Engine for Scripted {
    type Config = ();

    fn handle(&mut self, _now: Now, input: Input<'_, ()>) {
        assert!(!self.undrained, "handle before the last outputs were drained");
        self.undrained = true;
        let seen = match input {
            Input::Opened { conn, via, origin, peer_cred, room, .. } => {
                self.room.insert(conn, room);
                Seen::Opened(conn, via, origin, peer_cred)
            }
            Input::Bytes { conn, bytes } => {
                assert!(!bytes.is_empty(), "no bytes are no input");
                self.bytes.entry(conn).or_default().extend_from_slice(bytes);
                if self.echo {
                    self.acts.push_back(Act::Transmit(conn, bytes.to_vec()));
                }
                Seen::Bytes(conn, bytes.len())
            }
            Input::Finished { conn } => Seen::Finished(conn),
            Input::Writable { conn, room } => {
                self.room.insert(conn, room);
                Seen::Writable(conn, room)
            }
            Input::Closed { conn, why } => Seen::Closed(conn, why),
            Input::Done { effect: Self::NUDGE, .. } => return,
            Input::Done { effect, result } => Seen::Done(effect, result.map_err(|error| error.kind)),
            Input::Tick => {
                self.wake = None;
                if self.stop_on_tick {
                    self.acts.push_back(Act::Stopped);
                }
                Seen::Tick
            }
            Input::Drain { .. } => {
                if self.stop_on_drain {
                    self.acts.push_back(Act::Stopped);
                }
                Seen::Drain
            }
            _ => return,
        };
        self.seen.push(seen);
    }

    fn poll_output(&mut self) -> Output<'_> {
        match self.acts.pop_front() {
            None => {
                self.undrained = false;
                Output::Wait(self.wake.map(|at| Deadline { at, why: Wakeup::Session }))
            }
            Some(Act::Transmit(conn, bytes)) => {
                if let Some(room) = self.room.get_mut(&conn) {
                    *room = room.saturating_sub(bytes.len());
                }
                self.current = bytes;
                Output::Transmit { conn, bytes: &self.current }
            }
            Some(Act::Discard(conn)) => Output::Discard { conn },
            Some(Act::Read(source, credit)) => Output::Read { source, credit },
            Some(Act::Finish(conn)) => Output::Finish { conn },
            Some(Act::Close(conn, why)) => Output::Close { conn, why },
            Some(Act::Effect(id, effect)) => Output::Effect { id, effect },
            Some(Act::Cancel(effect)) => Output::Cancel { effect },
            Some(Act::Stopped) => Output::Stopped,
        }
    }
}
