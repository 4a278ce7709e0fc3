//! The verdict: proof arithmetic, computed when it is read.
//!
//! `reachable = (session open or one-shot) ∧ now − proof time ≤ window`, where the
//! proof time is when the answered challenge was *sent*. Nothing here is stored.

use core::time::Duration;

use crate::status::{Reason, State};
use crate::time::Time;

/// What is known of a guest at one moment.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Facts {
    pub(crate) standing: Standing,
    /// The newest evidence of this incarnation.
    pub(crate) evidence: Option<Evidence>,
    /// More than the allowed takeovers just happened.
    pub(crate) conflict: bool,
    /// It said a 0.1 hello.
    pub(crate) claimed: bool,
    /// A handshake under its name is in progress.
    pub(crate) handshaking: bool,
    /// Its last handshake was refused.
    pub(crate) refused: bool,
    /// Some broker once saw a proof of it.
    pub(crate) seen_before: bool,
    #[cfg(feature = "planted")]
    pub(crate) planted: Option<crate::planted::Bug>,
}

/// How a guest stands to this broker.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Standing {
    /// No session in this incarnation.
    Absent,
    /// A session is open.
    Open,
    /// It proved itself once and wanted no session.
    OneShot,
    /// Its session ended.
    Ended(Departure),
}

/// How the last session ended, as far as the verdict tells.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Departure {
    Goodbye,
    Disconnected,
    Stale,
}

/// A proof (or, if accepted, a claim).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Evidence {
    /// When the answered challenge was sent; of a claim, when it was received.
    pub(crate) at: Time,
    /// When the answer was received.
    pub(crate) received: Time,
}

/// A time in which this broker was not running, or its host was suspended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Stall {
    /// The deadline that was missed.
    pub(crate) began: Time,
    /// When the broker noticed, and challenged everybody.
    pub(crate) woke: Time,
    /// `broker_stalled` or `clock_jumped`.
    pub(crate) reason: Reason,
}

/// What `status` says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Verdict {
    pub(crate) state: State,
    pub(crate) reason: Option<Reason>,
}

impl Verdict {
    pub(crate) const REACHABLE: Self = Self { state: State::Reachable, reason: None };

    pub(crate) const fn waiting(reason: Reason) -> Self {
        Self { state: State::Waiting, reason: Some(reason) }
    }
}

/// The least difference between two times.
const TICK: Duration = Duration::from_nanos(1);

/// The verdict at `now`.
pub(crate) fn judge(facts: &Facts, window: Duration, stall: Option<&Stall>, now: Time) -> Verdict {
    let window = if planted!(facts, WindowOffByOne) { window + TICK } else { window };
    let fresh = facts.evidence.is_some_and(|evidence| now.since(evidence.at) <= window);
    match facts.standing {
        Standing::Open | Standing::OneShot if fresh => Verdict::REACHABLE,
        Standing::Open => Verdict::waiting(excuse(facts, window, stall, now).unwrap_or(Reason::Stale)),
        Standing::OneShot if planted!(facts, OneShotForever) => Verdict::REACHABLE,
        Standing::OneShot => Verdict::waiting(Reason::Stale),
        Standing::Ended(_) if facts.conflict => Verdict::waiting(Reason::NameConflict),
        Standing::Ended(departure) => Verdict::waiting(match departure {
            Departure::Goodbye => Reason::Goodbye,
            Departure::Disconnected => Reason::Disconnected,
            Departure::Stale => Reason::Stale,
        }),
        Standing::Absent => Verdict::waiting(if facts.claimed {
            Reason::Unproven
        } else if facts.handshaking {
            Reason::Handshaking
        } else if facts.refused {
            Reason::Refused
        } else if facts.seen_before {
            Reason::BrokerStarted
        } else {
            Reason::NeverSeen
        }),
    }
}

/// The first moment at which `judge` may say something else because of time alone.
pub(crate) fn next_change(facts: &Facts, window: Duration, stall: Option<&Stall>, now: Time) -> Option<Time> {
    let evidence = facts.evidence?;
    let after = |begun: Time| Some(begun + window + TICK).filter(|at| *at > now);
    match facts.standing {
        Standing::Open => match (after(evidence.at), stall.and_then(|stall| after(stall.woke))) {
            (Some(stale), Some(blamed)) => Some(stale.min(blamed)),
            (stale, blamed) => stale.or(blamed),
        },
        Standing::OneShot => after(evidence.at),
        Standing::Absent | Standing::Ended(_) => None,
    }
}

/// A guest that was inside its window when the broker stalled has its chance to
/// answer the challenge that the broker sent on waking: one window long.
fn excuse(facts: &Facts, window: Duration, stall: Option<&Stall>, now: Time) -> Option<Reason> {
    let (evidence, stall) = (facts.evidence?, stall?);
    if planted!(facts, StallBlamesGuests) {
        return None;
    }
    let was_fresh = evidence.at + window >= stall.began;
    let unheard = evidence.received < stall.woke;
    let patient = now <= stall.woke + window || planted!(facts, ExcuseWithoutEnd);
    (was_fresh && unheard && patient).then_some(stall.reason)
}

#[cfg(test)]
mod tests {
    use super::*;

    const WINDOW: Duration = Duration::from_millis(15);

    fn at(millis: u64) -> Time {
        Time::from_millis(millis)
    }

    fn open(proof: u64, received: u64) -> Facts {
        Facts {
            standing: Standing::Open,
            evidence: Some(Evidence { at: at(proof), received: at(received) }),
            conflict: false,
            claimed: false,
            handshaking: false,
            refused: false,
            seen_before: true,
            #[cfg(feature = "planted")]
            planted: None,
        }
    }

    #[test]
    fn a_proof_is_as_old_as_its_challenge() {
        let facts = open(100, 114);
        assert_eq!(judge(&facts, WINDOW, None, at(115)), Verdict::REACHABLE);
        let after = at(115) + Duration::from_nanos(1);
        assert_eq!(judge(&facts, WINDOW, None, after), Verdict::waiting(Reason::Stale));
        assert_eq!(next_change(&facts, WINDOW, None, at(114)), Some(after));
    }

    #[test]
    fn a_stalled_broker_excuses_guests_for_one_window_and_only_those_that_were_fresh() {
        let stall = Stall { began: at(105), woke: at(200), reason: Reason::BrokerStalled };
        let judged = |facts: &Facts, now| judge(facts, WINDOW, Some(&stall), at(now)).reason;
        assert_eq!(judged(&open(100, 101), 200), Some(Reason::BrokerStalled));
        assert_eq!(judged(&open(100, 101), 215), Some(Reason::BrokerStalled));
        assert_eq!(judged(&open(100, 101), 216), Some(Reason::Stale), "it had its chance");
        assert_eq!(judged(&open(80, 81), 200), Some(Reason::Stale), "it was stale before");
        assert_eq!(judged(&open(200, 201), 214), None, "an answer counts");
        assert_eq!(judged(&open(104, 201), 214), Some(Reason::Stale), "an old answer ends the excuse");
    }

    #[test]
    fn a_hello_never_displaces_a_reason_that_rests_on_a_proof() {
        let mut facts = open(100, 101);
        facts.standing = Standing::Ended(Departure::Goodbye);
        facts.handshaking = true;
        facts.refused = true;
        facts.claimed = true;
        assert_eq!(judge(&facts, WINDOW, None, at(101)), Verdict::waiting(Reason::Goodbye));
    }
}
