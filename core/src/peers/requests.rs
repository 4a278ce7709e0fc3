//! What control and guests ask of peers: each open request has an armed
//! deadline and gets exactly one answer.

use alloc::collections::{BTreeMap, BTreeSet, VecDeque};
use alloc::string::String;
use alloc::vec::Vec;
use core::time::Duration;

use super::{Listed, MessageId, Outcome};
use crate::boundary::Wakeup;
use crate::broker::cx::Cx;
use crate::broker::facts::{CommandId, TimerKey};
use crate::id::{ConnId, GuestName, RequestId};
use crate::time::Time;
use crate::timers::TimerId;

/// Who gets the answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Asker {
    /// A control client.
    Client { conn: ConnId, id: Option<RequestId> },
    /// A guest, over its link.
    Guest { conn: ConnId, id: u64 },
}

impl Asker {
    pub(crate) const fn conn(&self) -> ConnId {
        match self {
            Self::Client { conn, .. } | Self::Guest { conn, .. } => *conn,
        }
    }

    pub(crate) const fn is_guest(&self) -> bool {
        matches!(self, Self::Guest { .. })
    }
}

/// How a request ended.
#[derive(Clone, Debug)]
pub(crate) struct Answer {
    pub(crate) outcome: Outcome,
    pub(crate) reason: Option<String>,
    /// Who was named, and who asked.
    pub(crate) names: Option<(GuestName, GuestName)>,
    pub(crate) message: Option<MessageId>,
    pub(crate) peers: Option<Vec<Listed>>,
}

impl Answer {
    pub(crate) const fn new(outcome: Outcome) -> Self {
        Self { outcome, reason: None, names: None, message: None, peers: None }
    }

    pub(crate) fn about(self, name: GuestName, source: GuestName) -> Self {
        Self { names: Some((name, source)), ..self }
    }

    pub(crate) fn because(self, reason: impl Into<String>) -> Self {
        Self { reason: Some(reason.into()), ..self }
    }
}

/// A request that has no answer yet.
#[derive(Clone, Debug)]
pub(crate) struct Request {
    pub(crate) asker: Asker,
    pub(crate) began: Time,
    /// When it is answered at the latest.
    pub(crate) deadline: Time,
    pub(crate) kind: Kind,
    timer: TimerId,
}

/// What it waits for.
#[derive(Clone, Debug)]
pub(crate) enum Kind {
    /// Two guests are to be peers.
    Register { source: GuestName, target: GuestName, stage: Stage },
    /// An answer that says as little, and takes as long, as any other refusal.
    Hidden { source: GuestName, until: Time, answer: Answer },
    /// Two guests are to be peers no more.
    Unregister,
    /// A message is to be taken, and then to be delivered; if it may not wait, it is
    /// taken back after `until`.
    Send { number: u64, to: GuestName, queue: bool, until: Option<Time> },
}

/// How far a registration is.
#[derive(Clone, Debug)]
pub(crate) enum Stage {
    /// A session is so young that its guest may still state its policy.
    Settling { until: Time },
    /// These were asked, and have not answered.
    Asking { until: Time, whom: Vec<GuestName> },
    /// It is being made durable.
    Storing,
}

/// A registration: its request, who wants it, with whom, and how far it is.
pub(crate) type Registration<'a> = (CommandId, &'a Request, GuestName, GuestName, &'a Stage);

impl Kind {
    const fn until(&self) -> Option<Time> {
        match self {
            Self::Register { stage: Stage::Settling { until } | Stage::Asking { until, .. }, .. }
            | Self::Hidden { until, .. } => Some(*until),
            Self::Send { until, .. } => *until,
            Self::Register { stage: Stage::Storing, .. } | Self::Unregister => None,
        }
    }

    /// Whom it concerns.
    fn guests(&self) -> impl Iterator<Item = GuestName> + use<> {
        let (one, other) = match self {
            Self::Register { source, target, .. } => (Some(*source), Some(*target)),
            Self::Hidden { source, .. } => (Some(*source), None),
            Self::Send { to, .. } => (Some(*to), None),
            Self::Unregister => (None, None),
        };
        one.into_iter().chain(other)
    }
}

/// All open requests.
#[derive(Clone, Debug, Default)]
pub(crate) struct Requests {
    open: BTreeMap<CommandId, Request>,
    /// The requests of each connection.
    by_conn: BTreeSet<(ConnId, CommandId)>,
    /// Who waits for which message.
    by_message: BTreeSet<(u64, CommandId)>,
    /// What concerns which guest.
    by_guest: BTreeSet<(GuestName, CommandId)>,
    /// When each guest asked for a registration, lately; and when last, in order.
    asked: BTreeMap<GuestName, VecDeque<Time>>,
    asked_last: BTreeSet<(Time, GuestName)>,
    last: u64,
}

const MINUTE: Duration = Duration::from_secs(60);

impl Requests {
    pub(crate) fn open(&mut self, cx: &mut Cx, asker: Asker, kind: Kind, timeout: Duration) -> CommandId {
        self.last += 1;
        let id = CommandId(self.last);
        let timer = cx.timers.insert(TimerKey::Peer(id));
        let (began, deadline) = (cx.at(), cx.at() + timeout);
        self.by_conn.insert((asker.conn(), id));
        if let Kind::Send { number, .. } = &kind {
            self.by_message.insert((*number, id));
        }
        self.by_guest.extend(kind.guests().map(|guest| (guest, id)));
        self.open.insert(id, Request { asker, began, deadline, kind, timer });
        self.arm(cx, id);
        id
    }

