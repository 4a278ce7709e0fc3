//! Breadth first, with a hash for every state that was seen.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::hash::{BuildHasherDefault, Hasher};

use super::state::{Limits, State};
use super::story::Story;
use super::{Bounds, Broken, Counterexample, Progress, Report};
use crate::choice::{Choice, Odometer, Replayed, Seeded};

/// States that are looked at before one hears of it.
const TOLD_EVERY: usize = 500;

/// How a state was found: from which one, by which choice.
#[derive(Clone, Copy)]
struct Found {
    from: u32,
    choice: u16,
}

/// Searches until nothing new is found, a promise is broken or the bound on
/// states is reached. `tell` is called after every layer and every few states;
/// when it returns `false` the search ends.
pub fn explore(bounds: &Bounds, tell: &mut dyn FnMut(Progress) -> bool) -> Report {
    let limits = Limits::new(bounds);
    let start = State::new(bounds);
    let mut seen: HashSet<u128, BuildHasherDefault<Folded>> = HashSet::default();
    seen.insert(start.fingerprint(&limits));
    let mut found = vec![Found { from: 0, choice: 0 }];
    let mut report = Report { states: 1, edges: 0, depth: 0, closed: false, violation: None };
    let mut layer = vec![(0, start)];
    let mut silent = Story::silent();
    while !layer.is_empty() {
        let mut next = Vec::new();
        let all = layer.len();
        for (looked_at, (index, state)) in layer.drain(..).enumerate() {
            if looked_at % TOLD_EVERY == TOLD_EVERY - 1 {
                report.states = found.len() as u64;
                let Report { states, edges, depth, .. } = report;
                if !tell(Progress { depth, states, edges, frontier: (all - looked_at) as u64 }) {
                    return report;
                }
            }
            let mut odometer = Odometer::default();
            for choice in 0.. {
                let mut after = state.clone();
                report.edges += 1;
                let link = Found { from: index, choice };
                if let Err(broken) = after.step(bounds, &limits, &mut odometer, &mut silent) {
                    found.push(link);
                    report.states = found.len() as u64;
                    report.depth += 1;
                    report.violation = Some(retell(bounds, &found, broken));
                    return report;
                }
                if seen.insert(after.fingerprint(&limits)) {
                    found.push(link);
                    let index = (found.len() - 1) as u32;
                    let looked_at = index.checked_rem(bounds.converge_every) == Some(0);
                    if looked_at && let Err(broken) = after.clone().converge(bounds, &limits) {
                        report.states = found.len() as u64;
                        report.depth += 1;
                        report.violation = Some(retell(bounds, &found, broken));
                        return report;
                    }
                    next.push((index, after));
                }
                if !odometer.advance() {
                    break;
                }
            }
            if found.len() > bounds.states_max as usize {
                report.states = found.len() as u64;
                return report;
            }
        }
        layer = next;
        report.states = found.len() as u64;
        if !layer.is_empty() {
            report.depth += 1;
        }
        let Report { states, edges, depth, .. } = report;
        if !tell(Progress { depth, states, edges, frontier: layer.len() as u64 }) && !layer.is_empty() {
            return report;
        }
    }
    report.closed = true;
    report
}

/// Tests the fingerprint itself: of every `every`th pair of states that it takes
/// for one, found within one layer, all that may happen next must again be taken
/// for the same, along a random walk of ten steps. Returns how many pairs were
/// compared until the bound on states was reached.
///
/// # Errors
/// Two states with one fingerprint that go on differently.
pub fn audit(bounds: &Bounds, every: u32) -> Result<u32, String> {
    let limits = Limits::new(bounds);
    let mut seen: HashSet<u128, BuildHasherDefault<Folded>> = HashSet::default();
    let mut layer = vec![State::new(bounds)];
    let mut random = Seeded::new(0);
    let (mut pairs, mut compared) = (0u32, 0);
    while !layer.is_empty() && seen.len() < bounds.states_max as usize {
        let mut next: Vec<State> = Vec::new();
        let mut places: HashMap<u128, usize> = HashMap::new();
        for state in layer {
            for (fingerprint, after) in successors(bounds, &limits, &state) {
                if seen.insert(fingerprint) {
                    places.insert(fingerprint, next.len());
                    next.push(after);
                } else if let Some(twin) = places.get(&fingerprint).map(|place| &next[*place]) {
                    pairs += 1;
                    // Two ways to the very same state tell nothing.
                    if pairs % every == 0 && format!("{twin:?}") != format!("{after:?}") {
                        walk(bounds, &limits, twin.clone(), after, &mut random)?;
                        compared += 1;
                    }
                }
            }
        }
        layer = next;
    }
    Ok(compared)
}

/// Two states with one fingerprint go on together.
fn walk(
    bounds: &Bounds,
    limits: &Limits,
    mut one: State,
    mut other: State,
    random: &mut Seeded,
) -> Result<(), String> {
    for _ in 0..10 {
        let ways = |state: &State| successors(bounds, limits, state).into_iter().collect::<BTreeMap<_, _>>();
        let (mut ones, mut others) = (ways(&one), ways(&other));
        if !ones.keys().eq(others.keys()) {
            return Err(format!("they go on differently:\n{one:#?}\n{other:#?}"));
        }
        let chosen = random.below(u32::try_from(ones.len()).unwrap_or(u32::MAX)) as usize;
        let Some(fingerprint) = ones.keys().nth(chosen).copied() else { return Ok(()) };
        if let (Some(next), Some(its)) = (ones.remove(&fingerprint), others.remove(&fingerprint)) {
            (one, other) = (next, its);
        }
    }
    Ok(())
}

/// Everything that may happen next. What breaks a promise is left out.
fn successors(bounds: &Bounds, limits: &Limits, state: &State) -> Vec<(u128, State)> {
    let mut ways = Vec::new();
    let mut odometer = Odometer::default();
    loop {
        let mut after = state.clone();
        if after.step(bounds, limits, &mut odometer, &mut Story::silent()).is_ok() {
            ways.push((after.fingerprint(limits), after));
        }
        if !odometer.advance() {
            return ways;
        }
    }
}

/// The way to the newest state, from the start.
fn retell(bounds: &Bounds, found: &[Found], broken: Broken) -> Counterexample {
    let mut choices = Vec::new();
    let mut at = found.len() - 1;
    while at > 0 {
        choices.push(u32::from(found[at].choice));
        at = found[at].from as usize;
    }
    choices.reverse();
    let mut story = Story::told();
    let mut state = State::new(bounds);
    let mut again = Replayed::new(choices.clone());
    for _ in &choices {
        // The last one ends in what is known already.
        let _ = state.step(bounds, &Limits::new(bounds), &mut again, &mut story);
    }
    Counterexample { steps: story.steps, choices, broken }
}

/// A fingerprint is a hash already.
#[derive(Default)]
struct Folded(u64);

impl Hasher for Folded {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, _: &[u8]) {}

    fn write_u128(&mut self, fingerprint: u128) {
        self.0 = fingerprint as u64;
    }
}
