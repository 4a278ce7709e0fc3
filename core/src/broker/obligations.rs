//! What the broker owes, and whether it would be woken for it.

use core::time::Duration;

use super::Broker;
use super::commands::{Asker, Commands};
use super::cx::Cx;
use super::links::{Link, Stage};
use crate::config::BrokerConfig;
use crate::id::ConnId;
use crate::liveness::{self, Standing};
use crate::obligations::Unguarded;

/// The longest bounds of any configuration that was in force: a reload that
/// shortens one leaves what is already open alone.
#[derive(Clone, Copy, Debug)]
pub(super) struct Longest {
    command: Duration,
    conflict: Duration,
    frame: Duration,
    handshake: Duration,
    http: Duration,
}

impl Longest {
    pub(super) fn new(config: &BrokerConfig) -> Self {
        let peers = &config.peers;
        let command = [
            config.request_timeout_max,
            config.wait_timeout,
            config.ping_timeout,
            peers.timeout,
            peers.offer_timeout,
            peers.restore_timeout,
            config.tunnel.open_timeout,
            config.tunnel.linger,
            config.manager.wait_timeout,
        ];
        let manager = &config.manager;
        let http = [manager.poll_max, manager.request_timeout, manager.idle_timeout, Duration::from_secs(2)];
        Self {
            command: command.into_iter().fold(config.storage_timeout, Duration::max),
            conflict: config.conflict_timeout,
            frame: config.frame_timeout,
            handshake: config.handshake_timeout,
            http: http.into_iter().fold(config.storage_timeout, Duration::max),
        }
    }

    pub(super) fn widen(&mut self, config: &BrokerConfig) {
        let other = Self::new(config);
        *self = Self {
            command: self.command.max(other.command),
            conflict: self.conflict.max(other.conflict),
            frame: self.frame.max(other.frame),
            handshake: self.handshake.max(other.handshake),
            http: self.http.max(other.http),
        };
    }
}

impl Broker {
    /// Whether everything that this broker owes has an armed timer in time: a
    /// wait without one could last for ever. To be asked between two calls of
    /// `handle`. Doesn't allocate; walks over the rows, connections and commands.
    ///
    /// # Errors
    /// The first obligation that nothing guards.
    pub fn check_obligations(&self) -> Result<(), Unguarded> {
        if self.drain.is_some_and(|drain| drain.stopped) {
            return Ok(());
        }
        if !self.sweeps.is_done() {
            // What is to be asked, judged and armed anew, all of it in calls at once.
            return Unguarded::new("work put off").unless(self.more);
        }
        let linger = self.cx.config.linger();
        let mut counted = Counted::default();
        for (conn, link) in self.links.table.iter() {
            self.check_link(conn, link, linger)?;
            counted.add(link);
        }
        self.check_rows(counted.handshakes)?;
        self.commands.check(&self.cx, self.longest.command)?;
        self.check_answers(counted.questions)?;
        self.peers.check(&self.cx, self.longest.command, self.more)?;
        self.tunnels.check(&self.cx, self.longest.command)?;
        self.manager.check(&self.cx, self.longest.command)?;
        self.server.check(&self.cx, self.longest.http)?;
        let Self { cx, records, links, .. } = self;
        if records.has_queued() {
            let wait = cx.config.record_interval.max(Duration::from_secs(1));
            Unguarded::new("a record to be written")
                .unless_armed(cx.timers.armed(records.timer), cx.at() + wait)?;
        }
        if let Some(bound) = links.eviction_due(cx) {
            Unguarded::new("an eviction").unless_armed(cx.timers.armed(links.door.timer), bound)?;
        }
        if let Some(drain) = &self.drain {
            Unguarded::new("the drain").unless_armed(cx.timers.armed(self.drain_timer), drain.deadline)?;
        }
        Ok(())
    }

