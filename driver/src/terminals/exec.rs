//! A program that runs from the start in a terminal of this process.

use std::path::Path;
use std::time::Duration;

use castra_core::terminals::wire::{Create, ErrorCode, Request};

use super::client::{Client, ClientError};
use crate::pool::Call;

/// The terminal's name.
pub const MAIN: &str = "main";

/// How long its start may take.
const START: Duration = Duration::from_secs(10);

/// A program to start in a terminal named [`MAIN`]. It is that terminal's like any other:
/// when it ends, the terminal has ended and nothing else happens.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Exec {
    /// The program and its arguments; not empty.
    pub command: Vec<String>,
    /// Where it runs; `None`: the home directory.
    pub cwd: Option<String>,
}

/// Why it doesn't run.
#[derive(Debug, thiserror::Error)]
#[error("can't start {program:?} in the terminal {MAIN}: {why}")]
pub struct ExecError {
    /// The program.
    pub program: String,
    /// Why.
    pub why: String,
}

/// Starts it with the daemon behind `socket`, of this process, unless a terminal of that
/// name runs already: one that outlived a daemon before, most likely.
pub(crate) fn start(socket: &Path, exec: &Exec) -> Result<(), ExecError> {
    let call = Call::alone(START);
    let started = try_start(socket, exec, &call);
    started.map_err(|error| {
        let program = exec.command.first().cloned().unwrap_or_default();
        ExecError { program, why: error.to_string() }
    })
}

fn try_start(socket: &Path, exec: &Exec, call: &Call) -> Result<(), ClientError> {
    let id = format!("castra-exec:{}", std::process::id());
    let mut client = Client::open(socket, &id, call)?;
    let create = Create {
        session_key: Some(MAIN),
        exclusive: true,
        cwd: exec.cwd.as_deref(),
        command: exec.command.iter().map(String::as_str).collect(),
        ..Create::default()
    };
    match client.ask(&Request::Create(Box::new(create)), call) {
        Ok(reply) => {
            if let Some(session) = reply.session {
                // It is nobody's: the next one need not wait until this client is forgotten.
                client.ask(&Request::Detach { session }, call)?;
            }
            Ok(())
        }
        Err(ClientError::Refused { code: Some(ErrorCode::AlreadyExists), .. }) => Ok(()),
        Err(error) => Err(error),
    }
}
