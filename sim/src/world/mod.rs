//! A whole world on one virtual clock: the broker and the agents in their real
//! shells, other guests, commands on the host, a network, a disk, and faults.
//!
//! Time jumps from one thing that happens to the next. After every call of an
//! engine, what the broker says is held against what really is.

mod birth;
mod clients;
mod errands;
mod faults;
mod inboxes;
mod managing;
mod peace;
mod scripts;
mod turns;

use std::cell::RefCell;
use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::rc::Rc;
use std::time::Duration;

use castra_core::auth::Key;
use castra_core::id::GuestName;
use castra_core::time::{Now, Time, WallTime};
use castra_driver::net::Ready;
use castra_driver::shell::Shell;
use castra_driver::work::Done;

use crate::choice::Choice;
use crate::chronicle::{Chronicle, MarkKind, Role};
use crate::disk::{Disk, SimWork};
use crate::net::{Hub, NodeId, Owner, Shared, SimNet};
use crate::outcome::Outcome;
use crate::outside::SharedOutside;
use crate::plan::Plan;
use crate::scribe::Scribe;
use crate::violation::Violation;
use crate::watched::{WatchedAgent, WatchedBroker, Watching};
use crate::witness::{BROKER, Witness, number};

use clients::Command;
use errands::Errand;
use inboxes::InboxDisk;
use managing::stand_in::StandIn;
use managing::tasks::Tasking;
use scripts::Script;

/// A world that can be run once.
pub struct World {
    plan: Plan,
    hub: Shared,
    witness: Watching,
    disk: Rc<RefCell<Disk>>,
    inboxes: Vec<InboxDisk>,
    processes: Vec<Process>,
    /// When each of them gets its turn.
    schedule: Vec<Schedule>,
    due: Vec<NodeId>,
    agenda: BinaryHeap<Reverse<(Time, u64, Todo)>>,
    todos: u64,
    now: Time,
    start: Time,
    suspended: Duration,
    suspended_until: Time,
    wall_offset_ms: i64,
    /// Since when nothing keeps the broker from answering; `None`: something does.
    calm: Option<Time>,
    troubles: u32,
    /// What was durable was lost, or a name got another token.
    state_lost: bool,
    turns_at_once: u32,
    edges: Vec<Ready>,
    done: Vec<Done>,
    peaceful: bool,
    /// Guests that are gone for good.
    left: Vec<bool>,
    /// The manager that is not this broker.
    other_manager: Option<NodeId>,
    #[cfg(feature = "planted")]
    planted: Option<castra_core::planted::Bug>,
}

/// When a process gets its turn.
#[derive(Clone, Copy)]
struct Schedule {
    /// Its own deadline; [`Time::MAX`]: none.
    wake: Time,
    frozen_until: Time,
}

/// A process and what it needs of the world.
struct Process {
    body: Body,
    /// Whose name and key it has.
    guest: Option<usize>,
    /// Its engine has stopped.
    stopping: bool,
    /// A copy of another.
    twin: bool,
    /// What its operator gave it, for its next start.
    key: Option<Key>,
    /// What its present life knows.
    running_key: Option<Key>,
    /// The machine that it runs on, if that is a guest's: the process of its agent.
    inside: Option<NodeId>,
    /// Since when it runs without a pause.
    steady: Time,
    /// What an agent has done outside of itself.
    outside: Option<SharedOutside>,
}

impl Process {
    /// Whether its present life knows `key`.
    fn holds(&self, key: Option<&Key>) -> bool {
        let text = |key: Option<&Key>| key.map(Key::expose_token);
        self.running_key.is_some() && text(self.running_key.as_ref()) == text(key)
    }

    /// Whether it needs a start to learn its token.
    fn is_rekeyed(&self) -> bool {
        let text = |key: &Option<Key>| key.as_ref().map(Key::expose_token);
        text(&self.key) != text(&self.running_key)
    }
}

enum Body {
    Gone,
    Broker(Box<Shell<WatchedBroker, SimNet, SimWork>>),
    Agent(Box<Shell<WatchedAgent, SimNet, SimWork>>),
    Script(Box<Script>),
    Command(Box<Command>),
    Errand(Box<Errand>),
    Task(Box<Tasking>),
    StandIn(Box<StandIn>),
}

