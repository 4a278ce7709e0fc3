//! Sockets: listening and connecting, on every carrier, without ever blocking.

use std::io;
use std::net::{SocketAddr, ToSocketAddrs};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use castra_core::boundary::{Remote, Via};
use nix::sys::socket::VsockAddr;
use rustix::fs::{FileType, FlockOperation, Mode, OFlags};
use rustix::io::Errno;
use rustix::net::sockopt::{set_ipv6_v6only, set_socket_reuseaddr, set_tcp_nodelay, socket_error};
use rustix::net::{
    AddressFamily, SocketAddrUnix, SocketFlags, SocketType, accept_with, acceptfrom_with, bind, getpeername,
    getsockname, listen, socket_with,
};
use rustix::termios::{OptionalActions, isatty, tcgetattr, tcsetattr};

use crate::address::ListenAddress;
use crate::net::Target;

/// Connections that wait in the kernel while the broker takes no more.
const BACKLOG: i32 = 4096;
const FLAGS: SocketFlags = SocketFlags::NONBLOCK.union(SocketFlags::CLOEXEC);
/// Any context: every guest of this host, and the host itself where it has a loopback.
const VSOCK_ANY: u32 = u32::MAX;

/// How often, and after what rests, a socket's folder is asked for.
const TURNS: u32 = 200;
const TURN: Duration = Duration::from_millis(5);

/// What kind of descriptor a connection is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Carrier {
    /// TCP.
    Tcp,
    /// A unix socket.
    Unix,
    /// A VM socket.
    Vsock,
    /// A character device.
    Device,
}

/// A listening socket.
#[derive(Debug)]
pub struct Bound {
    pub(crate) fd: OwnedFd,
    pub(crate) carrier: Carrier,
    /// What comes in.
    pub via: Via,
    /// The address as a user would write it, with the real port.
    pub address: String,
    /// The socket file to remove in the end.
    pub path: Option<PathBuf>,
    pub(crate) local: Local,
}

/// Our own end of what a listener takes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Local {
    /// Nobody wants to know.
    Unasked,
    /// It is the listener's own.
    Known(SocketAddr),
    /// Each has its own: the listener takes what comes to any address.
    Each,
}

/// Why nobody can listen there.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    /// Somebody else does.
    #[error(
        "{address} is taken by another program, maybe a broker with another state directory: stop it or choose another address"
    )]
    Taken {
        /// Where.
        address: String,
    },
    /// A file is in the way that is no socket.
    #[error("{path:?} exists and is not a socket: move it away or choose another path")]
    NotASocket {
        /// The file.
        path: PathBuf,
    },
    /// The path can't be a socket's.
    #[error(transparent)]
    Address(#[from] crate::address::AddressError),
    /// The kernel said no.
    #[error("can't listen on {address}: {error}")]
    Refused {
        /// Where.
        address: String,
        /// Why.
        error: io::Error,
    },
}

/// Listens for links. What is legal but unwise is added to `warnings`.
///
/// # Errors
/// The address is taken, unusable or not ours; see [`ListenError`].
pub fn listen_on(address: &ListenAddress, warnings: &mut Vec<String>) -> Result<Bound, ListenError> {
    let via = Via::Link(address.transport());
    match address {
        ListenAddress::Unix { path, .. } => {
            let fd = listen_unix(path)?;
            let path = Some(path.clone());
            let address = address.to_string();
            Ok(Bound { fd, carrier: Carrier::Unix, via, address, path, local: Local::Unasked })
        }
        ListenAddress::Tcp { host, port } => {
            let (fd, bound) = listen_tcp(host, *port).map_err(|error| refused(address.to_string(), error))?;
            open_to_others(bound, via, warnings);
            let address = format!("tcp:{bound}");
            Ok(Bound { fd, carrier: Carrier::Tcp, via, address, path: None, local: Local::Unasked })
        }
        ListenAddress::Vsock { port } => {
            let (fd, port) = listen_vsock(*port).map_err(|error| refused(address.to_string(), error))?;
            let address = format!("vsock:{port}");
            Ok(Bound { fd, carrier: Carrier::Vsock, via, address, path: None, local: Local::Unasked })
        }
    }
}

