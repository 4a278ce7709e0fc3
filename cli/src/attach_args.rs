//! The command line of managed attach.

use std::net::SocketAddr;
use std::time::Duration;

use castra_core::attach::{AttachId, ManagerUrl, TERMINAL_WRITE};
use castra_core::id::GuestName;
use castra_driver::terminals::exec::Exec;
use clap::{Args, Subcommand};
use clap_complete::engine::ArgValueCandidates;

use crate::args::Json;
use crate::attach_help as help;
use crate::completion::guests;
use crate::duration::parse as duration;
use crate::term_args::Hosted;

#[derive(Args, Debug)]
pub(crate) struct Adopt {
    /// Whom
    #[arg(value_name = "GUEST", add = ArgValueCandidates::new(guests))]
    pub(crate) guest: GuestName,
    /// The private beach [default: the one that it has, else a new one]
    #[arg(long, value_name = "ID")]
    pub(crate) beach: Option<AttachId>,
    /// Over the guest's own link, even if there is HTTP
    #[arg(long)]
    pub(crate) link: bool,
    /// Don't wait until it is attached
    #[arg(long)]
    pub(crate) no_wait: bool,
    #[command(flatten)]
    pub(crate) format: Json,
}

#[derive(Args, Clone, Copy, Debug)]
pub(crate) struct Attachments {
    /// Inside a guest: wait until it is attached
    #[arg(long)]
    pub(crate) wait: bool,
    #[command(flatten)]
    pub(crate) format: Json,
}

#[derive(Subcommand, Debug)]
pub(crate) enum Action {
    /// Have a guest do something, and say what became of it
    #[command(long_about = help::SEND)]
    Send(Send),
    /// Which actions wait
    #[command(long_about = help::LIST)]
    List(List),
}

#[derive(Args, Debug)]
pub(crate) struct Send {
    /// Who does it
    #[arg(value_name = "GUEST", add = ArgValueCandidates::new(guests))]
    pub(crate) guest: GuestName,
    /// What kind of action
    #[arg(long = "type", value_name = "TYPE", default_value = TERMINAL_WRITE)]
    pub(crate) kind: String,
    /// What exactly, a JSON object; `-` reads it from standard input. Everybody on this machine sees arguments: a secret belongs into standard input
    #[arg(long, value_name = "JSON", allow_hyphen_values = true)]
    pub(crate) payload: String,
    /// How long it may wait for the guest [default: 10m]
    #[arg(long, value_name = "TIME", value_parser = duration)]
    pub(crate) ttl: Option<Duration>,
    /// Don't wait until it is done
    #[arg(long)]
    pub(crate) no_wait: bool,
    #[command(flatten)]
    pub(crate) format: Json,
}

#[derive(Args, Clone, Copy, Debug)]
pub(crate) struct List {
    /// Only this guest's
    #[arg(value_name = "GUEST", add = ArgValueCandidates::new(guests))]
    pub(crate) guest: Option<GuestName>,
    #[command(flatten)]
    pub(crate) format: Json,
}

/// A broker that adopts guests over HTTP.
#[derive(Args, Clone, PartialEq, Debug, Default)]
pub(crate) struct Manager {
    /// Serve adopted guests over HTTP, too: IP:PORT, like 127.0.0.1:7171; port 0 is any free one
    #[arg(long = "manager", value_name = "ADDRESS", value_parser = manager_address)]
    pub(crate) manager: Option<SocketAddr>,
    /// What guests are told in place of it, http or https with a host and a port [default: the address at which the guest itself connected]
    #[arg(long = "manager-advertise", value_name = "URL", requires = "manager", value_parser = http_url)]
    pub(crate) advertise: Option<ManagerUrl>,
}

/// What an agent may attach itself to, and on whose word.
#[derive(Args, Clone, PartialEq, Debug, Default)]
pub(crate) struct Managers {
    /// A manager that may adopt this guest, http or https with a host and a port; may be given several times
    #[arg(long, value_name = "URL", value_parser = http_url)]
    pub(crate) manager_url: Vec<ManagerUrl>,
    /// Let the broker reach the terminals, name managers and send actions also where it has not proven itself with a token: whoever answers at its address could then run anything here
    #[arg(long)]
    pub(crate) trust_unkeyed_broker: bool,
    /// Serve terminals, and start this program on one named `main`; everything behind it is the program's
    #[arg(
        long,
        value_name = "COMMAND",
        num_args = 1..,
        allow_hyphen_values = true,
        conflicts_with_all = ["terminals_socket", "once"]
    )]
    pub(crate) exec: Vec<String>,
}

impl Managers {
    /// What is asked for of terminals, with what a program on one implies.
    pub(crate) fn hosted(&self, hosted: Hosted) -> Hosted {
        Hosted { terminals: hosted.terminals || !self.exec.is_empty(), ..hosted }
    }

    /// What runs on the terminal `main`, if anything, in this directory.
    pub(crate) fn program(&self) -> Option<Exec> {
        let cwd = std::env::current_dir().ok().and_then(|cwd| cwd.into_os_string().into_string().ok());
        (!self.exec.is_empty()).then(|| Exec { command: self.exec.clone(), cwd })
    }
}

/// Reads where a manager listens: not a name, so that nobody else says what it means.
fn manager_address(text: &str) -> Result<SocketAddr, String> {
    let address = text.strip_prefix("http://").unwrap_or(text);
    address.parse().map_err(|_| "write it as IP:PORT, like 127.0.0.1:7171 or [::1]:0".into())
}

/// Reads where a manager is.
fn http_url(text: &str) -> Result<ManagerUrl, String> {
    match text.parse() {
        Ok(url @ ManagerUrl::Http(_)) => Ok(url),
        Ok(ManagerUrl::Link) | Err(_) => {
            Err("write it as http(s)://HOST with an optional :PORT and nothing else".into())
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::args::{Cli, Command};

    #[test]
    fn everything_behind_exec_is_the_programs() {
        let line = ["castra", "agent", "--name", "a", "--connect", "tcp:127.0.0.1:1", "--exec"];
        for program in [
            &["top"][..],
            &["sh", "-c", "ls --all; hold"],
            &["hold", "resume"],
            &["git", "--name", "b", "--", "-x"],
        ] {
            match Cli::try_parse_from(line.iter().chain(program)).unwrap().command {
                Command::Agent(agent) => assert_eq!(agent.managers.exec, program),
                other => panic!("{other:?}"),
            }
        }
        assert!(Cli::try_parse_from(line).is_err(), "no program");
    }

    #[test]
    fn a_managers_address_is_an_ip_and_a_url_is_a_host_and_a_port() {
        assert_eq!(manager_address("127.0.0.1:0"), Ok(([127, 0, 0, 1], 0).into()));
        assert_eq!(manager_address("http://[::1]:7171").map(|address| address.port()), Ok(7171));
        for bad in ["localhost:7171", "7171", "127.0.0.1", "tcp:127.0.0.1:7171", ""] {
            assert!(manager_address(bad).is_err(), "{bad}");
        }
        assert!(http_url("https://Host.Example").is_ok());
        for bad in ["link:", "host.example", "http://user:hush@host", "http://host/path"] {
            let error = http_url(bad).unwrap_err();
            assert!(!error.contains("hush"), "{error}");
        }
    }
}
