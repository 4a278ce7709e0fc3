//! The daemon's side of terminals: a connection to the holder, and a thread for each
//! terminal that brings its output, feeds its screen model and carries out what is
//! asked of it.
//!
//! A thread brings output only when it is told to ([`Porter::grant`]), so a program
//! writes no faster than somebody reads. Nothing here wakes up unless something happens.

mod birth;
mod desk;
mod directory;
mod launch;
mod link;
mod memory;
mod model;
mod output;
mod terminal;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use castra_core::boundary::{EffectError, EffectErrorKind};
use castra_core::id::TerminalId;
use castra_core::terminals::{Deed, Exit, Held, News};

use crate::terminals::holder::process::Arguments;
use crate::terminals::holder::wire::{PACKET_MAX, Report, Request};
use crate::work::{JobId, Outcome};
use desk::{Desk, Mail};
use link::{Answer, HeldTerminal, Link};

pub use link::PorterError;
pub use model::{MakeModel, Model};

/// Address space for the stack of a terminal's thread.
const STACK_BYTES: usize = 1024 * 1024;

/// Hears news and results, on any thread, in order for each terminal:
/// [`Outcome::Terminal`] for [`JobId::Terminal`], [`Outcome::Finished`] for a deed's own.
/// Must not block, and must not drop the [`Porter`].
pub type Tell = Arc<dyn Fn(JobId, Outcome) + Send + Sync>;

/// How to look after terminals.
#[derive(Clone)]
pub struct Options {
    /// Where the holder listens; absolute.
    pub socket: PathBuf,
    /// The program and its first arguments that start a holder, like
    /// `/proc/self/exe terminals-holder`; what
    /// [`options_of`](crate::terminals::holder::process::options_of) gives follows,
    /// and `--detach`.
    pub launcher: Vec<OsString>,
    /// For a holder that is started: bytes of output kept for each terminal.
    pub ring: u64,
    /// For a holder that is started: how long it waits without a terminal and a daemon.
    pub linger: Duration,
    /// For a holder that is started: where its last words go.
    pub log: Option<PathBuf>,
    /// What every program gets of an environment.
    pub environment: Vec<(OsString, OsString)>,
    /// The screen model; `None`: no snapshots.
    pub model: Option<MakeModel>,
    /// Lines of history in the snapshots that are stored for the next daemon.
    pub stored_history: u32,
}

/// Looks after terminals; dropped, it leaves them to the holder.
pub struct Porter {
    shared: Arc<Shared>,
}

impl std::fmt::Debug for Porter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Porter")
    }
}

struct Shared {
    options: Options,
    tell: Tell,
    /// Numbers requests over all connections, from 1.
    seq: AtomicU64,
    inner: Mutex<Inner>,
    /// Held while connecting.
    link: Mutex<Connected>,
}

#[derive(Default)]
struct Inner {
    desks: BTreeMap<u32, Arc<Desk>>,
    /// Whom a request's answer is for.
    waiting: BTreeMap<u64, Arc<Desk>>,
    threads: Vec<JoinHandle<()>>,
    closing: bool,
}

#[derive(Default)]
struct Connected {
    link: Option<Arc<Link>>,
    count: u64,
    replaced: bool,
}

impl Porter {
    /// Connects to the holder, starting one if none is there, and says what it has.
    /// Blocks, at most some 5 s. The held ones wait for [`Deed::Adopt`].
    ///
    /// # Errors
    /// There is no holder to be had.
    pub fn open(options: Options, tell: Tell) -> Result<(Self, Vec<Held>), PorterError> {
        let shared = Arc::new(Shared {
            options,
            tell,
            seq: AtomicU64::new(1),
            inner: Mutex::default(),
            link: Mutex::default(),
        });
        let it = Self { shared };
        let mut list = Vec::new();
        let (link, held) = it.shared.connect(&mut locked(&it.shared.link))?;
        for one in held {
            list.push(Held {
                terminal: TerminalId(one.terminal),
                pid: one.pid,
                start_time: one.start_time,
                pts: one.pts.clone(),
                cols: one.size.0,
                rows: one.size.1,
                first: one.first,
                end: one.end,
            });
            let desk = it.shared.desk(one.terminal, Some((Arc::clone(&link), one)));
            desk.map_err(PorterError::Resources)?;
        }
        it.shared.listen(&link).map_err(PorterError::Resources)?;
        Ok((it, list))
    }

    /// Does something to a terminal. Never blocks; what is done to one terminal keeps
    /// its order, and `id` gets exactly one [`Outcome::Finished`].
    pub fn submit(&self, id: JobId, terminal: TerminalId, deed: Deed) {
        let mut inner = locked(&self.shared.inner);
        let known = inner.desks.get(&terminal.0).cloned();
        let desk = match known {
            Some(desk) => Ok(desk),
            None if matches!(deed, Deed::Spawn { .. }) => {
                self.shared.desk_in(&mut inner, terminal.0, None).map_err(|error| error.to_string())
            }
            None => Err(format!("there is no terminal {terminal}")),
        };
        match desk {
            // Under the lock: its thread may be about to leave.
            Ok(desk) => desk.post(Mail::Deed(id, deed)),
            Err(message) => {
                drop(inner);
                let error = EffectError { kind: EffectErrorKind::Terminal, message };
                (self.shared.tell)(id, Outcome::Finished(Err(error)));
            }
        }
    }

    /// Lets a terminal bring output once, at most `bytes`. Never blocks.
    pub fn grant(&self, terminal: TerminalId, bytes: usize) {
        if let Some(desk) = locked(&self.shared.inner).desks.get(&terminal.0) {
            desk.grant(bytes);
        }
    }

