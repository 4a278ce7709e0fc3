//! The command line.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use castra_core::control::reply::Target;
use castra_core::event::Cursor;
use castra_core::id::GuestName;
use clap::{ArgAction, Args, Parser, Subcommand, ValueEnum};
use clap_complete::engine::ArgValueCandidates;

use crate::attach_args::{Action, Adopt, Attachments, Managers};
use crate::attach_help;
use crate::bench_args::Bench;
use crate::broker_args::{Broker, Child, Settings};
use crate::bundle::SupportBundle;
use crate::completion::{Completion, guests};
use crate::config::Config;
use crate::doctor::Doctor;
use crate::duration::parse as duration;
use crate::help;
use crate::install_agent::InstallAgent;
use crate::man::Manual;
use crate::peer_args::{Inbox, Peer, Peers, TakePeers};
use crate::peer_help;
use crate::run::ConnectAddress;
use crate::sim_args::Sim;
use crate::term_args::{Hosted, Term, Terminals};
use crate::term_help;
use crate::terminals_holder::TerminalsHolder;
use crate::top::Top;
use crate::top_help;

/// Tells the truth about guests: who is reachable now, since when, and if not, why not.
#[derive(Parser, Debug)]
#[command(name = "castra", version, long_about = help::CASTRA, after_help = help::EXIT_CODES)]
#[command(arg_required_else_help = true)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) global: Global,
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Args, Debug)]
#[command(next_help_heading = "Global options")]
pub(crate) struct Global {
    /// The broker's state directory [env: CASTRA_STATE_DIR]
    ///
    /// Without it: CASTRA_STATE_DIR, else the socket in CASTRA_AGENT_SOCKET, else
    /// $XDG_RUNTIME_DIR/castra, else /run/castra for root or ~/.local/state/castra.
    #[arg(long, global = true, value_name = "DIR")]
    pub(crate) state_dir: Option<PathBuf>,
    /// Ask this control socket instead (for `agent` and `terminals serve`: where it listens) [env: CASTRA_AGENT_SOCKET]
    #[arg(long, global = true, value_name = "PATH")]
    pub(crate) socket: Option<PathBuf>,
    /// How long to wait at most, like 500ms, 15s or 2m; each command has its own default
    #[arg(long, global = true, value_name = "TIME", value_parser = duration)]
    pub(crate) timeout: Option<Duration>,
    /// When to colour; `auto` is on a terminal and without NO_COLOR
    #[arg(long, global = true, value_name = "WHEN", value_enum, default_value = "auto")]
    pub(crate) color: ColorWhen,
}

/// When to colour.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub(crate) enum ColorWhen {
    Auto,
    Always,
    Never,
}

