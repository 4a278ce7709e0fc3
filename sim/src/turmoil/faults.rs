//! A plan's faults, as far as turmoil can do them.

use core::time::Duration;
use std::cell::RefMut;
use std::collections::VecDeque;

use turmoil::Sim;

use super::drive::Word;
use super::hosts::{BROKER, Stage};
use super::truth::name_of;
use crate::disk::Disk;
use crate::outcome::{Counts, count};
use crate::plan::{Fault, FaultKind, Way};

/// The faults that this runner knows. The others need what turmoil doesn't have:
/// resets and half-closes from outside, descriptors, serial lines, twins.
pub const FAULTS: [FaultKind; 16] = [
    FaultKind::Hold,
    FaultKind::Partition,
    FaultKind::Death,
    FaultKind::Crash,
    FaultKind::Freeze,
    FaultKind::FreezeBroker,
    FaultKind::Suspend,
    FaultKind::WallStep,
    FaultKind::RestartBroker,
    FaultKind::LoseState,
    FaultKind::DrainBroker,
    FaultKind::Reload,
    FaultKind::CommitFails,
    FaultKind::TornCommit,
    FaultKind::DiskFull,
    FaultKind::SlowDisk,
];

/// How long a broker that tore a commit is away.
const REBOOT: Duration = Duration::from_millis(500);

/// What is wrong, and until when, in turmoil's time.
pub(crate) struct Faults {
    coming: VecDeque<Fault>,
    guests: Vec<Wrong>,
    broker: Wrong,
    /// The next piece of work is the last thing that the broker does.
    torn: Duration,
    /// What happened, by kind.
    pub(crate) counts: Counts,
}

/// One host's troubles.
#[derive(Clone, Debug, Default)]
struct Wrong {
    down: Option<Duration>,
    frozen: Duration,
    held: Duration,
    cut_to_broker: Duration,
    cut_to_guest: Duration,
    link: Link,
}

/// A link's state as turmoil knows it: one at a time.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
enum Link {
    #[default]
    Free,
    Held,
    Cut,
    CutToBroker,
    CutToGuest,
}

impl Wrong {
    fn link(&self, now: Duration) -> Link {
        match (self.cut_to_broker > now, self.cut_to_guest > now) {
            (true, true) => Link::Cut,
            // turmoil can't hold one direction and cut the other.
            _ if self.held > now => Link::Held,
            (true, false) => Link::CutToBroker,
            (false, true) => Link::CutToGuest,
            (false, false) => Link::Free,
        }
    }
}

impl Faults {
    pub(crate) fn new(stage: &Stage) -> Self {
        Self {
            coming: stage.plan.faults.iter().cloned().collect(),
            guests: vec![Wrong::default(); stage.guests.len()],
            broker: Wrong::default(),
            torn: Duration::ZERO,
            counts: Counts::new(),
        }
    }

    /// Between two steps: what begins, and what ends.
    pub(crate) fn tend(&mut self, sim: &mut Sim<'_>, stage: &Stage) {
        let now = sim.elapsed();
        while self.coming.front().is_some_and(|fault| Duration::from_millis(fault.at_ms) <= now) {
            let Some(fault) = self.coming.pop_front() else { break };
            if self.begin(sim, stage, &fault, now) {
                count(&mut self.counts, fault.kind.as_str());
            }
        }
        self.apply(sim, stage, now);
    }

    /// Nothing goes wrong any more.
    pub(crate) fn end(&mut self, sim: &mut Sim<'_>, stage: &Stage) {
        let now = sim.elapsed();
        self.coming.clear();
        for wrong in self.guests.iter_mut().chain([&mut self.broker]) {
            let down = wrong.down.map(|_| now);
            *wrong = Wrong { down, link: wrong.link, ..Wrong::default() };
        }
        self.torn = now;
        stage.disk.borrow_mut().heal();
        self.apply(sim, stage, now);
    }

    /// This guest dies without a word, for good.
    pub(crate) fn kill(&mut self, sim: &mut Sim<'_>, guest: usize) {
        let name = name_of(guest);
        sim.partition(name.as_str(), BROKER);
        sim.crash(name.as_str());
        let ever = Duration::MAX;
        let wrong = &mut self.guests[guest];
        (wrong.cut_to_broker, wrong.cut_to_guest) = (ever, ever);
        (wrong.down, wrong.link) = (Some(ever), Link::Cut);
    }

