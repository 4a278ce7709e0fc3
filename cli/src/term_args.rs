//! The command line of terminals.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand, ValueEnum};

use crate::args::Json;
use crate::duration::parse as duration;
use crate::size::parse as bytes;
use crate::term::name::{Place, TermName};
use crate::term::size::Size;
use crate::term_help as help;

#[derive(Args, Debug)]
pub(crate) struct Term {
    #[command(flatten)]
    pub(crate) door: Door,
    #[command(subcommand)]
    pub(crate) command: TermCommand,
}

/// Where the server of terminals is, if not where the broker or the agent is.
#[derive(Args, Clone, Debug, Default)]
pub(crate) struct Door {
    /// The socket of the server of terminals [env: RUST_PTY_SOCKET_PATH] [default: terminals.sock in the state directory]
    #[arg(long, global = true, value_name = "PATH")]
    pub(crate) terminals_socket: Option<PathBuf>,
    /// The file with its token [env: RUST_PTY_TOKEN_PATH] [default: beside the socket]
    #[arg(long, global = true, value_name = "FILE")]
    pub(crate) terminals_token: Option<PathBuf>,
}

#[derive(Subcommand, Debug)]
pub(crate) enum TermCommand {
    /// Start a program on a new terminal, and name it
    #[command(long_about = help::NEW)]
    New(New),
    /// Which terminals there are
    #[command(long_about = help::LS, visible_alias = "list")]
    Ls(Ls),
    /// Be on a terminal: see it, and type if nobody else does
    #[command(long_about = help::ATTACH)]
    Attach(Attach),
    /// Type something
    #[command(long_about = help::SEND)]
    Send(Send),
    /// What a terminal shows now
    #[command(long_about = help::SNAPSHOT)]
    Snapshot(Snapshot),
    /// Give a terminal another size
    #[command(long_about = help::RESIZE)]
    Resize(Resize),
    /// Send a signal to a terminal's program
    #[command(long_about = help::SIGNAL)]
    Signal(Signal),
    /// End everything that runs on a terminal
    #[command(long_about = help::KILL)]
    Kill(OneTerminal),
    /// Wait until a terminal's program has ended
    #[command(long_about = help::WAIT)]
    Wait(Wait),
    /// What a terminal's program has written, byte for byte
    #[command(long_about = help::LOG)]
    Log(Log),
}

#[derive(Args, Debug)]
pub(crate) struct OneTerminal {
    /// The terminal: NAME, #ID, GUEST/NAME or GUEST/#ID
    #[arg(value_name = "[GUEST/]NAME")]
    pub(crate) name: TermName,
}

#[derive(Args, Debug)]
pub(crate) struct New {
    #[command(flatten)]
    pub(crate) terminal: OneTerminal,
    /// Where it starts [default: here; in another machine, the home directory]
    #[arg(long, value_name = "DIR")]
    pub(crate) cwd: Option<String>,
    /// A variable of its environment; may be given several times
    #[arg(long = "env", short, value_name = "NAME=VALUE", value_parser = variable)]
    pub(crate) env: Vec<(String, String)>,
    /// Columns and rows [default: those of this terminal, else 80x24]
    #[arg(long, value_name = "CxR")]
    pub(crate) size: Option<Size>,
    /// Attach to it
    #[arg(long, short)]
    pub(crate) attach: bool,
    /// The program and its arguments [default: the shell of who serves it]
    #[arg(value_name = "COMMAND", last = true)]
    pub(crate) command: Vec<String>,
}

#[derive(Args, Debug)]
pub(crate) struct Ls {
    /// Only those of this guest [default: those here, and on the host those of all guests]
    #[arg(value_name = "GUEST/")]
    pub(crate) place: Option<Place>,
    #[command(flatten)]
    pub(crate) format: Json,
}

#[derive(Args, Debug)]
pub(crate) struct Attach {
    #[command(flatten)]
    pub(crate) terminal: OneTerminal,
    #[command(flatten)]
    pub(crate) how: How,
}

