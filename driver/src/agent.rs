//! The agent as a process: what `castra agent` runs.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use castra_core::RestoredAgent;
use castra_core::config::AgentConfig;
use castra_core::event::{Event, Fact, LinkEnd};
use castra_core::id::GuestName;
use castra_core::trace::{Recorded, Seed};
use zeroize::Zeroizing;

use crate::address::ConnectAddress;
use crate::broker::{connections_max, fill_random};
use crate::clock;
use crate::created::Created;
use crate::database::Commit;
use crate::inbox::{INBOX_FILE, InboxFound, InboxStore};
use crate::listen::{ListenError, listen_for_clients};
use crate::mio_net::MioNet;
use crate::own::{is_writable_by_others, own_directory};
use crate::record::{self, RecordError};
use crate::service::{Ended, Service};
use crate::shell::{Shell, ShellOptions};
use crate::signals::Signals;
use crate::store::StoreError;
use crate::supervisor::Supervisor;
use crate::terminals::exec::{self, Exec, ExecError};
use crate::terminals::service::{TerminalsError, TerminalsOptions, TerminalsThread};
use crate::threads::ThreadWork;

/// How long the last messages may take to their disk.
const LAST_WRITES: Duration = Duration::from_secs(1);
/// A service manager that waits for a session waits no longer: a machine must come up though
/// its broker is away.
pub const READY_BY: Duration = Duration::from_secs(5);
/// How long the last lines of a recording may take.
const LAST_LINES: Duration = Duration::from_secs(1);

/// What an agent is told.
#[derive(Clone, Debug)]
pub struct AgentOptions {
    /// The protocol's side of it. `serial` follows the address; a `boot` of
    /// zeros is replaced by the kernel's boot id; `identity` is filled in,
    /// except a version that is set.
    pub config: AgentConfig,
    /// Where the broker is.
    pub connect: ConnectAddress,
    /// Where local clients find the agent; its directory is created (0700) if missing.
    pub socket: Option<PathBuf>,
    /// Where the guest's messages are kept. Without it, or with `once`, the
    /// configuration's `inbox` means nothing: the guest takes no part.
    pub inbox: Option<InboxPlace>,
    /// The socket of this guest's own terminals: the agent leads the broker's clients,
    /// and local ones, there. It need not be there yet.
    pub terminals: Option<PathBuf>,
    /// They are served here, on a thread of their own; in place of `terminals`. A manager's
    /// actions type into these alone.
    pub hosted: Option<TerminalsOptions>,
    /// What runs in one of the hosted ones, named [`exec::MAIN`], from the start; unless one
    /// of that name runs already.
    pub exec: Option<Exec>,
    /// A trace of everything goes to this file, which must not exist. It holds the guest's key.
    pub record: Option<PathBuf>,
}

/// A directory for an inbox; created (0700) if missing.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct InboxPlace {
    /// Which.
    pub directory: PathBuf,
    /// Somebody asked for it: if it can't be used there is no agent. Otherwise
    /// there is one without an inbox, and a warning.
    pub required: bool,
}

/// How an agent ended in good order.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum AgentEnd {
    /// A single proof was asked for (`once`) and was accepted.
    Proven,
    /// It was told to stop, or could not prove itself once (see its events).
    Stopped,
}

