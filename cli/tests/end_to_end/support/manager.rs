//! A service manager, played: its socket, and how it starts a service with sockets.

use std::io::IoSliceMut;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixDatagram;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use rustix::cmsg_space;
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};

use super::{PATIENCE, Process, World};

pub(crate) struct Manager {
    path: PathBuf,
    socket: UnixDatagram,
    /// Everything said so far, for a failure's message.
    said: Vec<String>,
}

/// A message, and what came beside it.
#[derive(Debug)]
pub(crate) struct Word {
    pub(crate) text: String,
    pub(crate) descriptor: Option<OwnedFd>,
}

impl Manager {
    pub(crate) fn new(world: &World, name: &str) -> Self {
        let path = world.path(name);
        let socket = UnixDatagram::bind(&path).unwrap();
        Self { path, socket, said: vec![] }
    }

    /// The command as a service of this manager.
    pub(crate) fn serves(&self, command: &mut Command) {
        command.env("NOTIFY_SOCKET", &self.path);
    }

    /// The same, with sockets (at most two) that it finds as descriptors 3 and 4. Whatever
    /// it writes to standard output is lost: it says when it is ready.
    pub(crate) fn hands_over(&self, command: Command, sockets: &[(&str, impl AsFd)]) -> Process {
        let script = "exec 3<&0 4<&1 </dev/null >&2; [ $LISTEN_FDS = 2 ] || exec 4<&-
            export LISTEN_PID=$$; exec \"$@\"";
        let mut shell = Command::new("sh");
        shell.args(["-c", script, "sh"]).arg(command.get_program()).args(command.get_args());
        for (name, value) in command.get_envs() {
            match value {
                Some(value) => shell.env(name, value),
                None => shell.env_remove(name),
            };
        }
        let names: Vec<&str> = sockets.iter().map(|(name, _)| *name).collect();
        shell.env("LISTEN_FDS", sockets.len().to_string()).env("LISTEN_FDNAMES", names.join(":"));
        let copy = |index: usize| {
            let copy = sockets.get(index).map(|(_, fd)| fd.as_fd().try_clone_to_owned().unwrap());
            copy.map_or_else(Stdio::null, Stdio::from)
        };
        self.serves(&mut shell);
        shell.stdin(copy(0));
        Process::spawn_saying(shell, copy(1))
    }

    /// The next message, whatever it says; `None` if none comes within `bound`.
    pub(crate) fn hears(&mut self, bound: Duration) -> Option<Word> {
        self.socket.set_read_timeout(Some(bound.max(Duration::from_millis(1)))).unwrap();
        let mut buffer = [0; 4096];
        let mut space = [MaybeUninit::uninit(); cmsg_space!(ScmRights(2))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let mut vectors = [IoSliceMut::new(&mut buffer)];
        let received = recvmsg(&self.socket, &mut vectors, &mut control, RecvFlags::CMSG_CLOEXEC);
        let count = match received {
            Ok(received) => received.bytes,
            Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => return None,
            Err(error) => panic!("listening to a service: {error}"),
        };
        let descriptor = control.drain().find_map(|message| match message {
            RecvAncillaryMessage::ScmRights(mut rights) => rights.next(),
            _ => None,
        });
        let text = String::from_utf8_lossy(&buffer[..count]).into_owned();
        self.said.push(text.clone());
        Some(Word { text, descriptor })
    }

    /// The first message from now on with `needle` in it.
    pub(crate) fn waits_for(&mut self, needle: &str) -> Word {
        let end = Instant::now() + PATIENCE;
        loop {
            let left = end.saturating_duration_since(Instant::now());
            match self.hears(left) {
                Some(word) if word.text.contains(needle) => return word,
                _ if Instant::now() < end => {}
                _ => panic!("{needle:?} was not said, but {:?}", self.said),
            }
        }
    }

    /// Everything that it did not look at yet.
    pub(crate) fn backlog(&mut self) -> Vec<Word> {
        std::iter::from_fn(|| self.hears(Duration::ZERO)).collect()
    }
}
