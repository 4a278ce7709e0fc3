//! The wire of terminals: the published daemon's bytes, both ways, and what may
//! not be trusted in them.
#![allow(clippy::unwrap_used)]

use std::borrow::Cow;

use castra_core::terminals::wire::{
    Answer, Attach, ChannelMode, Create, ErrorCode, Event, FRAME_MAX, Frames, Granted, Handshake, Level,
    Message, Rejection, Request, Role, Scope, Secret, SessionInfo, State, append_error, append_event,
    append_granted, append_welcome,
};
use castra_core::terminals::{Exit, Modes, SignalScope, Snapshot};
use proptest::prelude::*;

fn bytes(hex: &str) -> Vec<u8> {
    let digits: Vec<u8> = hex.bytes().filter(u8::is_ascii_hexdigit).collect();
    let digit = |byte: u8| char::from(byte).to_digit(16).unwrap() as u8;
    digits.chunks(2).map(|pair| digit(pair[0]) << 4 | digit(pair[1])).collect()
}

/// The one frame's body.
fn body(frame: &[u8]) -> &[u8] {
    assert_eq!(u32::from_be_bytes(*frame.first_chunk().unwrap()) as usize, frame.len() - 4);
    &frame[4..]
}

fn written(write: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    let mut out = Vec::new();
    write(&mut out);
    out
}

fn asked(request: &Request<'_>, seq: u32) -> Vec<u8> {
    written(|out| request.append(seq, out))
}

const HANDSHAKE: &str = "0000004b 86 a474797065 a968616e647368616b65 a5746f6b656e a454454554
    b070726f746f636f6c5f76657273696f6e 01 a9636c69656e745f6964 a141
    a4726f6c65 a7636f6e74726f6c a3736571 01";

#[test]
fn requests_of_the_published_client_are_read_and_written_byte_for_byte() {
    let whole = bytes(HANDSHAKE);
    let expected = Request::Handshake(Handshake::new("TEET", "A", Role::Control));
    assert_eq!(Request::parse(body(&whole)), Ok((1, expected.clone())));
    assert_eq!(asked(&expected, 1), whole);

    let attach = bytes("0000001b 83 a474797065 a6617474616368 a773657373696f6e 01 a3736571 03");
    let expected = Request::Attach(Attach { session: 1, ..Attach::default() });
    assert_eq!(Request::parse(body(&attach)), Ok((3, expected.clone())));
    assert_eq!(asked(&expected, 3), attach);

    let input = bytes(
        "00000029 84 a474797065 a5696e707574 a773657373696f6e 01 a464617461 c408 6563686f2068690a a3736571 04",
    );
    let expected = Request::Input { session: 1, data: Secret(b"echo hi\n") };
    assert_eq!(Request::parse(body(&input)), Ok((4, expected.clone())));
    assert_eq!(asked(&expected, 4), input);
}

