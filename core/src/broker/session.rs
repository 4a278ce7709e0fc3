//! Phase B: challenges and proofs, and how a session ends.

use alloc::boxed::Box;
use alloc::string::String;
use alloc::vec::Vec;
use core::time::Duration;

use crate::auth::{Direction, SessionKey, TAG_DIGITS};
use crate::boundary::{CloseReason, Wakeup};
use crate::broker::cx::{Cx, retry_after};
use crate::broker::facts::{CommandId, Notice, RowId, Urgency};
use crate::broker::guests::{Guests, Row};
use crate::broker::links::{Link, Links, SMALL};
use crate::event::{Fact, SessionEnd};
use crate::id::{ConnId, Epoch, Nonce};
use crate::link::inbox::{FRAME_MAX, SERIAL_FRAME_MAX, append_frame};
use crate::link::message::{self, GuestFrame};
use crate::liveness::{Departure, Evidence};
use crate::time::{Time, WallTime, millis, nanos};

/// One session. A 0.1 session has neither challenges nor a key.
#[derive(Clone, Debug)]
pub(crate) struct Session {
    /// `None` for the host's own 0.1 bus client.
    pub(crate) row: Option<RowId>,
    pub(crate) epoch: Epoch,
    pub(crate) next_challenge: Time,
    /// When the unfinished frame must be whole.
    pub(crate) frame_by: Option<Time>,
    /// The newest proof (0.1: heartbeat), or the begin.
    pub(crate) heard: Time,
    pub(super) since: Time,
    /// The newest challenge, until it is answered.
    pub(super) newest: Option<Challenge>,
    pub(super) last_seq: u64,
    pub(super) seal: Option<Box<Seal>>,
    /// Nothing of it, for almost every session at almost every time.
    pub(super) rare: Option<Box<Rare>>,
    /// Unanswered questions of the guest.
    pub(crate) questions: u8,
    pub(super) strikes: u8,
    /// A challenge is due, whatever `next_challenge` says.
    pub(super) at_once: bool,
    pub(super) legacy: bool,
}

/// What few sessions have. Sessions are many, and idle: it is kept apart.
#[derive(Clone, Debug)]
pub(crate) struct Rare {
    /// The challenge that decides a conflict, outside the usual limit.
    pub(super) conflict: Option<Challenge>,
    /// Challenges before the newest that may still be answered.
    pub(super) older: [Option<Challenge>; 3],
    pub(super) late_answered: Option<Time>,
    /// Serial: the session ends then, unless a new `ok` comes before.
    pub(super) reset_by: Option<Time>,
    /// 0.1 subscriptions.
    pub(super) topics: Vec<String>,
}

static NOTHING: Rare =
    Rare { conflict: None, older: [None; 3], late_answered: None, reset_by: None, topics: Vec::new() };

/// What tags the frames of a keyed session, and how many there were each way.
#[derive(Clone, Debug)]
pub(crate) struct Seal {
    key: SessionKey,
    received: u64,
    sent: u64,
}

/// A challenge that may still be answered.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Challenge {
    pub(super) seq: u64,
    pub(super) nonce: Nonce,
    pub(super) sent_at: Time,
}

/// Wrong proofs in a row that end a session.
const STRIKES: u8 = 3;

/// Most unanswered questions of one guest.
pub(crate) const QUESTIONS_MAX: u8 = 16;

impl Session {
    /// The first challenge falls anywhere in the interval, so that guests that
    /// arrive together are not asked together for ever.
    pub(crate) fn new(cx: &mut Cx, row: RowId, epoch: Epoch, key: Option<SessionKey>) -> Self {
        let interval = cx.config.interval;
        let next_challenge = cx.at() + (interval - cx.entropy.jitter(interval));
        let seal = key.map(|key| Box::new(Seal { key, received: 0, sent: 0 }));
        Self { seal, next_challenge, ..Self::blank(cx, Some(row), epoch, false) }
    }

    pub(crate) fn legacy(cx: &Cx, row: Option<RowId>, epoch: Epoch) -> Self {
        Self::blank(cx, row, epoch, true)
    }

