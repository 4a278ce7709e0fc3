//! Who may do what, and what nobody may: with real processes, users, files and units.
//! docs/SECURITY.md says which test shows what.
#![allow(clippy::unwrap_used)]

mod another_user;
mod arguments;
mod dependencies;
mod guests;
mod install;
mod memory;
mod places;
mod strangers;
#[allow(dead_code, unused_imports)]
#[path = "../end_to_end/support/mod.rs"]
mod support;
mod table;
mod units;