/// What the world itself has to do.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Todo {
    /// A process begins a life.
    Boot(NodeId),
    /// The plan's client starts.
    Client(usize),
    /// The plan's fault begins.
    Fault(usize),
    /// The plan's act begins.
    Act(usize),
    /// The plan's step of managed attach begins.
    Step(usize),
    /// A frozen process goes on.
    Thaw(NodeId),
    /// A twin ends.
    EndTwin(NodeId),
    /// A broker that was told to leave has had its time.
    Drained(u32),
    /// The broker has descriptors again.
    Descriptors,
    /// One of several troubles of the broker is over.
    Calm,
    /// A look at what the broker says, although nothing happened.
    Look,
    /// A look at the moment at which a guest's proof becomes too old.
    Expiry(usize),
}

/// A run that broke a promise.
#[derive(Clone, Debug)]
pub struct Failure {
    /// The promise.
    pub violation: Violation,
    /// What happened until then.
    pub outcome: Outcome,
}

/// Turns of all processes at one instant before it counts as a spin.
const TURNS_AT_ONCE: u32 = 50_000;

impl World {
    /// A world in which nothing happened yet.
    #[must_use]
    pub fn new(plan: &Plan, choice: Box<dyn Choice>) -> Self {
        let mut world = Self::empty(plan, choice);
        world.populate();
        world
    }

    /// A world whose engines and shells have a bug on purpose.
    #[cfg(feature = "planted")]
    #[must_use]
    pub fn planted(plan: &Plan, choice: Box<dyn Choice>, bug: castra_core::planted::Bug) -> Self {
        let mut world = Self { planted: Some(bug), ..Self::empty(plan, choice) };
        world.populate();
        world
    }

    /// Nobody is there yet.
    fn empty(plan: &Plan, choice: Box<dyn Choice>) -> Self {
        let start = Time::from_millis(1_000_000);
        let hub = Rc::new(RefCell::new(Hub::new(plan.network.clone(), choice, start)));
        let now = Now { boot: start, suspended: Duration::ZERO, wall: WALL };
        let witness = Witness::new(
            Rc::clone(&hub),
            (plan.window(), plan.interval()),
            plan.guests.len(),
            birth::bounds(plan),
            now,
        );
        Self {
            plan: plan.clone(),
            hub,
            witness: Rc::new(RefCell::new(witness)),
            disk: Rc::default(),
            inboxes: Vec::new(),
            processes: Vec::new(),
            schedule: Vec::new(),
            due: Vec::new(),
            agenda: BinaryHeap::new(),
            todos: 0,
            now: start,
            start,
            suspended: Duration::ZERO,
            suspended_until: Time::ZERO,
            wall_offset_ms: 0,
            calm: Some(start),
            troubles: 0,
            state_lost: false,
            turns_at_once: 0,
            edges: Vec::new(),
            done: Vec::new(),
            peaceful: false,
            left: vec![false; plan.guests.len()],
            other_manager: None,
            #[cfg(feature = "planted")]
            planted: None,
        }
    }

    /// From now on only `promise` is asked for: a world that would first break
    /// another one goes on.
    #[must_use]
    pub fn only(self, promise: &str) -> Self {
        self.witness.borrow_mut().only = Some(promise.to_owned());
        self
    }

    /// Chaos, then peace.
    ///
    /// # Errors
    /// The first broken promise.
    pub fn run(mut self) -> Result<Outcome, Box<Failure>> {
        self.play()
    }

