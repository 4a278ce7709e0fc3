//! The questions that most programs ask, as functions.

use std::time::Duration;

use castra_core::control::reply::{Info, Pong, Target, Waited};
use castra_core::id::GuestName;
use castra_core::status::StatusOutcome;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::connection::Client;
use crate::error::Error;

/// How much longer than the broker a client waits: an answer that is written
/// at the deadline must still arrive.
const GRACE: Duration = Duration::from_secs(1);

/// How many of several guests [`Client::wait`] waits for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Who {
    /// Each of them.
    All,
    /// One of them is enough.
    Any,
}

impl Client {
    /// Any method of the control protocol (`docs/PROTOCOL.md`, section 11), within `bound`.
    /// The reply's document as `R`; [`Value`] takes any.
    ///
    /// ```no_run
    /// # use std::{path::Path, time::Duration};
    /// # use castra_client::{Client, Error};
    /// # fn tokens(client: &mut Client) -> Result<(), Error> {
    /// let tokens: serde_json::Value =
    ///     client.call("token_list", serde_json::json!({}), Duration::from_secs(2))?;
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// As [`Client::request`], and [`Error::Protocol`] if the document is no `R`.
    pub fn call<P: Serialize, R: DeserializeOwned>(
        &mut self,
        method: &str,
        params: P,
        bound: Duration,
    ) -> Result<R, Error> {
        self.request(method, params, bound)?.parse()
    }

    /// Every guest that the broker knows, by name, with its verdict. Never waits for a guest.
    ///
    /// # Errors
    /// As [`Client::call`].
    pub fn status(&mut self) -> Result<StatusOutcome, Error> {
        self.quick("status", json!({}))
    }

    /// These guests alone; none: an empty document, not everybody's.
    ///
    /// # Errors
    /// As [`Client::call`]; [`Error::Refused`] with `unknown_guest` if one of the names was
    /// never heard of, with `invalid_request` for more than 4096 names.
    pub fn status_of(&mut self, names: &[GuestName]) -> Result<StatusOutcome, Error> {
        let mut status: StatusOutcome = self.quick("status", json!({"guests": names}))?;
        // An empty list asks for all.
        if names.is_empty() {
            status.guests.clear();
            (status.broker.guests, status.broker.reachable) = (0, 0);
        }
        Ok(status)
    }

    /// Waits until `who` of `names` are so, at most for `timeout` (the broker's own bound is
    /// 24 h); answers at once if it is so already. A name that was never heard of is waited for.
    ///
    /// # Errors
    /// [`Error::Refused`] with `timeout` when it did not come about. [`Error::NotAnswering`] a
    /// second later if the broker fell silent. Otherwise as [`Client::call`].
    pub fn wait(
        &mut self,
        names: &[GuestName],
        target: Target,
        who: Who,
        timeout: Duration,
    ) -> Result<Waited, Error> {
        let params = json!({"guests": names, "for": target, "any": who == Who::Any,
            "timeout_ms": millis(timeout)});
        self.call("wait", params, timeout + GRACE)
    }

    /// Asks a guest for a sign of life, within `timeout`. How long the way is; no evidence of
    /// anything else: only a verdict of `status` is.
    ///
    /// # Errors
    /// [`Error::Refused`] with `not_reachable` (no proven session), `timeout` or
    /// `unknown_guest`. Otherwise as [`Client::call`].
    pub fn ping(&mut self, name: GuestName, timeout: Duration) -> Result<Pong, Error> {
        let params = json!({"guest": name, "timeout_ms": millis(timeout)});
        self.call("ping", params, timeout + GRACE)
    }

    /// Who answers: version, process, settings and bounds in force.
    ///
    /// # Errors
    /// As [`Client::call`].
    pub fn info(&mut self) -> Result<Info, Error> {
        self.quick("info", json!({}))
    }

    fn quick<R: DeserializeOwned>(&mut self, method: &str, params: Value) -> Result<R, Error> {
        self.call(method, params, self.bound)
    }
}

/// Milliseconds, as the protocol counts.
fn millis(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}
