//! The streams of one session, seen from either side.

use alloc::collections::{BTreeMap, VecDeque};
use alloc::string::String;
use alloc::vec::Vec;

use super::TunnelSettings;
use super::end::End;
use super::pace::Pace;
use super::stream::{QUEUE, Sending, Stage, Stream};
use super::wire::{self, TunnelFrame};
use crate::boundary::CloseReason;
use crate::control::reply::ErrorCode;
use crate::event::TunnelEnd;
use crate::id::ConnId;
use crate::queue::Outbox;
use crate::time::Time;

/// The link of the session.
pub(crate) trait Line {
    /// How many bytes of data one frame may carry now; 0: wait until there is room.
    fn data_room(&self) -> usize;

    /// Sends a frame whose JSON has at most `most` bytes; false: there is no room.
    fn send(&mut self, most: usize, frame: &TunnelFrame<&[u8]>) -> bool;

    /// Where the local connections' outputs go.
    fn out(&mut self) -> &mut Outbox;
}

/// The streams of one session.
#[derive(Clone, Debug)]
pub(crate) struct Streams {
    settings: TunnelSettings,
    /// What it means that a local connection is gone.
    gone: TunnelEnd,
    table: BTreeMap<u64, Stream>,
    conns: BTreeMap<ConnId, u64>,
    /// The stream that sent last: they take turns.
    turn: u64,
    pace: Pace,
    heard: u64,
    acknowledged: u64,
    refusals: VecDeque<(u64, ErrorCode, String)>,
    /// Streams whose end the other side doesn't know yet.
    farewells: VecDeque<(u64, TunnelEnd)>,
    /// Streams that are over, for whoever keeps something of them.
    pub(crate) over: Vec<Over>,
}

/// A stream that is over.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Over {
    pub(crate) stream: u64,
    pub(crate) conn: Option<ConnId>,
    /// It had been open.
    pub(crate) opened: bool,
    pub(crate) reason: TunnelEnd,
    /// Towards the other side, in bytes.
    pub(crate) sent: u64,
    pub(crate) received: u64,
    pub(crate) since: Time,
}

/// What the engine has to do about a frame.
#[derive(Debug)]
pub(crate) enum Asked {
    /// The other side wants a stream.
    Open { stream: u64, window: u64 },
    /// What was asked for is there.
    Opened { stream: u64 },
    /// It is not.
    Refused { stream: u64, code: ErrorCode, message: String },
}

