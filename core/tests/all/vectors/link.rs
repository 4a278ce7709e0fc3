//! Vectors of the link: lines, proofs, frames.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::Duration;

use castra_core::auth::{Direction, Key, Proof, SessionKey, TAG_DIGITS, Transcript};
use castra_core::event::{Failure, SessionEnd};
use castra_core::id::{Epoch, Nonce};
use castra_core::link::inbox::{self, Inbox, LINE_MAX, RESYNC, SERIAL_FRAME_MAX};
use castra_core::link::line::{self, Auth, BrokerLine, Challenge, GREETING, Hello};
use castra_core::link::message::{self, BadJson, BrokerFrame, GuestFrame};
use castra_core::tunnel::wire::TunnelFrame;
use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;

use crate::vectors::parse::Vector;

pub(crate) fn greeting(vector: &Vector) {
    assert_eq!(vector.line("line"), [GREETING, b"\n"].concat());
}

pub(crate) fn line_length(vector: &Vector) {
    let length = usize::try_from(vector.number("before_end")).expect("a small number");
    let mut sent = vec![b'x'; length];
    sent.push(b'\n');
    let whole = Inbox::default().line(&mut &sent[..], LINE_MAX).is_ok_and(|line| line.is_some());
    let mut inbox = Inbox::default();
    let halved = inbox.line(&mut &sent[..300], LINE_MAX).is_ok_and(|line| line.is_none())
        && inbox.line(&mut &sent[300..], LINE_MAX).is_ok_and(|line| line.is_some());
    let dripped = drip(&sent);
    let expected = match vector.text("result") {
        "line" => true,
        "too-long" => false,
        other => panic!("result {other:?}"),
    };
    assert_eq!((whole, halved, dripped), (expected, expected, expected), "{}", vector.name);
    // 511 bytes without an end wait, 512 don't.
    let unfinished = Inbox::default().line(&mut &sent[..length], LINE_MAX).is_ok();
    assert_eq!(unfinished, expected, "{}", vector.name);
}

fn drip(sent: &[u8]) -> bool {
    let mut inbox = Inbox::default();
    for byte in sent {
        match inbox.line(&mut &[*byte][..], LINE_MAX) {
            Ok(Some(_)) => return true,
            Ok(None) => {}
            Err(_) => return false,
        }
    }
    false
}

pub(crate) fn hello(vector: &Vector) {
    let line = vector.line("line");
    let hello = Hello::parse(&line).unwrap_or_else(|code| panic!("{}: {code}", vector.name));
    assert_eq!(hello.name.as_str(), vector.text("name"));
    assert_eq!(hello.capabilities.as_str(), vector.optional("capabilities").unwrap_or_default());
    let boot = hello.boot.map(|boot| Nonce(boot).to_string());
    assert_eq!(boot.as_deref(), vector.optional("boot"));
    assert_eq!(hello.nonce.map(|nonce| nonce.to_string()).as_deref(), vector.optional("nonce"));
    assert_eq!(hello.once, vector.is("once"));
    let mut again = Vec::new();
    hello.append(&mut again);
    assert_eq!(again == line, vector.is("canonical"), "{}", String::from_utf8_lossy(&again));
}

pub(crate) fn hello_refused(vector: &Vector) {
    let refused = Hello::parse(&vector.line("line")).err().map(Failure::as_str);
    assert_eq!(refused, Some(vector.text("code")), "{}", vector.name);
}

pub(crate) fn challenge(vector: &Vector) {
    let auth = [Auth::None, Auth::Hmac].into_iter().find(|auth| auth.as_str() == vector.text("auth"));
    let challenge = Challenge {
        nonce: vector.parsed("nonce"),
        epoch: Epoch(vector.number("epoch")),
        auth: auth.expect("a known auth"),
    };
    let mut line = Vec::new();
    challenge.append(&mut line);
    assert_eq!(line, vector.line("line"), "{}", vector.name);
    match BrokerLine::parse(line.trim_ascii_end()) {
        BrokerLine::Challenge(read) => assert_eq!(read, challenge),
        other => panic!("{}: {other:?}", vector.name),
    }
}

