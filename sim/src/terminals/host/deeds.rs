//! What a daemon asks for.

use castra_core::boundary::EffectErrorKind;
use castra_core::terminals::{Deed, Exit, Launch, News, SignalScope, WRITE_MAX};
use castra_driver::work::{Done, Job, JobId, Outcome};

use super::program::Held;
use super::{Host, Life, Porter, Todo, killed};
use crate::choice::Choice;
use crate::outcome::count;
use crate::terminals::plan::{Program, SpawnFailure};

/// SIGHUP, SIGKILL, SIGTERM.
const HUP: i32 = 1;
const KILL: i32 = 9;
const TERM: i32 = 15;

impl Host {
    pub(super) fn submit(&mut self, id: JobId, job: Job) {
        match job {
            Job::Persist(batch) => self.journal.submit(self.now, id, batch),
            Job::Grant { terminal, credit } => {
                if credit > 0
                    && let Some(porter) = self.porters.get_mut(&terminal.0)
                {
                    porter.grant = Some(credit);
                    self.carry(terminal.0);
                }
            }
            Job::Terminal { terminal, deed } => self.accept(id, terminal.0, deed),
            other => {
                self.wrong.push(("4.1", format!("{other:?} is no work of terminals")));
                self.say(0, std::time::Duration::ZERO, Done { job: id, outcome: Outcome::Finished(Ok(())) });
            }
        }
    }

    /// A deed is done later; what is done to one terminal keeps its order.
    fn accept(&mut self, id: JobId, terminal: u32, deed: Deed) {
        let delay = self.delay();
        if let Deed::Spawn { first, .. } = &deed
            && !self.terminals.contains_key(&terminal)
        {
            self.porters.entry(terminal).or_insert_with(|| Porter::new(*first, *first, false));
        }
        let Some(porter) = self.porters.get_mut(&terminal) else {
            return self.finish(terminal, id, Err(EffectErrorKind::Terminal));
        };
        let at = (self.now + delay).max(porter.deeds_until);
        porter.deeds_until = at;
        self.later(at, Todo::Deed(terminal, id, deed));
    }

    /// A deed is done now.
    pub(super) fn act(&mut self, terminal: u32, id: JobId, deed: Deed) {
        count(&mut self.counts, word(&deed));
        let gone = Err(EffectErrorKind::Terminal);
        let result = match deed {
            Deed::Spawn { launch, first, .. } => self.spawn(terminal, &launch, first),
            Deed::Adopt => match self.porters.get_mut(&terminal) {
                Some(porter) if self.terminals.contains_key(&terminal) => {
                    porter.aside = false;
                    self.finish(terminal, id, Ok(()));
                    return self.carry(terminal);
                }
                _ => gone,
            },
            Deed::Write(bytes) => return self.write(terminal, id, bytes),
            Deed::Resize { cols, rows } => {
                if cols == 0 || rows == 0 {
                    self.wrong.push(("4.1", format!("terminal {terminal} is to be {cols}x{rows}")));
                }
                self.running_terminal(terminal).map(|it| it.size = (cols, rows))
            }
            Deed::Signal { signal, scope } => self.signal(terminal, signal, scope),
            Deed::HangUp => self.hang_up(terminal),
            Deed::Kill => {
                let there = self.running_terminal(terminal).map(drop);
                self.doom(terminal, killed(KILL));
                there
            }
            Deed::Snapshot { history_lines } => {
                if self.terminals.contains_key(&terminal)
                    && let Some(porter) = self.porters.get_mut(&terminal)
                {
                    porter.snapshots.push((id, history_lines));
                    if !porter.is_level() {
                        count(&mut self.counts, "snapshot_waits");
                    }
                    return self.take_snapshots(terminal);
                }
                gone
            }
            Deed::ClearScrollback if self.terminals.contains_key(&terminal) => Ok(()),
            Deed::Release => self.release(terminal),
            _ => gone,
        };
        self.finish(terminal, id, result);
    }

    fn running_terminal(&mut self, terminal: u32) -> Result<&mut Held, EffectErrorKind> {
        self.terminals.get_mut(&terminal).filter(|it| !it.lost).ok_or(EffectErrorKind::Terminal)
    }

