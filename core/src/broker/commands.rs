//! Requests that take time: wait, ping, and changes of durable state.

use alloc::collections::{BTreeMap, BTreeSet, VecDeque};
use alloc::format;
use alloc::string::String;
use alloc::vec;
use alloc::vec::Vec;
use core::time::Duration;

use crate::boundary::{Effect, EffectError, Wakeup};
use crate::broker::changes::{Document, StoreOp, apply};
use crate::broker::clients::{Clients, problem};
use crate::broker::cx::Cx;
use crate::broker::facts::{CommandId, Notice, RowId, TimerKey};
use crate::broker::guests::{Guests, Row};
use crate::broker::walk::{Envelope, Walk};
use crate::control::reply::{Empty, ErrorBody, ErrorCode, GuestOnly, Pong, Target, TokenIssued};
use crate::event::{MESSAGE_MAX, shortened};
use crate::id::{ConnId, EffectId, GuestName, RequestId};
use crate::link::message::{GuestRequestKind, append_json};
use crate::status::State;
use crate::time::Time;
use crate::timers::TimerId;

/// Commands in progress. Each has an armed deadline and gets exactly one answer.
#[derive(Clone, Debug, Default)]
pub(crate) struct Commands {
    pub(super) open: BTreeMap<CommandId, Command>,
    /// The open waits for each guest: a verdict finds its own without asking all.
    pub(super) waits: BTreeSet<(GuestName, CommandId)>,
    /// What ends with a connection: its own commands, and pings of its guest.
    pub(super) bound_to: BTreeSet<(ConnId, CommandId)>,
    pub(super) last: u64,
    /// Changes of durable state, one at a time, in order.
    pub(super) changes: VecDeque<(Option<CommandId>, StoreOp)>,
    pub(super) storing: Option<(EffectId, Option<CommandId>, StoreOp)>,
    pub(super) reloads: BTreeMap<EffectId, CommandId>,
    /// Start commands that are watched.
    pub(super) starts: BTreeMap<EffectId, GuestName>,
}

#[derive(Clone, Debug)]
pub(super) struct Command {
    pub(super) asker: Asker,
    pub(super) kind: Kind,
    pub(super) timer: TimerId,
}

/// Who gets the answer.
#[derive(Clone, Debug)]
pub(crate) enum Asker {
    Client { conn: ConnId, id: Option<RequestId> },
    Guest { conn: ConnId, guest: GuestName, kind: GuestRequestKind, id: u64 },
}

#[derive(Clone, Debug)]
pub(super) enum Kind {
    Wait(Wait),
    Restore { guest: GuestName },
    Ping { guest: GuestName, conn: ConnId, sent_at: Time },
    Store,
    Reload,
}

#[derive(Clone, Debug)]
pub(super) struct Wait {
    /// Sorted.
    names: Vec<GuestName>,
    met: Vec<bool>,
    count: usize,
    target: Target,
    any: bool,
}

/// Most changes that wait for their turn.
const CHANGES_MAX: usize = 64;

impl Commands {
    pub(crate) fn wait(
        &mut self,
        cx: &mut Cx,
        clients: &mut Clients,
        guests: &Guests,
        asker: Asker,
        (mut names, target, any): (Vec<GuestName>, Target, bool),
        timeout: Option<Duration>,
    ) {
        names.sort_unstable();
        names.dedup();
        let wait = Wait { met: vec![false; names.len()], names, count: 0, target, any };
        let timeout = timeout.unwrap_or(cx.config.wait_timeout);
        let id = self.open(cx, asker, Kind::Wait(wait), timeout);
        self.recheck(cx, clients, guests, id);
    }

    /// Whether it is being made durable that a guest is forgotten.
    pub(crate) fn is_forgetting(&self, name: &GuestName) -> bool {
        matches!(&self.storing, Some((_, _, StoreOp::Forget { guest })) if guest == name)
    }

    pub(crate) fn ping(
        &mut self,
        cx: &mut Cx,
        clients: &mut Clients,
        guests: &Guests,
        asker: Asker,
        guest: GuestName,
        timeout: Option<Duration>,
    ) {
        let Some(row) = guests.find(&guest).and_then(|id| guests.get(id)) else {
            return self.answer(cx, clients, asker, Err(unknown(&guest)));
        };
        let Some(conn) = row.session.filter(|_| row.proven) else {
            return self.answer(cx, clients, asker, Err(not_reachable(&guest)));
        };
        let timeout = timeout.unwrap_or(cx.config.ping_timeout);
        let sent_at = cx.at();
        let command = self.open(cx, asker, Kind::Ping { guest, conn, sent_at }, timeout);
        cx.notify(Notice::Ping { conn, command });
    }

