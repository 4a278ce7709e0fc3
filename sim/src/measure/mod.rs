//! What settings are worth: how soon a silent death is noticed, and how often
//! somebody alive is doubted, for a given window, interval and network.
//!
//! Guests die or freeze at random moments in worlds without any other fault
//! than the network's own jitter. The plan is the truth; the world only has to
//! say when its verdicts changed.

mod plot;
mod profile;

use core::time::Duration;

use castra_core::time::Time;

use crate::choice::{Choice, Seeded};
use crate::chronicle::{Chronicle, Column, Role};
use crate::outcome::Outcome;
use crate::plan::{Carrier, Fault, FaultKind, Guest, GuestKind, Plan, Way};
use crate::world::{Failure, World};
pub use plot::{svg, text};
pub use profile::Profile;

/// The broker's verdict on a guest became another.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Change {
    /// Which guest of the plan.
    pub guest: usize,
    /// When: the moment from which on a read gives the new verdict, also if
    /// nobody read at that moment.
    pub at: Time,
    /// Whether it now is `reachable`.
    pub reachable: bool,
}

/// The settings under test.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Setup {
    /// The broker's window.
    pub window: Duration,
    /// The broker's interval.
    pub interval: Duration,
    /// How many guests are in each world.
    pub guests: usize,
    /// The network's ordinary behaviour.
    pub profile: Profile,
}

/// Each guest dies about so many times in one world.
const DEATHS: u32 = 8;

/// Silence starts, ends, and starts again no sooner than this many windows.
const CALM_WINDOWS: u64 = 2;

impl Setup {
    /// The world of a seed: every guest falls silent some eight times, each
    /// time for longer than the window, and lives for a while between.
    #[must_use]
    pub fn plan(&self, seed: u64) -> Plan {
        let mut choice = Seeded::new(seed);
        let window = millis(self.window).max(1);
        let chaos = window * 8 * u64::from(DEATHS);
        let mut faults = Vec::new();
        for guest in 0..self.guests {
            // Settles first, and isn't in step with the others.
            let mut at = choice.between(CALM_WINDOWS * window, 4 * window);
            loop {
                let length = choice.between(window + window / 2, 3 * window);
                if at + length + window > chaos {
                    break;
                }
                let kind = choice.pick(&[FaultKind::Death, FaultKind::Freeze]);
                faults.push(Fault { at_ms: at, kind, guest, way: Way::Both, for_ms: length });
                at += length + choice.between(CALM_WINDOWS * window, 8 * window);
            }
            self.profile.stalls(&mut choice, guest, chaos, &mut faults);
        }
        faults.sort_by_key(|fault| (fault.at_ms, fault.guest));
        let guest = Guest {
            kind: GuestKind::Agent,
            carrier: Carrier::Tcp,
            keyed: false,
            starts_ms: 0,
            core: true,
            inbox: None,
        };
        Plan {
            window_ms: window,
            interval_ms: millis(self.interval),
            network: self.profile.network(),
            guests: vec![guest; self.guests],
            clients: Vec::new(),
            faults,
            chaos_ms: chaos,
            logs: false,
            accept_unproven: false,
            only_known: false,
            small_tables: false,
            couples: Vec::new(),
            acts: Vec::new(),
            attach: None,
        }
    }
}

/// What was measured so far.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Measured {
    /// From each silence to the verdict's leaving `reachable`, unsorted.
    pub latencies: Vec<Duration>,
    /// Silences that ended before they were noticed.
    pub unnoticed: u64,
    /// Time that guests were alive and had been reachable since their last silence.
    pub healthy: Duration,
    /// Part of it in which they were not called reachable.
    pub doubted: Duration,
    /// How many times that began.
    pub doubts: u64,
}

impl Measured {
    /// Plays the world of a seed and measures it.
    ///
    /// # Errors
    /// A broken promise.
    pub fn play(setup: &Setup, seed: u64) -> Result<(Self, Outcome), Box<Failure>> {
        let plan = setup.plan(seed);
        let (result, chronicle) = World::new(&plan, Box::new(Seeded::new(!seed))).tell();
        let outcome = result?;
        Ok((Self::judge(&plan, &changes(&chronicle)), outcome))
    }

