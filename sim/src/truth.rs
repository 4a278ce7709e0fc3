//! What really is: known to the world alone, never to an engine.

use core::time::Duration;

use castra_core::time::Time;

/// When each guest ran.
#[derive(Clone, Debug)]
pub struct Truth {
    guests: Vec<Presence>,
}

/// One guest.
#[derive(Clone, Copy, Debug)]
struct Presence {
    running: bool,
    /// The last moment at which it ran.
    last_ran: Option<Time>,
}

impl Truth {
    /// `count` guests, none of which ever ran.
    #[must_use]
    pub fn new(count: usize) -> Self {
        Self { guests: vec![Presence { running: false, last_ran: None }; count] }
    }

    /// The guest runs from now on.
    pub fn start(&mut self, guest: usize) {
        self.guests[guest].running = true;
    }

    /// The guest froze or died at `now`.
    pub fn stop(&mut self, guest: usize, now: Time) {
        let presence = &mut self.guests[guest];
        if presence.running {
            *presence = Presence { running: false, last_ran: Some(now) };
        }
    }

    /// Whether it runs.
    #[must_use]
    pub fn is_running(&self, guest: usize) -> bool {
        self.guests[guest].running
    }

    /// S1: whether the guest ran at some moment of `[now − window, now]`.
    #[must_use]
    pub fn ran_within(&self, guest: usize, window: Duration, now: Time) -> bool {
        let presence = self.guests[guest];
        presence.running || presence.last_ran.is_some_and(|last| now.since(last) <= window)
    }
}
