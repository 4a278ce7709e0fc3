//! Plans played by turmoil: the broker, its agents and the commands on the host
//! as hosts of a simulated TCP network, under the driver's own shell.
//!
//! turmoil's TCP is coarser than the bare runner's streams: it never
//! retransmits, so that what a partition swallowed leaves a stream that is
//! silent for ever, without a reset. That is what it is here for: only the
//! deadlines of the application get anybody out of it.

mod client;
mod clock;
mod drive;
mod faults;
mod hosts;
mod net;
mod traced;
mod truth;

use core::time::Duration;
use std::net::IpAddr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::time::SystemTime;

use castra_core::config::AgentConfig;
use turmoil::{Builder, Sim};

pub use faults::FAULTS;
pub use net::TurmoilNet;

use crate::choice::Choice;
use crate::outcome::{Outcome, count};
use crate::plan::{Ask, Limits, Plan};
use crate::play::NO_PANIC;
use crate::violation::Violation;
use faults::Faults;
use hosts::{BROKER, DESK, Stage};
use truth::{broken, name_of};

/// turmoil's grain: hosts see the network once in so long.
pub const TICK: Duration = Duration::from_millis(10);

/// Counted among the faults of worlds whose links also break by themselves:
/// turmoil's way of losing segments.
pub const LOSS: &str = "loss";

/// What this runner can play: agents over TCP, and the faults that turmoil knows.
#[must_use]
pub fn limits() -> Limits {
    let mut asks = Limits::default().asks;
    // What a guest can't recover from by itself is left to the other runner.
    asks.retain(|ask| !matches!(ask, Ask::TokenRevoke | Ask::Forget | Ask::Shutdown));
    Limits {
        guests: 4,
        clients: 8,
        asks,
        faults: FAULTS.to_vec(),
        faults_max: 16,
        chaos: Duration::from_secs(24),
        honest: true,
        tcp_only: true,
        acts: 0,
        steps: 0,
        ..Limits::default()
    }
}

/// Plays `plan`; `seed` decides what it leaves open. Guests are agents over TCP and
/// tables are of ordinary size, whatever the plan says; faults that turmoil can't do
/// don't happen.
///
/// # Errors
/// The first broken promise.
pub fn run(plan: &Plan, seed: u64) -> Result<Outcome, Violation> {
    Run::new(plan, seed).play()
}

struct Run {
    sim: Sim<'static>,
    stage: Rc<Stage>,
    faults: Faults,
    lossy: bool,
    steps: u64,
    /// Seen reachable since this was last cleared.
    reached: Vec<bool>,
}

impl Run {
    fn new(plan: &Plan, seed: u64) -> Self {
        let stage = Rc::new(Stage::new(plan, seed));
        let mut choice = stage.choices();
        let network = &plan.network;
        let latency = |micros: u64| Duration::from_millis(micros.div_ceil(1000));
        let epoch = SystemTime::UNIX_EPOCH + Duration::from_secs(clock::EPOCH_SECONDS);
        let lossy = choice.once_in(3);
        let mut builder = Builder::new();
        if choice.once_in(2) {
            builder.enable_random_order();
        }
        let mut sim = builder
            .rng_seed(seed)
            .epoch(epoch)
            .tick_duration(TICK)
            .simulation_duration(Duration::from_secs(24 * 3600))
            .min_message_latency(latency(network.latency_min_us))
            .max_message_latency(latency(network.latency_max_us).max(latency(network.latency_min_us)))
            .fail_rate(if lossy { choice.pick(&[0.001, 0.01, 0.05]) } else { 0.0 })
            .repair_rate(0.2)
            .tcp_capacity(64)
            .build();
        let broker = Rc::clone(&stage);
        sim.host(BROKER, move || Rc::clone(&broker).run_broker());
        let address: IpAddr = sim.lookup(BROKER);
        for guest in 0..plan.guests.len() {
            let stage = Rc::clone(&stage);
            sim.host(name_of(guest).as_str(), move || Rc::clone(&stage).run_guest(guest, address));
        }
        let desk = Rc::clone(&stage);
        sim.host(DESK, move || Rc::clone(&desk).run_clients(address));
        // In truth a unix socket: nothing is late there, and nothing lost.
        sim.set_link_latency(DESK, BROKER, Duration::ZERO);
        sim.set_link_fail_rate(DESK, BROKER, 0.0);
        let faults = Faults::new(&stage);
        let reached = vec![false; plan.guests.len()];
        Self { sim, stage, faults, lossy, steps: 0, reached }
    }

