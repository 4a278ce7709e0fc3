//! What an attachment owes, and whether the agent would be woken for it.

use core::time::Duration;

use super::Controller;
use super::lease::LEASE_MOST;
use super::series::Step;
use crate::attach::AttachSettings;
use crate::obligations::Unguarded;
use crate::time::Time;

/// The longest bounds of any configuration that was in force.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Longest {
    request: Duration,
    rest: Duration,
    apply: Duration,
}

impl Longest {
    pub(crate) fn new(settings: &AttachSettings) -> Self {
        let jitter = settings.backoff_most.saturating_mul(settings.jitter_percent) / 100;
        let backoff = settings.backoff_first.max(settings.backoff_most) + jitter;
        Self {
            request: settings.request_timeout.max(settings.poll_timeout),
            rest: backoff.max(settings.retry_after_max).max(settings.poll_rest_most),
            apply: settings.apply_timeout,
        }
    }

    pub(crate) fn widest(self, other: Self) -> Self {
        Self {
            request: self.request.max(other.request),
            rest: self.rest.max(other.rest),
            apply: self.apply.max(other.apply),
        }
    }
}

impl Controller {
    /// # Errors
    /// The first obligation that nothing guards.
    pub(crate) fn check(&self, armed: Option<Time>, now: Time, longest: &Longest) -> Result<(), Unguarded> {
        let guarded = |what, deadline, most| {
            let owes = Unguarded::new(what);
            owes.unless_armed(armed, deadline)?;
            owes.unless_within(deadline, now, most)
        };
        Unguarded::new("what may begin").unless(!self.stirred)?;
        if let Some(series) = &self.series {
            match series.step {
                Step::Resting { until } => {
                    // A cancelled attempt may have to end first.
                    let until = self.cancelled.map_or(until, |(_, held)| until.max(held));
                    guarded("the next attempt", until, longest.rest.max(longest.request))?;
                }
                Step::Asking { deadline, .. } | Step::Framed { deadline, .. } => {
                    guarded("an attempt", deadline, longest.request)?;
                }
                Step::Linkless => Unguarded::new("a link").unless(self.link.is_none())?,
                Step::Attached | Step::Over => {}
            }
        }
        for deadline in self.polling.deadlines() {
            guarded("a request to the manager", deadline, longest.request)?;
        }
        if let Some(deadline) = self.actions.typing.as_ref().and_then(|typing| typing.deadline) {
            guarded("an action", deadline, longest.apply)?;
        }
        if self.route.is_some() && self.polling.lease.is_none() {
            Unguarded::new("a lease").unless(self.lease.renew_at.is_some())?;
            if let Some(at) = self.lease.renew_at {
                guarded("a lease", at, LEASE_MOST)?;
            }
        }
        Ok(())
    }

    /// Nothing is attached or was asked for.
    pub(crate) fn is_idle(&self) -> bool {
        self.series.is_none() && self.actions.known.is_empty() && self.actions.writing.is_none()
    }
}
