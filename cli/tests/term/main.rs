//! Terminals' commands, against a server of terminals that does what a test says.
#![allow(clippy::unwrap_used)]

mod attach;
mod commands;
#[path = "../common/mod.rs"]
mod common;
mod fake;
mod output;
mod status_line;
#[allow(dead_code)]
#[path = "../end_to_end/support/terminal.rs"]
mod terminal;
mod tunnel;

use std::time::{Duration, Instant};

/// Nothing in these tests takes longer unless it hangs.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// Whether it comes about.
pub(crate) fn until(bound: Duration, mut is: impl FnMut() -> bool) -> bool {
    let end = Instant::now() + bound;
    while Instant::now() < end {
        if is() {
            return true;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    is()
}
