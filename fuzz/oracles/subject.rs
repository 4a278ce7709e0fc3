//! The engines, as a check sees them.

use std::time::Duration;

use castra_core::config::{AgentConfig, BrokerConfig};
use castra_core::status::State;
use castra_core::terminals::TerminalsConfig;
use castra_core::time::Now;
use castra_core::{Agent, Broker, Engine, Sizes, Terminals};

/// An engine whose state can be looked at.
pub(crate) trait Subject: Engine + Clone {
    /// Bounds that some configuration named.
    type Bounds: Copy;

    /// The bounds of `config`, and those that were in force before it: what is there
    /// already stays when a bound falls.
    fn bounds(config: &Self::Config, before: Option<Self::Bounds>) -> Self::Bounds;

    /// What it owes, how large it is, and what it says. `open`: connections that the shell
    /// knows; `beside`: those of them that half-open ones may exceed their bound by.
    fn check(&self, now: Now, bounds: Self::Bounds, open: usize, beside: usize);

    /// Nothing is left of connections.
    fn check_empty(&self);
}

impl Subject for Broker {
    type Bounds = (Sizes, Duration);

    fn bounds(config: &BrokerConfig, before: Option<Self::Bounds>) -> Self::Bounds {
        let (before, window) = before.unwrap_or_default();
        let sizes = Sizes {
            guests: config.max_guests.max(before.guests),
            half_open: config.half_open_max.max(before.half_open),
            clients: config.control_clients_max.max(before.clients),
            message_bytes: config.peers.mail_bytes_max.max(before.message_bytes),
            streams: config.tunnel.streams_max.max(before.streams),
            stream_bytes: config.tunnel.bytes_max().max(before.stream_bytes),
            attachments: config.manager.attachments_max.max(before.attachments),
            actions: (config.manager.attachments_max * config.manager.queue_max).max(before.actions),
            http_clients: config.manager.connections_max.max(before.http_clients),
            ..before
        };
        (sizes, config.window.max(window))
    }

    fn check(&self, now: Now, (bounds, window): Self::Bounds, open: usize, beside: usize) {
        #[cfg(feature = "model")]
        if let Err(unguarded) = self.check_obligations() {
            panic!("L1, the broker: {unguarded}");
        }
        let sizes = self.sizes();
        let fits = sizes.guests <= bounds.guests
            && sizes.half_open <= bounds.half_open + beside
            && sizes.clients <= bounds.clients
            && sizes.message_bytes <= bounds.message_bytes
            && sizes.streams <= bounds.streams
            && sizes.stream_bytes <= bounds.stream_bytes
            && sizes.attachments <= bounds.attachments
            && sizes.actions <= bounds.actions
            && sizes.http_clients <= bounds.http_clients;
        assert!(fits, "S6: {sizes:?} beyond {bounds:?}");
        let there = sizes.links + sizes.clients + sizes.http_clients;
        assert!(there <= open, "S6: {there} connections of {open}");
        for glance in self.glances(now).filter(|glance| glance.state == State::Reachable) {
            let age = glance.proof_at.map(|at| now.boot.since(at));
            assert!(age.is_some_and(|age| age <= window), "S3: {} is {age:?} old", glance.name);
        }
    }

    fn check_empty(&self) {
        let Sizes { links, half_open, clients, streams, stream_bytes, http_clients, .. } = self.sizes();
        let left = (links, half_open, clients, streams, stream_bytes, http_clients);
        assert_eq!(left, (0, 0, 0, 0, 0, 0), "S6: something is left behind");
    }
}

impl Subject for Agent {
    type Bounds = ();

    fn bounds(_: &AgentConfig, _: Option<()>) {}

    fn check(&self, _: Now, (): (), _: usize, _: usize) {
        #[cfg(feature = "model")]
        if let Err(unguarded) = self.check_obligations() {
            panic!("L1, an agent: {unguarded}");
        }
    }

    fn check_empty(&self) {}
}

impl Subject for Terminals {
    type Bounds = (usize, usize, usize);

    fn bounds(config: &TerminalsConfig, before: Option<Self::Bounds>) -> Self::Bounds {
        let (clients, alive, input) = before.unwrap_or_default();
        (config.connections_max.max(clients), config.sessions_max.max(alive), config.input_max.max(input))
    }

    fn check(&self, _: Now, (clients, alive, input): Self::Bounds, open: usize, _: usize) {
        #[cfg(feature = "model")]
        if let Err(unguarded) = self.check_obligations() {
            panic!("L1, the terminals: {unguarded}");
        }
        let sizes = self.sizes();
        let fits = sizes.clients <= clients.min(open) && sizes.alive <= alive && sizes.input_of_one <= input;
        assert!(fits, "S6: {sizes:?} with {open} connections");
    }

    fn check_empty(&self) {
        let sizes = self.sizes();
        let left = (sizes.clients, sizes.subscribers, sizes.requests);
        assert_eq!(left, (0, 0, 0), "S6: something is left behind");
    }
}
