//! Jobs with a deadline that can be cancelled, on a few threads that start when needed.
//!
//! Whoever takes a job out of the state has it told: exactly once, also when its end,
//! its deadline and its cancellation meet. A thread waits only in [`Call::wait`], which
//! a cancellation ends.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use castra_core::boundary::{EffectError, EffectErrorKind};
use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};
use rustix::io::Errno;

use crate::terminals::porter::Tell;
use crate::work::{JobId, Outcome};

/// Longer than any process lives.
const FOREVER: Duration = Duration::from_secs(100 * 365 * 86_400);
/// Address space for a thread's stack.
const STACK_BYTES: usize = 2 * 1024 * 1024;

/// The threads and what waits for them. Dropped, it ends what is under way and leaves
/// the threads to end by themselves.
pub(crate) struct Pool<J>(Arc<Shared<J>>);

struct Shared<J> {
    name: &'static str,
    /// Most threads.
    most: usize,
    state: Mutex<State<J>>,
    work: Condvar,
    tell: Tell,
}

struct State<J> {
    queue: VecDeque<(JobId, Instant, J)>,
    running: Vec<Arc<Call>>,
    threads: usize,
    closed: bool,
}

/// A thread's side.
pub(crate) struct Worker<J> {
    shared: Arc<Shared<J>>,
    wake: Arc<OwnedFd>,
    retired: bool,
}

/// What a thread is to do.
pub(crate) enum Next<J> {
    /// This, and [`Worker::done`] afterwards.
    Job(J, Arc<Call>),
    /// Nothing came in time.
    Idle,
    /// To end.
    Closed,
}

/// A job under way: how long it may take, and whether anybody still wants it.
pub(crate) struct Call {
    id: Option<JobId>,
    deadline: Instant,
    cancelled: AtomicBool,
    wake: Option<Arc<OwnedFd>>,
    /// Answers what waited too long for a thread, and says when that happens next.
    expire: Option<Arc<dyn Expire>>,
}

trait Expire: Send + Sync {
    fn expire(&self, now: Instant) -> Option<Instant>;
}

impl<J> std::fmt::Debug for Pool<J> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pool").field("name", &self.0.name).finish_non_exhaustive()
    }
}

impl<J: Send + 'static> Pool<J> {
    /// No thread yet, and never more than `most`.
    pub(crate) fn new(name: &'static str, most: usize, tell: Tell) -> Self {
        let state = State { queue: VecDeque::new(), running: Vec::new(), threads: 0, closed: false };
        Self(Arc::new(Shared { name, most, state: Mutex::new(state), work: Condvar::new(), tell }))
    }

    /// Takes a job; `work` is what a new thread does, if it needs one.
    pub(crate) fn submit(
        &self,
        id: JobId,
        job: J,
        patience: Duration,
        work: impl FnOnce(Worker<J>) + Send + 'static,
    ) {
        let shared = &self.0;
        let mut state = shared.lock();
        state.queue.push_back((id, Instant::now() + patience, job));
        // One that has just answered is as good as one that waits.
        if state.queue.len() <= state.threads.saturating_sub(state.running.len()) {
            shared.work.notify_one();
            return;
        }
        if state.threads < shared.most {
            state.threads += 1;
            drop(state);
            let started = shared.start(work);
            state = shared.lock();
            // Otherwise those that run will take it.
            if let (Err(error), 0) = (started, state.threads) {
                state.queue.retain(|(queued, ..)| *queued != id);
                drop(state);
                let message = format!("no thread for it: {error}");
                return (shared.tell)(id, failed(EffectErrorKind::Unreachable, message));
            }
        }
        // They look after its deadline while none of them is free.
        state.running.iter().for_each(|call| call.wake());
    }

    /// Ends a job; it is answered at once. False: there is no such job here.
    pub(crate) fn cancel(&self, id: JobId) -> bool {
        let mut state = self.0.lock();
        if let Some(at) = state.queue.iter().position(|(queued, ..)| *queued == id) {
            state.queue.remove(at);
        } else if let Some(at) = state.running.iter().position(|call| call.id == Some(id)) {
            state.running.swap_remove(at).cancel();
        } else {
            return false;
        }
        drop(state);
        (self.0.tell)(id, failed(EffectErrorKind::Cancelled, "cancelled".to_owned()));
        true
    }
}

