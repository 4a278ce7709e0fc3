//! Playing worlds: from a seed, or from a case that was written down.

use std::cell::RefCell;
use std::rc::Rc;

use crate::case::Case;
use crate::choice::{Choice, Recording, Replayed, Seeded};
use crate::chronicle::Chronicle;
use crate::outcome::Outcome;
use crate::plan::{Limits, Plan};
use crate::violation::Violation;
use crate::world::{Failure, World};

/// The world of a seed: its plan, and what chooses while it is played.
#[must_use]
pub fn world(seed: u64, limits: &Limits) -> (Plan, Seeded) {
    let mut choice = Seeded::new(seed);
    let plan = Plan::draw(&mut choice, limits);
    (plan, choice)
}

/// Plays the world of a seed.
///
/// # Errors
/// The first broken promise.
pub fn seed(seed: u64, limits: &Limits) -> Result<Outcome, Box<Failure>> {
    let (plan, choice) = world(seed, limits);
    World::new(&plan, Box::new(choice)).run()
}

/// Plays a plan with choices made before.
///
/// # Errors
/// The first broken promise.
pub fn replay(plan: &Plan, choices: Vec<u32>) -> Result<Outcome, Box<Failure>> {
    World::new(plan, Box::new(Replayed::new(choices))).run()
}

/// The same, written down.
#[must_use]
pub fn tell(plan: &Plan, choices: Vec<u32>) -> (Result<Outcome, Box<Failure>>, Chronicle) {
    World::new(plan, Box::new(Replayed::new(choices))).tell()
}

/// The failing world of a seed as a case, with what is wrong; `None` if nothing is.
#[must_use]
pub fn case(seed: u64, limits: &Limits) -> Option<(Case, Violation)> {
    let (plan, choice) = world(seed, limits);
    record(&plan, choice)
}

/// Plays a plan and writes down every choice.
fn record(plan: &Plan, choice: Seeded) -> Option<(Case, Violation)> {
    let shared = Shared(Rc::new(RefCell::new(Recording::new(choice))));
    let failure = World::new(plan, Box::new(shared.clone())).run().err()?;
    let choices = shared.0.borrow().choices().to_vec();
    Some((Case::new(failure.violation.promise, plan.clone(), choices), failure.violation))
}

/// A recording that outlives the world that it is made in.
#[derive(Clone)]
struct Shared(Rc<RefCell<Recording<Seeded>>>);

impl Choice for Shared {
    fn below(&mut self, bound: u32) -> u32 {
        self.0.borrow_mut().below(bound)
    }
}
