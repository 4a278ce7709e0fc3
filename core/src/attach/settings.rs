//! Every duration and bound of managed attach.

use alloc::vec::Vec;
use core::net::SocketAddr;
use core::time::Duration;

use serde::{Deserialize, Serialize};

use super::{ANSWER_MAX, AttachId, ManagerUrl, Secret};

/// A broker as a manager.
#[derive(Clone, Debug)]
pub struct ManagerSettings {
    /// Where its HTTP listener is bound; `None`: guests attach over their links.
    pub http: Option<SocketAddr>,
    /// What guests are told in place of it.
    pub advertise: Option<ManagerUrl>,
    /// How long a code is good.
    pub code_ttl: Duration,
    /// How long a lease lasts.
    pub lease_ttl: Duration,
    /// How long a new session may take to say that its agent is attached.
    pub first_frames: Duration,
    /// Most attachments.
    pub attachments_max: usize,
    /// Most actions that wait for one guest.
    pub queue_max: usize,
    /// Most bytes of all actions that wait, for whomever: see [`super::Action::cost`].
    pub queues_bytes_max: usize,
    /// Most actions of one guest on its link without an ack.
    pub in_flight_max: usize,
    /// Default time to live of an action.
    pub action_ttl: Duration,
    /// Longest time to live of an action.
    pub action_ttl_max: Duration,
    /// A guest that polled this lately takes actions.
    pub polled_within: Duration,
    /// Longest wait of a poll.
    pub poll_max: Duration,
    /// Most HTTP connections.
    pub connections_max: usize,
    /// From a request's first byte to its last.
    pub request_timeout: Duration,
    /// How long a connection may be idle between requests.
    pub idle_timeout: Duration,
    /// Default bound of `adopt` and of an action that is waited for.
    pub wait_timeout: Duration,
    /// `stale_session_idle_secs` of a handshake.
    pub stale_session_idle_secs: u32,
    /// `viewer_health_interval_secs` of a handshake.
    pub viewer_health_interval_secs: u32,
}

impl Default for ManagerSettings {
    fn default() -> Self {
        Self {
            http: None,
            advertise: None,
            code_ttl: Duration::from_secs(600),
            lease_ttl: Duration::from_secs(30),
            first_frames: Duration::from_millis(500),
            attachments_max: 4096,
            queue_max: 500,
            queues_bytes_max: 64 << 20,
            in_flight_max: 32,
            action_ttl: Duration::from_secs(600),
            action_ttl_max: Duration::from_secs(24 * 3600),
            polled_within: Duration::from_secs(30),
            poll_max: Duration::from_secs(25),
            connections_max: 256,
            request_timeout: Duration::from_secs(10),
            idle_timeout: Duration::from_secs(60),
            wait_timeout: Duration::from_secs(30),
            stale_session_idle_secs: 60,
            viewer_health_interval_secs: 15,
        }
    }
}

/// An agent that may be adopted.
#[derive(Clone, Debug)]
pub struct AttachSettings {
    /// Managers that the operator trusts, the environment's first.
    pub managers: Vec<ManagerUrl>,
    /// What to do when no handshake says otherwise.
    pub hint: Option<Hint>,
    /// Most attempts of a series.
    pub attempts_max: u32,
    /// The wait after the first attempt; doubles with each.
    pub backoff_first: Duration,
    /// The longest wait, before its jitter.
    pub backoff_most: Duration,
    /// A wait is longer than its backoff by up to this much of it, in percent.
    pub jitter_percent: u32,
    /// A manager's `Retry-After` is honoured up to this.
    pub retry_after_max: Duration,
    /// Bound of one request.
    pub request_timeout: Duration,
    /// Bound of one poll: the manager's own and the way there.
    pub poll_timeout: Duration,
    /// The rest between polls that fail, at first; doubles.
    pub poll_rest_first: Duration,
    /// The longest such rest.
    pub poll_rest_most: Duration,
    /// Longest answer.
    pub answer_max: usize,
    /// A lease is renewed after this much of it, in percent.
    pub renew_percent: u32,
    /// How long an action is remembered after its ack was confirmed.
    pub remember: Duration,
    /// Most actions that are remembered, and most that wait to be applied.
    pub remembered_max: usize,
    /// Bound of applying one action.
    pub apply_timeout: Duration,
    /// How long a manager's absolute times may be off when they have to decide.
    pub clock_slack: Duration,
    /// Default bound of waiting to be attached.
    pub wait_timeout: Duration,
}

/// A manager that the operator configured, with what it asks for.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Hint {
    /// Where. One of [`AttachSettings::managers`].
    pub manager: ManagerUrl,
    /// The private beach.
    pub beach: AttachId,
    /// The passcode.
    pub code: Secret,
    /// The bearer. Goes to `manager` alone.
    pub token: Secret,
}

impl Default for AttachSettings {
    fn default() -> Self {
        Self {
            managers: Vec::new(),
            hint: None,
            attempts_max: 5,
            backoff_first: Duration::from_millis(250),
            backoff_most: Duration::from_secs(5),
            jitter_percent: 50,
            retry_after_max: Duration::from_secs(60),
            request_timeout: Duration::from_secs(10),
            poll_timeout: Duration::from_secs(30),
            poll_rest_first: Duration::from_millis(250),
            poll_rest_most: Duration::from_secs(5),
            answer_max: ANSWER_MAX,
            renew_percent: 75,
            remember: Duration::from_secs(600),
            remembered_max: 65_536,
            apply_timeout: Duration::from_secs(5),
            clock_slack: Duration::from_secs(60),
            wait_timeout: Duration::from_secs(30),
        }
    }
}
