use castra_core::time::Time;
use proptest::prelude::*;

use super::check::well_formed;
use super::*;
use crate::chronicle::{Arrow, Band, Broken, Mark, MarkKind, Process, Role};

fn ms(millis: u64) -> Time {
    Time::from_millis(millis)
}

fn process(name: &str, role: Role) -> Process {
    Process { name: name.into(), role }
}

fn arrow(from: usize, to: usize, sent: u64, arrived: u64, label: &str) -> Arrow {
    let label = label.into();
    Arrow { from, to, sent: ms(sent), arrived: Some(ms(arrived)), label, delayed: false }
}

fn mark(column: usize, at: u64, until: Option<u64>, kind: MarkKind, text: &str) -> Mark {
    Mark { column: Some(column), at: ms(at), until: until.map(ms), kind, text: text.into() }
}

fn band(guest: usize, from: u64, until: u64, reason: &str) -> Band {
    Band { guest, from: ms(from), until: ms(until), reachable: reason.is_empty(), reason: reason.into() }
}

/// What would happen if a proof were dated from its receipt.
fn example() -> Chronicle {
    let mut arrows = vec![
        arrow(0, 2, 100, 120, "hello"),
        arrow(2, 0, 120, 140, "challenge 1"),
        arrow(0, 2, 140, 160, "proof 1"),
        arrow(2, 0, 160, 180, "welcome"),
        arrow(1, 2, 600, 620, "hello"),
        arrow(2, 1, 620, 640, "challenge 2"),
        arrow(1, 2, 640, 660, "proof 2"),
        arrow(2, 1, 660, 680, "welcome"),
    ];
    for second in 1..30 {
        arrows.push(arrow(2, 0, second * 1000 + 160, second * 1000 + 180, "challenge"));
        if second < 25 {
            arrows.push(arrow(0, 2, second * 1000 + 180, second * 1000 + 200, "proof"));
        }
        arrows.push(arrow(2, 1, second * 1000 + 660, second * 1000 + 680, "challenge"));
        arrows.push(arrow(1, 2, second * 1000 + 680, second * 1000 + 700, "proof"));
    }
    arrows.push(Arrow { delayed: true, ..arrow(0, 2, 25_180, 28_300, "proof") });
    arrows.push(Arrow { arrived: None, ..arrow(2, 0, 29_500, 0, "goodbye") });
    arrows.push(arrow(3, 2, 28_500, 28_510, "status"));
    arrows.push(arrow(2, 3, 28_510, 28_520, "guest-0 reachable"));
    Chronicle {
        columns: vec![
            process("guest-0", Role::Guest),
            process("guest-1", Role::Guest),
            process("broker", Role::Broker),
            process("client-0", Role::Client),
        ],
        arrows,
        marks: vec![
            mark(2, 0, None, MarkKind::Start, "starts"),
            mark(0, 100, None, MarkKind::Start, "starts"),
            mark(1, 600, None, MarkKind::Start, "starts"),
            mark(0, 25_170, Some(28_290), MarkKind::Cut, "its stream is held"),
            mark(0, 25_400, None, MarkKind::Stopped, "dies"),
            mark(0, 25_400, Some(30_000), MarkKind::Stopped, "dead"),
            mark(3, 28_500, None, MarkKind::Start, "castra status"),
            mark(3, 28_520, None, MarkKind::End, "leaves"),
            mark(0, 26_400, Some(29_400), MarkKind::Window, "the window, 3 s: it did not run"),
        ],
        bands: vec![
            band(0, 0, 160, "never_seen"),
            band(0, 160, 28_180, ""),
            band(0, 28_180, 28_300, "stale"),
            band(0, 28_300, 30_000, ""),
            band(1, 0, 660, "never_seen"),
            band(1, 660, 30_000, ""),
        ],
        settings: vec![("window".into(), "3 s".into()), ("interval".into(), "1 s".into())],
        violation: Some(Broken {
            at: ms(29_400),
            column: Some(0),
            promise: "S1".into(),
            text: "guest-0 is called reachable, but it last ran 4.000 s ago and the window is 3 s".into(),
        }),
        end: ms(30_000),
    }
}

#[test]
fn draw_to_file() {
    std::fs::write("/tmp/wt-pic.html", draw(&example(), Some("castra sim --seed 17"))).unwrap();
}
