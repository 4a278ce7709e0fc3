//! Makes a failing case small enough to understand: first the world, then the
//! choices, by delta debugging (Zeller and Hildebrandt, "Simplifying and
//! Isolating Failure-Inducing Input", 2002).
//!
//! Only what breaks the same promise counts as the same failure. The same case
//! shrinks to the same case, unless it is stopped earlier.

use castra_core::peers::Policy;

use crate::case::Case;
use crate::plan::{By, Carrier, GuestKind, Inbox, Network, Plan, Way};

/// How far shrinking is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Progress {
    /// Runs so far.
    pub runs: u64,
    /// Guests, clients and faults that are left.
    pub parts: usize,
    /// Choices that are left.
    pub choices: usize,
}

/// Shrinks `case`. `run` plays a plan with choices and says which promise was
/// broken, if one was. It is called at most `most` times, and no more once
/// `go_on`, which is told the progress before each run, says `false`.
///
/// The result breaks the same promise if `case` does, which isn't checked.
pub fn shrink<P: AsRef<str>>(
    case: Case,
    most: u64,
    run: impl FnMut(&Plan, Vec<u32>) -> Option<P>,
    go_on: impl FnMut(Progress) -> bool,
) -> Case {
    let mut shrinker = Shrinker { best: case, runs: 0, most, run, go_on };
    loop {
        let before = shrinker.best.clone();
        // A world that fails without any choice needs no list of them.
        shrinker.attempt(|case| case.choices.clear());
        shrinker.structure();
        shrinker.fewer_in_step();
        shrinker.choices();
        if shrinker.best == before || shrinker.spent() {
            return shrinker.best;
        }
    }
}

/// Faults and guests among which one is taken out and the rest brought in step again.
const FEW: usize = 8;

/// Moments that are tried in an interval.
const STEPS: u64 = 16;

struct Shrinker<R, G> {
    best: Case,
    runs: u64,
    most: u64,
    run: R,
    go_on: G,
}