#[test]
fn what_the_published_daemon_says_is_read_and_written_byte_for_byte() {
    let welcome = bytes(
        "0000004a 85 a474797065 a968616e647368616b65 a3736571 01
         b070726f746f636f6c5f76657273696f6e 01
         ae6461656d6f6e5f76657273696f6e a5302e322e30 aa6461656d6f6e5f706964 cd79be",
    );
    assert_eq!(written(|out| append_welcome(1, "0.2.0", 0x79be, &[], out)), welcome);
    let answer = Answer::Handshake {
        protocol_version: 1,
        daemon_version: "0.2.0",
        daemon_pid: 0x79be,
        capabilities: vec![],
    };
    assert_eq!(Message::parse(body(&welcome)), Ok(Message::Reply { seq: 1, answer }));

    let ok = bytes("00000017 83 a474797065 a26f6b a3736571 02 a773657373696f6e 01");
    let granted = Granted { session: Some(1), ..Granted::default() };
    assert_eq!(written(|out| append_granted(2, &granted, out)), ok);
    let answer = Answer::Granted(Box::new(granted));
    assert_eq!(Message::parse(body(&ok)), Ok(Message::Reply { seq: 2, answer }));

    let refused = bytes(
        "0000004f 84 a474797065 a56572726f72 a3736571 03 a4636f6465 ae4f574e45525f5245515549524544
         a76d657373616765 d920 636c69656e74206973206e6f74206f776e6572206f662073657373696f6e2031",
    );
    let message = "client is not owner of session 1";
    assert_eq!(written(|out| append_error(3, ErrorCode::OwnerRequired, message, out)), refused);
    let answer = Answer::Error { code: "OWNER_REQUIRED", message };
    assert_eq!(answer.code(), Some(ErrorCode::OwnerRequired));
    assert_eq!(Message::parse(body(&refused)), Ok(Message::Reply { seq: 3, answer }));

    let events = [
        (
            "0000001f 83 a474797065 a66f7574707574 a773657373696f6e 01 a464617461 c402 2320",
            Event::Output { session: 1, data: b"# ", offset: None },
        ),
        (
            "00000023 84 a474797065 a465786974 a773657373696f6e 01 a4636f6465 cc89 a67369676e616c 09",
            Event::Exit { session: 1, exit: Exit { code: 137, signal: Some(9) } },
        ),
        (
            "0000001a 83 a474797065 a465786974 a773657373696f6e 01 a4636f6465 03",
            Event::Exit { session: 1, exit: Exit { code: 3, signal: None } },
        ),
    ];
    for (hex, event) in events {
        let frame = bytes(hex);
        assert_eq!(written(|out| append_event(&event, out)), frame, "{event:?}");
        assert_eq!(Message::parse(body(&frame)), Ok(Message::Event(event)));
    }
}

#[test]
fn nil_is_absent_and_keys_come_in_any_order() {
    // create {rows: 24, cwd: nil, cols: 80, env: nil, seq: 2, shell: nil, unknown: [1, {}], type}
    let frame = bytes(
        "88 a4726f7773 18 a3637764 c0 a4636f6c73 50 a3656e76 c0 a3736571 02 a57368656c6c c0
         a7756e6b6e6f776e 92 01 80 a474797065 a6637265617465",
    );
    let expected = Create { cols: Some(80), rows: Some(24), ..Create::default() };
    assert_eq!(Request::parse(&frame), Ok((2, Request::Create(Box::new(expected)))));
}

#[test]
fn an_exit_without_a_signal_has_no_such_key_rather_than_nil() {
    let frame = written(|out| {
        append_event(&Event::Exit { session: 7, exit: Exit { code: -1, signal: None } }, out);
    });
    assert!(!frame.windows(6).any(|window| window == b"signal"));
    assert!(!frame.contains(&0xc0));
}

#[test]
fn input_is_binary_and_nothing_else() {
    let text = bytes("84 a474797065 a5696e707574 a773657373696f6e 01 a464617461 a16c a3736571 04");
    let rejected = Request::parse(&text).unwrap_err();
    assert_eq!((rejected.seq, matches!(rejected.why, Rejection::Malformed(_))), (4, true));
}

#[test]
fn a_type_from_the_future_is_told_apart_from_nonsense() {
    let unknown = bytes("82 a474797065 a564616e6365 a3736571 09");
    let rejected = Request::parse(&unknown).unwrap_err();
    assert_eq!((rejected.seq, rejected.why), (9, Rejection::UnknownType));
    assert_eq!(Message::parse(&unknown), Ok(Message::Unknown));
}

#[test]
fn a_handshake_of_before_the_hard_cut_is_recognised() {
    let old = bytes(
        "84 a474797065 a968616e647368616b65 a5746f6b656e a0 b070726f746f636f6c5f76657273696f6e 01 a3736571 01",
    );
    let rejected = Request::parse(&old).unwrap_err();
    assert_eq!((rejected.seq, rejected.why), (1, Rejection::TooOld));
}

