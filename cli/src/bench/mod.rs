//! `castra bench`: load by real agents, and what it costs the broker.

mod report;
mod run;
mod server;
mod status;

use std::sync::atomic::AtomicBool;
use std::time::Duration;

use castra_core::auth::Key;
use castra_core::id::GuestName;

use crate::Context;
use crate::bench_args::{Bench, Load, What};
use crate::exit::{Exit, Failure, Outcome};
use crate::interrupt::interruptible;
use crate::paths::Place;
use crate::progress::Progress;
use crate::run::load;
use report::Report;
use run::{Kind, Run};
use server::Server;

/// How long nobody may be proven before it is given up.
const PATIENCE: Duration = Duration::from_secs(20);

pub(crate) fn run(cx: &mut Context, args: &Bench) -> Outcome {
    let (kind, load) = match &args.what {
        What::Handshake(args) => (Kind::Handshake { rate: args.rate }, &args.load),
        What::Keepalive(load) => (Kind::Keepalive, load),
        What::Idle(load) => (Kind::Idle, load),
        What::Status(load) => (Kind::Status, load),
        What::Restart(load) => (Kind::Restart, load),
    };
    if kind == Kind::Restart && load.against.is_some() {
        return Err(Failure::usage("`bench restart` kills the broker: it does that to one of its own only"));
    }
    let stop = interruptible()?;
    let mut server = Server::find(load)?;
    let place = match (kind, server.place()) {
        (Kind::Status, None) => Some(cx.place()?),
        (_, place) => place.cloned(),
    };
    let guests = guests(&server, load)?;
    let patience = cx.timeout(PATIENCE);
    let report = measure(kind, load, &mut server, guests, place, &stop, patience)?;
    // Our own broker ends, and its directory goes, before the last word.
    drop(server);
    if load.json {
        cx.out.line(&report.document().to_string())?;
    } else {
        cx.out.put(&report.text())?;
    }
    Ok(if report.is_good() { Exit::Yes } else { Exit::No })
}

fn measure(
    kind: Kind,
    args: &Load,
    server: &mut Server,
    guests: Vec<(GuestName, Option<Key>)>,
    place: Option<Place>,
    stop: &AtomicBool,
    patience: Duration,
) -> Result<Report, Failure> {
    let options = load::LoadOptions {
        connect: server.address.clone(),
        load: match kind {
            Kind::Handshake { rate } => load::Load::Churn { per_second: rate },
            Kind::Keepalive | Kind::Idle | Kind::Status | Kind::Restart => load::Load::Hold,
        },
        guests,
        concurrency: args.concurrency as usize,
    };
    let mut run = Run::new(kind, args, server, place, stop, patience)?;
    let tally = load::run(options, |now, tally| run.turn(now, tally))
        .map_err(|error| Failure::io("the load could not be made", &error))?;
    run.finish(&tally)
}

/// Who there is; with `--keyed`, each with a token.
fn guests(server: &Server, args: &Load) -> Result<Vec<(GuestName, Option<Key>)>, Failure> {
    let name = |number: u32| {
        format!("{}{number:06}", args.prefix)
            .parse::<GuestName>()
            .map_err(|error| Failure::new(Exit::Internal, format!("a guest's name is none: {error}")))
    };
    let names = (0..args.guests).map(name).collect::<Result<Vec<_>, _>>()?;
    if !args.keyed {
        return Ok(names.into_iter().map(|name| (name, None)).collect());
    }
    let mut progress = Progress::new("tokens", Some(names.len() as u64), None);
    let keys = server
        .issue_tokens(&names, |done| progress.show(done as u64, || "each of them durable".to_owned()))?;
    progress.clear();
    Ok(names.into_iter().zip(keys.into_iter().map(Some)).collect())
}
