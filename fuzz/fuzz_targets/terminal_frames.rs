//! The wire of terminals: `oracles/terminal_frames.rs`.
#![no_main]

#[allow(dead_code, reason = "the other targets use the rest")]
#[path = "../oracles/mod.rs"]
mod oracles;

libfuzzer_sys::fuzz_target!(|data: &[u8]| oracles::terminal_frames::check(data));