#[derive(Subcommand, Debug)]
pub(crate) enum Command {
    /// Who is reachable? Never blocks
    #[command(long_about = help::STATUS)]
    Status(Status),
    /// All guests, live, on the whole terminal: sort, filter, look at one, give commands
    #[command(long_about = top_help::TOP)]
    Top(Top),
    /// Wait until guests are reachable, or no longer are
    #[command(long_about = help::WAIT)]
    Wait(Wait),
    /// One guest on the whole terminal: its state, its peers, its messages, and commands
    #[command(long_about = help::CONSOLE)]
    Console(Console),
    /// Ask a guest for a sign of life, and time it
    #[command(long_about = help::PING)]
    Ping(Ping),
    /// What happened, from the broker
    #[command(long_about = help::EVENTS)]
    Events(Events),
    /// What happened, from the log files; works without a broker
    #[command(long_about = help::LOGS)]
    Logs(Logs),
    /// Secrets by which guests prove who they are
    #[command(subcommand)]
    Token(Token),
    /// Guests that know each other: link, unlink, list, send, accept, refuse
    #[command(subcommand, long_about = peer_help::PEER)]
    Peer(Peer),
    /// Whom a guest knows
    #[command(long_about = peer_help::PEERS)]
    Peers(Peers),
    /// What a guest was sent
    #[command(long_about = peer_help::INBOX)]
    Inbox(Inbox),
    /// Run a guest's start command, and wait until it is reachable
    #[command(long_about = peer_help::RESTORE)]
    Restore(OneGuest),
    /// Have a guest attach itself to a manager, with nothing set up in it
    #[command(long_about = attach_help::ADOPT)]
    Adopt(Adopt),
    /// Let go of an adopted guest
    #[command(long_about = attach_help::RELEASE)]
    Release(OneGuest),
    /// Who is adopted, and how far it got
    #[command(long_about = attach_help::ATTACHMENTS)]
    Attachments(Attachments),
    /// Have an adopted guest do something: send, list
    #[command(subcommand, long_about = attach_help::ACTION)]
    Action(Action),
    /// Terminals that go on without you: new, ls, attach, send, snapshot, log, wait, kill
    #[command(long_about = term_help::TERM)]
    Term(Term),
    /// The server of terminals, where no broker or agent is one
    #[command(subcommand)]
    Terminals(Terminals),
    /// What the broker is and how it is set
    Info(Json),
    /// Delete a guest's row and its record
    #[command(long_about = help::FORGET)]
    Forget(OneGuest),
    /// Look for what is wrong, and say what to do about it
    #[command(long_about = help::DOCTOR)]
    Doctor(Doctor),
    /// Collect what somebody who helps asks for, without secrets
    #[command(long_about = crate::bundle::HELP)]
    SupportBundle(SupportBundle),
    /// What a broker is set to, and who says so
    #[command(subcommand)]
    Config(Config),
    /// Make the broker read its configuration again and reopen its logs
    Reload(Json),
    /// Start a broker in the background, unless one serves
    #[command(long_about = help::UP)]
    Up(Up),
    /// Stop the broker
    #[command(long_about = help::DOWN)]
    Down(Down),
    /// Be the broker, in the foreground
    #[command(long_about = help::BROKER)]
    Broker(Broker),
    /// Be a guest's agent, or tell the one that runs here something
    #[command(long_about = help::AGENT)]
    Agent(Agent),
    /// Print what a guest has to be given to have an agent: for cloud-init, systemd, OpenRC or a plain sh
    #[command(long_about = help::INSTALL_AGENT)]
    InstallAgent(InstallAgent),
    /// Run a recording of a broker or an agent again, and compare
    #[command(long_about = help::REPLAY)]
    Replay(Replay),
    /// What this program is and which formats it speaks
    Version(Json),
    /// A script that lets a shell complete commands, and the names of guests as they are now
    #[command(long_about = help::COMPLETION)]
    Completion(Completion),
    /// Manual pages
    #[command(long_about = help::MAN)]
    Man(Manual),
    /// See it work: a real broker, three real agents, and what can happen to them
    #[command(long_about = help::DEMO)]
    Demo(Demo),
    /// Play thousands of worlds full of faults, and hold every answer against the truth
    #[command(long_about = help::SIM)]
    Sim(Box<Sim>),
    /// Put a broker under load, and measure it
    #[command(long_about = help::BENCH)]
    Bench(Bench),
    /// Run a command in a session of its own: how a broker runs start commands
    #[command(hide = true)]
    #[command(name = "start-command")]
    Launch {
        /// For /bin/sh
        command: OsString,
    },
    /// Keep terminals for the daemons that come and go
    #[command(hide = true)]
    TerminalsHolder(TerminalsHolder),
}

#[derive(Args, Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Json {
    /// Print the document as JSON
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Args, Debug)]
pub(crate) struct OneGuest {
    /// The guest
    #[arg(value_name = "NAME", add = ArgValueCandidates::new(guests))]
    pub(crate) name: GuestName,
    #[command(flatten)]
    pub(crate) format: Json,
}

#[derive(Args, Debug)]
pub(crate) struct Status {
    /// Only these guests; exit code 0 then means that all of them are reachable
    #[arg(value_name = "NAME", add = ArgValueCandidates::new(guests))]
    pub(crate) names: Vec<GuestName>,
    #[command(flatten)]
    pub(crate) format: Json,
    /// Go on: repaint every second and on every change; with --json one document a line
    #[arg(long, short)]
    pub(crate) watch: bool,
}

