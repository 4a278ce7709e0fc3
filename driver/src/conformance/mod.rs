//! What every network must do, as scripts over a scripted engine.
//!
//! The same scripts run over the kernel and over simulated networks, so that a
//! simulator is tested against the kernel. A network joins by implementing
//! [`World`] and calling [`scripts::all`].

pub mod failing;
pub mod memory;
mod scripted;
pub mod scripts;

use std::io;
use std::time::Duration;

use castra_core::boundary::{Source, Via};
use castra_core::id::ConnId;
use castra_core::time::{Now, Time, WallTime};

pub use self::scripted::{Act, Scripted, Seen};
use crate::address::ConnectAddress;
use crate::net::{ListenerId, Net, Ready};
use crate::shell::{Next, Shell, ShellOptions};
use crate::work::{Done, Job, JobId, Outcome, Work};

/// A network with somebody at its other end.
pub trait World: Sized {
    /// The network.
    type Net: Net;
    /// The other end of a connection; dropping it closes it.
    type Peer: Peer;

    /// A network with one listener for links.
    fn start() -> (Self, Self::Net, Vec<(ListenerId, Via)>);

    /// Connects to the listener.
    fn dial(&mut self) -> Self::Peer;

    /// Where a dial of the shell reaches [`World::answer`]; `None` if the network can't dial.
    fn elsewhere(&mut self) -> Option<ConnectAddress>;

    /// Takes a connection that the shell dialled, if it is there.
    fn answer(&mut self) -> Option<Self::Peer>;

    /// Collects edges; waits for them a short while (real time) if there are none.
    fn wait(&mut self, net: &mut Self::Net, ready: &mut Vec<Ready>);
}

/// The other end of a connection. Never blocks.
pub trait Peer {
    /// Writes what fits.
    ///
    /// # Errors
    /// `WouldBlock`, or the connection is broken.
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize>;
    /// Reads what is there; 0 is the end.
    ///
    /// # Errors
    /// `WouldBlock`, or the connection is broken.
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize>;
    /// Half-closes.
    fn finish(&mut self);
    /// Ends both directions at once, as an error where [`Peer::RESETS`].
    fn reset(self);
    /// Whether this kind of connection can end with an error.
    const RESETS: bool;
}

/// Workers that only remember what they were asked for.
#[derive(Debug, Default)]
pub struct Remembered(pub Vec<(JobId, Job)>);

impl Work for Remembered {
    fn submit(&mut self, id: JobId, job: Job) {
        self.0.push((id, job));
    }
}

/// A shell with a scripted engine in some world, on a clock that stands still
/// until it is moved.
#[derive(Debug)]
pub struct Harness<W, N> {
    /// The shell under test.
    pub shell: Shell<Scripted, N, Remembered>,
    /// The other side.
    pub world: W,
    /// The time.
    pub now: Time,
    /// What the last turn said.
    pub next: Next,
    done: Vec<Done>,
}

/// Turns before a script is given up.
const TURNS: usize = 20_000;

impl<W: World> Harness<W, W::Net> {
    /// A fresh world.
    #[must_use]
    pub fn new() -> Self {
        Self::with(|net| net)
    }
}

impl<W: World> Default for Harness<W, W::Net> {
    fn default() -> Self {
        Self::new()
    }
}

impl<W: World, N: Net + Inner<W::Net>> Harness<W, N> {
    /// A fresh world with something around its network.
    pub fn with(wrap: impl FnOnce(W::Net) -> N) -> Self {
        let (mut world, net, doors) = W::start();
        let dial = world.elsewhere();
        let options = ShellOptions { doors, dial, connections_max: 1000, ..ShellOptions::default() };
        let shell = Shell::new(Scripted::default(), wrap(net), Remembered::default(), options);
        let next = Next { deadline: None, more: true };
        Self { shell, world, now: Time::from_millis(1_000_000), next, done: Vec::new() }
    }

    /// One turn with what is ready; without waiting if the last one left work.
    pub fn turn(&mut self) -> Next {
        let mut ready = Vec::new();
        if !self.next.more {
            self.world.wait(self.shell.net().inner(), &mut ready);
        }
        self.turn_with(&ready)
    }

    /// One turn with these edges.
    pub fn turn_with(&mut self, ready: &[Ready]) -> Next {
        let now = Now {
            boot: self.now,
            suspended: Duration::ZERO,
            wall: WallTime::from_unix_millis((self.now.as_nanos() / 1_000_000) as i64),
        };
        let done = std::mem::take(&mut self.done);
        self.next = self.shell.turn(now, ready, &done);
        self.next
    }

    /// Turns until something holds.
    ///
    /// # Panics
    /// It does not hold after very many turns.
    pub fn until(&mut self, what: &str, mut holds: impl FnMut(&mut Self) -> bool) {
        for _ in 0..TURNS {
            if holds(self) {
                return;
            }
            self.turn();
        }
        panic!("never: {what}; seen {:?}, next {:?}", self.shell.engine().tail(), self.next);
    }

    /// Turns until nothing happens any more.
    pub fn quiet(&mut self) {
        let mut calm = 0;
        while calm < 3 {
            let seen = self.shell.engine().seen.len();
            self.turn();
            calm = if self.next.more || self.shell.engine().seen.len() > seen { 0 } else { calm + 1 };
        }
    }

    /// The engine says this, at once.
    pub fn act(&mut self, acts: impl IntoIterator<Item = Act>) {
        self.shell.engine().act(acts);
        self.done.push(Done { job: JobId::Effect(Scripted::NUDGE), outcome: Outcome::Finished(Ok(())) });
        self.turn_with(&[]);
    }

    /// Work that ended, for the next turn.
    pub fn finish(&mut self, done: Done) {
        self.done.push(done);
    }

    /// Moves the clock.
    pub fn advance(&mut self, span: Duration) {
        self.now = self.now + span;
    }

    /// A peer whose connection the engine knows.
    pub fn connection(&mut self) -> (W::Peer, ConnId) {
        let before = self.shell.engine().opened().len();
        let peer = self.world.dial();
        self.until("accepted", |it| it.shell.engine().opened().len() > before);
        let conn = self.shell.engine().opened()[before];
        (peer, conn)
    }

    /// Stops reading from a connection (0), or limits it.
    pub fn credit(&mut self, conn: ConnId, credit: usize) {
        self.act([Act::Read(Source::Conn(conn), credit)]);
    }
}

/// A network behind wrappers.
pub trait Inner<N> {
    /// The network itself.
    fn inner(&mut self) -> &mut N;
}

impl<N> Inner<N> for N {
    fn inner(&mut self) -> &mut N {
        self
    }
}

#[cfg(test)]
mod kernel;
