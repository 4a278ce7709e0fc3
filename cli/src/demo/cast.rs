//! The processes of the story, and their end.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use castra_core::control::reply::TokenIssued;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::json;
use tempfile::TempDir;

use super::{INTERVAL, WINDOW};
use crate::client;
use crate::duration::format;
use crate::exit::{Exit, Failure};
use crate::paths::Place;
use crate::up::{Started, first_line, own_binary, shelter, tail};

/// How long a process may take to start or end.
const BOUND: Duration = Duration::from_secs(5);

/// The broker's name among the processes.
const BROKER: &str = "the broker";

/// Everybody in the story. Dropped, all of them end and the directory goes.
pub(super) struct Cast {
    processes: BTreeMap<&'static str, Child>,
    tokens: BTreeMap<&'static str, PathBuf>,
    address: String,
    place: Place,
    // Last: the processes end before their directory goes.
    dir: TempDir,
}

impl Cast {
    pub(super) fn assemble() -> Result<Self, Failure> {
        let dir = tempfile::Builder::new()
            .prefix("castra-demo-")
            .tempdir()
            .map_err(|error| Failure::io("can't make a temporary directory", &error))?;
        let place = Place::in_dir(dir.path().join("state"));
        Ok(Self { processes: BTreeMap::new(), tokens: BTreeMap::new(), address: String::new(), place, dir })
    }

    pub(super) const fn place(&self) -> &Place {
        &self.place
    }

    pub(super) fn start_broker(&mut self) -> Result<(), Failure> {
        let state_dir = self.place.state_dir.clone();
        let (window, interval) = (format(WINDOW), format(INTERVAL));
        let mut args = vec!["broker", "--json", "--listen", "tcp:127.0.0.1:0"];
        args.extend(["--window", &window, "--interval", &interval]);
        args.extend(["--guest", "builder", "--guest", "devbox", "--guest", "sandbox"]);
        self.spawn(BROKER, &args, &[("--state-dir", state_dir)])?;
        let Some(child) = self.processes.get_mut(BROKER) else { return Err(missing(BROKER)) };
        match first_line(child, BOUND) {
            Started::Ready(ready) => {
                self.address = ready.listen.first().cloned().unwrap_or_default();
                Ok(())
            }
            Started::Ended => Err(Failure::new(Exit::No, "the broker ended instead of serving")),
            Started::Late => {
                Err(Failure::new(Exit::No, format!("the broker was not ready within {}", format(BOUND))))
            }
        }
    }

    /// The token goes from the broker to a file that only the agent's user may read.
    pub(super) fn issue_token(&mut self, name: &'static str) -> Result<(), Failure> {
        let reply = client::ask(&self.place.socket, "token_issue", json!({"guest": name}), BOUND)?;
        let issued: TokenIssued = reply.parse()?;
        let path = self.dir.path().join(format!("{name}.token"));
        let written = File::options().write(true).create_new(true).mode(0o600).open(&path);
        written
            .and_then(|mut file| writeln!(file, "{}", issued.token))
            .map_err(|error| Failure::io(format_args!("can't keep {name}'s token"), &error))?;
        self.tokens.insert(name, path);
        Ok(())
    }

    pub(super) fn start_agent(&mut self, name: &'static str) -> Result<(), Failure> {
        if let Some(mut ended) = self.processes.remove(name) {
            // It was told to end; a proof of the new process must not meet the old one.
            reap(&mut ended, BOUND)
                .map_err(|error| Failure::io(format_args!("{name} did not end"), &error))?;
        }
        let address = self.address.clone();
        let args = ["agent", "--name", name, "--connect", &address];
        let mut files = vec![
            ("--socket", self.dir.path().join(format!("{name}.sock"))),
            ("--inbox", self.dir.path().join(format!("{name}.inbox"))),
        ];
        if let Some(token) = self.tokens.get(name) {
            files.push(("--token-file", token.clone()));
        }
        self.spawn(name, &args, &files)
    }

    fn spawn(&mut self, name: &'static str, args: &[&str], files: &[(&str, PathBuf)]) -> Result<(), Failure> {
        let wrong = |error: &std::io::Error| Failure::io(format_args!("can't start {name}"), error);
        let words = File::create(self.words(name)).map_err(|error| wrong(&error))?;
        let mut command = own_binary()?;
        command.args(args).arg("--die-with-parent").arg(std::process::id().to_string());
        for (option, path) in files {
            command.arg(option).arg(path);
        }
        // In a group of its own: Ctrl-C is for the story-teller, who ends them in order.
        command.process_group(0).stdin(Stdio::null()).stderr(words);
        command.stdout(if name == BROKER { Stdio::piped() } else { Stdio::null() });
        shelter(&mut command);
        self.processes.insert(name, command.spawn().map_err(|error| wrong(&error))?);
        Ok(())
    }

    pub(super) fn signal(&mut self, name: &'static str, signal: Signal) -> Result<(), Failure> {
        let child = self.processes.get_mut(name).ok_or_else(|| missing(name))?;
        if let Ok(Some(status)) = child.try_wait() {
            return Err(Failure::new(Exit::No, format!("{name} ended by itself ({status})")));
        }
        // Not reaped yet, so the number is still this child's.
        kill_process(Pid::from_child(child), signal)
            .map_err(|error| Failure::io(format_args!("can't signal {name}"), &error.into()))
    }

    pub(super) fn kill(&mut self, name: &'static str) -> Result<(), Failure> {
        self.signal(name, Signal::KILL)
    }

    pub(super) fn stop_broker(&mut self, bound: Duration) -> Result<(), Failure> {
        client::ask(&self.place.socket, "shutdown", json!({}), BOUND)?;
        let mut broker = self.processes.remove(BROKER).ok_or_else(|| missing(BROKER))?;
        reap(&mut broker, bound).map_err(|error| Failure::io("the broker did not end", &error))
    }

    /// What the processes said at their end, as the rest of a sentence.
    pub(super) fn last_words(&self) -> String {
        let said = |name: &&'static str| match tail(&self.words(name)) {
            words if words.is_empty() => None,
            words => Some(format!("; {name} said{words}")),
        };
        self.processes.keys().filter_map(said).collect()
    }

    fn words(&self, name: &str) -> PathBuf {
        self.dir.path().join(format!("{}.err", name.replace(' ', "-")))
    }
}

impl Drop for Cast {
    fn drop(&mut self) {
        for child in self.processes.values_mut() {
            let _ = child.kill();
        }
        for child in self.processes.values_mut() {
            let _ = child.wait();
        }
    }
}

fn missing(name: &str) -> Failure {
    Failure::new(Exit::Internal, format!("{name} is not running"))
}

/// Waits for a child that was told to end; ends it the hard way at the bound.
fn reap(child: &mut Child, bound: Duration) -> std::io::Result<()> {
    let end = Instant::now() + bound;
    while child.try_wait()?.is_none() {
        if Instant::now() >= end {
            child.kill()?;
            child.wait()?;
            return Err(std::io::ErrorKind::TimedOut.into());
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    Ok(())
}
