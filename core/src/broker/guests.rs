//! The rows: one a name, with what is known of the guest.

use alloc::boxed::Box;
use alloc::collections::{BTreeMap, VecDeque};
use alloc::vec::Vec;
use core::cmp::Ordering;
use core::num::NonZeroU64;

use crate::auth::Key;
use crate::boundary::{Remote, Transport};
use crate::broker::cx::Cx;
use crate::broker::facts::{Keep, Notice, RowId, TimerKey, Urgency};
use crate::broker::names::Names;
use crate::capabilities::Capabilities;
use crate::endpoint::Packed;
use crate::event::Fact;
use crate::id::{BootTag, ConnId, Epoch, GuestName, ShortName};
use crate::liveness::{self, Departure, Evidence, Facts, Stall, Standing, Verdict};
use crate::pages::Pages;
use crate::peers::registry::Registry;
use crate::status::{Glance, GuestStatus, Reason, State, Warning};
use crate::time::{Now, Time, WallTime, millis};
use crate::timers::TimerId;

/// What is known of one guest.
#[derive(Clone, Debug)]
pub(crate) struct Row {
    pub(super) name: ShortName,
    pub(crate) keep: Keep,
    pub(crate) standing: Standing,
    /// The open session's connection.
    pub(crate) session: Option<ConnId>,
    /// Since `ok`.
    pub(crate) since: Time,
    pub(crate) evidence: Option<Evidence>,
    pub(crate) proven: bool,
    pub(crate) authenticated: bool,
    pub(crate) claimed: bool,
    pub(crate) refused: bool,
    pub(crate) handshaking: u32,
    /// Wall time of the newest evidence ever.
    pub(crate) last_wall: Option<WallTime>,
    pub(super) epoch: Option<NonZeroU64>,
    pub(crate) boot: Option<BootTag>,
    pub(crate) transport: Option<Transport>,
    pub(super) remote: Option<Packed>,
    pub(crate) handshakes: u64,
    pub(crate) capabilities: Capabilities,
    pub(crate) record: RecordState,
    pub(crate) queued: Option<Urgency>,
    pub(super) announced: Verdict,
    /// Its place among the rows that may have to make room.
    pub(super) in_line: bool,
    pub(super) older: Option<RowId>,
    pub(super) newer: Option<RowId>,
    pub(super) rare: Option<Box<Rare>>,
}

/// What few guests have. Rows are many: it is kept apart.
#[derive(Clone, Debug)]
pub(crate) struct Rare {
    /// The open 0.1 session, where those count for nothing.
    pub(crate) legacy: Option<ConnId>,
    /// Who proved itself under the name while a session stands.
    pub(crate) contender: Option<ConnId>,
    pub(crate) refusals: u64,
    pub(crate) takeovers: u64,
    pub(super) takeover_times: VecDeque<Time>,
    /// The row's own, for one-shot proofs.
    pub(super) timer: Option<TimerId>,
}

static NOTHING: Rare = Rare {
    legacy: None,
    contender: None,
    refusals: 0,
    takeovers: 0,
    takeover_times: VecDeque::new(),
    timer: None,
};

/// Where a row's 0.1 record stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct RecordState {
    /// The wall time that was last handed to the shell.
    pub(crate) written: Option<WallTime>,
    pub(crate) written_at: Option<Time>,
}

/// Every table is full.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Full;

/// All rows, and who has a token.
#[derive(Clone, Debug, Default)]
pub(crate) struct Guests {
    pub(super) names: Names,
    pub(super) rows: Pages<Option<Row>>,
    pub(super) free: Vec<RowId>,
    /// Every name that has, or ever had (`None`), a token.
    pub(super) tokens: BTreeMap<GuestName, Option<Key>>,
    /// Rows of names with a token: they don't count where rows are bounded.
    pub(super) keyed_rows: usize,
    /// Unconfigured rows in the order in which they became idle: the ends of the
    /// list. Whoever has a session again leaves it when it is next seen.
    pub(super) line: (Option<RowId>, Option<RowId>),
    /// Who is whose peer.
    pub(crate) relations: Registry,
}

impl Guests {
    pub(crate) fn find(&self, name: &GuestName) -> Option<RowId> {
        self.names.find(|row| self.compare(row, name)).ok().and_then(|place| self.names.get(place))
    }

    pub(crate) fn get(&self, id: RowId) -> Option<&Row> {
        self.rows.get(id.index())?.as_ref()
    }

