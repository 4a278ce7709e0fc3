//! Playing worlds: from a seed, or from a case that was written down.

use std::cell::RefCell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;

use castra_core::time::Time;

use crate::case::Case;
use crate::choice::{Choice, Recording, Replayed, Seeded};
use crate::chronicle::{Broken, Chronicle};
use crate::outcome::Outcome;
use crate::plan::{Limits, Plan};
use crate::violation::Violation;
use crate::world::{Failure, World};

/// The promise that a panic breaks: peer nonsense and faults are never one.
pub const NO_PANIC: &str = "no panic";

/// Plays worlds within limits.
#[derive(Clone, Debug, Default)]
pub struct Player {
    /// What is drawn from.
    pub limits: Limits,
    /// The one promise that is asked for, as `S1`; `None`: all of them.
    pub only: Option<String>,
    /// A bug on purpose in every engine.
    #[cfg(feature = "planted")]
    pub planted: Option<castra_core::planted::Bug>,
}

impl Player {
    /// The plan of a seed, and what chooses while it is played.
    #[must_use]
    pub fn draw(&self, seed: u64) -> (Plan, Seeded) {
        let mut choice = Seeded::new(seed);
        let plan = Plan::draw(&mut choice, &self.limits);
        (plan, choice)
    }

    /// Plays the world of a seed.
    ///
    /// # Errors
    /// The first broken promise.
    pub fn play(&self, seed: u64) -> Result<Outcome, Box<Failure>> {
        let (plan, choice) = self.draw(seed);
        self.play_plan(&plan, choice)
    }

    /// Plays a plan with any choices.
    ///
    /// # Errors
    /// The first broken promise.
    pub fn play_plan(&self, plan: &Plan, choice: impl Choice + 'static) -> Result<Outcome, Box<Failure>> {
        guarded(|| self.world(plan, Box::new(choice)).run())
    }

    /// Plays a plan with choices made before.
    ///
    /// # Errors
    /// The first broken promise.
    pub fn replay(&self, plan: &Plan, choices: Vec<u32>) -> Result<Outcome, Box<Failure>> {
        self.play_plan(plan, Replayed::new(choices))
    }

    /// Plays a plan with any choices, and writes down what happens. Of a run
    /// that panics only that is told.
    pub fn tell(
        &self,
        plan: &Plan,
        choice: impl Choice + 'static,
    ) -> (Result<Outcome, Box<Failure>>, Chronicle) {
        let mut told = Chronicle::default();
        let result = guarded(|| {
            let (result, chronicle) = self.world(plan, Box::new(choice)).tell();
            told = chronicle;
            result
        });
        if let Err(failure) = &result
            && told.violation.is_none()
        {
            let Violation { promise, at, text, .. } = &failure.violation;
            let (promise, text) = ((*promise).to_owned(), text.clone());
            told.violation = Some(Broken { at: *at, column: None, promise, text });
        }
        (result, told)
    }

    /// The failing world of a seed as a case, with what is wrong; `None` if nothing is.
    #[must_use]
    pub fn case(&self, seed: u64) -> Option<(Case, Violation)> {
        let (plan, choice) = self.draw(seed);
        let shared = Shared(Rc::new(RefCell::new(Recording::new(choice))));
        let failure = guarded(|| self.world(&plan, Box::new(shared.clone())).run()).err()?;
        let choices = shared.0.borrow().choices().to_vec();
        Some((Case::new(failure.violation.promise, plan, choices), failure.violation))
    }

    fn world(&self, plan: &Plan, choice: Box<dyn Choice>) -> World {
        #[cfg(feature = "planted")]
        let world = match self.planted {
            Some(bug) => World::planted(plan, choice, bug),
            None => World::new(plan, choice),
        };
        #[cfg(not(feature = "planted"))]
        let world = World::new(plan, choice);
        match &self.only {
            Some(promise) => world.only(promise),
            None => world,
        }
    }
}

/// A panic is a broken promise like any other.
fn guarded(play: impl FnOnce() -> Result<Outcome, Box<Failure>>) -> Result<Outcome, Box<Failure>> {
    // Nothing of the world outlives its panic.
    catch_unwind(AssertUnwindSafe(play)).unwrap_or_else(|panic| {
        let text = panic
            .downcast_ref::<String>()
            .cloned()
            .or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()))
            .unwrap_or_else(|| "a panic without words".to_owned());
        let violation = Violation { promise: NO_PANIC, at: Time::ZERO, guest: None, text };
        Err(Box::new(Failure { violation, outcome: Outcome::default() }))
    })
}

/// A recording that outlives the world that it is made in.
#[derive(Clone)]
struct Shared(Rc<RefCell<Recording<Seeded>>>);

impl Choice for Shared {
    fn below(&mut self, bound: u32) -> u32 {
        self.0.borrow_mut().below(bound)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn recorded_choices_give_the_same_run_again() {
        let player = Player::default();
        for seed in 0..5 {
            let (plan, choice) = player.draw(seed);
            let shared = Shared(Rc::new(RefCell::new(Recording::new(choice))));
            let first = player.world(&plan, Box::new(shared.clone())).run().expect("every promise holds");
            let choices = shared.0.borrow().choices().to_vec();
            let again = player.replay(&plan, choices).expect("every promise holds");
            assert_eq!(first, again);
            assert_eq!(player.play(seed).expect("every promise holds"), again);
        }
    }

    #[test]
    fn a_panic_is_told_as_a_broken_promise() {
        let failure = guarded(|| panic!("on {}", "purpose")).expect_err("it panicked");
        assert_eq!((failure.violation.promise, failure.violation.text.as_str()), (NO_PANIC, "on purpose"));
    }
}
