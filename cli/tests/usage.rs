//! The command line itself.

#![allow(clippy::unwrap_used)]

mod common;

use common::{Answer, Fake, Scratch, document, guest};

#[test]
fn what_makes_no_sense_exits_2_and_prints_nothing_on_standard_output() {
    let scratch = Scratch::new();
    for args in [
        &[][..],
        &["nonsense"],
        &["status", "no/name"],
        &["status", "--timeout", "5"],
        &["wait"],
        &["wait", "devbox", "--for", "offline"],
        &["ping", "devbox", "-c", "0"],
        &["events", "--since", "yesterday"],
        &["token", "issue", "devbox", "--json", "--out", "x"],
        &["broker", "--window", "14s"],
        &["up", "--window", "14s"],
        &["broker", "--listen", "carrier-pigeon:7"],
        &["broker", "--listen", "tcp:127.0.0.1:0", "--port", "7070"],
        &["broker", "--socket", "/x"],
        &["agent", "--name", "devbox"],
        &["agent", "--name", "devbox", "--connect", "nowhere"],
        &["agent", "--name", "devbox", "--connect", "tcp:127.0.0.1:1", "--capability", "a,b"],
    ] {
        let ran = scratch.run(args);
        assert_eq!((ran.code, ran.stdout.as_str()), (Some(2), ""), "{args:?}: {}", ran.stderr);
        assert!(!ran.stderr.is_empty(), "{args:?} was refused without a word");
    }
    assert_eq!(std::fs::read_dir(scratch.path()).unwrap().count(), 0, "something was touched");
}

#[test]
fn a_short_window_is_refused_with_the_rule() {
    let ran = Scratch::new().run(&["broker", "--window", "14s"]);
    assert!(
        ran.stderr.contains("the window (14000 ms) must hold at least three intervals"),
        "{}",
        ran.stderr
    );
}

#[test]
fn help_is_asked_for_and_so_it_is_a_success() {
    let scratch = Scratch::new();
    for command in [
        "status",
        "top",
        "wait",
        "ping",
        "events",
        "logs",
        "up",
        "down",
        "broker",
        "agent",
        "install-agent",
        "demo",
        "sim",
    ] {
        let ran = scratch.run(&[command, "--help"]);
        assert_eq!(ran.code, Some(0));
        assert!(ran.stdout.contains("Usage: castra"), "{command}");
    }
    assert!(scratch.run(&["--version"]).stdout.starts_with("castra "));
}

#[test]
fn an_agents_token_is_never_told_even_when_it_is_wrong() {
    let scratch = Scratch::new();
    let secret = "not-a-token-but-secret-all-the-same";
    let mut command =
        scratch.command(&["agent", "--name", "devbox", "--connect", "tcp:127.0.0.1:1", "--once"]);
    let ran = common::run(command.env("CASTRA_TOKEN", secret));
    assert_eq!(ran.code, Some(2));
    assert!(ran.stderr.contains("CASTRA_TOKEN") && !ran.stderr.contains(secret), "{}", ran.stderr);
}

/// As bash does when Tab is pressed behind `castra wait --for waiting `.
const TAB: &str = r#"
PATH=${CASTRA%/*}:$PATH
eval "$(castra completion bash)"
COMP_WORDS=(castra wait --for waiting "")
COMP_CWORD=4 COMP_TYPE=9
_clap_complete_castra castra "" waiting
IFS=$'\n'
echo "${COMPREPLY[*]}"
"#;

#[test]
fn a_shell_completes_the_names_of_guests_as_the_broker_knows_them() {
    let scratch = Scratch::new();
    let rows = [guest("devbox", "reachable", None), guest("builder", "waiting", Some("stale"))];
    let _fake = Fake::serve(&scratch, move |_| Answer::Data("status", document("serving", &rows)));
    let mut command = std::process::Command::new("bash");
    command.args(["-c", TAB]).env("CASTRA", env!("CARGO_BIN_EXE_castra"));
    let ran = common::run(command.env("CASTRA_STATE_DIR", scratch.path()));
    let words: Vec<&str> = ran.stdout.lines().collect();
    assert!(words.contains(&"devbox") && words.contains(&"builder"), "{words:?} {}", ran.stderr);
}

#[test]
fn every_shell_has_a_script_and_every_command_a_page() {
    let scratch = Scratch::new();
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let ran = scratch.run(&["completion", shell]);
        assert!(ran.code == Some(0) && ran.stdout.contains("CASTRA_COMPLETE"), "{shell}: {}", ran.stdout);
    }
    let page = scratch.run(&["man", "peer", "link"]);
    assert!(page.stdout.contains(".TH castra-peer-link 1"), "{}", page.stdout);
    let none = scratch.run(&["man", "pear"]);
    assert_eq!(none.code, Some(2), "{}", none.stderr);
    let all = scratch.path().join("man");
    let ran = scratch.run(&["man", "--out", all.to_str().unwrap()]);
    assert_eq!(ran.stdout.lines().count(), std::fs::read_dir(&all).unwrap().count());
    assert!(all.join("castra-status.1").exists(), "{}", ran.stdout);
}

/// What `cargo install --path cli` installs; `.ci/release` does it for real.
#[test]
fn two_programs_are_installed_and_the_second_runs_the_first() {
    let mut command = std::process::Command::new(std::env::var_os("CARGO").unwrap_or("cargo".into()));
    command.args(["metadata", "--no-deps", "--offline", "--locked", "--format-version", "1"]);
    let ran =
        common::run(command.args(["--manifest-path", concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml")]));
    let metadata: serde_json::Value =
        serde_json::from_str(&ran.stdout).unwrap_or_else(|_| panic!("{}", ran.stderr));
    let packages = metadata["packages"].as_array().unwrap();
    let castra = packages.iter().find(|package| package["name"] == "castra").unwrap();
    let targets = castra["targets"].as_array().unwrap().iter();
    let programs: Vec<_> =
        targets.filter(|target| target["kind"][0] == "bin").map(|bin| &bin["name"]).collect();
    assert_eq!(programs, ["castra", "castra-ptyd"]);

    let ran = common::run(std::process::Command::new(env!("CARGO_BIN_EXE_castra-ptyd")).arg("argument"));
    assert_eq!((ran.code, ran.stdout.as_str()), (Some(2), ""), "{}", ran.stderr);
    assert!(ran.stderr.contains("castra-ptyd takes no arguments, and got argument"), "{}", ran.stderr);
}

#[test]
fn a_configuration_file_that_nobody_wrote_is_no_mistake_and_one_that_was_named_is() {
    let scratch = Scratch::new();
    let ran = scratch.run(&["config", "check"]);
    assert_eq!(ran.code, Some(0), "{}", ran.stderr);
    assert!(ran.stderr.contains("there is no") && ran.stderr.contains("castra.toml"), "{}", ran.stderr);
    assert_eq!(scratch.run(&["config", "check", "/nowhere/castra.toml"]).code, Some(2));
}

#[test]
fn the_version_says_which_formats_are_spoken() {
    let ran = Scratch::new().run(&["version", "--json"]);
    let version: serde_json::Value = serde_json::from_str(&ran.stdout).unwrap();
    assert_eq!(version["version"], env!("CARGO_PKG_VERSION"));
    assert_eq!((&version["control"], &version["status_schema"]), (&1.into(), &1.into()));
    assert_eq!(version["link"][0], "proof-v1");
}
