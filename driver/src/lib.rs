#![deny(unsafe_code)]
#![deny(missing_docs)]
//! The shell around castra's core: sockets, files, clocks, threads and signals.
//!
//! [`shell::Shell`] turns readiness into inputs and outputs into writes; it is
//! pure enough to run in a simulator. [`mio_net`] and [`work`] are its kernel side.

pub mod address;
pub mod agent;
pub mod broker;
pub mod clock;
pub mod config_file;
#[cfg(any(test, feature = "conformance"))]
pub mod conformance;
mod created;
pub mod database;
pub mod files;
pub mod hooks;
mod http;
pub mod inbox;
mod leftovers;
pub mod listen;
pub mod load;
pub mod lock;
pub mod mio_net;
pub mod net;
pub mod own;
mod pool;
pub mod record;
mod service;
pub mod shell;
pub mod signals;
pub mod start;
pub mod store;
pub mod supervisor;
pub mod terminals;
pub mod threads;
mod typist;
pub mod work;
