//! Benchmarks of castra, and the instruments that they share. The benchmarks of
//! the core are in `benches/`. Here is what stands beside the real broker:
//!
//! - [`yardstick`]: a bare server, the kernel's share of the work;
//! - [`load`]: a client that costs little, for whatever server ([`script`]);
//! - [`held`]: many connections that stay, and answer;
//! - [`close`]: how soon a server shows that a link was closed;
//! - [`silence`]: how soon a broker says that a guest stopped answering;
//! - [`turns`]: how long a broker's loop takes at once ([`steady`]: and what of that the machine adds);
//! - [`server`], [`report`]: servers as child processes, what they cost, and how
//!   that compares;
//! - [`terminal`]: terminals, a bare relay, and the programs on both.
//!
//! `side_by_side` puts them together (`terminals` what is said of those). [`crowd`] is the core alone: an engine with
//! many guests, and scripts of what happens to it; [`growth`] is how that grows
//! with their number ([`live`]: in bytes; [`plot`]: drawn).
//!
//! Times on a shared machine say little by themselves: compare within one run.

pub mod close;
pub mod crowd;
pub mod growth;
pub mod held;
pub mod live;
pub mod load;
pub mod plot;
pub mod report;
pub mod script;
pub mod server;
pub mod silence;
pub mod steady;
pub mod terminal;
pub mod turns;
pub mod yardstick;

use std::io;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Raises the soft limit of descriptors to the hard one; returns it (`None`: there is none).
///
/// # Errors
/// The kernel refuses.
pub fn raise_descriptor_limit() -> io::Result<Option<u64>> {
    let maximum = getrlimit(Resource::Nofile).maximum;
    setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum })?;
    Ok(maximum)
}
