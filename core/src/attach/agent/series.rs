//! A series of attempts to attach: one at a time, and not for ever.

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::time::Duration;

use serde::{Deserialize, Serialize};

use super::handshake::{Target, explained};
use crate::attach::wire::{AttachError, AttachErrorCode};
use crate::attach::{AttachSettings, HttpAnswer};
use crate::boundary::{EffectError, EffectErrorKind};
use crate::entropy::Entropy;
use crate::event::{MESSAGE_MAX, shortened};
use crate::id::EffectId;
use crate::link::message::append_json;
use crate::time::Time;

/// What a target came to.
#[derive(Clone, Debug)]
pub(super) struct Series {
    pub(super) target: Target,
    /// The attempt that is under way, or was last; from 1.
    pub(super) attempt: u32,
    pub(super) failures: u32,
    pub(super) last_attempt: Option<Time>,
    pub(super) last_error: Option<AttachError>,
    pub(super) step: Step,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Step {
    /// The next attempt begins then.
    Resting {
        until: Time,
    },
    /// It begins with the next session of the link.
    Linkless,
    /// An attempt over HTTP.
    Asking {
        effect: EffectId,
        deadline: Time,
    },
    /// An attempt over the link.
    Framed {
        sent: bool,
        deadline: Time,
    },
    Attached,
    /// It gave up, or is attached no more.
    Over,
}

/// An attempt that failed.
#[derive(Clone, Debug)]
pub(super) struct Failure {
    pub(super) error: AttachError,
    /// Another attempt may do better.
    pub(super) passing: bool,
    /// It is not to begin earlier.
    pub(super) retry_after: Option<Duration>,
}

impl Series {
    /// The first attempt begins at once.
    pub(super) const fn new(target: Target, now: Time) -> Self {
        let step = Step::Resting { until: now };
        Self { target, attempt: 0, failures: 0, last_attempt: None, last_error: None, step }
    }

    /// Whether attempts are under way, or to come.
    pub(super) const fn is_trying(&self) -> bool {
        !matches!(self.step, Step::Attached | Step::Over)
    }

    pub(super) const fn is_attached(&self) -> bool {
        matches!(self.step, Step::Attached)
    }

    /// When the next attempt begins, if that is known.
    pub(super) const fn next_retry(&self) -> Option<Time> {
        match self.step {
            Step::Resting { until } => Some(until),
            _ => None,
        }
    }

    pub(super) fn next_deadline(&self) -> Option<Time> {
        match self.step {
            Step::Resting { until: at }
            | Step::Asking { deadline: at, .. }
            | Step::Framed { deadline: at, .. } => Some(at),
            Step::Linkless => self.target.expires,
            Step::Attached | Step::Over => None,
        }
    }

    /// How long to rest after the attempt that failed just now; `None`: it was the last.
    pub(super) fn rest(
        &self,
        failure: &Failure,
        settings: &AttachSettings,
        entropy: &mut Entropy,
    ) -> Option<Duration> {
        if !failure.passing || self.attempt >= settings.attempts_max {
            return None;
        }
        let doubled = 2u32.saturating_pow(self.attempt.saturating_sub(1));
        let backoff = settings.backoff_first.saturating_mul(doubled).min(settings.backoff_most);
        let range = backoff.saturating_mul(settings.jitter_percent) / 100;
        let asked = failure.retry_after.unwrap_or_default().min(settings.retry_after_max);
        Some((backoff + entropy.jitter(range)).max(asked))
    }

    /// The body of an attempt over HTTP.
    pub(super) fn body(&self) -> Vec<u8> {
        #[derive(Serialize)]
        struct Body<'a> {
            session_id: &'a str,
            code: &'a str,
        }
        let mut body = Vec::new();
        let Target { session, code, .. } = &self.target;
        append_json(&mut body, &Body { session_id: session.as_str(), code: code.expose() });
        body
    }

    /// What somebody else says, if it holds no secret of this series.
    pub(super) fn harmless(&self, text: &str) -> Option<String> {
        let Target { code, token, .. } = &self.target;
        let mut secrets = [Some(code), token.as_ref()].into_iter().flatten();
        let harmless = !text.is_empty() && !secrets.any(|secret| text.contains(secret.expose()));
        harmless.then(|| shortened(text, MESSAGE_MAX))
    }
}

impl Failure {
    pub(super) fn of(code: AttachErrorCode, passing: bool) -> Self {
        let error = AttachError { code: code.as_str().to_string(), message: explained(code).into() };
        Self { error, passing, retry_after: None }
    }

    /// The broker refused an attempt over the link. What it says besides its word is
    /// its own affair.
    pub(super) fn refused(code: &str) -> Self {
        match code {
            "storage_failed" => Self::of(AttachErrorCode::StorageFailed, true),
            "unknown_session" => Self::of(AttachErrorCode::UnknownSession, false),
            "invalid_code" => Self::of(AttachErrorCode::InvalidCode, false),
            "expired" => Self::of(AttachErrorCode::Expired, false),
            "released" => Self::of(AttachErrorCode::Released, false),
            _ => Self::of(AttachErrorCode::BadAnswer, false),
        }
    }

    /// There was no answer.
    pub(super) fn transport(series: &Series, error: &EffectError) -> Self {
        let failure = match error.kind {
            EffectErrorKind::BadAnswer => return Self::of(AttachErrorCode::BadAnswer, true),
            EffectErrorKind::TimedOut => return Self::of(AttachErrorCode::TimedOut, true),
            _ => Self::of(AttachErrorCode::Unreachable, true),
        };
        match series.harmless(&error.message) {
            Some(message) => Self { error: AttachError { message, ..failure.error }, ..failure },
            None => failure,
        }
    }

    /// What an answer says, whose body is never repeated: `None`, if it is attached.
    pub(super) fn answered(answer: &HttpAnswer<'_>, most: usize) -> Option<Self> {
        #[derive(Deserialize)]
        struct Attached {
            ok: bool,
        }
        let status = answer.status;
        if (200..300).contains(&status) {
            // serde reads structs from arrays, too.
            let object = answer.body.len() <= most && answer.body.trim_ascii_start().starts_with(b"{");
            let ok =
                object && serde_json::from_slice::<Attached>(answer.body).is_ok_and(|Attached { ok }| ok);
            return (!ok).then(|| Self::of(AttachErrorCode::BadAnswer, true));
        }
        let passing = is_passing(status);
        Some(Self {
            error: status_error(status),
            passing,
            retry_after: answer.retry_after.filter(|_| passing),
        })
    }
}

/// What a status amounts to.
pub(super) fn status_error(status: u16) -> AttachError {
    AttachError { code: format!("http_{status}"), message: meaning(status) }
}

/// Whether the same request may be answered otherwise later.
pub(super) const fn is_passing(status: u16) -> bool {
    matches!(status, 408 | 425 | 429 | 500..=599)
}

fn meaning(status: u16) -> String {
    let what = match status {
        300..=399 => "redirects are not followed",
        400 => "the code is wrong or too old, or it understands something else",
        401 => "the token is not good, or no more",
        403 => "the token doesn't allow it",
        404 => "it knows no such private beach or session",
        408 => "the request took too long",
        409 => "the session is attached otherwise, or its lease is not good",
        425 | 429 => "too much is asked of it",
        500..=599 => "it has trouble of its own",
        _ => "that is no answer to this",
    };
    format!("the manager answered {status}: {what}")
}
