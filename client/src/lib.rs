//! Asks a castra broker, over its control socket: who is reachable, since when, why not,
//! and what happened. Blocking, without a runtime, and never a wait without a bound.
//!
//! ```no_run
//! use std::time::Duration;
//! use castra_client::{Client, Place};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! // Where `castra status` would look. Connecting, and each answer, within 2 s.
//! let mut client = Client::connect(&Place::find()?.socket, Duration::from_secs(2))?;
//! for guest in client.status()?.guests {
//!     println!("{} is {}", guest.name, guest.state);
//! }
//! # Ok(())
//! # }
//! ```
//!
//! | question | call |
//! |---|---|
//! | who is reachable? | [`Client::status`], [`Client::status_of`] |
//! | tell me when | [`Client::wait`] |
//! | how long is the way there? | [`Client::ping`] |
//! | who are you? | [`Client::info`] |
//! | what happened, and what happens? | [`Client::subscribe`] |
//! | anything else in `docs/PROTOCOL.md`, section 11 | [`Client::call`], [`Client::request`] |
//!
//! **Bounds.** The bound that [`Client::connect`] gets holds for connecting and for each call;
//! [`Client::set_bound`] changes it, and [`Client::call`] and [`Client::request`] have their own. When it is over the error is
//! [`Error::NotAnswering`], and the client can still be used: an answer that comes late is
//! dropped by the next call.
//!
//! **An absent broker is an answer**, too: [`Error::NoBroker`] at once, and
//! [`Error::NotAnswering`] for one that is stopped. Nobody is known to be reachable then.
//!
//! **Types** are those of the protocol, from `castra-core`: the JSON is what is promised
//! (`docs/RELEASING.md`), and a field that a newer broker adds is skipped. Whoever has to pass
//! on what is newer than this crate asks with [`Client::request`] and keeps the JSON.
//!
//! This crate is one of its own so that a program that asks a broker gets neither its
//! database nor the command line with it.

mod calls;
mod connection;
mod error;
mod place;
mod subscription;

pub use calls::Who;
pub use connection::{Client, Reply, ask, dial};
pub use error::{Error, printable, shown};
pub use place::{CONTROL_SOCKET, Nowhere, Place, Surroundings};
pub use subscription::{Filter, Notice, OtherEvent, Subscription};

pub use castra_core::control::reply::{ErrorBody, ErrorCode, Info, LinkInfo, Pong, Target, Waited};
pub use castra_core::event::{Cursor, Event, Fact};
pub use castra_core::id::{Epoch, GuestName};
pub use castra_core::status::{
    BrokerState, BrokerStatus, GuestStatus, Reason, State, StatusOutcome, Warning,
};
pub use castra_core::time::WallTime;
