//! The driver, as this program calls it.

pub(crate) use castra_driver::address::{ConnectAddress, ListenAddress};
pub(crate) use castra_driver::record::RecordError;
pub(crate) use castra_driver::{agent, broker, load};
