//! `castra sim`: the broker and its guests in simulated worlds, held against the truth.

mod explore;
mod failed;
mod measure;
mod report;
mod seeds;
mod terminals;
#[cfg(feature = "turmoil")]
mod turmoil;

use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use castra_sim::Limits;
use castra_sim::case::Case;
use castra_sim::choice::Replayed;
use castra_sim::chronicle::Chronicle;
use castra_sim::picture;
use castra_sim::plan::FaultKind;
use castra_sim::play::Player;
use castra_sim::story;
use rustix::process::Signal;

use crate::Context;
use crate::duration::format;
use crate::exit::{Exit, Failure, Outcome};
use crate::interrupt::interruptible;
use crate::sim_args::{Faults, Runner, Sim, SimCommand, World};
use report::Report;

/// Worlds that are played if nothing is said.
const WORLDS: u64 = 1000;

pub(crate) fn run(cx: &mut Context, args: &Sim) -> Outcome {
    #[cfg(not(feature = "planted"))]
    if let Some(bug) = &args.plant {
        return Err(Failure::usage(format!(
            "no bug can be planted in this castra, not even {bug:?}: build one with \
             `cargo build --release -p castra --features planted`"
        )));
    }
    match &args.command {
        Some(SimCommand::Measure(args)) => measure::run(cx, args),
        None if args.runner == Runner::Explore => explore::run(cx, args),
        None if args.runner == Runner::Terminals => {
            terminals::refuse_what_means_nothing(args)?;
            play(cx, args)
        }
        None if args.full => Err(Failure::usage("--full belongs to `--runner explore`")),
        None => play(cx, args),
    }
}

fn play(cx: &mut Context, args: &Sim) -> Outcome {
    let player = player(args)?;
    let stop = interruptible()?;
    if let Some(file) = &args.case {
        return case(cx, args, &player, file, &stop);
    }
    let began = Instant::now();
    let from = args.from.unwrap_or(0);
    let range = match (args.seed, args.time) {
        (Some(seed), _) => seed..seed.saturating_add(1),
        (None, Some(_)) => from..u64::MAX,
        (None, None) => from..from.saturating_add(args.seeds.unwrap_or(WORLDS)),
    };
    let until = args.time.map(|time| began + time);
    let jobs = args.jobs.unwrap_or_else(cores);
    let done = seeds::run(&range, until, jobs, &stop, |seed| match args.runner {
        Runner::Des => player.play(seed),
        Runner::Explore => unreachable!("it has no seeds"),
        Runner::Terminals => terminals::play(&player, seed),
        #[cfg(feature = "turmoil")]
        Runner::Turmoil => turmoil::play(&player.limits, seed),
        #[cfg(not(feature = "turmoil"))]
        Runner::Turmoil => unreachable!("refused as usage"),
    });
    let interrupted = stop.load(Ordering::Relaxed);
    let seed = done.failed.as_ref().map(|(seed, _)| *seed).or(args.seed).unwrap_or_default();
    let failed = match done.failed {
        Some((seed, violation)) => {
            let rerun = rerun(args, seed);
            Some(failed::explain(&player, &format!("seed {seed}"), violation, rerun, Some(&stop), || {
                // Only castra's own worlds can be written down and told.
                let told = args.runner == Runner::Des;
                told.then(|| player.case(seed)).flatten().map(|(case, _)| case)
            }))
        }
        None => None,
    };
    // One world that held is drawn and told, too.
    let mut told = failed.as_ref().and_then(|failed| Some((failed.chronicle.clone()?, failed.rerun.clone())));
    if let (None, Some(seed), true) = (&failed, args.seed, args.story || args.diagram.is_some()) {
        let (plan, choice) = player.draw(seed);
        told = Some((player.tell(&plan, choice).1, rerun(args, seed)));
    }
    if let (Some((chronicle, rerun)), Some(file)) = (&told, &args.diagram) {
        let file = file.clone().unwrap_or_else(|| format!("castra-sim-{seed}.html").into());
        draw(&file, chronicle, rerun)?;
    }
    save(args, failed.as_ref())?;
    let story = told.as_ref().filter(|_| args.story || failed.is_some());
    let story = story.map(|(chronicle, rerun)| story::tell(chronicle, Some(rerun)));
    let report = Report {
        runner: args.runner,
        first: range.start,
        jobs,
        elapsed: began.elapsed(),
        busy: done.busy,
        outcome: done.outcome,
        interrupted,
        failed,
        story,
    };
    finish(cx, args, &report)
}

