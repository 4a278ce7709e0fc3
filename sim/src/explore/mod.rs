//! Every state there is, for small bounds: breadth first over the real engines.
//!
//! One broker and one or two guests; streams that deliver in order and as late
//! as they like; guests that freeze, thaw, die without a word and come back
//! while their old stream still stands; connections that are reset, dials that
//! fail, a broker that starts anew. Any number of each, in any order. What may
//! happen next is asked of a [`Choice`](crate::choice::Choice); states that go on
//! alike ([`castra_core::fingerprint`]) are one. When nothing new is found the
//! space is closed: the promises hold in all of it.

mod checks;
mod moves;
mod search;
mod searches;
mod state;
mod story;

use core::fmt;
use core::time::Duration;

use castra_core::config::{AgentConfig, BrokerConfig};
use castra_core::id::GuestName;

pub use checks::Broken;
pub use search::{audit, explore};
pub use searches::{Search, searches};

/// One tick: what time passes by. The shortest that no engine takes for a stall.
pub const TICK: Duration = Duration::from_secs(1);

/// How much is explored.
#[derive(Clone, Debug)]
pub struct Bounds {
    /// How many guests: 1 or 2.
    pub guests: usize,
    /// Connections of one guest that there may be at once, dead ones included.
    pub streams: usize,
    /// Messages in flight, each way of each connection.
    pub in_flight: usize,
    /// Whether every jitter is the shortest or the longest. Extremes, since what
    /// lies between them differs only in when within a tick a deadline falls.
    pub jitter: Jitter,
    /// What goes wrong.
    pub faults: Faults,
    /// The broker's settings; names are added. [`broker_config`].
    pub broker: BrokerConfig,
    /// Every guest's settings but its name. [`agent_config`].
    pub agent: AgentConfig,
    /// Of every how manyth state it is asked whether everybody is reachable soon,
    /// if nothing goes wrong from there on (L3); 0: of none.
    pub converge_every: u32,
    /// The search gives up beyond so many states.
    pub states_max: u32,
}

/// Which extreme.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Jitter {
    /// Nothing is added to a wait; a session's first challenge comes after a whole interval.
    Least,
    /// Waits are as long as they get; a session's first challenge comes at once.
    Most,
}

/// Which faults there are. Arbitrary delays are always there.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Faults {
    /// Guests die without a word, and come back.
    pub crash: bool,
    /// Guests freeze, and go on.
    pub freeze: bool,
    /// Connections are reset.
    pub reset: bool,
    /// Dials fail.
    pub refuse: bool,
    /// The broker dies and starts anew.
    pub restart: bool,
}

impl Faults {
    /// All of them.
    pub const ALL: Self = Self { crash: true, freeze: true, reset: true, refuse: true, restart: true };
    /// None of them.
    pub const NONE: Self = Self { crash: false, freeze: false, reset: false, refuse: false, restart: false };
}

impl Bounds {
    /// One guest with two connections, two messages in flight, all faults.
    #[must_use]
    pub fn one_guest() -> Self {
        Self {
            guests: 1,
            streams: 2,
            in_flight: 2,
            jitter: Jitter::Least,
            faults: Faults::ALL,
            broker: broker_config(),
            agent: agent_config(state::name(0)),
            converge_every: 1,
            states_max: 50_000_000,
        }
    }
}

/// A window of three ticks, an interval of one, everything else one or two.
#[must_use]
pub fn broker_config() -> BrokerConfig {
    BrokerConfig {
        window: 3 * TICK,
        interval: TICK,
        handshake_timeout: 2 * TICK,
        conflict_timeout: TICK,
        frame_timeout: TICK,
        // A tick longer than the window, or no proof could come too late.
        session_linger: 4 * TICK,
        linger_windows: 1,
        takeover_max: 0,
        takeover_period: TICK,
        retry_after: TICK,
        record_interval: TICK,
        event_ring: 1,
        ..BrokerConfig::default()
    }
}

/// All bounds one or two ticks.
#[must_use]
pub fn agent_config(name: GuestName) -> AgentConfig {
    AgentConfig {
        dial_timeout: TICK,
        handshake_timeout: 2 * TICK,
        silent_intervals: 2,
        backoff_first: TICK,
        backoff_most: TICK,
        backoff_reset: TICK,
        retry_after_max: TICK,
        ..AgentConfig::new(name)
    }
}

/// How far a search is, told after every layer, and now and then within one.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Progress {
    /// How many steps lead to the states that were just found.
    pub depth: u32,
    /// States so far.
    pub states: u64,
    /// Steps taken so far.
    pub edges: u64,
    /// States that were just found, or are still to be looked at in this layer.
    pub frontier: u64,
}

/// What a search came to.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Report {
    /// How many states there are.
    pub states: u64,
    /// How many steps lead from one to another.
    pub edges: u64,
    /// How many steps lead to the remotest one.
    pub depth: u32,
    /// Everything was seen.
    pub closed: bool,
    /// A shortest way to a broken promise.
    pub violation: Option<Counterexample>,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { states, edges, depth, closed, violation } = self;
        let end = match violation {
            Some(_) => "a promise is broken",
            None if *closed => "closed: no promise is broken",
            None => "not closed",
        };
        write!(f, "{states} states, {edges} steps, depth {depth}, {end}")
    }
}

/// A shortest way to a broken promise.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Counterexample {
    /// What happens, in words, from the start.
    pub steps: Vec<String>,
    /// The same as choices, for [`Replayed`](crate::choice::Replayed).
    pub choices: Vec<u32>,
    /// What is wrong then.
    pub broken: Broken,
}

impl fmt::Display for Counterexample {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (number, step) in self.steps.iter().enumerate() {
            writeln!(f, "{:3}. {step}", number + 1)?;
        }
        write!(f, "     {}", self.broken)
    }
}
