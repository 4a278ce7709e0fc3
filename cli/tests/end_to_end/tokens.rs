//! A token is issued once, used by its guest, revoked, and found nowhere it does not belong.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use serde_json::Value;

use crate::support::{PATIENCE, Process, World, files_below, verdict};

#[test]
fn a_token_lets_its_guest_in_until_it_is_revoked_and_shows_up_nowhere() {
    let world = World::new();
    let broker = world.broker(&["--require-token", "--window", "1500ms", "--interval", "500ms"]);
    let path = world.path("devbox.token");
    let issued = world.castra(&["token", "issue", "devbox", "--out", path.to_str().unwrap()]);
    assert_eq!((issued.code, issued.out.as_str()), (0, ""), "{issued:?}");
    let token = fs::read_to_string(&path).unwrap().trim().to_owned();
    assert!(token.len() == 64 && token.bytes().all(|byte| byte.is_ascii_hexdigit()));
    let mode = fs::metadata(&path).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);

    let agent = world.agent("devbox", broker.address(), &["--token-file", path.to_str().unwrap()]);
    let mut command = world.command(&["agent", "--name", "devbox", "--connect", broker.address(), "--once"]);
    command.env("CASTRA_TOKEN", &token);
    world.wait(&["devbox"], "reachable");
    let row = world.row("devbox");
    assert_eq!((&row["authenticated"], &row["proven"]), (&true.into(), &true.into()), "{row}");
    let line = fs::read(format!("/proc/{}/cmdline", agent.pid())).unwrap();
    assert!(!contains(&line, &token), "the token is on the command line");
    let stranger = world.agent("stranger", broker.address(), &["--once", "--timeout", "2s"]).finish(PATIENCE);
    assert_eq!(stranger.code, 5, "{stranger:?}");
    assert!(stranger.err.contains("token-required"), "{stranger:?}");
    let listed = world.json(&["token", "list", "--json"]);
    assert_eq!(
        (&listed["tokens"][0]["guest"], &listed["tokens"][0]["valid"]),
        (&"devbox".into(), &true.into())
    );

    let mark = agent.err.mark();
    assert_eq!(world.castra(&["token", "revoke", "devbox"]).code, 0);
    let lost = agent.err.after(mark, "link down", PATIENCE);
    assert!(lost.contains("reason=bye"), "{lost}");
    world.wait(&["devbox"], "waiting");
    agent.err.after(mark, "link refused code=bad-proof", PATIENCE);
    let closed = world.events("session.closed", "devbox").pop().unwrap();
    assert_eq!(closed["reason"], "token-changed");
    let late = Process::spawn(command).finish(PATIENCE * 2);
    assert_eq!(late.code, 5, "{late:?}");
    // Nor does it fall back to no token at all, nor after being forgotten.
    let forgotten = world.castra(&["forget", "devbox"]);
    assert_eq!(forgotten.code, 0, "{forgotten:?}");
    let bare = world.agent("devbox", broker.address(), &["--once", "--timeout", "2s"]).finish(PATIENCE);
    assert_eq!(bare.code, 5, "{bare:?}");

    // A new one works, after a restart as well, and the old one does not come back.
    drop(agent);
    let second = world.json(&["token", "issue", "devbox", "--json"])["token"].as_str().unwrap().to_owned();
    assert_ne!(second, token);
    let events = world.castra(&["events", "--json"]).out;
    assert_eq!(world.castra(&["down"]).code, 0);
    drop(broker);
    let broker = world.broker(&[]);
    let old = world.secret("old", &token);
    let old = world.agent("devbox", broker.address(), &["--once", "--token-file", &old, "--timeout", "2s"]);
    assert_eq!(old.finish(PATIENCE).code, 5);
    let new = world.secret("new", &second);
    let new = world.agent("devbox", broker.address(), &["--once", "--token-file", &new]);
    assert_eq!(new.finish(PATIENCE).code, 0);
    let row = world.row("devbox");
    assert_eq!((verdict(&row).as_str(), &row["authenticated"]), ("reachable", &Value::Bool(true)));
    assert_eq!(world.castra(&["down"]).code, 0);

    let files = files_below(&world.state());
    let names: Vec<_> = files.iter().map(|path| path.file_name().unwrap().to_str().unwrap()).collect();
    for expected in ["broker.log", "events.jsonl", "handshake-events.jsonl", "devbox.json", "state.redb"] {
        assert!(names.contains(&expected), "{names:?}");
    }
    for secret in [&token, &second] {
        assert!(!events.contains(secret.as_str()) && !events.is_empty());
        for path in files.iter().filter(|path| !path.ends_with("state.redb")) {
            let content = fs::read(path).unwrap();
            assert!(!contains(&content, secret), "{} holds a token", path.display());
        }
    }
}

#[test]
fn a_token_that_nobody_can_receive_any_more_does_not_replace_the_one_that_works() {
    let world = World::new();
    let broker = world.broker(&[]);
    let token = world.json(&["token", "issue", "devbox", "--json"])["token"].as_str().unwrap().to_owned();
    let file = world.secret("token", &token);
    broker.process.stop();
    let unanswered = world.castra(&["token", "issue", "devbox", "--timeout", "500ms"]);
    assert_eq!(unanswered.code, 3, "{unanswered:?}");
    broker.process.go_on();
    // The broker reads that question before this one, and changes are made in order.
    world.json(&["token", "issue", "other", "--json"]);
    let agent =
        world.agent("devbox", broker.address(), &["--once", "--token-file", &file, "--timeout", "3s"]);
    let agent = agent.finish(PATIENCE);
    assert_eq!(agent.code, 0, "locked out by a command that failed: {agent:?}");
}

fn contains(content: &[u8], token: &str) -> bool {
    // As text, or as the bytes that the text stands for.
    let key: Vec<u8> =
        (0..32).map(|index| u8::from_str_radix(&token[2 * index..2 * index + 2], 16).unwrap()).collect();
    content.windows(64).any(|window| window == token.as_bytes())
        || content.windows(32).any(|window| window == key)
}
