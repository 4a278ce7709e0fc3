//! Sessions of adopted guests: what each says first, and what it is told.

use alloc::collections::{BTreeSet, VecDeque};
use alloc::string::ToString;
use alloc::vec::Vec;
use core::net::SocketAddr;

use super::lanes::Op;
use super::{Adopted, BACKLOG, Due, Manager, Post, Seat, SeatStage, attach_event};
use crate::attach::wire::{Block, Handshake, ManagerFrame, SCHEMA};
use crate::attach::{ATTACH_V1, AttachId, Body, ManagerUrl};
use crate::broker::cx::Cx;
use crate::broker::facts::RowId;
use crate::broker::guests::{Guests, Row};
use crate::event::AttachFact;
use crate::id::{ConnId, GuestName};
use crate::link::message::append_json;
use crate::time::{Time, millis};

/// The open, proven session of a guest, and whether its agent knows of attachments.
pub(super) fn session_of(guests: &Guests, guest: &GuestName) -> Option<(ConnId, bool)> {
    let row = guests.get(guests.find(guest)?)?;
    row.session.filter(|_| row.proven).map(|conn| (conn, row.capabilities.has(ATTACH_V1)))
}

impl Manager {
    /// A link was accepted at this address.
    pub(crate) fn on_opened(&mut self, conn: ConnId, local: SocketAddr, is_open: impl Fn(ConnId) -> bool) {
        // Handshakes that fail leave theirs behind.
        if self.locals.len() >= 1024 && self.locals.len().is_power_of_two() {
            self.locals.retain(|conn, _| is_open(*conn));
        }
        self.locals.insert(conn, local.ip().to_canonical());
    }

    /// A session began.
    pub(crate) fn on_established(&mut self, cx: &Cx, conn: ConnId, row: &Row) {
        if self.adopted.is_empty() {
            return;
        }
        let guest = row.name();
        if self.adopted.contains_key(&guest) && row.capabilities.has(ATTACH_V1) {
            let until = cx.at() + cx.config.manager.first_frames;
            self.seat(guest, conn, SeatStage::Settling(until));
        }
    }

    pub(super) fn seat(&mut self, guest: GuestName, conn: ConnId, stage: SeatStage) {
        let Some(adopted) = self.adopted.get_mut(&guest) else { return };
        if let Some(before) = adopted.seat.take() {
            self.seats.remove(&before.conn);
            if let SeatStage::Settling(until) = before.stage {
                self.due.remove(&(until, Due::Settle(guest)));
            }
        }
        adopted.seat =
            Some(Seat { conn, stage, sent: BTreeSet::new(), backlog: VecDeque::new(), attaching: 0 });
        self.seats.insert(conn, guest);
        if let SeatStage::Settling(until) = stage {
            self.due.insert((until, Due::Settle(guest)));
        }
    }

    pub(super) fn set_stage(&mut self, guest: GuestName, stage: SeatStage) {
        let Some(seat) = self.adopted.get_mut(&guest).and_then(|adopted| adopted.seat.as_mut()) else {
            return;
        };
        let before = core::mem::replace(&mut seat.stage, stage);
        if let SeatStage::Settling(until) = before {
            self.due.remove(&(until, Due::Settle(guest)));
        }
        if let SeatStage::Settling(until) = stage {
            self.due.insert((until, Due::Settle(guest)));
        }
        if stage == SeatStage::Fast {
            self.stirred.insert(guest);
        }
    }

    /// A connection is gone: a session, or a client.
    pub(crate) fn on_lost(&mut self, cx: &mut Cx, conn: ConnId) {
        for id in self.requests.of_conn(conn) {
            // What is on its way may still happen; nobody waits for it any more.
            self.requests.close(cx, id);
        }
        self.locals.remove(&conn);
        self.hungry.remove(&conn);
        let Some(guest) = self.seats.remove(&conn) else { return };
        let Some(adopted) = self.adopted.get_mut(&guest) else { return };
        if let Some(Seat { stage: SeatStage::Settling(until), .. }) = adopted.seat.take() {
            self.due.remove(&(until, Due::Settle(guest)));
        }
    }

