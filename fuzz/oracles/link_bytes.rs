//! What must hold of any bytes that a link can bring. The fuzz target and the
//! test that replays the seeds (`core/tests/fuzz_seeds.rs`) share it.
//!
//! The first byte says how many lines come before the frames, the next two seed
//! the cuts; the rest is the stream.

use castra_core::auth::{Direction, Key, SessionKey, TAG_DIGITS, Transcript};
use castra_core::capabilities::Capabilities;
use castra_core::id::{Epoch, Nonce};
use castra_core::link::inbox::{Inbox, LINE_MAX, RESYNC, SERIAL_FRAME_MAX, append_frame};
use castra_core::link::line::{BrokerLine, Hello};
use castra_core::link::message::{BrokerFrame, GuestFrame, append_proof};
use serde_json::Value;

/// What a stream was read as.
#[derive(PartialEq, Eq, Debug)]
enum Item {
    Line(Vec<u8>),
    LineTooLong,
    Frame(Vec<u8>),
    BadLength(u32),
    Unfinished(Vec<u8>),
}

/// Panics if something that must hold doesn't.
pub(crate) fn check(data: &[u8]) {
    let Some((&[lines, high, low], stream)) = data.split_first_chunk::<3>() else { return };
    let lines = usize::from(lines % 8);
    let whole = read(stream, lines, |rest| rest.len());
    let dripped = read(stream, lines, |_| 1);
    assert_eq!(whole, dripped, "whole and byte by byte");
    let mut seed = u32::from(high) << 8 | u32::from(low) | 1 << 16;
    let cut = read(stream, lines, |rest| {
        // xorshift32 (Marsaglia, 2003).
        seed ^= seed << 13;
        seed ^= seed >> 17;
        seed ^= seed << 5;
        (seed as usize % 97 + 1).min(rest.len())
    });
    assert_eq!(whole, cut, "whole and cut");
    for item in &whole {
        match item {
            Item::Line(line) => check_line(line),
            Item::Frame(payload) => check_frame(payload),
            Item::LineTooLong | Item::BadLength(_) | Item::Unfinished(_) => {}
        }
    }
}

/// Reads `lines` lines, then frames, until the end or an error; each piece is as
/// long as `piece` says.
fn read(mut stream: &[u8], lines: usize, mut piece: impl FnMut(&[u8]) -> usize) -> Vec<Item> {
    let mut inbox = Inbox::default();
    let mut items = Vec::new();
    while !stream.is_empty() {
        let (mut head, tail) = stream.split_at(piece(stream));
        stream = tail;
        while !head.is_empty() {
            let before = head.len();
            let item = if items.len() < lines {
                match inbox.line(&mut head, LINE_MAX) {
                    Ok(line) => line.map(|line| Item::Line(line.to_vec())),
                    Err(_) => Some(Item::LineTooLong),
                }
            } else {
                match inbox.frame(&mut head) {
                    Ok(payload) => payload.map(|payload| Item::Frame(payload.to_vec())),
                    Err(error) => Some(Item::BadLength(error.length)),
                }
            };
            let failed = matches!(item, Some(Item::LineTooLong | Item::BadLength(_)));
            assert!(failed || head.len() < before, "an inbox that takes nothing");
            assert!(item.is_some() || head.is_empty(), "an inbox that leaves bytes it could take");
            items.extend(item);
            if failed {
                return items;
            }
        }
    }
    assert_eq!(inbox.is_at_boundary(), inbox.unfinished().is_empty());
    items.push(Item::Unfinished(inbox.unfinished().to_vec()));
    items
}

