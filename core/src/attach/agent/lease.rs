//! The lease of an attachment: renewed before it ends, over whichever route there is.

use core::time::Duration;

use super::polling::rest;
use crate::attach::AttachSettings;
use crate::time::Time;

/// A lease.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Lease {
    /// When it ends, as far as is known.
    pub(super) ends: Option<Time>,
    /// When it is to be renewed, or to be asked for again; `None`: nothing is attached.
    pub(super) renew_at: Option<Time>,
    /// Asked for over the link, without an answer so far.
    asked: bool,
    /// To be asked for over the link as soon as there is room.
    pub(super) unsaid: bool,
    /// Renewals in a row that failed.
    failures: u32,
}

/// No lease is renewed more often, whatever the manager says.
const RENEWAL_LEAST: Duration = Duration::from_secs(1);

/// No lease is believed to last longer.
pub(super) const LEASE_MOST: Duration = Duration::from_secs(24 * 3600);

impl Lease {
    /// Attached: with a first lease, if the manager said how long it is.
    pub(super) fn begun(now: Time, ttl: Option<Duration>, settings: &AttachSettings) -> Self {
        let mut lease = Self { renew_at: Some(now), ..Self::default() };
        if let Some(ttl) = ttl {
            lease.granted(now, ttl, settings);
        }
        lease
    }

    /// The manager says how long it lasts from now on.
    pub(super) fn granted(&mut self, now: Time, ttl: Duration, settings: &AttachSettings) {
        let ttl = ttl.min(LEASE_MOST);
        let wait = ttl.saturating_mul(settings.renew_percent.min(100)) / 100;
        *self =
            Self { ends: Some(now + ttl), renew_at: Some(now + wait.max(RENEWAL_LEAST)), ..Self::default() };
    }

    /// To be renewed now, as the manager says that there is none.
    pub(super) const fn missing(&mut self, now: Time) {
        self.ends = None;
        self.renew_at = Some(now);
    }

    /// A renewal over HTTP failed: the next one rests.
    pub(super) fn failed(&mut self, now: Time, retry_after: Option<Duration>, settings: &AttachSettings) {
        self.renew_at = Some(now + rest(self.failures, retry_after, settings));
        self.failures = self.failures.saturating_add(1);
    }

    /// Over the link: it is asked for, again and again until there is an answer.
    pub(super) const fn ask(&mut self, again: Time) {
        self.asked = true;
        self.unsaid = true;
        self.renew_at = Some(again);
    }

    /// Whoever was asked will not answer any more.
    pub(super) const fn unanswered(&mut self, now: Time) {
        self.unsaid = false;
        if core::mem::replace(&mut self.asked, false) {
            self.renew_at = Some(now);
        }
    }

    pub(super) fn is_due(&self, now: Time) -> bool {
        self.renew_at.is_some_and(|at| at <= now)
    }
}
