//! The broker's engine: routes inputs to the machines and facts between them.

mod attach;
mod bus;
mod changes;
mod claim;
pub(crate) mod clients;
pub(crate) mod commands;
mod control;
pub(crate) mod cx;
pub(crate) mod door;
mod drain;
pub(crate) mod facts;
#[cfg(feature = "model")]
mod fingerprint;
pub(crate) mod guests;
mod handshake;
mod keyed;
mod links;
mod names;
#[cfg(feature = "model")]
mod obligations;
mod packed;
mod peers;
mod questions;
mod records;
mod restore;
pub(crate) mod ring;
mod session;
mod sizes;
mod sweep;
mod tunnels;
pub(crate) mod walk;

use alloc::vec::Vec;

use crate::auth::Key;
use crate::boundary::{CloseReason, EffectError, Engine, Input, Output, Via};
use crate::config::BrokerConfig;
use crate::entropy::Entropy;
use crate::event::{Fact, SessionEnd};
use crate::id::{ConnId, EffectId, GuestName};
use crate::status::{Glance, GuestStatus};
use crate::time::{Now, WallTime};
use crate::timers::TimerId;

use crate::attach::manager::Manager;
use crate::attach::server::Server;
use crate::peers::machine::Peers;
use clients::Clients;
use commands::Commands;
use cx::Cx;
use drain::{DRAIN_TIMEOUT, Drain};
use facts::{Keep, Notice, RowId, TimerKey};
use guests::Guests;
use links::Links;
use records::Records;
use sweep::{Allowance, Sweeps};
use tunnels::Tunnels;

pub use cx::Statistics;
pub use sizes::Sizes;

/// What survives a restart. Reachability never does.
#[derive(Clone, Debug, Default)]
pub struct Restored {
    /// How often a broker was started on this state directory, this start
    /// included; already durable.
    pub incarnation: u32,
    /// Every name that has, or ever had (`None`), a token.
    pub tokens: Vec<(GuestName, Option<Key>)>,
    /// Wall time of the newest proof known of each name.
    pub last_seen: Vec<(GuestName, WallTime)>,
    /// Peers and their messages.
    pub peers: crate::peers::RestoredPeers,
    /// Attachments and their actions.
    pub manager: crate::attach::RestoredManager,
}

/// The broker: who is reachable, and why not.
#[derive(Clone, Debug)]
pub struct Broker {
    cx: Cx,
    guests: Guests,
    links: Links,
    clients: Clients,
    commands: Commands,
    records: Records,
    peers: Peers,
    tunnels: Tunnels,
    manager: Manager,
    server: Server,
    drain: Option<Drain>,
    drain_timer: TimerId,
    sweeps: Sweeps,
    allowance: Allowance,
    more: bool,
    #[cfg(feature = "model")]
    longest: obligations::Longest,
}

impl Broker {
    /// A broker that has heard of nobody yet in this incarnation. `config` was checked.
    #[must_use]
    pub fn new(config: BrokerConfig, restored: Restored, entropy: Entropy, now: Now) -> Self {
        #[cfg(feature = "model")]
        let longest = obligations::Longest::new(&config);
        #[cfg(feature = "planted")]
        let now = config.clock(now);
        let mut cx = Cx::new(config, restored.incarnation, entropy, now);
        let mut guests = Guests::default();
        for (name, seen) in restored.last_seen {
            if let Ok(id) = guests.ensure(&mut cx, name)
                && let Some(row) = guests.get_mut(id)
            {
                row.last_wall = row.last_wall.max(Some(seen));
                row.record.written = row.last_wall;
            }
        }
        for (name, key) in restored.tokens {
            let keyed = key.is_some();
            guests.set_token(name, key);
            if keyed {
                // Never full for it.
                let _ = guests.ensure(&mut cx, name);
            }
        }
        let links = Links::new(&mut cx);
        let records = Records::new(&mut cx);
        let peers = Peers::new(&mut cx, &mut guests, restored.peers);
        let tunnels = Tunnels::new(&mut cx);
        let manager = Manager::new(&mut cx, &mut guests, restored.manager);
        let drain_timer = cx.timers.insert(TimerKey::Drain);
        let mut broker = Self {
            cx,
            guests,
            links,
            clients: Clients::default(),
            commands: Commands::default(),
            records,
            peers,
            tunnels,
            manager,
            server: Server::default(),
            drain: None,
            drain_timer,
            sweeps: Sweeps::default(),
            allowance: Allowance::new(now.boot),
            more: false,
            #[cfg(feature = "model")]
            longest,
        };
        broker.configure(Vec::new());
        for id in broker.guests.ids().collect::<Vec<_>>() {
            broker.guests.prime(&broker.cx, id);
        }
        broker.cx.notices.clear();
        let guests = broker.guests.len() as u64;
        broker.cx.event(None, Fact::BrokerStarted { guests });
        broker
    }

