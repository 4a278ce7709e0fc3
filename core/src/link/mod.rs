//! The link's bytes: lines of phase A, frames of phase B. `docs/PROTOCOL.md`, "Link".

pub mod inbox;
pub mod line;
pub mod message;
