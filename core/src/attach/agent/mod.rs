//! The agent's side: it reads handshakes, attaches, keeps its lease, and does what it
//! is told, over the link or, without one, by polling.
//!
//! What a handshake or the configuration asks for:
//!
//! | state | leaves it on | for |
//! |---|---|---|
//! | resting | deadline | asking (framed, over the link; linkless, if there is none) |
//! | | the code is too old | over |
//! | linkless | a session of the link | resting, for no time |
//! | asking, framed | attached | attached |
//! | | a failure that may pass | resting, or over after the last attempt |
//! | | any other failure | over |
//! | attached | released, the manager knows it no more | over |
//! | any | another handshake that may be followed | resting, for no time |
//!
//! `handshake` reads and judges, `series` counts attempts, `lease` and `polling` keep
//! an attachment, `actions` and `memory` do what is asked once. `answers` takes what
//! comes over HTTP, `frames` what comes over the link and goes out there.

mod actions;
mod answers;
mod frames;
mod handshake;
mod lease;
mod memory;
#[cfg(feature = "model")]
mod obligations;
mod payload;
mod polling;
mod report;
mod series;

#[cfg(feature = "model")]
pub(crate) use obligations::Longest;

use alloc::boxed::Box;
use alloc::vec::Vec;

use super::wire::{AttachError, AttachErrorCode, AttachState};
use super::{Applied, AttachId, AttachSettings, Body, HttpRequest, Method, Route};
use crate::agent::Context;
use crate::boundary::{Deadline, Effect, Wakeup};
use crate::event::{AttachFact, CODE_MAX, Fact, shortened};
use crate::id::EffectId;
use crate::time::{Now, Time, millis};
use actions::Actions;
use handshake::Target;
use lease::Lease;
use polling::Polling;
use series::{Failure, Series, Step};

/// An agent's attachment.
#[derive(Clone, Debug, Default)]
pub(crate) struct Controller {
    /// The link's session, if there is one.
    link: Option<Uplink>,
    series: Option<Series>,
    /// An attempt that nobody waits for is under way, until then at the latest.
    cancelled: Option<(EffectId, Time)>,
    lease: Lease,
    polling: Polling,
    actions: Actions,
    /// How actions travel, and for which session.
    route: Option<(Route, AttachId)>,
    /// A handshake that was refused: to be told.
    refusal: Option<AttachState>,
    /// Why the last one that was refused was.
    refused: Option<AttachError>,
    /// How it goes is to be told.
    untold: bool,
    /// The last handshake had no block, and that was said.
    no_block: bool,
    /// Something happened that may let something else begin.
    stirred: bool,
    /// Something is to be said as soon as there is room.
    held_back: bool,
    /// When something is due.
    due: Option<Time>,
    draining: bool,
}

/// A session of the link.
#[derive(Clone, Copy, Debug)]
struct Uplink {
    /// The broker proved itself, or needn't.
    trusted: bool,
    /// It was told that this agent is attached.
    greeted: bool,
    /// Attempts over it that nobody waits for, and that it will answer first.
    stale: u32,
}

impl Controller {
    pub(crate) fn new(settings: &AttachSettings, applied: Vec<Applied>, now: Now) -> Self {
        Self { actions: Actions::restored(applied, settings, now), ..Self::default() }
    }

    /// The agent starts: with what its configuration asks for.
    pub(crate) fn start(&mut self, cx: &mut Context<'_>) {
        self.stirred = true;
        let Some(hint) = cx.config.attach.hint.as_ref().filter(|_| !cx.config.once) else { return };
        if hint.manager.origin().is_none() {
            // The link is no address that can be configured: only a broker can name it.
            cx.event(Fact::Attach(AttachFact::Refused {
                handshake: None,
                reason: AttachErrorCode::Malformed,
            }));
            return;
        }
        self.series = Some(Series::new(Target::configured(hint, cx.entropy), cx.now.boot));
    }

    /// Begins what can begin, and says what is due when.
    pub(crate) fn advance(&mut self, cx: &mut Context<'_>) {
        if !self.stirred {
            return;
        }
        self.stirred = false;
        if self.draining {
            self.actions.drain(cx);
        } else {
            self.attempt(cx);
            self.choose_route(cx);
            self.actions.advance(cx);
            self.keep(cx);
        }
        self.due = self.deadlines().min();
    }

    pub(crate) fn on_timer(&mut self, cx: &mut Context<'_>) {
        let now = cx.now.boot;
        if self.due.is_none_or(|due| now < due) {
            return;
        }
        self.stirred = true;
        self.actions.on_timer(cx);
        let Some(series) = &self.series else { return };
        match series.step {
            Step::Asking { effect, deadline } if deadline <= now => {
                cx.out.cancel(effect);
                self.fail(cx, Failure::of(AttachErrorCode::TimedOut, true));
            }
            Step::Framed { sent, deadline } if deadline <= now => {
                self.abandon_frame(sent);
                self.fail(cx, Failure::of(AttachErrorCode::TimedOut, true));
            }
            Step::Linkless if series.target.is_expired(now) => {
                self.fail(cx, Failure::of(AttachErrorCode::Expired, false));
            }
            _ => self.on_late_requests(cx),
        }
    }

