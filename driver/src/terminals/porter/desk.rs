//! Where a terminal's thread finds what it is to do, and sleeps until there is some.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use castra_core::terminals::{Deed, Exit};
use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};

use super::link::Answer;
use crate::work::JobId;

/// What comes in for a terminal's thread.
pub(super) enum Mail {
    Deed(JobId, Deed),
    /// The holder's, to the request of that number.
    Answer(u64, Answer),
    /// How the program ended, and where its output ends.
    Exit(Exit, u64),
    /// That connection to the holder ended.
    Lost(u64, String),
}

/// A mailbox.
pub(super) struct Desk {
    inner: Mutex<Inner>,
    wake: OwnedFd,
}

#[derive(Default)]
struct Inner {
    mail: VecDeque<Mail>,
    grant: Option<usize>,
    asleep: bool,
    stopped: bool,
}

/// What a thread took from its desk.
#[derive(Default)]
pub(super) struct Taken {
    pub(super) mail: VecDeque<Mail>,
    pub(super) grant: Option<usize>,
    pub(super) stopped: bool,
}

impl Desk {
    pub(super) fn new() -> io::Result<Self> {
        let wake = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        Ok(Self { inner: Mutex::default(), wake })
    }

    pub(super) fn post(&self, mail: Mail) {
        self.change(|inner| {
            if matches!(mail, Mail::Deed(_, Deed::Release)) {
                inner.grant = None;
            }
            inner.mail.push_back(mail);
        });
    }

    pub(super) fn grant(&self, bytes: usize) {
        self.change(|inner| inner.grant = Some(bytes));
    }

    pub(super) fn stop(&self) {
        self.change(|inner| inner.stopped = true);
    }

    fn change(&self, change: impl FnOnce(&mut Inner)) {
        let mut inner = self.lock();
        change(&mut inner);
        // A thread that is awake looks again before it sleeps.
        if std::mem::take(&mut inner.asleep) {
            let _ = rustix::io::write(&self.wake, &1_u64.to_ne_bytes());
        }
    }

    /// All there is.
    pub(super) fn take(&self) -> Taken {
        let mut inner = self.lock();
        Taken { mail: std::mem::take(&mut inner.mail), grant: inner.grant.take(), stopped: inner.stopped }
    }

    /// Whether nobody left anything.
    pub(super) fn is_empty(&self) -> bool {
        self.lock().mail.is_empty()
    }

    /// Sleeps until somebody leaves something, `other` is readable, or the time is
    /// over; whether `other` is readable.
    pub(super) fn sleep(&self, other: Option<BorrowedFd<'_>>, timeout: Option<Duration>) -> bool {
        {
            let mut inner = self.lock();
            if inner.stopped || inner.grant.is_some() || !inner.mail.is_empty() {
                return false;
            }
            inner.asleep = true;
        }
        let timeout = timeout.map(|left| Timespec {
            tv_sec: left.as_secs().try_into().unwrap_or(i64::MAX),
            tv_nsec: left.subsec_nanos().into(),
        });
        let mut fds = vec![PollFd::new(&self.wake, PollFlags::IN)];
        fds.extend(other.map(|other| PollFd::from_borrowed_fd(other, PollFlags::IN)));
        // Interrupted: whoever called looks again.
        let readable = poll(&mut fds, timeout.as_ref()).is_ok()
            && fds.get(1).is_some_and(|other| !other.revents().is_empty());
        let mut inner = self.lock();
        if !std::mem::take(&mut inner.asleep) {
            let _ = rustix::io::read(&self.wake, &mut [0; 8]);
        }
        readable
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
