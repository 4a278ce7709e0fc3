//! Worlds that turmoil plays.

use castra_sim::choice::Seeded;
use castra_sim::{Failure, Limits, Outcome, Plan, turmoil};

use super::seeds::Played;

/// Plays the world of a seed.
pub(super) fn play(limits: &Limits, seed: u64) -> Played {
    let plan = Plan::draw(&mut Seeded::new(seed), limits);
    turmoil::run(&plan, seed).map_err(|violation| {
        let outcome = Outcome { runs: 1, ..Outcome::default() };
        Box::new(Failure { violation, outcome })
    })
}
