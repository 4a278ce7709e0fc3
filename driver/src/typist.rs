//! Types into terminals that this process hosts: a client of its own daemon, which takes
//! a terminal that nobody owns, never one of somebody else, and lets it go again.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use castra_core::boundary::{EffectError, EffectErrorKind, Typed};
use castra_core::terminals::wire::{ErrorCode, Request, Secret};

use crate::pool::{Call, Next, Pool, Worker};
use crate::terminals::client::{Client, ClientError, RETRY, Reply};
use crate::terminals::porter::Tell;
use crate::work::{JobId, Outcome};

/// Bytes of one `input`.
const INPUT: usize = 32 * 1024;
/// Nothing to type for so long: people can have their terminals.
const LET_GO: Duration = Duration::from_secs(1);
/// How long letting go may take.
const LETTING_GO: Duration = Duration::from_secs(5);

/// One thread, started with the first job, that types in the order asked for.
#[derive(Debug)]
pub(crate) struct Typist {
    pool: Pool<Typing>,
    socket: PathBuf,
}

/// What to type where.
struct Typing {
    terminal: String,
    bytes: Typed,
}

impl Typist {
    /// Types into the terminals behind `socket`.
    pub(crate) fn new(socket: PathBuf, tell: Tell) -> Self {
        Self { pool: Pool::new("castra-typist", 1, tell), socket }
    }

    pub(crate) fn submit(&self, id: JobId, terminal: String, bytes: Typed, patience: Duration) {
        let socket = self.socket.clone();
        self.pool.submit(id, Typing { terminal, bytes }, patience, move |worker| serve(worker, socket));
    }

    /// Ends a job; false: there is none of that name. What was typed of it stays typed.
    pub(crate) fn cancel(&self, id: JobId) -> bool {
        self.pool.cancel(id)
    }
}

fn serve(mut worker: Worker<Typing>, socket: PathBuf) {
    let mut hand = Hand { socket, client: None, names: BTreeMap::new(), owned: BTreeSet::new() };
    loop {
        match worker.next((!hand.owned.is_empty()).then_some(LET_GO), false) {
            Next::Job(typing, call) => {
                let typed = hand.type_in(&typing, &call);
                worker.done(&call, Outcome::Finished(typed));
            }
            Next::Idle => hand.let_go(),
            Next::Closed => return,
        }
    }
}

/// The connection and what is known of the terminals behind it.
struct Hand {
    socket: PathBuf,
    client: Option<Client>,
    /// Running terminals by name, as far as they were asked for. A number is never given again.
    names: BTreeMap<String, u32>,
    /// What may be ours.
    owned: BTreeSet<u32>,
}

/// Why something was not typed, and whether some of it may have been.
struct Trouble {
    error: ClientError,
    partly: bool,
}

impl Hand {
    fn type_in(&mut self, typing: &Typing, call: &Call) -> Result<(), EffectError> {
        let name = &typing.terminal;
        self.connect(call)?;
        loop {
            let (session, known) = self.find(name, call)?;
            let Err(trouble) = self.type_all(session, &typing.bytes.0, call) else { return Ok(()) };
            if refused(&trouble.error) == Some(ErrorCode::NotFound) && !trouble.partly {
                self.names.remove(name);
                self.owned.remove(&session);
                // Another one may have its name since.
                if known {
                    continue;
                }
            }
            return Err(self.explain(name, trouble));
        }
    }

    fn connect(&mut self, call: &Call) -> Result<(), EffectError> {
        if self.client.as_mut().is_some_and(Client::is_open) {
            return Ok(());
        }
        self.hang_up();
        let id = format!("castra-actions:{}", std::process::id());
        match Client::open(&self.socket, &id, call) {
            Ok(client) => self.client = Some(client),
            Err(ClientError::Io(error)) => {
                let kind = kind_of(&error).unwrap_or(EffectErrorKind::Unreachable);
                let message = format!("no terminals at {}: {error}", self.socket.display());
                return Err(EffectError { kind, message });
            }
            Err(error) => {
                let message = format!("the terminals at {} refuse: {error}", self.socket.display());
                return Err(EffectError { kind: EffectErrorKind::Unreachable, message });
            }
        }
        Ok(())
    }

