//! The broker's state, written down for an explorer. Every field of every state
//! is named here: a new one can't be forgotten.

use core::time::Duration;

use super::Broker;
use super::clients::Clients;
use super::commands::Commands;
use super::cx::Cx;
use super::door::Door;
use super::facts::{Keep, TimerKey, Urgency};
use super::guests::{self, Guests, RecordState, Row};
use super::links::{Attempt, Link, Links, SMALL, Stage};
use super::records::Records;
use super::session::{Challenge, Rare, Session};
use crate::fingerprint::Canon;
use crate::id::ConnId;
use crate::liveness::{Departure, Evidence, Stall, Standing, Verdict};
use crate::time::Time;

/// Bounds that no configuration changes.
const SECOND: Duration = Duration::from_secs(1);
const NOW: Duration = Duration::ZERO;

impl Broker {
    /// Writes this broker's state into `canon`, between two calls of `handle`.
    pub fn canonical(&self, canon: &mut Canon) {
        let Self {
            cx,
            guests,
            links,
            clients,
            commands,
            records,
            peers,
            tunnels,
            manager,
            server,
            drain,
            drain_timer: _,
            sweeps,
            allowance: _,
            more,
            longest: _,
        } = self;
        debug_assert!(peers.is_idle() && guests.relations.is_empty(), "peers are not written down");
        debug_assert!(tunnels.is_idle(), "streams are not written down");
        debug_assert!(manager.is_idle() && server.len() == 0, "attachments are not written down");
        links.introduce(canon);
        let rows = rows(guests, canon);
        cx.canonical(canon, &rows);
        for row in guests_in_order(guests, &rows) {
            row.canonical(canon, cx);
        }
        links.canonical(canon, cx);
        clients.canonical(canon);
        commands.canonical(canon);
        records.canonical(canon, cx.now.boot, &rows);
        canon.maybe(drain.map(|drain| drain.deadline));
        canon.flag(drain.is_some_and(|drain| drain.stopped));
        // No small world has so much to do at one time that any of it is put off.
        canon.flag(*more || !sweeps.is_done());
    }
}

/// The rows' places, by their numbers. A row without an introduced name has none.
fn rows(guests: &Guests, canon: &Canon) -> alloc::vec::Vec<Option<usize>> {
    guests.rows.iter().map(|row| canon.place_of(&row.as_ref()?.name())).collect()
}

fn guests_in_order<'a>(guests: &'a Guests, rows: &[Option<usize>]) -> impl Iterator<Item = &'a Row> {
    let Guests { names: _, rows: kept, free: _, tokens, line: _, relations: _, keyed_rows: _ } = guests;
    debug_assert!(tokens.is_empty(), "keyed names are not written down");
    (0..rows.len()).filter_map(move |wanted| {
        let number = rows.iter().position(|place| *place == Some(wanted))?;
        kept[number].as_ref()
    })
}

impl Cx {
    fn canonical(&self, canon: &mut Canon, rows: &[Option<usize>]) {
        let Self {
            config: _,
            now: _,
            out: _,
            entropy: _,
            timers,
            ring: _,
            linger: _,
            stall,
            draining,
            incarnation: _,
            statistics: _,
            notices,
            tunnel_bytes: _,
            said: _,
            sessions_begun: _,
            reserved_incarnation: _,
            background,
        } = self;
        debug_assert!(notices.is_empty());
        // The heap as it lies: it decides which of two equal deadlines is first.
        for (key, at) in timers.heap() {
            let (kind, place) = match key {
                TimerKey::Link(conn) => (1, canon.conn_place(conn)),
                TimerKey::Row(row) => (2, rows[row.index()].map_or(u64::MAX, |place| place as u64)),
                TimerKey::Command(_) => (3, 0),
                TimerKey::Door => (4, 0),
                TimerKey::Records => (5, 0),
                TimerKey::Drain => (6, 0),
                TimerKey::Peer(_) => (7, 0),
                TimerKey::Mail => (8, 0),
                TimerKey::Tunnel => (9, 0),
                TimerKey::Attach => (10, 0),
                TimerKey::Http(conn) => (11, canon.conn_place(conn)),
                TimerKey::Adoption(_) => (12, 0),
                TimerKey::HttpDoor => (13, 0),
            };
            canon.word(kind);
            canon.word(place);
            canon.time(at);
        }
        match stall {
            None => canon.word(0),
            Some(Stall { began, woke, reason }) => {
                canon.word(1 + *reason as u64);
                canon.time(*began);
                canon.time(*woke);
            }
        }
        canon.flag(*draining);
        canon.word(background.len() as u64);
    }
}

