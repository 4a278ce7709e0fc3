//! Disks that fail, directories that vanish, text that attacks: the real program, and
//! what it says meanwhile has to stay true.
#![allow(clippy::unwrap_used)]

mod damaged;
mod floods;
mod forgeries;
mod full;
mod races;
mod room;
#[allow(dead_code, unused_imports)]
#[path = "../end_to_end/support/mod.rs"]
mod support;
mod vanished;
