//! How a broker stops: everybody is told, what is owed is said, what was begun is written.

use alloc::vec::Vec;

use super::Broker;
use super::cx::Cx;
use super::guests::Guests;
use super::links::{Links, Stage};
use crate::boundary::{CloseReason, Source, Wakeup};
use crate::event::{Fact, Failure, SessionEnd};
use crate::id::ConnId;
use crate::time::Time;

#[derive(Clone, Copy, Debug)]
pub(super) struct Drain {
    pub(super) deadline: Time,
    pub(super) stopped: bool,
}

/// How long a drain asked for over control may take; the shell settles for one more second.
pub(super) const DRAIN_TIMEOUT: core::time::Duration = core::time::Duration::from_secs(2);

impl Broker {
    pub(super) fn begin_drain(&mut self, deadline: Time) {
        if self.drain.is_some() {
            return;
        }
        self.drain = Some(Drain { deadline, stopped: false });
        self.cx.event(None, Fact::BrokerStopping);
        self.cx.draining = true;
        self.cx.out.read(Source::LinkDoor, 0);
        self.cx.out.read(Source::ControlDoor, 0);
        if self.cx.config.manager.http.is_some() {
            self.cx.out.read(Source::ManagerDoor, 0);
        }
        self.cx.timers.arm(self.drain_timer, deadline, Wakeup::Drain);
        let Self { cx, guests, links, clients, commands, peers, manager, server, .. } = self;
        commands.on_drain(cx, clients);
        peers.on_drain(cx, guests);
        manager.on_drain(cx);
        server.on_drain(cx);
        for conn in links.table.ids().collect::<Vec<_>>() {
            links.leave(cx, guests, conn);
        }
        clients.dismiss();
    }

    pub(super) fn on_drain(&mut self) {
        let Some(drain) = self.drain else { return };
        if drain.stopped {
            return;
        }
        let Self { cx, guests, clients, commands, records, peers, manager, .. } = self;
        records.pump(cx, guests, true);
        let storing = commands.is_storing() || peers.is_storing() || manager.is_storing();
        let idle = clients.len() == 0 && !storing && !records.is_busy() && !cx.is_busy();
        if idle || cx.at() >= drain.deadline {
            commands.abandon(cx, clients);
            peers.abandon(cx);
            manager.abandon(cx);
            self.pump_peers();
            self.pump_manager();
            let Self { cx, guests, clients, server, .. } = self;
            clients.pump(cx, guests);
            clients.close_all(cx);
            server.close_all(cx);
            cx.timers.disarm(self.drain_timer);
            cx.out.stopped();
            if let Some(drain) = &mut self.drain {
                drain.stopped = true;
            }
        }
    }
}

impl Links {
    /// The broker stops: the guest is told when to come back.
    fn leave(&mut self, cx: &mut Cx, guests: &mut Guests, conn: ConnId) {
        let Some(link) = self.table.get(conn) else { return };
        if link.session.is_some() {
            self.say_bye(cx, conn, SessionEnd::Shutdown);
            self.end_session(cx, guests, conn, SessionEnd::Shutdown);
        }
        if self.table.get(conn).is_some_and(|link| matches!(link.stage, Stage::Proving(_))) {
            self.fail(cx, guests, conn, Failure::Shutdown);
        }
        self.hang_up(cx, conn, CloseReason::Drained);
    }
}