/// Plays one case again.
fn case(cx: &mut Context, args: &Sim, player: &Player, file: &Path, stop: &AtomicBool) -> Outcome {
    let text = fs::read_to_string(file)
        .map_err(|error| Failure::usage(format!("can't read {}: {error}", file.display())))?;
    let case =
        Case::from_json(&text).map_err(|error| Failure::usage(format!("{}: {error}", file.display())))?;
    let rerun = format!(
        "castra sim --case {}{}",
        quoted(&file.display().to_string()),
        promise(args) + &planted(args)
    );
    let began = Instant::now();
    let busy = seeds::processor_time();
    let result = player.replay(&case.plan, case.choices.clone());
    let busy = seeds::processor_time().saturating_sub(busy);
    let (outcome, failed) = match result {
        Ok(outcome) => (outcome, None),
        Err(failure) => {
            let found = failure.violation.promise;
            // It is told and drawn as it is; smaller only to be written down.
            let shrinks = args.save.is_some().then_some(stop);
            let again = Case { promise: found.into(), ..case.clone() };
            let what = file.display().to_string();
            let failed =
                failed::explain(player, &what, failure.violation, rerun.clone(), shrinks, || Some(again));
            (failure.outcome, Some(failed))
        }
    };
    let chronicle = match failed.as_ref().and_then(|failed| failed.chronicle.clone()) {
        Some(chronicle) => chronicle,
        None => player.tell(&case.plan, Replayed::new(case.choices)).1,
    };
    if let Some(diagram) = &args.diagram {
        draw(&diagram.clone().unwrap_or_else(|| file.with_extension("html")), &chronicle, &rerun)?;
    }
    save(args, failed.as_ref())?;
    let story = (args.story || failed.is_some()).then(|| story::tell(&chronicle, Some(&rerun)));
    let interrupted = stop.load(Ordering::Relaxed);
    let elapsed = began.elapsed();
    let runner = args.runner;
    let report = Report { runner, first: 0, jobs: 1, elapsed, busy, outcome, interrupted, failed, story };
    finish(cx, args, &report)
}

fn finish(cx: &mut Context, args: &Sim, report: &Report) -> Outcome {
    if args.json {
        cx.out.line(&report.json().to_string())?;
    } else {
        cx.out.put(&report.text())?;
    }
    Ok(match (&report.failed, report.interrupted) {
        (Some(_), _) => Exit::No,
        (None, true) => Exit::Signalled(Signal::INT.as_raw()),
        (None, false) => Exit::Yes,
    })
}

fn save(args: &Sim, failed: Option<&failed::Failed>) -> Result<(), Failure> {
    if let (Some(file), Some(case)) = (&args.save, failed.and_then(|failed| failed.case.as_ref())) {
        write(file, &case.to_json())?;
    }
    Ok(())
}

/// A page, or an image where the name asks for one.
fn draw(file: &Path, chronicle: &Chronicle, rerun: &str) -> Result<(), Failure> {
    let image = file.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("svg"));
    let draw = if image { picture::svg } else { picture::draw };
    write(file, &draw(chronicle, Some(rerun)))
}

fn write(file: &Path, text: &str) -> Result<(), Failure> {
    fs::write(file, text)
        .map_err(|error| Failure::io(format_args!("can't write {}", file.display()), &error))?;
    crate::output::say(format_args!("wrote {}", file.display()));
    Ok(())
}

/// What worlds are drawn from.
fn player(args: &Sim) -> Result<Player, Failure> {
    let mut limits = limits(args)?;
    let world = &args.world;
    limits.times = times(world)?;
    limits.network = world.network.map(castra_sim::measure::Profile::network);
    if let Some(guests) = world.guests {
        limits.guests = guests;
    }
    match &args.faults {
        Faults::All => {}
        Faults::None => limits.faults.clear(),
        Faults::Some(kinds) => {
            if let Some(kind) = kinds.iter().find(|kind| !limits.faults.contains(kind)) {
                return Err(Failure::usage(format!(
                    "{} can't play the fault {}",
                    args.runner.as_str(),
                    kind.as_str()
                )));
            }
            limits.faults.clone_from(kinds);
        }
    }
    Ok(Player {
        limits,
        only: args.promise.clone(),
        #[cfg(feature = "planted")]
        planted: bug(args)?,
    })
}

