//! What control asks of the manager: each open request has an armed deadline and gets
//! exactly one answer.

use alloc::collections::BTreeMap;
use alloc::vec::Vec;
use core::time::Duration;

use crate::boundary::Wakeup;
use crate::broker::cx::Cx;
use crate::broker::facts::{CommandId, TimerKey};
use crate::id::{ConnId, GuestName, RequestId};
use crate::timers::TimerId;

/// A control client's request.
#[derive(Clone, Debug)]
pub(crate) struct Asker {
    pub(crate) conn: ConnId,
    pub(crate) id: Option<RequestId>,
}

/// A request that has no answer yet.
#[derive(Clone, Debug)]
pub(super) struct Request {
    pub(super) asker: Asker,
    pub(super) guest: GuestName,
    pub(super) kind: Kind,
    timer: TimerId,
}

/// What it waits for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Kind {
    /// The guest is to be adopted: until that is durable, or until it is attached.
    Adopt { wait: bool, durable: bool },
    /// The guest is to be let go of.
    Release,
    /// An action is to be queued, or done with.
    Send { number: u64, wait: bool, durable: bool },
}

/// All open requests.
#[derive(Clone, Debug, Default)]
pub(super) struct Requests {
    open: BTreeMap<CommandId, Request>,
    last: u64,
}

impl Requests {
    pub(super) fn open(
        &mut self,
        cx: &mut Cx,
        asker: Asker,
        guest: GuestName,
        kind: Kind,
        timeout: Duration,
    ) -> CommandId {
        self.last += 1;
        let id = CommandId(self.last);
        let timer = cx.timers.insert(TimerKey::Adoption(id));
        cx.timers.arm(timer, cx.at() + timeout, Wakeup::Command);
        self.open.insert(id, Request { asker, guest, kind, timer });
        id
    }

    pub(super) fn get(&self, id: CommandId) -> Option<&Request> {
        self.open.get(&id)
    }

    /// It waits for something else from now on.
    pub(super) fn turn(&mut self, id: CommandId, kind: Kind) {
        if let Some(request) = self.open.get_mut(&id) {
            request.kind = kind;
        }
    }

    pub(super) fn close(&mut self, cx: &mut Cx, id: CommandId) -> Option<Request> {
        let request = self.open.remove(&id)?;
        cx.timers.remove(request.timer);
        Some(request)
    }

    pub(super) fn ids(&self) -> Vec<CommandId> {
        self.open.keys().copied().collect()
    }

    #[cfg(feature = "model")]
    pub(super) fn len(&self) -> usize {
        self.open.len()
    }

    /// Those of a client.
    pub(super) fn of_conn(&self, conn: ConnId) -> Vec<CommandId> {
        self.matching(|request| request.asker.conn == conn)
    }

    /// Those who wait until a guest is attached.
    pub(super) fn adoptions_of(&self, guest: GuestName) -> Vec<CommandId> {
        self.matching(|request| {
            request.guest == guest && matches!(request.kind, Kind::Adopt { durable: true, .. })
        })
    }

    /// Those who wait for the end of an action.
    pub(super) fn of_action(&self, wanted: u64) -> Vec<CommandId> {
        self.matching(|request| matches!(request.kind, Kind::Send { number, .. } if number == wanted))
    }

    /// All that concern a guest.
    pub(super) fn about(&self, guest: GuestName) -> Vec<CommandId> {
        self.matching(|request| request.guest == guest)
    }

    /// They are no more than clients may have open: a few.
    fn matching(&self, wanted: impl Fn(&Request) -> bool) -> Vec<CommandId> {
        self.open.iter().filter(|(_, request)| wanted(request)).map(|(id, _)| *id).collect()
    }

    #[cfg(feature = "model")]
    pub(super) fn timers(&self) -> impl Iterator<Item = TimerId> {
        self.open.values().map(|request| request.timer)
    }
}
