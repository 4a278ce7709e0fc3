//! The command line of peers and their messages.

use castra_core::id::GuestName;
use castra_core::peers::{MessageId, Policy};
use clap::{Args, Subcommand, ValueEnum};
use clap_complete::engine::ArgValueCandidates;

use crate::args::Json;
use crate::completion::guests;
use crate::peer_help as help;

#[derive(Subcommand, Debug)]
pub(crate) enum Peer {
    /// Let two guests be peers; both sides, or neither
    #[command(long_about = help::LINK, override_usage = "castra peer link [OPTIONS] A B\n       castra peer link [OPTIONS] NAME  (inside a guest)")]
    Link(Pair),
    /// Let two guests be peers no more; what waits between them expires
    #[command(long_about = help::UNLINK, override_usage = "castra peer unlink [OPTIONS] A B\n       castra peer unlink [OPTIONS] NAME  (inside a guest)")]
    Unlink(Pair),
    /// A guest's peers: the same as `castra peers`
    #[command(long_about = help::PEERS)]
    List(Peers),
    /// Send a text to a peer
    #[command(long_about = help::SEND, override_usage = "castra peer send [OPTIONS] FROM TO TEXT\n       castra peer send [OPTIONS] TO TEXT  (inside a guest)")]
    Send(Send),
    /// Inside a guest: yes to whoever wants to be a peer
    #[command(long_about = help::ACCEPT)]
    Accept(Accept),
    /// Inside a guest: no to whoever wants to be a peer
    #[command(long_about = help::ACCEPT)]
    Refuse(Refuse),
}

#[derive(Args, Debug)]
pub(crate) struct Pair {
    /// The two guests; inside a guest, the other one alone
    #[arg(value_name = "NAME", num_args = 1..=2, required = true, add = ArgValueCandidates::new(guests))]
    pub(crate) names: Vec<GuestName>,
    #[command(flatten)]
    pub(crate) format: Json,
}

impl Pair {
    /// The one that asks, unless it is the guest that this is, and the other;
    /// `None`: too many.
    pub(crate) fn split(&self) -> Option<(Option<GuestName>, GuestName)> {
        match self.names[..] {
            [name] => Some((None, name)),
            [source, name] => Some((Some(source), name)),
            _ => None,
        }
    }
}

#[derive(Args, Debug)]
pub(crate) struct Peers {
    /// Whose; inside a guest, its own
    #[arg(value_name = "NAME", add = ArgValueCandidates::new(guests))]
    pub(crate) name: Option<GuestName>,
    #[command(flatten)]
    pub(crate) format: Json,
}

#[derive(Args, Debug)]
pub(crate) struct Send {
    /// Who sends (not inside a guest), to whom, and what; `-` reads the text from standard input
    // Options may stand between them; how many there are is counted later.
    #[arg(value_name = "FROM TO TEXT", num_args = 1..=3, required = true)]
    pub(crate) words: Vec<String>,
    /// Deliver it now, or not at all
    #[arg(long)]
    pub(crate) no_queue: bool,
    /// The message needs no attention
    #[arg(long)]
    pub(crate) no_wake: bool,
    /// Makes a retry safe: the same key from the same guest within 7 days is the same message
    #[arg(long, value_name = "KEY")]
    pub(crate) key: Option<String>,
    #[command(flatten)]
    pub(crate) format: Json,
}

#[derive(Args, Debug)]
pub(crate) struct Accept {
    /// Who asked
    #[arg(value_name = "NAME", add = ArgValueCandidates::new(guests))]
    pub(crate) name: GuestName,
    #[command(flatten)]
    pub(crate) format: Json,
}

#[derive(Args, Debug)]
pub(crate) struct Refuse {
    /// Who asked
    #[arg(value_name = "NAME", add = ArgValueCandidates::new(guests))]
    pub(crate) name: GuestName,
    /// Why, told to the operator
    #[arg(long, value_name = "TEXT")]
    pub(crate) reason: Option<String>,
    #[command(flatten)]
    pub(crate) format: Json,
}

#[derive(Args, Debug)]
pub(crate) struct Inbox {
    /// Whose; inside a guest, its own
    #[arg(value_name = "NAME", add = ArgValueCandidates::new(guests))]
    pub(crate) name: Option<GuestName>,
    /// Go on with what comes from now on
    #[arg(long, short)]
    pub(crate) follow: bool,
    /// Only what came after this one
    #[arg(long, value_name = "ID")]
    pub(crate) after: Option<MessageId>,
    /// Only the newest N
    #[arg(long, short = 'n', value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) limit: Option<u32>,
    #[command(flatten)]
    pub(crate) format: Json,
}

/// Whom a guest takes as a peer.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub(crate) enum TakePeers {
    /// Everybody
    Accept,
    /// Everybody, after `castra peer accept NAME` here within two seconds
    Ask,
    /// Nobody
    Deny,
}

impl From<TakePeers> for Policy {
    fn from(peers: TakePeers) -> Self {
        match peers {
            TakePeers::Accept => Self::Accept,
            TakePeers::Ask => Self::Ask,
            TakePeers::Deny => Self::Deny,
        }
    }
}
