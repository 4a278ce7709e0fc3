//! What reading and writing the link costs: the lines of a handshake, the two
//! frames of a keepalive, and what a key adds to a frame.
#![allow(missing_docs)]

use std::hint::black_box;

use castra_core::auth::{Direction, Key, SessionKey, TAG_DIGITS, Transcript};
use castra_core::id::{Epoch, Nonce};
use castra_core::link::inbox::{Inbox, LINE_MAX, append_frame};
use castra_core::link::line::{Auth, BrokerLine, Challenge, Hello};
use castra_core::link::message::{BrokerFrame, GuestFrame, append_challenge, append_proof};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};

const HELLO: &[u8] = b"hello vm:devbox capabilities=metrics,proof-v1 \
    boot=00112233445566778899aabbccddeeff nonce=0f0e0d0c0b0a09080706050403020100\n";
const NONCE: Nonce = Nonce([0x5A; 16]);
const EPOCH: Epoch = Epoch::new(7, 3);

fn session_key() -> SessionKey {
    let name = "devbox".parse().expect("a name");
    Transcript::new(&name, &NONCE, &NONCE, EPOCH, HELLO).session_key(&Key::from_bytes([7; 32]))
}

fn lines(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("line");
    group.throughput(Throughput::Elements(1));
    group.bench_function("hello/parse", |bencher| {
        let mut inbox = Inbox::default();
        bencher.iter(|| {
            let line = inbox.line(&mut black_box(HELLO), LINE_MAX).expect("short").expect("whole");
            Hello::parse(line).expect("a hello")
        });
    });
    let challenge = Challenge { nonce: NONCE, epoch: EPOCH, auth: Auth::Hmac };
    let mut line = Vec::new();
    group.bench_function("challenge/append", |bencher| {
        bencher.iter(|| {
            line.clear();
            black_box(&challenge).append(&mut line);
            line.len()
        });
    });
    line.clear();
    challenge.append(&mut line);
    group.bench_function("challenge/parse", |bencher| {
        bencher.iter(|| match BrokerLine::parse(black_box(line.trim_ascii_end())) {
            BrokerLine::Challenge(challenge) => challenge.epoch,
            other => panic!("{other:?}"),
        });
    });
    group.finish();
}

/// One frame written and read again, without and with a key.
fn keepalive(criterion: &mut Criterion) {
    let key = session_key();
    for (name, key) in [("keepalive", None), ("keepalive-keyed", Some(&key))] {
        let mut group = criterion.benchmark_group(name);
        group.throughput(Throughput::Elements(1));
        let mut wire = Vec::new();
        let mut inbox = Inbox::default();
        group.bench_function("challenge", |bencher| {
            bencher.iter(|| {
                write(&mut wire, key, Direction::ToGuest, |out| append_challenge(out, 9, black_box(&NONCE)));
                match BrokerFrame::parse(read(&mut inbox, &wire, key, Direction::ToGuest)) {
                    Ok(BrokerFrame::Challenge { seq, .. }) => seq,
                    other => panic!("{other:?}"),
                }
            });
        });
        group.bench_function("proof", |bencher| {
            bencher.iter(|| {
                write(&mut wire, key, Direction::ToBroker, |out| append_proof(out, 9, black_box(&NONCE)));
                match GuestFrame::parse(read(&mut inbox, &wire, key, Direction::ToBroker)) {
                    Ok(GuestFrame::Proof(proof)) => proof.seq,
                    other => panic!("{other:?}"),
                }
            });
        });
        group.finish();
    }
}

fn write(
    wire: &mut Vec<u8>,
    key: Option<&SessionKey>,
    direction: Direction,
    json: impl FnOnce(&mut Vec<u8>),
) {
    wire.clear();
    append_frame(wire, false, key.map_or(0, |_| TAG_DIGITS), json, |out, range| {
        if let Some(key) = key {
            key.append_tag(direction, 1, range, out);
        }
    });
}

fn read<'a>(
    inbox: &'a mut Inbox,
    wire: &'a [u8],
    key: Option<&SessionKey>,
    direction: Direction,
) -> &'a [u8] {
    let payload = inbox.frame(&mut &*wire).expect("a good length").expect("whole");
    key.map_or(payload, |key| key.open(direction, 1, payload).expect("a right tag"))
}

fn keys(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("key");
    let name = "devbox".parse().expect("a name");
    let key = Key::from_bytes([7; 32]);
    group.bench_function("handshake", |bencher| {
        bencher.iter(|| {
            let transcript = Transcript::new(&name, &NONCE, &NONCE, EPOCH, black_box(HELLO));
            let proofs = (transcript.guest_proof(&key), transcript.broker_proof(&key));
            (proofs, transcript.session_key(&key))
        });
    });
    let session = session_key();
    for bytes in [64, 4096] {
        let json = vec![b'x'; bytes];
        group.throughput(Throughput::Bytes(bytes as u64));
        group.bench_function(format!("tag/{bytes}"), |bencher| {
            bencher.iter(|| session.tag(Direction::ToGuest, 1, black_box(&json)));
        });
    }
    group.finish();
}

criterion_group!(benches, lines, keepalive, keys);
criterion_main!(benches);
