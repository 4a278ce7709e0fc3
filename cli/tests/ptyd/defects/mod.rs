//! The twenty defects of the published daemon, one test each, named by what holds here.

mod exits;
mod ownership;
mod programs;
mod screens;
mod service;
