//! The link's bytes: lines, frames, proofs.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

use castra_core::auth::{Direction, Key, Proof, TAG_DIGITS, Transcript};
use castra_core::capabilities::Capabilities;
use castra_core::control::reply::{ErrorCode, Target};
use castra_core::event::{Failure, SessionEnd};
use castra_core::id::{Epoch, GuestName, Nonce};
use castra_core::link::inbox::{FRAME_MAX, Inbox, LINE_MAX, RESYNC, SERIAL_FRAME_MAX, append_frame};
use castra_core::link::line::{self, Auth, BrokerLine, Challenge, Hello};
use castra_core::link::message::{self, BrokerFrame, GuestFrame, GuestRequest, GuestRequestKind};
use proptest::prelude::*;
use std::time::Duration;

const NONCE: Nonce = Nonce([0x11; 16]);
const EPOCH: Epoch = Epoch::new(7, 3);

fn written(write: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    let mut bytes = Vec::new();
    write(&mut bytes);
    bytes
}

fn name(text: &str) -> GuestName {
    text.parse().unwrap()
}

/// Everything in `stream`, in pieces of `size`, as owned lines; `None`: too long.
fn lines(stream: &[u8], size: usize) -> Option<Vec<Vec<u8>>> {
    let mut inbox = Inbox::default();
    let mut lines = Vec::new();
    for mut piece in stream.chunks(size) {
        while let Some(line) = inbox.line(&mut piece, LINE_MAX).ok()? {
            lines.push(line.to_vec());
        }
    }
    Some(lines)
}

fn frames(stream: &[u8], size: usize) -> Result<Vec<Vec<u8>>, u32> {
    let mut inbox = Inbox::default();
    let mut frames = Vec::new();
    for mut piece in stream.chunks(size) {
        while let Some(frame) = inbox.frame(&mut piece).map_err(|error| error.length)? {
            frames.push(frame.to_vec());
        }
    }
    Ok(frames)
}

#[test]
fn a_line_has_at_most_512_bytes_with_its_end() {
    for size in [1, 7, 511, 512, 513, 1000] {
        for (length, fits) in [(510, true), (511, true), (512, true), (513, false), (514, false)] {
            let line = [vec![b'a'; length - 1], b"\n".to_vec()].concat();
            let expected = fits.then(|| vec![vec![b'a'; length - 1]]);
            assert_eq!(lines(&line, size), expected, "{length} in pieces of {size}");
        }
        assert_eq!(lines(&[b'a'; 511], size), Some(vec![]), "may still end in time");
        assert_eq!(lines(&[b'a'; 512], size), None, "can't");
        assert_eq!(lines(b"a\r\n\r\n\nb\rc\r\r\n", size).unwrap(), [&b"a"[..], b"", b"", b"b\rc\r"]);
    }
}

#[test]
fn a_frame_has_1_to_65536_bytes() {
    let frame = |length: u32, held: usize| [&length.to_be_bytes()[..], &vec![b'j'; held]].concat();
    for size in [1, 3, 4, 5, 1000, 1_000_000] {
        for length in [1, 2, 511, 512, 65_535, 65_536] {
            let stream = frame(length, length as usize).repeat(2);
            assert_eq!(frames(&stream, size).unwrap(), vec![vec![b'j'; length as usize]; 2]);
            assert_eq!(frames(&stream[1..stream.len() / 2], size).unwrap_or_default().len(), 0);
        }
        for length in [0, 65_537, 0x0100_0000, u32::MAX] {
            assert_eq!(frames(&frame(length, 10), size), Err(length));
        }
    }
}

#[test]
fn an_inbox_knows_whether_it_is_at_a_boundary() {
    let mut inbox = Inbox::default();
    assert!(inbox.is_at_boundary());
    let mut input = &b"\0\0"[..];
    assert_eq!(inbox.frame(&mut input), Ok(None));
    assert!(!inbox.is_at_boundary());
    assert_eq!(inbox.unfinished(), [0, 0]);
    let mut input = &b"\0\x01xyz"[..];
    assert_eq!(inbox.frame(&mut input), Ok(Some(&b"x"[..])));
    assert_eq!((inbox.is_at_boundary(), input), (true, &b"yz"[..]));
    assert_eq!(inbox.line(&mut input, LINE_MAX), Ok(None));
    assert_eq!(inbox.unfinished(), b"yz");
    inbox.clear();
    assert_eq!((inbox.is_at_boundary(), inbox.unfinished()), (true, &b""[..]));
}