impl<P, R, G> Shrinker<R, G>
where
    P: AsRef<str>,
    R: FnMut(&Plan, Vec<u32>) -> Option<P>,
    G: FnMut(Progress) -> bool,
{
    fn spent(&self) -> bool {
        self.runs >= self.most
    }

    /// Keeps the change if the promise is still broken with it.
    fn attempt(&mut self, change: impl FnOnce(&mut Case)) -> bool {
        let mut candidate = self.best.clone();
        change(&mut candidate);
        if candidate == self.best || self.spent() {
            return false;
        }
        let plan = &self.best.plan;
        let progress = Progress {
            runs: self.runs,
            parts: plan.guests.len() + plan.clients.len() + plan.faults.len() + plan.acts.len(),
            choices: self.best.choices.len(),
        };
        if !(self.go_on)(progress) {
            self.runs = self.most;
            return false;
        }
        self.runs += 1;
        let broken = (self.run)(&candidate.plan, candidate.choices.clone());
        let same = broken.is_some_and(|promise| promise.as_ref() == self.best.promise);
        if same {
            self.best = candidate;
        }
        same
    }

    fn structure(&mut self) {
        self.remove(|case| case.plan.faults.len(), |case, part| drop(case.plan.faults.drain(part)));
        self.remove(|case| case.plan.clients.len(), |case, part| drop(case.plan.clients.drain(part)));
        self.attempt(|case| case.plan.couples.clear());
        self.remove(|case| case.plan.acts.len(), |case, part| drop(case.plan.acts.drain(part)));
        self.plainer_attach();
        for guest in (0..self.best.plan.guests.len()).rev() {
            self.attempt(|case| remove_guest(&mut case.plan, guest));
        }
        self.plainer_network();
        for guest in 0..self.best.plan.guests.len() {
            self.attempt(|case| case.plan.guests[guest].kind = GuestKind::Agent);
            self.attempt(|case| case.plan.guests[guest].carrier = Carrier::Tcp);
            self.attempt(|case| case.plan.guests[guest].keyed = false);
            self.attempt(|case| case.plan.guests[guest].core = true);
            self.plainer_inbox(guest);
            self.number(|case| &mut case.plan.guests[guest].starts_ms);
        }
        for client in 0..self.best.plan.clients.len() {
            self.attempt(|case| case.plan.clients[client].slow = false);
            self.number(|case| &mut case.plan.clients[client].timeout_ms);
            self.number(|case| &mut case.plan.clients[client].at_ms);
        }
        for act in 0..self.best.plan.acts.len() {
            self.attempt(|case| {
                let act = &mut case.plan.acts[act];
                (act.times, act.key, act.queue, act.padding, act.timeout_ms) = (1, None, true, 0, None);
            });
            if self.best.plan.acts[act].deed.is_the_hosts() {
                self.attempt(|case| case.plan.acts[act].by = By::Host);
            }
            self.attempt(|case| case.plan.acts[act].times = 1);
            self.attempt(|case| case.plan.acts[act].key = None);
            self.attempt(|case| case.plan.acts[act].queue = true);
            self.attempt(|case| case.plan.acts[act].padding = 0);
            self.attempt(|case| case.plan.acts[act].timeout_ms = None);
            self.number(|case| &mut case.plan.acts[act].at_ms);
        }
        for fault in 0..self.best.plan.faults.len() {
            self.attempt(|case| case.plan.faults[fault].way = Way::Both);
            self.number(|case| &mut case.plan.faults[fault].for_ms);
        }
        self.sooner();
        self.number(|case| &mut case.plan.chaos_ms);
    }

    fn plainer_attach(&mut self) {
        self.attempt(|case| case.plan.attach = None);
        let steps = |case: &Case| case.plan.attach.as_ref().map_or(0, |attach| attach.steps.len());
        self.remove(steps, |case, part| {
            case.plan.attach.iter_mut().for_each(|attach| drop(attach.steps.drain(part.clone())));
        });
        for step in 0..steps(&self.best) {
            self.attempt(|case| {
                if let Some(attach) = &mut case.plan.attach {
                    let step = &mut attach.steps[step];
                    (step.times, step.padding, step.ttl_ms, step.timeout_ms) = (1, 0, None, None);
                }
            });
        }
        self.attempt(|case| case.plan.attach.iter_mut().for_each(|attach| attach.odd_manager = 0));
    }

    fn plainer_inbox(&mut self, guest: usize) {
        self.attempt(|case| case.plan.guests[guest].inbox = None);
        let plain = Inbox { policies: vec![Policy::Accept], require_authenticated: false };
        if self.best.plan.guests[guest].inbox.is_some() {
            self.attempt(|case| case.plan.guests[guest].inbox = Some(plain));
        }
    }

    /// A few parts often need each other only so that the last fault comes at
    /// the right moment: without one of them that moment is sought anew, within
    /// an interval to both sides.
    fn fewer_in_step(&mut self) {
        if self.best.plan.faults.len() + self.best.plan.guests.len() > FEW {
            return;
        }
        for fault in (0..self.best.plan.faults.len().saturating_sub(1)).rev() {
            self.in_step(|case| {
                case.plan.faults.remove(fault);
            });
        }
        // Somebody must stay: without a part less there is nothing to bring in step.
        for guest in (0..self.best.plan.guests.len()).rev() {
            if self.best.plan.guests.len() == 1 {
                break;
            }
            self.in_step(|case| remove_guest(&mut case.plan, guest));
        }
    }

    fn in_step(&mut self, change: impl Fn(&mut Case)) {
        let interval = self.best.plan.interval_ms;
        for step in 0..=2 * STEPS {
            let found = self.attempt(|case| {
                change(case);
                let before = case.plan.faults.len().checked_sub(2).map_or(0, |at| case.plan.faults[at].at_ms);
                if let Some(last) = case.plan.faults.last_mut() {
                    let later = last.at_ms + interval * step / STEPS;
                    last.at_ms = later.saturating_sub(interval).max(before);
                }
            });
            if found {
                return;
            }
        }
    }

    /// What the network does beyond delivering.
    fn plainer_network(&mut self) {
        let plain: [fn(&mut Network); 7] = [
            |network| network.cut = 0,
            |network| network.join = 0,
            |network| network.short_read = 0,
            |network| network.spurious = 0,
            |network| network.buffer = 65_536,
            |network| network.backlog = 128,
            |network| network.latency_max_us = network.latency_min_us,
        ];
        // All at once first, and one by one if that was too much.
        if !self.attempt(|case| plain.iter().for_each(|change| change(&mut case.plan.network))) {
            for change in plain {
                self.attempt(|case| change(&mut case.plan.network));
            }
        }
        self.attempt(|case| case.plan.logs = false);
    }

    /// Everything from some fault on comes earlier, with the same distances.
    fn sooner(&mut self) {
        for first in 0..self.best.plan.faults.len() {
            let before = first.checked_sub(1).map_or(0, |index| self.best.plan.faults[index].at_ms);
            let gap = self.best.plan.faults[first].at_ms - before;
            // Whole intervals keep it in step with the challenges.
            let interval = self.best.plan.interval_ms.max(1);
            let whole = |gap: u64| gap / interval * interval;
            for by in [gap, whole(gap), gap / 2, whole(gap / 2), gap / 4, whole(gap / 4), whole(interval)] {
                let by = by.min(gap);
                let moved = by > 0
                    && self.attempt(|case| {
                        let rest = &mut case.plan.faults[first..];
                        rest.iter_mut().for_each(|fault| fault.at_ms -= by);
                    });
                if moved {
                    break;
                }
            }
        }
    }

    /// Makes a number smaller, by bisection.
    fn number(&mut self, field: impl Fn(&mut Case) -> &mut u64) {
        let mut least = 0;
        let mut value = *field(&mut self.best.clone());
        let mut next = 0;
        while value > least && !self.spent() {
            if self.attempt(|case| *field(case) = next) {
                value = next;
            } else {
                least = next + 1;
            }
            // Some numbers need be found only roughly.
            if value - least.min(value) <= value / 16 {
                break;
            }
            next = u64::midpoint(least, value);
        }
    }

    /// Removes parts of a list: halves, quarters, …, single ones.
    fn remove(&mut self, length: impl Fn(&Case) -> usize, drop: impl Fn(&mut Case, core::ops::Range<usize>)) {
        let mut size = length(&self.best);
        while size > 0 && !self.spent() {
            // From the end: what comes last is least likely to be needed.
            let mut end = length(&self.best);
            while end > 0 {
                let start = end.saturating_sub(size);
                self.attempt(|case| drop(case, start..end));
                end = start;
            }
            size /= 2;
        }
    }

    /// The end of the list off, then zeros, then smaller numbers.
    fn choices(&mut self) {
        let mut kept = 0;
        while kept < self.best.choices.len() && !self.spent() {
            let half = usize::midpoint(kept, self.best.choices.len());
            if !self.attempt(|case| case.choices.truncate(half)) {
                kept = half + 1;
            }
        }
        let mut size = self.best.choices.len();
        while size > 0 && !self.spent() {
            for start in (0..self.best.choices.len()).step_by(size) {
                self.attempt(|case| {
                    let end = (start + size).min(case.choices.len());
                    case.choices[start.min(end)..end].fill(0);
                });
            }
            size /= 2;
        }
        // Zeros at the end are what is chosen anyway.
        while self.best.choices.last() == Some(&0) {
            self.best.choices.pop();
        }
        for index in 0..self.best.choices.len() {
            let mut value = self.best.choices[index];
            while value > 1 && self.attempt(|case| case.choices[index] = value / 2) {
                value /= 2;
            }
        }
    }
}