    pub(crate) fn get_mut(&mut self, id: RowId) -> Option<&mut Row> {
        self.rows.get_mut(id.index())?.as_mut()
    }

    #[cfg(feature = "model")]
    pub(super) fn rows(&self) -> impl Iterator<Item = &Row> {
        self.rows.iter().flatten()
    }

    pub(crate) fn len(&self) -> usize {
        self.names.len()
    }

    /// The first row whose name comes after `last`.
    pub(crate) fn after(&self, last: Option<&GuestName>) -> Option<RowId> {
        match last {
            Some(last) => self.names.after(|row| self.compare(row, last)),
            None => self.names.iter().next(),
        }
    }

    fn compare(&self, id: RowId, name: &GuestName) -> Ordering {
        // Every row in the order exists.
        self.get(id).map_or(Ordering::Less, |row| row.name.as_bytes().cmp(name.as_bytes()))
    }

    pub(crate) fn ids(&self) -> impl Iterator<Item = RowId> {
        self.names.iter()
    }

    /// The name's row; a new one if need be. At the bound the row longest without a
    /// session makes room that nothing keeps; a name with a token needs none.
    pub(crate) fn ensure(&mut self, cx: &mut Cx, name: GuestName) -> Result<RowId, Full> {
        if let Some(id) = self.find(&name) {
            return Ok(id);
        }
        let keyed = self.has_token(&name);
        // More than one where a name lost its token.
        while !keyed && self.len() - self.keyed_rows >= cx.config.max_guests {
            if !self.drop_one_idle(cx) {
                return Err(Full);
            }
        }
        let row = Row {
            name: ShortName::new(&name),
            keep: Keep(0),
            standing: Standing::Absent,
            session: None,
            since: Time::ZERO,
            evidence: None,
            proven: false,
            authenticated: false,
            claimed: false,
            refused: false,
            handshaking: 0,
            last_wall: None,
            epoch: None,
            boot: None,
            transport: None,
            remote: None,
            handshakes: 0,
            capabilities: Capabilities::default(),
            record: RecordState::default(),
            announced: Verdict::waiting(Reason::NeverSeen),
            queued: None,
            in_line: false,
            older: None,
            newer: None,
            rare: None,
        };
        let id = match self.free.pop() {
            Some(id) => {
                self.rows[id.index()] = Some(row);
                id
            }
            None => {
                self.rows.push(Some(row));
                RowId::new(self.rows.len() - 1)
            }
        };
        if let Err(place) = self.names.find(|row| self.compare(row, &name)) {
            self.names.insert(place, id);
        }
        self.mark_idle(id);
        self.keep_keyed(id, keyed);
        cx.notify(Notice::Verdict(id));
        Ok(id)
    }

    /// Deletes a row. Its session must have ended.
    pub(crate) fn remove(&mut self, cx: &mut Cx, id: RowId) {
        let Some(name) = self.get(id).map(Row::name) else { return };
        if let Ok(place) = self.names.find(|row| self.compare(row, &name)) {
            self.names.remove(place);
        }
        self.leave_line(id);
        self.keep_keyed(id, false);
        let row = self.rows.get_mut(id.index()).and_then(Option::take);
        if let Some(timer) = row.and_then(|row| row.rare?.timer) {
            cx.timers.remove(timer);
        }
        self.free.push(id);
    }

    /// The row has no session from now on.
    pub(crate) fn mark_idle(&mut self, id: RowId) {
        self.leave_line(id);
        let last = self.line.1;
        let Some(row) = self.get_mut(id).filter(|row| !row.is_kept()) else { return };
        (row.in_line, row.older) = (true, last);
        match last.and_then(|last| self.get_mut(last)) {
            Some(before) => before.newer = Some(id),
            None => self.line.0 = Some(id),
        }
        self.line.1 = Some(id);
    }

    pub(super) fn leave_line(&mut self, id: RowId) {
        let Some(row) = self.get_mut(id).filter(|row| row.in_line) else { return };
        row.in_line = false;
        let (older, newer) = (row.older.take(), row.newer.take());
        match older.and_then(|older| self.get_mut(older)) {
            Some(row) => row.newer = newer,
            None => self.line.0 = newer,
        }
        match newer.and_then(|newer| self.get_mut(newer)) {
            Some(row) => row.older = older,
            None => self.line.1 = older,
        }
    }