#[test]
fn nothing_is_believed_before_it_is_bounded() {
    // An array of 4 billion items in five bytes; a text longer than the frame; nesting without
    // end; a map that lacks its last value; something behind the map.
    let mut deep = bytes("81 a161");
    deep.resize(200, 0x91);
    for frame in [
        bytes("81 a161 dd ffffffff"),
        bytes("81 a161 df ffffffff"),
        bytes("81 a161 db ffffffff 61"),
        bytes("81 a161 c6 ffffffff 61"),
        deep,
        bytes("82 a161 01 a162"),
        bytes("81 a161 01 01"),
        bytes("81 a161 c1"),
        bytes("01"),
        vec![],
        // 65 fields.
        [bytes("de 0041"), bytes("a161 01").repeat(65)].concat(),
    ] {
        assert!(Request::parse(&frame).is_err(), "{frame:02x?}");
        assert!(Message::parse(&frame).is_err(), "{frame:02x?}");
    }
}

#[test]
fn frames_are_cut_anywhere_and_refused_by_their_length() {
    let mut frames = Frames::default();
    for wrong in [0, FRAME_MAX as u32 + 1, u32::MAX] {
        let header = wrong.to_be_bytes();
        let error = Frames::default().next(&mut header.as_slice(), FRAME_MAX).unwrap_err();
        assert_eq!(error.length, wrong);
    }
    // What is announced takes no memory.
    let mut head = [&(FRAME_MAX as u32).to_be_bytes()[..], b"x"].concat();
    head.truncate(5);
    assert_eq!(frames.next(&mut head.as_slice(), FRAME_MAX), Ok(None));
    assert_eq!(frames.waiting(), 5);
}

#[test]
fn nobody_can_print_what_is_secret() {
    let handshake = Request::Handshake(Handshake::new("hunter2", "A", Role::Control));
    let input = Request::Input { session: 1, data: Secret(b"hunter2") };
    let env = vec![("PASSWORD", "hunter2")];
    let command = vec!["mysql", "-phunter2"];
    let create = Request::Create(Box::new(Create { env, command, ..Create::default() }));
    let output = Event::Output { session: 1, data: b"hunter2", offset: None };
    let said = format!("{handshake:?} {input:?} {create:?} {output:?}");
    assert!(!said.contains("hunter2") && !said.contains("104, 117"), "{said}");
}

fn snapshot() -> Snapshot {
    Snapshot {
        content: "\u{1b}cå 漢".into(),
        rehydrate: "\u{1b}[?25l".into(),
        cols: 80,
        rows: 24,
        cursor_x: 3,
        cursor_y: 4,
        modes: Modes { auto_wrap: true, mouse_sgr: true, ..Modes::default() },
        cwd: Some("/srv".into()),
        title: None,
        offset: 1 << 40,
    }
}

#[test]
fn every_request_comes_back_as_it_was() {
    let env = vec![("A", "1"), ("B", "")];
    let create = Create {
        session_key: Some("build"),
        exclusive: true,
        cwd: Some("/srv"),
        cols: Some(100),
        rows: Some(u16::MAX),
        env,
        shell: Some("/bin/zsh"),
        initial_commands: vec!["make", "make test"],
        command: vec!["top", "-d", "1"],
    };
    let requests = [
        Request::Handshake(Handshake {
            channel_mode: Some(ChannelMode::Dual),
            capabilities: vec!["ownership-v2"],
            ..Handshake::new("token", "client", Role::Stream)
        }),
        Request::Create(Box::new(create)),
        Request::Create(Box::default()),
        Request::List,
        Request::Attach(Attach {
            session: u32::MAX,
            resume_from: Some(u64::MAX),
            history_lines: Some(0),
            observe: true,
        }),
        Request::Detach { session: 300 },
        Request::Input { session: 1, data: Secret(&[0xff; 300]) },
        Request::Resize { session: 1, cols: 1, rows: 500 },
        Request::Signal { session: 1, signal: "SIGINT", scope: Some(SignalScope::Foreground) },
        Request::Signal { session: 1, signal: "hup", scope: None },
        Request::ClearScrollback { session: 1 },
        Request::Kill { session: 1 },
        Request::KillAll { scope: None },
        Request::KillAll { scope: Some(Scope::Owned) },
        Request::Takeover { session: 1 },
        Request::Snapshot { session: 1, history_lines: Some(10) },
        Request::Metrics,
    ];
    for request in requests {
        assert_eq!(Request::parse(body(&asked(&request, 77))), Ok((77, request)));
    }
}