    pub(crate) fn store(
        &mut self,
        cx: &mut Cx,
        clients: &mut Clients,
        asker: Asker,
        op: StoreOp,
        timeout: Option<Duration>,
    ) {
        if self.changes.len() >= CHANGES_MAX {
            let error = problem(ErrorCode::Busy, format!("{CHANGES_MAX} changes wait already; try again"));
            return self.answer(cx, clients, asker, Err(error));
        }
        let timeout = timeout.unwrap_or(cx.config.storage_timeout);
        if planted!(cx.config, CommitBeforeDone)
            && let StoreOp::Issue { guest, key } = &op
        {
            let issued = TokenIssued { guest: *guest, token: key.expose_token() };
            self.answer(cx, clients, asker, Ok(Document::TokenIssued(issued)));
            self.changes.push_back((None, op));
            return self.next_change(cx);
        }
        let id = self.open(cx, asker, Kind::Store, timeout);
        self.changes.push_back((Some(id), op));
        self.next_change(cx);
    }

    pub(crate) fn reload(&mut self, cx: &mut Cx, asker: Asker, timeout: Option<Duration>) {
        let timeout = timeout.unwrap_or(cx.config.storage_timeout);
        let id = self.open(cx, asker, Kind::Reload, timeout);
        let effect = cx.out.effect(Effect::Reload);
        self.reloads.insert(effect, id);
    }

    /// A verdict changed: whoever waits for that guest looks again.
    pub(crate) fn on_verdict(&mut self, cx: &mut Cx, clients: &mut Clients, guests: &Guests, row: RowId) {
        if self.waits.is_empty() {
            return;
        }
        let Some(name) = guests.get(row).map(Row::name) else { return };
        for id in self.waiting_for(name) {
            let Some(state) = guests.status(cx, row, cx.now).map(|status| status.state) else { return };
            if state == State::Reachable {
                self.on_restored(cx, clients, name);
            }
            let Some(Command { kind: Kind::Wait(wait), .. }) = self.open.get_mut(&id) else { continue };
            let Ok(index) = wait.names.binary_search(&name) else { continue };
            let met = wait.target.is_met_by(state);
            let before = core::mem::replace(&mut wait.met[index], met);
            wait.count = wait.count + usize::from(met) - usize::from(before);
            if wait.is_met() {
                self.recheck(cx, clients, guests, id);
            }
        }
    }

    /// Whoever waits for a guest.
    pub(super) fn waiting_for(&self, name: GuestName) -> Vec<CommandId> {
        let range = (name, CommandId(0))..=(name, CommandId(u64::MAX));
        self.waits.range(range).map(|(_, id)| *id).collect()
    }

    /// Judges every name anew, and answers if the wait is over.
    fn recheck(&mut self, cx: &mut Cx, clients: &mut Clients, guests: &Guests, id: CommandId) {
        let Some(Command { kind: Kind::Wait(wait), .. }) = self.open.get_mut(&id) else { return };
        for (name, met) in wait.names.iter().zip(&mut wait.met) {
            let status = guests.find(name).and_then(|row| guests.status(cx, row, cx.now));
            *met = status.is_some_and(|status| wait.target.is_met_by(status.state));
        }
        wait.count = wait.met.iter().filter(|met| **met).count();
        if !wait.is_met() {
            return;
        }
        let Some(Command { asker, kind: Kind::Wait(Wait { names, .. }), .. }) = self.end(cx, id) else {
            return;
        };
        match asker {
            Asker::Client { conn, id } => clients.walk(conn, Walk::waited(Envelope::Line(id), names), None),
            Asker::Guest { guest, .. } => {
                let answer = Walk::waited(Envelope::Bare, names).finish(cx, guests, guest);
                self.answer(cx, clients, asker, Ok(Document::Json(answer)));
            }
        }
    }

    pub(crate) fn on_pong(&mut self, cx: &mut Cx, clients: &mut Clients, conn: ConnId, id: CommandId) {
        let Some(Kind::Ping { guest, conn: target, sent_at }) =
            self.open.get(&id).map(|command| &command.kind)
        else {
            return;
        };
        if *target != conn {
            return;
        }
        let rtt_us = u64::try_from(cx.at().since(*sent_at).as_micros()).unwrap_or(u64::MAX);
        let pong = Pong { guest: *guest, rtt_us };
        if let Some(asker) = self.close(cx, id) {
            self.answer(cx, clients, asker, Ok(Document::Pong(pong)));
        }
    }

