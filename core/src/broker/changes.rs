//! Changes of durable state, and what becomes of memory when they are durable.

use alloc::vec::Vec;

use crate::auth::Key;
use crate::boundary::Change;
use crate::broker::cx::Cx;
use crate::broker::facts::Notice;
use crate::broker::guests::Guests;
use crate::control::reply::{GuestRestored, Pong, TokenIssued};
use crate::event::Fact;
use crate::id::GuestName;

#[derive(Clone, Debug)]
pub(crate) enum StoreOp {
    Issue { guest: GuestName, key: Key },
    Revoke { guest: GuestName },
    Forget { guest: GuestName },
}

impl StoreOp {
    /// What is written.
    pub(super) fn change(&self) -> Change {
        match self {
            Self::Issue { guest, key } => Change::SetToken { guest: *guest, key: Some(key.clone()) },
            Self::Revoke { guest } => Change::SetToken { guest: *guest, key: None },
            Self::Forget { guest } => Change::Forget { guest: *guest },
        }
    }
}

/// A successful answer.
#[derive(Debug)]
pub(super) enum Document {
    Json(Vec<u8>),
    Pong(Pong),
    TokenIssued(TokenIssued),
    TokenRevoked(GuestName),
    Forgotten(GuestName),
    Reloaded,
    Restored(GuestRestored),
}

/// The change is durable: memory follows.
pub(super) fn apply(cx: &mut Cx, guests: &mut Guests, op: StoreOp) -> Document {
    match op {
        StoreOp::Issue { guest, key } => {
            let token = key.expose_token();
            guests.set_token(guest, Some(key));
            // A full table only means that the row appears when the guest does.
            if let Ok(id) = guests.ensure(cx, guest) {
                guests.announce(cx, id);
            }
            cx.event(Some(guest), Fact::TokenIssued);
            cx.notify(Notice::TokenChanged(guest));
            Document::TokenIssued(TokenIssued { guest, token })
        }
        StoreOp::Revoke { guest } => {
            guests.set_token(guest, None);
            cx.event(Some(guest), Fact::TokenRevoked);
            cx.notify(Notice::TokenChanged(guest));
            Document::TokenRevoked(guest)
        }
        StoreOp::Forget { guest } => {
            if guests.token(&guest).is_some() {
                guests.set_token(guest, None);
            }
            cx.event(Some(guest), Fact::GuestForgotten);
            cx.notify(Notice::Forget(guest));
            Document::Forgotten(guest)
        }
    }
}