pub(crate) fn ok(vector: &Vector) {
    let proof = vector.optional("proof").map(|proof| proof.parse::<Proof>().expect("a proof"));
    let ok = line::Ok {
        epoch: Epoch(vector.number("epoch")),
        interval: Duration::from_millis(vector.number("interval_ms")),
        window: Duration::from_millis(vector.number("window_ms")),
        proof,
    };
    let mut line = Vec::new();
    ok.append(&mut line);
    assert_eq!(line, vector.line("line"), "{}", vector.name);
    match BrokerLine::parse(line.trim_ascii_end()) {
        BrokerLine::Ok(read) => {
            assert_eq!((read.epoch, read.interval, read.window), (ok.epoch, ok.interval, ok.window));
            assert_eq!(read.proof.map(|p| p.to_string()), proof.map(|p| p.to_string()));
        }
        other => panic!("{}: {other:?}", vector.name),
    }
}

pub(crate) fn legacy_session(vector: &Vector) {
    let mut line = Vec::new();
    line::append_session(&mut line, Epoch(vector.number("epoch")));
    line.push(b'\n');
    assert_eq!(line, vector.line("line"));
}

pub(crate) fn refusal(vector: &Vector) {
    let code: Failure = serde_json::from_value(vector.text("code").into()).expect("a code");
    let mut line = Vec::new();
    line::append_refusal(&mut line, code, vector.text("text"));
    assert_eq!(line, vector.line("line"));
}

pub(crate) fn broker_line(vector: &Vector) {
    let line = vector.line("line");
    let reads = match BrokerLine::parse(&line) {
        BrokerLine::Greeting => "greeting".to_owned(),
        BrokerLine::Challenge(_) => "challenge".to_owned(),
        BrokerLine::Ok(_) => "ok".to_owned(),
        BrokerLine::BareOk => "bare-ok".to_owned(),
        BrokerLine::Refused(code) => format!("refused {code}"),
        BrokerLine::Unknown => "unknown".to_owned(),
    };
    assert_eq!(reads, vector.text("reads"), "{}", vector.name);
}

pub(crate) fn transcript(vector: &Vector) -> SessionKey {
    let line = vector.line("hello");
    let hello = Hello::parse(&line).expect("a hello");
    let key: Key = vector.parsed("token");
    let (broker, guest) = (vector.parsed("broker_nonce"), hello.nonce.expect("a nonce"));
    let transcript = Transcript::new(&hello.name, &broker, &guest, Epoch(vector.number("epoch")), &line);
    assert_eq!(transcript.as_bytes(), vector.bytes("transcript"), "{}", vector.name);
    assert_eq!(transcript.guest_proof(&key).to_string(), vector.text("guest_proof"));
    assert_eq!(transcript.broker_proof(&key).to_string(), vector.text("broker_proof"));
    let session = transcript.session_key(&key);
    // The core doesn't show a session's key: compare what it tags with what the written key tags.
    let written = vector.bytes("session_key");
    let mut mac = Hmac::<Sha256>::new_from_slice(&written).expect("any length");
    mac.update(b"G\0\0\0\0\0\0\0\x05{}");
    assert_eq!(session.tag(Direction::ToBroker, 5, b"{}")[..], mac.finalize().into_bytes()[..16]);
    session
}

pub(crate) fn tag(vector: &Vector, sessions: &BTreeMap<&str, SessionKey>) {
    let session = &sessions[vector.text("session")];
    let (direction, other) = match vector.text("direction") {
        "G" => (Direction::ToBroker, Direction::ToGuest),
        "B" => (Direction::ToGuest, Direction::ToBroker),
        other => panic!("direction {other:?}"),
    };
    let (count, json) = (vector.number("count"), vector.text("json"));
    let mut sent = Vec::new();
    inbox::append_frame(
        &mut sent,
        false,
        TAG_DIGITS,
        |out| out.extend_from_slice(json.as_bytes()),
        |out, range| session.append_tag(direction, count, range, out),
    );
    assert_eq!(sent, vector.bytes("bytes"), "{}", vector.name);
    assert!(sent.ends_with(vector.text("tag").as_bytes()));
    let payload = &sent[4..];
    assert_eq!(session.open(direction, count, payload), Ok(json.as_bytes()));
    assert!(session.open(other, count, payload).is_err(), "reflected");
    assert!(session.open(direction, count + 1, payload).is_err(), "replayed");
    for index in 0..payload.len() {
        let mut damaged = payload.to_vec();
        damaged[index] ^= 1;
        assert!(session.open(direction, count, &damaged).is_err(), "byte {index} damaged");
    }
    assert!(session.open(direction, count, &payload[..TAG_DIGITS - 1]).is_err(), "cut");
}

pub(crate) fn frame(vector: &Vector) {
    same_frame(vector.text("json"), &vector.bytes("bytes"));
}