/// Listens for HTTP clients of the manager, and says at which address with which port.
/// What is legal but unwise is added to `warnings`.
///
/// # Errors
/// The address is taken, unusable or not ours; see [`ListenError`].
pub fn listen_for_manager(
    address: SocketAddr,
    warnings: &mut Vec<String>,
) -> Result<(Bound, SocketAddr), ListenError> {
    let listening = listen_tcp_at(address);
    let (fd, bound) = listening.map_err(|error| refused(format!("http://{address}"), error))?;
    let (address, via) = (format!("http://{bound}"), Via::Manager);
    open_to_others(bound, via, warnings);
    Ok((Bound { fd, carrier: Carrier::Tcp, via, address, path: None, local: Local::Unasked }, bound))
}

/// What is unwise about a TCP listener there.
pub(crate) fn open_to_others(bound: SocketAddr, via: Via, warnings: &mut Vec<String>) {
    if bound.ip().is_loopback() {
        return;
    }
    warnings.push(match via {
        Via::Manager => format!(
            "http://{bound} can be reached from other machines, and HTTP is not encrypted: whoever listens in \
             reads the tokens that steer guests; prefer a loopback address or attaching over the link"
        ),
        _ => format!(
            "tcp:{bound} can be reached from other machines, and the link is not encrypted: \
             prefer a loopback address, unix or vsock, or at least --require-token"
        ),
    });
}

/// Listens for local clients at `path` (0600; its directory keeps others out too).
///
/// # Errors
/// See [`ListenError`].
pub fn listen_for_clients(path: &Path) -> Result<Bound, ListenError> {
    listen_locally(path, Via::Control)
}

/// Listens for clients of terminals at `path`, as [`listen_for_clients`] does.
///
/// # Errors
/// See [`ListenError`].
pub fn listen_for_terminals(path: &Path) -> Result<Bound, ListenError> {
    listen_locally(path, Via::Terminals)
}

fn listen_locally(path: &Path, via: Via) -> Result<Bound, ListenError> {
    let fd = listen_unix(path)?;
    let address = format!("unix:{}", path.display());
    let path = Some(path.to_owned());
    Ok(Bound { fd, carrier: Carrier::Unix, via, address, path, local: Local::Unasked })
}

impl Bound {
    /// Takes whoever waits. Where it costs another call to ask who that is, nobody asks.
    pub(crate) fn accept(&self) -> io::Result<(OwnedFd, Remote)> {
        match self.carrier {
            Carrier::Tcp => {
                let (fd, remote) = acceptfrom_with(&self.fd, FLAGS)?;
                let remote = remote.and_then(|remote| SocketAddr::try_from(remote).ok());
                Ok((fd, remote.map_or(Remote::Unknown, Remote::Ip)))
            }
            Carrier::Unix | Carrier::Device => Ok((accept_with(&self.fd, FLAGS)?, Remote::Unknown)),
            Carrier::Vsock => {
                let fd = accept_with(&self.fd, FLAGS)?;
                let remote = vsock_peer(&fd).unwrap_or(Remote::Unknown);
                Ok((fd, remote))
            }
        }
    }

    /// From now on says of each TCP connection to which of our addresses it came. That
    /// costs a call for each where the listener takes what comes to any address.
    pub fn tell_local(&mut self) {
        if self.carrier == Carrier::Tcp {
            let address = getsockname(&self.fd).ok().and_then(|address| SocketAddr::try_from(address).ok());
            let known = address.filter(|address| !address.ip().is_unspecified());
            self.local = known.map_or(Local::Each, Local::Known);
        }
    }

    /// To which of our addresses a connection came, if somebody wants to know.
    pub(crate) fn local_of(&self, accepted: &OwnedFd) -> Option<SocketAddr> {
        match self.local {
            Local::Unasked => None,
            Local::Known(address) => Some(address),
            Local::Each => getsockname(accepted).ok().and_then(|address| SocketAddr::try_from(address).ok()),
        }
    }