    /// A connection is gone: its pings get no answer, its questions need none.
    pub(crate) fn on_lost(&mut self, cx: &mut Cx, clients: &mut Clients, conn: ConnId) {
        let mut failed = Vec::new();
        let mut dropped = Vec::new();
        let bound = self.bound_to.range((conn, CommandId(0))..=(conn, CommandId(u64::MAX)));
        for (_, id) in bound {
            match self.open.get(id) {
                Some(command) if command.asker.conn() == conn => dropped.push(*id),
                Some(Command { kind: Kind::Ping { guest, .. }, .. }) => failed.push((*id, *guest)),
                Some(_) | None => {}
            }
        }
        if planted!(cx.config, ReplyLostOnClose) {
            dropped.extend(failed.drain(..).map(|(id, _)| id));
        }
        for id in dropped {
            self.close(cx, id);
        }
        for (id, guest) in failed {
            self.fail(cx, clients, id, not_reachable(&guest));
        }
    }

    /// The guest could not be asked.
    pub(crate) fn on_unsent(&mut self, cx: &mut Cx, clients: &mut Clients, id: CommandId) {
        if let Some(Kind::Ping { guest, .. }) = self.open.get(&id).map(|command| &command.kind) {
            let error = not_reachable(guest);
            self.fail(cx, clients, id, error);
        }
    }

    pub(crate) fn on_timer(&mut self, cx: &mut Cx, clients: &mut Clients, id: CommandId) {
        let Some(command) = self.open.get(&id) else { return };
        let message = match &command.kind {
            Kind::Wait(wait) => format!("{} of {} guests are so", wait.count, wait.names.len()),
            Kind::Ping { guest, .. } => format!("{guest} did not answer in time"),
            Kind::Store if self.is_on_its_way(id) => {
                "the database did not answer in time; the change may still happen".into()
            }
            Kind::Store => "nothing changed: the database was busy with other changes".into(),
            Kind::Reload => "the reload did not end in time".into(),
            Kind::Restore { guest } => {
                format!("{guest} is not reachable yet; its start command may still run")
            }
        };
        self.fail(cx, clients, id, problem(ErrorCode::Timeout, message));
    }

    /// The drain: everything open is answered.
    pub(crate) fn on_drain(&mut self, cx: &mut Cx, clients: &mut Clients) {
        self.changes.clear();
        // What is on its way to the disk may happen: its asker is told how it ended.
        for id in self.open.keys().copied().filter(|id| !self.is_on_its_way(*id)).collect::<Vec<_>>() {
            self.fail(cx, clients, id, problem(ErrorCode::ShuttingDown, "the broker is stopping"));
        }
    }

    /// The drain's deadline has come.
    pub(crate) fn abandon(&mut self, cx: &mut Cx, clients: &mut Clients) {
        for id in self.open.keys().copied().collect::<Vec<_>>() {
            let message = "the broker stops before the database answers; the change may still happen";
            self.fail(cx, clients, id, problem(ErrorCode::ShuttingDown, message));
        }
    }

    /// Whether a change is on its way to the disk.
    pub(crate) const fn is_storing(&self) -> bool {
        self.storing.is_some()
    }

    fn is_on_its_way(&self, id: CommandId) -> bool {
        self.storing.as_ref().is_some_and(|(_, command, _)| *command == Some(id))
    }

    fn next_change(&mut self, cx: &mut Cx) {
        if self.storing.is_some() {
            return;
        }
        // Whoever was told that it failed, or left, must not find it done later.
        let wanted = |command: &Option<CommandId>| command.is_none_or(|id| self.open.contains_key(&id));
        while self.changes.front().is_some_and(|(command, _)| !wanted(command)) {
            self.changes.pop_front();
        }
        let Some((command, op)) = self.changes.pop_front() else { return };
        let effect = cx.out.effect(Effect::Persist(vec![op.change()]));
        self.storing = Some((effect, command, op));
    }

    /// An effect of ours ended; false: it isn't ours.
    pub(crate) fn on_done(
        &mut self,
        cx: &mut Cx,
        clients: &mut Clients,
        guests: &mut Guests,
        effect: EffectId,
        result: &Result<(), EffectError>,
    ) -> bool {
        if let Some(id) = self.reloads.remove(&effect) {
            if let Some(asker) = self.close(cx, id) {
                let answer = match result {
                    Ok(()) => Ok(Document::Reloaded),
                    Err(error) => Err(problem(ErrorCode::Internal, bounded(error))),
                };
                self.answer(cx, clients, asker, answer);
            }
            return true;
        }
        if self.on_started(cx, clients, effect, result) {
            return true;
        }
        let Some((_, command, op)) = self.storing.take_if(|(storing, ..)| *storing == effect) else {
            return false;
        };
        let answer = match result {
            Ok(()) => Ok(apply(cx, guests, op)),
            Err(_) if planted!(cx.config, CommitFailureIgnored) => Ok(apply(cx, guests, op)),
            Err(error) => Err(problem(
                ErrorCode::StorageFailed,
                format!("nothing changed: {}; see that the disk has room and works", bounded(error)),
            )),
        };
        if let Some(asker) = command.and_then(|id| self.close(cx, id)) {
            self.answer(cx, clients, asker, answer);
        }
        self.next_change(cx);
        true
    }

