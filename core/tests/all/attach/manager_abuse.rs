//! HTTP clients that don't behave: every connection has a bound in time, in bytes and
//! in number, and every cut of the bytes gives the same answers.
#![allow(clippy::unwrap_used)]

use crate::common::ms;
use crate::managing;
use crate::managing::{Answer, Shore, Told, attach_request, get, poll, post, secs};
use castra_core::Input;
use castra_core::boundary::CloseReason;
use castra_core::id::ConnId;
use serde_json::json;

fn attached() -> (Shore, Told) {
    let mut shore = Shore::http();
    shore.join("web-1");
    shore.ask("adopt", json!({"guest": "web-1", "wait": false}));
    let told = shore.told("web-1");
    assert_eq!(shore.post_attach(&told).status, 200);
    (shore, told)
}

/// What bytes give, sent in these pieces.
fn answers(shore: &mut Shore, pieces: &[&[u8]]) -> (Vec<Answer>, bool) {
    let conn = shore.connect();
    for piece in pieces {
        if !shore.world.is_closed(conn) {
            shore.write(conn, piece);
        }
    }
    let found = shore.answers(conn);
    let finished = shore.world.wires[&conn].finished || shore.world.is_closed(conn);
    if !shore.world.is_closed(conn) {
        shore.world.close(conn);
    }
    (found, finished)
}

#[test]
fn every_cut_of_the_bytes_gives_the_same_answers() {
    let (mut shore, told) = attached();
    let lease = post(&format!("/sessions/{}/lease", told.session), &told.token, "{}");
    let ack = post(&format!("/sessions/{}/actions/ack", told.session), &told.token, "[]");
    let streams = [
        [&*lease, &attach_request(&told), &ack, &get("/nothing", "t")].concat(),
        [&*lease, "GET / HTTP/1.1\r\nHost: x\r\nBad Header\r\n\r\n", &lease].concat(),
        format!("\r\n{lease}{}", lease.replace("HTTP/1.1", "HTTP/1.0")) + &ack,
        lease.replace("Content-Length: 2", "Content-Length: 2\r\nContent-Length: 2") + &lease,
        lease.replace("Content-Length: 2", "Transfer-Encoding: chunked") + "2\r\n{}\r\n0\r\n\r\n",
        lease.replace("Content-Length: 2", "Content-Length: 65537"),
        format!("{ack}GET / HTTP/1.1\r\nX: {}\r\n\r\n", "y".repeat(9000)),
        "\x16\x03\x01\x02\n\x01".to_owned(),
    ];
    for stream in streams {
        let bytes = stream.as_bytes();
        let whole = answers(&mut shore, &[bytes]);
        assert!(!whole.0.is_empty(), "{stream}");
        for cut in 1..bytes.len() {
            assert_eq!(
                answers(&mut shore, &[&bytes[..cut], &bytes[cut..]]),
                whole,
                "cut at {cut} of {stream}"
            );
        }
        let drip: Vec<&[u8]> = bytes.chunks(1).collect();
        assert_eq!(answers(&mut shore, &drip), whole, "byte by byte: {stream}");
    }
}

