//! `castra status`: never blocks, never guesses.

use std::path::Path;
use std::time::{Duration, Instant};

use castra_core::id::GuestName;
use castra_core::status::{BrokerState, StatusOutcome};
use serde::Deserialize;
use serde_json::json;

use crate::Context;
use crate::args::Status;
use crate::client::{self, Client, ClientError, Reply};
use crate::exit::{Exit, Failure, Outcome};
use crate::output::say;
use crate::paths::Place;
use crate::{offline, render};

/// Default of `--timeout`.
pub(crate) const TIMEOUT: Duration = Duration::from_secs(1);

/// Between two repaints of `--watch`, at most and at least.
const REPAINT: Duration = Duration::from_secs(1);
const REPAINT_LEAST: Duration = Duration::from_millis(100);

/// What came of asking.
pub(crate) enum Answer {
    /// The broker's document, byte for byte.
    Broker(Reply),
    /// No broker said anything: the client's own document, and why.
    Client(Box<StatusOutcome>, ClientError),
}

/// Just what the exit code depends on. Parsing no more keeps a long `--json` quick.
#[derive(Deserialize)]
struct Verdict<'a> {
    #[serde(borrow)]
    guests: &'a serde_json::value::RawValue,
    broker: BrokerOnly,
}

#[derive(Deserialize)]
struct BrokerOnly {
    state: BrokerState,
}

#[derive(Deserialize)]
struct Reachable {
    reachable: bool,
}

pub(crate) fn run(cx: &mut Context, args: &Status) -> Outcome {
    let place = cx.place()?;
    let bound = cx.timeout(TIMEOUT);
    if args.watch {
        return watch(cx, args, &place, bound);
    }
    let answer = ask(&place, &args.names, bound)?;
    let exit = verdict(&answer, !args.names.is_empty())?;
    if args.format.json {
        let json = json(&answer)?;
        cx.out.json(&json)?;
    } else {
        let document = document(&answer)?;
        for line in render::status(&document, cx.out.color, None) {
            cx.out.line(&line)?;
        }
        if let Answer::Client(_, error) = &answer {
            say(error);
        }
    }
    Ok(exit)
}

/// Asks the broker, or answers in its stead when it does not. An error is
/// something that the broker said, or that is no verdict about it.
pub(crate) fn ask(place: &Place, names: &[GuestName], bound: Duration) -> Result<Answer, Failure> {
    let params = if names.is_empty() { json!({}) } else { json!({"guests": names}) };
    let error = match client::ask(&place.socket, "status", params, bound) {
        Ok(reply) => return Ok(Answer::Broker(reply)),
        Err(error) => error,
    };
    let state = match &error {
        ClientError::NoBroker { .. } => BrokerState::Offline,
        ClientError::NotAnswering { .. } | ClientError::Closed { .. } => BrokerState::NotAnswering,
        _ => return Err(error.into()),
    };
    Ok(Answer::Client(Box::new(offline::outcome(&place.state_dir, names, state)), error))
}

fn verdict(answer: &Answer, named: bool) -> Outcome {
    let Answer::Broker(reply) = answer else { return Ok(Exit::Offline) };
    let wrong = |error: serde_json::Error| {
        Failure::new(Exit::Internal, format!("the broker's status document can't be read: {error}"))
    };
    let verdict: Verdict<'_> = serde_json::from_str(reply.data.get()).map_err(wrong)?;
    let yes = if named {
        let rows: Vec<Reachable> = serde_json::from_str(verdict.guests.get()).map_err(wrong)?;
        rows.iter().all(|row| row.reachable)
    } else {
        verdict.broker.state == BrokerState::Serving
    };
    Ok(if yes { Exit::Yes } else { Exit::No })
}

fn json(answer: &Answer) -> Result<String, Failure> {
    match answer {
        Answer::Broker(reply) => Ok(reply.data.get().to_owned()),
        Answer::Client(document, _) => serde_json::to_string(document)
            .map_err(|error| Failure::new(Exit::Internal, format!("can't write the document: {error}"))),
    }
}

/// The document as a type, whoever wrote it.
pub(crate) fn document(answer: &Answer) -> Result<StatusOutcome, Failure> {
    match answer {
        Answer::Broker(reply) => Ok(reply.parse()?),
        Answer::Client(document, _) => Ok((**document).clone()),
    }
}

fn watch(cx: &mut Context, args: &Status, place: &Place, bound: Duration) -> Outcome {
    let repaint = cx.out.terminal && !args.format.json;
    let mut changes = None;
    if repaint {
        cx.out.put("\x1b[2J")?;
    }
    loop {
        let began = Instant::now();
        let answer = ask(place, &args.names, bound)?;
        let exit = verdict(&answer, !args.names.is_empty())?;
        if args.format.json {
            let json = json(&answer)?;
            cx.out.json(&json)?;
        } else {
            let document = document(&answer)?;
            let lines = render::status(&document, cx.out.color, rows(repaint));
            cx.out.put(&if repaint { painted(&lines) } else { lines.join("\n") + "\n\n" })?;
        }
        if cx.out.gone() {
            return Ok(exit);
        }
        if changes.is_none() && exit != Exit::Offline {
            changes = follow(&place.socket, bound);
        }
        cx.out.pause(REPAINT_LEAST);
        let left = REPAINT.saturating_sub(began.elapsed());
        match changes.as_mut().map(|changes| changes.wake(left)) {
            Some(Ok(_)) => {}
            // The broker went away: ask at once, the next document says so.
            Some(Err(_)) => changes = None,
            None => cx.out.pause(left),
        }
        if cx.out.gone() {
            return Ok(exit);
        }
    }
}

/// A connection that becomes readable when something changes. Without one
/// the watch still repaints every second.
fn follow(socket: &Path, bound: Duration) -> Option<Client> {
    let mut client = Client::connect(socket, bound).ok()?;
    let params = json!({"follow": true, "kinds": ["verdict.changed", "session.closed", "handshake.success"]});
    client.request("events", params, bound).ok()?;
    Some(client)
}

/// The screen's rows, when there is one.
pub(crate) fn rows(terminal: bool) -> Option<usize> {
    let size = terminal.then(|| rustix::termios::tcgetwinsize(std::io::stdout()).ok()).flatten()?;
    (size.ws_row > 0).then(|| usize::from(size.ws_row))
}

/// From the screen's corner, clearing what was there, without flicker.
pub(crate) fn painted(lines: &[String]) -> String {
    let mut text = String::from("\x1b[H");
    for line in lines {
        text.push_str(line);
        text.push_str("\x1b[K\n");
    }
    text.push_str("\x1b[J");
    text
}
