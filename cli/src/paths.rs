//! Where the broker is.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use castra_core::id::GuestName;
use castra_driver::broker::CONTROL_SOCKET;

use crate::exit::Failure;

/// Where to ask.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Place {
    /// The control socket of a broker, or an agent's own.
    pub(crate) socket: PathBuf,
    /// The state directory; beside an explicit socket, the folder that holds it.
    pub(crate) state_dir: PathBuf,
}

/// What decides where the broker is, so that tests can choose it.
pub(crate) struct Surroundings<'a> {
    /// An environment variable.
    pub(crate) env: &'a dyn Fn(&str) -> Option<OsString>,
    /// Whether the user is root.
    pub(crate) root: bool,
}

impl Surroundings<'_> {
    /// The process's own.
    pub(crate) fn real() -> Surroundings<'static> {
        Surroundings { env: &|name| std::env::var_os(name), root: rustix::process::geteuid().is_root() }
    }

    /// A path in a variable; an empty one counts as none.
    pub(crate) fn path(&self, name: &str) -> Option<PathBuf> {
        (self.env)(name).filter(|value| !value.is_empty()).map(PathBuf::from)
    }

    /// `$XDG_RUNTIME_DIR/castra`, else `/run/castra` for root or `~/.local/state/castra`.
    fn default_dir(&self) -> Result<PathBuf, Failure> {
        if let Some(runtime) = self.path("XDG_RUNTIME_DIR") {
            return Ok(runtime.join("castra"));
        }
        if self.root {
            return Ok(PathBuf::from("/run/castra"));
        }
        self.path("HOME").map(|home| home.join(".local/state/castra")).ok_or_else(|| {
            Failure::usage(
                "can't tell where the state directory is: neither XDG_RUNTIME_DIR nor HOME is set; give --state-dir DIR",
            )
        })
    }

    /// The state directory that a broker owns: `--state-dir`, `CASTRA_STATE_DIR`, else the default.
    pub(crate) fn state_dir(&self, given: Option<&Path>) -> Result<PathBuf, Failure> {
        match given.map(Path::to_path_buf).or_else(|| self.path("CASTRA_STATE_DIR")) {
            Some(dir) => Ok(dir),
            None => self.default_dir(),
        }
    }

    /// Whom a client asks: `--socket`, `--state-dir`, `CASTRA_STATE_DIR`,
    /// `CASTRA_AGENT_SOCKET`, else the default state directory.
    pub(crate) fn place(&self, state_dir: Option<&Path>, socket: Option<&Path>) -> Result<Place, Failure> {
        let chosen = state_dir.map(Path::to_path_buf);
        if let Some(socket) = socket {
            return Ok(Place::at_socket(socket, chosen));
        }
        if let Some(dir) = chosen.or_else(|| self.path("CASTRA_STATE_DIR")) {
            return Ok(Place::in_dir(dir));
        }
        if let Some(socket) = self.path("CASTRA_AGENT_SOCKET") {
            return Ok(Place::at_socket(&socket, None));
        }
        self.default_dir().map(Place::in_dir)
    }

    /// Whom peers' commands ask: as [`Surroundings::place`]; but where nobody says
    /// whom, no broker has a socket and one agent has, that agent.
    pub(crate) fn peer_place(
        &self,
        state_dir: Option<&Path>,
        socket: Option<&Path>,
    ) -> Result<Place, Failure> {
        let place = self.place(state_dir, socket)?;
        let said = state_dir.is_some()
            || socket.is_some()
            || ["CASTRA_STATE_DIR", "CASTRA_AGENT_SOCKET"].iter().any(|name| self.path(name).is_some());
        if said || place.socket.exists() {
            return Ok(place);
        }
        let entries = std::fs::read_dir(&place.state_dir).into_iter().flatten().flatten();
        let mut agents: Vec<PathBuf> =
            entries.map(|entry| entry.path().join("agent.sock")).filter(|socket| socket.exists()).collect();
        agents.sort();
        match &agents[..] {
            [] => Ok(place),
            [only] => Ok(Place::at_socket(only, None)),
            several => {
                let names: Vec<String> = several.iter().map(|path| crate::client::shown(path)).collect();
                let names = names.join(", ");
                Err(Failure::usage(format!("several agents are here: say with --socket which one: {names}")))
            }
        }
    }

    /// Where an agent listens when nobody says: `NAME/agent.sock` in the default directory.
    pub(crate) fn agent_socket(&self, name: &GuestName) -> Result<PathBuf, Failure> {
        Ok(self.default_dir()?.join(name.as_str()).join("agent.sock"))
    }

    /// Where an agent keeps its guest's messages when nobody says: `NAME` in
    /// `$XDG_STATE_HOME/castra`, else `/var/lib/castra` for root or `~/.local/state/castra`.
    pub(crate) fn inbox_dir(&self, name: &GuestName) -> Option<PathBuf> {
        let state = self.path("XDG_STATE_HOME");
        let system = || self.root.then(|| PathBuf::from("/var/lib"));
        let home = || self.path("HOME").map(|home| home.join(".local/state"));
        Some(state.or_else(system).or_else(home)?.join("castra").join(name.as_str()))
    }
}

