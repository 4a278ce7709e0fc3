//! The shell: everything between an engine and the world that can be wrong
//! without a kernel, and therefore can be tested without one.
//!
//! It reads no clock, starts no thread, opens no file and knows no poller: time
//! comes with [`Shell::turn`], the world stands behind [`Net`] and [`Work`].

/// Whether a bug is planted where `$in` comes from.
#[cfg(feature = "planted")]
macro_rules! planted {
    ($in:expr, $bug:ident) => {
        $in.planted == Some(castra_core::planted::Bug::$bug)
    };
}

/// No bugs are planted.
#[cfg(not(feature = "planted"))]
macro_rules! planted {
    ($in:expr, $bug:ident) => {
        false
    };
}

mod counters;
mod dial;
mod doors;
mod flush;
mod ports;
mod sink;
mod slots;

#[cfg(test)]
mod tests;

use std::io;
use std::path::PathBuf;

use castra_core::attach::HttpAnswer;
use castra_core::boundary::{CloseCause, Deadline, Engine, Input, Origin, Output, Via};
use castra_core::event::{Event, Level};
use castra_core::id::ConnId;
use castra_core::time::{Now, Time};

pub use self::counters::Counters;
use self::doors::Trouble;
use self::ports::{Pending, Ports};
use self::slots::{End, SEND_BUFFER, Stage};
use crate::address::ConnectAddress;
use crate::net::{ListenerId, Net, Ready, Received};
use crate::work::{Done, Job, JobId, Outcome, Work};

/// Most bytes read from one connection per turn.
pub const READ_MAX: usize = 64 * 1024;
/// Most connections read per turn, and …
const READS_PER_TURN: usize = 24;
/// … written to; the others keep their place in the line. With [`doors::BATCH`]
/// accepts this bounds what the kernel is asked for in one turn: some 10 µs for
/// each of them, less than a millisecond in all. Reads and accepts together ask
/// for fewer writes than this, so that the line doesn't grow with them.
const WRITES_PER_TURN: usize = 48;

const _: () = assert!(READS_PER_TURN + doors::BATCH <= WRITES_PER_TURN);

/// What a shell is told at start.
#[derive(Clone, Debug)]
pub struct ShellOptions {
    /// The network's listeners and what comes in through each.
    pub doors: Vec<(ListenerId, Via)>,
    /// Where `Effect::Dial` goes for the link, …
    pub dial: Option<ConnectAddress>,
    /// … and for this process's own terminals.
    pub terminals: Option<PathBuf>,
    /// Most connections at once; more wait in the listeners' queues. An eighth,
    /// at most 32, is kept for local clients.
    pub connections_max: usize,
    /// Who speaks in the log (`host-broker`); without it events are not written down.
    pub log_prefix: Option<&'static str>,
    /// Keep events for [`Shell::take_events`].
    pub observe: bool,
    /// The bug that is planted, if any.
    #[cfg(feature = "planted")]
    pub planted: Option<castra_core::planted::Bug>,
}

impl Default for ShellOptions {
    fn default() -> Self {
        Self {
            doors: Vec::new(),
            dial: None,
            terminals: None,
            connections_max: 100_000,
            log_prefix: None,
            observe: false,
            #[cfg(feature = "planted")]
            planted: None,
        }
    }
}

/// When to turn again.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Next {
    /// At the latest then; `None`: when something happens.
    pub deadline: Option<Time>,
    /// At once: work was put off for fairness' sake.
    pub more: bool,
}

/// An engine with a network and workers around it.
#[derive(Debug)]
pub struct Shell<E, N, W> {
    engine: E,
    ports: Ports<N, W>,
    buffer: Vec<u8>,
    wait: Option<Deadline>,
    started: bool,
}

impl<E: Engine, N: Net, W: Work> Shell<E, N, W> {
    /// A shell around `engine`. Nothing happens before the first turn.
    pub fn new(engine: E, net: N, work: W, options: ShellOptions) -> Self {
        #[cfg(feature = "planted")]
        let planted = options.planted;
        let ports = Ports::new(net, work, options);
        #[cfg(feature = "planted")]
        let ports = ports.plant(planted);
        Self { engine, ports, buffer: vec![0; READ_MAX], wait: None, started: false }
    }

