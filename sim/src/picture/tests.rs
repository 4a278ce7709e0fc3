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
pub(crate) fn example() -> Chronicle {
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
    for second in 1..29 {
        let challenge = arrow(2, 0, second * 1000 + 160, second * 1000 + 180, "challenge");
        // The dead don't receive.
        let arrived = challenge.arrived.filter(|_| second < 26);
        arrows.push(Arrow { arrived, ..challenge });
        if second < 25 {
            arrows.push(arrow(0, 2, second * 1000 + 180, second * 1000 + 200, "proof"));
        }
        arrows.push(arrow(2, 1, second * 1000 + 660, second * 1000 + 680, "challenge"));
        arrows.push(arrow(1, 2, second * 1000 + 680, second * 1000 + 700, "proof"));
    }
    arrows.push(Arrow { delayed: true, ..arrow(0, 2, 25_180, 28_300, "proof") });
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
            mark(0, 25_400, Some(29_400), MarkKind::Stopped, "dead"),
            mark(3, 28_500, None, MarkKind::Start, "castra status"),
            mark(3, 28_520, None, MarkKind::End, "leaves"),
            mark(0, 26_400, Some(29_400), MarkKind::Window, "the window, 3 s: it did not run"),
        ],
        bands: vec![
            band(0, 0, 160, "never_seen"),
            band(0, 160, 28_180, ""),
            band(0, 28_180, 28_300, "stale"),
            band(0, 28_300, 29_400, ""),
            band(1, 0, 660, "never_seen"),
            band(1, 660, 29_400, ""),
        ],
        settings: vec![("window".into(), "3 s".into()), ("interval".into(), "1 s".into())],
        violation: Some(Broken {
            at: ms(29_400),
            column: Some(0),
            promise: "S1".into(),
            text: "guest-0 is called reachable, but it last ran 4.000 s ago and the window is 3 s".into(),
        }),
        end: ms(29_400),
    }
}

/// The picture of the example, to look at and to compare with.
const GOLDEN: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/src/picture/example.html");

#[test]
fn the_example_is_drawn_as_it_was_approved() {
    let drawn = draw(&example(), Some("castra sim --seed 17"));
    if std::env::var_os("CASTRA_APPROVE").is_some() {
        std::fs::write(GOLDEN, &drawn).expect("the golden file is written");
    }
    let approved = std::fs::read_to_string(GOLDEN).expect("the golden file");
    let difference = drawn.lines().zip(approved.lines()).find(|(drawn, approved)| drawn != approved);
    assert_eq!(difference, None, "look at it; then run again with CASTRA_APPROVE=1");
    assert_eq!(drawn.len(), approved.len());
}

#[test]
fn the_violation_is_told_and_shown_in_red() {
    let page = draw(&example(), None);
    assert!(page.contains("<b>S1, at 29.400 s:</b> guest-0 is called reachable"));
    assert!(page.contains("<line class=\"red\"") && page.contains("<path class=\"window\""));
    let held = Chronicle { violation: None, ..example() };
    let page = draw(&held, None);
    assert!(!page.contains("<p class=\"broken\">") && page.contains("every promise held"));
}

#[test]
fn quiet_stretches_are_folded_and_counted() {
    let page = draw(&example(), None);
    assert!(page.contains("more challenges and proofs, all as they should be"));
    let mut quiet = example();
    quiet.arrows.clear();
    quiet.marks.clear();
    quiet.bands = vec![band(0, 0, 600_000, "never_seen")];
    quiet.violation = None;
    quiet.end = ms(600_000);
    assert!(draw(&quiet, None).contains(">600.000 s pass<"));
}

#[test]
fn a_later_moment_is_never_drawn_higher() {
    let example = example();
    let scale = scale::Scale::new(&example, 20.0);
    let heights: Vec<f64> = (0..29_500).step_by(7).map(|at| scale.y(ms(at))).collect();
    assert!(heights.is_sorted());
    assert!(heights[0] >= 20.0 && heights.iter().all(|y| *y <= scale.bottom()));
}

#[test]
fn what_is_not_routine_is_always_drawn() {
    let example = example();
    let drawn = scale::Scale::new(&example, 0.0).arrows;
    for (index, arrow) in example.arrows.iter().enumerate() {
        assert!(arrow.is_routine() || drawn.contains(&index), "{arrow:?}");
    }
    assert!(drawn.len() < example.arrows.len());
}

