//! What an attached agent is to do: each thing at most once, in the order in which it
//! came, and with one honest acknowledgement.
//!
//! An action:
//!
//! | state | leaves it on | for |
//! |---|---|---|
//! | arrived | nothing is being written | beginning |
//! | beginning | done | ready |
//! | | failed | finished: `no_storage` |
//! | ready | nothing is being applied | applying |
//! | | it is too late | ending: `expired` |
//! | applying | done, failed | ending |
//! | ending | done, failed | finished, and acknowledged |
//! | finished | the ack was confirmed, some time ago | forgotten |
//!
//! What is being applied is on the disk: whoever finds it there at a start was
//! interrupted, and applies nothing again. Once the session is over, what was not
//! begun is not begun any more.

use alloc::collections::{BTreeMap, BTreeSet, VecDeque};
use alloc::string::String;
use alloc::vec::Vec;

use super::memory::Writing;
use super::payload::{self, Incoming};
use crate::agent::Context;
use crate::attach::{ActionCode, ActionStatus, Applied, AttachId, AttachSettings, Route};
use crate::boundary::{Effect, EffectError, EffectErrorKind, Typed};
use crate::event::{AttachFact, Fact};
use crate::id::EffectId;
use crate::time::{Now, Time};

/// A session, and an action of it.
pub(super) type Key = (AttachId, AttachId);

/// What became of an action.
pub(super) type Outcome = (ActionStatus, Option<ActionCode>);

/// All actions.
#[derive(Clone, Debug, Default)]
pub(super) struct Actions {
    pub(super) known: BTreeMap<Key, Known>,
    /// To be written down, then applied.
    pub(super) arrived: VecDeque<Task>,
    pub(super) ready: VecDeque<Task>,
    pub(super) typing: Option<Typing>,
    /// Whose outcomes are to be written down.
    pub(super) ended: Vec<Key>,
    /// To be acknowledged.
    due: VecDeque<Key>,
    /// To be acknowledged, and not remembered.
    refused: VecDeque<Refusal>,
    /// Written down as begun, and not to be begun by this agent.
    pub(super) undone: Vec<Key>,
    pub(super) writing: Option<Writing>,
    /// Confirmed, and when each may be forgotten.
    pub(super) forget: BTreeSet<(Time, Key)>,
    /// The disk says something else of these: written with whatever comes next.
    pub(super) stale: BTreeSet<Key>,
    /// The last write failed.
    pub(super) failing: bool,
    /// Nothing is forgotten before then.
    pub(super) retry_at: Option<Time>,
}

/// An action that is remembered.
#[derive(Clone, Debug)]
pub(super) struct Known {
    pub(super) phase: Phase,
    pub(super) outcome: Option<Outcome>,
    /// How it came last.
    pub(super) route: Route,
    /// When the ack was confirmed.
    pub(super) settled: Option<crate::time::WallTime>,
    /// It is among those to be acknowledged.
    owed: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Phase {
    Arrived,
    Beginning,
    Ready,
    Applying,
    Ending,
    Finished,
}

/// What is to be typed.
#[derive(Clone, Debug)]
pub(super) struct Task {
    pub(super) key: Key,
    terminal: String,
    bytes: Typed,
    expires: Option<Time>,
}

/// What is being typed.
#[derive(Clone, Debug)]
pub(super) struct Typing {
    effect: EffectId,
    key: Key,
    /// `None`: it took too long, and was cancelled. The answer comes all the same.
    pub(super) deadline: Option<Time>,
}

#[derive(Clone, Debug)]
struct Refusal {
    id: AttachId,
    outcome: Outcome,
    route: Route,
}

/// An acknowledgement.
#[derive(Clone, Debug)]
pub(super) struct Ack {
    pub(super) id: AttachId,
    pub(super) outcome: Outcome,
    /// It is confirmed, once it was sent.
    pub(super) key: Option<Key>,
}

/// Most actions that wait to be applied.
const WAITING_MAX: usize = 512;

/// Most acknowledgements that wait of actions that are not remembered.
const REFUSED_MAX: usize = 512;

impl Actions {
    pub(super) fn restored(applied: Vec<Applied>, settings: &AttachSettings, now: Now) -> Self {
        let mut actions = Self::default();
        for Applied { session, id, outcome, settled_at } in applied {
            let key = (session, id);
            if outcome.is_none() {
                actions.stale.insert(key.clone());
            }
            let outcome = outcome.unwrap_or((ActionStatus::Rejected, Some(ActionCode::Interrupted)));
            if let Some(at) = settled_at {
                // The only use of the wall clock: how old it is now.
                let age = now.wall.unix_millis().saturating_sub(at.unix_millis());
                let age = core::time::Duration::from_millis(u64::try_from(age).unwrap_or(0));
                let left = settings.remember - age.min(settings.remember);
                actions.forget.insert((now.boot + left, key.clone()));
            }
            let known = Known {
                phase: Phase::Finished,
                outcome: Some(outcome),
                route: Route::Link,
                settled: settled_at,
                owed: false,
            };
            actions.known.insert(key, known);
        }
        actions
    }

