//! Managed attach: a manager adopts a guest that knows nothing of it.
//!
//! What both sides and their shells share: identifiers, secrets, addresses, frames,
//! records and settings. The two machines: `manager` (in the broker) and `agent`.

pub(crate) mod agent;
mod http;
mod id;
mod ledger;
pub(crate) mod manager;
mod record;
mod secret;
pub(crate) mod server;
mod settings;
mod url;
pub mod wire;

pub use http::{Body, HttpAnswer, HttpRequest, Method};
pub use id::{AttachId, InvalidAttachId};
pub use ledger::AttachLedger;
pub use record::{Action, ActionCode, ActionStatus, Applied, Attachment, RestoredManager, Route, Stage};
pub use secret::{InvalidSecret, Secret};
pub use settings::{AttachSettings, Hint, ManagerSettings};
pub use url::{InvalidUrl, ManagerUrl, Origin};

/// The capability of an agent that a manager can adopt.
pub const ATTACH_V1: &str = "attach-v1";

/// The only kind of action that an agent knows: bytes typed into a terminal.
pub const TERMINAL_WRITE: &str = "terminal_write";

/// Longest kind of an action, in bytes.
pub const KIND_MAX: usize = 64;

/// Longest payload of an action as JSON, in bytes: four of them fit an answer.
pub const PAYLOAD_MAX: usize = 15 * 1024;

/// Longest answer to a request of an agent, in bytes.
pub const ANSWER_MAX: usize = 64 * 1024;
