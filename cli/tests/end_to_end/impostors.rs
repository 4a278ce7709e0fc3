//! Who can't prove a name changes nothing about it, and who can't prove to be the broker gets nothing.

use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::time::Duration;

use serde_json::Value;

use crate::support::{Keyed, Link, PATIENCE, Watch, World, verdict};

const WRONG: &str = "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff";

fn epoch(row: &Value) -> u64 {
    row["epoch"].as_u64().unwrap()
}

#[test]
fn wrong_keys_replays_and_stolen_names_are_refused_and_change_no_verdict() {
    let world = World::new();
    let broker = world.broker(&["--window", "1500ms", "--interval", "500ms"]);
    let port = broker.port();
    let token = world.json(&["token", "issue", "keyed", "--json"])["token"].as_str().unwrap().to_owned();
    let file = world.secret("token", &token);
    let _keyed = world.agent("keyed", broker.address(), &["--token-file", &file]);
    let _plain = world.agent("plain", broker.address(), &[]);
    world.wait(&["keyed", "plain"], "reachable");
    let before = ["keyed", "plain"].map(|name| world.row(name));
    assert_eq!((&before[0]["authenticated"], &before[1]["authenticated"]), (&true.into(), &false.into()));
    let socket = world.state().join("control.sock");
    let watches = ["keyed", "plain"].map(|name| Watch::of(&socket, name));

    // The wrong key.
    let mut wrong = Keyed::begin(port, "keyed", WRONG);
    assert!(wrong.prove().starts_with("error: bad-proof: "));
    assert_eq!(wrong.link.try_line(), None);
    // The right proof of another handshake: one that was begun and never finished,
    // so that nobody else has used it.
    let overheard = Keyed::begin(port, "keyed", &token);
    let mut replay = Keyed::begin(port, "keyed", &token);
    assert!(replay.epoch > overheard.epoch);
    replay.link.send(format!("proof {}\n", overheard.proof()).as_bytes());
    assert!(replay.link.line().starts_with("error: bad-proof: "));
    // The broker's own proof, reflected.
    let mut mirror = Keyed::begin(port, "keyed", &token);
    let reflected = mirror.broker_proof();
    mirror.link.send(format!("proof {reflected}\n").as_bytes());
    assert!(mirror.link.line().starts_with("error: bad-proof: "));
    // No key at all, in all the ways to leave it out.
    for (hello, code) in [
        ("hello vm:keyed\n", "token-required"),
        ("hello vm:keyed capabilities=bus-v1\n", "token-required"),
        ("hello vm:keyed capabilities=proof-v1\n", "bad-line"),
        ("hello vm:keyed capabilities=proof-v1 nonce=xyz\n", "bad-line"),
    ] {
        let mut link = Link::greeted(port);
        link.send(hello.as_bytes());
        let line = link.line();
        assert!(line.starts_with(&format!("error: {code}: ")), "{hello:?}: {line}");
        assert_eq!(link.try_line(), None);
    }
    // The name of a live guest: its holder is asked, and answers.
    let mut thief = Link::greeted(port);
    let challenge = thief.hello("plain", "");
    thief.send(format!("proof {}\n", challenge.nonce).as_bytes());
    assert!(thief.line().starts_with("error: name-in-use: "));
    let mut passing = Link::greeted(port);
    let challenge = passing.hello("plain", " once");
    passing.send(format!("proof {}\n", challenge.nonce).as_bytes());
    assert!(passing.line().starts_with("error: name-in-use: "));
    // A hello that goes no further.
    drop(Link::greeted(port).hello("plain", ""));

    for (name, before) in ["keyed", "plain"].iter().zip(&before) {
        let after = world.row(name);
        assert_eq!(epoch(&after), epoch(before), "{name} still has its session");
        assert_eq!(after["takeovers"], 0);
        assert!(after["refusals"].as_u64() > before["refusals"].as_u64(), "{after}");
        assert_eq!(world.events("verdict.changed", name).len(), 1, "reachable once, and never else");
        assert_eq!(world.events("handshake.success", name).len(), 1);
    }
    for watch in watches {
        for (_, row) in watch.finish() {
            assert_eq!(verdict(&row), "reachable", "{row}");
        }
    }
}