    /// An action came. `session`: whose it is; `None`: the agent is not attached there.
    /// True: it is a new one.
    pub(super) fn take(
        &mut self,
        cx: &mut Context<'_>,
        session: Option<&AttachId>,
        incoming: Incoming<'_>,
        route: Route,
    ) -> bool {
        let Incoming { id, kind, payload, expires } = incoming;
        let key = session.map(|session| (session.clone(), id.clone()));
        if let Some(key) = &key
            && let Some(known) = self.known.get_mut(key)
            && !planted!(cx.config, ActionAppliedTwice)
        {
            known.route = route;
            if known.phase == Phase::Finished {
                self.owe(key);
            }
            return false;
        }
        let now = cx.now.boot;
        let rejected = |code| Err((ActionStatus::Rejected, Some(code)));
        let checked = if expires.is_some_and(|expires| expires <= now) {
            Err((ActionStatus::Expired, None))
        } else if key.is_none() {
            rejected(ActionCode::NotAttached)
        } else if cx.config.inbox.is_none() {
            rejected(ActionCode::NoStorage)
        } else {
            match payload::read(&kind, payload) {
                Ok(_) if !self.has_room(cx.config.attach.remembered_max) => rejected(ActionCode::Busy),
                Ok(read) => Ok(read),
                Err(code) => rejected(code),
            }
        };
        match (checked, key) {
            (Ok((terminal, bytes)), Some(key)) => {
                let known = Known { phase: Phase::Arrived, outcome: None, route, settled: None, owed: false };
                self.known.insert(key.clone(), known);
                self.arrived.push_back(Task { key, terminal, bytes, expires });
                true
            }
            (Err(outcome), _) => {
                self.refuse(cx, id, outcome, route);
                false
            }
            (Ok(_), None) => false,
        }
    }

    fn has_room(&self, remembered_max: usize) -> bool {
        let beginning = self.writing.as_ref().map_or(0, |writing| writing.begun.len());
        let waiting = self.arrived.len() + self.ready.len() + beginning;
        waiting < WAITING_MAX && self.known.len() < remembered_max
    }

    /// Acknowledges what is not even remembered.
    pub(super) fn refuse(&mut self, cx: &mut Context<'_>, id: AttachId, outcome: Outcome, route: Route) {
        tell(cx, id.clone(), outcome, route);
        if self.refused.len() < REFUSED_MAX {
            self.refused.push_back(Refusal { id, outcome, route });
        }
    }

    /// Begins what can begin.
    pub(super) fn advance(&mut self, cx: &mut Context<'_>) {
        while self.typing.is_none() {
            let Some(task) = self.ready.pop_front() else { break };
            self.apply(cx, task);
        }
        self.write(cx);
    }

    fn apply(&mut self, cx: &mut Context<'_>, task: Task) {
        let Task { key, terminal, bytes, expires } = task;
        let Some(known) = self.known.get_mut(&key) else { return };
        if expires.is_some_and(|expires| expires <= cx.now.boot) {
            known.phase = Phase::Ending;
            known.outcome = Some((ActionStatus::Expired, None));
            self.ended.push(key);
            return;
        }
        known.phase = Phase::Applying;
        let deadline = cx.now.boot + cx.config.attach.apply_timeout;
        let effect = cx.out.effect(Effect::Type { terminal, bytes, deadline });
        self.typing = Some(Typing { effect, key, deadline: Some(deadline) });
    }

