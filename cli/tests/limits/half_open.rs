//! Crowds that connect and don't prove themselves, while honest guests come in.

use std::time::{Duration, Instant};

use crate::support::{Link, Watch, World, verdict};
use crate::tools::{Crowd, Usage, alone, connect_from, figure, handshakes, has_ended, kib, shown};

/// Of the broker here.
const HANDSHAKE: Duration = Duration::from_secs(2);
/// How long a slow machine may need on top of a bound.
const SLACK: Duration = Duration::from_secs(8);
/// Half-open links at once: docs/PROTOCOL.md, section 16.
const HALF_OPEN: usize = 1024;

fn crowd_and_guests(what: &str, hello: bool) {
    let _alone = alone();
    let world = World::new();
    let broker = world.broker(&["--window", "30s", "--interval", "2s"]);
    let port = broker.port();
    let bystander = Link::join(port, "bystander").live();
    let watch = Watch::of(&world.state().join("control.sock"), "bystander");
    let quiet = handshakes(port, "quiet", 20);
    let before = Usage::of(broker.process.pid());
    let began = Instant::now();
    let crowd: Vec<Crowd> = (0..20u8)
        .map(|host| {
            let first =
                if hello { format!("hello vm:crowd-{host} capabilities=proof-v1\n") } else { String::new() };
            Crowd::come(2 + host, port, 100, first.as_bytes())
        })
        .collect();
    let came = began.elapsed();
    let busy = handshakes(port, "busy", 20);
    let held = Usage::of(broker.process.pid());
    // Each of the crowd ends: by its own deadline, or earlier to make room.
    let rounds = (2_000_usize.div_ceil(HALF_OPEN)) as u32;
    let last = began + came + HANDSHAKE * rounds + SLACK;
    let ended = || crowd.iter().map(Crowd::ended).sum::<usize>();
    let all = crate::support::until(last.saturating_duration_since(Instant::now()), || ended() == 2_000);
    let took = began.elapsed();
    assert!(all, "{} of 2000 were ended after {took:?}", ended());
    figure(&format!(
        "half-open ({what}): 2000 came in {came:.0?}; honest handshakes without them {}, with them {}; all of them \
         ended after {took:.1?}; RssAnon {} before, {} at most",
        shown(&quiet),
        shown(&busy),
        kib(before.memory),
        kib(held.memory)
    ));
    // One round of the bound at most, whatever else this machine does.
    let bound = *quiet.last().unwrap() * 10 + HANDSHAKE * rounds + SLACK;
    assert!(*busy.last().unwrap() <= bound, "{busy:?}");
    // Two buffers that are not used, and a line each: far below 4 KiB.
    let grown = held.memory.saturating_sub(before.memory);
    assert!(grown <= HALF_OPEN as u64 * 4096 + (8 << 20), "{grown} bytes for {HALF_OPEN} half-open links");
    for (_, row) in watch.finish() {
        assert_eq!(verdict(&row), "reachable", "{row}");
    }
    broker.process.kill();
    bystander.join().unwrap();
}

#[test]
fn two_thousand_that_say_nothing_keep_no_honest_guest_out() {
    crowd_and_guests("silent", false);
}

#[test]
fn two_thousand_that_say_hello_and_prove_nothing_keep_no_honest_guest_out() {
    crowd_and_guests("hello", true);
}

#[test]
fn a_half_open_link_is_ended_at_the_bound_of_a_handshake() {
    let _alone = alone();
    let world = World::new();
    let broker = world.broker(&["--handshake-timeout", "1500ms"]);
    let began = Instant::now();
    let streams: Vec<_> = (0..200).map(|number| (number, connect_from(2, broker.port()).unwrap())).collect();
    for (number, stream) in &streams {
        use std::io::Write;
        stream.set_nonblocking(true).unwrap();
        if number % 2 == 0 {
            let hello = format!("hello vm:half-{number} capabilities=proof-v1\n");
            (&*stream).write_all(hello.as_bytes()).unwrap();
        }
    }
    let came = began.elapsed();
    let ended = || streams.iter().filter(|(_, stream)| has_ended(stream)).count();
    let first = crate::support::until(Duration::from_secs(20), || ended() > 0);
    assert!(first && began.elapsed() >= Duration::from_millis(1500), "none before its time");
    assert!(crate::support::until(came + SLACK, || ended() == 200), "{} of 200 were ended", ended());
    let reasons: Vec<_> =
        world.events("handshake.failure", "").iter().map(|event| event["reason"].clone()).collect();
    assert_eq!(reasons, vec![serde_json::json!("timeout"); 200]);
}