    fn blank(cx: &Cx, row: Option<RowId>, epoch: Epoch, legacy: bool) -> Self {
        Self {
            row,
            epoch,
            next_challenge: Time::MAX,
            frame_by: None,
            heard: cx.at(),
            since: cx.at(),
            newest: None,
            last_seq: 0,
            seal: None,
            rare: None,
            questions: 0,
            strikes: 0,
            at_once: false,
            legacy,
        }
    }

    pub(crate) const fn is_legacy(&self) -> bool {
        self.legacy
    }

    /// The earliest of its own deadlines; the verdict's is the row's.
    pub(crate) fn deadline(&self, cx: &Cx, link: &Link) -> Time {
        let config = &cx.config;
        let silence = if self.legacy { config.legacy_heartbeat_timeout } else { cx.linger };
        let slow = link.blocked_since.map(|since| since + config.window);
        // While a serial stream shakes hands again, keepalives wait.
        let challenge = link.in_frames().then_some(self.next_challenge);
        [self.frame_by, slow, challenge].into_iter().flatten().fold(self.heard + silence, Time::min)
    }

    pub(crate) fn rare(&self) -> &Rare {
        self.rare.as_deref().unwrap_or(&NOTHING)
    }

    pub(crate) fn rare_mut(&mut self) -> &mut Rare {
        self.rare.get_or_insert_with(|| Box::new(NOTHING.clone()))
    }

    /// The conflict is decided.
    pub(crate) fn forget_conflict(&mut self) {
        if let Some(rare) = &mut self.rare {
            rare.conflict = None;
        }
    }

    /// Asks now; from then on it goes on as before, at the same point of the
    /// interval: guests that are asked together once are not asked together for ever.
    pub(super) fn challenge_at_once(&mut self, now: Time, interval: Duration) {
        let period = nanos(interval).max(1);
        let (due, asked) = (self.next_challenge.as_nanos(), now.as_nanos());
        let ahead = if due > asked { (due - asked) % period } else { period - (asked - due) % period };
        self.at_once = true;
        self.next_challenge = now + Duration::from_nanos(if ahead == 0 { period } else { ahead });
    }

    fn take(&mut self, seq: u64) -> Option<Challenge> {
        let asked = |slot: &mut Challenge| slot.seq == seq;
        let older = self.rare.iter_mut().flat_map(|rare| &mut rare.older);
        core::iter::once(&mut self.newest).chain(older).find_map(|slot| slot.take_if(asked))
    }

    fn issue(&mut self, nonce: Nonce, sent_at: Time) -> Challenge {
        self.last_seq += 1;
        Challenge { seq: self.last_seq, nonce, sent_at }
    }

    /// The newest, and three before it. A fifth forgets the oldest, or, as long as that could
    /// prove something, the one between them whose neighbours are nearest: so an answer counts
    /// however many intervals it is under way.
    fn keep(&mut self, challenge: Challenge, window: Duration) {
        let before = self.newest.replace(challenge);
        self.rare.take_if(|rare| rare.is_nothing());
        let Some(before) = before else { return };
        let older = &mut self.rare_mut().older;
        let [Some(first), Some(second), Some(third)] = *older else {
            if let Some(free) = older.iter_mut().find(|slot| slot.is_none()) {
                *free = Some(before);
            }
            return;
        };
        let mut open = [first, second, third, before, challenge];
        open.sort_unstable_by_key(|kept| kept.seq);
        let gap = |place: &usize| open[place + 1].sent_at.since(open[place - 1].sent_at);
        let is_void = open[0].sent_at + window <= challenge.sent_at;
        let forgotten = if is_void { 0 } else { (1..4).min_by_key(gap).unwrap_or(0) };
        let mut kept = open.into_iter().take(4).enumerate().filter(|(place, _)| *place != forgotten);
        older.fill_with(|| kept.next().map(|(_, challenge)| challenge));
    }
}

impl Rare {
    fn is_nothing(&self) -> bool {
        let Self { conflict, older, late_answered, reset_by, topics } = self;
        conflict.is_none()
            && older.iter().all(Option::is_none)
            && late_answered.is_none()
            && reset_by.is_none()
            && topics.is_empty()
    }
}

