//! What guests and their operator do about peers.

use castra_core::peers::{KEY_MAX, Policy};
use serde::{Deserialize, Serialize};

use super::{Guest, GuestKind};
use crate::choice::Choice;

/// An agent that takes part: it keeps an inbox, on a disk of its own.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Inbox {
    /// Whom it takes as a peer: in its first life the first, then the next, and
    /// from the beginning again.
    pub policies: Vec<Policy>,
    /// Whether it takes messages only of senders that are proven with a key.
    pub require_authenticated: bool,
}

/// Somebody does something about peers.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Act {
    /// When, in milliseconds.
    pub at_ms: u64,
    /// Who.
    pub by: By,
    /// What.
    pub deed: Deed,
    /// The guest that does it, or for which the operator does.
    pub guest: usize,
    /// With whom. The number of guests: a name that nobody has; one more: the
    /// beginning of all names.
    pub other: usize,
    /// Requests, one behind the other without waiting.
    pub times: u32,
    /// Which key its messages have.
    pub key: Option<u32>,
    /// Whether its messages may wait.
    pub queue: bool,
    /// Bytes of text beyond what tells messages apart.
    pub padding: u32,
    /// The bound that it states, in milliseconds; `None`: the default.
    pub timeout_ms: Option<u64>,
}

/// Who does something about peers.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum By {
    /// The operator, over the broker's control socket.
    Host,
    /// A process in the guest, over its agent's socket.
    Guest,
}

/// What is done about peers.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Deed {
    /// Messages.
    Send,
    /// They are to be peers.
    Register,
    /// They are to be peers no more.
    Unregister,
    /// Whom does it know?
    List,
    /// What is in its inbox, and what comes into it for a while?
    Read,
    /// In a guest: how is the other?
    Look,
    /// In a guest: whoever asks for a while is taken as a peer.
    Accept,
    /// In a guest: whoever asks for a while is not.
    Refuse,
    /// In a guest: nothing is to be registered from here.
    Hold,
    /// In a guest: it may be again.
    Resume,
}

impl Deed {
    /// All of them.
    pub const ALL: [Self; 10] = [
        Self::Send,
        Self::Register,
        Self::Unregister,
        Self::List,
        Self::Read,
        Self::Look,
        Self::Accept,
        Self::Refuse,
        Self::Hold,
        Self::Resume,
    ];

    /// The word.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Send => "send",
            Self::Register => "register",
            Self::Unregister => "unregister",
            Self::List => "list",
            Self::Read => "read",
            Self::Look => "look",
            Self::Accept => "accept",
            Self::Refuse => "refuse",
            Self::Hold => "hold",
            Self::Resume => "resume",
        }
    }

    /// Whether the operator can do it, too.
    pub(crate) const fn is_the_hosts(self) -> bool {
        matches!(self, Self::Send | Self::Register | Self::Unregister | Self::List | Self::Read)
    }
}

/// Draws which agents take part in a world, and what is done there.
pub(super) fn draw(
    choice: &mut impl Choice,
    guests: &mut [Guest],
    most: usize,
    times: (u64, u64),
) -> (Vec<[usize; 2]>, Vec<Act>) {
    if most == 0 || guests.len() < 2 || !choice.once_in(2) {
        return (Vec::new(), Vec::new());
    }
    // Guest 0 is an agent; alone it has nobody to talk to.
    guests[1].kind = GuestKind::Agent;
    for guest in guests.iter_mut().filter(|guest| guest.kind == GuestKind::Agent) {
        guest.inbox = (!choice.once_in(8)).then(|| inbox(choice));
    }
    let couple =
        (0, if guests[2..].is_empty() { 1 } else { 1 + choice.below(guests.len() as u32 - 1) as usize });
    let mut deeds = Vec::new();
    for deed in Deed::ALL {
        let usual = if deed == Deed::Send { 6 } else { 1 };
        deeds.extend(core::iter::repeat_n(deed, usual * choice.pick(&[1, 1, 2, 0, 4])));
    }
    let mut acts = Vec::new();
    // Without peers there is little to do.
    for at_ms in [times.0 / 8, times.0 / 2] {
        if choice.once_in(4) {
            continue;
        }
        let at_ms = choice.between(0, at_ms);
        let (by, deed) = (By::Host, Deed::Register);
        let (guest, other) = couple;
        let (times, key, queue, padding, timeout_ms) = (1, None, true, 0, None);
        acts.push(Act { at_ms, by, deed, guest, other, times, key, queue, padding, timeout_ms });
    }
    if !deeds.is_empty() {
        for _ in 0..choice.below(most as u32 + 1) {
            acts.push(act(choice, &deeds, (guests, couple), times));
        }
    }
    acts.sort_by_key(|act| act.at_ms);
    let couples = if choice.once_in(4) { Vec::new() } else { vec![[couple.0, couple.1]] };
    (couples, acts)
}

fn inbox(choice: &mut impl Choice) -> Inbox {
    use Policy::{Accept, Ask, Default, Deny};
    let lives = 1 + choice.below(3);
    let policies =
        (0..lives).map(|_| choice.pick(&[Default, Accept, Accept, Accept, Ask, Ask, Deny])).collect();
    Inbox { policies, require_authenticated: choice.once_in(6) }
}

fn act(
    choice: &mut impl Choice,
    deeds: &[Deed],
    (guests, couple): (&[Guest], (usize, usize)),
    (chaos_ms, window_ms): (u64, u64),
) -> Act {
    let deed = choice.pick(deeds);
    let count = guests.len() as u32;
    let (guest, other) = match choice.below(24) {
        0..=8 => couple,
        9..=14 => (couple.1, couple.0),
        15 => (couple.0, couple.0),
        16 => (couple.0, count as usize),
        17 => (couple.1, count as usize + 1),
        _ => {
            let guest = choice.below(count) as usize;
            (guest, (guest + 1 + choice.below(count - 1) as usize) % count as usize)
        }
    };
    let has_inbox = |guest: &usize| guests[*guest].inbox.is_some();
    let by_guest = !deed.is_the_hosts() || (choice.once_in(2) && has_inbox(&guest));
    // Somebody who can.
    let able = (0..guests.len()).find(has_inbox).filter(|_| by_guest && !has_inbox(&guest));
    Act {
        at_ms: choice.between(0, chaos_ms),
        by: if by_guest { By::Guest } else { By::Host },
        deed,
        guest: able.unwrap_or(guest),
        other,
        times: choice.pick(&[1, 1, 2, 3, 8]),
        key: if choice.once_in(3) { Some(choice.below(3)) } else { None },
        queue: !choice.once_in(4),
        padding: choice.pick(&[0, 0, 0, 0, 0, 0, 0, 200, 200, 200, 2000, 2000, 12_000, 40_000]),
        timeout_ms: if choice.once_in(2) { Some(choice.between(1, window_ms * 3)) } else { None },
    }
}

impl Act {
    /// The key of its messages.
    #[must_use]
    pub fn key(&self) -> Option<String> {
        // The third is as long as a key can be.
        self.key.map(|key| if key == 2 { "k".repeat(KEY_MAX) } else { format!("k{key}") })
    }

    /// The text of one of its messages. `index`: its own number in the plan.
    #[must_use]
    pub fn text(&self, index: usize, request: u32) -> String {
        // What a text takes as JSON is not what it takes by itself.
        let padding = if self.padding == 12_000 { "\u{1}" } else { "." };
        format!("m{index}.{request} {}", padding.repeat(self.padding as usize))
    }
}
