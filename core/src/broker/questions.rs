//! What guests ask over their links: about themselves and their peers.

use core::time::Duration;

use crate::broker::changes::Document;
use crate::broker::clients::{Clients, problem};
use crate::broker::commands::{Asker, Commands, unknown};
use crate::broker::cx::Cx;
use crate::broker::facts::RowId;
use crate::broker::guests::{Guests, Row};
use crate::broker::peers::may_ask_about;
use crate::broker::walk::{Envelope, Names, Walk};
use crate::control::reply::ErrorCode;
use crate::id::ConnId;
use crate::link::message::{GuestRequest, GuestRequestKind};

impl Commands {
    /// A guest asks over its link: about itself and its peers.
    pub(crate) fn on_asked(
        &mut self,
        cx: &mut Cx,
        clients: &mut Clients,
        guests: &Guests,
        conn: ConnId,
        row: RowId,
        request: GuestRequest,
    ) {
        let Some(name) = guests.get(row).map(Row::name) else { return };
        let asker = Asker::Guest { conn, guest: name, kind: request.kind, id: request.id };
        let timeout = request.timeout_ms.map(Duration::from_millis);
        let mut names = request.guests;
        if names.is_empty() {
            names.push(name);
        }
        if let Some(stranger) = names.iter().find(|other| !may_ask_about(guests, name, **other)) {
            return self.answer(cx, clients, asker, Err(unknown(stranger)));
        }
        if timeout.is_some_and(|timeout| timeout > cx.config.request_timeout_max) {
            return self.answer(cx, clients, asker, Err(problem(ErrorCode::InvalidRequest, "")));
        }
        match request.kind {
            GuestRequestKind::Status => {
                names.sort_unstable();
                names.dedup();
                let walk = Walk::status(Envelope::Bare, Names::Listed(names, 0), cx.now.wall);
                let answer = walk.finish(cx, guests, name);
                self.answer(cx, clients, asker, Ok(Document::Json(answer)));
            }
            GuestRequestKind::Wait => match request.target {
                Some(target) => self.wait(cx, clients, guests, asker, (names, target, request.any), timeout),
                None => self.answer(cx, clients, asker, Err(problem(ErrorCode::InvalidRequest, ""))),
            },
            GuestRequestKind::PingGuest => self.ping(cx, clients, guests, asker, names[0], timeout),
            GuestRequestKind::Restore => self.restore(cx, clients, guests, asker, names[0], timeout),
        }
    }
}
