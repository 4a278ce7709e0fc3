//! Who is let in, and what is said to whom isn't.

use rmpv::Value;

use crate::support::{
    Client, Daemon, Fields, Role, World, fields, flag, frame, has, number, numbered, sh, text,
};

fn greeting(daemon: &Daemon) -> Fields {
    fields! {
        "token" => daemon.token(), "protocol_version" => 1, "client_id" => "A", "role" => "control",
    }
}

fn with(mut fields: Fields, name: &str, value: impl Into<Value>) -> Fields {
    fields.retain(|(key, _)| key.as_str() != Some(name));
    fields.push((name.into(), value.into()));
    fields
}

fn without(mut fields: Fields, names: &[&str]) -> Fields {
    fields.retain(|(key, _)| !names.contains(&key.as_str().unwrap()));
    fields
}

fn welcome(client: &mut Client, fields: Fields) {
    let reply = client.request("handshake", fields);
    assert_eq!(text(&reply, "type"), "handshake", "{reply}");
}

#[test]
fn a_refused_handshake_leaves_the_connection_open_for_another_try() {
    let world = World::new();
    let daemon = world.start();
    let mut client = daemon.connect();
    let good = || greeting(&daemon);
    let nearly = format!("{}x", &daemon.token()[..63]);
    for (fields, code) in [
        (with(good(), "protocol_version", 2), "PROTOCOL_MISMATCH"),
        (with(good(), "protocol_version", 0), "PROTOCOL_MISMATCH"),
        (with(good(), "protocol_version", u32::MAX), "PROTOCOL_MISMATCH"),
        // The version comes before the token.
        (with(with(good(), "token", "wrong"), "protocol_version", 2), "PROTOCOL_MISMATCH"),
        (with(good(), "token", "wrong"), "AUTH_FAILED"),
        (with(good(), "token", ""), "AUTH_FAILED"),
        (with(good(), "token", nearly), "AUTH_FAILED"),
        (with(good(), "token", format!("{} ", daemon.token())), "AUTH_FAILED"),
        (with(good(), "client_id", ""), "INVALID_CLIENT_ID"),
        (with(good(), "client_id", " \t\n"), "INVALID_CLIENT_ID"),
        // The token comes before the name.
        (with(with(good(), "token", "wrong"), "client_id", ""), "AUTH_FAILED"),
    ] {
        assert_eq!(client.refused("handshake", fields), code);
        assert_eq!(client.refused("list", vec![]), "NOT_AUTHENTICATED");
    }
    welcome(&mut client, good());
    assert_eq!(client.refused("handshake", good()), "ALREADY_AUTHENTICATED");
    client.rows();
}

#[test]
fn nothing_is_done_before_a_handshake() {
    let world = World::new();
    let daemon = world.start();
    let mut known = daemon.client("A");
    let session = known.create(fields! { "command" => sh("sleep 600") });
    let mut client = daemon.connect();
    let this = || fields! { "session" => session };
    for (kind, fields) in [
        ("create", vec![]),
        ("create_or_attach", fields! { "session_key" => "k" }),
        ("list", vec![]),
        ("attach", this()),
        ("detach", this()),
        ("input", with(this(), "data", crate::support::bin("x"))),
        ("resize", with(with(this(), "cols", 10), "rows", 10)),
        ("signal", with(this(), "signal", "KILL")),
        ("clear_scrollback", this()),
        ("kill", this()),
        ("kill_all", vec![]),
        ("takeover", this()),
        ("snapshot", this()),
        ("metrics", vec![]),
    ] {
        assert_eq!(client.refused(kind, fields), "NOT_AUTHENTICATED", "{kind}");
    }
    let rows = known.rows();
    assert_eq!((rows.len(), flag(&rows[0], "is_alive"), number(&rows[0], "cols")), (1, true, 80));
}

#[test]
fn a_handshake_of_before_client_ids_and_roles_is_told_so() {
    let world = World::new();
    let daemon = world.start();
    let good = || greeting(&daemon);
    for fields in [
        without(good(), &["client_id", "role"]),
        without(good(), &["client_id"]),
        without(good(), &["role"]),
        with(good(), "client_id", Value::Nil),
        with(good(), "role", Value::Nil),
        // As little as that.
        without(good(), &["client_id", "role", "protocol_version"]),
    ] {
        let what = format!("{:?}", fields.iter().map(|(key, _)| key.to_string()).collect::<Vec<_>>());
        let mut client = daemon.connect();
        client.send_bytes(&frame(&numbered("handshake", 3, fields)));
        let said = client.until_closed();
        assert_eq!(said.len(), 1, "{what}");
        assert_eq!((number(&said[0], "seq"), text(&said[0], "code")), (3, "PROTO_BREAKING_CHANGE"), "{what}");
    }
}

#[test]
fn a_role_or_a_mode_that_is_not_known_is_an_error_of_protocol() {
    let world = World::new();
    let daemon = world.start();
    for fields in [
        with(greeting(&daemon), "role", "admin"),
        with(greeting(&daemon), "role", 1),
        with(greeting(&daemon), "channel_mode", "triple"),
        with(greeting(&daemon), "token", 1),
    ] {
        let mut client = daemon.connect();
        client.send_bytes(&frame(&numbered("handshake", 3, fields)));
        let said = client.until_closed();
        assert_eq!((number(&said[0], "seq"), text(&said[0], "code")), (3, "PROTOCOL_ERROR"));
    }
}

#[test]
fn optional_fields_of_a_handshake_may_be_nil_and_unknown_ones_are_skipped() {
    let world = World::new();
    let daemon = world.start();
    let mut client = daemon.connect();
    let mut fields = greeting(&daemon);
    fields.reverse();
    fields = with(with(fields, "channel_mode", Value::Nil), "capabilities", Value::Nil);
    welcome(&mut client, with(fields, "colour", "blue"));
    let mut client = daemon.connect();
    let more =
        fields! { "channel_mode" => "single", "capabilities" => crate::support::texts(&["from-2030"]) };
    welcome(&mut client, greeting(&daemon).into_iter().chain(more).collect());
}

#[test]
fn the_reply_to_a_handshake_names_the_daemon_and_what_it_adds() {
    let world = World::new();
    let daemon = world.start();
    let mut client = daemon.connect();
    let reply = client.introduce(&daemon.token(), "A", Role::Stream, vec![]);
    assert_eq!((number(&reply, "seq"), number(&reply, "protocol_version")), (1, 1));
    assert_eq!(number(&reply, "daemon_pid"), u64::from(daemon.pid()));
    assert!(!text(&reply, "daemon_version").is_empty());
    let capabilities = reply["capabilities"].as_array().unwrap();
    for word in ["ownership-v2", "offsets-v1"] {
        assert!(capabilities.contains(&word.into()), "{reply}");
    }
    assert!(!has(&reply, "token"));
}

#[test]
fn a_name_may_be_of_any_alphabet_and_has_a_bound() {
    let world = World::new();
    let daemon = world.start();
    let mut client = daemon.client(&"\u{1f980}".repeat(64));
    let session = client.create(fields! { "command" => sh("sleep 600") });
    assert_eq!(text(&client.row(session), "owner").chars().count(), 64);
    let fields = with(greeting(&daemon), "client_id", "x".repeat(257));
    assert_eq!(daemon.connect().refused("handshake", fields), "INVALID_CLIENT_ID");
}
