//! Pseudo-terminals: who keeps them, who reads them, what they show, and the
//! daemon that hosts them.

pub(crate) mod client;
pub mod exec;
pub mod holder;
pub mod journal;
pub mod porter;
#[cfg(test)]
pub(crate) mod rig;
pub mod screen;
pub mod service;
pub mod token;
