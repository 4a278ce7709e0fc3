//! Where the broker is.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

/// The control socket's name in a broker's state directory.
pub const CONTROL_SOCKET: &str = "control.sock";

/// Where to ask.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Place {
    /// The control socket of a broker, or an agent's own.
    pub socket: PathBuf,
    /// The state directory; beside an explicit socket, the folder that holds it.
    pub state_dir: PathBuf,
}

impl Place {
    /// Where `castra status` asks without arguments: `CASTRA_STATE_DIR`, `CASTRA_AGENT_SOCKET`,
    /// else the default state directory (`docs/PROTOCOL.md`, section 11). Looks at no file:
    /// whether anybody is there, [`crate::Client::connect`] says.
    ///
    /// # Errors
    /// [`Nowhere`]: none of the variables is set that it could be told by.
    pub fn find() -> Result<Self, Nowhere> {
        Surroundings::real().place(None, None)
    }

    /// The broker of a state directory.
    #[must_use]
    pub fn in_dir(state_dir: PathBuf) -> Self {
        Self { socket: state_dir.join(CONTROL_SOCKET), state_dir }
    }

    /// Whoever listens at `socket`.
    #[must_use]
    pub fn at_socket(socket: &Path) -> Self {
        let beside = socket.parent().unwrap_or(Path::new("")).to_path_buf();
        Self { socket: socket.to_path_buf(), state_dir: beside }
    }
}

/// Nothing says where the state directory is.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error(
    "can't tell where the state directory is: neither XDG_RUNTIME_DIR nor HOME is set; give --state-dir DIR or CASTRA_STATE_DIR"
)]
pub struct Nowhere;

/// What decides where the broker is: the process's own, or what a test says.
///
/// ```
/// use castra_client::Surroundings;
///
/// let env = |name: &str| (name == "XDG_RUNTIME_DIR").then(|| "/run/user/1000".into());
/// let place = Surroundings { env: &env, root: false }.place(None, None)?;
/// assert_eq!(place.socket.to_str(), Some("/run/user/1000/castra/control.sock"));
/// # Ok::<(), castra_client::Nowhere>(())
/// ```
pub struct Surroundings<'a> {
    /// An environment variable.
    pub env: &'a dyn Fn(&str) -> Option<OsString>,
    /// Whether the user is root.
    pub root: bool,
}

impl std::fmt::Debug for Surroundings<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Surroundings").field("root", &self.root).finish_non_exhaustive()
    }
}

impl Surroundings<'_> {
    /// The process's own.
    #[must_use]
    pub fn real() -> Surroundings<'static> {
        Surroundings { env: &|name| std::env::var_os(name), root: rustix::process::geteuid().is_root() }
    }

    /// A path in a variable; an empty one counts as none.
    #[must_use]
    pub fn path(&self, name: &str) -> Option<PathBuf> {
        (self.env)(name).filter(|value| !value.is_empty()).map(PathBuf::from)
    }

    /// `$XDG_RUNTIME_DIR/castra`, else `/run/castra` for root or `~/.local/state/castra`.
    ///
    /// # Errors
    /// [`Nowhere`]: a user who is not root, and neither variable is set.
    pub fn default_dir(&self) -> Result<PathBuf, Nowhere> {
        if let Some(runtime) = self.path("XDG_RUNTIME_DIR") {
            return Ok(runtime.join("castra"));
        }
        if self.root {
            return Ok(PathBuf::from("/run/castra"));
        }
        self.path("HOME").map(|home| home.join(".local/state/castra")).ok_or(Nowhere)
    }

    /// The state directory that a broker owns: the given one, `CASTRA_STATE_DIR`, else the default.
    ///
    /// # Errors
    /// As [`Surroundings::default_dir`].
    pub fn state_dir(&self, given: Option<&Path>) -> Result<PathBuf, Nowhere> {
        match given.map(Path::to_path_buf).or_else(|| self.path("CASTRA_STATE_DIR")) {
            Some(dir) => Ok(dir),
            None => self.default_dir(),
        }
    }

    /// Whom a client asks: the given socket, the given state directory, `CASTRA_STATE_DIR`,
    /// `CASTRA_AGENT_SOCKET`, else the default state directory.
    ///
    /// # Errors
    /// As [`Surroundings::default_dir`].
    pub fn place(&self, state_dir: Option<&Path>, socket: Option<&Path>) -> Result<Place, Nowhere> {
        let chosen = state_dir.map(Path::to_path_buf);
        if let Some(socket) = socket {
            let place = Place::at_socket(socket);
            return Ok(Place { state_dir: chosen.unwrap_or(place.state_dir), ..place });
        }
        if let Some(dir) = chosen.or_else(|| self.path("CASTRA_STATE_DIR")) {
            return Ok(Place::in_dir(dir));
        }
        if let Some(socket) = self.path("CASTRA_AGENT_SOCKET") {
            return Ok(Place::at_socket(&socket));
        }
        self.default_dir().map(Place::in_dir)
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
    ) -> Result<Place, Nowhere> {
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
        let socket = |place: Result<Place, Nowhere>| place.map(|place| place.socket.display().to_string());
        let is = |text: &str| Ok(text.to_owned());
        assert_eq!(socket(place(&ALL, true, Some("/arg"), Some("/s/x.sock"))), is("/s/x.sock"));
        assert_eq!(socket(place(&ALL, true, Some("/arg"), None)), is("/arg/control.sock"));
        assert_eq!(socket(place(&ALL, true, None, None)), is("/env/control.sock"));
        assert_eq!(socket(place(&ALL[1..], true, None, None)), is("/guest/agent.sock"));
        assert_eq!(socket(place(&ALL[2..], true, None, None)), is("/xdg/castra/control.sock"));
        assert_eq!(socket(place(&ALL[3..], true, None, None)), is("/run/castra/control.sock"));
        assert_eq!(
            socket(place(&ALL[3..], false, None, None)),
            is("/home/u/.local/state/castra/control.sock")
        );
    }

    #[test]
    fn records_are_looked_for_beside_an_explicit_socket_unless_a_folder_is_named() {
        let dir = |dir, socket| place(&ALL, false, dir, socket).map(|place| place.state_dir);
        assert_eq!(dir(None, Some("/s/x.sock")), Ok("/s".into()));
        assert_eq!(dir(Some("/d"), Some("/s/x.sock")), Ok("/d".into()));
    }

    #[test]
    fn empty_variables_count_as_unset_and_a_homeless_user_is_told_what_to_do() {
        let vars = [("CASTRA_STATE_DIR", ""), ("XDG_RUNTIME_DIR", ""), ("HOME", "")];
        assert_eq!(place(&vars, false, None, None), Err(Nowhere));
        assert!(Nowhere.to_string().contains("--state-dir"));
    }
}
