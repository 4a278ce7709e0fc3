//! Many guests that stay connected and answer every challenge.

use std::io::{self, ErrorKind, Read, Write};
use std::net::SocketAddr;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use castra_core::link::inbox::{Inbox, append_frame};
use castra_core::link::message::{BrokerFrame, append_proof};
use mio::net::TcpStream;
use mio::{Events, Interest, Poll, Token};

use crate::load::{PATIENCE, Round};
use crate::script::{Dialogue, Progress, Script};

const BEAT: Duration = Duration::from_millis(100);
const BUFFER: usize = 4096;
/// Handshakes under way at once.
const CONCURRENCY: usize = 64;

/// Connections through their handshakes.
#[derive(Debug)]
pub struct Held {
    poll: Poll,
    guests: Vec<Option<Guest>>,
    silent: Range<usize>,
    out: Vec<u8>,
    round: Round,
}

#[derive(Debug)]
struct Guest {
    stream: TcpStream,
    dialogue: Option<Dialogue>,
    inbox: Inbox,
}

enum Step {
    Waits,
    Through,
}

impl Held {
    /// Connects every guest of the script, once, and waits until all are through.
    ///
    /// # Errors
    /// One of them isn't, or `stop` is set.
    pub fn connect(target: SocketAddr, script: &Script, stop: &AtomicBool) -> io::Result<Self> {
        let count = script.guests();
        let guests = (0..count).map(|_| None).collect();
        let mut held =
            Self { poll: Poll::new()?, guests, silent: 0..0, out: Vec::new(), round: Round::new() };
        let mut events = Events::with_capacity(1024);
        let (mut begun, mut through) = (0, 0);
        let mut end = Instant::now() + PATIENCE;
        while through < count {
            while begun < count.min(through + CONCURRENCY) {
                let mut stream = TcpStream::connect(target)?;
                held.poll.registry().register(&mut stream, Token(begun), Interest::READABLE)?;
                let dialogue = Some(script.begin(begun));
                held.guests[begun] = Some(Guest { stream, dialogue, inbox: Inbox::default() });
                begun += 1;
            }
            held.wait(&mut events, BEAT)?;
            for event in &events {
                let guest = held.guests[event.token().0].as_mut();
                let Some(guest) = guest else { continue };
                match guest.advance(script, &mut held.out, &mut held.round) {
                    Ok(Step::Waits) => {}
                    Ok(Step::Through) => {
                        through += 1;
                        end = Instant::now() + PATIENCE;
                    }
                    Err(what) => return Err(io::Error::other(what)),
                }
            }
            if stop.load(Ordering::Relaxed) {
                return Err(ErrorKind::Interrupted.into());
            }
            if Instant::now() > end {
                return Err(io::Error::other(format!("{through} of {count} guests are connected")));
            }
        }
        Ok(held)
    }

    /// Answers for so long, or until `stop` is set. Operations are answers; they
    /// have no latency of their own.
    ///
    /// # Errors
    /// The poller is broken. Connections that end are counted.
    pub fn answer(&mut self, script: &Script, time: Duration, stop: &AtomicBool) -> io::Result<Round> {
        self.round = Round::new();
        let began = Instant::now();
        let mut events = Events::with_capacity(1024);
        loop {
            let left = time.saturating_sub(began.elapsed());
            if left.is_zero() || stop.load(Ordering::Relaxed) {
                break;
            }
            self.wait(&mut events, left.min(BEAT))?;
            for event in &events {
                let index = event.token().0;
                if self.silent.contains(&index) {
                    continue;
                }
                let Some(guest) = self.guests[index].as_mut() else { continue };
                if let Err(what) = guest.advance(script, &mut self.out, &mut self.round) {
                    self.round.error(what);
                    self.guests[index] = None;
                }
            }
        }
        self.round.elapsed = began.elapsed();
        Ok(std::mem::take(&mut self.round))
    }

    /// These read and answer nothing any more. Their connections stay.
    pub fn silence(&mut self, guests: Range<usize>) {
        self.silent = guests;
    }

    fn wait(&mut self, events: &mut Events, timeout: Duration) -> io::Result<()> {
        match self.poll.poll(events, Some(timeout)) {
            Err(error) if error.kind() == ErrorKind::Interrupted => Ok(()),
            polled => polled,
        }
    }
}

impl Guest {
    fn advance(&mut self, script: &Script, out: &mut Vec<u8>, round: &mut Round) -> Result<Step, String> {
        out.clear();
        let mut buffer = [0; BUFFER];
        let count = match self.stream.read(&mut buffer) {
            Ok(0) => return Err("closed by the server".into()),
            Ok(count) => count,
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(Step::Waits),
            Err(error) => return Err(format!("read: {}", error.kind())),
        };
        let mut frames = &buffer[..count];
        let mut step = Step::Waits;
        if let Some(dialogue) = &mut self.dialogue {
            match dialogue.read(script, frames, out) {
                Progress::Waits => frames = &[],
                Progress::Done { rest } => {
                    frames = &frames[rest];
                    step = Step::Through;
                    self.dialogue = None;
                }
                Progress::Refused(what) => return Err(what),
            }
        }
        while let Some(json) = self.inbox.frame(&mut frames).map_err(|error| error.to_string())? {
            match BrokerFrame::parse(json) {
                Ok(BrokerFrame::Challenge { seq, nonce }) => {
                    append_frame(out, false, 0, |out| append_proof(out, seq, &nonce), |_, _| {});
                    round.done += 1;
                }
                Ok(BrokerFrame::Bye(bye)) => return Err(format!("bye: {}", bye.code)),
                Ok(_) => {}
                Err(error) => return Err(error.to_string()),
            }
        }
        if !out.is_empty() {
            self.stream.write(out).map_err(|error| format!("write: {}", error.kind()))?;
        }
        Ok(step)
    }
}
