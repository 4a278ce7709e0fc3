//! The real program over connections that are delayed, held, split, ended and reset as
//! a seed says, and over a network that loses packets.
//!
//! `CASTRA_FAULT_SEEDS` is a list of seeds, like `1,2,3`; each scenario is played once
//! with each (`.ci/faults` does it with many).
#![allow(clippy::unwrap_used)]

mod actions;
mod control;
mod messages;
mod namespaces;
mod network;
mod reachability;
mod site;
#[allow(dead_code, unused_imports)]
#[path = "../end_to_end/support/mod.rs"]
mod support;
mod terminals;