    fn spawn(&mut self, terminal: u32, launch: &Launch, first: u64) -> Result<(), EffectErrorKind> {
        if self.terminals.contains_key(&terminal) {
            self.wrong.push(("O1", format!("terminal {terminal} is started while it is there")));
            return Err(EffectErrorKind::Terminal);
        }
        if launch.cols == 0 || launch.rows == 0 {
            self.wrong
                .push(("4.1", format!("terminal {terminal} is started {}x{}", launch.cols, launch.rows)));
        }
        if let Some(life) = self.life(terminal).copied() {
            count(&mut self.counts, "restored");
            if first <= life.end {
                let text = format!("terminal {terminal} starts again at {first}, and had {} bytes", life.end);
                self.wrong.push(("O2", text));
            }
        }
        let program = self.program(launch);
        if let Some(failure) = program.fails {
            self.porters.remove(&terminal);
            return Err(match failure {
                SpawnFailure::Directory => EffectErrorKind::DirectoryMissing,
                SpawnFailure::Program => EffectErrorKind::ProgramMissing,
                SpawnFailure::Permission => EffectErrorKind::PermissionDenied,
                SpawnFailure::Terminal => EffectErrorKind::Terminal,
            });
        }
        self.pids += 1;
        let (pid, start_time) = (self.pids, u64::from(self.pids) * 100);
        let size = (launch.cols, launch.rows);
        self.terminals.insert(terminal, Held::new(pid, start_time, size, program, first));
        let life = Life { first, end: first, over: false, exit: None, forgotten: false };
        self.lives.entry(terminal).or_default().push(life);
        self.news(terminal, News::Started { pid, pts: format!("/dev/pts/{terminal}"), start_time });
        let starts = self.now + self.delay();
        self.later(starts, Todo::Proceed(terminal, pid));
        Ok(())
    }

    /// The launch's first argument names it; a shell is the first of all.
    fn program(&self, launch: &Launch) -> Program {
        let number = launch.args.first().and_then(|text| text.parse::<usize>().ok()).unwrap_or(0);
        self.programs[number % self.programs.len()].clone()
    }

    fn write(&mut self, terminal: u32, id: JobId, bytes: Vec<u8>) {
        if bytes.is_empty() || bytes.len() > WRITE_MAX {
            self.wrong.push(("4.1", format!("a write of {} bytes", bytes.len())));
        }
        let delay = self.delay();
        let Some(it) = self.terminals.get_mut(&terminal).filter(|it| !it.lost && !it.closed) else {
            return self.finish(terminal, id, Err(EffectErrorKind::Terminal));
        };
        if !it.writes.is_empty() {
            self.wrong
                .push(("4.1", format!("a second write to terminal {terminal} before the first is done")));
        }
        it.writes.push_back((id, bytes));
        let pid = it.pid;
        self.later(self.now + delay, Todo::Read(terminal, pid));
    }

    /// The program ends soon.
    fn doom(&mut self, terminal: u32, exit: Exit) {
        let at = self.now + self.delay();
        if let Some(it) = self.terminals.get(&terminal) {
            let pid = it.pid;
            self.later(at, Todo::Die(terminal, pid, exit));
        }
    }

    fn signal(&mut self, terminal: u32, signal: i32, scope: SignalScope) -> Result<(), EffectErrorKind> {
        let it = self.running_terminal(terminal)?;
        let heeds = !it.program.stubborn && scope != SignalScope::Foreground;
        if signal == KILL || heeds && matches!(signal, HUP | 2 | 3 | TERM) {
            self.doom(terminal, killed(signal));
        }
        Ok(())
    }

    fn hang_up(&mut self, terminal: u32) -> Result<(), EffectErrorKind> {
        let it = self.running_terminal(terminal)?;
        if it.program.stubborn {
            count(&mut self.counts, "hang_up_ignored");
        } else {
            // Some handle it and say so.
            let exit = if self.draws.once_in(3) { Exit { code: 3, signal: None } } else { killed(HUP) };
            self.doom(terminal, exit);
        }
        Ok(())
    }

    fn release(&mut self, terminal: u32) -> Result<(), EffectErrorKind> {
        let told = self.porters.remove(&terminal).is_some_and(|porter| porter.told);
        if let Some(it) = self.terminals.remove(&terminal) {
            if it.runs() {
                count(&mut self.counts, "released_running");
                if let Some(life) = self.lives.get_mut(&terminal).and_then(|lives| lives.last_mut()) {
                    life.over = true;
                }
            } else if !told {
                count(&mut self.counts, "released_untold");
            }
        }
        Ok(())
    }
}

/// A deed's name.
const fn word(deed: &Deed) -> &'static str {
    match deed {
        Deed::Spawn { .. } => "deed_spawn",
        Deed::Adopt => "deed_adopt",
        Deed::Write(_) => "deed_write",
        Deed::Resize { .. } => "deed_resize",
        Deed::Signal { .. } => "deed_signal",
        Deed::HangUp => "deed_hang_up",
        Deed::Kill => "deed_kill",
        Deed::Snapshot { .. } => "deed_snapshot",
        Deed::ClearScrollback => "deed_clear",
        Deed::Release => "deed_release",
        _ => "deed_unknown",
    }
}
