//! Counters for `metrics`.

use alloc::borrow::Cow;
use alloc::vec::Vec;

use super::Recovery;
use super::cx::Statistics;
use super::engine::Terminals;

impl Terminals {
    /// Counters by name, in a fixed order: what `metrics` answers. Durations are in
    /// microseconds.
    #[must_use]
    pub fn metrics(&self) -> Vec<(Cow<'static, str>, u64)> {
        let Statistics {
            stale_inputs,
            handshakes,
            refused_handshakes,
            created,
            exits,
            attaches,
            attach_micros,
            attach_micros_max,
            output_bytes,
            input_bytes,
            resyncs,
            skipped_bytes,
            backpressure_warnings,
            throttles,
            owner_denials,
            takeovers,
            adopted,
            restored,
            unrecoverable,
            storage_failures,
        } = self.cx.statistics;
        let sizes = self.sizes();
        let lag = |client: &super::client::Client| -> u64 {
            let lags = client.watches.iter().filter_map(|watch| {
                Some(self.sessions.get(&watch.terminal)?.ring.end().saturating_sub(watch.next))
            });
            lags.sum()
        };
        let queued: u64 = self.clients.values().map(|client| lag(client) + client.waiting() as u64).sum();
        let recovered = |wanted: &Recovery| {
            self.sessions.values().filter(|session| session.recovery.as_ref() == Some(wanted)).count()
        };
        let counters = [
            ("sessions", sizes.alive as u64),
            ("sessions_exited", (sizes.terminals - sizes.alive) as u64),
            ("sessions_adopted", recovered(&Recovery::Adopted) as u64),
            ("sessions_restored", recovered(&Recovery::Restored) as u64),
            ("connections", sizes.clients as u64),
            ("subscribers", sizes.subscribers as u64),
            ("requests_open", sizes.requests as u64),
            ("output_queue_bytes", queued),
            ("input_queue_bytes", sizes.input as u64),
            ("handshakes_total", handshakes),
            ("handshakes_refused_total", refused_handshakes),
            ("created_total", created),
            ("exits_total", exits),
            ("attaches_total", attaches),
            ("attach_micros_total", attach_micros),
            ("attach_micros_max", attach_micros_max),
            ("output_bytes_total", output_bytes),
            ("input_bytes_total", input_bytes),
            ("resyncs_total", resyncs),
            ("skipped_bytes_total", skipped_bytes),
            ("backpressure_warnings_total", backpressure_warnings),
            ("throttles_total", throttles),
            ("owner_denials_total", owner_denials),
            ("takeovers_total", takeovers),
            ("adopted_total", adopted),
            ("restored_total", restored),
            ("unrecoverable_total", unrecoverable),
            ("storage_failures_total", storage_failures),
            ("stale_inputs_total", stale_inputs),
        ];
        counters.map(|(name, value)| (Cow::Borrowed(name), value)).to_vec()
    }
}
