//! A terminal's output that outlives its connection: made again, it goes on where it
//! stopped.

use std::collections::VecDeque;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use castra_core::terminals::wire::{Attach, Request, Role};
use castra_core::terminals::{Exit, Snapshot};
use rustix::event::{PollFd, PollFlags};
use rustix::io::Errno;

use super::client::{Client, Grant, Heard, News, Within};
use super::door::Door;
use super::error::WireError;
use crate::client::timespec;

/// How long a lost connection is made again.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// How long one try may take.
const TRY: Duration = Duration::from_secs(5);

/// Pauses between tries.
const PAUSES: [Duration; 2] = [Duration::from_millis(20), Duration::from_secs(1)];

/// Something is there to be read, if only the end.
pub(crate) const READABLE: PollFlags = PollFlags::IN.union(PollFlags::HUP).union(PollFlags::ERR);

/// How long output waits for a picture before it.
const PICTURE: Duration = Duration::from_secs(2);

/// Most output that waits for a picture before it.
const HELD_MAX: usize = 4 * 1024 * 1024;

/// What there is to do for whoever follows.
#[derive(Debug)]
pub(crate) enum Step {
    /// Output, without a gap or an overlap.
    Output(Vec<u8>),
    /// This is what the terminal shows; output goes on behind it. So many bytes
    /// before it are nowhere to be seen.
    Draw(Box<Snapshot>, u64),
    /// The program ended; nothing follows.
    Exit(Exit),
    /// Who owns it now.
    Owner(Option<String>),
    /// It has another size.
    Resized,
    /// How far this reader, or one of a terminal that it owns, is behind.
    Lag(&'static str, u64),
    /// What a request of [`Follow::post`] came to.
    Reply(u32, Result<Grant, WireError>),
    /// The connection is lost, and being made again.
    Lost,
    /// It is there again.
    Back {
        /// Who owns the terminal.
        owner: Option<String>,
        /// Whether that is this connection.
        owner_is_you: bool,
    },
}

/// How to attach.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Wanted {
    pub(crate) session: u32,
    pub(crate) role: Role,
    pub(crate) observe: bool,
    pub(crate) history: Option<u32>,
}

/// A terminal that is followed.
pub(crate) struct Follow {
    door: Door,
    wanted: Wanted,
    link: Link,
    steps: VecDeque<Step>,
    /// The offset of the next byte.
    pub(crate) next: u64,
    drawing: Option<Drawing>,
    over: bool,
}

/// A picture that was asked for.
struct Drawing {
    /// The request's number.
    seq: u32,
    /// Output that came meanwhile, each piece with its offset.
    held: Vec<(u64, Vec<u8>)>,
    /// How many bytes that is.
    size: usize,
    /// Until then.
    end: Instant,
}

enum Link {
    Live(Client),
    Away { since: Instant, result: Receiver<Result<(Client, Grant), WireError>>, wake: UnixStream },
}

impl Follow {
    /// Attaches on a connection, from `resume_from` if that is still there. What was
    /// told before on that connection is dropped.
    pub(crate) fn attach(
        door: Door,
        mut client: Client,
        wanted: Wanted,
        resume_from: Option<u64>,
        within: Within,
    ) -> Result<(Self, Grant), WireError> {
        while client.next().is_some() {}
        let mut grant = client.call(&attach(&wanted, resume_from), within)?;
        let mut follow = Self {
            door,
            wanted,
            link: Link::Live(client),
            steps: VecDeque::new(),
            next: 0,
            drawing: None,
            over: false,
        };
        follow.begin(&mut grant);
        // What came together with the answer.
        follow.pump();
        Ok((follow, grant))
    }

    /// Takes where the output goes on from the answer to `attach`.
    fn begin(&mut self, grant: &mut Grant) {
        let snapshot = grant.snapshot.take();
        let offset = grant.offset.or(snapshot.as_ref().map(|snapshot| snapshot.offset));
        let before = self.next;
        self.next = offset.unwrap_or(before);
        if let Some(snapshot) = snapshot.filter(|_| !grant.resumed) {
            let missing = self.next.saturating_sub(before);
            self.steps.push_back(Step::Draw(snapshot, missing));
        }
    }

    /// What to wait for. With `more` false, nothing is read.
    pub(crate) fn interest(&self, more: bool) -> (BorrowedFd<'_>, PollFlags) {
        match &self.link {
            Link::Live(client) => {
                let mut what = PollFlags::empty();
                what.set(PollFlags::IN, more && !self.over);
                what.set(PollFlags::OUT, client.waiting() > 0);
                (client.as_fd(), what)
            }
            Link::Away { wake, .. } => (wake.as_fd(), PollFlags::IN),
        }
    }

