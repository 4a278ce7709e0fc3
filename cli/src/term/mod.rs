//! `castra term` and `castra terminals`: terminals that outlive whoever started them.

mod attach;
mod client;
mod door;
mod error;
mod follow;
pub(crate) mod list;
mod log;
pub(crate) mod name;
mod orders;
mod row;
pub(crate) mod serve;
mod signals;
pub(crate) mod size;
mod snapshot;
mod stats;
mod wait;

use std::path::PathBuf;
use std::time::Duration;

use castra_core::id::GuestName;
use castra_core::terminals::wire::{Request, Role};

use crate::Context;
use crate::exit::{Exit, Failure, Outcome};
use crate::output::printable;
use crate::paths::Surroundings;
use crate::term_args::{Door as DoorArgs, Term, TermCommand, Terminals};
use client::{Client, Within};
use door::Door;
use error::failure;
use name::TermName;
use row::Row;

/// Default of `--timeout` for everything but lists and waits.
const TIMEOUT: Duration = Duration::from_secs(5);

/// The terminals of a guest as rows for a table, each cell printable ASCII; or why nobody can tell.
pub(crate) fn of_guest(
    control: PathBuf,
    guest: GuestName,
    bound: Duration,
) -> Result<Vec<[String; 7]>, String> {
    let (place, door) = (name::Place(Some(guest)), Door::Tunnel { control, guest: Some(guest) });
    let rows = list::ask(&door, Within::new(bound)).map_err(|error| printable(&error.to_string()))?;
    let now = crate::offline::wall_now().unix_millis() / 1000;
    Ok(rows.iter().map(|row| row.cells(place, now)).collect())
}

/// `castra term`.
pub(crate) fn term(cx: &mut Context, args: &Term) -> Outcome {
    let at = &args.door;
    match &args.command {
        TermCommand::New(args) => orders::new(cx, at, args),
        TermCommand::Ls(args) => list::list(cx, at, args),
        TermCommand::Attach(args) => attach::attach(cx, at, args),
        TermCommand::Send(args) => orders::send(cx, at, args),
        TermCommand::Snapshot(args) => snapshot::snapshot(cx, at, args),
        TermCommand::Resize(args) => orders::resize(cx, at, args),
        TermCommand::Signal(args) => orders::signal(cx, at, args),
        TermCommand::Kill(args) => orders::kill(cx, at, args),
        TermCommand::Wait(args) => wait::wait(cx, at, args),
        TermCommand::Log(args) => log::log(cx, at, args),
    }
}

/// `castra terminals`.
pub(crate) fn terminals(cx: &mut Context, args: &Terminals) -> Outcome {
    match args {
        Terminals::Serve(args) => serve::run(cx, args),
        Terminals::Stats(args) => stats::stats(cx, args),
    }
}

/// A terminal that was found, and the connection on which it was.
struct Found {
    name: TermName,
    door: Door,
    client: Client,
    row: Row,
}

impl Found {
    /// Looks for a terminal by its name.
    fn find(
        cx: &Context,
        at: &DoorArgs,
        name: &TermName,
        role: Role,
        within: Within,
    ) -> Result<Self, Failure> {
        let door = Door::to(name.place, at, &cx.global, &Surroundings::real())?;
        let ask = || {
            let mut client = Client::open(&door, role, within)?;
            let rows = client.call(&Request::List, within)?.rows;
            Ok((client, rows))
        };
        let (client, rows) = ask().map_err(|error| failure(error, name))?;
        let row = row::find(rows, &name.which).ok_or_else(|| unknown(name))?;
        Ok(Self { name: name.clone(), door, client, row })
    }
}

fn unknown(name: &TermName) -> Failure {
    let text = format!(
        "no terminal is called {}: `castra term ls {}` lists all",
        printable(&name.to_string()),
        name.place
    );
    Failure::new(Exit::Unknown, text.replace("ls `", "ls`"))
}
