//! What the manager owes, and whether it would be woken for it.

use core::time::Duration;

use super::{Due, Manager, Post, SeatStage};
use crate::broker::cx::Cx;
use crate::obligations::Unguarded;

impl Manager {
    /// # Errors
    /// The first obligation that nothing guards.
    pub(crate) fn check(&self, cx: &Cx, most: Duration) -> Result<(), Unguarded> {
        if let Some((at, _)) = self.due.first() {
            Unguarded::new("an attachment").unless_armed(cx.timers.armed(self.timer), *at)?;
        }
        for timer in self.requests.timers() {
            let owes = Unguarded::new("a request about attachments");
            let Some(at) = cx.timers.armed(timer) else { return Err(owes) };
            owes.unless_within(at, cx.at(), most)?;
        }
        Unguarded::new("a change of an attachment").unless(self.lanes.is_guarded())?;
        for (guest, adopted) in &self.adopted {
            let owes = |what| Unguarded::new(what).of(*guest);
            if let Some(until) = adopted.code_until {
                owes("a code's end").unless(self.due.contains(&(until, Due::Code(*guest))))?;
            }
            if let Some(seat) = &adopted.seat {
                if let SeatStage::Settling(until) = seat.stage {
                    owes("a handshake").unless(self.due.contains(&(until, Due::Settle(*guest))))?;
                }
                owes("a seat").on(seat.conn).unless(self.seats.get(&seat.conn) == Some(guest))?;
            }
            for (number, waiting) in &adopted.queue {
                let due = self.due.contains(&(waiting.due, Due::Action(*guest, *number)));
                owes("an action's end").unless(waiting.settling || due)?;
            }
        }
        Ok(())
    }

    /// Requests of clients that have no answer yet.
    pub(crate) fn client_requests(&self) -> usize {
        let replies = self.post.iter().filter(|post| matches!(post, Post::Reply(..))).count();
        self.requests.len() + replies
    }

    /// Whether nothing is adopted, asked or written.
    pub(crate) fn is_idle(&self) -> bool {
        self.adopted.is_empty() && self.requests.len() == 0 && !self.is_storing() && self.post.is_empty()
    }
}
