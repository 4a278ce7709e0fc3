//! A proxy that does to a connection what networks do: it delays, holds, splits,
//! joins, ends one direction, drops and resets, as a seed says.
//!
//! Each connection has its own source of choices, made of the proxy's seed and the
//! connection's number; so the same seed brings the same faults in the same order,
//! and what differs between two runs is only when the programs speak.

mod connection;
mod plan;

use std::io;
use std::net::{TcpListener, TcpStream};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::thread::JoinHandle;
use std::time::Duration;

use connection::Connection;
use plan::Plan;
pub(crate) use plan::{Fault, Profile, Random};

/// Stands between whoever connects to `address` and a server.
pub(crate) struct FaultProxy {
    /// Where to connect instead of the server.
    pub(crate) address: String,
    shared: Arc<Shared>,
    accepting: Option<JoinHandle<()>>,
    listener: Arc<Listener>,
}

enum Listener {
    Tcp(TcpListener),
    Unix(UnixListener, PathBuf),
}

/// What all connections of a proxy have in common.
struct Shared {
    profile: Profile,
    seed: u64,
    /// Like `tcp:HOST:PORT` or `unix:PATH`.
    target: Mutex<String>,
    /// From now on nothing is done to anybody.
    peace: AtomicBool,
    connections: AtomicU64,
    faults: [AtomicU64; Fault::ALL.len()],
    /// When something of the clients' reached the server (wall clock, in milliseconds).
    passed: Mutex<Vec<i64>>,
    /// The threads have them: an end is closed when its threads are done with it.
    live: Mutex<Vec<Live>>,
}

/// A connection, if it is still there, and its threads.
type Live = (Weak<Connection>, Vec<JoinHandle<()>>);

impl FaultProxy {
    /// In front of `target`, which need not be there yet; `folder` is for a socket of its own.
    pub(crate) fn new(target: &str, profile: Profile, seed: u64, folder: &Path) -> io::Result<Self> {
        let (listener, address) = match target.strip_prefix("unix:") {
            Some(_) => {
                let path = folder.join(format!("proxy-{seed:016x}.sock"));
                let address = format!("unix:{}", path.display());
                (Listener::Unix(UnixListener::bind(&path)?, path), address)
            }
            None => {
                let listener = TcpListener::bind("127.0.0.1:0")?;
                let address = format!("tcp:{}", listener.local_addr()?);
                (Listener::Tcp(listener), address)
            }
        };
        let shared = Arc::new(Shared {
            profile,
            seed,
            target: Mutex::new(target.to_owned()),
            peace: AtomicBool::new(false),
            connections: AtomicU64::new(0),
            faults: [const { AtomicU64::new(0) }; Fault::ALL.len()],
            passed: Mutex::default(),
            live: Mutex::default(),
        });
        let listener = Arc::new(listener);
        let (door, inner) = (Arc::clone(&listener), Arc::clone(&shared));
        let accepting = std::thread::spawn(move || {
            while let Ok(near) = door.accept() {
                inner.lead(near);
            }
        });
        Ok(Self { address, shared, accepting: Some(accepting), listener })
    }

    /// The server is elsewhere, for whoever connects from now on.
    pub(crate) fn lead_to(&self, target: &str) {
        target.clone_into(&mut lock(&self.shared.target));
    }

    /// The faults end: what is held is released, and connections are left alone from now on.
    pub(crate) fn make_peace(&self) {
        self.shared.peace.store(true, Ordering::SeqCst);
    }

    /// How many connections there were.
    pub(crate) fn connections(&self) -> u64 {
        self.shared.connections.load(Ordering::SeqCst)
    }

    /// How often each fault happened.
    pub(crate) fn faults(&self) -> Vec<(Fault, u64)> {
        Fault::ALL.iter().map(|fault| (*fault, self.shared.count(*fault).load(Ordering::SeqCst))).collect()
    }

    /// The last time at or before `at` when something of the clients' reached the server.
    pub(crate) fn last_passed(&self, at: i64) -> Option<i64> {
        lock(&self.shared.passed).iter().copied().filter(|time| *time <= at).max()
    }
}

impl Drop for FaultProxy {
    fn drop(&mut self) {
        // Wakes the accepting thread.
        let _ = rustix::net::shutdown(self.listener.as_fd(), rustix::net::Shutdown::Both);
        let _ = self.accepting.take().map(JoinHandle::join);
        let live = std::mem::take(&mut *lock(&self.shared.live));
        for connection in live.iter().filter_map(|(connection, _)| connection.upgrade()) {
            connection.end(false);
        }
        for (_, threads) in live {
            threads.into_iter().for_each(|thread| drop(thread.join()));
        }
        if let Listener::Unix(_, path) = &*self.listener {
            let _ = std::fs::remove_file(path);
        }
    }
}

impl Shared {
    fn count(&self, fault: Fault) -> &AtomicU64 {
        &self.faults[fault as usize]
    }

    fn happened(&self, fault: Fault) {
        self.count(fault).fetch_add(1, Ordering::SeqCst);
    }

    fn is_peace(&self) -> bool {
        self.peace.load(Ordering::SeqCst)
    }

    /// Connects to the server, and lets the threads of this connection run.
    fn lead(self: &Arc<Self>, near: OwnedFd) {
        let number = self.connections.fetch_add(1, Ordering::SeqCst);
        let target = lock(&self.target).clone();
        let Ok(far) = connect(&target) else { return };
        let profile = if self.is_peace() { Profile::Slow } else { self.profile };
        let plan = Plan::new(profile, Random::new(self.seed).fork(number), number);
        let Ok((connection, threads)) = Connection::start(near, far, plan, self) else { return };
        let mut live = lock(&self.live);
        live.retain(|(_, threads)| !threads.iter().all(JoinHandle::is_finished));
        live.push((Arc::downgrade(&connection), threads));
    }
}

impl Listener {
    fn accept(&self) -> io::Result<OwnedFd> {
        match self {
            Self::Tcp(listener) => {
                let stream = listener.accept()?.0;
                stream.set_nodelay(true)?;
                Ok(stream.into())
            }
            Self::Unix(listener, _) => Ok(listener.accept()?.0.into()),
        }
    }
}

impl AsFd for Listener {
    fn as_fd(&self) -> std::os::fd::BorrowedFd<'_> {
        match self {
            Self::Tcp(listener) => listener.as_fd(),
            Self::Unix(listener, _) => listener.as_fd(),
        }
    }
}

fn connect(target: &str) -> io::Result<OwnedFd> {
    if let Some(path) = target.strip_prefix("unix:") {
        return Ok(UnixStream::connect(path)?.into());
    }
    let stream = TcpStream::connect(target.strip_prefix("tcp:").unwrap_or(target))?;
    stream.set_nodelay(true)?;
    Ok(stream.into())
}

/// A test that failed must not hide what its proxies know.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// How long a thread waits before it looks whether something was decided meanwhile.
const GLANCE: Duration = Duration::from_millis(10);