/// `json` is sent as `bytes`, and read back however they are cut.
fn same_frame(json: &str, bytes: &[u8]) {
    let mut sent = Vec::new();
    inbox::append_frame(&mut sent, false, 0, |out| out.extend_from_slice(json.as_bytes()), |_, _| {});
    assert_eq!(sent, bytes);
    for cut in 0..=bytes.len() {
        let mut inbox = Inbox::default();
        let (mut head, mut tail) = bytes.split_at(cut);
        let early = inbox.frame(&mut head).expect("no bad length").map(<[u8]>::to_vec);
        assert_eq!(early.is_some(), cut == bytes.len());
        let late = inbox.frame(&mut tail).expect("no bad length").map(<[u8]>::to_vec);
        assert_eq!(early.or(late).as_deref(), Some(json.as_bytes()), "cut at {cut}");
    }
}

pub(crate) fn frame_refused(vector: &Vector) {
    let bytes = vector.bytes("bytes");
    let length = u32::try_from(vector.number("length")).expect("a length");
    assert_eq!(Inbox::default().frame(&mut &bytes[..]), Err(inbox::BadLength { length }));
}

pub(crate) fn message(vector: &Vector) {
    let text = vector.text("message");
    let mut words = text.split(' ');
    let kind = words.next().unwrap_or_default();
    let values: BTreeMap<&str, &str> = words.filter_map(|word| word.split_once('=')).collect();
    let number = |key: &str| values[key].parse::<u64>().expect("a number");
    let nonce = |key: &str| values[key].parse::<Nonce>().expect("a nonce");
    let mut json = Vec::new();
    match kind {
        "challenge" => message::append_challenge(&mut json, number("seq"), &nonce("nonce")),
        "proof" => message::append_proof(&mut json, number("seq"), &nonce("proof")),
        "goodbye" => message::append_goodbye(&mut json),
        "ping" | "pong" => message::append_ping(&mut json, number("id"), kind == "pong"),
        "bye" => {
            let code: SessionEnd = serde_json::from_value(values["code"].into()).expect("a code");
            let retry = values.get("retry_after_ms").map(|_| Duration::from_millis(number("retry_after_ms")));
            message::append_bye(&mut json, code, retry);
        }
        other => panic!("message {other:?}"),
    }
    assert_eq!(String::from_utf8_lossy(&json), vector.text("json"), "{}", vector.name);
    same_frame(vector.text("json"), &vector.bytes("bytes"));
    let read = match kind {
        "challenge" | "bye" => describe_broker(&json),
        _ => describe_guest(&json),
    };
    assert_eq!(read, text, "{}", vector.name);
}

fn describe_broker(json: &[u8]) -> String {
    match BrokerFrame::parse(json) {
        Ok(BrokerFrame::Challenge { seq, nonce }) => format!("challenge seq={seq} nonce={nonce}"),
        Ok(BrokerFrame::Bye(bye)) => match bye.retry_after_ms {
            Some(retry) => format!("bye code={} retry_after_ms={retry}", bye.code),
            None => format!("bye code={}", bye.code),
        },
        other => format!("{other:?}"),
    }
}

fn describe_guest(json: &[u8]) -> String {
    match GuestFrame::parse(json) {
        Err(BadJson) => "bad-json".to_owned(),
        Ok(GuestFrame::Proof(proof)) => format!("proof seq={} proof={}", proof.seq, proof.proof),
        Ok(GuestFrame::Goodbye) => "goodbye".to_owned(),
        Ok(GuestFrame::Ping { id }) => format!("ping id={id}"),
        Ok(GuestFrame::Pong { id }) => format!("pong id={id}"),
        Ok(GuestFrame::Heartbeat) => "heartbeat".to_owned(),
        Ok(GuestFrame::Subscribe { topic }) => format!("subscribe topic={}", topic.as_deref().unwrap_or("-")),
        Ok(GuestFrame::Publish(publish)) => {
            let mut text = format!("publish topic={}", publish.topic.as_deref().unwrap_or("-"));
            if let Some(payload) = publish.payload {
                let _ = write!(text, " payload={}", payload.get());
            }
            text
        }
        Ok(GuestFrame::Request(request)) => {
            let guests: Vec<_> = request.guests.iter().map(|guest| guest.as_str()).collect();
            format!(
                "{} id={} guests={} for={} any={} timeout_ms={}",
                request.kind.as_str(),
                request.id,
                if guests.is_empty() { "-".to_owned() } else { guests.join(",") },
                request.target.map_or("-".to_owned(), |target| format!("{target:?}").to_lowercase()),
                if request.any { "yes" } else { "no" },
                request.timeout_ms.map_or("-".to_owned(), |bound| bound.to_string()),
            )
        }
        Ok(GuestFrame::Peer(request)) => format!("{request:?}"),
        Ok(GuestFrame::Attach(request)) => format!("{request:?}"),
        Ok(GuestFrame::Tunnel(frame)) => {
            let mut bytes = Vec::new();
            match frame.with_data(|data| data.decode(&mut bytes)) {
                Ok(TunnelFrame::Data { stream, .. }) => {
                    let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
                    format!("tunnel stream={stream} data={hex}")
                }
                Ok(frame) => format!("tunnel {frame:?}"),
                Err(BadJson) => "tunnel bad-json".to_owned(),
            }
        }
        Ok(GuestFrame::Unknown(Some(kind))) => format!("unknown {kind}"),
        Ok(GuestFrame::Unknown(None)) => "unknown".to_owned(),
    }
}

