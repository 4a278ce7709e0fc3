//! Guests that are not there are started, if the operator said how.

use core::time::Duration;

use alloc::format;

use crate::boundary::{Effect, EffectError};
use crate::broker::changes::Document;
use crate::broker::clients::{Clients, problem};
use crate::broker::commands::{Asker, Commands, Kind, bounded, unknown};
use crate::broker::cx::Cx;
use crate::broker::guests::Guests;
use crate::control::reply::{ErrorCode, GuestRestored};
use crate::event::Fact;
use crate::id::{EffectId, GuestName};
use crate::status::State;

/// Most start commands that are watched at once.
const STARTS_MAX: usize = 16;

impl Commands {
    /// Runs a guest's start command, unless it is there or on its way, and waits
    /// until it is reachable.
    pub(crate) fn restore(
        &mut self,
        cx: &mut Cx,
        clients: &mut Clients,
        guests: &Guests,
        asker: Asker,
        guest: GuestName,
        timeout: Option<Duration>,
    ) {
        let status = guests.find(&guest).and_then(|row| guests.status(cx, row, cx.now));
        let Some(status) = status else { return self.answer(cx, clients, asker, Err(unknown(&guest))) };
        if status.state == State::Reachable {
            let restored = GuestRestored { guest, started: false };
            return self.answer(cx, clients, asker, Ok(Document::Restored(restored)));
        }
        if !cx.config.peers.restorable.contains(&guest) {
            let text = format!(
                "{guest} is known, but not restorable: it has no start command; \
                 [guests.{guest}] start = \"…\" in castra.toml gives it one"
            );
            return self.answer(cx, clients, asker, Err(problem(ErrorCode::Refused, text)));
        }
        // A command that ended well may have left the rest to others.
        let starting = self.starts.values().any(|other| *other == guest) || !self.restoring(guest).is_empty();
        if !starting && self.starts.len() >= STARTS_MAX {
            let text = format!("{STARTS_MAX} guests are being started already; try again");
            return self.answer(cx, clients, asker, Err(problem(ErrorCode::Busy, text)));
        }
        let timeout = timeout.unwrap_or(cx.config.peers.restore_timeout);
        let deadline = cx.at() + timeout;
        self.open(cx, asker, Kind::Restore { guest }, timeout);
        if !starting {
            let effect = cx.out.effect(Effect::Start { guest, deadline });
            self.starts.insert(effect, guest);
            cx.event(Some(guest), Fact::GuestStarted);
        }
    }

    /// A start command ended, or is not watched any more; false: no such effect.
    pub(super) fn on_started(
        &mut self,
        cx: &mut Cx,
        clients: &mut Clients,
        effect: EffectId,
        result: &Result<(), EffectError>,
    ) -> bool {
        let Some(guest) = self.starts.remove(&effect) else { return false };
        if let Err(error) = result {
            let text = format!("the start command of {guest} failed: {}", bounded(error));
            for id in self.restoring(guest) {
                self.fail(cx, clients, id, problem(ErrorCode::Refused, text.clone()));
            }
        }
        true
    }

    /// A guest that was to be restored is reachable.
    pub(super) fn on_restored(&mut self, cx: &mut Cx, clients: &mut Clients, guest: GuestName) {
        for id in self.restoring(guest) {
            if let Some(asker) = self.close(cx, id) {
                let restored = GuestRestored { guest, started: true };
                self.answer(cx, clients, asker, Ok(Document::Restored(restored)));
            }
        }
    }

    fn restoring(&self, guest: GuestName) -> alloc::vec::Vec<crate::broker::facts::CommandId> {
        let concerned = |id: &&crate::broker::facts::CommandId| {
            matches!(self.open.get(id).map(|command| &command.kind), Some(Kind::Restore { .. }))
        };
        self.waiting_for(guest).iter().filter(concerned).copied().collect()
    }
}
