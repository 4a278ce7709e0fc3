//! Link connections: from bytes to lines and frames, and their one timer each.

use alloc::boxed::Box;
use alloc::vec::Vec;
use core::num::NonZeroU32;

use crate::auth::{Proof, SessionKey};
use crate::boundary::{CloseReason, Origin, Remote, Source, Transport, Wakeup};
use crate::broker::cx::Cx;
use crate::broker::door::Door;
use crate::broker::facts::{RowId, TimerKey};
use crate::broker::guests::Guests;
use crate::broker::session::Session;
use crate::endpoint::Packed;
use crate::event::{Failure, SessionEnd};
use crate::id::{ConnId, Epoch, Nonce};
use crate::link::inbox::{Inbox, LINE_MAX, RESYNC};
use crate::link::line::{GREETING, Hello};
use crate::liveness;
use crate::slab::{ConnTable, Entry};
use crate::time::Time;
use crate::timers::TimerId;

/// One link connection.
#[derive(Clone, Debug)]
pub(crate) struct Link {
    pub(super) generation: u32,
    pub(crate) transport: Transport,
    pub(super) remote: Packed,
    pub(super) room: u32,
    pub(super) capacity: u32,
    /// What arrived and isn't consumed; nothing while all comes in whole pieces.
    pub(super) inflow: Option<Box<Inflow>>,
    /// The inflow lies with the byte loop: what it holds is void.
    pub(super) inbox_void: bool,
    pub(super) paused: bool,
    /// Serial: the rest of this line is dropped, it is too long.
    pub(super) skipping: bool,
    pub(crate) timer: TimerId,
    pub(crate) stage: Stage,
    pub(crate) session: Option<Session>,
    /// Since when something could not be sent for want of room.
    pub(crate) blocked_since: Option<Time>,
    /// Its place in the door's list, counted from 1.
    pub(crate) half_open: Option<NonZeroU32>,
}

/// What arrived on a link and isn't consumed.
#[derive(Clone, Debug, Default)]
pub(crate) struct Inflow {
    pub(super) inbox: Inbox,
    /// Bytes that wait until there is room for what they may cause.
    pub(super) held: Vec<u8>,
}

/// Where a link stands.
#[derive(Clone, Debug)]
pub(crate) enum Stage {
    /// Serial, before a first byte: no deadline, no half-open slot.
    Idle,
    /// The hello is awaited.
    Hello { since: Time },
    /// The challenge was sent.
    Proving(Box<Attempt>),
    /// Phase B.
    Frames,
}

/// A handshake after its hello.
#[derive(Clone, Debug)]
pub(crate) struct Attempt {
    pub(crate) hello: Hello,
    pub(crate) since: Time,
    pub(crate) sent_at: Time,
    pub(crate) nonce: Nonce,
    pub(crate) epoch: Epoch,
    pub(crate) keys: Option<Keys>,
    /// The name's row, if it had one. It stays while it counts this attempt.
    pub(crate) row: Option<RowId>,
    /// It proved itself; the incumbent has until then to do so too.
    pub(crate) conflict_until: Option<Time>,
}

/// What a keyed handshake compares and uses.
#[derive(Clone, Debug)]
pub(crate) struct Keys {
    pub(crate) expected: Proof,
    pub(crate) answer: Proof,
    pub(crate) session: SessionKey,
}

/// All link connections.
#[derive(Clone, Debug)]
pub(crate) struct Links {
    pub(crate) table: ConnTable<Link>,
    pub(crate) door: Door,
    /// Sessions with a 0.1 subscription.
    pub(crate) subscribers: Vec<ConnId>,
}

/// Enough for any line and any frame that isn't an answer.
pub(crate) const SMALL: usize = 640;

impl Entry for Link {
    fn generation(&self) -> u32 {
        self.generation
    }
}

impl Link {
    pub(crate) fn is_serial(&self) -> bool {
        self.transport == Transport::Serial
    }

    /// Answers may be as large as a frame: stop taking questions before there is
    /// no room for answers.
    fn is_crowded(&self) -> bool {
        self.room < self.capacity / 3
    }

    /// Whether mail of so many bytes may be sent. While less than half is free the
    /// shell will say when there is more; above that it would not.
    pub(super) const fn has_room_for_mail(&self, bytes: usize) -> bool {
        self.room >= self.capacity / 2 && self.room as usize >= bytes + 64
    }

    pub(crate) fn remote(&self) -> Remote {
        self.remote.unpack()
    }

    /// Free bytes in the shell's send buffer.
    pub(crate) const fn room(&self) -> usize {
        self.room as usize
    }

    /// So many bytes were transmitted: never more than there was room for.
    pub(crate) const fn spend(&mut self, bytes: usize) {
        self.room -= bytes as u32;
    }

