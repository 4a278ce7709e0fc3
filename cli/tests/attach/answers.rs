//! What a manager may answer an attempt, over real HTTP: which are tried again, when, and which end it.

use std::time::Duration;

use crate::environment::{assert_silent, start};
use crate::stand_in::{Answer, StandIn};
use crate::support::{PATIENCE, World};
use crate::worlds::end_terminals;

/// What the agent says of an attempt that failed.
struct Failed<'a> {
    code: &'a str,
    /// The wait is at least this.
    floor_ms: u64,
}

/// Plays the answers; each but the last fails and is tried again after its wait.
fn plays(script: &[Answer], failures: &[Failed<'_>]) {
    let world = World::new();
    let manager = StandIn::new(script);
    let agent = start(&world, &manager.url());
    for (index, failed) in failures.iter().enumerate() {
        let attempt = index + 1;
        let line = agent.err.after(0, &format!("attempt={attempt} code="), PATIENCE);
        assert!(line.contains(&format!("code={} ", failed.code)), "{line}");
        let wait: u64 = line.rsplit_once("retry_ms=").unwrap().1.parse().unwrap();
        let backoff = 250 << index;
        let least = backoff.max(failed.floor_ms);
        assert!((least..=least.max(backoff * 3 / 2)).contains(&wait), "after attempt {attempt}: {line}");
    }
    let success = agent.err.after(0, "auto-attached via environment", PATIENCE);
    assert!(success.ends_with(&format!("attempt={}", failures.len() + 1)), "{success}");
    let attempts = manager.requests("/attach-by-code");
    assert_eq!(attempts.len(), failures.len() + 1);
    for (index, pair) in attempts.windows(2).enumerate() {
        let gap = pair[1].at - pair[0].at;
        let least = Duration::from_millis((250 << index).max(failures[index].floor_ms));
        assert!(gap >= least, "attempt {} came after {gap:?}", index + 2);
    }
    manager.asked("/actions/poll", 1);
    assert!(manager.requests("/actions/poll")[0].at >= attempts.last().unwrap().at);
    assert_silent(&world, &agent);
    agent.kill();
    end_terminals(&world);
}

#[test]
fn what_may_pass_is_tried_again_with_growing_waits_until_it_succeeds() {
    let busy = Answer::Status(429, "Retry-After: 2\r\n", "{\"error\":\"too_many_requests\"}");
    plays(
        &[Answer::Reset, Answer::Status(500, "", "hush"), busy, Answer::Status(408, "", ""), Answer::Ok],
        &[
            Failed { code: "unreachable", floor_ms: 0 },
            Failed { code: "http_500", floor_ms: 0 },
            Failed { code: "http_429", floor_ms: 2000 },
            Failed { code: "http_408", floor_ms: 0 },
        ],
    );
}

#[test]
fn answers_that_are_none_are_tried_again() {
    plays(
        &[
            Answer::EarlyClose,
            Answer::Huge,
            Answer::Status(200, "", "{\"ok\":tru"),
            Answer::Status(200, "", "{\"ok\":false}"),
            Answer::Ok,
        ],
        &[
            Failed { code: "unreachable", floor_ms: 0 },
            Failed { code: "bad_answer", floor_ms: 0 },
            Failed { code: "bad_answer", floor_ms: 0 },
            Failed { code: "bad_answer", floor_ms: 0 },
        ],
    );
}

#[test]
fn a_manager_that_hangs_is_given_up_after_ten_seconds_and_tried_again() {
    plays(&[Answer::Hang, Answer::Ok], &[Failed { code: "timed_out", floor_ms: 0 }]);
}

#[test]
fn five_attempts_are_all() {
    let world = World::new();
    let manager = StandIn::new(&[Answer::Status(503, "", "")]);
    let agent = start(&world, &manager.url());
    let last = agent.err.after(0, "attempt=5 code=http_503", PATIENCE);
    assert!(last.ends_with("retry_ms=-"), "{last}");
    assert_eq!(manager.count(), 5);
    let socket = world.path("web-1.sock");
    let shown = world.castra(&["attachments", "--socket", socket.to_str().unwrap()]);
    assert!(shown.code == 0 && shown.out.contains("http_503"), "{shown:?}");
    agent.kill();
    end_terminals(&world);
}

#[test]
fn a_verdict_ends_it_at_once_and_says_why() {
    for status in [400, 401, 403, 404, 409, 302] {
        let world = World::new();
        let headers = if status == 302 { "Location: http://127.0.0.1:1/\r\n" } else { "" };
        let manager =
            StandIn::new(&[Answer::Status(status, headers, "{\"error\":\"hush\",\"message\":\"hush\"}")]);
        let agent = start(&world, &manager.url());
        let line = agent.err.after(0, &format!("attempt=1 code=http_{status}"), PATIENCE);
        assert!(line.ends_with("retry_ms=-") && !line.contains("hush"), "{line}");
        assert_eq!(manager.count(), 1, "{status}");
        assert_silent(&world, &agent);
        agent.kill();
        end_terminals(&world);
    }
}
