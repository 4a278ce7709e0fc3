//! One future drives one shell: the loop of the driver's service, with turmoil
//! in the place of the poller.

use core::time::Duration;
use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::future::{Future, poll_fn};
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;

use castra_core::boundary::Engine;
use castra_core::time::Time;
use castra_driver::shell::Shell;

use super::clock::Clock;
use super::net::{Bell, TurmoilNet};
use super::truth::broken;
use crate::disk::SimWork;
use crate::violation::Violation;

/// A shell in turmoil.
pub(crate) type TurmoilShell<E> = Shell<E, TurmoilNet, SimWork>;

/// As in the driver's service.
const DRAIN: Duration = Duration::from_secs(2);
const SETTLE: Duration = Duration::from_secs(1);
/// Turns at one instant before they count as a spin.
const TURNS: u32 = 10_000;

/// A process as the world sees it: it can be looked into, frozen and told things.
pub(crate) struct Process<E> {
    /// There is nobody while the process doesn't run.
    pub(crate) shell: RefCell<Option<TurmoilShell<E>>>,
    frozen: Cell<bool>,
    words: RefCell<VecDeque<Word>>,
    bell: RefCell<Option<Arc<Bell>>>,
}

/// What a process can be told: its signals.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Word {
    /// TERM.
    Drain,
    /// HUP.
    Reload,
    /// The machine resumed: deadlines are nearer than they were.
    Look,
}

impl<E> Default for Process<E> {
    fn default() -> Self {
        Self {
            shell: RefCell::new(None),
            frozen: Cell::new(false),
            words: RefCell::default(),
            bell: RefCell::default(),
        }
    }
}

impl<E> Process<E> {
    pub(crate) fn is_up(&self) -> bool {
        self.shell.borrow().is_some()
    }

    pub(crate) fn tell(&self, word: Word) {
        self.words.borrow_mut().push_back(word);
        self.wake();
    }

    /// SIGSTOP and SIGCONT. The kernel goes on: what arrives, waits.
    pub(crate) fn freeze(&self, frozen: bool) {
        self.frozen.set(frozen);
        self.wake();
    }

    pub(crate) fn is_frozen(&self) -> bool {
        self.frozen.get()
    }

    fn wake(&self) {
        if let Some(bell) = &*self.bell.borrow() {
            bell.wake();
        }
    }
}

/// Gives up the shell with the future that drove it, while its host still stands:
/// only then do its streams say goodbye.
struct Seat<'a, E>(&'a Process<E>);

impl<E> Drop for Seat<'_, E> {
    fn drop(&mut self) {
        let shell = self.0.shell.borrow_mut().take();
        drop(shell);
        self.0.bell.borrow_mut().take();
    }
}

/// Drives `shell` until its engine stops. `reload` is what HUP finds;
/// `on_turn` sees the shell after each turn.
///
/// # Errors
/// L2: turns without end at one instant.
pub(crate) async fn drive<E: Engine>(
    process: &Process<E>,
    clock: &Clock,
    mut shell: TurmoilShell<E>,
    reload: impl Fn() -> Option<E::Config>,
    mut on_turn: impl FnMut(&mut TurmoilShell<E>) -> Result<(), Violation>,
) -> Result<(), Violation> {
    let bell = shell.net().bell();
    process.bell.replace(Some(Arc::clone(&bell)));
    process.frozen.set(false);
    process.words.borrow_mut().clear();
    process.shell.replace(Some(shell));
    let _seat = Seat(process);
    let (mut ready, mut done, mut settle_by) = (Vec::new(), Vec::new(), None);
    let (mut last, mut turns) = (Time::ZERO, 0);
    loop {
        let now = clock.now();
        let deadline = {
            let mut seat = process.shell.borrow_mut();
            let Some(shell) = seat.as_mut() else { return Ok(()) };
            while let Some(word) = process.words.borrow_mut().pop_front() {
                match word {
                    Word::Drain => shell.drain(now, now.boot + DRAIN),
                    Word::Reload => shell.reload(now, reload()),
                    Word::Look => {}
                }
            }
            shell.net().collect(&mut ready);
            {
                let mut disk = shell.work().disk.borrow_mut();
                disk.now = now.boot;
                disk.finish(&mut done);
            }
            let next = shell.turn(now, &ready, &done);
            ready.clear();
            done.clear();
            on_turn(shell)?;
            if shell.stopped() {
                let by = *settle_by.get_or_insert(now.boot + SETTLE);
                if shell.settled() || now.boot >= by {
                    return Ok(());
                }
            }
            turns = if now.boot > last { 0 } else { turns + 1 };
            last = now.boot;
            if turns > TURNS {
                let text = format!("{TURNS} turns at one instant, the next deadline is {:?}", next.deadline);
                return Err(broken("L2", now.boot, None, text));
            }
            if next.more {
                continue;
            }
            [next.deadline, shell.work().disk.borrow().next(), settle_by].into_iter().flatten().min()
        };
        wait(process, &bell, deadline.map(|at| at.since(now.boot))).await;
    }
}

/// Waits for an edge, a word or the deadline, in this order; a frozen process
/// waits for its thaw.
async fn wait<E>(process: &Process<E>, bell: &Bell, span: Option<Duration>) {
    let mut sleep = pin!(span.map(tokio::time::sleep));
    poll_fn(|cx| {
        let rung = bell.poll(cx).is_ready();
        if process.frozen.get() {
            return Poll::Pending;
        }
        if rung || !process.words.borrow().is_empty() {
            return Poll::Ready(());
        }
        sleep.as_mut().as_pin_mut().map_or(Poll::Pending, |sleep| sleep.poll(cx))
    })
    .await;
}