    fn hold(&mut self, bytes: &[u8]) {
        self.inflow.get_or_insert_default().held.extend_from_slice(bytes);
    }

    pub(crate) fn in_frames(&self) -> bool {
        matches!(self.stage, Stage::Frames)
    }

    /// Appends a line or a piece of phase A.
    pub(crate) fn transmit(&mut self, cx: &mut Cx, conn: ConnId, write: impl FnOnce(&mut Vec<u8>)) {
        if self.room() < SMALL {
            self.blocked_since.get_or_insert(cx.now.boot);
            return;
        }
        self.spend(cx.out.transmit(conn, write));
    }

    pub(crate) fn void_inbox(&mut self) {
        if let Some(inflow) = &mut self.inflow {
            inflow.inbox.clear();
        }
        self.inbox_void = true;
    }
}

impl Links {
    pub(crate) fn new(cx: &mut Cx) -> Self {
        Self { table: ConnTable::default(), door: Door::new(cx), subscribers: Vec::new() }
    }

    pub(crate) fn on_opened(
        &mut self,
        cx: &mut Cx,
        conn: ConnId,
        transport: Transport,
        _origin: Origin,
        remote: Remote,
        room: usize,
    ) {
        if cx.draining {
            cx.out.close(conn, CloseReason::Drained);
            return;
        }
        let serial = transport == Transport::Serial;
        let stage = if serial { Stage::Idle } else { Stage::Hello { since: cx.at() } };
        let mut link = Link {
            generation: conn.generation,
            transport,
            remote: Packed::new(remote),
            room: clamped(room),
            capacity: clamped(room),
            inflow: None,
            inbox_void: false,
            paused: false,
            skipping: false,
            timer: cx.timers.insert(TimerKey::Link(conn)),
            stage,
            session: None,
            blocked_since: None,
            half_open: None,
        };
        link.transmit(cx, conn, greet);
        self.table.insert(conn, link);
        if !serial {
            self.enter_door(cx, conn);
        }
        if !planted!(cx.config, HandshakeNotArmed) {
            self.rearm(cx, None, conn);
        }
    }

    pub(crate) fn on_bytes(&mut self, cx: &mut Cx, guests: &mut Guests, conn: ConnId, bytes: &[u8]) {
        let Some(link) = self.table.get_mut(conn) else { return };
        if link.paused {
            link.hold(bytes);
            return;
        }
        self.consume(cx, guests, conn, bytes);
        self.rearm(cx, Some(guests), conn);
    }

    pub(crate) fn on_writable(&mut self, cx: &mut Cx, guests: &mut Guests, conn: ConnId, room: usize) {
        let Some(link) = self.table.get_mut(conn) else { return };
        link.room = clamped(room);
        if room >= SMALL {
            link.blocked_since = (link.paused && link.is_crowded()).then_some(cx.now.boot);
        }
        if link.paused && !link.is_crowded() {
            link.paused = false;
            let held = link.inflow.as_mut().map(|inflow| core::mem::take(&mut inflow.held));
            let held = held.unwrap_or_default();
            cx.out.read(Source::Conn(conn), usize::MAX);
            self.consume(cx, guests, conn, &held);
        }
        self.rearm(cx, Some(guests), conn);
    }

    /// Half-close: in phase A it ends the line (castra 0.1 does that), unless that may have been
    /// cut off on the way; then the link ends, for nothing more can be proven on it.
    pub(crate) fn on_finished(&mut self, cx: &mut Cx, guests: &mut Guests, conn: ConnId) {
        let Some(link) = self.table.get(conn) else { return };
        if link.is_whole_without_an_end() {
            self.consume(cx, guests, conn, b"\n");
        }
        if self.table.get(conn).is_some() {
            self.on_closed(cx, guests, conn);
            cx.out.close(conn, CloseReason::Finished);
        }
    }

    /// The connection is gone, or will be: its session and handshake end.
    pub(crate) fn on_closed(&mut self, cx: &mut Cx, guests: &mut Guests, conn: ConnId) {
        let Some(link) = self.table.get(conn) else { return };
        if link.session.is_some() {
            self.end_session(cx, guests, conn, SessionEnd::Disconnected);
        }
        if self.table.get(conn).is_some_and(|link| matches!(link.stage, Stage::Proving(_))) {
            self.fail(cx, guests, conn, Failure::Disconnected);
        }
        self.remove(cx, conn);
    }

    /// Forgets a connection whose session and handshake have ended.
    pub(crate) fn remove(&mut self, cx: &mut Cx, conn: ConnId) {
        let Some(link) = self.table.remove(conn) else { return };
        cx.timers.remove(link.timer);
        if let Some(slot) = link.half_open {
            self.leave_door_slot(cx, slot);
        }
    }

