//! A fake host of pseudo-terminals: the holder, that outlives daemons, and the porter
//! of the present one. It keeps the contract of the real ones (`driver/src/terminals`)
//! and knows the truth: which programs ran, what they wrote, what reached them.

mod deeds;
mod journal;
mod output;
mod porter;
mod program;

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

use castra_core::boundary::{EffectError, EffectErrorKind};
use castra_core::id::TerminalId;
use castra_core::terminals::{self, Deed, Exit, News, RestoredTerminals};
use castra_core::time::Time;
use castra_driver::work::{Done, Job, JobId, Outcome, Work};

use super::draws::Draws;
use super::pattern::{Author, Piece};
use super::plan::{Host as Shape, Program, Step};
use crate::choice::Choice;
use crate::outcome::{Counts, count};

use journal::Journal;
use porter::Porter;
use program::Held;

/// One life of a program, as it really was.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Life {
    /// Where its output began, and how far it came.
    pub(super) first: u64,
    pub(super) end: u64,
    /// Whether it has ended, and nothing more is written.
    pub(super) over: bool,
    /// How; `None` of one that is over: nobody knows.
    pub(super) exit: Option<Exit>,
    /// Those who knew it are gone: perhaps nobody else does.
    pub(super) forgotten: bool,
}

/// What reached a program.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Arrival {
    pub(super) terminal: u32,
    pub(super) piece: Piece,
}

/// What the host has to do.
#[derive(Debug)]
enum Todo {
    Deed(u32, JobId, Deed),
    /// The program goes on.
    Proceed(u32, u32),
    /// It reads.
    Read(u32, u32),
    /// It ends.
    Die(u32, u32, Exit),
    /// Nothing holds its terminal any more.
    Close(u32, u32),
}

/// The host.
#[derive(Debug)]
pub(super) struct Host {
    pub(super) now: Time,
    draws: Draws,
    shape: Shape,
    programs: Vec<Program>,
    pub(super) journal: Journal,
    terminals: BTreeMap<u32, Held>,
    porters: BTreeMap<u32, Porter>,
    /// Every life of every terminal.
    pub(super) lives: BTreeMap<u32, Vec<Life>>,
    pub(super) arrivals: Vec<Arrival>,
    agenda: BTreeMap<(Time, u64), Todo>,
    /// What the daemon is going to be told.
    done: BTreeMap<(Time, u64), Done>,
    count: u64,
    pids: u32,
    boots: u8,
    /// Deeds take long.
    pub(super) slow_until: Time,
    /// What the daemon did wrong.
    pub(super) wrong: Vec<(&'static str, String)>,
    pub(super) counts: Counts,
}

/// Shared by the world and the daemon's shell.
pub(super) type Shared = Rc<RefCell<Host>>;

/// Longest delay of deeds while the host is slow.
const SLOW: Duration = Duration::from_secs(12);
/// Most bytes that the real porter brings at once.
const CHUNK: usize = 64 * 1024;
/// For so long what runs in the background holds a terminal at most.
const LINGER: Duration = Duration::from_secs(2);

impl Host {
    pub(super) fn new(shape: Shape, programs: Vec<Program>, draws: Draws, now: Time) -> Self {
        Self {
            now,
            draws,
            shape,
            programs,
            journal: Journal::default(),
            terminals: BTreeMap::new(),
            porters: BTreeMap::new(),
            lives: BTreeMap::new(),
            arrivals: Vec::new(),
            agenda: BTreeMap::new(),
            done: BTreeMap::new(),
            count: 0,
            pids: 1000,
            boots: 1,
            slow_until: Time::ZERO,
            wrong: Vec::new(),
            counts: Counts::default(),
        }
    }

