//! The control connections: threads that bring answers and events as inputs.
//! None of them is ever waited for.

use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender};
use std::time::Duration;

use castra_core::control::reply::{ErrorBody, ErrorCode, Inbox, Info, PeersListed};
use castra_core::id::GuestName;
use castra_core::status::StatusOutcome;
use serde_json::json;

use super::inputs::{Input, Role, Snapshot, Standing};
use crate::client::{self, Client, ClientError};
use crate::paths::Place;
use crate::tui::feed::{BOUND, RETRY_FIRST, RETRY_MOST, Unheard, said, sentence};

/// From one snapshot to the next, at most and at least.
const PERIOD: Duration = Duration::from_secs(1);
const PERIOD_LEAST: Duration = Duration::from_millis(50);

/// Most messages to show.
const MESSAGES: u64 = 200;

/// Take a snapshot at once.
pub(crate) struct Poke {
    /// The messages changed.
    pub(crate) inbox: bool,
}

/// Who answers at `place`, and for whom, if it is an agent.
pub(crate) fn introduce(place: &Place) -> Result<(Role, Option<GuestName>), ClientError> {
    let info: Info = client::ask(&place.socket, "info", json!({}), BOUND)?.parse()?;
    let role = if info.link.is_some() { Role::Agent } else { Role::Broker };
    Ok((role, info.link.map(|link| link.name)))
}

/// Takes a snapshot every second and whenever poked, for as long as there is a
/// console, through every absence of the broker.
pub(crate) fn watch(place: &Place, name: GuestName, pokes: &Receiver<Poke>, inputs: &Sender<Input>) {
    let mut retry = RETRY_FIRST;
    loop {
        match snapshots(place, name, pokes, inputs, &mut retry) {
            Err(Ok(Unheard)) => return,
            Err(Err(error)) => {
                if inputs.send(Input::Offline(error.to_string())).is_err() {
                    return;
                }
            }
            Ok(never) => match never {},
        }
        std::thread::sleep(retry);
        retry = (retry * 2).min(RETRY_MOST);
    }
}

fn snapshots(
    place: &Place,
    name: GuestName,
    pokes: &Receiver<Poke>,
    inputs: &Sender<Input>,
    retry: &mut Duration,
) -> Result<std::convert::Infallible, Result<Unheard, ClientError>> {
    let mut client = Client::connect(&place.socket, BOUND).map_err(Err)?;
    let info: Info = client.request("info", json!({}), BOUND).and_then(|reply| reply.parse()).map_err(Err)?;
    let role = if info.link.is_some() { Role::Agent } else { Role::Broker };
    let mut wants_inbox = true;
    loop {
        let snapshot = snapshot(&mut client, role, name, wants_inbox).map_err(Err)?;
        wants_inbox = matches!(snapshot.standing, Standing::Unknown);
        inputs.send(Input::Snapshot(Box::new(snapshot))).map_err(|_| Ok(Unheard))?;
        *retry = RETRY_FIRST;
        // However often it is poked: what comes meanwhile is answered by one snapshot.
        std::thread::sleep(PERIOD_LEAST);
        match pokes.recv_timeout(PERIOD - PERIOD_LEAST) {
            Ok(poke) => {
                wants_inbox |= poke.inbox | pokes.try_iter().fold(false, |any, poke| any | poke.inbox);
            }
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return Err(Ok(Unheard)),
        }
    }
}

fn snapshot(
    client: &mut Client,
    role: Role,
    name: GuestName,
    wants_inbox: bool,
) -> Result<Snapshot, ClientError> {
    let (standing, broker) = match said(client.request("status", json!({"guests": [name]}), BOUND))? {
        Ok(reply) => {
            let StatusOutcome { guests, broker, .. } = reply.parse()?;
            let guest = guests.into_iter().find(|guest| guest.name == name);
            (guest.map_or(Standing::Unknown, |guest| Standing::Known(Box::new(guest))), Some(broker))
        }
        Err(ErrorBody { code: ErrorCode::UnknownGuest, .. }) => (Standing::Unknown, None),
        Err(error) => (Standing::Silent(sentence(&error)), None),
    };
    let unknown = matches!(standing, Standing::Unknown);
    let (mut peers, mut inbox) = (Err("no guest is called so".into()), Some(Ok(vec![])));
    if !unknown {
        peers = match said(client.request("list_peers", json!({"name": name}), BOUND))? {
            Ok(reply) => Ok(reply.parse::<PeersListed>()?.peers),
            Err(error) => Err(sentence(&error)),
        };
        inbox = None;
    }
    if !unknown && wants_inbox {
        let params = json!({"name": name, "limit": MESSAGES});
        inbox = Some(match said(client.request("inbox", params, BOUND))? {
            Ok(reply) => Ok(reply.parse::<Inbox>()?.messages),
            Err(error) => Err(sentence(&error)),
        });
    }
    Ok(Snapshot { role, standing, broker, peers, inbox })
}
