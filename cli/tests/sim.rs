//! `castra sim`: exit codes, documents, files. What the worlds prove is tested in `sim/`.

#![allow(clippy::unwrap_used)]

mod common;

use std::fs;
use std::io::Read;
use std::process::Stdio;
use std::time::{Duration, Instant};

use common::{HANG, Scratch, ended};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

#[test]
fn worlds_that_keep_their_promises_exit_0_with_a_summary() {
    let ran = Scratch::new().run(&["sim", "--seeds", "20"]);
    assert_eq!(ran.code, Some(0), "{}", ran.stderr);
    assert!(ran.stdout.starts_with("20 worlds, and every promise was kept.\n"), "{}", ran.stdout);
    for line in ["events ", "simulated ", "checks ", "faults ", "reasons ", "refusals ", "deadlines "] {
        assert!(ran.stdout.contains(&format!("\n{line}")), "{line} is missing: {}", ran.stdout);
    }
    assert_eq!(ran.stderr, "", "nobody watches");
}

#[test]
fn the_document_is_the_same_however_many_jobs_there_are() {
    let scratch = Scratch::new();
    let run = |jobs| {
        let ran = scratch.run(&["sim", "--seeds", "12", "--from", "5", "--json", "--jobs", jobs]);
        assert_eq!(ran.code, Some(0), "{}", ran.stderr);
        let mut document = json(&ran.stdout);
        assert!(document["events_per_second_per_core"].as_u64().unwrap() > 0);
        for differs in ["jobs", "elapsed_ms", "events_per_second_per_core"] {
            assert!(document.as_object_mut().unwrap().remove(differs).is_some());
        }
        document
    };
    let one = run("1");
    assert_eq!(one, run("3"));
    assert_eq!((&one["schema"], &one["held"], &one["worlds"]), (&1.into(), &true.into(), &12.into()));
    assert_eq!(
        (&one["first_seed"], &one["violation"], &one["story"]),
        (&5.into(), &Value::Null, &Value::Null)
    );
    assert!(one["faults"].as_object().unwrap().values().all(|count| count.as_u64() > Some(0)));
    assert_eq!(one["digest"].as_str().unwrap().len(), 16);
}

#[test]
fn one_world_is_told_and_drawn() {
    let scratch = Scratch::new();
    let file = scratch.path().join("world.html");
    let ran = scratch.run(&["sim", "--seed", "7", "--story", "--diagram", file.to_str().unwrap()]);
    assert_eq!(ran.code, Some(0), "{}", ran.stderr);
    assert!(ran.stdout.contains("\n   1. "), "{}", ran.stdout);
    assert!(ran.stdout.contains("\nAgain: castra sim --seed 7\n"), "{}", ran.stdout);
    let page = fs::read_to_string(&file).unwrap();
    assert!(page.starts_with("<!DOCTYPE html>") && page.contains("<code>castra sim --seed 7</code>"));
    // Without a name it goes where one stands.
    let mut command = scratch.command(&["sim", "--seed", "7", "--diagram"]);
    assert_eq!(common::run(command.current_dir(scratch.path())).code, Some(0));
    assert_eq!(fs::read_to_string(scratch.path().join("castra-sim-7.html")).unwrap(), page);
}

#[test]
fn the_line_that_plays_a_world_again_says_what_the_world_was_drawn_from() {
    let all = ["--window", "6s", "--guests", "2", "--network", "wan", "--faults", "death,hold"];
    let ran = Scratch::new().run(&[&["sim", "--seed", "3", "--story"][..], &all].concat());
    assert_eq!(ran.code, Some(0), "{}", ran.stderr);
    let line = format!("\nAgain: castra sim --seed 3 {}\n", all.join(" "));
    assert!(ran.stdout.contains(&line), "{}", ran.stdout);
    assert!(ran.stdout.starts_with("window: 6 s\ninterval: 2 s\n"), "{}", ran.stdout);
}