    /// What was typed, or not. False: it is not about that.
    pub(super) fn on_typed(&mut self, effect: EffectId, result: &Result<(), EffectError>) -> bool {
        let Some(typing) = self.typing.take_if(|typing| typing.effect == effect) else { return false };
        let outcome = match result {
            Ok(()) => (ActionStatus::Ok, None),
            Err(error) => failed(error.kind, typing.deadline.is_none()),
        };
        if let Some(known) = self.known.get_mut(&typing.key) {
            known.phase = Phase::Ending;
            known.outcome = Some(outcome);
            self.ended.push(typing.key);
        }
        true
    }

    /// What is being typed takes too long.
    pub(super) fn on_timer(&mut self, cx: &mut Context<'_>) {
        if let Some(typing) = &mut self.typing
            && typing.deadline.is_some_and(|deadline| deadline <= cx.now.boot)
        {
            typing.deadline = None;
            cx.out.cancel(typing.effect);
        }
    }

    /// The outcome is as durable as it gets.
    pub(super) fn finish(&mut self, cx: &mut Context<'_>, key: Key) {
        let Some(known) = self.known.get_mut(&key) else { return };
        known.phase = Phase::Finished;
        let (outcome, route, settled) = (known.outcome, known.route, known.settled.is_some());
        if let Some(outcome) = outcome {
            tell(cx, key.1.clone(), outcome, route);
        }
        if settled {
            self.forget.insert((cx.now.boot + cx.config.attach.remember, key));
        } else {
            self.owe(&key);
        }
    }

    fn owe(&mut self, key: &Key) {
        if let Some(known) = self.known.get_mut(key)
            && !core::mem::replace(&mut known.owed, true)
        {
            self.due.push_back(key.clone());
        }
    }

    /// A route to `session` opened: whatever it was not told is due. `None`: there is none.
    pub(super) fn owe_all(&mut self, session: Option<&AttachId>) {
        for key in core::mem::take(&mut self.due) {
            if let Some(known) = self.known.get_mut(&key) {
                known.owed = false;
            }
        }
        let Some(session) = session else { return };
        let unsettled = |known: &Known| known.phase == Phase::Finished && known.settled.is_none();
        let keys = self.of(session).filter(|(_, known)| unsettled(known)).map(|(key, _)| key.clone());
        for key in keys.collect::<Vec<_>>() {
            self.owe(&key);
        }
    }

    /// Whatever came over a link that is gone comes again.
    pub(super) fn on_route_lost(&mut self, route: Route) {
        self.refused.retain(|refusal| refusal.route != route);
    }

    fn of(&self, session: &AttachId) -> impl Iterator<Item = (&Key, &Known)> {
        let first: Key = (session.clone(), AttachId::least());
        self.known.range(first..).take_while(move |((of, _), _)| of == session)
    }

    /// The next acknowledgement over `route`, which stays until it is [`Actions::sent`].
    /// Without `remembered`, of those that are refused only.
    pub(super) fn next_ack(&mut self, route: Route, remembered: bool) -> Option<Ack> {
        if let Some(refusal) = self.refused.iter().find(|refusal| refusal.route == route) {
            return Some(Ack { id: refusal.id.clone(), outcome: refusal.outcome, key: None });
        }
        while remembered && let Some(key) = self.due.front() {
            match self.known.get(key) {
                Some(Known { owed: true, outcome: Some(outcome), .. }) => {
                    let (id, outcome) = (key.1.clone(), *outcome);
                    return Some(Ack { id, outcome, key: Some(key.clone()) });
                }
                _ => drop(self.due.pop_front()),
            }
        }
        None
    }

    /// `ack`, which came from [`Actions::next_ack`], was sent.
    pub(super) fn sent(&mut self, ack: &Ack, route: Route) {
        match &ack.key {
            None => {
                if let Some(index) = self.refused.iter().position(|refusal| refusal.route == route) {
                    self.refused.remove(index);
                }
            }
            Some(key) => {
                self.due.pop_front();
                if let Some(known) = self.known.get_mut(key) {
                    known.owed = false;
                }
            }
        }
    }

