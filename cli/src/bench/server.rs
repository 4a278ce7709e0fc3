//! The broker under load: our own, or somebody's, and what its process used.

use std::fs::{self, File};
use std::path::Path;
use std::process::{Child, Stdio};
use std::time::Duration;

use castra_core::auth::Key;
use castra_core::control::reply::TokenIssued;
use castra_core::id::GuestName;
use serde_json::json;
use tempfile::TempDir;

use crate::bench_args::Load;
use crate::client::Client;
use crate::duration::format;
use crate::exit::{Exit, Failure};
use crate::paths::Place;
use crate::run::ConnectAddress;
use crate::up::{Started, first_line, own_binary, shelter, tail};

/// How long our own broker may take to start.
const START: Duration = Duration::from_secs(5);
/// How long one token may take to be issued.
const ISSUE: Duration = Duration::from_secs(5);

/// Whom the load is for.
pub(super) struct Server {
    pub(super) address: ConnectAddress,
    /// Whose processor time and memory is counted.
    pub(super) pid: Option<u32>,
    own: Option<Own>,
}

/// Dropped, the broker ends and its directory goes.
struct Own {
    child: Child,
    place: Place,
    args: Vec<String>,
    dir: TempDir,
}

/// What a process used so far.
#[derive(Clone, Copy, Debug)]
pub(super) struct Usage {
    pub(super) cpu: Duration,
    pub(super) user_bytes: u64,
}

impl Server {
    pub(super) fn find(load: &Load) -> Result<Self, Failure> {
        match &load.against {
            Some(address) => Ok(Self { address: address.clone(), pid: load.pid, own: None }),
            None => Self::start(load),
        }
    }

    fn start(load: &Load) -> Result<Self, Failure> {
        let dir = tempfile::Builder::new()
            .prefix("castra-bench-")
            .tempdir()
            .map_err(|error| Failure::io("can't make a temporary directory", &error))?;
        let place = Place::in_dir(dir.path().join("state"));
        let mut args = vec!["--interval".to_owned(), format(load.interval)];
        args.extend(["--window".to_owned(), format(load.window)]);
        args.extend(["--max-guests".to_owned(), load.guests.max(100_000).to_string()]);
        let (child, listen) = spawn(&dir, &place, &args, "tcp:127.0.0.1:0")?;
        let pid = Some(child.id());
        let own = Own { child, place, args, dir };
        Ok(Self { address: connect_address(&listen)?, pid, own: Some(own) })
    }

    /// Kills our own broker, and starts it again at the same address.
    pub(super) fn kill(&mut self) -> Result<(), Failure> {
        let own = self.own.as_mut().ok_or_else(foreign)?;
        // Ours, and not reaped yet.
        own.child.kill().map_err(|error| Failure::io("can't kill the broker", &error))?;
        own.child.wait().map_err(|error| Failure::io("can't learn how the broker ended", &error))?;
        Ok(())
    }

    /// After [`Server::kill`].
    pub(super) fn start_again(&mut self) -> Result<(), Failure> {
        let own = self.own.as_mut().ok_or_else(foreign)?;
        let listen = self.address.to_string();
        own.child = spawn(&own.dir, &own.place, &own.args, &listen)?.0;
        self.pid = Some(own.child.id());
        Ok(())
    }

    /// Where our own broker is asked.
    pub(super) fn place(&self) -> Option<&Place> {
        self.own.as_ref().map(|own| &own.place)
    }

    /// Tokens of our own broker; `on_issued` gets how many there are.
    pub(super) fn issue_tokens(
        &self,
        names: &[GuestName],
        mut on_issued: impl FnMut(usize),
    ) -> Result<Vec<Key>, Failure> {
        let place = self.place().ok_or_else(foreign)?;
        let mut client = Client::connect(&place.socket, ISSUE)?;
        let mut keys = Vec::with_capacity(names.len());
        for name in names {
            let issued: TokenIssued =
                client.request("token_issue", json!({"guest": name}), ISSUE)?.parse()?;
            let key = issued.token.parse().map_err(|error| {
                Failure::new(Exit::Internal, format!("the broker issued what is no token: {error}"))
            })?;
            keys.push(key);
            on_issued(keys.len());
        }
        Ok(keys)
    }

    /// What the broker's process used so far, if it is known and may be looked at.
    pub(super) fn usage(&self) -> Option<Usage> {
        usage(self.pid?)
    }
}

impl Drop for Own {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn spawn(dir: &TempDir, place: &Place, args: &[String], listen: &str) -> Result<(Child, String), Failure> {
    let words = dir.path().join("broker.err");
    let stderr = File::create(&words).map_err(|error| Failure::io("can't write a file", &error))?;
    let mut command = own_binary()?;
    command.args(["broker", "--json", "--listen", listen, "--state-dir"]).arg(&place.state_dir).args(args);
    command.args(["--die-with-parent", &std::process::id().to_string()]);
    shelter(&mut command);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(stderr);
    let mut child = command.spawn().map_err(|error| Failure::io("can't start a broker", &error))?;
    match first_line(&mut child, START) {
        Started::Ready(ready) => Ok((child, ready.listen.first().cloned().unwrap_or_default())),
        Started::Ended | Started::Late => {
            let _ = child.kill();
            let _ = child.wait();
            Err(Failure::new(Exit::Internal, format!("the broker did not start{}", tail(&words))))
        }
    }
}

fn connect_address(listen: &str) -> Result<ConnectAddress, Failure> {
    listen
        .parse()
        .map_err(|error| Failure::new(Exit::Internal, format!("can't connect to {listen:?}: {error}")))
}

fn foreign() -> Failure {
    Failure::new(Exit::Internal, "only a broker of our own can be told to")
}

/// Processor time of all threads there are, to the nanosecond, and anonymous memory.
fn usage(pid: u32) -> Option<Usage> {
    let process = Path::new("/proc").join(pid.to_string());
    let mut nanos = 0;
    for task in fs::read_dir(process.join("task")).ok()? {
        // A thread may end while they are listed.
        let Ok(text) = task.and_then(|task| fs::read_to_string(task.path().join("schedstat"))) else {
            continue;
        };
        nanos += text.split(' ').next()?.parse::<u64>().ok()?;
    }
    let status = fs::read_to_string(process.join("status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:"))?;
    let kib = line.trim().trim_end_matches(" kB").parse::<u64>().ok()?;
    Some(Usage { cpu: Duration::from_nanos(nanos), user_bytes: kib * 1024 })
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;
    use std::process::Command;

    use super::*;

    /// In a process of its own: other tests work and allocate in ours.
    #[test]
    fn a_process_that_works_and_allocates_is_seen_to() {
        // Fills 32 MiB of its memory, and then waits for somebody to read them.
        let mut child = Command::new("dd")
            .args(["if=/dev/zero", "bs=32M", "count=1"])
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("dd starts");
        let mut output = child.stdout.take().expect("piped");
        output.read_exact(&mut [0]).expect("its memory is full, and comes");
        let used = usage(child.id()).expect("a child of ours may be looked at");
        drop(output);
        child.wait().expect("it ends");
        assert!(used.cpu > Duration::from_micros(500), "{used:?}");
        assert!(used.user_bytes > 32 << 20 && used.user_bytes < 48 << 20, "{used:?}");
        assert!(usage(child.id()).is_none(), "it ended");
    }
}
