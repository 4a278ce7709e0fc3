//! What the documents tell newcomers to type, typed, and what comes compared with what they show.

use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};

use crate::common::{self, Scratch};
use crate::markdown::Page;
use crate::shell;

/// Where the documents' state directory is.
const STATE: &str = "/run/user/1000/castra";

/// The port that the documents use. The tests have one that is free.
const PORT: &str = "7070";

const MARK: &str = "@@ step";

#[test]
fn the_first_five_minutes_go_as_the_page_says() {
    follow("docs/FIRST_FIVE_MINUTES.md");
}

#[test]
fn the_readmes_beginning_goes_as_it_says() {
    follow("README.md");
}

fn follow(name: &str) {
    let page = Page::named(name);
    let sessions = page.blocks().into_iter().filter(|block| block.language == "console");
    let steps: Vec<_> = sessions.flat_map(|block| shell::session(&block.text)).collect();
    assert!(steps.len() > 2, "{name} has no session");
    for attempt in 1.. {
        let visit = Visit::pay(&steps);
        let printed = visit.printed();
        let differs = steps.iter().zip(&printed).find(|((command, expected), printed)| {
            !command.starts_with("cargo ") && normal(expected) != normal(printed)
        });
        let Some(((command, expected), printed)) = differs else { break };
        // The pages tell of a machine that has time for its broker.
        if visit.stalled() && attempt < 4 {
            println!("{name}: the broker stalled; once more");
            continue;
        }
        let (expected, printed) = (expected.join("\n"), printed.join("\n"));
        panic!("{name}: $ {command}\nshould print\n{expected}\nand prints\n{printed}\n--\n{}", visit.output);
    }
}

/// One shell that ran all of the steps.
struct Visit {
    scratch: Scratch,
    output: String,
    process: u32,
}

impl Visit {
    fn pay(steps: &[(String, Vec<String>)]) -> Self {
        let scratch = Scratch::new();
        let mut script = String::from("exec 2>&1\n");
        for (command, _) in steps {
            let command = command.replace(PORT, "$PORT");
            // Everybody has cargo's part behind them.
            let command = if command.starts_with("cargo ") { ":" } else { &command };
            script.push_str(&format!("echo '{MARK}'\n{command}\n"));
            if command.starts_with("castra up") {
                script.push_str("PORT=$(castra info | sed -n 's/^listen: *tcp:127.0.0.1://p')\n");
            }
        }
        scratch.write("work/script", &script);
        let mut bash = scratch.command(&[]);
        let program = Path::new(bash.get_program()).parent().unwrap().to_str().unwrap().to_owned();
        let path = format!("{program}:{}", std::env::var("PATH").unwrap());
        bash = Command::new("bash");
        bash.arg("script").current_dir(scratch.path().join("work")).env_clear().env("PATH", path);
        bash.env("CASTRA_STATE_DIR", scratch.path().join("state")).env("CASTRA_LISTEN", "tcp:127.0.0.1:0");
        bash.env("XDG_STATE_HOME", scratch.path().join("home")).stdin(Stdio::null()).process_group(0);
        bash.env("XDG_RUNTIME_DIR", scratch.path());
        let output = scratch.path().join("output");
        bash.stdout(std::fs::File::create(&output).unwrap());
        let mut child = bash.spawn().unwrap();
        let process = child.id();
        let mut visit = Self { scratch, output: String::new(), process };
        common::ended(&mut child, 2 * common::HANG);
        visit.output = std::fs::read_to_string(&output).unwrap();
        visit
    }

    /// What each step printed.
    fn printed(&self) -> Vec<Vec<String>> {
        let state = self.scratch.path().join("state");
        let output = self.output.replace(state.to_str().unwrap(), STATE);
        let steps = output.split(MARK).skip(1);
        steps.map(|step| step.trim_matches('\n').lines().map(str::to_owned).collect()).collect()
    }

    fn stalled(&self) -> bool {
        let log = std::fs::read_to_string(self.scratch.path().join("state/logs/broker.log"));
        log.is_ok_and(|log| log.contains(" broker stalled ") || log.contains(" clock jumped "))
    }
}

impl Drop for Visit {
    fn drop(&mut self) {
        let state = self.scratch.path().join("state");
        let mut down = self.scratch.command(&["down", "--force", "--state-dir", state.to_str().unwrap()]);
        let _ = down.output();
        // The agent that a page leaves behind.
        let group = format!("-{}", self.process);
        let _ = Command::new("kill").args(["-KILL", "--", &group]).stderr(Stdio::null()).status();
    }
}

/// Lines without what differs between two runs: times, ports, process ids, and how wide
/// columns are. Small whole numbers count something, and stay.
fn normal(lines: &[String]) -> Vec<String> {
    let line = |line: &String| {
        let mut pid = false;
        let mut words = Vec::new();
        for word in line.split_whitespace() {
            let counts =
                word.trim_matches(['(', ')', ',', ':']).parse::<u16>().is_ok_and(|number| number < 1000);
            words.push(if counts && !pid { word.to_owned() } else { without_numbers(word) });
            pid = word.ends_with("pid");
        }
        words.join(" ")
    };
    let mut lines: Vec<String> = lines.iter().map(line).collect();
    while lines.last().is_some_and(String::is_empty) {
        lines.pop();
    }
    lines
}

pub(crate) fn without_numbers(word: &str) -> String {
    let mut plain = String::new();
    for character in word.chars() {
        let number = character.is_ascii_digit() || character == '.' && plain.ends_with('#');
        if !number {
            plain.push(character);
        } else if !plain.ends_with('#') {
            plain.push('#');
        }
    }
    plain.replace("#m#s", "#s").replace("#h#m", "#s")
}

/// The boot script that needs no device, over whatever connects it.
#[test]
fn the_cookbooks_script_proves_its_guest_once() {
    let page = Page::named("docs/COOKBOOK.md");
    let script = page.blocks().into_iter().find(|block| block.text.starts_with("#!/bin/sh\n")).unwrap();
    let steps = [
        "castra up --listen tcp:127.0.0.1:0",
        "exec 3<>/dev/tcp/127.0.0.1/$PORT; sh ../prove.sh <&3 >&3 && echo proven",
        "castra wait devbox --timeout 10s >/dev/null && echo reachable",
    ];
    let mut all: Vec<(String, Vec<String>)> = steps.map(|step| (step.to_owned(), Vec::new())).into();
    all.insert(0, (format!("cat >../prove.sh <<'END'\n{}END", script.text), Vec::new()));
    let visit = Visit::pay(&all);
    let printed = visit.printed();
    assert_eq!(
        (&printed[2], &printed[3]),
        (&vec!["proven".into()], &vec!["reachable".into()]),
        "{}",
        visit.output
    );
}
