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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::terminals::rig::{Rig, read, until};
    use castra_core::terminals::wire::Secret;

    fn exec(script: &str, rig: &Rig) -> Exec {
        let command = ["/bin/sh", "-c", script].map(str::to_owned).to_vec();
        Exec { command, cwd: rig.directory.path().to_str().map(str::to_owned) }
    }

    #[test]
    fn the_program_runs_once_also_when_the_daemon_is_another_one() {
        let mut rig = Rig::start();
        let program = exec("echo $$ >> ran; exec sleep 1000", &rig);
        start(&rig.socket, &program).expect("it runs");
        // It is nobody's, at once.
        let (mut person, call) = (rig.client("person"), Call::alone(START));
        let (_, session) = person.ask(&Request::List, &call).expect("a list").running.remove(0);
        let typed = person.ask(&Request::Input { session, data: Secret(b"x") }, &call);
        typed.expect("typed");
        let ran = rig.path("ran");
        until("a start", || read(&ran).ends_with(b"\n"));
        let first = read(&ran);
        start(&rig.socket, &program).expect("it runs already");
        rig.restart();
        start(&rig.socket, &program).expect("it still runs");
        assert_eq!(read(&ran), first);
        // One that ended is started anew.
        let pid = String::from_utf8(first.clone()).expect("text").trim().parse().expect("a process");
        let pid = rustix::process::Pid::from_raw(pid).expect("a process");
        rustix::process::kill_process(pid, rustix::process::Signal::KILL).expect("it ran");
        until("another start", || {
            start(&rig.socket, &program).expect("it runs");
            read(&ran).len() > first.len()
        });
    }

    #[test]
    fn a_program_that_is_not_there_is_named() {
        let rig = Rig::start();
        let missing = Exec { command: vec!["/no/such/program".to_owned()], cwd: None };
        let error = start(&rig.socket, &missing).expect_err("not there").to_string();
        assert!(error.contains("/no/such/program") && error.contains(MAIN), "{error}");
        let nowhere = Exec { cwd: Some("/no/such/place".to_owned()), ..exec("exit", &rig) };
        let error = start(&rig.socket, &nowhere).expect_err("nowhere").to_string();
        assert!(error.contains("/no/such/place"), "{error}");
        let error = start(&rig.path("none.sock"), &missing).expect_err("no daemon").to_string();
        assert!(error.contains("/no/such/program"), "{error}");
    }
}
