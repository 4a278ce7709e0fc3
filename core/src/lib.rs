#![no_std]
#![forbid(unsafe_code)]
#![deny(missing_docs)]
//! The truth about guests, as pure state machines.
//!
//! > **Single-mutation rule.** After each [`Engine::handle`], call
//! > [`Engine::poll_output`] until it returns [`Output::Wait`]; only then call
//! > `handle` again.
extern crate alloc;

mod agent;
pub mod auth;
mod backoff;
pub mod boundary;
mod broker;
pub mod capabilities;
pub mod config;
pub mod control;
pub mod endpoint;
pub mod entropy;
pub mod event;
pub mod hex;
pub mod id;
pub mod legacy;
pub mod link;
mod liveness;
mod queue;
mod sender;
mod slab;
pub mod status;
pub mod time;
mod timers;

pub use agent::Agent;
pub use boundary::{Engine, Input, Output};
pub use broker::{Broker, Restored, Sizes, Statistics};