    /// A session ended: its connection does, too. A handshake that was begun on
    /// its serial stream goes on.
    pub(crate) fn part(&mut self, cx: &mut Cx, conn: ConnId, why: CloseReason) {
        let Some(link) = self.table.get(conn) else { return };
        if !(link.is_serial() && matches!(link.stage, Stage::Hello { .. } | Stage::Proving(_))) {
            self.hang_up(cx, conn, why);
        }
    }

    /// Ends a connection from our side; on a serial stream, returns to phase A.
    pub(crate) fn hang_up(&mut self, cx: &mut Cx, conn: ConnId, why: CloseReason) {
        let Some(link) = self.table.get_mut(conn) else { return };
        if link.is_serial() && !cx.draining {
            link.stage = Stage::Idle;
            link.void_inbox();
            self.leave_door(cx, conn);
            return;
        }
        self.remove(cx, conn);
        cx.out.close(conn, why);
    }

    fn consume(&mut self, cx: &mut Cx, guests: &mut Guests, conn: ConnId, mut input: &[u8]) {
        while !input.is_empty() {
            let Some(link) = self.table.get(conn) else { return };
            if !link.is_serial() {
                return self.consume_clean(cx, guests, conn, input);
            }
            let end = input.iter().position(|byte| *byte == RESYNC);
            let (clean, rest) = input.split_at(end.unwrap_or(input.len()));
            self.consume_clean(cx, guests, conn, clean);
            input = rest;
            if end.is_some() {
                self.resynchronise(cx, guests, conn);
                input = &input[1..];
            }
        }
    }

    /// Bytes without a resynchronisation byte.
    fn consume_clean(&mut self, cx: &mut Cx, guests: &mut Guests, conn: ConnId, mut input: &[u8]) {
        let Some(link) = self.table.get_mut(conn) else { return };
        let mut inflow = link.inflow.take();
        let mut whole = Inbox::default();
        let inbox = inflow.as_mut().map_or(&mut whole, |inflow| &mut inflow.inbox);
        while !input.is_empty() {
            let Some(link) = self.table.get_mut(conn) else { return };
            if core::mem::take(&mut link.inbox_void) {
                inbox.clear();
            }
            if link.is_crowded() {
                link.hold(input);
                if !core::mem::replace(&mut link.paused, true) {
                    cx.out.read(Source::Conn(conn), 0);
                    // Its challenges still find room, but it has to read some day.
                    link.blocked_since.get_or_insert(cx.now.boot);
                }
                break;
            }
            if matches!(link.stage, Stage::Idle) {
                if link.skipping {
                    let Some(end) = input.iter().position(|byte| *byte == b'\n') else { break };
                    link.skipping = false;
                    input = &input[end..];
                }
                match input.iter().position(|byte| !matches!(byte, b'\n' | b'\r')) {
                    None => break,
                    Some(start) => input = &input[start..],
                }
                link.stage = Stage::Hello { since: cx.at() };
                self.enter_door(cx, conn);
                continue;
            }
            if link.in_frames() && link.is_serial() && inbox.is_at_boundary() && input[0] >= b' ' {
                self.begin_again(cx, conn);
                continue;
            }
            if link.in_frames() {
                match inbox.frame(&mut input) {
                    Ok(Some(payload)) => self.on_frame(cx, guests, conn, payload),
                    Ok(None) => break,
                    Err(_) => self.end_session_with_bye(cx, guests, conn, SessionEnd::BadFrame),
                }
            } else {
                match inbox.line(&mut input, LINE_MAX) {
                    Ok(Some(line)) => self.on_line(cx, guests, conn, line),
                    Ok(None) => break,
                    Err(_) => {
                        self.refuse(cx, guests, conn, Failure::BadLine);
                        if let Some(link) = self.table.get_mut(conn) {
                            link.skipping = true;
                        }
                    }
                }
            }
        }
        let now = cx.at();
        if let Some(link) = self.table.get_mut(conn) {
            if core::mem::take(&mut link.inbox_void) {
                inbox.clear();
            }
            // While nothing is read, its rest may have arrived.
            let unfinished = link.in_frames() && !link.paused && !inbox.is_at_boundary();
            if let Some(session) = &mut link.session {
                let frame_by = now + cx.config.frame_timeout;
                session.frame_by = unfinished.then(|| session.frame_by.unwrap_or(frame_by));
            }
            // What was held meanwhile came after what is unfinished.
            let held = link.inflow.take().map(|inflow| inflow.held);
            link.inflow = inflow.or_else(|| {
                (held.is_some() || !whole.is_at_boundary())
                    .then(|| Box::new(Inflow { inbox: whole, held: Vec::new() }))
            });
            if let (Some(inflow), Some(held)) = (&mut link.inflow, held) {
                inflow.held.extend_from_slice(&held);
            }
        }
    }

