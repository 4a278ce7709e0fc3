//! A client: what it hears, and whether that may be.

use std::collections::{BTreeMap, VecDeque};

use castra_core::terminals::wire::{Answer, CLIENT_FRAME_MAX, Event, Frames, Message};

use super::byte;

#[derive(Debug)]
pub(crate) struct Peer {
    pub(crate) capacity: usize,
    /// What the engine thinks there is room for.
    pub(super) room: usize,
    pub(super) buffer: VecDeque<u8>,
    frames: Frames,
    pub(crate) answers: BTreeMap<u32, Vec<u8>>,
    pub(crate) events: Vec<Vec<u8>>,
    /// The next offset of what it watches.
    pub(crate) watched: BTreeMap<u32, u64>,
    pub(crate) received: BTreeMap<u32, u64>,
    pub(crate) skipped: BTreeMap<u32, u64>,
    pub(crate) exits: BTreeMap<u32, u32>,
    /// What the answer of that number ends.
    pub(crate) detaching: BTreeMap<u32, u32>,
    pub(super) seq: u32,
    /// Reads everything at once.
    pub(crate) eager: bool,
    pub(crate) open: bool,
}

impl Peer {
    pub(crate) fn new(capacity: usize) -> Self {
        Self {
            capacity,
            room: capacity,
            buffer: VecDeque::new(),
            frames: Frames::default(),
            answers: BTreeMap::new(),
            events: Vec::new(),
            watched: BTreeMap::new(),
            received: BTreeMap::new(),
            skipped: BTreeMap::new(),
            exits: BTreeMap::new(),
            detaching: BTreeMap::new(),
            seq: 0,
            eager: true,
            open: true,
        }
    }

    pub(crate) fn take(&mut self, most: usize, ends: &BTreeMap<u32, u64>) -> usize {
        let count = most.min(self.buffer.len());
        let bytes: Vec<u8> = self.buffer.drain(..count).collect();
        let (mut rest, mut frames) = (bytes.as_slice(), std::mem::take(&mut self.frames));
        while let Some(frame) = frames.next(&mut rest, CLIENT_FRAME_MAX).unwrap() {
            self.hear(frame, ends);
        }
        self.frames = frames;
        count
    }

    /// O2 and O3, as a client sees them.
    fn hear(&mut self, frame: &[u8], ends: &BTreeMap<u32, u64>) {
        match Message::parse(frame).unwrap() {
            Message::Reply { seq, answer } => {
                if let Some(session) = self.detaching.remove(&seq) {
                    self.watched.remove(&session);
                }
                if let Answer::Granted(granted) = &answer
                    && let (Some(session), Some(offset)) = (granted.session, granted.offset)
                {
                    self.watched.insert(session, offset);
                    self.exits.remove(&session);
                }
                assert!(
                    seq == 0 || self.answers.insert(seq, frame.to_vec()).is_none(),
                    "two answers to {seq}"
                );
                if seq == 0 {
                    self.answers.insert(0, frame.to_vec());
                }
                return;
            }
            Message::Event(Event::Output { session, data, offset }) => {
                let next = self.watched.get_mut(&session).expect("output of what isn't watched");
                assert_eq!(offset, Some(*next), "a gap or a doubled byte");
                assert!(!data.is_empty() && data.len() <= 32 * 1024);
                for (place, got) in data.iter().enumerate() {
                    assert_eq!(*got, byte(*next + place as u64));
                }
                *next += data.len() as u64;
                *self.received.entry(session).or_default() += data.len() as u64;
                // Too many to keep.
                return;
            }
            Message::Event(Event::Resync { session, offset, skipped_bytes, .. }) => {
                let next = self.watched.get_mut(&session).expect("resync of what isn't watched");
                assert_eq!(*next + skipped_bytes, offset);
                *next = offset;
                *self.skipped.entry(session).or_default() += skipped_bytes;
            }
            Message::Event(Event::Exit { session, .. }) => {
                let next = self.watched.remove(&session).expect("exit of what isn't watched");
                // Of what ended under a former daemon only the end is left.
                let last = ends.get(&session).is_none_or(|end| *end == next);
                assert!(last, "the exit came before the last byte");
                *self.exits.entry(session).or_default() += 1;
            }
            Message::Event(_) => {}
            Message::Unknown => panic!("unknown"),
        }
        self.events.push(frame.to_vec());
    }
}