    /// What a world's changes of verdicts come to. They must be in the order of
    /// time; `plan` says when which guest was silent.
    #[must_use]
    pub fn judge(plan: &Plan, changes: &[Change]) -> Self {
        let mut measured = Self::default();
        for guest in 0..plan.guests.len() {
            let changes: Vec<_> = changes.iter().filter(|change| change.guest == guest).collect();
            let silences: Vec<_> = plan
                .faults
                .iter()
                .filter(|fault| fault.guest == guest)
                .filter(|fault| matches!(fault.kind, FaultKind::Death | FaultKind::Freeze))
                .map(|fault| (Time::from_millis(fault.at_ms), Time::from_millis(fault.at_ms + fault.for_ms)))
                .collect();
            let end = Time::from_millis(plan.chaos_ms);
            let mut lives_since = Time::ZERO;
            for (from, until) in silences.iter().copied().chain([(end, end)]) {
                measured.life(&changes, lives_since, from);
                if from < until {
                    measured.silence(&changes, from, until);
                }
                lives_since = until;
            }
        }
        measured
    }

    /// Adds what another world came to.
    pub fn merge(&mut self, other: Self) {
        self.latencies.extend(other.latencies);
        self.unnoticed += other.unnoticed;
        self.healthy += other.healthy;
        self.doubted += other.doubted;
        self.doubts += other.doubts;
    }

    /// The latency that `per_mille` of all silences did not exceed (nearest
    /// rank); `None` without any.
    #[must_use]
    pub fn latency(&self, per_mille: usize) -> Option<Duration> {
        let mut sorted = self.latencies.clone();
        sorted.sort_unstable();
        let rank = (sorted.len() * per_mille).div_ceil(1000).max(1);
        sorted.get(rank - 1).copied()
    }

    /// How many times a guest was doubted in a day of its life.
    #[must_use]
    pub fn doubts_per_day(&self) -> f64 {
        ratio(self.doubts as f64 * 86_400.0, self.healthy.as_secs_f64())
    }

    /// Fraction of its life in which a guest was doubted.
    #[must_use]
    pub fn doubted_fraction(&self) -> f64 {
        ratio(self.doubted.as_secs_f64(), self.healthy.as_secs_f64())
    }

    /// One life, which counts from its first `reachable` on.
    fn life(&mut self, changes: &[&Change], from: Time, until: Time) {
        let mut since: Option<Time> = None;
        let mut doubted: Option<Time> = None;
        for change in changes.iter().filter(|change| change.at >= from && change.at < until) {
            match (change.reachable, since) {
                (true, None) => since = Some(change.at),
                (true, Some(_)) => {
                    if let Some(began) = doubted.take() {
                        self.doubted += change.at.since(began);
                    }
                }
                (false, Some(_)) if doubted.is_none() => {
                    doubted = Some(change.at);
                    self.doubts += 1;
                }
                (false, _) => {}
            }
        }
        if let Some(began) = doubted {
            self.doubted += until.since(began);
        }
        if let Some(since) = since {
            self.healthy += until.since(since);
        }
    }

    /// One silence of a guest that was called reachable when it began.
    fn silence(&mut self, changes: &[&Change], from: Time, until: Time) {
        let before = changes.iter().rfind(|change| change.at < from);
        if !before.is_some_and(|change| change.reachable) {
            return;
        }
        let left = changes.iter().find(|change| change.at >= from && !change.reachable);
        match left {
            Some(change) if change.at <= until => self.latencies.push(change.at.since(from)),
            _ => self.unnoticed += 1,
        }
    }
}

/// Every change of the broker's mind that a chronicle tells of.
fn changes(chronicle: &Chronicle) -> Vec<Change> {
    let guests: Vec<Column> = (0..chronicle.columns.len())
        .filter(|column| chronicle.columns[*column].role == Role::Guest)
        .collect();
    let mut changes: Vec<Change> = Vec::new();
    for band in &chronicle.bands {
        let Some(guest) = guests.iter().position(|column| *column == band.guest) else { continue };
        let last = changes.iter().rfind(|change| change.guest == guest);
        if last.is_none_or(|last| last.reachable != band.reachable) {
            changes.push(Change { guest, at: band.from, reachable: band.reachable });
        }
    }
    changes.sort_by_key(|change| change.at);
    changes
}