/// How to be on a terminal.
#[derive(Args, Clone, Copy, Debug, Default)]
pub(crate) struct How {
    /// Only watch, also if nobody owns it
    #[arg(long, conflicts_with = "takeover")]
    pub(crate) observe: bool,
    /// Own it, also if somebody else does: they watch from then on
    #[arg(long)]
    pub(crate) takeover: bool,
    /// Keep the last row for who owns the terminal, who watches, and how the connection is
    #[arg(long)]
    pub(crate) status_line: bool,
    /// Lines of history to show above the screen
    #[arg(long, value_name = "N")]
    pub(crate) history: Option<u32>,
}

#[derive(Args, Debug)]
pub(crate) struct Send {
    #[command(flatten)]
    pub(crate) terminal: OneTerminal,
    /// What to type; several words are joined by a space
    #[arg(value_name = "TEXT", required_unless_present_any = ["stdin", "enter"])]
    pub(crate) text: Vec<String>,
    /// Type what standard input says, byte for byte
    #[arg(long, conflicts_with = "text")]
    pub(crate) stdin: bool,
    /// Press Enter after it
    #[arg(long)]
    pub(crate) enter: bool,
}

#[derive(Args, Debug)]
pub(crate) struct Snapshot {
    #[command(flatten)]
    pub(crate) terminal: OneTerminal,
    /// As text alone; this is the default
    #[arg(long, conflicts_with_all = ["ansi", "json"])]
    pub(crate) text: bool,
    /// As the sequences that make another terminal of the same size show it
    #[arg(long, conflicts_with = "json")]
    pub(crate) ansi: bool,
    #[command(flatten)]
    pub(crate) format: Json,
    /// Lines of history above the screen
    #[arg(long, value_name = "N", default_value = "0")]
    pub(crate) history: u32,
}

#[derive(Args, Debug)]
pub(crate) struct Resize {
    #[command(flatten)]
    pub(crate) terminal: OneTerminal,
    /// Columns and rows, like 132x43
    #[arg(value_name = "CxR")]
    pub(crate) size: Size,
}

#[derive(Args, Debug)]
pub(crate) struct Signal {
    #[command(flatten)]
    pub(crate) terminal: OneTerminal,
    /// HUP, INT, QUIT, TERM, KILL, USR1, USR2, CONT, STOP, TSTP or WINCH
    #[arg(value_name = "SIGNAL")]
    pub(crate) signal: String,
}

#[derive(Args, Debug)]
pub(crate) struct Wait {
    #[command(flatten)]
    pub(crate) terminal: OneTerminal,
    /// What for
    #[arg(long = "for", value_name = "WHAT", value_enum, default_value = "exit")]
    pub(crate) target: WaitFor,
    #[command(flatten)]
    pub(crate) format: Json,
}

/// What `term wait` waits for.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub(crate) enum WaitFor {
    /// The program's end
    Exit,
}

#[derive(Args, Debug)]
pub(crate) struct Log {
    #[command(flatten)]
    pub(crate) terminal: OneTerminal,
    /// Go on with what is written from now on, until the program ends
    #[arg(long, short)]
    pub(crate) follow: bool,
    /// Begin at this byte, counted from the terminal's beginning [default: the oldest kept]
    #[arg(long, value_name = "OFFSET")]
    pub(crate) from: Option<u64>,
}

/// `castra terminals`: the server's side.
#[derive(Subcommand, Debug)]
pub(crate) enum Terminals {
    /// Be a server of terminals, in the foreground
    #[command(long_about = help::SERVE)]
    Serve(Box<Serve>),
    /// What a server of terminals has counted
    #[command(long_about = help::STATS)]
    Stats(Stats),
}

#[derive(Args, Debug)]
pub(crate) struct Stats {
    /// Of this guest [default: here]
    #[arg(value_name = "GUEST/")]
    pub(crate) place: Option<Place>,
    #[command(flatten)]
    pub(crate) door: Door,
    #[command(flatten)]
    pub(crate) format: Json,
}

