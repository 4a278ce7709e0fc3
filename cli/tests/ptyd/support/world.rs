//! A directory of its own for each test, daemons in it, and nothing left behind.

use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::symlink;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use super::{Client, PATIENCE, Role, until};

/// In the environment of everything that a test starts, and of what that starts.
const MARK: &str = "PTYD_TEST_WORLD";

/// What the published client waits for a daemon that it started.
const READY: Duration = Duration::from_secs(5);

/// What the published client waits between TERM and KILL.
const STOP: Duration = Duration::from_secs(2);

/// A temporary directory and every process that was started for it.
pub(crate) struct World {
    dir: TempDir,
    mark: String,
}

/// A daemon, as the published client starts it.
pub(crate) struct Daemon {
    child: Child,
    socket: PathBuf,
    token: PathBuf,
}

/// A process that was started for a world.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Found {
    pub(crate) pid: u32,
    pub(crate) line: String,
}

impl World {
    pub(crate) fn new() -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        // Short: the address of a unix socket has 107 bytes.
        let dir = tempfile::Builder::new().prefix("ptyd-").tempdir_in("/tmp").unwrap();
        symlink(env!("CARGO_BIN_EXE_castra"), dir.path().join("castra-ptyd")).unwrap();
        fs::create_dir(dir.path().join("home")).unwrap();
        let world = Self { dir, mark: format!("{MARK}={}-{number}", std::process::id()) };
        assert!(world.socket().as_os_str().len() < 100);
        world
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// A path as text, for a request.
    pub(crate) fn text(&self, name: &str) -> String {
        self.path(name).to_str().unwrap().to_owned()
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.path("run/pty.sock")
    }

    pub(crate) fn token_file(&self) -> PathBuf {
        self.path("run/pty.token")
    }

    /// The journal of the daemon at this world's socket.
    pub(crate) fn journal(&self) -> PathBuf {
        self.path("run/terminals.redb")
    }

    /// `castra-ptyd` without arguments, and nothing in its environment but where its
    /// files are, a home and a path.
    pub(crate) fn command(&self) -> Command {
        self.surround(Command::new(self.path("castra-ptyd")))
    }

    /// `castra terminals serve` in the same surroundings.
    pub(crate) fn serve(&self, args: &[&str]) -> Daemon {
        let mut command = self.surround(Command::new(env!("CARGO_BIN_EXE_castra")));
        command.args(["terminals", "serve"]).args(args);
        self.spawn(command)
    }

    /// The same daemon as [`Self::start`]'s, started by a program that runs what follows
    /// its own arguments.
    pub(crate) fn start_by(&self, launcher: &[&str]) -> Daemon {
        let mut command = self.surround(Command::new(launcher[0]));
        command.args(&launcher[1..]).arg(self.path("castra-ptyd"));
        self.spawn(command)
    }

    /// A holder for the daemons to come, with a linger of its own. The caller waits for it.
    pub(crate) fn hold(&self, name: &str, linger: Duration) -> Child {
        let mut command = self.surround(Command::new(env!("CARGO_BIN_EXE_castra")));
        command.args(["terminals-holder", "--linger-ms", &linger.as_millis().to_string(), "--socket"]);
        let mut holder = command.arg(self.path(name)).stdout(Stdio::piped()).spawn().unwrap();
        let mut said = String::new();
        BufReader::new(holder.stdout.take().unwrap()).read_line(&mut said).unwrap();
        assert_eq!(said, "ready\n");
        holder
    }

