//! The yardstick is a broker as far as agents can see, and the load generator
//! knows how to speak to it.
#![allow(missing_docs, clippy::unwrap_used)]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use castra_benches::held::Held;
use castra_benches::load::{Client, Pressure};
use castra_benches::script::{Script, guest_names};
use castra_benches::yardstick::{CLOSED, WATCH, WATCHED};
use castra_core::RestoredAgent;
use castra_core::boundary::{Effect, Origin, Remote, Transport, Via};
use castra_core::config::AgentConfig;
use castra_core::entropy::Entropy;
use castra_core::event::Fact;
use castra_core::id::{ConnId, EffectId};
use castra_core::time::Now;
use castra_core::{Agent, Engine, Input, Output};

const PATIENCE: Duration = Duration::from_secs(20);

struct Yardstick {
    child: Child,
    address: SocketAddr,
}

impl Yardstick {
    fn start(args: &[&str]) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_yardstick"))
            .args(args)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        Self { child, address: line.trim_end().parse().unwrap() }
    }

    fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(self.address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream
    }
}

impl Drop for Yardstick {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A real agent, its one connection, and what has happened.
struct Guest {
    agent: Agent,
    stream: Option<TcpStream>,
    facts: Vec<Fact>,
}

const CONN: ConnId = ConnId { index: 0, generation: 0 };

impl Guest {
    /// Dials; then reads until it is up.
    fn go_up(&mut self, yardstick: &Yardstick) {
        let mut dial = None;
        self.drain(&mut dial);
        let effect = dial.expect("an agent dials at once");
        self.stream = Some(yardstick.connect());
        let (via, remote) = (Via::Link(Transport::Tcp), Remote::Unknown);
        let origin = Origin::Dialled(effect);
        let opened =
            Input::Opened { conn: CONN, via, origin, local: None, remote, peer_cred: None, room: 65_536 };
        self.agent.handle(Now::default(), opened);
        self.drain(&mut None);
        while !self.is_up() {
            self.read();
        }
    }

    /// Takes what comes next; how many bytes the agent says to it.
    fn read(&mut self) -> usize {
        let mut buffer = [0; 4096];
        let count = self.stream.as_mut().unwrap().read(&mut buffer).unwrap();
        assert_ne!(count, 0, "the yardstick hung up: {:?}", self.facts);
        self.agent.handle(Now::default(), Input::Bytes { conn: CONN, bytes: &buffer[..count] });
        self.drain(&mut None)
    }

    /// Carries out the outputs; how many bytes were sent.
    fn drain(&mut self, dial: &mut Option<EffectId>) -> usize {
        let mut sent = 0;
        loop {
            match self.agent.poll_output() {
                Output::Wait(_) => return sent,
                Output::Effect { id, effect: Effect::Dial { .. } } => *dial = Some(id),
                Output::Transmit { bytes, .. } => {
                    self.stream.as_mut().unwrap().write_all(bytes).unwrap();
                    sent += bytes.len();
                }
                Output::Event(event) => self.facts.push(event.fact),
                Output::Close { why, .. } => panic!("closed ({why:?}): {:?}", self.facts),
                _ => {}
            }
        }
    }

    fn is_up(&self) -> bool {
        self.facts.iter().any(|fact| matches!(fact, Fact::LinkUp { .. }))
    }
}

#[test]
fn a_hundred_scripted_handshakes_succeed() {
    let yardstick = Yardstick::start(&[]);
    let mut client = Client::new(yardstick.address, Script::link(guest_names("guest-", 10)));
    let round = client.round(Pressure::count(100, 4), &AtomicBool::new(false)).unwrap();
    assert_eq!(round.errors, [].into());
    assert_eq!((round.done, round.latency.len()), (100, 100));
}

#[test]
fn guests_that_stay_answer_every_challenge() {
    let yardstick = Yardstick::start(&["--keepalive", "20"]);
    let script = Script::link(guest_names("guest-", 20));
    let stop = AtomicBool::new(false);
    let mut held = Held::connect(yardstick.address, &script, &stop).unwrap();
    let mut answers = 0;
    let end = Instant::now() + PATIENCE;
    while answers < 100 {
        assert!(Instant::now() < end, "only {answers} answers");
        let round = held.answer(&script, Duration::from_millis(20), &stop).unwrap();
        assert_eq!(round.errors, [].into());
        answers += round.done;
    }
}

#[test]
fn a_real_agent_takes_it_for_a_broker_and_answers_its_challenges() {
    let yardstick = Yardstick::start(&["--keepalive", "50"]);
    let config = AgentConfig::new("devbox".parse().unwrap());
    let agent = Agent::new(config, RestoredAgent::default(), Entropy::seeded([7; 32]), Now::default());
    let mut guest = Guest { agent, stream: None, facts: vec![] };
    guest.go_up(&yardstick);
    // The handshake is over: whatever is sent now answers a challenge.
    let mut answered = 0;
    while answered < 2 {
        answered += usize::from(guest.read() > 0);
    }
}

#[test]
fn who_watches_is_told_of_the_end_of_a_watched_connection_alone() {
    let yardstick = Yardstick::start(&[]);
    let mut watcher = BufReader::new(yardstick.connect());
    watcher.get_mut().write_all(&[WATCH, b"\n"].concat()).unwrap();
    let mut line = String::new();
    for _ in ["greeting", "challenge"] {
        watcher.read_line(&mut line).unwrap();
    }
    for words in ["", WATCHED, "", WATCHED] {
        let mut stream = BufReader::new(yardstick.connect());
        // In one piece: the yardstick only counts lines.
        let lines = format!("hello vm:devbox capabilities=proof-v1 {words}\nproof x\n");
        stream.get_mut().write_all(lines.as_bytes()).unwrap();
        for _ in ["greeting", "challenge", "ok"] {
            line.clear();
            stream.read_line(&mut line).unwrap();
        }
        assert!(line.starts_with("ok "), "{line}");
        drop(stream);
        if words == WATCHED {
            line.clear();
            watcher.read_line(&mut line).unwrap();
            assert_eq!(line.trim_end().as_bytes(), CLOSED);
        }
    }
    // Nothing else was said: the next thing is the end.
    drop(yardstick);
    line.clear();
    assert_eq!(watcher.read_line(&mut line).unwrap_or(0), 0, "{line}");
}

#[test]
fn it_ends_with_its_standard_input() {
    let mut yardstick = Yardstick::start(&[]);
    drop(yardstick.child.stdin.take());
    assert!(yardstick.child.wait().unwrap().success());
}
