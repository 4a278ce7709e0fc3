//! Bugs on purpose, to test what looks for bugs.
//!
//! Only with the cargo feature `planted`, which no release has. Each [`Bug`] is
//! wrong where a programmer would go wrong, in one or two places that read
//! `planted!(config, TheBug)`; without the feature that is the constant `false`.
//! Which one acts is a value in the configuration (`planted`, `None` by
//! default), kept across reloads; nothing is global, and engines with different
//! bugs run beside each other.
//!
//! The promises that the bugs break have the names that they have in the
//! simulation: S for safety, L for liveness.

use core::fmt;
use core::str::FromStr;
use core::time::Duration;

use crate::boundary::Deadline;
use crate::config::BrokerConfig;
use crate::time::Now;

/// A word that names no bug.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("no planted bug is called so; Bug::ALL has their names")]
pub struct UnknownBug;

macro_rules! bugs {
    ($($(#[doc = $doc:literal])+ $bug:ident = $word:literal,)+) => {
        /// One bug.
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
        #[non_exhaustive]
        pub enum Bug {
            $($(#[doc = $doc])+ $bug,)+
        }

        impl Bug {
            /// Every bug, in the order of their declaration.
            pub const ALL: &[Self] = &[$(Self::$bug),+];

            /// Its word: `age_from_receipt`.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self {
                    $(Self::$bug => $word,)+
                }
            }

            /// What is wrong, and which promise it breaks.
            #[must_use]
            pub const fn about(self) -> &'static str {
                match self {
                    $(Self::$bug => concat!($($doc),+).trim_ascii(),)+
                }
            }
        }
    };
}

bugs! {
    // The verdict.
    /// Broker. Evidence is dated from the receipt of a proof, not from the sending of its challenge:
    /// a proof that lay in a buffer makes a dead guest reachable (S1, S3).
    AgeFromReceipt = "age_from_receipt",
    /// Broker. The nonce of a keepalive proof is not compared: whoever guesses sequence numbers, or
    /// answers an older session's challenges, refreshes the guest (S1, S3).
    NonceUnchecked = "nonce_unchecked",
    /// Broker. The nonce of an open handshake's proof is not compared: a replayed conversation, or
    /// one said blindly, makes a dead guest reachable (S1).
    ReplayAccepted = "replay_accepted",
    /// Broker. The verdict admits an age of one nanosecond more than the window. The timer doesn't:
    /// it finds nothing to say when it fires, and a one-shot's end is never announced (S3, L1).
    WindowOffByOne = "window_off_by_one",
    /// Broker. Reachable is a stored flag that a timer clears, not computed when it is read: true
    /// for as long as the timer is late (S1, S2).
    StoredVerdict = "stored_verdict",
    /// Broker. A one-shot proof never leaves its window (S1, S3).
    OneShotForever = "one_shot_forever",
    /// Broker. Time is taken from a clock that stands still while the machine is suspended:
    /// ages leave the suspended time out (S1, S3).
    MonotonicClock = "monotonic_clock",
    /// Broker. The excuse after a stall of the broker has no end: a guest that never answers again
    /// is not called stale (the excuse lasts one window; DESIGN, truth rule 4).
    ExcuseWithoutEnd = "excuse_without_end",
    /// Broker. After a stall of the broker guests are stale at once, without the chance to answer
    /// (truth rule 4).
    StallBlamesGuests = "stall_blames_guests",

    // Sessions.
    /// Broker. A session that lost its name is told so, but its proofs still count for the row until
    /// the guest closes (S4).
    SupersededRefreshes = "superseded_refreshes",
    /// Broker. A handshake that began before the present session's and ends after it wins (S4).
    EpochNotFenced = "epoch_not_fenced",
    /// Broker. The greeting of a session is said twice once its name was ever taken over (S5).
    DoubleGreeting = "double_greeting",
    /// Broker. A guest is called reachable before its session is greeted (S5).
    GreetingAfterVerdict = "greeting_after_verdict",

    // Deadlines and bounds.
    /// Broker. A link's timer that fired is not armed again until bytes come: a guest that dies is
    /// never asked again, and nobody is told that it went (L1).
    TimerNotRearmed = "timer_not_rearmed",
    /// Broker. A new connection's handshake has no deadline until its first byte (L1, S6).
    HandshakeNotArmed = "handshake_not_armed",
    /// Broker. A challenge that found no room stays due: the broker spins until the guest reads (L2).
    ChallengeHotLoop = "challenge_hot_loop",
    /// Broker. The bound of half-open connections is not looked at (S6, L5).
    HalfOpenUnbounded = "half_open_unbounded",
    /// Agent. The range of the pauses between tries doubles without end (L3).
    UnboundedBackoff = "unbounded_backoff",
    /// Agent. A pause is all of its range, not drawn from it: guests that lost their broker together
    /// come back together (pauses lie below the range).
    UnjitteredBackoff = "unjittered_backoff",

    // Commands and durable state.
    /// Broker. A ping whose guest's session ends gets no answer (L4).
    ReplyLostOnClose = "reply_lost_on_close",
    /// Broker. `token_issued` leaves before the commit (S2: what is durable was said to be so).
    CommitBeforeDone = "commit_before_done",
    /// Broker. A failed commit is taken for a successful one: memory changes, the caller is told
    /// `ok`, the disk knows nothing (S2).
    CommitFailureIgnored = "commit_failure_ignored",

    // Peers.
    /// Broker. A relation is remembered for one of its two guests only (P1: one sees the other, and
    /// is not seen).
    OneSidedPeer = "one_sided_peer",
    /// Broker. A message is taken for delivered as soon as it is sent (P3: told `delivered`, never in
    /// the inbox).
    DeliveredWhenSent = "delivered_when_sent",
    /// Agent. A message is acknowledged before it is durable (P3: told `delivered`, and gone with the
    /// next power cut).
    AcknowledgedBeforeWrite = "acknowledged_before_write",
    /// Agent. The ids of what came before are not looked at: a message that is sent again is kept
    /// twice (P3).
    DuplicateKept = "duplicate_kept",
    /// Broker. What waits between two guests stays when they are peers no more, and is delivered (P3).
    UnlinkKeepsMail = "unlink_keeps_mail",
    /// Broker. A sender's key is not looked at: a retry is another message (P2).
    KeyForgotten = "key_forgotten",

    // Managed attach.
    /// Agent. The ids of what came before are not looked at: an action that is sent again is applied
    /// again (A5).
    ActionAppliedTwice = "action_applied_twice",
    /// Broker. An agent is told that its ack is durable before it is: what comes back with the next
    /// start was forgotten by then (A5).
    ActionLostOnAck = "action_lost_on_ack",
    /// Agent. What was begun when the last life ended is taken for new: perhaps it is applied again
    /// (A5).
    ReapplyAfterCrash = "reapply_after_crash",
    /// Agent. A handshake of a broker that did not prove itself is followed (A4).
    AttachWithoutTrust = "attach_without_trust",
    /// Agent. A configured token goes to whatever manager a handshake names (A4).
    TokenToOtherUrl = "token_to_other_url",
    /// Agent. A newer handshake's attempt begins beside the one that is in flight (A1).
    TwoAttempts = "two_attempts",
    /// Agent. Polls begin with the attempt, not with its success (A3).
    PollBeforeAttach = "poll_before_attach",

    // Terminals.
    /// Terminals. The end is told as soon as it is known, before the output that was not read yet
    /// (O3).
    ExitBeforeOutput = "exit_before_output",
    /// Terminals. The end is told twice (O3).
    ExitTwice = "exit_twice",
    /// Terminals. After a resync output goes on one byte too late (O2).
    GapAtResync = "gap_at_resync",
    /// Terminals. Who resumes gets the last byte that it has once more (O2).
    ResumedTwice = "resumed_twice",
    /// Terminals. Nobody looks whether a command comes from the owner (O1).
    ObserverCommands = "observer_commands",
    /// Terminals. An owner that left is not waited for: anybody may claim at once (O1).
    LeaseIgnored = "lease_ignored",
    /// Terminals. An owner that left is waited for without an end (O1).
    OwnerNotReleased = "owner_not_released",
    /// Terminals. A terminal is said to be there before that is durable (S2).
    CreatedBeforeCommit = "created_before_commit",

    // The shell.
    /// Shell. A slot's next connection has the id of its last: edges and deadlines of the old one
    /// reach the new one (S6, L3).
    SlotWithoutGeneration = "slot_without_generation",
    /// Shell. One read for each edge, not until it would block: the rest, and the end behind it,
    /// wait for an edge that may never come (L1, L3).
    ReadOncePerEdge = "read_once_per_edge",
    /// Shell. A listener that ran out of descriptors once is never asked again (L3).
    AcceptEndsOnEmfile = "accept_ends_on_emfile",
    /// Shell. What a short write left over is dropped (L3, L4).
    ShortWriteLoses = "short_write_loses",
    /// Shell. The end of the other side's stream is not told: what it leaves behind stays (S6).
    FinishIgnored = "finish_ignored",
    /// Shell. Connections are read although the engine wants nothing from them (S6).
    CreditIgnored = "credit_ignored",
    /// Shell. Writable edges are never asked for: what a full socket did not take never leaves
    /// (L4, L5).
    WriteInterestForgotten = "write_interest_forgotten",
}

impl Bug {
    /// Whether it is a bug of the daemon of terminals, which other worlds don't have.
    #[must_use]
    pub fn is_of_terminals(self) -> bool {
        self.about().starts_with("Terminals. ")
    }
}

/// [`Bug::MonotonicClock`], on the way in and on the way out.
impl BrokerConfig {
    /// The time as the broker takes it.
    pub(crate) fn clock(&self, now: Now) -> Now {
        let still = if planted!(self, MonotonicClock) { now.suspended } else { Duration::ZERO };
        Now { boot: now.boot - still, ..now }
    }

    /// The broker's deadline as the shell has to take it.
    pub(crate) fn unclock(&self, deadline: Option<Deadline>, now: Now) -> Option<Deadline> {
        let still = if planted!(self, MonotonicClock) { now.suspended } else { Duration::ZERO };
        deadline.map(|Deadline { at, why }| Deadline { at: at + still, why })
    }
}

impl fmt::Display for Bug {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Bug {
    type Err = UnknownBug;

    fn from_str(word: &str) -> Result<Self, UnknownBug> {
        Self::ALL.iter().copied().find(|bug| bug.as_str() == word).ok_or(UnknownBug)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::collections::BTreeSet;
    use alloc::string::ToString;

    #[test]
    fn every_bug_has_a_word_of_its_own_that_names_it() {
        let words: BTreeSet<_> = Bug::ALL.iter().map(|bug| bug.as_str()).collect();
        assert_eq!(words.len(), Bug::ALL.len());
        for bug in Bug::ALL {
            assert_eq!(bug.to_string().parse(), Ok(*bug));
            assert!(bug.as_str().bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_'));
            assert!(
                ["Broker. ", "Agent. ", "Terminals. ", "Shell. "]
                    .iter()
                    .any(|who| bug.about().starts_with(who))
            );
        }
        assert_eq!("no_such_bug".parse::<Bug>(), Err(UnknownBug));
    }
}
