//! Networks by name.

use core::fmt;
use core::str::FromStr;

use crate::choice::Choice;
use crate::plan::{Fault, FaultKind, Network, Way};

/// How a network behaves on an ordinary day.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Profile {
    /// One host: 20 to 200 µs.
    Loopback,
    /// One building: 0.2 to 2 ms.
    Lan,
    /// Far apart: 20 to 120 ms.
    Wan,
    /// Far apart, and some segments are lost: TCP sends them again after 0.2 s,
    /// 0.4 s, 0.8 s…, and everything behind them waits. About every 20 s.
    Lossy,
    /// Up to 0.4 s, and a loss about every 4 s.
    Awful,
}

impl Profile {
    /// All of them, best first.
    pub const ALL: [Self; 5] = [Self::Loopback, Self::Lan, Self::Wan, Self::Lossy, Self::Awful];

    /// Its name.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Loopback => "loopback",
            Self::Lan => "lan",
            Self::Wan => "wan",
            Self::Lossy => "lossy",
            Self::Awful => "awful",
        }
    }

    /// Delays of its segments. Losses are faults: see [`crate::measure::Setup::plan`].
    #[must_use]
    pub const fn network(self) -> Network {
        let (latency_min_us, latency_max_us) = match self {
            Self::Loopback => (20, 200),
            Self::Lan => (200, 2000),
            Self::Wan => (20_000, 120_000),
            Self::Lossy => (20_000, 200_000),
            Self::Awful => (50_000, 400_000),
        };
        let (cut, join, short_read, spurious) = (0, 0, 0, 0);
        Network {
            latency_min_us,
            latency_max_us,
            cut,
            join,
            short_read,
            spurious,
            buffer: 65_536,
            backlog: 128,
        }
    }

    /// Mean time between two losses of a guest, in milliseconds; 0: none.
    const fn loss_every_ms(self) -> u64 {
        match self {
            Self::Loopback | Self::Lan | Self::Wan => 0,
            Self::Lossy => 20_000,
            Self::Awful => 4000,
        }
    }

    /// Adds the losses of one guest until `end` ms: the stream stands still until
    /// the segment was sent again. Half of the second sendings are lost, too,
    /// and so on: the timeout doubles (RFC 6298, section 5.5).
    pub(super) fn stalls(self, choice: &mut impl Choice, guest: usize, end: u64, faults: &mut Vec<Fault>) {
        let mean = self.loss_every_ms();
        if mean == 0 {
            return;
        }
        let mut at = choice.between(1, 2 * mean);
        while at < end {
            let mut for_ms = 200;
            while for_ms < 6400 && choice.once_in(2) {
                for_ms *= 2;
            }
            faults.push(Fault { at_ms: at, kind: FaultKind::Hold, guest, way: Way::Both, for_ms });
            at += for_ms + choice.between(1, 2 * mean);
        }
    }
}

impl fmt::Display for Profile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Profile {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Self::ALL
            .into_iter()
            .find(|profile| profile.as_str() == text)
            .ok_or_else(|| format!("no such network: one of {}", Self::ALL.map(Self::as_str).join(", ")))
    }
}
