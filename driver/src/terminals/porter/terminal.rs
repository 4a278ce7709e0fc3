//! A terminal's thread.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Instant;

use castra_core::boundary::{EffectError, EffectErrorKind};
use castra_core::terminals::{Deed, Exit, News, Snapshot};

use super::Shared;
use super::desk::{Desk, Mail};
use super::directory::Directory;
use super::link::{Answer, HeldTerminal, Link};
use super::model::Model;
use super::output::Output;
use crate::terminals::holder::wire::{PIECE_MAX, Request};
use crate::work::{JobId, Outcome};

/// Works until the terminal is released.
pub(super) fn run(
    shared: Arc<Shared>,
    terminal: u32,
    desk: Arc<Desk>,
    held: Option<(Arc<Link>, HeldTerminal)>,
) {
    let mut it = Keeper {
        shared,
        terminal,
        desk,
        phase: Phase::Blank,
        requests: BTreeMap::new(),
        writes: VecDeque::new(),
        writing: false,
        snapshots: Vec::new(),
        grant: None,
    };
    if let Some((link, held)) = held {
        it.phase = Phase::Live(Box::new(it.held(link, held)));
    }
    it.work();
}

pub(super) struct Keeper {
    pub(super) shared: Arc<Shared>,
    pub(super) terminal: u32,
    pub(super) desk: Arc<Desk>,
    pub(super) phase: Phase,
    /// What waits for the holder's answers.
    pub(super) requests: BTreeMap<u64, Waiting>,
    /// Input on its way, and how much of the first was sent.
    pub(super) writes: VecDeque<(JobId, Vec<u8>, usize)>,
    /// Whether a piece of the first is with the holder.
    pub(super) writing: bool,
    /// Snapshots that wait until the output has caught up with the model.
    pub(super) snapshots: Vec<(JobId, u32)>,
    /// How many bytes may be brought next.
    pub(super) grant: Option<usize>,
}

pub(super) enum Phase {
    /// There is no terminal.
    Blank,
    Starting(Box<Starting>),
    Live(Box<Live>),
}

pub(super) struct Starting {
    pub(super) link: Arc<Link>,
    pub(super) first: u64,
    pub(super) model: Option<Box<dyn Model>>,
}

pub(super) struct Live {
    pub(super) link: Arc<Link>,
    pub(super) output: Output,
    pub(super) directory: Directory,
    /// Held, and not yet [`Deed::Adopt`]ed.
    pub(super) aside: bool,
    pub(super) exit: Option<(Exit, u64)>,
    pub(super) lost: Option<String>,
    /// Whether the end was told.
    pub(super) told: bool,
}

pub(super) enum Waiting {
    /// Its answer is the deed's result.
    Deed(JobId),
    Spawn(JobId),
    Release(JobId),
    /// A piece of the first of [`Keeper::writes`].
    Write,
}

impl Keeper {
    fn work(&mut self) {
        loop {
            let taken = self.desk.take();
            if taken.stopped {
                return;
            }
            for mail in taken.mail {
                self.on_mail(mail);
            }
            // After a release that is among the mail: it is of whatever came then.
            self.grant = taken.grant.or(self.grant);
            let blank = matches!(self.phase, Phase::Blank) && self.requests.is_empty();
            if blank && self.shared.leave(self.terminal, &self.desk) {
                return;
            }
            if !self.carry() {
                self.sleep();
            }
        }
    }

    fn sleep(&mut self) {
        let now = Instant::now();
        let Phase::Live(live) = &mut self.phase else {
            self.desk.sleep(None, None);
            return;
        };
        let awaited = self.grant.filter(|_| !live.aside && live.lost.is_none());
        let counter = awaited.and_then(|_| live.output.counter());
        let timeout = live.directory.due().map(|due| due.saturating_duration_since(now));
        if self.desk.sleep(counter, timeout) {
            live.output.count();
        }
        if let Some(path) = live.directory.look(Instant::now()) {
            self.shared.news(self.terminal, News::Directory(path));
        }
    }

    /// Brings output if it may, and tells the end if that is reached; false: nothing
    /// is to be done now.
    fn carry(&mut self) -> bool {
        let Phase::Live(live) = &mut self.phase else { return false };
        if live.aside {
            return false;
        }
        if let (true, Some(most)) = (live.output.has_more(), self.grant) {
            self.grant = None;
            match live.output.bring(most) {
                Ok((offset, bytes)) => {
                    self.shared.news(self.terminal, News::Output { offset, bytes: bytes.into() });
                }
                Err(error) => {
                    live.output.give_up();
                    live.lost = Some(format!("its output can't be read: {error}"));
                    return self.tell_end();
                }
            }
            let reply = live.output.feed();
            if !reply.is_empty() {
                self.shared.news(self.terminal, News::Reply(reply.into()));
            }
            if live.exit.is_none() && live.lost.is_none() {
                live.directory.on_output(Instant::now());
            }
            if live.lost.is_none() {
                // If it fails, the connection is over: that comes by mail.
                let _ = live.output.let_go(&live.link);
            }
            self.take_snapshots();
            return true;
        }
        self.tell_end()
    }