impl Place {
    /// The broker of a state directory.
    pub(crate) fn in_dir(state_dir: PathBuf) -> Self {
        Self { socket: state_dir.join(CONTROL_SOCKET), state_dir }
    }

    fn at_socket(socket: &Path, state_dir: Option<PathBuf>) -> Self {
        let beside = || socket.parent().unwrap_or(Path::new("")).to_path_buf();
        Self { socket: socket.to_path_buf(), state_dir: state_dir.unwrap_or_else(beside) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(
        vars: &[(&str, &str)],
        root: bool,
        dir: Option<&str>,
        socket: Option<&str>,
    ) -> Result<Place, Failure> {
        let env = |name: &str| vars.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).into());
        Surroundings { env: &env, root }.place(dir.map(Path::new), socket.map(Path::new))
    }

    const ALL: [(&str, &str); 4] = [
        ("CASTRA_STATE_DIR", "/env"),
        ("CASTRA_AGENT_SOCKET", "/guest/agent.sock"),
        ("XDG_RUNTIME_DIR", "/xdg"),
        ("HOME", "/home/u"),
    ];

    #[test]
    fn the_nearest_word_wins() {
        let socket = |place: Result<Place, Failure>| place.unwrap().socket.display().to_string();
        assert_eq!(socket(place(&ALL, true, Some("/arg"), Some("/s/x.sock"))), "/s/x.sock");
        assert_eq!(socket(place(&ALL, true, Some("/arg"), None)), "/arg/control.sock");
        assert_eq!(socket(place(&ALL, true, None, None)), "/env/control.sock");
        assert_eq!(socket(place(&ALL[1..], true, None, None)), "/guest/agent.sock");
        assert_eq!(socket(place(&ALL[2..], true, None, None)), "/xdg/castra/control.sock");
        assert_eq!(socket(place(&ALL[3..], true, None, None)), "/run/castra/control.sock");
        assert_eq!(socket(place(&ALL[3..], false, None, None)), "/home/u/.local/state/castra/control.sock");
    }

    #[test]
    fn an_inbox_is_in_the_state_of_its_user() {
        let dir = |vars: &[(&str, &str)], root: bool| {
            let env =
                |name: &str| vars.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).into());
            let dir = Surroundings { env: &env, root }.inbox_dir(&"devbox".parse().unwrap());
            dir.map(|dir| dir.display().to_string())
        };
        let all = [("XDG_STATE_HOME", "/state"), ("HOME", "/home/u")];
        assert_eq!(dir(&all, true).as_deref(), Some("/state/castra/devbox"));
        assert_eq!(dir(&all[1..], true).as_deref(), Some("/var/lib/castra/devbox"));
        assert_eq!(dir(&all[1..], false).as_deref(), Some("/home/u/.local/state/castra/devbox"));
        assert_eq!(dir(&[], false), None);
    }

    #[test]
    fn records_are_looked_for_beside_an_explicit_socket_unless_a_folder_is_named() {
        assert_eq!(place(&ALL, false, None, Some("/s/x.sock")).unwrap().state_dir, Path::new("/s"));
        assert_eq!(place(&ALL, false, Some("/d"), Some("/s/x.sock")).unwrap().state_dir, Path::new("/d"));
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
            let place = Surroundings { env: &env, root: false }.peer_place(dir.map(Path::new), None);
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

    #[test]
    fn empty_variables_count_as_unset_and_a_homeless_user_is_told_what_to_do() {
        let vars = [("CASTRA_STATE_DIR", ""), ("XDG_RUNTIME_DIR", ""), ("HOME", "")];
        let failure = place(&vars, false, None, None).unwrap_err();
        assert_eq!(failure.exit, crate::exit::Exit::Usage);
        assert!(failure.message.contains("--state-dir"));
    }
}
