//! What a daemon asks of the holder.

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;

use super::TERMINALS_MAX;
use super::ring::Ring;
use super::serve::{Connection, Serve};
use super::spawn::spawn;
use super::terminal::{Refused, Terminal};
use super::wire::{PROGRAM_MAX, Program, Refusal, Report, Request, VERSION};

impl Serve {
    pub(super) fn on_request(&mut self, request: Request, descriptors: Vec<OwnedFd>) {
        match request {
            Request::Spawn { seq, terminal, first } => {
                let result = self.spawn(seq, terminal, first, descriptors.into_iter().next());
                if let Err(refused) = result {
                    self.answer(seq, Err(refused));
                }
            }
            Request::Write { seq, terminal, data } => match self.find(terminal) {
                Ok(it) => match it.write(seq, data) {
                    Ok(()) => self.flush_input(terminal),
                    Err(refused) => self.answer(seq, Err(refused)),
                },
                Err(refused) => self.answer(seq, Err(refused)),
            },
            Request::Resize { seq, terminal, cols, rows } => {
                let result = self.find(terminal).and_then(|it| it.resize(cols, rows));
                self.answer(seq, result);
            }
            Request::Signal { seq, terminal, signal, scope } => {
                let result = self.find(terminal).and_then(|it| it.signal(signal, scope));
                self.answer(seq, result);
            }
            Request::HangUp { seq, terminal } => {
                let result = self.find(terminal).map(|it| it.session.hang_up());
                self.answer(seq, result);
            }
            Request::Kill { seq, terminal } => {
                let result = self.find(terminal).map(|it| it.session.kill());
                self.answer(seq, result);
            }
            Request::Floor { terminal, offset } => {
                if let Ok(it) = self.find(terminal) {
                    it.raise_floor(offset);
                }
            }
            Request::Snapshot { terminal, offset } => {
                if let (Ok(it), Some(descriptor)) = (self.find(terminal), descriptors.into_iter().next()) {
                    it.snapshot = Some((offset, descriptor));
                }
            }
            Request::Release { seq, terminal } => {
                let found = self.terminals.remove(&terminal);
                self.answer(seq, found.as_ref().map(|_| ()).ok_or_else(unknown));
                if let Some(mut it) = found.filter(Terminal::is_running) {
                    it.session.hang_up();
                    it.hang_up();
                    self.released.push(it);
                }
            }
            Request::End => self.end(),
            Request::Hello { .. } | Request::Unknown => {}
        }
    }

    fn spawn(&mut self, seq: u64, number: u32, first: u64, program: Option<OwnedFd>) -> Result<(), Refused> {
        let failed = |what: &str| (Refusal::Failed, what.to_owned());
        if self.ending.is_some() {
            return Err(failed("the holder of the terminals is ending"));
        }
        if self.terminals.contains_key(&number) {
            return Err(failed("there is such a terminal already"));
        }
        if self.terminals.len() >= TERMINALS_MAX {
            return Err(failed("there are too many terminals"));
        }
        let program: Program = program
            .and_then(|program| read_program(program).ok())
            .ok_or_else(|| failed("what to start can't be read"))?;
        let mut ring = Ring::new(self.options.ring, first)
            .map_err(|error| (Refusal::Failed, format!("no memory for output: {error}")))?;
        let descriptors =
            ring.subscribe().map_err(|error| (Refusal::Failed, format!("no descriptors left: {error}")))?;
        let spawned = spawn(&program)?;
        let terminal = Terminal::new(spawned, (program.cols, program.rows), ring)?;
        let report = Report::Spawned {
            seq,
            pid: terminal.session.leader.cast_unsigned(),
            start_time: terminal.session.start_time,
            pts: terminal.pts.clone(),
        };
        self.terminals.insert(number, terminal);
        self.say(&report, descriptors);
        Ok(())
    }

    fn find(&mut self, number: u32) -> Result<&mut Terminal, Refused> {
        self.terminals.get_mut(&number).ok_or_else(unknown)
    }

    /// Tells a new daemon what there is.
    pub(super) fn list(&mut self, to: &mut Connection) -> io::Result<()> {
        let ring = self.options.ring;
        to.say(&Report::Hello { version: VERSION, pid: std::process::id(), ring }, Vec::new())?;
        for (&number, terminal) in &mut self.terminals {
            let mut descriptors = terminal.ring.subscribe()?;
            let mut offset = None;
            if let Some((of, snapshot)) = &terminal.snapshot {
                offset = Some(*of);
                descriptors.push(snapshot.try_clone()?);
            }
            terminal.told = false;
            let held = Report::Held {
                terminal: number,
                pid: terminal.session.leader.cast_unsigned(),
                start_time: terminal.session.start_time,
                pts: terminal.pts.clone(),
                cols: terminal.size.0,
                rows: terminal.size.1,
                begin: terminal.ring.begin(),
                first: terminal.ring.first(),
                end: terminal.ring.end(),
                snapshot: offset,
            };
            to.say(&held, descriptors)?;
        }
        to.say(&Report::Listed, Vec::new())
    }
}

fn read_program(memory: OwnedFd) -> io::Result<Program> {
    let file = File::from(memory);
    let length = file.metadata()?.len();
    if length > PROGRAM_MAX {
        return Err(io::ErrorKind::InvalidData.into());
    }
    let mut bytes = vec![0; length as usize];
    file.read_exact_at(&mut bytes, 0)?;
    rmp_serde::from_slice(&bytes).map_err(io::Error::other)
}

fn unknown() -> Refused {
    (Refusal::Gone, "there is no such terminal".to_owned())
}