    /// As [`World::run`], and everything is written down.
    pub fn tell(mut self) -> (Result<Outcome, Box<Failure>>, Chronicle) {
        let mut scribe = Scribe::new(&self.plan, self.start);
        for node in 0..self.processes.len() {
            let (name, role) = self.introduce(node);
            scribe.process(node, name, role);
        }
        self.hub.borrow_mut().scribe = Some(Box::new(scribe));
        self.witness.borrow_mut().verdicts = Some(Vec::new());
        let result = self.play();
        if let Err(failure) = &result
            && let Some(guest) = failure.violation.guest
            && let Some(proof_at) = self.witness.borrow().falsely_reachable(guest)
            && let Some(scribe) = &mut self.hub.borrow_mut().scribe
        {
            scribe.explain(guest, proof_at, self.plan.window(), self.now);
        }
        let verdicts = self.witness.borrow_mut().verdicts.take().unwrap_or_default();
        let scribe = self.hub.borrow_mut().scribe.take();
        let violation = result.as_ref().err().map(|failure| &failure.violation);
        let chronicle =
            scribe.map(|scribe| scribe.finish(self.now, &verdicts, violation)).unwrap_or_default();
        (result, chronicle)
    }

    fn play(&mut self) -> Result<Outcome, Box<Failure>> {
        let end = self.start + Duration::from_millis(self.plan.chaos_ms);
        let result = self.run_until(end).and_then(|()| self.make_peace());
        let mut witness = self.witness.borrow_mut();
        witness.outcome.simulated = self.now.since(self.start);
        let outcome = witness.finish();
        match result {
            Ok(()) => Ok(outcome),
            Err(violation) => Err(Box::new(Failure { violation, outcome })),
        }
    }

    /// Everything until `end`.
    fn run_until(&mut self, end: Time) -> Result<(), Violation> {
        while let Some(at) = self.next().filter(|at| *at <= end) {
            self.advance(at);
            self.step();
            if let Some(violation) = self.witness.borrow_mut().violation.take() {
                return Err(violation);
            }
        }
        self.advance(end);
        Ok(())
    }

    /// When something happens next.
    fn next(&self) -> Option<Time> {
        let hub = self.hub.borrow();
        let disk = self.disk.borrow();
        if hub.stirring {
            return Some(self.now);
        }
        let agenda = self.agenda.peek().map(|Reverse((at, ..))| *at);
        let mut next = agenda.unwrap_or(Time::MAX);
        for other in [hub.next(), disk.next()] {
            next = next.min(other.unwrap_or(Time::MAX));
        }
        for inbox in &self.inboxes {
            next = next.min(inbox.disk.borrow().next().unwrap_or(Time::MAX));
        }
        for Schedule { wake, frozen_until } in &self.schedule {
            next = next.min((*wake).max(*frozen_until));
        }
        (next < Time::MAX).then_some(next)
    }

    fn advance(&mut self, at: Time) {
        let at = at.max(self.suspended_until).max(self.now);
        if at > self.now {
            self.turns_at_once = 0;
        }
        self.now = at;
        self.hub.borrow_mut().now = at;
        self.disk.borrow_mut().now = at;
        self.inboxes.iter().for_each(|inbox| inbox.disk.borrow_mut().now = at);
    }

    /// Everything that is due now, once.
    fn step(&mut self) {
        self.hub.borrow_mut().run();
        self.disk.borrow_mut().finish(&mut self.done);
        if !self.done.is_empty() {
            self.hub.borrow_mut().stir(BROKER);
        }
        self.finish_inboxes();
        self.collect_tokens();
        self.collect_mail();
        while let Some(Reverse((at, _, todo))) = self.agenda.peek().copied()
            && at <= self.now
        {
            self.agenda.pop();
            self.carry_out(todo);
        }
        self.collect_due();
        let due = std::mem::take(&mut self.due);
        for node in &due {
            self.turns_at_once += 1;
            self.turn(*node);
        }
        self.due = due;
        if self.turns_at_once > TURNS_AT_ONCE {
            let text = format!("{TURNS_AT_ONCE} turns at one instant");
            self.witness.borrow_mut().blame("L2", None, text);
        }
    }

    /// Takes notice of tokens that the disk has and the broker did not answer for yet:
    /// either key may be the right one.
    fn collect_tokens(&mut self) {
        let mut disk = self.disk.borrow_mut();
        if disk.tokens_changed.is_empty() {
            // Nothing became durable without a change of some token.
            return;
        }
        let changed = std::mem::take(&mut disk.tokens_changed);
        self.witness.borrow_mut().durable.append(&mut disk.durable);
        drop(disk);
        let guests = self.plan.guests.len();
        for guest in changed.iter().filter_map(number).filter(|guest| *guest < guests) {
            self.witness.borrow_mut().keyholders[guest] = None;
            if self.peaceful {
                self.hand_out_token(guest);
            }
        }
    }