    fn surround(&self, mut command: Command) -> Command {
        let (name, value) = self.mark.split_once('=').unwrap();
        command.env_clear().env(name, value).env("PATH", "/usr/bin:/bin").env("HOME", self.path("home"));
        command.env("RUST_PTY_SOCKET_PATH", self.socket()).env("RUST_PTY_TOKEN_PATH", self.token_file());
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).current_dir(self.dir.path());
        command
    }

    /// A daemon that is ready.
    pub(crate) fn start(&self) -> Daemon {
        self.start_with(|_| {})
    }

    /// The same, with something else in its surroundings.
    pub(crate) fn start_with(&self, change: impl FnOnce(&mut Command)) -> Daemon {
        let mut command = self.command();
        change(&mut command);
        self.spawn(command)
    }

    fn spawn(&self, mut command: Command) -> Daemon {
        let child = command.spawn().unwrap();
        let mut daemon = Daemon { child, socket: self.socket(), token: self.token_file() };
        daemon.wait_until_ready();
        daemon
    }

    /// Every process of this world.
    pub(crate) fn processes(&self) -> Vec<Found> {
        fs::read_dir("/proc").unwrap().flatten().filter_map(|entry| self.process(&entry.path())).collect()
    }

    /// The processes of this world that keep terminals.
    pub(crate) fn holders(&self) -> Vec<Found> {
        self.processes().into_iter().filter(|found| found.line.contains("terminals-holder")).collect()
    }

    /// A process of this world. One that ended and is not waited for has no environment.
    fn process(&self, proc: &Path) -> Option<Found> {
        let pid = proc.file_name()?.to_str()?.parse().ok()?;
        let environ = fs::read(proc.join("environ")).ok()?;
        environ.split(|byte| *byte == 0).find(|entry| *entry == self.mark.as_bytes())?;
        let line = fs::read(proc.join("cmdline")).ok()?;
        Some(Found { pid, line: String::from_utf8_lossy(&line).replace('\0', " ") })
    }

    /// Ends the holder too, and says what survives that.
    fn survivors(&self) -> Vec<Found> {
        let end = Instant::now() + PATIENCE;
        for holder in self.holders() {
            signal(holder.pid, Signal::TERM);
        }
        loop {
            let left = self.processes();
            if left.is_empty() || Instant::now() > end {
                return left;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

impl Drop for World {
    fn drop(&mut self) {
        let left = self.survivors();
        for found in &left {
            signal(found.pid, Signal::KILL);
        }
        assert!(left.is_empty() || std::thread::panicking(), "left behind: {left:?}");
    }
}

impl Daemon {
    /// As the published client finds out: both files are there, and a connect works.
    fn wait_until_ready(&mut self) {
        let end = Instant::now() + READY;
        loop {
            let files = self.socket.exists() && self.token.exists();
            if files && UnixStream::connect(&self.socket).is_ok() {
                return;
            }
            let ended = self.child.try_wait().unwrap();
            assert!(ended.is_none(), "the daemon ended: {ended:?}");
            assert!(Instant::now() < end, "not ready within {READY:?}");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn token(&self) -> String {
        fs::read_to_string(&self.token).unwrap()
    }

    /// A connection without a handshake.
    pub(crate) fn connect(&self) -> Client {
        Client::connect(&self.socket)
    }

    /// A control client.
    pub(crate) fn client(&self, id: &str) -> Client {
        self.known(id, Role::Control)
    }

    /// A stream client.
    pub(crate) fn stream(&self, id: &str) -> Client {
        self.known(id, Role::Stream)
    }

    fn known(&self, id: &str, role: Role) -> Client {
        let mut client = self.connect();
        client.introduce(&self.token(), id, role, vec![]);
        client
    }

    /// A client with something more in its handshake.
    pub(crate) fn client_with(&self, id: &str, role: Role, more: super::Fields) -> Client {
        let mut client = self.connect();
        client.introduce(&self.token(), id, role, more);
        client
    }

    /// Dies as it stands.
    pub(crate) fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Asks it to end, and waits as long as the published client would: its exit code.
    pub(crate) fn stop(mut self) -> Option<i32> {
        signal(self.child.id(), Signal::TERM);
        self.wait(STOP).expect("it ends within 2 s of TERM").code()
    }

    /// How it ended, within `bound`.
    pub(crate) fn wait(&mut self, bound: Duration) -> Option<std::process::ExitStatus> {
        let end = Instant::now() + bound;
        loop {
            let ended = self.child.try_wait().unwrap();
            if ended.is_some() || Instant::now() > end {
                return ended;
            }
            std::thread::sleep(Duration::from_millis(2));
        }
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        if self.child.try_wait().unwrap().is_some() {
            return;
        }
        signal(self.child.id(), Signal::TERM);
        let ended = self.wait(STOP);
        if ended.is_none() {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
        assert!(ended.is_some() || std::thread::panicking(), "it did not end within 2 s of TERM");
    }
}

/// Sends a signal to a process of this world.
pub(crate) fn signal(pid: u32, signal: Signal) {
    let _ = kill_process(Pid::from_raw(pid.cast_signed()).unwrap(), signal);
}

/// Whether a process runs: one that ended and isn't waited for doesn't.
pub(crate) fn runs(pid: u32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"));
    stat.is_ok_and(|stat| !stat.rsplit(')').next().unwrap_or_default().starts_with(" Z"))
}

/// Waits until a process is no more.
pub(crate) fn gone(pid: u32) {
    until(&format!("process {pid} is gone"), || !runs(pid));
}