    /// Perhaps the name is configured now, and leaves the line; perhaps it no
    /// longer is, and goes to its end.
    pub(crate) fn line_up(&mut self, name: &GuestName) {
        let Some(id) = self.find(name) else { return };
        match self.get(id) {
            Some(row) if row.is_kept() => self.leave_line(id),
            Some(row) if !row.in_line && row.has_no_session() => self.mark_idle(id),
            Some(_) | None => {}
        }
    }

    fn drop_one_idle(&mut self, cx: &mut Cx) -> bool {
        let mut next = self.line.0;
        while let Some((id, row)) = next.and_then(|id| Some((id, self.get(id)?))) {
            next = row.newer;
            if !row.has_no_session() {
                self.leave_line(id);
            } else if row.handshaking == 0 {
                self.remove(cx, id);
                return true;
            }
            // A handshake may come to nothing: its row stays in line. There are no
            // more of these than half-open connections.
        }
        false
    }

    /// Takes the present verdict as announced: what a start finds is no change.
    pub(crate) fn prime(&mut self, cx: &Cx, id: RowId) {
        if let Some(row) = self.get_mut(id) {
            let facts = row.facts(&cx.config, cx.at());
            row.announced = liveness::judge(&facts, cx.config.window, None, cx.at());
        }
    }

    /// Says so if the verdict changed, and arms the row's own timer if time
    /// alone can change it (sessions have their connection's timer).
    pub(crate) fn announce(&mut self, cx: &mut Cx, id: RowId) {
        let Some(row) = self.rows.get_mut(id.index()).and_then(Option::as_mut) else { return };
        let now = cx.at();
        let facts = row.facts(&cx.config, now);
        let verdict = liveness::judge(&facts, cx.config.window, cx.stall.as_ref(), now);
        if row.standing == Standing::OneShot
            && let Some(at) = liveness::next_change(&facts, cx.config.window, None, now)
        {
            let timer = *row.rare_mut().timer.get_or_insert_with(|| cx.timers.insert(TimerKey::Row(id)));
            cx.timers.arm(timer, at, crate::boundary::Wakeup::OneShot);
        }
        let passing = |reason| matches!(reason, Some(Reason::Handshaking | Reason::Refused));
        let before = row.announced;
        if verdict == before || (verdict.state == before.state && passing(verdict.reason)) {
            return;
        }
        row.announced = verdict;
        let fact = Fact::VerdictChanged {
            from: before.state,
            to: verdict.state,
            reason: verdict.reason,
            age_ms: row.evidence.map(|evidence| millis(now.since(evidence.at))),
        };
        let name = row.name();
        cx.event(Some(name), fact);
        cx.notify(Notice::Verdict(id));
    }

    /// The status document's row, judged at `now`.
    pub(crate) fn status(&self, cx: &Cx, id: RowId, now: Now) -> Option<GuestStatus> {
        let seen = cx.stall_seen(now);
        let row = self.get(id)?;
        let mut status = row.status(cx, now.boot.max(cx.at()), seen.as_ref().or(cx.stall.as_ref()));
        if row.keep.is(Keep::LINKED) {
            status.peers = self.relations.peers_of(&status.name).collect();
        }
        Some(status)
    }

    /// What `status` judges of every row at `now`, in the order of the rows.
    pub(crate) fn glances(&self, cx: &Cx, now: Now) -> impl Iterator<Item = Glance> {
        let stall = cx.stall_seen(now).or(cx.stall);
        let now = now.boot.max(cx.at());
        self.rows.iter().flatten().map(move |row| row.glance(cx, now, stall.as_ref()))
    }
}

impl Row {
    /// What the verdict is computed from.
    pub(crate) fn facts(&self, config: &crate::config::BrokerConfig, now: Time) -> Facts {
        // A reload may have ended what a claim counts for.
        let counts = self.proven || config.accept_unproven;
        let standing = match self.standing {
            Standing::Open | Standing::OneShot if !counts => Standing::Absent,
            standing => standing,
        };
        Facts {
            standing,
            evidence: self.evidence.filter(|_| counts),
            conflict: self.is_contested(config, now),
            claimed: self.claimed,
            handshaking: self.handshaking > 0,
            refused: self.refused,
            seen_before: self.last_wall.is_some(),
            #[cfg(feature = "planted")]
            planted: config.planted,
        }
    }

    /// Its session ended.
    pub(crate) fn end(&mut self, departure: Departure) {
        self.session = None;
        self.standing = Standing::Ended(departure);
    }