impl<J> Drop for Pool<J> {
    fn drop(&mut self) {
        let mut state = self.0.lock();
        state.closed = true;
        state.queue.clear();
        state.running.drain(..).for_each(|call| call.cancel());
        self.0.work.notify_all();
    }
}

impl<J> Shared<J> {
    fn lock(&self) -> MutexGuard<'_, State<J>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<J: Send + 'static> Shared<J> {
    /// Starts a thread, which is counted already.
    fn start(self: &Arc<Self>, work: impl FnOnce(Worker<J>) + Send + 'static) -> io::Result<()> {
        let wake = eventfd(0, EventfdFlags::NONBLOCK | EventfdFlags::CLOEXEC);
        let wake = wake.inspect_err(|_| self.lock().threads -= 1)?;
        let worker = Worker { shared: Arc::clone(self), wake: Arc::new(wake), retired: false };
        let thread = thread::Builder::new().name(self.name.to_owned()).stack_size(STACK_BYTES);
        // Where there is no thread, the worker takes itself out of the count.
        thread.spawn(move || work(worker)).map(drop)
    }
}

impl<J: Send + 'static> Expire for Shared<J> {
    fn expire(&self, now: Instant) -> Option<Instant> {
        let mut late = Vec::new();
        let next = {
            let mut state = self.lock();
            state.queue.retain(|(id, deadline, _)| {
                if *deadline <= now {
                    late.push(*id);
                }
                *deadline > now
            });
            state.queue.iter().map(|(_, deadline, _)| *deadline).min()
        };
        for id in late {
            let message = "not in time: everything before it took too long".to_owned();
            (self.tell)(id, failed(EffectErrorKind::TimedOut, message));
        }
        next
    }
}

