//! `castra sim measure`: what settings are worth.

use std::fmt::Write as _;
use std::sync::Mutex;
use std::sync::atomic::Ordering;
use std::time::Duration;

use castra_sim::measure::{self, Measured, Profile, Setup};
use serde_json::json;

use super::{cores, seeds, times, write};
use crate::Context;
use crate::duration::{age, format, millis};
use crate::exit::{Exit, Failure, Outcome};
use crate::interrupt::interruptible;
use crate::sim_args::SimMeasure;

/// Worlds that are played if nothing is said.
const WORLDS: u64 = 100;

/// The broker's own defaults.
const TIMES: (Duration, Duration) = (Duration::from_secs(15), Duration::from_secs(5));

/// What is shown of the latencies: name and share in thousandths.
const SHARES: [(&str, usize); 4] = [("p50", 500), ("p90", 900), ("p99", 990), ("max", 1000)];

pub(super) fn run(cx: &mut Context, args: &SimMeasure) -> Outcome {
    let (window, interval) = times(&args.world)?.unwrap_or(TIMES);
    let setup = Setup {
        window,
        interval,
        guests: args.world.guests.unwrap_or(5),
        profile: args.world.network.unwrap_or(Profile::Lan),
    };
    let stop = interruptible()?;
    let (worlds, jobs) = (args.seeds.unwrap_or(WORLDS), args.jobs.unwrap_or_else(cores));
    let measured = Mutex::new(Measured::default());
    let done = seeds::run(&(0..worlds), None, jobs, &stop, |seed| match Measured::play(&setup, seed) {
        Ok((one, outcome)) => {
            // A poisoned lock holds what the others measured: sums, and a list that is sorted later.
            measured.lock().unwrap_or_else(std::sync::PoisonError::into_inner).merge(one);
            Ok(outcome)
        }
        Err(failure) => Err(failure),
    });
    if let Some((seed, violation)) = done.failed {
        return Err(Failure::new(Exit::No, format!("world {seed} broke a promise: {violation}")));
    }
    let mut measured = measured.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
    // However the threads finished.
    measured.latencies.sort_unstable();
    let worlds = done.outcome.runs;
    if args.json {
        cx.out.line(&document(&setup, &measured, worlds).to_string())?;
    } else {
        cx.out.put(&text(&setup, &measured, worlds))?;
    }
    if let Some(file) = &args.plot {
        write(file, &measure::svg(&measured, window))?;
    }
    let interrupted = stop.load(Ordering::Relaxed);
    Ok(if interrupted { Exit::Signalled(signal_hook::consts::SIGINT) } else { Exit::Yes })
}

fn text(setup: &Setup, measured: &Measured, worlds: u64) -> String {
    let window = format(setup.window);
    let mut text = String::new();
    let silences = measured.latencies.len();
    // Writing to a string can't fail.
    let _ = writeln!(
        text,
        "window {window}, interval {}, network {}: {worlds} worlds of {} guests, {silences} silent deaths,\n\
         {} of guests' lives\n",
        format(setup.interval),
        setup.profile,
        setup.guests,
        age(millis(measured.healthy))
    );
    let _ = writeln!(text, "How soon a silent death is noticed (promise: within the window, {window})");
    for (name, share) in SHARES {
        let value = measured.latency(share).map_or_else(|| "-".into(), seconds);
        let _ = writeln!(text, "  {name}   {value}");
    }
    if measured.unnoticed > 0 {
        let _ = writeln!(text, "  never noticed: {}", measured.unnoticed);
    }
    let _ = writeln!(
        text,
        "\nHow often a living, connected guest is doubted\n  {} times, {:.2} a day and guest, {:.4} % of its life\n",
        measured.doubts,
        measured.doubts_per_day(),
        measured.doubted_fraction() * 100.0
    );
    for line in measure::text(measured, setup.window) {
        text.push_str(&line);
        text.push('\n');
    }
    text
}

fn seconds(span: Duration) -> String {
    format!("{:.3} s", span.as_secs_f64())
}

fn document(setup: &Setup, measured: &Measured, worlds: u64) -> serde_json::Value {
    let micros = |share| measured.latency(share).map(|span| span.as_micros() as u64);
    json!({
        "schema": 1,
        "window_ms": millis(setup.window),
        "interval_ms": millis(setup.interval),
        "guests": setup.guests,
        "network": setup.profile.as_str(),
        "worlds": worlds,
        "deaths": measured.latencies.len(),
        "unnoticed": measured.unnoticed,
        "detection_us": {"p50": micros(500), "p90": micros(900), "p99": micros(990), "max": micros(1000)},
        "life_ms": millis(measured.healthy),
        "doubts": measured.doubts,
        "doubts_per_guest_day": measured.doubts_per_day(),
        "doubted_fraction": measured.doubted_fraction(),
    })
}
