//! The way to the manager: datagrams, which never make the loop wait.

use std::collections::VecDeque;
use std::ffi::OsStr;
use std::io::{self, IoSlice};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;

use rustix::cmsg_space;
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketAddrUnix, SocketFlags,
    SocketType, sendmsg_addr, socket_with,
};

/// Most messages that wait for room; more are dropped.
const WAITING_MAX: usize = 256;

/// A socket, and what waits for room at its other end.
#[derive(Debug)]
pub(super) struct Notify {
    socket: OwnedFd,
    to: SocketAddrUnix,
    waiting: VecDeque<Message>,
}

/// Words, and a descriptor beside them.
#[derive(Debug)]
struct Message {
    text: String,
    descriptor: Option<OwnedFd>,
}

/// What became of a message.
enum Sent {
    /// It is there, or will never be: nobody hears.
    Over,
    /// The other end has no room just now.
    Later,
}

impl Notify {
    /// `@NAME` is an abstract address.
    pub(super) fn open(path: &OsStr) -> io::Result<Self> {
        let to = match path.as_bytes() {
            [b'@', name @ ..] => SocketAddrUnix::new_abstract_name(name)?,
            [b'/', ..] => SocketAddrUnix::new(path)?,
            _ => return Err(io::Error::new(io::ErrorKind::InvalidInput, "neither a path nor @NAME")),
        };
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let socket = socket_with(AddressFamily::UNIX, SocketType::DGRAM, flags, None)?;
        Ok(Self { socket, to, waiting: VecDeque::new() })
    }

    /// Says it, now or as soon as there is room, behind what waits.
    pub(super) fn say(&mut self, text: String, descriptor: Option<OwnedFd>) {
        let message = Message { text, descriptor };
        if self.flush() && matches!(self.send(&message), Sent::Over) {
            return;
        }
        let status = |message: &Message| message.text.starts_with("STATUS=");
        // Of two, only the newest counts.
        if status(&message) && self.waiting.back().is_some_and(status) {
            self.waiting.pop_back();
        }
        if self.waiting.len() < WAITING_MAX {
            self.waiting.push_back(message);
        }
    }

    /// Says it now or not at all.
    pub(super) fn now(&self, text: &str) -> bool {
        matches!(self.send(&Message { text: text.to_owned(), descriptor: None }), Sent::Over)
    }

    /// Sends what waits; whether all of it went.
    pub(super) fn flush(&mut self) -> bool {
        while let Some(message) = self.waiting.front() {
            match self.send(message) {
                Sent::Over => drop(self.waiting.pop_front()),
                Sent::Later => return false,
            }
        }
        true
    }

    fn send(&self, message: &Message) -> Sent {
        let mut space = [MaybeUninit::uninit(); cmsg_space!(ScmRights(1))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        let descriptors = message.descriptor.as_ref().map(AsFd::as_fd);
        if let Some(descriptor) = &descriptors {
            control.push(SendAncillaryMessage::ScmRights(std::slice::from_ref(descriptor)));
        }
        let words = [IoSlice::new(message.text.as_bytes())];
        let sent = rustix::io::retry_on_intr(|| {
            sendmsg_addr(&self.socket, &self.to, &words, &mut control, SendFlags::NOSIGNAL)
        });
        match sent {
            Err(Errno::AGAIN | Errno::NOBUFS) => Sent::Later,
            // A manager that is gone can't be told anything.
            Ok(_) | Err(_) => Sent::Over,
        }
    }
}
