//! Lets the loads work while a broker serves, and knows when all of them have stopped.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// A load is at a standstill by then, or something hangs.
const BOUND: Duration = Duration::from_secs(90);

#[derive(Default)]
pub(crate) struct Gate {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    /// Number of the broker that serves.
    life: u64,
    open: bool,
    /// No broker is killed any more: what is still open may be finished.
    peace: bool,
    members: usize,
    parked: usize,
    checked: usize,
    failed: bool,
}

/// A load's place at the gate; it leaves also when it panics.
pub(crate) struct Place<'a>(&'a Gate);

/// Lets everybody go when the thread that opens the gate panics.
pub(crate) struct Watch<'a>(&'a Gate);

impl Gate {
    pub(crate) fn join(&self) -> Place<'_> {
        self.lock().members += 1;
        Place(self)
    }

    /// What the thread holds that opens and closes the gate.
    pub(crate) fn watch(&self) -> Watch<'_> {
        Watch(self)
    }

    /// A new broker serves: everybody looks at it, and no one works yet.
    pub(crate) fn open(&self, peace: bool) {
        let mut state = self.lock();
        state.life += 1;
        (state.open, state.peace, state.parked, state.checked) = (true, peace, 0, 0);
        self.changed.notify_all();
    }

    /// Waits until everybody has compared the new broker with its promises.
    pub(crate) fn await_checked(&self) {
        self.wait("checked", |state| state.checked == state.members);
    }

    /// The broker is gone: whoever hasn't noticed will.
    pub(crate) fn close(&self) {
        self.lock().open = false;
        self.wait("stopped", |state| state.parked == state.members);
    }

    /// Everybody has left.
    pub(crate) fn await_ended(&self) {
        self.wait("ended", |state| state.members == 0);
    }

    fn wait(&self, what: &str, is: impl Fn(&State) -> bool) {
        let state = self.lock();
        let waits = |state: &mut State| !is(state) && !state.failed;
        let waited = self.changed.wait_timeout_while(state, BOUND, waits);
        let (state, late) = waited.unwrap_or_else(PoisonError::into_inner);
        let failed = state.failed;
        drop(state);
        assert!(!failed, "a promise was broken");
        assert!(!late.timed_out(), "a load has not {what} within {BOUND:?}");
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Place<'_> {
    /// Stands still until the next broker serves; whether this is the last one.
    pub(crate) fn next(&self, before: u64) -> (u64, bool) {
        let mut state = self.0.lock();
        if before > 0 {
            state.parked += 1;
            self.0.changed.notify_all();
        }
        let waits = |state: &mut State| state.life == before && !state.failed;
        let state = self.0.changed.wait_while(state, waits).unwrap_or_else(PoisonError::into_inner);
        let failed = state.failed;
        let now = (state.life, state.peace);
        drop(state);
        assert!(!failed, "another load failed");
        now
    }

    pub(crate) fn checked(&self) {
        self.0.lock().checked += 1;
        self.0.changed.notify_all();
    }

    pub(crate) fn is_open(&self) -> bool {
        let state = self.0.lock();
        state.open && !state.failed
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        let mut state = self.0.lock();
        state.members -= 1;
        state.failed |= std::thread::panicking();
        self.0.changed.notify_all();
    }
}

impl Drop for Watch<'_> {
    fn drop(&mut self) {
        self.0.lock().failed |= std::thread::panicking();
        self.0.changed.notify_all();
    }
}
