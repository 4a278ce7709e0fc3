//! What the broker's engine costs: handshakes, keepalives, the status of many
//! guests, ticks in a crowd, and events for whoever follows them. The guests'
//! part is worked out beforehand and not measured.
#![allow(missing_docs)]

use std::time::Duration;

use castra_benches::crowd::{Crowd, Proofs, Script};
use criterion::measurement::WallTime;
use criterion::{BatchSize, BenchmarkGroup, Criterion, Throughput, criterion_group, criterion_main};

const INTERVAL: Duration = Duration::from_secs(5);
const PROOFS: [(&str, Proofs); 2] = [("unkeyed", Proofs::Unkeyed), ("keyed", Proofs::Keyed)];
/// Handshakes of one script.
const HANDSHAKES: usize = 500;

fn play(group: &mut BenchmarkGroup<'_, WallTime>, name: &str, count: usize, script: &Script) {
    group.throughput(Throughput::Elements(count as u64));
    group.bench_function(name, |bencher| {
        bencher.iter_batched_ref(|| script.clone(), Script::play, BatchSize::PerIteration);
    });
}

fn shake_hands(crowd: &mut Crowd, number: usize) {
    for _ in 0..HANDSHAKES {
        crowd.arrive(number);
        crowd.leave(number);
        crowd.advance(Duration::from_micros(10));
    }
}

/// From accept to close, both round trips, beside so many other guests.
fn handshake(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("handshake");
    group.sample_size(20);
    for guests in [10, 1000, 10_000] {
        for (name, proofs) in PROOFS {
            let crowd = Crowd::new(guests, proofs, INTERVAL);
            let shake = |crowd: &mut Crowd| shake_hands(crowd, guests);
            let (script, ()) = crowd.script(shake, shake);
            play(&mut group, &format!("{name}/{guests}"), HANDSHAKES, &script);
        }
    }
    group.finish();
}

/// A challenge falls due, is sent, and is answered.
fn keepalive(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("keepalive");
    group.sample_size(20);
    for guests in [10, 1000, 10_000, 100_000] {
        for (name, proofs) in PROOFS {
            let crowd = Crowd::new(guests, proofs, INTERVAL);
            let live = |crowd: &mut Crowd| crowd.advance(INTERVAL);
            let (script, answered) = crowd.script(live, live);
            play(&mut group, &format!("{name}/{guests}"), answered, &script);
        }
    }
    group.finish();
}

/// The whole answer, and a tick on which nothing is due.
fn status(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("status");
    group.sample_size(20);
    for guests in [10, 1000, 10_000, 100_000] {
        let crowd = Crowd::new(guests, Proofs::Unkeyed, INTERVAL);
        let (script, _) = crowd.script(Crowd::status, Crowd::status);
        play(&mut group, &format!("rows/{guests}"), guests, &script);
        let (script, ()) = crowd.script(|_| {}, |crowd| (0..1000).for_each(|_| crowd.tick()));
        play(&mut group, &format!("idle-tick/{guests}"), 1000, &script);
    }
    group.finish();
}

/// The same handshakes, and somebody follows the events.
fn events(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("events");
    group.sample_size(20);
    for followers in [0, 1, 16] {
        let mut crowd = Crowd::new(1000, Proofs::Unkeyed, INTERVAL);
        (0..followers).for_each(|_| crowd.follow());
        let shake = |crowd: &mut Crowd| shake_hands(crowd, 1000);
        let (script, ()) = crowd.script(shake, shake);
        play(&mut group, &format!("followers/{followers}"), HANDSHAKES, &script);
    }
    group.finish();
}

criterion_group!(benches, handshake, keepalive, status, events);
criterion_main!(benches);
