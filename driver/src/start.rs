//! Start commands: how a guest that is off is brought back.
//!
//! A command runs in a session of its own, in `/`, with the broker's environment
//! (less what the service manager tells the broker) and `CASTRA_GUEST` and `CASTRA_STATE_DIR` in it, its output appended to
//! `logs/start-NAME.log`. It outlives the broker: what it starts is the guest.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use castra_core::boundary::{EffectError, EffectErrorKind};
use castra_core::id::GuestName;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::OFlags;
use rustix::process::{Pid, PidfdFlags, pidfd_open};

use crate::supervisor;

/// Most commands that somebody waits for at once.
pub const WATCHED_MAX: usize = 16;
/// A log longer than this is emptied before the next run.
pub const LOG_MAX: u64 = 1024 * 1024;
/// How much of a failed command's last line is told.
const LINE_MAX: usize = 200;
/// Address space for the stack of a thread that waits.
const STACK_BYTES: usize = 256 * 1024;

/// The start command of each guest that has one. A reload replaces it.
pub type Commands = Arc<Mutex<BTreeMap<GuestName, String>>>;

/// Runs start commands, each on a thread of its own.
#[derive(Clone, Debug)]
pub struct Starts {
    /// What to run.
    pub commands: Commands,
    /// The program, and its first arguments, that runs the command given as its
    /// last argument in a session of its own. Empty: `/bin/sh -c`, in a process
    /// group of its own.
    pub launcher: Vec<OsString>,
    /// `CASTRA_STATE_DIR`, absolute.
    pub state_dir: PathBuf,
    /// Where `start-NAME.log` goes.
    pub logs: PathBuf,
    running: Arc<Mutex<Running>>,
}

#[derive(Debug, Default)]
struct Running {
    /// Whose command has not ended.
    guests: BTreeSet<GuestName>,
    /// How many of them somebody still waits for.
    watched: usize,
}

impl Starts {
    /// Nothing runs yet.
    #[must_use]
    pub fn new(commands: Commands, launcher: Vec<OsString>, state_dir: PathBuf, logs: PathBuf) -> Self {
        Self { commands, launcher, state_dir, logs, running: Arc::default() }
    }

    /// Runs the guest's command. `done` hears how it ended, or, after `patience`,
    /// that all is well so far; what the command does then is its own affair.
    /// One whose command still runs isn't started twice: `done` hears at once
    /// that all is well. Never blocks.
    pub fn start(
        &self,
        guest: GuestName,
        patience: Duration,
        done: impl FnOnce(Result<(), EffectError>) + Send + 'static,
    ) {
        let Some(command) = locked(&self.commands).get(&guest).cloned() else {
            return done(Err(failed(format!("{guest} has no start command"))));
        };
        {
            let mut running = locked(&self.running);
            if running.guests.contains(&guest) {
                return done(Ok(()));
            }
            if running.watched >= WATCHED_MAX {
                let text = format!("busy: {WATCHED_MAX} guests are being started; try again in a moment");
                return done(Err(failed(text)));
            }
            running.guests.insert(guest);
            running.watched += 1;
        }
        let (it, mut run) = (self.clone(), Run { guest, running: Arc::clone(&self.running), watched: true });
        // The thread takes `done` with it, also when it never comes to be.
        let done = Arc::new(Mutex::new(Some(done)));
        let theirs = Arc::clone(&done);
        let tell = move |result| {
            if let Some(done) = locked(&theirs).take() {
                done(result);
            }
        };
        let thread = thread::Builder::new().name("castra-start".to_owned()).stack_size(STACK_BYTES);
        let spawned = thread.spawn(move || match it.run(&guest, &command) {
            Err(error) => {
                drop(run);
                tell(Err(failed(format!("the start command can't be run: {error}"))));
            }
            Ok((mut child, log)) => {
                let status = within(&mut child, patience);
                if matches!(status, Ok(Some(_)) | Err(_)) {
                    drop(run);
                    return tell(verdict(status, log));
                }
                run.unwatch();
                tell(Ok(()));
                // Nobody asks any more; but somebody has to bury it.
                let _ = child.wait();
            }
        });
        if let Err(error) = spawned
            && let Some(done) = locked(&done).take()
        {
            done(Err(failed(format!("no thread for a start command: {error}"))));
        }
    }

