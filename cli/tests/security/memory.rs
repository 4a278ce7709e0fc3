//! What a process knows stays in it.

use std::fs;
use std::os::unix::fs::{MetadataExt, chown};
use std::path::Path;

use rustix::process::Signal;

use crate::strangers::{NOBODY, Stranger, may_act};
use crate::support::{PATIENCE, Process, World, until};

const PASSCODE: &str = "passcode-of-the-environment";

/// As a user that isn't root, with root looking on: the kernel gives what belongs to a
/// process that may be dumped to its user, and of any other to root.
#[test]
fn no_other_process_of_the_user_reads_memory_or_environment_and_everything_works() {
    if !may_act("what processes of one user can learn of each other") {
        return;
    }
    let world = World::new();
    let stranger = Stranger::of(&world);
    for place in ["", "tmp"] {
        chown(world.path(place), Some(NOBODY), Some(NOBODY)).unwrap();
    }
    let run = |args: &[&str]| Process::spawn(stranger.command(&world, args));
    let broker = run(&[
        "broker",
        "--json",
        "--terminals",
        "--terminals-on-stop",
        "end",
        "--listen",
        "tcp:127.0.0.1:0",
    ]);
    let ready: serde_json::Value = serde_json::from_str(&broker.out.first(PATIENCE)).unwrap();
    let address = ready["listen"][0].as_str().unwrap();
    let socket = world.path("agent.sock");
    let mut command = stranger.command(
        &world,
        &["agent", "--name", "devbox", "--connect", address, "--terminals", "--terminals-on-stop", "end"],
    );
    command.arg("--socket").arg(&socket).args(["--trust-unkeyed-broker", "--exec", "sleep", "600"]);
    command.env("PRIVATE_BEACH_MANAGER_URL", "http://127.0.0.1:9").env("PRIVATE_BEACH_ID", "beach");
    command.env("PRIVATE_BEACH_SESSION_PASSCODE", PASSCODE).env("PRIVATE_BEACH_MANAGER_TOKEN", "token");
    let mut agent = Process::spawn(command);
    let ran = stranger.castra(&world, &["wait", "devbox", "--timeout", "20s"]);
    assert_eq!(ran.code, 0, "{ran:?}");
    let begun = stranger.castra(&world, &["term", "new", "main", "--", "sleep", "600"]);
    assert_eq!(begun.code, 0, "{begun:?}");

    // Root may ask whoever it is that serves; nobody else but the broker's own user.
    for args in [&["status", "devbox"][..], &["token", "issue", "other"], &["term", "ls"]] {
        let ran = world.castra(args);
        assert_eq!(ran.code, 0, "{ran:?}");
    }
    let mut seen = [0; 3];
    for (pid, line) in world.processes() {
        let environment = format!("/proc/{pid}/environ");
        let owner = fs::metadata(&environment).unwrap().uid();
        let program = line.split(' ').next().unwrap();
        if program == "sleep" {
            // What a user runs stays the user's, and holds nothing of ours.
            assert_eq!(owner, NOBODY, "{line}");
            assert!(!String::from_utf8_lossy(&fs::read(&environment).unwrap()).contains(PASSCODE), "{line}");
            seen[0] += 1;
            continue;
        }
        assert_eq!(owner, 0, "{line} shows its environment, memory and descriptors to its user");
        for name in ["environ", "mem", "fd/0"] {
            let mut cat = std::process::Command::new("head");
            cat.args(["-c", "1", &format!("/proc/{pid}/{name}")]);
            std::os::unix::process::CommandExt::uid(&mut cat, NOBODY);
            let read = Process::spawn(cat).finish(PATIENCE);
            assert!(read.code != 0 && read.err.contains("Permission denied"), "{name} of {line}: {read:?}");
        }
        seen[usize::from(line.contains("terminals-holder")) + 1] += 1;
    }
    assert_eq!(seen, [2, 2, 2], "programs, daemons, holders: {:?}", world.processes());

    // Nobody needs any of that to end a broker that doesn't answer.
    agent.signal(Signal::TERM);
    assert!(agent.exit(PATIENCE).success());
    broker.stop();
    let forced = stranger.castra(&world, &["down", "--force", "--timeout", "1s"]);
    assert_eq!(forced.code, 0, "{forced:?}");
    drop(broker);
    for (pid, _) in world.processes() {
        rustix::process::kill_process(
            rustix::process::Pid::from_raw(pid.cast_signed()).unwrap(),
            Signal::KILL,
        )
        .unwrap();
    }
    assert!(until(PATIENCE, || world.processes().is_empty()), "{:?}", world.processes());
}

/// Where cores are files in the working directory, there is none of a broker that crashed.
#[test]
fn a_crash_leaves_no_core() {
    let pattern = fs::read_to_string("/proc/sys/kernel/core_pattern").unwrap_or_default();
    if pattern.starts_with('|') || pattern.contains('/') {
        println!("NOT TESTED: no core is looked for: the kernel brings them to {pattern:?}");
        return;
    }
    let world = World::new();
    let folder = world.path("crash");
    fs::create_dir(&folder).unwrap();
    let crash = |program: &Path, args: &[&str], said: &str| {
        let model = world.command(&[]);
        let mut command = std::process::Command::new("/bin/sh");
        command.args(["-c", "ulimit -c unlimited; exec \"$0\" \"$@\""]).arg(program).args(args);
        for (name, value) in model.get_envs() {
            match value {
                Some(value) => command.env(name, value),
                None => command.env_remove(name),
            };
        }
        command.current_dir(&folder);
        let mut process = Process::spawn(command);
        if said.is_empty() {
            assert!(until(PATIENCE, || fs::read_to_string(format!("/proc/{}/comm", process.pid()))
                .is_ok_and(|name| name == "sleep\n")));
        } else {
            process.out.after(0, said, PATIENCE);
        }
        process.signal(Signal::ABORT);
        assert!(!process.exit(PATIENCE).success());
        fs::read_dir(&folder).unwrap().count()
    };
    let castra = Path::new(env!("CARGO_BIN_EXE_castra"));
    assert_eq!(crash(castra, &["broker", "--json", "--listen", "tcp:127.0.0.1:0"], "ready"), 0);
    let other = crash(Path::new("/bin/sleep"), &["600"], "");
    if other == 0 {
        println!("NOT TESTED: this machine writes no core of any program here");
    }
}
