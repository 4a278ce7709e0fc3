//! `castra terminals serve`, and `castra-ptyd`: the command line as the driver wants it.

use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::time::Duration;

use castra_core::config::Identity;
use castra_core::terminals::{self as core_terminals, RestorePolicy, TerminalsConfig};
use castra_driver::terminals::service::{self, Serving, TerminalsOptions};
use serde_json::json;

use crate::Context;
use crate::broker::keep_memory_private;
use crate::exit::{Exit, Failure, Outcome};
use crate::output::{Out, printable, say};
use crate::paths::Surroundings;
use crate::term_args::{Hosted, OnStop, Restore, Serve, Switch, TerminalSettings};

/// The program's name by which it is a published PTY daemon.
const PTYD: &str = "castra-ptyd";

/// The name of the socket in a state directory.
pub(crate) const SOCKET: &str = "terminals.sock";

/// The published daemon's own bounds.
const MAX_CONNECTIONS: u32 = 128;
const MAX_TERMINALS: u32 = 64;
const SCROLLBACK: u32 = 10_000;
const INPUT_QUEUE: usize = 2_000_000;

/// What a server of terminals is told.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Options {
    /// Where it listens.
    pub(crate) socket: PathBuf,
    /// The file with the token; mode 0600.
    pub(crate) token_file: PathBuf,
    /// The database.
    pub(crate) journal: PathBuf,
    /// What is started anew when its host is gone.
    pub(crate) restore: Restore,
    /// What becomes of terminals on TERM.
    pub(crate) on_stop: OnStop,
    /// Whether screens are kept.
    pub(crate) screen: bool,
    /// Lines of history of each terminal.
    pub(crate) scrollback: u32,
    /// Most connections.
    pub(crate) max_connections: u32,
    /// Most terminals.
    pub(crate) max_terminals: u32,
    /// Most bytes of input that wait for one program.
    pub(crate) input_queue: usize,
    /// Bytes of output kept of each terminal.
    pub(crate) ring: usize,
    /// How long an exited terminal stays listed.
    pub(crate) keep_exited: Duration,
}

/// Whether this program was started as `castra-ptyd`, which has no arguments.
pub(crate) fn is_ptyd(program: Option<&OsStr>) -> bool {
    program.is_some_and(|program| Path::new(program).file_name() == Some(OsStr::new(PTYD)))
}

/// Is the daemon that `castra-ptyd` names: nothing but variables counts.
pub(crate) fn ptyd() -> Outcome {
    let around = Surroundings::real();
    // An argument is a mistake, of which a person should know.
    if let Some(argument) = std::env::args_os().nth(1) {
        return Err(Failure::usage(format!(
            "{PTYD} takes no arguments, and got {}: variables set it up, see `castra help terminals serve`",
            argument.display()
        )));
    }
    let folder = around.path("HOME").map(|home| home.join(".vibest/pty"));
    let socket = match (around.path("RUST_PTY_SOCKET_PATH"), &folder) {
        (Some(socket), _) => socket,
        (None, Some(folder)) => folder.join("socket"),
        (None, None) => {
            return Err(Failure::usage(
                "can't tell where the socket is: neither RUST_PTY_SOCKET_PATH nor HOME is set",
            ));
        }
    };
    let token = folder.filter(|_| around.path("RUST_PTY_SOCKET_PATH").is_none());
    let mut options = options(&TerminalSettings::usual(&around), socket, &around);
    if let (None, Some(folder)) = (around.path("RUST_PTY_TOKEN_PATH"), token) {
        options.token_file = folder.join("token");
    }
    daemon(options, |_| ())
}

/// `castra terminals serve`.
pub(crate) fn run(cx: &mut Context, args: &Serve) -> Outcome {
    let around = Surroundings::real();
    let given = cx.global.socket.clone().or_else(|| around.path("RUST_PTY_SOCKET_PATH"));
    let socket = match given {
        Some(socket) => socket,
        None => around.state_dir(cx.global.state_dir.as_deref())?.join(SOCKET),
    };
    let mut options = options(&args.settings, socket, &around);
    if let Some(file) = &args.token_file {
        options.token_file.clone_from(file);
    }
    if let Some(file) = &args.journal {
        options.journal.clone_from(file);
    }
    let (json, out) = (args.json, &mut cx.out);
    daemon(options, |serving| ready(out, serving, json))
}