#[test]
fn no_length_of_a_serial_frame_holds_the_resync_byte() {
    for tag in [0, TAG_DIGITS] {
        let mut padded = Vec::new();
        let interesting = |json: &usize| matches!((json + tag) & 0xFF, 0xFD..|0| 1);
        for json in (1..=SERIAL_FRAME_MAX - tag).filter(interesting) {
            let seal = |bytes: &mut Vec<u8>, _| bytes.resize(bytes.len() + tag, b'0');
            let bytes =
                written(|out| append_frame(out, true, tag, |out| out.resize(out.len() + json, b'j'), seal));
            assert!(!bytes[..4].contains(&RESYNC), "{json}");
            let length = u32::from_be_bytes(bytes[..4].try_into().unwrap()) as usize;
            assert_eq!(length, bytes.len() - 4);
            if length != json + tag {
                assert_eq!((length, bytes[4 + json]), (json + tag + 1, b' '));
                padded.push(json + tag);
            }
        }
        assert_eq!((padded.len(), padded[0], padded[253]), (254, 255, 65_023));
    }
    let plain =
        written(|out| append_frame(out, false, 0, |out| out.resize(out.len() + 255, b'j'), |_, _| {}));
    assert_eq!(plain[..4], [0, 0, 0, 255], "elsewhere nothing is padded");
    let largest =
        written(|out| append_frame(out, false, 0, |out| out.resize(out.len() + FRAME_MAX, b'j'), |_, _| {}));
    assert_eq!(frames(&largest, 9999).unwrap()[0].len(), FRAME_MAX);
}

#[test]
fn a_hello_reads_as_it_was_written() {
    let hello = Hello {
        name: name("devbox"),
        capabilities: Capabilities::parse("term,proof-v1"),
        boot: Some([0x33; 16]),
        nonce: Some(Nonce([0x22; 16])),
        once: true,
    };
    let bytes = written(|out| hello.append(out));
    assert_eq!(
        String::from_utf8(bytes.clone()).unwrap(),
        "hello vm:devbox capabilities=proof-v1,term boot=33333333333333333333333333333333 \
         nonce=22222222222222222222222222222222 once"
    );
    assert_eq!(Hello::parse(&bytes), Ok(hello));
    let longest = Hello {
        name: name(&"n".repeat(64)),
        capabilities: Capabilities::parse(&"c".repeat(111)),
        boot: Some([0; 16]),
        nonce: Some(NONCE),
        once: true,
    };
    let bytes = written(|out| longest.append(out));
    assert!(bytes.len() < LINE_MAX, "{}", bytes.len());
    assert_eq!(Hello::parse(&bytes), Ok(longest));
}

#[test]
fn a_hello_may_be_0_1s_and_hold_words_of_later_versions() {
    let plain = Hello {
        name: name("x"),
        capabilities: Capabilities::default(),
        boot: None,
        nonce: None,
        once: false,
    };
    for line in ["hello vm:x", "HELLO x", "hello  vm:x  later=1 Once boots=1", "hello vm:x capabilities="] {
        assert_eq!(Hello::parse(line.as_bytes()), Ok(plain.clone()), "{line}");
    }
    let listed = Hello::parse(b"hello vm:x capabilities=a,b CAPABILITIES=B,c").unwrap();
    assert_eq!(listed.capabilities.as_str(), "a,b,c");
}

