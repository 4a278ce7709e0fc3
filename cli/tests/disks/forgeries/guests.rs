//! Guests that write whatever they like on their links.

use serde_json::{Value, json};

use super::texts::{Forger, raw};
use super::{every_file, every_view};
use crate::floods::hang_up;
use crate::support::{Keyed, Link, Terminal, World};

const VIEWS: [&[&str]; 17] = [
    &["status"],
    &["status", "--json"],
    &["events"],
    &["events", "--json"],
    &["logs"],
    &["peers", "devbox"],
    &["peers", "devbox", "--json"],
    &["inbox", "devbox"],
    &["inbox", "devbox", "--json"],
    &["inbox", "keyed"],
    &["attachments"],
    &["attachments", "--json"],
    &["action", "list", "keyed"],
    &["action", "list", "keyed", "--json"],
    &["token", "list"],
    &["info"],
    &["info", "--json"],
];

pub(super) fn attack(world: &World, forger: &mut Forger, attempts: usize) {
    let calm = ["--window", "120s", "--interval", "40s", "--guest", "devbox", "--guest", "sink"];
    let broker = world.broker(&calm);
    let port = broker.port();
    let token = world.json(&["token", "issue", "keyed", "--json"])["token"].as_str().unwrap().to_owned();
    for guest in ["devbox", "keyed"] {
        assert_eq!(world.castra(&["peer", "link", guest, "sink"]).code, 0);
    }
    lines(port, forger, attempts / 2);
    frames(port, forger, attempts / 4);
    keyed_frames(world, port, &token, forger, attempts / 4);
    every_view(world, &VIEWS);
    // It was seen, and it was written down so that nobody is harmed.
    let log = world.log();
    let told = log.lines().filter(|line| line.contains("guest did not attach") && line.contains("reason=f"));
    assert!(told.count() > 0, "nothing of it is in the log: {log}");
    let text = world.castra(&["inbox", "sink"]);
    assert!(text.out.contains("\\u{1b}"), "{text:?}");
    super::says_nothing_raw(&text, "castra inbox sink");
    super::says_nothing_raw(&world.castra(&["inbox", "sink", "--json"]), "castra inbox sink --json");
    console(world);
    assert_eq!(world.castra(&["down"]).code, 0);
    super::texts::is_clean("the broker's standard error", broker.process.err.text().as_bytes());
    every_file(world);
}

/// A person looks at what came for `sink`: what the console writes is its own.
fn console(world: &World) {
    let terminal = Terminal::run(&world.command(&["console", "sink"]), 50, 160);
    terminal.shows("MESSAGES");
    // The newest messages are on the screen, each with its number.
    terminal.shows(": f");
    let bytes = terminal.bytes();
    let text = String::from_utf8(bytes).unwrap();
    for foreign in
        ["\u{1b}]", "\u{1b}P", "\u{1b}_", "\u{1b}c", "\u{1b}[6n", "\u{7}", "\u{0}", "\u{8}", "\u{7f}"]
    {
        assert!(!text.contains(foreign), "{foreign:?} came through: {}", text.escape_debug());
    }
    let visible: String = text.chars().filter(|shown| !matches!(shown, '\u{1b}' | '\r')).collect();
    assert_eq!(raw(&visible), None, "{}", text.escape_debug());
    terminal.press(":q\r");
    assert_eq!(terminal.ends(), 0);
}

/// The first line of a link: names, words, capabilities, whole lines.
fn lines(port: u16, forger: &mut Forger, attempts: usize) {
    for attempt in 0..attempts {
        let mut line = match attempt % 8 {
            0 => format!("hello vm:{} capabilities=proof-v1", forger.line()).into_bytes(),
            1 => format!("hello vm:devbox capabilities=proof-v1,{}", forger.line()).into_bytes(),
            2 => {
                format!("hello vm:devbox capabilities={} boot={}", forger.line(), forger.line()).into_bytes()
            }
            3 => format!("hello vm:devbox {}={}", forger.line(), forger.line()).into_bytes(),
            4 => format!("hello vm:devbox nonce={} capabilities=proof-v1", forger.line()).into_bytes(),
            5 => [b"hello vm:", &forger.bytes()[..]].concat(),
            6 => forger.bytes(),
            _ => format!("hello vm:old{} capabilities=metrics", forger.line()).into_bytes(),
        };
        line.push(b'\n');
        let mut link = Link::tcp(port);
        link.try_send(&line);
        if attempt % 3 == 0 {
            // And what is said in place of a proof.
            let proof = [b"proof ", &forger.bytes()[..], b"\n"].concat();
            link.try_send(&proof);
        }
        hang_up(&mut link);
    }
}

