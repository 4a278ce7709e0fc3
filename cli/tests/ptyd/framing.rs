//! Frames: however they are cut, and what is none.

use rmpv::Value;

use crate::support::{World, fields, frame, framed, hex, number, numbered, sh, text, texts};

/// The codes that came before the connection was closed.
fn refusals(world: &mut crate::support::Client) -> Vec<(u64, String)> {
    let messages = world.until_closed();
    messages.iter().map(|message| (number(message, "seq"), text(message, "code").to_owned())).collect()
}

#[test]
fn a_frame_may_be_cut_at_every_byte() {
    let world = World::new();
    let daemon = world.start();
    let greeting = fields! {
        "token" => daemon.token(), "protocol_version" => 1, "client_id" => "A", "role" => "control",
    };
    let bytes = frame(&numbered("handshake", 1, greeting));
    for cut in 1..bytes.len() {
        let mut client = daemon.connect();
        client.send_bytes(&bytes[..cut]);
        // So that the halves are not read at once: another connection is served between.
        if cut % 16 == 1 {
            daemon.client("between").rows();
        }
        client.send_bytes(&bytes[cut..]);
        assert_eq!(text(&client.reply(1), "type"), "handshake", "cut at {cut}");
    }
}

#[test]
fn a_frame_may_come_byte_by_byte() {
    let world = World::new();
    let daemon = world.start();
    let mut client = daemon.client("A");
    for byte in frame(&numbered("list", 9, vec![])) {
        client.send_bytes(&[byte]);
    }
    assert_eq!(text(&client.reply(9), "type"), "ok");
}

#[test]
fn many_frames_in_one_write_are_answered_in_their_order() {
    let world = World::new();
    let daemon = world.start();
    let mut client = daemon.client("A");
    let mut bytes = Vec::new();
    for seq in 100..200 {
        bytes.extend(frame(&numbered("list", seq, vec![])));
    }
    // The start of one more.
    let last = frame(&numbered("list", 200, vec![]));
    bytes.extend_from_slice(&last[..7]);
    client.send_bytes(&bytes);
    for seq in 100..200 {
        assert_eq!(number(&client.reply(seq), "seq"), u64::from(seq));
    }
    client.send_bytes(&last[7..]);
    client.reply(200);
}

#[test]
fn a_handshake_and_requests_may_come_at_once() {
    let world = World::new();
    let daemon = world.start();
    let greeting = fields! {
        "token" => daemon.token(), "protocol_version" => 1, "client_id" => "A", "role" => "control",
    };
    let mut bytes = frame(&numbered("handshake", 1, greeting));
    bytes.extend(frame(&numbered("create", 2, fields! { "command" => sh("sleep 600") })));
    bytes.extend(frame(&numbered("attach", 3, fields! { "session" => 1 })));
    let mut client = daemon.connect();
    client.send_bytes(&bytes);
    assert_eq!(text(&client.reply(1), "type"), "handshake");
    // The attach may come before the terminal has been started, but it is answered.
    assert_eq!(number(&client.reply(2), "session"), 1);
    client.reply(3);
}

#[test]
fn a_frame_of_4_mib_is_read_and_a_longer_one_closes() {
    const MOST: usize = 4 * 1024 * 1024;
    let world = World::new();
    let daemon = world.start();
    let mut client = daemon.client("A");
    let padded = |length: usize| frame(&numbered("list", 7, fields! { "padding" => "x".repeat(length) }));
    let overhead = padded(1 << 20).len() - 4 - (1 << 20);
    let largest = padded(MOST - overhead);
    assert_eq!(largest.len() - 4, MOST);
    client.send_bytes(&largest);
    assert_eq!(text(&client.reply(7), "type"), "ok");
    // Its length alone is enough.
    client.send_bytes(&u32::try_from(MOST + 1).unwrap().to_be_bytes());
    assert_eq!(refusals(&mut client), [(0, "PROTOCOL_ERROR".to_owned())]);
}

#[test]
fn a_stranger_can_not_make_the_daemon_wait_for_4_mib() {
    let world = World::new();
    let daemon = world.start();
    let mut client = daemon.connect();
    client.send_bytes(&(1u32 << 20).to_be_bytes());
    assert_eq!(refusals(&mut client), [(0, "PROTOCOL_ERROR".to_owned())]);
}

#[test]
fn a_length_of_zero_closes() {
    let world = World::new();
    let daemon = world.start();
    let mut client = daemon.client("A");
    client.send_bytes(&[0; 4]);
    assert_eq!(refusals(&mut client), [(0, "PROTOCOL_ERROR".to_owned())]);
}