    /// Whether it took place.
    fn begin(&mut self, sim: &mut Sim<'_>, stage: &Stage, fault: &Fault, now: Duration) -> bool {
        let name = name_of(fault.guest);
        let span = Duration::from_millis(fault.for_ms);
        let until = now + span;
        let boot_until = stage.clock.now().boot + span;
        let guest_runs = stage.guests[fault.guest].process.is_up();
        let broker_runs = stage.broker.is_up() && self.broker.down.is_none();
        let wrong = &mut self.guests[fault.guest];
        match fault.kind {
            FaultKind::Hold => wrong.held = wrong.held.max(until),
            FaultKind::Partition => wrong.cut(fault.way, until),
            FaultKind::Death if guest_runs => {
                // A crash alone would say goodbye for it. What was under way
                // arrives when the guest boots again, or never.
                match fault.way {
                    Way::Both => wrong.held = wrong.held.max(until),
                    Way::ToBroker | Way::ToGuest => wrong.cut(Way::Both, until),
                }
                wrong.down = Some(until);
                self.apply_link(sim, fault.guest, now);
                sim.crash(name.as_str());
            }
            FaultKind::Crash if guest_runs => {
                wrong.down = Some(until);
                sim.crash(name.as_str());
            }
            FaultKind::Freeze if guest_runs => wrong.frozen = wrong.frozen.max(until),
            FaultKind::FreezeBroker if broker_runs => self.broker.frozen = self.broker.frozen.max(until),
            FaultKind::Suspend => {
                stage.clock.suspend(Duration::from_millis(fault.for_ms));
                stage.broker.tell(Word::Look);
                for guest in &stage.guests {
                    guest.process.tell(Word::Look);
                }
                if broker_runs {
                    stage.interrupt(stage.broker.is_frozen());
                }
            }
            FaultKind::WallStep => {
                let by = i64::try_from(fault.for_ms).unwrap_or(i64::MAX);
                stage.clock.step_wall(if fault.way == Way::ToGuest { -by } else { by });
            }
            FaultKind::RestartBroker if broker_runs => self.crash_broker(sim, stage, until),
            FaultKind::LoseState if broker_runs => {
                self.crash_broker(sim, stage, until);
                stage.disk.borrow_mut().lose();
                stage.truth.borrow_mut().state_lost(stage.clock.now().boot);
            }
            FaultKind::DrainBroker if broker_runs => {
                stage.broker.tell(Word::Drain);
                stage.truth.borrow_mut().serving_since = None;
                // It has three seconds; then it is started again, whatever it did.
                self.broker.down = Some(until + Duration::from_secs(4));
            }
            FaultKind::Reload if broker_runs => stage.broker.tell(Word::Reload),
            FaultKind::CommitFails => disk(stage).commits_fail_until = boot_until,
            // Counted when it happens.
            FaultKind::TornCommit => {
                self.torn = self.torn.max(until);
                return false;
            }
            FaultKind::DiskFull => disk(stage).full_until = boot_until,
            FaultKind::SlowDisk => disk(stage).slow_until = boot_until,
            _ => return false,
        }
        true
    }

    fn crash_broker(&mut self, sim: &mut Sim<'_>, stage: &Stage, until: Duration) {
        stage.truth.borrow_mut().serving_since = None;
        self.broker.down = Some(until);
        sim.crash(BROKER);
    }

    /// Makes the world be what the deadlines say.
    fn apply(&mut self, sim: &mut Sim<'_>, stage: &Stage, now: Duration) {
        let running = stage.broker.is_up() && self.broker.down.is_none();
        if running && self.torn > now && stage.disk.borrow().queued() > 0 {
            stage.disk.borrow_mut().kill(1);
            self.crash_broker(sim, stage, now + REBOOT);
            self.torn = now;
            count(&mut self.counts, FaultKind::TornCommit.as_str());
        }
        if self.broker.down.is_some_and(|until| until <= now) {
            (self.broker.down, self.broker.frozen) = (None, Duration::ZERO);
            sim.bounce(BROKER);
        }
        let frozen = self.broker.frozen > now;
        if set_frozen(&stage.broker, frozen) && self.broker.down.is_none() {
            stage.interrupt(frozen);
        }
        for guest in 0..self.guests.len() {
            self.apply_link(sim, guest, now);
            let wrong = &mut self.guests[guest];
            if wrong.down.is_some_and(|until| until <= now) {
                (wrong.down, wrong.frozen) = (None, Duration::ZERO);
                sim.bounce(name_of(guest).as_str());
            }
            set_frozen(&stage.guests[guest].process, wrong.frozen > now);
        }
    }

    fn apply_link(&mut self, sim: &Sim<'_>, guest: usize, now: Duration) {
        let wrong = &mut self.guests[guest];
        let link = wrong.link(now);
        if core::mem::replace(&mut wrong.link, link) == link {
            return;
        }
        let name = name_of(guest);
        let guest = name.as_str();
        // The only word that also delivers what was held.
        sim.release(guest, BROKER);
        match link {
            Link::Free => {}
            Link::Held => sim.hold(guest, BROKER),
            Link::Cut => sim.partition(guest, BROKER),
            Link::CutToBroker => sim.partition_oneway(guest, BROKER),
            Link::CutToGuest => sim.partition_oneway(BROKER, guest),
        }
    }
}

impl Wrong {
    fn cut(&mut self, way: Way, until: Duration) {
        if way != Way::ToGuest {
            self.cut_to_broker = self.cut_to_broker.max(until);
        }
        if way != Way::ToBroker {
            self.cut_to_guest = self.cut_to_guest.max(until);
        }
    }
}

fn disk(stage: &Stage) -> RefMut<'_, Disk> {
    stage.disk.borrow_mut()
}

/// Whether something changed.
fn set_frozen<E>(process: &super::drive::Process<E>, frozen: bool) -> bool {
    let changes = process.is_up() && process.is_frozen() != frozen;
    if changes {
        process.freeze(frozen);
    }
    changes
}

impl Stage {
    /// The broker's service has a gap: nobody is owed an answer across it.
    fn interrupt(&self, still: bool) {
        self.truth.borrow_mut().serving_since = (!still).then(|| self.clock.now().boot);
    }
}
