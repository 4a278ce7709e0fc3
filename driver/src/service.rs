//! The loop: wait, collect, turn. The only place where time passes.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use castra_core::boundary::Engine;
use castra_core::event::{Event, Level};
use castra_core::time::{Now, Time};

use crate::clock;
use crate::mio_net::MioNet;
use crate::record::Recording;
use crate::shell::{Next, Shell};
use crate::signals::{Request, Signals};
use crate::supervisor::Supervisor;
use crate::threads::ThreadWork;
use crate::work::{Done, JobId, Outcome};

/// From the first TERM or INT to the engine's end, at most …
const DRAIN: Duration = Duration::from_secs(2);
/// … and from there to the process's: last bytes and lines. Together 3 s.
const SETTLE: Duration = Duration::from_secs(1);

/// With this target on, each turn's processor time is looked at (which is a
/// system call, so it is off by default): those of a millisecond and more are
/// told, and whatever is longer than all before.
const TURNS: &str = "castra::turns";
/// No turn of a broker should take so long.
const LONG_TURN: Duration = Duration::from_millis(1);

/// How a service ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Ended {
    /// The engine drained; everything is said and written.
    Drained,
    /// A second signal cut it short.
    Signalled(i32),
}

pub(crate) struct Service<'a, E> {
    pub(crate) shell: &'a mut Shell<E, MioNet, ThreadWork>,
    pub(crate) signals: Option<&'a mut Signals>,
    pub(crate) stopper: Option<&'a Stopper>,
    pub(crate) recording: Option<&'a Recording>,
    pub(crate) supervisor: &'a Supervisor,
}

/// Stops a service from another thread, as TERM does from another process.
#[derive(Clone)]
pub(crate) struct Stopper {
    asked: Arc<AtomicBool>,
    wake: Arc<dyn Fn() + Send + Sync>,
}

impl std::fmt::Debug for Stopper {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Stopper")
    }
}

impl Stopper {
    /// Stops whoever `wake` wakes.
    pub(crate) fn new(wake: Arc<dyn Fn() + Send + Sync>) -> Self {
        Self { asked: Arc::default(), wake }
    }

    pub(crate) fn stop(&self) {
        self.asked.store(true, Ordering::Release);
        (self.wake)();
    }

    fn is_asked(&self) -> bool {
        self.asked.load(Ordering::Acquire)
    }
}

impl<E: Engine> Service<'_, E> {
    /// Runs until the engine stops. `reload` gives a configuration that the workers
    /// read since it was asked last; `on_event` gets every event that the shell keeps.
    pub(crate) fn run(
        &mut self,
        reload: impl Fn() -> Option<E::Config>,
        mut on_event: impl FnMut(&Event),
    ) -> io::Result<Ended> {
        let mut ready = Vec::new();
        let mut done = Vec::new();
        let mut stop_asked = false;
        let mut settle_by = None;
        let mut longest = Duration::ZERO;
        loop {
            let now = clock::now();
            if let Some(trouble) = self.recording.and_then(Recording::trouble) {
                self.shell.log(now, Level::Error, &trouble);
            }
            let metered = tracing::enabled!(target: TURNS, tracing::Level::DEBUG).then(thread_time);
            let next = self.shell.turn(now, &ready, &done);
            if let Some(before) = metered {
                let (spent, edges) = (thread_time().saturating_sub(before), ready.len());
                if spent > longest || spent >= LONG_TURN {
                    longest = longest.max(spent);
                    tracing::debug!(target: TURNS, ?spent, edges, done = done.len(), more = next.more, ?longest);
                }
            }
            ready.clear();
            done.clear();
            for event in self.shell.take_events() {
                on_event(&event);
            }
            if self.shell.stopped() {
                self.supervisor.stopping();
                let by = *settle_by.get_or_insert(now.boot + SETTLE);
                if self.shell.settled() || now.boot >= by {
                    return Ok(Ended::Drained);
                }
            }
            // Said between two turns, and by nobody else: a loop that is stuck is silent.
            let beat = self.supervisor.beat(now.boot);
            let deadline = next.deadline.into_iter().chain(settle_by).chain(beat).min();
            let timeout = timeout(now, Next { deadline, ..next });
            let woken = self.shell.net().wait(timeout, &mut ready)?;
            if woken.work {
                self.shell.work().collect(&mut done);
                // Before whoever asked for it hears that it was read.
                if let Some(config) = reload() {
                    self.shell.configure(clock::now(), config);
                }
                for well in done.iter().filter_map(reloaded) {
                    self.supervisor.reloaded(well);
                }
            }
            if !stop_asked && self.stopper.is_some_and(Stopper::is_asked) {
                stop_asked = true;
                let now = clock::now();
                self.supervisor.stopping();
                self.shell.drain(now, now.boot + DRAIN);
            }
            let Some(signals) = self.signals.as_mut().filter(|_| woken.signals) else { continue };
            let requests: Vec<_> = signals.pending().collect();
            for request in requests {
                let now = clock::now();
                match request {
                    Request::Stop(number) if stop_asked => return Ok(Ended::Signalled(number)),
                    Request::Stop(_) => {
                        stop_asked = true;
                        self.supervisor.stopping();
                        self.shell.drain(now, now.boot + DRAIN);
                    }
                    Request::Reload => {
                        self.supervisor.reloading(now.boot.since(Time::ZERO).saturating_sub(now.suspended));
                        self.shell.log(now, Level::Info, "hangup: the configuration and the log files");
                        self.shell.reload(now, None);
                    }
                }
            }
        }
    }
}