#[test]
fn a_name_is_free_again_when_its_holder_is_dead_and_the_dead_one_can_not_take_it_back() {
    let world = World::new();
    let broker = world.broker(&["--window", "30s", "--interval", "10s"]);
    let mut old = Link::join(broker.port(), "devbox");
    let first = world.row("devbox");
    let mut new = Link::greeted(broker.port());
    let challenge = new.hello("devbox", "");
    new.send(format!("proof {}\n", challenge.nonce).as_bytes());
    // The incumbent is asked and says nothing for half a second.
    let answer = old.challenge().unwrap();
    assert!(new.line().starts_with("ok session="));
    let row = world.row("devbox");
    assert!(epoch(&row) > epoch(&first));
    assert_eq!((verdict(&row).as_str(), &row["takeovers"]), ("reachable", &1.into()));
    old.try_send(&[&(answer.len() as u32).to_be_bytes(), answer.as_bytes()].concat());
    let bye = old.answer().unwrap();
    assert_eq!(bye["code"], "superseded", "{bye}");
    old.drained();
    let after = world.row("devbox");
    assert_eq!((epoch(&after), &after["handshakes"]), (epoch(&row), &row["handshakes"]), "too late to count");
}

#[test]
fn an_agent_with_the_wrong_token_is_refused_and_backs_off() {
    let world = World::new();
    let broker = world.broker(&[]);
    world.json(&["token", "issue", "devbox", "--json"]);
    let file = world.secret("wrong", WRONG);
    let mut agent = world.agent("devbox", broker.address(), &["--token-file", &file]);
    let first = agent.err.after(0, "link refused", PATIENCE);
    assert!(first.contains("code=bad-proof retry_ms="), "{first}");
    let mark = agent.err.mark();
    agent.err.after(mark, "link refused code=bad-proof", PATIENCE);
    assert!(agent.is_running(), "it keeps trying, slower and slower");
    let row = world.row("devbox");
    assert_eq!((verdict(&row).as_str(), &row["handshakes"]), ("waiting/refused", &0.into()), "{row}");
    let once = world.agent("devbox", broker.address(), &["--once", "--token-file", &file, "--timeout", "2s"]);
    let once = once.finish(PATIENCE);
    assert_eq!(once.code, 5, "{once:?}");
    assert!(once.err.contains("bad-proof"), "{once:?}");
    // Without a token it is refused as well, and says what is missing.
    let bare = world.agent("devbox", broker.address(), &["--once", "--timeout", "2s"]).finish(PATIENCE);
    assert_eq!(bare.code, 5, "{bare:?}");
    assert!(!world.log().contains(WRONG) && !agent.err.text().contains(WRONG));
}

#[test]
fn a_broker_that_does_not_know_the_token_gets_nothing() {
    const NONCE: &str = "000102030405060708090a0b0c0d0e0f";
    // What it says after the hello; whether a proof may then be given to it.
    let zeros = "0".repeat(64);
    let cases = [
        (format!("challenge {NONCE} epoch=9 auth=none\n"), String::new(), false),
        ("ok\n".to_owned(), String::new(), false),
        ("ok session=sess-1-1 epoch=1 interval_ms=5000 window_ms=15000\n".to_owned(), String::new(), false),
        (
            format!("challenge {NONCE} epoch=9 auth=hmac-sha256\n"),
            "ok session=sess-1-1 epoch=9 interval_ms=5000 window_ms=15000\n".to_owned(),
            true,
        ),
        (
            format!("challenge {NONCE} epoch=9 auth=hmac-sha256\n"),
            format!("ok session=sess-1-1 epoch=9 interval_ms=5000 window_ms=15000 proof={zeros}\n"),
            true,
        ),
    ];
    let world = World::new();
    let file = world.secret("token", WRONG);
    for (first, second, keyed) in cases {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = format!("tcp:{}", listener.local_addr().unwrap());
        let mut agent = world.agent("devbox", &address, &["--token-file", &file]);
        let (stream, _) = listener.accept().unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let (mut reader, mut writer) = (BufReader::new(stream.try_clone().unwrap()), stream);
        let mut line = || {
            let mut line = String::new();
            reader.read_line(&mut line).unwrap_or_default();
            line
        };
        writer.write_all(b"castra-broker 0.1 ready\n").unwrap();
        assert!(line().starts_with("hello vm:devbox "));
        writer.write_all(first.as_bytes()).unwrap();
        if keyed {
            assert!(line().starts_with("proof "));
            writer.write_all(second.as_bytes()).unwrap();
        }
        assert_eq!(line(), "", "after {first:?} and {second:?} nothing more is said to it");
        let said = agent.err.after(0, "broker unproven", PATIENCE);
        assert!(said.contains("WARN") && said.contains("retry_ms="), "{said}");
        let info = world.spawn(&["info", "--json", "--socket", world.path("devbox.sock").to_str().unwrap()]);
        let info = info.finish(PATIENCE).json();
        assert_ne!(info["link"]["state"], "up", "{info}");
        assert!(info["link"]["last_error"].as_str().unwrap().contains("broker_unproven"), "{info}");
        assert!(agent.is_running());
        let mark = agent.err.mark();
        agent.err.after(mark.saturating_sub(1), "link dialing", Duration::from_secs(15));
    }
}