    /// A link has room again.
    pub(crate) fn on_room(&mut self, conn: ConnId) {
        if let Some(guest) = self.seats.get(&conn) {
            self.stirred.insert(*guest);
            self.hungry.insert(conn);
        }
    }

    /// A verdict changed.
    pub(crate) fn on_verdict(&mut self, guests: &Guests, row: RowId) {
        if self.seats.is_empty() {
            return;
        }
        if let Some(guest) = guests.get(row).map(Row::name)
            && self.adopted.get(&guest).is_some_and(Adopted::is_fast)
        {
            self.stirred.insert(guest);
        }
    }

    /// A new session did not say that it is attached: it is told to.
    pub(super) fn on_silence(&mut self, guest: GuestName) {
        let Some(adopted) = self.adopted.get_mut(&guest) else { return };
        if let Some(seat) = &mut adopted.seat {
            seat.stage = SeatStage::Told;
            self.renew(guest);
        }
    }

    /// The guest gets a fresh handshake as soon as that is durable.
    pub(super) fn renew(&mut self, guest: GuestName) {
        let Some(adopted) = self.adopted.get_mut(&guest) else { return };
        if adopted.seat.is_some() && !core::mem::replace(&mut adopted.renewing, true) {
            self.push(guest, Op::Renew);
        }
    }

    /// Where the guest of a link is told to attach.
    pub(super) fn address(&self, cx: &Cx, conn: Option<ConnId>, link_only: bool) -> ManagerUrl {
        let settings = &cx.config.manager;
        let Some(http) = settings.http.filter(|_| !link_only) else { return ManagerUrl::Link };
        if let Some(url) = &settings.advertise {
            return url.clone();
        }
        let Some(ip) = conn.and_then(|conn| self.locals.get(&conn)).copied() else { return ManagerUrl::Link };
        let bound = http.ip().to_canonical();
        let listens = if bound.is_unspecified() { bound.is_ipv6() || ip.is_ipv4() } else { bound == ip };
        // An address of the link's own scope is of no use without its zone.
        let has_zone = matches!(ip, core::net::IpAddr::V6(ip) if ip.is_unicast_link_local());
        if listens && !has_zone && !ip.is_unspecified() {
            return ManagerUrl::http(SocketAddr::new(ip, http.port()));
        }
        ManagerUrl::Link
    }

    /// Tells the guest's session, if there is one, to attach, or that it still is.
    pub(super) fn send_handshake(&mut self, cx: &mut Cx, guest: GuestName, refresh: bool) {
        let Some(adopted) = self.adopted.get_mut(&guest) else { return };
        let Some(conn) = adopted.seat.as_ref().map(|seat| seat.conn) else { return };
        let settings = &cx.config.manager;
        if refresh {
            adopted.lease_until = Some(cx.at() + settings.lease_ttl);
        }
        let record = &adopted.record;
        let (beach, url) = (record.beach.as_str().to_string(), record.url.to_string());
        let wall = cx.now.wall.unix_millis();
        let left = adopted.code_until.map(|until| millis(until.since(cx.at())));
        let handshake = Handshake {
            schema: Some(SCHEMA),
            handshake_id: Some(record.handshake.as_str().into()),
            handshake_kind: Some(if refresh { "refresh" } else { "renegotiate" }.into()),
            session_id: Some(record.session.as_str().into()),
            private_beach_id: Some(beach.clone()),
            manager_url: Some(url.clone()),
            controller_token: Some(record.token.clone()),
            lease_expires_at_ms: Some(wall.saturating_add_unsigned(millis(settings.lease_ttl))),
            lease_ttl_ms: Some(millis(settings.lease_ttl)),
            controller_auto_attach: Some(Block {
                private_beach_id: Some(beach),
                attach_code: record.code.clone(),
                manager_url: Some(url),
                issued_at_ms: Some(record.issued_at.unix_millis()),
                expires_at_ms: left.map(|left| wall.saturating_add_unsigned(left)),
                ttl_ms: left,
            }),
            stale_session_idle_secs: Some(settings.stale_session_idle_secs),
            viewer_health_interval_secs: Some(settings.viewer_health_interval_secs),
        };
        let fact = AttachFact::Sent {
            handshake: record.handshake.clone(),
            session: record.session.clone(),
            refresh,
            manager: record.url.clone(),
        };
        self.say(conn, &ManagerFrame::Handshake(handshake.into()));
        attach_event(cx, Some(guest), fact);
    }

