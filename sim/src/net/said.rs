//! What engines said on their connections, held against what leaves: every byte,
//! in order, once.

use std::collections::VecDeque;

use castra_core::id::ConnId;
use castra_core::time::Time;

use super::{Hub, NodeId};

/// What an engine said on one connection.
#[derive(Debug, Default)]
pub(super) struct Said {
    conn: Option<ConnId>,
    /// Said, and not yet given to the network.
    unsent: VecDeque<u8>,
    /// Bytes given to the network.
    written: u64,
    /// When it spoke, and where in the stream that began; the newest last.
    moments: VecDeque<(Time, u64)>,
}

/// Moments kept of one connection: some more than challenges can be unanswered.
const MOMENTS: usize = 64;

/// Whether somebody can have known what was said at a moment.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Heard {
    /// It has read on from there, or nobody knows any more.
    Maybe,
    /// It has not read so far.
    NotYet,
    /// It gave no true answer to anything that was said then.
    Never,
    /// Nothing was said then.
    Nothing,
}

impl Said {
    /// Nothing was said on `conn` yet; the queues keep their memory.
    fn begin(&mut self, conn: ConnId) {
        let Self { conn: known, unsent, written, moments } = self;
        (*known, *written) = (Some(conn), 0);
        unsent.clear();
        moments.clear();
    }
}

impl Hub {
    fn words(&mut self, node: NodeId, conn: ConnId) -> &mut Said {
        let said = &mut self.nodes[node].said;
        let index = conn.index as usize;
        if said.len() <= index {
            said.resize_with(index + 1, Said::default);
        }
        let said = &mut said[index];
        if said.conn != Some(conn) {
            said.begin(conn);
        }
        said
    }

    /// An engine says something.
    pub(crate) fn say(&mut self, node: NodeId, conn: ConnId, bytes: &[u8]) {
        let now = self.now;
        let said = self.words(node, conn);
        if said.moments.back().is_none_or(|(last, _)| *last != now) {
            if said.moments.len() == MOMENTS {
                said.moments.pop_front();
            }
            said.moments.push_back((now, said.written + said.unsent.len() as u64));
        }
        said.unsent.extend(bytes);
    }

    /// An engine takes back what did not leave yet.
    pub(crate) fn unsay(&mut self, node: NodeId, conn: ConnId) {
        self.words(node, conn).unsent.clear();
    }

    /// A shell gives bytes to the network: what comes next, and nothing else.
    pub(super) fn check_written(&mut self, node: NodeId, conn: ConnId, bytes: &[u8]) {
        let said = self.words(node, conn);
        let faithful = starts_with(&said.unsent, bytes);
        said.unsent.drain(..bytes.len().min(said.unsent.len()));
        said.written += bytes.len() as u64;
        if !faithful {
            self.garbled = Some((node, conn));
        }
    }

    /// A connection is gone, or new: its id may have been another's.
    pub(super) fn forget_words(&mut self, node: NodeId, conn: ConnId) {
        self.words(node, conn).conn = None;
    }

    /// Whether whoever is at the other end of `conn` can know what `node` said to it at `at`.
    pub(crate) fn can_know(&self, node: NodeId, conn: ConnId, at: Time) -> Heard {
        let Some(said) =
            self.nodes[node].said.get(conn.index as usize).filter(|said| said.conn == Some(conn))
        else {
            return Heard::Maybe;
        };
        let Some(end) = self.find(node, conn) else { return Heard::Maybe };
        if said.moments.front().is_none_or(|(oldest, _)| *oldest > at) {
            return Heard::Maybe;
        }
        let Ok(found) = said.moments.binary_search_by_key(&at, |(moment, _)| *moment) else {
            return Heard::Nothing;
        };
        let end = end.other();
        let end = &self.streams[end.stream as usize].ends[usize::from(end.side)];
        match end.lies_from {
            Some(from) if from <= at => Heard::Never,
            _ if end.read > said.moments[found].1 => Heard::Maybe,
            _ => Heard::NotYet,
        }
    }
}

/// Compares slices, not bytes: it is asked of every byte that leaves.
fn starts_with(queue: &VecDeque<u8>, bytes: &[u8]) -> bool {
    let (front, back) = queue.as_slices();
    match bytes.split_at_checked(front.len()) {
        None => front.starts_with(bytes),
        Some((first, rest)) => first == front && back.starts_with(rest),
    }
}

#[cfg(test)]
mod tests {
    use super::{VecDeque, starts_with};

    #[test]
    fn a_queue_begins_with_its_first_bytes_wherever_they_lie_and_with_no_others() {
        for turned in 0..6 {
            let mut queue: VecDeque<u8> = VecDeque::with_capacity(6);
            queue.resize(turned, 0);
            queue.drain(..);
            queue.extend(1..=6);
            for length in 0..=6_u8 {
                let mut bytes: Vec<u8> = (1..=length).collect();
                assert!(starts_with(&queue, &bytes), "{turned} {length}");
                for at in 0..bytes.len() {
                    bytes[at] ^= 1;
                    assert!(!starts_with(&queue, &bytes), "{turned} {length} {at}");
                    bytes[at] ^= 1;
                }
            }
            assert!(!starts_with(&queue, &[1, 2, 3, 4, 5, 6, 7]), "{turned}");
        }
    }
}