#[test]
fn what_is_no_request_is_answered_with_an_error_before_the_close() {
    let world = World::new();
    let daemon = world.start();
    let deep = [vec![0x91; 100], vec![0xc0]].concat();
    let mut deep_field = hex("82 a474797065 a46c697374 a178");
    deep_field.extend(&deep);
    let cases: [(&str, Vec<u8>); 9] = [
        ("no MessagePack", vec![0xc1]),
        ("text", b"GET / HTTP/1.1\r\n".to_vec()),
        ("an array", hex("92 01 02")),
        ("cut short", hex("84 a474797065 a46c697374")),
        ("something behind it", hex("82 a474797065 a46c697374 a3736571 01 c0")),
        ("too deep", deep_field),
        ("a count that can't be", hex("df ffffffff")),
        ("no type", hex("81 a3736571 05")),
        ("a type that is no text", hex("82 a474797065 01 a3736571 05")),
    ];
    for (what, body) in cases {
        for known in [false, true] {
            let mut client = if known { daemon.client("A") } else { daemon.connect() };
            client.send_bytes(&framed(&body));
            let refusals = refusals(&mut client);
            assert_eq!(refusals.len(), 1, "{what}");
            assert!(matches!(refusals[0].0, 0 | 5), "{what}: {refusals:?}");
            assert_eq!(refusals[0].1, "PROTOCOL_ERROR", "{what}");
        }
    }
    daemon.client("A").rows();
}

#[test]
fn a_field_that_is_missing_or_of_another_kind_is_answered_with_its_number() {
    let world = World::new();
    let daemon = world.start();
    let mut client = daemon.client("A");
    let session = client.create(fields! { "command" => sh("sleep 600") });
    let cases: Vec<(&str, crate::support::Fields)> = vec![
        ("attach", vec![]),
        ("attach", fields! { "session" => Value::Nil }),
        ("attach", fields! { "session" => "1" }),
        ("attach", fields! { "session" => -1 }),
        ("attach", fields! { "session" => 1u64 << 32 }),
        ("input", fields! { "session" => session }),
        // Text is not bytes.
        ("input", fields! { "session" => session, "data" => "text" }),
        ("resize", fields! { "session" => session, "cols" => 80 }),
        ("resize", fields! { "session" => session, "cols" => 65536, "rows" => 24 }),
        ("signal", fields! { "session" => session }),
        ("create", fields! { "cols" => "80" }),
        ("create", fields! { "env" => texts(&["A", "B"]) }),
        ("create", fields! { "initial_commands" => "ls" }),
        ("create_or_attach", vec![]),
        ("create_or_attach", fields! { "session_key" => Value::Nil }),
    ];
    for (seq, (kind, fields)) in (1000..).zip(cases) {
        let what = format!("{kind} {fields:?}");
        let mut client = daemon.client("B");
        client.send_bytes(&frame(&numbered(kind, seq, fields)));
        assert_eq!(refusals(&mut client), [(u64::from(seq), "PROTOCOL_ERROR".to_owned())], "{what}");
    }
    assert_eq!(client.rows().len(), 1);
}

#[test]
fn a_type_of_a_later_version_is_refused_by_its_number() {
    let world = World::new();
    let daemon = world.start();
    let mut client = daemon.client("A");
    for kind in ["", "detonate", "List", "list ", "output", "ok"] {
        assert_eq!(client.refused(kind, fields! { "session" => 1 }), "PROTOCOL_ERROR", "{kind:?}");
    }
    client.rows();
}

#[test]
fn fields_come_in_any_order_numbers_in_any_width_and_unknown_ones_are_skipped() {
    let world = World::new();
    let daemon = world.start();
    let mut client = daemon.client("A");
    let session = client.create(fields! { "command" => sh("sleep 600") });
    assert_eq!(session, 1);
    let one = [
        "01",
        "cc01",
        "cd0001",
        "ce00000001",
        "cf0000000000000001",
        "d001",
        "d10001",
        "d200000001",
        "d30000000000000001",
    ];
    let mut seq = 40u64;
    for session in one {
        for width in 0..5 {
            seq += 1;
            let number = match width {
                0 => format!("{seq:02x}"),
                1 => format!("cc{seq:02x}"),
                2 => format!("cd{seq:04x}"),
                3 => format!("ce{seq:08x}"),
                _ => format!("d3{seq:016x}"),
            };
            // seq first, type last, and between them what nobody knows.
            let unknown =
                "a178 c0 a179 93 01 a0 81a161c3 a17a c403000102 a177 cb3ff0000000000000 a176 d40102";
            let body = format!(
                "88 a3736571 {number} {unknown} a773657373696f6e {session} a474797065 a6617474616368"
            );
            client.send_bytes(&framed(&hex(&body)));
            let reply = client.reply(seq.try_into().unwrap());
            assert_eq!(text(&reply, "type"), "ok", "{body}: {reply}");
            assert_eq!(number_of(&reply), 1);
            if seq > 110 {
                seq = 40;
            }
        }
    }
    // Long heads of maps and texts, too.
    let body = "df 00000002 da0004 74797065 db00000004 6c697374 d903 736571 ce ffffffff";
    client.send_bytes(&framed(&hex(body)));
    assert_eq!(text(&client.reply(u32::MAX), "type"), "ok");
}

fn number_of(reply: &Value) -> u64 {
    number(reply, "session")
}

#[test]
fn a_number_is_repeated_as_it_came_even_if_it_came_before() {
    let world = World::new();
    let daemon = world.start();
    let mut client = daemon.client("A");
    for seq in [0, 1, 7, 7, 127, 128, 255, 256, 65_535, 65_536, u32::MAX] {
        client.send_bytes(&frame(&numbered("list", seq, vec![])));
        assert_eq!(text(&client.reply(seq), "type"), "ok");
    }
}