fn any_text() -> impl Strategy<Value = String> {
    prop_oneof![any::<String>(), "challenge [0-9]", "proof", "</title><script>&\"']]>"]
}

fn any_chronicle() -> impl Strategy<Value = Chronicle> {
    // Columns beyond the last, times beyond the end: the picture must not mind.
    let at = || (0..70_000_u64).prop_map(ms);
    let arrow = (0..6_usize, 0..6_usize, at(), proptest::option::of(at()), any_text(), any::<bool>())
        .prop_map(|(from, to, sent, arrived, label, delayed)| {
            let arrived = arrived.map(|at| at.max(sent));
            Arrow { from, to, sent, arrived, label, delayed }
        });
    let kind = prop_oneof![
        Just(MarkKind::Stopped),
        Just(MarkKind::Cut),
        Just(MarkKind::Fault),
        Just(MarkKind::Window),
        Just(MarkKind::Start),
        Just(MarkKind::End),
        Just(MarkKind::Note),
        Just(MarkKind::Wrong),
    ];
    let mark = (proptest::option::of(0..6_usize), at(), proptest::option::of(at()), kind, any_text())
        .prop_map(|(column, at, until, kind, text)| Mark { column, at, until, kind, text });
    let band = (0..6_usize, at(), at(), any::<bool>(), any_text()).prop_map(
        |(guest, from, until, reachable, reason)| Band {
            guest,
            from: from.min(until),
            until: until.max(from),
            reachable,
            reason,
        },
    );
    let broken = (at(), proptest::option::of(0..6_usize), any_text(), any_text())
        .prop_map(|(at, column, promise, text)| Broken { at, column, promise, text });
    let columns = proptest::collection::vec(
        (any_text(), prop_oneof![Just(Role::Guest), Just(Role::Broker), Just(Role::Client)])
            .prop_map(|(name, role)| Process { name, role }),
        0..5,
    );
    (
        columns,
        proptest::collection::vec(arrow, 0..40),
        proptest::collection::vec(mark, 0..12),
        proptest::collection::vec(band, 0..8),
        proptest::collection::vec((any_text(), any_text()), 0..3),
        proptest::option::of(broken),
        (0..60_000_u64).prop_map(ms),
    )
        .prop_map(|(columns, arrows, marks, bands, settings, violation, end)| Chronicle {
            columns,
            arrows,
            marks,
            bands,
            settings,
            violation,
            end,
        })
}

/// Every number of these attributes.
fn numbers<'a>(page: &'a str, attribute: &'a str) -> impl Iterator<Item = f64> + 'a {
    let after = move |at: usize| &page[at + attribute.len()..];
    page.match_indices(attribute)
        .filter_map(move |(at, _)| after(at).split('"').next().and_then(|number| number.parse().ok()))
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(128) })]

    #[test]
    fn any_run_is_drawn_within_the_canvas_and_well_formed(chronicle in any_chronicle(), rerun in any_text()) {
        let page = draw(&chronicle, Some(&rerun));
        prop_assert_eq!(well_formed(&page), Ok(()));
        prop_assert!(!page.contains("<script"));
        let body = page.rsplit("aria-label=\"Space-time diagram\"").next().unwrap_or_default();
        let head = page.split("aria-label=\"Space-time diagram\"").next().unwrap_or_default();
        let wide = numbers(head, " width=\"").last().unwrap_or_default();
        let high = numbers(head, " height=\"").last().unwrap_or_default();
        for attribute in [" y=\"", " y1=\"", " y2=\"", " cy=\""] {
            for y in numbers(body, attribute) {
                prop_assert!((0.0..=high).contains(&y), "{}{} of {}", attribute, y, high);
            }
        }
        for attribute in [" x1=\"", " x2=\"", " cx=\""] {
            for x in numbers(body, attribute) {
                prop_assert!((0.0..=wide).contains(&x), "{}{} of {}", attribute, x, wide);
            }
        }
        prop_assert_eq!(&page, &draw(&chronicle, Some(&rerun)), "not the same twice");
    }
}
