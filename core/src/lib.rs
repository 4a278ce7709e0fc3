#![no_std]
#![forbid(unsafe_code)]
#![deny(missing_docs)]
//! The truth about guests, as pure state machines: [`Broker`] on the host and
//! [`Agent`] in a guest.
//!
//! > **Single-mutation rule.** After each [`Engine::handle`], call
//! > [`Engine::poll_output`] until it returns [`Output::Wait`]; only then call
//! > `handle` again.
//!
//! An engine reads no clock and does no I/O: bytes, closes, ends of effects and
//! the time are given to it; bytes, effects, events and the next deadline come
//! out, in one ordered stream. The same inputs give the same outputs, byte for
//! byte. A shell does this for ever:
//!
//! 1. wait until a socket is ready, an effect ended, or the deadline of the last
//!    [`Output::Wait`] has come;
//! 2. read the clocks once ([`time::Now`]);
//! 3. call `handle` with one input;
//! 4. carry out every output until `Wait`; go on with 3 while there are inputs.
//!
//! ```
//! use castra_core::boundary::{Origin, Remote, Transport, Via};
//! use castra_core::config::BrokerConfig;
//! use castra_core::entropy::Entropy;
//! use castra_core::id::ConnId;
//! use castra_core::time::{Now, Time};
//! use castra_core::{Broker, Engine, Input, Output, Restored};
//!
//! /// Carries out what a test can: collects the bytes, finds the deadline.
//! fn drain(broker: &mut Broker, sent: &mut String) -> Option<Time> {
//!     loop {
//!         match broker.poll_output() {
//!             Output::Transmit { bytes, .. } => sent.push_str(core::str::from_utf8(bytes).unwrap()),
//!             Output::Wait(deadline) => return deadline.map(|deadline| deadline.at),
//!             _ => {}
//!         }
//!     }
//! }
//!
//! let now = |millis| Now { boot: Time::from_millis(millis), ..Now::default() };
//! let restored = Restored { incarnation: 1, ..Restored::default() };
//! let mut broker = Broker::new(BrokerConfig::default(), restored, Entropy::seeded([7; 32]), now(0));
//! let mut sent = String::new();
//! drain(&mut broker, &mut sent);
//!
//! let conn = ConnId { index: 0, generation: 0 };
//! let (via, remote, room) = (Via::Link(Transport::Unix), Remote::Unknown, 64 * 1024);
//! broker.handle(now(1), Input::Opened { conn, via, origin: Origin::Accepted, local: None, remote, peer_cred: None, room });
//! drain(&mut broker, &mut sent);
//! broker.handle(now(2), Input::Bytes { conn, bytes: b"hello vm:devbox capabilities=proof-v1\n" });
//! drain(&mut broker, &mut sent);
//!
//! // "castra-broker 0.1 ready", then "challenge NONCE epoch=… auth=none".
//! let nonce = sent.lines().nth(1).unwrap().split(' ').nth(1).unwrap().to_owned();
//! broker.handle(now(9), Input::Bytes { conn, bytes: format!("proof {nonce}\n").as_bytes() });
//! let deadline = drain(&mut broker, &mut sent).expect("every obligation has a deadline");
//!
//! let devbox = broker.status(now(10)).next().unwrap();
//! assert!(devbox.reachable);
//! // The proof is as old as its challenge, not as its answer.
//! assert_eq!(devbox.last_handshake_age_ms, Some(8));
//! assert!(deadline > Time::from_millis(10));
//! ```
extern crate alloc;

/// Whether a bug is planted where `$in` comes from.
#[cfg(feature = "planted")]
macro_rules! planted {
    ($in:expr, $bug:ident) => {
        $in.planted == Some($crate::planted::Bug::$bug)
    };
}

/// No bugs are planted.
#[cfg(not(feature = "planted"))]
macro_rules! planted {
    ($in:expr, $bug:ident) => {
        false
    };
}

mod agent;
pub mod attach;
pub mod auth;
mod backoff;
pub mod boundary;
mod broker;
pub mod capabilities;
pub mod config;
pub mod control;
pub mod endpoint;
pub mod entropy;
pub mod event;
#[cfg(feature = "model")]
pub mod fingerprint;
pub mod hex;
pub mod id;
pub mod legacy;
pub mod link;
mod liveness;
#[cfg(feature = "model")]
mod obligations;
mod pages;
pub mod peers;
#[cfg(feature = "planted")]
pub mod planted;
mod queue;
mod sender;
mod slab;
pub mod status;
pub mod terminals;
pub mod time;
mod timers;
pub mod trace;
pub mod tunnel;

pub use agent::{Agent, RestoredAgent};
pub use boundary::{Engine, Input, Output};
pub use broker::{Broker, Restored, Sizes, Statistics};
#[cfg(feature = "model")]
pub use obligations::Unguarded;
pub use terminals::Terminals;
