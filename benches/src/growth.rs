//! How the engine's cost grows with the number of guests: memory, and the time
//! of whatever happens to one guest beside many, on a virtual clock.

use std::fmt::Write;
use std::hint::black_box;
use std::time::{Duration, Instant};

use castra_core::config::BrokerConfig;
use castra_core::entropy::Entropy;
use castra_core::{Broker, Restored};
use serde_json::{Value, json};

use crate::crowd::{Crowd, Proofs, Script};
use crate::live;

/// What is measured, as people call it; the first one in bytes, the others in nanoseconds.
pub const COSTS: [&str; 6] =
    ["memory of a guest", "keepalive", "handshake", "status row", "idle tick", "event to a follower"];
/// Everything is compared with this number of guests.
pub const BASE: usize = 1000;

const INTERVAL: Duration = Duration::from_secs(5);
const FOLLOWERS: usize = 16;
const HANDSHAKES: usize = 500;
const TICKS: usize = 1000;
/// At least so many keepalives, or rows, are one measurement: it must be longer than the clock's grain.
const LEAST: usize = 10_000;
/// Handshakes after which the ring of events is full.
const FILL: usize = 2100;

/// What a number of guests costs.
#[derive(Clone, Debug)]
pub struct Row {
    /// How many.
    pub guests: usize,
    /// In the order of [`COSTS`].
    pub costs: [f64; COSTS.len()],
}

/// The scripts of one number of guests, how many operations each of them is,
/// and the least time that it took.
struct Scale {
    guests: usize,
    bytes: usize,
    played: Vec<(Script, usize, Duration)>,
    /// Lines that followers get in the last script.
    told: usize,
}

/// Measures all sizes in turn, `rounds` times; keeps the least times. Memory is
/// counted where [`live::Counting`] is the global allocator.
pub fn measure(sizes: &[usize], rounds: u32, mut progress: impl FnMut(&str)) -> Vec<Row> {
    let nobody = bytes_of(Crowd::new(1, Proofs::Unkeyed, INTERVAL), 1);
    let mut scales = Vec::new();
    for &guests in sizes {
        progress(&format!("{guests} guests arrive"));
        scales.push(Scale::new(guests));
    }
    for round in 1..=rounds {
        progress(&format!("round {round} of {rounds}"));
        for part in 0..5 {
            for scale in &mut scales {
                scale.play(part);
            }
        }
    }
    scales.iter().map(|scale| scale.row(nobody)).collect()
}

/// What dropping the engine gives back. Its ring of events is full, however many guests there are.
fn bytes_of(mut crowd: Crowd, guests: usize) -> usize {
    shake_hands(&mut crowd, guests, FILL);
    let empty =
        Broker::new(BrokerConfig::default(), Restored::default(), Entropy::seeded([7; 32]), crowd.now());
    let broker = std::mem::replace(&mut crowd.broker, empty);
    let before = live::bytes();
    drop(broker);
    before.saturating_sub(live::bytes())
}

fn shake_hands(crowd: &mut Crowd, number: usize, times: usize) {
    for _ in 0..times {
        crowd.arrive(number);
        crowd.leave(number);
    }
}

impl Scale {
    fn new(guests: usize) -> Self {
        let mut crowd = Crowd::new(guests, Proofs::Unkeyed, INTERVAL);
        let turns = LEAST.div_ceil(guests);
        let span = INTERVAL * u32::try_from(turns).unwrap_or(u32::MAX);
        let (keepalive, answered) =
            crowd.script(|crowd| crowd.advance(INTERVAL), |crowd| crowd.advance(span));
        let shake = |crowd: &mut Crowd| shake_hands(crowd, guests, HANDSHAKES);
        let (handshake, ()) = crowd.script(shake, shake);
        let asks = |crowd: &mut Crowd| (0..turns).map(|_| crowd.status()).sum::<usize>();
        let (status, _) = crowd.script(Crowd::status, asks);
        let (tick, ()) = crowd.script(|_| {}, |crowd| (0..TICKS).for_each(|_| crowd.tick()));
        let mut followed = crowd.clone();
        (0..FOLLOWERS).for_each(|_| followed.follow());
        let (events, ()) = followed.script(shake, shake);
        drop(followed);
        let told = events.clone().play().1 * FOLLOWERS;
        crowd.events();
        let bytes = bytes_of(crowd, guests);
        let played = [
            (keepalive, answered),
            (handshake, HANDSHAKES),
            (status, turns * guests),
            (tick, TICKS),
            (events, HANDSHAKES),
        ];
        let played = played.into_iter().map(|(script, count)| (script, count, Duration::MAX)).collect();
        Self { guests, bytes, played, told }
    }

    fn play(&mut self, part: usize) {
        let (script, _, least) = &mut self.played[part];
        let mut script = script.clone();
        let began = Instant::now();
        black_box(script.play());
        *least = began.elapsed().min(*least);
    }

    fn row(&self, nobody: usize) -> Row {
        let nanos = |part: usize| self.played[part].2.as_nanos() as f64;
        let each = |part: usize| nanos(part) / self.played[part].1.max(1) as f64;
        let followers = (nanos(4) - nanos(1)) / self.told.max(1) as f64;
        let bytes = self.bytes.saturating_sub(nobody) as f64 / self.guests.saturating_sub(1).max(1) as f64;
        Row { guests: self.guests, costs: [bytes, each(0), each(1), each(2), each(3), followers] }
    }
}

impl Row {
    /// How many times what the base costs.
    #[must_use]
    pub fn ratios(&self, base: &Self) -> [f64; COSTS.len()] {
        std::array::from_fn(|cost| self.costs[cost] / base.costs[cost])
    }
}

/// The row that the others are compared with: that of [`BASE`] guests, or the first.
///
/// # Panics
/// There are no rows.
#[must_use]
pub fn base(rows: &[Row]) -> &Row {
    rows.iter().find(|row| row.guests == BASE).unwrap_or(&rows[0])
}

/// As a document.
#[must_use]
pub fn document(rows: &[Row]) -> Value {
    let cost = |row: &Row| -> Value {
        let ratios = row.ratios(base(rows));
        let costs =
            COSTS.iter().zip(row.costs).zip(ratios).enumerate().map(|(index, ((name, cost), ratio))| {
                let unit = if index == 0 { "bytes" } else { "nanoseconds" };
                ((*name).to_owned(), json!({unit: cost, "ratio": ratio}))
            });
        json!({"guests": row.guests, "costs": costs.collect::<serde_json::Map<_, _>>()})
    };
    json!({"base": base(rows).guests, "rows": rows.iter().map(cost).collect::<Vec<_>>()})
}

/// For people.
#[must_use]
pub fn table(rows: &[Row]) -> String {
    let mut text = format!("{:>8}", "guests");
    for (index, name) in COSTS.iter().enumerate() {
        let _ = write!(text, "  {:>24}", format!("{name}, {}", if index == 0 { "B" } else { "ns" }));
    }
    text.push('\n');
    for row in rows {
        let _ = write!(text, "{:>8}", row.guests);
        for (cost, ratio) in row.costs.iter().zip(row.ratios(base(rows))) {
            let _ = write!(text, "  {:>24}", format!("{cost:.1} (x{ratio:.2})"));
        }
        text.push('\n');
    }
    text
}
