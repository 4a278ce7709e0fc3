//! The link protocol, byte by byte, as a broker speaks it.
#![allow(clippy::unwrap_used)]

use std::time::Duration;

use crate::common::{REACHABLE, World, ends, ms, name, refusals, waiting};
use castra_core::Restored;
use castra_core::auth::{Direction, Key, Transcript};
use castra_core::boundary::{Remote, Transport};
use castra_core::event::{Failure, SessionEnd};
use castra_core::id::{ConnId, Epoch, Nonce};
use castra_core::status::Reason;

const TOKEN: &str = "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff";
const GUEST_NONCE: &str = "0f0e0d0c0b0a09080706050403020100";

fn keyed_world() -> World {
    let tokens = vec![(name("keyed"), Some(TOKEN.parse().unwrap())), (name("revoked"), None)];
    World::restored(|_| {}, Restored { incarnation: 7, tokens, ..Restored::default() })
}

struct Keyed {
    conn: ConnId,
    key: Key,
    transcript: Transcript,
}

impl Keyed {
    fn begin(world: &mut World, guest: &str, token: &str) -> Self {
        let (conn, nonce, epoch) = world.hello(guest, &format!(" nonce={GUEST_NONCE}"));
        let hello = format!("hello vm:{guest} capabilities=proof-v1 nonce={GUEST_NONCE}");
        let (broker, own): (Nonce, Nonce) = (nonce.parse().unwrap(), GUEST_NONCE.parse().unwrap());
        let transcript = Transcript::new(&name(guest), &broker, &own, Epoch(epoch), hello.as_bytes());
        Self { conn, key: token.parse().unwrap(), transcript }
    }

    fn prove(&self, world: &mut World) -> String {
        let proof = self.transcript.guest_proof(&self.key);
        world.write(self.conn, format!("proof {proof}\n").as_bytes());
        world.line(self.conn)
    }

    fn send(&self, world: &mut World, count: u64, json: &str) {
        let tag = self.transcript.session_key(&self.key).tag(Direction::ToBroker, count, json.as_bytes());
        let tag: String = tag.iter().map(|byte| format!("{byte:02x}")).collect();
        world.send(self.conn, &format!("{json}{tag}"));
    }
}

#[test]
fn every_bad_line_gets_its_code_and_ends_its_connection_alone() {
    let mut world = World::new(|config| config.only_known = true);
    let cases: [(&[u8], &str, Failure); 8] = [
        (b"goodbye\n", "bad-line", Failure::BadLine),
        (b"\xff\xfe\n", "bad-line", Failure::BadLine),
        (b"hello\n", "bad-line", Failure::BadLine),
        (b"hello vm:-x capabilities=proof-v1\n", "bad-name", Failure::BadName),
        (b"hello vm:a\x1b[31m capabilities=proof-v1\n", "bad-name", Failure::BadName),
        (b"hello vm:a capabilities=proof-v1 boot=xyz\n", "bad-line", Failure::BadLine),
        (b"hello vm:a capabilities=proof-v1\n", "unknown-name", Failure::UnknownName),
        (&[b'x'; 600], "bad-line", Failure::BadLine),
    ];
    let bystander = world.open(Transport::Tcp);
    for (bytes, code, failure) in cases {
        let conn = world.open(Transport::Tcp);
        world.line(conn);
        world.write(conn, bytes);
        let line = world.line(conn);
        assert!(line.starts_with(&format!("error: {code}: ")), "{line}");
        assert!(world.is_closed(conn));
        assert_eq!(refusals(&world).last(), Some(&failure));
    }
    assert!(!world.is_closed(bystander));
    assert!(world.row("a").is_none(), "a failed hello creates no row");
}

#[test]
fn a_line_of_512_bytes_with_its_end_passes_and_one_more_does_not() {
    for (length, passes) in [(512, true), (513, false)] {
        let mut world = World::new(|_| {});
        let conn = world.open(Transport::Tcp);
        world.line(conn);
        let mut line = b"hello vm:a capabilities=proof-v1 x=".to_vec();
        line.resize(length - 1, b'y');
        line.push(b'\n');
        world.write(conn, &line);
        assert_eq!(world.line(conn).starts_with("challenge "), passes);
    }
}

#[test]
fn a_drip_is_cut_at_the_absolute_deadline_and_delays_nobody() {
    let mut world = World::new(|_| {});
    let drip = world.open(Transport::Tcp);
    world.line(drip);
    for byte in b"hello" {
        world.write(drip, &[*byte]);
        world.advance(ms(400));
    }
    assert!(world.line(drip).starts_with("error: timeout: "));
    assert!(world.is_closed(drip));
    let honest = world.join("honest");
    assert_eq!(world.verdict("honest"), REACHABLE);
    assert!(!world.is_closed(honest));
}

