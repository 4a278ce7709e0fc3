//! The control protocol: JSON lines between local clients and the broker or agent.

pub mod attach;
pub(crate) mod client;
pub mod reply;
pub mod request;
