//! Addresses as people write them.

use std::fmt;
use std::net::IpAddr;
use std::path::PathBuf;
use std::str::FromStr;

use castra_core::boundary::Transport;

/// Longest path of a unix socket, in bytes (`sun_path` less its final NUL).
pub const UNIX_PATH_MAX: usize = 107;

/// Where a broker listens for links.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum ListenAddress {
    /// `tcp:HOST:PORT`; port 0 lets the kernel choose.
    Tcp {
        /// A name or an IP address, without brackets.
        host: String,
        /// The port.
        port: u16,
    },
    /// `unix:PATH`, or `unix:PATH,serial`.
    Unix {
        /// The socket's path.
        path: PathBuf,
        /// Each connection is a stream that outlives the guest's boots.
        serial: bool,
    },
    /// `vsock:PORT`, for every guest of this host.
    Vsock {
        /// The port.
        port: u32,
    },
}

/// Where an agent finds its broker.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum ConnectAddress {
    /// `tcp:HOST:PORT`.
    Tcp {
        /// A name or an IP address, without brackets.
        host: String,
        /// The port.
        port: u16,
    },
    /// `unix:PATH`.
    Unix {
        /// The socket's path.
        path: PathBuf,
    },
    /// `vsock:CID:PORT`; the host is context 2.
    Vsock {
        /// Context id.
        cid: u32,
        /// Port.
        port: u32,
    },
    /// `serial:DEVICE`, such as `serial:/dev/virtio-ports/castra.0`.
    Serial {
        /// The character device.
        device: PathBuf,
    },
}

/// Why a text is not an address.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum AddressError {
    /// Not one of the known forms.
    #[error("{text:?} is not an address: write {expected}")]
    Form {
        /// What was written.
        text: String,
        /// The forms there are.
        expected: &'static str,
    },
    /// The port is missing or not a number in range.
    #[error("{text:?} has no valid port: write {expected}")]
    Port {
        /// What was written.
        text: String,
        /// The form.
        expected: &'static str,
    },
    /// The host part is empty or an IPv6 address without brackets.
    #[error("{text:?} has no valid host: write tcp:127.0.0.1:7070, tcp:[::1]:7070 or tcp:NAME:7070")]
    Host {
        /// What was written.
        text: String,
    },
    /// The path is empty or relative to nothing.
    #[error("{text:?} has no path: write {expected}")]
    Path {
        /// What was written.
        text: String,
        /// The form.
        expected: &'static str,
    },
    /// The kernel takes no longer path for a unix socket.
    #[error(
        "the socket path {path:?} has {length} bytes and the kernel takes at most 107: use a shorter directory"
    )]
    PathTooLong {
        /// The path.
        path: PathBuf,
        /// Its length in bytes.
        length: usize,
    },
}

const LISTEN_FORMS: &str = "tcp:HOST:PORT, unix:PATH, unix:PATH,serial or vsock:PORT";
const CONNECT_FORMS: &str = "tcp:HOST:PORT, unix:PATH, vsock:CID:PORT or serial:DEVICE";

impl ListenAddress {
    /// What carries the links that come in there.
    #[must_use]
    pub const fn transport(&self) -> Transport {
        match self {
            Self::Tcp { .. } => Transport::Tcp,
            Self::Unix { serial: false, .. } => Transport::Unix,
            Self::Unix { serial: true, .. } => Transport::Serial,
            Self::Vsock { .. } => Transport::Vsock,
        }
    }
}

impl FromStr for ListenAddress {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        let (kind, rest) = split_kind(text, LISTEN_FORMS)?;
        match kind {
            "tcp" => host_and_port(text, rest).map(|(host, port)| Self::Tcp { host, port }),
            "unix" => {
                let (path, serial) = match rest.strip_suffix(",serial") {
                    Some(path) => (path, true),
                    None => (rest, false),
                };
                // A misspelt option must not become a file's name: a path has its commas before a slash or a dot.
                if path
                    .rsplit_once(',')
                    .is_some_and(|(_, word)| word.bytes().all(|byte| byte.is_ascii_lowercase()))
                {
                    return Err(AddressError::Form {
                        text: text.to_owned(),
                        expected: "unix:PATH or unix:PATH,serial",
                    });
                }
                Ok(Self::Unix { path: socket_path(text, path, "unix:/path/to/socket")?, serial })
            }
            "vsock" => {
                Ok(Self::Vsock { port: number(text, rest, "vsock:PORT with a port from 0 to 4294967294")? })
            }
            _ => Err(AddressError::Form { text: text.to_owned(), expected: LISTEN_FORMS }),
        }
    }
}

impl FromStr for ConnectAddress {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        let (kind, rest) = split_kind(text, CONNECT_FORMS)?;
        match kind {
            "tcp" => {
                let (host, port) = host_and_port(text, rest)?;
                if port == 0 {
                    return Err(AddressError::Port { text: text.to_owned(), expected: "tcp:HOST:PORT" });
                }
                Ok(Self::Tcp { host, port })
            }
            "unix" => Ok(Self::Unix { path: socket_path(text, rest, "unix:/path/to/socket")? }),
            "vsock" => {
                let expected = "vsock:CID:PORT, such as vsock:2:7070";
                let (cid, port) = rest
                    .split_once(':')
                    .ok_or_else(|| AddressError::Port { text: text.to_owned(), expected })?;
                Ok(Self::Vsock { cid: number(text, cid, expected)?, port: number(text, port, expected)? })
            }
            "serial" if rest.is_empty() => Err(AddressError::Path {
                text: text.to_owned(),
                expected: "serial:/dev/virtio-ports/castra.0",
            }),
            "serial" => Ok(Self::Serial { device: PathBuf::from(rest) }),
            _ => Err(AddressError::Form { text: text.to_owned(), expected: CONNECT_FORMS }),
        }
    }
}