    pub(crate) fn next_deadline(&self) -> Option<Deadline> {
        self.due.map(|at| Deadline { at, why: Wakeup::Attach })
    }

    pub(crate) fn is_attached(&self) -> bool {
        self.series.as_ref().is_some_and(Series::is_attached)
    }

    /// Whether something happened since [`Controller::advance`], or waits for room.
    pub(crate) const fn is_astir(&self) -> bool {
        self.stirred || self.held_back
    }

    /// The agent stops: nothing begins any more, what is being applied ends.
    pub(crate) fn drain(&mut self, cx: &mut Context<'_>) {
        self.draining = true;
        self.stirred = true;
        self.link = None;
        self.cancel_attempt(cx);
        self.series = None;
        self.polling.stop(cx);
        self.choose_route(cx);
    }

    /// Whether a drain needn't wait.
    pub(crate) fn is_drained(&self) -> bool {
        self.actions.is_drained()
    }

    /// The time of a drain is over.
    pub(crate) fn cut(&mut self, cx: &mut Context<'_>) {
        self.actions.cut(cx);
        self.stirred = true;
    }

    /// A target to attach to, in place of any other.
    fn follow(&mut self, cx: &mut Context<'_>, target: Target) {
        if !planted!(cx.config, TwoAttempts) {
            self.cancel_attempt(cx);
        }
        if let Some(before) = self.series.take()
            && before.target.session != target.session
        {
            if before.is_attached() {
                let session = before.target.session.clone();
                cx.event(Fact::Attach(AttachFact::Detached { session, code: "replaced".into() }));
            }
            self.actions.settle_session(cx, &before.target.session);
        }
        self.series = Some(Series::new(target, cx.now.boot));
        self.choose_route(cx);
    }

    /// The attempt that is under way is of no use any more.
    fn cancel_attempt(&mut self, cx: &mut Context<'_>) {
        match self.series.as_ref().map(|series| series.step) {
            Some(Step::Asking { effect, deadline }) => {
                cx.out.cancel(effect);
                self.cancelled = Some((effect, deadline));
            }
            Some(Step::Framed { sent, .. }) => self.abandon_frame(sent),
            _ => {}
        }
    }

    fn abandon_frame(&mut self, sent: bool) {
        if let Some(link) = self.link.as_mut().filter(|_| sent) {
            link.stale += 1;
        }
    }

    /// The next attempt, if it is time for one.
    fn attempt(&mut self, cx: &mut Context<'_>) {
        let now = cx.now.boot;
        let Some(series) = &mut self.series else { return };
        if series.next_retry().is_none_or(|until| now < until) {
            return;
        }
        if series.target.is_expired(now) {
            return self.fail(cx, Failure::of(AttachErrorCode::Expired, false));
        }
        if self.cancelled.is_some_and(|(_, until)| now < until) {
            return;
        }
        self.cancelled = None;
        let hint = cx.config.attach.hint.as_ref().filter(|_| planted!(cx.config, TokenToOtherUrl));
        let token = hint.map(|hint| hint.token.clone()).or_else(|| series.target.token.clone());
        let to = series.target.url.origin().cloned().zip(token);
        match self.link {
            _ if to.is_some() => {}
            Some(Uplink { trusted: true, .. }) => {}
            Some(_) => return self.fail(cx, Failure::of(AttachErrorCode::UnkeyedLink, false)),
            None => {
                series.step = Step::Linkless;
                return;
            }
        }
        let deadline = now + cx.config.attach.request_timeout;
        series.attempt += 1;
        series.last_attempt = Some(now);
        let Target { session, url, handshake, beach, .. } = &series.target;
        cx.event(Fact::Attach(AttachFact::Start {
            session: session.clone(),
            manager: url.clone(),
            attempt: series.attempt,
            source: series.target.source(),
        }));
        series.step = match to {
            None => Step::Framed { sent: false, deadline },
            Some((to, bearer)) => {
                let effect = cx.out.effect(Effect::Http(Box::new(HttpRequest {
                    method: Method::Post,
                    to,
                    path: alloc::format!("/private-beaches/{beach}/sessions/attach-by-code"),
                    bearer,
                    handshake: handshake.clone(),
                    once: true,
                    body: Body(series.body()),
                    deadline,
                    answer_max: cx.config.attach.answer_max,
                })));
                if planted!(cx.config, PollBeforeAttach) {
                    self.polling.poll(cx, &series.target);
                }
                Step::Asking { effect, deadline }
            }
        };
        self.untold = true;
    }

