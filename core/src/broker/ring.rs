//! The newest events, in pages of bytes: those that a busy broker has take some
//! 30 bytes each there, and 160 as they are.

use alloc::collections::VecDeque;
use alloc::vec::Vec;

use super::packed::{Packer, Unpacker};
use crate::capabilities::Capabilities;
use crate::event::{Cursor, Event, Fact};
use crate::time::WallTime;

/// A page with fewer free bytes than an event may need takes no more of them.
const PAGE_BYTES: usize = 8 * 1024;
const PACKED_MAX: usize = 128;

/// A ring of events of one incarnation, numbered from 1.
#[derive(Clone, Debug)]
pub(crate) struct Ring {
    incarnation: u32,
    /// None of them is empty. Of the oldest, some events may be over the bound.
    pages: VecDeque<Page>,
    capacity: u64,
    newest: u64,
}

#[derive(Clone, Debug, Default)]
struct Page {
    /// The number of its first event.
    first: u64,
    /// When that was.
    at: WallTime,
    /// Where each begins.
    starts: Vec<u16>,
    bytes: Vec<u8>,
    /// What its events name by number: each once, as guests of a kind say the same …
    said: Vec<Capabilities>,
    /// … and facts that are rare.
    rare: Vec<Fact>,
}

impl Ring {
    pub(crate) fn new(incarnation: u32, capacity: usize) -> Self {
        Self { incarnation, pages: VecDeque::new(), capacity: capacity.max(1) as u64, newest: 0 }
    }

    /// The number the next event gets.
    pub(crate) const fn next_number(&self) -> u64 {
        self.newest + 1
    }

    /// Keeps an event, which has [`Ring::next_number`].
    pub(crate) fn push(&mut self, event: &Event) {
        self.newest += 1;
        if self.pages.back().is_none_or(Page::is_full) {
            let page = self.used_page().unwrap_or_default();
            self.pages.push_back(page.begin(self.newest, event.at));
        }
        if let Some(page) = self.pages.back_mut() {
            page.push(event);
        }
    }

    /// The newest event's number; 0 if there was none.
    pub(crate) const fn newest(&self) -> u64 {
        self.newest
    }

    /// The oldest kept event's number; one above the newest if none is kept.
    pub(crate) const fn oldest(&self) -> u64 {
        self.newest.saturating_sub(self.capacity) + 1
    }

    pub(crate) fn get(&self, number: u64) -> Option<Event> {
        if !(self.oldest()..=self.newest).contains(&number) {
            return None;
        }
        let after = self.pages.partition_point(|page| page.first <= number);
        let page = self.pages.get(after.checked_sub(1)?)?;
        let start = usize::from(*page.starts.get((number - page.first) as usize)?);
        let cursor = Cursor { incarnation: self.incarnation, number };
        Unpacker { bytes: page.bytes.get(start..)?, at: page.at, said: &page.said, rare: &page.rare }
            .event(cursor)
    }

    /// The oldest page, if all of its events are over the bound.
    fn used_page(&mut self) -> Option<Page> {
        let second = self.pages.get(1)?.first;
        if second <= self.oldest() { self.pages.pop_front() } else { None }
    }
}

impl Page {
    /// An empty page, in memory that an older one had.
    fn begin(mut self, first: u64, at: WallTime) -> Self {
        (self.first, self.at) = (first, at);
        self.starts.clear();
        self.bytes.clear();
        self.bytes.reserve_exact(PAGE_BYTES);
        self.said.clear();
        self.rare.clear();
        self
    }

    fn is_full(&self) -> bool {
        self.bytes.len() > PAGE_BYTES - PACKED_MAX
    }

