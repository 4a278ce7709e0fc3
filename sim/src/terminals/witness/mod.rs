//! Holds what the engine does against its promises, at its boundary: after every
//! event, with what the host knows and the engine doesn't.

mod owners;
mod requests;

use std::collections::{BTreeMap, BTreeSet};

use castra_core::boundary::{Deadline, Effect};
use castra_core::id::ConnId;
use castra_core::terminals::{Terminals, TerminalsConfig};
use castra_core::time::Now;
use castra_core::{Engine, Input, Output};

use super::host;
use super::outcome::{Blame, Outcome};
use super::pattern::Author;
use crate::boundary::{BOUNDARY, Boundary};
use crate::net::{self, NodeId};
use crate::outcome::count;

use owners::Owners;
use requests::Conn;

/// The daemon's process.
pub(super) const DAEMON: NodeId = 0;

/// What became of a piece of input.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Fate {
    /// The engine has it, and has not answered.
    Asked,
    Taken,
    Refused,
}

/// Who watches.
#[derive(Debug)]
pub(super) struct Witness {
    pub(super) hub: net::Shared,
    pub(super) host: host::Shared,
    pub(super) now: Now,
    pub(super) outcome: Outcome,
    pub(super) blame: Blame,
    conns: BTreeMap<ConnId, Conn>,
    owners: Owners,
    /// Pieces of input that reached the engine.
    pieces: BTreeMap<Author, Fate>,
    /// The last that reached a program, by terminal and author's connection.
    reached: BTreeMap<(u32, u8, u16), u32>,
    /// Terminals that were created, ever.
    pub(super) created: Vec<u32>,
    /// Those that were said to be new.
    new: BTreeSet<u32>,
    /// Terminals that ran on when the daemon began.
    held: usize,
    /// Numbers events.
    event: u64,
    /// Outputs since the last event began.
    produced: u64,
}

/// Shared by the engine's coat and the world.
pub(super) type Shared = std::rc::Rc<std::cell::RefCell<Witness>>;

impl Witness {
    pub(super) fn new(hub: net::Shared, host: host::Shared) -> Self {
        Self {
            hub,
            host,
            now: Now::default(),
            outcome: Outcome { runs: 1, ..Outcome::default() },
            blame: Blame::default(),
            conns: BTreeMap::new(),
            owners: Owners::default(),
            pieces: BTreeMap::new(),
            reached: BTreeMap::new(),
            created: Vec::new(),
            new: BTreeSet::new(),
            held: 0,
            event: 0,
            produced: 0,
        }
    }

    pub(super) fn blame(&mut self, promise: &'static str, text: String) {
        self.blame.put(promise, self.now.boot, text);
    }

    /// A new daemon knows nobody.
    pub(super) fn daemon_begins(&mut self, held: usize) {
        self.held = held;
        self.conns.clear();
        self.owners = Owners::default();
    }

    pub(super) fn digest(&mut self, word: u64) {
        // FNV-1a, a word at a time.
        self.outcome.digest = (self.outcome.digest ^ word).wrapping_mul(0x0000_0100_0000_01b3);
    }

    fn digest_bytes(&mut self, bytes: &[u8]) {
        self.digest(bytes.len() as u64);
        for chunk in bytes.chunks(8) {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            self.digest(u64::from_le_bytes(word));
        }
    }

    /// O1: what reached programs was taken from those who sent it, once and in order.
    pub(super) fn arrivals(&mut self) {
        let arrivals = std::mem::take(&mut self.host.borrow_mut().arrivals);
        for arrival in arrivals {
            let terminal = arrival.terminal;
            let Some(author) = host::author(&arrival) else {
                count(&mut self.outcome.host, "other_input");
                continue;
            };
            count(&mut self.outcome.host, "input");
            match self.pieces.get(&author) {
                Some(Fate::Asked | Fate::Taken) => {}
                Some(Fate::Refused) => {
                    self.blame("O1", format!("{author:?} reached terminal {terminal}, and was refused"));
                }
                None => {
                    self.blame("O1", format!("{author:?} reached terminal {terminal}, and was never sent"))
                }
            }
            let last = self.reached.entry((terminal, author.client, author.life)).or_insert(0);
            if *last >= author.number {
                let text = format!("{author:?} reached terminal {terminal} after number {last}");
                self.blame.put("O1", self.now.boot, text);
            }
            *last = author.number;
        }
        let wrong = std::mem::take(&mut self.host.borrow_mut().wrong);
        for (promise, text) in wrong {
            self.blame(promise, text);
        }
    }

    /// S6: tables stay within their bounds.
    fn sizes(&mut self, engine: &Terminals, config: &TerminalsConfig) {
        let sizes = engine.sizes();
        let bounds = [
            ("connections", sizes.clients, config.connections_max),
            // What runs on is never turned away.
            ("running terminals", sizes.alive, config.sessions_max + self.held),
            ("ended terminals", sizes.terminals - sizes.alive, config.exited_max + config.sessions_max),
            ("unanswered requests", sizes.requests, config.requests_max * config.connections_max),
            ("bytes of input of one terminal", sizes.input_of_one, config.input_max),
            (
                "subscriptions",
                sizes.subscribers,
                config.connections_max * (config.sessions_max + config.exited_max),
            ),
        ];
        for (what, size, bound) in bounds {
            if size > bound {
                self.blame("S6", format!("{size} {what}, and {bound} are the bound"));
            }
        }
    }

