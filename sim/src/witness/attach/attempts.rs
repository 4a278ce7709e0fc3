//! Attempts to attach, and the rests between them.

use std::fmt;
use std::time::Duration;

use castra_core::attach::{AttachId, AttachSettings};
use castra_core::event::{AttachFact, AttachSource};
use castra_core::time::Time;

use super::{Checked, Managing};
use crate::net::NodeId;
use crate::outcome::count;

/// Attempts for one handshake, or for the configuration.
#[derive(Debug)]
pub(super) struct Series {
    session: AttachId,
    attempt: u32,
    /// When the last one failed, how long it rests, and why.
    failed: Option<(Time, Option<Duration>, String)>,
    /// What a manager asked for with its last answer.
    pub(super) retry_after: Option<Duration>,
}

impl fmt::Display for Series {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "number {} for {}", self.attempt, self.session)?;
        match &self.failed {
            Some((_, Some(rest), why)) => write!(f, ", {why}, rests {} ms", rest.as_millis()),
            Some((_, None, why)) => write!(f, ", {why}, and it gave up"),
            None => Ok(()),
        }
    }
}

impl Managing {
    /// An agent says something about its attaching.
    pub(crate) fn agent_says(&mut self, node: NodeId, fact: &AttachFact) -> Checked {
        let now = self.now;
        let Some(agent) = self.agents.get_mut(&node) else { return Ok(()) };
        let guest = agent.guest;
        match fact {
            AttachFact::Start { session, attempt, source, .. } => {
                if *source == AttachSource::Environment && agent.hint.is_none() {
                    return Err(("A3", format!("{guest} attaches by its environment, which says nothing")));
                }
                let before = agent.series.take();
                let rested = before.and_then(|before| before.failed.filter(|_| *attempt > 1));
                let (failed, retry_after) = (None, None);
                agent.series =
                    Some(Series { session: session.clone(), attempt: *attempt, failed, retry_after });
                // The rest is told in whole milliseconds.
                if let Some((at, Some(rest), _)) = rested
                    && now + Duration::from_millis(1) < at + rest
                {
                    let text =
                        format!("{guest} tries again after {} ms of {rest:?}", now.since(at).as_millis());
                    return Err(("A2", text));
                }
                if *attempt > AttachSettings::default().attempts_max {
                    return Err(("A2", format!("attempt {attempt} of {guest}")));
                }
                count(&mut self.counts, "attempt");
                Ok(())
            }
            AttachFact::Failure { attempt, retry_ms, code, .. } => {
                count(&mut self.counts, if retry_ms.is_some() { "attempt_failed" } else { "gave_up" });
                let Some(series) = &mut agent.series else { return Ok(()) };
                let rest = retry_ms.map(Duration::from_millis);
                series.failed = Some((now, rest, code.clone()));
                let asked = series.retry_after.take();
                rest.map_or(Ok(()), |rest| {
                    fits(*attempt, rest, asked).map_err(|text| ("A2", format!("{guest} {text}")))
                })
            }
            AttachFact::Success { session, .. } => {
                count(&mut self.counts, "success");
                agent.attached = Some(session.clone());
                Ok(())
            }
            AttachFact::Detached { .. } => {
                count(&mut self.counts, "detached");
                agent.attached = None;
                Ok(())
            }
            AttachFact::Refused { reason, .. } => {
                count(&mut self.counts, reason.as_str());
                Ok(())
            }
            AttachFact::FastPath { active, .. } => {
                count(&mut self.counts, if *active { "fast_path" } else { "no_fast_path" });
                Ok(())
            }
            _ => Ok(()),
        }
    }

    /// The broker says something about attachments.
    pub(crate) fn broker_says(&mut self, fact: &AttachFact) -> Checked {
        match fact {
            AttachFact::Settled { id, status, .. } => self.told_of_action(id, status.as_str()),
            AttachFact::Queued { id } => self.told_of_action(id, "queued"),
            AttachFact::Expired { .. } => {
                count(&mut self.counts, "code_expired");
                Ok(())
            }
            AttachFact::RequestRefused { .. } => {
                count(&mut self.counts, "request_refused");
                Ok(())
            }
            _ => Ok(()),
        }
    }
}

/// Whether an agent may rest so long after that attempt.
fn fits(attempt: u32, rest: Duration, asked: Option<Duration>) -> Result<(), String> {
    let settings = AttachSettings::default();
    let doubled = settings.backoff_first.saturating_mul(2_u32.saturating_pow(attempt.saturating_sub(1)));
    let backoff = doubled.min(settings.backoff_most);
    let floor = asked.unwrap_or_default().min(settings.retry_after_max);
    let least = backoff.max(floor);
    let most = (backoff + backoff * settings.jitter_percent / 100).max(floor);
    if rest + Duration::from_millis(1) < least || rest > most {
        let text = format!("rests {rest:?} after attempt {attempt}, and has to rest {least:?} to {most:?}");
        return Err(text);
    }
    if attempt >= settings.attempts_max {
        return Err(format!("means to try again after attempt {attempt}"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::fits;
    use std::time::Duration;

    #[test]
    fn a_rest_is_its_backoff_and_up_to_half_of_it_more_or_what_was_asked_for() {
        let ms = Duration::from_millis;
        assert!(fits(1, ms(250), None).is_ok() && fits(1, ms(375), None).is_ok());
        assert!(fits(1, ms(248), None).is_err() && fits(1, ms(376), None).is_err());
        assert!(fits(2, ms(500), None).is_ok() && fits(4, ms(3000), None).is_ok());
        assert!(fits(1, ms(7000), Some(ms(7000))).is_ok() && fits(1, ms(300), Some(ms(7000))).is_err());
        assert!(fits(1, ms(60_000), Some(ms(90_000))).is_ok());
        assert!(fits(5, ms(4000), None).is_err());
    }
}
