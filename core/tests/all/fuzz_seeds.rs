//! Replays the fuzz targets' committed seeds, so that what a fuzzer once found stays
//! found, and tries some of their neighbours.
//!
//! `CASTRA_FUZZ_NEIGHBOURS` (1): how many of each seed.
#![allow(
    clippy::disallowed_macros,
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "the seeds are files, and a failing one is named"
)]

#[path = "../../../fuzz/oracles/mod.rs"]
mod oracles;

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

/// A target's committed inputs, by name.
fn seeds(target: &str) -> Vec<(String, Vec<u8>)> {
    let directory = format!("{}/../fuzz/seeds/{target}", env!("CARGO_MANIFEST_DIR"));
    let mut seeds = Vec::new();
    for entry in std::fs::read_dir(directory).expect("the seeds are there") {
        let path = entry.expect("a seed").path();
        seeds.push((path.display().to_string(), std::fs::read(&path).expect("a seed can be read")));
    }
    assert!(seeds.len() >= 16, "{} seeds of {target}: were they moved?", seeds.len());
    seeds.sort();
    seeds
}

/// Every committed input of a target, and what is nearly one.
fn replay(target: &str, check: fn(&[u8])) {
    let seeds = seeds(target);
    for (path, bytes) in &seeds {
        println!("{path}");
        check(bytes);
    }
    let neighbours = std::env::var("CASTRA_FUZZ_NEIGHBOURS").ok().and_then(|count| count.parse().ok());
    let mut chance = Chance(0x9e37_79b9);
    for round in 0..neighbours.unwrap_or(1) {
        for (path, bytes) in &seeds {
            let other = &seeds[chance.below(seeds.len())].1;
            let near = neighbour(bytes, other, &mut chance);
            if let Err(panic) = catch_unwind(AssertUnwindSafe(|| check(&near))) {
                println!("neighbour {round} of {path}: {}", near.escape_ascii());
                resume_unwind(panic);
            }
        }
    }
}

/// The oracles are tested, too: what a bug on purpose breaks is seen.
#[cfg(all(feature = "planted", feature = "model"))]
#[test]
fn bugs_on_purpose_are_found_by_the_seeds() {
    use castra_core::planted::Bug;
    use oracles::scene::PLANTED;
    let (target, check) = ("engine_ops", oracles::engine_ops::check);
    for bug in [
        Bug::HandshakeNotArmed,
        Bug::TimerNotRearmed,
        Bug::HalfOpenUnbounded,
        Bug::WindowOffByOne,
        Bug::OneShotForever,
    ] {
        PLANTED.set(Some(bug));
        let fails = |(_, bytes): &(_, Vec<u8>)| catch_unwind(AssertUnwindSafe(|| check(bytes))).is_err();
        let found = seeds(target).into_iter().find(fails).map(|(path, _)| path);
        PLANTED.set(None);
        assert!(found.is_some(), "no seed of {target} finds {bug}");
    }
}

/// xorshift32 (Marsaglia, 2003).
struct Chance(u32);

impl Chance {
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 17;
        self.0 ^= self.0 << 5;
        self.0 as usize % bound.max(1)
    }
}

/// A few bytes changed, put in, left out or taken from another seed.
fn neighbour(bytes: &[u8], other: &[u8], chance: &mut Chance) -> Vec<u8> {
    let mut near = bytes.to_vec();
    for _ in 0..=chance.below(4) {
        let at = chance.below(near.len() + 1).min(near.len());
        let end = (at + 1 + chance.below(8)).min(near.len());
        match chance.below(5) {
            0 if at < near.len() => near[at] ^= 1 << chance.below(8),
            1 => near.insert(at, chance.below(256) as u8),
            2 => drop(near.drain(at..end)),
            3 => {
                let part = near[at..end].to_vec();
                near.splice(at..at, part);
            }
            _ => {
                let from = chance.below(other.len());
                let to = (from + chance.below(64)).min(other.len());
                near.splice(at..end, other[from..to].iter().copied());
            }
        }
    }
    near
}

#[test]
fn every_seed_of_link_bytes_passes() {
    replay("link_bytes", oracles::link_bytes::check);
}

#[test]
fn every_seed_of_control_lines_passes() {
    replay("control_lines", oracles::control_lines::check);
}

#[test]
fn every_seed_of_terminal_frames_passes() {
    replay("terminal_frames", oracles::terminal_frames::check);
}

#[test]
fn every_seed_of_http_bytes_passes() {
    replay("http_bytes", oracles::http_bytes::check);
}

#[test]
fn every_seed_of_engine_ops_passes() {
    replay("engine_ops", oracles::engine_ops::check);
}

#[test]
fn every_seed_of_saved_records_passes() {
    replay("saved_records", oracles::saved_records::check);
}