    /// O2: what the engine has of a terminal's output is no more than was written.
    fn outputs(&mut self, engine: &Terminals) {
        for view in engine.terminals() {
            let host = self.host.borrow();
            let Some(life) = host.life(view.terminal.0) else { continue };
            // What nobody has any more is numbered beyond everything that was written.
            if view.first <= life.end && view.end > life.end {
                let (has, end) = (view.end, life.end);
                drop(host);
                self.blame(
                    "O2",
                    format!("terminal {} wrote {end} bytes, and {has} are known", view.terminal),
                );
                return;
            }
        }
    }

    /// S6: nothing is kept of connections that are gone.
    pub(super) fn leftovers(&mut self, engine: &Terminals) {
        let open = self.hub.borrow().nodes[DAEMON].open;
        let sizes = engine.sizes();
        if sizes.clients > open {
            self.blame("S6", format!("{} clients are kept, and {open} connections are open", sizes.clients));
        }
    }
}

/// The engine with its observer.
#[derive(Debug)]
pub(super) struct Watched {
    pub(super) engine: Terminals,
    config: TerminalsConfig,
    witness: Shared,
    boundary: Boundary,
    wait: Option<Deadline>,
    /// An event happened whose outcome was not yet looked at.
    open: bool,
    /// It was a tick for this deadline.
    ticked: Option<Deadline>,
    /// It drains no more.
    stopped: bool,
}

impl Watched {
    pub(super) fn new(engine: Terminals, config: TerminalsConfig, witness: Shared) -> Self {
        Self {
            engine,
            config,
            witness,
            boundary: Boundary::default(),
            wait: None,
            open: true,
            ticked: None,
            stopped: false,
        }
    }

    /// Looks at the outcome of the last event, unless that was done.
    pub(super) fn settle(&mut self) {
        if !std::mem::take(&mut self.open) {
            return;
        }
        let mut witness = self.witness.borrow_mut();
        if let Err(unguarded) = self.engine.check_obligations() {
            witness.blame("L1", unguarded.to_string());
        }
        if let Some(due) = self.ticked.take()
            && witness.produced == 0
            && self.wait.is_some_and(|wait| wait.at <= due.at)
        {
            let text = format!("woken for {:?}, it does nothing and wants to be woken again", due.why);
            witness.blame("L2", text);
        }
        if !self.stopped {
            witness.check_owners(&self.engine, &self.config);
        }
        witness.sizes(&self.engine, &self.config);
        witness.outputs(&self.engine);
    }
}

impl Engine for Watched {
    type Config = TerminalsConfig;

    fn handle(&mut self, now: Now, input: Input<'_, TerminalsConfig>) {
        self.settle();
        {
            let mut witness = self.witness.borrow_mut();
            witness.now = now;
            witness.event += 1;
            witness.produced = 0;
            witness.outcome.events += 1;
            witness.digest(now.boot.as_nanos());
            let allowed = self.boundary.input(&witness.hub.borrow(), DAEMON, &input);
            if let Err(text) = allowed {
                witness.blame(BOUNDARY, text);
            }
            witness.input(&input);
            if let (Input::Tick, Some(wait)) = (&input, self.wait)
                && wait.at <= now.boot
            {
                count(&mut witness.outcome.wakeups, wakeup(wait));
                self.ticked = Some(wait);
            }
        }
        self.open = true;
        self.engine.handle(now, input);
    }

    fn poll_output(&mut self) -> Output<'_> {
        let output = self.engine.poll_output();
        let mut witness = self.witness.borrow_mut();
        self.boundary.output(&mut witness.hub.borrow_mut(), DAEMON, &output);
        match &output {
            Output::Wait(wait) => {
                self.wait = *wait;
                return output;
            }
            Output::Transmit { conn, bytes } => {
                witness.digest(u64::from(conn.index));
                witness.digest_bytes(bytes);
                witness.said(*conn, bytes);
            }
            Output::Effect { id, effect } => {
                witness.digest(id.0);
                witness.digest(matches!(effect, Effect::Persist(_)).into());
            }
            Output::Close { conn, .. } => {
                witness.digest(u64::from(conn.index) | 1 << 32);
                witness.closed(*conn);
            }
            Output::Stopped => self.stopped = true,
            _ => witness.digest(1),
        }
        witness.produced += 1;
        output
    }
}

fn wakeup(wait: Deadline) -> &'static str {
    use castra_core::boundary::Wakeup;
    match wait.why {
        Wakeup::Handshake => "handshake",
        Wakeup::Command => "command",
        Wakeup::Drain => "drain",
        Wakeup::Terminal => "terminal",
        Wakeup::Record => "record",
        _ => "other",
    }
}
