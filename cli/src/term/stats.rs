//! `castra terminals stats`.

use std::time::Duration;

use castra_core::terminals::wire::{Request, Role};
use serde_json::{Map, Value, json};

use super::client::{Client, Within};
use super::door::Door;
use super::error::plain;
use super::name::Place;
use crate::Context;
use crate::exit::{Exit, Failure, Outcome};
use crate::output::printable;
use crate::paths::Surroundings;
use crate::term_args::Stats;

/// Default of `--timeout`.
const TIMEOUT: Duration = Duration::from_secs(2);

/// `castra terminals stats`.
pub(super) fn stats(cx: &mut Context, args: &Stats) -> Outcome {
    let within = Within::new(cx.timeout(TIMEOUT));
    let place = args.place.unwrap_or(Place(None));
    let door = Door::to(place, &args.door, &cx.global, &Surroundings::real())?;
    let mut client = Client::open(&door, Role::Stream, within).map_err(plain)?;
    if !client.extended {
        return Err(Failure::new(Exit::No, "this server of terminals is a published one: it counts nothing"));
    }
    let metrics = client.call(&Request::Metrics, within).map_err(plain)?.metrics;
    if args.format.json {
        let map: Map<String, Value> = metrics.into_iter().map(|(name, value)| (name, json!(value))).collect();
        cx.out.json(&Value::Object(map).to_string())?;
        return Ok(Exit::Yes);
    }
    let names: Vec<String> = metrics.iter().map(|(name, _)| printable(name)).collect();
    let width = names.iter().map(String::len).max().unwrap_or(0);
    for (name, (_, value)) in names.iter().zip(&metrics) {
        cx.out.line(&format!("{name:width$}   {value}"))?;
    }
    Ok(Exit::Yes)
}
