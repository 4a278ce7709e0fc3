//! Over HTTP: actions are polled and acknowledged, one request at a time; leases are
//! renewed beside that, as a poll may take longer than a lease lasts.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::time::Duration;

use serde::{Deserialize, Serialize};

use super::actions::Ack;
use super::handshake::Target;
use super::series::is_passing;
use crate::agent::Context;
use crate::attach::{ActionCode, ActionStatus, AttachSettings, Body, HttpAnswer, HttpRequest, Method};
use crate::boundary::Effect;
use crate::id::EffectId;
use crate::link::message::append_json;
use crate::time::Time;

/// What is asked over HTTP once the agent is attached.
#[derive(Clone, Debug, Default)]
pub(super) struct Polling {
    /// A poll or an ack.
    pub(super) request: Option<Request>,
    pub(super) lease: Option<Asked>,
    /// No poll or ack begins before then.
    rest_until: Option<Time>,
    /// No poll begins before then.
    poll_from: Option<Time>,
    /// In a row.
    failures: u32,
    pub(super) last_poll: Option<Time>,
}

#[derive(Clone, Debug)]
pub(super) struct Request {
    pub(super) asked: Asked,
    pub(super) what: What,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Asked {
    pub(super) effect: EffectId,
    pub(super) since: Time,
    pub(super) deadline: Time,
}

#[derive(Clone, Debug)]
pub(super) enum What {
    Poll,
    Ack(Vec<Ack>),
}

/// What an answer amounts to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Verdict {
    Good,
    /// The session is over, as far as the manager is concerned.
    Over(u16),
    MissingLease,
    /// To be tried again.
    Bad(Option<Duration>),
}

/// Most acknowledgements of one request.
pub(super) const ACKS_MAX: usize = 128;

impl Polling {
    /// Rests that are over are.
    pub(super) fn wake(&mut self, now: Time) {
        self.rest_until = self.rest_until.filter(|until| now < *until);
        self.poll_from = self.poll_from.filter(|from| now < *from);
    }

    /// Whether no poll or ack may begin.
    pub(super) const fn rests(&self) -> bool {
        self.rest_until.is_some()
    }

    /// Whether a poll may begin, if nothing rests. `leased`: without a lease it would
    /// be refused.
    pub(super) const fn may_poll(&self, leased: bool) -> bool {
        (leased || self.lease.is_none()) && self.poll_from.is_none()
    }

    pub(super) fn rests_until(&self) -> Option<Time> {
        self.rest_until.or(self.poll_from)
    }

    pub(super) fn poll(&mut self, cx: &mut Context<'_>, target: &Target) {
        let path = format!("/sessions/{}/actions/poll", target.session);
        let asked = ask(cx, target, Method::Get, path, Vec::new(), cx.config.attach.poll_timeout);
        self.last_poll = Some(cx.now.boot);
        self.request = asked.map(|asked| Request { asked, what: What::Poll });
    }

    pub(super) fn acknowledge(&mut self, cx: &mut Context<'_>, target: &Target, acks: Vec<Ack>) {
        let path = format!("/sessions/{}/actions/ack", target.session);
        let mut body = Vec::new();
        append_json(&mut body, &acks.iter().map(Line::of).collect::<Vec<_>>());
        let asked = ask(cx, target, Method::Post, path, body, cx.config.attach.request_timeout);
        self.request = asked.map(|asked| Request { asked, what: What::Ack(acks) });
    }

    pub(super) fn renew(&mut self, cx: &mut Context<'_>, target: &Target) {
        let path = format!("/sessions/{}/lease", target.session);
        self.lease = ask(cx, target, Method::Post, path, Vec::new(), cx.config.attach.request_timeout);
    }

    /// Something was answered as it should be.
    pub(super) fn succeeded(&mut self) {
        self.failures = 0;
        self.rest_until = None;
    }

    /// The poll that began at `since` brought nothing new: the next one is not to come
    /// as fast as the manager answers.
    pub(super) fn pace(&mut self, since: Time, settings: &AttachSettings) {
        self.poll_from = Some(since + settings.poll_rest_first);
    }

