//! Boot time and the wall clock of the simulated machine: turmoil's time, plus
//! what the machine slept.

use core::time::Duration;
use std::cell::Cell;

use castra_core::time::{Now, Time, WallTime};

/// When the machine had been up for this long, the world began.
pub(crate) const UPTIME: Time = Time::from_millis(1_000_000);

/// The wall clock then: 2023-11-14T22:13:20Z.
pub(crate) const EPOCH_SECONDS: u64 = 1_700_000_000;

/// One clock for all: they are one machine.
#[derive(Debug, Default)]
pub(crate) struct Clock {
    /// turmoil's time between two steps.
    elapsed: Cell<Duration>,
    suspended: Cell<Duration>,
    wall_step_ms: Cell<i64>,
}

impl Clock {
    /// The time, inside of a host or between two steps.
    pub(crate) fn now(&self) -> Now {
        let elapsed = turmoil::sim_elapsed().unwrap_or_else(|| self.elapsed.get());
        let suspended = self.suspended.get();
        let wall = millis(elapsed + suspended) + self.wall_step_ms.get();
        Now {
            boot: UPTIME + elapsed + suspended,
            suspended,
            wall: WallTime::from_unix_millis(EPOCH_SECONDS as i64 * 1000 + wall),
        }
    }

    /// turmoil's time after a step.
    pub(crate) fn stepped(&self, elapsed: Duration) {
        self.elapsed.set(elapsed);
    }

    /// The machine slept for `span`.
    pub(crate) fn suspend(&self, span: Duration) {
        self.suspended.set(self.suspended.get() + span);
    }

    /// Somebody sets the wall clock.
    pub(crate) fn step_wall(&self, by_ms: i64) {
        self.wall_step_ms.set(self.wall_step_ms.get() + by_ms);
    }
}

fn millis(span: Duration) -> i64 {
    i64::try_from(span.as_millis()).unwrap_or(i64::MAX)
}