    /// The lease goes on; the guest is told so.
    pub(super) fn lease(&mut self, cx: &Cx, guest: GuestName, conn: ConnId) {
        let Some(adopted) = self.adopted.get_mut(&guest) else { return };
        let ttl = cx.config.manager.lease_ttl;
        adopted.lease_until = Some(cx.at() + ttl);
        let session_id = adopted.record.session.clone();
        self.say(conn, &ManagerFrame::Lease { session_id, lease_ttl_ms: millis(ttl) });
    }

    pub(super) fn detach(&mut self, conn: ConnId, session_id: AttachId) {
        self.say(conn, &ManagerFrame::Detach { session_id });
    }

    /// Queues a frame.
    pub(super) fn say(&mut self, conn: ConnId, frame: &ManagerFrame<'_>) {
        let mut json = Vec::new();
        append_json(&mut json, frame);
        self.post.push_back(Post::Frame(conn, Body(json)));
    }

    /// Whether frames before it still wait for room.
    pub(crate) fn has_backlog(&self, conn: ConnId) -> bool {
        let seat = self.seats.get(&conn).and_then(|guest| self.adopted.get(guest)?.seat.as_ref());
        seat.is_some_and(|seat| !seat.backlog.is_empty())
    }

    /// There was no room for a frame: it waits, if its guest is adopted.
    pub(crate) fn put_off(&mut self, conn: ConnId, frame: Body) {
        let Some(guest) = self.seats.get(&conn) else { return };
        let seat = self.adopted.get_mut(guest).and_then(|adopted| adopted.seat.as_mut());
        if let Some(seat) = seat.filter(|seat| seat.backlog.len() < BACKLOG) {
            seat.backlog.push_back(frame);
        }
    }

    /// Frames that waited for room, to be sent through `send` until it says that there is none.
    pub(crate) fn catch_up(&mut self, mut send: impl FnMut(ConnId, &[u8]) -> bool) {
        for conn in core::mem::take(&mut self.hungry) {
            let Some(guest) = self.seats.get(&conn) else { continue };
            let seat = self.adopted.get_mut(guest).and_then(|adopted| adopted.seat.as_mut());
            let Some(seat) = seat else { continue };
            while let Some(frame) = seat.backlog.front() {
                if !send(conn, &frame.0) {
                    break;
                }
                seat.backlog.pop_front();
            }
        }
    }

    /// Whether the guest takes actions over its link at `now`.
    pub(super) fn flows(&self, cx: &Cx, guests: &Guests, guest: &GuestName) -> bool {
        self.adopted.get(guest).is_some_and(|adopted| adopted.is_attached() && adopted.is_fast())
            && guests.is_reachable(cx, guest)
    }

    /// Whether the guest polled lately, or polls.
    pub(super) fn polls(adopted: &Adopted, cx: &Cx, now: Time) -> bool {
        let lately = |at: Time| now.since(at) <= cx.config.manager.polled_within;
        !adopted.polls.is_empty() || adopted.polled_at.is_some_and(lately)
    }
}

impl Guests {
    /// Whether the guest is reachable by its open session now.
    pub(crate) fn is_reachable(&self, cx: &Cx, guest: &GuestName) -> bool {
        let row = self.find(guest).and_then(|id| self.get(id));
        let Some(row) = row.filter(|row| row.session.is_some() && row.proven) else { return false };
        let facts = row.facts(&cx.config, cx.at());
        let verdict = crate::liveness::judge(&facts, cx.config.window, cx.stall.as_ref(), cx.at());
        verdict.state == crate::status::State::Reachable
    }
}