    /// One more failure: it rests.
    pub(super) fn failed(&mut self, now: Time, retry_after: Option<Duration>, settings: &AttachSettings) {
        self.rest_until = Some(now + rest(self.failures, retry_after, settings));
        self.failures = self.failures.saturating_add(1);
    }

    /// There is no lease. The first time in a row it polls again as soon as there is one.
    pub(super) fn missed_lease(&mut self, now: Time, settings: &AttachSettings) {
        let first = self.failures == 0;
        self.failed(now, None, settings);
        self.rest_until = self.rest_until.filter(|_| !first);
    }

    /// The poll that is under way, if one is, is of no use any more. What it brings
    /// comes again.
    pub(super) fn cancel_poll(&mut self, cx: &mut Context<'_>) {
        if let Some(Request { asked, .. }) =
            self.request.take_if(|request| matches!(request.what, What::Poll))
        {
            cx.out.cancel(asked.effect);
        }
    }

    /// Nothing more is asked over HTTP.
    pub(super) fn stop(&mut self, cx: &mut Context<'_>) {
        let request = self.request.take().map(|request| request.asked);
        for asked in request.into_iter().chain(self.lease.take()) {
            cx.out.cancel(asked.effect);
        }
        let last_poll = self.last_poll;
        *self = Self { last_poll, ..Self::default() };
    }

    pub(super) fn deadlines(&self) -> impl Iterator<Item = Time> {
        let request = self.request.iter().map(|request| request.asked.deadline);
        request.chain(self.lease.iter().map(|asked| asked.deadline))
    }
}

impl Verdict {
    pub(super) fn of(answer: &HttpAnswer<'_>) -> Self {
        #[derive(Deserialize)]
        struct Conflict {
            #[serde(default)]
            error_code: Option<String>,
        }
        match answer.status {
            200..=299 => Self::Good,
            status @ (401 | 403 | 404) => Self::Over(status),
            409 => {
                let conflict = serde_json::from_slice::<Conflict>(answer.body).ok();
                let code = conflict.and_then(|conflict| conflict.error_code);
                if code.as_deref() == Some("missing_lease") { Self::MissingLease } else { Self::Bad(None) }
            }
            status => Self::Bad(answer.retry_after.filter(|_| is_passing(status))),
        }
    }
}

/// How long to rest after so many failures in a row, and one.
pub(super) fn rest(failures: u32, retry_after: Option<Duration>, settings: &AttachSettings) -> Duration {
    let doubled = 2u32.saturating_pow(failures);
    let rest = settings.poll_rest_first.saturating_mul(doubled).min(settings.poll_rest_most);
    rest.max(retry_after.unwrap_or_default().min(settings.retry_after_max))
}

/// How long a renewed lease lasts, in the manager's words.
pub(super) fn lease_of(answer: &HttpAnswer<'_>) -> Option<Duration> {
    #[derive(Deserialize)]
    struct Renewed {
        lease_ttl_ms: u64,
    }
    let object = answer.body.trim_ascii_start().starts_with(b"{");
    let renewed = object.then(|| serde_json::from_slice::<Renewed>(answer.body).ok()).flatten()?;
    Some(Duration::from_millis(renewed.lease_ttl_ms))
}

#[derive(Serialize)]
struct Line<'a> {
    id: &'a str,
    status: ActionStatus,
    #[serde(skip_serializing_if = "Option::is_none")]
    error_code: Option<ActionCode>,
}

impl<'a> Line<'a> {
    fn of(ack: &'a Ack) -> Self {
        Self { id: ack.id.as_str(), status: ack.outcome.0, error_code: ack.outcome.1 }
    }
}

/// Asks the manager, with the token that is for it.
fn ask(
    cx: &mut Context<'_>,
    target: &Target,
    method: Method,
    path: String,
    body: Vec<u8>,
    within: Duration,
) -> Option<Asked> {
    let (to, bearer) = (target.url.origin()?.clone(), target.token.clone()?);
    let deadline = cx.now.boot + within;
    let effect = cx.out.effect(Effect::Http(alloc::boxed::Box::new(HttpRequest {
        method,
        to,
        path,
        bearer,
        handshake: None,
        body: Body(body),
        deadline,
        answer_max: cx.config.attach.answer_max,
    })));
    Some(Asked { effect, since: cx.now.boot, deadline })
}
