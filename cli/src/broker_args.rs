//! What a broker is told on the command line.

use std::path::PathBuf;
use std::time::Duration;

use castra_core::id::GuestName;
use clap::Args;

use crate::attach_args::Manager;
use crate::duration::parse as duration;
use crate::run::ListenAddress;
use crate::size::parse as size;
use crate::term_args::Hosted;

#[derive(Args, Debug)]
pub(crate) struct Broker {
    #[command(flatten)]
    pub(crate) settings: Settings,
    /// Say on the first line of standard output, as JSON, that the broker is ready, and where
    #[arg(long)]
    pub(crate) json: bool,
    /// Write a trace of everything to FILE (mode 0600, must not exist) for `castra replay`: it holds every key, so keep it secret
    #[arg(long, value_name = "FILE")]
    pub(crate) record: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) child: Child,
}

/// What a parent process of our own asks for.
#[derive(Args, Clone, Copy, Debug)]
pub(crate) struct Child {
    /// Leave the terminal's session, and keep quiet
    #[arg(long, hide = true)]
    pub(crate) background: bool,
    /// End when the parent, which has this process id, does
    #[arg(long, hide = true, value_name = "PID")]
    pub(crate) die_with_parent: Option<i32>,
}

/// The broker's settings, for `broker` and `up` alike.
#[derive(Args, Clone, PartialEq, Debug)]
pub(crate) struct Settings {
    /// Where guests connect: tcp:HOST:PORT, unix:PATH, unix:PATH,serial or vsock:PORT; may be given several times [default: tcp:127.0.0.1:7070]
    #[arg(long, value_name = "ADDRESS", conflicts_with = "port")]
    pub(crate) listen: Vec<ListenAddress>,
    /// How old the newest proof of a reachable guest may be; at least three intervals
    #[arg(long, value_name = "TIME", default_value = "15s", value_parser = duration)]
    pub(crate) window: Duration,
    /// How often guests are challenged
    #[arg(long, value_name = "TIME", default_value = "5s", value_parser = duration)]
    pub(crate) interval: Duration,
    /// How long a guest may take to prove itself after it connected
    #[arg(long, value_name = "TIME", default_value = "2s", value_parser = duration)]
    pub(crate) handshake_timeout: Duration,
    /// Every guest must have a token
    #[arg(long)]
    pub(crate) require_token: bool,
    /// Let castra 0.1 guests, which prove nothing, count as reachable
    #[arg(long)]
    pub(crate) accept_unproven: bool,
    /// A name to know from the start; may be given several times
    #[arg(long = "guest", value_name = "NAME")]
    pub(crate) guests: Vec<GuestName>,
    /// Refuse every name but those of --guest and those with a token
    #[arg(long)]
    pub(crate) only_known: bool,
    /// Most guests to remember
    #[arg(long, value_name = "N", default_value = "100000", value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) max_guests: u32,
    /// Settings, and what single guests are started with [env: CASTRA_CONFIG] [default: castra.toml in the state directory]
    #[arg(long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// Most messages that wait from one guest for another
    #[arg(long, value_name = "N", default_value = "1000", value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub(crate) queue_messages: u32,
    /// Most bytes of text that wait from one guest for another; at least 32KiB, one longest message
    #[arg(long, value_name = "SIZE", default_value = "8MiB", value_parser = size)]
    pub(crate) queue_bytes: usize,
    /// How long a message is kept; at most 7d
    #[arg(long, value_name = "TIME", default_value = "7d", value_parser = duration)]
    pub(crate) message_ttl: Duration,
    /// Run this with /bin/sh whenever a guest's verdict changes; it finds CASTRA_GUEST, CASTRA_FROM, CASTRA_TO, CASTRA_REASON, CASTRA_AT and CASTRA_CHANGES
    #[arg(long, value_name = "COMMAND")]
    pub(crate) on_change: Option<String>,
    /// Leave the listeners with the service manager while the broker is replaced, so that nobody is refused meanwhile (systemd: FileDescriptorStoreMax=)
    #[arg(long)]
    pub(crate) keep_listeners: bool,
    #[command(flatten)]
    pub(crate) manager: Manager,
    #[command(flatten)]
    pub(crate) hosted: Hosted,
    /// castra 0.1's form: listen on this port of 127.0.0.1
    #[arg(long, value_name = "PORT", help_heading = "castra 0.1's form")]
    pub(crate) port: Option<u16>,
    /// castra 0.1's form: write the process id here; its folder is the state directory
    #[arg(long, value_name = "FILE", help_heading = "castra 0.1's form")]
    pub(crate) pidfile: Option<PathBuf>,
    /// castra 0.1's form: where the log goes
    #[arg(long, value_name = "FILE", help_heading = "castra 0.1's form")]
    pub(crate) logfile: Option<PathBuf>,
    /// castra 0.1's form: where the records go
    #[arg(long, value_name = "DIR", help_heading = "castra 0.1's form")]
    pub(crate) handshake_dir: Option<PathBuf>,
}