    pub(crate) fn name(&self) -> GuestName {
        self.name.unpack()
    }

    /// Its session's number; the last one's when there is none now.
    pub(crate) fn epoch(&self) -> Option<Epoch> {
        self.epoch.map(|epoch| Epoch(epoch.get()))
    }

    pub(crate) fn set_epoch(&mut self, epoch: Epoch) {
        self.epoch = NonZeroU64::new(epoch.0);
    }

    const fn is_kept(&self) -> bool {
        self.keep.0 != 0
    }

    pub(super) fn has_no_session(&self) -> bool {
        self.session.is_none() && self.rare().legacy.is_none()
    }

    pub(crate) fn rare(&self) -> &Rare {
        self.rare.as_deref().unwrap_or(&NOTHING)
    }

    pub(crate) fn rare_mut(&mut self) -> &mut Rare {
        self.rare.get_or_insert_with(|| Box::new(NOTHING.clone()))
    }

    /// Where its link comes from.
    pub(crate) fn set_remote(&mut self, transport: Transport, remote: Remote) {
        (self.transport, self.remote) = (Some(transport), Some(Packed::new(remote)));
    }

    /// Another connection took the name over.
    pub(crate) fn note_takeover(&mut self, config: &crate::config::BrokerConfig, now: Time) {
        let Rare { takeovers, takeover_times: times, .. } = self.rare_mut();
        *takeovers += 1;
        times.push_back(now);
        if times.len() > usize::from(config.takeover_max) + 1 {
            times.pop_front();
        }
    }

    /// How long the answer to the newest answered challenge took, in microseconds.
    fn rtt_us(&self) -> Option<u64> {
        let Evidence { at, received } = self.evidence.filter(|_| self.proven)?;
        u64::try_from(received.since(at).as_micros()).ok()
    }

    fn is_contested(&self, config: &crate::config::BrokerConfig, now: Time) -> bool {
        let times = &self.rare().takeover_times;
        times.len() > usize::from(config.takeover_max)
            && times.front().is_some_and(|first| now.since(*first) <= config.takeover_period)
    }

    /// The verdict at `now`, and what it was computed from.
    fn judge(&self, cx: &Cx, now: Time, stall: Option<&Stall>) -> (Facts, Verdict) {
        let facts = self.facts(&cx.config, now);
        let verdict = liveness::judge(&facts, cx.config.window, stall, now);
        if planted!(cx.config, StoredVerdict) && self.announced == Verdict::REACHABLE {
            return (facts, self.announced);
        }
        (facts, verdict)
    }

    fn glance(&self, cx: &Cx, now: Time, stall: Option<&Stall>) -> Glance {
        let (facts, verdict) = self.judge(cx, now, stall);
        Glance {
            name: self.name(),
            state: verdict.state,
            reason: verdict.reason,
            proof_at: facts.evidence.map(|evidence| evidence.at),
            session: self.session,
            epoch: self.epoch(),
            proven: self.proven,
        }
    }

    fn status(&self, cx: &Cx, now: Time, stall: Option<&Stall>) -> GuestStatus {
        let (facts, verdict) = self.judge(cx, now, stall);
        let mut warnings = Vec::new();
        let doubtful = self.evidence.is_some() && !self.proven;
        if doubtful || (self.claimed && self.evidence.is_none()) {
            warnings.push(Warning::Unproven);
        }
        if facts.conflict {
            warnings.push(Warning::NameConflict);
        }
        GuestStatus {
            name: self.name(),
            state: verdict.state,
            reachable: verdict.state == State::Reachable,
            reason: verdict.reason,
            warnings,
            proven: self.proven,
            authenticated: self.authenticated,
            last_handshake_age_ms: facts.evidence.map(|evidence| millis(now.since(evidence.at))),
            last_handshake_at: self.last_wall,
            session_age_ms: self.session.map(|_| millis(now.since(self.since))),
            window_ms: Some(millis(cx.config.window)),
            interval_ms: Some(millis(cx.config.interval)),
            epoch: self.epoch(),
            boot: self.boot,
            transport: self.transport,
            remote: self.remote.as_ref().map(Packed::unpack),
            rtt_us: self.rtt_us(),
            handshakes: self.handshakes,
            refusals: self.rare().refusals,
            takeovers: self.rare().takeovers,
            capabilities: self.capabilities.clone(),
            peers: Vec::new(),
            attachment: None,
        }
    }
}
