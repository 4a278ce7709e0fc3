//! The driver, as this program calls it.

pub(crate) use castra_driver::address::{ConnectAddress, ListenAddress};
pub(crate) use castra_driver::record::RecordError;
use castra_driver::supervisor::Supervisor;
pub(crate) use castra_driver::{agent, broker, load};

use crate::exit::Failure;

/// The service manager that started this process, if one did. Takes over what it passed,
/// so it comes before anything is opened.
pub(crate) fn supervisor(keep: bool) -> Result<Supervisor, Failure> {
    let variables = |name: &str| std::env::var_os(name);
    Supervisor::of_environment(&variables, keep).map_err(|error| Failure::usage(error.to_string()))
}
