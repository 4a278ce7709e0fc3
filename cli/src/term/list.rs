//! `castra term ls`.

use std::sync::mpsc::channel;
use std::time::Duration;

use castra_core::status::StatusOutcome;
use castra_core::terminals::wire::{Request, Role};
use serde_json::{Value, json};

use super::client::{Client, Within};
use super::door::Door;
use super::error::{WireError, plain};
use super::name::Place;
use super::row::Row;
use crate::Context;
use crate::client;
use crate::exit::{Exit, Failure, Outcome};
use crate::output::say;
use crate::paths::Surroundings;
use crate::term_args::{Door as DoorArgs, Ls};

/// Default of `--timeout`.
const TIMEOUT: Duration = Duration::from_secs(2);

/// What a guest says that serves terminals.
pub(crate) const CAPABILITY: &str = "terminals-v1";

pub(crate) const HEADER: [&str; 7] = ["NAME", "STATE", "SIZE", "OWNER", "WATCHERS", "AGE", "COMMAND"];

/// The terminals of one machine, or why nobody knows.
type Answer = (Place, Result<Vec<Row>, WireError>);

/// `castra term ls`.
pub(super) fn list(cx: &mut Context, at: &DoorArgs, args: &Ls) -> Outcome {
    let within = Within::new(cx.timeout(TIMEOUT));
    let around = Surroundings::real();
    let mut rows = vec![];
    match args.place {
        Some(place) => {
            let door = Door::to(place, at, &cx.global, &around)?;
            let listed = ask(&door, within).map_err(plain)?;
            rows.extend(listed.into_iter().map(|row| (place, row)));
        }
        None => {
            let here = Door::to(Place(None), at, &cx.global, &around)?;
            let guests = guests(cx, at, &here, within)?;
            let answers = ask_all(here, guests, within);
            let (served, problems) = sorted(answers, &mut rows)?;
            for problem in problems {
                say(problem);
            }
            if !served {
                return Err(Failure::new(
                    Exit::Timeout,
                    "nobody answered in time: `castra status` says who is reachable",
                ));
            }
        }
    }
    show(cx, &rows, args.format.json)
}

pub(super) fn ask(door: &Door, within: Within) -> Result<Vec<Row>, WireError> {
    let mut client = Client::open(door, Role::Stream, within)?;
    Ok(client.call(&Request::List, within)?.rows)
}

/// The reachable guests that serve terminals, if a broker tells.
fn guests(cx: &Context, at: &DoorArgs, here: &Door, within: Within) -> Result<Vec<(Place, Door)>, Failure> {
    let around = Surroundings::real();
    // Who names a server means that one alone; inside a guest there are no others.
    if at.terminals_socket.is_some() || matches!(here, Door::Tunnel { .. }) {
        return Ok(vec![]);
    }
    let broker = around.place(cx.global.state_dir.as_deref(), cx.global.socket.as_deref())?;
    let asked = client::ask(&broker.socket, "status", json!({}), within.left())
        .and_then(|reply| reply.parse::<StatusOutcome>());
    // Without a broker there are no guests, and what is here is shown all the same.
    let Ok(document) = asked else { return Ok(vec![]) };
    let serving = document
        .guests
        .iter()
        .filter(|guest| guest.reachable && guest.capabilities.iter().any(|word| word == CAPABILITY));
    serving
        .map(|guest| {
            let place = Place(Some(guest.name));
            Ok((place, Door::to(place, at, &cx.global, &around)?))
        })
        .collect()
}

