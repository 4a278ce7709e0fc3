//! The newest output of a terminal, by offset.

use alloc::vec::Vec;

/// Keeps the last `capacity` bytes of `[start, end)`.
#[derive(Clone)]
pub(super) struct Ring {
    bytes: Vec<u8>,
    capacity: usize,
    start: u64,
    first: u64,
    end: u64,
}

impl Ring {
    pub(super) fn new(capacity: usize, start: u64) -> Self {
        Self { bytes: Vec::new(), capacity: capacity.max(1), start, first: start, end: start }
    }

    /// The oldest byte that is kept.
    pub(super) const fn first(&self) -> u64 {
        self.first
    }

    /// Behind the newest byte.
    pub(super) const fn end(&self) -> u64 {
        self.end
    }

    /// How much it takes before its oldest byte goes.
    pub(super) fn room(&self) -> usize {
        self.capacity - usize::try_from(self.end - self.first).unwrap_or(self.capacity).min(self.capacity)
    }

    pub(super) fn push(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let at = self.place(self.end);
            let length = bytes.len().min(self.capacity - at);
            let (head, rest) = bytes.split_at(length);
            if at == self.bytes.len() {
                self.bytes.extend_from_slice(head);
            } else {
                self.bytes[at..at + length].copy_from_slice(head);
            }
            self.end += length as u64;
            bytes = rest;
        }
        self.first = self.first.max(self.end.saturating_sub(self.capacity as u64));
    }

    /// What lies between is lost.
    pub(super) fn skip_to(&mut self, offset: u64) {
        self.bytes.clear();
        (self.start, self.first, self.end) = (offset, offset, offset);
    }

    /// At most `most` bytes from `offset` on, as far as they lie together.
    pub(super) fn get(&self, offset: u64, most: usize) -> &[u8] {
        if offset < self.first || offset >= self.end {
            return &[];
        }
        let at = self.place(offset);
        let left = usize::try_from(self.end - offset).unwrap_or(usize::MAX);
        &self.bytes[at..at + left.min(most).min(self.capacity - at)]
    }

    fn place(&self, offset: u64) -> usize {
        // Below the capacity.
        ((offset - self.start) % self.capacity as u64) as usize
    }
}

#[cfg(test)]
mod tests {
    use super::Ring;
    use alloc::vec::Vec;

    fn read(ring: &Ring, mut offset: u64) -> Vec<u8> {
        let mut all = Vec::new();
        loop {
            let part = ring.get(offset, 3);
            if part.is_empty() {
                return all;
            }
            all.extend_from_slice(part);
            offset += part.len() as u64;
        }
    }

    #[test]
    fn the_newest_bytes_are_there_whatever_their_pieces() {
        for step in 1..25 {
            let mut ring = Ring::new(10, 7);
            let all: Vec<u8> = (0..100).collect();
            let mut written = 0;
            for piece in all.chunks(step) {
                ring.push(piece);
                written += piece.len();
                assert_eq!(ring.end(), 7 + written as u64);
                assert_eq!(ring.first(), 7 + written.saturating_sub(10) as u64);
                assert_eq!(read(&ring, ring.first()), all[written.saturating_sub(10)..written]);
                assert!(ring.get(ring.end(), 1).is_empty() && ring.get(0, 1).is_empty());
            }
        }
    }
}