#[test]
fn what_makes_no_sense_exits_2() {
    let scratch = Scratch::new();
    scratch.write("no.case.json", "{\"format\": 1}");
    let no_case = scratch.path().join("no.case.json");
    for (args, words) in [
        (&["--seeds", "3", "--seed", "1"][..], "cannot be used with"),
        (&["--faults", "thirst"], "there are hold, partition"),
        (&["--window", "3s", "--interval", "2s"], "at least three intervals"),
        (&["--guests", "0"], "a number from 1 to 100"),
        (&["--network", "pigeons"], "loopback, lan, wan, lossy, awful"),
        (&["--jobs", "0"], "a number from 1 to 1024"),
        (&["--case", "/nonexistent"], "can't read /nonexistent"),
        (&["--case", no_case.to_str().unwrap()], "this is no case"),
        (&["--json", "measure"], "measure"),
        (&["--promise", "S99"], "there are S1, S2"),
        (&["--full"], "--full belongs to `--runner explore`"),
        (&["--runner", "explore", "--guests", "3"], "1 or 2 guests"),
        (&["--runner", "explore", "--seeds", "3"], "--seeds means nothing to `--runner explore`"),
        (&["--runner", "explore", "--faults", "death"], "--faults means nothing"),
        (&["--runner", "explore", "--diagram"], "--diagram means nothing"),
        #[cfg(not(feature = "turmoil"))]
        (&["--runner", "turmoil"], "`cargo build --release -p castra --features turmoil`"),
        (&["measure", "--interval", "1ms", "--window", "1ms"], "at least three intervals"),
    ] {
        let ran = scratch.run(&[&["sim"][..], args].concat());
        assert_eq!((ran.code, ran.stdout.as_str()), (Some(2), ""), "{args:?}: {}", ran.stderr);
        assert!(ran.stderr.contains(words), "{args:?}: {}", ran.stderr);
    }
}

#[test]
fn settings_are_measured_as_a_table_a_plot_and_a_document() {
    let scratch = Scratch::new();
    let file = scratch.path().join("plot.svg");
    let plot = ["--plot", file.to_str().unwrap()];
    let settings = ["sim", "measure", "--seeds", "3", "--window", "3s", "--guests", "2"];
    let ran = scratch.run(&[&settings[..], &plot].concat());
    assert_eq!(ran.code, Some(0), "{}", ran.stderr);
    assert!(ran.stdout.starts_with("window 3s, interval 1s, network lan: 3 worlds of 2 guests, "));
    for word in ["\n  p50   2.", "\n  max   2.", " a day and guest", "<- the window\n"] {
        assert!(ran.stdout.contains(word), "{word:?}: {}", ran.stdout);
    }
    assert!(fs::read_to_string(&file).unwrap().starts_with("<svg "));
    let document = |jobs| json(&scratch.run(&[&settings[..], &["--json", "--jobs", jobs]].concat()).stdout);
    let one = document("1");
    assert_eq!(one, document("2"));
    assert!(one["detection_us"]["max"].as_u64().unwrap() <= 3_000_000, "{one}");
    assert_eq!((&one["unnoticed"], &one["window_ms"]), (&0.into(), &3000.into()));
}

#[test]
fn every_state_of_a_small_world_is_visited_and_counted() {
    let scratch = Scratch::new();
    let ran = scratch.run(&["sim", "--runner", "explore", "--guests", "2"]);
    assert_eq!(ran.code, Some(0), "{}", ran.stderr);
    assert!(ran.stdout.contains(" states, and every promise was kept in all of them.\n"), "{}", ran.stdout);
    assert!(ran.stdout.contains("not closed: as many states as were asked for"), "{}", ran.stdout);
    assert_eq!(ran.stderr, "", "nobody watches");
    let ran = scratch.run(&["sim", "--runner", "explore", "--json"]);
    assert_eq!(ran.code, Some(0), "{}", ran.stderr);
    let document = json(&ran.stdout);
    assert_eq!(
        (&document["schema"], &document["held"], &document["violation"], &document["story"]),
        (&1.into(), &true.into(), &Value::Null, &Value::Null)
    );
    let searches = document["searches"].as_array().unwrap();
    assert_eq!(searches.iter().filter(|search| search["closed"] == true).count(), 3, "{document}");
    for count in ["states", "steps"] {
        let sum = searches.iter().map(|search| search[count].as_u64().unwrap()).sum::<u64>();
        assert_eq!(document[count].as_u64(), Some(sum));
    }
}

/// Whether the process has a handler for the signal by now.
fn catches(pid: Pid, signal: Signal) -> bool {
    let status = fs::read_to_string(format!("/proc/{}/status", pid.as_raw_nonzero())).unwrap();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigCgt:")).unwrap();
    u64::from_str_radix(mask.trim(), 16).unwrap() >> (signal.as_raw() - 1) & 1 == 1
}

#[test]
fn ctrl_c_ends_it_with_the_summary_so_far() {
    for (args, words) in [
        (&["sim", "--time", "1h"][..], "\nevents "),
        (&["sim", "--runner", "explore", "--full"], "not closed: interrupted"),
    ] {
        let text = interrupted(args);
        assert!(text.starts_with("Interrupted. ") && text.contains(words), "{text}");
    }
}

