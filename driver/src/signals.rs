//! Signals, as three words.

use std::io;
use std::sync::Arc;

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGXFSZ};
use signal_hook_mio::v1_0::Signals as Source;

/// TERM, INT and HUP of this process, caught.
pub struct Signals(Source);

impl std::fmt::Debug for Signals {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Signals")
    }
}

/// What a signal asks for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Request {
    /// Take leave; a second time: at once. With the signal's number.
    Stop(i32),
    /// Reopen the logs.
    Reload,
}

impl Signals {
    /// Catches them from here on. From here on, too, a file at the process's
    /// size limit is an error of the write, as a full disk is, and not the end.
    ///
    /// # Errors
    /// The process may not, or has no descriptors left.
    pub fn catch() -> io::Result<Self> {
        signal_hook::flag::register(SIGXFSZ, Arc::default())?;
        Source::new([SIGTERM, SIGINT, SIGHUP]).map(Self)
    }

    /// What arrived since the last call.
    pub fn pending(&mut self) -> impl Iterator<Item = Request> + '_ {
        self.0.pending().map(|signal| match signal {
            SIGHUP => Request::Reload,
            number => Request::Stop(number),
        })
    }

    pub(crate) const fn source(&mut self) -> &mut Source {
        &mut self.0
    }
}