    /// Since when there has been no connection.
    pub(crate) fn lost_since(&self) -> Option<Instant> {
        match &self.link {
            Link::Live(_) => None,
            Link::Away { since, .. } => Some(*since),
        }
    }

    /// Whether the server knows more than the published one.
    pub(crate) fn extended(&self) -> bool {
        matches!(&self.link, Link::Live(client) if client.extended)
    }

    /// Bytes that could not be sent yet.
    pub(crate) fn waiting(&self) -> usize {
        if let Link::Live(client) = &self.link { client.waiting() } else { 0 }
    }

    /// Asks; `None` while there is no connection.
    pub(crate) fn post(&mut self, request: &Request<'_>) -> Option<u32> {
        let Link::Live(client) = &mut self.link else { return None };
        Some(client.post(request))
    }

    /// Asks for a picture with so much history; output waits for it, but not for ever.
    pub(crate) fn draw(&mut self, history_lines: Option<u32>) {
        if !self.extended() {
            return;
        }
        let session = self.wanted.session;
        if let Some(seq) = self.post(&Request::Snapshot { session, history_lines }) {
            // One that was asked for before is no longer waited for.
            let before = self.drawing.take();
            let (held, size) = before.map_or_else(Default::default, |before| (before.held, before.size));
            self.drawing = Some(Drawing { seq, held, size, end: Instant::now() + PICTURE });
        }
    }

    /// When to turn even if nothing is there.
    pub(crate) fn wake(&self) -> Option<Instant> {
        self.drawing.as_ref().map(|drawing| drawing.end)
    }

    /// Where the output that was taken ends.
    pub(crate) fn taken(&self) -> u64 {
        let ahead =
            self.steps.iter().map(|step| if let Step::Output(bytes) = step { bytes.len() } else { 0 });
        self.next - ahead.sum::<usize>() as u64
    }

    /// The next thing to do.
    pub(crate) fn next(&mut self) -> Option<Step> {
        self.steps.pop_front()
    }

    /// Does what can be done now, after [`Follow::interest`] came true or something
    /// was posted.
    ///
    /// # Errors
    /// There is no way on: the connection was not to be made again in time, or the
    /// terminal is gone.
    pub(crate) fn turn(&mut self, readable: bool) -> Result<(), WireError> {
        if self.drawing.as_ref().is_some_and(|drawing| Instant::now() >= drawing.end) {
            self.release();
        }
        match &mut self.link {
            Link::Live(client) => {
                let done = client.flush().and_then(|()| if readable { client.fill() } else { Ok(()) });
                self.pump();
                match done {
                    Err(_) if self.over => Ok(()),
                    Err(error) if error.passes() => self.lose(),
                    other => other,
                }
            }
            Link::Away { result, .. } => {
                let Ok(result) = result.try_recv() else { return Ok(()) };
                let (client, mut grant) = result?;
                self.link = Link::Live(client);
                let (owner, owner_is_you) = (grant.owner.take(), grant.owner_is_you);
                self.steps.push_back(Step::Back { owner, owner_is_you });
                self.begin(&mut grant);
                self.pump();
                Ok(())
            }
        }
    }

    fn pump(&mut self) {
        while let Link::Live(client) = &mut self.link
            && let Some(heard) = client.next()
        {
            self.hear(heard);
        }
    }

    /// The next thing to do, as long as it takes; `None` at `end`, or when nobody
    /// reads `stdout` any more.
    pub(crate) fn wait(
        &mut self,
        end: Option<Instant>,
        stdout: Option<BorrowedFd<'_>>,
    ) -> Result<Option<Step>, WireError> {
        loop {
            if let Some(step) = self.next() {
                return Ok(Some(step));
            }
            let left = end.map(|end| end.saturating_duration_since(Instant::now()));
            let (link, what) = self.interest(true);
            let mut fds = [
                PollFd::from_borrowed_fd(link, what),
                PollFd::from_borrowed_fd(stdout.unwrap_or(link), PollFlags::empty()),
            ];
            let watched = if stdout.is_some() { 2 } else { 1 };
            match rustix::event::poll(&mut fds[..watched], left.map(timespec).as_ref()) {
                Ok(0) => return Ok(None),
                Ok(_) if watched == 2 && fds[1].revents().intersects(PollFlags::ERR | PollFlags::NVAL) => {
                    return Ok(None);
                }
                Ok(_) => {
                    let readable = fds[0].revents().intersects(READABLE);
                    self.turn(readable)?;
                }
                Err(Errno::INTR) => {}
                Err(error) => return Err(WireError::Io { place: self.door.shown(), error: error.into() }),
            }
        }
    }

