//! Bounds and times of peers and their messages.

use alloc::vec::Vec;
use core::time::Duration;

use super::Policy;
use crate::id::GuestName;

/// Bounds and times of the broker's side.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PeerSettings {
    /// Default bound of registering and sending.
    pub timeout: Duration,
    /// How long a guest that is asked may take; also how long every refusal takes
    /// that a guest hears of.
    pub offer_timeout: Duration,
    /// How long a fresh session may take to state its policy, before mail flows.
    pub policy_timeout: Duration,
    /// Most peers of one guest.
    pub peers_max: usize,
    /// Most registrations that one guest may ask for per minute.
    pub registrations_per_minute: u32,
    /// Most operations that wait for a record with a pending write.
    pub operations_max: usize,
    /// Most queued messages of one pair, in one direction.
    pub queue_messages: usize,
    /// Most bytes of queued text of one pair, in one direction.
    pub queue_bytes: usize,
    /// How long a message is kept, whatever became of it.
    pub message_ttl: Duration,
    /// Most messages of one pair and direction whose text is kept after their end.
    pub history_messages: usize,
    /// Most bytes of all messages together, records included.
    pub mail_bytes_max: usize,
    /// Most bytes of them that messages of senders without a key may take.
    pub mail_bytes_unproven: usize,
    /// Most messages on their way to one guest without an acknowledgement.
    pub unacknowledged_max: usize,
    /// A message without an acknowledgement is sent again after this, in the same session.
    pub redelivery: Duration,
    /// Guests that have a start command.
    pub restorable: Vec<GuestName>,
    /// Default bound of `restore`.
    pub restore_timeout: Duration,
}

impl Default for PeerSettings {
    fn default() -> Self {
        Self {
            timeout: Duration::from_secs(5),
            offer_timeout: Duration::from_secs(2),
            policy_timeout: Duration::from_secs(1),
            peers_max: 1024,
            registrations_per_minute: 10,
            operations_max: 64,
            queue_messages: 1000,
            queue_bytes: 8 << 20,
            message_ttl: Duration::from_secs(7 * 24 * 3600),
            history_messages: 100,
            mail_bytes_max: 256 << 20,
            mail_bytes_unproven: 128 << 20,
            unacknowledged_max: 16,
            redelivery: Duration::from_secs(30),
            restorable: Vec::new(),
            restore_timeout: Duration::from_secs(60),
        }
    }
}

/// Bounds and times of the agent's side.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct InboxSettings {
    /// Whom the guest takes as a peer.
    pub policy: Policy,
    /// Messages of senders that are not proven with a key are rejected.
    pub require_authenticated: bool,
    /// Most messages kept; the oldest goes first.
    pub messages_max: usize,
    /// Most bytes of text kept; the oldest goes first.
    pub bytes_max: usize,
    /// How long an id is remembered: longer than any broker keeps its message.
    pub remember: Duration,
    /// Most ids remembered; at the bound nothing is received until some are old enough.
    pub remembered_max: usize,
    /// Default bound of what peers' commands ask of the broker.
    pub timeout: Duration,
    /// Events kept for `events`.
    pub event_ring: usize,
}

impl Default for InboxSettings {
    fn default() -> Self {
        Self {
            policy: Policy::Default,
            require_authenticated: false,
            messages_max: 1000,
            bytes_max: 16 << 20,
            remember: Duration::from_secs(8 * 24 * 3600),
            remembered_max: 100_000,
            timeout: Duration::from_secs(5),
            event_ring: 256,
        }
    }
}
