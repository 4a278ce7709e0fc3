//! Where brokers and agents are: the client's rules, and what only the program needs.

use std::path::{Path, PathBuf};

use castra_client::Nowhere;
use castra_core::id::GuestName;

use crate::exit::Failure;

pub(crate) use castra_client::{Place, Surroundings};

impl From<Nowhere> for Failure {
    fn from(error: Nowhere) -> Self {
        Self::usage(error.to_string())
    }
}

/// Whom peers' commands ask: as [`Surroundings::place`]; but where nobody says
/// whom, no broker has a socket and one agent has, that agent.
pub(crate) fn peer_place(
    around: &Surroundings<'_>,
    state_dir: Option<&Path>,
    socket: Option<&Path>,
) -> Result<Place, Failure> {
    let place = around.place(state_dir, socket)?;
    let said = state_dir.is_some()
        || socket.is_some()
        || ["CASTRA_STATE_DIR", "CASTRA_AGENT_SOCKET"].iter().any(|name| around.path(name).is_some());
    if said || place.socket.exists() {
        return Ok(place);
    }
    let entries = std::fs::read_dir(&place.state_dir).into_iter().flatten().flatten();
    let mut agents: Vec<PathBuf> =
        entries.map(|entry| entry.path().join("agent.sock")).filter(|socket| socket.exists()).collect();
    agents.sort();
    match &agents[..] {
        [] => Ok(place),
        [only] => Ok(Place::at_socket(only)),
        several => {
            let names: Vec<String> = several.iter().map(|path| crate::client::shown(path)).collect();
            let names = names.join(", ");
            Err(Failure::usage(format!("several agents are here: say with --socket which one: {names}")))
        }
    }
}

/// Where an agent listens when nobody says: `NAME/agent.sock` in the default directory.
pub(crate) fn agent_socket(around: &Surroundings<'_>, name: &GuestName) -> Result<PathBuf, Failure> {
    Ok(around.default_dir()?.join(name.as_str()).join("agent.sock"))
}

/// Where an agent keeps its guest's messages when nobody says: `NAME` in
/// `$XDG_STATE_HOME/castra`, else `/var/lib/castra` for root or `~/.local/state/castra`.
pub(crate) fn inbox_dir(around: &Surroundings<'_>, name: &GuestName) -> Option<PathBuf> {
    let state = around.path("XDG_STATE_HOME");
    let system = || around.root.then(|| PathBuf::from("/var/lib"));
    let home = || around.path("HOME").map(|home| home.join(".local/state"));
    Some(state.or_else(system).or_else(home)?.join("castra").join(name.as_str()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_client_and_the_broker_mean_one_socket() {
        assert_eq!(castra_client::CONTROL_SOCKET, castra_driver::broker::CONTROL_SOCKET);
    }

    #[test]
    fn an_inbox_is_in_the_state_of_its_user() {
        let dir = |vars: &[(&str, &str)], root: bool| {
            let env =
                |name: &str| vars.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).into());
            let dir = inbox_dir(&Surroundings { env: &env, root }, &"devbox".parse().unwrap());
            dir.map(|dir| dir.display().to_string())
        };
        let all = [("XDG_STATE_HOME", "/state"), ("HOME", "/home/u")];
        assert_eq!(dir(&all, true).as_deref(), Some("/state/castra/devbox"));
        assert_eq!(dir(&all[1..], true).as_deref(), Some("/var/lib/castra/devbox"));
        assert_eq!(dir(&all[1..], false).as_deref(), Some("/home/u/.local/state/castra/devbox"));
        assert_eq!(dir(&[], false), None);
    }

    #[test]
    fn inside_a_guest_the_one_agent_is_found_and_a_broker_or_a_word_comes_first() {
        let runtime = tempfile::tempdir().unwrap();
        let home = runtime.path().to_str().unwrap();
        let find = |vars: &[(&str, &str)], dir: Option<&str>| {
            let env = |name: &str| {
                let given = vars.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).into());
                given.or_else(|| (name == "XDG_RUNTIME_DIR").then(|| home.into()))
            };
            let place = peer_place(&Surroundings { env: &env, root: false }, dir.map(Path::new), None);
            place.map(|place| place.socket.strip_prefix(runtime.path()).unwrap_or(&place.socket).to_owned())
        };
        let folder = runtime.path().join("castra");
        std::fs::create_dir_all(folder.join("devbox")).unwrap();
        std::fs::create_dir_all(folder.join("logs")).unwrap();
        assert_eq!(find(&[], None).unwrap(), Path::new("castra/control.sock"), "nobody is here");
        std::fs::write(folder.join("devbox/agent.sock"), "").unwrap();
        assert_eq!(find(&[], None).unwrap(), Path::new("castra/devbox/agent.sock"));
        assert_eq!(find(&[("CASTRA_STATE_DIR", "/s")], None).unwrap(), Path::new("/s/control.sock"));
        assert_eq!(find(&[], Some("/d")).unwrap(), Path::new("/d/control.sock"));
        std::fs::create_dir_all(folder.join("builder")).unwrap();
        std::fs::write(folder.join("builder/agent.sock"), "").unwrap();
        let several = find(&[], None).unwrap_err();
        assert_eq!(several.exit, crate::exit::Exit::Usage);
        assert!(several.message.contains("builder/agent.sock, "), "{several}");
        std::fs::write(folder.join("control.sock"), "").unwrap();
        assert_eq!(find(&[], None).unwrap(), Path::new("castra/control.sock"));
    }
}
