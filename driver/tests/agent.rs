//! The agent as a whole process, with terminals and a program in one of them. One test,
//! as signals reach the whole process.

use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::mpsc::channel;
use std::thread;
use std::time::{Duration, Instant};

use castra_core::config::AgentConfig;
use castra_core::terminals::TerminalsConfig;
use castra_driver::agent::{AgentEnd, AgentError, AgentOptions, run};
use castra_driver::supervisor::Supervisor;
use castra_driver::terminals::exec::Exec;
use castra_driver::terminals::holder::{self, Door};
use castra_driver::terminals::service::TerminalsOptions;
use signal_hook::consts::SIGTERM;
use signal_hook::low_level::raise;

fn options(directory: &Path, command: &[&str]) -> AgentOptions {
    let hosted = TerminalsOptions {
        log: None,
        ..TerminalsOptions::of_state_dir(directory, TerminalsConfig::default(), Vec::new())
    };
    AgentOptions {
        config: AgentConfig::new("devbox".parse().expect("a name")),
        connect: "tcp:127.0.0.1:1".parse().expect("an address"),
        socket: None,
        inbox: None,
        terminals: None,
        hosted: Some(hosted),
        exec: Some(Exec {
            command: command.iter().map(|&word| word.to_owned()).collect(),
            cwd: directory.to_str().map(str::to_owned),
        }),
        record: None,
    }
}

#[test]
fn a_program_runs_from_the_start_and_one_that_can_not_be_started_ends_the_agent() {
    let directory = tempfile::tempdir().expect("a directory");
    let door = Door::open(&directory.path().join("terminals.holder")).expect("a door").expect("no other");
    let (stop, theirs) = UnixStream::pair().expect("a pair");
    let linger = Duration::from_secs(60);
    let holder_options = holder::Options { ring: 64 * 1024, linger, stop: Some(theirs.into()) };
    let holder = thread::spawn(move || holder::serve(door, holder_options));

    match run(
        options(directory.path(), &["/no/such/program"]),
        &Supervisor::none(),
        |_| panic!("it serves"),
        |_| {},
    ) {
        Err(error @ AgentError::Exec(_)) => {
            assert!(error.to_string().contains("/no/such/program"), "{error}");
        }
        other => panic!("{other:?}"),
    }
    assert!(!directory.path().join("terminals.sock").exists(), "its terminals ended with it");

    let (tell, ready) = channel();
    let program = options(directory.path(), &["/bin/sh", "-c", "echo $$ > ran; exec sleep 1000"]);
    let agent = thread::spawn(move || {
        run(program, &Supervisor::none(), |_| tell.send(()).expect("a listener"), |_| {})
    });
    ready.recv_timeout(Duration::from_secs(20)).expect("an agent");
    let ran = directory.path().join("ran");
    let by = Instant::now() + Duration::from_secs(20);
    while std::fs::read(&ran).unwrap_or_default().is_empty() {
        assert!(Instant::now() < by, "it never ran");
        thread::yield_now();
    }
    raise(SIGTERM).expect("a signal");
    assert_eq!(agent.join().expect("no panic").expect("a good end"), AgentEnd::Stopped);
    stop.shutdown(std::net::Shutdown::Both).expect("told");
    holder.join().expect("no panic").expect("a good end");
}