fn check_line(line: &[u8]) {
    assert!(line.len() < LINE_MAX && !line.contains(&b'\n'));
    if let Ok(hello) = Hello::parse(line) {
        assert!(line.is_ascii() || str::from_utf8(line).is_ok());
        let mut written = Vec::new();
        hello.append(&mut written);
        assert_eq!(Hello::parse(&written).as_ref(), Ok(&hello), "a hello reads as it was written");
        let kept = hello.capabilities.as_str();
        assert!(kept.len() < Capabilities::MAX_BYTES && hello.capabilities.iter().count() <= 16);
        assert!(hello.name.as_str().bytes().all(|byte| byte.is_ascii_graphic()));
    }
    match BrokerLine::parse(line) {
        BrokerLine::Challenge(challenge) => {
            let mut written = Vec::new();
            challenge.append(&mut written);
            let again = BrokerLine::parse(written.trim_ascii_end());
            assert!(matches!(again, BrokerLine::Challenge(read) if read == challenge));
        }
        BrokerLine::Ok(ok) => {
            let mut written = Vec::new();
            ok.append(&mut written);
            match BrokerLine::parse(written.trim_ascii_end()) {
                BrokerLine::Ok(read) => assert_eq!(
                    (read.epoch, read.interval, read.window, read.proof.map(|proof| proof.0)),
                    (ok.epoch, ok.interval, ok.window, ok.proof.map(|proof| proof.0))
                ),
                other => panic!("an ok was read as {other:?}"),
            }
        }
        BrokerLine::Greeting | BrokerLine::BareOk | BrokerLine::Refused(_) | BrokerLine::Unknown => {}
    }
}

fn check_frame(payload: &[u8]) {
    let value = serde_json::from_slice::<Value>(payload).ok();
    let guest = GuestFrame::parse(payload);
    let broker = BrokerFrame::parse(payload);
    if value.as_ref().is_some_and(|value| !value.is_object()) {
        assert!(guest.is_err() && broker.is_err(), "only an object is a frame");
    }
    if guest.is_ok() || broker.is_ok() {
        assert!(str::from_utf8(payload).is_ok(), "only UTF-8 is a frame");
    }
    if let Ok(GuestFrame::Proof(proof)) = &guest {
        if let Some(value) = &value {
            assert_eq!(value["seq"].as_u64(), Some(proof.seq));
            assert_eq!(value["proof"].as_str(), Some(proof.proof.to_string().as_str()));
        }
        let mut written = Vec::new();
        append_proof(&mut written, proof.seq, &proof.proof);
        assert!(matches!(GuestFrame::parse(&written), Ok(GuestFrame::Proof(read)) if read == *proof));
    }
    // White space around it, which serial streams add, changes nothing.
    let padded = [payload, b" "].concat();
    let again = GuestFrame::parse(&padded);
    assert_eq!(format!("{again:?}"), format!("{guest:?}"));
    check_sealed(payload);
}

/// Sent again over a serial stream, without and with a key, it arrives the same.
fn check_sealed(json: &[u8]) {
    let key = session_key();
    assert!(key.open(Direction::ToBroker, 3, json).is_err(), "nobody guesses a tag");
    for tag in [0, TAG_DIGITS] {
        if json.len() + tag >= SERIAL_FRAME_MAX {
            continue;
        }
        let mut wire = Vec::new();
        append_frame(
            &mut wire,
            true,
            tag,
            |out| out.extend_from_slice(json),
            |out, range| {
                if tag > 0 {
                    key.append_tag(Direction::ToBroker, 3, range, out);
                }
            },
        );
        assert!(!wire[..4].contains(&RESYNC), "a length with the resynchronisation byte");
        let mut inbox = Inbox::default();
        let mut input = &wire[..];
        let arrived = inbox.frame(&mut input).ok().flatten().map(<[u8]>::to_vec);
        let arrived = arrived.expect("a whole frame");
        let opened = if tag > 0 {
            assert!(key.open(Direction::ToGuest, 3, &arrived).is_err(), "reflected");
            assert!(key.open(Direction::ToBroker, 4, &arrived).is_err(), "replayed");
            key.open(Direction::ToBroker, 3, &arrived).expect("its own tag")
        } else {
            &arrived[..]
        };
        assert!(opened == json || opened.strip_suffix(b" ") == Some(json));
    }
}

fn session_key() -> SessionKey {
    let name = "devbox".parse().expect("a name");
    let nonce = Nonce([1; 16]);
    Transcript::new(&name, &nonce, &nonce, Epoch(1), b"hello vm:devbox")
        .session_key(&Key::from_bytes([2; 32]))
}