    /// Chaos, then peace.
    fn play(mut self) -> Result<Outcome, Violation> {
        let chaos = Duration::from_millis(self.stage.plan.chaos_ms);
        while self.sim.elapsed() < chaos {
            self.faults.tend(&mut self.sim, &self.stage);
            self.step()?;
        }
        self.make_peace();
        self.converge()?;
        let stage = &self.stage;
        let trace = stage.trace.borrow();
        let mut faults = self.faults.counts;
        if self.lossy {
            count(&mut faults, LOSS);
        }
        Ok(Outcome {
            runs: 1,
            events: trace.events,
            simulated: self.sim.elapsed(),
            checks: stage.checks.get(),
            reachable: stage.truth.borrow().reachable_seen,
            sessions: stage.truth.borrow().sessions(),
            faults,
            ends: stage.truth.borrow().ends.clone(),
            replies: stage.replies.borrow().clone(),
            digest: trace.digest(),
            ..Outcome::default()
        })
    }

    /// One step of turmoil, and all checks.
    fn step(&mut self) -> Result<(), Violation> {
        // A host that panics ends the run like any other broken promise. Nothing
        // is used afterwards that it may have left half done.
        let stepped = catch_unwind(AssertUnwindSafe(|| self.sim.step()));
        self.steps += 1;
        let stage = &self.stage;
        let Ok(stepped) = stepped else {
            return Err(broken(NO_PANIC, stage.clock.now().boot, None, "a host panicked"));
        };
        stage.clock.stepped(self.sim.elapsed());
        if let Some(violation) = stage.violation.borrow_mut().take() {
            return Err(violation);
        }
        let now = stage.clock.now();
        if let Err(error) = stepped {
            return Err(broken(NO_PANIC, now.boot, None, error.to_string()));
        }
        let mut broker = stage.broker.shell.borrow_mut();
        let Some(shell) = broker.as_mut() else { return Ok(()) };
        stage.check(shell.engine())?;
        for row in shell.engine().engine.status(now).filter(|row| row.reachable) {
            if let Some(reached) = truth::guest_of(&row.name).and_then(|guest| self.reached.get_mut(guest)) {
                *reached = true;
            }
        }
        Ok(())
    }

    /// The faults end. Guests outside the core are gone for good, and nobody is told.
    fn make_peace(&mut self) {
        self.sim.set_fail_rate(0.0);
        self.faults.end(&mut self.sim, &self.stage);
        for guest in 0..self.stage.guests.len() {
            // Also those that broke by themselves.
            self.sim.release(name_of(guest).as_str(), BROKER);
            if !self.stage.plan.guests[guest].core {
                self.faults.kill(&mut self.sim, guest);
            }
        }
    }

    /// L3: by the bound, whoever lives and has the right key was reachable, from
    /// evidence that is younger than the faults. (That the others are not is S1.)
    fn converge(&mut self) -> Result<(), Violation> {
        let began = self.sim.elapsed();
        let end = began + self.bound();
        while self.sim.elapsed() < began + self.stage.plan.window() + TICK {
            self.faults.tend(&mut self.sim, &self.stage);
            self.step()?;
        }
        self.reached.fill(false);
        loop {
            let missing: Vec<_> = (0..self.reached.len()).filter(|guest| self.is_missing(*guest)).collect();
            if missing.is_empty() {
                return Ok(());
            }
            if self.sim.elapsed() > end {
                let names: Vec<_> = missing.iter().map(|guest| name_of(*guest).to_string()).collect();
                let text =
                    format!("not reachable {:?} after the last fault: {}", end - began, names.join(", "));
                return Err(broken("L3", self.stage.clock.now().boot, missing.first().copied(), text));
            }
            self.faults.tend(&mut self.sim, &self.stage);
            self.step()?;
        }
    }

    fn is_missing(&self, guest: usize) -> bool {
        let known = self.stage.disk.borrow().token(&name_of(guest)).cloned();
        // Issued to nobody who runs, or forgotten by the broker: it is refused, rightly.
        let fits = known == *self.stage.guests[guest].key.borrow();
        self.stage.plan.guests[guest].core && fits && !self.reached[guest]
    }

    /// How long healing may take. A stream may be dead without a word. If the
    /// agent hears nothing, it notices by the silence (and gives the broker a
    /// second chance, if it was itself away), or by the bound of a dial or a
    /// handshake. If only the broker hears nothing, the session has to linger
    /// out: the agent is content. Then it backs off, and once more if its old
    /// session still holds the name, and shakes hands.
    fn bound(&self) -> Duration {
        let agent = AgentConfig::new(name_of(0));
        let broker = self.stage.broker_config();
        let silence = broker.interval * agent.silent_intervals * 2;
        let noticed = silence.max(broker.linger()).max(agent.dial_timeout).max(agent.handshake_timeout);
        let retry = broker.retry_after + agent.backoff_most;
        let handshake = broker.conflict_timeout + broker.handshake_timeout;
        noticed + (retry + handshake) * 2 + broker.window
    }
}
