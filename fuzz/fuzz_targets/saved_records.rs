//! Rows of databases: `oracles/saved_records.rs`.
#![no_main]

#[allow(dead_code, reason = "the other targets use the rest")]
#[path = "../oracles/mod.rs"]
mod oracles;

libfuzzer_sys::fuzz_target!(|data: &[u8]| oracles::saved_records::check(data));
