//! What others put in the way before a program starts.

use std::fs;
use std::os::unix::fs::{PermissionsExt, chown, lchown, symlink};
use std::path::PathBuf;

use crate::strangers::{NOBODY, may_act};
use crate::support::{PATIENCE, Process, Ran, World, files_below, until};

/// Starts a broker with that state directory, which must not come to be.
fn refused(world: &World, args: &[&str]) -> Ran {
    let mut all = vec!["broker", "--listen", "tcp:127.0.0.1:0"];
    all.extend(args);
    let ran = world.castra(&all);
    assert_eq!(ran.code, 2, "{ran:?}");
    ran
}

fn given_away(world: &World, name: &str) -> PathBuf {
    let path = world.path(name);
    fs::create_dir(&path).unwrap();
    chown(&path, Some(NOBODY), Some(NOBODY)).unwrap();
    path
}

#[test]
fn a_directory_of_another_user_is_used_by_nobody_and_all_say_what_to_do() {
    if !may_act("directories of another user") {
        return;
    }
    let world = World::new();
    let theirs = given_away(&world, "theirs");
    let link = world.path("link");
    fs::create_dir(world.path("ours")).unwrap();
    symlink(world.path("ours"), &link).unwrap();
    lchown(&link, Some(NOBODY), Some(NOBODY)).unwrap();
    for place in [&theirs, &link] {
        let place = place.to_str().unwrap();
        let inside = format!("{place}/name");
        let agent = ["agent", "--name", "devbox", "--connect", "tcp:127.0.0.1:9"];
        let runs = [
            refused(&world, &["--state-dir", place]),
            refused(&world, &["--logfile", &inside]),
            refused(&world, &["--pidfile", &inside]),
            refused(&world, &["--handshake-dir", place]),
            world.castra(&["up", "--state-dir", place]),
            world.castra(&["terminals", "serve", "--socket", &inside]),
            world.castra(&[&agent[..], &["--inbox", place]].concat()),
            world.castra(&[&agent[..], &["--socket", &inside]].concat()),
        ];
        for ran in runs {
            assert_ne!(ran.code, 0, "{ran:?}");
            let told = ran.err.contains("belongs to user 65534") && ran.err.contains("chown");
            assert!(told, "{ran:?}");
        }
    }
    assert!(files_below(&theirs).is_empty() && files_below(&world.path("ours")).is_empty());
}

#[test]
fn a_directory_that_everybody_may_write_to_is_refused() {
    let world = World::new();
    fs::create_dir(world.state()).unwrap();
    fs::set_permissions(world.state(), fs::Permissions::from_mode(0o777)).unwrap();
    assert!(refused(&world, &[]).err.contains("chmod 700"));
    assert!(files_below(&world.state()).is_empty());
}

#[test]
fn start_commands_that_another_user_could_write_are_not_taken() {
    let world = World::new();
    fs::create_dir(world.state()).unwrap();
    let file = world.state().join("castra.toml");
    fs::write(&file, "[guests.devbox]\nstart = 'true'\n").unwrap();
    fs::set_permissions(&file, fs::Permissions::from_mode(0o666)).unwrap();
    assert!(refused(&world, &[]).err.contains("everybody may write to it"));
    fs::set_permissions(&file, fs::Permissions::from_mode(0o644)).unwrap();
    if may_act("a castra.toml of another user") {
        chown(&file, Some(NOBODY), Some(NOBODY)).unwrap();
        assert!(refused(&world, &[]).err.contains("belongs to user 65534"));
    }
}

/// Whatever stands under a name that a program writes to: what it points to stays as it is.
#[test]
fn no_file_is_written_through_a_link() {
    let victim = "untouched";
    // The name, and whether a broker serves all the same.
    for (name, serves) in [
        ("control.sock", false),
        ("broker.lock", false),
        ("state.redb", false),
        ("terminals.sock", false),
        ("terminals.lock", false),
        ("terminals.redb", false),
        ("terminals.token", false),
        ("broker.pid", true),
        ("incarnation", true),
        ("logs/broker.log", true),
        ("logs/events.jsonl", true),
        ("handshakes/handshake-events.jsonl", true),
    ] {
        let world = World::new();
        let target = world.path("victim");
        fs::write(&target, victim).unwrap();
        let link = world.state().join(name);
        fs::create_dir_all(link.parent().unwrap()).unwrap();
        symlink(&target, &link).unwrap();
        if serves {
            let broker = world.broker(&["--terminals", "--terminals-on-stop", "end"]);
            let once = world.agent("devbox", broker.address(), &["--once"]);
            assert_eq!(once.finish(PATIENCE).code, 0, "{name}");
            assert_eq!(world.castra(&["down"]).code, 0, "{name}");
        } else {
            let ran = world.castra(&["broker", "--terminals", "--listen", "tcp:127.0.0.1:0"]);
            assert_ne!(ran.code, 0, "{name}: {ran:?}");
            assert!(!ran.err.trim().is_empty(), "{name}: {ran:?}");
        }
        assert_eq!(fs::read_to_string(&target).unwrap(), victim, "{name}");
        // One that was started for a daemon that then couldn't serve waits for the next.
        for (pid, line) in world.processes() {
            assert!(line.contains("terminals-holder"), "{name}: {line}");
            let pid = rustix::process::Pid::from_raw(pid.cast_signed()).unwrap();
            rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
        }
        assert!(until(PATIENCE, || world.processes().is_empty()), "{name}");
    }
}

#[test]
fn an_agents_socket_inbox_and_recording_follow_no_link() {
    let world = World::new();
    let target = world.path("victim");
    fs::write(&target, "untouched").unwrap();
    let agent = ["agent", "--name", "devbox", "--connect", "tcp:127.0.0.1:9"];
    let inbox = world.path("inbox");
    fs::create_dir(&inbox).unwrap();
    for (option, path, value) in [
        ("--socket", world.path("agent.sock"), world.path("agent.sock")),
        ("--inbox", inbox.join("inbox.redb"), inbox.clone()),
        ("--record", world.path("trace"), world.path("trace")),
    ] {
        symlink(&target, &path).unwrap();
        let mut args = agent.to_vec();
        if option != "--socket" {
            args.extend(["--socket", "other.sock"]);
        }
        let mut command = world.command(&args);
        command.arg(option).arg(&value).current_dir(world.path("tmp"));
        let ran = Process::spawn(command).finish(PATIENCE);
        assert_ne!(ran.code, 0, "{option}: {ran:?}");
        assert_eq!(fs::read_to_string(&target).unwrap(), "untouched", "{option}");
        fs::remove_file(&path).unwrap();
    }
}

#[test]
fn the_inbox_of_one_guest_is_not_shown_to_another() {
    let world = World::new();
    let broker = world.broker(&[]);
    let inbox = world.path("inbox");
    let with = |name| {
        let agent = world.agent(name, broker.address(), &["--inbox", inbox.to_str().unwrap()]);
        (name, agent)
    };
    let (_, first) = with("devbox");
    world.wait(&["devbox"], "reachable");
    first.kill();
    let ran = with("builder").1.finish(PATIENCE);
    assert_eq!(ran.code, 2, "{ran:?}");
    assert!(ran.err.contains("inbox of devbox") && ran.err.contains("--inbox DIR"), "{ran:?}");
    let (_, again) = with("devbox");
    world.wait(&["devbox"], "reachable");
    drop(again);
}
