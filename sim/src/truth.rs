//! What really is: known to the world alone, never to an engine.

use core::time::Duration;

use castra_core::time::Time;

use crate::net::Owner;

/// When each life of each process ran.
#[derive(Clone, Debug, Default)]
pub(crate) struct Truth {
    /// By process, then by life.
    lives: Vec<Vec<Life>>,
}

/// One incarnation.
#[derive(Clone, Copy, Debug)]
struct Life {
    running: bool,
    /// The last moment at which it ran, if it doesn't run now.
    last_ran: Time,
}

impl Truth {
    /// A process begins a life.
    pub(crate) fn born(&mut self, owner: Owner, now: Time) {
        if self.lives.len() <= owner.node {
            self.lives.resize(owner.node + 1, Vec::new());
        }
        let lives = &mut self.lives[owner.node];
        lives.resize(owner.life as usize, Life { running: false, last_ran: Time::ZERO });
        lives.push(Life { running: true, last_ran: now });
    }

    /// It froze or died.
    pub(crate) fn stopped(&mut self, owner: Owner, now: Time) {
        if let Some(life) = self.life_mut(owner).filter(|life| life.running) {
            *life = Life { running: false, last_ran: now };
        }
    }

    /// It goes on.
    pub(crate) fn resumed(&mut self, owner: Owner) {
        if let Some(life) = self.life_mut(owner) {
            life.running = true;
        }
    }

    /// S1: whether it ran at some moment of `[now − window, now]`.
    pub(crate) fn ran_within(&self, owner: Owner, window: Duration, now: Time) -> bool {
        self.life(owner).is_some_and(|life| life.running || now.since(life.last_ran) <= window)
    }

    /// Whether it ran at `at` or later.
    pub(crate) fn ran_since(&self, owner: Owner, at: Time) -> bool {
        self.life(owner).is_some_and(|life| life.running || life.last_ran >= at)
    }

    /// When it last ran; `None` if it runs, or never did.
    pub(crate) fn last_ran(&self, owner: Owner) -> Option<Time> {
        self.life(owner).filter(|life| !life.running).map(|life| life.last_ran)
    }

    fn life(&self, owner: Owner) -> Option<&Life> {
        self.lives.get(owner.node)?.get(owner.life as usize)
    }

    fn life_mut(&mut self, owner: Owner) -> Option<&mut Life> {
        self.lives.get_mut(owner.node)?.get_mut(owner.life as usize)
    }
}
