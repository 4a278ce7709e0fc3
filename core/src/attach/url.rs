//! Addresses of managers.

use alloc::borrow::Cow;
use alloc::string::{String, ToString};
use alloc::sync::Arc;
use core::fmt;
use core::net::{IpAddr, Ipv4Addr, SocketAddr};
use core::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// `link:`, or `http(s)://HOST[:PORT]` and nothing else. Kept in one form: two
/// spellings of one address are equal, and no spelling of another one is.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ManagerUrl {
    /// Frames on the guest's own link.
    Link,
    /// HTTP.
    Http(Arc<Origin>),
}

/// Where requests go.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Origin {
    /// Over TLS.
    pub tls: bool,
    /// Lower case; an IPv6 address without brackets.
    pub host: String,
    /// The port, the scheme's own included.
    pub port: u16,
}

/// Why a text is no manager's address.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("a manager's address is link:, or http(s)://HOST with an optional :PORT and nothing else")]
pub struct InvalidUrl;

impl ManagerUrl {
    /// Longest text, in bytes.
    pub const MAX: usize = 300;

    /// `http://` and a socket's address.
    #[must_use]
    pub fn http(address: SocketAddr) -> Self {
        let host = address.ip().to_canonical().to_string();
        Self::Http(Arc::new(Origin { tls: false, host, port: address.port() }))
    }

    /// Where requests go; `None`: over the link.
    #[must_use]
    pub fn origin(&self) -> Option<&Origin> {
        match self {
            Self::Link => None,
            Self::Http(origin) => Some(origin),
        }
    }
}

impl Origin {
    /// `HOST:PORT`, as a `Host` header and a dial want it.
    #[must_use]
    pub fn authority(&self) -> String {
        if self.host.contains(':') {
            alloc::format!("[{}]:{}", self.host, self.port)
        } else {
            alloc::format!("{}:{}", self.host, self.port)
        }
    }
}

/// The host of `HOST[:PORT]` in its one form, and the port.
///
/// # Errors
/// Neither a name nor an address in its usual form. Numbers that some resolvers take
/// for an address (`2130706433`, `0x7f.1`) are none here.
pub(crate) fn authority(text: &str) -> Result<(String, Option<u16>), InvalidUrl> {
    let (host, port) = match text.strip_prefix('[') {
        Some(rest) => {
            let (host, rest) = rest.split_once(']').ok_or(InvalidUrl)?;
            let address: core::net::Ipv6Addr = host.parse().map_err(|_| InvalidUrl)?;
            let host = IpAddr::V6(address).to_canonical().to_string();
            (host, if rest.is_empty() { None } else { Some(rest.strip_prefix(':').ok_or(InvalidUrl)?) })
        }
        None => {
            let (host, port) = text.split_once(':').map_or((text, None), |(host, port)| (host, Some(port)));
            (name(host)?, port)
        }
    };
    let port = port.map(|port| {
        let plain = !port.is_empty() && port.len() <= 5 && port.bytes().all(|byte| byte.is_ascii_digit());
        port.parse().ok().filter(|port| plain && *port != 0).ok_or(InvalidUrl)
    });
    Ok((host, port.transpose()?))
}

fn name(host: &str) -> Result<String, InvalidUrl> {
    if let Ok(address) = host.parse::<Ipv4Addr>() {
        return Ok(address.to_string());
    }
    let label = |label: &str| {
        (1..=63).contains(&label.len())
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
    };
    // A name whose last label begins with a digit is a number to some resolvers.
    let last = host.rsplit('.').next().unwrap_or_default();
    let numeric = last.starts_with(|first: char| first.is_ascii_digit());
    if host.len() > 253 || numeric || !host.split('.').all(label) {
        return Err(InvalidUrl);
    }
    Ok(host.to_ascii_lowercase())
}

impl FromStr for ManagerUrl {
    type Err = InvalidUrl;

    fn from_str(text: &str) -> Result<Self, InvalidUrl> {
        if text == "link:" {
            return Ok(Self::Link);
        }
        if text.len() > Self::MAX || !text.is_ascii() {
            return Err(InvalidUrl);
        }
        let (scheme, rest) = text.split_once("://").ok_or(InvalidUrl)?;
        let tls = match scheme.to_ascii_lowercase().as_str() {
            "http" => false,
            "https" => true,
            _ => return Err(InvalidUrl),
        };
        let (host, port) = authority(rest.strip_suffix('/').unwrap_or(rest))?;
        let port = port.unwrap_or(if tls { 443 } else { 80 });
        Ok(Self::Http(Arc::new(Origin { tls, host, port })))
    }
}

impl fmt::Display for ManagerUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Link => f.write_str("link:"),
            Self::Http(origin) => {
                let scheme = if origin.tls { "https" } else { "http" };
                write!(f, "{scheme}://{}", origin.authority())
            }
        }
    }
}

impl fmt::Debug for ManagerUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Serialize for ManagerUrl {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for ManagerUrl {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        <Cow<'de, str>>::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use alloc::string::ToString;

    use super::ManagerUrl;

    fn shown(text: &str) -> Option<alloc::string::String> {
        text.parse::<ManagerUrl>().ok().map(|url| url.to_string())
    }

    #[test]
    fn two_spellings_of_one_address_are_equal() {
        assert_eq!(shown("HTTP://Manager.Example"), Some("http://manager.example:80".into()));
        assert_eq!(shown("http://manager.example:80/"), Some("http://manager.example:80".into()));
        assert_eq!(shown("https://[2001:DB8::0:1]"), Some("https://[2001:db8::1]:443".into()));
        assert_eq!(shown("http://[::ffff:127.0.0.1]:7171"), Some("http://127.0.0.1:7171".into()));
        assert_eq!(shown("link:"), Some("link:".into()));
    }

    #[test]
    fn nothing_but_a_host_and_a_port_is_taken() {
        for bad in [
            "",
            "link",
            "ftp://host",
            "http://",
            "http:///path",
            "http://host/path",
            "http://host?query",
            "http://host#fragment",
            "http://user@host",
            "http://user:secret@host",
            "http://host:0",
            "http://host:65536",
            "http://host:+1",
            "http://host:",
            "http://[::1",
            "http://[::1]x",
            "http://2130706433",
            "http://0x7f000001",
            "http://0x7f.1",
            "http://127.1",
            "http://0177.0.0.1",
            "http://1.2.3.4.5",
            "http://ho st",
            "http://höst",
            "http://host\n",
            "http://-.-:x",
        ] {
            assert_eq!(shown(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn every_address_differs_from_loopback() {
        assert_ne!(shown("http://0.0.0.0:7171"), shown("http://127.0.0.1:7171"));
        assert_ne!(shown("http://localhost:7171"), shown("http://127.0.0.1:7171"));
    }
}
