//! Tell me when. `cargo run -p castra-client --example wait -- devbox builder`
//!
//! Waits at most 30 s until each of the named guests is reachable, then asks each for a sign
//! of life and prints how long the way was.

use std::io::{self, Write};
use std::process::ExitCode;
use std::time::Duration;

use castra_client::{Client, Error, ErrorCode, GuestName, Place, Target, Who};

const TIMEOUT: Duration = Duration::from_secs(30);

fn main() -> Result<ExitCode, Box<dyn std::error::Error>> {
    let names: Vec<GuestName> =
        std::env::args().skip(1).map(|name| name.parse()).collect::<Result<_, _>>()?;
    let all = run(&Place::find()?, &names, TIMEOUT, &mut io::stdout())?;
    Ok(if all { ExitCode::SUCCESS } else { 1.into() })
}

/// Whether all of them were reachable within `timeout`.
pub(crate) fn run(
    place: &Place,
    names: &[GuestName],
    timeout: Duration,
    out: &mut dyn Write,
) -> Result<bool, Error> {
    let mut client = Client::connect(&place.socket, Duration::from_secs(2))?;
    match client.wait(names, Target::Reachable, Who::All, timeout) {
        Ok(_) => {}
        // Not an error: the answer is no.
        Err(error) if error.code() == Some(ErrorCode::Timeout) => return Ok(false),
        Err(error) => return Err(error),
    }
    for name in names {
        let pong = client.ping(*name, Duration::from_secs(2))?;
        let _ = writeln!(out, "{name} answered after {} us", pong.rtt_us);
    }
    Ok(true)
}
