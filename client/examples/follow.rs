//! What happens? `cargo run -p castra-client --example follow [CURSOR]`
//!
//! Prints each change of a verdict, and the cursor to go on from. Stays through every absence
//! of the broker: goes on where it was, and says so when something was lost meanwhile.

use std::io::{self, Write};
use std::thread;
use std::time::Duration;

use castra_client::{Client, Cursor, Error, Fact, Filter, Notice, Place, Subscription};

/// How long each step takes at most, and the pause before a broker is looked for again.
const BOUND: Duration = Duration::from_secs(5);
const PAUSE: Duration = Duration::from_millis(500);

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let since = std::env::args().nth(1).map(|cursor| cursor.parse::<Cursor>()).transpose()?;
    run(&Place::find()?, since, &mut io::stdout(), &mut |_| true)?;
    Ok(())
}

/// Follows until `goes_on` says no to a line.
pub(crate) fn run(
    place: &Place,
    since: Option<Cursor>,
    out: &mut dyn Write,
    goes_on: &mut dyn FnMut(&str) -> bool,
) -> Result<(), Error> {
    let filter = Filter { since, kinds: vec!["verdict.changed".into()], ..Filter::default() };
    let mut events = Client::subscribe(&place.socket, filter, BOUND)?;
    loop {
        let line = match events.next() {
            Some(Ok(Notice::Event(event))) => match (event.guest, &event.fact) {
                (Some(guest), Fact::VerdictChanged { to, reason, .. }) => {
                    let why = reason.map_or_else(String::new, |reason| format!(" ({reason})"));
                    format!("{} {guest} is {to}{why}", event.cursor)
                }
                _ => continue,
            },
            Some(Ok(Notice::Gap(cursor))) => format!("{cursor} something was lost here"),
            // Of a kind that this program doesn't know; or nothing happened for a while.
            Some(Ok(_)) => continue,
            Some(Err(error)) => format!("- {error}"),
            None => {
                come_again(&mut events);
                continue;
            }
        };
        if writeln!(out, "{line}").is_err() || !goes_on(&line) {
            return Ok(());
        }
    }
}

fn come_again(events: &mut Subscription) {
    while events.resume().is_err() {
        thread::sleep(PAUSE);
    }
}
