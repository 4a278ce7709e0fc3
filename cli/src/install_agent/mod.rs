//! `castra install-agent`: what a guest has to be given, ready to paste.

mod quote;
mod snippets;
#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};

use castra_core::id::GuestName;
use clap::{ArgGroup, Args, Parser};
use zeroize::Zeroizing;

use crate::args::Cli;
use crate::client::shown;
use crate::exit::{Exit, Failure, Outcome};
use crate::output::say;
use crate::run::ConnectAddress;
use crate::{Context, agent};

/// Where the token is, if the snippet brings it.
const TOKEN: &str = "/etc/castra/agent.token";

#[derive(Args, Debug)]
#[command(group = ArgGroup::new("form").required(true).args(["cloud_init", "systemd", "openrc", "sh"]))]
pub(crate) struct InstallAgent {
    /// The guest
    #[arg(value_name = "NAME")]
    name: GuestName,
    /// User data for cloud-init
    #[arg(long)]
    cloud_init: bool,
    /// A unit for systemd: /etc/systemd/system/castra-agent.service
    #[arg(long)]
    systemd: bool,
    /// An init script for OpenRC: /etc/init.d/castra-agent
    #[arg(long)]
    openrc: bool,
    /// A script for a plain sh, which becomes the agent
    #[arg(long)]
    sh: bool,
    /// Where the guest finds its broker: tcp:HOST:PORT, unix:PATH, vsock:CID:PORT or serial:DEVICE
    #[arg(long, value_name = "ADDRESS")]
    connect: ConnectAddress,
    /// The guest has its token in FILE (readable for root only), which you bring there
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,
    /// Put the token that is in FILE here into the snippet, which is as secret from then on; only for --cloud-init and --sh
    #[arg(long, value_name = "FILE", conflicts_with_all = ["systemd", "openrc"])]
    with_token: Option<PathBuf>,
    /// Where the program is in the guest
    #[arg(long, value_name = "PATH", default_value = "/usr/local/bin/castra")]
    binary: PathBuf,
    /// For --sh: everything that the agent writes goes below DIR
    #[arg(long, value_name = "DIR", requires = "sh")]
    prefix: Option<PathBuf>,
    /// More options of `castra agent`
    #[arg(value_name = "OPTION", last = true)]
    options: Vec<String>,
}

/// What every form says, in characters that mean the same to all of their readers.
pub(crate) struct Plan {
    name: GuestName,
    binary: String,
    connect: String,
    /// The device that the broker is behind.
    device: Option<String>,
    token: Option<Token>,
    prefix: Option<String>,
    options: Vec<String>,
}

/// Where the guest has its token, and the token, if the snippet brings it there.
struct Token {
    path: String,
    text: Option<Zeroizing<String>>,
}

pub(crate) fn run(cx: &mut Context, args: &InstallAgent) -> Outcome {
    let plan = Plan::of(args)?;
    let text = if args.cloud_init {
        snippets::cloud_init(&plan)
    } else if args.systemd {
        snippets::systemd(&plan)
    } else if args.openrc {
        snippets::openrc(&plan)
    } else {
        snippets::sh(&plan)
    };
    cx.out.put(&Zeroizing::new(text))?;
    if plan.secret().is_some() {
        say(format_args!(
            "WARNING: what was printed contains {0}'s token: whoever reads it can be {0}",
            plan.name
        ));
    }
    Ok(Exit::Yes)
}

impl Plan {
    fn of(args: &InstallAgent) -> Result<Self, Failure> {
        let absolute = |path: &Path| {
            let text = plain(&path.to_string_lossy())?;
            let fit = path.is_absolute() && path.to_str().is_some();
            fit.then_some(text).ok_or_else(|| {
                Failure::usage(format!("{} must be a whole path, as the guest sees it", shown(path)))
            })
        };
        let prefix = args.prefix.as_deref().map(absolute).transpose()?;
        let path = match &args.token_file {
            Some(path) => absolute(path)?,
            None => format!("{}{TOKEN}", prefix.as_deref().unwrap_or_default()),
        };
        let text = args.with_token.as_deref().map(agent::key_in).transpose()?;
        let text = text.map(|key| Zeroizing::new(key.expose_token()));
        let token = (text.is_some() || args.token_file.is_some()).then_some(Token { path, text });
        let device = match &args.connect {
            ConnectAddress::Serial { device } => Some(absolute(device)?),
            ConnectAddress::Unix { path } => absolute(path).map(|_| None)?,
            ConnectAddress::Tcp { .. } | ConnectAddress::Vsock { .. } => None,
        };
        let plan = Self {
            name: args.name,
            binary: absolute(&args.binary)?,
            connect: plain(&args.connect.to_string())?,
            device,
            token,
            prefix,
            options: args.options.iter().map(|option| plain(option)).collect::<Result<_, _>>()?,
        };
        // An agent would say so only in the guest.
        let line = ["castra".to_owned()].into_iter().chain(plan.arguments(None));
        Cli::try_parse_from(line).map_err(|error| {
            let text = error.to_string();
            let text = text.lines().next().unwrap_or_default().trim_start_matches("error: ").to_owned();
            Failure::usage(format!("`castra agent` would refuse this: {text}"))
        })?;
        Ok(plan)
    }

    /// The arguments of the agent.
    fn arguments(&self, token_file: Option<&str>) -> Vec<String> {
        let mut all = vec!["agent", "--name", self.name.as_str(), "--connect", &self.connect];
        all.extend(token_file.into_iter().flat_map(|path| ["--token-file", path]));
        all.into_iter().map(str::to_owned).chain(self.options.iter().cloned()).collect()
    }

    fn token_path(&self) -> Option<&str> {
        self.token.as_ref().map(|token| token.path.as_str())
    }

    /// Where the token goes, and the token.
    fn secret(&self) -> Option<(&str, &str)> {
        let token = self.token.as_ref()?;
        Some((&token.path, token.text.as_deref()?))
    }
}

/// Printable ASCII, which no shell, unit or YAML reader takes for anything else once quoted.
fn plain(text: &str) -> Result<String, Failure> {
    if text.bytes().all(|byte| (b' '..=b'~').contains(&byte)) {
        return Ok(text.to_owned());
    }
    Err(Failure::usage(format!("{text:?} can't go into a snippet: only printable ASCII can")))
}
