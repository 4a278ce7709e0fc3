//! The machine's clocks, read once per turn of the loop.

use std::time::Duration;

use castra_core::time::{Now, Time, WallTime};
use rustix::time::{ClockId, Timespec, clock_gettime};

/// Boot time (suspend included), the suspended total and the wall clock, as the core wants them.
///
/// Three calls into the vDSO, no system call. The suspended total is boot time
/// minus monotonic time; the two are read one after the other, so it may be a
/// few microseconds off, never negative.
#[must_use]
pub fn now() -> Now {
    let monotonic = duration(clock_gettime(ClockId::Monotonic));
    let boot = duration(clock_gettime(ClockId::Boottime));
    let wall = clock_gettime(ClockId::Realtime);
    Now {
        boot: Time::ZERO + boot,
        suspended: boot.saturating_sub(monotonic),
        wall: WallTime::from_unix_millis(
            wall.tv_sec.saturating_mul(1000).saturating_add(wall.tv_nsec / 1_000_000),
        ),
    }
}

fn duration(time: Timespec) -> Duration {
    // These clocks are never negative.
    Duration::new(u64::try_from(time.tv_sec).unwrap_or(0), u32::try_from(time.tv_nsec).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn boot_time_advances_and_holds_the_suspended_total() {
        let first = now();
        let second = now();
        assert!(second.boot >= first.boot);
        assert!(second.boot > Time::ZERO);
        assert!(second.suspended <= second.boot.since(Time::ZERO));
        assert!(second.wall.unix_millis() > 1_600_000_000_000);
    }
}
