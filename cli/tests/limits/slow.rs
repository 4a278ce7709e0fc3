//! Peers that send a byte now and then.

use std::io::Write;
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use serde_json::json;

use crate::support::{Control, Link, Watch, World, until, verdict};
use crate::tools::{
    Usage, alone, connect_from, figure, full, handshakes, has_ended, kib, proven_from, shown,
};

/// Most bytes that one dripping peer may keep occupied: an unfinished frame of the longest kind.
const FRAME: u64 = 64 * 1024;

/// Sends one byte on each stream every `pause`, round after round, until told to stop.
fn drip(streams: &[TcpStream], bytes: &[u8], pause: Duration, stop: &AtomicBool) {
    for byte in bytes.iter().cycle() {
        if stop.load(Ordering::Relaxed) {
            return;
        }
        for stream in streams {
            // Whoever was hung up on hears it elsewhere.
            let _ = (&*stream).write(&[*byte]);
        }
        std::thread::sleep(pause);
    }
}

#[test]
fn hundreds_that_drip_are_cut_at_their_bounds_and_delay_nobody() {
    let _alone = alone();
    let each = if full() { 500 } else { 150 };
    let world = World::new();
    let broker = world.broker(&["--window", "30s", "--interval", "2s"]);
    let (port, pid) = (broker.port(), broker.process.pid());
    let bystander = Link::join(port, "bystander").live();
    let watch = Watch::of(&world.state().join("control.sock"), "bystander");
    let quiet = handshakes(port, "quiet", 20);
    let before = Usage::of(pid);

    // Half of them never end their hello, half of them never end a frame.
    let hellos: Vec<_> = (0..each).map(|_| connect_from(2, port).unwrap()).collect();
    let frames: Vec<_> = (0..each)
        .map(|number| {
            let stream = proven_from(3, port, &format!("drip-{number}"));
            (&stream).write_all(&[0, 0, 0xff, 0xff]).unwrap();
            stream
        })
        .collect();
    let clients: Vec<_> = (0..100)
        .map(|_| std::os::unix::net::UnixStream::connect(world.state().join("control.sock")).unwrap())
        .collect();
    for stream in hellos.iter().chain(&frames) {
        stream.set_nonblocking(true).unwrap();
    }
    let began = Instant::now();
    let stop = Arc::new(AtomicBool::new(false));
    let (stopped, more) = (Arc::clone(&stop), hellos.iter().chain(&frames).map(|s| s.try_clone().unwrap()));
    let more: Vec<_> = more.collect();
    let dripping = std::thread::spawn(move || drip(&more, b"x", Duration::from_millis(200), &stopped));
    for client in &clients {
        (&*client).write_all(br#"{"id":1,"#).unwrap();
    }
    let busy = handshakes(port, "busy", 20);
    let held = Usage::of(pid);
    let ended = |streams: &[TcpStream]| streams.iter().filter(|stream| has_ended(stream)).count();
    assert!(until(Duration::from_secs(20), || ended(&hellos) == each), "hellos have 2 s");
    let hellos_took = began.elapsed();
    assert!(until(Duration::from_secs(20), || ended(&frames) == each), "frames have 5 s");
    let frames_took = began.elapsed();
    stop.store(true, Ordering::Relaxed);
    dripping.join().unwrap();
    let reasons = world.events("session.closed", "");
    let cut = reasons.iter().filter(|event| event["reason"] == "bad-frame").count();
    assert_eq!(cut, each, "each was ended for its frame");
    // A client of the control socket has no bound but its place; it is still answered.
    assert!(Control::connect(&world.state().join("control.sock")).ask("info", &json!({})).unwrap().is_ok());
    let grown = held.memory.saturating_sub(before.memory);
    figure(&format!(
        "slow drip: {each} hellos (ended after {hellos_took:.1?}), {each} frames (after {frames_took:.1?}), 100 control \
         clients; honest handshakes without them {}, with them {}; RssAnon {} more",
        shown(&quiet),
        shown(&busy),
        kib(grown)
    ));
    assert!(grown <= each as u64 * FRAME, "{grown}");
    assert!(*busy.last().unwrap() <= *quiet.last().unwrap() * 20 + Duration::from_secs(3), "{busy:?}");
    for (_, row) in watch.finish() {
        assert_eq!(verdict(&row), "reachable", "{row}");
    }
    broker.process.kill();
    bystander.join().unwrap();
}