/// Removes a guest and what happens to it; the ones after it get new numbers.
fn remove_guest(plan: &mut Plan, guest: usize) {
    if plan.guests.len() == 1 {
        return;
    }
    plan.guests.remove(guest);
    plan.faults.retain(|fault| fault.guest != guest);
    plan.clients.retain(|client| client.guest != guest);
    plan.acts.retain(|act| act.guest != guest && act.other != guest);
    if let Some(attach) = &mut plan.attach {
        attach.guests.remove(guest);
        attach.steps.retain(|step| step.guest != guest);
        attach.steps.iter_mut().for_each(|step| step.guest -= usize::from(step.guest > guest));
    }
    let numbers = plan.faults.iter_mut().map(|fault| &mut fault.guest);
    plan.couples.retain(|couple| !couple.contains(&guest));
    let numbers = numbers.chain(plan.couples.iter_mut().flatten());
    let numbers = numbers.chain(plan.clients.iter_mut().map(|client| &mut client.guest));
    for number in numbers.chain(plan.acts.iter_mut().flat_map(|act| [&mut act.guest, &mut act.other])) {
        *number -= usize::from(*number > guest);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::choice::Seeded;
    use crate::plan::{FaultKind, Limits};

    /// Fails if some guest dies and is then held, and the fifth choice is more than 2.
    fn toy(plan: &Plan, choices: &[u32]) -> Option<&'static str> {
        let of = |kind| plan.faults.iter().filter(move |fault| fault.kind == kind);
        if of(FaultKind::Reset).count() >= 3 {
            return Some("L1");
        }
        let dies = of(FaultKind::Death).any(|death| {
            death.for_ms >= 1000
                && of(FaultKind::Hold).any(|hold| hold.guest == death.guest && hold.at_ms >= death.at_ms)
        });
        (dies && choices.get(4).is_some_and(|choice| *choice > 2)).then_some("S1")
    }

    fn failing() -> Case {
        for seed in 0.. {
            let plan = Plan::draw(&mut Seeded::new(seed), &Limits::default());
            let choices: Vec<u32> = (10..500).collect();
            if plan.guests.len() > 3 && plan.faults.len() > 20 && toy(&plan, &choices) == Some("S1") {
                return Case::new("S1", plan, choices);
            }
        }
        unreachable!("some seed fails")
    }

    #[test]
    fn a_case_shrinks_to_what_its_failure_needs() {
        let mut runs = 0;
        let run = |plan: &Plan, choices: Vec<u32>| {
            runs += 1;
            toy(plan, &choices)
        };
        let small = shrink(failing(), 10_000, run, |_| true);
        assert_eq!(toy(&small.plan, &small.choices), Some("S1"));
        assert_eq!((small.plan.guests.len(), small.plan.clients.len(), small.plan.faults.len()), (1, 0, 2));
        let faults = &small.plan.faults;
        assert_eq!((faults[0].kind, faults[1].kind), (FaultKind::Death, FaultKind::Hold));
        assert_eq!((faults[0].at_ms, faults[1].at_ms, faults[1].for_ms), (0, 0, 0));
        assert!((1000..1080).contains(&faults[0].for_ms), "{}", faults[0].for_ms);
        assert_eq!((small.plan.chaos_ms, small.plan.network.cut, small.plan.logs), (0, 0, false));
        assert_eq!(small.choices, [0, 0, 0, 0, 3]);
        assert!(runs < 1000, "{runs}");
    }

    #[test]
    fn another_promise_is_another_failure() {
        // Three resets break L1: shrinking S1 must not end there.
        let mut case = failing();
        case.promise = "L3".into();
        let run = |plan: &Plan, choices: Vec<u32>| toy(plan, &choices);
        assert_eq!(shrink(case.clone(), 10_000, run, |_| true), case);
    }

    #[test]
    fn shrinking_is_bounded_by_runs_and_by_the_callers_patience() {
        let mut runs = 0;
        let run = |plan: &Plan, choices: Vec<u32>| {
            runs += 1;
            toy(plan, &choices)
        };
        let small = shrink(failing(), 25, run, |_| true);
        assert_eq!(runs, 25);
        assert_eq!(toy(&small.plan, &small.choices), Some("S1"));
        let untouched = shrink(failing(), 25, |_, _| Some("S1"), |_| false);
        assert_eq!(untouched, failing());
    }

    #[test]
    fn the_same_case_shrinks_to_the_same_case() {
        let run = |plan: &Plan, choices: Vec<u32>| toy(plan, &choices);
        assert_eq!(shrink(failing(), 300, run, |_| true), shrink(failing(), 300, run, |_| true));
    }

    #[test]
    fn removing_a_guest_renumbers_the_others() {
        let mut plan = failing().plan;
        let last = plan.guests.len() - 1;
        let of_last = plan.faults.iter().filter(|fault| fault.guest == last).count();
        remove_guest(&mut plan, 0);
        assert_eq!(plan.faults.iter().filter(|fault| fault.guest == last - 1).count(), of_last);
        while plan.guests.len() > 1 {
            remove_guest(&mut plan, 0);
        }
        remove_guest(&mut plan, 0);
        assert_eq!(plan.guests.len(), 1, "somebody must stay");
        assert!(plan.faults.iter().all(|fault| fault.guest == 0));
    }
}