    pub(crate) const fn wants_credentials(&self) -> bool {
        matches!(self.via, Via::Control | Via::Terminals)
    }
}

/// Begins to connect.
pub(crate) fn connect(target: &Target) -> io::Result<(OwnedFd, Carrier)> {
    let (fd, carrier, result) = match target {
        Target::Tcp(address) => {
            let family = if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
            let fd = socket_with(family, SocketType::STREAM, FLAGS, None)?;
            set_tcp_nodelay(&fd, true)?;
            let result = rustix::net::connect(&fd, address);
            (fd, Carrier::Tcp, result)
        }
        Target::Unix(path) => {
            let fd = socket_with(AddressFamily::UNIX, SocketType::STREAM, FLAGS, None)?;
            let result = rustix::net::connect(&fd, &SocketAddrUnix::new(path)?);
            (fd, Carrier::Unix, result)
        }
        Target::Vsock { cid, port } => {
            let fd = socket_with(AddressFamily::VSOCK, SocketType::STREAM, FLAGS, None)?;
            let result = nix::sys::socket::connect(fd.as_raw_fd(), &VsockAddr::new(*cid, *port));
            (fd, Carrier::Vsock, result.map_err(|errno| Errno::from_raw_os_error(errno as i32)))
        }
        Target::Serial(device) => return Ok((open_device(device)?, Carrier::Device)),
    };
    match result {
        Ok(()) | Err(Errno::INPROGRESS) => Ok((fd, carrier)),
        Err(error) => Err(error.into()),
    }
}

/// Whether a connect has succeeded, and with whom.
pub(crate) fn peer(fd: impl AsFd, carrier: Carrier) -> io::Result<Remote> {
    if carrier == Carrier::Device {
        return Ok(Remote::Unknown);
    }
    socket_error(&fd)??;
    let not_yet = |error: Errno| match error {
        Errno::NOTCONN => io::Error::from(io::ErrorKind::WouldBlock),
        error => error.into(),
    };
    match carrier {
        Carrier::Tcp => {
            let remote = getpeername(&fd).map_err(not_yet)?;
            let remote = remote.and_then(|remote| SocketAddr::try_from(remote).ok());
            Ok(remote.map_or(Remote::Unknown, Remote::Ip))
        }
        Carrier::Vsock => vsock_peer(&fd).map_err(not_yet),
        // A unix connect is over when it returns.
        Carrier::Unix | Carrier::Device => Ok(Remote::Unknown),
    }
}

/// Opens a character device as a stream of bytes.
fn open_device(path: &Path) -> io::Result<OwnedFd> {
    let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let fd = rustix::fs::open(path, flags, Mode::empty())?;
    let kind = FileType::from_raw_mode(rustix::fs::fstat(&fd)?.st_mode);
    if kind != FileType::CharacterDevice {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            "not a character device: give a serial or virtio port, such as /dev/virtio-ports/NAME",
        ));
    }
    if isatty(&fd) {
        // Echo and line editing would answer the broker with its own words.
        let mut settings = tcgetattr(&fd)?;
        settings.make_raw();
        tcsetattr(&fd, OptionalActions::Now, &settings)?;
    }
    Ok(fd)
}

fn listen_tcp(host: &str, port: u16) -> io::Result<(OwnedFd, SocketAddr)> {
    let mut trouble = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
    for address in (host, port).to_socket_addrs()? {
        match listen_tcp_at(address) {
            Ok(bound) => return Ok(bound),
            Err(error) => trouble = error,
        }
    }
    Err(trouble)
}

fn listen_tcp_at(address: SocketAddr) -> io::Result<(OwnedFd, SocketAddr)> {
    let family = if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let fd = socket_with(family, SocketType::STREAM, FLAGS, None)?;
    // A restart need not wait for old connections to time out. (Not
    // SO_REUSEPORT: it would let a second broker share the port in silence.)
    set_socket_reuseaddr(&fd, true)?;
    if address.is_ipv6() {
        set_ipv6_v6only(&fd, true)?;
    }
    // Accepted connections inherit it: no call for each.
    set_tcp_nodelay(&fd, true)?;
    bind(&fd, &address)?;
    listen(&fd, BACKLOG)?;
    let bound = SocketAddr::try_from(getsockname(&fd)?)?;
    Ok((fd, bound))
}

