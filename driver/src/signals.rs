//! Signals, as three words.

use std::io;

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
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
    /// Catches them from here on.
    ///
    /// # Errors
    /// The process may not, or has no descriptors left.
    pub fn catch() -> io::Result<Self> {
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