    fn tell_end(&mut self) -> bool {
        let Phase::Live(live) = &mut self.phase else { return false };
        if live.told || live.output.has_more() {
            return false;
        }
        let news = match (live.exit, &live.lost) {
            (Some((exit, end)), lost) if live.output.next() >= end || lost.is_some() => News::Exited(exit),
            (None, Some(why)) => News::Lost { why: why.clone() },
            _ => return false,
        };
        live.told = true;
        live.directory.stop();
        self.shared.news(self.terminal, news);
        true
    }

    fn on_mail(&mut self, mail: Mail) {
        match mail {
            Mail::Deed(id, deed) => self.on_deed(id, deed),
            Mail::Answer(seq, answer) => self.on_answer(seq, answer),
            Mail::Exit(exit, end) => {
                if let Phase::Live(live) = &mut self.phase {
                    live.exit = Some((exit, end));
                    live.directory.stop();
                }
            }
            Mail::Lost(link, why) => self.on_lost(link, &why),
        }
    }

    fn on_deed(&mut self, id: JobId, deed: Deed) {
        let terminal = self.terminal;
        match deed {
            Deed::Spawn { launch, first, tail } => match self.spawn(id, &launch, first, tail.as_deref()) {
                Ok(()) => {}
                Err(error) => self.finish(id, Err(error)),
            },
            Deed::Adopt => {
                let result = match &mut self.phase {
                    Phase::Live(live) => {
                        live.aside = false;
                        Ok(())
                    }
                    Phase::Blank | Phase::Starting(_) => Err(gone()),
                };
                self.finish(id, result);
            }
            Deed::Write(bytes) => {
                self.writes.push_back((id, bytes, 0));
                self.write_on();
            }
            Deed::Resize { cols, rows } => {
                if let Phase::Live(live) = &mut self.phase {
                    live.output.resize(cols, rows);
                }
                self.ask(id, |seq| Request::Resize { seq, terminal, cols, rows });
            }
            Deed::Signal { signal, scope } => {
                self.ask(id, |seq| Request::Signal { seq, terminal, signal, scope });
            }
            Deed::HangUp => self.ask(id, |seq| Request::HangUp { seq, terminal }),
            Deed::Kill => self.ask(id, |seq| Request::Kill { seq, terminal }),
            Deed::Snapshot { history_lines } => {
                self.snapshots.push((id, history_lines));
                self.take_snapshots();
            }
            Deed::ClearScrollback => {
                let result = match &mut self.phase {
                    Phase::Live(live) => {
                        live.output.clear_scrollback();
                        Ok(())
                    }
                    Phase::Blank | Phase::Starting(_) => Err(gone()),
                };
                self.finish(id, result);
            }
            Deed::Release => self.release(id),
            _ => self.finish(id, Err(failed("nobody here knows how to do that"))),
        }
    }

    /// Sends the next piece of input.
    fn write_on(&mut self) {
        if self.writing {
            return;
        }
        while let Some((id, bytes, sent)) = self.writes.front_mut() {
            if *sent == bytes.len() {
                let id = *id;
                self.writes.pop_front();
                self.finish(id, Ok(()));
                continue;
            }
            let piece = bytes[*sent..bytes.len().min(*sent + PIECE_MAX)].to_vec();
            *sent += piece.len();
            let id = *id;
            let terminal = self.terminal;
            match self.send(Waiting::Write, |seq| Request::Write { seq, terminal, data: piece }) {
                Ok(()) => {
                    self.writing = true;
                    return;
                }
                Err(error) => {
                    self.writes.pop_front();
                    self.finish(id, Err(error));
                }
            }
        }
    }

    fn take_snapshots(&mut self) {
        let Phase::Live(live) = &mut self.phase else {
            for (id, _) in std::mem::take(&mut self.snapshots) {
                self.finish(id, Err(gone()));
            }
            return;
        };
        // After an end that came too early the model stays ahead for good.
        if !live.output.is_level() && !live.told {
            return;
        }
        let cwd = live.directory.known().map(str::to_owned);
        let wanted = std::mem::take(&mut self.snapshots).into_iter();
        let made: Vec<_> = wanted.map(|(id, lines)| (id, live.output.snapshot(lines))).collect();
        for (id, snapshot) in made {
            let Some(snapshot) = snapshot else {
                self.finish(id, Err(failed("there is no screen model here")));
                continue;
            };
            let snapshot = Snapshot { cwd: cwd.clone(), ..snapshot };
            self.shared.news(self.terminal, News::Snapshot(Box::new(snapshot)));
            self.finish(id, Ok(()));
        }
    }

