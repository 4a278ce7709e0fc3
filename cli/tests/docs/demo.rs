//! The recorded demo, docs/pictures/demo.svg, tells what `castra demo` tells.
//! `CASTRA_APPROVE=1` records it anew.

use std::fmt::Write;

use crate::common::{self, Scratch};
use crate::markdown::root;
use crate::walkthrough::without_numbers;

/// How long each chapter is shown, in seconds.
const SHOWN: usize = 5;

/// Characters in a line.
const WIDTH: usize = 84;

const STYLE: &str = "\
.ground { fill: #15171b; } .bar { fill: #2a2e35; } .dot { fill: #5b616b; }
text { font: 14px ui-monospace, 'DejaVu Sans Mono', Menlo, Consolas, monospace; fill: #e9ebee; white-space: pre; }
.told { fill: #ffffff; font-weight: 600; } .head { fill: #a4abb6; }
.reachable { fill: #56b4e9; } .waiting { fill: #e69f00; } .offline { fill: #cc79a7; }
.chapter { display: none; } .still { display: inline; }
@media (prefers-reduced-motion: no-preference) {
.chapter { display: inline; opacity: 0; animation-iteration-count: infinite; animation-timing-function: step-end;
  animation-name: shown; }
}
";

#[test]
fn the_recorded_demo_tells_what_the_demo_tells() {
    let path = root().join("docs/pictures/demo.svg");
    let mut told = chapters();
    if std::env::var_os("CASTRA_APPROVE").is_some() {
        std::fs::write(&path, picture(&told)).unwrap();
    }
    let recorded = std::fs::read_to_string(&path).unwrap();
    let recorded = texts(&recorded);
    // A machine that has no time for the demo is not what it tells of.
    for _ in 0..3 {
        if recorded == texts(&picture(&told)) {
            return;
        }
        told = chapters();
    }
    assert_eq!(recorded, texts(&picture(&told)), "record it anew: CASTRA_APPROVE=1");
}

/// The demo's chapters: what is told, and the lines below.
fn chapters() -> Vec<Vec<String>> {
    let scratch = Scratch::new();
    let mut demo = scratch.command(&["demo", "--once"]);
    let ran = common::run(demo.env("PATH", std::env::var("PATH").unwrap()));
    let mut chapters: Vec<Vec<String>> = Vec::new();
    for line in ran.stdout.lines().filter(|line| !line.is_empty()) {
        match line.strip_prefix("* ") {
            Some(told) => chapters.push(vec![told.to_owned()]),
            None => chapters.last_mut().unwrap().push(line.trim().to_owned()),
        }
    }
    let end = chapters.pop().unwrap();
    chapters.last_mut().unwrap().extend(["".to_owned(), end[0].clone()]);
    chapters
}

fn picture(chapters: &[Vec<String>]) -> String {
    let (width, height) = (WIDTH * 9 + 40, 250);
    let share = 100.0 / chapters.len() as f64;
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width}\" height=\"{height}\" \
         viewBox=\"0 0 {width} {height}\" role=\"img\" aria-label=\"castra demo, recorded\">\n<style>\n{STYLE}\
         @keyframes shown {{ 0% {{ opacity: 1; }} {share:.3}% {{ opacity: 0; }} 100% {{ opacity: 0; }} }}\n</style>\n\
         <rect class=\"ground\" width=\"{width}\" height=\"{height}\" rx=\"8\"/>\n\
         <rect class=\"bar\" width=\"{width}\" height=\"28\" rx=\"8\"/>\n"
    );
    for x in [18, 38, 58] {
        let _ = writeln!(svg, "<circle class=\"dot\" cx=\"{x}\" cy=\"14\" r=\"5\"/>");
    }
    for (number, chapter) in chapters.iter().enumerate() {
        let still = if number == 2 { " still" } else { "" };
        let (whole, begin) = (SHOWN * chapters.len(), SHOWN * number);
        let _ = writeln!(
            svg,
            "<g class=\"chapter{still}\" style=\"animation-duration: {whole}s; animation-delay: {begin}s\">"
        );
        let mut y = 56;
        for (at, line) in chapter.iter().enumerate() {
            for piece in wrapped(line) {
                let state = ["reachable", "waiting", "offline"]
                    .into_iter()
                    .find(|state| at > 0 && line.split_whitespace().nth(1) == Some(*state));
                let class = match state {
                    Some(state) => state,
                    None if at == 0 => "told",
                    None => "head",
                };
                let piece = piece.replace('&', "&amp;").replace('<', "&lt;");
                let _ = writeln!(
                    svg,
                    "<text class=\"{class}\" x=\"20\" y=\"{y}\" xml:space=\"preserve\">{piece}</text>"
                );
                y += 22;
            }
            if at == 0 {
                y += 8;
            }
        }
        svg.push_str("</g>\n");
    }
    svg + "</svg>\n"
}

/// The line in pieces of at most `WIDTH`, cut between words; tables stay as wide as they are.
fn wrapped(line: &str) -> Vec<String> {
    if line.contains("  ") {
        return vec![line.to_owned()];
    }
    let mut pieces = vec![String::new()];
    for word in line.split(' ') {
        let last = pieces.last_mut().unwrap();
        if last.len() + word.len() >= WIDTH {
            pieces.push(word.to_owned());
        } else {
            if !last.is_empty() {
                last.push(' ');
            }
            last.push_str(word);
        }
    }
    pieces
}

/// What a picture says, without times and ports.
fn texts(svg: &str) -> Vec<String> {
    let lines = svg.lines().filter_map(|line| line.strip_suffix("</text>")?.split_once('>'));
    lines
        .map(|(_, text)| text.split_whitespace().map(without_numbers).collect::<Vec<_>>().join(" "))
        .collect()
}
