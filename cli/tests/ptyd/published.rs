//! The byte examples of the published wire: sent as they are, and the answers byte by byte.

use std::time::Instant;

use rmpv::Value;

use crate::support::{Client, PATIENCE, World, bin, fields, has, hex, keys, sh, value};

const HANDSHAKE: &str = "0000004b 86 a474797065 a968616e647368616b65 a5746f6b656e a454454554
    b070726f746f636f6c5f76657273696f6e 01 a9636c69656e745f6964 a141
    a4726f6c65 a7636f6e74726f6c a3736571 01";
const OK_SESSION_1_SEQ_2: &str = "00000017 83 a474797065 a26f6b a3736571 02 a773657373696f6e 01";
const ATTACH_1_SEQ_3: &str = "0000001b 83 a474797065 a6617474616368 a773657373696f6e 01 a3736571 03";
const INPUT_ECHO_HI_SEQ_4: &str = "00000029 84 a474797065 a5696e707574 a773657373696f6e 01
    a464617461 c408 6563686f2068690a a3736571 04";
const EXIT_KILLED: &str =
    "00000023 84 a474797065 a465786974 a773657373696f6e 01 a4636f6465 cc89 a67369676e616c 09";
const EXIT_3: &str = "0000001a 83 a474797065 a465786974 a773657373696f6e 01 a4636f6465 03";
const OWNER_REQUIRED_SEQ_3: &str = "0000004f 84 a474797065 a56572726f72 a3736571 03
    a4636f6465 ae4f574e45525f5245515549524544
    a76d657373616765 d920 636c69656e74206973206e6f74206f776e6572206f662073657373696f6e2031";

/// The example's handshake, with a token of 64 characters instead of 4.
fn handshake(token: &str) -> Vec<u8> {
    let example = hex(&HANDSHAKE.replace("a454454554", "a454455354"));
    let at = example.windows(5).position(|part| part == b"\xa4TEST").unwrap();
    let text = [&[0xd9, 64], token.as_bytes()].concat();
    let mut frame = [&example[..at], &text, &example[at + 5..]].concat();
    let length = u32::try_from(frame.len() - 4).unwrap();
    frame[..4].copy_from_slice(&length.to_be_bytes());
    frame
}

/// The next frame, its length before it.
fn next(client: &mut Client) -> Vec<u8> {
    let body = client.next_frame(Instant::now() + PATIENCE).expect("a frame");
    [&u32::try_from(body.len()).unwrap().to_be_bytes()[..], &body].concat()
}

/// The first frame of that type.
fn next_of(client: &mut Client, kind: &str) -> Vec<u8> {
    loop {
        let frame = next(client);
        if value(&frame[4..])["type"] == Value::from(kind) {
            return frame;
        }
    }
}

