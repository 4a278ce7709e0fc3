//! The real broker beside the yardstick (and mosquitto), in turns, under the
//! same load. See `castra_benches`.

use std::error::Error;
use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use castra_benches::close::{self, Crowd};
use castra_benches::held::Held;
use castra_benches::load::{Client, Pressure, Round};
use castra_benches::raise_descriptor_limit;
use castra_benches::report::{Sample, Series, cost_table, latency_table};
use castra_benches::script::{Script, guest_names};
use castra_benches::server::{Cpu, Server, find_program};
use castra_benches::silence::{Lateness, Silence};
use castra_benches::steady::{self, Steady};
use clap::{Parser, ValueEnum};
use serde_json::{Value, json};

/// Runs the broker, the yardstick and (where it is installed) mosquitto in turns
/// under the same load, and says what an operation costs each of them.
#[derive(Parser)]
#[command(name = "side_by_side")]
struct Args {
    /// What to measure
    #[arg(value_enum, default_value = "handshake")]
    bench: Bench,
    /// Rounds of each server
    #[arg(long, value_name = "N", default_value = "7", value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,
    /// Length of a round
    #[arg(long, value_name = "S", default_value = "2")]
    seconds: f64,
    /// Guests: names that take turns (handshake: 1000), or connections that stay (2000)
    #[arg(long, value_name = "N")]
    guests: Option<usize>,
    /// Handshakes under way at once
    #[arg(long, value_name = "C", default_value = "32")]
    concurrency: usize,
    /// How often each guest is challenged (keepalive: 200, silence: 1000, close: 5000)
    #[arg(long, value_name = "MILLIS")]
    interval: Option<u64>,
    /// close, silence: handshakes per second meanwhile
    #[arg(long, value_name = "N", default_value = "1000")]
    rate: f64,
    /// Links closed, or guests gone silent, in a round
    #[arg(long, value_name = "N", default_value = "100")]
    closes: usize,
    /// silence: all guests go silent
    #[arg(long)]
    all: bool,
    /// Print one JSON document
    #[arg(long)]
    json: bool,
    /// Fail if mosquitto is not installed, instead of doing without
    #[arg(long)]
    mosquitto: bool,
    /// The program `castra` [default: beside this one]
    #[arg(long, value_name = "FILE")]
    castra: Option<PathBuf>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
enum Bench {
    /// Connect, prove, close
    Handshake,
    /// Challenge and proof of guests that stay
    Keepalive,
    /// From the end of a link until the server shows it
    Close,
    /// From the end of a silent guest's window until the broker says so; no other server
    Silence,
}

/// A server, and its place in the comparison.
struct Contender {
    server: Server,
    is_broker: bool,
    script: Script,
    client: Client,
    series: Series,
    idle_since: Option<Cpu>,
}

const WITHOUT_MOSQUITTO: &str = "mosquitto is not installed: apt-get install mosquitto";
/// Before anything counts.
const WARM_UP: Duration = Duration::from_millis(300);
/// After a round: a server notices the last closes …
const SETTLE: Duration = Duration::from_millis(50);
/// … and those of a crowd.
const SETTLE_CROWD: Duration = Duration::from_millis(500);

fn main() -> ExitCode {
    let args = Args::parse();
    match run(&args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("side_by_side: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(args: &Args) -> Result<(), Box<dyn Error>> {
    let stop = Arc::new(AtomicBool::new(false));
    // The rounds look at it: servers and folders are dropped in any case.
    for signal in [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM] {
        signal_hook::flag::register(signal, Arc::clone(&stop))?;
    }
    raise_descriptor_limit()?;
    if args.bench == Bench::Silence {
        return silence(args, &stop);
    }
    let mut contenders = contenders(args)?;
    for contender in &mut contenders {
        if args.bench == Bench::Handshake {
            contender.client.round(Pressure::time(WARM_UP, args.concurrency), &stop)?;
        }
    }
    let machine = (args.bench == Bench::Close).then(Steady::start);
    for round in 1..=args.rounds {
        for contender in &mut contenders {
            let sample = contender.round(args, &stop)?;
            if stop.load(Ordering::Relaxed) {
                return Err("interrupted".into());
            }
            if !args.json {
                let name = &contender.series.server;
                let done = sample.round.done;
                let used = sample.threads.values().sum::<f64>() / 1e3;
                eprintln!("round {round}: {name}: {done} operations, {used:.0} ms of CPU");
            }
            contender.series.samples.push(sample);
        }
    }
    let yardstick = &contenders[0].series;
    let documents: Vec<_> = contenders.iter().map(|contender| contender.series.document(yardstick)).collect();
    let turns =
        contenders.iter().find_map(|contender| contender.server.turns_told().transpose()).transpose()?;
    print(args, &documents, turns.zip(machine.map(Steady::end)));
    Ok(())
}

/// The broker alone: the yardstick has no window.
fn silence(args: &Args, stop: &AtomicBool) -> Result<(), Box<dyn Error>> {
    let (castra, _) = programs(args)?;
    let guests = args.guests.unwrap_or(2000);
    let interval = Duration::from_millis(args.interval());
    let silence = Silence {
        guests,
        silent: if args.all { guests } else { args.closes },
        concurrency: args.concurrency,
        rate: args.rate,
        interval,
        window: 3 * interval,
    };
    let server = Server::measured_broker(&castra, &args.cadence(3))?;
    let machine = Steady::start();
    let mut found = Lateness::default();
    for round in 1..=args.rounds {
        found.add(&silence.round(&server, stop)?);
        std::thread::sleep(SETTLE_CROWD);
        server.turns("ends")?;
        if !args.json {
            eprintln!("round {round}: {} guests called stale so far", found.told());
        }
    }
    let machine = machine.end();
    let (document, table) = server.turns_told()?.ok_or("the broker was not asked for its turns")?;
    if args.json {
        println!(
            "{}",
            json!({"bench": "silence", "silence": found.document(&silence), "turns": document, "steady": machine})
        );
    } else {
        print!("{}{table}{}", found.table(&silence), steady::line(&machine));
    }
    Ok(())
}

fn print(args: &Args, documents: &[Value], turns: Option<((Value, String), Value)>) {
    let name = args.bench.to_possible_value().map(|value| value.get_name().to_owned());
    if args.json {
        let mut document = json!({"bench": name, "servers": documents});
        if let Some(((turns, _), machine)) = turns {
            document["turns"] = turns;
            document["steady"] = machine;
        }
        println!("{document}");
        return;
    }
    match args.bench {
        Bench::Handshake | Bench::Keepalive => print!("{}", cost_table(documents)),
        Bench::Close | Bench::Silence => print!("{}", latency_table(documents)),
    }
    if let Some(((_, turns), machine)) = turns {
        print!("{turns}{}", steady::line(&machine));
    }
}

/// The yardstick is the first.
fn contenders(args: &Args) -> Result<Vec<Contender>, Box<dyn Error>> {
    let (castra, yardstick) = programs(args)?;
    let guests = args.guests.unwrap_or(if args.bench == Bench::Handshake { 1000 } else { 2000 });
    let names = guest_names("guest-", guests);
    let link = Script::link(names.clone());
    let (keepalive, options) = match args.bench {
        Bench::Handshake => (None, vec![]),
        Bench::Keepalive => (Some(Duration::from_millis(args.interval())), args.cadence(10)),
        // The broker's own interval; those that leave don't answer before they do.
        Bench::Close | Bench::Silence => (Some(Duration::from_millis(args.interval())), args.cadence(12)),
    };
    let server = Server::yardstick(&yardstick, keepalive)?;
    let mut all = vec![Contender::new("yardstick", server, link.clone())];
    let server = match args.bench {
        Bench::Close => Server::measured_broker(&castra, &options)?,
        _ => Server::broker(&castra, &options)?,
    };
    all.push(Contender { is_broker: true, ..Contender::new("broker", server, link) });
    if args.bench == Bench::Handshake {
        let server = Server::broker(&castra, &options)?;
        let tokens = server.control()?.tokens(&names)?;
        let script = Script::Link { guests: names.clone(), tokens, words: "" };
        all.push(Contender { is_broker: true, ..Contender::new("keyed", server, script) });
        match find_program("mosquitto") {
            Some(program) => {
                let server = Server::mosquitto(&program)?;
                all.push(Contender::new("mosquitto", server, Script::Mqtt { guests: names }));
            }
            None if args.mosquitto => return Err(WITHOUT_MOSQUITTO.into()),
            None => eprintln!("{WITHOUT_MOSQUITTO}"),
        }
    }
    Ok(all)
}

/// `castra` and the yardstick.
fn programs(args: &Args) -> Result<(PathBuf, PathBuf), Box<dyn Error>> {
    let beside = std::env::current_exe()?;
    let beside = beside.parent().unwrap_or(Path::new("."));
    let castra = args.castra.clone().unwrap_or_else(|| beside.join("castra"));
    let yardstick = beside.join("yardstick");
    for (program, package) in [(&castra, "castra"), (&yardstick, "castra-benches")] {
        if !program.is_file() {
            let program = program.display();
            return Err(format!("{program} is missing: cargo build --release -p {package}").into());
        }
    }
    Ok((castra, yardstick))
}

impl Args {
    /// In milliseconds.
    fn interval(&self) -> u64 {
        self.interval.unwrap_or(match self.bench {
            Bench::Handshake | Bench::Close => 5000,
            Bench::Keepalive => 200,
            Bench::Silence => 1000,
        })
    }

    /// Options of a broker whose window is so many intervals.
    fn cadence(&self, intervals: u64) -> Vec<String> {
        let (interval, window) = (self.interval(), self.interval() * intervals);
        let options = ["--interval", &format!("{interval}ms"), "--window", &format!("{window}ms")];
        options.map(str::to_owned).to_vec()
    }
}

impl Contender {
    fn new(name: &str, server: Server, script: Script) -> Self {
        let client = Client::new(server.address(), script.clone());
        let series = Series::new(name);
        Self { server, is_broker: false, script, client, series, idle_since: None }
    }

    fn round(&mut self, args: &Args, stop: &AtomicBool) -> io::Result<Sample> {
        let duration = Duration::from_secs_f64(args.seconds);
        let start = self.server.cpu()?;
        if let (Some(idle), Some(last)) = (&self.idle_since, self.series.samples.last_mut()) {
            last.after = Some(start.since(idle) as f64 / 1e3);
        }
        let sample = match args.bench {
            Bench::Handshake => {
                let round = self.client.round(Pressure::time(duration, args.concurrency), stop)?;
                self.sample(round, &start)?
            }
            Bench::Keepalive => {
                let mut held = Held::connect(self.server.address(), &self.script, stop)?;
                // Until the challenges have found their places.
                held.answer(&self.script, 3 * Duration::from_millis(args.interval()), stop)?;
                let start = self.server.cpu()?;
                let round = held.answer(&self.script, duration, stop)?;
                Sample::new(round, &start, &self.server.cpu()?)
            }
            Bench::Close => {
                let crowd = Crowd {
                    guests: self.script.guests(),
                    concurrency: args.concurrency,
                    rate: args.rate,
                    duration,
                    closes: args.closes,
                };
                let round = close::round(&self.server, self.is_broker, &crowd, stop)?;
                let sample = self.sample(round, &start)?;
                std::thread::sleep(SETTLE_CROWD);
                self.server.turns("ends")?;
                sample
            }
            Bench::Silence => unreachable!("it has no contenders"),
        };
        Ok(sample)
    }

    fn sample(&mut self, round: Round, start: &Cpu) -> io::Result<Sample> {
        std::thread::sleep(SETTLE);
        let end = self.server.cpu()?;
        let sample = Sample::new(round, start, &end);
        self.idle_since = Some(end);
        Ok(sample)
    }
}
