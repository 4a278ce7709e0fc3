//! L1, no hanging wait, as a property of every state: whatever an engine owes has
//! an armed timer, no later than its bound. For checks after every event.

use core::fmt;
use core::time::Duration;

use crate::id::{ConnId, GuestName};
use crate::time::{Time, millis};

/// Something that an engine owes and that nothing would wake it for in time.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Unguarded {
    /// Which obligation.
    pub what: &'static str,
    /// The connection it belongs to.
    pub conn: Option<ConnId>,
    /// Whom it is about.
    pub guest: Option<GuestName>,
    /// When it has to be met at the latest.
    pub bound: Option<Time>,
    /// When the engine would be woken for it.
    pub armed: Option<Time>,
}

impl fmt::Display for Unguarded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "nothing guards {}", self.what)?;
        if let Some(guest) = &self.guest {
            write!(f, " of {guest}")?;
        }
        if let Some(ConnId { index, generation }) = self.conn {
            write!(f, " on connection {index}/{generation}")?;
        }
        if let Some(bound) = self.bound {
            write!(f, ": due by {} ms", millis(bound.since(Time::ZERO)))?;
        }
        match self.armed {
            Some(at) => write!(f, ", a timer set for {} ms", millis(at.since(Time::ZERO))),
            None => Ok(()),
        }
    }
}

impl core::error::Error for Unguarded {}

impl Unguarded {
    pub(crate) const fn new(what: &'static str) -> Self {
        Self { what, conn: None, guest: None, bound: None, armed: None }
    }

    pub(crate) const fn on(self, conn: ConnId) -> Self {
        Self { conn: Some(conn), ..self }
    }

    pub(crate) const fn of(self, guest: GuestName) -> Self {
        Self { guest: Some(guest), ..self }
    }

    /// Whether `armed` is in time for `bound`.
    pub(crate) fn unless_armed(self, armed: Option<Time>, bound: Time) -> Result<(), Self> {
        if armed.is_some_and(|armed| armed <= bound) {
            return Ok(());
        }
        Err(Self { bound: Some(bound), armed, ..self })
    }

    /// Whether a deadline lies within what its bound allows from `now` on.
    pub(crate) fn unless_within(self, deadline: Time, now: Time, most: Duration) -> Result<(), Self> {
        if deadline <= now + most {
            return Ok(());
        }
        Err(Self { bound: Some(now + most), armed: Some(deadline), ..self })
    }

    pub(crate) const fn unless(self, kept: bool) -> Result<(), Self> {
        if kept { Ok(()) } else { Err(self) }
    }
}
