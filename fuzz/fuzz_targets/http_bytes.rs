//! The manager's HTTP, both sides: `oracles/http_bytes.rs`.
#![no_main]

#[allow(dead_code, reason = "the other targets use the rest")]
#[path = "../oracles/mod.rs"]
mod oracles;

libfuzzer_sys::fuzz_target!(|data: &[u8]| oracles::http_bytes::check(data));
