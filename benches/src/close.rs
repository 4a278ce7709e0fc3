//! How soon a server shows that a link was closed, while others come and go.

use std::io::{self, BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::ScopedJoinHandle;
use std::time::{Duration, Instant};

use castra_core::id::GuestName;
use serde_json::json;

use crate::held::Held;
use crate::load::{Client, PATIENCE, Pressure, Round};
use crate::script::{Progress, Script, guest_names};
use crate::server::{Control, Server};
use crate::yardstick::{CLOSED, WATCH, WATCHED};

/// What stands around the measurement.
#[derive(Clone, Copy, Debug)]
pub struct Crowd {
    /// Guests that stay connected.
    pub guests: usize,
    /// Others that come and go: so many at once.
    pub concurrency: usize,
    /// So many in a second.
    pub rate: f64,
    /// For so long.
    pub duration: Duration,
    /// Links closed in that time.
    pub closes: usize,
}

/// Who is told of a close.
#[derive(Debug)]
pub enum Watcher {
    /// A control client that follows `verdict.changed`.
    Broker(Control),
    /// A connection to the yardstick.
    Yardstick(BufReader<TcpStream>),
}

impl Watcher {
    /// Of a broker, for these guests.
    ///
    /// # Errors
    /// It doesn't answer.
    pub fn broker(server: &Server, guests: &[GuestName]) -> io::Result<Self> {
        let mut control = server.control()?;
        control.ask("events", &json!({"follow": true, "kinds": ["verdict.changed"], "guests": guests}))?;
        Ok(Self::Broker(control))
    }

    /// Of a yardstick.
    ///
    /// # Errors
    /// It doesn't answer.
    pub fn yardstick(server: &Server) -> io::Result<Self> {
        let stream = TcpStream::connect(server.address())?;
        stream.set_read_timeout(Some(PATIENCE))?;
        let mut stream = BufReader::new(stream);
        stream.get_mut().write_all(&[WATCH, b"\n"].concat())?;
        // The greeting, and the answer to what it takes for a hello.
        for _ in 0..2 {
            stream.read_line(&mut String::new())?;
        }
        Ok(Self::Yardstick(stream))
    }

    fn wait(&mut self, guest: &GuestName) -> io::Result<()> {
        match self {
            Self::Broker(control) => loop {
                let line = control.line()?;
                if line["data"]["guest"] == guest.as_str() {
                    return Ok(());
                }
            },
            Self::Yardstick(stream) => {
                let mut line = String::new();
                stream.read_line(&mut line)?;
                if line.trim_end().as_bytes() == CLOSED {
                    return Ok(());
                }
                Err(io::Error::other(format!("the watcher reads {line:?}")))
            }
        }
    }
}

/// One round; an operation is a close, its latency the time until it is shown.
///
/// # Errors
/// The client is out of something, or the server doesn't tell.
pub fn round(server: &Server, is_broker: bool, crowd: &Crowd, stop: &AtomicBool) -> io::Result<Round> {
    let target = server.address();
    let stay = Script::link(guest_names("stays-", crowd.guests));
    let mut held = Held::connect(target, &stay, stop)?;
    let names = guest_names("leaves-", crowd.closes);
    let leaving = names.iter().map(|name| join(target, name)).collect::<io::Result<Vec<_>>>()?;
    let mut watcher = if is_broker { Watcher::broker(server, &names)? } else { Watcher::yardstick(server)? };
    server.turns("connects")?;
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let answers = scope.spawn(|| held.answer(&stay, 10 * crowd.duration + PATIENCE, &over));
        let churn = scope.spawn(|| churn(target, crowd.rate, crowd.concurrency, 10 * crowd.duration, &over));
        let measured = measure(leaving, &names, &mut watcher, crowd, stop);
        over.store(true, Ordering::Relaxed);
        let mut round = measured?;
        round.errors_of("stays", &joined(answers)?);
        round.went_on_beside(&joined(churn)?);
        server.turns("closes")?;
        Ok(round)
    })
}

/// Others come and go until it is over.
pub(crate) fn churn(
    target: SocketAddr,
    rate: f64,
    concurrency: usize,
    most: Duration,
    over: &AtomicBool,
) -> io::Result<Round> {
    let mut client = Client::new(target, Script::link(guest_names("comes-", 10_000)));
    client.round(Pressure { rate: Some(rate), ..Pressure::time(most, concurrency) }, over)
}

pub(crate) fn joined(thread: ScopedJoinHandle<'_, io::Result<Round>>) -> io::Result<Round> {
    thread.join().map_err(|_| io::Error::other("a client panicked"))?
}

fn measure(
    leaving: Vec<TcpStream>,
    names: &[GuestName],
    watcher: &mut Watcher,
    crowd: &Crowd,
    stop: &AtomicBool,
) -> io::Result<Round> {
    let mut round = Round::new();
    let began = Instant::now();
    for (number, (stream, name)) in leaving.into_iter().zip(names).enumerate() {
        let due = crowd.duration.mul_f64((number + 1) as f64 / (crowd.closes + 1) as f64);
        std::thread::sleep(due.saturating_sub(began.elapsed()));
        if stop.load(Ordering::Relaxed) {
            return Err(io::ErrorKind::Interrupted.into());
        }
        let closed = Instant::now();
        drop(stream);
        watcher.wait(name)?;
        round.done(closed.elapsed());
    }
    round.elapsed = began.elapsed();
    Ok(round)
}

/// Through the handshake, as a guest whose end is watched.
fn join(target: SocketAddr, name: &GuestName) -> io::Result<TcpStream> {
    use std::io::Read;

    let script = Script::Link { guests: vec![*name], tokens: Vec::new(), words: WATCHED };
    let mut dialogue = script.begin(0);
    let mut stream = TcpStream::connect(target)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let (mut buffer, mut out) = ([0; 4096], Vec::new());
    loop {
        let count = stream.read(&mut buffer)?;
        if count == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        out.clear();
        match dialogue.read(&script, &buffer[..count], &mut out) {
            Progress::Waits => stream.write_all(&out)?,
            Progress::Done { .. } => return Ok(stream),
            Progress::Refused(what) => return Err(io::Error::other(what)),
        }
    }
}
