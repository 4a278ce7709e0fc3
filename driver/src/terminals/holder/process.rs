//! Being a holder, as a process of its own; and starting one.

use std::ffi::OsString;
use std::fs::{File, OpenOptions};
use std::io::{self, PipeReader, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use signal_hook::consts::signal as signals;

use super::{Door, LINGER, Options, RING, serve};

/// The first word of a holder that serves.
const READY: &str = "ready";
/// The first word of one that found another.
const TAKEN: &str = "taken";
/// What a holder says before it serves is at most this long, in bytes.
const WORDS_MAX: u64 = 4096;

/// What a holder is told when it is started.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Arguments {
    /// Where daemons find it; absolute.
    pub socket: PathBuf,
    /// See [`Options::ring`].
    pub ring: u64,
    /// See [`Options::linger`].
    pub linger: Duration,
    /// Where its last words go, if anywhere; absolute.
    pub log: Option<PathBuf>,
}

impl Arguments {
    /// A holder at `socket`, as usual.
    #[must_use]
    pub const fn new(socket: PathBuf) -> Self {
        Self { socket, ring: RING, linger: LINGER, log: None }
    }
}

/// Is a holder until its end ([`serve`]). Says on standard output that it serves, then
/// lets go of the standard descriptors.
///
/// The process becomes what programs on terminals must not inherit anything from: it
/// leads a session of its own in `/`, and every signal will have its default effect in
/// them. TERM and INT hang up everything. The caller has closed inherited descriptors.
///
/// # Errors
/// The socket can't be served, or the kernel refuses what it never should.
pub fn run(arguments: &Arguments) -> io::Result<()> {
    // Fails only for who leads a session already: then there is nothing to leave.
    let _ = rustix::process::setsid();
    std::env::set_current_dir("/")?;
    let stop = take_signals()?;
    let null = OpenOptions::new().read(true).write(true).open("/dev/null")?;
    let log = arguments.log.as_deref().map(open_log).transpose()?;
    let mut out = io::stdout();
    let Some(door) = Door::open(&arguments.socket)? else {
        return writeln!(out, "{TAKEN}");
    };
    // Nobody may be there to hear it.
    let _ = writeln!(out, "{READY}").and_then(|()| out.flush());
    rustix::stdio::dup2_stdin(&null)?;
    rustix::stdio::dup2_stdout(&null)?;
    rustix::stdio::dup2_stderr(log.as_ref().unwrap_or(&null))?;
    drop((null, log));
    serve(door, Options { ring: arguments.ring, linger: arguments.linger, stop: Some(stop) })
}

fn open_log(path: &Path) -> io::Result<File> {
    OpenOptions::new().append(true).create(true).mode(0o600).open(path)
}

/// Signals that may have been ignored or blocked by whoever started this process get a
/// handler: a program that is run then has them at their default again.
fn take_signals() -> io::Result<OwnedFd> {
    nix::sys::signal::SigSet::empty().thread_set_mask()?;
    let heard = Arc::new(AtomicBool::new(false));
    for signal in [
        signals::SIGHUP,
        signals::SIGQUIT,
        signals::SIGUSR1,
        signals::SIGUSR2,
        signals::SIGALRM,
        signals::SIGCHLD,
        signals::SIGCONT,
        signals::SIGTSTP,
        signals::SIGTTIN,
        signals::SIGTTOU,
        signals::SIGURG,
        signals::SIGXCPU,
        signals::SIGXFSZ,
        signals::SIGVTALRM,
        signals::SIGPROF,
        signals::SIGWINCH,
        signals::SIGIO,
        signals::SIGSYS,
    ] {
        signal_hook::flag::register(signal, Arc::clone(&heard))?;
    }
    let (stop, told) = UnixStream::pair()?;
    signal_hook::low_level::pipe::register(signals::SIGTERM, told.try_clone()?)?;
    signal_hook::low_level::pipe::register(signals::SIGINT, told)?;
    Ok(stop.into())
}