    /// The running terminal of that name, and whether it was known.
    fn find(&mut self, name: &str, call: &Call) -> Result<(u32, bool), EffectError> {
        if let Some(session) = self.names.get(name) {
            return Ok((*session, true));
        }
        let listed = self.ask(&Request::List, call);
        let listed = listed.map_err(|error| self.explain(name, Trouble { error, partly: false }))?;
        let found = listed.running.into_iter().find(|(key, _)| key == name);
        let (key, session) = found.ok_or_else(|| {
            let message = format!("no terminal {name} runs here");
            EffectError { kind: EffectErrorKind::ProgramMissing, message }
        })?;
        self.names.insert(key, session);
        Ok((session, false))
    }

    fn type_all(&mut self, session: u32, bytes: &[u8], call: &Call) -> Result<(), Trouble> {
        // Nothing at all is typed too: the terminal has to be there.
        let nothing = bytes.is_empty().then_some(bytes);
        for (at, chunk) in bytes.chunks(INPUT).chain(nothing).enumerate() {
            let request = Request::Input { session, data: Secret(chunk) };
            loop {
                self.owned.insert(session);
                let Err(error) = self.ask(&request, call) else { break };
                let unsure = !matches!(error, ClientError::Refused { .. });
                let trouble = Trouble { error, partly: at > 0 || unsure };
                // Its program doesn't read: what waits for it may be less in a moment.
                if refused(&trouble.error) != Some(ErrorCode::LimitReached) {
                    return Err(trouble);
                }
                let pause = call.wait_until(None, Instant::now() + RETRY);
                pause.map_err(|error| Trouble { error: error.into(), partly: at > 0 })?;
            }
        }
        Ok(())
    }

    fn ask(&mut self, request: &Request<'_>, call: &Call) -> Result<Reply, ClientError> {
        let Some(client) = &mut self.client else {
            return Err(io::Error::from(io::ErrorKind::NotConnected).into());
        };
        let asked = client.ask(request, call);
        if !matches!(asked, Ok(_) | Err(ClientError::Refused { .. })) {
            // A part of a frame may be on its way, or an answer that nobody waits for.
            self.hang_up();
        }
        asked
    }

    /// Gives back what may be ours.
    fn let_go(&mut self) {
        let call = Call::alone(LETTING_GO);
        while let Some(session) = self.owned.pop_first() {
            // Without a connection the daemon lets go by itself.
            if self.ask(&Request::Detach { session }, &call).is_err() && self.client.is_none() {
                return;
            }
        }
    }

    fn hang_up(&mut self) {
        self.client = None;
        self.names.clear();
        self.owned.clear();
    }

    fn explain(&self, name: &str, trouble: Trouble) -> EffectError {
        let Trouble { error, partly } = trouble;
        let kind = match &error {
            ClientError::Io(error) => kind_of(error).unwrap_or(EffectErrorKind::Terminal),
            _ if partly => EffectErrorKind::Terminal,
            ClientError::Protocol(_) => EffectErrorKind::Unreachable,
            error => match refused(error) {
                Some(ErrorCode::NotFound | ErrorCode::SessionTerminating) => EffectErrorKind::ProgramMissing,
                Some(ErrorCode::OwnerRequired) => EffectErrorKind::Owned,
                _ => EffectErrorKind::Terminal,
            },
        };
        let message = match kind {
            EffectErrorKind::Owned => format!("somebody else owns the terminal {name}"),
            EffectErrorKind::TimedOut => format!("the program of terminal {name} didn't take it in time"),
            _ if partly => format!("perhaps only a part was typed into terminal {name}: {error}"),
            _ => format!("terminal {name}: {error}"),
        };
        EffectError { kind, message }
    }
}

const fn refused(error: &ClientError) -> Option<ErrorCode> {
    if let ClientError::Refused { code, .. } = error { *code } else { None }
}

/// The kind of what ended a wait; `None`: the connection did.
fn kind_of(error: &io::Error) -> Option<EffectErrorKind> {
    match error.kind() {
        io::ErrorKind::TimedOut => Some(EffectErrorKind::TimedOut),
        io::ErrorKind::ConnectionAborted => Some(EffectErrorKind::Cancelled),
        _ => None,
    }
}

#[cfg(test)]
#[path = "typist_tests.rs"]
mod tests;