#[test]
fn the_published_conversation_byte_by_byte() {
    let world = World::new();
    let daemon = world.start();
    let mut client = daemon.connect();
    client.send_bytes(&handshake(&daemon.token()));
    let welcome = next(&mut client);
    // Five fields in the published order, then what is added.
    let order = "a474797065 a968616e647368616b65 a3736571 01 b070726f746f636f6c5f76657273696f6e 01
        ae6461656d6f6e5f76657273696f6e";
    assert!(welcome[5..].starts_with(&hex(order)), "{welcome:x?}");
    let welcome = value(&welcome[4..]);
    let names = ["type", "seq", "protocol_version", "daemon_version", "daemon_pid"];
    assert_eq!(keys(&welcome)[..5], names);
    assert_eq!(welcome["daemon_pid"], Value::from(daemon.pid()));

    // As the published encoder writes it: what is undefined is nil.
    let create = "87 a474797065 a6637265617465 a3637764 c0 a4636f6c73 50 a4726f7773 18
        a57368656c6c a72f62696e2f7368 a3656e76 81 a3505331 a22320 a3736571 02";
    client.send_bytes(&crate::support::framed(&hex(create)));
    assert_eq!(next(&mut client), hex(OK_SESSION_1_SEQ_2));

    client.send_bytes(&hex(ATTACH_1_SEQ_3));
    let attached = next_of(&mut client, "ok");
    let order = "a474797065 a26f6b a3736571 03 a773657373696f6e 01 a8736e617073686f74";
    assert!(attached[5..].starts_with(&hex(order)), "{attached:x?}");

    // The prompt may have come before the attach; the one after this has not.
    client.send_bytes(&hex(INPUT_ECHO_HI_SEQ_4));
    let (mut answered, mut shown) = (false, Vec::new());
    while !(answered && shown.ends_with(b"hi\r\n# ")) {
        let message = value(&next(&mut client)[4..]);
        match message["type"].as_str() {
            Some("ok") => {
                assert_eq!(keys(&message), ["type", "seq", "session"]);
                assert_eq!((message["seq"].as_u64(), message["session"].as_u64()), (Some(4), Some(1)));
                answered = true;
            }
            Some("output") => {
                assert_eq!(keys(&message)[..3], ["type", "session", "data"]);
                shown.extend_from_slice(message["data"].as_slice().unwrap());
            }
            _ => panic!("{message}"),
        }
    }

    // Another client is refused in the published words.
    let mut other = daemon.client("B");
    let seq = other.send("list", vec![]);
    other.reply(seq);
    other.send("input", fields! { "session" => 1, "data" => bin("x") });
    assert_eq!(next(&mut other), hex(OWNER_REQUIRED_SEQ_3));

    client.send("signal", fields! { "session" => 1, "signal" => "KILL" });
    assert_eq!(next_of(&mut client, "exit"), hex(EXIT_KILLED));
}

#[test]
fn a_natural_exit_byte_by_byte() {
    let world = World::new();
    let daemon = world.start();
    let mut client = daemon.client("A");
    client.send("create", fields! { "command" => sh("read line; exit 3") });
    next_of(&mut client, "ok");
    client.send("attach", fields! { "session" => 1 });
    next_of(&mut client, "ok");
    client.send("input", fields! { "session" => 1, "data" => bin("\n") });
    assert_eq!(next_of(&mut client, "exit"), hex(EXIT_3));
}

#[test]
fn an_output_has_the_published_fields_first_and_its_data_is_binary() {
    let world = World::new();
    let daemon = world.start();
    let mut client = daemon.client("A");
    client.send("create", fields! { "command" => sh("read line; stty -echo; printf '# '; read line") });
    next_of(&mut client, "ok");
    client.send("attach", fields! { "session" => 1 });
    next_of(&mut client, "ok");
    client.send("input", fields! { "session" => 1, "data" => bin("\n") });
    let mut outputs = Vec::new();
    let mut shown = Vec::new();
    while !shown.ends_with(b"# ") {
        let frame = next_of(&mut client, "output");
        shown.extend_from_slice(value(&frame[4..])["data"].as_slice().unwrap());
        outputs.push(frame);
    }
    for frame in outputs {
        let start = hex("a474797065 a66f7574707574 a773657373696f6e 01 a464617461 c4");
        assert!(frame[5..].starts_with(&start), "{frame:x?}");
        let output = value(&frame[4..]);
        assert_eq!(keys(&output), ["type", "session", "data", "offset"]);
    }
}

#[test]
fn no_reply_has_what_was_not_asked_for() {
    let world = World::new();
    let daemon = world.start();
    let mut client = daemon.client("A");
    let session = client.create(fields! { "command" => sh("sleep 600") });
    for (kind, more) in [
        ("input", fields! { "data" => bin("x") }),
        ("resize", fields! { "cols" => 90, "rows" => 30 }),
        ("signal", fields! { "signal" => "CONT" }),
        ("clear_scrollback", vec![]),
        ("detach", vec![]),
        ("kill", vec![]),
    ] {
        let fields = fields! { "session" => session }.into_iter().chain(more).collect();
        assert_eq!(keys(&client.ok(kind, fields)), ["type", "seq", "session"], "{kind}");
    }
    assert_eq!(keys(&client.ok("list", vec![])), ["type", "seq", "sessions"]);
    let all = client.ok("kill_all", vec![]);
    assert_eq!(keys(&all), ["type", "seq", "count"]);
    assert!(!has(&all, "session"));
}
