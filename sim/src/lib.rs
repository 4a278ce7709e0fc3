#![forbid(unsafe_code)]
#![deny(missing_docs)]
//! castra in simulated worlds with faults, held against a truth that it can't see.
//!
//! A [`plan::Plan`] says who is there and what goes wrong; a [`choice::Choice`]
//! decides everything that the plan leaves open; a [`world::World`] plays it: the
//! real engines in their real shells over a network in memory, on a virtual
//! clock. After every event, what the broker says is compared with what really
//! is. When the faults end, everybody alive must be reachable again within a
//! bound. One `u64` seed gives one run, for ever.

mod boundary;
pub mod case;
pub mod choice;
pub mod chronicle;
mod disk;
pub mod explore;
pub mod measure;
mod net;
pub mod outcome;
mod outside;
mod pauses;
pub mod picture;
pub mod plan;
pub mod play;
mod scribe;
pub mod shrink;
pub mod story;
pub mod terminals;
mod truth;
#[cfg(feature = "turmoil")]
pub mod turmoil;
pub mod violation;
mod watched;
mod witness;
pub mod world;

pub use outcome::Outcome;
pub use plan::{Limits, Plan};
pub use violation::{PROMISES, Violation};
pub use world::{Failure, World};
