//! What a broker is told about metrics.

use std::net::{Ipv4Addr, SocketAddr};

use castra_driver::metrics::MetricsOptions;
use clap::Args;

#[derive(Args, Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Metrics {
    /// Serve metrics for Prometheus, and /healthz and /readyz: IP:PORT, or a port of the loopback; port 0 is any free one
    #[arg(long, value_name = "ADDRESS", value_parser = address)]
    pub(crate) metrics: Option<SocketAddr>,
    /// Series of their own for each guest: all, none, or a number of guests up to which all have them and beyond which none has
    #[arg(long, value_name = "N|all|none", default_value = "1000", value_parser = guests)]
    pub(crate) metrics_guests: usize,
}

impl Metrics {
    /// For the driver.
    pub(crate) fn options(self) -> Option<MetricsOptions> {
        self.metrics.map(|address| MetricsOptions { address, guests_max: self.metrics_guests })
    }
}

/// Reads where to listen: not a name, so that nobody else says what it means.
fn address(text: &str) -> Result<SocketAddr, String> {
    if let Ok(port) = text.parse() {
        return Ok((Ipv4Addr::LOCALHOST, port).into());
    }
    text.parse().map_err(|_| "say IP:PORT, like 127.0.0.1:9464, or the port alone".into())
}

/// Reads how many guests may have series of their own.
fn guests(text: &str) -> Result<usize, String> {
    match text {
        "all" => Ok(usize::MAX),
        "none" => Ok(0),
        number => number.parse().map_err(|_| "say all, none, or a number of guests".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_alone_is_one_of_the_loopback() {
        let read = |text: &str| address(text).map(|address| address.to_string());
        assert_eq!(read("9464").as_deref(), Ok("127.0.0.1:9464"));
        assert_eq!(read("[::1]:0").as_deref(), Ok("[::1]:0"));
        assert_eq!(read("10.0.0.1:9464").as_deref(), Ok("10.0.0.1:9464"));
        for wrong in ["", "65536", "localhost:9464", "127.0.0.1"] {
            assert!(read(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_number_of_guests_may_be_all_or_none() {
        assert_eq!((guests("all"), guests("none"), guests("7")), (Ok(usize::MAX), Ok(0), Ok(7)));
        assert!(guests("-1").is_err() && guests("some").is_err());
    }
}
