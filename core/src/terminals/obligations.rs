//! What a daemon of terminals owes, and whether it would be woken for it.

use super::client::Stage;
use super::cx::Purpose;
use super::engine::Terminals;
use super::wire::State;
use crate::obligations::Unguarded;

impl Terminals {
    /// Whether everything that this daemon owes has an armed timer in time, or an
    /// effect whose end it waits for. To be asked between two calls of `handle`.
    ///
    /// # Errors
    /// The first obligation that nothing guards.
    pub fn check_obligations(&self) -> Result<(), Unguarded> {
        if self.has_stopped() {
            return Ok(());
        }
        let Self { cx, clients, sessions, asks, journal, .. } = self;
        Unguarded::new("work put off").unless(self.hungry.is_empty() && cx.notices.is_empty())?;
        if let Some((deadline, armed)) = self.drain_guard() {
            Unguarded::new("the drain").unless_armed(armed, deadline)?;
        }
        if let Some((by, armed)) = asks.guard(cx) {
            Unguarded::new("a request").unless_armed(armed, by)?;
            Unguarded::new("a request").unless_within(by, cx.at(), self.longest_request)?;
        }
        Unguarded::new("a record to be written").unless(!journal.is_unguarded(cx))?;
        for (conn, client) in clients {
            let owes = |what| Unguarded::new(what).on(*conn);
            if let Stage::Greeting { by } = client.stage {
                owes("a handshake").unless_armed(cx.timers.armed(client.timer), by)?;
            }
            owes("an answer").unless(client.open == asks.of(*conn))?;
        }
        for session in sessions.values() {
            if let Some(at) = session.earliest() {
                Unguarded::new("a terminal").unless_armed(cx.timers.armed(session.timer), at)?;
            }
            let left = session.owner.as_ref().is_some_and(|owner| owner.conn.is_none());
            Unguarded::new("an owner that left").unless(left == session.times.lease.is_some())?;
            let ends = session.state == State::Terminating;
            Unguarded::new("a terminal that is being ended").unless(!ends || session.times.kill.is_some())?;
            let ended = session.state == State::Exited;
            Unguarded::new("an ended terminal").unless(!ended || session.times.forget.is_some())?;
            let starts = session.state == State::Starting;
            let start = cx.is_open(Purpose::Spawn(session.id))
                || cx.is_open(Purpose::Adopt(session.id))
                || session.unspawned;
            Unguarded::new("a terminal that is being started").unless(!starts || start)?;
            let looks = session.looks.is_empty() || starts || cx.is_open(Purpose::Look(session.id));
            Unguarded::new("a look at the screen").unless(looks)?;
            let runs = matches!(session.state, State::Running | State::Terminating);
            let flows =
                !runs || session.granted || session.times.patience.is_some() || session.times.held.is_some();
            Unguarded::new("a terminal's output").unless(flows)?;
            let writes = !runs || session.input.is_empty() || cx.is_open(Purpose::Write(session.id));
            Unguarded::new("a terminal's input").unless(writes)?;
        }
        Ok(())
    }
}