    /// Every guest as it is at `now`: a pure read, which the next `handle` can't
    /// contradict. Doesn't block and doesn't allocate per guest.
    pub fn status(&self, now: Now) -> impl Iterator<Item = GuestStatus> {
        #[cfg(feature = "planted")]
        let now = self.cx.config.clock(now);
        self.guests.ids().filter_map(move |id| self.guests.status(&self.cx, id, now))
    }

    /// [`Broker::status`] of the guests whose names come after `last`, for whoever takes a
    /// few of them at a time. Finding the next one costs a search by name.
    pub fn status_after(&self, now: Now, last: Option<&GuestName>) -> impl Iterator<Item = GuestStatus> {
        #[cfg(feature = "planted")]
        let now = self.cx.config.clock(now);
        let after = |id: &RowId| self.guests.after(Some(&self.guests.get(*id)?.name()));
        core::iter::successors(self.guests.after(last), after)
            .filter_map(move |id| self.guests.status(&self.cx, id, now))
    }

    /// What [`Broker::status`] judges of every guest at `now`, without allocating:
    /// for checks after every event. In an order of its own, not by name.
    pub fn glances(&self, now: Now) -> impl Iterator<Item = Glance> {
        #[cfg(feature = "planted")]
        let now = self.cx.config.clock(now);
        self.guests.glances(&self.cx, now)
    }

    /// Counters that nothing depends on.
    #[must_use]
    pub const fn statistics(&self) -> Statistics {
        self.cx.statistics
    }

    /// The names of the configuration have rows; those that it named `before`
    /// have nothing of it any more.
    fn configure(&mut self, before: Vec<GuestName>) {
        for name in &before {
            if let Some(row) = self.guests.find(name).and_then(|id| self.guests.get_mut(id)) {
                row.keep.set(Keep::CONFIGURED, false);
            }
        }
        let mut touched = before;
        for name in self.cx.config.guests.clone() {
            if let Ok(id) = self.guests.ensure(&mut self.cx, name)
                && let Some(row) = self.guests.get_mut(id)
            {
                row.keep.set(Keep::CONFIGURED, true);
            }
            touched.push(name);
        }
        touched.sort_unstable();
        for name in touched {
            self.guests.line_up(&name);
        }
    }

    fn on_done(&mut self, effect: EffectId, result: &Result<(), EffectError>) {
        let Self { cx, guests, clients, commands, records, peers, manager, .. } = self;
        let ours = records.on_done(cx, guests, effect, result)
            || commands.on_done(cx, clients, guests, effect, result)
            || peers.on_done(cx, guests, effect, result)
            || manager.on_done(cx, guests, effect, result)
            || cx.on_done(effect, result);
        if !ours {
            cx.statistics.stale_inputs += 1;
        }
    }

    fn on_timers(&mut self) {
        self.more = !self.sweeps.is_done();
        while !self.more {
            if self.allowance.timers == 0 {
                self.more = self.cx.timers.next().is_some_and(|next| next.at <= self.cx.at());
                return;
            }
            self.allowance.timers -= 1;
            let Self { cx, guests, links, clients, commands, records, peers, tunnels, manager, .. } = self;
            let Some(key) = cx.timers.pop_due(cx.at()) else { return };
            match key {
                TimerKey::Link(conn) => links.on_timer(cx, guests, conn),
                TimerKey::Row(row) => guests.announce(cx, row),
                TimerKey::Command(command) => commands.on_timer(cx, clients, command),
                TimerKey::Door => links.on_door_timer(cx, guests),
                TimerKey::Records => records.pump(cx, guests, false),
                TimerKey::Peer(command) => peers.on_request_timer(cx, guests, command),
                TimerKey::Mail => peers.on_mail_timer(cx, guests),
                TimerKey::Tunnel => tunnels.on_timer(cx),
                TimerKey::Attach => manager.on_timer(cx, guests),
                TimerKey::Http(conn) => self.on_http_timer(conn),
                TimerKey::HttpDoor => self.on_http_door_timer(),
                TimerKey::Adoption(command) => manager.on_request_timer(cx, command),
                TimerKey::Drain => {}
            }
        }
    }

