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