    /// Serial: `0xFF` drops what is unfinished, and is answered by the greeting.
    fn resynchronise(&mut self, cx: &mut Cx, guests: &mut Guests, conn: ConnId) {
        let Some(link) = self.table.get_mut(conn) else { return };
        cx.out.discard(conn);
        link.void_inbox();
        if let Some(inflow) = &mut link.inflow {
            inflow.held.clear();
        }
        link.skipping = false;
        if matches!(link.stage, Stage::Proving(_)) {
            self.fail(cx, guests, conn, Failure::Disconnected);
        }
        let Some(link) = self.table.get_mut(conn) else { return };
        if link.session.is_some() {
            self.begin_again(cx, conn);
        } else {
            link.stage = Stage::Idle;
            self.leave_door(cx, conn);
        }
        if let Some(link) = self.table.get_mut(conn) {
            link.transmit(cx, conn, greet);
        }
    }

    /// Serial: a new handshake on a stream whose session still stands.
    fn begin_again(&mut self, cx: &mut Cx, conn: ConnId) {
        let Some(link) = self.table.get_mut(conn) else { return };
        let deadline = cx.at() + cx.config.handshake_timeout;
        link.stage = Stage::Hello { since: cx.at() };
        if let Some(session) = &mut link.session {
            session.rare_mut().reset_by.get_or_insert(deadline);
            session.frame_by = None;
        }
        self.enter_door(cx, conn);
    }

    /// Everything that became due on this connection.
    pub(crate) fn on_timer(&mut self, cx: &mut Cx, guests: &mut Guests, conn: ConnId) {
        let now = cx.at();
        let Some(link) = self.table.get(conn) else { return };
        let (since, conflict) = match &link.stage {
            Stage::Hello { since } => (Some(*since), None),
            Stage::Proving(attempt) => (Some(attempt.since), attempt.conflict_until),
            Stage::Idle | Stage::Frames => (None, None),
        };
        if since.is_some_and(|since| since + cx.config.handshake_timeout <= now) {
            self.refuse(cx, guests, conn, Failure::Timeout);
        } else if conflict.is_some_and(|until| until <= now) {
            self.establish(cx, guests, conn);
        }
        let reset_by = self.table.get(conn).and_then(|link| link.session.as_ref()?.rare().reset_by);
        let reset = reset_by.is_some_and(|by| by <= now);
        if reset {
            self.end_session(cx, guests, conn, SessionEnd::Resynchronised);
        }
        self.on_session_timer(cx, guests, conn);
        if !planted!(cx.config, TimerNotRearmed) {
            self.rearm(cx, Some(guests), conn);
        }
    }

    /// Arms the connection's timer for its earliest obligation. Only ever earlier:
    /// an early call finds nothing due and arms again.
    pub(crate) fn rearm(&self, cx: &mut Cx, guests: Option<&Guests>, conn: ConnId) {
        let Some(link) = self.table.get(conn) else { return };
        let timeout = cx.config.handshake_timeout;
        let mut earliest: Option<(Time, Wakeup)> = None;
        let mut consider = |at: Option<Time>, why: Wakeup| {
            if let Some(at) = at
                && earliest.is_none_or(|(before, _)| at < before)
            {
                earliest = Some((at, why));
            }
        };
        match &link.stage {
            Stage::Hello { since } => consider(Some(*since + timeout), Wakeup::Handshake),
            Stage::Proving(attempt) => {
                consider(Some(attempt.since + timeout), Wakeup::Handshake);
                consider(attempt.conflict_until, Wakeup::Conflict);
            }
            Stage::Idle | Stage::Frames => {}
        }
        if let Some(session) = &link.session {
            consider(session.rare().reset_by, Wakeup::Handshake);
            consider(Some(session.deadline(cx, link)), Wakeup::Session);
            if let Some(row) = session.row.and_then(|row| guests?.get(row))
                && row.session == Some(conn)
            {
                let facts = row.facts(&cx.config, cx.now.boot);
                let change = liveness::next_change(&facts, cx.config.window, cx.stall.as_ref(), cx.now.boot);
                consider(change, Wakeup::Session);
            }
        }
        let timer = link.timer;
        if let Some((at, why)) = earliest {
            cx.timers.arm_by(timer, at, why);
        }
    }
}

/// Room as a link keeps it. A shell has far less than this.
fn clamped(room: usize) -> u32 {
    u32::try_from(room).unwrap_or(u32::MAX)
}

fn greet(out: &mut Vec<u8>) {
    out.extend_from_slice(GREETING);
    out.push(b'\n');
}
