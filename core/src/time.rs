//! Time as the core sees it: integers handed in by the shell.

use core::fmt;
use core::num::NonZeroU64;
use core::ops::{Add, Sub};
use core::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// A point on the boot-time clock, in nanoseconds since boot.
///
/// The clock counts suspend (`CLOCK_BOOTTIME`), so an age taken on it is true
/// across a laptop's sleep. All arithmetic saturates; ten years fit easily.
// One more than the nanoseconds, so that an optional time is no larger: guests have many.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Time(NonZeroU64);

impl Time {
    /// Boot.
    pub const ZERO: Self = Self(NonZeroU64::MIN);
    /// Later than everything.
    pub const MAX: Self = Self(NonZeroU64::MAX);

    /// A time from nanoseconds since boot; [`Time::MAX`] from more than it holds.
    #[must_use]
    pub const fn from_nanos(nanos: u64) -> Self {
        Self(NonZeroU64::MIN.saturating_add(nanos))
    }

    /// A time from milliseconds since boot.
    #[must_use]
    pub const fn from_millis(millis: u64) -> Self {
        Self::from_nanos(millis.saturating_mul(1_000_000))
    }

    /// Nanoseconds since boot.
    #[must_use]
    pub const fn as_nanos(self) -> u64 {
        self.0.get() - 1
    }

    /// How long after `earlier` this is; zero when it is not after it.
    #[must_use]
    pub const fn since(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.0.get().saturating_sub(earlier.0.get()))
    }
}

impl Default for Time {
    fn default() -> Self {
        Self::ZERO
    }
}

impl fmt::Debug for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Time").field(&self.as_nanos()).finish()
    }
}

impl Add<Duration> for Time {
    type Output = Self;

    fn add(self, span: Duration) -> Self {
        Self(self.0.saturating_add(nanos(span)))
    }
}

impl Sub<Duration> for Time {
    type Output = Self;

    fn sub(self, span: Duration) -> Self {
        Self::from_nanos(self.as_nanos().saturating_sub(nanos(span)))
    }
}

/// Nanoseconds of a duration, saturating at `u64::MAX`.
pub(crate) fn nanos(span: Duration) -> u64 {
    u64::try_from(span.as_nanos()).unwrap_or(u64::MAX)
}

/// Milliseconds of a duration, saturating at `u64::MAX`.
pub(crate) fn millis(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}

/// Wall-clock time in milliseconds since the Unix epoch.
///
/// For display only: nothing in the core compares two of them to decide
/// anything. Serialised as RFC 3339 in UTC with milliseconds.
// Counted from the earliest that it holds, for the same reason as `Time`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WallTime(NonZeroU64);

impl WallTime {
    /// From milliseconds since the Unix epoch.
    #[must_use]
    pub const fn from_unix_millis(millis: i64) -> Self {
        // The earliest two are one.
        Self(NonZeroU64::MIN.saturating_add(millis.abs_diff(i64::MIN).saturating_sub(1)))
    }

    /// Milliseconds since the Unix epoch.
    #[must_use]
    pub const fn unix_millis(self) -> i64 {
        i64::MIN.saturating_add_unsigned(self.0.get())
    }

    /// Whole seconds since the Unix epoch, never negative (castra 0.1's unit).
    #[must_use]
    pub fn unix_seconds(self) -> u64 {
        u64::try_from(self.unix_millis().div_euclid(1000)).unwrap_or(0)
    }
}

impl Default for WallTime {
    fn default() -> Self {
        Self::from_unix_millis(0)
    }
}

impl fmt::Debug for WallTime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("WallTime").field(&self.unix_millis()).finish()
    }
}

impl fmt::Display for WallTime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match Timestamp::from_millisecond(self.unix_millis()) {
            Ok(stamp) => write!(f, "{stamp:.3}"),
            Err(_) => f.write_str("1970-01-01T00:00:00.000Z"),
        }
    }
}

impl Serialize for WallTime {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for WallTime {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = <alloc::borrow::Cow<'de, str>>::deserialize(deserializer)?;
        let stamp: Timestamp = text.parse().map_err(de::Error::custom)?;
        Ok(Self::from_unix_millis(stamp.as_millisecond()))
    }
}

/// What the shell knows about time when it calls the core.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Now {
    /// Time since boot, suspend included.
    pub boot: Time,
    /// How much of it the machine was suspended (boot time minus monotonic time).
    pub suspended: Duration,
    /// The wall clock, for display.
    pub wall: WallTime,
}
