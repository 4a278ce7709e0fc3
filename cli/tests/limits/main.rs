//! What the real broker bears: connections, descriptors, floods, slowness, clocks.
//!
//! The ordinary form is small; `CASTRA_LIMITS=full` (`.ci/limits`) is as large as the
//! machine allows. What is measured is printed in lines that begin with `LIMIT`.
#![allow(clippy::unwrap_used)]

mod clients;
mod clocks;
mod connections;
mod descriptors;
mod half_open;
mod manager;
mod memory;
mod never_read;
mod slow;
#[path = "../end_to_end/support/mod.rs"]
#[allow(dead_code, unused_imports)]
mod support;
mod tools;