/// Runs the server until it is told to stop.
fn daemon(options: Options, on_ready: impl FnOnce(&Serving)) -> Outcome {
    let supervisor = crate::run::supervisor(false)?;
    keep_memory_private();
    service::run(options.of_driver(), &supervisor, on_ready)?;
    Ok(Exit::Yes)
}

impl Options {
    fn of_driver(self) -> TerminalsOptions {
        let count = |number: u32| usize::try_from(number).unwrap_or(usize::MAX);
        let config = TerminalsConfig {
            screen: self.screen,
            ring: self.ring,
            sessions_max: count(self.max_terminals),
            connections_max: count(self.max_connections),
            input_max: self.input_queue,
            exited_kept: self.keep_exited,
            restore: match self.restore {
                Restore::Shells => RestorePolicy::Shells,
                Restore::All => RestorePolicy::All,
                Restore::None => RestorePolicy::None,
            },
            on_stop: match self.on_stop {
                OnStop::Keep => core_terminals::OnStop::Keep,
                OnStop::End => core_terminals::OnStop::End,
            },
            // The driver fills in the rest.
            identity: Identity { version: env!("CARGO_PKG_VERSION").into(), ..Identity::default() },
            #[cfg(feature = "planted")]
            planted: crate::planted::bug(),
            ..TerminalsConfig::default()
        };
        TerminalsOptions {
            config,
            pidfile: Some(beside(&self.socket, "pid")),
            log: Some(beside(&self.socket, "log")),
            echo: true,
            history: self.screen.then(|| count(self.scrollback)),
            holder: holder(),
            socket: self.socket,
            token_file: self.token_file,
            journal: Some(self.journal),
        }
    }
}

/// This program as a holder of terminals, also when its file was replaced since.
pub(crate) fn holder() -> Vec<OsString> {
    vec!["/proc/self/exe".into(), "terminals-holder".into()]
}

/// A server in the process of a broker or an agent, if one is asked for. `log`: in
/// place of one beside the socket.
pub(crate) fn beside_it(given: Hosted, socket: PathBuf, log: Option<PathBuf>) -> Option<TerminalsOptions> {
    let options = hosted(given, socket, &Surroundings::real())?;
    let journal = beside(&options.socket, "redb");
    let options = Options { journal, ..options }.of_driver();
    Some(TerminalsOptions { log: log.or(options.log), pidfile: None, echo: false, ..options })
}

/// Its options. The variables of a published daemon mean a daemon, and not this.
fn hosted(hosted: Hosted, socket: PathBuf, around: &Surroundings<'_>) -> Option<Options> {
    let Hosted { terminals, terminals_restore, terminals_on_stop, terminals_screen } = hosted;
    let usual = TerminalSettings::usual(around);
    let settings = TerminalSettings {
        restore: terminals_restore.unwrap_or(usual.restore),
        on_stop: terminals_on_stop.unwrap_or(usual.on_stop),
        screen: terminals_screen.unwrap_or(usual.screen),
        ..usual
    };
    let none = Surroundings { env: &|_| None, root: around.root };
    terminals.then(|| options(&settings, socket, &none))
}