    /// An attempt failed, or there can be no other.
    fn fail(&mut self, cx: &mut Context<'_>, failure: Failure) {
        let Some(series) = &mut self.series else { return };
        if matches!(series.step, Step::Asking { .. } | Step::Framed { .. }) {
            series.failures += 1;
        }
        let rest = series.rest(&failure, &cx.config.attach, cx.entropy);
        series.step = rest.map_or(Step::Over, |rest| Step::Resting { until: cx.now.boot + rest });
        cx.event(Fact::Attach(AttachFact::Failure {
            session: series.target.session.clone(),
            attempt: series.attempt,
            source: series.target.source(),
            code: shortened(&failure.error.code, CODE_MAX),
            message: failure.error.message.clone(),
            retry_ms: rest.map(millis),
        }));
        series.last_error = Some(failure.error);
        self.untold = true;
    }

    fn succeed(&mut self, cx: &mut Context<'_>) {
        let Some(series) = &mut self.series else { return };
        series.step = Step::Attached;
        series.last_error = None;
        let (session, source) = (series.target.session.clone(), series.target.source());
        if series.target.handshake.is_some() {
            // The broker has one session for this guest: the others are released.
            self.actions.settle_others(cx, &session);
        }
        self.lease = Lease::begun(cx.now.boot, series.target.lease_ttl, &cx.config.attach);
        cx.event(Fact::Attach(AttachFact::Success { session, attempt: series.attempt, source }));
        self.untold = true;
    }

    /// The manager says that the attachment is over; `released`: the session, too.
    fn detach(&mut self, cx: &mut Context<'_>, error: AttachError, released: bool) {
        let Some(series) = &mut self.series else { return };
        let session = series.target.session.clone();
        series.step = Step::Over;
        let code = shortened(&error.code, CODE_MAX);
        series.last_error = Some(error);
        cx.event(Fact::Attach(AttachFact::Detached { session: session.clone(), code }));
        if released {
            self.actions.settle_session(cx, &session);
        }
        self.untold = true;
        self.choose_route(cx);
    }

    /// The way that actions travel from now on.
    fn choose_route(&mut self, cx: &mut Context<'_>) {
        let attached = self.series.as_ref().filter(|series| series.is_attached());
        let route = attached.and_then(|series| {
            let Target { handshake, url, session, .. } = &series.target;
            let trusted = self.link.is_some_and(|link| link.trusted);
            let fast = trusted && handshake.is_some();
            let http = url.origin().map(|_| Route::Http);
            let route = if fast { Some(Route::Link) } else { http };
            route.map(|route| (route, session.clone()))
        });
        if self.route == route {
            return;
        }
        let before = core::mem::replace(&mut self.route, route);
        if let Some((Route::Link, session)) = before {
            cx.event(Fact::Attach(AttachFact::FastPath { session, active: false }));
        }
        if let Some((Route::Link, session)) = &self.route {
            let session = session.clone();
            cx.event(Fact::Attach(AttachFact::FastPath { session, active: true }));
        }
        self.polling.stop(cx);
        self.lease.unanswered(cx.now.boot);
        self.actions.on_route_lost(Route::Http);
        self.actions.owe_all(self.route.as_ref().map(|(_, session)| session));
        if self.route.is_none() && !self.is_attached() {
            self.lease = Lease::default();
        }
    }

    /// Keeps an attachment: its lease, and over HTTP its polls and acks.
    fn keep(&mut self, cx: &mut Context<'_>) {
        let Some(series) = self.series.as_ref().filter(|series| series.is_attached()) else { return };
        let now = cx.now.boot;
        match self.route {
            Some((Route::Link, _)) if self.lease.is_due(now) => {
                self.lease.ask(now + cx.config.attach.request_timeout);
            }
            None | Some((Route::Link, _)) => {}
            Some((Route::Http, _)) => {
                if self.polling.lease.is_none() && self.lease.is_due(now) {
                    self.polling.renew(cx, &series.target);
                }
                self.polling.wake(now);
                let acks = self.actions.next_ack(Route::Http, true).is_some();
                if acks {
                    self.polling.cancel_poll(cx);
                }
                if self.polling.request.is_some() || self.polling.rests() {
                    return;
                }
                if acks {
                    let mut batch = Vec::new();
                    while batch.len() < polling::ACKS_MAX
                        && let Some(ack) = self.actions.next_ack(Route::Http, true)
                    {
                        self.actions.sent(&ack, Route::Http);
                        batch.push(ack);
                    }
                    self.polling.acknowledge(cx, &series.target, batch);
                } else if self.actions.unfinished() == 0 && self.polling.may_poll(self.lease.ends.is_some()) {
                    self.polling.poll(cx, &series.target);
                }
            }
        }
    }

    fn deadlines(&self) -> impl Iterator<Item = Time> {
        let series = self.series.as_ref().and_then(Series::next_deadline);
        // Whoever waits for a cancelled attempt to end is woken when it has.
        let held = self.cancelled.map(|(_, until)| until);
        let series = series.map(|at| held.map_or(at, |held| at.max(held)));
        let http = matches!(self.route, Some((Route::Http, _)));
        let rest = self.polling.rests_until().filter(|_| http && self.polling.request.is_none());
        let lease = self.lease.renew_at.filter(|_| self.route.is_some() && self.polling.lease.is_none());
        let actions = self.actions.next_deadline();
        [series, rest, lease, actions].into_iter().flatten().chain(self.polling.deadlines())
    }
}