fn listen_unix(path: &Path) -> Result<OwnedFd, ListenError> {
    let name = || format!("unix:{}", path.display());
    let failed = |error: Errno| refused(name(), error.into());
    let address = SocketAddrUnix::new(path).map_err(|_| crate::address::AddressError::PathTooLong {
        path: path.to_owned(),
        length: path.as_os_str().len(),
    })?;
    // Between the look at a stale socket and the new one in its place nobody else may look.
    let _turn = turn(path);
    clear_stale_socket(path, &address)?;
    let fd = socket_with(AddressFamily::UNIX, SocketType::STREAM, FLAGS, None).map_err(failed)?;
    // The file takes its mode from the socket: there is no moment at which
    // others could connect, and the process's umask stays as it is.
    rustix::fs::fchmod(&fd, Mode::RUSR | Mode::WUSR).map_err(failed)?;
    bind(&fd, &address).map_err(failed)?;
    listen(&fd, BACKLOG).map_err(failed)?;
    Ok(fd)
}

/// The folder of a socket, locked until this is dropped: whoever else wants a socket there
/// comes before or after. Without one, a folder that can't be read or that somebody holds
/// for long, it is as likely as before that two who start at once get in each other's way.
fn turn(path: &Path) -> Option<OwnedFd> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let folder = rustix::fs::open(folder, flags, Mode::empty()).ok()?;
    for _ in 0..TURNS {
        match rustix::fs::flock(&folder, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => return Some(folder),
            Err(Errno::WOULDBLOCK | Errno::INTR) => std::thread::sleep(TURN),
            Err(_) => return None,
        }
    }
    None
}

/// Removes a socket file that nobody listens on any more.
fn clear_stale_socket(path: &Path, address: &SocketAddrUnix) -> Result<(), ListenError> {
    let name = || format!("unix:{}", path.display());
    match std::fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(refused(name(), error)),
        Ok(found) if !found.file_type().is_socket() => {
            return Err(ListenError::NotASocket { path: path.to_owned() });
        }
        Ok(_) => {}
    }
    let probe = socket_with(AddressFamily::UNIX, SocketType::STREAM, FLAGS, None)
        .map_err(|error| refused(name(), error.into()))?;
    match rustix::net::connect(&probe, address) {
        Err(Errno::CONNREFUSED) => std::fs::remove_file(path).map_err(|error| refused(name(), error)),
        Err(Errno::NOENT) => Ok(()),
        // A full queue has somebody behind it.
        Ok(()) | Err(Errno::AGAIN) => Err(ListenError::Taken { address: name() }),
        Err(error) => Err(refused(name(), error.into())),
    }
}

fn listen_vsock(port: u32) -> io::Result<(OwnedFd, u32)> {
    let fd = socket_with(AddressFamily::VSOCK, SocketType::STREAM, FLAGS, None)?;
    nix::sys::socket::bind(fd.as_raw_fd(), &VsockAddr::new(VSOCK_ANY, port))?;
    listen(&fd, BACKLOG)?;
    let bound: VsockAddr = nix::sys::socket::getsockname(fd.as_raw_fd())?;
    Ok((fd, bound.port()))
}

fn vsock_peer(fd: impl AsFd) -> Result<Remote, Errno> {
    let peer: VsockAddr = nix::sys::socket::getpeername(fd.as_fd().as_raw_fd())
        .map_err(|errno| Errno::from_raw_os_error(errno as i32))?;
    Ok(Remote::Vsock { cid: peer.cid(), port: peer.port() })
}

fn refused(address: String, error: io::Error) -> ListenError {
    if error.kind() == io::ErrorKind::AddrInUse {
        ListenError::Taken { address }
    } else {
        ListenError::Refused { address, error }
    }
}

#[cfg(test)]
#[path = "listen_tests.rs"]
mod tests;
