//! A world of its own for each test: a temporary directory, processes that end with it, and clients.

mod control;
#[allow(dead_code)]
#[path = "../../common/proxy/mod.rs"]
pub(crate) mod fault_proxy;
mod faults;
mod link;
mod manager;
mod process;
mod proxy;
mod raw_broker;
mod terminal;
mod watch;

use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use serde_json::Value;
use tempfile::TempDir;

pub(crate) use control::{Control, at};
use faults::Faults;
pub(crate) use link::{Keyed, Link, Stream};
pub(crate) use manager::Manager;
pub(crate) use process::{Process, Ran, until, wall_ms};
pub(crate) use proxy::{Proxy, join, raw_pty};
pub(crate) use raw_broker::RawBroker;
pub(crate) use terminal::Terminal;
pub(crate) use watch::{Watch, Yardstick};

/// What a step that has no bound of its own may take on a busy machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// A temporary directory and everything that lives in it.
pub(crate) struct World {
    dir: Option<TempDir>,
    faults: Option<Faults>,
}

/// A broker that serves.
pub(crate) struct Broker {
    pub(crate) process: Process,
    /// Its addresses, with real ports.
    pub(crate) listen: Vec<String>,
}

impl World {
    pub(crate) fn new() -> Self {
        let dir = tempfile::Builder::new().prefix("castra-").tempdir().unwrap();
        fs::create_dir(dir.path().join("tmp")).unwrap();
        Self { dir: Some(dir), faults: Faults::asked_for() }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.as_ref().unwrap().path().join(name)
    }

    /// The broker's state directory.
    pub(crate) fn state(&self) -> PathBuf {
        self.path("state")
    }

    pub(crate) fn read(&self, name: &str) -> String {
        let path = self.state().join(name);
        fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
    }

    /// The program in this world: no other broker, home or token is in its sight.
    pub(crate) fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_castra"));
        let foreign = ["CASTRA_AGENT_SOCKET", "CASTRA_TOKEN", "CREDENTIALS_DIRECTORY", "NO_COLOR"];
        let foreign = foreign.into_iter().chain(["NOTIFY_SOCKET", "WATCHDOG_USEC"]);
        let beach = ["MANAGER_URL", "ID", "SESSION_PASSCODE", "MANAGER_TOKEN"];
        for name in foreign.map(str::to_owned).chain(beach.map(|end| format!("PRIVATE_BEACH_{end}"))) {
            command.env_remove(name);
        }
        command
            .env("HOME", self.path("home"))
            .env("XDG_RUNTIME_DIR", self.path("run"))
            .env("XDG_STATE_HOME", self.path("state-home"))
            .env("TMPDIR", self.path("tmp"))
            .env("CASTRA_STATE_DIR", self.state())
            .stdin(Stdio::null());
        match &self.faults {
            Some(faults) => command.args(faults.lead_around(args, &self.path(""))),
            None => command.args(args),
        };
        command
    }

    pub(crate) fn spawn(&self, args: &[&str]) -> Process {
        Process::spawn(self.command(args))
    }

    /// Starts a broker; without `--listen` among `args` on a free port of the loopback.
    pub(crate) fn broker(&self, args: &[&str]) -> Broker {
        let mut all = vec!["broker", "--json"];
        if !args.iter().any(|arg| matches!(*arg, "--listen" | "--port")) {
            all.extend(["--listen", "tcp:127.0.0.1:0"]);
        }
        all.extend(args);
        let process = self.spawn(&all);
        let ready: Value = serde_json::from_str(&process.out.first(PATIENCE)).unwrap();
        assert_eq!(ready["ready"], true);
        assert_eq!(ready["pid"], process.pid());
        let listen = ready["listen"].as_array().unwrap();
        let listen = listen.iter().map(|address| address.as_str().unwrap().to_owned()).collect();
        Broker { process, listen }
    }

    /// Starts an agent; its socket is `NAME.sock`.
    pub(crate) fn agent(&self, name: &str, connect: &str, args: &[&str]) -> Process {
        let socket = self.path(&format!("{name}.sock"));
        let socket = socket.to_str().unwrap();
        let mut all = vec!["agent", "--name", name, "--connect", connect];
        if !args.contains(&"--once") {
            all.extend(["--socket", socket]);
        }
        all.extend(args);
        self.spawn(&all)
    }

    /// Runs a command to its end.
    pub(crate) fn castra(&self, args: &[&str]) -> Ran {
        self.spawn(args).finish(Duration::from_secs(45))
    }

    /// Runs a command that must succeed, and reads its JSON.
    pub(crate) fn json(&self, args: &[&str]) -> Value {
        let ran = self.castra(args);
        assert_eq!(ran.code, 0, "castra {args:?}: {ran:?}");
        ran.json()
    }

    /// `castra wait`, which must succeed.
    pub(crate) fn wait(&self, names: &[&str], state: &str) {
        let mut args = vec!["wait", "--for", state, "--timeout", "20s"];
        args.extend(names);
        let ran = self.castra(&args);
        assert_eq!(ran.code, 0, "castra {args:?}: {ran:?}\n{}", self.log());
    }

    /// A connection to the broker's control socket.
    pub(crate) fn control(&self) -> Control {
        Control::connect(&self.state().join("control.sock"))
    }

    /// A guest's row.
    pub(crate) fn row(&self, name: &str) -> Value {
        self.control().row(name)
    }

    /// A guest's state and reason, as in `waiting/stale`.
    pub(crate) fn verdict(&self, name: &str) -> String {
        verdict(&self.row(name))
    }

    /// Everything that the broker remembers of one kind about one guest.
    pub(crate) fn events(&self, kind: &str, guest: &str) -> Vec<Value> {
        self.control().events(kind, guest)
    }

    /// The log, for a failure's message.
    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.state().join("logs/broker.log")).unwrap_or_default()
    }

    /// Writes a file that only its owner reads.
    pub(crate) fn secret(&self, name: &str, text: &str) -> String {
        let path = self.path(name);
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        path.to_str().unwrap().to_owned()
    }

    /// Processes that live in this world and are not this one.
    pub(crate) fn processes(&self) -> Vec<(u32, String)> {
        let needle = self.path("run");
        let pids = fs::read_dir("/proc").unwrap().flatten();
        let pids = pids.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
        pids.filter(|pid| *pid != std::process::id())
            .filter_map(|pid| {
                let environment = fs::read(format!("/proc/{pid}/environ")).ok()?;
                let ours = environment.split(|byte| *byte == 0).any(|variable| {
                    variable.strip_prefix(b"XDG_RUNTIME_DIR=") == Some(needle.as_os_str().as_encoded_bytes())
                });
                let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
                ours.then(|| (pid, String::from_utf8_lossy(&line).replace('\0', " ")))
            })
            .collect()
    }
}