impl fmt::Display for ListenAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp { host, port } => write_tcp(f, host, *port),
            Self::Unix { path, serial } => {
                write!(f, "unix:{}{}", path.display(), if *serial { ",serial" } else { "" })
            }
            Self::Vsock { port } => write!(f, "vsock:{port}"),
        }
    }
}

impl fmt::Display for ConnectAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp { host, port } => write_tcp(f, host, *port),
            Self::Unix { path } => write!(f, "unix:{}", path.display()),
            Self::Vsock { cid, port } => write!(f, "vsock:{cid}:{port}"),
            Self::Serial { device } => write!(f, "serial:{}", device.display()),
        }
    }
}

fn write_tcp(f: &mut fmt::Formatter<'_>, host: &str, port: u16) -> fmt::Result {
    if host.contains(':') { write!(f, "tcp:[{host}]:{port}") } else { write!(f, "tcp:{host}:{port}") }
}

fn split_kind<'a>(text: &'a str, expected: &'static str) -> Result<(&'a str, &'a str), AddressError> {
    text.split_once(':').ok_or_else(|| AddressError::Form { text: text.to_owned(), expected })
}

fn host_and_port(text: &str, rest: &str) -> Result<(String, u16), AddressError> {
    let host_error = || AddressError::Host { text: text.to_owned() };
    let (host, port) = match rest.strip_prefix('[') {
        Some(bracketed) => {
            let (host, after) = bracketed.split_once(']').ok_or_else(host_error)?;
            let host: IpAddr = host.parse().map_err(|_| host_error())?;
            (host.to_string(), after.strip_prefix(':').unwrap_or_default())
        }
        None => {
            let (host, port) = rest.rsplit_once(':').unwrap_or((rest, ""));
            if host.is_empty() || host.contains(':') {
                return Err(host_error());
            }
            (host.to_owned(), port)
        }
    };
    Ok((host, number(text, port, "tcp:HOST:PORT with a port from 0 to 65535")?))
}

fn number<T: FromStr>(text: &str, digits: &str, expected: &'static str) -> Result<T, AddressError> {
    let error = || AddressError::Port { text: text.to_owned(), expected };
    if !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(error());
    }
    digits.parse().map_err(|_| error())
}

fn socket_path(text: &str, path: &str, expected: &'static str) -> Result<PathBuf, AddressError> {
    if path.is_empty() {
        return Err(AddressError::Path { text: text.to_owned(), expected });
    }
    if path.len() > UNIX_PATH_MAX {
        return Err(AddressError::PathTooLong { path: PathBuf::from(path), length: path.len() });
    }
    Ok(PathBuf::from(path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_form_survives_a_round_trip() {
        for text in [
            "tcp:127.0.0.1:7070",
            "tcp:[::1]:0",
            "tcp:localhost:1",
            "unix:/run/castra/link.sock",
            "unix:/run/castra/link.sock,serial",
            "unix:relative",
            "vsock:7070",
        ] {
            assert_eq!(text.parse::<ListenAddress>().expect(text).to_string(), text);
        }
        for text in ["tcp:127.0.0.1:7070", "tcp:[::1]:7", "unix:/a", "vsock:2:7070", "serial:/dev/vport0p1"] {
            assert_eq!(text.parse::<ConnectAddress>().expect(text).to_string(), text);
        }
    }

    #[test]
    fn serial_is_a_transport_of_its_own() {
        let serial: ListenAddress = "unix:/a,serial".parse().expect("an address");
        assert_eq!(serial.transport(), Transport::Serial);
        let plain: ListenAddress = "unix:/a".parse().expect("an address");
        assert_eq!(plain.transport(), Transport::Unix);
    }

    #[test]
    fn nonsense_is_refused_with_the_form_to_write() {
        for text in [
            "",
            "7070",
            "tcp:",
            "tcp:7070",
            "tcp::7070",
            "tcp:h:",
            "tcp:h:65536",
            "tcp:h:+1",
            "tcp:::1:7070",
            "tcp:[::1",
            "tcp:[nonsense]:1",
            "unix:",
            "unix:/a,serail",
            "unix:/a,serial,serial",
            "vsock:",
            "vsock:-1",
            "vsock:4294967296",
            "udp:h:1",
            "serial:/dev/x",
        ] {
            let error = text.parse::<ListenAddress>().expect_err(text).to_string();
            assert!(error.contains("write"), "{text}: {error}");
        }
        for text in ["tcp:h:0", "vsock:7070", "vsock:x:1", "serial:", "unix:", "unix"] {
            let error = text.parse::<ConnectAddress>().expect_err(text).to_string();
            assert!(error.contains("write"), "{text}: {error}");
        }
    }

    #[test]
    fn a_path_longer_than_the_kernel_takes_is_refused() {
        let longest = format!("unix:/{}", "a".repeat(UNIX_PATH_MAX - 1));
        assert!(longest.parse::<ListenAddress>().is_ok());
        let error = format!("{longest}a").parse::<ListenAddress>().expect_err("too long");
        assert!(error.to_string().contains("108 bytes"), "{error}");
    }
}
