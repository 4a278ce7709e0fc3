//! Terminals of the daemon beside a bare relay, and beside their own screen model.
//!
//!     terminals throughput --castra target/release/castra
//!     terminals echo --castra target/release/castra
//!     terminals idle --castra target/release/castra

use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use castra_benches::terminal::{Daemon, LINE, Relay, echo, flood};
use castra_driver::terminals::screen::Screen;
use clap::{Args, Parser, Subcommand};
use hdrhistogram::Histogram;

#[derive(Parser)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// One writer, one reader: bytes a second, beside a bare relay and the model's own parse rate
    Throughput(Measured),
    /// From a key to its echo, idle and beside a terminal that floods
    Echo(Measured),
    /// Wake-ups of a daemon whose ten terminals do nothing
    Idle(Measured),
    /// (a program on the terminal)
    #[command(hide = true)]
    Flood { bytes: u64 },
    /// (a program on the terminal)
    #[command(hide = true)]
    Repeat,
}

#[derive(Args)]
struct Measured {
    /// The program
    #[arg(long, default_value = "target/release/castra")]
    castra: PathBuf,
    /// Bytes that the writer writes, in MB
    #[arg(long, default_value_t = 200)]
    megabytes: u64,
    /// Rounds, interleaved
    #[arg(long, default_value_t = 5)]
    rounds: usize,
}

fn main() -> io::Result<()> {
    match Cli::parse().command {
        Command::Flood { bytes } => flood(bytes),
        Command::Repeat => echo(),
        Command::Throughput(measured) => throughput(&measured),
        Command::Echo(measured) => echoes(&measured),
        Command::Idle(measured) => idle(&measured),
    }
}

fn throughput(Measured { castra, megabytes, rounds }: &Measured) -> io::Result<()> {
    let bytes = megabytes * 1_000_000;
    let (mut relays, mut offs, mut ons, mut parses) = (vec![], vec![], vec![], vec![]);
    for round in 1..=*rounds {
        relays.push(rate(bytes, || relayed(bytes))?);
        offs.push(rate(bytes, || hosted(castra, false, bytes))?);
        parses.push(rate(bytes, || Ok(parsed(bytes)))?);
        ons.push(rate(bytes, || hosted(castra, true, bytes))?);
        let last = |rates: &[f64]| rates.last().copied().unwrap_or(0.0);
        println!(
            "round {round}: relay {:.0} MB/s, screen off {:.0}, model alone {:.0}, screen on {:.0}",
            last(&relays),
            last(&offs),
            last(&parses),
            last(&ons)
        );
    }
    let (relay, off, parse, on) = (best(&relays), best(&offs), best(&parses), best(&ons));
    println!("screen off: {:.2} x a bare relay ({off:.0} of {relay:.0} MB/s; at least 0.60)", off / relay);
    println!(
        "screen on: {:.2} x the model's own rate ({on:.0} of {parse:.0} MB/s; at least 0.80)",
        on / parse
    );
    Ok(())
}

fn best(rates: &[f64]) -> f64 {
    rates.iter().copied().fold(0.0, f64::max)
}

/// MB/s.
fn rate(bytes: u64, work: impl FnOnce() -> io::Result<u64>) -> io::Result<f64> {
    let began = Instant::now();
    let got = work()?;
    let seconds = began.elapsed().as_secs_f64();
    if got != bytes {
        return Err(io::Error::other(format!("{got} bytes of {bytes} arrived")));
    }
    Ok(bytes as f64 / 1e6 / seconds)
}

fn this_program() -> io::Result<String> {
    Ok(std::env::current_exe()?.to_string_lossy().into_owned())
}

fn relayed(bytes: u64) -> io::Result<u64> {
    Relay::start(Path::new(&this_program()?), &["flood", &bytes.to_string()])?.drain()
}

fn hosted(castra: &Path, screen: bool, bytes: u64) -> io::Result<u64> {
    let daemon = Daemon::start(castra, screen)?;
    let mut client = daemon.client("reader")?;
    client.run(&[&this_program()?, "flood", &bytes.to_string()])?;
    let (got, skipped) = client.drain()?;
    if skipped > 0 {
        return Err(io::Error::other(format!("{skipped} bytes were left out for the owner")));
    }
    Ok(got)
}

fn parsed(bytes: u64) -> u64 {
    let mut screen = Screen::new(80, 24, 10_000);
    let block: Vec<u8> = LINE.iter().copied().cycle().take(64 * 1024).collect();
    let mut left = bytes;
    while left > 0 {
        let count = left.min(block.len() as u64);
        screen.feed(&block[..count as usize]);
        left -= count;
    }
    bytes
}

