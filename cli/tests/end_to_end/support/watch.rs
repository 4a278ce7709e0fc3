//! Dense observation from outside, and how late this machine itself was meanwhile.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use serde_json::Value;

use super::control::{Control, find};
use super::wall_ms;

/// Asks for one guest's row again and again.
pub(crate) struct Watch {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Vec<(i64, Value)>>,
}

impl Watch {
    /// Asks every few milliseconds, until stopped or until the broker is gone.
    pub(crate) fn of(socket: &Path, name: &str) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let (stopped, name) = (Arc::clone(&stop), name.to_owned());
        let mut control = Control::connect(socket).patient(Duration::from_secs(60));
        let thread = std::thread::spawn(move || {
            let mut seen = vec![];
            while !stopped.load(Ordering::Relaxed) {
                let Some(document) = control.status() else { break };
                // The answer was true between the question and now.
                if let Some(row) = find(&document, &name) {
                    seen.push((wall_ms(), row));
                }
                std::thread::sleep(Duration::from_millis(7));
            }
            seen
        });
        Self { stop, thread }
    }

    /// All rows, each with when it was there (wall clock, in milliseconds).
    pub(crate) fn finish(self) -> Vec<(i64, Value)> {
        self.stop.store(true, Ordering::Relaxed);
        let seen = self.thread.join().unwrap();
        for (_, row) in &seen {
            let reachable = row["state"] == "reachable";
            assert_eq!(row["reachable"], reachable, "{row}");
            assert_eq!(row["reason"].is_null(), reachable, "{row}");
            let age = row["last_handshake_age_ms"].as_u64();
            let window = row["window_ms"].as_u64().unwrap();
            assert!(!reachable || age.unwrap() <= window, "reachable with an old proof: {row}");
        }
        seen
    }
}

/// Measures how late a timer of this process fires: what no program on this machine can beat.
pub(crate) struct Yardstick {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Duration>,
}

impl Yardstick {
    pub(crate) fn start() -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = std::thread::spawn(move || {
            const STEP: Duration = Duration::from_millis(5);
            let mut worst = Duration::ZERO;
            while !stopped.load(Ordering::Relaxed) {
                let before = Instant::now();
                std::thread::sleep(STEP);
                worst = worst.max(before.elapsed().saturating_sub(STEP));
            }
            worst
        });
        Self { stop, thread }
    }

    /// The worst delay, in milliseconds.
    pub(crate) fn finish(self) -> u64 {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().unwrap().as_millis() as u64
    }
}
