//! The castra program: reads the command line, does the one thing, ends with a frozen exit code.

#![cfg_attr(test, allow(clippy::unwrap_used))]

mod agent;
mod args;
mod attach;
mod attach_args;
mod attach_help;
mod bench;
mod bench_args;
mod broker;
mod broker_args;
mod bundle;
mod client;
mod completion;
mod config;
mod console;
mod demo;
mod doctor;
mod down;
mod duration;
mod events;
mod exit;
mod help;
mod install_agent;
mod interrupt;
mod logs;
mod man;
mod metrics_args;
mod offline;
mod output;
mod paths;
mod peer;
mod peer_args;
mod peer_help;
mod ping;
#[cfg(feature = "planted")]
mod planted;
mod progress;
mod render;
mod replay;
mod run;
mod sim;
mod sim_args;
mod simple;
mod size;
mod status;
mod term;
mod term_args;
mod term_help;
mod terminals_holder;
mod token;
mod top;
mod top_help;
mod tui;
mod up;
mod version;
mod wait;

use std::process::ExitCode;
use std::time::Duration;

use clap::error::ContextValue;

use args::{Cli, Command, Global};
use config::{Layers, LayersError};
use exit::{Failure, Outcome};
use output::Out;
use paths::{Place, Surroundings};

/// What every command gets.
pub(crate) struct Context {
    pub(crate) global: Global,
    pub(crate) out: Out,
    /// Where the settings of a broker or an agent come from.
    pub(crate) layers: Layers,
}

impl Context {
    /// Whom to ask.
    pub(crate) fn place(&self) -> Result<Place, Failure> {
        Ok(Surroundings::real().place(self.global.state_dir.as_deref(), self.global.socket.as_deref())?)
    }

    /// `--timeout`, or the command's own default.
    pub(crate) fn timeout(&self, default: Duration) -> Duration {
        self.global.timeout.unwrap_or(default)
    }
}

fn main() -> ExitCode {
    if term::serve::is_ptyd(std::env::args_os().next().as_deref()) {
        return ended(term::serve::ptyd());
    }
    completion::answer();
    // Usage errors end here with 2, help and version with 0.
    let read = config::read(std::env::args_os().collect(), &|name| std::env::var_os(name));
    let (Cli { global, command }, layers) = match read {
        Ok(read) => read,
        Err(LayersError::Line(error)) => safe(error).exit(),
        Err(LayersError::Elsewhere(failure)) => return ended(Err(failure)),
    };
    trace();
    let out = Out::new(global.color);
    ended(dispatch(&mut Context { global, out, layers }, command))
}

/// The same error with what was written on the command line escaped: a script may
/// have put somebody else's text there.
fn safe(mut error: clap::Error) -> clap::Error {
    let parts: Vec<_> = error.context().map(|(kind, value)| (kind, value.clone())).collect();
    for (kind, value) in parts {
        let value = match value {
            ContextValue::String(text) => ContextValue::String(output::printable(&text)),
            ContextValue::Strings(texts) => {
                ContextValue::Strings(texts.iter().map(|text| output::printable(text)).collect())
            }
            other => other,
        };
        error.insert(kind, value);
    }
    error
}

fn ended(outcome: Outcome) -> ExitCode {
    match outcome {
        Ok(exit) => exit.into(),
        Err(failure) => {
            output::say(&failure);
            failure.exit.into()
        }
    }
}

/// The shell's own steps on standard error, for who debugs castra itself:
/// `CASTRA_TRACE=debug`, or any filter of `tracing-subscriber`.
fn trace() {
    if let Ok(filter) = tracing_subscriber::EnvFilter::try_from_env("CASTRA_TRACE") {
        tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).init();
    }
}

fn dispatch(cx: &mut Context, command: Command) -> Outcome {
    match command {
        Command::Status(args) => status::run(cx, &args),
        Command::Top(args) => top::run(cx, args),
        Command::Wait(args) => wait::run(cx, &args),
        Command::Console(args) => console::run(cx, &args),
        Command::Ping(args) => ping::run(cx, &args),
        Command::Events(args) => events::run(cx, &args),
        Command::Logs(args) => logs::run(cx, &args),
        Command::Token(args) => token::run(cx, &args),
        Command::Info(args) => simple::info(cx, args),
        Command::Forget(args) => simple::forget(cx, &args),
        Command::Config(args) => config::run(cx, &args),
        Command::Doctor(args) => doctor::run(cx, &args),
        Command::SupportBundle(args) => bundle::run(cx, &args),
        Command::Reload(args) => simple::reload(cx, args),
        Command::Up(args) => up::run(cx, &args),
        Command::Down(args) => down::run(cx, &args),
        Command::Broker(args) => broker::run(cx, &args),
        Command::Agent(args) => agent::run(cx, &args),
        Command::InstallAgent(args) => install_agent::run(cx, &args),
        Command::Replay(args) => replay::run(cx, &args),
        Command::Version(args) => version::run(cx, args),
        Command::Completion(args) => completion::run(cx, &args),
        Command::Man(args) => man::run(cx, &args),
        Command::Demo(args) => demo::run(cx, &args),
        Command::Sim(args) => sim::run(cx, &args),
        Command::Bench(args) => bench::run(cx, &args),
        Command::Peer(args) => peer::peer(cx, &args),
        Command::Peers(args) => peer::peers(cx, &args),
        Command::Inbox(args) => peer::inbox(cx, &args),
        Command::Restore(args) => peer::restore(cx, &args),
        Command::Adopt(args) => attach::adopt(cx, &args),
        Command::Release(args) => attach::release(cx, &args),
        Command::Attachments(args) => attach::attachments(cx, args),
        Command::Action(args) => attach::action(cx, &args),
        Command::Term(args) => term::term(cx, &args),
        Command::Terminals(args) => term::terminals(cx, &args),
        Command::Launch { command } => Err(broker::start_command(&command)),
        Command::TerminalsHolder(args) => terminals_holder::run(&args),
    }
}
