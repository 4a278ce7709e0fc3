//! `castra sim --runner terminals`: worlds of terminals.

use castra_sim::Failure as Broken;
use castra_sim::play::Player;
use castra_sim::terminals::TerminalsPlayer;

use super::seeds::Played;
use crate::exit::Failure;
use crate::sim_args::{Faults, Sim};

/// Plays the world of a seed.
#[cfg_attr(not(feature = "planted"), expect(unused_variables, reason = "bugs are planted in it"))]
pub(super) fn play(player: &Player, seed: u64) -> Played {
    let terminals = TerminalsPlayer {
        #[cfg(feature = "planted")]
        planted: player.planted,
    };
    match terminals.play(seed) {
        Ok(outcome) => Ok(outcome.into()),
        Err(failure) => {
            Err(Box::new(Broken { violation: failure.violation, outcome: failure.outcome.into() }))
        }
    }
}

/// What only worlds of guests have.
pub(super) fn refuse_what_means_nothing(args: &Sim) -> Result<(), Failure> {
    let world = &args.world;
    let said = [
        ("--full", args.full),
        ("--faults", args.faults != Faults::All),
        ("--window", world.window.is_some()),
        ("--interval", world.interval.is_some()),
        ("--guests", world.guests.is_some()),
        ("--network", world.network.is_some()),
        ("--promise", args.promise.is_some()),
        ("--diagram", args.diagram.is_some()),
        ("--story", args.story),
        ("--save", args.save.is_some()),
    ];
    match said.into_iter().find(|(_, said)| *said) {
        Some((option, _)) => {
            Err(Failure::usage(format!("{option} means nothing to `--runner terminals`: it has no guests")))
        }
        None => Ok(()),
    }
}
