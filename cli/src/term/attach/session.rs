//! What attach knows: what is typed and shown, who owns the terminal, and how it ends.

use std::collections::BTreeSet;
use std::io::Stdin;
use std::time::{Duration, Instant};

use castra_core::terminals::wire::{ErrorCode, Request, Secret};
use castra_core::terminals::{Exit, Snapshot};
use rustix::io::Errno;
use signal_hook::consts::SIGHUP;

use super::keys::Keys;
use super::screen::{self, Screen};
use super::status::Status;
use crate::output::printable;
use crate::term::client::{Grant, own_id};
use crate::term::error::WireError;
use crate::term::follow::{Follow, PATIENCE, Step};
use crate::term::name::TermName;
use crate::term::size::Size;
use crate::term_args::How;

/// Most output that waits for the person's terminal.
const OUTPUT_MAX: usize = 256 * 1024;

/// Most that was typed and waits for the connection.
const TYPED_MAX: usize = 1024 * 1024;

/// Bytes of one `input`.
const INPUT: usize = 32 * 1024;

/// How long taking leave may take.
const LEAVE: Duration = Duration::from_millis(500);

/// A lost connection that is back by then is not worth a word.
const QUIET: Duration = Duration::from_secs(1);

/// Why attach ends.
#[derive(Debug)]
pub(super) enum End {
    Detached,
    Exited(Exit),
    Signal(i32),
    Failed(WireError),
    /// The person's terminal can't be used.
    Terminal(Errno),
}

/// A person on a terminal.
pub(super) struct Session {
    pub(super) follow: Follow,
    id: u32,
    name: TermName,
    how: How,
    keys: Keys,
    /// For the program, not sent yet.
    typed: Vec<u8>,
    /// For the person, not written yet.
    output: Vec<u8>,
    written: usize,
    owner: Option<String>,
    mine: bool,
    /// The terminal's size, as this told its server.
    told: Option<Size>,
    /// The request that takes the terminal over, and those that type.
    taking: Option<u32>,
    inputs: BTreeSet<u32>,
    /// The person knows that the connection is lost.
    lost_told: bool,
    status: Option<Status>,
    /// To be said when the screen is the shell's again.
    notes: Vec<String>,
    dropped: bool,
    /// There is no way on.
    failed: Option<WireError>,
}

impl Session {
    pub(super) fn new(follow: Follow, id: u32, name: &TermName, how: How, grant: &Grant) -> Self {
        let status = how.status_line.then(|| Status::new(&printable(&name.to_string())));
        let mut session = Self {
            follow,
            id,
            name: name.clone(),
            how,
            keys: Keys::default(),
            typed: vec![],
            output: vec![],
            written: 0,
            owner: grant.owner.clone(),
            mine: grant.owner_is_you,
            told: None,
            taking: None,
            inputs: BTreeSet::new(),
            lost_told: false,
            status,
            notes: vec![],
            dropped: false,
            failed: None,
        };
        session.measure();
        if how.takeover && !session.mine {
            session.take_over();
        }
        match session.follow.next() {
            // At another size than it is about to have: the next picture is the right one.
            Some(Step::Draw(snapshot, _))
                if session.mine
                    && session.own_size() != Some(size(&snapshot))
                    && session.follow.extended()
                    && !snapshot.content.is_empty() => {}
            Some(step) => {
                if let Step::Draw(snapshot, _) = &step {
                    session.told = Some(size(snapshot));
                }
                session.take(step);
            }
            None => {}
        }
        if session.mine {
            session.claim(how.history);
        }
        session
    }

    /// Does what the server said; the end, if that is what it said.
    pub(super) fn advance(&mut self, now: Instant) -> Option<End> {
        while let Some(step) = self.follow.next() {
            if let Step::Exit(exit) = step {
                return Some(End::Exited(exit));
            }
            self.take(step);
        }
        if let Some(since) = self.follow.lost_since()
            && now >= since + QUIET
            && !self.lost_told
        {
            self.lost_told = true;
            self.tell_lost();
        }
        self.send();
        if let Some(error) = self.failed.take() {
            return Some(End::Failed(error));
        }
        if let Some(status) = &mut self.status {
            status.tell(self.mine, self.owner.as_deref(), self.lost_told);
            status.draw(&mut self.output);
        }
        None
    }

    /// When [`Session::advance`] has something to do by itself.
    pub(super) fn wake(&self) -> Option<Instant> {
        let lost = self.follow.lost_since().filter(|_| !self.lost_told).map(|since| since + QUIET);
        lost.into_iter().chain(self.follow.wake()).min()
    }

