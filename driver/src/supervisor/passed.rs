//! Sockets that the manager opened: taken over, and looked at.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use nix::sys::socket::{ControlMessage, MsgFlags, VsockAddr};
use rustix::cmsg_space;
use rustix::net::sockopt::{set_tcp_nodelay, socket_acceptconn, socket_type};
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SocketAddrUnix, SocketFlags,
    SocketType, getsockname, socketpair,
};

use super::{SupervisorError, Variables, number};

/// The first descriptor that is passed.
const FIRST: RawFd = 3;
/// What a socket is called whose unit says nothing.
const UNNAMED: &str = "unknown";

/// A listening socket that somebody else bound.
#[derive(Debug)]
pub(super) struct Passed {
    pub(super) fd: OwnedFd,
    pub(super) name: String,
    pub(super) at: At,
}

/// Where it listens.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum At {
    Tcp(SocketAddr),
    /// `None`: it has no name in the file system.
    Unix(Option<PathBuf>),
    Vsock(u32),
}

/// Everything that was passed to this process.
pub(super) fn take(variables: Variables<'_>) -> Result<Vec<Passed>, SupervisorError> {
    let (count, whom) = (number("LISTEN_FDS", variables)?, number("LISTEN_PID", variables)?);
    // They may be for another process, whose environment this one got.
    let Some(count) = count.filter(|_| whom == Some(u64::from(std::process::id()))) else {
        return Ok(Vec::new());
    };
    let Some(end) = RawFd::try_from(count).ok().and_then(|count| FIRST.checked_add(count)) else {
        let text = variables("LISTEN_FDS").unwrap_or_default();
        return Err(SupervisorError::Variable { variable: "LISTEN_FDS", text });
    };
    let names = variables("LISTEN_FDNAMES").unwrap_or_default();
    let names = names.to_string_lossy();
    let mut names = names.split(':').map(str::to_owned);
    let name = || names.next().filter(|name| !name.is_empty()).unwrap_or_else(|| UNNAMED.to_owned());
    (FIRST..end).zip(std::iter::repeat_with(name)).map(|(number, name)| one(number, name)).collect()
}

fn one(number: RawFd, name: String) -> Result<Passed, SupervisorError> {
    let fd = match owned(number) {
        Ok(fd) => fd,
        Err(error) => return Err(SupervisorError::Descriptor { number, name, error }),
    };
    match look(&fd) {
        Ok(Some(at)) => Ok(Passed { fd, name, at }),
        Ok(None) => Err(SupervisorError::NotListening { number, name }),
        Err(error) => Err(SupervisorError::Descriptor { number, name, error }),
    }
}

/// The descriptor of that number as one that this process owns, under another number.
/// It is sent to this process itself, which is the way to own one without `unsafe` (the
/// other, `pidfd_getfd`, is none of the calls that a service is usually left).
fn owned(number: RawFd) -> io::Result<OwnedFd> {
    let flags = SocketFlags::CLOEXEC;
    let (here, there) = socketpair(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    let rights = [ControlMessage::ScmRights(&[number])];
    let bytes = [IoSlice::new(&[0])];
    nix::sys::socket::sendmsg::<()>(there.as_raw_fd(), &bytes, &rights, MsgFlags::MSG_NOSIGNAL, None)?;
    let mut space = [MaybeUninit::uninit(); cmsg_space!(ScmRights(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut byte = [0];
    rustix::net::recvmsg(&here, &mut [IoSliceMut::new(&mut byte)], &mut control, RecvFlags::CMSG_CLOEXEC)?;
    let rights = control.drain().find_map(|message| match message {
        RecvAncillaryMessage::ScmRights(mut rights) => rights.next(),
        _ => None,
    });
    let fd = rights.ok_or_else(|| io::Error::other("no descriptor is free"))?;
    // Nobody else in this process knows that number: it was there before the first of ours.
    nix::unistd::close(number)?;
    Ok(fd)
}

/// Where it listens; `None` if it doesn't.
fn look(fd: &OwnedFd) -> io::Result<Option<At>> {
    let stream = socket_type(fd).is_ok_and(|kind| kind == SocketType::STREAM);
    if !stream || !socket_acceptconn(fd)? {
        return Ok(None);
    }
    // Whoever is accepted is accepted without waiting.
    rustix::io::ioctl_fionbio(fd, true)?;
    let address = getsockname(fd)?;
    Ok(match address.address_family() {
        AddressFamily::INET | AddressFamily::INET6 => {
            // As with our own: accepted connections inherit it.
            set_tcp_nodelay(fd, true)?;
            SocketAddr::try_from(address).ok().map(At::Tcp)
        }
        AddressFamily::UNIX => {
            let address = SocketAddrUnix::try_from(address)?;
            let path = address.path_bytes().filter(|path| !path.is_empty());
            Some(At::Unix(path.map(|path| PathBuf::from(std::ffi::OsStr::from_bytes(path)))))
        }
        AddressFamily::VSOCK => {
            let address: VsockAddr = nix::sys::socket::getsockname(fd.as_fd().as_raw_fd())?;
            Some(At::Vsock(address.port()))
        }
        _ => None,
    })
}

impl At {
    /// Its file, if it has one.
    pub(super) fn path(&self) -> Option<&Path> {
        match self {
            Self::Unix(path) => path.as_deref(),
            Self::Tcp(_) | Self::Vsock(_) => None,
        }
    }
}
