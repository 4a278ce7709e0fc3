//! The manager against a guest that is played by bytes, on its link and over HTTP.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;

use serde_json::{Value, json};

use crate::support::{Keyed, PATIENCE};
use crate::worlds::Site;

/// One request, and its whole answer: the status and the body.
fn ask(port: u16, head: &str, headers: &[(&str, &str)], body: &str) -> (u16, String) {
    let mut text = format!("{head} HTTP/1.1\r\n");
    let host = ("Host", format!("127.0.0.1:{port}"));
    if !headers.iter().any(|(name, _)| *name == "Host") {
        text.push_str(&format!("{}: {}\r\n", host.0, host.1));
    }
    for (name, value) in headers {
        text.push_str(&format!("{name}: {value}\r\n"));
    }
    if !body.is_empty() || head.starts_with("POST") {
        text.push_str(&format!("Content-Type: application/json\r\nContent-Length: {}\r\n", body.len()));
    }
    text.push_str(&format!("\r\n{body}"));
    let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    stream.set_read_timeout(Some(2 * PATIENCE)).unwrap();
    stream.write_all(text.as_bytes()).unwrap();
    let mut reader = BufReader::new(stream);
    let mut line = String::new();
    reader.read_line(&mut line).unwrap();
    let status = line.split(' ').nth(1).unwrap_or_else(|| panic!("{head}: {line:?}")).parse().unwrap();
    let mut length = 0;
    loop {
        let mut header = String::new();
        reader.read_line(&mut header).unwrap();
        let Some((name, value)) = header.trim_end().split_once(':') else { break };
        if name.eq_ignore_ascii_case("content-length") {
            length = value.trim().parse().unwrap();
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).unwrap();
    (status, String::from_utf8(body).unwrap())
}

/// A keyed guest that reads its frames one by one.
struct Guest {
    keyed: Keyed,
    read: u64,
}

impl Guest {
    fn join(site: &Site) -> Self {
        let port = site.broker.as_ref().unwrap().port();
        let mut keyed = Keyed::begin_with(port, "web-1", &site.token, "attach-v1,proof-v1");
        assert!(keyed.prove().starts_with("ok "));
        Self { keyed, read: 0 }
    }

    /// The next frame of a type; what comes before it is dropped, but a challenge is answered.
    fn frame(&mut self, kind: &str) -> Value {
        loop {
            let frame = self.keyed.frame(self.read).unwrap_or_else(|| panic!("no {kind}"));
            self.read += 1;
            let frame: Value = serde_json::from_str(&frame).unwrap();
            if frame["type"] == "challenge" {
                let proof = json!({"type": "proof", "seq": frame["seq"], "proof": frame["nonce"]});
                self.keyed.send_frame(&proof.to_string());
            }
            if frame["type"] == kind {
                return frame;
            }
        }
    }
}

#[test]
fn the_managers_handshake_and_every_endpoint_are_as_specified() {
    let site = Site::with_manager(&["--guest", "web-1"]);
    let port = site.http.port;
    let mut guest = Guest::join(&site);
    site.does(&["adopt", "web-1", "--no-wait"]);
    let handshake = guest.frame("manager_handshake");
    let keys: Vec<&str> = handshake.as_object().unwrap().keys().map(String::as_str).collect();
    for key in [
        "schema",
        "handshake_id",
        "handshake_kind",
        "session_id",
        "private_beach_id",
        "manager_url",
        "controller_token",
        "lease_expires_at_ms",
        "lease_ttl_ms",
        "controller_auto_attach",
        "stale_session_idle_secs",
        "viewer_health_interval_secs",
    ] {
        assert!(keys.contains(&key), "{key} is missing: {keys:?}");
    }
    let block = &handshake["controller_auto_attach"];
    assert_eq!((&handshake["schema"], &handshake["handshake_kind"]), (&json!(1), &json!("renegotiate")));
    assert_eq!((&block["ttl_ms"], &block["manager_url"]), (&json!(600_000), &json!(site.http.url())));
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let (session, beach) = (text(&handshake["session_id"]), text(&handshake["private_beach_id"]));
    let (token, code, id) =
        (text(&handshake["controller_token"]), text(&block["attach_code"]), text(&handshake["handshake_id"]));
    let bearer = format!("Bearer {token}");
    let good = [("Authorization", bearer.as_str()), ("x-beach-handshake-id", id.as_str())];
    let attach = format!("POST /private-beaches/{beach}/sessions/attach-by-code");
    let body = json!({"session_id": session, "code": code}).to_string();
    let wrong = json!({"session_id": session, "code": "CODE-42"}).to_string();
    let stranger = json!({"session_id": "nobody", "code": code}).to_string();

    // Nothing is polled before.
    let poll = format!("GET /sessions/{session}/actions/poll");
    assert_ne!(ask(port, &poll, &good, "").0, 200, "polled before it was attached");
    // What is refused, and how.
    let (status, answer) = ask(port, &attach, &good, &wrong);
    let answer: Value = serde_json::from_str(&answer).unwrap();
    assert_eq!(
        (status, &answer["error"], &answer["message"]),
        (400, &json!("bad_request"), &json!("invalid_code"))
    );
    let other = "POST /private-beaches/other/sessions/attach-by-code";
    let evil = [good[0], good[1], ("Host", "evil.example")];
    let browser = [good[0], good[1], ("Origin", "http://127.0.0.1")];
    let query = format!("{attach}?controller_token={token}");
    for (status, head, headers, body) in [
        (401, attach.as_str(), &good[1..], &body),
        (401, &attach, &[("Authorization", "Bearer nobody")][..], &body),
        (404, other, &good[..], &body),
        (404, &attach, &good, &stranger),
        (421, &attach, &evil, &body),
        (403, &attach, &browser, &body),
        (400, &query, &good[1..], &body),
        (404, "GET /nowhere", &good, &String::new()),
        (405, "GET /private-beaches/b/sessions/attach-by-code", &good, &String::new()),
    ] {
        assert_eq!(ask(port, head, headers, body).0, status, "{head} {headers:?}");
    }
    assert_eq!(site.attachment()["stage"], "pending");
    // What is right, twice: the answer may have been lost.
    let (status, first) = ask(port, &attach, &good, &body);
    assert_eq!(status, 200, "{first}");
    assert!(!first.contains(&token) && !first.contains(&code), "{first}");
    let answer: Value = serde_json::from_str(&first).unwrap();
    assert_eq!((&answer["ok"], &answer["attach_method"]), (&json!(true), &json!("code")));
    assert_eq!(
        (&answer["session"]["session_id"], &answer["session"]["private_beach_id"]),
        (&json!(session), &json!(beach))
    );
    assert_eq!(ask(port, &attach, &good, &body).0, 200, "the same once more");
    assert_eq!(site.attachment()["stage"], "attached");

    // An action stays until it is acknowledged.
    let payload = "{\"bytes\":\"ls\\n\"}";
    site.does(&["action", "send", "web-1", "--payload", payload, "--no-wait"]);
    let actions = || -> Value {
        let (status, actions) = ask(port, &poll, &good[..1], "");
        assert_eq!(status, 200, "{actions}");
        serde_json::from_str(&actions).unwrap()
    };
    let polled = actions();
    assert_eq!(
        (&polled[0]["action_type"], &polled[0]["payload"]),
        (&json!("terminal_write"), &json!({"bytes": "ls\n"}))
    );
    assert_eq!(actions()[0]["id"], polled[0]["id"], "a poll removes nothing");
    let (status, lease) = ask(port, &format!("POST /sessions/{session}/lease"), &good[..1], "");
    let lease: Value = serde_json::from_str(&lease).unwrap();
    assert_eq!((status, &lease["lease_ttl_ms"]), (200, &json!(30_000)), "{lease}");
    let ack = json!([{"id": polled[0]["id"], "status": "ok"}, {"id": "unknown", "status": "ok"}]).to_string();
    let (status, answer) = ask(port, &format!("POST /sessions/{session}/actions/ack"), &good[..1], &ack);
    assert_eq!((status, answer.as_str()), (200, "{\"acknowledged\":true}"));
    assert_eq!(site.attachment()["queued"], 0);

    // On a link that says so, actions come as frames.
    guest.keyed.send_frame(&json!({"type": "attached", "session_id": session}).to_string());
    site.await_attachment("on its link", |row| row["route"] == "link");
    site.does(&["action", "send", "web-1", "--payload", payload, "--no-wait"]);
    let action = guest.frame("action");
    assert_eq!(
        (&action["action_type"], &action["payload"]),
        (&json!("terminal_write"), &json!({"bytes": "ls\n"}))
    );
    assert!(action["ttl_ms"].as_u64().is_some_and(|left| left <= 600_000), "{action}");
    let ack =
        json!({"type": "action_ack", "id": action["id"], "status": "rejected", "error_code": "no_terminal"});
    guest.keyed.send_frame(&ack.to_string());
    assert_eq!(guest.frame("action_settled")["id"], action["id"]);
    guest.keyed.send_frame(&json!({"type": "lease_renew", "session_id": session}).to_string());
    assert_eq!(guest.frame("lease")["lease_ttl_ms"], 30_000);

    site.does(&["release", "web-1"]);
    assert_eq!(guest.frame("manager_detach")["session_id"], json!(session));
    let (status, _) = ask(port, &poll, &good[..1], "");
    assert!(status == 401 || status == 404, "{status}");
    site.assert_no_leaks();
}