    /// What one thing brings about, on all machines, before the next thing is looked at.
    fn settle(&mut self) {
        self.route();
        self.pump_peers();
        self.pump_tunnels();
        self.pump_manager();
    }

    /// Machines meet here, and nowhere else.
    fn route(&mut self) {
        while let Some(notice) = self.cx.notices.pop_front() {
            let Self { cx, guests, links, clients, commands, records, peers, tunnels, manager, .. } = self;
            match notice {
                Notice::Verdict(row) => {
                    commands.on_verdict(cx, clients, guests, row);
                    manager.on_verdict(guests, row);
                }
                Notice::Evidence(row, urgency) => records.mark(guests, row, urgency),
                Notice::Pong { conn, command } => commands.on_pong(cx, clients, conn, command),
                Notice::Lost(conn) => {
                    commands.on_lost(cx, clients, conn);
                    peers.on_lost(cx, guests, conn);
                    tunnels.on_lost(cx, conn);
                    manager.on_lost(cx, conn);
                }
                Notice::Established { conn, row } => {
                    if let Some(row) = guests.get(row).filter(|row| row.session == Some(conn)) {
                        peers.on_established(cx, guests, conn, row);
                        manager.on_established(cx, conn, row);
                    }
                }
                Notice::Peer(frame) => self.on_peer_frame(frame.0, frame.1),
                Notice::Attach(frame) => {
                    let (conn, guest, request) = *frame;
                    manager.on_frame(cx, guest, conn, request);
                }
                Notice::Tunnel { conn, frame } => tunnels.on_frame(cx, conn, frame),
                Notice::Asked { conn, row, request } => {
                    commands.on_asked(cx, clients, guests, conn, row, request);
                }
                Notice::Answer { conn, kind, id, answer } => {
                    links.settle(cx, conn, kind, id, answer.as_deref().map_err(|code| *code));
                }
                Notice::Ping { conn, command } => {
                    let sent = links.send(cx, conn, links::SMALL, |out| {
                        crate::link::message::append_ping(out, command.0, false);
                    });
                    if !sent {
                        commands.on_unsent(cx, clients, command);
                    }
                }
                Notice::TokenChanged(name) => self.end_name(&name, SessionEnd::TokenChanged),
                Notice::Forget(name) => {
                    peers.on_forgotten(cx, guests, name);
                    manager.on_forgotten(cx, guests, name);
                    self.forget(&name);
                }
                Notice::Shutdown => {
                    let deadline = self.cx.at() + DRAIN_TIMEOUT;
                    self.begin_drain(deadline);
                }
            }
        }
    }

    /// Ends everything that goes on under a name.
    fn end_name(&mut self, name: &GuestName, why: SessionEnd) {
        let Self { cx, guests, links, .. } = self;
        links.abort_handshakes(cx, guests, name);
        let conns =
            guests.find(name).and_then(|id| guests.get(id)).map(|row| [row.session, row.rare().legacy]);
        for conn in conns.into_iter().flatten().flatten() {
            links.end_session_with_bye(cx, guests, conn, why);
        }
    }

    fn forget(&mut self, name: &GuestName) {
        self.end_name(name, SessionEnd::Forgotten);
        let Self { cx, guests, .. } = self;
        let Some(id) = guests.find(name) else { return };
        guests.remove(cx, id);
        cx.remove_record(*name);
        if cx.config.guests.contains(name) {
            self.configure(Vec::new());
        }
    }
}

impl Engine for Broker {
    type Config = BrokerConfig;

    fn handle(&mut self, now: Now, input: Input<'_, BrokerConfig>) {
        #[cfg(feature = "planted")]
        let now = self.cx.config.clock(now);
        let seen = self.cx.stall_seen(now);
        let before = self.cx.now;
        let missed = self.cx.missed();
        self.cx.advance(now);
        self.allowance.renew(self.cx.at(), matches!(input, Input::Tick));
        if let (Some(stall), Some(missed)) = (seen, missed) {
            let late = now.boot.since(missed);
            let suspended = now.suspended.saturating_sub(before.suspended);
            self.cx.note_stall(stall, late, suspended);
            self.sweeps.challenge_everybody();
        }
        self.sweep();
        self.take(input);
        self.on_timers();
        self.settle();
        self.records.pump(&mut self.cx, &mut self.guests, false);
        self.more |= self.pump_clients();
        self.resume_clients();
        self.on_drain();
    }

    fn poll_output(&mut self) -> Output<'_> {
        let Self { cx, more, .. } = self;
        let wait = if *more { Some(cx.more()) } else { cx.timers.next() };
        #[cfg(feature = "planted")]
        let wait = cx.config.unclock(wait, cx.now);
        cx.out.poll(|| wait)
    }
}