/// What it prints when it is interrupted.
fn interrupted(args: &[&str]) -> String {
    let scratch = Scratch::new();
    let mut child = scratch.command(args).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let pid = Pid::from_child(&child);
    let began = Instant::now();
    while !catches(pid, Signal::INT) {
        assert!(began.elapsed() < HANG, "it never listened for Ctrl-C");
        std::thread::sleep(Duration::from_millis(5));
    }
    kill_process(pid, Signal::INT).unwrap();
    let mut text = String::new();
    child.stdout.take().unwrap().read_to_string(&mut text).unwrap();
    assert_eq!(ended(&mut child, HANG), Some(130), "{text}");
    text
}

#[cfg(not(feature = "planted"))]
#[test]
fn a_bug_can_be_planted_only_in_a_castra_built_for_that() {
    let ran = Scratch::new().run(&["sim", "--plant", "age_from_receipt"]);
    assert_eq!(ran.code, Some(2));
    assert!(ran.stderr.contains("--features planted"), "{}", ran.stderr);
}

#[cfg(feature = "planted")]
#[test]
fn a_planted_bug_is_found_made_small_told_drawn_and_can_be_played_again() {
    let scratch = Scratch::new();
    let path = |name: &str| scratch.path().join(name).to_str().unwrap().to_owned();
    let (html, saved) = (path("bug.html"), path("bug.case.json"));
    let ran = scratch.run(&[
        "sim",
        "--plant",
        "age_from_receipt",
        "--seeds",
        "300",
        "--diagram",
        &html,
        "--save",
        &saved,
    ]);
    assert_eq!(ran.code, Some(1), "{}", ran.stderr);
    assert!(ran.stdout.contains(" BREAKS A PROMISE"), "{}", ran.stdout);
    assert!(ran.stdout.contains("\nAgain: castra sim --seed "), "{}", ran.stdout);
    assert!(fs::read_to_string(&html).unwrap().contains("<p class=\"broken\">"));
    let case = json(&fs::read_to_string(&saved).unwrap());
    assert!(case["plan"]["faults"].as_array().unwrap().len() <= 4, "{case}");
    let again = scratch.run(&["sim", "--case", &saved, "--plant", "age_from_receipt", "--json"]);
    assert_eq!(again.code, Some(1), "{}", again.stderr);
    let document = json(&again.stdout);
    assert_eq!(document["violation"]["promise"], case["promise"]);
    // As an image, for where pages aren't shown.
    let svg = path("bug.svg");
    let promise = case["promise"].as_str().unwrap();
    let plant = ["--plant", "age_from_receipt", "--promise", promise];
    let ran = scratch.run(&[&["sim", "--case", &saved, "--diagram", &svg][..], &plant].concat());
    assert_eq!(ran.code, Some(1), "{}", ran.stderr);
    let image = fs::read_to_string(&svg).unwrap();
    assert!(image.starts_with("<svg ") && image.contains("<style>") && !image.contains("var("), "{image}");
    // Without the bug the same world is harmless.
    assert_eq!(scratch.run(&["sim", "--case", &saved]).code, Some(0));
    // No such bug.
    let ran = scratch.run(&["sim", "--plant", "gremlin"]);
    assert_eq!(ran.code, Some(2));
    assert!(ran.stderr.contains("age_from_receipt"), "{}", ran.stderr);
}

#[cfg(feature = "planted")]
#[test]
fn the_explorer_tells_the_shortest_way_to_a_planted_bug() {
    let scratch = Scratch::new();
    let args = ["sim", "--runner", "explore", "--plant", "age_from_receipt"];
    let ran = scratch.run(&args);
    assert_eq!(ran.code, Some(1), "{}", ran.stderr);
    assert!(ran.stdout.starts_with("   1. [0 s] "), "{}", ran.stdout);
    let line = format!("\nAgain: castra {}\n", args.join(" "));
    assert!(ran.stdout.contains(&line), "{}", ran.stdout);
    assert!(ran.stdout.contains("S1: ant is called reachable, and last ran 4 s ago\n"), "{}", ran.stdout);
    let ran = scratch.run(&[&args[..], &["--json"]].concat());
    let document = json(&ran.stdout);
    assert_eq!((ran.code, &document["violation"]["promise"]), (Some(1), &"S1".into()));
    let choices = document["violation"]["choices"].as_array().unwrap();
    assert_eq!(document["story"].as_array().unwrap().len(), choices.len());
}
