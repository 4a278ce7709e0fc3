//! What must hold of whatever comes. A fuzz target and the stable test that
//! replays its seeds share each of these: `check` panics if it doesn't hold.

pub(crate) mod control_lines;
pub(crate) mod engine_ops;
pub(crate) mod http_bytes;
pub(crate) mod link_bytes;
pub(crate) mod saved_records;
pub(crate) mod terminal_frames;

mod choices;
mod host;
mod phrases;
mod rig;
pub(crate) mod scene;
mod subject;
