//! The broker as a process: what `castra broker` runs.

mod error;
mod paths;

use std::ffi::OsString;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use castra_core::Restored;
use castra_core::auth::Key;
use castra_core::config::BrokerConfig;
use castra_core::event::Level;
use castra_core::id::GuestName;
use castra_core::trace::{Recorded, Seed};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use zeroize::Zeroizing;

pub use error::BrokerError;
use error::{file_error, internal};
use paths::Paths;

use crate::address::ListenAddress;
use crate::clock;
use crate::config_file::{CONFIG_FILE, ConfigReader, Settings};
use crate::created::Created;
use crate::files::{read_records, write_whole};
use crate::hooks::{HookOptions, Hooks};
use crate::leftovers;
use crate::lock::{Holder, LockError, StateLock};
use crate::mio_net::MioNet;
use crate::own::is_writable_by_others;
use crate::record::{self};
use crate::service::{Ended, Service};
use crate::shell::{Shell, ShellOptions};
use crate::signals::Signals;
use crate::start::Starts;
use crate::store::{DATABASE_FILE, Store};
use crate::supervisor::Supervisor;
use crate::terminals::service::{TerminalsOptions, TerminalsThread};
use crate::threads::ThreadWork;

/// The name of the control socket in a state directory.
pub const CONTROL_SOCKET: &str = "control.sock";
/// The name of the pid file in a state directory.
pub const PID_FILE: &str = "broker.pid";
/// Descriptors for everything that is no connection.
const DESCRIPTORS_KEPT: u64 = 64;
/// How long the workers may take for their last jobs.
const LAST_JOBS: Duration = Duration::from_secs(2);
/// How long the last lines of a recording may take when a second signal came.
const LAST_LINES: Duration = Duration::from_millis(200);

/// What a broker is told.
#[derive(Clone, Debug)]
pub struct BrokerOptions {
    /// The protocol's side of it. `identity` is filled in here, except a version that is set.
    pub config: BrokerConfig,
    /// The state directory; created (0700) if missing.
    pub state_dir: PathBuf,
    /// Where guests come in. None is legal, and lonely.
    pub listen: Vec<ListenAddress>,
    /// Where the manager's HTTP clients come in; `None`: guests attach over their links.
    /// The configuration's `manager.http` follows it, with the real port.
    pub manager: Option<SocketAddr>,
    /// Default: `broker.pid` in the state directory.
    pub pidfile: Option<PathBuf>,
    /// Default: `logs/broker.log` in the state directory. `events.jsonl` stands beside it.
    pub logfile: Option<PathBuf>,
    /// Default: `handshakes` in the state directory.
    pub handshake_dir: Option<PathBuf>,
    /// Default: `castra.toml` in the state directory, which may be missing.
    pub config_file: Option<PathBuf>,
    /// What the file's settings mean beside `config`, at every reading; without it the
    /// file is about guests only.
    pub settings: Option<Settings>,
    /// What start commands are run with: see [`Starts::launcher`].
    pub launcher: Vec<OsString>,
    /// What `/bin/sh -c` runs when a guest's verdict changes.
    pub on_change: Option<String>,
    /// Log lines go to stderr too.
    pub echo: bool,
    /// A trace of everything goes to this file, which must not exist. It holds all keys.
    pub record: Option<PathBuf>,
    /// Terminals of this host are served too, on a thread of their own.
    pub terminals: Option<TerminalsOptions>,
}

/// A broker that serves.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Serving {
    /// Where guests come in, with real ports, and then the manager's address: `http://…`.
    pub listen: Vec<String>,
    /// The control socket.
    pub control: PathBuf,
    /// This process.
    pub pid: u32,
    /// What the operator should know: unwise addresses, damaged files.
    pub warnings: Vec<String>,
}

