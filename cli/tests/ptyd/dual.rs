//! Clients of two connections: one asks, output comes on the other.

use crate::support::{Client, Daemon, Role, World, bin, fields, flag, has, number, sh, text};

fn dual(daemon: &Daemon, id: &str, role: Role) -> Client {
    daemon.client_with(id, role, fields! { "channel_mode" => "dual" })
}

const ECHO: &str = "stty -echo; echo ready; while read line; do echo \"<$line>\"; done";

#[test]
fn output_comes_on_the_stream_and_the_reply_on_the_control_connection() {
    let world = World::new();
    let daemon = world.start();
    let mut control = dual(&daemon, "A", Role::Control);
    let mut stream = dual(&daemon, "A", Role::Stream);
    let session = control.create(fields! { "command" => sh(ECHO) });
    let reply = control.ok("attach", fields! { "session" => session, "resume_from" => 0 });
    assert!(flag(&reply, "owner_is_you"));
    control.input(session, "one\n");
    stream.read_until(session, "<one>");
    control.ok("kill", fields! { "session" => session });
    assert_eq!(stream.exit(session), (129, Some(1)));
    // Nothing of it came on the other.
    control.rows();
    assert_eq!(control.take_output(session), b"");
    assert!(control.events_so_far().iter().all(|event| text(event, "type") != "exit"));
}

#[test]
fn without_a_stream_of_the_same_client_an_attach_is_refused() {
    let world = World::new();
    let daemon = world.start();
    let mut control = dual(&daemon, "A", Role::Control);
    let session = control.create(fields! { "command" => sh(ECHO) });
    let attach = || fields! { "session" => session };
    assert_eq!(control.refused("attach", attach()), "STREAM_NOT_CONNECTED");
    // Not somebody else's, and not one that isn't half of a pair.
    let mut other = dual(&daemon, "B", Role::Stream);
    let mut single = daemon.stream("A");
    other.rows();
    single.rows();
    assert_eq!(control.refused("attach", attach()), "STREAM_NOT_CONNECTED");
    let mut stream = dual(&daemon, "A", Role::Stream);
    control.attach(session);
    control.input(session, "one\n");
    stream.read_until(session, "<one>");
    drop(stream);
    crate::support::until("the stream is gone", || {
        text(&control.request("attach", attach()), "type") == "error"
    });
    assert_eq!(control.refused("attach", attach()), "STREAM_NOT_CONNECTED");
}

#[test]
fn commands_on_the_stream_of_a_pair_are_on_the_wrong_channel() {
    let world = World::new();
    let daemon = world.start();
    let mut control = dual(&daemon, "A", Role::Control);
    let mut stream = dual(&daemon, "A", Role::Stream);
    let session = control.create(fields! { "command" => sh(ECHO) });
    for (kind, fields) in [
        ("create", vec![]),
        ("create_or_attach", fields! { "session_key" => "k" }),
        ("input", fields! { "session" => session, "data" => bin("x") }),
        ("resize", fields! { "session" => session, "cols" => 10, "rows" => 10 }),
        ("signal", fields! { "session" => session, "signal" => "KILL" }),
        ("clear_scrollback", fields! { "session" => session }),
        ("kill", fields! { "session" => session }),
        ("kill_all", vec![]),
        ("takeover", fields! { "session" => session }),
    ] {
        assert_eq!(stream.refused(kind, fields), "WRONG_CHANNEL", "{kind}");
    }
    assert_eq!(stream.rows().len(), 1);
}

#[test]
fn a_detach_on_control_ends_the_streams_output_and_frees_the_terminal() {
    let world = World::new();
    let daemon = world.start();
    let mut control = dual(&daemon, "A", Role::Control);
    let mut stream = dual(&daemon, "A", Role::Stream);
    let session = control.create(fields! { "command" => sh(ECHO) });
    control.attach(session);
    control.input(session, "one\n");
    stream.read_until(session, "<one>");
    control.ok("detach", fields! { "session" => session });
    assert!(!has(&control.row(session), "owner"));
    stream.take_output(session);
    let mut other = daemon.client("B");
    other.attach(session);
    other.input(session, "two\n");
    other.read_until(session, "<two>");
    stream.rows();
    assert_eq!(stream.take_output(session), b"");
}

#[test]
fn the_control_connection_owns_and_a_lost_stream_changes_nothing() {
    let world = World::new();
    let daemon = world.start();
    let mut control = dual(&daemon, "A", Role::Control);
    let mut stream = dual(&daemon, "A", Role::Stream);
    let session = control.create(fields! { "command" => sh(ECHO) });
    control.attach(session);
    // The pair is one client: both see that the terminal is theirs.
    assert!(flag(&stream.row(session), "owner_is_you"));
    drop(stream);
    let mut watcher = daemon.client("W");
    watcher.attach(session);
    assert_eq!(text(&watcher.row(session), "owner"), "A");
    control.input(session, "one\n");
    watcher.read_until(session, "<one>");
    // A new stream takes up where it likes.
    let mut stream = dual(&daemon, "A", Role::Stream);
    control.ok("attach", fields! { "session" => session, "resume_from" => 0 });
    stream.read_until(session, "<one>");
    drop(control);
    let changed = watcher.event_of("owner_changed", session);
    assert!(!has(&changed, "owner"));
    assert_eq!(number(&watcher.row(session), "subscribers"), 2);
}
