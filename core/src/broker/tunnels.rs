//! Streams from control clients to guests' terminals, on the broker's side: who may
//! have one, and what its client is told. From the request on, the connection is the
//! stream's.

use alloc::collections::BTreeMap;
use alloc::format;
use alloc::vec::Vec;
use core::ops::Range;
use core::time::Duration;

use crate::boundary::Wakeup;
use crate::broker::Broker;
use crate::broker::clients::{error_line, problem};
use crate::broker::commands::{not_reachable, unknown};
use crate::broker::cx::Cx;
use crate::broker::facts::{Notice, TimerKey};
use crate::broker::guests::Guests;
use crate::broker::links::Links;
use crate::broker::walk::append_head;
use crate::control::reply::{ErrorBody, ErrorCode, GuestOnly};
use crate::event::{Fact, TunnelEnd};
use crate::id::{ConnId, GuestName, RequestId};
use crate::link::message::{BadJson, append_json};
use crate::queue::Outbox;
use crate::time::{Time, millis};
use crate::timers::TimerId;
use crate::tunnel::end::End;
use crate::tunnel::streams::{Asked, Line, Streams};
use crate::tunnel::wire::{self, Encoded, TunnelFrame};
use crate::tunnel::{TERMINALS_V1, data_room};

/// All streams.
#[derive(Clone, Debug)]
pub(crate) struct Tunnels {
    /// By link. A session that had one stays until it ends: its bytes are counted.
    sessions: BTreeMap<ConnId, Session>,
    /// The link of each client.
    conns: BTreeMap<ConnId, ConnId>,
    /// Unanswered requests, by stream.
    asking: BTreeMap<u64, Option<RequestId>>,
    last: u64,
    timer: TimerId,
    /// Sessions that may have something to send, each once.
    stirred: Vec<ConnId>,
}

#[derive(Clone, Debug)]
struct Session {
    guest: GuestName,
    streams: Streams,
}

/// Decoded data that stays allocated between calls.
const KEPT: usize = 64 * 1024;

impl Tunnels {
    pub(crate) fn new(cx: &mut Cx) -> Self {
        Self {
            sessions: BTreeMap::new(),
            conns: BTreeMap::new(),
            asking: BTreeMap::new(),
            last: 0,
            timer: cx.timers.insert(TimerKey::Tunnel),
            stirred: Vec::new(),
        }
    }

    pub(crate) fn contains(&self, conn: ConnId) -> bool {
        self.conns.contains_key(&conn)
    }

    /// Streams, and bytes that they hold: for checks of bounds.
    pub(crate) fn sizes(&self) -> (usize, usize) {
        let streams = self.sessions.values().map(|session| session.streams.len()).sum();
        (streams, self.sessions.values().map(|session| session.streams.bytes()).sum())
    }

    #[cfg(feature = "model")]
    pub(crate) fn is_idle(&self) -> bool {
        self.sessions.is_empty()
    }

    /// # Errors
    /// The first obligation that nothing guards.
    #[cfg(feature = "model")]
    pub(crate) fn check(&self, cx: &Cx, most: Duration) -> Result<(), crate::obligations::Unguarded> {
        let armed = cx.timers.armed(self.timer);
        self.sessions.values().try_for_each(|session| session.streams.check(armed, cx.at(), most))
    }

    /// The link of a guest that may have one stream more.
    fn judge(
        &self,
        cx: &Cx,
        guests: &Guests,
        guest: Option<GuestName>,
    ) -> Result<(GuestName, ConnId), ErrorBody> {
        let Some(guest) = guest else {
            return Err(problem(ErrorCode::InvalidRequest, "the broker needs params.guest"));
        };
        let row = guests.find(&guest).and_then(|id| guests.get(id)).ok_or_else(|| unknown(&guest))?;
        let link = row.session.filter(|_| row.proven).ok_or_else(|| not_reachable(&guest))?;
        if !row.capabilities.has(TERMINALS_V1) {
            let message = format!("the agent of {guest} offers no terminals (it doesn't say {TERMINALS_V1})");
            return Err(problem(ErrorCode::Unsupported, message));
        }
        let settings = &cx.config.tunnel;
        let of_guest = self.sessions.get(&link).map_or(0, |session| session.streams.len());
        if of_guest >= settings.streams_per_guest || self.sizes().0 >= settings.streams_max {
            let message = format!(
                "{of_guest} clients use {guest}'s terminals, {} those of all guests: no more at once",
                self.sizes().0
            );
            return Err(problem(ErrorCode::Busy, message));
        }
        Ok((guest, link))
    }