#[derive(Args, Debug)]
pub(crate) struct Wait {
    /// Whom to wait for; names that were never seen are waited for like the others
    #[arg(value_name = "NAME", required = true, add = ArgValueCandidates::new(guests))]
    pub(crate) names: Vec<GuestName>,
    /// What for
    #[arg(long = "for", value_name = "STATE", value_enum, default_value = "reachable")]
    pub(crate) target: WaitFor,
    /// One of them is enough
    #[arg(long)]
    pub(crate) any: bool,
    #[command(flatten)]
    pub(crate) format: Json,
}

/// What `wait` waits for.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub(crate) enum WaitFor {
    Reachable,
    Waiting,
}

impl From<WaitFor> for Target {
    fn from(target: WaitFor) -> Self {
        match target {
            WaitFor::Reachable => Self::Reachable,
            WaitFor::Waiting => Self::Waiting,
        }
    }
}

#[derive(Args, Clone, Copy, Debug)]
pub(crate) struct Console {
    /// Which guest; inside one, its own if none is named
    #[arg(value_name = "NAME", add = ArgValueCandidates::new(guests))]
    pub(crate) name: Option<GuestName>,
}

#[derive(Args, Debug)]
pub(crate) struct Ping {
    /// Whom to ask
    #[arg(value_name = "NAME", add = ArgValueCandidates::new(guests))]
    pub(crate) name: GuestName,
    /// How often
    #[arg(long, short, value_name = "N", default_value = "3", value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) count: u32,
    /// From one question to the next
    #[arg(long, short, value_name = "TIME", default_value = "1s", value_parser = duration)]
    pub(crate) interval: Duration,
    #[command(flatten)]
    pub(crate) format: Json,
}

#[derive(Args, Debug)]
pub(crate) struct Events {
    /// Go on with what happens from now on
    #[arg(long, short)]
    pub(crate) follow: bool,
    /// Only what came after this one, like 7-1042; a cursor is in every JSON event
    #[arg(long, value_name = "CURSOR")]
    pub(crate) since: Option<Cursor>,
    /// Only this kind, like verdict.changed, or a family, like 'handshake.*'
    #[arg(long = "kind", value_name = "KIND")]
    pub(crate) kinds: Vec<String>,
    /// Only about this guest
    #[arg(long = "guest", value_name = "NAME", add = ArgValueCandidates::new(guests))]
    pub(crate) guests: Vec<GuestName>,
    /// Print each event as one line of JSON
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Args, Debug)]
pub(crate) struct Logs {
    /// Go on as the log grows, also when its file is rotated
    #[arg(long, short)]
    pub(crate) follow: bool,
    /// Only lines of the last so long, like 5m
    #[arg(long, value_name = "TIME", value_parser = duration)]
    pub(crate) since: Option<Duration>,
    /// Only lines that are at least so old
    #[arg(long, value_name = "TIME", value_parser = duration, conflicts_with = "follow")]
    pub(crate) until: Option<Duration>,
    /// Only lines of this level or a graver one
    #[arg(long, value_name = "LEVEL", value_enum)]
    pub(crate) level: Option<LogLevel>,
    /// Show lines in a row that differ in nothing but time and numbers once, and say how many there are
    #[arg(long, conflicts_with = "follow")]
    pub(crate) fold: bool,
    /// Only lines about this guest
    #[arg(long = "guest", value_name = "NAME", add = ArgValueCandidates::new(guests))]
    pub(crate) guests: Vec<GuestName>,
    /// Only the last N lines [default: 200; all with --since]
    #[arg(long, short = 'n', value_name = "N")]
    pub(crate) lines: Option<usize>,
}

/// How grave a line of the log is.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, ValueEnum)]
pub(crate) enum LogLevel {
    Info,
    Warn,
    Error,
}

