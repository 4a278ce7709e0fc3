//! The broker as a manager: whom it adopted, what each guest was told, and which
//! actions wait.
//!
//! Everything that is durable changes in one lane a guest: an operation is prepared
//! when nothing of its guest is on its way to the disk, against what memory holds
//! then, and memory follows when it is durable.

mod actions;
mod adopt;
mod answers;
mod lanes;
mod looks;
#[cfg(feature = "model")]
mod obligations;
mod prove;
mod requests;
mod seats;
mod writes;

use alloc::collections::{BTreeMap, BTreeSet, VecDeque};
use alloc::string::String;
use alloc::vec::Vec;
use core::net::IpAddr;
use core::time::Duration;

use super::server::Answer;
use super::wire::AttachState;
use super::{Action, AttachId, Attachment, Body, RestoredManager, Stage};
use crate::boundary::Wakeup;
use crate::broker::cx::Cx;
use crate::broker::facts::{CommandId, Keep, TimerKey};
use crate::broker::guests::Guests;
use crate::control::attach::{ActionAnswer, Adopted as AdoptedAnswer, Released};
use crate::control::reply::ErrorBody;
use crate::event::{AttachFact, Fact};
use crate::id::{ConnId, EffectId, GuestName};
use crate::time::{Time, WallTime};
use crate::timers::TimerId;

pub(crate) use actions::Wanted;
pub(crate) use answers::{Ack, Ask};
use lanes::{Lanes, Op};
pub(crate) use requests::Asker;
use requests::Requests;

/// How long it takes until something that could not be written is tried again.
const AGAIN: Duration = Duration::from_secs(5);

/// Most frames to one guest that wait for room.
const BACKLOG: usize = 1024;

/// Most refusals of one second that are written down.
const REFUSALS: u32 = 10;

/// Attachments, of a broker.
#[derive(Clone, Debug)]
pub(crate) struct Manager {
    adopted: BTreeMap<GuestName, Adopted>,
    by_session: BTreeMap<AttachId, GuestName>,
    /// Open sessions of adopted guests.
    seats: BTreeMap<ConnId, GuestName>,
    /// Our own addresses of links, if there is an HTTP listener.
    locals: BTreeMap<ConnId, IpAddr>,
    lanes: Lanes,
    requests: Requests,
    /// HTTP requests that wait until so many actions are settled.
    acks: BTreeMap<Call, usize>,
    /// What time brings.
    due: BTreeSet<(Time, Due)>,
    timer: TimerId,
    armed: Option<Time>,
    /// Guests whose actions may flow.
    stirred: BTreeSet<GuestName>,
    /// Sessions that have room for what had to wait.
    hungry: BTreeSet<ConnId>,
    /// What is to be said, in order.
    pub(crate) post: VecDeque<Post>,
    /// The number of the newest action.
    last: u64,
    /// Of all actions that wait, those on their way into a queue included.
    bytes: usize,
    /// A second, and the refusals in it.
    refusals: (Time, u32),
}

/// A guest that is adopted.
#[derive(Clone, Debug)]
struct Adopted {
    record: Attachment,
    /// Until when the code is good.
    code_until: Option<Time>,
    lease_until: Option<Time>,
    polled_at: Option<Time>,
    /// What the agent says, newest.
    state: Option<AttachState>,
    queue: BTreeMap<u64, Waiting>,
    ids: BTreeMap<AttachId, u64>,
    /// Actions that are on their way into the queue.
    entering: usize,
    /// Polls that wait.
    polls: BTreeSet<Call>,
    seat: Option<Seat>,
    /// A handshake is on its way to the disk.
    renewing: bool,
}

/// An action that waits.
#[derive(Clone, Debug)]
struct Waiting {
    action: Action,
    /// What is to be looked at next: its expiry, or its settling that failed.
    expires: Time,
    due: Time,
    sent: bool,
    /// Its end is on its way to the disk.
    settling: bool,
    /// HTTP requests that acknowledged it.
    acks: Vec<Call>,
}

/// The open session of an adopted guest.
#[derive(Clone, Debug)]
struct Seat {
    conn: ConnId,
    stage: SeatStage,
    /// Actions that were sent over it, and not acknowledged.
    sent: BTreeSet<u64>,
    /// Frames that wait for room.
    backlog: VecDeque<Body>,
    /// Its `attach` frames that have no answer yet.
    attaching: u8,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum SeatStage {
    /// It may still say that it is attached.
    Settling(Time),
    /// A handshake was sent, or is about to be.
    Told,
    /// It said that it is attached: actions travel over it.
    Fast,
}

/// What time brings to whom.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Due {
    /// A new session said nothing.
    Settle(GuestName),
    /// A code is too old.
    Code(GuestName),
    /// An action expires, or is sent again.
    Action(GuestName, u64),
}

