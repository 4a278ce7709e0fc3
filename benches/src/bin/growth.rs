//! How the engine's cost grows from 10 guests to 100 000. See `castra_benches::growth`.

use std::path::PathBuf;
use std::process::ExitCode;

use castra_benches::growth::{document, measure, table};
use castra_benches::live::Counting;
use castra_benches::plot::plot;
use clap::Parser;

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Measures what guests cost the broker's engine by their number: memory,
/// keepalives, handshakes, status, ticks and events, on a virtual clock.
#[derive(Parser)]
#[command(name = "growth")]
struct Args {
    /// Numbers of guests; what is plotted is relative to 1000
    #[arg(long, value_name = "N,…", value_delimiter = ',', default_value = "10,100,1000,10000,100000",
        value_parser = clap::value_parser!(u32).range(1..=100_000))]
    guests: Vec<u32>,
    /// Rounds; the least time of each counts
    #[arg(long, value_name = "N", default_value = "15", value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,
    /// Draw it
    #[arg(long, value_name = "FILE")]
    svg: Option<PathBuf>,
    /// Print one JSON document
    #[arg(long)]
    json: bool,
}

fn main() -> ExitCode {
    let args = Args::parse();
    let sizes: Vec<usize> = args.guests.iter().map(|&guests| guests as usize).collect();
    let rows = measure(&sizes, args.rounds, |what| {
        if !args.json {
            eprintln!("{what}");
        }
    });
    if args.json {
        println!("{}", document(&rows));
    } else {
        print!("{}", table(&rows));
    }
    if let Some(file) = &args.svg
        && let Err(error) = std::fs::write(file, plot(&rows))
    {
        eprintln!("growth: {}: {error}", file.display());
        return ExitCode::FAILURE;
    }
    ExitCode::SUCCESS
}