/// Whether a reload that a signal asked for is over, and well.
fn reloaded(done: &Done) -> Option<bool> {
    match done {
        Done { job: JobId::Reopen, outcome: Outcome::Finished(result) } => Some(result.is_ok()),
        _ => None,
    }
}

/// Processor time of this thread.
fn thread_time() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    Duration::new(u64::try_from(time.tv_sec).unwrap_or(0), u32::try_from(time.tv_nsec).unwrap_or(0))
}

/// How long to wait for the network.
fn timeout(now: Now, next: Next) -> Option<Duration> {
    if next.more { Some(Duration::ZERO) } else { next.deadline.map(|deadline| deadline.since(now.boot)) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::conformance::{Act, Scripted, Seen};
    use crate::shell::ShellOptions;
    use castra_core::boundary::{Effect, EffectErrorKind};
    use castra_core::id::EffectId;

    fn shell(acts: Vec<Act>) -> Shell<Scripted, MioNet, ThreadWork> {
        let net = MioNet::new().expect("a poller");
        let work = ThreadWork::new(None, None, net.waker()).expect("workers");
        let mut engine = Scripted::default();
        engine.act(acts);
        let options = ShellOptions { log_prefix: Some("test"), ..ShellOptions::default() };
        Shell::new(engine, net, work, options)
    }

    #[test]
    fn the_loop_ends_when_the_engine_stops_and_everything_is_written() {
        let mut shell = shell(vec![Act::Stopped]);
        shell.log(clock::now(), Level::Info, "a last line");
        let ended = Service {
            shell: &mut shell,
            signals: None,
            stopper: None,
            recording: None,
            supervisor: &Supervisor::none(),
        }
        .run(|| None, |_| {})
        .expect("a poller");
        assert_eq!(ended, Ended::Drained);
        assert!(shell.settled());
    }

    #[test]
    fn another_thread_stops_the_loop_as_a_signal_would() {
        let mut shell = shell(Vec::new());
        shell.engine().stop_on_drain = true;
        let stopper = Stopper::new(shell.net().waker());
        let other = std::thread::spawn({
            let stopper = stopper.clone();
            move || stopper.stop()
        });
        let ended = Service {
            shell: &mut shell,
            signals: None,
            stopper: Some(&stopper),
            recording: None,
            supervisor: &Supervisor::none(),
        }
        .run(|| None, |_| {})
        .expect("a poller");
        assert_eq!(ended, Ended::Drained);
        other.join().expect("it stopped us");
    }

    #[test]
    fn a_worker_and_a_deadline_wake_the_loop() {
        let mut shell = shell(vec![Act::Effect(EffectId(1), Effect::Persist(Vec::new()))]);
        shell.engine().wake = Some(clock::now().boot + Duration::from_millis(30));
        shell.engine().stop_on_tick = true;
        Service {
            shell: &mut shell,
            signals: None,
            stopper: None,
            recording: None,
            supervisor: &Supervisor::none(),
        }
        .run(|| None, |_| {})
        .expect("a poller");
        let seen = &shell.engine().seen;
        assert_eq!(seen, &[Seen::Done(EffectId(1), Err(EffectErrorKind::Storage)), Seen::Tick]);
    }
}
