//! What happens to a connection: decided by a seed before its first byte.

use std::time::Duration;

/// How rough a network is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Profile {
    /// Bytes come late, in pieces or together; all of them come. Nothing that a program
    /// promises may depend on it.
    Slow,
    /// And the first connections end before the broker has believed anybody; and bytes are held
    /// for less than the shortest window in use. Then it is only slow.
    Rough,
    /// Anything at any time, until peace is made.
    Wild,
    /// Connections that are short anyway end early, whoever speaks, until peace is made.
    Torn,
}

/// What can happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    Delay,
    Split,
    Join,
    Hold,
    /// One direction stands still, and then the connection is reset.
    Stall,
    HalfClose,
    Drop,
    Reset,
}

/// What ends a connection, and where.
#[derive(Clone, Copy, Debug)]
pub(super) struct Cut {
    /// In what the client says, not in what it hears.
    pub(super) up: bool,
    /// After so many bytes.
    pub(super) after: u64,
    /// And in any case before so many lines are whole.
    pub(super) lines: u64,
    pub(super) how: Fault,
    /// For how long nothing moves before the end, if it is no end at once.
    pub(super) lasts: Duration,
}

/// Something that is done at a time, whatever is said.
#[derive(Clone, Copy, Debug)]
pub(super) struct Deed {
    /// Counted from the deed before it.
    pub(super) after: Duration,
    pub(super) what: Fault,
    /// Concerns what the client says.
    pub(super) up: bool,
    /// How long it lasts, if it is nothing that ends at once.
    pub(super) lasts: Duration,
}

pub(super) struct Plan {
    pub(super) profile: Profile,
    pub(super) cut: Option<Cut>,
    /// The last of them ends the connection, unless there is none.
    pub(super) deeds: Vec<Deed>,
    /// A source of choices for each direction, the client's first.
    pub(super) random: [Random; 2],
}

/// After so many connections a rough proxy is only slow.
const CUT_CONNECTIONS: u64 = 2;

impl Plan {
    pub(super) fn new(profile: Profile, mut random: Random, number: u64) -> Self {
        let cut = match profile {
            // A guest proves itself with its second line.
            Profile::Rough if number < CUT_CONNECTIONS => Some((true, 120, 2, 700)),
            Profile::Torn => Some((random.chance(1, 3), 400, u64::MAX, 3000)),
            Profile::Slow | Profile::Rough | Profile::Wild => None,
        };
        let cut = cut.filter(|_| random.chance(3, 4)).map(|(up, most, lines, most_ms)| {
            let how = [Fault::Reset, Fault::Drop, Fault::HalfClose, Fault::Stall][random.below(4) as usize];
            let least_ms = if how == Fault::Stall { most_ms } else { 0 };
            let lasts = Duration::from_millis(random.between(least_ms, most_ms));
            Cut { up, after: random.below(most + 1), lines, how, lasts }
        });
        let deeds = if profile == Profile::Wild { wild(&mut random) } else { vec![] };
        Self { profile, cut, deeds, random: [random.fork(1), random.fork(2)] }
    }
}

/// So often bytes are held on one connection before it ends.
const HOLDS: usize = 3;

/// Holds and releases, and in the end an end.
fn wild(random: &mut Random) -> Vec<Deed> {
    let mut deeds = vec![];
    loop {
        let after = Duration::from_millis(random.between(20, 900));
        let what = match random.below(20) {
            0..=11 if deeds.len() < HOLDS => Fault::Hold,
            0..=11 => Fault::Reset,
            12 | 13 => Fault::Stall,
            14 | 15 => Fault::HalfClose,
            16 | 17 => Fault::Drop,
            _ => Fault::Reset,
        };
        let lasts = match what {
            Fault::Hold => random.between(50, 1500),
            Fault::Stall => random.between(1000, 3000),
            _ => random.between(50, 400),
        };
        let lasts = Duration::from_millis(lasts);
        deeds.push(Deed { after, what, up: random.chance(1, 2), lasts });
        if what != Fault::Hold {
            return deeds;
        }
    }
}

impl Profile {
    /// As in `CASTRA_TEST_PROXY`: those under which any test has to hold.
    pub(crate) fn named(name: &str) -> Option<Self> {
        match name {
            "slow" => Some(Self::Slow),
            "rough" => Some(Self::Rough),
            _ => None,
        }
    }
}

impl Fault {
    pub(crate) const ALL: [Self; 8] = [
        Self::Delay,
        Self::Split,
        Self::Join,
        Self::Hold,
        Self::Stall,
        Self::HalfClose,
        Self::Drop,
        Self::Reset,
    ];

    /// Whether no connection outlives it.
    pub(crate) const fn is_end(self) -> bool {
        matches!(self, Self::Stall | Self::HalfClose | Self::Drop | Self::Reset)
    }
}

/// SplitMix64 (Steele, Lea, Flood: Fast splittable pseudorandom number generators).
#[derive(Clone, Copy, Debug)]
pub(crate) struct Random(u64);

impl Random {
    pub(crate) const fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// Another source, for something that has this number.
    pub(crate) fn fork(&mut self, number: u64) -> Self {
        let seed = self.next();
        Self(seed ^ Self(number).next())
    }

    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    pub(crate) fn between(&mut self, least: u64, most: u64) -> u64 {
        least + self.below(most - least + 1)
    }

    pub(crate) fn chance(&mut self, of: u64, all: u64) -> bool {
        self.below(all) < of
    }
}
