//! Being the holder of terminals: how a daemon of terminals starts one.

use std::path::absolute;
use std::time::Duration;

use castra_driver::terminals::holder::process::{Arguments, detach, run as hold};

use crate::args::TerminalsHolder;
use crate::broker::{close_inherited, keep_memory_private};
use crate::exit::{Exit, Failure, Outcome};

pub(crate) fn run(args: &TerminalsHolder) -> Outcome {
    close_inherited();
    let failed = |error| Failure::io("can't hold terminals", &error);
    if args.detach {
        detach().map_err(failed)?;
        return Ok(Exit::Yes);
    }
    keep_memory_private();
    hold(&Arguments {
        socket: absolute(&args.socket).map_err(failed)?,
        ring: args.ring,
        linger: Duration::from_millis(args.linger_ms),
        log: args.log.as_deref().map(absolute).transpose().map_err(failed)?,
    })
    .map_err(failed)?;
    Ok(Exit::Yes)
}