    /// It waits for something else from now on.
    pub(crate) fn turn(&mut self, cx: &mut Cx, id: CommandId, kind: Kind) {
        if let Some(request) = self.open.get_mut(&id) {
            request.kind = kind;
            self.arm(cx, id);
        }
    }

    fn arm(&self, cx: &mut Cx, id: CommandId) {
        let Some(request) = self.open.get(&id) else { return };
        let until = request.kind.until();
        let (at, why) = match (until.filter(|until| *until < request.deadline), &request.kind) {
            (Some(until), Kind::Register { .. }) => (until, Wakeup::Offer),
            (Some(until), _) => (until, Wakeup::Command),
            (None, _) => (request.deadline, Wakeup::Command),
        };
        cx.timers.arm(request.timer, at, why);
    }

    pub(crate) fn close(&mut self, cx: &mut Cx, id: CommandId) -> Option<Request> {
        let request = self.open.remove(&id)?;
        cx.timers.remove(request.timer);
        self.by_conn.remove(&(request.asker.conn(), id));
        if let Kind::Send { number, .. } = &request.kind {
            self.by_message.remove(&(*number, id));
        }
        for guest in request.kind.guests() {
            self.by_guest.remove(&(guest, id));
        }
        Some(request)
    }

    pub(crate) fn get(&self, id: CommandId) -> Option<&Request> {
        self.open.get(&id)
    }

    pub(crate) fn ids(&self) -> Vec<CommandId> {
        self.open.keys().copied().collect()
    }

    pub(crate) fn of_conn(&self, conn: ConnId) -> Vec<CommandId> {
        let range = (conn, CommandId(0))..=(conn, CommandId(u64::MAX));
        self.by_conn.range(range).map(|(_, id)| *id).collect()
    }

    /// Unanswered requests of a connection.
    pub(crate) fn count_of(&self, conn: ConnId) -> usize {
        self.by_conn.range((conn, CommandId(0))..=(conn, CommandId(u64::MAX))).count()
    }

    pub(crate) fn of_message(&self, number: u64) -> Vec<CommandId> {
        let range = (number, CommandId(0))..=(number, CommandId(u64::MAX));
        self.by_message.range(range).map(|(_, id)| *id).collect()
    }

    /// Whether anybody waits for a message.
    pub(crate) fn is_awaited(&self, number: u64) -> bool {
        self.by_message.range((number, CommandId(0))..=(number, CommandId(u64::MAX))).next().is_some()
    }

    fn concerning(&self, guest: GuestName) -> impl Iterator<Item = (CommandId, &Request)> {
        let range = (guest, CommandId(0))..=(guest, CommandId(u64::MAX));
        self.by_guest.range(range).filter_map(|(_, id)| Some((*id, self.open.get(id)?)))
    }

    /// Registrations that concern a guest, with what they wait for.
    pub(crate) fn registrations(&self, guest: GuestName) -> impl Iterator<Item = Registration<'_>> {
        self.concerning(guest).filter_map(|(id, request)| match &request.kind {
            Kind::Register { source, target, stage } => Some((id, request, *source, *target, stage)),
            Kind::Hidden { .. } | Kind::Unregister | Kind::Send { .. } => None,
        })
    }

    /// Whether a guest asked for a registration and has not heard the end of it.
    pub(crate) fn awaits_registration(&self, guest: GuestName) -> bool {
        self.concerning(guest).any(|(_, request)| match &request.kind {
            Kind::Register { source, .. } | Kind::Hidden { source, .. } => *source == guest,
            Kind::Unregister | Kind::Send { .. } => false,
        })
    }

    /// Those who wait for a message to a guest.
    pub(crate) fn sends_to(&self, guest: GuestName) -> Vec<CommandId> {
        let sends = |request: &Request| matches!(&request.kind, Kind::Send { .. });
        self.concerning(guest).filter(|(_, request)| sends(request)).map(|(id, _)| id).collect()
    }

    /// Counts a registration that a guest asks for; false: too many in a minute.
    pub(crate) fn may_register(&mut self, now: Time, guest: GuestName, most: u32) -> bool {
        let recent = |at: &Time| now.since(*at) < MINUTE;
        while let Some((last, other)) = self.asked_last.first().copied().filter(|(at, _)| !recent(at)) {
            self.asked_last.remove(&(last, other));
            self.asked.remove(&other);
        }
        if most == 0 {
            return false;
        }
        let times = self.asked.entry(guest).or_default();
        while times.front().is_some_and(|at| !recent(at)) {
            times.pop_front();
        }
        if times.len() >= most as usize {
            return false;
        }
        if let Some(before) = times.back() {
            self.asked_last.remove(&(*before, guest));
        }
        self.asked_last.insert((now, guest));
        times.push_back(now);
        true
    }

    #[cfg(feature = "model")]
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&Request, TimerId)> {
        self.open.values().map(|request| (request, request.timer))
    }
}