    fn hear(&mut self, heard: Heard) {
        let mine = self.wanted.session;
        match heard {
            Heard::Reply { seq, answer } => self.reply(seq, answer),
            Heard::News(News::Output { session, offset, bytes }) if session == mine => {
                self.output(offset.unwrap_or(self.next), bytes);
            }
            Heard::News(News::Exit { session, exit }) if session == mine => {
                self.release();
                self.over = true;
                self.steps.push_back(Step::Exit(exit));
            }
            Heard::News(News::Resync { session, snapshot, offset, skipped }) if session == mine => {
                // Newer than any picture that was asked for.
                self.release();
                self.next = offset;
                self.steps.push_back(Step::Draw(snapshot, skipped));
            }
            Heard::News(News::Owner { session, owner }) if session == mine => {
                self.steps.push_back(Step::Owner(owner));
            }
            Heard::News(News::Resized { session }) if session == mine => self.steps.push_back(Step::Resized),
            Heard::News(News::Lag { session, level, bytes }) if session == mine => {
                self.steps.push_back(Step::Lag(level, bytes));
            }
            Heard::News(_) => {}
        }
    }

    fn reply(&mut self, seq: u32, answer: Result<Grant, WireError>) {
        if self.drawing.as_ref().is_none_or(|drawing| drawing.seq != seq) {
            self.steps.push_back(Step::Reply(seq, answer));
            return;
        }
        // An empty one is of a server that keeps none.
        let snapshot = answer.ok().and_then(|grant| grant.snapshot);
        let snapshot = snapshot.filter(|snapshot| !snapshot.content.is_empty());
        let Some(snapshot) = snapshot else { return self.release() };
        // Where output goes on; what is in the picture already isn't shown twice.
        let held = self.drawing.take().map_or_else(Vec::new, |drawing| drawing.held);
        self.next = snapshot.offset.max(self.next);
        self.steps.push_back(Step::Draw(snapshot, 0));
        for (offset, bytes) in held {
            self.output(offset, bytes);
        }
    }

    /// Output that waited comes without the picture.
    fn release(&mut self) {
        for (offset, bytes) in self.drawing.take().map_or_else(Vec::new, |drawing| drawing.held) {
            self.output(offset, bytes);
        }
    }

    fn output(&mut self, offset: u64, mut bytes: Vec<u8>) {
        if let Some(drawing) = &mut self.drawing {
            drawing.size += bytes.len();
            drawing.held.push((offset, bytes));
            if drawing.size > HELD_MAX {
                self.release();
            }
            return;
        }
        let doubled = usize::try_from(self.next.saturating_sub(offset)).unwrap_or(usize::MAX);
        if doubled > 0 {
            bytes.drain(..doubled.min(bytes.len()));
        }
        let offset = offset.max(self.next);
        if !bytes.is_empty() {
            self.next = offset + bytes.len() as u64;
            self.steps.push_back(Step::Output(bytes));
        }
    }

    fn lose(&mut self) -> Result<(), WireError> {
        self.release();
        let (sender, result) = channel();
        let io = |error| WireError::Io { place: self.door.shown(), error };
        let (wake, waker) = UnixStream::pair().map_err(io)?;
        let (door, wanted, next) = (self.door.clone(), self.wanted, self.next);
        let since = Instant::now();
        std::thread::spawn(move || {
            let _ = sender.send(again(&door, &wanted, next, since + PATIENCE));
            // Whoever waits sees it closed.
            drop(waker);
        });
        self.link = Link::Away { since, result, wake };
        self.steps.push_back(Step::Lost);
        Ok(())
    }
}

/// Makes a connection again and attaches, until `end`.
fn again(door: &Door, wanted: &Wanted, next: u64, end: Instant) -> Result<(Client, Grant), WireError> {
    let mut pause = PAUSES[0];
    loop {
        let left = end.saturating_duration_since(Instant::now());
        let within = Within::new(TRY.min(left.max(PAUSES[1])));
        let made = Client::open(door, wanted.role, within).and_then(|mut client| {
            let grant = client.call(&attach(wanted, Some(next)), within)?;
            Ok((client, grant))
        });
        match made {
            Err(error) if error.passes() && !left.is_zero() => std::thread::sleep(pause.min(left)),
            made => return made,
        }
        pause = (pause * 2).min(PAUSES[1]);
    }
}

fn attach(wanted: &Wanted, resume_from: Option<u64>) -> Request<'static> {
    let Wanted { session, observe, history, .. } = *wanted;
    Request::Attach(Attach { session, resume_from, history_lines: history, observe })
}