#[test]
fn a_bad_hello_is_refused_with_its_code() {
    use Failure::{BadLine, BadName};
    let long = format!("hello vm:{}", "n".repeat(65));
    for (line, code) in [
        (&b""[..], BadLine),
        (b"hello", BadLine),
        (b"goodbye vm:x", BadLine),
        (b"hellovm:x", BadLine),
        (b"hello vm:x\xFF", BadLine),
        (b"\xFFhello vm:x", BadLine),
        (b"hello vm:", BadName),
        (b"hello vm:-x", BadName),
        (b"hello vm:.", BadName),
        (b"hello vm:a/b", BadName),
        (b"hello vm:a\x1b[2J", BadName),
        (b"hello vm:a\tb", BadName),
        (b"hello vm:a\0", BadName),
        ("hello vm:ä".as_bytes(), BadName),
        (long.as_bytes(), BadName),
        (b"hello vm:x boot=33", BadLine),
        (b"hello vm:x nonce=2222222222222222222222222222222G", BadLine),
        (b"hello vm:x nonce=222222222222222222222222222222AA", BadLine),
        (b"hello vm:x nonce=", BadLine),
    ] {
        assert_eq!(Hello::parse(line), Err(code), "{}", String::from_utf8_lossy(line));
    }
}

#[test]
fn the_brokers_lines_read_as_they_were_written() {
    for auth in [Auth::None, Auth::Hmac] {
        let challenge = Challenge { nonce: NONCE, epoch: EPOCH, auth };
        let bytes = written(|out| challenge.append(out));
        let BrokerLine::Challenge(read) = BrokerLine::parse(bytes.strip_suffix(b"\n").unwrap()) else {
            panic!()
        };
        assert_eq!(read, challenge);
    }
    let ok = |proof| line::Ok {
        epoch: EPOCH,
        interval: Duration::from_millis(5000),
        window: Duration::from_millis(15_000),
        proof,
    };
    for (proof, text) in [
        (None, "ok session=sess-7-3 epoch=30064771075 interval_ms=5000 window_ms=15000\n".to_string()),
        (
            Some(Proof([0xAB; 32])),
            format!(
                "ok session=sess-7-3 epoch=30064771075 interval_ms=5000 window_ms=15000 proof={}\n",
                "ab".repeat(32)
            ),
        ),
    ] {
        let bytes = written(|out| ok(proof).append(out));
        assert_eq!(bytes, text.as_bytes());
        let BrokerLine::Ok(read) = BrokerLine::parse(text.trim_end().as_bytes()) else { panic!() };
        assert_eq!((read.epoch, read.interval, read.window), (EPOCH, ok(None).interval, ok(None).window));
        assert_eq!(read.proof.is_some(), proof.is_some());
    }
    let refusal = written(|out| line::append_refusal(out, Failure::NameInUse, "somebody: is here"));
    assert_eq!(refusal, b"error: name-in-use: somebody: is here\n");
    assert!(matches!(BrokerLine::parse(refusal.trim_ascii()), BrokerLine::Refused("name-in-use")));
}

#[test]
fn a_brokers_line_that_lacks_something_is_unknown() {
    assert!(matches!(BrokerLine::parse(b"castra-broker 0.1 ready"), BrokerLine::Greeting));
    assert!(matches!(BrokerLine::parse(b"\xFE\0junkcastra-broker 0.1 ready"), BrokerLine::Greeting));
    assert!(matches!(BrokerLine::parse(b"ok session=sess-1-2"), BrokerLine::BareOk));
    assert!(matches!(BrokerLine::parse(b"ok"), BrokerLine::BareOk));
    assert!(matches!(BrokerLine::parse(b"error: free text"), BrokerLine::Refused("free text")));
    let hex = "11".repeat(16);
    for line in [
        String::new(),
        "castra-broker 0.1 ready?".into(),
        "okay".into(),
        "challenge".into(),
        format!("challenge {hex}"),
        format!("challenge {hex} epoch=1"),
        format!("challenge {hex} epoch=1 auth=md5"),
        format!("challenge {hex} epoch=-1 auth=none"),
        format!("challenge {hex} epoch=18446744073709551616 auth=none"),
        format!("challenge {} epoch=1 auth=none", hex.to_uppercase().replace('1', "A")),
        "ok epoch=1 interval_ms=5 window_ms=x".into(),
        "ok epoch=1 interval_ms=5 window_ms=5 proof=00".into(),
        "ok epoch=1".into(),
    ] {
        assert!(matches!(BrokerLine::parse(line.as_bytes()), BrokerLine::Unknown), "{line}");
    }
    assert!(matches!(BrokerLine::parse(b"ok \xFF"), BrokerLine::Unknown));
}

