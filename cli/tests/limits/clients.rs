//! Commands whose broker talks without end.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::mpsc::{Sender, TryRecvError, channel};
use std::time::Duration;

use crate::support::{Process, Ran, World};
use crate::tools::{alone, figure};

/// Serves the control socket; to every request the answer is these bytes, for ever. Its end is the
/// sender's that it returns.
fn flood(world: &World, bytes: &'static [u8]) -> Sender<()> {
    std::fs::create_dir_all(world.state()).unwrap();
    let listener = UnixListener::bind(world.state().join("control.sock")).unwrap();
    listener.set_nonblocking(true).unwrap();
    let (sender, ended) = channel();
    std::thread::spawn(move || {
        while !matches!(ended.try_recv(), Err(TryRecvError::Disconnected)) {
            match listener.accept() {
                Ok((stream, _)) => {
                    stream.set_nonblocking(false).unwrap();
                    std::thread::spawn(move || talk(&stream, bytes));
                }
                Err(_) => std::thread::sleep(Duration::from_millis(2)),
            }
        }
    });
    sender
}

fn talk(mut stream: &UnixStream, bytes: &[u8]) {
    let _ = BufReader::with_capacity(1, stream).read_line(&mut String::new());
    let much: Vec<u8> = bytes.iter().copied().cycle().take(64 * 1024 / bytes.len() * bytes.len()).collect();
    while stream.write_all(&much).is_ok() {}
}

/// Runs a command that may have so much address space.
fn run(world: &World, mib: u64, args: &[&str]) -> Ran {
    let inner = world.command(args);
    let mut command = std::process::Command::new("sh");
    command.args(["-c", &format!("ulimit -v {}; exec \"$@\"", mib * 1024), "sh"]).arg(inner.get_program());
    command.args(inner.get_args()).env("CASTRA_STATE_DIR", world.state());
    Process::spawn(command).finish(Duration::from_secs(45))
}

#[test]
fn an_answer_without_an_end_ends_every_command_in_its_time_and_within_its_memory() {
    let _alone = alone();
    let floods: [&'static [u8]; 3] = [b"x", b"{\"id\":999,\"event\":\"info\",\"data\":{}}\n", b"\n"];
    let commands: [&[&str]; 6] = [
        &["status"],
        &["status", "devbox", "--json"],
        &["info"],
        &["wait", "devbox"],
        &["ping", "devbox", "--count", "1"],
        &["peers"],
    ];
    for bytes in floods {
        let world = World::new();
        let _flood = flood(&world, bytes);
        for args in commands {
            // A line of 512 MiB is too much for the longest, and 128 MiB for the others.
            let ran = run(&world, 2048, &[args, &["--timeout", "300ms"]].concat());
            assert!(ran.took < Duration::from_secs(20), "{args:?}: {ran:?}");
            assert!(matches!(ran.code, 3 | 4 | 70), "{args:?}: {ran:?}");
            assert!(ran.out.len() + ran.err.len() < 10_000, "{args:?} repeats what it heard");
        }
        let shown = String::from_utf8_lossy(&bytes[..1]).escape_debug().to_string();
        figure(&format!(
            "a broker that answers {shown:?}… without end: every command ended in its time, in 2 GiB of address space"
        ));
    }
}