    /// Ends the holder and every program it has: they are hung up, and killed 3 s later.
    /// May block a moment. Their ends are still told.
    pub fn end_all(&self) {
        let link = locked(&self.shared.link).link.clone();
        if let Some(link) = link {
            let _ = link.send(&Request::End, Vec::new());
        }
    }
}

impl Drop for Porter {
    fn drop(&mut self) {
        locked(&self.shared.inner).closing = true;
        if let Some(link) = locked(&self.shared.link).link.take() {
            link.close();
        }
        loop {
            let (desks, threads) = {
                let mut inner = locked(&self.shared.inner);
                (inner.desks.values().cloned().collect::<Vec<_>>(), std::mem::take(&mut inner.threads))
            };
            if threads.is_empty() {
                return;
            }
            desks.iter().for_each(|desk| desk.stop());
            for thread in threads {
                let _ = thread.join();
            }
        }
    }
}

impl Shared {
    /// The connection, a new one if the last is over. Blocks.
    fn link(self: &Arc<Self>) -> Result<Arc<Link>, PorterError> {
        let mut connected = locked(&self.link);
        if let Some(link) = connected.link.as_ref().filter(|link| !link.is_over()) {
            return Ok(Arc::clone(link));
        }
        let (link, strays) = self.connect(&mut connected)?;
        for stray in strays {
            // Its loss was told already.
            let terminal = stray.terminal;
            let _ = link.send(&Request::Kill { seq: 0, terminal }, Vec::new());
            let _ = link.send(&Request::Release { seq: 0, terminal }, Vec::new());
        }
        self.listen(&link).map_err(PorterError::Resources)?;
        Ok(link)
    }

    fn connect(&self, connected: &mut Connected) -> Result<(Arc<Link>, Vec<HeldTerminal>), PorterError> {
        if connected.replaced || locked(&self.inner).closing {
            return Err(PorterError::Replaced);
        }
        let options = &self.options;
        let arguments = Arguments {
            socket: options.socket.clone(),
            ring: options.ring,
            linger: options.linger,
            log: options.log.clone(),
        };
        connected.count += 1;
        let (link, held) = Link::open(connected.count, &options.launcher, &arguments)?;
        let link = Arc::new(link);
        connected.link = Some(Arc::clone(&link));
        Ok((link, held))
    }

    /// Starts the thread that hears the holder.
    fn listen(self: &Arc<Self>, link: &Arc<Link>) -> io::Result<()> {
        let (it, link) = (Arc::clone(self), Arc::clone(link));
        let builder = thread::Builder::new().name("castra-holder".to_owned()).stack_size(STACK_BYTES);
        let theirs = Arc::clone(&link);
        match builder.spawn(move || it.hear(&theirs)) {
            Ok(thread) => locked(&self.inner).threads.push(thread),
            Err(error) => {
                link.close();
                return Err(error);
            }
        }
        Ok(())
    }

    fn hear(&self, link: &Link) {
        let mut buffer = Box::new([0; PACKET_MAX]);
        let mut why = "the holder of the terminals is gone";
        while let Some((report, descriptors)) = link.receive(&mut buffer) {
            let (seq, answer) = match report {
                Report::Done { seq } => (seq, Answer::Done),
                Report::Refused { seq, kind, message } => (seq, Answer::refused(kind, message)),
                Report::Spawned { seq, pid, start_time, pts } => {
                    (seq, Answer::Spawned { pid, start_time, pts, descriptors })
                }
                Report::Exited { terminal, code, signal, end } => {
                    if let Some(desk) = locked(&self.inner).desks.get(&terminal) {
                        desk.post(Mail::Exit(Exit { code, signal }, end));
                    }
                    continue;
                }
                Report::Replaced => {
                    locked(&self.link).replaced = true;
                    why = "another daemon took the terminals over";
                    continue;
                }
                _ => continue,
            };
            let waiting = locked(&self.inner).waiting.remove(&seq);
            if let Some(desk) = waiting {
                desk.post(Mail::Answer(seq, answer));
            }
        }
        let inner = locked(&self.inner);
        if !inner.closing {
            for desk in inner.desks.values() {
                desk.post(Mail::Lost(link.number, why.to_owned()));
            }
        }
    }

    /// A new number for a request.
    fn number(&self) -> u64 {
        self.seq.fetch_add(1, Ordering::Relaxed)
    }

    fn desk(self: &Arc<Self>, terminal: u32, held: Option<(Arc<Link>, HeldTerminal)>) -> io::Result<()> {
        let mut inner = locked(&self.inner);
        self.desk_in(&mut inner, terminal, held).map(drop)
    }

    /// A new terminal's desk, and a thread at it.
    fn desk_in(
        self: &Arc<Self>,
        inner: &mut Inner,
        terminal: u32,
        held: Option<(Arc<Link>, HeldTerminal)>,
    ) -> io::Result<Arc<Desk>> {
        let desk = Arc::new(Desk::new()?);
        let (it, its) = (Arc::clone(self), Arc::clone(&desk));
        let builder = thread::Builder::new().name(format!("castra-tty-{terminal}")).stack_size(STACK_BYTES);
        let thread = builder.spawn(move || terminal::run(it, terminal, its, held))?;
        inner.threads.retain(|thread| !thread.is_finished());
        inner.threads.push(thread);
        inner.desks.insert(terminal, Arc::clone(&desk));
        Ok(desk)
    }

    /// Removes a desk at which nothing is left to do; false: there is.
    fn leave(&self, terminal: u32, desk: &Arc<Desk>) -> bool {
        let mut inner = locked(&self.inner);
        let empty = desk.is_empty();
        if empty {
            inner.desks.remove(&terminal);
        }
        empty
    }

    fn news(&self, terminal: u32, news: News<'static>) {
        (self.tell)(JobId::Terminal(TerminalId(terminal)), Outcome::Terminal(news));
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