/// Serves until TERM, INT or a `shutdown` request, and takes leave within 3 s.
/// `on_ready` is called once everything listens. What `supervisor` was passed is listened
/// on in place of own sockets.
///
/// Catches TERM, INT and HUP of the process and raises its soft limit on
/// descriptors to the hard one.
///
/// # Errors
/// See [`BrokerError`]; what was created for serving is removed again, what is
/// durable stays.
pub fn run(
    options: BrokerOptions,
    supervisor: &Supervisor,
    on_ready: impl FnOnce(&Serving),
) -> Result<(), BrokerError> {
    options.config.check()?;
    let started = clock::now();
    let paths = Paths::of(&options);
    let mut warnings = Vec::new();
    paths.create(&mut warnings)?;
    let mut lock = StateLock::acquire(&options.state_dir).map_err(|error| match error {
        LockError::Held(holder) => {
            BrokerError::AlreadyRunning { state_dir: options.state_dir.clone(), holder }
        }
        LockError::Failed { path, error } => BrokerError::File { path, error },
    })?;
    paths.check(&mut warnings)?;
    leftovers::remove(&options.state_dir);
    leftovers::remove(&paths.handshakes);
    let mut holder =
        Holder { pid: Some(std::process::id()), started_at: Some(started.wall), listen: Vec::new() };
    describe(&mut lock, &holder, &mut warnings);
    let mut signals = Signals::catch().map_err(internal("catching signals"))?;
    let (store, restored) = restore(&options.state_dir, &paths.handshakes, started.wall, &mut warnings)?;

    let mut net = MioNet::new().map_err(internal("creating a poller"))?;
    net.watch_signals(&mut signals).map_err(internal("watching signals"))?;
    let mut sockets = Created::default();
    let mut doors = Vec::new();
    let mut listen = Vec::new();
    let mut add = |bound: crate::listen::Bound, net: &mut MioNet| {
        bound.path.iter().for_each(|path| sockets.add(path));
        let via = bound.via;
        let id = net.listen(bound).map_err(internal("watching a listener"))?;
        doors.push((id, via));
        Ok::<_, BrokerError>(())
    };
    let mut links = Vec::new();
    for address in &options.listen {
        links.push(supervisor.listen_on(address, &mut warnings)?);
    }
    links.extend(supervisor.more_links(&mut warnings));
    let manager = supervisor.listen_for_manager(options.manager, &mut warnings)?;
    for mut bound in links {
        if manager.is_some() {
            bound.tell_local();
        }
        listen.push(bound.address.clone());
        add(bound, &mut net)?;
    }
    let mut config = options.config.clone();
    config.manager.http = None;
    if let Some((bound, address)) = manager {
        config.manager.http = Some(address);
        listen.push(bound.address.clone());
        add(bound, &mut net)?;
    }
    for bound in supervisor.listen_for_clients(&paths.control, &mut warnings)? {
        add(bound, &mut net)?;
    }
    supervisor.let_go(&mut warnings);
    holder.listen.clone_from(&listen);
    describe(&mut lock, &holder, &mut warnings);

    fill_identity(&mut config, &options.state_dir, &listen, started.wall);
    let connections_max = connections_max();
    // Half of the descriptors are for guests that proved themselves.
    config.half_open_max = config.half_open_max.min(connections_max / 2).max(1);
    let reader = ConfigReader {
        path: options.config_file.clone().unwrap_or_else(|| options.state_dir.join(CONFIG_FILE)),
        needed: options.config_file.is_some(),
        base: config,
        settings: options.settings.clone(),
        commands: Arc::default(),
        fresh: Arc::default(),
    };
    let config = read_config(&reader, &mut warnings)?;
    let starts = Starts::new(
        Arc::clone(&reader.commands),
        options.launcher.clone(),
        std::path::absolute(&options.state_dir).map_err(file_error(&options.state_dir))?,
        paths.log.parent().unwrap_or(Path::new("")).to_owned(),
    );
    let (recording, sink) =
        options.record.as_deref().map(|path| record::start(path, net.waker(), false)).transpose()?.unzip();
    let files = paths.work_files(reader.clone(), options.echo);
    let work = ThreadWork::new(Some(Box::new(store)), Some(files), net.waker())
        .map_err(internal("starting workers"))?
        .with_starts(starts);
    let terminals = options.terminals.map(TerminalsThread::start).transpose().map_err(Box::new)?;
    if let Some((_, serving)) = &terminals {
        warnings.extend(serving.warnings.iter().cloned());
    }
    let mut seed = Zeroizing::new([0; 32]);
    fill_random(&mut *seed).map_err(internal("drawing a seed"))?;
    let hooks = options.on_change.clone().map(|command| {
        let state_dir = std::path::absolute(&options.state_dir).map_err(file_error(&options.state_dir))?;
        let logs = paths.log.parent().unwrap_or(Path::new("")).to_owned();
        Hooks::start(HookOptions { command, state_dir, logs })
            .map_err(internal("starting a thread for hooks"))
    });
    let hooks = hooks.transpose()?;
    let engine = Recorded::broker(config, restored, Seed::Seeded(*seed), clock::now(), sink);
    let shell_options = ShellOptions {
        doors,
        connections_max,
        log_prefix: Some("host-broker"),
        observe: hooks.is_some(),
        ..ShellOptions::default()
    };
    let mut shell = Shell::new(engine, net, work, shell_options);

    write_whole(&paths.pid, format!("{}\n", std::process::id()).as_bytes(), false)
        .map_err(|error| BrokerError::File { path: paths.pid.clone(), error })?;
    let pid = Created::one(&paths.pid);
    let now = clock::now();
    shell.log(now, Level::Info, &format!("listening on {}", listen.join(" ")));
    if let Some(path) = &options.record {
        warnings.push(format!("recording to {}, which holds every key: keep it secret", path.display()));
    }
    for warning in &warnings {
        shell.log(now, Level::Warn, warning);
    }
    supervisor.ready(&format!("serving on {}", listen.join(" ")));
    on_ready(&Serving { listen, control: paths.control.clone(), pid: std::process::id(), warnings });

    let mut service = Service {
        shell: &mut shell,
        signals: Some(&mut signals),
        stopper: None,
        recording: recording.as_ref(),
        supervisor,
    };
    let ended = service.run(|| reader.take(), |event| hooks.iter().for_each(|hooks| hooks.event(event)));
    // Where lines still wait, the disk or whoever reads stderr had its time.
    let patience = if shell.settled() { LAST_JOBS } else { Duration::ZERO };
    let (mut engine, net, work) = shell.into_parts();
    engine.finish();
    drop(engine);
    drop(hooks);
    let terminals = terminals.map_or(Ok(()), |(terminals, _)| terminals.stop());
    // In this order: as long as we listen, nobody takes the file for a stale one
    // and puts its own in its place.
    drop(sockets);
    drop(net);
    if matches!(ended, Ok(Ended::Drained)) {
        work.stop(patience);
    }
    if let Some(recording) = recording {
        let cut_short = matches!(ended, Ok(Ended::Signalled(_)));
        recording.stop(if cut_short { LAST_LINES } else { LAST_JOBS });
    }
    drop(pid);
    match ended {
        Ok(Ended::Drained) => terminals.map_err(|error| Box::new(error).into()),
        Ok(Ended::Signalled(number)) => Err(BrokerError::Signalled(number)),
        Err(error) => Err(BrokerError::Internal { what: "waiting for the network", error }),
    }
}

