//! All tests of the core, one program: the engines on a virtual clock. What counts allocations has a program of its own.

#![cfg_attr(
    feature = "planted",
    allow(clippy::disallowed_macros, reason = "an oracle says by thread which bug is planted")
)]

mod adoption;
mod agent;
mod attach;
mod authority;
mod broker;
mod codec;
mod common;
mod fuzz_seeds;
mod managing;
mod peering;
mod peers;
#[cfg(feature = "planted")]
mod planted;
mod secrets;
mod status_schema;
mod strait;
mod support;
mod terminal_host;
mod terminals;
mod trace;
mod tunnel;
mod tunnel_refused;
mod values;
mod vectors;