/// Options for a socket, from what was said, the variables, and the usual.
pub(crate) fn options(settings: &TerminalSettings, socket: PathBuf, around: &Surroundings<'_>) -> Options {
    let TerminalSettings {
        restore,
        on_stop,
        screen,
        scrollback,
        max_terminals,
        max_connections,
        input_queue,
        ring,
        keep_exited,
    } = *settings;
    let number = |name| variable(around, name);
    let input = number("RUST_PTY_INPUT_QUEUE_MAX_BYTES").or_else(|| number("RUST_PTY_FLOW_MAX_QUEUE_SIZE"));
    let count = |name, usual| number(name).filter(|number| *number > 0).unwrap_or(usual);
    Options {
        token_file: around.path("RUST_PTY_TOKEN_PATH").unwrap_or_else(|| beside(&socket, "token")),
        journal: around
            .path("RUST_PTY_JOURNAL_PATH")
            .unwrap_or_else(|| socket.parent().unwrap_or(Path::new("")).join("terminals.redb")),
        socket,
        restore,
        on_stop,
        screen: screen == Switch::On,
        scrollback: scrollback.or_else(|| number("RUST_PTY_SCROLLBACK_LINES")).unwrap_or(SCROLLBACK),
        max_connections: max_connections
            .unwrap_or_else(|| count("RUST_PTY_MAX_CONNECTIONS", MAX_CONNECTIONS)),
        max_terminals: max_terminals.unwrap_or_else(|| count("RUST_PTY_MAX_SESSIONS", MAX_TERMINALS)),
        input_queue: input_queue
            .or_else(|| input.and_then(|bytes| usize::try_from(bytes).ok()).filter(|bytes| *bytes > 0))
            .unwrap_or(INPUT_QUEUE),
        ring,
        keep_exited,
    }
}

/// A number, or nothing and a word about it.
fn variable(around: &Surroundings<'_>, name: &str) -> Option<u32> {
    let text: OsString = (around.env)(name).filter(|value| !value.is_empty())?;
    let number = text.to_str().and_then(|text| text.trim().parse().ok());
    if number.is_none() {
        say(format_args!("warning: {name} is no number, and doesn't count: {}", text.display()));
    }
    number
}

/// `x.sock` → `x.token`, any other `x` → `x.token`.
pub(crate) fn beside(socket: &Path, extension: &str) -> PathBuf {
    let mut name = match socket.extension() {
        Some(end) if end == "sock" => socket.with_extension("").into_os_string(),
        _ => socket.as_os_str().to_owned(),
    };
    name.push(".");
    name.push(extension);
    PathBuf::from(name)
}

impl TerminalSettings {
    /// As if nothing had been said.
    fn usual(around: &Surroundings<'_>) -> Self {
        let end = (around.env)("CASTRA_TERMINALS_ON_STOP").is_some_and(|word| word == "end");
        Self {
            restore: Restore::Shells,
            on_stop: if end { OnStop::End } else { OnStop::Keep },
            screen: Switch::On,
            scrollback: None,
            max_terminals: None,
            max_connections: None,
            input_queue: None,
            ring: 1 << 20,
            keep_exited: Duration::from_secs(600),
        }
    }
}