/// Nothing outlives its test: no process, no socket, no file.
impl Drop for World {
    fn drop(&mut self) {
        let left = self.processes();
        for (pid, _) in &left {
            process::kill(*pid);
        }
        drop(self.faults.take());
        let path = self.path("");
        let needle = path.to_str().unwrap().to_owned();
        let sockets = || fs::read_to_string("/proc/net/unix").unwrap_or_default();
        let closed = until(Duration::from_secs(5), || !sockets().contains(&needle));
        let removed = self.dir.take().unwrap().close();
        if std::thread::panicking() {
            return;
        }
        assert!(left.is_empty(), "processes outlived the test: {left:?}");
        assert!(closed, "sockets outlived the test: {}", sockets());
        removed.unwrap();
        assert!(!path.exists());
    }
}

impl Broker {
    /// Where agents connect: the first address that is not serial.
    pub(crate) fn address(&self) -> &str {
        self.listen.iter().find(|address| !address.ends_with(",serial")).unwrap()
    }

    pub(crate) fn port(&self) -> u16 {
        self.address().rsplit_once(':').unwrap().1.parse().unwrap()
    }
}

/// As in `waiting/stale`, or `reachable`.
pub(crate) fn verdict(row: &Value) -> String {
    match row["reason"].as_str() {
        Some(reason) => format!("{}/{reason}", row["state"].as_str().unwrap()),
        None => row["state"].as_str().unwrap().to_owned(),
    }
}

/// Whether a program is installed.
pub(crate) fn installed(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|folder| folder.join(OsStr::new(program)).is_file())
}

/// Every file below `folder`.
pub(crate) fn files_below(folder: &Path) -> Vec<PathBuf> {
    let mut found = vec![];
    for entry in fs::read_dir(folder).unwrap().flatten() {
        match entry.file_type().unwrap() {
            kind if kind.is_dir() => found.extend(files_below(&entry.path())),
            kind if kind.is_file() => found.push(entry.path()),
            _ => {}
        }
    }
    found
}
