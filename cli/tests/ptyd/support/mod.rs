//! What the tests share: a world of their own, daemons in it, and clients of them.

mod client;
mod flood;
mod journal;
mod limit;
mod screen;
mod wire;
mod world;

use std::time::{Duration, Instant};

pub(crate) use client::{Client, Role};
pub(crate) use flood::{FLOOD, flooded, paced_flood};
pub(crate) use journal::edit_journal;
pub(crate) use limit::Limited;
pub(crate) use screen::Oracle;
pub(crate) use wire::{
    Fields, bin, fields, flag, frame, framed, has, hex, keys, number, numbered, sh, text, texts, value,
};
pub(crate) use world::{Daemon, World, gone, runs, signal};

/// What a step that has no bound of its own may take on a busy machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// Waits for what must become true without a word about it.
pub(crate) fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let end = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < end, "never: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}
