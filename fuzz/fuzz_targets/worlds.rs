//! Whole worlds: `oracles/worlds.rs`.
#![no_main]

#[path = "../oracles/worlds.rs"]
mod worlds;

libfuzzer_sys::fuzz_target!(|data: &[u8]| worlds::check(data));
