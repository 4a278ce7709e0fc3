//! A terminal as its holder has it: a program, a ring, and what was written to it.

use std::collections::VecDeque;

use castra_core::terminals::Exit;
use castra_driver::work::JobId;

use crate::terminals::pattern::Reader;
use crate::terminals::plan::Program;

/// What a kernel takes for a program that doesn't read.
const KERNEL: usize = 4096;

/// A terminal in the holder.
#[derive(Debug)]
pub(super) struct Held {
    pub(super) pid: u32,
    pub(super) start_time: u64,
    pub(super) size: (u16, u16),
    pub(super) program: Program,
    /// The next of its steps.
    pub(super) step: usize,
    /// What it wants to write and can't yet.
    pub(super) blocked: u64,
    /// Where its output begins.
    pub(super) first: u64,
    /// How far it has written.
    pub(super) end: u64,
    /// The oldest byte that its daemon wants to keep.
    pub(super) floor: u64,
    /// Where the stored snapshot ends.
    pub(super) stored: Option<u64>,
    /// Where it asked the terminal something.
    pub(super) queries: VecDeque<u64>,
    /// Writes that are not taken whole.
    pub(super) writes: VecDeque<(JobId, Vec<u8>)>,
    pub(super) reader: Reader,
    /// Of a program that doesn't read: what the kernel took for it.
    taken: usize,
    /// How the program ended.
    pub(super) exit: Option<Exit>,
    /// Nothing more will be written.
    pub(super) closed: bool,
    /// The holder is gone.
    pub(super) lost: bool,
}

impl Held {
    pub(super) fn new(pid: u32, start_time: u64, size: (u16, u16), program: Program, first: u64) -> Self {
        Self {
            pid,
            start_time,
            size,
            program,
            step: 0,
            blocked: 0,
            first,
            end: first,
            floor: first,
            stored: None,
            queries: VecDeque::new(),
            writes: VecDeque::new(),
            reader: Reader::default(),
            taken: 0,
            exit: None,
            closed: false,
            lost: false,
        }
    }

    /// Whether the program runs.
    pub(super) const fn runs(&self) -> bool {
        self.exit.is_none() && !self.lost
    }

    /// Moves what fits into the ring.
    pub(super) fn fill(&mut self, ring: u64) {
        let room = ring.saturating_sub(self.end - self.floor);
        let count = self.blocked.min(room);
        self.blocked -= count;
        self.end += count;
    }

    /// The oldest byte that is still in the ring.
    pub(super) fn oldest(&self, ring: u64) -> u64 {
        self.first.max(self.end.saturating_sub(ring))
    }

    /// Takes up to `most` bytes of what is written to it: how many, and which writes
    /// are taken whole.
    pub(super) fn take(&mut self, most: usize) -> (usize, Vec<JobId>) {
        let listens = self.runs() && !self.program.deaf;
        let mut left = if listens { most } else { most.min(KERNEL - self.taken) };
        let (mut count, mut done) = (0, Vec::new());
        while let Some((job, bytes)) = self.writes.front_mut() {
            let part = bytes.len().min(left);
            self.reader.push(&bytes[..part]);
            bytes.drain(..part);
            left -= part;
            count += part;
            if !bytes.is_empty() {
                break;
            }
            done.push(*job);
            self.writes.pop_front();
        }
        if !listens {
            self.taken += count;
        }
        (count, done)
    }
}
