//! What shells can do to engines: `oracles/engine_ops.rs`.
#![no_main]

#[allow(dead_code, reason = "the other targets use the rest")]
#[path = "../oracles/mod.rs"]
mod oracles;

libfuzzer_sys::fuzz_target!(|data: &[u8]| oracles::engine_ops::check(data));
