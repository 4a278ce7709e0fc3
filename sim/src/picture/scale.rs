//! From times to heights: as time passes, but wider where much happens at
//! once and folded where nothing does.

use std::collections::BTreeSet;

use castra_core::time::Time;

use crate::chronicle::{Arrow, Chronicle};

/// Least height between two moments, so that both can be told apart.
const LEAST: f64 = 11.0;
/// A stretch without anything in it that would be higher is folded.
const MOST: f64 = 260.0;
/// Height of a fold.
const FOLD: f64 = 46.0;
/// What the whole should come to if nothing had to be widened or folded.
const TARGET: f64 = 850.0;
/// So many challenges and proofs are always drawn.
const FEW: usize = 7;
/// Moments beyond which fewer challenges are drawn.
const MANY: usize = 350;

/// Where times are drawn, and what is left out.
#[derive(Debug)]
pub(super) struct Scale {
    /// Moments and their heights, both rising.
    points: Vec<(Time, f64)>,
    /// Stretches that are drawn shorter than they were.
    pub(super) folds: Vec<Fold>,
    /// Indexes of the arrows that are drawn.
    pub(super) arrows: Vec<usize>,
}

/// A stretch that is drawn shorter than it was.
#[derive(Debug, PartialEq)]
pub(super) struct Fold {
    pub(super) from: Time,
    pub(super) until: Time,
    /// Challenges and proofs that are not drawn.
    pub(super) hidden: usize,
}

impl Scale {
    pub(super) fn new(chronicle: &Chronicle, top: f64) -> Self {
        let moments = moments(chronicle);
        // Fewer of the challenges at the edges of a quiet stretch, if it gets too much.
        let mut chosen = choose(chronicle, &moments, 0);
        for each in [4, 2] {
            let more = choose(chronicle, &moments, each);
            if more.1.len() <= MANY {
                chosen = more;
                break;
            }
        }
        let (arrows, times, hidden) = chosen;
        let gaps: Vec<_> = times.windows(2).map(|pair| (pair[0], pair[1])).collect();
        let inside = |from: Time, until: Time| hidden.iter().filter(|at| (from..until).contains(at)).count();
        let open: f64 = gaps
            .iter()
            .filter(|(from, until)| inside(*from, *until) == 0)
            .map(|(from, until)| until.since(*from).as_secs_f64())
            .sum();
        let per_second = TARGET / open.max(1e-6);
        let mut points = vec![(times.first().copied().unwrap_or_default(), top)];
        let mut folds = Vec::new();
        let mut y = top;
        for (from, until) in gaps {
            let hidden = inside(from, until);
            let height = until.since(from).as_secs_f64() * per_second;
            if hidden > 0 || height > MOST {
                folds.push(Fold { from, until, hidden });
                y += FOLD;
            } else {
                y += height.max(LEAST);
            }
            points.push((until, y));
        }
        Self { points, folds, arrows }
    }

    /// The height of a time; those beyond the ends are at the ends.
    pub(super) fn y(&self, time: Time) -> f64 {
        let after = self.points.partition_point(|(at, _)| *at < time);
        let Some((until, below)) = self.points.get(after).copied() else { return self.bottom() };
        if after == 0 || until == time {
            return below;
        }
        let (from, above) = self.points[after - 1];
        above + (below - above) * time.since(from).as_secs_f64() / until.since(from).as_secs_f64()
    }

    /// The height of the end.
    pub(super) fn bottom(&self) -> f64 {
        self.points.last().map_or(0.0, |(_, y)| *y)
    }

    /// All moments that have a height of their own, first to last.
    pub(super) fn moments(&self) -> impl Iterator<Item = (Time, f64)> {
        self.points.iter().copied()
    }
}

/// When something happened that isn't routine.
fn moments(chronicle: &Chronicle) -> BTreeSet<Time> {
    let mut moments = BTreeSet::from([Time::ZERO, chronicle.end]);
    for mark in &chronicle.marks {
        moments.insert(mark.at);
        moments.extend(mark.until);
    }
    for band in &chronicle.bands {
        moments.extend([band.from, band.until]);
    }
    for arrow in chronicle.arrows.iter().filter(|arrow| !arrow.is_routine()) {
        moments.insert(arrow.sent);
        moments.extend(arrow.arrived);
    }
    moments.extend(chronicle.violation.as_ref().map(|broken| broken.at));
    moments.into_iter().filter(|at| *at <= chronicle.end).collect()
}

type Chosen = (Vec<usize>, Vec<Time>, Vec<Time>);

/// Draws what isn't routine, and of the routine between two moments the first
/// and the last `each` messages of every process. Which arrows, the times of
/// their ends and of all moments, and when the arrows left that are hidden.
fn choose(chronicle: &Chronicle, moments: &BTreeSet<Time>, each: usize) -> Chosen {
    let moments: Vec<Time> = moments.iter().copied().collect();
    let stretch = |arrow: &Arrow| moments.partition_point(|at| *at <= arrow.sent);
    let mut order: Vec<usize> = (0..chronicle.arrows.len()).collect();
    order.sort_by_key(|index| chronicle.arrows[*index].sent);
    let mut kept = vec![true; chronicle.arrows.len()];
    // Counted from both sides; within one stretch, per process.
    for backwards in [false, true] {
        let mut seen = vec![(usize::MAX, 0_usize); chronicle.columns.len()];
        let mut visit = |index: usize| {
            let arrow = &chronicle.arrows[index];
            if !arrow.is_routine() {
                return;
            }
            let process = arrow.from.min(arrow.to);
            let Some(seen) = seen.get_mut(process) else { return };
            if seen.0 != stretch(arrow) {
                *seen = (stretch(arrow), 0);
            }
            seen.1 += 1;
            let near = seen.1 <= each;
            kept[index] = if backwards { kept[index] || near } else { near };
        };
        if backwards {
            order.iter().rev().for_each(|index| visit(*index));
        } else {
            order.iter().for_each(|index| visit(*index));
        }
    }
    // What saves nothing is not left out.
    let mut hidden = vec![0; moments.len() + 1];
    for index in (0..kept.len()).filter(|index| !kept[*index]) {
        hidden[stretch(&chronicle.arrows[index])] += 1;
    }
    for (index, kept) in kept.iter_mut().enumerate() {
        *kept |= hidden[stretch(&chronicle.arrows[index])] < FEW;
    }
    // No proof without its challenge.
    let mut last = vec![None; chronicle.columns.len()];
    for index in &order {
        let arrow = &chronicle.arrows[*index];
        if let Some(last) = last.get_mut(arrow.from.min(arrow.to)) {
            if let Some(before) = *last
                && kept[*index]
                && arrow.is_routine()
                && arrow.label.starts_with("proof")
            {
                kept[before] = true;
            }
            *last = Some(*index);
        }
    }
    let mut times: BTreeSet<Time> = moments.iter().copied().collect();
    let (mut arrows, mut hidden) = (Vec::new(), Vec::new());
    for index in order {
        let arrow = &chronicle.arrows[index];
        if !kept[index] {
            hidden.push(arrow.sent);
            continue;
        }
        arrows.push(index);
        times.insert(arrow.sent.min(chronicle.end));
        times.extend(arrow.arrived.map(|at| at.min(chronicle.end)));
    }
    (arrows, times.into_iter().collect(), hidden)
}