    /// A daemon starts.
    pub(super) fn restore(&mut self) -> RestoredTerminals {
        let ring = self.shape.ring;
        let mut held = Vec::new();
        for (terminal, it) in &mut self.terminals {
            let first = it.oldest(ring);
            it.floor = first;
            let seen = it.stored.filter(|stored| (first..=it.end).contains(stored)).unwrap_or(first);
            self.porters.insert(*terminal, Porter::new(first, seen, true));
            held.push(terminals::Held {
                terminal: TerminalId(*terminal),
                pid: it.pid,
                start_time: it.start_time,
                pts: format!("/dev/pts/{terminal}"),
                cols: it.size.0,
                rows: it.size.1,
                first,
                end: it.end,
            });
            count(&mut self.counts, "held");
        }
        let boot = [self.boots; 16];
        RestoredTerminals { next_id: self.journal.next_id(), records: self.journal.records(), held, boot }
    }

    /// The daemon is gone. What it asked for last may still be done.
    pub(super) fn daemon_dies(&mut self) {
        let torn = self.draws.below(self.journal.pending() as u32 + 1) as usize;
        if torn > 0 {
            count(&mut self.counts, "torn_commit");
        }
        self.journal.kill(torn);
        let deeds = self.agenda.extract_if(.., |_, todo| matches!(todo, Todo::Deed(..)));
        let mut cut = Vec::new();
        for (_, todo) in deeds.collect::<Vec<_>>() {
            let Todo::Deed(terminal, id, deed) = todo else { continue };
            // What is done to one terminal keeps its order.
            if cut.contains(&terminal) || self.draws.once_in(2) {
                cut.push(terminal);
            } else {
                self.act(terminal, id, deed);
            }
        }
        self.porters.clear();
        self.done.clear();
        for (terminal, _) in self.terminals.extract_if(.., |_, it| it.lost) {
            if let Some(life) = self.lives.get_mut(&terminal).and_then(|lives| lives.last_mut()) {
                life.forgotten = true;
            }
        }
        for it in self.terminals.values_mut() {
            it.writes.clear();
            it.reader.forget();
        }
    }

    /// The holder is gone, and with it every program.
    pub(super) fn holder_dies(&mut self) {
        for (terminal, it) in &mut self.terminals {
            if it.lost {
                continue;
            }
            it.lost = true;
            it.blocked = 0;
            if let Some(life) = self.lives.get_mut(terminal).and_then(|lives| lives.last_mut()) {
                if !it.closed {
                    life.exit = None;
                    count(&mut self.counts, "lost");
                }
                life.over = true;
            }
        }
        let all: Vec<u32> = self.terminals.keys().copied().collect();
        for terminal in all {
            self.refuse_writes(terminal);
            self.tell(terminal);
        }
        if self.porters.is_empty() {
            // No daemon is there that could hear of it.
            for (terminal, _) in std::mem::take(&mut self.terminals) {
                if let Some(life) = self.lives.get_mut(&terminal).and_then(|lives| lives.last_mut()) {
                    life.forgotten = true;
                }
            }
        }
    }

    /// The machine starts again.
    pub(super) fn reboot(&mut self) {
        self.holder_dies();
        self.daemon_dies();
        self.boots += 1;
    }

    /// Faults end.
    pub(super) fn heal(&mut self) {
        self.slow_until = Time::ZERO;
        self.journal.heal(self.now);
    }

    /// When something happens next.
    pub(super) fn next(&self) -> Option<Time> {
        let agenda = self.agenda.keys().next().map(|(at, _)| *at);
        let done = self.done.keys().next().map(|(at, _)| *at);
        [agenda, done, self.journal.next()].into_iter().flatten().min()
    }

    /// Does what is due; what the daemon is told goes to `told`.
    pub(super) fn run(&mut self, told: &mut Vec<Done>) {
        while let Some(first) = self.agenda.first_entry().filter(|first| first.key().0 <= self.now) {
            match first.remove() {
                Todo::Deed(terminal, id, deed) => self.act(terminal, id, deed),
                Todo::Proceed(terminal, pid) => {
                    if self.is_running(terminal, pid) {
                        self.proceed(terminal);
                    }
                }
                Todo::Read(terminal, pid) => {
                    if self.terminals.get(&terminal).is_some_and(|it| it.pid == pid) {
                        self.read(terminal);
                    }
                }
                Todo::Die(terminal, pid, exit) => {
                    if self.is_running(terminal, pid) {
                        self.die(terminal, exit);
                    }
                }
                Todo::Close(terminal, pid) => self.close(terminal, pid),
            }
        }
        self.journal.finish(self.now, |done| told.push(done));
        if let Some(text) = self.journal.nonsense.take() {
            self.wrong.push(("4.1", text));
        }
        while let Some(first) = self.done.first_entry().filter(|first| first.key().0 <= self.now) {
            told.push(first.remove());
        }
    }

