//! What the documents say is so: their links lead somewhere, their commands are commands,
//! their tables have every word, and what they tell people to try prints what they show.

#![allow(clippy::unwrap_used)]

mod commands;
#[path = "../common/mod.rs"]
mod common;
mod demo;
mod links;
mod markdown;
mod shell;
mod tables;
mod walkthrough;
