//! What comes of effects: answers over HTTP, and what was typed or written.

use core::time::Duration;

use super::Controller;
use super::payload::polled;
use super::polling::{Request, Verdict, What, lease_of};
use super::series::{Failure, Step, status_error};
use crate::agent::Context;
use crate::attach::{HttpAnswer, Route};
use crate::boundary::EffectError;
use crate::id::EffectId;

impl Controller {
    /// An HTTP request was answered. False: nobody waits for that any more.
    pub(crate) fn on_answered(
        &mut self,
        cx: &mut Context<'_>,
        effect: EffectId,
        answer: &HttpAnswer<'_>,
    ) -> bool {
        self.stirred = true;
        if self.is_cancelled(effect) {
            return true;
        }
        if self.is_attempt(effect) {
            match Failure::answered(answer, cx.config.attach.answer_max) {
                None => self.succeed(cx),
                Some(failure) => self.fail(cx, failure),
            }
            return true;
        }
        if let Some(request) = self.polling.request.take_if(|request| request.asked.effect == effect) {
            self.on_request(cx, request, answer);
            return true;
        }
        if self.polling.lease.take_if(|asked| asked.effect == effect).is_some() {
            self.on_lease(cx, answer);
            return true;
        }
        false
    }

    /// An effect ended otherwise. False: it is not ours, or nobody waits for it.
    pub(crate) fn on_done(
        &mut self,
        cx: &mut Context<'_>,
        effect: EffectId,
        result: &Result<(), EffectError>,
    ) -> bool {
        let ours = self.on_ended(cx, effect, result);
        self.stirred |= ours;
        ours
    }

    fn on_ended(&mut self, cx: &mut Context<'_>, effect: EffectId, result: &Result<(), EffectError>) -> bool {
        if self.actions.on_typed(effect, result) || self.actions.on_written(cx, effect, result) {
            return true;
        }
        if self.is_cancelled(effect) {
            return true;
        }
        let Err(error) = result else { return false };
        if let Some(series) = self.series.as_ref().filter(|_| self.is_attempt(effect)) {
            let failure = Failure::transport(series, error);
            self.fail(cx, failure);
            return true;
        }
        if let Some(request) = self.polling.request.take_if(|request| request.asked.effect == effect) {
            self.on_bad(cx, request, None);
            return true;
        }
        if self.polling.lease.take_if(|asked| asked.effect == effect).is_some() {
            self.lease.failed(cx.now.boot, None, &cx.config.attach);
            return true;
        }
        false
    }

    fn is_attempt(&self, effect: EffectId) -> bool {
        let step = self.series.as_ref().map(|series| series.step);
        matches!(step, Some(Step::Asking { effect: current, .. }) if current == effect)
    }

    /// An attempt that nobody waited for is over.
    fn is_cancelled(&mut self, effect: EffectId) -> bool {
        self.cancelled.take_if(|(cancelled, _)| *cancelled == effect).is_some()
    }

    /// Requests that took too long.
    pub(super) fn on_late_requests(&mut self, cx: &mut Context<'_>) {
        let now = cx.now.boot;
        if let Some(request) = self.polling.request.take_if(|request| request.asked.deadline <= now) {
            cx.out.cancel(request.asked.effect);
            self.on_bad(cx, request, None);
        }
        if let Some(asked) = self.polling.lease.take_if(|asked| asked.deadline <= now) {
            cx.out.cancel(asked.effect);
            self.lease.failed(now, None, &cx.config.attach);
        }
    }

    fn on_request(&mut self, cx: &mut Context<'_>, request: Request, answer: &HttpAnswer<'_>) {
        let now = cx.now.boot;
        match Verdict::of(answer) {
            Verdict::Good => match request.what {
                What::Ack(acks) => {
                    self.polling.succeeded();
                    acks.iter()
                        .filter_map(|ack| ack.key.as_ref())
                        .for_each(|key| self.actions.settle(cx, key));
                }
                What::Poll => self.on_polled(cx, request, answer),
            },
            Verdict::Over(status) => self.on_over(cx, status),
            Verdict::MissingLease => {
                self.give_back(request);
                self.polling.missed_lease(now, &cx.config.attach);
                self.lease.missing(now);
            }
            Verdict::Bad(retry_after) => self.on_bad(cx, request, retry_after),
        }
    }

    fn on_polled(&mut self, cx: &mut Context<'_>, request: Request, answer: &HttpAnswer<'_>) {
        let nothing = answer.status == 204 && answer.body.is_empty();
        let body = if nothing { b"[]" } else { answer.body };
        let (Some(polled), Some((_, session))) = (polled(body, &cx.config.attach, cx.now), &self.route)
        else {
            return self.on_bad(cx, request, None);
        };
        self.polling.succeeded();
        let session = session.clone();
        let mut new = false;
        for incoming in polled {
            new |= self.actions.take(cx, Some(&session), incoming, Route::Http);
        }
        if !new {
            self.polling.pace(request.asked.since, &cx.config.attach);
        }
    }

    fn on_bad(&mut self, cx: &Context<'_>, request: Request, retry_after: Option<Duration>) {
        self.give_back(request);
        self.polling.failed(cx.now.boot, retry_after, &cx.config.attach);
    }

    /// What a request was to bring is to be brought again.
    fn give_back(&mut self, request: Request) {
        if let What::Ack(acks) = request.what {
            acks.into_iter().for_each(|ack| self.actions.unsent(ack, Route::Http));
        }
    }

    fn on_lease(&mut self, cx: &mut Context<'_>, answer: &HttpAnswer<'_>) {
        let now = cx.now.boot;
        match (Verdict::of(answer), lease_of(answer)) {
            (Verdict::Good, Some(ttl)) => self.lease.granted(now, ttl, &cx.config.attach),
            (Verdict::Over(status), _) => self.on_over(cx, status),
            (Verdict::Bad(retry_after), _) => self.lease.failed(now, retry_after, &cx.config.attach),
            (Verdict::Good | Verdict::MissingLease, _) => self.lease.failed(now, None, &cx.config.attach),
        }
    }

    /// The manager knows this agent no more. Only a session that it doesn't know will
    /// not come back.
    fn on_over(&mut self, cx: &mut Context<'_>, status: u16) {
        self.detach(cx, status_error(status), status == 404);
    }
}
