//! What must hold of whatever a client of terminals says, of whatever a daemon says to it,
//! and of the frames that carry either over a link.
//!
//! The first byte says what the bytes are, the next two seed the cuts.

use castra_core::boundary::{Effect, Via};
use castra_core::config::Identity;
use castra_core::entropy::Entropy;
use castra_core::id::TerminalId;
use castra_core::link::message::{BrokerFrame, GuestFrame};
use castra_core::terminals::wire::{Answer, ErrorCode};
use castra_core::terminals::wire::{
    BadLength, CLIENT_FRAME_MAX, FRAME_MAX, Frames, Handshake, Message, Request, Role, append_error,
    append_event, append_granted, append_welcome,
};
use castra_core::terminals::{
    Deed, Exit, News, RestoredTerminals, Snapshot, TerminalsConfig, Token, WRITE_MAX,
};
use castra_core::tunnel::wire::{DATA_MAX, Encoded, TunnelFrame, append};
use castra_core::{Input, Terminals};

use super::choices::Cuts;
use super::host::{Host, start};
use super::scene::{Pieces, bring};

const TOKEN: &str = "0123456789abcdef";

/// Panics if something that must hold doesn't.
pub(crate) fn check(data: &[u8]) {
    let Some((&[what, high, low], stream)) = data.split_first_chunk::<3>() else { return };
    let seed = u16::from_be_bytes([high, low]);
    match what % 4 {
        0 => check_stream(seed, stream),
        1 => check_daemon(seed, stream, false),
        2 => check_daemon(seed, stream, true),
        _ => check_tunnel(stream),
    }
}

/// Frames are the same however they are cut; each is read as it would be written.
fn check_stream(seed: u16, stream: &[u8]) {
    for limit in [FRAME_MAX, CLIENT_FRAME_MAX, 64] {
        let mut cuts = Cuts::new(seed);
        let whole = frames(stream, limit, |left| left);
        assert_eq!(whole, frames(stream, limit, |_| 1), "whole and byte by byte");
        assert_eq!(whole, frames(stream, limit, |left| cuts.next(left)), "whole and cut");
        for frame in &whole.0 {
            assert!((1..=limit).contains(&frame.len()));
            check_request(frame);
            check_message(frame);
        }
    }
}

/// The frames, what is left, and the length that can't be.
fn frames(
    mut stream: &[u8],
    limit: usize,
    mut piece: impl FnMut(usize) -> usize,
) -> (Vec<Vec<u8>>, usize, Option<BadLength>) {
    let (mut frames, mut found) = (Frames::default(), Vec::new());
    while !stream.is_empty() {
        let (mut head, tail) = stream.split_at(piece(stream.len()));
        stream = tail;
        while !head.is_empty() {
            let before = head.len();
            match frames.next(&mut head, limit) {
                Ok(frame) => {
                    assert!(head.len() < before, "frames that take nothing");
                    assert!(frame.is_some() || head.is_empty(), "bytes that could be taken");
                    found.extend(frame.map(<[u8]>::to_vec));
                }
                Err(error) => return (found, 0, Some(error)),
            }
        }
    }
    (found, frames.waiting(), None)
}

/// The one frame's body.
fn body(frame: &[u8]) -> &[u8] {
    let (head, body) = frame.split_first_chunk().expect("a length");
    assert_eq!(u32::from_be_bytes(*head) as usize, body.len());
    body
}

fn check_request(frame: &[u8]) {
    let Ok((seq, request)) = Request::parse(frame) else { return };
    let mut written = Vec::new();
    request.append(seq, &mut written);
    assert_eq!(Request::parse(body(&written)), Ok((seq, request)), "a request comes back");
}

fn check_message(frame: &[u8]) {
    let Ok(message) = Message::parse(frame) else { return };
    let mut written = Vec::new();
    match &message {
        Message::Event(event) => append_event(event, &mut written),
        Message::Reply { seq, answer } => match answer {
            Answer::Handshake { protocol_version: 1, daemon_version, daemon_pid, capabilities } => {
                append_welcome(*seq, daemon_version, *daemon_pid, capabilities, &mut written);
            }
            Answer::Granted(granted) => append_granted(*seq, granted, &mut written),
            Answer::Error { code, message } => {
                let Some(code) = ErrorCode::parse(code) else { return };
                append_error(*seq, code, message, &mut written);
            }
            _ => return,
        },
        _ => return,
    }
    assert_eq!(Message::parse(body(&written)).as_ref(), Ok(&message), "a message comes back");
}

