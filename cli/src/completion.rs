//! `castra completion`, and what a shell asks when Tab is pressed: the names of guests come
//! from the broker, within a bound.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, CommandFactory, ValueEnum};
use clap_complete::CompleteEnv;
use clap_complete::engine::CompletionCandidate;
use clap_complete::env::Shells;

use crate::Context;
use crate::args::Cli;
use crate::exit::{Exit, Failure, Outcome};
use crate::paths::Surroundings;
use crate::status;

/// Set by a shell that asks.
const VARIABLE: &str = "CASTRA_COMPLETE";

/// How long somebody who pressed Tab waits for names.
const BOUND: Duration = Duration::from_millis(500);

/// Most names offered.
const MOST: usize = 1000;

#[derive(Args, Clone, Copy, Debug)]
pub(crate) struct Completion {
    /// Which shell
    #[arg(value_name = "SHELL", value_enum)]
    shell: Shell,
}

/// A shell that can be taught.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
enum Shell {
    Bash,
    Elvish,
    Fish,
    Powershell,
    Zsh,
}

impl Shell {
    const fn name(self) -> &'static str {
        match self {
            Self::Bash => "bash",
            Self::Elvish => "elvish",
            Self::Fish => "fish",
            Self::Powershell => "powershell",
            Self::Zsh => "zsh",
        }
    }
}

/// Answers a shell and ends, if one asks.
pub(crate) fn answer() {
    CompleteEnv::with_factory(Cli::command).var(VARIABLE).bin("castra").complete();
}

/// `castra completion`: what the shell reads at its start.
pub(crate) fn run(cx: &mut Context, args: &Completion) -> Outcome {
    let shells = Shells::builtins();
    let name = args.shell.name();
    let shell = shells
        .completer(name)
        .ok_or_else(|| Failure::new(Exit::Internal, format!("no completion is known for {name}")))?;
    let mut script = Vec::new();
    shell
        .write_registration(VARIABLE, "castra", "castra", "castra", &mut script)
        .map_err(|error| Failure::io("can't write the script", &error))?;
    cx.out.put(&String::from_utf8_lossy(&script))?;
    Ok(Exit::Yes)
}

/// Guests that the broker knows; none if it doesn't say so in time.
pub(crate) fn guests() -> Vec<CompletionCandidate> {
    let words: Vec<OsString> = std::env::args_os().collect();
    let (state_dir, socket) = (option(&words, "--state-dir"), option(&words, "--socket"));
    let Ok(place) = Surroundings::real().place(state_dir.as_deref(), socket.as_deref()) else {
        return Vec::new();
    };
    let Ok(document) = status::ask(&place, &[], BOUND).and_then(|answer| status::document(&answer)) else {
        return Vec::new();
    };
    let rows = document.guests.into_iter().take(MOST);
    rows.map(|row| {
        let state = row.state.as_str();
        CompletionCandidate::new(row.name.as_str()).help(Some(state.into()))
    })
    .collect()
}

/// The value of an option on the line that is being completed: `--name value` or `--name=value`.
fn option(words: &[OsString], name: &str) -> Option<PathBuf> {
    words.iter().enumerate().find_map(|(at, word)| {
        let word = word.to_str()?;
        if word == name {
            return words.get(at + 1).map(PathBuf::from);
        }
        word.strip_prefix(name)?.strip_prefix('=').map(PathBuf::from)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn where_to_ask_is_on_the_line_itself() {
        let words = |line: &str| -> Vec<OsString> { line.split(' ').map(OsString::from).collect() };
        let dir = |line| option(&words(line), "--state-dir").map(|path| path.display().to_string());
        assert_eq!(dir("castra -- castra --state-dir /a status "), Some("/a".into()));
        assert_eq!(dir("castra -- castra status --state-dir=/b "), Some("/b".into()));
        assert_eq!(dir("castra -- castra status --state-dirs=/b"), None);
        assert_eq!(dir("castra -- castra status --state-dir"), None);
    }
}