impl Cx {
    /// When a proof's challenge was sent. Beyond the window it only matters
    /// whether the guest had been fresh when this broker stalled, or seems to be
    /// stalling.
    fn proof_time(&self, canon: &mut Canon, at: Time) {
        let window = self.config.window;
        canon.recent(at, window);
        let stalling = self.timers.next().map(|next| next.at).filter(|at| canon.is_older(*at, NOW));
        for began in self.stall.map(|stall| stall.began).into_iter().chain(stalling) {
            canon.flag(at + window >= began);
        }
    }
}

impl Row {
    fn canonical(&self, canon: &mut Canon, cx: &Cx) {
        let Self {
            name: _,
            keep,
            standing,
            session,
            since: _,
            evidence,
            proven,
            authenticated,
            claimed,
            refused,
            handshaking,
            last_wall,
            epoch: _,
            boot,
            transport: _,
            remote: _,
            handshakes: _,
            capabilities: _,
            record: RecordState { written, written_at },
            queued,
            announced: Verdict { state, reason },
            in_line: _,
            older: _,
            newer: _,
            rare: _,
        } = self;
        let guests::Rare { legacy, contender, refusals: _, takeovers: _, takeover_times, timer: _ } =
            self.rare();
        canon.word(match standing {
            Standing::Absent => 0,
            Standing::Open => 1,
            Standing::OneShot => 2,
            Standing::Ended(Departure::Goodbye) => 3,
            Standing::Ended(Departure::Disconnected) => 4,
            Standing::Ended(Departure::Stale) => 5,
        });
        for conn in [session, legacy, contender] {
            maybe_conn(canon, *conn);
        }
        canon.flag(evidence.is_some());
        // Without a session it is told, and nothing rests on it.
        if let (Some(Evidence { at, received }), Standing::Open | Standing::OneShot) = (evidence, standing) {
            cx.proof_time(canon, *at);
            canon.flag(cx.stall.is_some_and(|stall| *received < stall.woke));
        }
        let configured = keep.is(Keep::CONFIGURED);
        for flag in [&configured, proven, authenticated, claimed, refused] {
            canon.flag(*flag);
        }
        canon.word(u64::from(*handshaking));
        for wall in [last_wall, written] {
            canon.word(wall.map_or(u64::MAX, |wall| wall.unix_seconds()));
        }
        canon.epoch(self.epoch());
        canon.bytes(&boot.map_or([0; 4], |boot| boot.0));
        canon.maybe(*written_at);
        canon.word(match queued {
            None => 0,
            Some(Urgency::Transition) => 1,
            Some(Urgency::Refresh) => 2,
        });
        for at in takeover_times {
            canon.time(*at);
        }
        canon.word(*state as u64);
        canon.word(reason.map_or(u64::MAX, |reason| reason as u64));
    }
}

impl Links {
    /// What can still be answered, before anybody answers it.
    fn introduce(&self, canon: &mut Canon) {
        for place in 0..canon.conns() {
            let conn = canon.conn_at(place);
            let Some(link) = self.table.get(conn) else { continue };
            if let Stage::Proving(attempt) = &link.stage {
                canon.asked(conn, None, attempt.nonce);
            }
            if let Some(session) = &link.session {
                for challenge in session.answerable() {
                    canon.asked(conn, Some(challenge.seq), challenge.nonce);
                }
            }
        }
    }

    fn canonical(&self, canon: &mut Canon, cx: &Cx) {
        let Self { table, door: Door { waiting: _, shut, timer: _ }, subscribers } = self;
        canon.word(table.len() as u64);
        canon.flag(*shut);
        canon.word(subscribers.len() as u64);
        for place in 0..canon.conns() {
            let conn = canon.conn_at(place);
            match table.get(conn) {
                Some(link) => link.canonical(canon, cx, conn),
                None => canon.word(u64::MAX),
            }
        }
    }
}

