//! `castra logs`: files alone, no broker.

#![allow(clippy::unwrap_used)]

mod common;

use std::io::Write;

use common::Scratch;

fn line(second: u32, text: &str) -> String {
    format!("2026-01-02T03:04:{second:02}.000Z [host-broker] INFO {text}\n")
}

#[test]
fn the_log_is_shown_with_its_rotated_predecessors_in_order_of_age() {
    let scratch = Scratch::new();
    scratch.write("logs/broker.log.2", &line(1, "a"));
    scratch.write("logs/broker.log.1", &line(2, "b"));
    scratch.write("logs/broker.log", &line(3, "c"));
    let ran = scratch.run(&["logs"]);
    assert_eq!((ran.code, ran.stdout), (Some(0), [line(1, "a"), line(2, "b"), line(3, "c")].concat()));
    assert_eq!(scratch.run(&["logs", "-n", "2"]).stdout, [line(2, "b"), line(3, "c")].concat());
    assert_eq!(scratch.run(&["logs", "-n", "0"]).stdout, "");
    assert_eq!(scratch.run(&["logs", "--since", "1m"]).stdout, "", "all of it is long ago");
}

#[test]
fn only_the_lines_of_the_guests_that_were_asked_for_are_shown() {
    let scratch = Scratch::new();
    let about = [line(1, "hello from vm:devbox session=sess-1-1"), line(2, "token issued vm=builder")];
    scratch.write(
        "logs/broker.log",
        &[&about[0], &about[1], &line(3, "broker stopping")].map(String::as_str).concat(),
    );
    assert_eq!(scratch.run(&["logs", "--guest", "devbox"]).stdout, about[0]);
    assert_eq!(scratch.run(&["logs", "--guest", "devbox", "--guest", "builder"]).stdout, about.concat());
}

#[test]
fn a_forged_line_can_not_command_the_terminal() {
    let scratch = Scratch::new();
    scratch.write("logs/broker.log", &line(1, "\u{1b}]0;owned\u{7}"));
    let shown = scratch.run(&["logs"]).stdout;
    assert!(shown.ends_with("INFO \\u{1b}]0;owned\\u{7}\n"), "{shown:?}");
}

#[test]
fn no_log_is_an_answer_and_not_an_empty_success() {
    let ran = Scratch::new().run(&["logs"]);
    assert_eq!((ran.code, ran.stdout.as_str()), (Some(3), ""));
}

#[test]
fn a_followed_log_is_followed_through_its_birth_and_its_rotation() {
    let scratch = Scratch::new();
    let mut running = scratch.start(&["logs", "-f"]);
    let path = scratch.path().join("logs/broker.log");
    scratch.write("logs/broker.log", &line(1, "born"));
    assert!(running.line().ends_with("born"));
    let mut file = std::fs::File::options().append(true).open(&path).unwrap();
    file.write_all(line(2, "grown").as_bytes()).unwrap();
    assert!(running.line().ends_with("grown"));
    // As the broker rotates: aside, a last line into the old file, then a new one.
    std::fs::rename(&path, scratch.path().join("logs/broker.log.1")).unwrap();
    file.write_all(line(3, "last of the old").as_bytes()).unwrap();
    scratch.write("logs/broker.log", &line(4, "first of the new"));
    assert!(running.line().ends_with("last of the old"));
    assert!(running.line().ends_with("first of the new"));
    running.hang_up();
    assert_eq!(running.finish().0, Some(0));
}

#[test]
fn a_storm_of_refusals_is_one_line_and_grave_lines_stand_out() {
    let scratch = Scratch::new();
    let refused = |second: u32| {
        line(second, &format!("handshake failure vm=web-1 reason=bad-proof remote=127.0.0.1:5{second:03}"))
            .replace("INFO", "WARN")
    };
    let storm: String = (10..50).map(refused).collect();
    scratch
        .write("logs/broker.log", &[line(1, "broker started"), storm, line(59, "broker stopping")].concat());
    let folded = scratch.run(&["logs", "--fold"]).stdout;
    let more = "    ... and 39 more like it, until 2026-01-02T03:04:49.000Z\n";
    assert_eq!(
        folded,
        [line(1, "broker started"), refused(10), more.into(), line(59, "broker stopping")].concat()
    );
    assert_eq!(scratch.run(&["logs", "--level", "warn"]).stdout.lines().count(), 40);
    assert_eq!(scratch.run(&["logs", "--level", "error"]).stdout, "");
    assert_eq!(scratch.run(&["logs", "--until", "1m"]).stdout.lines().count(), 42, "all of it is long ago");
    assert_eq!(scratch.run(&["logs", "--until", "1m", "--follow"]).code, Some(2));
}