#[test]
fn every_answer_and_event_comes_back_as_it_was() {
    let row = SessionInfo {
        id: 1,
        session_key: Some("build".into()),
        pid: 70_000,
        pts: "/dev/pts/4".into(),
        is_alive: true,
        created_at: 1_795_000_000,
        last_attached_at: 0,
        state: Some(State::Terminating),
        exit_code: Some(-1),
        exit_signal: Some(9),
        cols: Some(80),
        rows: Some(24),
        cwd: Some("/".into()),
        command: vec!["top".into()],
        owner: Some("A".into()),
        owner_is_you: Some(false),
        subscribers: Some(3),
        recovery: Some("unrecoverable:rebooted".into()),
    };
    let published = SessionInfo {
        session_key: None,
        state: None,
        exit_code: None,
        exit_signal: None,
        cols: None,
        rows: None,
        cwd: None,
        command: vec![],
        owner: None,
        owner_is_you: None,
        subscribers: None,
        recovery: None,
        ..row.clone()
    };
    let granted = Granted {
        session: Some(1),
        sessions: Some(vec![row, published]),
        snapshot: Some(Cow::Owned(snapshot())),
        count: Some(3),
        offset: Some(u64::MAX),
        owner: Some("A"),
        owner_is_you: Some(true),
        resumed: Some(false),
        created: Some(true),
        metrics: Some(vec![("sessions".into(), 5)]),
    };
    let frame = written(|out| append_granted(9, &granted, out));
    let answer = Answer::Granted(Box::new(granted));
    assert_eq!(Message::parse(body(&frame)), Ok(Message::Reply { seq: 9, answer }));
    let events = [
        Event::Output { session: 1, data: &[0; 40_000], offset: Some(1 << 50) },
        Event::Resync { session: 1, snapshot: Cow::Owned(snapshot()), offset: 9, skipped_bytes: 5 },
        Event::BackpressureWarning { session: 1, queue_size: 600_000, level: Level::Red },
        Event::OwnerChanged { session: 1, owner: Some("B") },
        Event::OwnerChanged { session: 1, owner: None },
        Event::Resized { session: 1, cols: 1, rows: 2 },
    ];
    for event in events {
        let frame = written(|out| append_event(&event, out));
        assert_eq!(Message::parse(body(&frame)), Ok(Message::Event(event)));
    }
}

proptest! {
    #[test]
    fn no_bytes_are_a_panic(frame in proptest::collection::vec(any::<u8>(), 0..200)) {
        let _ = Request::parse(&frame);
        let _ = Message::parse(&frame);
    }

    /// Nearly right is where mistakes hide.
    #[test]
    fn no_change_of_a_right_frame_is_a_panic(at in 0usize..60, byte: u8) {
        let mut frame = bytes(HANDSHAKE);
        frame[4 + at] = byte;
        let _ = Request::parse(&frame[4..]);
        let _ = Message::parse(&frame[4..]);
    }

    #[test]
    fn any_cut_of_the_stream_gives_the_same_frames(
        lengths in proptest::collection::vec(1usize..300, 1..8),
        cuts in proptest::collection::vec(1usize..50, 1..80),
    ) {
        let bodies: Vec<Vec<u8>> =
            lengths.iter().enumerate().map(|(number, length)| vec![number as u8; *length]).collect();
        let stream: Vec<u8> = bodies
            .iter()
            .flat_map(|body| [&(body.len() as u32).to_be_bytes()[..], body].concat())
            .collect();
        let (mut frames, mut seen) = (Frames::default(), Vec::new());
        let (mut rest, mut cut) = (stream.as_slice(), cuts.iter().cycle());
        while !rest.is_empty() {
            let mut piece = rest.split_off(..(*cut.next().unwrap()).min(rest.len())).unwrap();
            while let Some(frame) = frames.next(&mut piece, FRAME_MAX).unwrap() {
                seen.push(frame.to_vec());
            }
        }
        prop_assert_eq!(seen, bodies);
    }
}
