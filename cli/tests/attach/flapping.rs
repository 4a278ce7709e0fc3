//! A link that comes and goes: actions move to polling and back, and each is applied once.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex};

use serde_json::{Value, json};

use crate::support::{PATIENCE, until};
use crate::worlds::Site;

/// Actions that wait for their answer at once; the broker takes 64 requests of a client.
const AT_ONCE: usize = 32;

/// How many lines may be sent, and how many are settled.
#[derive(Default)]
struct Progress {
    /// Allowed, and settled.
    counts: Mutex<(usize, usize)>,
    changed: Condvar,
    refused: AtomicUsize,
}

impl Progress {
    fn settle(&self) {
        self.counts.lock().unwrap().1 += 1;
        self.changed.notify_all();
    }

    fn allow(&self, count: usize) {
        self.counts.lock().unwrap().0 = count;
        self.changed.notify_all();
    }

    /// How many may be sent; waits until it is more than `sent` if `wait`.
    fn allowed(&self, sent: usize, wait: bool) -> usize {
        let counts = self.counts.lock().unwrap();
        self.changed.wait_while(counts, |counts| wait && counts.0 <= sent).unwrap().0
    }

    fn settled(&self) -> usize {
        self.counts.lock().unwrap().1
    }

    /// Waits until so many are settled.
    fn reach(&self, count: usize) {
        let counts = self.counts.lock().unwrap();
        let waited = self.changed.wait_timeout_while(counts, 3 * PATIENCE, |counts| counts.1 < count);
        let (counts, late) = waited.unwrap();
        // Whoever sends must not wait for ever for a test that failed.
        assert!(!late.timed_out(), "{counts:?}: not {count} settled");
    }
}

/// Sends the lines 0.. to the program, and what is refused early again, until each was taken
/// and has become what it became. The answers that were not `ok`.
fn send_all(socket: &std::path::Path, count: usize, progress: &Progress) -> Vec<Value> {
    let stream = UnixStream::connect(socket).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let ask = |number: usize| {
        let payload = json!({"bytes": format!("{number}\n")});
        let params = json!({"guest": "web-1", "action_type": "terminal_write", "payload": payload, "timeout_ms": 120_000});
        let request = json!({"id": number, "method": "action_send", "params": params});
        (&stream).write_all(format!("{request}\n").as_bytes()).unwrap();
    };
    let mut replies = BufReader::new(&stream);
    let (mut next, mut open, mut odd) = (0, 0, vec![]);
    while next < count || open > 0 {
        let allowed = progress.allowed(next, open == 0 && next < count);
        while next < allowed && open < AT_ONCE {
            ask(next);
            (next, open) = (next + 1, open + 1);
        }
        let mut line = String::new();
        replies.read_line(&mut line).unwrap();
        let reply: Value = serde_json::from_str(&line).unwrap();
        let code = reply["data"]["code"].as_str();
        if reply["event"] == "error" && matches!(code, Some("guest_offline" | "missing_lease")) {
            // Nothing was queued: neither link nor poll is there for a moment.
            progress.refused.fetch_add(1, Ordering::Relaxed);
            std::thread::sleep(std::time::Duration::from_millis(20));
            ask(usize::try_from(reply["id"].as_u64().unwrap()).unwrap());
            continue;
        }
        open -= 1;
        if reply["data"]["status"] != "ok" {
            odd.push(reply);
        }
        progress.settle();
    }
    odd
}

/// Cuts the link again and again while actions flow, and counts what was typed.
fn flaps(site: &Site, adopt: &[&str], count: usize) {
    let http = !adopt.contains(&"--link");
    let agent = site.agent(&[]);
    site.reachable();
    site.does(adopt);
    agent.err.after(0, "fast path vm=web-1 active=yes", PATIENCE);
    let progress = Arc::new(Progress::default());
    let (shared, socket) = (Arc::clone(&progress), site.world.state().join("control.sock"));
    let sending = std::thread::spawn(move || send_all(&socket, count, &shared));
    let flaps = if count < 5000 { 3 } else { 12 };
    // As many on the link as away from it, and at each change some are on their way.
    let step = count / (2 * flaps);
    let mut mark = agent.err.mark();
    for flap in 0..flaps {
        progress.allow((2 * flap + 1) * step);
        progress.reach((2 * flap + 1) * step - step / 2);
        // What is applied from here on is acknowledged in vain.
        site.link.hold();
        let ahead = || {
            let applied = agent.err.text().matches("action applied").count();
            applied > progress.settled() || progress.settled() >= (2 * flap + 1) * step
        };
        assert!(until(PATIENCE, ahead), "nothing more was applied");
        site.link.cut();
        agent.err.after(mark, "fast path vm=web-1 active=no", PATIENCE);
        progress.allow((2 * flap + 2) * step);
        if http {
            progress.reach((2 * flap + 2) * step - step / 2);
        }
        mark = agent.err.mark();
        // A session of seconds makes the agent's rests between dials longer: up to 10 s.
        site.link.restore();
        agent.err.after(mark, "fast path vm=web-1 active=yes", PATIENCE);
        mark = agent.err.mark();
    }
    progress.allow(count);
    progress.reach(count);
    let odd = sending.join().unwrap();
    assert!(odd.is_empty(), "{} were not applied: {:?}", odd.len(), odd.first());
    // Nothing comes behind it.
    site.types("end");
    assert!(until(PATIENCE, || site.typed_text().ends_with("end\n")), "the last line did not come");
    let said = agent.err.text();
    let applied = |path: &str| said.matches(&format!("action applied vm=web-1 path={path} ")).count();
    let polls = site.http.requests("/actions/poll");
    assert!(applied("link") > 0 && (applied("poll") > 0) == http && (polls > 0) == http);
    let text = site.typed_text();
    let text = text.strip_suffix("end\n").unwrap();
    let mut lines: Vec<usize> = text.lines().map(|line| line.parse().unwrap()).collect();
    assert_eq!(lines.len(), count, "lost or doubled");
    lines.sort_unstable();
    assert!(lines.iter().copied().eq(0..count), "not each once");
    let listed: Value = serde_json::from_str(&site.does(&["action", "list", "--json"])).unwrap();
    assert_eq!(listed["total"], 0);
    eprintln!(
        "{count} actions, {flaps} cuts: {} over the link, {} of {polls} polls, {} refused early",
        applied("link"),
        applied("poll"),
        progress.refused.load(Ordering::Relaxed)
    );
    site.note(&agent);
    site.assert_no_leaks();
    site.kill(agent);
}

/// How many actions the counting tests send.
fn count() -> usize {
    std::env::var("CASTRA_ATTACH_ACTIONS").ok().map_or(600, |count| count.parse().unwrap())
}

#[test]
fn a_link_that_is_cut_and_restored_loses_no_action_and_doubles_none() {
    let site = Site::with_manager(&["--window", "3s", "--interval", "1s"]);
    flaps(&site, &["adopt", "web-1"], count());
}

#[test]
fn without_http_actions_wait_for_the_link_and_none_is_lost_or_doubled() {
    let site = Site::new(&["--window", "3s", "--interval", "1s"]);
    flaps(&site, &["adopt", "web-1", "--link"], count());
}