    fn check_link(&self, conn: ConnId, link: &Link, linger: Duration) -> Result<(), Unguarded> {
        let Self { cx, guests, longest, .. } = self;
        let (config, now) = (&cx.config, cx.at());
        let armed = cx.timers.armed(link.timer);
        let owes = |what| Unguarded::new(what).on(conn);
        let since = match &link.stage {
            Stage::Hello { since } => Some(*since),
            Stage::Proving(attempt) => {
                if let Some(until) = attempt.conflict_until {
                    let owes = owes("a conflict over the name").of(attempt.hello.name);
                    owes.unless_armed(armed, until)?;
                    owes.unless_within(until, now, longest.conflict)?;
                }
                Some(attempt.since)
            }
            Stage::Frames => None,
            Stage::Idle => {
                owes("a handshake").unless(link.is_serial())?;
                None
            }
        };
        if let Some(since) = since {
            owes("a handshake").unless_armed(armed, since + config.handshake_timeout)?;
            owes("a half-open connection's place").unless(link.half_open.is_some())?;
        }
        if let Some(reset_by) = link.session.as_ref().and_then(|session| session.rare().reset_by) {
            owes("a session begun anew").unless_armed(armed, reset_by)?;
            owes("a session begun anew").unless_within(reset_by, now, longest.handshake)?;
        }
        let Some(session) = &link.session else {
            return owes("a session").unless(!link.in_frames());
        };
        if session.is_legacy() {
            let bound = session.heard + config.legacy_heartbeat_timeout;
            owes("a heartbeat").unless_armed(armed, bound)?;
        } else {
            owes("a silent session's end").unless_armed(armed, session.heard + linger)?;
            if link.in_frames() {
                owes("a challenge").unless_armed(armed, session.next_challenge)?;
                owes("a challenge").unless_within(session.next_challenge, now, config.interval)?;
            }
        }
        if let Some(since) = link.blocked_since {
            owes("a peer that doesn't read").unless_armed(armed, since + config.window)?;
        }
        if let Some(by) = session.frame_by {
            owes("an unfinished frame").unless_armed(armed, by)?;
            owes("an unfinished frame").unless_within(by, now, longest.frame)?;
        }
        if let Some(row) = session.row.and_then(|row| guests.get(row))
            && row.session == Some(conn)
        {
            let facts = row.facts(config, now);
            if let Some(at) = liveness::next_change(&facts, config.window, cx.stall.as_ref(), now) {
                owes("a verdict").of(row.name()).unless_armed(armed, at)?;
            }
        }
        Ok(())
    }

    /// What rows say about connections is so, or they would say it for ever.
    fn check_rows(&self, handshakes: usize) -> Result<(), Unguarded> {
        let Self { cx, guests, links, .. } = self;
        let mut handshaking = 0;
        for row in guests.rows() {
            handshaking += row.handshaking;
            let owes = |what| Unguarded::new(what).of(row.name());
            if row.standing == Standing::OneShot {
                let facts = row.facts(&cx.config, cx.at());
                if let Some(at) = liveness::next_change(&facts, cx.config.window, None, cx.at()) {
                    let armed = row.rare().timer.and_then(|timer| cx.timers.armed(timer));
                    owes("a one-shot proof's end").unless_armed(armed, at)?;
                }
            }
            for conn in row.session.into_iter().chain(row.rare().legacy) {
                let open = links.table.get(conn).is_some_and(|link| link.session.is_some());
                owes("an open session").on(conn).unless(open)?;
            }
            owes("an open session").unless((row.standing == Standing::Open) == row.session.is_some())?;
            if let Some(conn) = row.rare().contender {
                let stage = links.table.get(conn).map(|link| &link.stage);
                let waits =
                    matches!(stage, Some(Stage::Proving(attempt)) if attempt.conflict_until.is_some());
                owes("a conflict over the name").on(conn).unless(waits)?;
            }
        }
        Unguarded::new("a handshake that its row counts").unless(handshakes == handshaking as usize)
    }

    /// Every unanswered request belongs to a command, and what was put off goes on at once.
    fn check_answers(&self, questions: usize) -> Result<(), Unguarded> {
        let Self { cx, clients, commands, peers, manager, more, .. } = self;
        let (from_clients, from_guests) = commands.askers();
        let from_clients = from_clients + peers.client_requests() + manager.client_requests();
        Unguarded::new("work put off").unless(*more || (cx.notices.is_empty() && !clients.is_hungry()))?;
        Unguarded::new("the answer to a client").unless(*more || from_clients == clients.unanswered())?;
        Unguarded::new("the answer to a guest").unless(*more || from_guests == questions)
    }
}

/// What connections have in all, for comparison with what others say of it.
#[derive(Default)]
struct Counted {
    /// Handshakes under a name that has a row.
    handshakes: usize,
    /// Unanswered questions of guests.
    questions: usize,
}

impl Counted {
    fn add(&mut self, link: &Link) {
        let counts = matches!(&link.stage, Stage::Proving(attempt) if attempt.row.is_some());
        self.handshakes += usize::from(counts);
        self.questions += link.session.as_ref().map_or(0, |session| usize::from(session.questions));
    }
}

impl Commands {
    /// How many commands have to be answered to clients, and how many to guests.
    fn askers(&self) -> (usize, usize) {
        let clients =
            self.open.values().filter(|command| matches!(command.asker, Asker::Client { .. })).count();
        (clients, self.open.len() - clients)
    }

    fn check(&self, cx: &Cx, most: Duration) -> Result<(), Unguarded> {
        for command in self.open.values() {
            let owes = Unguarded::new("a command");
            let Some(at) = cx.timers.armed(command.timer) else { return Err(owes) };
            owes.unless_within(at, cx.at(), most)?;
        }
        Unguarded::new("a change of durable state").unless(self.changes.is_empty() || self.storing.is_some())
    }
}
