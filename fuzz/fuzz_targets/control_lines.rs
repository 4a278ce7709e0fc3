//! Requests and replies of control sockets: `oracles/control_lines.rs`.
#![no_main]

#[allow(dead_code, reason = "the other targets use the rest")]
#[path = "../oracles/mod.rs"]
mod oracles;

libfuzzer_sys::fuzz_target!(|data: &[u8]| oracles::control_lines::check(data));