    fn open(
        &mut self,
        cx: &Cx,
        (guest, link): (GuestName, ConnId),
        id: Option<RequestId>,
        end: End,
        within: Duration,
    ) {
        let settings = cx.config.tunnel;
        let session = self
            .sessions
            .entry(link)
            .or_insert_with(|| Session { guest, streams: Streams::new(settings, TunnelEnd::ClientLeft) });
        self.last += 1;
        self.conns.insert(end.conn(), link);
        self.asking.insert(self.last, id);
        session.streams.ask(cx.at(), self.last, end, cx.at() + within);
        self.stir(link);
    }

    /// Bytes of a client.
    pub(crate) fn on_bytes(&mut self, cx: &mut Cx, conn: ConnId, bytes: &[u8]) {
        self.with(cx, conn, |streams, out, _| streams.on_bytes(out, conn, bytes));
    }

    pub(crate) fn on_client_writable(&mut self, cx: &mut Cx, conn: ConnId, room: usize) {
        self.with(cx, conn, |streams, out, now| streams.on_writable(out, now, conn, room));
    }

    pub(crate) fn on_finished(&mut self, cx: &mut Cx, conn: ConnId) {
        self.with(cx, conn, |streams, out, now| streams.on_finished(out, now, conn));
    }

    pub(crate) fn on_closed(&mut self, cx: &mut Cx, conn: ConnId) {
        self.with(cx, conn, |streams, out, now| streams.on_closed(out, now, conn));
        self.conns.remove(&conn);
    }

    fn with(&mut self, cx: &mut Cx, conn: ConnId, work: impl FnOnce(&mut Streams, &mut Outbox, Time)) {
        let Some(&link) = self.conns.get(&conn) else { return };
        if let Some(session) = self.sessions.get_mut(&link) {
            let now = cx.at();
            work(&mut session.streams, &mut cx.out, now);
            self.stir(link);
        }
    }

    /// A link has room again.
    pub(crate) fn on_room(&mut self, link: ConnId) {
        if self.sessions.contains_key(&link) {
            self.stir(link);
        }
    }

    fn stir(&mut self, link: ConnId) {
        if !self.stirred.contains(&link) {
            self.stirred.push(link);
        }
    }

    /// A guest says something of a stream.
    pub(crate) fn on_frame(&mut self, cx: &mut Cx, link: ConnId, frame: TunnelFrame<Range<usize>>) {
        let Some(Session { guest, streams }) = self.sessions.get_mut(&link) else { return };
        let guest = *guest;
        let now = cx.at();
        let Cx { tunnel_bytes, out, .. } = cx;
        let frame = frame.with_data(|range| tunnel_bytes.get(range).ok_or(()));
        let Ok(frame) = frame else { return };
        match streams.on_frame(out, now, frame) {
            // No guest's frame says so.
            None | Some(Asked::Open { .. }) => {}
            Some(Asked::Opened { stream }) => {
                let id = self.asking.remove(&stream).flatten();
                let mut line = Vec::new();
                append_head(&mut line, id.as_ref(), "terminals");
                append_json(&mut line, &GuestOnly { guest });
                line.extend_from_slice(b"}\n");
                streams.say(out, stream, &line);
                cx.event(Some(guest), Fact::TunnelOpened { stream });
            }
            Some(Asked::Refused { stream, code, message }) => {
                let error = problem(code, format!("{guest} leads nowhere: {message}"));
                self.fail(cx, link, stream, &error);
                if let Some(session) = self.sessions.get_mut(&link) {
                    session.streams.remove(&mut cx.out, stream, TunnelEnd::GuestClosed);
                }
            }
        }
        self.stir(link);
    }

    /// The one answer to a request whose stream will not be.
    fn fail(&mut self, cx: &mut Cx, link: ConnId, stream: u64, error: &ErrorBody) {
        let Some(id) = self.asking.remove(&stream) else { return };
        if let Some(session) = self.sessions.get_mut(&link) {
            session.streams.say(&mut cx.out, stream, &error_line(id.as_ref(), error));
        }
    }

    /// A session is over: so are its streams.
    pub(crate) fn on_lost(&mut self, cx: &mut Cx, link: ConnId) {
        let Some(session) = self.sessions.get(&link) else { return };
        let guest = session.guest;
        let error = if cx.draining {
            problem(ErrorCode::ShuttingDown, "the broker is stopping")
        } else {
            not_reachable(&guest)
        };
        for stream in self.asking.keys().copied().collect::<Vec<_>>() {
            if self.sessions.get(&link).is_some_and(|session| session.streams.has(stream)) {
                self.fail(cx, link, stream, &error);
            }
        }
        if let Some(session) = self.sessions.get_mut(&link) {
            let reason = if cx.draining { TunnelEnd::Stopping } else { TunnelEnd::SessionLost };
            session.streams.lose(&mut cx.out, reason);
        }
        self.bury(cx, link);
        self.sessions.remove(&link);
        self.stirred.retain(|other| *other != link);
    }

