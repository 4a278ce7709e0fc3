//! A fuzzer's bytes as choices. When they are used up, every choice is 0.

/// The rest of an input.
#[derive(Clone, Debug)]
pub(crate) struct Choices<'a>(pub(crate) &'a [u8]);

impl<'a> Choices<'a> {
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(crate) fn byte(&mut self) -> u8 {
        self.0.split_off_first().copied().unwrap_or(0)
    }

    pub(crate) fn number(&mut self) -> u16 {
        u16::from_be_bytes([self.byte(), self.byte()])
    }

    /// A place among `count` things; `None` if there are none.
    pub(crate) fn place(&mut self, count: usize) -> Option<usize> {
        (count > 0).then(|| usize::from(self.byte()) % count)
    }

    /// One of `options`, which are not empty.
    pub(crate) fn pick<T: Copy>(&mut self, options: &[T]) -> T {
        options[usize::from(self.byte()) % options.len()]
    }

    /// Up to 65 535 bytes as they are, behind their length.
    pub(crate) fn bytes(&mut self) -> &'a [u8] {
        let length = usize::from(self.number()).min(self.0.len());
        self.0.split_off(..length).unwrap_or_default()
    }
}

/// Lengths of pieces, as a seed has them.
pub(crate) struct Cuts(u32);

impl Cuts {
    pub(crate) fn new(seed: u16) -> Self {
        Self(u32::from(seed) | 1 << 16)
    }

    pub(crate) fn next(&mut self, left: usize) -> usize {
        // xorshift32 (Marsaglia, 2003).
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 17;
        self.0 ^= self.0 << 5;
        (self.0 as usize % 97 + 1).min(left)
    }
}