fn config() -> TerminalsConfig {
    TerminalsConfig {
        token: Some(Token::new(TOKEN.into())),
        identity: Identity { version: "0.2.0".into(), pid: 7, uid: 1000, ..Identity::default() },
        ring: 4096,
        sessions_max: 3,
        connections_max: 3,
        requests_max: 4,
        input_max: 8192,
        exited_max: 2,
        #[cfg(feature = "planted")]
        planted: super::scene::planted(),
        ..TerminalsConfig::default()
    }
}

/// A daemon behaves the same however the stream is cut, and survives it.
fn check_daemon(seed: u16, stream: &[u8], known: bool) {
    let mut said = Vec::new();
    if known {
        Request::Handshake(Handshake::new(TOKEN, "A", Role::Control)).append(1, &mut said);
    }
    said.extend_from_slice(stream);
    let talk = |pieces| {
        let restored = RestoredTerminals { next_id: 1, ..RestoredTerminals::default() };
        let engine = Terminals::new(config(), restored, Entropy::chosen(0), start());
        let mut daemon = Host::new(engine, &config());
        let (_, outcome) = bring(&mut daemon, Via::Terminals, &said, pieces);
        run(&mut daemon);
        daemon.finish();
        outcome
    };
    let whole = talk(Pieces::Whole);
    assert_eq!(whole, talk(Pieces::Bytes), "whole and byte by byte");
    assert_eq!(whole, talk(Pieces::Seeded(seed)), "whole and cut");
    for sent in whole.sent.values() {
        let (said, left, wrong) = frames(sent, CLIENT_FRAME_MAX, |left| left);
        assert_eq!((left, wrong), (0, None), "what a daemon says is frames");
        for frame in said {
            Message::parse(&frame).expect("what a daemon says can be read");
            check_message(&frame);
        }
    }
}

/// Programs run for a while, print, and end.
fn run(daemon: &mut Host<Terminals>) {
    for round in 0..50_u64 {
        let Some((id, effect)) = daemon.effects.pop_front() else { break };
        if let Effect::Terminal { terminal, deed } = effect {
            tell(daemon, terminal, &deed, round);
        }
        daemon.give(Input::Done { effect: id, result: Ok(()) });
    }
}

fn tell(daemon: &mut Host<Terminals>, terminal: TerminalId, deed: &Deed, round: u64) {
    let mut news = |news| daemon.give(Input::Terminal { terminal, news });
    match deed {
        Deed::Spawn { first, .. } => {
            news(News::Started { pid: 9, pts: "/dev/pts/1".into(), start_time: 7 });
            news(News::Output { offset: *first, bytes: b"\x1b[31m$ ".into() });
        }
        Deed::Write(bytes) => assert!((1..=WRITE_MAX).contains(&bytes.len())),
        Deed::Snapshot { .. } => {
            news(News::Snapshot(Box::new(Snapshot { offset: 7, ..Snapshot::default() })))
        }
        Deed::Resize { cols, rows } => assert!(*cols > 0 && *rows > 0),
        Deed::Kill => news(News::Exited(Exit { code: 137, signal: Some(9) })),
        Deed::HangUp if round.is_multiple_of(2) => news(News::Lost { why: "\u{9b}it".into() }),
        _ => {}
    }
}

/// A frame of a stream is written as it was read.
fn check_tunnel(json: &[u8]) {
    let guest = GuestFrame::parse(json);
    let broker = BrokerFrame::parse(json);
    let frames = [
        if let Ok(GuestFrame::Tunnel(frame)) = guest { Some(frame) } else { None },
        if let Ok(BrokerFrame::Tunnel(frame)) = broker { Some(frame) } else { None },
    ];
    for frame in frames.into_iter().flatten() {
        let mut data = Vec::new();
        let decode = |encoded: Encoded<'_>| encoded.decode(&mut data);
        let Ok(frame) = frame.with_data(decode) else {
            assert!(data.is_empty(), "what is no data leaves nothing");
            continue;
        };
        assert!(data.len() <= DATA_MAX);
        let frame = frame.with_data::<_, ()>(|()| Ok(&data[..])).expect("data");
        let mut written = Vec::new();
        append(&mut written, &frame);
        let again = match BrokerFrame::parse(&written) {
            Ok(BrokerFrame::Tunnel(again)) => again,
            other => panic!("{frame:?} was read as {other:?}"),
        };
        let mut twice = Vec::new();
        let again = again.with_data(|encoded| encoded.decode(&mut twice)).expect("our own data");
        let again: TunnelFrame<&[u8]> = again.with_data::<_, ()>(|()| Ok(&twice[..])).expect("data");
        assert_eq!(again, frame, "a frame of a stream comes back");
    }
}