impl Link {
    fn canonical(&self, canon: &mut Canon, cx: &Cx, conn: ConnId) {
        let Self {
            generation: _,
            transport,
            remote: _,
            room,
            capacity,
            inflow,
            inbox_void,
            paused,
            skipping,
            timer: _,
            stage,
            session,
            blocked_since,
            half_open,
        } = self;
        canon.word(*transport as u64);
        // Whether there is room for a line, for a frame, and for taking more in.
        for needed in [SMALL, SMALL + 64, *capacity as usize / 3] {
            canon.flag(*room as usize >= needed);
        }
        let inflow = inflow.as_deref();
        canon.bytes(inflow.map_or(&[], |inflow| inflow.inbox.unfinished()));
        canon.to_broker(conn, inflow.map_or(&[], |inflow| &inflow.held));
        for flag in [*inbox_void, *paused, *skipping, half_open.is_some()] {
            canon.flag(flag);
        }
        canon.maybe(*blocked_since);
        canon.maybe(session.as_ref().and_then(|session| session.rare().reset_by));
        match stage {
            Stage::Idle => canon.word(0),
            Stage::Hello { since } => {
                canon.word(1);
                canon.time(*since);
            }
            Stage::Proving(attempt) => {
                canon.word(2);
                attempt.canonical(canon, cx);
            }
            Stage::Frames => canon.word(3),
        }
        match session {
            None => canon.word(0),
            Some(session) => session.canonical(canon, cx),
        }
    }
}

impl Attempt {
    fn canonical(&self, canon: &mut Canon, cx: &Cx) {
        let Self { hello, since, sent_at, nonce: _, epoch, keys, row, conflict_until } = self;
        canon.name(&hello.name);
        canon.flag(hello.once);
        canon.bytes(hello.capabilities.as_str().as_bytes());
        canon.time(*since);
        cx.proof_time(canon, *sent_at);
        canon.epoch(Some(*epoch));
        debug_assert!(keys.is_none(), "keys are not written down");
        canon.flag(row.is_some());
        canon.maybe(*conflict_until);
    }
}

impl Session {
    /// The challenges that may still be answered, oldest first.
    fn answerable(&self) -> impl Iterator<Item = &Challenge> {
        let mut all = [None; 5];
        let Rare { older, conflict, .. } = self.rare();
        let kept = older.iter().chain([&self.newest, conflict]).flatten();
        for (slot, challenge) in all.iter_mut().zip(kept) {
            *slot = Some(challenge);
        }
        all.sort_unstable_by_key(|challenge| challenge.map_or(u64::MAX, |challenge| challenge.seq));
        all.into_iter().flatten()
    }

    fn canonical(&self, canon: &mut Canon, cx: &Cx) {
        let Self {
            row,
            epoch,
            next_challenge,
            frame_by,
            heard,
            since: _,
            newest: _,
            last_seq: _,
            seal,
            rare: _,
            questions,
            strikes,
            at_once,
            legacy,
        } = self;
        let Rare { conflict, older: _, late_answered, reset_by: _, topics } = self.rare();
        debug_assert!(seal.is_none(), "keys are not written down");
        canon.flag(row.is_some());
        canon.epoch(Some(*epoch));
        canon.time(*next_challenge);
        canon.maybe(*frame_by);
        canon.time(*heard);
        canon.word(topics.len() as u64 + u64::from(*questions));
        canon.word(u64::from(*strikes));
        canon.maybe(late_answered.filter(|at| !canon.is_older(*at, SECOND)));
        canon.flag(*at_once);
        canon.flag(*legacy);
        for challenge in self.answerable() {
            let Challenge { seq, nonce: _, sent_at } = challenge;
            canon.flag(conflict.is_some_and(|conflict| conflict.seq == *seq));
            cx.proof_time(canon, *sent_at);
        }
    }
}

impl Clients {
    fn canonical(&self, canon: &mut Canon) {
        debug_assert_eq!(self.len(), 0, "control clients are not written down");
        canon.word(self.len() as u64);
    }
}

impl Commands {
    fn canonical(&self, canon: &mut Canon) {
        let Self { open, waits: _, bound_to: _, last: _, changes, storing, reloads, starts } = self;
        debug_assert!(starts.is_empty(), "start commands are not written down");
        canon.word((open.len() + changes.len() + reloads.len()) as u64);
        canon.flag(storing.is_some());
    }
}

impl Records {
    fn canonical(&self, canon: &mut Canon, now: Time, rows: &[Option<usize>]) {
        let Self { transitions, refreshes, writing, second: (second, count), timer: _, failing } = self;
        let numbers = transitions.iter().chain(refreshes).chain(writing.values());
        canon.word((transitions.len() as u64) << 16 | refreshes.len() as u64);
        for row in numbers {
            canon.word(rows[row.index()].map_or(u64::MAX, |place| place as u64));
        }
        // A second that is over counts nothing.
        let counts = now.since(*second) < SECOND && !canon.is_older(*second, SECOND);
        canon.maybe(counts.then_some(*second));
        canon.word(if counts { u64::from(*count) } else { 0 });
        canon.flag(*failing);
    }
}

fn maybe_conn(canon: &mut Canon, conn: Option<ConnId>) {
    match conn {
        Some(conn) => canon.conn(conn),
        None => canon.word(u64::MAX - 1),
    }
}
