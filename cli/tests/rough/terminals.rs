//! A terminal's output, followed from the host over a link that comes and goes.

use std::time::Instant;

use crate::site::{Site, end_terminals, seeds};
use crate::support::{PATIENCE, Process, Ran};

const LINES: usize = 6000;

/// Says its lines over some six seconds, and then waits to be ended.
const PROGRAM: &str = "i=0; while [ $i -lt 6000 ]; do echo \"line $i of a program that goes on and on\"; \
                       i=$((i + 1)); [ $((i % 100)) -ne 0 ] || sleep 0.1; done";

#[test]
fn a_follower_of_a_terminal_misses_no_byte_and_doubles_none_however_often_the_link_is_lost() {
    for seed in seeds("terminals") {
        play(seed);
    }
}

fn play(seed: u64) {
    let site = Site::new(&["web-1"], &["--window", "1500ms", "--interval", "500ms"], seed);
    let token = site.world.json(&["token", "issue", "web-1", "--json"])["token"].as_str().unwrap().to_owned();
    let token = site.world.secret("token", &token);
    let args = ["--token-file", &token, "--exec", "/bin/sh", "-c", PROGRAM];
    let agent = site.world.agent("web-1", site.address(0), &args);
    let followers = [(); 2].map(|()| site.world.spawn(&["term", "log", "web-1/main", "-f"]));
    let ran = followers.map(|follower| followed(&site, follower));
    site.peace(&["web-1"]);
    let expected: String =
        (0..LINES).map(|line| format!("line {line} of a program that goes on and on\r\n")).collect();
    for ran in ran {
        assert_eq!(ran.code, 0, "seed {seed}: {}", ran.err);
        assert!(!ran.err.contains("missing"), "seed {seed}: {}", ran.err);
        // Lines of a process are kept without their ends.
        let out = ran.out.clone();
        let expected = expected.as_str();
        let wrong = out.bytes().zip(expected.bytes()).position(|(is, has_to_be)| is != has_to_be);
        let around = wrong.map(|at| &out[at.saturating_sub(100)..(at + 100).min(out.len())]);
        assert!(
            wrong.is_none() && out.len() == expected.len(),
            "seed {seed}: {} of {} bytes, differs at {wrong:?}: {around:?}\n{}",
            out.len(),
            expected.len(),
            ran.err
        );
    }
    site.report();
    agent.kill();
    end_terminals(&site.world);
}

/// Waits for the follower's end. Before its first answer nothing is lost yet: it may be asked again.
fn followed(site: &Site, mut follower: Process) -> Ran {
    let end = Instant::now() + 3 * PATIENCE;
    loop {
        let ran = follower.finish(3 * PATIENCE);
        if ran.code == 0 || !ran.out.is_empty() {
            return ran;
        }
        assert!(Instant::now() < end, "{ran:?}");
        follower = site.world.spawn(&["term", "log", "web-1/main", "-f"]);
    }
}
