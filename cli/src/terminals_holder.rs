//! Being the holder of terminals: how a daemon of terminals starts one.

use std::path::{PathBuf, absolute};
use std::time::Duration;

use castra_driver::terminals::holder;
use castra_driver::terminals::holder::process::{Arguments, detach, run as hold};
use clap::Args;

use crate::broker::close_inherited;
use crate::exit::{Exit, Failure, Outcome};

/// What `castra_driver::terminals::holder::process::options_of` writes.
#[derive(Args, Debug)]
pub(crate) struct TerminalsHolder {
    /// Where daemons find it
    #[arg(long)]
    pub(crate) socket: PathBuf,
    /// Bytes of output kept for each terminal
    #[arg(long, default_value_t = holder::RING)]
    pub(crate) ring: u64,
    /// How long to wait without a terminal and without a daemon
    #[arg(long, default_value_t = 60_000)]
    pub(crate) linger_ms: u64,
    /// Where last words go
    #[arg(long)]
    pub(crate) log: Option<PathBuf>,
    /// Start another one that is nobody's child, and end
    #[arg(long)]
    pub(crate) detach: bool,
}

pub(crate) fn run(args: &TerminalsHolder) -> Outcome {
    close_inherited();
    let failed = |error| Failure::io("can't hold terminals", &error);
    if args.detach {
        detach().map_err(failed)?;
        return Ok(Exit::Yes);
    }
    hold(&Arguments {
        socket: absolute(&args.socket).map_err(failed)?,
        ring: args.ring,
        linger: Duration::from_millis(args.linger_ms),
        log: args.log.as_deref().map(absolute).transpose().map_err(failed)?,
    })
    .map_err(failed)?;
    Ok(Exit::Yes)
}
