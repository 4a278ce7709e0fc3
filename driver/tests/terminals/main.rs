//! The holder and the daemon's side of it, with real programs on real terminals.

#![allow(clippy::unwrap_used, missing_docs, unreachable_pub)]

mod daemons;
mod life;
mod programs;
mod rig;
