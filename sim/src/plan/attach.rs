//! Managed attach in a world: who may adopt whom, and what is done about it.

use serde::{Deserialize, Serialize};

use castra_core::peers::Policy;

use super::{Guest, GuestKind, Inbox, Network};
use crate::choice::Choice;

/// Managed attach.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Attach {
    /// Where guests are told to attach.
    pub door: Door,
    /// How long a code is good, in milliseconds.
    pub code_ms: u64,
    /// How long a lease lasts, in milliseconds.
    pub lease_ms: u64,
    /// How long a poll waits, in milliseconds.
    pub poll_ms: u64,
    /// How long agents wait for an answer, in milliseconds.
    pub request_ms: u64,
    /// Of each guest.
    pub guests: Vec<Managed>,
    /// What the manager that is not this broker answers, once in so many of its answers
    /// not as it should; 0: never.
    pub odd_manager: u32,
    /// What is done, in the order of time.
    pub steps: Vec<Step>,
}

/// Where guests are told to attach.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Door {
    /// The broker has no HTTP listener: over their links.
    Link,
    /// At the address at which their own connection was accepted, if it was TCP.
    Accepted,
    /// At an address that the operator says.
    Advertised,
}

/// A guest, as far as it may be managed.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Managed {
    /// Its agent trusts a broker that did not prove itself.
    pub trusts: bool,
    /// Its environment names a manager, which is not this broker.
    pub hinted: bool,
    /// Once in so many its terminal is somebody's, missing, too slow or broken; 0: never.
    pub odd_terminal: u32,
    /// Longest time that typing takes, in milliseconds.
    pub typing_ms: u64,
}

/// Somebody does something about managed attach.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Step {
    /// When, in milliseconds.
    pub at_ms: u64,
    /// What.
    pub task: Task,
    /// About which guest.
    pub guest: usize,
    /// Adopt: over the link in any case.
    pub link: bool,
    /// Whether its end is waited for.
    pub wait: bool,
    /// Requests, one behind the other without waiting.
    pub times: u32,
    /// Bytes beyond what tells actions apart.
    pub padding: u32,
    /// How long an action may wait, in milliseconds; `None`: the default.
    pub ttl_ms: Option<u64>,
    /// The bound that it states, in milliseconds; `None`: the default.
    pub timeout_ms: Option<u64>,
}

/// What is done about managed attach.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Task {
    /// The guest is to do something.
    Act,
    /// The guest is adopted.
    Adopt,
    /// It is let go of.
    Release,
    /// How are the attachments?
    Attachments,
    /// Which actions wait?
    Actions,
    /// In the guest: is it attached?
    Look,
}

impl Task {
    /// All of them.
    pub const ALL: [Self; 6] =
        [Self::Act, Self::Adopt, Self::Release, Self::Attachments, Self::Actions, Self::Look];

    /// The word.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Act => "action_send",
            Self::Adopt => "adopt",
            Self::Release => "release",
            Self::Attachments => "attachments",
            Self::Actions => "action_list",
            Self::Look => "await_attach",
        }
    }
}

impl Step {
    /// What one of its actions types. `index`: its own number in the plan.
    #[must_use]
    pub fn text(&self, index: usize, request: u32) -> String {
        format!("a{index}.{request} {}\n", ".".repeat(self.padding as usize))
    }
}

/// Draws whether there is managed attach in a world, and what is done about it.
pub(super) fn draw(
    choice: &mut impl Choice,
    guests: &mut [Guest],
    most: usize,
    (chaos_ms, window_ms): (u64, u64),
    network: &Network,
) -> Option<Attach> {
    if most == 0 || !choice.once_in(4) {
        return None;
    }
    let managed = guests.iter().map(|_| managed(choice)).collect();
    for guest in guests.iter_mut().filter(|guest| guest.kind == GuestKind::Agent) {
        // Who keeps nothing applies nothing.
        if guest.inbox.is_none() && !choice.once_in(6) {
            guest.inbox = Some(Inbox { policies: vec![Policy::Default], require_authenticated: false });
        }
    }
    let mut tasks = Vec::new();
    for task in Task::ALL {
        let usual = match task {
            Task::Act => 8,
            Task::Adopt => 2,
            _ => 1,
        };
        tasks.extend(core::iter::repeat_n(task, usual * choice.pick(&[1, 1, 2, 0])));
    }
    let agents: Vec<usize> =
        (0..guests.len()).filter(|guest| guests[*guest].kind == GuestKind::Agent).collect();
    let mut steps = Vec::new();
    // Without an adoption there is little to do.
    for guest in &agents {
        for at_ms in [chaos_ms / 16, chaos_ms / 6, chaos_ms / 2] {
            if !choice.once_in(3) {
                let at_ms = choice.between(0, at_ms);
                let mut adopt = step(choice, Task::Adopt, *guest, (chaos_ms, window_ms));
                (adopt.at_ms, adopt.times) = (at_ms, 1);
                steps.push(adopt);
            }
        }
    }
    for _ in 0..choice.below(most as u32 + 1) {
        let Some(task) = (!tasks.is_empty()).then(|| choice.pick(&tasks)) else { break };
        let guest =
            if choice.once_in(8) { choice.below(guests.len() as u32) as usize } else { choice.pick(&agents) };
        steps.push(step(choice, task, guest, (chaos_ms, window_ms)));
    }
    // What waits on a line of some hundred bytes a second keeps its guest from answering in time.
    let most = if network.buffer < 1000 { 200 } else { u32::MAX };
    steps.iter_mut().for_each(|step| step.padding = step.padding.min(most));
    steps.sort_by_key(|step| step.at_ms);
    // Handshakes and leases that end before they arrive would be all that a slow line carries.
    let slow = network.latency_max_us / 1000;
    Some(Attach {
        door: choice.pick(&[Door::Advertised, Door::Accepted, Door::Link]),
        code_ms: choice.pick(&[5000, 20_000, 1000, 600_000]).max(slow * 40),
        lease_ms: choice.pick(&[30_000, 5000, 2000]).max(slow * 10),
        poll_ms: choice.pick(&[25_000, 3000]),
        request_ms: choice.pick(&[10_000, 2000]),
        guests: managed,
        odd_manager: choice.pick(&[0, 2, 4]),
        steps,
    })
}

fn managed(choice: &mut impl Choice) -> Managed {
    Managed {
        trusts: !choice.once_in(4),
        hinted: choice.once_in(4),
        odd_terminal: choice.pick(&[0, 0, 8, 3]),
        typing_ms: choice.pick(&[2, 100, 1500, 4500, 4500]),
    }
}

fn step(choice: &mut impl Choice, task: Task, guest: usize, (chaos_ms, window_ms): (u64, u64)) -> Step {
    Step {
        at_ms: choice.between(0, chaos_ms),
        task,
        guest,
        link: choice.once_in(4),
        wait: choice.once_in(2),
        times: if task == Task::Act { choice.pick(&[1, 1, 2, 3, 12]) } else { choice.pick(&[1, 1, 1, 2]) },
        padding: choice.pick(&[0, 0, 0, 0, 0, 0, 200, 200, 200, 2000, 12_000, 16_000]),
        ttl_ms: choice.pick(&[None, None, None, Some(20_000), Some(3000), Some(300)]),
        timeout_ms: if choice.once_in(2) { Some(choice.between(1, window_ms * 3)) } else { None },
    }
}
