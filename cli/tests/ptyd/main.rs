//! The daemon of terminals, as its clients meet it: started as the published client
//! starts it, and spoken to in bytes that somebody else's MessagePack wrote.
#![allow(clippy::unwrap_used)]

mod defects;
mod dual;
mod extensions;
mod failures;
mod framing;
mod handshake;
mod lifetimes;
mod ownership;
mod published;
mod recovery;
mod requests;
mod service;
mod support;