#[derive(Args, Debug)]
pub(crate) struct Serve {
    /// Where the token is, or will be, in a file of mode 0600 [env: RUST_PTY_TOKEN_PATH] [default: beside the socket]
    #[arg(long, value_name = "FILE")]
    pub(crate) token_file: Option<PathBuf>,
    /// The database of what there was [env: RUST_PTY_JOURNAL_PATH] [default: beside the socket]
    #[arg(long, value_name = "FILE")]
    pub(crate) journal: Option<PathBuf>,
    /// Say on the first line of standard output, as JSON, that it is ready, and where
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) settings: TerminalSettings,
}

/// A server's settings, for `terminals serve` and beside the broker and the agent alike.
#[derive(Args, Clone, PartialEq, Eq, Debug)]
pub(crate) struct TerminalSettings {
    /// What to start anew of what is gone with its host: shells, or everything, or nothing
    #[arg(long, value_name = "WHAT", value_enum, default_value = "shells")]
    pub(crate) restore: Restore,
    /// What becomes of terminals when the server is told to stop
    #[arg(long, value_name = "WHAT", value_enum, env = "CASTRA_TERMINALS_ON_STOP", default_value = "keep")]
    pub(crate) on_stop: OnStop,
    /// Whether to keep a picture of each screen; without it who attaches sees only what comes
    #[arg(long, value_name = "WHICH", value_enum, default_value = "on")]
    pub(crate) screen: Switch,
    /// Lines of history kept of each terminal [env: RUST_PTY_SCROLLBACK_LINES] [default: 10000]
    #[arg(long, value_name = "N")]
    pub(crate) scrollback: Option<u32>,
    /// Most terminals [env: RUST_PTY_MAX_SESSIONS] [default: 64]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) max_terminals: Option<u32>,
    /// Most connections [env: RUST_PTY_MAX_CONNECTIONS] [default: 128]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) max_connections: Option<u32>,
    /// Most input that waits for one program [env: RUST_PTY_INPUT_QUEUE_MAX_BYTES] [default: 2000000]
    #[arg(long, value_name = "SIZE", value_parser = bytes)]
    pub(crate) input_queue: Option<usize>,
    /// Output kept of each terminal, for who returns or is slow
    #[arg(long, value_name = "SIZE", value_parser = bytes, default_value = "1MiB")]
    pub(crate) ring: usize,
    /// How long an exited terminal stays listed
    #[arg(long, value_name = "TIME", value_parser = duration, default_value = "10m")]
    pub(crate) keep_exited: Duration,
}

/// A server beside a broker or an agent, in the same process.
#[derive(Args, Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Hosted {
    /// Serve terminals too: see `castra help term`. Their socket stands beside the control socket
    #[arg(long)]
    pub(crate) terminals: bool,
    /// What to start anew of terminals that are gone with the host: shells, or everything, or nothing [default: shells]
    #[arg(long, value_name = "WHAT", value_enum, requires = "terminals")]
    pub(crate) terminals_restore: Option<Restore>,
    /// What becomes of terminals on TERM [env: CASTRA_TERMINALS_ON_STOP] [default: keep]
    #[arg(long, value_name = "WHAT", value_enum, requires = "terminals")]
    pub(crate) terminals_on_stop: Option<OnStop>,
    /// Whether to keep a picture of each terminal's screen [default: on]
    #[arg(long, value_name = "WHICH", value_enum, requires = "terminals")]
    pub(crate) terminals_screen: Option<Switch>,
}

/// What is started anew.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub(crate) enum Restore {
    /// What was started without a command of its own
    Shells,
    /// Everything, by running its command again
    All,
    /// Nothing
    None,
}

/// What becomes of terminals when their server stops.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub(crate) enum OnStop {
    /// They go on, and the next server has them
    Keep,
    /// They end
    End,
}

/// On or off.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub(crate) enum Switch {
    /// Yes
    On,
    /// No
    Off,
}

fn variable(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.into(), value.into())),
        _ => Err("write it like NAME=VALUE".into()),
    }
}
