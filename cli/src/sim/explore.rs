//! `castra sim --runner explore`: every state of small worlds.

use std::fmt::Write as _;
use std::panic::{self, AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use castra_sim::explore::{self, Search};
use serde_json::{Value, json};

use super::planted;
use super::seeds::short;
use crate::Context;
use crate::duration::{age, millis};
use crate::exit::{Exit, Failure, Outcome};
use crate::interrupt::interruptible;
use crate::progress::Progress;
use crate::sim_args::{Faults, Sim};

/// A search that was made, or begun.
struct Made {
    what: &'static str,
    report: explore::Report,
    took: Duration,
    /// It ended where it was meant to.
    finished: bool,
}

pub(super) fn run(cx: &mut Context, args: &Sim) -> Outcome {
    refuse_what_means_nothing(args)?;
    let guests = args.world.guests.unwrap_or(1);
    if guests > 2 {
        return Err(Failure::usage("`--runner explore` has worlds of 1 or 2 guests, no more"));
    }
    #[cfg(feature = "planted")]
    let bug = super::bug(args)?;
    let stop = interruptible()?;
    let began = Instant::now();
    let mut made: Vec<Made> = Vec::new();
    #[cfg_attr(not(feature = "planted"), expect(unused_mut, reason = "bugs are planted in it"))]
    for mut search in explore::searches(guests, args.full) {
        #[cfg(feature = "planted")]
        {
            search.bounds.broker.planted = bug;
            search.bounds.agent.planted = bug;
        }
        let one = one(&search, &stop)?;
        let over = one.report.violation.is_some() || !one.finished;
        made.push(one);
        if over {
            break;
        }
    }
    let explored = Explored { guests, made, rerun: rerun(args), elapsed: began.elapsed() };
    if args.json {
        cx.out.line(&explored.json().to_string())?;
    } else {
        cx.out.put(&explored.text())?;
    }
    Ok(match (explored.violation(), explored.interrupted()) {
        (Some(_), _) => Exit::No,
        (None, true) => Exit::Signalled(signal_hook::consts::SIGINT),
        (None, false) => Exit::Yes,
    })
}

fn one(search: &Search, stop: &AtomicBool) -> Result<Made, Failure> {
    let (what, began) = (search.what, Instant::now());
    let mut progress = Progress::new("states", None, None);
    let mut stopped = false;
    // A panic of an engine has no way that leads to it here: the seeds' runner finds one, too.
    let hook = panic::take_hook();
    panic::set_hook(Box::new(|_| {}));
    let report = catch_unwind(AssertUnwindSafe(|| {
        explore::explore(&search.bounds, &mut |now| {
            progress.show(now.states, || {
                format!(
                    "{what}: {} steps, depth {}, {} to look at",
                    short(now.edges as f64),
                    now.depth,
                    now.frontier
                )
            });
            stopped = stop.load(Ordering::Relaxed);
            !stopped
        })
    }));
    panic::set_hook(hook);
    progress.clear();
    let report = report.map_err(|panic| {
        let text = panic.downcast_ref::<String>().cloned();
        let text = text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
        Failure::new(Exit::No, format!("{what}: an engine panics: {}", text.unwrap_or_default()))
    })?;
    let finished = report.closed || !stopped;
    Ok(Made { what, report, took: began.elapsed(), finished })
}

/// What only worlds that are drawn have.
fn refuse_what_means_nothing(args: &Sim) -> Result<(), Failure> {
    let world = &args.world;
    let said = [
        ("--seeds", args.seeds.is_some()),
        ("--seed", args.seed.is_some()),
        ("--time", args.time.is_some()),
        ("--from", args.from.is_some()),
        ("--faults", args.faults != Faults::All),
        ("--window", world.window.is_some()),
        ("--interval", world.interval.is_some()),
        ("--network", world.network.is_some()),
        ("--promise", args.promise.is_some()),
        ("--jobs", args.jobs.is_some()),
        ("--diagram", args.diagram.is_some()),
        ("--story", args.story),
        ("--save", args.save.is_some()),
    ];
    match said.into_iter().find(|(_, said)| *said) {
        Some((option, _)) => Err(Failure::usage(format!(
            "{option} means nothing to `--runner explore`: it draws no worlds, it visits all states of small ones"
        ))),
        None => Ok(()),
    }
}

fn rerun(args: &Sim) -> String {
    let mut line = "castra sim --runner explore".to_owned();
    if let Some(guests) = args.world.guests {
        line.push_str(&format!(" --guests {guests}"));
    }
    if args.full {
        line.push_str(" --full");
    }
    line + &planted(args)
}

/// What the searches came to.
struct Explored {
    guests: usize,
    made: Vec<Made>,
    rerun: String,
    elapsed: Duration,
}

impl Explored {
    fn violation(&self) -> Option<(&Made, &explore::Counterexample)> {
        self.made.iter().find_map(|made| Some((made, made.report.violation.as_ref()?)))
    }

    fn interrupted(&self) -> bool {
        self.made.iter().any(|made| !made.finished)
    }

    fn sum(&self, of: impl Fn(&explore::Report) -> u64) -> u64 {
        self.made.iter().map(|made| of(&made.report)).sum()
    }

    /// ASCII. Writing to a string can't fail.
    fn text(&self) -> String {
        let mut text = String::new();
        let states = self.sum(|report| report.states);
        if let Some((made, counterexample)) = self.violation() {
            for (number, step) in counterexample.steps.iter().enumerate() {
                let _ = writeln!(text, "{:4}. {}", number + 1, crate::output::printable(step));
            }
            let _ = writeln!(text, "\nAgain: {}\n", self.rerun);
            let broken = crate::output::printable(&counterexample.broken.to_string());
            let _ = writeln!(text, "A PROMISE IS BROKEN ({}): {broken}\n", made.what);
        } else if self.interrupted() {
            let _ = writeln!(text, "Interrupted. In {states} states so far every promise was kept.\n");
        } else {
            let _ = writeln!(text, "{states} states, and every promise was kept in all of them.\n");
        }
        let _ = writeln!(text, "{:<50} {:>9} {:>9} {:>6}  space", "search", "states", "steps", "depth");
        for Made { what, report, took, finished } in &self.made {
            let end = match (&report.violation, report.closed, finished) {
                (Some(_), ..) => "a broken promise",
                (None, true, _) => "closed: this is all there is",
                (None, false, true) => "not closed: as many states as were asked for",
                (None, false, false) => "not closed: interrupted",
            };
            let explore::Report { states, edges, depth, .. } = report;
            let _ =
                writeln!(text, "{what:<50} {states:>9} {edges:>9} {depth:>6}  {end}, {}", age(millis(*took)));
        }
        text
    }

    fn json(&self) -> Value {
        let searches = self.made.iter().map(|Made { what, report, took, finished }| {
            json!({
                "what": what,
                "states": report.states,
                "steps": report.edges,
                "depth": report.depth,
                "closed": report.closed,
                "interrupted": !finished,
                "elapsed_ms": millis(*took),
            })
        });
        let violation = self.violation().map(|(made, found)| {
            let text = found.broken.to_string();
            let (promise, text) = text.split_once(": ").unwrap_or(("", &text));
            json!({
                "what": made.what,
                "promise": promise,
                "text": text,
                "rerun": self.rerun,
                "choices": found.choices,
            })
        });
        json!({
            "schema": 1,
            "held": self.violation().is_none(),
            "interrupted": self.interrupted(),
            "runner": "explore",
            "guests": self.guests,
            "elapsed_ms": millis(self.elapsed),
            "states": self.sum(|report| report.states),
            "steps": self.sum(|report| report.edges),
            "searches": searches.collect::<Vec<_>>(),
            "violation": violation,
            "story": self.violation().map(|(_, found)| &found.steps),
        })
    }
}