    /// One turn: takes notice, reads, ticks, writes, accepts. Bounded in work;
    /// what is left is told by [`Next::more`].
    pub fn turn(&mut self, now: Now, ready: &[Ready], done: &[Done]) -> Next {
        if !self.started {
            self.started = true;
            self.drain_outputs(now);
        }
        for &edge in ready {
            self.ports.notice(edge);
        }
        for done in done {
            self.done(now, done);
        }
        self.ports.tend_dials(now.boot);
        self.settle(now);
        self.read(now);
        // After the reads: what a guest said in time is heard before anybody
        // concludes that it said nothing.
        if self.wait.is_some_and(|deadline| deadline.at <= now.boot) {
            self.feed(now, Input::Tick);
        }
        self.flush(now);
        // After the writes: a guest says hello as soon as it is connected, so in the
        // next turn, which follows at once, the greeting leaves together with the
        // answer to it, in one write.
        self.accept(now);
        self.settle(now);
        self.submit_lines(now);
        self.next()
    }

    /// Asks the engine to stop by `deadline`; links are no longer accepted.
    pub fn drain(&mut self, now: Now, deadline: Time) {
        for listener in self.ports.doors.close_links() {
            self.ports.net.close_listener(listener);
        }
        self.feed(now, Input::Drain { deadline });
        self.settle(now);
    }

    /// Reopens the log files and hands a configuration to the engine.
    pub fn reload(&mut self, now: Now, config: Option<E::Config>) {
        self.ports.work.submit(JobId::Reopen, Job::Reopen);
        if let Some(config) = config {
            self.configure(now, config);
        }
    }

    /// Hands a configuration to the engine.
    pub fn configure(&mut self, now: Now, config: E::Config) {
        self.feed(now, Input::Reload(Box::new(config)));
        self.settle(now);
    }

    /// Writes a line of the shell's own into the log.
    pub fn log(&mut self, now: Now, level: Level, text: &str) {
        self.ports.log(now, level, text);
    }

    /// Whether the engine has ended its drain.
    #[must_use]
    pub const fn stopped(&self) -> bool {
        self.ports.stopped
    }

    /// Whether, besides, everything said is sent and written.
    #[must_use]
    pub fn settled(&self) -> bool {
        self.ports.stopped
            && self.ports.closing.is_empty()
            && self.ports.dirty.is_empty()
            && self.ports.sink.as_ref().is_none_or(sink::Sink::is_idle)
    }

    /// Events since the last call, if they are kept.
    pub fn take_events(&mut self) -> Vec<Event> {
        self.ports.observed.as_mut().map(std::mem::take).unwrap_or_default()
    }

    /// What went on.
    #[must_use]
    pub fn counters(&self) -> Counters {
        let lines_suppressed = self.ports.sink.as_ref().map_or(0, sink::Sink::suppressed_in_all);
        Counters { lines_suppressed, ..self.ports.counters }
    }

    /// Links (dials included), then control connections; closing ones count until they are gone.
    #[must_use]
    pub const fn connections(&self) -> (usize, usize) {
        self.ports.slots.counts()
    }

    /// The engine.
    pub const fn engine(&mut self) -> &mut E {
        &mut self.engine
    }

    /// The network, to wait on.
    pub const fn net(&mut self) -> &mut N {
        &mut self.ports.net
    }

    /// The workers, to collect from.
    pub const fn work(&mut self) -> &mut W {
        &mut self.ports.work
    }

    /// Gives everything back; connections close without farewell.
    pub fn into_parts(mut self) -> (E, N, W) {
        let open: Vec<_> = self.ports.slots.ids().collect();
        for conn in open {
            self.ports.net.close(conn);
        }
        (self.engine, self.ports.net, self.ports.work)
    }

    /// One input, and everything that follows from it at once.
    fn feed(&mut self, now: Now, input: Input<'_, E::Config>) {
        self.engine.handle(now, input);
        self.drain_outputs(now);
    }

    fn drain_outputs(&mut self, now: Now) {
        loop {
            match self.engine.poll_output() {
                Output::Wait(deadline) => {
                    tracing::trace!(?deadline, "wait");
                    self.wait = deadline;
                    return;
                }
                output => self.ports.apply(now, output),
            }
        }
    }

