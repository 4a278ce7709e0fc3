//! What really is: known to the world alone, never to an engine.

use core::time::Duration;

use castra_core::time::Time;

use crate::net::Owner;

/// When each life of each process ran.
#[derive(Clone, Debug, Default)]
pub(crate) struct Truth {
    /// By process, then by life.
    lives: Vec<Vec<Life>>,
    pub(crate) broker: Slumber,
}

/// When the broker itself did not run.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Slumber {
    /// Since when it does not run.
    asleep: Option<Time>,
    /// Since when it does.
    awake: Time,
    /// When it last did not run for longer than a late deadline is forgiven.
    stalled: Option<(Time, Time)>,
    /// When it last did not run for so long that it must have noticed.
    noticed: Option<(Time, Time)>,
}

impl Slumber {
    /// A broker starts.
    pub(crate) fn begins(&mut self, now: Time) {
        *self = Self { awake: now, ..Self::default() };
    }

    /// It is stopped.
    pub(crate) fn sleeps(&mut self, now: Time) {
        self.asleep.get_or_insert(now);
    }

    /// It runs. `threshold`: a deadline may be that late; `interval`: one is due that often.
    pub(crate) fn wakes(&mut self, now: Time, threshold: Duration, interval: Duration) {
        let Some(asleep) = self.asleep.take() else { return };
        self.awake = now;
        if now.since(asleep) > threshold {
            self.stalled = Some((asleep, now));
        }
        if now.since(asleep) > threshold + interval {
            self.noticed = Some((asleep, now));
        }
    }

    /// Since when it runs without a break, if it runs.
    pub(crate) fn awake(&self) -> Option<Time> {
        self.asleep.is_none().then_some(self.awake)
    }

    /// Truth rule 4: whether a guest that was last heard of at `heard` may still
    /// be waited for, because it had no chance yet.
    pub(crate) fn may_excuse(&self, heard: Option<Time>, window: Duration, now: Time) -> bool {
        let had_its_chance = |woke: Time| now > woke + window || heard.is_some_and(|heard| heard >= woke);
        self.asleep.is_some() || self.stalled.is_some_and(|(_, woke)| !had_its_chance(woke))
    }

    /// Truth rule 4: whether it must be, because its proof counted when the broker
    /// last noticed anything.
    pub(crate) fn must_excuse(
        &self,
        proof_at: Time,
        heard: Option<Time>,
        (window, interval): (Duration, Duration),
        now: Time,
    ) -> bool {
        self.noticed.is_some_and(|(began, woke)| {
            let was_fresh = proof_at + window >= began + interval;
            was_fresh && now <= woke + window && heard.is_none_or(|heard| heard < woke)
        })
    }
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