    pub(super) fn open(&mut self, cx: &mut Cx, asker: Asker, kind: Kind, timeout: Duration) -> CommandId {
        self.last += 1;
        let id = CommandId(self.last);
        let timer = cx.timers.insert(TimerKey::Command(id));
        cx.timers.arm(timer, cx.now.boot + timeout, Wakeup::Command);
        self.bound_to.insert((asker.conn(), id));
        match &kind {
            Kind::Wait(wait) => self.waits.extend(wait.names.iter().map(|name| (*name, id))),
            Kind::Restore { guest } => {
                self.waits.insert((*guest, id));
            }
            Kind::Ping { conn, .. } => {
                self.bound_to.insert((*conn, id));
            }
            Kind::Store | Kind::Reload => {}
        }
        self.open.insert(id, Command { asker, kind, timer });
        id
    }

    fn end(&mut self, cx: &mut Cx, id: CommandId) -> Option<Command> {
        let command = self.open.remove(&id)?;
        cx.timers.remove(command.timer);
        self.bound_to.remove(&(command.asker.conn(), id));
        match &command.kind {
            Kind::Wait(wait) => {
                for name in &wait.names {
                    self.waits.remove(&(*name, id));
                }
            }
            Kind::Restore { guest } => {
                self.waits.remove(&(*guest, id));
            }
            Kind::Ping { conn, .. } => {
                self.bound_to.remove(&(*conn, id));
            }
            Kind::Store | Kind::Reload => {}
        }
        Some(command)
    }

    pub(super) fn close(&mut self, cx: &mut Cx, id: CommandId) -> Option<Asker> {
        self.end(cx, id).map(|command| command.asker)
    }

    pub(super) fn fail(&mut self, cx: &mut Cx, clients: &mut Clients, id: CommandId, error: ErrorBody) {
        if let Some(asker) = self.close(cx, id) {
            self.answer(cx, clients, asker, Err(error));
        }
    }

    pub(super) fn answer(
        &self,
        cx: &mut Cx,
        clients: &mut Clients,
        asker: Asker,
        answer: Result<Document, ErrorBody>,
    ) {
        match asker {
            Asker::Client { conn, id } => match answer {
                Err(error) => clients.error(conn, id, &error),
                Ok(Document::Pong(pong)) => clients.reply(conn, id, "pong", &pong),
                Ok(Document::TokenIssued(issued)) => clients.reply(conn, id, "token_issued", &issued),
                Ok(Document::TokenRevoked(guest)) => {
                    clients.reply(conn, id, "token_revoked", &GuestOnly { guest })
                }
                Ok(Document::Forgotten(guest)) => clients.reply(conn, id, "forgotten", &GuestOnly { guest }),
                Ok(Document::Reloaded) => clients.reply(conn, id, "reloaded", &Empty {}),
                Ok(Document::Restored(restored)) => clients.reply(conn, id, "restored", &restored),
                // Documents are walked for clients.
                Ok(Document::Json(_)) => {}
            },
            Asker::Guest { conn, kind, id, .. } => {
                let answer = match answer {
                    Ok(Document::Json(json)) => Ok(json),
                    Ok(Document::Pong(pong)) => {
                        let mut json = Vec::new();
                        append_json(&mut json, &pong);
                        Ok(json)
                    }
                    Ok(Document::Restored(restored)) => {
                        let mut json = Vec::new();
                        append_json(&mut json, &restored);
                        Ok(json)
                    }
                    Ok(_) => Err(ErrorCode::Internal),
                    Err(error) => Err(error.code),
                };
                cx.notify(Notice::Answer { conn, kind, id, answer });
            }
        }
    }
}

impl Asker {
    const fn conn(&self) -> ConnId {
        match self {
            Self::Client { conn, .. } | Self::Guest { conn, .. } => *conn,
        }
    }
}

impl Wait {
    fn is_met(&self) -> bool {
        if self.any { self.count > 0 } else { self.count == self.names.len() }
    }
}

pub(crate) fn unknown(guest: &GuestName) -> ErrorBody {
    problem(ErrorCode::UnknownGuest, format!("no guest is called {guest}; castra status lists all"))
}

pub(crate) fn not_reachable(guest: &GuestName) -> ErrorBody {
    problem(
        ErrorCode::NotReachable,
        format!("{guest} has no proven session now; castra status {guest} says why"),
    )
}

pub(super) fn bounded(error: &EffectError) -> String {
    shortened(&error.message, MESSAGE_MAX)
}
