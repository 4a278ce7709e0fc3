//! The command line of `castra bench`.

use std::time::Duration;

use castra_core::id::GuestName;
use clap::{Args, Subcommand};

use crate::duration::parse as duration;
use crate::run::ConnectAddress;

#[derive(Args, Debug)]
#[command(arg_required_else_help = true)]
pub(crate) struct Bench {
    #[command(subcommand)]
    pub(crate) what: What,
}

#[derive(Subcommand, Debug)]
pub(crate) enum What {
    /// How many handshakes a second, and how long one takes
    Handshake(Handshake),
    /// What a challenge and its proof cost
    Keepalive(Load),
    /// What a guest costs that is just there
    Idle(Load),
    /// How long `castra status --json` takes
    Status(Load),
    /// How soon everybody is proven again after the broker was killed
    Restart(Load),
}

#[derive(Args, Debug)]
pub(crate) struct Handshake {
    #[command(flatten)]
    pub(crate) load: Load,
    /// Begin so many each second, whatever becomes of the earlier ones [default: the next when one ends]
    #[arg(long, value_name = "PER_SECOND", value_parser = rate)]
    pub(crate) rate: Option<f64>,
}

#[derive(Args, Debug)]
pub(crate) struct Load {
    /// The broker to load: tcp:HOST:PORT, unix:PATH or vsock:CID:PORT [default: one of our own]
    #[arg(long, value_name = "ADDRESS")]
    pub(crate) against: Option<ConnectAddress>,
    /// With --against: the broker's process id on this machine, to count its processor time and memory
    #[arg(long, value_name = "PID", requires = "against", value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) pid: Option<u32>,
    /// How many guests there are
    #[arg(long, value_name = "N", default_value = "1000", value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub(crate) guests: u32,
    /// How the guests' names begin; loads that run beside each other need names of their own
    #[arg(long, value_name = "TEXT", default_value = "bench-", value_parser = prefix)]
    pub(crate) prefix: String,
    /// Most handshakes at once
    #[arg(long, value_name = "N", default_value = "32", value_parser = clap::value_parser!(u32).range(1..=65_536))]
    pub(crate) concurrency: u32,
    /// How long to measure, after a second of warming up
    #[arg(long, value_name = "S", default_value = "10", value_parser = clap::value_parser!(u32).range(1..=86_400))]
    pub(crate) seconds: u32,
    /// Every guest has a token
    #[arg(long, conflicts_with = "against")]
    pub(crate) keyed: bool,
    /// Our own broker's interval
    #[arg(long, value_name = "TIME", default_value = "5s", value_parser = duration, conflicts_with = "against")]
    pub(crate) interval: Duration,
    /// Our own broker's window
    #[arg(long, value_name = "TIME", default_value = "15s", value_parser = duration, conflicts_with = "against")]
    pub(crate) window: Duration,
    /// Print the figures as JSON
    #[arg(long)]
    pub(crate) json: bool,
}

/// Whatever a name may begin with, and leaves room for a number.
fn prefix(text: &str) -> Result<String, String> {
    if text.len() > 48 {
        return Err("at most 48 characters".into());
    }
    format!("{text}000000").parse::<GuestName>().map(|_| text.to_owned()).map_err(|error| error.to_string())
}

fn rate(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(rate) if rate.is_finite() && (0.001..=10_000_000.0).contains(&rate) => Ok(rate),
        _ => Err("a number of handshakes a second, from 0.001 to 10000000".into()),
    }
}