fn ratio(part: f64, whole: f64) -> f64 {
    if whole > 0.0 { part / whole } else { 0.0 }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn setup(profile: Profile) -> Setup {
        Setup { window: Duration::from_secs(3), interval: Duration::from_secs(1), guests: 3, profile }
    }

    fn change(at_ms: u64, reachable: bool) -> Change {
        Change { guest: 0, at: Time::from_millis(at_ms), reachable }
    }

    fn silent(at_ms: u64, for_ms: u64) -> Plan {
        let mut plan = Setup { guests: 1, ..setup(Profile::Lan) }.plan(0);
        plan.chaos_ms = 60_000;
        plan.faults = vec![Fault { at_ms, kind: FaultKind::Death, guest: 0, way: Way::Both, for_ms }];
        plan
    }

    #[test]
    fn a_silence_is_timed_from_the_death_to_the_change_of_the_verdict() {
        let changes = [change(100, true), change(12_500, false), change(21_000, true)];
        let measured = Measured::judge(&silent(10_000, 10_000), &changes);
        assert_eq!(measured.latencies, [Duration::from_millis(2500)]);
        assert_eq!(measured.latency(500), Some(Duration::from_millis(2500)));
        assert_eq!((measured.unnoticed, measured.doubts), (0, 0));
        // From 0.1 s to 10 s, and from 21 s to the end.
        assert_eq!(measured.healthy, Duration::from_millis(9900 + 39_000));
    }

    #[test]
    fn a_verdict_that_never_leaves_is_unnoticed() {
        let measured = Measured::judge(&silent(10_000, 10_000), &[change(100, true)]);
        assert_eq!((measured.latencies.len(), measured.unnoticed), (0, 1));
    }

    #[test]
    fn a_living_guest_that_is_not_reachable_is_doubted_as_long_as_that_lasts() {
        let changes = [change(100, true), change(4000, false), change(4500, true), change(12_000, false)];
        let measured = Measured::judge(&silent(10_000, 10_000), &changes);
        assert_eq!((measured.doubts, measured.doubted), (1, Duration::from_millis(500)));
        assert!((measured.doubted_fraction() - 0.5 / 9.9).abs() < 1e-9, "{measured:?}");
        assert!((measured.doubts_per_day() - 86_400.0 / 9.9).abs() < 1e-6);
    }

    #[test]
    fn a_plan_gives_every_guest_silences_that_last_longer_than_the_window() {
        for seed in 0..50 {
            let plan = setup(Profile::Lossy).plan(seed);
            for guest in 0..3 {
                let mut free_at = 0;
                let silences = plan.faults.iter().filter(|f| f.guest == guest && f.kind != FaultKind::Hold);
                let mut count = 0;
                for fault in silences {
                    count += 1;
                    assert!(fault.at_ms >= free_at + 6000, "{seed}: too soon after the last");
                    assert!(fault.for_ms > plan.window_ms);
                    free_at = fault.at_ms + fault.for_ms;
                    assert!(free_at + plan.window_ms <= plan.chaos_ms);
                }
                assert!(count >= 4, "{seed}: {count}");
            }
        }
    }

    #[test]
    fn a_silent_guest_is_noticed_within_the_window_and_nobody_else_is_doubted() {
        let mut all = Measured::default();
        for seed in 0..10 {
            all.merge(Measured::play(&setup(Profile::Lan), seed).expect("every promise holds").0);
        }
        assert!(all.latencies.len() > 100, "{}", all.latencies.len());
        let most = all.latency(1000).expect("some were silent");
        let least = all.latencies.iter().min().expect("some were silent");
        // A proof is at most an interval old when the guest dies.
        assert!(
            most <= Duration::from_secs(3) && *least >= Duration::from_millis(1900),
            "{least:?} {most:?}"
        );
        assert_eq!((all.unnoticed, all.doubts), (0, 0), "{all:?}");
    }

    #[test]
    fn losses_as_long_as_the_window_make_living_guests_doubted() {
        let mut all = Measured::default();
        for seed in 0..5 {
            all.merge(Measured::play(&setup(Profile::Awful), seed).expect("every promise holds").0);
        }
        assert!(all.doubts > 0 && all.doubted_fraction() < 0.5, "{all:?}");
    }

    #[test]
    fn the_same_seed_plans_the_same_world() {
        assert_eq!(setup(Profile::Awful).plan(7), setup(Profile::Awful).plan(7));
        assert_ne!(setup(Profile::Awful).plan(7), setup(Profile::Awful).plan(8));
    }
}