#[test]
fn what_is_no_request_is_refused_with_its_status_and_ends_the_connection() {
    let (mut shore, told) = attached();
    let lease = post(&format!("/sessions/{}/lease", told.session), &told.token, "{}");
    let with = |field: &str| lease.replace("Host:", &format!("{field}\r\nHost:"));
    for (request, status) in [
        ("hello\r\n\r\n".to_owned(), 400),
        ("GET / HTTP/2.0\r\n\r\n".to_owned(), 400),
        ("GET http://10.0.2.2/ HTTP/1.1\r\nHost: 10.0.2.2\r\n\r\n".to_owned(), 400),
        ("OPTIONS * HTTP/1.1\r\nHost: 10.0.2.2\r\n\r\n".to_owned(), 400),
        (with("Transfer-Encoding: chunked"), 501),
        (with("Expect: 100-continue"), 417),
        (with("Content-Length: 2"), 400),
        (with("Host: 10.0.2.2"), 400),
        (with("Authorization: Bearer other"), 400),
        (lease.replace("Content-Length: 2", "Content-Length: +2"), 400),
        (lease.replace("Content-Length: 2", "Content-Length: "), 400),
        (lease.replace("Content-Length: 2", "Content-Length: 2, 2"), 400),
        (lease.replace("Content-Length: 2", "Content-Length: 99999999999999999999999"), 413),
        (with(&"X: y\r\n".repeat(70)), 431),
        (with(&format!("X: {}", "y".repeat(8200))), 431),
        (format!("GET /{} HTTP/1.1\r\n", "y".repeat(9000)), 431),
    ] {
        let conn = shore.connect();
        shore.write(conn, request.as_bytes());
        let found = shore.answers(conn);
        assert_eq!(found.iter().map(|answer| answer.status).collect::<Vec<_>>(), [status], "{request}");
        assert!(found[0].head.contains("Connection: close"));
        // What still comes is read and dropped, for a while, so that the answer arrives.
        assert!(shore.world.wires[&conn].finished && !shore.world.is_closed(conn), "{request}");
        shore.write(conn, lease.as_bytes());
        assert!(shore.answers(conn).is_empty());
        shore.pass(secs(2));
        assert!(shore.world.is_closed(conn));
    }
    assert_eq!(shore.world.broker.sizes().http_clients, 0);
}

#[test]
fn a_request_has_to_be_whole_in_time_however_it_drips() {
    let (mut shore, told) = attached();
    let conn = shore.connect();
    for byte in poll(&told).as_bytes().iter().take(9) {
        shore.write(conn, &[*byte]);
        shore.pass(secs(1));
    }
    assert!(shore.answers(conn).is_empty());
    shore.pass(secs(1));
    assert_eq!(shore.answers(conn)[0].status, 408);
    shore.pass(secs(2));
    assert!(shore.world.is_closed(conn));
    // The body, too.
    let conn = shore.connect();
    shore.write(conn, post("/x", "t", "12345").trim_end_matches('5').as_bytes());
    shore.pass(secs(10));
    assert_eq!(shore.answers(conn)[0].status, 408);
}

#[test]
fn an_idle_connection_ends_silently() {
    let (mut shore, told) = attached();
    let fresh = shore.connect();
    let used = shore.connect();
    shore.pass(secs(59));
    shore.write(used, get("/", &told.token).as_bytes());
    assert_eq!(shore.answers(used).len(), 1);
    shore.pass(secs(1));
    assert!(shore.world.is_closed(fresh) && shore.world.take(fresh).is_empty());
    shore.pass(secs(59));
    assert!(shore.world.is_closed(used));
}

#[test]
fn whoever_says_nothing_or_half_and_goes_is_forgotten() {
    let (mut shore, told) = attached();
    for bytes in ["", "GET", &poll(&told)[..60]] {
        let conn = shore.connect();
        if !bytes.is_empty() {
            shore.write(conn, bytes.as_bytes());
        }
        shore.world.handle(Input::Finished { conn });
        assert_eq!(shore.world.wires[&conn].closed, Some(CloseReason::Finished), "{bytes}");
        assert!(shore.world.take(conn).is_empty());
        let conn = shore.connect();
        if !bytes.is_empty() {
            shore.write(conn, bytes.as_bytes());
        }
        shore.world.close(conn);
    }
    assert_eq!(shore.world.broker.sizes().http_clients, 0);
}