    /// There is no terminal from now on; what comes next may start another.
    fn release(&mut self, id: JobId) {
        let link = match &self.phase {
            Phase::Live(live) if live.lost.is_some() => None,
            Phase::Live(live) => Some(Arc::clone(&live.link)),
            Phase::Starting(starting) => Some(Arc::clone(&starting.link)),
            Phase::Blank => return self.finish(id, Err(gone())),
        };
        self.phase = Phase::Blank;
        self.grant = None;
        self.take_snapshots();
        self.fail_requests("the terminal was released");
        if let Some(link) = link {
            let seq = self.expect(Waiting::Release(id));
            if link.send(&Request::Release { seq, terminal: self.terminal }, Vec::new()).is_ok() {
                return;
            }
            self.forget(seq);
        }
        // Whoever held it is gone, and it too.
        self.finish(id, Ok(()));
    }

    fn ask(&mut self, id: JobId, request: impl FnOnce(u64) -> Request) {
        if let Err(error) = self.send(Waiting::Deed(id), request) {
            self.finish(id, Err(error));
        }
    }

    fn send(&mut self, waiting: Waiting, request: impl FnOnce(u64) -> Request) -> Result<(), EffectError> {
        let link = match &self.phase {
            Phase::Live(live) if live.lost.is_none() => Arc::clone(&live.link),
            Phase::Starting(starting) => Arc::clone(&starting.link),
            Phase::Live(_) | Phase::Blank => return Err(gone()),
        };
        let seq = self.expect(waiting);
        link.send(&request(seq), Vec::new()).map_err(|error| {
            self.forget(seq);
            failed(format!("the holder of the terminals doesn't listen: {error}"))
        })
    }

    pub(super) fn expect(&mut self, waiting: Waiting) -> u64 {
        let seq = self.shared.number();
        super::locked(&self.shared.inner).waiting.insert(seq, Arc::clone(&self.desk));
        self.requests.insert(seq, waiting);
        seq
    }

    pub(super) fn forget(&mut self, seq: u64) {
        self.requests.remove(&seq);
        super::locked(&self.shared.inner).waiting.remove(&seq);
    }

    fn on_answer(&mut self, seq: u64, answer: Answer) {
        let Some(waiting) = self.requests.remove(&seq) else { return };
        let result = match answer {
            Answer::Refused(error) => Err(error),
            Answer::Done => Ok(()),
            Answer::Spawned { pid, start_time, pts, descriptors } => {
                let Waiting::Spawn(id) = waiting else { return };
                let mut descriptors = descriptors.into_iter();
                let source = descriptors.next().zip(descriptors.next());
                return self.started(id, (pid, start_time, pts), source);
            }
        };
        match waiting {
            Waiting::Deed(id) => self.finish(id, result),
            Waiting::Spawn(id) => {
                self.phase = Phase::Blank;
                self.finish(id, result.and(Err(gone())));
            }
            Waiting::Release(id) => self.finish(id, result),
            Waiting::Write => {
                self.writing = false;
                if let Err(error) = result
                    && let Some((id, ..)) = self.writes.pop_front()
                {
                    self.finish(id, Err(error));
                }
                self.write_on();
            }
        }
    }

    fn on_lost(&mut self, link: u64, why: &str) {
        match &mut self.phase {
            Phase::Live(live) if live.link.number == link => {
                live.output.count_last();
                live.lost.get_or_insert_with(|| why.to_owned());
                live.directory.stop();
            }
            Phase::Starting(starting) if starting.link.number == link => self.phase = Phase::Blank,
            // At most a release waits.
            Phase::Blank => {}
            Phase::Starting(_) | Phase::Live(_) => return,
        }
        self.fail_requests(why);
    }

    /// Nothing that was asked will be answered.
    fn fail_requests(&mut self, why: &str) {
        for (seq, waiting) in std::mem::take(&mut self.requests) {
            super::locked(&self.shared.inner).waiting.remove(&seq);
            match waiting {
                Waiting::Deed(id) | Waiting::Spawn(id) => self.finish(id, Err(failed(why))),
                Waiting::Release(id) => self.finish(id, Ok(())),
                Waiting::Write => {}
            }
        }
        self.writing = false;
        for (id, ..) in std::mem::take(&mut self.writes) {
            self.finish(id, Err(failed(why)));
        }
    }

    pub(super) fn finish(&self, id: JobId, result: Result<(), EffectError>) {
        (self.shared.tell)(id, Outcome::Finished(result));
    }
}

pub(super) fn failed(message: impl Into<String>) -> EffectError {
    EffectError { kind: EffectErrorKind::Terminal, message: message.into() }
}

fn gone() -> EffectError {
    failed("the terminal is gone")
}
