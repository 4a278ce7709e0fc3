//! Worlds of terminals: the real engine in its real shell over a network in memory,
//! with a fake host of pseudo-terminals and clients that speak the wire, under
//! faults. What clients get is held against what the programs really did.

mod client;
mod draws;
mod host;
mod outcome;
mod pattern;
pub mod plan;
mod play;
mod witness;
mod world;

pub use outcome::{Failure, Outcome};
pub use plan::Plan;
pub use play::TerminalsPlayer;
