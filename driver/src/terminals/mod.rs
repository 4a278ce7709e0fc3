//! Pseudo-terminals, and the daemon that hosts them.

pub mod journal;
pub mod token;

use std::sync::Arc;

use castra_core::boundary::EffectError;
use castra_core::id::TerminalId;
use castra_core::terminals::{Deed, News};

/// Hears how a deed ended; called exactly once, from any thread.
pub type Completion = Box<dyn FnOnce(Result<(), EffectError>) + Send>;

/// Hears what is told of terminals, from any thread. What is told of one terminal
/// comes in order.
pub type Tell = Arc<dyn Fn(TerminalId, News<'static>) + Send + Sync>;

/// Whoever runs pseudo-terminals. Never blocks.
pub trait Host: std::fmt::Debug + Send {
    /// Does something to a terminal. What is done to one terminal keeps its order;
    /// news that a deed leads to are told before its `done`.
    fn act(&self, terminal: TerminalId, deed: Deed, done: Completion);

    /// Lets a terminal bring output once, at most so many bytes.
    fn grant(&self, terminal: TerminalId, credit: usize);
}