fn echoes(Measured { castra, rounds, .. }: &Measured) -> io::Result<()> {
    let daemon = Daemon::start(castra, true)?;
    let program = this_program()?;
    let (mut idle, mut beside) = (histogram()?, histogram()?);
    for _ in 0..*rounds {
        echo_round(&daemon, &program, &mut idle)?;
        let over = AtomicBool::new(false);
        thread::scope(|scope| {
            let flooding = scope.spawn(|| -> io::Result<()> {
                let mut client = daemon.client("flood")?;
                let session = client.run(&[&program, "flood", &u64::MAX.to_string()])?;
                while !over.load(Ordering::Relaxed) {
                    client.output()?;
                }
                client.ask(&castra_core::terminals::wire::Request::Kill { session })?;
                Ok(())
            });
            let measured = echo_round(&daemon, &program, &mut beside);
            over.store(true, Ordering::Relaxed);
            flooding.join().map_err(|_| io::Error::other("the flood's client died"))??;
            measured
        })?;
    }
    let micros = |histogram: &Histogram<u64>, q| histogram.value_at_quantile(q) as f64 / 1e3;
    for (name, it) in [("idle", &idle), ("beside a flood", &beside)] {
        println!("{name}: p50 {:.0} µs, p95 {:.0} µs ({} keys)", micros(it, 0.5), micros(it, 0.95), it.len());
    }
    println!("beside a flood: {:.2} x idle (at most 2)", micros(&beside, 0.5) / micros(&idle, 0.5));
    Ok(())
}

fn histogram() -> io::Result<Histogram<u64>> {
    Histogram::new(3).map_err(io::Error::other)
}

fn echo_round(daemon: &Daemon, program: &str, into: &mut Histogram<u64>) -> io::Result<()> {
    let mut client = daemon.client("typist")?;
    let session = client.run(&[program, "repeat"])?;
    thread::sleep(Duration::from_millis(300));
    // No key comes twice in a row, so that no late echo is taken for a quick one.
    for key in (b'a'..=b'z').cycle().take(200) {
        // As somebody types who types fast.
        thread::sleep(Duration::from_millis(3));
        let began = Instant::now();
        client.input(session, &[key])?;
        client.output_with(key)?;
        into.record(u64::try_from(began.elapsed().as_nanos()).unwrap_or(u64::MAX))
            .map_err(io::Error::other)?;
    }
    client.ask(&castra_core::terminals::wire::Request::Kill { session })?;
    Ok(())
}

fn idle(Measured { castra, .. }: &Measured) -> io::Result<()> {
    let daemon = Daemon::start(castra, true)?;
    let mut client = daemon.client("idler")?;
    for _ in 0..10 {
        client.run(&["/bin/cat"])?;
    }
    // Whatever follows a start, as a tail that is written down.
    thread::sleep(Duration::from_secs(4));
    let before = switches(daemon.pid())?;
    let seconds = 10;
    thread::sleep(Duration::from_secs(seconds));
    let woken = switches(daemon.pid())? - before;
    println!("{woken} wake-ups of the daemon and the holder in {seconds} s with ten idle terminals (none)");
    Ok(())
}

/// Voluntary context switches of a process and of its children, all threads.
fn switches(pid: u32) -> io::Result<u64> {
    let mut sum = 0;
    for process in processes_of(pid)? {
        for task in std::fs::read_dir(format!("/proc/{process}/task"))? {
            let status = std::fs::read_to_string(task?.path().join("status"))?;
            let line = status.lines().find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"));
            sum += line.and_then(|count| count.trim().parse::<u64>().ok()).unwrap_or(0);
        }
    }
    Ok(sum)
}

/// The daemon and its holder: a process whose arguments name the daemon's directory.
fn processes_of(pid: u32) -> io::Result<Vec<u32>> {
    let arguments = std::fs::read_to_string(format!("/proc/{pid}/cmdline"))?;
    let directory =
        arguments.split('\0').skip_while(|word| *word != "--state-dir").nth(1).unwrap_or("-").to_owned();
    let mut found = vec![];
    for entry in std::fs::read_dir("/proc")? {
        let Ok(process) = entry?.file_name().to_string_lossy().parse::<u32>() else { continue };
        let Ok(arguments) = std::fs::read_to_string(format!("/proc/{process}/cmdline")) else { continue };
        if process == pid || arguments.contains("terminals-holder") && arguments.contains(&directory) {
            found.push(process);
        }
    }
    Ok(found)
}
