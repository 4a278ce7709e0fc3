//! Everything around the engine that an output may touch.

use std::collections::VecDeque;
use std::time::Duration;

use castra_core::boundary::{CloseCause, Effect, EffectError, EffectErrorKind, Output, Remote, Source, Via};
use castra_core::event::{Event, Level};
use castra_core::id::{ConnId, EffectId};
use castra_core::time::{Now, Time};

use super::dial::Dials;
use super::doors::Doors;
use super::sink::Sink;
use super::slots::{End, SEND_BUFFER, Slots, Stage};
use super::{Counters, ShellOptions};
use crate::net::{Endpoint, Net, Ready};
use crate::work::{Job, JobId, Work};

/// How long a closing connection may take to swallow what is buffered.
pub(crate) const LINGER: Duration = Duration::from_secs(1);

/// Half of a send buffer: see `Input::Writable`.
const HALF: usize = SEND_BUFFER / 2;

/// What the engine is told after the current drain.
#[derive(Debug)]
pub(crate) enum Pending {
    Writable(ConnId),
    Gone(ConnId, CloseCause),
    Opened { conn: ConnId, via: Via, effect: EffectId, remote: Remote },
    Done(EffectId, Result<(), EffectError>),
}

#[derive(Debug)]
pub(crate) struct Ports<N, W> {
    pub(crate) net: N,
    pub(crate) work: W,
    pub(crate) slots: Slots,
    pub(crate) doors: Doors,
    pub(crate) dials: Dials,
    pub(crate) sink: Option<Sink>,
    pub(crate) observed: Option<Vec<Event>>,
    /// Connections that can be read now, each once.
    pub(crate) ready: VecDeque<ConnId>,
    /// Connections with something to flush, each once.
    pub(crate) dirty: VecDeque<ConnId>,
    /// Closing connections that could not flush, with the time of giving up.
    pub(crate) closing: VecDeque<(Time, ConnId)>,
    pub(crate) pending: VecDeque<Pending>,
    pub(crate) stopped: bool,
    pub(crate) counters: Counters,
    #[cfg(feature = "planted")]
    pub(crate) planted: Option<castra_core::planted::Bug>,
}

impl<N: Net, W: Work> Ports<N, W> {
    pub(crate) fn new(net: N, work: W, options: ShellOptions) -> Self {
        Self {
            net,
            work,
            slots: Slots::default(),
            doors: Doors::new(&options.doors, options.connections_max),
            dials: Dials::new(options.dial, options.terminals),
            sink: options.log_prefix.map(Sink::new),
            observed: options.observe.then(Vec::new),
            ready: VecDeque::new(),
            dirty: VecDeque::new(),
            closing: VecDeque::new(),
            pending: VecDeque::new(),
            stopped: false,
            counters: Counters::default(),
            #[cfg(feature = "planted")]
            planted: None,
        }
    }

    #[cfg(feature = "planted")]
    pub(crate) fn plant(mut self, bug: Option<castra_core::planted::Bug>) -> Self {
        (self.planted, self.slots.planted, self.doors.planted) = (bug, bug, bug);
        self
    }

    /// Carries out one output.
    pub(crate) fn apply(&mut self, now: Now, output: Output<'_>) {
        match output {
            Output::Transmit { conn, bytes } => self.transmit(conn, bytes),
            Output::Discard { conn } => {
                self.slots.emptied(conn);
                self.pending.push_back(Pending::Writable(conn));
            }
            Output::Read { source: Source::LinkDoor, credit } => self.doors.link_credit = credit,
            Output::Read { source: Source::ControlDoor, credit } => self.doors.control_credit = credit,
            Output::Read { source: Source::TerminalDoor, credit } => self.doors.terminal_credit = credit,
            Output::Read { source: Source::ManagerDoor, credit } => self.doors.manager_credit = credit,
            Output::Read { source: Source::Terminal(terminal), credit } => {
                self.work.submit(JobId::Terminal(terminal), Job::Grant { terminal, credit });
            }
            Output::Read { source: Source::Conn(_), .. } if planted!(self, CreditIgnored) => {}
            Output::Read { source: Source::Conn(conn), credit } => {
                if let Some(slot) = self.slots.get(conn) {
                    slot.credit = u32::try_from(credit).unwrap_or(u32::MAX);
                    self.enqueue(conn);
                }
            }
            Output::Finish { conn } => {
                if let Some(slot) = self.slots.get(conn).filter(|slot| slot.is_open()) {
                    slot.flags.end.set(End::FINISHING);
                    self.soil(conn);
                }
            }
            Output::Close { conn, why } => {
                tracing::debug!(?conn, ?why, "close");
                let Some(slot) = self.slots.get(conn) else { return };
                if let Stage::Open(via) = slot.stage {
                    self.slots.set_stage(conn, Stage::Closing(via, why));
                    self.soil(conn);
                }
            }
            Output::Effect { id, effect } => self.effect(now, id, effect),
            Output::Cancel { effect } => {
                if !self.cancel_dial(effect) {
                    self.work.cancel(JobId::Effect(effect));
                }
            }
            Output::Event(event) => {
                if let Some(sink) = &mut self.sink {
                    sink.event(now.boot, &event);
                }
                if let Some(observed) = &mut self.observed {
                    observed.push(event);
                }
            }
            Output::Stopped => self.stopped = true,
            _ => self.counters.unknown_outputs += 1,
        }
    }

