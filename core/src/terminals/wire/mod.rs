//! The bytes between a daemon of terminals and its clients: wire version 1, as
//! published, and what is added to it (`docs/PROTOCOL.md`, section 18). Both
//! directions: the CLI is a client.
//!
//! A frame is a length and a MessagePack map with texts for keys, in any order.
//! What is absent and what is nil are one; what is unknown is skipped.

mod frame;
mod message;
mod pack;
mod request;
mod rows;
mod unpack;

use core::fmt;

pub use frame::{BadLength, CLIENT_FRAME_MAX, FRAME_MAX, Frames, GREETING_MAX, HEADER};
pub use message::{
    Answer, Event, Granted, Message, OUTPUT_OVERHEAD, append_error, append_event, append_granted,
    append_welcome,
};
pub use request::{Attach, Create, Handshake, Rejected, Rejection, Request, Secret};
pub use rows::SessionInfo;

/// The version of the wire.
pub const PROTOCOL_VERSION: u32 = 1;

/// What this daemon can do beyond the published one.
pub const CAPABILITIES: [&str; 2] = ["ownership-v2", "offsets-v1"];

/// A frame is not what it should be: the field, or what is wrong.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("not a frame of this protocol: {0}")]
pub struct Malformed(pub &'static str);

macro_rules! words {
    ($(#[$about:meta])* $kind:ident { $($(#[$doc:meta])* $variant:ident = $word:literal,)* }) => {
        $(#[$about])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
        pub enum $kind { $($(#[$doc])* $variant,)* }

        impl $kind {
            /// The word.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $word,)* }
            }

            /// The word's meaning.
            #[must_use]
            pub fn parse(word: &str) -> Option<Self> {
                match word { $($word => Some(Self::$variant),)* _ => None }
            }
        }

        impl fmt::Display for $kind {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(self.as_str())
            }
        }
    };
}

words! {
    /// What a connection may do.
    Role {
        /// Everything.
        Control = "control",
        /// Attach, detach, list, and look.
        Stream = "stream",
    }
}

words! {
    /// Whether output comes on the connection that asks for it.
    ChannelMode {
        /// It does.
        Single = "single",
        /// It goes to the `stream` connection of the same client id.
        Dual = "dual",
    }
}

words! {
    /// How far a subscriber is behind.
    Level {
        /// Hardly.
        Green = "green",
        /// Some.
        Yellow = "yellow",
        /// So much that it may lose output.
        Red = "red",
    }
}

words! {
    /// What `kill_all` means by all.
    Scope {
        /// Terminals that this connection owns.
        Owned = "owned",
        /// Every terminal.
        All = "all",
    }
}

words! {
    /// How a terminal is.
    State {
        /// Its program is being started.
        Starting = "starting",
        /// Its program runs.
        Running = "running",
        /// Its program is being ended.
        Terminating = "terminating",
        /// Its program ended, or is gone.
        Exited = "exited",
    }
}

words! {
    /// Why a request is refused.
    ErrorCode {
        /// The token is wrong.
        AuthFailed = "AUTH_FAILED",
        /// There was a handshake already.
        AlreadyAuthenticated = "ALREADY_AUTHENTICATED",
        /// The key is taken, and was to be free.
        AlreadyExists = "ALREADY_EXISTS",
        /// The working directory isn't there.
        CwdMissing = "CWD_MISSING",
        /// A value can't be.
        InvalidArgument = "INVALID_ARGUMENT",
        /// The client id is empty or too long.
        InvalidClientId = "INVALID_CLIENT_ID",
        /// There is no such signal.
        InvalidSignal = "INVALID_SIGNAL",
        /// Something failed underneath.
        IoError = "IO_ERROR",
        /// There are too many, or there is too much.
        LimitReached = "LIMIT_REACHED",
        /// The handshake comes first.
        NotAuthenticated = "NOT_AUTHENTICATED",
        /// There is no such terminal, or its program ended.
        NotFound = "NOT_FOUND",
        /// Another connection owns the terminal.
        OwnerRequired = "OWNER_REQUIRED",
        /// The directory or program may not be used.
        PermissionDenied = "PERMISSION_DENIED",
        /// The client speaks the wire of before `client_id` and `role`.
        ProtoBreakingChange = "PROTO_BREAKING_CHANGE",
        /// Not a frame of this protocol.
        ProtocolError = "PROTOCOL_ERROR",
        /// Another version of the protocol.
        ProtocolMismatch = "PROTOCOL_MISMATCH",
        /// A `stream` connection may not do this.
        RoleForbidden = "ROLE_FORBIDDEN",
        /// The terminal could not be started or changed.
        SessionError = "SESSION_ERROR",
        /// The terminal is being ended.
        SessionTerminating = "SESSION_TERMINATING",
        /// The shell or program isn't there.
        ShellNotFound = "SHELL_NOT_FOUND",
        /// The daemon takes leave.
        ShuttingDown = "SHUTTING_DOWN",
        /// The other connection of a dual client isn't there.
        StreamNotConnected = "STREAM_NOT_CONNECTED",
        /// This belongs on the control connection of a dual client.
        WrongChannel = "WRONG_CHANNEL",
    }
}
