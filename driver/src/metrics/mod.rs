//! What monitoring reads: `/metrics` for Prometheus, `/healthz` and `/readyz` for whoever
//! restarts and routes.
//!
//! ```text
//! scraper ─HTTP─▶ server: a thread each ──wish──▶ desk ──wake──▶ meter, between two turns of the loop
//!                          text ◀── snapshot ◀──────────────────┘ (some hundred rows at a time)
//! ```
//!
//! Nothing about a guest is kept here: its verdict and its age are asked of the engine at
//! each scrape. What happens is counted by the loop's thread alone, which therefore waits
//! for no lock; a scrape gets a copy. Without `--metrics` there is none of it, and the loop
//! doesn't read a clock more.

mod desk;
mod effects;
mod http;
mod meter;
mod numbers;
mod process;
mod scrape;
mod server;
mod snapshot;

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;

use castra_core::config::BrokerConfig;
use castra_core::time::WallTime;

pub(crate) use effects::{EffectMeter, Effects};
pub(crate) use meter::Meter;
pub(crate) use server::Server;

use desk::Desk;

use crate::listen::{ListenError, listen_for_metrics};

/// Where metrics are served, and how many series there may be.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct MetricsOptions {
    /// Where to listen; port 0 lets the kernel choose.
    pub address: SocketAddr,
    /// Each guest has series of its own as long as there are no more guests than this;
    /// beyond it none has. 0: never; `usize::MAX`: always.
    pub guests_max: usize,
}

/// Metrics with a listener. Who connects waits until they are served.
#[derive(Debug)]
pub(crate) struct Exposed {
    listener: TcpListener,
    address: SocketAddr,
    guests_max: usize,
}

impl Exposed {
    /// Listens. What is legal but unwise is added to `warnings`.
    pub(crate) fn bind(options: MetricsOptions, warnings: &mut Vec<String>) -> Result<Self, ListenError> {
        let (listener, address) = listen_for_metrics(options.address, warnings)?;
        Ok(Self { listener: listener.into(), address, guests_max: options.guests_max })
    }

    /// Where, with the real port.
    pub(crate) fn url(&self) -> String {
        format!("http://{}/metrics", self.address)
    }

    /// What looks on at the loop that `wake` wakes, and what answers who connects.
    pub(crate) fn start(
        self,
        wake: Arc<dyn Fn() + Send + Sync>,
        connections_max: usize,
        config: &BrokerConfig,
        started_at: WallTime,
    ) -> io::Result<(Meter, Server)> {
        let Self { listener, guests_max, .. } = self;
        let desk = Arc::new(Desk::new(wake));
        let server = Server::start(listener, Arc::clone(&desk), started_at)?;
        Ok((Meter::new(desk, guests_max, connections_max, config), server))
    }
}
