//! The one source of choices. Everything that a world leaves open is a number
//! below a bound, asked for in a fixed order: whoever answers decides the run.
//!
//! 0 is always the plainest answer (no fault, the shortest delay, one guest), so
//! that a shorter or smaller list of answers is a simpler world.

use core::time::Duration;

use rand_chacha::ChaCha8Rng;
use rand_core::{Rng, SeedableRng};

/// Where a world's choices come from.
pub trait Choice {
    /// A number below `bound`, which is at least 1.
    fn below(&mut self, bound: u32) -> u32;

    /// True once in `odds`; never, if `odds` is 0.
    fn once_in(&mut self, odds: u32) -> bool {
        odds > 0 && self.below(odds) == odds - 1
    }

    /// A number from `least` to `most`, both included.
    fn between(&mut self, least: u64, most: u64) -> u64 {
        let width = u32::try_from(most.saturating_sub(least)).unwrap_or(u32::MAX - 1);
        least + u64::from(self.below(width + 1))
    }

    /// A duration up to `most`, in microseconds.
    fn span(&mut self, most: Duration) -> Duration {
        let micros = u64::try_from(most.as_micros()).unwrap_or(u64::MAX);
        Duration::from_micros(self.between(0, micros))
    }

    /// One of `options`, which are not empty; the first is the plainest.
    fn pick<T: Copy>(&mut self, options: &[T]) -> T
    where
        Self: Sized,
    {
        options[self.below(u32::try_from(options.len()).unwrap_or(u32::MAX)) as usize]
    }
}

impl<C: Choice + ?Sized> Choice for &mut C {
    fn below(&mut self, bound: u32) -> u32 {
        (**self).below(bound)
    }
}

impl<C: Choice + ?Sized> Choice for Box<C> {
    fn below(&mut self, bound: u32) -> u32 {
        (**self).below(bound)
    }
}

/// A seeded generator: the same seed makes the same choices.
#[derive(Clone, Debug)]
pub struct Seeded(ChaCha8Rng);

impl Seeded {
    /// The generator of `seed`.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self(ChaCha8Rng::seed_from_u64(seed))
    }
}

impl Choice for Seeded {
    fn below(&mut self, bound: u32) -> u32 {
        // Multiply-shift (Lemire 2019) without its correction: a bias under 2⁻³² is nothing here.
        ((u64::from(self.0.next_u32()) * u64::from(bound)) >> 32) as u32
    }
}

/// A fuzzer's bytes: one for each choice among up to 256, two up to 65 536,
/// four beyond. Once they are used up, every choice is 0.
#[derive(Clone, Debug)]
pub struct Bytes {
    bytes: Vec<u8>,
    position: usize,
}

impl Bytes {
    /// Choices from `bytes`, first to last.
    #[must_use]
    pub fn new(bytes: &[u8]) -> Self {
        Self { bytes: bytes.to_vec(), position: 0 }
    }
}

impl Choice for Bytes {
    fn below(&mut self, bound: u32) -> u32 {
        let width = match bound {
            0..=1 => return 0,
            2..=0x100 => 1,
            0x101..=0x1_0000 => 2,
            _ => 4,
        };
        let rest = &self.bytes[self.position..];
        let taken = &rest[..width.min(rest.len())];
        self.position += taken.len();
        taken.iter().fold(0, |value, byte| value << 8 | u32::from(*byte)) % bound
    }
}

/// All lists of choices there are, one a run: a counter whose digits have the
/// bounds that the run asks for.
#[derive(Clone, Debug, Default)]
pub struct Odometer {
    digits: Vec<(u32, u32)>,
    position: usize,
}

impl Odometer {
    /// Goes on to the next list; `false` when there was none left. Only digits
    /// that the last run asked for count.
    pub fn advance(&mut self) -> bool {
        self.digits.truncate(self.position);
        self.position = 0;
        while let Some((digit, bound)) = self.digits.last_mut() {
            if *digit + 1 < *bound {
                *digit += 1;
                return true;
            }
            self.digits.pop();
        }
        false
    }
}

impl Choice for Odometer {
    fn below(&mut self, bound: u32) -> u32 {
        if self.position == self.digits.len() {
            self.digits.push((0, bound));
        }
        let (digit, asked) = &mut self.digits[self.position];
        debug_assert_eq!(*asked, bound, "the same choices must ask the same questions");
        *asked = bound;
        self.position += 1;
        *digit
    }
}

/// Choices made before, from a list. Too great a number is the greatest that
/// fits; beyond the end, every choice is 0.
#[derive(Clone, Debug, Default)]
pub struct Replayed {
    choices: Vec<u32>,
    position: usize,
}

impl Replayed {
    /// The choices of `list`, first to last.
    #[must_use]
    pub const fn new(list: Vec<u32>) -> Self {
        Self { choices: list, position: 0 }
    }
}

impl Choice for Replayed {
    fn below(&mut self, bound: u32) -> u32 {
        let chosen = self.choices.get(self.position).copied().unwrap_or(0);
        self.position += 1;
        chosen.min(bound.saturating_sub(1))
    }
}

/// Writes down what another source chooses, for [`Replayed`].
#[derive(Clone, Debug)]
pub struct Recording<C> {
    source: C,
    choices: Vec<u32>,
}

impl<C> Recording<C> {
    /// Records `source`.
    pub const fn new(source: C) -> Self {
        Self { source, choices: Vec::new() }
    }

    /// What was chosen so far.
    pub fn choices(&self) -> &[u32] {
        &self.choices
    }
}

impl<C: Choice> Choice for Recording<C> {
    fn below(&mut self, bound: u32) -> u32 {
        let chosen = self.source.below(bound);
        self.choices.push(chosen);
        chosen
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_odometer_visits_every_list_once() {
        let mut odometer = Odometer::default();
        let mut seen = Vec::new();
        loop {
            let first = odometer.below(3);
            // Only some lists have a second digit.
            let second = if first == 1 { odometer.below(2) } else { 9 };
            seen.push((first, second));
            if !odometer.advance() {
                break;
            }
        }
        assert_eq!(seen, [(0, 9), (1, 0), (1, 1), (2, 9)]);
    }

    #[test]
    fn what_was_recorded_is_chosen_again() {
        let mut recording = Recording::new(Seeded::new(7));
        let bounds = [1, 2, 1000, u32::MAX, 5];
        let first = bounds.map(|bound| recording.below(bound));
        let mut again = Replayed::new(recording.choices().to_vec());
        assert_eq!(bounds.map(|bound| again.below(bound)), first);
        assert_eq!(again.below(100), 0, "beyond the end");
    }

    #[test]
    fn bytes_are_used_up_and_then_the_plainest_is_chosen() {
        let mut bytes = Bytes::new(&[7, 1, 2, 0xff]);
        assert_eq!(bytes.below(1), 0);
        assert_eq!(bytes.below(5), 2);
        assert_eq!(bytes.below(1000), 258);
        assert_eq!(bytes.below(200), 55);
        assert_eq!((bytes.below(200), bytes.below(1000)), (0, 0));
    }

    #[test]
    fn the_plainest_choice_is_no_fault_and_no_delay() {
        let mut plain = Replayed::default();
        assert!(!plain.once_in(2));
        assert!(!plain.once_in(0));
        assert_eq!(plain.span(Duration::from_secs(9)), Duration::ZERO);
        assert_eq!(plain.pick(&["first", "second"]), "first");
        assert_eq!(plain.between(4, 9), 4);
    }
}