    /// An ack came to nothing: it is due again.
    pub(super) fn unsent(&mut self, ack: Ack, route: Route) {
        match ack.key {
            Some(key) => self.owe(&key),
            None => self.refused.push_front(Refusal { id: ack.id, outcome: ack.outcome, route }),
        }
    }

    /// The manager knows what became of an action.
    pub(super) fn settle(&mut self, cx: &Context<'_>, key: &Key) {
        let Some(known) = self.known.get_mut(key) else { return };
        if known.phase != Phase::Finished {
            return;
        }
        known.owed = false;
        if known.settled.is_none() {
            known.settled = Some(cx.now.wall);
            self.forget.insert((cx.now.boot + cx.config.attach.remember, key.clone()));
            self.stale.insert(key.clone());
        }
    }

    /// The session is over: nothing of it will be asked for again, and what was not
    /// begun of it is not to be applied.
    pub(super) fn settle_session(&mut self, cx: &Context<'_>, session: &AttachId) {
        self.arrived.retain(|task| {
            let stays = task.key.0 != *session;
            if !stays {
                self.known.remove(&task.key);
            }
            stays
        });
        self.ready.retain(|task| task.key.0 != *session);
        for key in self.of(session).map(|(key, _)| key.clone()).collect::<Vec<_>>() {
            let Some(known) = self.known.get_mut(&key) else { continue };
            if matches!(known.phase, Phase::Beginning | Phase::Ready) {
                known.phase = Phase::Finished;
                known.outcome = Some((ActionStatus::Rejected, Some(ActionCode::NotAttached)));
            }
            if known.phase == Phase::Finished {
                self.settle(cx, &key);
            } else {
                known.settled = Some(cx.now.wall);
            }
        }
    }

    /// As [`Actions::settle_session`], for all but one.
    pub(super) fn settle_others(&mut self, cx: &Context<'_>, session: &AttachId) {
        let mut others: Vec<AttachId> = Vec::new();
        for (of, _) in self.known.keys() {
            if of != session && others.last() != Some(of) {
                others.push(of.clone());
            }
        }
        for other in others {
            self.settle_session(cx, &other);
        }
    }

    /// How many are not finished.
    pub(super) fn unfinished(&self) -> usize {
        let written = self.writing.as_ref().map_or(0, |writing| writing.begun.len() + writing.ended.len());
        let waiting = self.arrived.len() + self.ready.len() + self.ended.len();
        waiting + written + usize::from(self.typing.is_some())
    }

    /// The agent stops: what was not begun can be begun by the next one.
    pub(super) fn drain(&mut self, cx: &mut Context<'_>) {
        for task in self.arrived.drain(..) {
            self.known.remove(&task.key);
        }
        for task in self.ready.drain(..) {
            self.known.remove(&task.key);
            self.undone.push(task.key);
        }
        self.write(cx);
    }

    /// Whether nothing is being applied or written, or is to be written.
    pub(super) fn is_drained(&self) -> bool {
        self.unfinished() == 0 && self.undone.is_empty() && self.writing.is_none()
    }

    /// The time of a drain is over.
    pub(super) fn cut(&mut self, cx: &mut Context<'_>) {
        if let Some(typing) = self.typing.take() {
            cx.out.cancel(typing.effect);
        }
    }
}

fn failed(kind: EffectErrorKind, late: bool) -> Outcome {
    let code = match kind {
        EffectErrorKind::Owned => return (ActionStatus::Preempted, Some(ActionCode::Owned)),
        EffectErrorKind::ProgramMissing => ActionCode::NoTerminal,
        EffectErrorKind::Unreachable => ActionCode::NoTerminals,
        EffectErrorKind::TimedOut => ActionCode::TimedOut,
        EffectErrorKind::Cancelled if late => ActionCode::TimedOut,
        EffectErrorKind::Cancelled => ActionCode::Interrupted,
        _ => ActionCode::Failed,
    };
    (ActionStatus::Rejected, Some(code))
}

fn tell(cx: &mut Context<'_>, id: AttachId, (status, code): Outcome, route: Route) {
    cx.event(Fact::Attach(match route {
        Route::Link => AttachFact::FastPathApply { id, status, code },
        Route::Http => AttachFact::PollApply { id, status, code },
    }));
}