    fn transmit(&mut self, conn: ConnId, bytes: &[u8]) {
        let Some(slot) = self.slots.get(conn).filter(|slot| slot.is_open()) else {
            self.counters.stale += 1;
            return;
        };
        let Some(room) = slot.room.checked_sub(bytes.len() as u32) else {
            // The engine broke its word; a gap in the stream would be worse than an end.
            self.counters.overruns += 1;
            self.pending.push_back(Pending::Gone(conn, CloseCause::Shell));
            return;
        };
        slot.room = room;
        self.slots.append(conn, bytes);
        self.soil(conn);
    }

    fn effect(&mut self, now: Now, id: EffectId, effect: Effect) {
        tracing::debug!(?id, ?effect, "effect");
        let job = match effect {
            Effect::Persist(batch) => Job::Persist(batch),
            Effect::WriteRecord(record) => Job::WriteRecord(record),
            Effect::RemoveRecord(guest) => Job::RemoveRecord(guest),
            Effect::Start { guest, deadline } => Job::Start { guest, patience: deadline.since(now.boot) },
            Effect::Terminal { terminal, deed } => Job::Terminal { terminal, deed },
            Effect::Http(request) => {
                let patience = request.deadline.since(now.boot);
                Job::Http { request, patience }
            }
            Effect::Type { terminal, bytes, deadline } => {
                Job::Type { terminal, bytes, patience: deadline.since(now.boot) }
            }
            Effect::Reload => Job::Reopen,
            Effect::Dial { deadline, to } => return self.dial(now.boot, id, deadline, to),
            _ => {
                self.counters.unknown_outputs += 1;
                let error = EffectError {
                    kind: EffectErrorKind::Cancelled,
                    message: "this program can't do that".to_owned(),
                };
                self.pending.push_back(Pending::Done(id, Err(error)));
                return;
            }
        };
        self.work.submit(JobId::Effect(id), job);
    }

    /// Takes notice of an edge.
    pub(crate) fn notice(&mut self, ready: Ready) {
        let conn = match ready.source {
            Endpoint::Listener(listener) => return self.doors.notice(listener),
            Endpoint::Conn(conn) => conn,
        };
        let Some(slot) = self.slots.get(conn) else {
            self.counters.stale += 1;
            return;
        };
        slot.flags.readable |= ready.readable || ready.finished || ready.hangup;
        slot.flags.finished |= ready.finished || ready.hangup;
        slot.flags.hangup |= ready.hangup;
        match slot.stage {
            Stage::Connecting => self.dials.notice(conn),
            Stage::Open(_) | Stage::Closing(..) => {
                if slot.flags.blocked && (ready.writable || ready.hangup) {
                    slot.flags.blocked = false;
                    self.soil(conn);
                }
                self.enqueue(conn);
            }
            Stage::Free => {}
        }
    }

    /// Puts a connection on the ready list if a read can make progress.
    pub(crate) fn enqueue(&mut self, conn: ConnId) {
        let Some(slot) = self.slots.get(conn) else { return };
        let worthwhile = slot.is_open()
            && slot.flags.readable
            && (slot.credit > 0 || slot.flags.hangup)
            && (!slot.flags.read_done || slot.flags.hangup);
        if worthwhile && !slot.flags.queued {
            slot.flags.queued = true;
            self.ready.push_back(conn);
        }
    }

    /// Puts a connection on the list of those to flush.
    pub(crate) fn soil(&mut self, conn: ConnId) {
        let Some(slot) = self.slots.get(conn) else { return };
        if !std::mem::replace(&mut slot.flags.dirty, true) {
            self.dirty.push_back(conn);
        }
    }

    /// Gives a closing connection its last second.
    pub(crate) fn linger(&mut self, conn: ConnId, now: Time) {
        let Some(slot) = self.slots.get(conn) else { return };
        if !slot.flags.end.set(End::LINGERS) {
            self.closing.push_back((now + LINGER, conn));
        }
    }

    /// Tells the engine that there is room again, by its rule.
    pub(crate) fn offer_room(&mut self, conn: ConnId) {
        if let Some(slot) = self.slots.get(conn) {
            let free = SEND_BUFFER - slot.unsent().len();
            if slot.is_open() && (slot.room as usize) < HALF && free >= HALF {
                self.pending.push_back(Pending::Writable(conn));
            }
        }
    }

    pub(crate) fn log(&mut self, now: Now, level: Level, text: &str) {
        if let Some(sink) = &mut self.sink {
            sink.line(now, level, text);
        }
    }
}
