//! What concerns everybody is done in parts: no call takes as long as there are guests.
#![allow(clippy::unwrap_used)]
#![allow(clippy::disallowed_macros, reason = "a test may format")]

use std::time::Duration;

use castra_core::boundary::{Origin, Remote, Transport, Via};
use castra_core::config::BrokerConfig;
use castra_core::entropy::Entropy;
use castra_core::event::Fact;
use castra_core::id::{ConnId, GuestName};
use castra_core::status::{Reason, State};
use castra_core::time::{Now, Time};
use castra_core::{Broker, Engine, Input, Output, Restored};

const GUESTS: u32 = 2500;
const MILLI: Duration = Duration::from_millis(1);
/// Neither so many messages nor so many events in one call.
const BOUND: usize = 1100;

/// A broker with many guests that says what comes out of one call.
struct Crowd {
    broker: Broker,
    now: Now,
    wake: Option<Time>,
}

#[derive(Default)]
struct Said {
    to: Vec<ConnId>,
    bytes: Vec<u8>,
    facts: Vec<(Option<GuestName>, Fact)>,
}

impl Crowd {
    fn new() -> Self {
        let now = Now { boot: Time::from_millis(1_000_000), ..Now::default() };
        let config = BrokerConfig { records_per_second: 0, ..BrokerConfig::default() };
        let restored = Restored { incarnation: 7, ..Restored::default() };
        let broker = Broker::new(config, restored, Entropy::seeded([7; 32]), now);
        let mut crowd = Self { broker, now, wake: None };
        for number in 0..GUESTS {
            crowd.join(number);
        }
        crowd
    }

    fn handle(&mut self, input: Input<'_, BrokerConfig>) -> Said {
        let mut said = Said::default();
        self.broker.handle(self.now, input);
        loop {
            match self.broker.poll_output() {
                Output::Transmit { conn, bytes } => {
                    said.to.push(conn);
                    said.bytes.extend_from_slice(bytes);
                }
                Output::Event(event) => said.facts.push((event.guest, event.fact)),
                Output::Wait(deadline) => {
                    self.wake = deadline.map(|deadline| deadline.at);
                    return said;
                }
                _ => {}
            }
        }
    }

    fn join(&mut self, number: u32) {
        let conn = conn(number);
        let (via, origin) = (Via::Link(Transport::Tcp), Origin::Accepted);
        let (remote, room) = (Remote::Unknown, 128 * 1024);
        self.handle(Input::Opened { conn, via, origin, local: None, remote, peer_cred: None, room });
        let hello = format!("hello vm:guest-{number:05} capabilities=proof-v1\n");
        let said = self.handle(Input::Bytes { conn, bytes: hello.as_bytes() });
        let challenge = String::from_utf8(said.bytes).unwrap();
        let nonce = challenge.split(' ').nth(1).unwrap();
        let said = self.handle(Input::Bytes { conn, bytes: format!("proof {nonce}\n").as_bytes() });
        assert!(said.bytes.starts_with(b"ok "));
    }

    fn passes(&mut self, span: Duration) {
        self.now.boot = self.now.boot + span;
    }

    /// As long as there is more to do at once: what each call said.
    fn at_once(&mut self) -> Vec<Said> {
        let mut calls = Vec::new();
        while self.wake.is_some_and(|at| at <= self.now.boot) {
            calls.push(self.handle(Input::Tick));
            assert!(calls.len() < 100, "it never ends");
            self.passes(MILLI / 10);
        }
        calls
    }

    fn states(&self) -> Vec<(State, Option<Reason>)> {
        let mut states: Vec<_> = self.broker.glances(self.now).map(|row| (row.state, row.reason)).collect();
        assert_eq!(states.len(), GUESTS as usize);
        states.dedup();
        states
    }
}

fn conn(index: u32) -> ConnId {
    ConnId { index, generation: 0 }
}

fn assert_bounded(calls: &[Said]) {
    assert!(calls.len() > 2, "{} calls for everybody", calls.len());
    for said in calls {
        assert!(
            said.to.len() <= BOUND && said.facts.len() <= BOUND,
            "{} {}",
            said.to.len(),
            said.facts.len()
        );
    }
}

#[test]
fn a_stall_is_told_once_and_everybody_is_asked_once() {
    let mut crowd = Crowd::new();
    crowd.passes(Duration::from_secs(20));
    let excused = [(State::Waiting, Some(Reason::BrokerStalled))];
    assert_eq!(crowd.states(), excused);
    let calls = crowd.at_once();
    assert_eq!(crowd.states(), excused);
    assert_bounded(&calls);
    let stalls =
        calls.iter().flat_map(|said| &said.facts).filter(|(_, fact)| fact.kind() == "broker.stalled");
    assert_eq!(stalls.count(), 1);
    let mut asked: Vec<ConnId> = calls.into_iter().flat_map(|said| said.to).collect();
    asked.sort_unstable();
    assert!(asked.into_iter().eq((0..GUESTS).map(conn)));
}

#[test]
fn a_broker_that_is_stalled_again_before_it_asked_everybody_says_so() {
    let mut crowd = Crowd::new();
    crowd.passes(Duration::from_secs(20));
    let mut facts = crowd.handle(Input::Tick).facts;
    crowd.passes(Duration::from_secs(9));
    facts.extend(crowd.at_once().into_iter().flat_map(|said| said.facts));
    let late: Vec<u64> = facts
        .iter()
        .filter_map(|(_, fact)| match fact {
            Fact::BrokerStalled { late_ms } => Some(*late_ms),
            _ => None,
        })
        .collect();
    assert_eq!(late.len(), 2, "{late:?}");
    assert_eq!(late[1], 9000, "counted from the end of the first");
}

#[test]
fn a_reload_judges_everybody_in_order_of_their_names() {
    let mut crowd = Crowd::new();
    crowd.passes(Duration::from_secs(2));
    crowd.at_once();
    let stricter = BrokerConfig {
        window: Duration::from_millis(1500),
        interval: Duration::from_millis(500),
        records_per_second: 0,
        ..BrokerConfig::default()
    };
    let first = crowd.handle(Input::Reload(Box::new(stricter)));
    let mut calls = vec![first];
    calls.extend(crowd.at_once());
    assert_bounded(&calls);
    let judged: Vec<GuestName> = calls
        .iter()
        .flat_map(|said| &said.facts)
        .filter(|(_, fact)| matches!(fact, Fact::VerdictChanged { to: State::Waiting, .. }))
        .map(|(guest, _)| guest.unwrap())
        .collect();
    assert!(judged.is_sorted());
    assert_eq!(judged.len(), GUESTS as usize);
}

#[test]
fn calls_at_one_time_fire_no_more_timers_than_one_call() {
    let mut crowd = Crowd::new();
    // Late, but no stall.
    crowd.passes(Duration::from_secs(2));
    while crowd.wake.is_some_and(|at| at <= crowd.now.boot) {
        crowd.handle(Input::Tick);
    }
    crowd.passes(Duration::from_secs(1));
    let mut asked = 0;
    for _ in 0..20 {
        asked += crowd.handle(Input::Writable { conn: conn(0), room: 128 * 1024 }).to.len();
    }
    assert!((1..=256).contains(&asked), "{asked}");
    // A call for what was put off is never in vain.
    assert!(!crowd.handle(Input::Tick).to.is_empty());
}
