//! `castra up`: a broker in the background, or the reason why not.

use std::ffi::OsString;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use castra_core::control::reply::Info;
use castra_driver::own::own_directory;
use castra_driver::supervisor;
use serde::Deserialize;
use serde_json::json;
use tempfile::NamedTempFile;

use crate::args::Up;
use crate::client::{self, ClientError, shown};
use crate::duration::format;
use crate::exit::{Exit, Failure, Outcome};
use crate::output::printable;
use crate::paths::Place;
use crate::{Context, broker};

/// Default of `--timeout`.
const TIMEOUT: Duration = Duration::from_secs(5);

/// How long a broker that is there already may take to say so.
const ASK: Duration = Duration::from_secs(1);

/// Between two looks at a broker that somebody else starts.
const RETRY: Duration = Duration::from_millis(20);

/// How much of a failed broker's words is shown.
const WORDS: usize = 2000;

/// The broker's first line.
#[derive(Deserialize)]
pub(crate) struct Ready {
    pub(crate) listen: Vec<String>,
    pub(crate) control: String,
    pub(crate) pid: u32,
}

pub(crate) fn run(cx: &mut Context, args: &Up) -> Outcome {
    if cx.global.socket.is_some() {
        return Err(Failure::usage("`up` starts the broker of a state directory: use --state-dir"));
    }
    let state_dir = broker::state_dir(&args.settings, cx.global.state_dir.as_deref())?;
    // A setting that the broker would refuse is refused before anything is touched.
    broker::options(&args.settings, state_dir.clone(), false)?;
    let place = Place::in_dir(state_dir);
    match serving(&place) {
        Ok(info) => return already(cx, &place, &info, args.format.json),
        Err(ClientError::NoBroker { .. }) => {}
        Err(other) => return Err(other.into()),
    }
    let (begun, bound) = (Instant::now(), cx.timeout(TIMEOUT));
    match start(&place, &cx.layers.given, bound) {
        Ok(ready) => say_ready(cx, &ready, true, args.format.json),
        // Somebody else was quicker: that is what was wanted, as soon as it serves.
        Err(failure) if failure.exit == Exit::Taken => loop {
            match serving(&place) {
                Ok(info) => return already(cx, &place, &info, args.format.json),
                Err(_) if begun.elapsed() < bound => std::thread::sleep(RETRY),
                Err(_) => return Err(failure),
            }
        },
        Err(failure) => Err(failure),
    }
}

fn serving(place: &Place) -> Result<Info, ClientError> {
    client::ask(&place.socket, "info", json!({}), ASK)?.parse()
}

fn already(cx: &mut Context, place: &Place, info: &Info, json: bool) -> Outcome {
    let control = place.socket.display().to_string();
    let ready = Ready { listen: info.listen.clone(), control, pid: info.pid };
    say_ready(cx, &ready, false, json)
}

fn say_ready(cx: &mut Context, ready: &Ready, started: bool, json: bool) -> Outcome {
    let Ready { listen, control, pid } = ready;
    cx.out.line(&if json {
        json!({"ready": true, "listen": listen, "control": control, "pid": pid, "started": started})
            .to_string()
    } else {
        let word = if started { "the broker serves" } else { "a broker serves already" };
        printable(&format!("{word} on {} (control {control}, pid {pid})", listen.join(" ")))
    })?;
    Ok(Exit::Yes)
}

fn start(place: &Place, given: &[OsString], bound: Duration) -> Result<Ready, Failure> {
    let logs = place.state_dir.join("logs");
    own_directory(&place.state_dir, &mut Vec::new())
        .and_then(|()| own_directory(&logs, &mut Vec::new()))
        .map_err(|error| Failure::io(format_args!("can't make {}", shown(&logs)), &error))?;
    // Its own file first: whoever starts a broker at the same moment has another.
    let words = NamedTempFile::with_prefix_in("broker.out.", &logs)
        .map_err(|error| Failure::io(format_args!("can't write to {}", shown(&logs)), &error))?;
    let stderr = words.reopen().map_err(|error| Failure::io("can't reopen a file", &error))?;
    let mut command = own_binary()?;
    command.args(["broker", "--background", "--json", "--state-dir"]).arg(&place.state_dir);
    // It is not the process that a manager started.
    supervisor::hide_from(&mut command);
    command.args(given).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(stderr);
    let mut child = command.spawn().map_err(|error| Failure::io("can't start the broker", &error))?;
    let started = first_line(&mut child, bound);
    if let Started::Ready(ready) = started {
        // Only a panic's words will ever come there; without a place for them it serves all the same.
        let _ = words.persist(logs.join("broker.out"));
        return Ok(ready);
    }
    // Ours, and not reaped yet: the number can't belong to anybody else.
    let _ = child.kill();
    let status = child.wait().map_err(|error| Failure::io("can't learn how the broker ended", &error))?;
    let mut said = tail(words.path());
    if said.is_empty() {
        said = ", and said nothing: `castra broker` in the foreground with the same options shows why".into();
    }
    match started {
        Started::Late => Err(Failure::new(
            Exit::Timeout,
            format!("the broker was not ready within {} and was ended{said}", format(bound)),
        )),
        _ => Err(Failure::new(
            match status.code() {
                Some(2) => Exit::Usage,
                Some(73) => Exit::Taken,
                _ => Exit::Internal,
            },
            format!("the broker did not start{said}"),
        )),
    }
}

/// This program again.
pub(crate) fn own_binary() -> Result<Command, Failure> {
    std::env::current_exe()
        .map(Command::new)
        .map_err(|error| Failure::io("can't find this program's own file", &error))
}

/// Nothing of the user's own set-up plays a part in what `command` does.
pub(crate) fn shelter(command: &mut Command) {
    let ours = |name: &OsString| name.to_str().is_some_and(|name| name.starts_with("CASTRA_"));
    for (variable, _) in std::env::vars_os().filter(|(name, _)| ours(name) && name != "CASTRA_TRACE") {
        command.env_remove(variable);
    }
    command.env_remove("CREDENTIALS_DIRECTORY");
    supervisor::hide_from(command);
}

/// How a broker's start went.
pub(crate) enum Started {
    Ready(Ready),
    /// Standard output ended, or it said something else.
    Ended,
    Late,
}

/// Reads the line that a broker says when it is ready.
pub(crate) fn first_line(child: &mut Child, bound: Duration) -> Started {
    let Some(stdout) = child.stdout.take() else { return Started::Ended };
    let (sender, receiver) = mpsc::channel();
    std::thread::spawn(move || {
        let mut line = String::new();
        let _ = BufReader::new(stdout).read_line(&mut line);
        let _ = sender.send(line);
    });
    match receiver.recv_timeout(bound) {
        Ok(line) => serde_json::from_str(&line).map_or(Started::Ended, Started::Ready),
        Err(mpsc::RecvTimeoutError::Timeout) => Started::Late,
        Err(mpsc::RecvTimeoutError::Disconnected) => Started::Ended,
    }
}

/// What a failed process said at its end, as the rest of a sentence.
pub(crate) fn tail(words: &Path) -> String {
    let said = std::fs::read(words).unwrap_or_default();
    let said = String::from_utf8_lossy(&said[said.len().saturating_sub(WORDS)..]).into_owned();
    let lines: Vec<&str> = said
        .lines()
        .map(|line| line.trim().trim_start_matches("castra: "))
        .filter(|line| !line.is_empty())
        .collect();
    if lines.is_empty() { String::new() } else { format!(": {}", lines.join("; ")) }
}
