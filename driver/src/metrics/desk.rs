//! Where the threads that serve HTTP ask the loop, and wait for its answer.

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{SyncSender, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::snapshot::Snapshot;

/// Most wishes that a loop which doesn't answer finds when it does again.
const WISHES_MAX: usize = 64;

/// The loop's word that it turns.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Alive {
    /// It takes leave, and nobody new comes in.
    pub(crate) draining: bool,
}

/// What is wanted of the loop.
pub(crate) enum Wish {
    Alive(SyncSender<Alive>),
    Snapshot(SyncSender<Arc<Snapshot>>),
}

/// Shared by the loop and those who ask it.
pub(crate) struct Desk {
    asked: AtomicBool,
    wishes: Mutex<Wishes>,
    wake: Arc<dyn Fn() + Send + Sync>,
}

#[derive(Default)]
struct Wishes {
    waiting: Vec<Wish>,
    closed: bool,
}

impl fmt::Debug for Desk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Desk")
    }
}

impl Desk {
    /// A desk of the loop that `wake` wakes.
    pub(crate) fn new(wake: Arc<dyn Fn() + Send + Sync>) -> Self {
        Self { asked: AtomicBool::new(false), wishes: Mutex::default(), wake }
    }

    /// Whether the loop turns; `None`: it has not said so within `bound`.
    pub(crate) fn alive(&self, bound: Duration) -> Option<Alive> {
        self.ask(Wish::Alive, bound)
    }

    /// How things are, each guest at the moment at which it was looked at; `None`: the
    /// loop has not answered within `bound`.
    pub(crate) fn snapshot(&self, bound: Duration) -> Option<Arc<Snapshot>> {
        self.ask(Wish::Snapshot, bound)
    }

    fn ask<T>(&self, wish: impl FnOnce(SyncSender<T>) -> Wish, bound: Duration) -> Option<T> {
        let (sender, answer) = sync_channel(1);
        {
            let mut wishes = self.locked();
            if wishes.closed || wishes.waiting.len() >= WISHES_MAX {
                return None;
            }
            wishes.waiting.push(wish(sender));
        }
        self.asked.store(true, Ordering::Release);
        (self.wake)();
        answer.recv_timeout(bound).ok()
    }

    /// What was asked for since the last call. For the loop, after each turn.
    pub(super) fn take(&self) -> Vec<Wish> {
        // Almost always nothing was: a plain load, and no lock.
        if !self.asked.load(Ordering::Acquire) {
            return Vec::new();
        }
        self.asked.store(false, Ordering::Release);
        std::mem::take(&mut self.locked().waiting)
    }

    /// The loop is over: whoever waits hears it at once.
    pub(super) fn close(&self) {
        let mut wishes = self.locked();
        wishes.closed = true;
        wishes.waiting.clear();
    }

    fn locked(&self) -> MutexGuard<'_, Wishes> {
        self.wishes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::AtomicUsize;

    #[test]
    fn a_loop_that_does_not_answer_costs_a_bounded_wait_and_a_bounded_list() {
        let woken = Arc::new(AtomicUsize::new(0));
        let theirs = Arc::clone(&woken);
        let desk = Desk::new(Arc::new(move || {
            theirs.fetch_add(1, Ordering::Relaxed);
        }));
        for _ in 0..2 * WISHES_MAX {
            assert_eq!(desk.alive(Duration::ZERO), None);
        }
        assert_eq!(woken.load(Ordering::Relaxed), WISHES_MAX);
        assert_eq!(desk.take().len(), WISHES_MAX);
        assert!(desk.take().is_empty());
    }

    #[test]
    fn whoever_waits_hears_that_the_loop_is_over() {
        let desk = Arc::new(Desk::new(Arc::new(|| {})));
        let theirs = Arc::clone(&desk);
        let waits = std::thread::spawn(move || theirs.alive(Duration::from_secs(600)));
        while desk.locked().waiting.is_empty() {
            std::thread::yield_now();
        }
        desk.close();
        assert_eq!(waits.join().expect("an answer"), None);
        assert_eq!(desk.alive(Duration::from_secs(600)), None);
    }
}