    fn run(&self, guest: &GuestName, command: &str) -> io::Result<(Child, Log)> {
        let log = Log::open(self.logs.join(format!("start-{guest}.log")))?;
        let mut process = match self.launcher.split_first() {
            Some((program, arguments)) => {
                let mut process = Command::new(program);
                process.args(arguments);
                process
            }
            None => {
                let mut process = Command::new("/bin/sh");
                process.arg("-c").process_group(0);
                process
            }
        };
        supervisor::hide_from(&mut process);
        process
            .arg(command)
            .current_dir("/")
            .env("CASTRA_GUEST", guest.as_str())
            .env("CASTRA_STATE_DIR", &self.state_dir)
            .stdin(Stdio::null())
            .stdout(log.file.try_clone()?)
            .stderr(log.file.try_clone()?);
        Ok((process.spawn()?, log))
    }
}

/// A command that has not ended; dropped, its place is free.
struct Run {
    guest: GuestName,
    running: Arc<Mutex<Running>>,
    watched: bool,
}

impl Run {
    /// Nobody waits for it any more.
    fn unwatch(&mut self) {
        if std::mem::take(&mut self.watched) {
            locked(&self.running).watched -= 1;
        }
    }
}

impl Drop for Run {
    fn drop(&mut self) {
        self.unwatch();
        locked(&self.running).guests.remove(&self.guest);
    }
}

/// Where a command's output goes.
pub(crate) struct Log {
    pub(crate) file: File,
    path: PathBuf,
    /// Where this run's begins.
    from: u64,
}

impl Log {
    pub(crate) fn open(path: PathBuf) -> io::Result<Self> {
        let file = OpenOptions::new()
            .read(true)
            .append(true)
            .create(true)
            .mode(0o600)
            .custom_flags((OFlags::NOFOLLOW | OFlags::NONBLOCK).bits() as i32)
            .open(&path)?;
        let metadata = file.metadata()?;
        if !metadata.is_file() {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, format!("{path:?} is no file")));
        }
        let mut from = metadata.len();
        if from > LOG_MAX {
            file.set_len(0)?;
            from = 0;
        }
        rustix::fs::fcntl_setfl(&file, OFlags::APPEND)?;
        Ok(Self { file, path, from })
    }

    /// The last line of this run that says something.
    fn last_line(&mut self) -> Option<String> {
        let end = self.file.metadata().ok()?.len();
        // Four bytes for each character, and some empty lines.
        self.file.seek(SeekFrom::Start(self.from.max(end.saturating_sub(4096)))).ok()?;
        let mut tail = Vec::new();
        (&self.file).take(4096).read_to_end(&mut tail).ok()?;
        let tail = String::from_utf8_lossy(&tail);
        let line = tail.lines().rev().map(str::trim).find(|line| !line.is_empty())?;
        Some(line.chars().take(LINE_MAX).collect())
    }
}

/// How the child ended, if it did within `patience`.
pub(crate) fn within(child: &mut Child, patience: Duration) -> io::Result<Option<ExitStatus>> {
    let deadline = Instant::now() + patience;
    let handle = pidfd_open(Pid::from_child(child), PidfdFlags::empty())?;
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let timeout = Timespec {
            tv_sec: i64::try_from(left.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: i64::from(left.subsec_nanos()),
        };
        match poll(&mut [PollFd::new(&handle, PollFlags::IN)], Some(&timeout)) {
            Ok(0) => return Ok(None),
            Ok(_) => return child.wait().map(Some),
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

fn verdict(status: io::Result<Option<ExitStatus>>, mut log: Log) -> Result<(), EffectError> {
    let how = match status {
        Ok(None) => return Ok(()),
        Ok(Some(status)) if status.success() => return Ok(()),
        Ok(Some(status)) => match (status.code(), status.signal()) {
            (Some(code), _) => format!("exited {code}"),
            (None, signal) => format!("was ended by signal {}", signal.unwrap_or(0)),
        },
        Err(error) => return Err(failed(format!("the start command can't be watched: {error}"))),
    };
    Err(failed(match log.last_line() {
        Some(line) => format!("{how}; its last line: {line}"),
        None => format!("{how}, and wrote nothing to {}", log.path.display()),
    }))
}

fn failed(message: String) -> EffectError {
    EffectError { kind: EffectErrorKind::Command, message }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
#[path = "start_tests.rs"]
mod tests;
