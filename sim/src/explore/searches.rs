//! The searches that are made: those that close within seconds, and the large ones.

use super::{Bounds, Faults, Jitter};

/// One search.
#[derive(Clone, Debug)]
pub struct Search {
    /// What it looks at, in a few words.
    pub what: &'static str,
    /// How far it goes.
    pub bounds: Bounds,
    /// Whether it is meant to come to an end by itself.
    pub closes: bool,
}

/// States of a search that isn't meant to close.
const SHALLOW: u32 = 10_000;
/// The same, of a large one.
const DEEP: u32 = 3_000_000;

/// The searches with 1 guest, or with 2. `full`: minutes and some gigabytes in a
/// release build, instead of seconds.
#[must_use]
pub fn searches(guests: usize, full: bool) -> Vec<Search> {
    // What is asked of every state in a large search, of some in a small one.
    let one = Bounds { converge_every: if full { 1 } else { 10 }, ..Bounds::one_guest() };
    let single = Bounds { streams: 1, in_flight: 1, ..one.clone() };
    let closes = |what, bounds| Search { what, bounds, closes: true };
    let bounded =
        |what, bounds, states_max| Search { what, bounds: Bounds { states_max, ..bounds }, closes: false };
    if guests > 1 {
        let two = Bounds { guests: 2, ..one };
        let calm = Bounds { guests: 2, faults: Faults::NONE, ..single };
        return if full {
            vec![closes("only delays", calm), bounded("all faults", two, DEEP)]
        } else {
            vec![bounded("all faults", two, SHALLOW)]
        };
    }
    let most = Bounds { jitter: Jitter::Most, ..one.clone() };
    let mut all = vec![
        closes(
            "one connection at a time, all faults but freezes",
            Bounds { faults: Faults { freeze: false, ..Faults::ALL }, ..single.clone() },
        ),
        closes(
            "one connection at a time, freezes",
            Bounds { faults: Faults { freeze: true, ..Faults::NONE }, ..single },
        ),
        closes("two connections, only delays", Bounds { in_flight: 1, faults: Faults::NONE, ..one.clone() }),
    ];
    if full {
        all.extend([closes("all faults, least jitter", one), closes("all faults, most jitter", most)]);
    } else {
        all.extend([
            bounded("all faults, least jitter", one, SHALLOW),
            bounded("all faults, most jitter", most, SHALLOW),
        ]);
    }
    all
}