/// An HTTP request that has no answer yet.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) struct Call {
    pub(crate) conn: ConnId,
    pub(crate) number: u64,
}

/// Who wants to attach.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Who {
    Link(ConnId),
    Http(Call),
}

/// Something to be said.
#[derive(Debug, Clone)]
pub(crate) enum Post {
    /// To a control client.
    Reply(Asker, Result<Reply, ErrorBody>),
    /// To a guest.
    Frame(ConnId, Body),
    /// To an HTTP client.
    Http(Call, Answer),
}

/// What a control client is told.
#[derive(Debug, Clone)]
pub(crate) enum Reply {
    Adopted(AdoptedAnswer),
    Released(Released),
    Action(ActionAnswer),
}

impl Manager {
    pub(crate) fn new(cx: &mut Cx, guests: &mut Guests, restored: RestoredManager) -> Self {
        let mut manager = Self {
            adopted: BTreeMap::new(),
            by_session: BTreeMap::new(),
            seats: BTreeMap::new(),
            locals: BTreeMap::new(),
            lanes: Lanes::default(),
            requests: Requests::default(),
            acks: BTreeMap::new(),
            due: BTreeSet::new(),
            timer: cx.timers.insert(TimerKey::Attach),
            armed: None,
            stirred: BTreeSet::new(),
            hungry: BTreeSet::new(),
            post: VecDeque::new(),
            last: 0,
            bytes: 0,
            refusals: (Time::ZERO, 0),
        };
        for record in restored.attachments {
            let left = left(cx, record.issued_at, cx.config.manager.code_ttl);
            manager.insert(cx, guests, record, left);
        }
        for action in restored.actions {
            manager.last = manager.last.max(action.number);
            manager.bytes += action.cost();
            let left = left(cx, action.queued_at, Duration::from_millis(action.ttl_ms));
            manager.keep(action, cx.at() + left);
        }
        manager.rearm(cx);
        manager
    }

    /// A guest is adopted: its row is there to stay. The code is good for so long.
    fn insert(&mut self, cx: &mut Cx, guests: &mut Guests, record: Attachment, left: Duration) {
        let guest = record.guest;
        self.by_session.insert(record.session.clone(), guest);
        let adopted = Adopted {
            record,
            code_until: None,
            lease_until: None,
            polled_at: None,
            state: None,
            queue: BTreeMap::new(),
            ids: BTreeMap::new(),
            entering: 0,
            polls: BTreeSet::new(),
            seat: None,
            renewing: false,
        };
        self.adopted.insert(guest, adopted);
        self.date_code(cx, guest, left);
        guests.keep_adopted(cx, guest, true);
    }

    /// The code, if there is one, is good for so long from now on.
    fn date_code(&mut self, cx: &Cx, guest: GuestName, left: Duration) {
        let Some(adopted) = self.adopted.get_mut(&guest) else { return };
        if let Some(before) = adopted.code_until.take() {
            self.due.remove(&(before, Due::Code(guest)));
        }
        if adopted.record.code.is_some() {
            let until = cx.at() + left;
            adopted.code_until = Some(until);
            self.due.insert((until, Due::Code(guest)));
        }
    }

    /// An action waits from now on.
    fn keep(&mut self, action: Action, expires: Time) {
        let (guest, number) = (action.guest, action.number);
        // Its guest was forgotten, and the broker with it.
        let Some(adopted) = self.adopted.get_mut(&guest) else {
            self.bytes = self.bytes.saturating_sub(action.cost());
            return;
        };
        adopted.ids.insert(action.id.clone(), number);
        let waiting =
            Waiting { action, expires, due: expires, sent: false, settling: false, acks: Vec::new() };
        adopted.queue.insert(number, waiting);
        self.due.insert((expires, Due::Action(guest, number)));
    }

    /// A guest is adopted no more, durably.
    fn remove(&mut self, cx: &mut Cx, guests: &mut Guests, guest: GuestName) -> Option<Adopted> {
        let adopted = self.adopted.remove(&guest)?;
        self.by_session.remove(&adopted.record.session);
        if let Some(until) = adopted.code_until {
            self.due.remove(&(until, Due::Code(guest)));
        }
        for (number, waiting) in &adopted.queue {
            self.bytes = self.bytes.saturating_sub(waiting.action.cost());
            self.due.remove(&(waiting.due, Due::Action(guest, *number)));
        }
        if let Some(seat) = &adopted.seat {
            self.seats.remove(&seat.conn);
            self.hungry.remove(&seat.conn);
            if let SeatStage::Settling(until) = seat.stage {
                self.due.remove(&(until, Due::Settle(guest)));
            }
        }
        self.stirred.remove(&guest);
        guests.keep_adopted(cx, guest, false);
        Some(adopted)
    }