    /// Tells the engine what its outputs led to.
    #[inline]
    fn settle(&mut self, now: Now) {
        if !self.ports.pending.is_empty() {
            self.settle_pending(now);
        }
    }

    fn settle_pending(&mut self, now: Now) {
        // Only what is there at the start: an engine that answers room with
        // bytes and bytes with room would never let go.
        for _ in 0..self.ports.pending.len() {
            match self.ports.pending.pop_front() {
                None => return,
                Some(Pending::Writable(conn)) => {
                    if let Some(slot) = self.ports.slots.get(conn).filter(|slot| slot.is_open()) {
                        let room = SEND_BUFFER - slot.unsent().len();
                        slot.room = room as u32;
                        self.feed(now, Input::Writable { conn, room });
                    }
                }
                Some(Pending::Gone(conn, why)) => self.gone(now, conn, why),
                Some(Pending::Opened { conn, via, effect, remote }) => {
                    self.ports.slots.set_stage(conn, Stage::Open(via));
                    if let Some(slot) = self.ports.slots.get(conn).filter(|_| via == Via::Terminals) {
                        slot.flags.end.set(End::PRECIOUS);
                    }
                    // An edge may have been told before anybody could read.
                    self.ports.enqueue(conn);
                    let origin = Origin::Dialled(effect);
                    self.feed(
                        now,
                        Input::Opened {
                            conn,
                            via,
                            origin,
                            local: None,
                            remote,
                            peer_cred: None,
                            room: SEND_BUFFER,
                        },
                    );
                }
                Some(Pending::Done(effect, result)) => self.feed(now, Input::Done { effect, result }),
            }
        }
    }

    fn done(&mut self, now: Now, done: &Done) {
        match (done.job, &done.outcome) {
            (JobId::Effect(effect), Outcome::Finished(result)) => {
                tracing::debug!(?effect, ?result, "done");
                self.feed(now, Input::Done { effect, result: result.clone() });
            }
            (JobId::Effect(effect), Outcome::Answered { status, retry_after, body }) => {
                tracing::debug!(?effect, status, "answered");
                let answer = HttpAnswer { status: *status, retry_after: *retry_after, body };
                self.feed(now, Input::Answered { effect, answer });
            }
            (JobId::Terminal(terminal), Outcome::Terminal(news)) => {
                let news = news.borrowed();
                self.feed(now, Input::Terminal { terminal, news });
            }
            (_, Outcome::Resolved(result)) => self.ports.resolved(now.boot, result),
            (_, Outcome::Appended { bytes, error }) => {
                if let Some(sink) = &mut self.ports.sink {
                    sink.appended(now, *bytes, error.as_deref());
                }
            }
            (JobId::Reopen, Outcome::Finished(Err(error))) => {
                self.ports.log(now, Level::Error, &error.message);
            }
            (JobId::Effect(_) | JobId::Reopen | JobId::Append | JobId::Terminal(_), _) => {}
        }
    }

    fn accept(&mut self, now: Now) {
        if self.ports.stopped {
            return;
        }
        self.ports.doors.begin_turn(now.boot);
        for index in 0..self.ports.doors.count() {
            while let Some((listener, via)) = self.ports.doors.may_accept(index, self.ports.slots.counts()) {
                let conn = self.ports.slots.next_id();
                match self.ports.net.accept(listener, conn) {
                    Ok(accepted) => {
                        self.ports.slots.occupy(conn, Stage::Open(via));
                        self.ports.counters.accepted += 1;
                        tracing::debug!(?conn, ?via, remote = %accepted.remote, "accepted");
                        self.ports.doors.accepted(index);
                        self.feed(
                            now,
                            Input::Opened {
                                conn,
                                via,
                                origin: Origin::Accepted,
                                remote: accepted.remote,
                                local: accepted.local,
                                peer_cred: accepted.peer_cred,
                                room: SEND_BUFFER,
                            },
                        );
                    }
                    Err(error) => match self.ports.doors.failed(index, now.boot, &error) {
                        Trouble::Empty { again } => {
                            if again {
                                self.ports.log(now, Level::Info, "accepting connections again");
                            }
                        }
                        Trouble::Next => self.ports.counters.accept_failures += 1,
                        Trouble::Rest { first } => {
                            self.ports.counters.accept_failures += 1;
                            if first {
                                let text = format!("accept failed: {error}; trying again every 100 ms");
                                self.ports.log(now, Level::Error, &text);
                            }
                        }
                    },
                }
            }
        }
    }

