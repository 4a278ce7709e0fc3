//! Brokers that write whatever they like to an agent, and to the program's own commands.

use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::os::unix::net::UnixListener;

use serde_json::{Value, json};

use super::texts::{Forger, is_clean};
use super::{every_view, says_nothing_raw};
use crate::floods::hang_up;
use crate::support::{Link, PATIENCE, RawBroker, Stream, World, until};

/// What an agent says on standard error and to its own clients.
pub(super) fn attack_an_agent(forger: &mut Forger, attempts: usize) {
    let world = World::new();
    refusals(&world, forger, attempts / 8);
    let mut broker = RawBroker::new();
    let inbox = world.path("inbox");
    let agent =
        world.agent("devbox", &broker.address(), &["--inbox", inbox.to_str().unwrap(), "--peers", "ask"]);
    let mut sent = 0;
    let socket = world.path("devbox.sock");
    let socket = socket.to_str().unwrap();
    while sent < attempts {
        let (_, mut link) = broker.session();
        // Messages, which are taken, and then what may end the link, another one first each time.
        let first = sent;
        for number in 0..60 {
            let text = forger.text();
            let id = format!("msg-{sent:032x}");
            let kind = if number < 50 { 0 } else { 3 + (first / 60 + number) % 7 };
            let frame = match kind {
                0..=2 => {
                    json!({"type": "peer_message", "id": id, "from": "builder", "from_authenticated": true,
                                "text": text, "sent_at": "2026-11-20T10:00:00.000Z", "wake": true})
                }
                3 => json!({"type": "peer_message", "id": text, "from": text, "from_authenticated": true,
                            "text": text, "sent_at": text, "wake": true}),
                4 => json!({"type": "peer_offer", "id": 1, "from": text, "from_authenticated": true}),
                5 => json!({"type": "peer_added", "name": text}),
                6 => json!({"type": "peer_result", "id": 1, "outcome": text, "reason": text, "peer": text}),
                7 => {
                    json!({"type": "manager_handshake", "schema": 1, "handshake_id": text, "session_id": text,
                            "private_beach_id": text, "manager_url": text, "controller_token": text})
                }
                8 => json!({"type": "action", "id": text, "action_type": text, "payload": {"bytes": text}}),
                _ => json!({"type": text, "reason": text}),
            };
            link.try_send(&framed(&frame));
            sent += 1;
        }
        if sent % 120 == 0 {
            let events: [&[&str]; 5] = [
                &["inbox", "--socket", socket],
                &["inbox", "--json", "--socket", socket],
                &["events", "--socket", socket],
                &["events", "--json", "--socket", socket],
                &["info", "--socket", socket],
            ];
            every_view(&world, &events);
        }
        let text = forger.text();
        link.try_send(&framed(&json!({"type": "bye", "code": text, "text": text, "retry_after_ms": 1})));
        hang_up(&mut link);
    }
    let inbox = world.castra(&["inbox", "--socket", socket]);
    assert!(inbox.out.contains("\\u{"), "{inbox:?}");
    is_clean("an agent's standard error", agent.err.text().as_bytes());
}

fn framed(frame: &Value) -> Vec<u8> {
    let text = frame.to_string();
    [&u32::try_from(text.len()).unwrap().to_be_bytes()[..], text.as_bytes()].concat()
}

/// A broker's lines before a session.
fn refusals(world: &World, forger: &mut Forger, attempts: usize) {
    for attempt in 0..attempts.min(64) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = format!("tcp:{}", listener.local_addr().unwrap());
        let text = forger.line();
        let said = std::thread::spawn(move || {
            let mut link = Link::over(Stream::Tcp(listener.accept().unwrap().0));
            let answer = match attempt % 4 {
                0 => format!("error: bad-proof: {text}\n"),
                1 => format!("error: {text}: {text}\n"),
                2 => format!("challenge {text} epoch={text} auth={text}\n"),
                _ => format!("{text}\n"),
            };
            let greeting = if attempt % 5 == 0 { answer.clone() } else { "castra-broker 0.1 ready\n".into() };
            link.try_send(greeting.as_bytes());
            link.try_send(answer.as_bytes());
            hang_up(&mut link);
        });
        let ran = world.agent("devbox", &address, &["--once", "--timeout", "300ms"]).finish(PATIENCE);
        assert_ne!(ran.code, 0);
        says_nothing_raw(&ran, "an agent that a broker refused");
        said.join().unwrap();
    }
}

