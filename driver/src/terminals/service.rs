//! The daemon of terminals: what `castra terminals serve` runs, and what a broker
//! or an agent runs on a thread beside itself.

use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use castra_core::boundary::Via;
use castra_core::entropy::Entropy;
use castra_core::event::Level;
use castra_core::terminals::{OnStop, RestoredTerminals, Terminals, TerminalsConfig, Token};
use zeroize::Zeroizing;

use crate::agent::boot_id;
use crate::broker::fill_random;
use crate::clock;
use crate::created::Created;
use crate::files::{LogFile, Rotation, with_suffix, write_whole};
use crate::leftovers;
use crate::listen::{ListenError, listen_for_terminals};
use crate::lock::{Holder, LockError, StateLock};
use crate::mio_net::MioNet;
use crate::own::{is_writable_by_others, own_directory};
use crate::service::{Ended, Service, Stopper};
use crate::shell::{Shell, ShellOptions};
use crate::signals::Signals;
use crate::store::StoreError;
use crate::supervisor::{self, Supervisor};
use crate::terminals::holder::{LINGER, RING};
use crate::terminals::journal::{JOURNAL_FILE, Journal, JournalFound};
use crate::terminals::porter::{self, Porter, PorterError};
use crate::terminals::screen::Screen;
use crate::terminals::token::{self, TokenError};
use crate::threads::{ThreadWork, WorkFiles};

/// The name of the socket in a state directory.
pub const TERMINALS_SOCKET: &str = "terminals.sock";
/// The name of the token file in a state directory.
pub const TERMINALS_TOKEN: &str = "terminals.token";

/// How long the workers may take for their last jobs.
const LAST_JOBS: Duration = Duration::from_secs(1);
/// How long a daemon on a thread may take to serve.
const START: Duration = Duration::from_secs(15);
/// Lines of history in the snapshots that outlive a daemon that is killed.
const STORED_HISTORY: u32 = 1000;

/// What a daemon of terminals is told.
#[derive(Clone, Debug)]
pub struct TerminalsOptions {
    /// The protocol's side of it. `token` and `identity` are filled in here, except
    /// a version that is set.
    pub config: TerminalsConfig,
    /// Where clients come in; its directory is created (0700) if missing.
    pub socket: PathBuf,
    /// The token's file; written (0600) if it holds none.
    pub token_file: PathBuf,
    /// Default: `terminals.redb` beside the socket.
    pub journal: Option<PathBuf>,
    /// A pid file, if one is wanted.
    pub pidfile: Option<PathBuf>,
    /// The log; `events.jsonl`'s sort stands beside it under `terminals-events.jsonl`.
    pub log: Option<PathBuf>,
    /// Log lines go to stderr too.
    pub echo: bool,
    /// Lines of history of the screen model; `None`: no model.
    pub history: Option<usize>,
    /// The program, and its first arguments, that become the holder.
    pub holder: Vec<OsString>,
}

impl TerminalsOptions {
    /// A daemon of a state directory.
    #[must_use]
    pub fn of_state_dir(state_dir: &Path, config: TerminalsConfig, holder: Vec<OsString>) -> Self {
        Self {
            config,
            socket: state_dir.join(TERMINALS_SOCKET),
            token_file: state_dir.join(TERMINALS_TOKEN),
            journal: None,
            pidfile: None,
            log: Some(state_dir.join("logs/terminals.log")),
            echo: false,
            history: Some(10_000),
            holder,
        }
    }
}

/// A daemon that serves.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Serving {
    /// Where clients come in.
    pub socket: PathBuf,
    /// Their token's file.
    pub token_file: PathBuf,
    /// This process.
    pub pid: u32,
    /// Terminals that ran on while no daemon was there.
    pub held: usize,
    /// What the operator should know.
    pub warnings: Vec<String>,
}

