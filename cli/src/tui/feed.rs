//! The control connections: events as they happen, and answers to commands. None of
//! them is ever waited for.

use std::os::fd::AsFd;
use std::sync::mpsc::Sender;
use std::time::Duration;

use castra_core::control::reply::{ErrorBody, ErrorCode, Events};
use castra_core::event::{Cursor, Event};
use serde_json::json;

use super::action::{Action, Told};
use crate::client::{self, Client, ClientError};
use crate::output::printable;
use crate::paths::Place;

/// How long any answer may take before the broker counts as silent.
pub(crate) const BOUND: Duration = Duration::from_secs(1);

/// Before somebody who is absent is tried again.
pub(crate) const RETRY_FIRST: Duration = Duration::from_millis(100);
pub(crate) const RETRY_MOST: Duration = Duration::from_secs(2);

/// Nobody listens to this thread any more.
pub(crate) struct Unheard;

/// What the stream of events brings.
#[derive(Debug)]
pub(crate) enum Followed {
    /// It begins, with what happened before; or something was lost or not understood.
    Gap(Vec<Event>),
    /// Something happened.
    Event(Box<Event>),
    /// It ended: most likely the broker is gone.
    Ended,
}

/// Brings events of `kinds` as they happen, through every absence of the broker.
/// `since`: after this one, as far as it is kept; then, whenever the stream begins
/// again, after the newest that came.
pub(crate) fn follow<I: From<Followed>>(
    place: &Place,
    kinds: &[&str],
    since: Option<Cursor>,
    inputs: &Sender<I>,
) {
    let (mut retry, mut since) = (RETRY_FIRST, since);
    loop {
        if let Err(Ok(Unheard)) = events(place, kinds, &mut since, inputs, &mut retry) {
            return;
        }
        if inputs.send(Followed::Ended.into()).is_err() {
            return;
        }
        std::thread::sleep(retry);
        retry = (retry * 2).min(RETRY_MOST);
    }
}

fn events<I: From<Followed>>(
    place: &Place,
    kinds: &[&str],
    since: &mut Option<Cursor>,
    inputs: &Sender<I>,
    retry: &mut Duration,
) -> Result<(), Result<Unheard, ClientError>> {
    let send = |followed: Followed| inputs.send(followed.into()).map_err(|_| Ok(Unheard));
    let mut client = Client::connect(&place.socket, BOUND).map_err(Err)?;
    let mut params = json!({"follow": true, "kinds": kinds});
    if let Some(since) = since {
        params["since"] = json!(since);
    }
    let reply = client.request("events", params, BOUND).map_err(Err)?;
    *retry = RETRY_FIRST;
    // Something may have happened while nobody followed. One of a newer kind spoils
    // the list, and then it is as if all of them were lost.
    let before = reply.parse::<Events>().ok();
    if let (Some(since), Some(before)) = (since.as_mut(), &before) {
        *since = before.cursor;
    }
    send(Followed::Gap(before.map_or_else(Vec::new, |before| before.events)))?;
    let stdout = std::io::stdout();
    while let Some(reply) = client::next(&mut client, stdout.as_fd()).map_err(Err)? {
        // A gap, or a kind that is newer than this program.
        let Ok(event) = reply.parse::<Event>() else {
            send(Followed::Gap(vec![]))?;
            continue;
        };
        if let Some(since) = since.as_mut() {
            *since = event.cursor;
        }
        send(Followed::Event(Box::new(event)))?;
    }
    Ok(())
}

/// Asks, on a thread of its own: the answer comes as an input.
pub(crate) fn ask<I: From<(Action, Told)> + Send + 'static>(
    place: &Place,
    action: Action,
    inputs: &Sender<I>,
) {
    let (place, inputs) = (place.clone(), inputs.clone());
    std::thread::spawn(move || {
        let (method, params, bound) = action.request();
        let told = action.told(client::ask(&place.socket, method, params, bound));
        // Without a screen nobody wants to know.
        let _ = inputs.send((action, told).into());
    });
}

/// An error that was answered is an answer; one that ends the connection is none.
pub(crate) fn said<R>(answer: Result<R, ClientError>) -> Result<Result<R, ErrorBody>, ClientError> {
    match answer {
        Ok(reply) => Ok(Ok(reply)),
        Err(ClientError::Refused(body)) if body.code == ErrorCode::ShuttingDown => {
            Err(ClientError::Refused(body))
        }
        Err(ClientError::Refused(body)) => Ok(Err(body)),
        Err(other) => Err(other),
    }
}

/// An answered error, in words.
pub(crate) fn sentence(error: &ErrorBody) -> String {
    format!("{} ({})", printable(&error.message), error.code)
}
