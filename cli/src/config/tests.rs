//! Who wins, and what is said of whom.

use std::ffi::OsString;
use std::fs;
use std::path::Path;
use std::time::Duration;

use super::layers::{LayersError, Source, read};
use crate::args::{Agent, Command};
use crate::broker_args::Settings;

struct Said {
    settings: Settings,
    sources: Vec<(String, String)>,
    given: Vec<String>,
}

fn line(dir: &Path, words: &[&str]) -> Vec<OsString> {
    let mut line: Vec<OsString> = vec!["castra".into()];
    line.extend(words.iter().map(OsString::from));
    line.extend(["--state-dir".into(), dir.into()]);
    line
}

fn try_said(file: &str, variables: &[(&str, &str)], words: &[&str]) -> Result<Said, String> {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("castra.toml"), file).unwrap();
    let env = |name: &str| variables.iter().find(|(key, _)| *key == name).map(|(_, value)| value.into());
    let (cli, layers) = match read(line(dir.path(), words), &env) {
        Ok(read) => read,
        Err(LayersError::Line(error)) => return Err(error.to_string()),
        Err(LayersError::Elsewhere(failure)) => return Err(failure.message),
    };
    let settings = match cli.command {
        Command::Broker(broker) => broker.settings,
        Command::Up(up) => up.settings,
        other => panic!("no broker: {other:?}"),
    };
    let source = |source: &Source| match source {
        Source::File { line, .. } => format!("file:{line}"),
        other => other.to_string(),
    };
    let sources = layers.settings.iter().map(|one| (one.name.clone(), source(&one.source))).collect();
    let given = layers.given.iter().map(|word| word.to_string_lossy().into_owned()).collect();
    Ok(Said { settings, sources, given })
}

fn said(file: &str, variables: &[(&str, &str)], words: &[&str]) -> Said {
    try_said(file, variables, words).unwrap_or_else(|error| panic!("{error}"))
}

impl Said {
    fn source(&self, name: &str) -> &str {
        &self.sources.iter().find(|(one, _)| one == name).unwrap_or_else(|| panic!("no {name}")).1
    }
}

const FILE: &str = "\
[broker]
window = '90s'
interval = '10s'
require-token = true
listen = ['tcp:127.0.0.1:1', 'unix:/x,serial']
max-guests = 7
";

#[test]
fn a_flag_beats_a_variable_beats_the_file_beats_the_default() {
    let said =
        said(FILE, &[("CASTRA_INTERVAL", "20s"), ("CASTRA_WINDOW", "80s")], &["broker", "--window", "70s"]);
    assert_eq!(said.settings.window, Duration::from_secs(70));
    assert_eq!(said.settings.interval, Duration::from_secs(20));
    assert_eq!(said.settings.max_guests, 7);
    assert_eq!(said.settings.handshake_timeout, Duration::from_secs(2));
    let sources =
        ["window", "interval", "max-guests", "handshake-timeout", "listen"].map(|name| said.source(name));
    assert_eq!(sources, ["flag", "CASTRA_INTERVAL", "file:6", "default", "file:5"]);
    assert_eq!(said.given, ["--window", "70s"], "the rest is read again by whoever gets them");
}

#[test]
fn lists_and_switches_are_told_like_everything_else() {
    let from_file = said(FILE, &[], &["up"]);
    assert!(from_file.settings.require_token);
    let listen: Vec<String> = from_file.settings.listen.iter().map(ToString::to_string).collect();
    assert_eq!(listen, ["tcp:127.0.0.1:1", "unix:/x,serial"]);
    let variables =
        [("CASTRA_REQUIRE_TOKEN", "false"), ("CASTRA_GUEST", "a b"), ("CASTRA_TERMINALS", "true")];
    let from_env = said(FILE, &variables, &["broker"]);
    assert!(!from_env.settings.require_token && from_env.settings.hosted.terminals);
    assert_eq!(from_env.settings.guests.len(), 2);
    // A list on the line replaces the file's.
    let from_line = said(FILE, &[], &["broker", "--listen", "tcp:127.0.0.1:9"]);
    assert_eq!(from_line.settings.listen.len(), 1);
    // castra 0.1's form, too.
    let old = said(FILE, &[], &["broker", "--port", "7171"]);
    assert_eq!((old.settings.port, old.settings.listen.len()), (Some(7171), 0));
}