#[test]
fn half_open_connections_are_bounded_and_the_greediest_source_gives_way() {
    let mut world = World::new(|config| config.half_open_max = 8);
    let address = |last: u8| Remote::Ip(format!("127.0.0.{last}:9").parse().unwrap());
    let greedy: Vec<ConnId> = (0..6).map(|_| world.open_from(Transport::Tcp, address(1))).collect();
    let modest = world.open_from(Transport::Tcp, address(2));
    let (proving, _, _) = world.hello("proving", "");
    assert_eq!(world.doors["link"], 0, "accepting stops at the bound");
    world.advance(ms(249));
    assert_eq!(world.doors["link"], 0);
    world.advance(ms(1));
    assert_ne!(world.doors["link"], 0);
    let closed: Vec<&ConnId> = greedy.iter().filter(|conn| world.is_closed(**conn)).collect();
    assert_eq!(closed.len(), 1);
    assert!(!world.is_closed(modest) && !world.is_closed(proving));
    assert_eq!(world.broker.sizes().half_open, 7);
    world.advance(ms(2000));
    assert_eq!(world.broker.sizes().links, 0, "and the rest at its deadline");
}

#[test]
fn a_keyed_guest_proves_itself_and_the_broker_does_too() {
    let mut world = keyed_world();
    let guest = Keyed::begin(&mut world, "keyed", TOKEN);
    let ok = guest.prove(&mut world);
    let expected = guest.transcript.broker_proof(&guest.key);
    assert!(ok.ends_with(&format!(" proof={expected}")), "{ok}");
    let row = world.row("keyed").unwrap();
    assert!(row.reachable && row.authenticated && row.proven);
    guest.send(&mut world, 0, r#"{"type":"ping","id":9}"#);
    assert!(!world.is_closed(guest.conn));
    guest.send(&mut world, 0, r#"{"type":"ping","id":9}"#);
    assert!(world.is_closed(guest.conn), "a replayed frame carries the wrong count");
    assert_eq!(ends(&world), [SessionEnd::BadMac]);
}

#[test]
fn a_keyed_name_never_falls_back_and_refusals_change_no_verdict() {
    let mut world = keyed_world();
    let honest = Keyed::begin(&mut world, "keyed", TOKEN);
    honest.prove(&mut world);
    let before = world.row("keyed").unwrap();

    let wrong = Keyed::begin(&mut world, "keyed", &TOKEN.replace('0', "1"));
    assert!(wrong.prove(&mut world).starts_with("error: bad-proof: "));
    // A proof of an earlier handshake.
    let replayed = Keyed::begin(&mut world, "keyed", TOKEN);
    let old = honest.transcript.guest_proof(&honest.key);
    world.write(replayed.conn, format!("proof {old}\n").as_bytes());
    assert!(world.line(replayed.conn).starts_with("error: bad-proof: "));
    // The bare nonce.
    let (bare, nonce, _) = world.hello("keyed", &format!(" nonce={GUEST_NONCE}"));
    world.write(bare, format!("proof {nonce}\n").as_bytes());
    assert!(world.line(bare).starts_with("error: bad-proof: "));
    for (hello, code) in [
        ("hello vm:keyed capabilities=bus-v1\n", "token-required"),
        ("hello vm:keyed\n", "token-required"),
        ("hello vm:keyed capabilities=proof-v1\n", "bad-line"),
    ] {
        let conn = world.open(Transport::Tcp);
        world.line(conn);
        world.write(conn, hello.as_bytes());
        let line = world.line(conn);
        assert!(line.starts_with(&format!("error: {code}: ")), "{line}");
    }
    // A revoked name looks keyed, and nobody can prove it.
    let revoked = Keyed::begin(&mut world, "revoked", TOKEN);
    assert!(revoked.prove(&mut world).starts_with("error: bad-proof: "));

    let after = world.row("keyed").unwrap();
    assert_eq!(world.verdict("keyed"), REACHABLE);
    assert_eq!(after.refusals, 6);
    assert_eq!((after.epoch, after.last_handshake_age_ms), (before.epoch, before.last_handshake_age_ms));
}

#[test]
fn require_token_refuses_names_without_one() {
    let mut world = World::new(|config| config.require_token = true);
    let conn = world.open(Transport::Tcp);
    world.line(conn);
    world.write(conn, b"hello vm:a capabilities=proof-v1\n");
    assert!(world.line(conn).starts_with("error: token-required: "));
}

#[test]
fn a_live_incumbent_keeps_its_name() {
    let mut world = World::new(|_| {});
    let incumbent = world.join("devbox");
    let (thief, nonce, _) = world.hello("devbox", "");
    world.write(thief, format!("proof {nonce}\n").as_bytes());
    assert_eq!(world.take(thief), b"", "no verdict yet");
    let (third, nonce, _) = world.hello("devbox", "");
    world.write(third, format!("proof {nonce}\n").as_bytes());
    assert!(world.line(third).starts_with("error: busy: "), "one conflict at a time");
    world.advance(ms(499));
    let answer = world.answer_to_challenge(incumbent).unwrap();
    world.send(incumbent, &answer);
    assert!(world.line(thief).starts_with("error: name-in-use: "));
    assert!(!world.is_closed(incumbent));
    assert_eq!(world.row("devbox").unwrap().takeovers, 0);
    assert!(world.row("devbox").unwrap().last_handshake_age_ms.unwrap() < 500, "the answer is evidence");
}

#[test]
fn a_silent_incumbent_is_superseded_after_half_a_second_and_can_refresh_nothing() {
    let mut world = World::new(|_| {});
    let incumbent = world.join("devbox");
    let (newcomer, nonce, epoch) = world.hello("devbox", "");
    world.write(newcomer, format!("proof {nonce}\n").as_bytes());
    world.advance(ms(500));
    assert!(world.line(newcomer).starts_with("ok session="));
    let answer = world.answer_to_challenge(incumbent);
    assert!(answer.is_some() && world.is_closed(incumbent));
    world.advance(ms(2000));
    let before = world.row("devbox").unwrap();
    world.send(incumbent, &answer.unwrap());
    let after = world.row("devbox").unwrap();
    assert_eq!(after.last_handshake_age_ms, before.last_handshake_age_ms);
    assert_eq!((after.epoch.unwrap().0, after.takeovers), (epoch, 1));
    assert_eq!(ends(&world), [SessionEnd::Superseded]);
    let count = |kind| world.kinds().iter().filter(|other| **other == kind).count();
    assert_eq!(count("verdict.changed"), 1, "no flap");
    assert_eq!(count("handshake.success"), 2, "one greeting a session");
}

#[test]
fn an_incumbent_that_leaves_makes_way_at_once() {
    let mut world = World::new(|_| {});
    let incumbent = world.join("devbox");
    let (newcomer, nonce, _) = world.hello("devbox", "");
    world.write(newcomer, format!("proof {nonce}\n").as_bytes());
    world.close(incumbent);
    assert!(world.line(newcomer).starts_with("ok session="));
    assert_eq!(world.verdict("devbox"), REACHABLE);
}

#[test]
fn a_newcomer_that_leaves_does_not_hurt_the_incumbent() {
    let mut world = World::new(|_| {});
    let incumbent = world.join("devbox");
    let (newcomer, nonce, _) = world.hello("devbox", "");
    world.write(newcomer, format!("proof {nonce}\n").as_bytes());
    world.close(newcomer);
    world.advance(ms(600));
    assert!(!world.is_closed(incumbent));
    assert_eq!(world.verdict("devbox"), REACHABLE);
}

#[test]
fn a_keyed_newcomer_wins_and_a_one_shot_or_an_older_epoch_never_does() {
    let mut world = keyed_world();
    let old = Keyed::begin(&mut world, "keyed", TOKEN);
    let first = Keyed::begin(&mut world, "keyed", TOKEN);
    first.prove(&mut world);
    assert!(old.prove(&mut world).starts_with("error: name-in-use: "), "its epoch is lower");
    let second = Keyed::begin(&mut world, "keyed", TOKEN);
    assert!(second.prove(&mut world).starts_with("ok "));
    assert!(world.is_closed(first.conn));

    let incumbent = world.join("plain");
    let (once, nonce, _) = world.hello("plain", " once");
    world.write(once, format!("proof {nonce}\n").as_bytes());
    assert!(world.line(once).starts_with("error: name-in-use: "));
    assert!(!world.is_closed(incumbent));
}

#[test]
fn more_than_three_takeovers_in_ten_seconds_are_a_conflict() {
    let mut world = keyed_world();
    for _ in 0..5 {
        Keyed::begin(&mut world, "keyed", TOKEN).prove(&mut world);
        world.advance(ms(100));
    }
    let row = world.row("keyed").unwrap();
    assert_eq!(row.takeovers, 4);
    assert_eq!(row.warnings, [castra_core::status::Warning::NameConflict]);
    let conn = ConnId { index: 4, generation: 0 };
    world.close(conn);
    assert_eq!(world.verdict("keyed"), waiting(Reason::NameConflict));
    world.advance(Duration::from_secs(10));
    assert_eq!(world.verdict("keyed"), waiting(Reason::Disconnected));
}

#[test]
fn bad_frames_end_their_session_with_a_bye() {
    let cases: [(&[u8], SessionEnd); 4] = [
        (&[0, 0, 0, 0], SessionEnd::BadFrame),
        (&[0, 1, 0, 1], SessionEnd::BadFrame),
        (b"\0\0\0\x02{]", SessionEnd::BadFrame),
        (b"\xff\xff\xff\xff", SessionEnd::BadFrame),
    ];
    for (bytes, end) in cases {
        let mut world = World::new(|_| {});
        let bystander = world.join("bystander");
        let conn = world.join("devbox");
        world.write(conn, bytes);
        let bye = world.frame(conn).unwrap();
        assert_eq!((bye["type"].as_str(), bye["code"].as_str()), (Some("bye"), Some(end.as_str())));
        assert!(world.is_closed(conn) && !world.is_closed(bystander));
        assert_eq!(world.verdict("devbox"), waiting(Reason::Disconnected));
    }
}

#[test]
fn an_unknown_frame_is_answered_and_the_session_lives() {
    let mut world = World::new(|_| {});
    let conn = world.join("devbox");
    world.send(conn, r#"{"type":"dance"}"#);
    let answer = world.frame(conn).unwrap();
    assert_eq!((answer["code"].as_str(), answer["of"].as_str()), (Some("unknown-type"), Some("dance")));
    world.send(conn, "[1]");
    assert!(world.is_closed(conn), "an array is no frame of this protocol");
}

#[test]
fn an_unfinished_frame_has_five_seconds() {
    let mut world = World::new(|config| config.interval = ms(1000));
    let conn = world.join("devbox");
    world.write(conn, &[0, 0]);
    world.advance(ms(4999));
    assert!(!world.is_closed(conn));
    world.advance(ms(1));
    assert!(world.is_closed(conn));
    assert_eq!(ends(&world), [SessionEnd::BadFrame]);
}

#[test]
fn three_strikes_in_a_row_close_and_a_late_proof_is_none() {
    let mut world = World::new(|_| {});
    let conn = world.join("devbox");
    let zero = "00000000000000000000000000000000";
    let strike = format!(r#"{{"type":"proof","seq":99,"proof":"{zero}"}}"#);
    world.send(conn, &strike);
    world.send(conn, &strike);
    world.live(ms(6000), &[conn]);
    world.send(conn, &strike);
    world.send(conn, &strike);
    assert!(!world.is_closed(conn), "a right proof wipes strikes");
    // Already answered: counted, answered by a new challenge, no strike, no evidence.
    let before = world.row("devbox").unwrap().handshakes;
    for _ in 0..5 {
        world.send(conn, &format!(r#"{{"type":"proof","seq":1,"proof":"{zero}"}}"#));
    }
    assert!(world.answer_to_challenge(conn).is_some());
    assert_eq!(world.answer_to_challenge(conn), None, "at most one a second");
    assert_eq!(world.broker.statistics().late_proofs, 5);
    assert_eq!(world.row("devbox").unwrap().handshakes, before);
    world.send(conn, &strike);
    assert!(world.is_closed(conn));
    assert_eq!(ends(&world), [SessionEnd::Strikes]);
}

#[test]
fn a_fifth_challenge_forgets_the_first() {
    let mut world = World::new(|_| {});
    let conn = world.join("devbox");
    world.advance(ms(25_000));
    let answers: Vec<String> = std::iter::from_fn(|| world.answer_to_challenge(conn)).collect();
    assert!(answers.len() >= 5);
    world.send(conn, &answers[0]);
    assert_eq!(world.broker.statistics().late_proofs, 1);
    let last = answers.len() - 1;
    // The late proof was answered by one more challenge, which took a place.
    world.send(conn, &answers[last - 2]);
    assert_eq!(world.broker.statistics().late_proofs, 1);
}

#[test]
fn a_guest_that_does_not_read_for_a_window_is_let_go() {
    let mut world = World::new(|_| {});
    let conn = world.join("devbox");
    let wire = world.wires.get_mut(&conn).unwrap();
    wire.blocked = true;
    for _ in 0..8000 {
        world.send(conn, r#"{"type":"ping","id":1}"#);
    }
    assert_eq!(world.wires[&conn].credit, Some(0), "it is not read either");
    world.wires.get_mut(&conn).unwrap().room = 0;
    world.handle(castra_core::Input::Writable { conn, room: 0 });
    world.advance(ms(5000 + 15_000));
    assert!(world.is_closed(conn));
    assert_eq!(ends(&world), [SessionEnd::Slow]);
    assert_eq!(world.verdict("devbox"), waiting(Reason::Stale));
}

#[test]
fn any_cut_of_the_stream_gives_the_same_answers() {
    let script = |world: &mut World, conn: ConnId, step: usize| {
        let (nonce, _) = {
            for chunk in b"hello vm:devbox capabilities=proof-v1\r\n".chunks(step) {
                world.write(conn, chunk);
            }
            assert_eq!(world.line(conn), "castra-broker 0.1 ready");
            let line = world.line(conn);
            (line.split(' ').nth(1).unwrap().to_owned(), ())
        };
        let mut bytes = format!("proof {nonce}\n").into_bytes();
        for json in
            [r#"{"type":"ping","id":1}"#, r#"{"type":"subscribe","topic":"t"}"#, r#"{"type":"goodbye"}"#]
        {
            bytes.extend_from_slice(&u32::try_from(json.len()).unwrap().to_be_bytes());
            bytes.extend_from_slice(json.as_bytes());
        }
        for chunk in bytes.chunks(step) {
            world.write(conn, chunk);
        }
        (world.take(conn), world.kinds())
    };
    let outcomes: Vec<_> = [1, 2, 3, 5, 7, 64, 4096]
        .into_iter()
        .map(|step| {
            let mut world = World::new(|_| {});
            let conn = world.open(Transport::Tcp);
            script(&mut world, conn, step)
        })
        .collect();
    assert!(outcomes.windows(2).all(|pair| pair[0] == pair[1]));
    assert_eq!(outcomes[0].1.last(), Some(&"verdict.changed"));
}

#[test]
fn a_half_closed_hello_is_still_heard_and_then_the_link_ends() {
    let mut world = World::new(|_| {});
    let conn = world.open(Transport::Tcp);
    world.line(conn);
    world.write(conn, b"hello vm:old");
    world.handle(castra_core::Input::Finished { conn });
    assert_eq!(world.line(conn), "ok");
    assert!(world.is_closed(conn));
    let session = world.join("devbox");
    world.handle(castra_core::Input::Finished { conn: session });
    assert!(world.is_closed(session));
    assert_eq!(world.verdict("devbox"), waiting(Reason::Disconnected));
}

#[test]
fn a_0_1_bus_works_and_messages_reach_subscribers() {
    let mut world = World::new(|_| {});
    let (reader, writer) = (world.open(Transport::Tcp), world.open(Transport::Tcp));
    for (conn, guest) in [(reader, "r"), (writer, "w")] {
        world.write(conn, format!("hello vm:{guest} capabilities=bus-v1\n").as_bytes());
        world.line(conn);
        assert!(world.line(conn).starts_with("ok session="));
    }
    world.send(reader, r#"{"type":"subscribe","topic":"updates"}"#);
    assert_eq!(
        world.take(reader)[4..],
        *br#"{"ack":"subscribe","status":"ok","topic":"updates","type":"ack"}"#
    );
    world.send(reader, r#"{"type":"subscribe"}"#);
    assert_eq!(world.frame(reader).unwrap()["reason"], "missing topic");
    world.send(writer, r#"{"type":"publish","topic":"updates","payload":{"a":1}}"#);
    let message = world.frame(reader).unwrap();
    assert_eq!(
        (message["type"].as_str(), message["from"].as_str(), &message["payload"]["a"]),
        (Some("message"), Some("w"), &serde_json::json!(1))
    );
    assert_eq!(world.frame(writer).unwrap()["status"], "ok");
}

#[test]
fn a_malformed_proof_is_a_bad_proof_whatever_its_bytes() {
    for proof in [b"proof xyz\n".as_slice(), b"proof \xff\xfe\n", b"proof \n"] {
        let mut world = World::new(|_| {});
        let (conn, _, _) = world.hello("devbox", "");
        world.write(conn, proof);
        assert!(world.line(conn).starts_with("error: bad-proof: "));
    }
}

#[test]
fn no_debug_output_shows_the_proof_that_is_awaited() {
    let mut world = keyed_world();
    let guest = Keyed::begin(&mut world, "keyed", TOKEN);
    let proof = guest.transcript.guest_proof(&guest.key);
    assert!(!format!("{:?}", world.broker).contains(&format!("{:?}", proof.0)));
}
