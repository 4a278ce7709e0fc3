//! The command line of `castra sim`.

use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use castra_sim::measure::Profile;
use castra_sim::plan::FaultKind;
use clap::{Args, Subcommand, ValueEnum};

use crate::duration::parse as duration;
use crate::help;

#[derive(Args, Debug)]
#[command(args_conflicts_with_subcommands = true)]
pub(crate) struct Sim {
    #[command(subcommand)]
    pub(crate) command: Option<SimCommand>,
    /// Play so many worlds [default: 1000]
    #[arg(long, value_name = "N", conflicts_with_all = ["seed", "time", "case"])]
    pub(crate) seeds: Option<u64>,
    /// Play one world
    #[arg(long, value_name = "S", conflicts_with_all = ["time", "case"])]
    pub(crate) seed: Option<u64>,
    /// Play worlds for so long, like 60s
    #[arg(long, value_name = "TIME", value_parser = duration, conflicts_with = "case")]
    pub(crate) time: Option<Duration>,
    /// The first of many worlds [default: 0]
    #[arg(long, value_name = "S", conflicts_with_all = ["seed", "case"])]
    pub(crate) from: Option<u64>,
    /// Play what --save wrote
    #[arg(long, value_name = "FILE", conflicts_with_all = ["faults", "window", "interval", "guests", "network"])]
    pub(crate) case: Option<PathBuf>,
    /// Who plays the worlds
    #[arg(long, value_name = "RUNNER", value_enum, default_value = "des", conflicts_with = "case")]
    pub(crate) runner: Runner,
    /// With --runner explore: the large searches; about half an hour and 4 GB of memory with 1 guest
    #[arg(long)]
    pub(crate) full: bool,
    /// What may go wrong: a list like death,freeze,hold, or all, or none
    #[arg(long, value_name = "LIST", default_value = "all")]
    pub(crate) faults: Faults,
    #[command(flatten)]
    pub(crate) world: World,
    /// Check only this promise, like S1 [default: all]
    #[arg(long, value_name = "NAME", value_parser = promise)]
    pub(crate) promise: Option<String>,
    /// A bug on purpose in broker and agents, to see it found; only in a castra built for that
    #[arg(long, value_name = "BUG")]
    pub(crate) plant: Option<String>,
    /// Threads [default: one per core]; they change nothing but the time
    #[arg(long, value_name = "N", value_parser = jobs)]
    pub(crate) jobs: Option<usize>,
    /// Draw the failing world, or that of --seed or --case: a page, or an image if FILE ends
    /// in .svg [default FILE: castra-sim-SEED.html]
    #[arg(long, value_name = "FILE", num_args = 0..=1)]
    pub(crate) diagram: Option<Option<PathBuf>>,
    /// Tell the world of --seed or --case in sentences; a failing one is always told
    #[arg(long)]
    pub(crate) story: bool,
    /// Write the failing world, made small, for --case
    #[arg(long, value_name = "FILE")]
    pub(crate) save: Option<PathBuf>,
    /// Print the summary as JSON
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Subcommand, Debug)]
pub(crate) enum SimCommand {
    /// How soon a silent death is noticed, and how often somebody alive is doubted
    #[command(long_about = help::SIM_MEASURE)]
    Measure(SimMeasure),
}

#[derive(Args, Debug)]
pub(crate) struct SimMeasure {
    #[command(flatten)]
    pub(crate) world: World,
    /// Play so many worlds [default: 100]
    #[arg(long, value_name = "N")]
    pub(crate) seeds: Option<u64>,
    /// Threads [default: one per core]
    #[arg(long, value_name = "N", value_parser = jobs)]
    pub(crate) jobs: Option<usize>,
    /// Draw the histogram as SVG
    #[arg(long, value_name = "FILE")]
    pub(crate) plot: Option<PathBuf>,
    /// Print the table as JSON
    #[arg(long)]
    pub(crate) json: bool,
}

/// What a user's own world looks like; what isn't said is drawn, too.
#[derive(Args, Clone, Debug)]
pub(crate) struct World {
    /// The broker's window; at least three intervals
    #[arg(long, value_name = "TIME", value_parser = duration)]
    pub(crate) window: Option<Duration>,
    /// The broker's interval
    #[arg(long, value_name = "TIME", value_parser = duration)]
    pub(crate) interval: Option<Duration>,
    /// Guests: for `sim` at most so many, for `measure` and `--runner explore` so many
    #[arg(long, value_name = "N", value_parser = guests)]
    pub(crate) guests: Option<usize>,
    /// The network: loopback, lan, wan, lossy or awful
    #[arg(long, value_name = "NAME")]
    pub(crate) network: Option<Profile>,
}

/// Who plays the worlds.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub(crate) enum Runner {
    /// castra's own discrete-event simulation: every fault, made small, told and drawn
    Des,
    /// Every state of worlds with 1 or 2 guests, breadth first: a shortest way to a broken promise
    Explore,
    /// Worlds of terminals: the daemon of terminals, its programs and its clients
    Terminals,
    /// The turmoil library's network; only in a castra built for that
    Turmoil,
}

impl Runner {
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Des => "des",
            Self::Explore => "explore",
            Self::Terminals => "terminals",
            Self::Turmoil => "turmoil",
        }
    }
}

/// What may go wrong.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Faults {
    All,
    None,
    Some(Vec<FaultKind>),
}

impl FromStr for Faults {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "all" => return Ok(Self::All),
            "none" => return Ok(Self::None),
            _ => {}
        }
        let mut kinds = Vec::new();
        for word in text.split(',') {
            let kind = FaultKind::ALL.into_iter().find(|kind| kind.as_str() == word.trim());
            let all = || FaultKind::ALL.map(FaultKind::as_str).join(", ");
            let kind = kind.ok_or_else(|| format!("no fault is called {word:?}; there are {}", all()))?;
            if !kinds.contains(&kind) {
                kinds.push(kind);
            }
        }
        Ok(Self::Some(kinds))
    }
}

fn promise(text: &str) -> Result<String, String> {
    if castra_sim::PROMISES.contains(&text) {
        return Ok(text.to_owned());
    }
    Err(format!("there are {}", castra_sim::PROMISES.join(", ")))
}

fn jobs(text: &str) -> Result<usize, String> {
    number(text, 1024)
}

fn guests(text: &str) -> Result<usize, String> {
    number(text, 100)
}

fn number(text: &str, most: usize) -> Result<usize, String> {
    match text.parse() {
        Ok(number) if (1..=most).contains(&number) => Ok(number),
        _ => Err(format!("a number from 1 to {most}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn faults_are_a_list_or_all_or_none() {
        assert_eq!("all".parse(), Ok(Faults::All));
        assert_eq!("none".parse(), Ok(Faults::None));
        let both = Faults::Some(vec![FaultKind::Death, FaultKind::Hold]);
        assert_eq!("death, hold,death".parse(), Ok(both));
        assert!("death,thirst".parse::<Faults>().unwrap_err().contains("\"thirst\"; there are hold,"));
    }
}