#[cfg(feature = "planted")]
fn bug(args: &Sim) -> Result<Option<castra_core::planted::Bug>, Failure> {
    let Some(bug) = &args.plant else { return Ok(None) };
    bug.parse().map(Some).map_err(|_| {
        let all: Vec<_> = castra_core::planted::Bug::ALL.iter().map(|bug| bug.as_str()).collect();
        Failure::usage(format!("no bug is called {bug:?}; there are {}", all.join(", ")))
    })
}

/// What the runner can play.
fn limits(args: &Sim) -> Result<Limits, Failure> {
    match args.runner {
        Runner::Des | Runner::Explore | Runner::Terminals => Ok(Limits::default()),
        Runner::Turmoil if args.story || args.diagram.is_some() || args.save.is_some() => {
            Err(Failure::usage("only `--runner des` can tell, draw or save a world"))
        }
        Runner::Turmoil if args.plant.is_some() => {
            Err(Failure::usage("turmoil plants no bugs: `--runner des` and `--runner explore` do"))
        }
        Runner::Turmoil if args.promise.is_some() => {
            Err(Failure::usage("turmoil checks all promises that it can: --promise is for `--runner des`"))
        }
        #[cfg(feature = "turmoil")]
        Runner::Turmoil => Ok(castra_sim::turmoil::limits()),
        #[cfg(not(feature = "turmoil"))]
        Runner::Turmoil => Err(Failure::usage(
            "turmoil is not in this castra: build one with \
             `cargo build --release -p castra --features turmoil`",
        )),
    }
}

/// The window and the interval, if one of them was said.
fn times(world: &World) -> Result<Option<(Duration, Duration)>, Failure> {
    let times = match (world.window, world.interval) {
        (None, None) => return Ok(None),
        (Some(window), None) => (window, window / 3),
        (None, Some(interval)) => (interval * 3, interval),
        (Some(window), Some(interval)) => (window, interval),
    };
    let (window, interval) = times;
    if interval < Duration::from_millis(1) || window < interval * 3 {
        return Err(Failure::usage(format!(
            "the window ({}) must hold at least three intervals ({}, at least 1ms)",
            format(window),
            format(interval)
        )));
    }
    Ok(Some(times))
}

/// The command that plays a seed again.
fn rerun(args: &Sim, seed: u64) -> String {
    let mut line = format!("castra sim --seed {seed}");
    if args.runner != Runner::Des {
        line.push_str(&format!(" --runner {}", args.runner.as_str()));
    }
    let world = &args.world;
    for (name, time) in [("window", world.window), ("interval", world.interval)] {
        if let Some(time) = time {
            line.push_str(&format!(" --{name} {}", format(time)));
        }
    }
    if let Some(guests) = world.guests {
        line.push_str(&format!(" --guests {guests}"));
    }
    if let Some(network) = world.network {
        line.push_str(&format!(" --network {network}"));
    }
    match &args.faults {
        Faults::All => {}
        Faults::None => line.push_str(" --faults none"),
        Faults::Some(kinds) => {
            let kinds: Vec<_> = kinds.iter().copied().map(FaultKind::as_str).collect();
            line.push_str(&format!(" --faults {}", kinds.join(",")));
        }
    }
    line + &promise(args) + &planted(args)
}

fn promise(args: &Sim) -> String {
    args.promise.as_ref().map_or_else(String::new, |promise| format!(" --promise {}", quoted(promise)))
}

fn planted(args: &Sim) -> String {
    args.plant.as_ref().map_or_else(String::new, |bug| format!(" --plant {bug}"))
}

/// As a shell reads it.
fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "./_-+:,@=".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        return word.into();
    }
    format!("'{}'", word.replace('\'', r"'\''"))
}

fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, std::num::NonZero::get)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_name_is_quoted_for_a_shell() {
        assert_eq!(quoted("a/b.json"), "a/b.json");
        assert_eq!(quoted("it's; rm"), r"'it'\''s; rm'");
        assert_eq!(quoted(""), "''");
    }
}