    /// Whose turn it is, in the order of their numbers.
    fn collect_due(&mut self) {
        self.due.clear();
        let mut hub = self.hub.borrow_mut();
        hub.stirring = false;
        for (node, (schedule, held)) in self.schedule.iter_mut().zip(&hub.nodes).enumerate() {
            if held.stirred {
                // If it is frozen, then when it thaws.
                schedule.wake = schedule.wake.min(self.now.max(schedule.frozen_until));
            }
            if schedule.wake.max(schedule.frozen_until) <= self.now {
                self.due.push(node);
            }
        }
    }

    fn carry_out(&mut self, todo: Todo) {
        match todo {
            Todo::Boot(node) => self.boot(node),
            Todo::Client(index) => self.start_client(index),
            Todo::Fault(index) => self.inject(index),
            Todo::Act(index) => self.start_act(index),
            Todo::Step(index) => self.start_step(index),
            Todo::Thaw(node) => self.thaw(node),
            Todo::EndTwin(node) => self.end_twin(node),
            Todo::Drained(life) => self.drained(life),
            Todo::Descriptors => {
                let mut hub = self.hub.borrow_mut();
                hub.nodes[BROKER].descriptors = None;
                // No edge tells of it: the shell tries again by itself.
            }
            Todo::Calm => self.calm_down(),
            Todo::Look => self.look(),
            Todo::Expiry(guest) => self.expire(guest),
        }
    }

    fn later(&mut self, at: Time, todo: Todo) {
        self.todos += 1;
        self.agenda.push(Reverse((at, self.todos, todo)));
    }

    fn after(&mut self, millis: u64, todo: Todo) {
        self.later(self.now + Duration::from_millis(millis), todo);
    }

    /// The clocks as a process of the host reads them.
    fn clocks(&self) -> Now {
        let millis = self.now.since(self.start).as_millis() as i64;
        Now {
            boot: self.now,
            suspended: self.suspended,
            wall: WallTime::from_unix_millis(WALL.unix_millis() + millis + self.wall_offset_ms),
        }
    }

    fn owner(&self, node: NodeId) -> Owner {
        Owner { node, life: self.hub.borrow().nodes[node].life }
    }

    fn introduce(&self, node: NodeId) -> (String, Role) {
        match (self.processes[node].guest, &self.processes[node].body) {
            (Some(guest), _) if self.processes[node].twin => (format!("twin of guest-{guest}"), Role::Guest),
            (Some(guest), _) => (format!("guest-{guest}"), Role::Guest),
            (None, Body::Command(command)) => (command.to_string(), Role::Client),
            (None, Body::Errand(errand)) => (errand.to_string(), Role::Client),
            (None, Body::Task(task)) => (task.to_string(), Role::Client),
            (None, Body::StandIn(_)) => ("another manager".to_owned(), Role::Client),
            (None, _) => ("broker".to_owned(), Role::Broker),
        }
    }

    /// Writes something down, if anybody writes.
    fn mark(&self, node: Option<NodeId>, until: Option<Time>, kind: MarkKind, text: impl Into<String>) {
        if let Some(scribe) = &mut self.hub.borrow_mut().scribe {
            scribe.mark(node, self.now, until, kind, text);
        }
    }
}

impl std::fmt::Debug for World {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("World").field("plan", &self.plan).field("now", &self.now).finish_non_exhaustive()
    }
}

/// 2026-01-01T00:00:00Z.
const WALL: WallTime = WallTime::from_unix_millis(1_767_225_600_000);

/// `guest-3`.
pub(crate) fn name(guest: usize) -> GuestName {
    match format!("guest-{guest}").parse() {
        Ok(name) => name,
        Err(_) => unreachable!("guest-N is a name"),
    }
}