impl Broker {
    fn take(&mut self, input: Input<'_, BrokerConfig>) {
        let Self { cx, guests, links, clients, peers, tunnels, manager, server, .. } = self;
        if let Input::Bytes { conn, .. }
        | Input::Finished { conn }
        | Input::Writable { conn, .. }
        | Input::Closed { conn, .. } = input
            && !clients.contains(conn)
            && links.table.get(conn).is_none()
            && !tunnels.contains(conn)
            && !server.contains(conn)
        {
            cx.statistics.stale_inputs += 1;
            return;
        }
        match input {
            Input::Opened { conn, via: Via::Link(transport), origin, remote, local, room, .. } => {
                links.on_opened(cx, conn, transport, origin, remote, room);
                if let Some(local) = local.filter(|_| cx.config.manager.http.is_some()) {
                    manager.on_opened(conn, local, |conn| links.table.get(conn).is_some());
                }
            }
            Input::Opened { conn, via: Via::Control, peer_cred, room, .. } => {
                clients.on_opened(cx, conn, peer_cred, room);
            }
            Input::Bytes { conn, bytes } if clients.contains(conn) => self.on_request_bytes(conn, bytes),
            Input::Bytes { conn, bytes } if tunnels.contains(conn) => tunnels.on_bytes(cx, conn, bytes),
            Input::Bytes { conn, bytes } if server.contains(conn) => self.on_http_bytes(conn, bytes),
            Input::Bytes { conn, bytes } => links.on_bytes(cx, guests, conn, bytes),
            Input::Finished { conn } if clients.contains(conn) => clients.on_finished(conn),
            Input::Finished { conn } if tunnels.contains(conn) => tunnels.on_finished(cx, conn),
            Input::Finished { conn } if server.contains(conn) => self.on_http_finished(conn),
            Input::Finished { conn } => links.on_finished(cx, guests, conn),
            Input::Writable { conn, room } if clients.contains(conn) => clients.on_writable(conn, room),
            Input::Writable { conn, room } if tunnels.contains(conn) => {
                tunnels.on_client_writable(cx, conn, room);
            }
            Input::Writable { conn, room } if server.contains(conn) => self.on_http_writable(conn, room),
            Input::Writable { conn, room } => {
                links.on_writable(cx, guests, conn, room);
                peers.on_room(conn);
                tunnels.on_room(conn);
                manager.on_room(conn);
            }
            Input::Closed { conn, .. } => self.on_closed(conn),
            Input::Done { effect, result } => self.on_done(effect, &result),
            Input::Opened { conn, via: Via::Manager, remote, room, .. } => {
                server.on_opened(cx, conn, remote, room);
            }
            Input::Opened { conn, via: Via::Terminals, .. } => {
                cx.out.close(conn, CloseReason::Finished);
            }
            Input::Terminal { .. } | Input::Answered { .. } => cx.statistics.stale_inputs += 1,
            Input::Tick => {}
            Input::Drain { deadline } => self.begin_drain(deadline),
            Input::Reload(config) => {
                self.reload(*config);
            }
        }
    }

    fn reload(&mut self, config: BrokerConfig) {
        #[cfg(feature = "model")]
        self.longest.widen(&config);
        let Self { cx, sweeps, .. } = self;
        let stricter = config.window < cx.config.window || config.interval < cx.config.interval;
        let identity = core::mem::take(&mut cx.config.identity);
        #[cfg(feature = "planted")]
        let config = BrokerConfig { planted: cx.config.planted, ..config };
        let before = core::mem::replace(&mut cx.config, BrokerConfig { identity, ..config }).guests;
        cx.linger = cx.config.linger();
        cx.event(None, Fact::BrokerReloaded);
        if stricter {
            sweeps.challenge_everybody();
        }
        sweeps.judge_everybody();
        self.server.mind_the_door(&mut self.cx);
        self.configure(before);
        self.sweep();
    }

    fn on_closed(&mut self, conn: ConnId) {
        let Self { cx, guests, links, clients, tunnels, server, .. } = self;
        if tunnels.contains(conn) {
            tunnels.on_closed(cx, conn);
        } else if server.contains(conn) {
            self.on_http_closed(conn);
        } else if clients.contains(conn) {
            clients.on_closed(conn);
            cx.notify(Notice::Lost(conn));
        } else {
            links.on_closed(cx, guests, conn);
        }
    }
}
