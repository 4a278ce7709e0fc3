//! When the broker is asked, and for how much: what is on the screen every second,
//! everything as seldom as it is long, nothing before the last answer. Pure.

use std::time::{Duration, Instant};

use crate::tui::feed::{RETRY_FIRST, RETRY_MOST};

/// From an answer to the next question.
const PERIOD: Duration = Duration::from_secs(1);

/// The same, when something happened.
const PERIOD_LEAST: Duration = Duration::from_millis(100);

/// From one answer with all guests to the next question for all, a guest: a status of
/// 10 000 costs a broker some 20 ms, and so it is asked for every 10 s.
const PERIOD_EACH: Duration = Duration::from_millis(1);
const PERIOD_ALL_MOST: Duration = Duration::from_secs(60);

/// What is to be asked for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Extent {
    /// All guests.
    All,
    /// Those on the screen.
    Shown,
}

/// What was asked and answered last.
#[derive(Clone, Debug)]
pub(crate) struct Pulse {
    /// One question at a time.
    is_open: bool,
    /// When anything, and when everything, may be asked next.
    next: Instant,
    next_all: Instant,
    /// How many guests there were.
    guests: u32,
    /// When anything, and when everything, was answered last.
    answered_at: Instant,
    all_at: Option<Instant>,
    retry: Duration,
}

impl Pulse {
    pub(crate) const fn new(now: Instant) -> Self {
        Self {
            is_open: false,
            next: now,
            next_all: now,
            guests: 0,
            answered_at: now,
            all_at: None,
            retry: RETRY_FIRST,
        }
    }

    /// When there is something to ask; `None`: after the answer.
    pub(crate) const fn next(&self) -> Option<Instant> {
        if self.is_open { None } else { Some(self.next) }
    }

    /// What is to be asked now; from here on it is.
    pub(crate) fn due(&mut self, now: Instant) -> Option<Extent> {
        if self.is_open || now < self.next {
            return None;
        }
        self.is_open = true;
        Some(if now >= self.next_all { Extent::All } else { Extent::Shown })
    }

    /// The answer came, with that many guests if it was about all.
    pub(crate) fn answered(&mut self, all: Option<usize>, now: Instant) {
        (self.is_open, self.next, self.retry) = (false, now + PERIOD, RETRY_FIRST);
        self.answered_at = now;
        if let Some(guests) = all {
            self.guests = u32::try_from(guests).unwrap_or(u32::MAX);
            (self.all_at, self.next_all) = (Some(now), now + self.period_all());
        }
    }

    /// No answer came.
    pub(crate) fn failed(&mut self, now: Instant) {
        (self.is_open, self.next, self.next_all) = (false, now + self.retry, now);
        self.retry = (self.retry * 2).min(RETRY_MOST);
    }

    /// What is on the screen changed, or the screen did.
    pub(crate) fn hurry(&mut self, now: Instant) {
        // A broker that is away is asked as often as before.
        if self.retry == RETRY_FIRST {
            self.next = self.next.min(self.answered_at + PERIOD_LEAST).max(self.next.min(now));
        }
    }

    /// Somebody is there of whom nothing is known.
    pub(crate) fn hurry_all(&mut self) {
        if let Some(at) = self.all_at {
            self.next_all = self.next_all.min(at + (self.period_all() / 4).max(PERIOD));
        }
    }

    fn period_all(&self) -> Duration {
        PERIOD_EACH.saturating_mul(self.guests).clamp(PERIOD, PERIOD_ALL_MOST)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn one_question_is_open_at_a_time_and_the_next_comes_a_second_after_its_answer() {
        let start = Instant::now();
        let mut pulse = Pulse::new(start);
        assert_eq!(pulse.due(start), Some(Extent::All));
        assert_eq!((pulse.due(start + 9 * SECOND), pulse.next()), (None, None));
        pulse.answered(Some(3), start + SECOND);
        assert_eq!(pulse.due(start + SECOND * 3 / 2), None);
        assert_eq!(pulse.due(start + 2 * SECOND), Some(Extent::All));
    }

    #[test]
    fn ten_thousand_guests_are_asked_for_every_ten_seconds_and_the_screen_every_second() {
        let start = Instant::now();
        let mut pulse = Pulse::new(start);
        pulse.due(start);
        pulse.answered(Some(10_000), start);
        let mut all = 0;
        for second in 1..=60 {
            // Somebody new, all the time.
            let now = start + second * SECOND;
            let extent = pulse.due(now).unwrap();
            all += usize::from(extent == Extent::All);
            pulse.answered((extent == Extent::All).then_some(10_000), now);
        }
        assert_eq!(all, 6);
        for second in 61..=120 {
            pulse.hurry_all();
            let now = start + second * SECOND;
            let extent = pulse.due(now).unwrap();
            all += usize::from(extent == Extent::All);
            pulse.answered((extent == Extent::All).then_some(10_000), now);
        }
        assert_eq!(all, 6 + 20);
    }

    #[test]
    fn events_bring_the_question_forward_ten_times_a_second_at_most() {
        let start = Instant::now();
        let mut pulse = Pulse::new(start);
        pulse.due(start);
        pulse.answered(Some(1), start);
        for _ in 0..1000 {
            pulse.hurry(start + PERIOD_LEAST / 2);
        }
        assert_eq!(pulse.next(), Some(start + PERIOD_LEAST));
        pulse.hurry(start + SECOND / 2);
        assert_eq!(pulse.next(), Some(start + PERIOD_LEAST));
    }

    #[test]
    fn an_absent_broker_is_tried_again_after_ever_longer_and_then_asked_for_everything() {
        let start = Instant::now();
        let mut pulse = Pulse::new(start);
        let mut now = start;
        let mut gaps = vec![];
        for _ in 0..7 {
            assert_eq!(pulse.due(now), Some(Extent::All));
            pulse.failed(now);
            pulse.hurry(now);
            gaps.push((pulse.next().unwrap() - now).as_millis());
            now = pulse.next().unwrap();
        }
        assert_eq!(gaps, [100, 200, 400, 800, 1600, 2000, 2000]);
        pulse.due(now);
        pulse.answered(Some(1), now);
        assert_eq!(pulse.next(), Some(now + SECOND));
    }
}
