//! The holder: a small process that keeps terminals while daemons come and go.
//!
//! It is the parent of the programs and the only reader of their terminals. What they
//! write goes into a ring of shared memory for each (`ring.rs`), which a daemon reads
//! without asking; input, sizes, signals and ends go over a socket (`wire.rs`). It
//! stops reading a terminal rather than overwrite what a daemon has not let go, so
//! nothing is lost while there is no daemon: programs wait. It never looks at what
//! passes through it.

mod door;
pub(crate) mod packet;
pub mod process;
mod requests;
pub(crate) mod ring;
mod serve;
mod session;
mod spawn;
mod terminal;
pub mod wire;

use std::io;
use std::os::fd::OwnedFd;
use std::time::Duration;

pub use door::Door;

pub(crate) use session::Stat;

/// Most terminals of one holder.
pub const TERMINALS_MAX: usize = 4096;
/// Bytes of output kept for each terminal, unless told otherwise.
pub const RING: u64 = 2 * 1024 * 1024;
/// How long a holder waits without a terminal and without a daemon.
pub const LINGER: Duration = Duration::from_secs(60);

/// How to hold.
#[derive(Debug)]
pub struct Options {
    /// Bytes of output kept for each terminal; at least 4 KiB.
    pub ring: u64,
    /// How long to wait without a terminal and without a daemon.
    pub linger: Duration,
    /// Readable: hang up everything and end.
    pub stop: Option<OwnedFd>,
}

impl Default for Options {
    fn default() -> Self {
        Self { ring: RING, linger: LINGER, stop: None }
    }
}

/// Holds terminals for the daemons that come through `door`: one at a time, the newest.
///
/// Returns after `linger` without a terminal and a daemon, when it is told to end, or
/// when its socket's file is gone `linger` after its last daemon. A program still
/// running then was hung up, and killed 3 s later.
///
/// # Errors
/// The kernel refuses what it never should.
pub fn serve(door: Door, options: Options) -> io::Result<()> {
    let ring = options.ring.max(4096);
    serve::run(door, Options { ring, ..options })
}
