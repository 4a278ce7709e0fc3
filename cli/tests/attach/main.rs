//! Managed attach with real processes, real sockets and real HTTP.
#![allow(clippy::unwrap_used)]

mod adopt;
mod answers;
mod environment;
mod flapping;
mod forged;
mod keyed_broker;
mod leaks;
mod played_guest;
mod restarts;
mod stand_in;
#[allow(dead_code, unused_imports)]
#[path = "../end_to_end/support/mod.rs"]
mod support;
mod wire;
mod worlds;