    fn take(&mut self, step: Step) {
        match step {
            Step::Output(bytes) => match &mut self.status {
                Some(status) => status.pass(&bytes, &mut self.output),
                None => self.output.extend_from_slice(&bytes),
            },
            Step::Draw(snapshot, _) => self.draw(&snapshot),
            Step::Owner(owner) => {
                let mine = owner.as_deref() == Some(&*own_id());
                if self.mine && !mine {
                    let who = owner.as_deref().map_or_else(|| "somebody".into(), printable);
                    self.notes.push(format!("{who} took {} over: from then on you only watched", self.name));
                }
                self.become_owner(mine, owner);
            }
            Step::Back { owner, owner_is_you } => self.back(owner, owner_is_you),
            // The owner's own screen follows its program; a watcher's picture is made anew.
            Step::Resized if !self.mine => self.follow.draw(Some(0)),
            Step::Reply(seq, answer) => self.answered(seq, answer),
            Step::Lag(level, bytes) => {
                if let Some(status) = &mut self.status {
                    status.lag(level, bytes);
                }
            }
            Step::Resized | Step::Lost | Step::Exit(_) => {}
        }
    }

    fn back(&mut self, owner: Option<String>, owner_is_you: bool) {
        self.inputs.clear();
        // The server may not have noticed yet that the former connection is lost.
        let own = !owner_is_you && owner.as_deref() == Some(&*own_id());
        if self.mine && owner_is_you {
            // Another owner may have come and gone; the screen is as it was all the same.
            self.told.or_else(|| self.own_size()).into_iter().for_each(|size| self.tell_size(size));
        }
        self.become_owner(owner_is_you, owner);
        if own {
            self.take_over();
        }
        if std::mem::take(&mut self.lost_told) {
            // What was written over the program's screen goes away.
            self.follow.draw(Some(0));
        }
    }

    fn answered(&mut self, seq: u32, answer: Result<Grant, WireError>) {
        let input = self.inputs.remove(&seq);
        let taking = self.taking.take_if(|taking| *taking == seq).is_some();
        match answer {
            Ok(_) if taking => self.become_owner(true, Some(own_id())),
            Ok(_) => {}
            Err(error) if taking => {
                self.notes.push(format!("{} could not be taken over: {error}", self.name));
            }
            Err(error) if input && error.code() == Some(ErrorCode::LimitReached) => {
                if !std::mem::replace(&mut self.dropped, true) {
                    self.notes.push("what was typed was lost in part: the program did not read".into());
                }
            }
            // Who owns it is told by itself; an end too.
            Err(_) => {}
        }
    }

    fn become_owner(&mut self, mine: bool, owner: Option<String>) {
        let before = std::mem::replace(&mut self.mine, mine);
        self.owner = owner;
        if mine && (!before || self.told.is_none()) {
            self.claim(Some(0));
        }
    }

    fn take_over(&mut self) {
        self.taking = self.follow.post(&Request::Takeover { session: self.id });
    }

    /// Gives the terminal the person's size, and makes the picture anew for it.
    fn claim(&mut self, history: Option<u32>) {
        let Some(size) = self.own_size() else { return };
        if self.told != Some(size) {
            self.tell_size(size);
            self.follow.draw(history);
        }
    }

    fn tell_size(&mut self, size: Size) {
        let Size { cols, rows } = size;
        if self.follow.post(&Request::Resize { session: self.id, cols, rows }).is_some() {
            self.told = Some(size);
        }
    }

    /// The size that the program has on this person's terminal.
    fn own_size(&self) -> Option<Size> {
        let size = Size::of(std::io::stdout())?;
        let line = u16::from(self.status.is_some());
        Some(Size { rows: size.rows.saturating_sub(line).max(1), ..size })
    }

    fn measure(&mut self) {
        if let (Some(status), Some(size)) = (&mut self.status, Size::of(std::io::stdout())) {
            status.resized(size, &mut self.output);
        }
    }

    /// The person's terminal has another size.
    pub(super) fn resized(&mut self) {
        self.measure();
        if let Some(size) = self.own_size().filter(|size| self.mine && self.told != Some(*size)) {
            self.tell_size(size);
        }
    }

    fn draw(&mut self, snapshot: &Snapshot) {
        self.output.extend_from_slice(screen::renew().as_bytes());
        // What it would do, and more: it would forget the history of the person's terminal.
        let content = snapshot.content.strip_prefix("\x1bc").unwrap_or(&snapshot.content);
        match &mut self.status {
            Some(status) => {
                status.renewed(&mut self.output);
                status.pass(content.as_bytes(), &mut self.output);
            }
            None => self.output.extend_from_slice(content.as_bytes()),
        }
    }

