//! What one connection does wrong ends that connection, with its documented error, and nothing else.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::support::{Keyed, Link, PATIENCE, Watch, World, at, until, verdict};

fn failures(world: &World) -> Vec<String> {
    let events = world.events("handshake.failure", "");
    events.iter().map(|event| event["reason"].as_str().unwrap().to_owned()).collect()
}

fn last_end(world: &World, name: &str) -> Value {
    let found = || world.events("session.closed", name).pop();
    assert!(until(PATIENCE, || found().is_some()), "the session of {name} goes on");
    found().unwrap()["reason"].clone()
}

#[test]
fn misbehaviour_ends_its_own_connection_with_its_error_and_nothing_else() {
    let world = World::new();
    let broker = world.broker(&["--window", "2s", "--interval", "600ms", "--handshake-timeout", "700ms"]);
    let port = broker.port();
    let token = world.json(&["token", "issue", "keyed", "--json"])["token"].as_str().unwrap().to_owned();
    let _bystander = world.agent("bystander", broker.address(), &[]);
    world.wait(&["bystander"], "reachable");
    let epoch = world.row("bystander")["epoch"].clone();
    let watch = Watch::of(&world.state().join("control.sock"), "bystander");

    // Phase A: a line, its error.
    let long = [b"hello vm:a capabilities=proof-v1 ".to_vec(), vec![b'x'; 600], b"\n".to_vec()].concat();
    let endless = vec![b'x'; 512];
    let lines: [(&[u8], &str); 12] = [
        (b"\n", "bad-line"),
        (b"goodbye\n", "bad-line"),
        (b"GET / HTTP/1.1\r\n\r\n", "bad-line"),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\n", "bad-line"),
        (b"hello vm:\xff\xfe capabilities=proof-v1\n", "bad-line"),
        (b"hello vm:a\xc3\x28 capabilities=proof-v1\n", "bad-line"),
        (b"hello vm:../../etc/passwd capabilities=proof-v1\n", "bad-name"),
        (b"hello vm:a\x1b[31m capabilities=proof-v1\n", "bad-name"),
        (b"hello vm:a capabilities=proof-v1 boot=xyz\n", "bad-line"),
        (&long, "bad-line"),
        (&endless, "bad-line"),
        (b"hello vm:a capabilities=proof-v1", "timeout"),
    ];
    for (bytes, code) in lines {
        let mut link = Link::greeted(port);
        link.try_send(bytes);
        let line = link.line();
        let shown = String::from_utf8_lossy(bytes);
        assert!(line.starts_with(&format!("error: {code}: ")), "{shown:?}: {line}");
        assert!(line.bytes().all(|byte| (b' '..=b'~').contains(&byte)), "{line:?}");
        assert_eq!(link.try_line(), None, "{shown:?}: closed");
        assert_eq!(failures(&world).last().map(String::as_str), Some(code), "{shown:?}");
    }
    let mut link = Link::greeted(port);
    link.hello("a", "");
    link.send(b"proof 00\n");
    assert!(link.line().starts_with("error: bad-proof: "));
    // A half-close ends the line, as castra 0.1 has it, and then the connection.
    let mut link = Link::greeted(port);
    link.send(b"hello vm:old-style");
    link.shutdown_write();
    assert_eq!(link.try_line().as_deref(), Some("ok"));
    assert_eq!(link.try_line(), None);
    assert_eq!(world.verdict("old-style"), "waiting/unproven");
    let mut link = Link::greeted(port);
    link.shutdown_write();
    link.drained();
    Link::greeted(port).reset();
    let mut link = Link::greeted(port);
    link.hello("a", "");
    link.reset();

    // Phase B: bytes, the code of the bye.
    let ping = r#"{"type":"ping","id":7}"#;
    let huge = [&65_537_u32.to_be_bytes()[..], format!("{ping:65535}  ").as_bytes()].concat();
    let frames: [(&[u8], &str); 7] = [
        (&[0, 0, 0, 0], "bad-frame"),
        (&huge, "bad-frame"),
        (b"\xff\xff\xff\xff", "bad-frame"),
        (b"\0\0\0\x02{]", "bad-frame"),
        (b"\0\0\0\x03[1]", "bad-frame"),
        (b"\0\0\0\x04{\"\xff}", "bad-frame"),
        (b"hello vm:guest capabilities=proof-v1\n", "bad-frame"),
    ];
    for (number, (bytes, code)) in frames.into_iter().enumerate() {
        let name = format!("guest-{number}");
        let mut guest = Link::join(port, &name);
        let sent = Instant::now();
        guest.try_send(bytes);
        let bye = guest.answer().unwrap();
        assert!(sent.elapsed() < Duration::from_secs(4), "at once, not when the frame is overdue");
        assert_eq!((&bye["type"], &bye["code"]), (&"bye".into(), &code.into()), "{bytes:?}: {bye}");
        guest.drained();
        assert_eq!(last_end(&world, &name), code);
        assert_eq!(world.verdict(&name), "waiting/disconnected");
    }
    let mut guest = Link::join(port, "striker");
    for _ in 0..3 {
        guest.send_frame(&json!({"type": "proof", "seq": 99, "proof": "0".repeat(32)}).to_string());
    }
    assert_eq!(guest.answer().unwrap()["code"], "strikes");
    assert_eq!(last_end(&world, "striker"), "strikes");
    for (name, leave) in [("half-closed", true), ("reset", false)] {
        let mut guest = Link::join(port, name);
        if leave {
            guest.shutdown_write();
            guest.drained();
        } else {
            guest.reset();
        }
        assert_eq!(last_end(&world, name), "disconnected");
        assert_eq!(world.verdict(name), "waiting/disconnected");
    }
    // A frame that was tagged for another place in the stream.
    let mut keyed = Keyed::begin(port, "keyed", &token);
    assert!(keyed.prove().ends_with(&format!(" proof={}", keyed.broker_proof())));
    keyed.send_frame(r#"{"type":"ping","id":1}"#);
    assert_eq!(keyed.frame(0).unwrap(), r#"{"type":"pong","id":1}"#);
    keyed.link.send_frame(r#"{"type":"ping","id":2}00000000000000000000000000000000"#);
    assert!(keyed.frame(1).unwrap().contains("bad-mac"));
    assert_eq!(last_end(&world, "keyed"), "bad-mac");

    // What is no misbehaviour is answered, and the session lives.
    let mut guest = Link::join(port, "polite");
    guest.send_frame(r#"{"type":"dance"}"#);
    let answer = guest.answer().unwrap();
    assert_eq!((&answer["code"], &answer["of"]), (&"unknown-type".into(), &"dance".into()));
    guest.send_frame(&format!("{ping:65535} "));
    assert_eq!(guest.answer().unwrap()["type"], "pong");
    assert_eq!(world.verdict("polite"), "reachable");

    let names: Vec<Value> = world.control().status().unwrap()["guests"]
        .as_array()
        .unwrap()
        .iter()
        .map(|row| row["name"].clone())
        .collect();
    assert!(!names.contains(&"a".into()), "a failed hello creates no row: {names:?}");
    assert_eq!(world.row("bystander")["epoch"], epoch);
    for (_, row) in watch.finish() {
        assert_eq!(verdict(&row), "reachable", "{row}");
    }
    assert!(
        world.log().bytes().all(|byte| byte == b'\n' || (b' '..=b'~').contains(&byte)),
        "{}",
        world.log()
    );
}

#[test]
fn a_client_that_sends_one_byte_a_second_is_cut_at_the_deadline_and_delays_nobody() {
    const DRIPS: usize = 20;
    let world = World::new();
    let broker = world.broker(&[]);
    let port = broker.port();
    let drips: Vec<_> = (0..DRIPS)
        .map(|_| {
            std::thread::spawn(move || {
                let connected = Instant::now();
                let mut link = Link::greeted(port);
                link.drip(b"hello vm:drip capabilities=proof-v1\n");
                (link.line(), link.try_line(), connected.elapsed())
            })
        })
        .collect();
    // Meanwhile honest guests come in as if nobody else were there.
    let began = Instant::now();
    let mut slowest = Duration::ZERO;
    for number in 0..20 {
        let arrived = Instant::now();
        let _guest = Link::join(port, &format!("guest-{number}"));
        slowest = slowest.max(arrived.elapsed());
    }
    assert!(slowest < Duration::from_millis(900), "a handshake took {slowest:?}");
    assert!(
        began.elapsed() < Duration::from_millis(1900),
        "they were to meet the drips: {:?}",
        began.elapsed()
    );
    for drip in drips {
        let (line, end, took) = drip.join().unwrap();
        assert!(line.starts_with("error: timeout: "), "{line}");
        assert_eq!(end, None);
        assert!(took < Duration::from_millis(3500), "its deadline is 2 s: {took:?}");
    }
    // The deadline is absolute: 2 s after the connection, however busy it was.
    let times = |kind: &str| -> Vec<i64> { world.events(kind, "").iter().map(at).collect() };
    let cut = times("handshake.failure");
    let started = times("broker.started")[0];
    assert_eq!(cut.len(), DRIPS);
    let spread = cut.iter().max().unwrap() - cut.iter().min().unwrap();
    assert!(cut.iter().all(|cut| cut - started >= 2000), "{cut:?}");
    assert!(spread < 1500, "all of them came together and went together: {spread} ms");
    assert_eq!(failures(&world), ["timeout"; DRIPS]);
}
