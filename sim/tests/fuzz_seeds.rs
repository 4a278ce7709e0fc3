//! Replays the worlds of the fuzz target `worlds`, so that what a fuzzer once found stays
//! found. `CASTRA_FUZZ_SEEDS=DIRECTORY` writes worlds of the simulator down as bytes, for
//! a corpus to begin with.

#[path = "../../fuzz/oracles/worlds.rs"]
mod worlds;

use castra_sim::choice::{Bytes, Choice, Seeded};
use castra_sim::plan::{Limits, Plan};
use castra_sim::play::Player;
use castra_sim::terminals::{self, TerminalsPlayer};
use std::cell::RefCell;
use std::rc::Rc;

#[test]
fn every_seed_of_worlds_passes() {
    let directory = concat!(env!("CARGO_MANIFEST_DIR"), "/../fuzz/seeds/worlds");
    let mut count = 0;
    for entry in std::fs::read_dir(directory).expect("the seeds are there") {
        let path = entry.expect("a seed").path();
        println!("{}", path.display());
        worlds::check(&std::fs::read(&path).expect("a seed can be read"));
        count += 1;
    }
    assert!(count >= 8, "{count} seeds: were they moved?");
}

/// Writes down what another source chooses, for [`Bytes`].
struct Writing {
    source: Seeded,
    written: Rc<RefCell<Vec<u8>>>,
}

impl Choice for Writing {
    fn below(&mut self, bound: u32) -> u32 {
        let chosen = self.source.below(bound);
        let bytes = chosen.to_be_bytes();
        let kept = match bound {
            0..=1 => &[],
            2..=0x100 => &bytes[3..],
            0x101..=0x1_0000 => &bytes[2..],
            _ => &bytes[..],
        };
        self.written.borrow_mut().extend_from_slice(kept);
        chosen
    }
}

#[test]
fn a_world_that_was_written_down_as_bytes_is_the_same_world() {
    let directory = std::env::var("CASTRA_FUZZ_SEEDS").ok();
    for seed in 0..if directory.is_some() { 400 } else { 4 } {
        let writing = Writing { source: Seeded::new(seed), written: Rc::default() };
        let bytes = Rc::clone(&writing.written);
        let mut choice = writing;
        let plan = Plan::draw(&mut choice, &Limits::default());
        let first = Player::default().play_plan(&plan, choice).expect("every promise holds");
        let mut again = Bytes::new(&bytes.borrow());
        assert_eq!(Plan::draw(&mut again, &Limits::default()), plan);
        let second = Player::default().play_plan(&plan, again).expect("every promise holds");
        assert_eq!(first, second);
        write(directory.as_deref(), "guests", seed, 0, &bytes.borrow());

        let writing = Writing { source: Seeded::new(seed), written: Rc::default() };
        let bytes = Rc::clone(&writing.written);
        let mut choice = writing;
        let plan = terminals::Plan::draw(&mut choice);
        let first = TerminalsPlayer::default().play_plan(&plan, choice).expect("every promise holds");
        let mut again = Bytes::new(&bytes.borrow());
        assert_eq!(terminals::Plan::draw(&mut again), plan);
        assert_eq!(TerminalsPlayer::default().play_plan(&plan, again).expect("every promise holds"), first);
        write(directory.as_deref(), "terminals", seed, 3, &bytes.borrow());
    }
}

fn write(directory: Option<&str>, kind: &str, seed: u64, first: u8, choices: &[u8]) {
    let Some(directory) = directory else { return };
    let path = format!("{directory}/{kind}-{seed}");
    std::fs::write(path, [&[first], choices].concat()).expect("it can be written");
}