/// Asks all at once; who doesn't answer costs the others nothing.
fn ask_all(here: Door, guests: Vec<(Place, Door)>, within: Within) -> Vec<Answer> {
    let doors: Vec<(Place, Door)> = std::iter::once((Place(None), here)).chain(guests).collect();
    let (sender, answers) = channel();
    for (index, (place, door)) in doors.iter().cloned().enumerate() {
        let sender = sender.clone();
        std::thread::spawn(move || {
            let _ = sender.send((index, (place, ask(&door, within))));
        });
    }
    drop(sender);
    let mut all: Vec<(usize, Answer)> = vec![];
    while let Ok(answer) = answers.recv_timeout(within.left() + Duration::from_millis(100)) {
        all.push(answer);
    }
    for (index, (place, door)) in doors.iter().enumerate() {
        if !all.iter().any(|(of, _)| *of == index) {
            all.push((index, (*place, Err(door.not_answering(within.bound)))));
        }
    }
    all.sort_by_key(|(index, _)| *index);
    all.into_iter().map(|(_, answer)| answer).collect()
}

/// Collects the rows: whether anybody answered, and what to say about who didn't. That
/// nobody serves here is no problem while a guest does.
fn sorted(answers: Vec<Answer>, rows: &mut Vec<(Place, Row)>) -> Result<(bool, Vec<String>), Failure> {
    let (mut served, mut problems, mut nobody) = (false, vec![], None);
    let several = answers.len() > 1;
    for (place, answer) in answers {
        match answer {
            Ok(listed) => {
                served = true;
                rows.extend(listed.into_iter().map(|row| (place, row)));
            }
            Err(error @ WireError::NoServer { .. }) if place.0.is_none() => nobody = Some(error),
            Err(error) if !several => return Err(plain(error)),
            Err(error) => match place.0 {
                Some(guest) => problems.push(format!("{guest}: {error}")),
                None => problems.push(error.to_string()),
            },
        }
    }
    match nobody {
        Some(error) if !served && problems.is_empty() => Err(plain(error)),
        _ => Ok((served, problems)),
    }
}

fn show(cx: &mut Context, rows: &[(Place, Row)], json: bool) -> Outcome {
    if json {
        let documents: Vec<Value> = rows.iter().map(|(place, row)| row.document(*place)).collect();
        cx.out.json(&json!({"terminals": documents}).to_string())?;
        return Ok(Exit::Yes);
    }
    let now = crate::offline::wall_now().unix_millis() / 1000;
    let cells: Vec<[String; 7]> = rows.iter().map(|(place, row)| row.cells(*place, now)).collect();
    for line in crate::render::aligned(&HEADER, &cells) {
        cx.out.line(&line)?;
    }
    if rows.is_empty() {
        say("no terminals: `castra term new NAME` starts one");
    }
    Ok(Exit::Yes)
}

#[cfg(test)]
mod tests {
    use super::super::row::tests::build;
    use super::*;

    fn guest(name: &str) -> Place {
        Place(Some(name.parse().unwrap()))
    }

    fn nobody() -> WireError {
        WireError::NoServer { path: "/s".into() }
    }

    fn late() -> WireError {
        WireError::NotAnswering { place: "devbox".into(), bound: Duration::from_secs(2) }
    }

    #[test]
    fn who_does_not_answer_is_named_and_costs_nobody_the_list() {
        let mut rows = vec![];
        let answers = vec![
            (Place(None), Err(nobody())),
            (guest("devbox"), Err(late())),
            (guest("builder"), Ok(vec![build()])),
        ];
        let (served, problems) = sorted(answers, &mut rows).unwrap();
        assert!(served);
        assert_eq!(rows.len(), 1);
        assert_eq!(problems.len(), 1);
        assert!(problems[0].starts_with("devbox: ") && problems[0].contains("within 2s"), "{problems:?}");
    }

    #[test]
    fn where_nobody_serves_the_one_reason_is_the_failure() {
        let only = sorted(vec![(Place(None), Err(nobody()))], &mut vec![]).unwrap_err();
        assert_eq!(only.exit, Exit::Offline);
        let stopped = sorted(vec![(Place(None), Err(late()))], &mut vec![]).unwrap_err();
        assert_eq!(stopped.exit, Exit::Offline);
        let both = vec![(Place(None), Err(nobody())), (guest("devbox"), Err(late()))];
        let (served, problems) = sorted(both, &mut vec![]).unwrap();
        assert!(!served && problems.len() == 1);
    }
}
