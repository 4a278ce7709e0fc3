//! Who owns what.

use std::time::{Duration, Instant};

use crate::support::{Role, World, bin, fields, flag, has, sh, text, until};

/// There: a command on a number that did not exist yet claimed it, and locked its later
/// creator out.
#[test]
fn defect_07_a_terminal_that_does_not_exist_can_not_be_claimed() {
    let world = World::new();
    let daemon = world.start();
    let mut early = daemon.client("early");
    for session in 1..=3 {
        let fields = fields! { "session" => session, "data" => bin("x") };
        assert_eq!(early.refused("input", fields), "NOT_FOUND");
        assert_eq!(early.refused("kill", fields! { "session" => session }), "NOT_FOUND");
        assert_eq!(early.refused("takeover", fields! { "session" => session }), "NOT_FOUND");
    }
    let mut client = daemon.client("A");
    let session = client.create(fields! { "command" => sh("sleep 600") });
    assert_eq!(session, 1);
    client.input(session, "x");
    assert_eq!(text(&early.row(session), "owner"), "A");
}

/// There: created, not attached, disconnected: owned for ever by a name that was gone.
#[test]
fn defect_08_whoever_creates_without_attaching_and_leaves_owns_nothing() {
    let world = World::new();
    let daemon = world.start();
    let mut creator = daemon.client("A");
    let session = creator.create(fields! { "command" => sh("sleep 600") });
    drop(creator);
    let left = Instant::now();
    let mut client = daemon.client("B");
    until("it is free", || !has(&client.row(session), "owner"));
    assert!(left.elapsed() < Duration::from_secs(4), "{:?}", left.elapsed());
    client.input(session, "x");
    assert!(flag(&client.row(session), "owner_is_you"));
}

/// There: the owner was a text that clients chose: a second connection of that name, even
/// one that only read, commanded, and released the terminal when it detached.
#[test]
fn defect_09_another_connection_of_the_same_name_owns_and_releases_nothing() {
    let world = World::new();
    let daemon = world.start();
    let mut owning = daemon.client("A");
    let session = owning.create(fields! { "command" => sh("sleep 600") });
    owning.attach(session);
    for role in [Role::Control, Role::Stream] {
        let mut second = daemon.client_with("A", role, vec![]);
        let reply = second.attach(session);
        assert!(!flag(&reply, "owner_is_you"), "{reply}");
        let code = second.refused("kill", fields! { "session" => session });
        assert!(code == "OWNER_REQUIRED" || code == "ROLE_FORBIDDEN");
        second.ok("detach", fields! { "session" => session });
        assert!(flag(&owning.row(session), "owner_is_you"));
        second.attach(session);
        drop(second);
        let mut other = daemon.client("B");
        other.attach(session);
        assert_eq!(other.refused("kill", fields! { "session" => session }), "OWNER_REQUIRED");
    }
    owning.input(session, "x");
}
