//! A bare server in the shape of the link protocol: what the kernel's share of a
//! handshake costs. See `castra_benches::yardstick`.

use std::error::Error;
use std::io::Write;
use std::net::SocketAddr;
use std::time::Duration;

use castra_benches::raise_descriptor_limit;
use castra_benches::yardstick::Yardstick;
use clap::Parser;

/// A bare server to stand beside the broker: the same round trips and bytes, and
/// no more. Prints its address, and ends with its standard input or by TERM.
#[derive(Parser)]
#[command(name = "yardstick")]
struct Args {
    /// Where to listen
    #[arg(long, value_name = "HOST:PORT", default_value = "127.0.0.1:0")]
    listen: SocketAddr,
    /// Challenge every connection this often, once it is through
    #[arg(long, value_name = "MILLIS", value_parser = clap::value_parser!(u64).range(1..))]
    keepalive: Option<u64>,
}

fn main() -> Result<(), Box<dyn Error>> {
    let args = Args::parse();
    raise_descriptor_limit()?;
    let yardstick = Yardstick::bind(args.listen, args.keepalive.map(Duration::from_millis))?;
    let mut out = std::io::stdout();
    writeln!(out, "{}", yardstick.address()?)?;
    out.flush()?;
    Ok(yardstick.run()?)
}
