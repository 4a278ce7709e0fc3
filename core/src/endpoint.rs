//! The ends of a connection: what carries it, and who is there.

use alloc::boxed::Box;
use alloc::string::ToString;
use alloc::vec::Vec;
use core::fmt;
use core::net::{Ipv4Addr, SocketAddr, SocketAddrV6};
use core::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// What carries a link.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Transport {
    /// TCP.
    Tcp,
    /// A unix socket.
    Unix,
    /// A VM socket.
    Vsock,
    /// A stream without connections: virtio-serial, or `unix:PATH,serial`.
    Serial,
}

impl Transport {
    /// The word.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Unix => "unix",
            Self::Vsock => "vsock",
            Self::Serial => "serial",
        }
    }
}

impl fmt::Display for Transport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// The other end of a connection.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Remote {
    /// Nothing is known.
    Unknown,
    /// An IP address and port.
    Ip(SocketAddr),
    /// A local process.
    Process {
        /// User id.
        uid: u32,
        /// Process id, when the kernel told.
        pid: u32,
    },
    /// A VM socket address.
    Vsock {
        /// Context id.
        cid: u32,
        /// Port.
        port: u32,
    },
}

impl Remote {
    /// Appends what [`fmt::Display`] shows. An IPv4 address, which is what a busy
    /// broker writes, goes without formatting machinery.
    pub fn append(&self, out: &mut Vec<u8>) {
        let Self::Ip(SocketAddr::V4(address)) = self else {
            out.extend_from_slice(self.to_string().as_bytes());
            return;
        };
        let mut text = [0; b"255.255.255.255:65535".len()];
        let mut end = 0;
        for octet in address.ip().octets() {
            end = write_digits(&mut text, end, u16::from(octet));
            text[end] = b'.';
            end += 1;
        }
        text[end - 1] = b':';
        end = write_digits(&mut text, end, address.port());
        out.extend_from_slice(&text[..end]);
    }
}

/// Writes a number into `text` from `start` on; returns its end.
fn write_digits(text: &mut [u8], start: usize, number: u16) -> usize {
    let count = 1 + [9, 99, 999, 9999].into_iter().filter(|most| number > *most).count();
    let mut rest = number;
    for digit in text[start..start + count].iter_mut().rev() {
        *digit = b'0' + (rest % 10) as u8;
        rest /= 10;
    }
    start + count
}

impl fmt::Display for Remote {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unknown => f.write_str("-"),
            Self::Ip(address) => write!(f, "{address}"),
            Self::Process { uid, pid } => write!(f, "uid:{uid},pid:{pid}"),
            Self::Vsock { cid, port } => write!(f, "cid:{cid},port:{port}"),
        }
    }
}

impl FromStr for Remote {
    type Err = core::convert::Infallible;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let pair = |first: &str, second: &str| {
            let (left, right) = text.split_once(',')?;
            let left = left.strip_prefix(first)?.parse().ok()?;
            let right = right.strip_prefix(second)?.parse().ok()?;
            Some((left, right))
        };
        Ok(if let Ok(address) = text.parse() {
            Self::Ip(address)
        } else if let Some((uid, pid)) = pair("uid:", "pid:") {
            Self::Process { uid, pid }
        } else if let Some((cid, port)) = pair("cid:", "port:") {
            Self::Vsock { cid, port }
        } else {
            Self::Unknown
        })
    }
}

impl Serialize for Remote {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Remote {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = <alloc::borrow::Cow<'de, str>>::deserialize(deserializer)?;
        Ok(text.parse().unwrap_or(Self::Unknown))
    }
}

/// A [`Remote`] in half the space, unless it is an IPv6 address.
#[derive(Clone, Debug)]
pub(crate) enum Packed {
    Unknown,
    V4(Ipv4Addr, u16),
    V6(Box<SocketAddrV6>),
    Process(u32, u32),
    Vsock(u32, u32),
}

impl Packed {
    pub(crate) fn new(remote: Remote) -> Self {
        match remote {
            Remote::Unknown => Self::Unknown,
            Remote::Ip(SocketAddr::V4(address)) => Self::V4(*address.ip(), address.port()),
            Remote::Ip(SocketAddr::V6(address)) => Self::V6(Box::new(address)),
            Remote::Process { uid, pid } => Self::Process(uid, pid),
            Remote::Vsock { cid, port } => Self::Vsock(cid, port),
        }
    }

    pub(crate) fn unpack(&self) -> Remote {
        match self {
            Self::Unknown => Remote::Unknown,
            Self::V4(ip, port) => Remote::Ip(SocketAddr::from((*ip, *port))),
            Self::V6(address) => Remote::Ip(SocketAddr::V6(**address)),
            Self::Process(uid, pid) => Remote::Process { uid: *uid, pid: *pid },
            Self::Vsock(cid, port) => Remote::Vsock { cid: *cid, port: *port },
        }
    }
}

/// Who the kernel says is at the other end of a unix socket.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct PeerCred {
    /// User id.
    pub uid: u32,
    /// Group id.
    pub gid: u32,
    /// Process id at the time of connecting; informative only.
    pub pid: u32,
}