#[derive(Subcommand, Debug)]
pub(crate) enum Token {
    /// Give a guest a new token; the old one and its session end
    #[command(long_about = help::TOKEN_ISSUE)]
    Issue(TokenIssue),
    /// Which names have, or had, a token
    List(Json),
    /// Take a guest's token away; nobody can prove the name until a new one is issued
    Revoke(OneGuest),
}

#[derive(Args, Debug)]
pub(crate) struct TokenIssue {
    #[command(flatten)]
    pub(crate) guest: OneGuest,
    /// Write the token to FILE (mode 0600) instead of printing it
    #[arg(long, value_name = "FILE", conflicts_with = "json")]
    pub(crate) out: Option<PathBuf>,
}

#[derive(Args, Debug)]
pub(crate) struct Up {
    #[command(flatten)]
    pub(crate) settings: Settings,
    #[command(flatten)]
    pub(crate) format: Json,
}

#[derive(Args, Debug)]
pub(crate) struct Down {
    /// End a broker that does not answer: TERM, then KILL
    #[arg(long)]
    pub(crate) force: bool,
}

/// What the agent that runs here can be told.
#[derive(Subcommand, Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum AgentOrder {
    /// From now on this guest asks nobody to be its peer: who does is told `busy`
    Hold(Json),
    /// It may ask again
    Resume(Json),
}

#[derive(Args, Debug)]
#[command(subcommand_negates_reqs = true)]
pub(crate) struct Agent {
    #[command(subcommand)]
    pub(crate) order: Option<AgentOrder>,
    /// The guest's name: 1 to 64 of A-Z a-z 0-9 . _ -, the first a letter or digit
    #[arg(long, value_name = "NAME", required = true)]
    pub(crate) name: Option<GuestName>,
    /// The broker: tcp:HOST:PORT, unix:PATH, vsock:CID:PORT or serial:DEVICE
    #[arg(long, value_name = "ADDRESS", required = true)]
    pub(crate) connect: Option<ConnectAddress>,
    /// Prove once that the guest is there, then stop
    #[arg(long)]
    pub(crate) once: bool,
    /// A file with the guest's token, readable for its owner only
    #[arg(long, value_name = "FILE")]
    pub(crate) token_file: Option<PathBuf>,
    /// Something the guest can do, told to the broker; may be given several times
    #[arg(long = "capability", value_name = "WORD", action = ArgAction::Append)]
    pub(crate) capabilities: Vec<String>,
    /// Whom the guest takes as a peer [default: whom the operator links; others after being asked]
    #[arg(long, value_name = "WHOM", value_enum)]
    pub(crate) peers: Option<TakePeers>,
    /// Where the guest's messages are kept [default: $XDG_STATE_HOME/castra/NAME, else /var/lib/castra/NAME for root or ~/.local/state/castra/NAME]
    #[arg(long, value_name = "DIR")]
    pub(crate) inbox: Option<PathBuf>,
    /// Reject messages of senders that are not proven with a token
    #[arg(long)]
    pub(crate) require_authenticated: bool,
    #[command(flatten)]
    pub(crate) hosted: Hosted,
    /// The same, but whoever listens there serves them
    #[arg(long, value_name = "PATH", conflicts_with = "terminals")]
    pub(crate) terminals_socket: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) managers: Managers,
    /// Write a trace of everything to FILE (mode 0600, must not exist) for `castra replay`: it holds every key, so keep it secret
    #[arg(long, value_name = "FILE")]
    pub(crate) record: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) child: Child,
}

#[derive(Args, Debug)]
pub(crate) struct Replay {
    /// What --record wrote
    #[arg(value_name = "FILE")]
    pub(crate) file: PathBuf,
    #[command(flatten)]
    pub(crate) format: Json,
    /// Print nothing: the exit code says it
    #[arg(long, short, conflicts_with = "json")]
    pub(crate) quiet: bool,
}

#[derive(Args, Debug)]
pub(crate) struct Demo {
    /// Without a live table or pauses; exits with 1 if anything was not as expected
    #[arg(long)]
    pub(crate) once: bool,
}
