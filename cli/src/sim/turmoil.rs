//! Worlds that turmoil plays, in the words of this program.

use castra_sim::choice::Seeded;
use castra_sim::turmoil::{self, Promise};
use castra_sim::{Failure, Limits, Outcome, Plan, Violation};

use super::seeds::Played;

/// Plays the world of a seed.
pub(super) fn play(limits: &Limits, seed: u64) -> Played {
    let plan = Plan::draw(&mut Seeded::new(seed), limits);
    match turmoil::run(&plan, seed) {
        Ok(ran) => Ok(Outcome {
            runs: 1,
            events: ran.events,
            simulated: ran.simulated,
            checks: ran.checks,
            reachable: ran.reachable,
            sessions: ran.sessions,
            faults: ran.faults.iter().map(|(kind, count)| (kind.as_str(), *count)).collect(),
            digest: ran.digest,
            ..Outcome::default()
        }),
        Err(broken) => {
            let promise = match broken.promise {
                Promise::S1 => "S1",
                Promise::S2 => "S2",
                Promise::S3 => "S3",
                Promise::S5 => "S5",
                Promise::L2 => "L2",
                Promise::L3 => "L3",
                Promise::L4 => "L4",
                Promise::Host => "no panic",
            };
            let violation = Violation { promise, at: broken.at, guest: None, text: broken.text };
            Err(Box::new(Failure { violation, outcome: Outcome { runs: 1, ..Outcome::default() } }))
        }
    }
}
