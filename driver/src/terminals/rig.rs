//! A daemon of terminals in this process with its holder, for tests.

use std::io;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use castra_core::terminals::TerminalsConfig;
use castra_core::terminals::wire::{Create, Request};
use tempfile::TempDir;

use super::client::Client;
use super::holder::{self, Door};
use super::service::{TerminalsError, TerminalsOptions, TerminalsThread};
use crate::pool::Call;

/// Nothing in these tests takes longer unless it hangs.
pub(crate) const HANG: Duration = Duration::from_secs(20);

/// A daemon, and what outlives it.
pub(crate) struct Rig {
    pub(crate) directory: TempDir,
    pub(crate) socket: PathBuf,
    config: TerminalsConfig,
    holder: Option<JoinHandle<io::Result<()>>>,
    stop: UnixStream,
    daemon: Option<TerminalsThread>,
}

impl Rig {
    pub(crate) fn start() -> Self {
        Self::with(TerminalsConfig::default())
    }

    pub(crate) fn with(config: TerminalsConfig) -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let socket = directory.path().join("t.sock");
        let door = Door::open(&directory.path().join("t.holder")).expect("a door").expect("no other");
        let (stop, theirs) = UnixStream::pair().expect("a pair");
        let options = holder::Options { ring: 64 * 1024, linger: HANG * 3, stop: Some(theirs.into()) };
        let holder = Some(std::thread::spawn(move || holder::serve(door, options)));
        let mut rig = Self { directory, socket, config, holder, stop, daemon: None };
        rig.restart();
        rig
    }

    /// Another daemon in place of the one before; the programs run on.
    pub(crate) fn restart(&mut self) {
        self.end();
        let state = self.directory.path();
        let options = TerminalsOptions {
            socket: self.socket.clone(),
            log: None,
            history: None,
            ..TerminalsOptions::of_state_dir(state, self.config.clone(), Vec::new())
        };
        let by = Instant::now() + HANG;
        self.daemon = loop {
            match TerminalsThread::start(options.clone()) {
                Ok((daemon, _)) => break Some(daemon),
                // A program that another test starts just now has the lock for a moment:
                // until it is another program.
                Err(TerminalsError::AlreadyRunning { .. }) if Instant::now() < by => {
                    std::thread::sleep(Duration::from_millis(1));
                }
                Err(error) => panic!("{error}"),
            }
        };
    }

    /// No daemon any more.
    pub(crate) fn end(&mut self) {
        if let Some(daemon) = self.daemon.take() {
            daemon.stop().expect("an end in good order");
        }
    }

    pub(crate) fn client(&self, id: &str) -> Client {
        Client::open(&self.socket, id, &Call::alone(HANG)).expect("a client")
    }

    /// A terminal in which `script` runs, owned by nobody.
    pub(crate) fn run(&self, name: &str, script: &str) -> u32 {
        let create = Create {
            session_key: Some(name),
            exclusive: true,
            cwd: self.directory.path().to_str(),
            command: vec!["/bin/sh", "-c", script],
            ..Create::default()
        };
        let (mut client, call) = (self.client("maker"), Call::alone(HANG));
        let made = client.ask(&Request::Create(Box::new(create)), &call).expect("a terminal");
        let session = made.session.expect("its number");
        client.ask(&Request::Detach { session }, &call).expect("nobody's");
        session
    }

    /// A terminal whose program writes what is typed into a file of the same name.
    pub(crate) fn notes(&self, name: &str) -> u32 {
        let script = format!("stty raw -echo; : > {name}.ready; exec cat > {name}");
        let session = self.run(name, &script);
        until("a raw terminal", || self.path(&format!("{name}.ready")).exists());
        session
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Waits until the file holds this.
    pub(crate) fn noted(&self, name: &str, expected: &[u8]) {
        let path = self.path(name);
        until("what was typed", || read(&path).len() >= expected.len());
        assert!(
            read(&path) == expected,
            "{} bytes: {:?}",
            read(&path).len(),
            read(&path).first_chunk::<80>()
        );
    }
}

impl Drop for Rig {
    fn drop(&mut self) {
        if let Some(daemon) = self.daemon.take() {
            let _ = daemon.stop();
        }
        let _ = self.stop.shutdown(std::net::Shutdown::Both);
        let _ = self.holder.take().map(JoinHandle::join);
    }
}

pub(crate) fn read(path: &Path) -> Vec<u8> {
    std::fs::read(path).unwrap_or_default()
}

/// Waits for what nothing announces.
pub(crate) fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let end = Instant::now() + HANG;
    while !holds() {
        assert!(Instant::now() < end, "{what} never came true");
        std::thread::sleep(Duration::from_millis(5));
    }
}
