//! Clients of the control socket, and of the manager's address.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;

use serde_json::{Value, json};

use super::texts::{Forger, is_clean};
use super::{every_file, every_view, says_nothing_raw};
use crate::support::{PATIENCE, World};

const METHODS: [&str; 17] = [
    "status",
    "wait",
    "ping",
    "events",
    "token_issue",
    "token_revoke",
    "forget",
    "terminals",
    "register_peer",
    "unregister_peer",
    "list_peers",
    "send_to_peer",
    "inbox",
    "restore",
    "peer_answer",
    "info",
    "adopt",
];

const FIELDS: [&str; 16] = [
    "guest",
    "guests",
    "name",
    "source",
    "from",
    "to",
    "text",
    "key",
    "since",
    "kinds",
    "for",
    "after",
    "reason",
    "private_beach_id",
    "payload",
    "timeout_ms",
];

pub(super) fn attack(world: &World, forger: &mut Forger, attempts: usize) {
    let broker = world.broker(&["--guest", "devbox", "--guest", "sink"]);
    assert_eq!(world.castra(&["peer", "link", "devbox", "sink"]).code, 0);
    let socket = world.state().join("control.sock");
    for chunk in 0..attempts.div_ceil(8) {
        let mut stream = UnixStream::connect(&socket).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        for number in 0..8 {
            let mut request = request(forger, chunk * 8 + number);
            request.push(b'\n');
            // It may have hung up on us.
            let _ = stream.write_all(&request);
        }
        let _ = stream.shutdown(std::net::Shutdown::Write);
        let mut answers = vec![];
        let _ = stream.read_to_end(&mut answers);
        for line in String::from_utf8(answers).unwrap().lines() {
            // What goes back to the one who wrote it is JSON; what is said of it is safe.
            let answer: Value = serde_json::from_str(line).unwrap();
            if let Some(message) = answer["data"]["message"].as_str() {
                is_clean("an error of the control socket", message.as_bytes());
            }
        }
    }
    // The same through the program's own arguments.
    for number in 0..attempts / 20 {
        let text = forger.argument();
        let args: Vec<&str> = match number % 10 {
            0 => vec!["status", &text],
            1 => vec!["token", "issue", &text],
            2 => vec!["peer", "link", "devbox", &text],
            3 => vec!["peer", "send", "devbox", "sink", &text],
            4 => vec!["peer", "send", "devbox", &text, "x"],
            5 => vec!["events", "--kind", &text],
            6 => vec!["inbox", &text],
            7 => vec!["adopt", "devbox", "--no-wait", "--beach", &text],
            8 => vec!["token", "issue", "devbox", "--out", &text],
            _ => vec!["logs", &text],
        };
        let mut command = world.command(&args);
        command.current_dir(world.path("tmp"));
        says_nothing_raw(
            &crate::support::Process::spawn(command).finish(PATIENCE),
            &format!("castra {args:?}"),
        );
    }
    let views: [&[&str]; 11] = [
        &["status"],
        &["status", "--json"],
        &["events"],
        &["events", "--json"],
        &["logs"],
        &["peers", "devbox"],
        &["inbox", "sink"],
        &["inbox", "sink", "--json"],
        &["token", "list"],
        &["token", "list", "--json"],
        &["attachments"],
    ];
    every_view(world, &views);
    assert_eq!(world.castra(&["down"]).code, 0);
    is_clean("the broker's standard error", broker.process.err.text().as_bytes());
    every_file(world);
}

fn request(forger: &mut Forger, number: usize) -> Vec<u8> {
    let text = forger.text();
    match number % 8 {
        0 => json!({"id": 1, "method": text, "params": {}}).to_string().into_bytes(),
        1 => json!({"id": text, "method": "status", "params": {}}).to_string().into_bytes(),
        2 => forger.bytes().into_iter().filter(|byte| *byte != b'\n').collect(),
        3 => json!({"id": 1, "method": "send_to_peer", "params": {"from": "devbox", "to": "sink", "text": text}})
            .to_string()
            .into_bytes(),
        4 => json!({"id": 1, "method": "status", text: {}}).to_string().into_bytes(),
        _ => {
            let mut params = json!({"guest": "devbox", "name": "devbox", "to": "sink", "text": "x", "timeout_ms": 1});
            params[FIELDS[number / 8 % FIELDS.len()]] = json!(text);
            let method = METHODS[forger.below(METHODS.len())];
            json!({"id": 1, "method": method, "params": params}).to_string().into_bytes()
        }
    }
}

pub(super) fn attack_over_http(forger: &mut Forger, attempts: usize) {
    let world = World::new();
    let broker = world.broker(&["--manager", "127.0.0.1:0", "--guest", "devbox"]);
    let manager = broker.listen.iter().find(|address| address.starts_with("http://")).unwrap();
    let address = manager.strip_prefix("http://").unwrap();
    for attempt in 0..attempts {
        let text = forger.line();
        let request = match attempt % 7 {
            0 => format!("GET /{text} HTTP/1.1\r\nHost: x\r\n\r\n").into_bytes(),
            1 => format!("{text} / HTTP/1.1\r\nHost: x\r\n\r\n").into_bytes(),
            2 => format!("GET / HTTP/1.1\r\nHost: {text}\r\n{text}: {text}\r\n\r\n").into_bytes(),
            3 => format!(
                "GET /sessions/{text}/actions/poll HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {text}\r\n\r\n"
            )
            .into_bytes(),
            4 => {
                let body = json!({"session_id": text, "code": text}).to_string();
                format!(
                    "POST /private-beaches/b/sessions/attach-by-code HTTP/1.1\r\nHost: x\r\n\
                     x-beach-handshake-id: {text}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
                    body.len()
                )
                .into_bytes()
            }
            5 => {
                let body = forger.bytes();
                let head = format!("POST /sessions/s/actions/ack HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\n\r\n", body.len());
                [head.as_bytes(), &body].concat()
            }
            _ => forger.bytes(),
        };
        let mut stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let _ = stream.write_all(&request);
        let _ = stream.shutdown(std::net::Shutdown::Write);
        let mut answer = vec![];
        let _ = stream.read_to_end(&mut answer);
        let answer = String::from_utf8(answer).unwrap().replace("\r\n", "\n");
        is_clean("an answer over HTTP", answer.as_bytes());
    }
    every_view(
        &world,
        &[&["events"], &["events", "--json"], &["logs"], &["status"], &["attachments", "--json"]],
    );
    assert_eq!(world.castra(&["down"]).code, 0);
    is_clean("the broker's standard error", broker.process.err.text().as_bytes());
    every_file(&world);
}