    fn push(&mut self, event: &Event) {
        // Offsets are below a page's size.
        self.starts.push(self.bytes.len() as u16);
        let Self { at, bytes, said, rare, .. } = self;
        Packer { bytes, at: *at, said, rare }.event(event);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::boundary::{Remote, Transport};
    use crate::event::{Failure, SessionEnd, Storage};
    use crate::id::{Epoch, GuestName};
    use crate::status::{Reason, State};
    use alloc::borrow::ToOwned;
    use alloc::vec;

    fn name(text: &str) -> Option<GuestName> {
        text.parse().ok()
    }

    /// Every kind of fact, with values that take few bytes and values that take many.
    fn facts() -> Vec<Fact> {
        let remotes = ["-", "10.0.0.1:65535", "[fe80::1%2]:9", "uid:0,pid:4294967295", "cid:3,port:4"];
        let transports = [Transport::Tcp, Transport::Unix, Transport::Vsock, Transport::Serial];
        let mut facts = vec![
            Fact::BrokerStarted { guests: 3 },
            Fact::BrokerStopping,
            Fact::ClockJumped { late_ms: 1, suspended_ms: 2 },
            Fact::StorageFailed { what: Storage::Log, message: "no space left".to_owned() },
            Fact::LinkDown { reason: crate::event::LinkEnd::Bye, retry_ms: None, error: None },
            Fact::TokenIssued,
        ];
        for (index, remote) in remotes.iter().enumerate() {
            let Ok(remote) = remote.parse::<Remote>();
            let transport = transports[index % 4];
            facts.push(Fact::HandshakeStart { transport, remote });
            for (words, flag) in [("", true), ("proof-v1,metrics", false), ("metrics", true)] {
                let capabilities = Capabilities::parse(words);
                facts.push(Fact::HandshakeFailure {
                    reason: Failure::Evicted,
                    transport,
                    remote,
                    capabilities: capabilities.clone(),
                });
                let (proven, authenticated, once) = (flag, !flag, flag);
                let epoch = Epoch(u64::MAX >> (15 * index));
                facts.push(Fact::HandshakeSuccess {
                    epoch,
                    transport,
                    remote,
                    capabilities,
                    proven,
                    authenticated,
                    once,
                });
            }
            facts.push(Fact::NameConflict { transport, remote, takeovers: 7 });
        }
        for lasted_ms in [0, 127, 128, u64::MAX] {
            let reason = SessionEnd::Resynchronised;
            facts.push(Fact::SessionClosed { epoch: Epoch::new(7, 9), reason, lasted_ms });
        }
        for (reason, age_ms) in [(None, None), (Some(Reason::NameConflict), Some(u64::MAX))] {
            facts.push(Fact::VerdictChanged { from: State::Waiting, to: State::Reachable, reason, age_ms });
        }
        facts
    }

    fn events() -> impl Iterator<Item = Event> {
        let names = [None, name("a"), name(&"b".repeat(64))];
        let walls = [1_795_188_257_042, 1_795_188_257_043, 1_795_188_200_000, 0, i64::MIN, i64::MAX];
        let facts = facts();
        (0..).map(move |index| Event {
            cursor: Cursor { incarnation: 7, number: index as u64 + 1 },
            at: WallTime::from_unix_millis(walls[index / 5 % walls.len()]),
            guest: names[index % names.len()],
            fact: facts[index % facts.len()].clone(),
        })
    }

    #[test]
    fn every_event_comes_out_as_it_went_in() {
        let mut ring = Ring::new(7, 10_000);
        let events: Vec<Event> = events().take(5000).collect();
        for event in &events {
            assert_eq!(ring.next_number(), event.cursor.number);
            ring.push(event);
        }
        for event in &events {
            assert_eq!(ring.get(event.cursor.number).as_ref(), Some(event));
        }
        assert!(ring.pages.len() > 10, "{} pages try little", ring.pages.len());
    }

    #[test]
    fn as_many_as_it_holds_are_kept_and_no_more() {
        for capacity in [1, 2, 100, 1000] {
            let mut ring = Ring::new(7, capacity);
            assert_eq!((ring.newest(), ring.oldest(), ring.get(1)), (0, 1, None));
            for event in events().take(4000) {
                let number = event.cursor.number;
                ring.push(&event);
                let oldest = number.saturating_sub(capacity as u64) + 1;
                assert_eq!((ring.newest(), ring.oldest()), (number, oldest));
                assert_eq!(ring.get(oldest - 1), None);
                assert_eq!(ring.get(oldest).map(|kept| kept.cursor.number), Some(oldest));
                assert_eq!(ring.get(number), Some(event));
                assert_eq!(ring.get(number + 1), None);
            }
        }
    }

    #[test]
    fn a_busy_brokers_events_take_little_memory() {
        let mut ring = Ring::new(7, 8192);
        let Ok(remote) = "10.0.0.1:40000".parse::<Remote>();
        let transport = Transport::Tcp;
        for number in 0..100_000_u32 {
            let fact = match number % 4 {
                0 => Fact::HandshakeStart { transport, remote },
                1 => Fact::HandshakeSuccess {
                    epoch: Epoch::new(7, number),
                    transport,
                    remote,
                    capabilities: Capabilities::parse("proof-v1,metrics"),
                    proven: true,
                    authenticated: false,
                    once: false,
                },
                2 => Fact::VerdictChanged {
                    from: State::Waiting,
                    to: State::Reachable,
                    reason: None,
                    age_ms: Some(1),
                },
                _ => Fact::SessionClosed {
                    epoch: Epoch::new(7, number),
                    reason: SessionEnd::Disconnected,
                    lasted_ms: 2000,
                },
            };
            let guest = name(&alloc::format!("guest-{number:06}"));
            let cursor = Cursor { incarnation: 7, number: ring.next_number() };
            let at = WallTime::from_unix_millis(1_795_188_257_042 + i64::from(number / 4));
            ring.push(&Event { cursor, at, guest, fact });
        }
        let taken: usize = ring
            .pages
            .iter()
            .map(|page| {
                page.bytes.capacity()
                    + 2 * page.starts.capacity()
                    + size_of::<Capabilities>() * page.said.capacity()
                    + size_of::<Page>()
            })
            .sum();
        assert!(taken / 8192 <= 32, "{} bytes an event", taken / 8192);
    }
}
