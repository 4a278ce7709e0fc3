//! Where a server of terminals is, and the way to it.

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use castra_core::id::GuestName;
use castra_driver::broker::CONTROL_SOCKET;
use rustix::io::Errno;
use serde_json::json;

use super::error::WireError;
use super::name::Place;
use super::serve::{SOCKET, beside};
use crate::args::Global;
use crate::client::{self, Client, ClientError, shown};
use crate::exit::Failure;
use crate::paths::{Surroundings, peer_place};
use crate::term_args::Door as Args;

/// A token's file is never longer.
const TOKEN_MAX: u64 = 4096;

/// The way to a server.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Door {
    /// Its own socket, and the files that may hold its token.
    Socket { socket: PathBuf, tokens: Vec<PathBuf> },
    /// Through a broker to a guest, or through the agent of the guest that this is.
    Tunnel { control: PathBuf, guest: Option<GuestName> },
}

impl Door {
    /// The way to where `place` says. For this machine: `--terminals-socket`, what
    /// `--socket` or `--state-dir` point at, `RUST_PTY_SOCKET_PATH`, and where
    /// brokers and agents are.
    pub(crate) fn to(
        place: Place,
        args: &Args,
        global: &Global,
        around: &Surroundings<'_>,
    ) -> Result<Self, Failure> {
        let (dir, control) = (global.state_dir.as_deref(), global.socket.as_deref());
        if let Some(guest) = place.0 {
            let control = around.place(dir, control)?.socket;
            return Ok(Self::Tunnel { control, guest: Some(guest) });
        }
        let said = args
            .terminals_socket
            .clone()
            .or_else(|| around.path("RUST_PTY_SOCKET_PATH").filter(|_| dir.is_none() && control.is_none()));
        if let Some(socket) = said {
            let token = args.terminals_token.clone().or_else(|| around.path("RUST_PTY_TOKEN_PATH"));
            return Ok(Self::at(socket, token));
        }
        let place = peer_place(around, dir, control)?;
        if place.socket.file_name().is_some_and(|name| name != CONTROL_SOCKET) {
            return Ok(Self::Tunnel { control: place.socket, guest: None });
        }
        Ok(Self::at(place.state_dir.join(SOCKET), args.terminals_token.clone()))
    }

    fn at(socket: PathBuf, token: Option<PathBuf>) -> Self {
        let tokens = match token {
            Some(token) => vec![token],
            // Ours, and the published daemon's.
            None => vec![beside(&socket, "token"), socket.with_file_name("token")],
        };
        Self::Socket { socket, tokens }
    }

    /// A stream on which the server is next, what it said already, and the token to
    /// show it; all within `bound`.
    pub(super) fn open(&self, bound: Duration) -> Result<(OwnedFd, Vec<u8>, String), WireError> {
        match self {
            Self::Socket { socket, tokens } => {
                let stream = client::dial(socket, bound).map_err(|error| match error {
                    ClientError::NoBroker { path } => WireError::NoServer { path },
                    ClientError::Denied { path } => WireError::Denied { path },
                    ClientError::NotAnswering { .. } => self.not_answering(bound),
                    other => WireError::Control(other),
                })?;
                // Only now: a server that has just started has written it.
                Ok((stream, vec![], token(tokens)?))
            }
            Self::Tunnel { control, guest } => {
                let begun = Instant::now();
                let mut client = Client::connect(control, bound)?;
                let mut params = json!({"timeout_ms": crate::duration::millis(bound)});
                if let Some(guest) = guest {
                    params["guest"] = json!(guest);
                }
                client.request("terminals", params, bound.saturating_sub(begun.elapsed()))?;
                let (stream, rest) = client.into_stream();
                Ok((stream, rest, String::new()))
            }
        }
    }

    pub(super) fn not_answering(&self, bound: Duration) -> WireError {
        WireError::NotAnswering { place: self.shown(), bound }
    }

