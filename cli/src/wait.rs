//! `castra wait`: one request, one answer, on time.

use std::time::{Duration, Instant};

use castra_core::control::reply::{ErrorCode, Target, Waited};
use castra_core::id::GuestName;
use castra_core::status::{GuestStatus, State};
use serde_json::json;

use crate::Context;
use crate::args::Wait;
use crate::client::{self, Client, ClientError, Reply};
use crate::duration::{age_or_never, format, millis};
use crate::exit::{Exit, Failure, Outcome};
use crate::paths::Place;

/// Default of `--timeout`.
const TIMEOUT: Duration = Duration::from_secs(30);

/// How much longer than the broker the client waits: a reply that is written
/// at the deadline must still arrive.
pub(crate) const GRACE: Duration = Duration::from_secs(1);

/// How long explaining a timeout may take.
const EXPLAIN: Duration = Duration::from_millis(300);

pub(crate) fn run(cx: &mut Context, args: &Wait) -> Outcome {
    let place = cx.place()?;
    let timeout = cx.timeout(TIMEOUT);
    let target = Target::from(args.target);
    let reply = match request(&place, &args.names, target, args.any, timeout) {
        Ok(reply) => reply,
        Err(ClientError::Refused(body)) if body.code == ErrorCode::Timeout => {
            return Err(unsatisfied(&place, args, target, timeout));
        }
        // The broker took the question and fell silent: the wait is over all the same.
        Err(silent @ ClientError::NotAnswering { .. }) => {
            return Err(Failure::new(Exit::Timeout, silent.to_string()));
        }
        Err(other) => return Err(other.into()),
    };
    if args.format.json {
        cx.out.json(reply.data.get())?;
    } else {
        let waited: Waited = reply.parse()?;
        for guest in waited.guests.iter().filter(|guest| target.is_met_by(guest.state)) {
            cx.out.line(&sentence(guest))?;
        }
    }
    Ok(Exit::Yes)
}

/// Asks the broker to answer when it is so.
pub(crate) fn request(
    place: &Place,
    names: &[GuestName],
    target: Target,
    any: bool,
    timeout: Duration,
) -> Result<Reply, ClientError> {
    let (start, bound) = (Instant::now(), timeout + GRACE);
    // A broker that is not there is not waited for.
    let mut client = Client::connect(&place.socket, bound)?;
    let spent = start.elapsed();
    let left = millis(timeout.saturating_sub(spent));
    let params = json!({"guests": names, "for": target, "any": any, "timeout_ms": left});
    client.request("wait", params, bound.saturating_sub(spent))
}

fn unsatisfied(place: &Place, args: &Wait, target: Target, timeout: Duration) -> Failure {
    let word = match target {
        Target::Reachable => "reachable",
        Target::Waiting => "waiting",
    };
    let mut message = format!("not {word} within {}", format(timeout));
    // Without names in the filter: one that was never seen would spoil the answer.
    let known = client::ask(&place.socket, "status", json!({}), EXPLAIN)
        .ok()
        .and_then(|reply| reply.parse::<castra_core::status::StatusOutcome>().ok());
    if let Some(known) = known {
        for name in &args.names {
            match known.guests.iter().find(|guest| guest.name == *name) {
                Some(guest) if target.is_met_by(guest.state) => {}
                Some(guest) => message.push_str(&format!("; {}", sentence(guest))),
                None => message.push_str(&format!("; {name} was never seen")),
            }
        }
    }
    Failure::new(Exit::Timeout, message)
}

/// A guest in one line.
fn sentence(guest: &GuestStatus) -> String {
    match (guest.state, guest.reason) {
        (State::Reachable, _) | (_, None) => {
            format!("{} is {} ({} ago)", guest.name, guest.state, age_or_never(guest.last_handshake_age_ms))
        }
        (state, Some(reason)) => format!("{} is {state}: {reason}", guest.name),
    }
}