/// Frames of a guest that is in; some of them end the link, and the next one begins another.
fn frames(port: u16, forger: &mut Forger, attempts: usize) {
    let mut sent = 0;
    while sent < attempts {
        let mut link = prove(port);
        // What is answered, and then what may end the link, another one each time.
        for kind in [3, 1, 5, 2, 4, sent / 6 % 20] {
            let frame = frame(forger, kind);
            link.try_send(&framed(&frame));
            sent += 1;
        }
        hang_up(&mut link);
    }
}

fn prove(port: u16) -> Link {
    let mut link = Link::greeted(port);
    let challenge = link.hello("devbox", ",peers-v1,attach-v1,terminals-v1");
    link.send(format!("proof {}\n", challenge.nonce).as_bytes());
    let ok = link.line();
    assert!(ok.starts_with("ok session="), "{ok}");
    link.send_frame(&json!({"type": "peer_policy", "policy": "accept"}).to_string());
    link
}

fn framed(text: &[u8]) -> Vec<u8> {
    [&u32::try_from(text.len()).unwrap().to_be_bytes()[..], text].concat()
}

/// A frame of each kind, with a forged text in each of its fields in turn.
fn frame(forger: &mut Forger, kind: usize) -> Vec<u8> {
    let text = forger.text();
    let frame: Value = match kind {
        0 => json!({"type": "peer_policy", "policy": text}),
        1 => json!({"type": "peer_register", "id": 1, "name": text}),
        2 => json!({"type": "peer_unregister", "id": 2, "name": text}),
        3 | 4 => json!({"type": "peer_send", "id": 3, "to": "sink", "text": text, "queue": true}),
        5 => json!({"type": "peer_send", "id": 4, "to": text, "text": "x", "key": text}),
        6 => json!({"type": "peer_answer", "id": 5, "accept": false, "reason": text}),
        7 => json!({"type": "peer_ack", "id": text}),
        8 => json!({"type": text}),
        9 => json!({"type": "bye", "code": text, "text": text}),
        10 => json!({"type": "goodbye", "reason": text}),
        11 => json!({"type": "attach_state", "state": text, "code": text, "message": text}),
        12 => json!({"type": "attach_refused", "code": text, "message": text, "handshake_id": text}),
        13 => {
            json!({"type": "action_ack", "id": text, "status": text, "error_code": text, "error_message": text})
        }
        14 => json!({"type": "term_close", "stream": 1, "reason": text}),
        15 => json!({"type": "term_opened", "stream": text}),
        16 => json!({"type": "proof", "seq": text, "proof": text}),
        17 => return forger.bytes(),
        18 => return [b"{\"type\":\"", &forger.bytes()[..], b"\"}"].concat(),
        _ => json!({"type": "pong", "id": text, text.clone(): text}),
    };
    frame.to_string().into_bytes()
}

/// The same of a guest with a key, which a manager has adopted: more is listened to.
fn keyed_frames(world: &World, port: u16, token: &str, forger: &mut Forger, attempts: usize) {
    let mut sent = 0;
    while sent < attempts {
        let capabilities = "attach-v1,peers-v1,proof-v1,terminals-v1";
        let mut guest = Keyed::begin_with(port, "keyed", token, capabilities);
        let ok = guest.prove();
        assert!(ok.starts_with("ok session="), "{ok}");
        if sent == 0 {
            assert_eq!(world.castra(&["adopt", "keyed", "--link", "--no-wait"]).code, 0);
        }
        let handshake = handshake(&mut guest);
        for _ in 0..8 {
            let text = forger.text();
            let session = handshake["session_id"].clone();
            let frame = match sent % 5 {
                0 => {
                    json!({"type": "attach_state", "session_id": session, "handshake_id": handshake["handshake_id"],
                            "attached": false, "attempt": 1, "failure_count": 1, "last_attempt_age_ms": 1,
                            "next_retry_ms": null, "last_error": {"code": text, "message": text}})
                }
                1 => {
                    json!({"type": "attach_state", "session_id": text, "handshake_id": text, "attached": false,
                            "attempt": 1, "failure_count": 1, "last_error": {"code": "rejected", "message": text}})
                }
                2 => json!({"type": "action_ack", "id": text, "status": "rejected", "error_code": text}),
                3 => json!({"type": "attach", "session_id": session, "code": text}),
                _ => serde_json::from_slice(&frame(forger, sent % 20)).unwrap_or(Value::Null),
            };
            if !frame.is_null() {
                let json = frame.to_string();
                guest.send_frame(&json);
            }
            sent += 1;
        }
        hang_up(&mut guest.link);
    }
}

/// The handshake that the broker offers, or nothing if it has none for now.
fn handshake(guest: &mut Keyed) -> Value {
    for count in 0..4 {
        let Some(frame) = guest.frame(count) else { break };
        let frame: Value = serde_json::from_str(&frame).unwrap();
        if frame["type"] == "manager_handshake" {
            return frame;
        }
    }
    Value::Null
}
