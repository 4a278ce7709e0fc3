//! Load for a broker: many real agents behind one shell, in one thread.
//!
//! The agents are the core's own, so what a broker meets here is what guests do:
//! handshakes with every check, answers to every challenge, retries with jitter.

mod fleet;

use std::collections::BTreeMap;
use std::io;
use std::time::Duration;

use castra_core::auth::Key;
use castra_core::id::GuestName;
use castra_core::time::{Now, Time};

use self::fleet::Fleet;
use crate::address::ConnectAddress;
use crate::mio_net::MioNet;
use crate::shell::{Shell, ShellOptions};
use crate::threads::ThreadWork;
use crate::{broker, clock};

/// Longest time between two calls of `on_turn`.
const BEAT: Duration = Duration::from_millis(50);

/// What kind of load.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Load {
    /// Handshakes one after the other: whoever is proven hangs up.
    Churn {
        /// Handshakes that begin each second, whether or not earlier ones have
        /// ended; `None`: the next begins when one ends.
        per_second: Option<f64>,
    },
    /// Every guest connects and stays.
    Hold,
}

/// What a fleet is told.
#[derive(Clone, Debug)]
pub struct LoadOptions {
    /// The broker.
    pub connect: ConnectAddress,
    /// What to do.
    pub load: Load,
    /// Who there is, and each one's token if it has one. At least one.
    pub guests: Vec<(GuestName, Option<Key>)>,
    /// Most handshakes at once: at least 1, at most one a guest.
    pub concurrency: usize,
}

/// What happened so far.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Tally {
    /// Guests that are proven now.
    pub up: usize,
    /// Handshakes that ended with a proof.
    pub proven: u64,
    /// How long each took, from its dial or, where a rate is set, from the time
    /// it was due: in order, for the caller to take away.
    pub latencies: Vec<Duration>,
    /// Challenges that proven guests answered.
    pub proofs: u64,
    /// Links that failed or ended, by the agents' reasons.
    pub failures: BTreeMap<String, u64>,
}

/// What to do next.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Directive {
    /// Go on.
    Go,
    /// Hang up and return.
    Stop,
}

/// Drives the load, and calls `on_turn` after each turn of the loop and at least
/// every 50 ms, until it says stop. Every connection is closed on return.
///
/// Raises the process's soft limit on descriptors to the hard one.
///
/// # Errors
/// No poller or randomness is to be had, or the poller broke. A broker that
/// refuses or is away is no error, but a count in [`Tally::failures`].
///
/// # Panics
/// Without guests.
pub fn run(options: LoadOptions, mut on_turn: impl FnMut(Now, &mut Tally) -> Directive) -> io::Result<Tally> {
    assert!(!options.guests.is_empty(), "somebody has to connect");
    let connections_max = broker::connections_max();
    let net = MioNet::new()?;
    let work = ThreadWork::new(None, None, net.waker())?;
    let mut seed = [0; 32];
    broker::fill_random(&mut seed)?;
    let shell_options =
        ShellOptions { dial: Some(options.connect.clone()), connections_max, ..ShellOptions::default() };
    let mut shell = Shell::new(Fleet::new(options, seed, clock::now()), net, work, shell_options);
    let (mut ready, mut done) = (Vec::new(), Vec::new());
    loop {
        let now = clock::now();
        let next = shell.turn(now, &ready, &done);
        ready.clear();
        done.clear();
        if on_turn(now, &mut shell.engine().tally) == Directive::Stop {
            break;
        }
        let beat = now.boot + BEAT;
        let deadline: Time = next.deadline.map_or(beat, |deadline| deadline.min(beat));
        let timeout = if next.more { Duration::ZERO } else { deadline.since(clock::now().boot) };
        if shell.net().wait(Some(timeout), &mut ready)?.work {
            shell.work().collect(&mut done);
        }
    }
    let (fleet, net, work) = shell.into_parts();
    drop(net);
    work.stop(Duration::ZERO);
    Ok(fleet.tally)
}