/// Why there is no agent (any more).
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AgentError {
    /// The local socket can't be listened on: usage.
    #[error(transparent)]
    Listen(#[from] ListenError),
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
    /// The inbox can't be used.
    #[error("no inbox in {directory:?}: {error}; --inbox DIR chooses a place")]
    Inbox {
        /// Its directory.
        directory: PathBuf,
        /// Why.
        error: InboxError,
    },
    /// The guest's terminals can't be served.
    #[error(transparent)]
    Terminals(#[from] Box<TerminalsError>),
    /// The program that was to run in a terminal can't be started.
    #[error(transparent)]
    Exec(#[from] ExecError),
    /// There is no recording: usage, if the file exists.
    #[error(transparent)]
    Record(#[from] RecordError),
    /// The kernel refused something that it never should.
    #[error("{what} failed: {error}")]
    Internal {
        /// What.
        what: &'static str,
        /// Why.
        error: io::Error,
    },
    /// A second signal cut the leave-taking short; exit with 128 plus its number.
    #[error("stopped at once by a second signal ({0})")]
    Signalled(i32),
}

/// Why an inbox can't be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum InboxError {
    /// Two agents can't share one.
    #[error("another agent uses it")]
    Taken,
    /// It holds what another guest received.
    #[error("it is the inbox of {0}, and holds its messages")]
    OfAnother(String),
    /// Its directory can't be created or looked at.
    #[error("{0}")]
    Directory(io::Error),
    /// Its database can't be used.
    #[error("{0}")]
    Store(Box<StoreError>),
}

/// Keeps the guest proven until TERM or INT (or, with `once`, until it is done).
/// `on_ready` gets what the operator should know, once everything is open. Every
/// event goes to `on_event`, from the loop: it should be quick. `supervisor` hears that it
/// is ready with the first session, or after [`READY_BY`] without one.
///
/// # Errors
/// See [`AgentError`]. A broker that is away is no error: the agent dials again.
pub fn run(
    options: AgentOptions,
    supervisor: &Supervisor,
    on_ready: impl FnOnce(&[String]),
    mut on_event: impl FnMut(&Event),
) -> Result<AgentEnd, AgentError> {
    let AgentOptions { mut config, connect, socket, inbox, mut terminals, hosted, exec, record } = options;
    let mut warnings = Vec::new();
    let hosted = hosted.filter(|_| !config.once).map(TerminalsThread::start);
    let hosted = hosted.transpose().map_err(Box::new)?.map(|(thread, serving)| {
        warnings.extend(serving.warnings);
        terminals = Some(serving.socket);
        thread
    });
    let ours = terminals.clone().filter(|_| hosted.is_some());
    config.terminals = terminals.is_some() && !config.once;
    let (store, restored) = match inbox.filter(|_| config.inbox.is_some() && !config.once) {
        Some(place) => open_inbox(place, &config.name, &mut warnings)?,
        None => (None, RestoredAgent::default()),
    };
    config.inbox = config.inbox.filter(|_| store.is_some());
    let hosted = match (&ours, exec) {
        (Some(socket), Some(exec)) => start_program(hosted, socket, &exec)?,
        _ => hosted,
    };
    let mut net = MioNet::new().map_err(internal("creating a poller"))?;
    let mut signals = Signals::catch().map_err(internal("catching signals"))?;
    net.watch_signals(&mut signals).map_err(internal("watching signals"))?;
    supervisor.let_go(&mut warnings);
    let mut doors = Vec::new();
    let mut created = Created::default();
    if let Some(path) = &socket {
        if let Some(parent) = path.parent().filter(|parent| !parent.as_os_str().is_empty()) {
            own_directory(parent, &mut warnings)
                .map_err(|error| AgentError::Directory { path: parent.to_owned(), error })?;
        }
        let bound = listen_for_clients(path)?;
        created.add(path);
        let via = bound.via;
        doors.push((net.listen(bound).map_err(internal("watching a listener"))?, via));
    }
    fill_config(&mut config, &connect, socket.as_deref()).map_err(internal("drawing a boot id"))?;
    let once = config.once;
    let mut work = ThreadWork::new(store, None, net.waker()).map_err(internal("starting workers"))?;
    if let Some(socket) = ours {
        work = work.with_typist(socket);
    }
    let broker = connect.to_string();
    let mut seed = Zeroizing::new([0; 32]);
    fill_random(&mut *seed).map_err(internal("drawing a seed"))?;
    let (recording, sink) = record.map(|path| record::start(&path, net.waker(), true)).transpose()?.unzip();
    let engine = Recorded::agent(config, restored, Seed::Seeded(*seed), clock::now(), sink);
    let shell_options = ShellOptions {
        doors,
        dial: Some(connect),
        terminals,
        connections_max: connections_max(),
        observe: true,
        ..ShellOptions::default()
    };
    let mut shell = Shell::new(engine, net, work, shell_options);
    supervisor.status(&format!("dialling {broker}"));
    supervisor.ready_by(clock::now().boot + READY_BY);
    on_ready(&warnings);
    let mut proven = false;
    let mut service = Service {
        shell: &mut shell,
        signals: Some(&mut signals),
        stopper: None,
        recording: recording.as_ref(),
        supervisor,
    };
    let ended = service.run(
        || None,
        |event| {
            proven |= matches!(event.fact, Fact::LinkDown { reason: LinkEnd::Finished, .. });
            tell(supervisor, &broker, &event.fact);
            on_event(event);
        },
    );
    let (mut engine, net, work) = shell.into_parts();
    engine.finish();
    drop(engine);
    drop(created);
    drop(net);
    let hosted = hosted.map_or(Ok(()), TerminalsThread::stop);
    let cut_short = matches!(ended, Ok(Ended::Signalled(_)));
    work.stop(if cut_short { Duration::ZERO } else { LAST_WRITES });
    if let Some(recording) = recording {
        recording.stop(LAST_LINES);
    }
    match ended {
        Ok(Ended::Drained) if once && proven => Ok(AgentEnd::Proven),
        Ok(Ended::Drained) => hosted.map(|()| AgentEnd::Stopped).map_err(|error| Box::new(error).into()),
        Ok(Ended::Signalled(number)) => Err(AgentError::Signalled(number)),
        Err(error) => Err(AgentError::Internal { what: "waiting for the network", error }),
    }
}

/// Tells the service manager how the link is.
fn tell(supervisor: &Supervisor, broker: &str, fact: &Fact) {
    match fact {
        Fact::LinkUp { .. } => supervisor.ready(&format!("linked to {broker}")),
        Fact::LinkDown { reason, .. } => {
            supervisor.status(&format!("no link to {broker}: {}", reason.as_str()));
        }
        Fact::LinkRefused { code, .. } => supervisor.status(&format!("refused by {broker}: {code}")),
        Fact::BrokerUnproven { .. } => {
            supervisor.status(&format!("no link to {broker}: it does not know this guest's token"));
        }
        _ => {}
    }
}

/// The terminals, with the program in one of them; without it there are none.
fn start_program(
    hosted: Option<TerminalsThread>,
    socket: &Path,
    program: &Exec,
) -> Result<Option<TerminalsThread>, AgentError> {
    let Err(error) = exec::start(socket, program) else { return Ok(hosted) };
    // What made the program fail matters more than how its terminals end.
    let _ = hosted.map(TerminalsThread::stop);
    Err(error.into())
}

type Durable = (Option<Box<dyn Commit>>, RestoredAgent);

fn open_inbox(
    place: InboxPlace,
    guest: &GuestName,
    warnings: &mut Vec<String>,
) -> Result<Durable, AgentError> {
    let InboxPlace { directory, required } = place;
    let opened = own_directory(&directory, warnings)
        .and_then(|()| is_writable_by_others(&directory))
        .map_err(InboxError::Directory)
        .and_then(|open_to_all| match InboxStore::open(&directory, guest, clock::now().wall) {
            Ok((_, InboxFound { of_another: Some(name), .. })) => Err(InboxError::OfAnother(name)),
            Ok((store, found)) => Ok((store, found, open_to_all)),
            Err(StoreError::Database { error: redb::Error::DatabaseAlreadyOpen, .. }) => {
                Err(InboxError::Taken)
            }
            Err(error) => Err(InboxError::Store(error.into())),
        });
    let (store, InboxFound { restored, set_aside, of_another: _ }, open_to_all) = match opened {
        Ok(opened) => opened,
        Err(error) if required => return Err(AgentError::Inbox { directory, error }),
        Err(error) => {
            let error = AgentError::Inbox { directory, error };
            warnings.push(format!("this guest takes no part in peers and messages: {error}"));
            return Ok((None, RestoredAgent::default()));
        }
    };
    let shown = directory.display();
    if open_to_all {
        warnings.push(format!("the inbox directory {shown} can be written by others: give it mode 0700"));
    }
    if let Some((aside, damage)) = set_aside {
        warnings.push(format!(
            "the inbox {shown}/{INBOX_FILE} was damaged ({damage}) and is set aside as {}: its messages are \
             not shown any more, and one that comes again is taken for new",
            aside.display()
        ));
    }
    Ok((Some(Box::new(store)), restored))
}

fn fill_config(config: &mut AgentConfig, connect: &ConnectAddress, socket: Option<&Path>) -> io::Result<()> {
    config.serial = matches!(connect, ConnectAddress::Serial { .. });
    if config.boot == [0; 16] {
        config.boot = boot_id()?;
    }
    let identity = &mut config.identity;
    if identity.version.is_empty() {
        env!("CARGO_PKG_VERSION").clone_into(&mut identity.version);
    }
    identity.pid = std::process::id();
    identity.uid = rustix::process::geteuid().as_raw();
    identity.started_at = clock::now().wall;
    identity.state_dir =
        socket.and_then(Path::parent).map(|parent| parent.display().to_string()).unwrap_or_default();
    identity.listen = vec![connect.to_string()];
    Ok(())
}

/// Random per boot: the kernel's own id, or, where it is hidden, fresh bytes.
pub(crate) fn boot_id() -> io::Result<[u8; 16]> {
    let mut boot = [0; 16];
    let text = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    let digits: Vec<u8> = text.bytes().filter(u8::is_ascii_hexdigit).collect();
    match castra_core::hex::decode(&digits) {
        Ok(id) => boot = id,
        Err(_) => fill_random(&mut boot)?,
    }
    Ok(boot)
}

fn internal(what: &'static str) -> impl FnOnce(io::Error) -> AgentError {
    move |error| AgentError::Internal { what, error }
}
