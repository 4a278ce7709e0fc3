//! The driver, as this program calls it. STAND-IN until the driver crate has
//! it: then this whole file becomes
//!
//! ```ignore
//! pub(crate) use castra_driver::address::{ConnectAddress, ListenAddress};
//! pub(crate) use castra_driver::{agent, broker};
//! ```

use std::fmt;
use std::str::FromStr;

/// Stand-in for `castra_driver::address::ListenAddress`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct ListenAddress(String);

/// Stand-in for `castra_driver::address::ConnectAddress`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum ConnectAddress {
    Serial { device: std::path::PathBuf },
    Other(String),
}

#[derive(Debug, thiserror::Error)]
#[error("not an address")]
pub(crate) struct AddressError;

impl FromStr for ListenAddress {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        let known = ["tcp:", "unix:", "vsock:"].iter().any(|kind| text.starts_with(kind));
        if known { Ok(Self(text.into())) } else { Err(AddressError) }
    }
}

impl fmt::Display for ListenAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for ConnectAddress {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        match text.strip_prefix("serial:") {
            Some(device) => Ok(Self::Serial { device: device.into() }),
            None if text.contains(':') => Ok(Self::Other(text.into())),
            None => Err(AddressError),
        }
    }
}

impl fmt::Display for ConnectAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Serial { device } => write!(f, "serial:{}", device.display()),
            Self::Other(text) => f.write_str(text),
        }
    }
}

/// Stand-in for `castra_driver::broker`.
pub(crate) mod broker {
    use super::ListenAddress;
    use castra_core::config::BrokerConfig;
    use std::path::PathBuf;

    #[derive(Debug)]
    #[allow(dead_code)]
    pub(crate) struct BrokerOptions {
        pub(crate) config: BrokerConfig,
        pub(crate) state_dir: PathBuf,
        pub(crate) listen: Vec<ListenAddress>,
        pub(crate) pidfile: Option<PathBuf>,
        pub(crate) logfile: Option<PathBuf>,
        pub(crate) handshake_dir: Option<PathBuf>,
        pub(crate) echo: bool,
    }

    #[derive(Debug)]
    pub(crate) struct Serving {
        pub(crate) listen: Vec<String>,
        pub(crate) control: PathBuf,
        pub(crate) pid: u32,
        pub(crate) warnings: Vec<String>,
    }

    #[derive(Debug, thiserror::Error)]
    #[allow(dead_code)]
    pub(crate) enum BrokerError {
        #[error("another broker owns the state directory")]
        AlreadyRunning,
        #[error("the driver is not wired in yet")]
        StandIn,
    }

    pub(crate) fn run(options: BrokerOptions, on_ready: impl FnOnce(&Serving)) -> Result<(), BrokerError> {
        if options.state_dir.as_os_str().is_empty() {
            on_ready(&Serving { listen: vec![], control: "".into(), pid: 0, warnings: vec![] });
        }
        Err(BrokerError::StandIn)
    }
}

/// Stand-in for `castra_driver::agent`.
pub(crate) mod agent {
    use super::ConnectAddress;
    use castra_core::config::AgentConfig;
    use castra_core::event::Event;
    use std::path::PathBuf;

    #[derive(Debug)]
    #[allow(dead_code)]
    pub(crate) struct AgentOptions {
        pub(crate) config: AgentConfig,
        pub(crate) connect: ConnectAddress,
        pub(crate) socket: Option<PathBuf>,
    }

    #[derive(Debug)]
    pub(crate) struct AgentEnd;

    #[derive(Debug, thiserror::Error)]
    #[error("the driver is not wired in yet")]
    pub(crate) struct AgentError;

    pub(crate) fn run(_options: AgentOptions, _on_event: impl FnMut(&Event)) -> Result<AgentEnd, AgentError> {
        Err(AgentError)
    }
}