/// A frame of managed attach is read, and written as it was.
pub(crate) fn attach_frame(vector: &Vector) {
    let json = vector.text("json");
    let mut written = Vec::new();
    match vector.text("from") {
        "guest" => match GuestFrame::parse(json.as_bytes()) {
            Ok(GuestFrame::Attach(request)) => message::append_json(&mut written, &request),
            other => panic!("{}: {other:?}", vector.name),
        },
        "broker" => match BrokerFrame::parse(json.as_bytes()) {
            Ok(BrokerFrame::Manager(frame)) => message::append_json(&mut written, &frame),
            other => panic!("{}: {other:?}", vector.name),
        },
        other => panic!("{}: nobody is {other:?}", vector.name),
    }
    assert_eq!(String::from_utf8_lossy(&written), json, "{}", vector.name);
}

pub(crate) fn guest_frame(vector: &Vector) {
    let json = vector.line("frame");
    assert_eq!(describe_guest(&json), vector.text("reads"), "{}", vector.name);
}

pub(crate) fn exchange(vector: &Vector) {
    same_frame(vector.text("guest"), &vector.bytes("guest_bytes"));
    assert_eq!(describe_guest(vector.text("guest").as_bytes()), vector.text("reads"), "{}", vector.name);
    same_frame(vector.text("answer"), &vector.bytes("answer_bytes"));
}

fn frame_of(length: u64, tag: usize, serial: bool) -> Vec<u8> {
    let length = usize::try_from(length).expect("a length");
    let mut out = Vec::new();
    let tagged = std::cell::Cell::new(0);
    inbox::append_frame(
        &mut out,
        serial,
        tag,
        |out| out.resize(out.len() + length, b'x'),
        |out, json| {
            tagged.set(json.len());
            out.resize(out.len() + tag, b'0');
        },
    );
    assert_eq!(tagged.get() + tag + 4, out.len(), "what is tagged is what is sent");
    out
}

pub(crate) fn padding(vector: &Vector) {
    let (json, tag) = (vector.number("json"), vector.number("tag"));
    let tag = usize::try_from(tag).expect("a length");
    let frame = frame_of(json, tag, true);
    let plain = frame_of(json, tag, false);
    assert_eq!(frame.len() > plain.len(), vector.is("padded"), "{}", vector.name);
    assert!(frame.len() <= plain.len() + 1);
    let allowed = plain.len() - 4 <= SERIAL_FRAME_MAX;
    if vector.text("length") == "not-on-serial" {
        assert!(!allowed, "{}", vector.name);
        assert!(frame[..4].contains(&RESYNC), "{}: padding would have helped", vector.name);
    } else {
        assert!(allowed, "{}", vector.name);
        assert_eq!(frame[..4], vector.bytes("length"), "{}", vector.name);
        assert!(!frame.contains(&RESYNC));
    }
}

pub(crate) fn padding_none(vector: &Vector) {
    assert_eq!(frame_of(vector.number("json"), 0, false)[..4], vector.bytes("length"));
}

#[test]
fn no_frame_within_the_serial_bound_holds_a_resync_byte() {
    for tag in [0, TAG_DIGITS] {
        // The low byte of the whole length runs through its corners.
        let lengths =
            (1..=SERIAL_FRAME_MAX - tag).filter(|length| matches!((length + tag) & 0xFF, 0xFD.. | ..2));
        for length in lengths {
            let frame = frame_of(length as u64, tag, true);
            assert!(!frame[..4].contains(&RESYNC), "{length} + {tag}");
            assert!(frame.len() - 4 <= SERIAL_FRAME_MAX, "{length} + {tag}");
        }
    }
}