impl Streams {
    pub(crate) fn new(settings: TunnelSettings, gone: TunnelEnd) -> Self {
        Self {
            settings,
            gone,
            table: BTreeMap::new(),
            conns: BTreeMap::new(),
            turn: 0,
            pace: Pace::new(&settings),
            heard: 0,
            acknowledged: 0,
            refusals: VecDeque::new(),
            farewells: VecDeque::new(),
            over: Vec::new(),
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.table.len()
    }

    /// Bytes that are held, in both directions.
    pub(crate) fn bytes(&self) -> usize {
        self.table.values().map(|stream| stream.queue.len() + stream.waiting()).sum()
    }

    pub(crate) fn has(&self, id: u64) -> bool {
        self.table.contains_key(&id)
    }

    pub(crate) fn owns(&self, conn: ConnId) -> bool {
        self.conns.contains_key(&conn)
    }

    /// Asks the other side for a stream.
    pub(crate) fn ask(&mut self, now: Time, id: u64, end: End, deadline: Time) {
        self.conns.insert(end.conn(), id);
        let stream =
            Stream::new(Stage::Asking { told: false }, Some(end), self.settings.window, now, deadline);
        self.table.insert(id, stream);
    }

    /// The other side asked for a stream, and its connection is being dialled. False:
    /// there is one of that number, which makes no sense and ends that one.
    pub(crate) fn dial(&mut self, out: &mut Outbox, now: Time, id: u64, window: u64, deadline: Time) -> bool {
        if self.table.contains_key(&id) {
            self.abort(out, id, TunnelEnd::Protocol);
            return false;
        }
        let stream = Stream::new(Stage::Dialling, None, self.settings.window, now, deadline);
        self.table.insert(id, Stream { credit: window, ..stream });
        true
    }

    /// The dial succeeded. False: nobody waits for it any more.
    pub(crate) fn dialled(&mut self, id: u64, end: End) -> bool {
        let Some(stream) = self.table.get_mut(&id).filter(|stream| stream.stage == Stage::Dialling) else {
            return false;
        };
        self.conns.insert(end.conn(), id);
        (stream.stage, stream.end, stream.deadline) = (Stage::Dialled, Some(end), None);
        true
    }

    /// The stream that the other side asked for will not be.
    pub(crate) fn refuse(&mut self, id: u64, code: ErrorCode, message: String) {
        self.table.remove(&id);
        // The other side doesn't wait for ever for what is left out here.
        if self.refusals.len() < self.settings.streams_max {
            self.refusals.push_back((id, code, message));
        }
    }

    /// Something for a local connection that is none of its stream.
    pub(crate) fn say(&mut self, out: &mut Outbox, id: u64, text: &[u8]) {
        if let Some(end) = self.table.get_mut(&id).and_then(|stream| stream.end.as_mut()) {
            end.give(out, text);
        }
    }

    /// Bytes of a local connection.
    pub(crate) fn on_bytes(&mut self, out: &mut Outbox, conn: ConnId, bytes: &[u8]) {
        let Some(stream) = self.conns.get(&conn).and_then(|id| self.table.get_mut(id)) else { return };
        if stream.closed.is_some() || stream.closing.is_some() {
            return;
        }
        stream.queue.extend(bytes);
        if let Some(end) = stream.end.as_mut().filter(|_| stream.queue.len() >= QUEUE) {
            end.read(out, false);
        }
    }

    /// A local connection has room.
    pub(crate) fn on_writable(&mut self, out: &mut Outbox, now: Time, conn: ConnId, room: usize) {
        let Some(&id) = self.conns.get(&conn) else { return };
        let linger = self.settings.linger;
        let Some(stream) = self.table.get_mut(&id) else { return };
        let Some(end) = &mut stream.end else { return };
        let taken = end.on_writable(out, room);
        stream.owed += taken;
        if taken > 0 && stream.is_lingering() {
            stream.deadline = Some(now + linger);
        }
        self.settle(out, id);
    }

    /// A local connection will say no more.
    pub(crate) fn on_finished(&mut self, out: &mut Outbox, now: Time, conn: ConnId) {
        let Some(&id) = self.conns.get(&conn) else { return };
        let Some(stream) = self.table.get_mut(&id) else { return };
        if stream.sending == Sending::Open {
            stream.sending = Sending::Ending;
        }
        self.linger(now, id);
        self.settle(out, id);
    }

    /// A local connection is gone: what it said is still sent.
    pub(crate) fn on_closed(&mut self, out: &mut Outbox, now: Time, conn: ConnId) {
        let Some(id) = self.conns.remove(&conn) else { return };
        let Some(stream) = self.table.get_mut(&id) else { return };
        let heard_all = stream.ended && stream.waiting() == 0;
        stream.end = None;
        // It went as soon as it had heard all and said all: nobody broke anything off.
        if heard_all && stream.is_open() && stream.closed.is_none() {
            if stream.sending == Sending::Open {
                stream.sending = Sending::Ending;
            }
            self.linger(now, id);
            return self.settle(out, id);
        }
        if stream.closed.is_some() || stream.queue.is_empty() || !stream.is_open() {
            return self.abort(out, id, self.gone);
        }
        stream.closing = Some(self.gone);
        self.linger(now, id);
    }

    /// The other side says something.
    pub(crate) fn on_frame(
        &mut self,
        out: &mut Outbox,
        now: Time,
        frame: TunnelFrame<&[u8]>,
    ) -> Option<Asked> {
        match frame {
            TunnelFrame::Open { stream, window } => return Some(Asked::Open { stream, window }),
            TunnelFrame::Opened { stream: id, window } => {
                let stream = self.table.get_mut(&id)?;
                if stream.stage != (Stage::Asking { told: true }) {
                    return None;
                }
                (stream.stage, stream.credit, stream.deadline) = (Stage::Open, window, None);
                return Some(Asked::Opened { stream: id });
            }
            TunnelFrame::Refused { stream: id, code, message } => {
                let stream = self.table.get_mut(&id)?;
                if stream.stage != (Stage::Asking { told: true }) {
                    return None;
                }
                return Some(Asked::Refused { stream: id, code, message });
            }
            TunnelFrame::Data { stream, data } => {
                self.heard += data.len() as u64;
                self.on_data(out, stream, data);
            }
            TunnelFrame::Credit { stream: id, bytes } => {
                if let Some(stream) = self.table.get_mut(&id).filter(|stream| stream.is_open()) {
                    stream.credit = stream.credit.saturating_add(bytes);
                }
            }
            TunnelFrame::End { stream: id } => {
                let stream = self.table.get_mut(&id)?;
                if !stream.is_open() {
                    self.abort(out, id, TunnelEnd::Protocol);
                    return None;
                }
                stream.ended = true;
                if let Some(end) = &mut stream.end {
                    end.finish(out);
                }
                self.linger(now, id);
                self.settle(out, id);
            }
            TunnelFrame::Close { stream: id, reason } => {
                let stream = self.table.get_mut(&id)?;
                if matches!(stream.stage, Stage::Asking { .. }) {
                    let message = reason.as_str().into();
                    return Some(Asked::Refused { stream: id, code: ErrorCode::Refused, message });
                }
                stream.closed = Some(reason);
                stream.queue.clear();
                self.linger(now, id);
                self.settle(out, id);
            }
            TunnelFrame::Acknowledged { bytes } => self.pace.on_acknowledged(now, bytes, &self.settings),
        }
        None
    }

    fn on_data(&mut self, out: &mut Outbox, id: u64, data: &[u8]) {
        let Some(stream) = self.table.get_mut(&id) else { return };
        if !stream.is_open() || stream.ended || data.len() > stream.allowed {
            return self.abort(out, id, TunnelEnd::Protocol);
        }
        stream.allowed -= data.len();
        // Nobody is there for what comes after the local connection's end.
        if let Some(end) = &mut stream.end {
            stream.received += data.len() as u64;
            stream.owed += end.give(out, data);
        }
    }

    /// Streams whose answer didn't come in time; what lingered too long is given up.
    pub(crate) fn on_timer(&mut self, out: &mut Outbox, now: Time) -> Vec<u64> {
        let is_due = |(id, stream): (&u64, &Stream)| {
            stream.deadline.is_some_and(|deadline| deadline <= now).then_some(*id)
        };
        let mut late: Vec<u64> = self.table.iter().filter_map(is_due).collect();
        late.retain(|id| {
            let Some(stream) = self.table.get(id) else { return false };
            if stream.is_open() {
                let reason = stream.closed.or(stream.closing).unwrap_or(TunnelEnd::Timeout);
                self.abort(out, *id, reason);
                return false;
            }
            true
        });
        late
    }

    /// When the next answer or progress is due.
    pub(crate) fn next_deadline(&self) -> Option<Time> {
        self.table.values().filter_map(|stream| stream.deadline).min()
    }

    /// The stream is over: its local connection goes, and the other side is told,
    /// unless it said so itself or was never told of the stream.
    pub(crate) fn abort(&mut self, out: &mut Outbox, id: u64, reason: TunnelEnd) {
        let Some(stream) = self.table.get(&id) else { return };
        if stream.closed.is_none() && stream.stage != (Stage::Asking { told: false }) {
            self.farewells.push_back((id, reason));
        }
        self.remove(out, id, reason);
    }

    /// The stream is over, and the other side knows.
    pub(crate) fn remove(&mut self, out: &mut Outbox, id: u64, reason: TunnelEnd) {
        let Some(stream) = self.table.remove(&id) else { return };
        let opened = stream.is_open();
        let Stream { end, sent, received, since, .. } = stream;
        let conn = end.as_ref().map(End::conn);
        self.over.push(Over { stream: id, conn, opened, reason, sent, received, since });
        if let Some(end) = end {
            self.conns.remove(&end.conn());
            end.close(out, CloseReason::Ended);
        }
    }

    /// The session is over, and with it everything.
    pub(crate) fn lose(&mut self, out: &mut Outbox, reason: TunnelEnd) {
        for id in self.table.keys().copied().collect::<Vec<_>>() {
            self.remove(out, id, reason);
        }
    }

    /// Sends what there is to be sent, as far as there is room.
    pub(crate) fn pump(&mut self, now: Time, line: &mut impl Line) {
        while let Some((stream, code, message)) = self.refusals.pop_front() {
            // If there is no room, the other side will be tired of waiting.
            line.send(wire::CONTROL_MAX, &TunnelFrame::Refused { stream, code, message });
        }
        if self.acknowledged != self.heard
            && line.send(wire::CONTROL_MAX, &TunnelFrame::Acknowledged { bytes: self.heard })
        {
            self.acknowledged = self.heard;
        }
        let mut next = 0;
        while let Some((&id, stream)) = self.table.range_mut(next..).next() {
            next = id + 1;
            stream.greet(id, &self.settings, line);
        }
        while self.send_next(now, line) {}
        let mut next = 0;
        while let Some((&id, stream)) = self.table.range_mut(next..).next() {
            next = id + 1;
            stream.take_leave(id, line);
            self.settle(line.out(), id);
        }
        while let Some(&(stream, reason)) = self.farewells.front() {
            if !line.send(wire::CONTROL_MAX, &TunnelFrame::Close { stream, reason }) {
                break;
            }
            self.farewells.pop_front();
        }
    }

    /// One frame of the stream whose turn it is; false: nothing can be sent.
    fn send_next(&mut self, now: Time, line: &mut impl Line) -> bool {
        let (room, allowance) = (line.data_room(), self.pace.allowance());
        let most = room.min(allowance);
        if most == 0 {
            return false;
        }
        let worthwhile = self.pace.worthwhile();
        let can = |(_, stream): &(&u64, &Stream)| {
            let sendable = stream.sendable();
            sendable > 0 && allowance >= sendable.min(worthwhile)
        };
        let after = self.table.range(self.turn.saturating_add(1)..).find(can);
        let Some(id) = after.or_else(|| self.table.iter().find(can)).map(|(id, _)| *id) else { return false };
        let Some(stream) = self.table.get_mut(&id) else { return false };
        let count = stream.sendable().min(most);
        let data = &stream.queue.as_slices().0[..count];
        if count == 0 || !line.send(wire::data_json(count), &TunnelFrame::Data { stream: id, data }) {
            return false;
        }
        self.turn = id;
        self.pace.on_sent(now, count);
        stream.queue.drain(..count);
        stream.credit -= count as u64;
        stream.sent += count as u64;
        if stream.deadline.is_some() {
            stream.deadline = Some(now + self.settings.linger);
        }
        if let Some(end) = stream.end.as_mut().filter(|_| stream.queue.len() <= QUEUE / 2) {
            end.read(line.out(), true);
        }
        true
    }

    /// The last bytes of a stream have so much time for their next step.
    fn linger(&mut self, now: Time, id: u64) {
        let linger = self.settings.linger;
        if let Some(stream) =
            self.table.get_mut(&id).filter(|stream| stream.is_open() && stream.is_lingering())
        {
            stream.deadline = Some(now + linger);
        }
    }

    /// A stream that is over goes.
    fn settle(&mut self, out: &mut Outbox, id: u64) {
        let Some(stream) = self.table.get(&id) else { return };
        if let Some(reason) = stream.is_over() {
            self.remove(out, id, reason);
        } else if let Some(reason) = stream.closing.filter(|_| stream.queue.is_empty()) {
            self.abort(out, id, reason);
        }
    }
}

#[cfg(feature = "model")]
impl Streams {
    /// # Errors
    /// The first obligation that nothing guards.
    pub(crate) fn check(
        &self,
        armed: Option<Time>,
        now: Time,
        most: core::time::Duration,
    ) -> Result<(), crate::obligations::Unguarded> {
        use crate::obligations::Unguarded;
        for stream in self.table.values() {
            let what = if stream.is_open() { "a stream's last bytes" } else { "a stream that is asked for" };
            let owes =
                stream.end.as_ref().map_or(Unguarded::new(what), |end| Unguarded::new(what).on(end.conn()));
            match stream.deadline {
                Some(deadline) => {
                    owes.unless_armed(armed, deadline)?;
                    owes.unless_within(deadline, now, most)?;
                }
                None => owes.unless(stream.is_open() && !stream.is_lingering())?,
            }
        }
        Unguarded::new("what became of a stream").unless(self.over.is_empty())
    }
}