impl Links {
    /// Sends a frame whose JSON has at most `most` bytes, if there is room.
    pub(crate) fn send(
        &mut self,
        cx: &mut Cx,
        conn: ConnId,
        most: usize,
        write: impl FnOnce(&mut Vec<u8>),
    ) -> bool {
        let Some(link) = self.table.get_mut(conn) else { return false };
        let serial = link.is_serial();
        if !link.in_frames() {
            return false;
        }
        if link.session.is_none() {
            return false;
        }
        let limit = if serial { SERIAL_FRAME_MAX } else { FRAME_MAX };
        if most + TAG_DIGITS + 1 > limit {
            return false;
        }
        if link.room() < most + 64 {
            let since = *link.blocked_since.get_or_insert(cx.now.boot);
            cx.timers.arm_by(link.timer, since + cx.config.window, Wakeup::Session);
            return false;
        }
        let seal = link.session.as_mut().and_then(|session| session.seal.as_deref_mut());
        let tag_length = seal.as_ref().map_or(0, |_| TAG_DIGITS);
        let sent = cx.out.transmit(conn, |out| {
            append_frame(out, serial, tag_length, write, |out, json| {
                if let Some(seal) = seal {
                    seal.key.append_tag(Direction::ToGuest, seal.sent, json, out);
                    seal.sent += 1;
                }
            });
        });
        link.spend(sent);
        true
    }

    /// Sends a challenge and remembers it; a fifth forgets the oldest.
    fn challenge(&mut self, cx: &mut Cx, conn: ConnId) -> Option<Challenge> {
        let nonce = cx.entropy.nonce();
        let now = cx.at();
        let session = self.table.get_mut(conn)?.session.as_mut()?;
        let challenge = session.issue(nonce, now);
        let sent =
            self.send(cx, conn, SMALL, |out| message::append_challenge(out, challenge.seq, &challenge.nonce));
        if !sent {
            cx.statistics.challenges_blocked += 1;
        }
        sent.then_some(challenge)
    }

    pub(crate) fn challenge_incumbent(&mut self, cx: &mut Cx, conn: ConnId) {
        let challenge = self.challenge(cx, conn);
        if let Some(session) = self.table.get_mut(conn).and_then(|link| link.session.as_mut()) {
            session.rare_mut().conflict = challenge;
        }
    }

    fn challenge_and_keep(&mut self, cx: &mut Cx, conn: ConnId) {
        if let Some(challenge) = self.challenge(cx, conn)
            && let Some(session) = self.table.get_mut(conn).and_then(|link| link.session.as_mut())
        {
            session.keep(challenge, cx.config.window);
        }
    }

    pub(crate) fn on_frame(&mut self, cx: &mut Cx, guests: &mut Guests, conn: ConnId, payload: &[u8]) {
        let Some(session) = self.table.get_mut(conn).and_then(|link| link.session.as_mut()) else { return };
        session.frame_by = None;
        let json = match &mut session.seal {
            None => payload,
            Some(seal) => match seal.key.open(Direction::ToBroker, seal.received, payload) {
                Ok(json) => {
                    seal.received += 1;
                    json
                }
                Err(_) => return self.end_session_with_bye(cx, guests, conn, SessionEnd::BadMac),
            },
        };
        match GuestFrame::parse(json) {
            Err(_) => self.end_session_with_bye(cx, guests, conn, SessionEnd::BadFrame),
            Ok(GuestFrame::Proof(proof)) => self.on_keepalive(cx, guests, conn, proof.seq, &proof.proof),
            Ok(GuestFrame::Goodbye) => {
                self.end_session(cx, guests, conn, SessionEnd::Goodbye);
                self.hang_up(cx, conn, CloseReason::Ended);
            }
            Ok(GuestFrame::Ping { id }) => {
                self.send(cx, conn, SMALL, |out| message::append_ping(out, id, true));
            }
            Ok(GuestFrame::Pong { id }) => {
                cx.notify(Notice::Pong { conn, command: CommandId(id) });
            }
            Ok(GuestFrame::Heartbeat) => self.on_heartbeat(cx, guests, conn),
            Ok(GuestFrame::Subscribe { topic }) => self.on_subscribe(cx, conn, topic.as_deref()),
            Ok(GuestFrame::Publish(publish)) => self.on_publish(cx, guests, conn, &publish),
            Ok(GuestFrame::Request(request)) => self.on_question(cx, conn, request),
            Ok(GuestFrame::Peer(request)) => self.on_peer(cx, guests, conn, request),
            Ok(GuestFrame::Attach(request)) => self.on_attach(cx, guests, conn, request),
            Ok(GuestFrame::Tunnel(frame)) => {
                if self.on_tunnel(cx, conn, frame).is_err() {
                    self.end_session_with_bye(cx, guests, conn, SessionEnd::BadFrame);
                }
            }
            Ok(GuestFrame::Unknown(kind)) => self.on_unknown(cx, conn, kind.as_deref()),
        }
    }

