//! How much processor time a broker's loop takes in one turn, as it says itself:
//! with `CASTRA_TRACE=castra::turns=debug` it tells each turn of a millisecond
//! and more on its standard error, and whichever is longer than all before.
//!
//! That costs the broker a system call in each turn: nothing for comparisons of cost.

use std::fmt::Write as _;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::time::Duration;

use serde_json::{Value, json};

/// No turn should take so long.
pub const LONG: Duration = Duration::from_millis(1);
/// So many of the long turns are told one by one.
const TOLD: usize = 5;

/// What a broker said of its turns, read as it grows.
#[derive(Debug)]
pub struct Turns {
    file: File,
    read: u64,
    phases: Vec<Phase>,
}

#[derive(Debug)]
struct Phase {
    name: &'static str,
    turns: Vec<Turn>,
}

/// A turn of the loop.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Turn {
    /// Processor time.
    pub spent: Duration,
    /// What the poller told.
    pub edges: u64,
    /// What workers had finished.
    pub done: u64,
    /// Whether it put work off.
    pub more: bool,
}

impl Turns {
    /// Of the broker that writes into this file. Its position is left alone.
    #[must_use]
    pub const fn new(file: File) -> Self {
        Self { file, read: 0, phases: Vec::new() }
    }

    /// Whatever was told since the last call belongs to this phase.
    ///
    /// # Errors
    /// The file can't be read.
    pub fn phase(&mut self, name: &'static str) -> io::Result<()> {
        let length = self.file.metadata()?.len();
        let mut bytes = vec![0; usize::try_from(length - self.read).map_err(io::Error::other)?];
        self.file.read_exact_at(&mut bytes, self.read)?;
        // A line that is being written is for the next time.
        bytes.truncate(bytes.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1));
        self.read += bytes.len() as u64;
        let text = String::from_utf8_lossy(&bytes);
        let turns = text.lines().filter_map(Turn::parse);
        match self.phases.iter_mut().find(|phase| phase.name == name) {
            Some(phase) => phase.turns.extend(turns),
            None => self.phases.push(Phase { name, turns: turns.collect() }),
        }
        Ok(())
    }

    /// Whether it told of no turn at all.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.phases.iter().all(|phase| phase.turns.is_empty())
    }

    /// The longest of each phase and in all, as a document.
    #[must_use]
    pub fn document(&self) -> Value {
        let all = self.phases.iter().flat_map(|phase| &phase.turns);
        let phases: serde_json::Map<_, _> =
            self.phases.iter().map(|phase| (phase.name.to_owned(), summary(phase.turns.iter()))).collect();
        let mut document = summary(all);
        document["phases"] = phases.into();
        document
    }

    /// The same for people.
    #[must_use]
    pub fn table(&self) -> String {
        let document = self.document();
        let mut text = format!(
            "longest turn: {} µs of processor time; turns of 1 ms and more: {}\n",
            document["longest_us"], document["long"]
        );
        for phase in &self.phases {
            let summary = summary(phase.turns.iter());
            let (longest, long) = (&summary["longest_us"], &summary["long"]);
            let _ = writeln!(text, "  {:8} longest told {longest} µs, {long} of 1 ms and more", phase.name);
            let mut long: Vec<_> = phase.turns.iter().filter(|turn| turn.spent >= LONG).collect();
            long.sort_by_key(|turn| std::cmp::Reverse(turn.spent));
            for Turn { spent, edges, done, more } in long.into_iter().take(TOLD) {
                let _ = writeln!(text, "    {spent:?}: {edges} edges, {done} done, more: {more}");
            }
        }
        text
    }
}

fn summary<'a>(turns: impl Iterator<Item = &'a Turn> + Clone) -> Value {
    let longest = turns.clone().map(|turn| turn.spent).max().unwrap_or_default();
    let long = turns.filter(|turn| turn.spent >= LONG).count();
    json!({"longest_us": u64::try_from(longest.as_micros()).unwrap_or(u64::MAX), "long": long})
}

impl Turn {
    /// A line of the broker's, if it tells of a turn.
    #[must_use]
    pub fn parse(line: &str) -> Option<Self> {
        let (_, fields) = line.split_once("castra::turns: ")?;
        let field =
            |name: &str| fields.split(' ').find_map(|field| field.strip_prefix(name)?.strip_prefix('='));
        Some(Self {
            spent: duration(field("spent")?)?,
            edges: field("edges")?.parse().ok()?,
            done: field("done")?.parse().ok()?,
            more: field("more")?.parse().ok()?,
        })
    }
}

/// As `Debug` writes it.
fn duration(text: &str) -> Option<Duration> {
    let digits = text.find(|character: char| !character.is_ascii_digit() && character != '.')?;
    let (number, unit) = text.split_at(digits);
    let factor = match unit {
        "ns" => 1e-9,
        "µs" => 1e-6,
        "ms" => 1e-3,
        "s" => 1.0,
        _ => return None,
    };
    Duration::try_from_secs_f64(number.parse::<f64>().ok()? * factor).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    const LINE: &str = "2026-11-21T16:30:00.000001Z DEBUG castra::turns: spent=1.25ms edges=64 done=1 more=true longest=2.5ms\n";

    #[test]
    fn a_turn_is_read_from_the_brokers_words() {
        let turn = Turn { spent: Duration::from_micros(1250), edges: 64, done: 1, more: true };
        assert_eq!(Turn::parse(LINE.trim_end()), Some(turn));
        let short = LINE.replace("1.25ms", "312.5µs");
        assert_eq!(Turn::parse(short.trim_end()).map(|turn| turn.spent), Some(Duration::from_nanos(312_500)));
        assert_eq!(Turn::parse("something else"), None);
    }

    #[test]
    fn turns_are_counted_in_the_phase_that_they_were_told_in() {
        let mut file = tempfile::tempfile().expect("a file");
        let mut turns = Turns::new(file.try_clone().expect("a descriptor"));
        let (half, rest) = LINE.split_at(60);
        let quick = LINE.replace("1.25ms", "999µs");
        file.write_all(format!("{LINE}{quick}{half}").as_bytes()).expect("room");
        turns.phase("first").expect("a file");
        file.write_all(rest.as_bytes()).expect("room");
        turns.phase("second").expect("a file");
        turns.phase("third").expect("a file");
        assert_eq!(
            turns.document(),
            json!({"longest_us": 1250, "long": 2, "phases": {
                "first": {"longest_us": 1250, "long": 1},
                "second": {"longest_us": 1250, "long": 1},
                "third": {"longest_us": 0, "long": 0},
            }})
        );
    }
}