fn restore(
    state_dir: &Path,
    handshakes: &Path,
    now: castra_core::time::WallTime,
    warnings: &mut Vec<String>,
) -> Result<(Store, Restored), BrokerError> {
    let (store, found) = Store::open(state_dir, now)?;
    if let Some((aside, damage)) = found.set_aside {
        warnings.push(format!(
            "the database was damaged ({damage}) and is set aside as {}: tokens issued so far are not known \
             any more, nor are peers, messages and attachments; {}",
            aside.display(),
            again(&found.tokens)
        ));
    }
    if found.vanished {
        warnings.push(format!(
            "the database {} is gone or empty, though a broker has run here before: tokens issued so far are \
             not known any more, nor are peers, messages and attachments; put a copy back, or {}",
            state_dir.join(DATABASE_FILE).display(),
            again(&found.tokens)
        ));
    }
    let last_seen = read_records(handshakes, warnings).map_err(file_error(handshakes))?;
    Ok((
        store,
        Restored {
            incarnation: found.incarnation,
            tokens: found.tokens,
            last_seen,
            peers: found.peers,
            manager: found.manager,
        },
    ))
}

/// What to do about tokens that are lost.
fn again(keyed: &[(GuestName, Option<Key>)]) -> String {
    let count = keyed.len();
    format!(
        "nobody is believed under the {count} names that had one until it is issued anew \
         (`castra token list`, `castra token issue NAME`)"
    )
}

/// What the command line and the file say together.
fn read_config(reader: &ConfigReader, warnings: &mut Vec<String>) -> Result<BrokerConfig, BrokerError> {
    reader.read()?;
    if is_writable_by_others(&reader.path).unwrap_or(false) {
        warnings.push(format!(
            "{} can be written by others, and what it says is run as this user: give it mode 0600",
            reader.path.display()
        ));
    }
    Ok(reader.take().unwrap_or_else(|| reader.base.clone()))
}

fn describe(lock: &mut StateLock, holder: &Holder, warnings: &mut Vec<String>) {
    if let Err(error) = lock.describe(holder) {
        warnings.push(format!("the lock file can't say who holds it: {error}"));
    }
}

fn fill_identity(
    config: &mut BrokerConfig,
    state_dir: &Path,
    listen: &[String],
    started_at: castra_core::time::WallTime,
) {
    let identity = &mut config.identity;
    if identity.version.is_empty() {
        env!("CARGO_PKG_VERSION").clone_into(&mut identity.version);
    }
    identity.pid = std::process::id();
    identity.uid = rustix::process::geteuid().as_raw();
    identity.state_dir = state_dir.display().to_string();
    identity.listen = listen.to_vec();
    identity.started_at = started_at;
}

/// As many connections as descriptors allow, after raising the soft limit.
pub(crate) fn connections_max() -> usize {
    let limit = getrlimit(Resource::Nofile);
    // A refusal leaves the old limit, which is then read again.
    let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum });
    let descriptors = getrlimit(Resource::Nofile).current.unwrap_or(1 << 20);
    usize::try_from(descriptors.saturating_sub(DESCRIPTORS_KEPT)).unwrap_or(usize::MAX).max(8)
}

/// Fills `bytes` from the operating system.
pub(crate) fn fill_random(bytes: &mut [u8]) -> io::Result<()> {
    let mut filled = 0;
    while filled < bytes.len() {
        filled += rustix::rand::getrandom(&mut bytes[filled..], rustix::rand::GetRandomFlags::empty())?;
    }
    Ok(())
}
