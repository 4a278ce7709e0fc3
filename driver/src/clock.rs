//! The machine's clocks, read once per turn of the loop.

use std::time::Duration;

use castra_core::time::{Now, Time, WallTime};
use nix::sys::time::TimeSpec;
use nix::time::{ClockId, clock_gettime};

/// Boot time (suspend included), the suspended total and the wall clock, as the core wants them.
///
/// Three calls into the vDSO, no system call; through the C library, so that a test
/// can put another clock in its place. The suspended total is boot time
/// minus monotonic time; the two are read one after the other, so it may be a
/// few microseconds off, never negative.
#[must_use]
pub fn now() -> Now {
    let monotonic = duration(read(ClockId::CLOCK_MONOTONIC));
    let boot = duration(read(ClockId::CLOCK_BOOTTIME));
    let wall = read(ClockId::CLOCK_REALTIME);
    Now {
        boot: Time::ZERO + boot,
        suspended: boot.saturating_sub(monotonic),
        wall: WallTime::from_unix_millis(
            wall.tv_sec().saturating_mul(1000).saturating_add(wall.tv_nsec() / 1_000_000),
        ),
    }
}

fn read(clock: ClockId) -> TimeSpec {
    // It fails only for clocks that the kernel doesn't know; boot time is as old as Linux 2.6.39.
    clock_gettime(clock).unwrap_or(TimeSpec::new(0, 0))
}

fn duration(time: TimeSpec) -> Duration {
    // These clocks are never negative.
    Duration::new(u64::try_from(time.tv_sec()).unwrap_or(0), u32::try_from(time.tv_nsec()).unwrap_or(0))
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