/// Says where it serves: the first line of standard output.
fn ready(out: &mut Out, serving: &Serving, json: bool) {
    let Serving { socket, token_file, pid, warnings, .. } = serving;
    let text = if json {
        json!({"ready": true, "socket": socket.display().to_string(),
            "token_file": token_file.display().to_string(), "pid": pid})
        .to_string()
    } else {
        printable(&format!(
            "serving terminals on {} (token in {}, pid {pid})",
            socket.display(),
            token_file.display()
        ))
    };
    // It serves whether or not somebody reads this.
    let _ = out.line(&text);
    for warning in warnings {
        say(format_args!("warning: {warning}"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    use crate::args::{Cli, Command};
    use crate::term_args::Terminals;

    fn parse(args: &[&str]) -> TerminalSettings {
        let line = ["castra", "terminals", "serve"].iter().chain(args);
        match Cli::try_parse_from(line).unwrap().command {
            Command::Terminals(Terminals::Serve(serve)) => serve.settings,
            other => panic!("{other:?}"),
        }
    }

    fn with(vars: &[(&str, &str)], args: &[&str]) -> Options {
        let env = |name: &str| vars.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).into());
        let around = Surroundings { env: &env, root: false };
        options(&parse(args), "/s/terminals.sock".into(), &around)
    }

    #[test]
    fn the_programs_name_alone_says_that_it_is_the_daemon() {
        for (program, is) in [
            ("castra-ptyd", true),
            ("/opt/castra-ptyd", true),
            ("./castra-ptyd", true),
            ("castra", false),
            ("/castra-ptyd/castra", false),
            ("castra-ptyd2", false),
        ] {
            assert_eq!(is_ptyd(Some(OsStr::new(program))), is, "{program}");
        }
        assert!(!is_ptyd(None));
    }

    #[test]
    fn nothing_said_means_the_published_daemons_own_bounds_and_what_the_help_says() {
        let usual = with(&[], &[]);
        assert_eq!(
            (usual.max_connections, usual.max_terminals, usual.scrollback, usual.input_queue),
            (128, 64, 10_000, 2_000_000)
        );
        assert_eq!((usual.restore, usual.on_stop, usual.screen), (Restore::Shells, OnStop::Keep, true));
        assert_eq!((usual.ring, usual.keep_exited), (1 << 20, Duration::from_secs(600)));
        assert_eq!(usual.token_file, Path::new("/s/terminals.token"));
        assert_eq!(usual.journal, Path::new("/s/terminals.redb"));
        let around = Surroundings { env: &|_| None, root: false };
        assert_eq!(TerminalSettings::usual(&around), parse(&[]));
    }

    #[test]
    fn a_variable_counts_an_option_beats_it_and_nonsense_means_the_usual() {
        let vars = [
            ("RUST_PTY_TOKEN_PATH", "/t/token"),
            ("RUST_PTY_JOURNAL_PATH", "/j/journal"),
            ("RUST_PTY_MAX_CONNECTIONS", "3"),
            ("RUST_PTY_MAX_SESSIONS", "0"),
            ("RUST_PTY_SCROLLBACK_LINES", "many"),
            ("RUST_PTY_FLOW_MAX_QUEUE_SIZE", "5000"),
        ];
        let set = with(&vars, &[]);
        assert_eq!(set.token_file, Path::new("/t/token"));
        assert_eq!(set.journal, Path::new("/j/journal"));
        assert_eq!((set.max_connections, set.max_terminals, set.scrollback), (3, 64, 10_000));
        assert_eq!(set.input_queue, 5000);
        let both = with(
            &[("RUST_PTY_INPUT_QUEUE_MAX_BYTES", "7"), vars[5], vars[2]],
            &["--max-connections", "9", "--screen", "off", "--on-stop", "end", "--restore", "none"],
        );
        assert_eq!((both.input_queue, both.max_connections), (7, 9));
        assert_eq!((both.restore, both.on_stop, both.screen), (Restore::None, OnStop::End, false));
    }

    #[test]
    fn beside_a_broker_only_its_own_words_count() {
        let env = |name: &str| match name {
            "RUST_PTY_TOKEN_PATH" => Some("/pty/token".into()),
            "CASTRA_TERMINALS_ON_STOP" => Some("end".into()),
            _ => None,
        };
        let around = Surroundings { env: &env, root: false };
        let socket = || PathBuf::from("/s/terminals.sock");
        assert_eq!(hosted(Hosted::default(), socket(), &around), None);
        let on = Hosted { terminals: true, ..Hosted::default() };
        let options = hosted(on, socket(), &around).unwrap();
        assert_eq!(
            (options.token_file.as_path(), options.on_stop),
            (Path::new("/s/terminals.token"), OnStop::End)
        );
        let said =
            Hosted { terminals_on_stop: Some(OnStop::Keep), terminals_restore: Some(Restore::None), ..on };
        let options = hosted(said, socket(), &around).unwrap();
        assert_eq!((options.restore, options.on_stop, options.screen), (Restore::None, OnStop::Keep, true));
    }

    #[test]
    fn what_stands_beside_a_socket_has_its_name() {
        assert_eq!(beside(Path::new("/s/terminals.sock"), "token"), Path::new("/s/terminals.token"));
        assert_eq!(beside(Path::new("/s/my.socket"), "token"), Path::new("/s/my.socket.token"));
    }
}