#[test]
fn the_frames_of_a_session_read_as_they_were_written() {
    let bytes = written(|out| message::append_challenge(out, 9, &NONCE));
    assert_eq!(bytes, br#"{"type":"challenge","seq":9,"nonce":"11111111111111111111111111111111"}"#);
    assert!(matches!(BrokerFrame::parse(&bytes), Ok(BrokerFrame::Challenge { seq: 9, nonce: NONCE })));

    let bytes = written(|out| message::append_proof(out, u64::MAX, &NONCE));
    let Ok(GuestFrame::Proof(proof)) = GuestFrame::parse(&bytes) else { panic!() };
    assert_eq!(proof, message::Proof { seq: u64::MAX, proof: NONCE });

    let ping = written(|out| message::append_ping(out, 5, false));
    let pong = written(|out| message::append_ping(out, 5, true));
    assert!(matches!(GuestFrame::parse(&ping), Ok(GuestFrame::Ping { id: 5 })));
    assert!(matches!(BrokerFrame::parse(&ping), Ok(BrokerFrame::Ping { id: 5 })));
    assert!(matches!(GuestFrame::parse(&pong), Ok(GuestFrame::Pong { id: 5 })));
    assert!(matches!(BrokerFrame::parse(&pong), Ok(BrokerFrame::Pong { id: 5 })));

    let goodbye = written(message::append_goodbye);
    assert!(matches!(GuestFrame::parse(&goodbye), Ok(GuestFrame::Goodbye)));
    assert!(matches!(GuestFrame::parse(br#"{"type":"goodbye","reason":"sleep"}"#), Ok(GuestFrame::Goodbye)));

    for (retry, expected) in [(None, None), (Some(Duration::from_secs(1)), Some(1000))] {
        let bytes = written(|out| message::append_bye(out, SessionEnd::BadMac, retry));
        let Ok(BrokerFrame::Bye(bye)) = BrokerFrame::parse(&bytes) else { panic!() };
        assert_eq!((&*bye.code, bye.retry_after_ms), ("bad-mac", expected));
    }

    let request = GuestRequest {
        kind: GuestRequestKind::Wait,
        id: 3,
        guests: vec![name("a"), name("b.c")],
        target: Some(Target::Reachable),
        any: true,
        timeout_ms: Some(9),
    };
    let bytes = written(|out| message::append_json(out, &request));
    let Ok(GuestFrame::Request(read)) = GuestFrame::parse(&bytes) else { panic!() };
    assert_eq!(read, request);
}

#[test]
fn a_frame_reads_the_same_whether_or_not_it_is_written_as_we_write_it() {
    let mut plain = Vec::new();
    for seq in [0, 7, 10, 1234, 9_999_999_999_999_999_999, 10_000_000_000_000_000_000, u64::MAX] {
        plain.push(written(|out| message::append_challenge(out, seq, &NONCE)));
        plain.push(written(|out| message::append_proof(out, seq, &NONCE)));
    }
    let text = |bytes: &[u8]| {
        (format!("{:?}", GuestFrame::parse(bytes)), format!("{:?}", BrokerFrame::parse(bytes)))
    };
    let compare = |bytes: &[u8]| {
        // With a space in front, only serde reads it.
        let spaced = [b" ", bytes].concat();
        assert_eq!(text(bytes), text(&spaced), "{}", String::from_utf8_lossy(bytes));
    };
    for json in plain {
        compare(&json);
        for at in 0..json.len() {
            let (before, after) = json.split_at(at);
            compare(before);
            compare(&[before, &after[1..]].concat());
            for byte in *b"0g\"\\ },\xFFF" {
                compare(&[before, &[byte], after].concat());
                compare(&[before, &[byte], &after[1..]].concat());
            }
        }
    }
}

#[test]
fn answers_to_requests_are_told_apart() {
    let Ok(BrokerFrame::Result { id: 4, data }) =
        BrokerFrame::parse(br#"{"type":"result","of":"wait","id":4,"data":{"a":[1, 2]}}"#)
    else {
        panic!()
    };
    assert_eq!(data.get(), r#"{"a":[1, 2]}"#);
    for code in ErrorCode::ALL {
        let json = format!(r#"{{"type":"error","of":"wait","id":4,"code":"{code}"}}"#);
        let Ok(BrokerFrame::Error { id: 4, code: read }) = BrokerFrame::parse(json.as_bytes()) else {
            panic!()
        };
        assert_eq!(read, code);
        assert_eq!(serde_json::to_value(code).unwrap(), code.as_str());
    }
    for later in [r#"{"type":"error","id":4,"code":"later"}"#, r#"{"type":"error","id":4}"#] {
        let read = BrokerFrame::parse(later.as_bytes());
        assert!(matches!(read, Ok(BrokerFrame::Error { id: 4, code: ErrorCode::Internal })), "{read:?}");
    }
    let not_ours = BrokerFrame::parse(br#"{"type":"error","code":"unknown-type","of":"x"}"#);
    assert!(matches!(not_ours, Ok(BrokerFrame::Unknown)));
}

#[test]
fn what_is_no_object_of_the_protocol_is_bad_json() {
    for json in [
        &b""[..],
        b"[]",
        b"[\"goodbye\"]",
        b"[\"ping\",1]",
        b"null",
        b"1",
        b"\"goodbye\"",
        b"{",
        b"{}{}",
        b"{\"type\":\"goodbye\"}x",
        b"{\"type\":1}",
        b"{\"type\":\"\xFF\"}",
        b"{\"type\":\"goodbye\",\"type\":\"ping\"}",
        b"{\"type\":\"ping\"}",
        b"{\"type\":\"ping\",\"id\":-1}",
        b"{\"type\":\"challenge\",\"seq\":1,\"nonce\":\"11\"}",
        b"{\"type\":\"proof\",\"seq\":1,\"proof\":\"\xC3\x28\"}",
    ] {
        let shown = String::from_utf8_lossy(json).into_owned();
        let known_to_one = shown.contains("challenge") || shown.contains("proof");
        assert!(GuestFrame::parse(json).is_err() || known_to_one, "{shown}");
        assert!(BrokerFrame::parse(json).is_err() || known_to_one, "{shown}");
        assert!(GuestFrame::parse(json).is_err() || BrokerFrame::parse(json).is_err(), "{shown}");
    }
    let deep = format!("{{\"type\":\"goodbye\",\"x\":{}", "[".repeat(60_000));
    assert!(GuestFrame::parse(deep.as_bytes()).is_err());
    for (json, kind) in
        [("{}", None), (r#" {"type":"pe\u0065r"} "#, Some("peer")), (r#"{"type":null}"#, None)]
    {
        let Ok(GuestFrame::Unknown(read)) = GuestFrame::parse(json.as_bytes()) else { panic!("{json}") };
        assert_eq!(read.as_deref(), kind);
        assert!(matches!(BrokerFrame::parse(json.as_bytes()), Ok(BrokerFrame::Unknown)));
    }
}

/// Computed independently (Python's `hmac` and `hashlib`).
#[test]
fn the_proofs_are_those_of_the_protocols_text() {
    let key = Key::from_bytes(core::array::from_fn(|index| index as u8));
    let hello = b"hello vm:devbox capabilities=proof-v1 boot=33333333333333333333333333333333 \
                  nonce=22222222222222222222222222222222";
    let transcript = Transcript::new(&name("devbox"), &NONCE, &Nonce([0x22; 16]), EPOCH, hello);
    let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    assert_eq!(
        hex(transcript.as_bytes()),
        "06646576626f78111111111111111111111111111111112222222222222222222222222222222200000007000000035f0dd61edc\
         6766998d9c17ad22f6d4584f46ad86f74671b9f8db695c9e67b521"
    );
    let guest = transcript.guest_proof(&key);
    let broker = transcript.broker_proof(&key);
    assert_eq!(guest.to_string(), "4def1774b398e075701848757a9044b77eb45de0185650c952ad492cf95b6459");
    assert_eq!(broker.to_string(), "776ece238df70fbdf7cfd201dec182f30e0d6c417dedbe8d703d37d7bffddbc2");
    assert!(guest.matches(&guest.to_string().parse().unwrap()) && !guest.matches(&broker));

    let session = transcript.session_key(&key);
    let json = br#"{"type":"goodbye"}"#;
    for (direction, count, tag) in [
        (Direction::ToBroker, 0, "70455932664602b95271c7f9e0590277"),
        (Direction::ToBroker, 1, "7578592f27e90add1d24c5a8cbe1cf16"),
        (Direction::ToGuest, 0, "bbdf41a990cf30100261aa2180d3fe8a"),
        (Direction::ToGuest, 1, "c6be65e5fd38aaaed1827f1a400afaf2"),
    ] {
        let mut payload = json.to_vec();
        session.append_tag(direction, count, 0..json.len(), &mut payload);
        assert_eq!(payload, [json, tag.as_bytes()].concat());
        assert_eq!(session.open(direction, count, &payload), Ok(&json[..]));
        assert!(session.open(direction, count + 2, &payload).is_err());
        for bit in 0..payload.len() * 8 {
            let mut damaged = payload.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert!(session.open(direction, count, &damaged).is_err(), "bit {bit}");
        }
        assert!(session.open(direction, count, &payload[..31]).is_err());
        assert!(session.open(direction, count, b"").is_err());
    }
}

#[test]
fn a_key_reads_from_its_token_and_is_never_shown() {
    let token = "00ff".repeat(16);
    let key: Key = token.parse().unwrap();
    assert_eq!(key.expose_token(), token);
    assert_eq!(format!("{key:?}"), "Key(..)");
    assert!(key == token.parse().unwrap() && key != token.replace("0f", "0e").parse().unwrap());
    for bad in ["", &token[1..], &token.to_uppercase(), &format!("{token}0"), &"é".repeat(32)] {
        assert!(bad.parse::<Key>().is_err(), "{bad}");
    }
}

#[test]
fn capabilities_are_bounded_sorted_and_plain() {
    let parse = |text: &str| Capabilities::parse(text).as_str().to_owned();
    assert_eq!(parse("b,A,a,,c,B"), "A,b,c");
    assert_eq!(parse("ok,ta\tb,\u{1b}[2J,ü,qu\"ote,back\\slash"), "ok");
    assert_eq!(parse(&(0..99).map(|n| format!("c{n:02},")).collect::<String>()).split(',').count(), 16);
    assert_eq!(parse(&"x".repeat(112)), "");
    assert_eq!(parse(&"x".repeat(111)).len(), 111);
    let listed = Capabilities::parse("Term,proof-v1");
    assert!(listed.has("term") && listed.has("PROOF-V1") && !listed.has("proof"));
    assert_eq!(serde_json::to_string(&listed).unwrap(), r#"["proof-v1","Term"]"#);
}

proptest! {
    #[test]
    fn a_stream_reads_the_same_in_any_pieces(
        pieces in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 1..700), 1..6),
        size in 1usize..900,
    ) {
        let joined = pieces.join(&b'\n');
        prop_assert_eq!(lines(&joined, size), lines(&joined, usize::MAX));
        let framed = pieces.iter().flat_map(|piece| [&(piece.len() as u32).to_be_bytes()[..], piece].concat()).collect::<Vec<_>>();
        prop_assert_eq!(frames(&framed, size).unwrap(), pieces);
    }

    #[test]
    fn hostile_lines_and_frames_are_answers_not_panics(bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
        let _ = Hello::parse(&bytes);
        let _ = BrokerLine::parse(&bytes);
        let _ = GuestFrame::parse(&bytes);
        let _ = BrokerFrame::parse(&bytes);
    }

    #[test]
    fn any_hello_reads_as_it_was_written(
        text in "[A-Za-z0-9][A-Za-z0-9._-]{0,63}",
        list in proptest::collection::vec("[!-~]{1,20}", 0..20),
        boot: Option<[u8; 16]>,
        nonce: Option<[u8; 16]>,
        once: bool,
    ) {
        let capabilities = Capabilities::collect(list.iter().map(String::as_str));
        let hello = Hello { name: name(&text), capabilities, boot, nonce: nonce.map(Nonce), once };
        let bytes = written(|out| hello.append(out));
        prop_assert!(bytes.len() < LINE_MAX);
        prop_assert_eq!(Hello::parse(&bytes), Ok(hello));
    }
}
