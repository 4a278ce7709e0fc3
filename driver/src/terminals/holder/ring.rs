//! The newest output of a terminal, in memory that a daemon can read.
//!
//! Byte `n` of the output lies at `n mod size`. The holder writes, then adds to the
//! counter; who reads it knows how far it may read. What lies before the floor may be
//! overwritten, nothing else.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

use rustix::event::{EventfdFlags, eventfd};
use rustix::fs::{MemfdFlags, Mode, OFlags, SealFlags, fcntl_add_seals, ftruncate, memfd_create};

/// The holder's end.
#[derive(Debug)]
pub(crate) struct Ring {
    memory: OwnedFd,
    size: u64,
    begin: u64,
    floor: u64,
    end: u64,
    counter: Option<OwnedFd>,
}

impl Ring {
    /// An empty one of `size` bytes, whose first byte will be numbered `begin`.
    pub(crate) fn new(size: u64, begin: u64) -> io::Result<Self> {
        let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
        let memory = memfd_create(c"castra-terminal", flags)?;
        ftruncate(&memory, size)?;
        // Who maps or reads it can rely on its size.
        fcntl_add_seals(&memory, SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL)?;
        Ok(Self { memory, size, begin, floor: begin, end: begin, counter: None })
    }

    /// What its first byte was numbered.
    pub(crate) const fn begin(&self) -> u64 {
        self.begin
    }

    /// The oldest byte that is still there.
    pub(crate) fn first(&self) -> u64 {
        self.end.saturating_sub(self.size).max(self.begin)
    }

    /// Where the next byte goes.
    pub(crate) const fn end(&self) -> u64 {
        self.end
    }

    /// How many bytes may be appended.
    pub(crate) const fn room(&self) -> usize {
        (self.size - (self.end - self.floor)) as usize
    }

    /// Appends at most [`Self::room`] bytes, and counts them.
    pub(crate) fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        debug_assert!(bytes.len() <= self.room());
        let mut written = 0;
        while written < bytes.len() {
            let at = self.end % self.size;
            let most = (bytes.len() - written).min((self.size - at) as usize);
            let count = rustix::io::pwrite(&self.memory, &bytes[written..written + most], at)?;
            written += count;
            self.end += count as u64;
        }
        if let Some(counter) = &self.counter
            && !bytes.is_empty()
        {
            rustix::io::write(counter, &(bytes.len() as u64).to_ne_bytes())?;
        }
        Ok(())
    }

    /// What lies before `offset` may be overwritten.
    pub(crate) fn raise_floor(&mut self, offset: u64) {
        self.floor = self.floor.max(offset.min(self.end));
    }

    /// For a new daemon: the memory, read only, and a counter of what comes after
    /// [`Self::end`]. All that is still there stays until it raises the floor.
    pub(crate) fn subscribe(&mut self) -> io::Result<Vec<OwnedFd>> {
        let counter = eventfd(0, EventfdFlags::CLOEXEC)?;
        let theirs = rustix::io::fcntl_dupfd_cloexec(&counter, 3)?;
        let itself = format!("/proc/self/fd/{}", self.memory.as_raw_fd());
        let memory = rustix::fs::open(itself, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
        self.floor = self.first();
        self.counter = Some(counter);
        Ok(vec![memory, theirs])
    }

    /// Nobody reads any more.
    pub(crate) fn unsubscribe(&mut self) {
        self.counter = None;
    }
}

/// The daemon's end.
#[derive(Debug)]
pub(crate) struct View {
    memory: OwnedFd,
    size: u64,
}

impl View {
    pub(crate) const fn new(memory: OwnedFd, size: u64) -> Self {
        Self { memory, size }
    }

    /// Fills `buffer` with the output from `offset` on, which must be there.
    pub(crate) fn read(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        let mut filled = 0;
        while filled < buffer.len() {
            let at = (offset + filled as u64) % self.size;
            let most = (buffer.len() - filled).min((self.size - at) as usize);
            match rustix::io::pread(&self.memory, &mut buffer[filled..filled + most], at)? {
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                count => filled += count,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pattern(from: u64, to: u64) -> Vec<u8> {
        (from..to).map(|offset| (offset % 251) as u8).collect()
    }

    #[test]
    fn a_ring_keeps_its_newest_bytes_and_has_room_only_below_the_floor() {
        let mut ring = Ring::new(1000, 7).expect("a ring");
        ring.append(&pattern(7, 907)).expect("room");
        assert_eq!((ring.first(), ring.end(), ring.room()), (7, 907, 100));
        ring.raise_floor(407);
        ring.append(&pattern(907, 1407)).expect("room");
        assert_eq!((ring.first(), ring.end(), ring.room()), (407, 1407, 0));
        let mut descriptors = ring.subscribe().expect("descriptors");
        let (counter, memory) = (descriptors.remove(1), descriptors.remove(0));
        let view = View::new(memory, 1000);
        let mut all = vec![0; 1000];
        view.read(407, &mut all).expect("bytes");
        assert_eq!(all, pattern(407, 1407));
        ring.raise_floor(1_000_000);
        assert_eq!(ring.room(), 1000, "never above its end");
        ring.append(&[1, 2, 3]).expect("room");
        let mut count = [0; 8];
        rustix::io::read(&counter, &mut count).expect("a count");
        assert_eq!(u64::from_ne_bytes(count), 3);
        ring.subscribe().expect("descriptors");
        assert_eq!(ring.room(), 0, "a new daemon finds all that is there");
    }

    #[test]
    fn a_daemon_can_neither_write_a_ring_nor_change_its_size() {
        let mut ring = Ring::new(4096, 0).expect("a ring");
        let memory = ring.subscribe().expect("descriptors").remove(0);
        assert_eq!(rustix::io::pwrite(&memory, b"x", 0), Err(rustix::io::Errno::BADF));
        assert_eq!(ftruncate(&ring.memory, 1), Err(rustix::io::Errno::PERM));
    }
}
