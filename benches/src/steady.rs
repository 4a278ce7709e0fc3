//! What the machine itself adds: a loop that always does the same, and how much
//! processor time it is charged for. On a virtual machine that includes what its
//! host takes away, so whoever judges a longest turn needs this beside it.

use std::hint::black_box;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};
use serde_json::{Value, json};

use crate::turns::LONG;

/// Rounds of work at once: about a tenth of a millisecond.
const WORK: u32 = 50_000;
/// Between them: the loop takes a few hundredths of one processor.
const REST: Duration = Duration::from_millis(3);

/// A thread that does the same again and again.
#[derive(Debug)]
pub struct Steady {
    over: Arc<AtomicBool>,
    thread: JoinHandle<Vec<Duration>>,
}

impl Steady {
    /// Starts it.
    #[must_use]
    pub fn start() -> Self {
        let over = Arc::new(AtomicBool::new(false));
        let until = Arc::clone(&over);
        let thread = std::thread::spawn(move || {
            let mut took = Vec::new();
            while !until.load(Ordering::Relaxed) {
                let before = thread_time();
                black_box(
                    (0..WORK).fold(1_u64, |state, round| black_box(state ^ u64::from(round)).rotate_left(7)),
                );
                took.push(thread_time().saturating_sub(before));
                std::thread::sleep(REST);
            }
            took
        });
        Self { over, thread }
    }

    /// Ends it: how often it did its work, and in which processor time.
    #[must_use]
    pub fn end(self) -> Value {
        self.over.store(true, Ordering::Relaxed);
        let mut took = self.thread.join().unwrap_or_default();
        took.sort();
        let micros = |time: Option<&Duration>| {
            time.map_or(0, |time| u64::try_from(time.as_micros()).unwrap_or(u64::MAX))
        };
        json!({
            "times": took.len(),
            "median_us": micros(took.get(took.len() / 2)),
            "longest_us": micros(took.last()),
            "long": took.iter().filter(|time| **time >= LONG).count(),
            "total_us": micros(Some(&took.iter().sum())),
        })
    }
}

/// [`Steady::end`]'s document for people.
#[must_use]
pub fn line(steady: &Value) -> String {
    format!(
        "beside it, the same work again and again: {} times, median {} µs, longest {} µs, {} of 1 ms and more\n",
        steady["times"], steady["median_us"], steady["longest_us"], steady["long"]
    )
}

fn thread_time() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(u64::try_from(time.tv_sec).unwrap_or(0), u32::try_from(time.tv_nsec).unwrap_or(0))
}