    /// A proof: evidence if it answers a challenge that still counts.
    fn on_keepalive(&mut self, cx: &mut Cx, guests: &mut Guests, conn: ConnId, seq: u64, proof: &Nonce) {
        let now = cx.at();
        let Some(session) = self.table.get_mut(conn).and_then(|link| link.session.as_mut()) else { return };
        let deciding = session.rare().conflict.filter(|challenge| challenge.seq == seq);
        let Some(mut challenge) = deciding.or_else(|| session.take(seq)) else {
            if (1..=session.last_seq).contains(&seq) {
                cx.statistics.late_proofs += 1;
                let second = Duration::from_secs(1);
                if session.rare().late_answered.is_none_or(|last| now.since(last) >= second) {
                    session.rare_mut().late_answered = Some(now);
                    self.challenge_and_keep(cx, conn);
                }
                return;
            }
            return self.strike(cx, guests, conn);
        };
        if !challenge.nonce.matches(proof) && !planted!(cx.config, NonceUnchecked) {
            return self.strike(cx, guests, conn);
        }
        if planted!(cx.config, AgeFromReceipt) {
            challenge.sent_at = now;
        }
        session.strikes = 0;
        session.heard = now;
        let row = session.row;
        if deciding.is_some() {
            session.forget_conflict();
        }
        let Some(id) = row else { return };
        let mut contender = None;
        let counts = |row: &&mut Row| row.session == Some(conn) || planted!(cx.config, SupersededRefreshes);
        if let Some(row) = guests.get_mut(id).filter(counts) {
            // Challenges are answered in any order: an older one doesn't make the guest older.
            if row.evidence.is_none_or(|newest| challenge.sent_at >= newest.at) {
                row.evidence = Some(Evidence { at: challenge.sent_at, received: now });
                let age = millis(now.since(challenge.sent_at));
                row.last_wall =
                    Some(WallTime::from_unix_millis(cx.now.wall.unix_millis().saturating_sub_unsigned(age)));
            }
            row.handshakes += 1;
            contender = row.rare().contender.filter(|_| deciding.is_some());
        }
        guests.announce(cx, id);
        cx.notify(Notice::Evidence(id, Urgency::Refresh));
        if let Some(contender) = contender {
            self.refuse(cx, guests, contender, crate::event::Failure::NameInUse);
        }
    }

    fn strike(&mut self, cx: &mut Cx, guests: &mut Guests, conn: ConnId) {
        cx.statistics.strikes += 1;
        let Some(session) = self.table.get_mut(conn).and_then(|link| link.session.as_mut()) else { return };
        session.strikes += 1;
        if session.strikes >= STRIKES {
            self.end_session_with_bye(cx, guests, conn, SessionEnd::Strikes);
        }
    }

