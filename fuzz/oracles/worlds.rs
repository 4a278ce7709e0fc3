//! Whole worlds, whose every choice is the fuzzer's: the plan's, and then those of the
//! network, the disk and the faults. What must hold is what the simulator looks for.
//!
//! The first byte says of which kind the world is; the rest are the choices.

use castra_sim::choice::Bytes;
use castra_sim::plan::{Limits, Plan};
use castra_sim::play::Player;
use castra_sim::terminals::{self, TerminalsPlayer};

/// Panics if a promise is broken.
pub(crate) fn check(data: &[u8]) {
    let Some((kind, choices)) = data.split_first() else { return };
    let mut choice = Bytes::new(choices);
    let broken = if kind % 4 == 3 {
        let plan = terminals::Plan::draw(&mut choice);
        let failure = terminals_player().play_plan(&plan, choice).err();
        failure.map(|failure| failure.violation)
    } else {
        let plan = Plan::draw(&mut choice, &Limits::default());
        player().play_plan(&plan, choice).err().map(|failure| failure.violation)
    };
    if let Some(violation) = broken {
        panic!("{violation}");
    }
}

#[cfg(not(feature = "planted"))]
fn player() -> Player {
    Player::default()
}

#[cfg(not(feature = "planted"))]
fn terminals_player() -> TerminalsPlayer {
    TerminalsPlayer::default()
}

#[cfg(feature = "planted")]
fn player() -> Player {
    Player { planted: bug(), ..Player::default() }
}

#[cfg(feature = "planted")]
fn terminals_player() -> TerminalsPlayer {
    TerminalsPlayer { planted: bug() }
}

#[cfg(feature = "planted")]
fn bug() -> Option<castra_core::planted::Bug> {
    std::env::var("CASTRA_FUZZ_BUG").ok().map(|word| word.parse().expect("a bug's word"))
}