    /// Whether anything is on its way to the daemon, or being done for it.
    pub(super) fn is_busy(&self) -> bool {
        let deed = |todo: &Todo| matches!(todo, Todo::Deed(..));
        !self.done.is_empty()
            || self.journal.pending() > 0
            || self.agenda.values().any(deed)
            || self.porters.values().any(|porter| !porter.snapshots.is_empty())
            || self.terminals.values().any(|it| !it.writes.is_empty())
    }

    /// Terminals whose program runs.
    pub(super) fn running(&self) -> Vec<u32> {
        self.terminals.iter().filter(|(_, it)| it.runs()).map(|(terminal, _)| *terminal).collect()
    }

    /// Terminals that the holder keeps.
    pub(super) fn kept(&self) -> usize {
        self.terminals.len()
    }

    /// The present or last life of a terminal.
    pub(super) fn life(&self, terminal: u32) -> Option<&Life> {
        self.lives.get(&terminal)?.last()
    }

    fn is_running(&self, terminal: u32, pid: u32) -> bool {
        self.terminals.get(&terminal).is_some_and(|it| it.pid == pid && it.runs())
    }

    fn later(&mut self, at: Time, todo: Todo) {
        self.count += 1;
        self.agenda.insert((at, self.count), todo);
    }

    fn delay(&mut self) -> Duration {
        let most = if self.now < self.slow_until { SLOW } else { Duration::from_micros(self.shape.delay_us) };
        self.draws.delay(most)
    }

    /// Tells the daemon something of a terminal, after what was told before.
    fn say(&mut self, terminal: u32, delay: Duration, done: Done) {
        let mut at = self.now + delay;
        if let Some(porter) = self.porters.get_mut(&terminal) {
            at = at.max(porter.news_until);
            porter.news_until = at;
        }
        self.count += 1;
        self.done.insert((at, self.count), done);
    }

    fn news(&mut self, terminal: u32, news: News<'static>) {
        let delay = self.delay();
        let job = JobId::Terminal(TerminalId(terminal));
        self.say(terminal, delay, Done { job, outcome: Outcome::Terminal(news) });
    }

    fn finish(&mut self, terminal: u32, job: JobId, result: Result<(), EffectErrorKind>) {
        let result = result.map_err(|kind| EffectError { kind, message: format!("{kind:?}") });
        self.say(terminal, Duration::ZERO, Done { job, outcome: Outcome::Finished(result) });
    }

    /// The program does what it does until it has to wait.
    fn proceed(&mut self, terminal: u32) {
        let ring = self.shape.ring;
        loop {
            let Some(it) = self.terminals.get_mut(&terminal) else { return };
            it.fill(ring);
            if it.blocked > 0 || !it.runs() {
                count(&mut self.counts, if it.blocked > 0 { "ring_full" } else { "ended" });
                break;
            }
            let Some(step) = it.program.steps.get(it.step).copied() else { break };
            it.step += 1;
            let pid = it.pid;
            match step {
                Step::Pause(millis) => {
                    self.later(self.now + Duration::from_millis(millis), Todo::Proceed(terminal, pid));
                    break;
                }
                Step::Write(bytes) => it.blocked += bytes,
                Step::Query => {
                    it.queries.push_back(it.end);
                    it.blocked += 1;
                }
                Step::Chdir => {
                    let path = format!("/home/{}", it.step);
                    if self.porters.get(&terminal).is_some_and(|porter| !porter.aside) {
                        self.news(terminal, News::Directory(path));
                    }
                }
                Step::Exit(code) => self.die(terminal, Exit { code, signal: None }),
                Step::Raise(signal) => self.die(terminal, killed(signal)),
            }
        }
        self.written(terminal);
        self.carry(terminal);
    }