#[test]
fn what_is_given_means_the_same_to_whoever_gets_it() {
    for words in [
        &[][..],
        &["--listen", "tcp:127.0.0.1:0", "--listen", "unix:/x,serial", "--guest", "a", "--guest", "b"],
        &["--window", "90s", "--interval", "1.5s", "--require-token", "--accept-unproven", "--only-known"],
        &["--port", "1", "--pidfile", "/s/p", "--logfile", "/s/l", "--handshake-dir", "/s/h"],
        &["--handshake-timeout", "250ms", "--max-guests", "7"],
        &[
            "--terminals",
            "--terminals-restore",
            "all",
            "--terminals-on-stop",
            "end",
            "--terminals-screen",
            "off",
            "--keep-listeners",
        ],
        &["--queue-messages", "5", "--queue-bytes", "100KiB", "--message-ttl", "1d12h"],
    ] {
        let up = said("", &[], &[&["up"], words].concat());
        let given: Vec<&str> = up.given.iter().map(String::as_str).collect();
        let broker = said("", &[], &[&["broker"], &given[..]].concat());
        assert_eq!(broker.settings, up.settings, "{words:?}");
        assert_eq!(given.len(), words.len(), "{given:?}");
    }
}

#[test]
fn what_makes_no_sense_is_told_with_where_it_stands() {
    let error = |file: &str, variables: &[(&str, &str)]| {
        try_said(file, variables, &["broker"])
            .err()
            .unwrap_or_else(|| panic!("{file} {variables:?} made sense"))
    };
    let text = error("[broker]\n\nwindow = '5'\n", &[]);
    assert!(text.contains("castra.toml:3: invalid value '5' for '--window <TIME>'"), "{text}");
    let text = error("[broker]\nwindows = '5s'\n", &[]);
    assert!(
        text.contains("castra.toml:2: there is no setting `windows`; there are listen, window"),
        "{text}"
    );
    let text = error("[broker]\nrequire-token = 'yes'\n", &[]);
    assert!(text.contains("`require-token` is true or false, not 'yes'"), "{text}");
    let text = error("[broker]\nwindow = ['5s', '6s']\n", &[]);
    assert!(text.contains("`window` is one value, not 2"), "{text}");
    let text = error("", &[("CASTRA_LISTEN", "tcp:127.0.0.1:0 pigeon:7")]);
    assert!(text.contains("CASTRA_LISTEN: invalid value 'pigeon:7'"), "{text}");
    // An option that is written once each time is no setting.
    let text = error("[broker]\nrecord = '/x'\n", &[]);
    assert!(text.contains("there is no setting `record`"), "{text}");
}

#[test]
fn an_agent_hears_its_environment_and_no_file() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("castra.toml"), "[broker]\nnonsense = 1\n").unwrap();
    let env = |name: &str| match name {
        "CASTRA_NAME" => Some("devbox".into()),
        "CASTRA_CONNECT" => Some("tcp:127.0.0.1:7070".into()),
        _ => None,
    };
    let (cli, layers) = read(line(dir.path(), &["agent", "--require-authenticated"]), &env).unwrap();
    let Command::Agent(Agent { name, connect, require_authenticated, .. }) = cli.command else {
        panic!("no agent")
    };
    assert_eq!(name.unwrap().as_str(), "devbox");
    assert_eq!((connect.unwrap().to_string().as_str(), require_authenticated), ("tcp:127.0.0.1:7070", true));
    assert_eq!(layers.given, ["--require-authenticated"]);
    // Without them it is the usual complaint.
    assert!(matches!(read(line(dir.path(), &["agent"]), &|_| None), Err(LayersError::Line(_))));
}
