//! A bug on purpose in a real broker, agent or server of terminals: only with the feature `planted`.

use castra_core::planted::Bug;

/// The bug that `CASTRA_PLANTED` names.
pub(crate) fn bug() -> Option<Bug> {
    let word = std::env::var("CASTRA_PLANTED").ok()?;
    match word.parse() {
        Ok(bug) => Some(bug),
        Err(_) => panic!("CASTRA_PLANTED={word}: no planted bug is called so"),
    }
}