    /// On the last row, over whatever stands there: the picture is made anew later.
    fn tell_lost(&mut self) {
        let text = format!(
            "castra: the connection is lost; trying for {} s; Ctrl-\\ d detaches",
            PATIENCE.as_secs()
        );
        if self.status.is_none() {
            let line = format!("\x18\x1b7\x1b[999;1H\x1b[0;7m{text}\x1b[0m\x1b[K\x1b8");
            self.output.extend_from_slice(line.as_bytes());
        }
    }

    /// Reads what was typed.
    pub(super) fn read(&mut self, stdin: &Stdin) -> Result<Option<End>, Errno> {
        let mut chunk = [0; 4096];
        let count = match rustix::io::read(stdin, &mut chunk) {
            Ok(0) | Err(Errno::IO) => return Ok(Some(End::Signal(SIGHUP))),
            Ok(count) => count,
            Err(Errno::AGAIN | Errno::INTR) => return Ok(None),
            Err(error) => return Err(error),
        };
        let mut typed = vec![];
        if self.keys.feed(&chunk[..count], &mut typed) {
            return Ok(Some(End::Detached));
        }
        // A terminal that nobody owns is owned by who types first.
        let may = self.mine || self.taking.is_some() || (!self.how.observe && self.owner.is_none());
        if may {
            if self.typed.len() + typed.len() <= TYPED_MAX {
                self.typed.extend_from_slice(&typed);
            } else if !std::mem::replace(&mut self.dropped, true) {
                self.notes.push("what was typed was lost in part: nobody took it".into());
            }
        }
        self.send();
        Ok(None)
    }

    /// Sends what was typed. What a lost connection did not take is sent on the next.
    fn send(&mut self) {
        while !self.typed.is_empty() && self.taking.is_none() && self.follow.waiting() == 0 {
            let chunk = self.typed.len().min(INPUT);
            let request = Request::Input { session: self.id, data: Secret(&self.typed[..chunk]) };
            let Some(seq) = self.follow.post(&request) else { return };
            if let Err(error) = self.follow.turn(false) {
                self.failed = Some(error);
                return;
            }
            if self.follow.lost_since().is_some() {
                return;
            }
            self.inputs.insert(seq);
            self.typed.drain(..chunk);
        }
    }

    /// Writes what the person's terminal takes now.
    pub(super) fn write(&mut self, screen: &Screen) -> Result<(), Errno> {
        while self.written < self.output.len() {
            match rustix::io::write(&screen.output, &self.output[self.written..]) {
                Ok(count) => self.written += count,
                Err(Errno::AGAIN) => break,
                Err(Errno::INTR) => {}
                Err(error) => return Err(error),
            }
        }
        if self.written == self.output.len() {
            self.output.clear();
            self.written = 0;
        }
        Ok(())
    }

    /// Writes the rest, if the terminal takes it soon.
    pub(super) fn flush_within(&mut self, screen: &Screen) {
        screen.write_last(&self.output[self.written..]);
        self.output.clear();
        self.written = 0;
    }

    pub(super) fn has_output(&self) -> bool {
        self.written < self.output.len()
    }

    /// Whether more output may come: what isn't read makes the server slow down, or
    /// skip.
    pub(super) fn wants_output(&self) -> bool {
        self.output.len() - self.written < OUTPUT_MAX
    }

    /// Gives the terminal back at once, so that nobody waits until this connection is
    /// known to be gone.
    pub(super) fn leave(&mut self) {
        let end = Instant::now() + LEAVE;
        let Some(seq) = self.follow.post(&Request::Detach { session: self.id }) else { return };
        while let Ok(Some(step)) = self.follow.wait(Some(end), None) {
            if matches!(step, Step::Reply(of, _) if of == seq)
                || matches!(step, Step::Exit(_) | Step::Lost)
                || Instant::now() >= end
            {
                return;
            }
        }
    }

    /// What is to be said at the end.
    pub(super) fn notes(&mut self) -> Vec<String> {
        if !self.mine
            && !self.how.observe
            && let Some(owner) = &self.owner
        {
            self.notes.push(super::watching(&self.name, owner));
        }
        std::mem::take(&mut self.notes)
    }
}

const fn size(snapshot: &Snapshot) -> Size {
    Size { cols: snapshot.cols, rows: snapshot.rows }
}