    pub(crate) fn on_timer(&mut self, cx: &mut Cx) {
        for link in self.sessions.keys().copied().collect::<Vec<_>>() {
            let Some(Session { guest, streams }) = self.sessions.get_mut(&link) else { continue };
            let guest = *guest;
            let now = cx.at();
            for stream in streams.on_timer(&mut cx.out, now) {
                let error = problem(ErrorCode::Timeout, format!("{guest} did not answer in time"));
                self.fail(cx, link, stream, &error);
                if let Some(session) = self.sessions.get_mut(&link) {
                    session.streams.abort(&mut cx.out, stream, TunnelEnd::Timeout);
                }
            }
            self.stir(link);
        }
    }

    /// Streams that are over leave nothing behind but an event.
    fn bury(&mut self, cx: &mut Cx, link: ConnId) {
        let Some(Session { guest, streams }) = self.sessions.get_mut(&link) else { return };
        for over in core::mem::take(&mut streams.over) {
            if let Some(conn) = over.conn {
                self.conns.remove(&conn);
            }
            self.asking.remove(&over.stream);
            if over.opened {
                let lasted_ms = millis(cx.at().since(over.since));
                let fact = Fact::TunnelClosed {
                    stream: over.stream,
                    reason: over.reason,
                    to_guest_bytes: over.sent,
                    from_guest_bytes: over.received,
                    lasted_ms,
                };
                cx.event(Some(*guest), fact);
            }
        }
    }

    /// Sends what there is to be sent.
    pub(crate) fn pump(&mut self, cx: &mut Cx, links: &mut Links) {
        while let Some(link) = self.stirred.pop() {
            let Some(session) = self.sessions.get_mut(&link) else { continue };
            let now = cx.at();
            session.streams.pump(now, &mut Wire { cx, links, conn: link });
            if let Some(at) = session.streams.next_deadline() {
                cx.timers.arm_by(self.timer, at, Wakeup::Tunnel);
            }
            self.bury(cx, link);
        }
    }
}

/// A session's link, as streams use it.
struct Wire<'a> {
    cx: &'a mut Cx,
    links: &'a mut Links,
    conn: ConnId,
}

impl Line for Wire<'_> {
    fn data_room(&self) -> usize {
        let link = self.links.table.get(self.conn).filter(|link| link.in_frames());
        link.map_or(0, |link| data_room(link.room(), link.capacity as usize))
    }

    fn send(&mut self, most: usize, frame: &TunnelFrame<&[u8]>) -> bool {
        self.links.send(self.cx, self.conn, most, |out| wire::append(out, frame))
    }

    fn out(&mut self) -> &mut Outbox {
        &mut self.cx.out
    }
}

impl Links {
    /// A guest says something of a stream. What a session without a row says counts
    /// for nothing.
    ///
    /// # Errors
    /// Its data is not base64, or too much.
    pub(crate) fn on_tunnel(
        &self,
        cx: &mut Cx,
        conn: ConnId,
        frame: TunnelFrame<Encoded<'_>>,
    ) -> Result<(), BadJson> {
        let session = self.table.get(conn).and_then(|link| link.session.as_ref());
        if !session.is_some_and(|session| session.row.is_some() && !session.is_legacy()) {
            return Ok(());
        }
        let bytes = &mut cx.tunnel_bytes;
        let frame = frame.with_data(|data| {
            let start = bytes.len();
            data.decode(bytes).map(|()| start..bytes.len())
        })?;
        cx.notify(Notice::Tunnel { conn, frame });
        Ok(())
    }
}

impl Broker {
    /// A client asks for a guest's terminals: its connection becomes a stream, or is
    /// closed after the error. Whatever it said after the request is never a request.
    pub(super) fn on_terminals(
        &mut self,
        conn: ConnId,
        id: Option<RequestId>,
        guest: Option<GuestName>,
        timeout: Option<Duration>,
    ) {
        let Self { cx, guests, clients, tunnels, .. } = self;
        let found = if clients.is_alone(conn) {
            tunnels.judge(cx, guests, guest)
        } else {
            let message = "other requests of this connection are open: terminals need one of their own";
            Err(problem(ErrorCode::InvalidRequest, message))
        };
        match found {
            Err(error) => clients.turn_away(conn, id, &error),
            Ok(found) => {
                let Some((room, finished)) = clients.release(conn) else { return };
                let within = timeout.unwrap_or(cx.config.tunnel.open_timeout);
                tunnels.open(cx, found, id, End::new(conn, room), within);
                if finished {
                    tunnels.on_finished(cx, conn);
                }
            }
        }
    }

    pub(super) fn pump_tunnels(&mut self) {
        let Self { cx, links, tunnels, .. } = self;
        tunnels.pump(cx, links);
        if !cx.tunnel_bytes.is_empty() {
            cx.tunnel_bytes.clear();
            cx.tunnel_bytes.shrink_to(KEPT);
        }
    }
}
