//! Playing worlds of terminals, from seeds.

use std::panic::{AssertUnwindSafe, catch_unwind};

use castra_core::time::Time;

use super::world::World;
use super::{Failure, Outcome, Plan};
use crate::choice::{Choice, Seeded};
use crate::play::NO_PANIC;
use crate::violation::Violation;

/// Plays worlds of terminals.
#[derive(Clone, Debug, Default)]
pub struct TerminalsPlayer {
    /// A bug on purpose in every engine.
    #[cfg(feature = "planted")]
    pub planted: Option<castra_core::planted::Bug>,
}

impl TerminalsPlayer {
    /// The plan of a seed, and what chooses while it is played.
    #[must_use]
    pub fn draw(seed: u64) -> (Plan, Seeded) {
        let mut choice = Seeded::new(seed);
        let plan = Plan::draw(&mut choice);
        (plan, choice)
    }

    /// Plays the world of a seed.
    ///
    /// # Errors
    /// The first broken promise. A panic is one like any other.
    pub fn play(&self, seed: u64) -> Result<Outcome, Box<Failure>> {
        let (plan, choice) = Self::draw(seed);
        self.play_plan(&plan, choice)
    }

    /// Plays a plan with any choices.
    ///
    /// # Errors
    /// The first broken promise. A panic is one like any other.
    pub fn play_plan(&self, plan: &Plan, choice: impl Choice + 'static) -> Result<Outcome, Box<Failure>> {
        // Nothing of the world outlives its panic.
        catch_unwind(AssertUnwindSafe(|| {
            let world = World::new(plan, Box::new(choice));
            #[cfg(feature = "planted")]
            let world = world.planted(self.planted);
            world.run()
        }))
        .unwrap_or_else(|panic| {
            let text = panic
                .downcast_ref::<String>()
                .cloned()
                .or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()))
                .unwrap_or_else(|| "a panic without words".to_owned());
            let violation = Violation { promise: NO_PANIC, at: Time::ZERO, guest: None, text };
            Err(Box::new(Failure { violation, outcome: Outcome::default() }))
        })
    }
}