    /// Writes down how far the output came.
    fn written(&mut self, terminal: u32) {
        let Some(it) = self.terminals.get(&terminal) else { return };
        if let Some(life) = self.lives.get_mut(&terminal).and_then(|lives| lives.last_mut()) {
            life.end = it.end;
        }
    }

    fn die(&mut self, terminal: u32, exit: Exit) {
        let Some(it) = self.terminals.get_mut(&terminal).filter(|it| it.runs()) else { return };
        it.exit = Some(exit);
        it.blocked = 0;
        let pid = it.pid;
        let lingers = Duration::from_millis(it.program.lingers_ms).min(LINGER);
        if lingers > Duration::ZERO {
            count(&mut self.counts, "lingers");
            return self.later(self.now + lingers, Todo::Close(terminal, pid));
        }
        self.close(terminal, pid);
    }

    fn close(&mut self, terminal: u32, pid: u32) {
        let ring = self.shape.ring;
        let Some(it) = self.terminals.get_mut(&terminal) else { return };
        if it.pid != pid || it.closed || it.lost {
            return;
        }
        if it.program.lingers_ms > 0 {
            // The last words of what held it.
            it.blocked = 9;
            it.fill(ring);
            it.blocked = 0;
        }
        it.closed = true;
        let exit = it.exit;
        self.written(terminal);
        if let Some(life) = self.lives.get_mut(&terminal).and_then(|lives| lives.last_mut()) {
            (life.over, life.exit) = (true, exit);
        }
        self.refuse_writes(terminal);
        self.carry(terminal);
    }

    fn refuse_writes(&mut self, terminal: u32) {
        let Some(it) = self.terminals.get_mut(&terminal) else { return };
        for (job, _) in std::mem::take(&mut it.writes) {
            self.finish(terminal, job, Err(EffectErrorKind::Terminal));
        }
    }

    /// The program, or its kernel, takes what was written.
    fn read(&mut self, terminal: u32) {
        let most = self.draws.pick(&[CHUNK, 4096, 100]);
        let delay = self.delay();
        let Some(it) = self.terminals.get_mut(&terminal) else { return };
        let (taken, whole) = it.take(most);
        let (pid, more) = (it.pid, !it.writes.is_empty());
        let echo = if it.program.echoes && it.runs() && !it.program.deaf { taken as u64 } else { 0 };
        it.blocked += echo;
        let mut torn = None;
        while torn.is_none() {
            match it.reader.next() {
                Ok(Some(piece)) => self.arrivals.push(Arrival { terminal, piece }),
                Ok(None) => break,
                Err(text) => torn = Some(text),
            }
        }
        if let Some(text) = torn {
            self.wrong.push(("O1", format!("the program of terminal {terminal} reads {text}")));
        }
        for job in whole {
            self.finish(terminal, job, Ok(()));
        }
        if more && taken > 0 {
            self.later(self.now + delay, Todo::Read(terminal, pid));
        } else if more {
            count(&mut self.counts, "nobody_reads");
        }
        if echo > 0 {
            self.proceed(terminal);
        }
    }
}

/// As a shell says it.
pub(super) const fn killed(signal: i32) -> Exit {
    Exit { code: 128 + signal, signal: Some(signal) }
}

/// The workers of one daemon.
#[derive(Clone, Debug)]
pub(super) struct HostWork(pub(super) Shared);

impl Work for HostWork {
    fn submit(&mut self, id: JobId, job: Job) {
        self.0.borrow_mut().submit(id, job);
    }
}

/// Who wrote what reached a program.
pub(super) const fn author(arrival: &Arrival) -> Option<Author> {
    match arrival.piece {
        Piece::Input(author) => Some(author),
        Piece::Reply | Piece::Line => None,
    }
}
