//! Answers of the broker, on threads of their own: the screen never waits for them.

use std::path::PathBuf;
use std::sync::mpsc::{Receiver, Sender};

use castra_core::control::attach::Attachments;
use castra_core::control::reply::{ErrorBody, ErrorCode, Events, PeersListed};
use castra_core::id::GuestName;
use castra_core::status::{BrokerState, StatusOutcome};
use serde_json::{Value, json};

use super::inputs::{Answer, Ask, Input, PageAnswer, PageAsk};
use crate::client::{Client, ClientError, Reply};
use crate::offline;
use crate::paths::Place;
use crate::term;
use crate::tui::feed::{BOUND, said, sentence};

/// Most events of one guest.
pub(super) const EVENTS: usize = 1000;

/// Answers what is asked, one after the other, over one connection while it lasts.
pub(super) fn answer(place: &Place, asks: &Receiver<Ask>, inputs: &Sender<Input>) {
    let mut client = None;
    for ask in asks {
        let input = match answered(place, &mut client, &ask) {
            Ok(answer) => Input::Answer(Box::new(answer)),
            Err(error) => {
                client = None;
                let state = match &error {
                    ClientError::NotAnswering { .. } | ClientError::Closed { .. } => {
                        BrokerState::NotAnswering
                    }
                    _ => BrokerState::Offline,
                };
                let document = offline::outcome(&place.state_dir, &[], state);
                Input::Offline(error.to_string(), Box::new(document))
            }
        };
        if inputs.send(input).is_err() {
            return;
        }
    }
}

fn answered(place: &Place, client: &mut Option<Client>, ask: &Ask) -> Result<Answer, ClientError> {
    let client = match client {
        Some(client) => client,
        none => none.insert(Client::connect(&place.socket, BOUND)?),
    };
    let (mut is_full, params) = match ask.names.as_slice() {
        [] => (true, json!({})),
        names => (false, json!({"guests": names})),
    };
    let reply = match said(client.request("status", params, BOUND))? {
        // One of them is gone: who is there, then?
        Err(ErrorBody { code: ErrorCode::UnknownGuest, .. }) if !is_full => {
            is_full = true;
            client.request("status", json!({}), BOUND)?
        }
        Err(error) => return Err(ClientError::Refused(error)),
        Ok(reply) => reply,
    };
    let document: StatusOutcome = reply.parse()?;
    let page = ask.page.filter(|page| document.guests.iter().any(|row| row.name == page.guest));
    let page = page.map(|page| look_at(client, page)).transpose()?;
    Ok(Answer { is_full, document, page })
}

fn look_at(client: &mut Client, ask: PageAsk) -> Result<PageAnswer, ClientError> {
    let guest = ask.guest;
    let mut params = json!({"guests": [guest]});
    if let Some(since) = ask.since {
        params["since"] = json!(since);
    }
    let events = asked(client, "events", params, |reply| reply.parse::<Events>())?;
    let peers =
        asked(client, "list_peers", json!({"name": guest}), |reply| Ok(reply.parse::<PeersListed>()?.peers))?;
    let attachment = if ask.attachment {
        Some(asked(client, "attachments", json!({}), |reply| {
            let Attachments { attachments } = reply.parse()?;
            Ok(attachments.into_iter().find(|row| row.guest == guest))
        })?)
    } else {
        None
    };
    Ok(PageAnswer { guest, events, peers, attachment })
}

/// What the broker would not tell, and what can't be read, is said beside the rest.
fn asked<D>(
    client: &mut Client,
    method: &str,
    params: Value,
    read: impl FnOnce(Reply) -> Result<D, ClientError>,
) -> Result<Result<D, String>, ClientError> {
    Ok(match said(client.request(method, params, BOUND))? {
        Ok(reply) => read(reply).map_err(|error| error.to_string()),
        Err(error) => Err(sentence(&error)),
    })
}

/// Brings a guest's terminals.
pub(super) fn terminals(place: &Place, guest: GuestName, inputs: &Sender<Input>) {
    let (control, inputs): (PathBuf, _) = (place.socket.clone(), inputs.clone());
    std::thread::spawn(move || {
        let terminals = term::of_guest(control, guest, BOUND * 2);
        // Without a screen nobody wants to know.
        let _ = inputs.send(Input::Terminals(guest, terminals));
    });
}