/// Why there is no daemon of terminals (any more).
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TerminalsError {
    /// Exit code 73: another daemon has the socket.
    #[error(
        "terminals are already served on {socket:?} ({holder}): use that, stop it, or choose another socket"
    )]
    AlreadyRunning {
        /// Which.
        socket: PathBuf,
        /// Who.
        holder: Holder,
    },
    /// The socket can't be listened on: usage.
    #[error(transparent)]
    Listen(#[from] ListenError),
    /// There is no token.
    #[error(transparent)]
    Token(#[from] TokenError),
    /// The journal can't be used.
    #[error(transparent)]
    Journal(#[from] StoreError),
    /// There is no holder of terminals.
    #[error(transparent)]
    Porter(#[from] PorterError),
    /// A file or directory can't be used.
    #[error("can't use {path:?}: {error}")]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// A directory can't be made, or is not this user's: usage.
    #[error("can't use the directory {path:?}: {error}")]
    Directory {
        /// Which.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// The kernel refused something that it never should.
    #[error("{what} failed: {error}")]
    Internal {
        /// What.
        what: &'static str,
        /// Why.
        error: io::Error,
    },
    /// A second signal cut the drain short; exit with 128 plus its number.
    #[error("stopped at once by a second signal ({0})")]
    Signalled(i32),
}

/// Serves until TERM or INT. `on_ready` is called once everything listens. Catches
/// TERM, INT and HUP of the process.
///
/// # Errors
/// See [`TerminalsError`].
pub fn run(
    options: TerminalsOptions,
    supervisor: &Supervisor,
    on_ready: impl FnOnce(&Serving),
) -> Result<(), TerminalsError> {
    let signals = Signals::catch().map_err(internal("catching signals"))?;
    let (daemon, mut serving) = Daemon::start(options, Some(signals))?;
    supervisor.let_go(&mut serving.warnings);
    supervisor.ready(&format!("serving terminals on {}", serving.socket.display()));
    on_ready(&serving);
    daemon.serve(supervisor)
}

/// A daemon on a thread of this process.
#[derive(Debug)]
pub struct TerminalsThread {
    stopper: Stopper,
    thread: JoinHandle<Result<(), TerminalsError>>,
}

impl TerminalsThread {
    /// Starts it and waits until it serves.
    ///
    /// # Errors
    /// See [`TerminalsError`].
    pub fn start(options: TerminalsOptions) -> Result<(Self, Serving), TerminalsError> {
        let (tell, told) = channel();
        let thread = thread::Builder::new().name("castra-terminals".to_owned());
        let thread = thread.spawn(move || {
            let daemon = match Daemon::start(options, None) {
                Ok((daemon, serving)) => {
                    // Whoever started us waits for it.
                    let _ = tell.send(Ok((daemon.stopper.clone(), serving)));
                    daemon
                }
                Err(error) => {
                    let _ = tell.send(Err(error));
                    return Ok(());
                }
            };
            daemon.serve(&Supervisor::none())
        });
        let thread = thread.map_err(internal("starting the thread for terminals"))?;
        match told.recv_timeout(START) {
            Ok(Ok((stopper, serving))) => Ok((Self { stopper, thread }, serving)),
            Ok(Err(error)) => Err(error),
            Err(RecvTimeoutError::Timeout) => {
                Err(internal("serving terminals")(io::ErrorKind::TimedOut.into()))
            }
            Err(RecvTimeoutError::Disconnected) => {
                Err(internal("serving terminals")(io::Error::other("its thread died")))
            }
        }
    }

    /// Stops it as TERM would, and waits for its end: at most some seconds.
    ///
    /// # Errors
    /// What it ended with.
    pub fn stop(self) -> Result<(), TerminalsError> {
        self.stopper.stop();
        let died = |_| internal("serving terminals")(io::Error::other("its thread died"));
        self.thread.join().map_err(died)?
    }
}

/// Everything that serves.
struct Daemon {
    shell: Shell<Terminals, MioNet, ThreadWork>,
    signals: Option<Signals>,
    stopper: Stopper,
    on_stop: OnStop,
    files: Created,
    lock: StateLock,
}

impl Daemon {
    fn start(
        options: TerminalsOptions,
        mut signals: Option<Signals>,
    ) -> Result<(Self, Serving), TerminalsError> {
        let mut warnings = Vec::new();
        let socket = absolute(&options.socket)?;
        let log = options.log.as_deref().map(absolute).transpose()?;
        let parents = [Some(&socket), Some(&options.token_file), log.as_ref()];
        for parent in parents.into_iter().flatten().filter_map(|path| path.parent()) {
            if !parent.as_os_str().is_empty() {
                own_directory(parent, &mut warnings)
                    .map_err(|error| TerminalsError::Directory { path: parent.to_owned(), error })?;
            }
        }
        let directory = socket.parent().unwrap_or(Path::new("/"));
        if is_writable_by_others(directory).map_err(file_error(directory))? {
            warnings.push(format!(
                "the terminals' directory {} can be written by others: give it mode 0700",
                directory.display()
            ));
        }
        let lock = lock(&socket)?;
        let now = clock::now();
        let mut token = token::read_or_create(&options.token_file)?;
        let journal = options.journal.unwrap_or_else(|| directory.join(JOURNAL_FILE));
        let (journal, JournalFound { next_id, records, set_aside }) = Journal::open(&journal, now.wall)?;
        if let Some((aside, damage)) = set_aside {
            warnings.push(format!(
                "the journal of terminals was damaged ({damage}) and is set aside as {}: what ran before is \
                 known only as far as it still runs",
                aside.display()
            ));
        }
        let mut net = MioNet::new().map_err(internal("creating a poller"))?;
        if let Some(signals) = &mut signals {
            net.watch_signals(signals).map_err(internal("watching signals"))?;
        }
        let files = log.map(|log| WorkFiles {
            events: LogFile::new(log.with_file_name("terminals-events.jsonl"), Rotation::default()),
            handshakes: LogFile::new(with_suffix(&log, ".handshakes"), Rotation::default()),
            log: LogFile::new(log, Rotation::default()),
            records: PathBuf::new(),
            config: None,
            echo: options.echo,
        });
        let work = ThreadWork::new(Some(Box::new(journal)), files, net.waker())
            .map_err(internal("starting workers"))?;
        let (porter, held) = Porter::open(
            porter::Options {
                socket: with_end(&socket, "holder"),
                launcher: options.holder,
                ring: RING,
                linger: LINGER,
                log: None,
                environment: environment(),
                model: options.history.map(model),
                stored_history: STORED_HISTORY,
            },
            work.teller(),
        )?;
        let work = work.with_terminals(porter);

        let mut config = options.config;
        config.token = Some(Token::new(std::mem::take(&mut *token)));
        let identity = &mut config.identity;
        if identity.version.is_empty() {
            env!("CARGO_PKG_VERSION").clone_into(&mut identity.version);
        }
        identity.pid = std::process::id();
        identity.uid = rustix::process::geteuid().as_raw();
        identity.state_dir = directory.display().to_string();
        identity.listen = vec![format!("unix:{}", socket.display())];
        identity.started_at = now.wall;
        let on_stop = config.on_stop;
        // A few more are waited out than let in, so that they hear why.
        let connections_max = config.connections_max.saturating_add(8);
        let boot = boot_id().map_err(internal("drawing a boot id"))?;
        let mut seed = Zeroizing::new([0; 32]);
        fill_random(&mut *seed).map_err(internal("drawing a seed"))?;
        let count = held.len();
        let restored = RestoredTerminals { next_id, records, held, boot };
        let engine = Terminals::new(config, restored, Entropy::seeded(*seed), clock::now());

        leftovers::remove(directory);
        let bound = listen_for_terminals(&socket)?;
        let mut created = Created::one(&socket);
        let door = net.listen(bound).map_err(internal("watching a listener"))?;
        if let Some(pidfile) = options.pidfile {
            let text = format!("{}\n", std::process::id());
            write_whole(&pidfile, text.as_bytes(), false).map_err(file_error(&pidfile))?;
            created.add(&pidfile);
        }
        let shell_options = ShellOptions {
            doors: vec![(door, Via::Terminals)],
            connections_max,
            log_prefix: Some("terminals"),
            ..ShellOptions::default()
        };
        let stopper = Stopper::new(net.waker());
        let mut shell = Shell::new(engine, net, work, shell_options);
        let now = clock::now();
        shell.log(now, Level::Info, &format!("listening on {}", socket.display()));
        for warning in &warnings {
            shell.log(now, Level::Warn, warning);
        }
        let pid = std::process::id();
        let serving = Serving { socket, token_file: options.token_file, pid, held: count, warnings };
        Ok((Self { shell, signals, stopper, on_stop, files: created, lock }, serving))
    }

    fn serve(mut self, supervisor: &Supervisor) -> Result<(), TerminalsError> {
        let mut service = Service {
            shell: &mut self.shell,
            signals: self.signals.as_mut(),
            stopper: Some(&self.stopper),
            recording: None,
            supervisor,
        };
        let ended = service.run(|| None, |_| {});
        let (_, net, work) = self.shell.into_parts();
        // As long as we listen, nobody takes the socket for a stale one.
        drop(self.files);
        drop(net);
        if self.on_stop == OnStop::End
            && let Some(porter) = work.terminals()
        {
            porter.end_all();
        }
        work.stop(if matches!(ended, Ok(Ended::Drained)) { LAST_JOBS } else { Duration::ZERO });
        drop(self.lock);
        match ended {
            Ok(Ended::Drained) => Ok(()),
            Ok(Ended::Signalled(number)) => Err(TerminalsError::Signalled(number)),
            Err(error) => Err(TerminalsError::Internal { what: "waiting for the network", error }),
        }
    }
}

fn lock(socket: &Path) -> Result<StateLock, TerminalsError> {
    let mut lock = StateLock::acquire_file(&with_end(socket, "lock")).map_err(|error| match error {
        LockError::Held(holder) => TerminalsError::AlreadyRunning { socket: socket.to_owned(), holder },
        LockError::Failed { path, error } => TerminalsError::File { path, error },
    })?;
    let holder = Holder {
        pid: Some(std::process::id()),
        started_at: Some(clock::now().wall),
        listen: vec![format!("unix:{}", socket.display())],
    };
    // It only says who holds it; the lock is the kernel's.
    let _ = lock.describe(&holder);
    Ok(lock)
}

/// `terminals.sock` as `terminals.END`; whatever doesn't end in `.sock` with `.END` behind it.
#[must_use]
pub fn with_end(socket: &Path, end: &str) -> PathBuf {
    if socket.extension().is_some_and(|extension| extension == "sock") {
        socket.with_extension(end)
    } else {
        with_suffix(socket, &format!(".{end}"))
    }
}

/// What programs get of this process's environment: not what is meant for castra,
/// which may be a secret or would send a program's own commands astray.
fn environment() -> Vec<(OsString, OsString)> {
    let ours = |name: &OsString| {
        let name = name.as_encoded_bytes();
        let families = [&b"CASTRA_"[..], b"RUST_PTY_", b"PRIVATE_BEACH_"];
        families.iter().any(|family| name.starts_with(family))
            || name == b"CREDENTIALS_DIRECTORY"
            || supervisor::VARIABLES.iter().any(|ours| ours.as_bytes() == name)
    };
    std::env::vars_os().filter(|(name, _)| !ours(name)).collect()
}

fn model(history: usize) -> porter::MakeModel {
    Arc::new(move |cols, rows| Box::new(Screen::new(cols, rows, history)))
}

fn absolute(path: &Path) -> Result<PathBuf, TerminalsError> {
    std::path::absolute(path).map_err(file_error(path))
}

fn file_error(path: &Path) -> impl FnOnce(io::Error) -> TerminalsError + '_ {
    move |error| TerminalsError::File { path: path.to_owned(), error }
}

fn internal(what: &'static str) -> impl FnOnce(io::Error) -> TerminalsError {
    move |error| TerminalsError::Internal { what, error }
}