    /// What of a session became due.
    pub(crate) fn on_session_timer(&mut self, cx: &mut Cx, guests: &mut Guests, conn: ConnId) {
        let now = cx.at();
        let Some(link) = self.table.get(conn) else { return };
        let Some(session) = &link.session else { return };
        let config = &cx.config;
        let silence = if session.legacy { config.legacy_heartbeat_timeout } else { cx.linger };
        let end = if session.heard + silence <= now {
            Some(if session.legacy { SessionEnd::HeartbeatTimeout } else { SessionEnd::Stale })
        } else if link.blocked_since.is_some_and(|since| since + config.window <= now) {
            Some(SessionEnd::Slow)
        } else if session.frame_by.is_some_and(|by| by <= now) {
            Some(SessionEnd::BadFrame)
        } else {
            None
        };
        if let Some(end) = end {
            return self.end_session_with_bye(cx, guests, conn, end);
        }
        let row = session.row;
        if (session.at_once || session.next_challenge <= now) && link.in_frames() {
            self.challenge_and_keep(cx, conn);
            if let Some(link) = self.table.get_mut(conn)
                && let Some(session) = &mut link.session
                && !(planted!(cx.config, ChallengeHotLoop) && link.blocked_since.is_some())
            {
                session.at_once = false;
                if session.next_challenge <= now {
                    session.next_challenge = now + cx.config.interval;
                }
            }
        }
        if let Some(row) = row {
            guests.announce(cx, row);
        }
    }

    /// Takes leave of the guest, ends the session and the connection.
    pub(crate) fn end_session_with_bye(
        &mut self,
        cx: &mut Cx,
        guests: &mut Guests,
        conn: ConnId,
        why: SessionEnd,
    ) {
        self.say_bye(cx, conn, why);
        self.end_session(cx, guests, conn, why);
        self.part(cx, conn, CloseReason::Ended);
    }

    pub(crate) fn say_bye(&mut self, cx: &mut Cx, conn: ConnId, why: SessionEnd) {
        let retry_after = retry_after(cx, why);
        self.send(cx, conn, SMALL, |out| message::append_bye(out, why, retry_after));
    }

    /// Ends the session, says so, and lets a waiting contender in. The
    /// connection is the caller's.
    pub(crate) fn end_session(&mut self, cx: &mut Cx, guests: &mut Guests, conn: ConnId, why: SessionEnd) {
        let Some(id) = self.drop_session(cx, guests, conn, why) else { return };
        guests.mark_idle(id);
        guests.announce(cx, id);
        cx.notify(Notice::Evidence(id, Urgency::Transition));
        // A broker that leaves lets nobody in any more.
        let contender = guests.get(id).and_then(|row| row.rare().contender).filter(|_| !cx.draining);
        if let Some(contender) = contender {
            self.establish(cx, guests, contender);
        }
    }

    /// Ends the session in the row and in the events, without a verdict.
    pub(crate) fn drop_session(
        &mut self,
        cx: &mut Cx,
        guests: &mut Guests,
        conn: ConnId,
        why: SessionEnd,
    ) -> Option<RowId> {
        let link = self.table.get_mut(conn)?;
        let session = link.session.take()?;
        link.blocked_since = None;
        if !session.rare().topics.is_empty() {
            self.subscribers.retain(|other| *other != conn);
        }
        let lasted_ms = millis(cx.at().since(session.since));
        let row = session.row.and_then(|id| guests.get_mut(id));
        cx.event(
            row.as_ref().map(|row| row.name()),
            Fact::SessionClosed { epoch: session.epoch, reason: why, lasted_ms },
        );
        cx.notify(Notice::Lost(conn));
        let row = row?;
        if row.rare().legacy == Some(conn) {
            row.rare_mut().legacy = None;
        }
        if row.session == Some(conn) {
            row.end(match why {
                SessionEnd::Goodbye => Departure::Goodbye,
                SessionEnd::Stale | SessionEnd::Slow => Departure::Stale,
                SessionEnd::Disconnected
                | SessionEnd::Superseded
                | SessionEnd::Strikes
                | SessionEnd::BadMac
                | SessionEnd::BadFrame
                | SessionEnd::TokenChanged
                | SessionEnd::Forgotten
                | SessionEnd::HeartbeatTimeout
                | SessionEnd::Shutdown
                | SessionEnd::Replaced
                | SessionEnd::Resynchronised => Departure::Disconnected,
            });
        }
        session.row
    }
}