/// A control socket that answers anything: what a command prints is safe all the same.
pub(super) fn attack_commands(forger: &mut Forger, attempts: usize) {
    let world = World::new();
    std::fs::create_dir(world.state()).unwrap();
    let listener = UnixListener::bind(world.state().join("control.sock")).unwrap();
    let commands: [&[&str]; 20] = [
        &["status"],
        &["status", "--json"],
        &["events"],
        &["events", "--json"],
        &["info"],
        &["info", "--json"],
        &["peers", "devbox"],
        &["peers", "devbox", "--json"],
        &["inbox", "devbox"],
        &["inbox", "devbox", "--json"],
        &["token", "list"],
        &["token", "list", "--json"],
        &["ping", "devbox", "-c", "1"],
        &["attachments"],
        &["attachments", "--json"],
        &["action", "list", "devbox"],
        &["peer", "link", "a", "b"],
        &["peer", "send", "a", "b", "x"],
        &["adopt", "devbox", "--no-wait"],
        &["wait", "devbox", "--timeout", "1s"],
    ];
    for attempt in 0..attempts {
        let (text, kind) = (forger.text(), attempt / commands.len() % 3);
        let listener = listener.try_clone().unwrap();
        let mark = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
        let over = std::sync::Arc::clone(&mark);
        let server = std::thread::spawn(move || answer(&listener, &text, kind, &over));
        let args = commands[attempt % commands.len()];
        let ran = world.castra(
            &[args, &["--timeout", "1s"][..if args.contains(&"--timeout") { 0 } else { 2 }]].concat(),
        );
        says_nothing_raw(&ran, &format!("castra {args:?} of a broker that lies"));
        mark.store(true, std::sync::atomic::Ordering::SeqCst);
        // Nobody may have come: then somebody does.
        let _ = std::os::unix::net::UnixStream::connect(world.state().join("control.sock"));
        assert!(until(PATIENCE, || server.is_finished()));
    }
}

fn answer(listener: &UnixListener, text: &str, kind: usize, over: &std::sync::atomic::AtomicBool) {
    while let Ok((stream, _)) = listener.accept() {
        if over.load(std::sync::atomic::Ordering::SeqCst) {
            return;
        }
        let mut writer = stream.try_clone().unwrap();
        for line in BufReader::new(stream).lines().map_while(Result::ok) {
            let Ok(request) = serde_json::from_str::<Value>(&line) else { return };
            let method = request["method"].as_str().unwrap_or_default();
            let reply = match kind {
                0 => json!({"id": request["id"], "event": "error", "data": {"code": text, "message": text}}),
                1 => {
                    json!({"id": request["id"], "event": "error", "data": {"code": "refused", "message": text}})
                }
                _ => json!({"id": request["id"], "event": text, "data": data(method, text)}),
            };
            let reply = if kind == 2 { named(method, reply) } else { reply };
            if writer.write_all(format!("{reply}\n").as_bytes()).is_err() {
                break;
            }
        }
    }
}

/// The event that a command expects of its method.
fn named(method: &str, mut reply: Value) -> Value {
    let event = match method {
        "ping" => "pong",
        "token_list" => "token_listed",
        "wait" => "waited",
        other => other,
    };
    reply["event"] = json!(event);
    reply
}

fn data(method: &str, text: &str) -> Value {
    let mut row = json!({"name": text, "state": "waiting", "reachable": false, "reason": "stale", "warnings": [text],
        "proven": true, "authenticated": false, "last_handshake_age_ms": 812,
        "last_handshake_at": "2026-01-02T03:04:05.678Z", "session_age_ms": 60211, "window_ms": 15000,
        "interval_ms": 5000, "epoch": 30_064_771_075_u64, "boot": text, "transport": "tcp", "remote": text,
        "rtt_us": 180, "handshakes": 13, "refusals": 0, "takeovers": 0, "capabilities": [text], "peers": [text],
        "attachment": {"text": text}});
    match method {
        "status" => {
            row["name"] = json!("devbox");
            json!({"schema": 1, "as_of": "2026-01-02T03:04:06.000Z", "guests": [row],
                "broker": {"state": "serving", "pid": 1, "version": text, "started_at": "2026-01-02T03:00:00.000Z",
                    "incarnation": 7, "listen": [text], "guests": 1, "reachable": 0}})
        }
        "events" => json!({"cursor": "1-2", "events": [{"cursor": "1-1", "at": "2026-01-02T03:04:06.000Z",
            "guest": "devbox", "kind": "storage.failed", "what": "log", "message": text}]}),
        "inbox" => json!({"messages": [{"id": text, "number": 1, "from": text, "from_authenticated": true,
            "to": text, "text": text, "sent_at": "2026-01-02T03:04:06.000Z", "state": "queued"}]}),
        "list_peers" => {
            json!({"peers": [{"name": text, "visibility": "peer", "state": "live", "reachable": true,
            "last_handshake_age_ms": 1, "queued": 0, "last_sent_at": null, "last_received_at": null}]})
        }
        "token_list" => json!({"tokens": [{"guest": text, "valid": true}]}),
        "info" => {
            json!({"name": text, "pid": 1, "version": text, "listen": [text], "state_dir": text, "uid": 0})
        }
        _ => {
            json!({"guest": text, "message": text, "outcome": text, "reason": text, "rtt_us": 1, "text": text})
        }
    }
}
