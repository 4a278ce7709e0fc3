//! How many bytes of a link's streams may be on their way at once.

use super::TunnelSettings;
use crate::time::{Time, nanos};

/// The window of unacknowledged bytes, towards one end of a session. It is doubled
/// when the time that a window's worth of bytes takes there and back is short, and
/// halved when bytes took long: on a slow line no challenge waits long behind them.
#[derive(Clone, Debug)]
pub(crate) struct Pace {
    window: usize,
    sent: u64,
    acknowledged: u64,
    timed: Option<Timed>,
}

/// What is timed.
#[derive(Clone, Copy, Debug)]
struct Timed {
    /// The number of its last byte.
    last: u64,
    at: Time,
    /// Bytes that were on their way with it.
    flight: u64,
}

impl Pace {
    pub(crate) const fn new(settings: &TunnelSettings) -> Self {
        Self { window: settings.pace_first, sent: 0, acknowledged: 0, timed: None }
    }

    /// How many bytes may be sent now.
    pub(crate) fn allowance(&self) -> usize {
        self.window.saturating_sub(self.flight() as usize)
    }

    /// An allowance below this is not worth a frame, unless the frame is smaller.
    pub(crate) const fn worthwhile(&self) -> usize {
        self.window / 4
    }

    pub(crate) fn on_sent(&mut self, now: Time, bytes: usize) {
        self.sent += bytes as u64;
        let flight = self.flight();
        self.timed.get_or_insert(Timed { last: self.sent, at: now, flight });
    }

    /// The other end has so many bytes, counted from the session's begin. One that
    /// was never sent is nonsense and changes nothing.
    pub(crate) fn on_acknowledged(&mut self, now: Time, total: u64, settings: &TunnelSettings) {
        if !(self.acknowledged..=self.sent).contains(&total) {
            return;
        }
        self.acknowledged = total;
        let Some(timed) = self.timed.take_if(|timed| timed.last <= total) else { return };
        let took = now.since(timed.at);
        // A few bytes say little of what a whole window would take: that many times as long.
        let whole = u128::from(nanos(took)) * self.window as u128;
        let quick = u128::from(nanos(settings.pace_quick)) * u128::from(timed.flight.max(1));
        if took > settings.pace_slow {
            self.window = (self.window / 2).max(settings.pace_least);
        } else if whole <= quick {
            self.window = (self.window * 2).min(settings.pace_most);
        }
    }

    fn flight(&self) -> u64 {
        self.sent - self.acknowledged
    }

    #[cfg(test)]
    const fn window(&self) -> usize {
        self.window
    }
}

#[cfg(test)]
mod tests {
    use super::Pace;
    use crate::time::Time;
    use crate::tunnel::TunnelSettings;

    const KIB: usize = 1024;

    /// A flood over a line of `rate` bytes a second, for `seconds`: the windows, and the
    /// longest time that a byte took after the first second.
    fn flood(rate: u64, seconds: u64) -> (usize, u64) {
        let settings = TunnelSettings::default();
        let mut pace = Pace::new(&settings);
        let (mut now, mut sent, mut worst) = (0, 0_u64, 0);
        let mut on_their_way = alloc::collections::VecDeque::new();
        let mut free_at = 0_u64;
        while now < seconds * 1_000_000 {
            let allowance = pace.allowance();
            if allowance >= pace.worthwhile().max(1) {
                let bytes = allowance.min(32 * KIB);
                pace.on_sent(Time::from_nanos(now * 1000), bytes);
                sent += bytes as u64;
                free_at = free_at.max(now) + bytes as u64 * 1_000_000 / rate;
                on_their_way.push_back((free_at, sent, now));
                continue;
            }
            let (at, total, began) = on_their_way.pop_front().unwrap();
            now = at;
            if now > seconds * 500_000 {
                worst = worst.max((now - began) / 1000);
            }
            pace.on_acknowledged(Time::from_nanos(now * 1000), total, &settings);
        }
        (pace.window(), worst)
    }

    #[test]
    fn the_window_follows_the_line() {
        let (window, worst) = flood(11_520, 60);
        assert!(window == 2 * KIB && worst <= 250, "{window} {worst}");
        let (window, worst) = flood(100_000, 20);
        assert!((8 * KIB..=16 * KIB).contains(&window) && worst <= 250, "{window} {worst}");
        let (window, worst) = flood(400_000, 20);
        assert!((32 * KIB..=64 * KIB).contains(&window) && worst <= 250, "{window} {worst}");
        let (window, worst) = flood(100_000_000, 2);
        assert!(window == 128 * KIB && worst <= 5, "{window} {worst}");
    }

    #[test]
    fn a_few_quick_bytes_do_not_open_the_window_of_a_slow_line() {
        let settings = TunnelSettings::default();
        let mut pace = Pace::new(&settings);
        for step in 0..100 {
            let now = |more: u64| Time::from_millis(step * 1000 + more);
            pace.on_sent(now(0), 10);
            pace.on_acknowledged(now(5), (step + 1) * 10, &settings);
        }
        assert_eq!(pace.window(), 8 * KIB);
    }

    #[test]
    fn acknowledgements_of_what_was_never_sent_or_long_known_mean_nothing() {
        let settings = TunnelSettings::default();
        let mut pace = Pace::new(&settings);
        pace.on_sent(Time::ZERO, 8 * KIB);
        assert_eq!(pace.allowance(), 0);
        pace.on_acknowledged(Time::ZERO, 8 * KIB as u64 + 1, &settings);
        assert_eq!(pace.allowance(), 0);
        pace.on_acknowledged(Time::ZERO, 4 * KIB as u64, &settings);
        assert_eq!(pace.allowance(), 4 * KIB);
        pace.on_acknowledged(Time::ZERO, 0, &settings);
        assert_eq!(pace.allowance(), 4 * KIB);
    }
}
