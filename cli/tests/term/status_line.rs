//! The status line.

use crate::common::Scratch;
use crate::fake::Fake;
use crate::terminal::Terminal;

#[test]
fn the_last_row_says_who_owns_it_and_the_program_has_the_others() {
    let scratch = Scratch::new();
    let fake = Fake::serve(scratch.path());
    let id = fake.add("build");
    let command = scratch.command(&["term", "attach", "build", "--status-line"]);
    let terminal = Terminal::run(&command, 10, 60);
    fake.until(id, "one row less", |terminal| (terminal.cols, terminal.rows) == (60, 9));
    let last = |screen: &vt100::Screen| screen.rows(0, 60).last().unwrap_or_default();
    terminal.until("the line", |screen| {
        last(screen).contains("build  you own it") && screen.contents().contains("[picture 60x9]")
    });
    let many: String = (0..50).map(|line| format!("line {line}\r\n")).collect();
    fake.output(id, format!("\x1b[2J\x1b[H{many}").as_bytes());
    terminal.until("scrolling above the line", |screen| {
        screen.contents().contains("line 49") && last(screen).contains("you own it")
    });
    fake.own(id, Some("ann@box:7"));
    terminal.until("the news", |screen| last(screen).contains("ann@box:7 owns it, you watch"));
    fake.lose();
    terminal.until("the loss", |screen| last(screen).contains("connection lost"));
    fake.back();
    terminal.until("the return", |screen| !last(screen).contains("connection lost"));
    terminal.resize(12, 60);
    terminal.until("the line in its new place", |screen| last(screen).contains("build"));
    terminal.press("\x1cd");
    assert_eq!(terminal.ends(), 0);
}
