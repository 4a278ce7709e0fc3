//! Instructions of the core's hot paths under callgrind, for `.ci/instructions`,
//! which knows how many operations each run is. Needs valgrind and `gungraun-runner`.
#![allow(missing_docs)]
// The harness names each function twice.
#![allow(unused_qualifications)]

use std::hint::black_box;
use std::time::Duration;

use castra_benches::crowd::{Crowd, Proofs, Script};
use castra_core::event::Event;
use gungraun::{library_benchmark, library_benchmark_group, main};

/// Guests who are there meanwhile.
const GUESTS: usize = 1000;
/// Handshakes, status rows, and event lines of a run; keepalives are as many as guests.
const TIMES: usize = 200;
const INTERVAL: Duration = Duration::from_secs(5);

/// Everybody has come, and was challenged.
fn crowd(proofs: Proofs) -> Crowd {
    let mut crowd = Crowd::new(GUESTS, proofs, INTERVAL);
    crowd.advance(INTERVAL);
    crowd
}

fn handshakes(proofs: Proofs) -> Script {
    let shake = |crowd: &mut Crowd| {
        for _ in 0..TIMES {
            crowd.arrive(GUESTS);
            crowd.leave(GUESTS);
            crowd.advance(Duration::from_micros(10));
        }
    };
    crowd(proofs).script(shake, shake).0
}

fn keepalives(proofs: Proofs) -> Script {
    let (script, answered) =
        crowd(proofs).script(|crowd| crowd.advance(INTERVAL), |crowd| crowd.advance(INTERVAL));
    assert_eq!(answered, GUESTS);
    script
}

fn status() -> Script {
    crowd(Proofs::Unkeyed).script(Crowd::status, Crowd::status).0
}

fn events() -> (Vec<Event>, Vec<u8>) {
    let mut crowd = crowd(Proofs::Unkeyed);
    let mut events = crowd.events();
    events.retain(|event| event.fact.kind() == "handshake.success");
    events.truncate(TIMES);
    assert_eq!(events.len(), TIMES);
    (events, Vec::with_capacity(4096))
}

// Scripts are returned: to drop them is not what is measured.
#[library_benchmark]
#[bench::unkeyed(handshakes(Proofs::Unkeyed))]
#[bench::keyed(handshakes(Proofs::Keyed))]
fn handshake(mut script: Script) -> Script {
    black_box(script.play());
    script
}

#[library_benchmark]
#[bench::unkeyed(keepalives(Proofs::Unkeyed))]
#[bench::keyed(keepalives(Proofs::Keyed))]
fn keepalive(mut script: Script) -> Script {
    black_box(script.play());
    script
}

#[library_benchmark]
#[bench::row(status())]
fn status_row(mut script: Script) -> Script {
    black_box(script.play());
    script
}

#[library_benchmark]
#[bench::log(events())]
fn event_line((events, mut line): (Vec<Event>, Vec<u8>)) -> (Vec<Event>, Vec<u8>) {
    for event in &events {
        line.clear();
        event.append_line(&mut line);
        black_box(&line);
    }
    (events, line)
}

#[library_benchmark]
#[bench::json(events())]
fn event_json((events, mut line): (Vec<Event>, Vec<u8>)) -> (Vec<Event>, Vec<u8>) {
    for event in &events {
        line.clear();
        event.append_json(None, &mut line);
        black_box(&line);
    }
    (events, line)
}

library_benchmark_group!(
    name = engine,
    benchmarks = [handshake, keepalive, status_row, event_line, event_json]
);
main!(library_benchmark_groups = engine);
