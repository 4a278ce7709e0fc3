//! What the machine owes, and whether it would be woken for it.

use core::time::Duration;

use super::machine::Peers;
use crate::broker::cx::Cx;
use crate::obligations::Unguarded;

impl Peers {
    /// Requests that have to be answered to clients.
    pub(crate) fn client_requests(&self) -> usize {
        let answers = self.post.iter().filter(|post| post.is_for_client()).count();
        self.requests.iter().filter(|(request, _)| !request.asker.is_guest()).count() + answers
    }

    /// `more`: the broker is called again at once.
    ///
    /// # Errors
    /// The first obligation that nothing guards.
    pub(crate) fn check(&self, cx: &Cx, most: Duration, more: bool) -> Result<(), Unguarded> {
        for (request, timer) in self.requests.iter() {
            let owes = Unguarded::new("a request about peers");
            owes.unless_armed(cx.timers.armed(timer), request.deadline)?;
            owes.unless_within(request.deadline, cx.at(), most)?;
        }
        for (conn, seat) in &self.seats {
            for (_, again) in &seat.sent {
                let guarded = *again <= cx.at() || seat.due.is_some_and(|due| due <= *again);
                Unguarded::new("a message sent again").on(*conn).unless(guarded)?;
            }
            let kept = seat.due.is_none_or(|due| self.due.contains(&(due, *conn)));
            Unguarded::new("what time brings to a session").on(*conn).unless(kept)?;
        }
        if more {
            // A client that was read on from at last asked behind the others.
            return Ok(());
        }
        if let Some(at) = self.next_due() {
            Unguarded::new("mail").unless_armed(self.armed(cx), at)?;
        }
        Unguarded::new("answers about peers").unless(self.post.is_empty())
    }
}
