//! The link's bytes: `oracles/link_bytes.rs`.
#![no_main]

#[path = "../oracles/link_bytes.rs"]
mod link_bytes;

libfuzzer_sys::fuzz_target!(|data: &[u8]| link_bytes::check(data));
