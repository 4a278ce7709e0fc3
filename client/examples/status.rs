//! Who is reachable? `cargo run -p castra-client --example status`
//!
//! One line a guest: its name, its state, and how old its newest proof is, or why it is not
//! reachable. Ends with 0 when all are reachable, 1 when not, 3 without a broker.

use std::io::{self, Write};
use std::process::ExitCode;
use std::time::Duration;

use castra_client::{Client, Error, Place};

fn main() -> ExitCode {
    let place = match Place::find() {
        Ok(place) => place,
        Err(error) => {
            eprintln!("{error}");
            return 2.into();
        }
    };
    match run(&place, &mut io::stdout()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => 1.into(),
        Err(error) => {
            eprintln!("{error}");
            3.into()
        }
    }
}

/// Whether all guests are reachable.
pub(crate) fn run(place: &Place, out: &mut dyn Write) -> Result<bool, Error> {
    let mut client = Client::connect(&place.socket, Duration::from_secs(2))?;
    let status = client.status()?;
    for guest in &status.guests {
        let why = match (guest.reason, guest.last_handshake_age_ms) {
            (Some(reason), _) => reason.to_string(),
            (None, Some(age)) => format!("proven {age} ms ago"),
            (None, None) => "-".into(),
        };
        // Nobody reads any more: no reason to fail.
        let _ = writeln!(out, "{:20} {:10} {why}", guest.name, guest.state);
    }
    Ok(status.guests.iter().all(|guest| guest.reachable))
}