    /// What time brought.
    pub(crate) fn on_timer(&mut self, cx: &mut Cx, guests: &Guests) {
        self.armed = None;
        while let Some((_, due)) = self.due.first().copied().filter(|(at, _)| *at <= cx.at()) {
            self.due.pop_first();
            match due {
                Due::Settle(guest) => self.on_silence(guest),
                Due::Code(guest) => self.on_code_expired(cx, guest),
                Due::Action(guest, number) => self.on_action_due(cx, guests, guest, number),
            }
        }
    }

    /// A request's bound passed.
    pub(crate) fn on_request_timer(&mut self, cx: &mut Cx, id: CommandId) {
        self.give_up_waiting(cx, id);
    }

    /// Whether there is nothing to be said or written now.
    pub(crate) fn is_quiet(&self) -> bool {
        self.post.is_empty()
            && self.stirred.is_empty()
            && self.hungry.is_empty()
            && self.lanes.is_quiet()
            && self.due.first().map(|(at, _)| *at) == self.armed
    }

    /// Wakes the machine when something is due next.
    pub(crate) fn rearm(&mut self, cx: &mut Cx) {
        let next = self.due.first().map(|(at, _)| *at);
        match next {
            Some(at) => cx.timers.arm(self.timer, at, Wakeup::Attach),
            None => cx.timers.disarm(self.timer),
        }
        self.armed = next;
    }

    /// The broker stops: whoever waits is told, and nothing new is written.
    pub(crate) fn on_drain(&mut self, cx: &mut Cx) {
        self.lanes.abandon();
        for id in self.requests.ids() {
            if !self.lanes.is_on_its_way(id) {
                self.stop_waiting(cx, id);
            }
        }
        for guest in self.adopted.keys().copied().collect::<Vec<_>>() {
            self.end_polls(guest, &Answer::actions(Vec::new()));
        }
    }

    /// The drain's deadline: nothing more is waited for.
    pub(crate) fn abandon(&mut self, cx: &mut Cx) {
        for id in self.requests.ids() {
            self.stop_waiting(cx, id);
        }
    }

    pub(crate) fn is_storing(&self) -> bool {
        self.lanes.is_writing()
    }

    /// Attachments, and actions that wait: for checks of bounds.
    pub(crate) fn sizes(&self) -> (usize, usize) {
        (self.adopted.len(), self.adopted.values().map(|adopted| adopted.queue.len()).sum())
    }

    /// Somebody may not, or asked for something that is not.
    pub(crate) fn note_refusal(&mut self, cx: &mut Cx, guest: Option<GuestName>, status: u16, code: &str) {
        if self.may_note(cx) {
            attach_event(cx, guest, AttachFact::RequestRefused { status, code: String::from(code) });
        }
    }

    /// Of what others can cause as often as they like, little is written down.
    fn may_note(&mut self, cx: &Cx) -> bool {
        let (since, count) = &mut self.refusals;
        if *count == 0 || cx.at().since(*since) >= Duration::from_secs(1) {
            (*since, *count) = (cx.at(), 0);
        }
        *count = count.saturating_add(1);
        *count <= REFUSALS
    }

    fn effect_of(&mut self, guest: GuestName, effect: EffectId, writes: Vec<lanes::Write>) {
        self.lanes.begin(guest, effect, writes);
    }

    fn push(&mut self, guest: GuestName, op: Op) {
        self.lanes.push(guest, op);
    }
}

impl Guests {
    /// An adopted guest's row is there to stay.
    pub(crate) fn keep_adopted(&mut self, cx: &mut Cx, guest: GuestName, adopted: bool) {
        // A full table only means that the row appears when the guest does.
        let id = if adopted { self.ensure(cx, guest).ok() } else { self.find(&guest) };
        if let Some(row) = id.and_then(|id| self.get_mut(id)) {
            row.keep.set(Keep::ADOPTED, adopted);
            self.line_up(&guest);
        }
    }
}

impl Adopted {
    fn is_attached(&self) -> bool {
        self.record.stage == Stage::Attached
    }

    fn is_fast(&self) -> bool {
        self.seat.as_ref().is_some_and(|seat| seat.stage == SeatStage::Fast)
    }

    fn has_lease(&self, now: Time) -> bool {
        self.lease_until.is_some_and(|until| until > now)
    }
}

/// What is left of a span that began at a wall time before this start: its age is the
/// clocks' difference, and never less than nothing nor more than the span.
fn left(cx: &Cx, since: WallTime, span: Duration) -> Duration {
    let age = cx.now.wall.unix_millis().saturating_sub(since.unix_millis());
    span.saturating_sub(Duration::from_millis(u64::try_from(age).unwrap_or(0)))
}

fn attach_event(cx: &mut Cx, guest: Option<GuestName>, fact: AttachFact) {
    cx.event(guest, Fact::Attach(fact));
}