impl<J: Send + 'static> Worker<J> {
    /// The next job, or after `idle` without any [`Next::Idle`]. With `retire` the thread
    /// is none of the pool's from then on.
    pub(crate) fn next(&mut self, idle: Option<Duration>, retire: bool) -> Next<J> {
        self.shared.expire(Instant::now());
        let since = Instant::now();
        let mut state = self.shared.lock();
        loop {
            if state.closed {
                return Next::Closed;
            }
            if let Some((id, deadline, job)) = state.queue.pop_front() {
                let call = Arc::new(Call {
                    id: Some(id),
                    deadline,
                    cancelled: AtomicBool::new(false),
                    wake: Some(Arc::clone(&self.wake)),
                    expire: Some(Arc::clone(&self.shared) as Arc<dyn Expire>),
                });
                state.running.push(Arc::clone(&call));
                return Next::Job(job, call);
            }
            let left = idle.map(|idle| idle.saturating_sub(since.elapsed()));
            if left.is_some_and(|left| left.is_zero()) {
                if retire {
                    state.threads -= 1;
                    self.retired = true;
                }
                return Next::Idle;
            }
            let woken = self.shared.work.wait_timeout(state, left.unwrap_or(FOREVER));
            state = woken.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// How a job ended; unless it was cancelled, somebody hears it.
    pub(crate) fn done(&self, call: &Call, outcome: Outcome) {
        let mut state = self.shared.lock();
        let Some(at) = state.running.iter().position(|running| running.id == call.id) else { return };
        state.running.swap_remove(at);
        drop(state);
        if let Some(id) = call.id {
            (self.shared.tell)(id, outcome);
        }
    }
}

impl<J> Worker<J> {
    /// Whether no other thread of the pool is left.
    pub(crate) fn is_last(&self) -> bool {
        self.shared.lock().threads == 0
    }
}

impl<J> Drop for Worker<J> {
    fn drop(&mut self) {
        let mut state = self.shared.lock();
        if !self.retired {
            state.threads -= 1;
        }
        // It died over a job.
        let ours = |call: &Arc<Call>| call.wake.as_ref().is_some_and(|wake| Arc::ptr_eq(wake, &self.wake));
        let mut lost = Vec::new();
        if let Some(at) = state.running.iter().position(ours) {
            lost.extend(state.running.swap_remove(at).id);
        }
        if state.threads == 0 {
            lost.extend(state.queue.drain(..).map(|(id, ..)| id));
        }
        drop(state);
        for id in lost {
            (self.shared.tell)(id, failed(EffectErrorKind::Unreachable, "its thread died".to_owned()));
        }
    }
}

impl Call {
    /// One that nobody can cancel, of no pool.
    pub(crate) fn alone(patience: Duration) -> Self {
        let deadline = Instant::now() + patience;
        Self { id: None, deadline, cancelled: AtomicBool::new(false), wake: None, expire: None }
    }

    /// When it has to be over.
    pub(crate) const fn deadline(&self) -> Instant {
        self.deadline
    }

    /// Whether it goes on.
    ///
    /// # Errors
    /// `ConnectionAborted`: it was cancelled. `TimedOut`: its deadline passed.
    pub(crate) fn check(&self) -> io::Result<()> {
        if self.cancelled.load(Ordering::Acquire) {
            Err(io::ErrorKind::ConnectionAborted.into())
        } else if Instant::now() >= self.deadline {
            Err(io::ErrorKind::TimedOut.into())
        } else {
            Ok(())
        }
    }

    /// Waits for one of `what` at `fd`.
    ///
    /// # Errors
    /// As [`Call::check`], or the kernel refuses to wait.
    pub(crate) fn wait(&self, fd: impl AsFd, what: PollFlags) -> io::Result<()> {
        self.wait_until(Some((fd.as_fd(), what)), self.deadline)
            .and_then(|ready| if ready { Ok(()) } else { Err(io::ErrorKind::TimedOut.into()) })
    }

    /// The same, at most until `until`: false when that came first. With nothing to
    /// wait for it is a pause.
    ///
    /// # Errors
    /// As [`Call::wait`].
    pub(crate) fn wait_until(
        &self,
        fd: Option<(BorrowedFd<'_>, PollFlags)>,
        until: Instant,
    ) -> io::Result<bool> {
        loop {
            self.check()?;
            let now = Instant::now();
            if now >= until {
                return Ok(false);
            }
            let next = self.expire.as_ref().and_then(|expire| expire.expire(now));
            let left = next.unwrap_or(until).min(until).min(self.deadline).saturating_duration_since(now);
            let left = Timespec {
                tv_sec: i64::try_from(left.as_secs()).unwrap_or(i64::MAX),
                tv_nsec: i64::from(left.subsec_nanos()),
            };
            let wake = self.wake.as_ref().map(|wake| PollFd::new(wake, PollFlags::IN));
            let wanted = fd.map(|(fd, what)| PollFd::from_borrowed_fd(fd, what));
            let woken_at = usize::from(wanted.is_some());
            let mut fds: Vec<PollFd<'_>> = wanted.into_iter().chain(wake).collect();
            match poll(&mut fds, Some(&left)) {
                Ok(_) | Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
            let is_ready = |at: usize| fds.get(at).is_some_and(|fd| !fd.revents().is_empty());
            let (ready, woken) = (fd.is_some() && is_ready(0), is_ready(woken_at));
            drop(fds);
            if let Some(wake) = self.wake.as_ref().filter(|_| woken) {
                // Somebody was before us: all the same.
                let _ = rustix::io::read(wake, &mut [0; 8]);
            }
            if ready {
                return self.check().map(|()| true);
            }
        }
    }

    fn cancel(&self) {
        self.cancelled.store(true, Ordering::Release);
        self.wake();
    }

    fn wake(&self) {
        if let Some(wake) = &self.wake {
            // It fails only when it is full: then its thread wakes anyway.
            let _ = rustix::io::write(wake, &1_u64.to_ne_bytes());
        }
    }
}

fn failed(kind: EffectErrorKind, message: String) -> Outcome {
    Outcome::Finished(Err(EffectError { kind, message }))
}