    fn read(&mut self, now: Now) {
        for _ in 0..self.ports.ready.len().min(READS_PER_TURN) {
            let Some(conn) = self.ports.ready.pop_front() else { return };
            if let Some(slot) = self.ports.slots.get(conn) {
                slot.flags.queued = false;
                if slot.is_open() && slot.flags.readable {
                    self.read_one(now, conn);
                }
            }
        }
    }

    fn read_one(&mut self, now: Now, conn: ConnId) {
        let Some(slot) = self.ports.slots.get(conn) else { return };
        // Nobody is left to hear the answer, so what it asked last is not done:
        // a command that was given up must not take effect later.
        let both_ended = slot.flags.hangup && !slot.flags.end.is(End::FINISHING);
        if both_ended && slot.stage == Stage::Open(Via::Control) {
            return self.gone(now, conn, CloseCause::Eof);
        }
        if slot.credit == 0 {
            // Nobody wants its bytes, and it wants ours no more.
            if slot.flags.hangup && !slot.flags.end.is(End::PRECIOUS) {
                self.gone(now, conn, CloseCause::Reset);
            }
            return;
        }
        let limit = READ_MAX.min(slot.credit as usize);
        match self.ports.net.read(conn, &mut self.buffer[..limit]) {
            Ok(Received { bytes: 0, .. }) => {
                slot.flags.readable = false;
                if slot.flags.hangup {
                    self.gone(now, conn, CloseCause::Eof);
                } else if !std::mem::replace(&mut slot.flags.read_done, true)
                    && !planted!(self.ports, FinishIgnored)
                {
                    self.feed(now, Input::Finished { conn });
                }
            }
            Ok(Received { bytes, drained }) => {
                self.ports.counters.received += bytes as u64;
                // Behind the last bytes waits the end, and no edge tells of it.
                slot.flags.readable =
                    (!drained || slot.flags.finished) && !planted!(self.ports, ReadOncePerEdge);
                self.ports.enqueue(conn);
                self.hand_over(now, conn, bytes);
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => slot.flags.readable = false,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => self.ports.enqueue(conn),
            Err(_) => self.gone(now, conn, CloseCause::Reset),
        }
    }

    fn hand_over(&mut self, now: Now, conn: ConnId, bytes: usize) {
        let buffer = std::mem::take(&mut self.buffer);
        self.feed(now, Input::Bytes { conn, bytes: &buffer[..bytes] });
        self.buffer = buffer;
    }

    fn gone(&mut self, now: Now, conn: ConnId, why: CloseCause) {
        let Some(slot) = self.ports.slots.get(conn) else { return };
        let open = slot.is_open();
        self.ports.net.close(conn);
        self.ports.slots.remove(conn);
        if open {
            self.feed(now, Input::Closed { conn, why });
        }
    }

    fn submit_lines(&mut self, now: Now) {
        let all = self.ports.stopped;
        if let Some(append) = self.ports.sink.as_mut().and_then(|sink| sink.take(now.boot, all)) {
            self.ports.work.submit(JobId::Append, Job::Append(append));
        }
    }

    fn next(&self) -> Next {
        let ports = &self.ports;
        let others = [
            ports.closing.front().map(|(until, _)| *until),
            // Nobody comes in any more: a resting door is not waited for.
            ports.doors.deadline().filter(|_| !ports.stopped),
            ports.dials.deadline(),
            ports.sink.as_ref().and_then(sink::Sink::due),
        ];
        let mut deadline = self.wait.map(|deadline| deadline.at);
        for other in others.into_iter().flatten() {
            deadline = Some(deadline.map_or(other, |deadline| deadline.min(other)));
        }
        let more = !ports.ready.is_empty()
            || !ports.dirty.is_empty()
            || !ports.pending.is_empty()
            || !ports.stopped && ports.doors.has_more(ports.slots.counts());
        Next { deadline, more }
    }
}
