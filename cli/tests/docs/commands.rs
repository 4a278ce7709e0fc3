//! Every command line of castra in the documents is one that the program takes.

use std::collections::BTreeMap;

use crate::common::Scratch;
use crate::markdown::{Page, pages};
use crate::shell;

/// What stands before a command without being it.
const BEFORE: [&str; 8] = ["sudo", "exec", "then", "do", "!", "else", "nohup", "time"];

#[test]
fn every_command_line_in_the_documents_is_taken_by_the_program() {
    let mut found: BTreeMap<Vec<String>, String> = BTreeMap::new();
    for page in &pages() {
        for (line, args) in of(page) {
            found.entry(args).or_insert_with(|| format!("{}:{line}", page.name));
        }
    }
    assert!(found.len() > 150, "only {} are found", found.len());
    let scratch = Scratch::new();
    let mut wrong = Vec::new();
    for (args, place) in &found {
        if let Err(why) = taken(&scratch, args) {
            wrong.push(format!("{place}: castra {}: {why}", args.join(" ")));
        }
    }
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
    println!("{} command lines", found.len());
}

#[test]
fn a_wrong_command_a_wrong_option_and_a_wrong_value_are_found() {
    let scratch = Scratch::new();
    for args in
        ["stauts", "status --josn", "wait devbox --for offline", "ping devbox --count many", "peer lnik a b"]
    {
        let args: Vec<String> = args.split(' ').map(str::to_owned).collect();
        assert!(taken(&scratch, &args).is_err(), "{args:?}");
    }
}

/// `--help` behind everything is only answered if all before it makes sense. It does not
/// notice what is missing.
fn taken(scratch: &Scratch, args: &[String]) -> Result<(), String> {
    let args = if args.first().is_some_and(|first| first == "help") { &args[1..] } else { args };
    // What stands behind is another program's.
    let program = args.iter().position(|arg| arg == "--" || arg == "--exec").unwrap_or(args.len());
    let mut asked: Vec<&str> = args[..program].iter().map(String::as_str).collect();
    if asked != ["--version"] {
        asked.push("--help");
    }
    let ran = scratch.run(&asked);
    // A text may name an option without its value.
    let known = ran.stderr.contains(&format!("a value is required for '{} <", args.last().unwrap()));
    let answered = known || ran.code == Some(0) && !ran.stdout.is_empty();
    answered.then_some(()).ok_or_else(|| ran.stderr.lines().next().unwrap_or("nothing is said").to_owned())
}

/// The arguments of each call in a page's code, and where.
fn of(page: &Page) -> Vec<(usize, Vec<String>)> {
    let mut calls = Vec::new();
    for block in page.blocks() {
        let text = match block.language.as_str() {
            "console" | "" if block.text.lines().any(|line| shell::prompted(line).is_some()) => {
                let steps = shell::session(&block.text).into_iter();
                steps.map(|(command, _)| command + "\n").collect()
            }
            "sh" | "bash" => block.text,
            "" if page.text.lines().nth(block.line - 1).is_some_and(|line| line.starts_with("    ")) => {
                block.text
            }
            _ => continue,
        };
        calls.extend(called(&text).into_iter().map(|args| (block.line, args)));
    }
    for (line, span) in page.spans() {
        if span.starts_with("castra ") {
            // An alternative's bar is not a pipe.
            let text = span.replace(" | ", "\n").replace('|', "\u{1}");
            let all = called(&text).into_iter().flat_map(|args| alternatives(&args));
            calls.extend(all.map(|args| (line, args)));
        }
    }
    calls
}

fn called(text: &str) -> Vec<Vec<String>> {
    let mut calls = Vec::new();
    for words in shell::commands(text) {
        let own = words.iter().position(|word| !BEFORE.contains(&word.as_str()) && !assigns(word));
        let Some(own) = own.filter(|own| words[*own] == "castra") else { continue };
        let kept = words[own + 1..].iter().filter(|word| !word.contains('…') && !word.contains("..."));
        calls.push(kept.map(|word| filled(word)).collect());
    }
    calls
}

fn assigns(word: &str) -> bool {
    word.split_once('=')
        .is_some_and(|(name, _)| !name.is_empty() && name.chars().all(|c| c.is_ascii_uppercase() || c == '_'))
}

/// `a|b` is `a`, and `b`.
fn alternatives(args: &[String]) -> Vec<Vec<String>> {
    let Some(at) = args.iter().position(|arg| arg.contains('\u{1}')) else { return vec![args.to_vec()] };
    let choices: Vec<String> = args[at].split('\u{1}').map(str::to_owned).collect();
    let with = |choice: String| {
        let mut args = args.to_vec();
        args[at] = choice;
        alternatives(&args)
    };
    choices.into_iter().flat_map(with).collect()
}

/// A word with something in place of what stands for something.
fn filled(word: &str) -> String {
    let word = word.trim_matches(['[', ']']);
    let value = match word {
        "N" | "S" | "PID" | "PORT" | "SEED" => "1",
        "ADDR" | "IP:PORT" => "127.0.0.1:7070",
        "TIME" => "5s",
        "SIZE" => "8MiB",
        "CURSOR" => "7-1042",
        "ADDRESS" => "tcp:127.0.0.1:7070",
        "GUEST/NAME" => "devbox/build",
        "CODE" | "WORD" | "SHELL" => "bash",
        other if other.len() > 1 && other.chars().all(|c| c.is_ascii_uppercase() || c == '_') => "devbox",
        other => other,
    };
    value.replace("HOST:PORT", "127.0.0.1:7070").replace("ADDRESS", "127.0.0.1").replace("CID:PORT", "2:7070")
}