#[test]
fn whoever_ends_its_own_direction_is_still_answered() {
    let (mut shore, told) = attached();
    let conn = shore.connect();
    shore.stuck = true;
    let id = {
        shore.stuck = false;
        shore.say("web-1", &format!(r#"{{"type":"attached","session_id":"{}"}}"#, told.session));
        let id = shore.queue("web-1");
        shore.stuck = true;
        id
    };
    let ack = json!({"id": id, "status": "ok"}).to_string();
    shore.write(conn, post(&format!("/sessions/{}/actions/ack", told.session), &told.token, &ack).as_bytes());
    shore.world.handle(Input::Finished { conn });
    assert!(!shore.world.is_closed(conn));
    shore.release();
    assert_eq!(shore.answers(conn)[0].status, 200);
    assert!(shore.world.is_closed(conn));
    // A poll ends at once: nobody is there to hear of what comes.
    shore.leave("web-1");
    let conn = shore.connect();
    shore.write(conn, poll(&told).as_bytes());
    shore.world.handle(Input::Finished { conn });
    assert_eq!(shore.answers(conn)[0].body, json!([]));
    assert!(shore.world.is_closed(conn));
}

#[test]
fn requests_that_come_together_are_answered_in_order_one_at_a_time() {
    let (mut shore, told) = attached();
    let lease = post(&format!("/sessions/{}/lease", told.session), &told.token, "{}");
    shore.leave("web-1");
    let conn = shore.connect();
    shore.write(conn, [&*poll(&told), &lease, &poll(&told)].concat().as_bytes());
    assert!(shore.answers(conn).is_empty(), "the poll comes first");
    let id = shore.queue("web-1");
    let found = shore.answers(conn);
    assert_eq!(found.len(), 3);
    assert_eq!(
        (&found[0].body[0]["id"], &found[1].body["lease_ttl_ms"], &found[2].body[0]["id"]),
        (&json!(id), &json!(30_000), &json!(id))
    );
}

#[test]
fn whoever_sends_on_while_it_waits_is_not_read() {
    let (mut shore, told) = attached();
    shore.leave("web-1");
    let conn = shore.connect();
    shore.write(conn, poll(&told).as_bytes());
    let lease = post(&format!("/sessions/{}/lease", told.session), &told.token, &" ".repeat(50_000));
    shore.write(conn, lease.as_bytes());
    assert_eq!(shore.world.wires[&conn].credit, None);
    shore.write(conn, lease.as_bytes());
    assert_eq!(shore.world.wires[&conn].credit, Some(0));
    shore.queue("web-1");
    assert_eq!(shore.answers(conn).len(), 3);
    assert_eq!(shore.world.wires[&conn].credit, Some(usize::MAX));
}

#[test]
fn whoever_does_not_read_its_answer_is_cut_off() {
    let (mut shore, told) = attached();
    shore.say("web-1", &format!(r#"{{"type":"attached","session_id":"{}"}}"#, told.session));
    let params = json!({"guest": "web-1", "action_type": "x", "payload": {"bytes": "x".repeat(10_000)}, "wait": false});
    shore.ask("action_send", params);
    shore.leave("web-1");
    let conn = shore.connect();
    shore.world.give_room(conn, 4000);
    shore.write(conn, poll(&told).as_bytes());
    assert_eq!(shore.world.wires[&conn].bytes.len(), 4000);
    shore.world.give_room(conn, 4000);
    shore.pass(ms(9999));
    assert!(!shore.world.is_closed(conn));
    shore.pass(ms(1));
    assert!(shore.world.is_closed(conn));
    // One that reads gets all of it.
    let conn = shore.connect();
    shore.world.give_room(conn, 4000);
    shore.write(conn, poll(&told).as_bytes());
    for _ in 0..3 {
        shore.world.give_room(conn, 4000);
    }
    assert_eq!(shore.answers(conn)[0].body.as_array().unwrap().len(), 1);
}

#[test]
fn connections_have_a_bound_and_the_door_is_shut_meanwhile() {
    let mut shore = Shore::with(|config| {
        managing::with_http(config);
        config.manager.connections_max = 3;
    });
    let conns: Vec<ConnId> = (0..3).map(|_| shore.connect()).collect();
    assert_eq!(shore.world.doors["manager"], 0);
    let late = shore.connect();
    assert!(shore.world.is_closed(late));
    shore.world.close(conns[1]);
    assert_eq!(shore.world.doors["manager"], usize::MAX);
    let next = shore.connect();
    assert!(!shore.world.is_closed(next));
    assert_eq!(shore.world.broker.sizes().http_clients, 3);
}

#[test]
fn refusals_are_written_down_but_not_all_of_a_flood() {
    let (mut shore, _) = attached();
    let before = shore.count("manager.request.refused");
    for _ in 0..100 {
        shore.exchange(&get("/sessions/x/actions/poll", "t"));
    }
    assert_eq!(shore.count("manager.request.refused") - before, 10);
    shore.pass(secs(1));
    shore.exchange(&get("/sessions/x/actions/poll", "t"));
    assert_eq!(shore.count("manager.request.refused") - before, 11);
}
