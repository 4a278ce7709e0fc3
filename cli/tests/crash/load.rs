//! What every load has: the world, a client of whichever broker serves, and chance by a seed.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::Value;

use crate::agents::Agents;
use crate::support::{Control, World};

/// Operations of one kind, from a thread of its own.
pub(crate) trait Load: Send {
    /// A new broker serves, and nobody else asks it for what is this load's: every promise is compared.
    fn check(&mut self, site: &Site);

    /// One operation; `None`: the broker went away.
    fn step(&mut self, site: &Site) -> Option<()>;

    /// No broker is killed any more: what is open is brought to its end, and counted.
    fn end(&mut self, site: &Site);
}

/// The world that the loads work in.
pub(crate) struct Site {
    pub(crate) world: World,
    counts: Mutex<BTreeMap<String, usize>>,
    total: AtomicUsize,
    /// How often a process was killed that keeps something besides the broker, by its name.
    ended: Mutex<BTreeMap<String, u64>>,
    pub(crate) agents: Agents,
}

/// An answer, or none.
#[derive(Debug)]
pub(crate) enum Said {
    Yes(Value),
    No(String),
    /// The connection ended, or the broker takes leave: nobody knows.
    Lost,
}

/// A client of a control socket that connects anew when it has to.
pub(crate) struct Desk {
    socket: PathBuf,
    control: Option<Control>,
}

impl Site {
    pub(crate) fn new(world: World) -> Self {
        Self {
            world,
            counts: Mutex::default(),
            total: AtomicUsize::new(0),
            ended: Mutex::default(),
            agents: Agents::default(),
        }
    }

    pub(crate) fn count(&self, what: &str) {
        self.add(what, 1);
        self.total.fetch_add(1, Ordering::Relaxed);
    }

    /// How many operations were counted.
    pub(crate) fn total(&self) -> usize {
        self.total.load(Ordering::Relaxed)
    }

    pub(crate) fn add(&self, what: &str, number: usize) {
        *self.counts.lock().unwrap().entry(what.to_owned()).or_default() += number;
    }

    pub(crate) fn counts(&self) -> BTreeMap<String, usize> {
        self.counts.lock().unwrap().clone()
    }

    /// A process of that name is about to be killed.
    pub(crate) fn ends(&self, name: &str) {
        *self.ended.lock().unwrap().entry(name.to_owned()).or_default() += 1;
    }

    pub(crate) fn times_ended(&self, name: &str) -> u64 {
        self.ended.lock().unwrap().get(name).copied().unwrap_or(0)
    }

    /// A client of the broker's control socket.
    pub(crate) fn desk(&self) -> Desk {
        Desk { socket: self.world.state().join("control.sock"), control: None }
    }

    /// A client of an agent's socket.
    pub(crate) fn agents_desk(&self, name: &str) -> Desk {
        Desk { socket: self.world.path(&format!("{name}.sock")), control: None }
    }

    /// Where guests connect.
    pub(crate) fn link(&self) -> PathBuf {
        self.world.path("link.sock")
    }
}

impl Desk {
    /// Asks, and fails the test if there is neither an answer nor the connection's end in time.
    pub(crate) fn ask(&mut self, method: &str, params: &Value) -> Said {
        if self.control.is_none() {
            self.control = Control::try_connect(&self.socket);
        }
        match self.control.as_mut().and_then(|control| control.ask(method, params)) {
            Some(Ok(data)) => Said::Yes(data),
            Some(Err(error)) if error["code"] == "shutting_down" => Said::Lost,
            Some(Err(error)) => Said::No(error["code"].as_str().unwrap().to_owned()),
            None => {
                self.control = None;
                Said::Lost
            }
        }
    }

    /// The answer of a broker that nobody kills.
    #[track_caller]
    pub(crate) fn must(&mut self, method: &str, params: &Value) -> Value {
        for _ in 0..2 {
            match self.ask(method, params) {
                Said::Yes(data) => return data,
                // A connection to the broker before this one.
                Said::Lost => {}
                Said::No(code) => panic!("{method} {params}: {code}"),
            }
        }
        panic!("{method} {params}: the broker is gone");
    }

    pub(crate) fn forget(&mut self) {
        self.control = None;
    }
}

/// Enough for choosing what to do: a linear congruential generator (Knuth, TAOCP 3.3.4).
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % bound
    }

    pub(crate) fn one_in(&mut self, bound: u64) -> bool {
        self.below(bound) == 0
    }
}
