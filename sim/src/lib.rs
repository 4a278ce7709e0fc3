#![forbid(unsafe_code)]
#![deny(missing_docs)]
//! The real engines of `castra-core` in a simulated world with faults.
//!
//! [`World`] runs a broker and its agents on one virtual clock, over streams
//! that delay, hold, cut and reset; guests freeze, die and come back, the broker
//! restarts. After every event it compares what the broker says with what it
//! alone knows ([`truth::Truth`]): a guest called reachable was running within
//! the window. When the faults end, everybody alive must be reachable again
//! within a bound. One `u64` seed gives one run, for ever.

pub mod case;
pub mod choice;
pub mod chronicle;
pub mod measure;
pub mod picture;
pub mod plan;
pub mod shrink;
pub mod story;
pub mod truth;
mod wire;
pub mod world;

pub use world::{Outcome, Settings, Violation, World};