/// Why no holder could be started.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// It can't be run.
    #[error("the holder of the terminals can't be run: {0}")]
    Run(#[source] io::Error),
    /// It ended, or said something else than that it serves.
    #[error("the holder of the terminals did not start: {0}")]
    Failed(String),
    /// It said nothing.
    #[error("the holder of the terminals did not start in time")]
    TimedOut,
}

/// Starts a holder that outlives this process, and waits until one serves.
///
/// `launcher` is the program and its first arguments; see [`options_of`] for the rest.
///
/// # Errors
/// See [`StartError`].
pub fn start(launcher: &[OsString], arguments: &Arguments, deadline: Instant) -> Result<(), StartError> {
    let Some((program, first)) = launcher.split_first() else {
        return Err(StartError::Failed("nothing is set to start one".to_owned()));
    };
    let (mut words, theirs) = io::pipe().map_err(StartError::Run)?;
    let again = theirs.try_clone().map_err(StartError::Run)?;
    let mut command = Command::new(program);
    command.args(first).args(options_of(arguments)).arg("--detach");
    command.stdin(Stdio::null()).stdout(theirs).stderr(again);
    // It outlives this process, and has no use for them.
    for secret in ["CASTRA_TOKEN", "PRIVATE_BEACH_SESSION_PASSCODE", "PRIVATE_BEACH_MANAGER_TOKEN"] {
        command.env_remove(secret);
    }
    crate::supervisor::hide_from(&mut command);
    let mut child = command.spawn().map_err(StartError::Run)?;
    // It holds the pipe too.
    drop(command);
    let said = listen(&mut words, deadline);
    if said.is_err() {
        let _ = child.kill();
    }
    // What was started starts the holder and ends.
    let _ = child.wait();
    let said = said?;
    match said.lines().next().unwrap_or_default() {
        READY | TAKEN => Ok(()),
        _ => Err(StartError::Failed(said.trim().chars().take(400).collect())),
    }
}

/// The arguments as a command line: `--socket PATH --ring BYTES --linger-ms N [--log PATH]`.
#[must_use]
pub fn options_of(arguments: &Arguments) -> Vec<OsString> {
    let mut options: Vec<OsString> = vec!["--socket".into(), arguments.socket.clone().into()];
    options.extend(["--ring".into(), arguments.ring.to_string().into()]);
    options.extend(["--linger-ms".into(), arguments.linger.as_millis().to_string().into()]);
    if let Some(log) = &arguments.log {
        options.extend(["--log".into(), log.clone().into()]);
    }
    options
}

/// Everything said until the first line's end, or the end.
fn listen(words: &mut PipeReader, deadline: Instant) -> Result<String, StartError> {
    let mut said = Vec::new();
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let timeout = Timespec {
            tv_sec: left.as_secs().try_into().unwrap_or(i64::MAX),
            tv_nsec: left.subsec_nanos().into(),
        };
        match poll(&mut [PollFd::new(words, PollFlags::IN)], Some(&timeout)) {
            Ok(0) => return Err(StartError::TimedOut),
            Err(rustix::io::Errno::INTR) => continue,
            Err(error) => return Err(StartError::Run(error.into())),
            Ok(_) => {}
        }
        let mut some = [0; 512];
        let count = words.read(&mut some).map_err(StartError::Run)?;
        said.extend_from_slice(&some[..count]);
        let ready = said.starts_with(format!("{READY}\n").as_bytes());
        if count == 0 || ready || said.len() as u64 > WORDS_MAX {
            return Ok(String::from_utf8_lossy(&said).into_owned());
        }
    }
}

/// Runs this program again as it was run, but for `--detach`, and leaves it alone: it
/// is nobody's child then. For the process that [`start`] started.
///
/// # Errors
/// It can't be run.
pub fn detach() -> io::Result<()> {
    let arguments = std::env::args_os().skip(1).filter(|argument| argument != "--detach");
    Command::new("/proc/self/exe").args(arguments).spawn().map(drop)
}