    /// For messages.
    pub(super) fn shown(&self) -> String {
        match self {
            Self::Socket { socket, .. } => shown(socket),
            Self::Tunnel { guest: Some(guest), .. } => guest.to_string(),
            Self::Tunnel { control, guest: None } => shown(control),
        }
    }
}

/// The first token that there is.
fn token(files: &[PathBuf]) -> Result<String, WireError> {
    let mut first = None;
    for file in files {
        match read(file) {
            Ok(token) => return Ok(token),
            Err(error) => first = first.or(Some((file, error))),
        }
    }
    let Some((file, error)) = first else { return Ok(String::new()) };
    Err(WireError::Token { path: shown(file), error })
}

fn read(path: &Path) -> Result<String, std::io::Error> {
    use std::io::Read;
    let mut text = String::new();
    // Not a FIFO: opening one could block.
    if !path.metadata()?.is_file() {
        return Err(Errno::INVAL.into());
    }
    std::fs::File::open(path)?.take(TOKEN_MAX).read_to_string(&mut text)?;
    Ok(text.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::args::ColorWhen;

    fn door(
        vars: &[(&str, &str)],
        place: Place,
        args: &Args,
        dir: Option<&str>,
        socket: Option<&str>,
    ) -> Door {
        let env = |name: &str| vars.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).into());
        let global = Global {
            state_dir: dir.map(PathBuf::from),
            socket: socket.map(PathBuf::from),
            timeout: None,
            color: ColorWhen::Auto,
        };
        Door::to(place, args, &global, &Surroundings { env: &env, root: false }).unwrap()
    }

    fn socket(socket: &str, tokens: &[&str]) -> Door {
        Door::Socket { socket: socket.into(), tokens: tokens.iter().map(PathBuf::from).collect() }
    }

    const HERE: Place = Place(None);

    #[test]
    fn the_nearest_word_says_where_the_server_is() {
        let vars = [("XDG_RUNTIME_DIR", "/nonexistent"), ("RUST_PTY_SOCKET_PATH", "/pty/socket")];
        let args = Args { terminals_socket: Some("/x/t.sock".into()), terminals_token: None };
        assert_eq!(
            door(&vars, HERE, &args, Some("/s"), None),
            socket("/x/t.sock", &["/x/t.token", "/x/token"])
        );
        let none = Args::default();
        assert_eq!(
            door(&vars, HERE, &none, Some("/s"), None),
            socket("/s/terminals.sock", &["/s/terminals.token", "/s/token"])
        );
        assert_eq!(
            door(&vars, HERE, &none, None, None),
            socket("/pty/socket", &["/pty/socket.token", "/pty/token"])
        );
        let both = [vars[0], vars[1], ("RUST_PTY_TOKEN_PATH", "/pty/secret")];
        assert_eq!(door(&both, HERE, &none, None, None), socket("/pty/socket", &["/pty/secret"]));
        assert_eq!(
            door(&vars[..1], HERE, &none, None, None),
            socket(
                "/nonexistent/castra/terminals.sock",
                &["/nonexistent/castra/terminals.token", "/nonexistent/castra/token"]
            )
        );
    }

    #[test]
    fn a_guest_is_reached_through_the_broker_and_inside_one_its_agent_is_asked() {
        let (none, devbox) = (Args::default(), "devbox".parse().unwrap());
        assert_eq!(
            door(&[], Place(Some(devbox)), &none, Some("/s"), None),
            Door::Tunnel { control: "/s/control.sock".into(), guest: Some(devbox) }
        );
        let vars = [("CASTRA_AGENT_SOCKET", "/g/agent.sock")];
        let inside = Door::Tunnel { control: "/g/agent.sock".into(), guest: None };
        assert_eq!(door(&vars, HERE, &none, None, None), inside);
        assert_eq!(door(&[], HERE, &none, None, Some("/g/agent.sock")), inside);
        assert_eq!(
            door(&[], HERE, &none, None, Some("/s/control.sock")),
            socket("/s/terminals.sock", &["/s/terminals.token", "/s/token"])
        );
    }
}
