//! HTTP requests of [`castra_driver::threads::ThreadWork`] against a stand-in server.

#![allow(clippy::unwrap_used)]

mod answers;
mod cancel;
mod rig;
mod tls;
mod trouble;
