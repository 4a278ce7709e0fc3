//! The answer to a scrape: numbers and a snapshot, as text.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use castra_core::status::{Reason, State};
use castra_core::time::WallTime;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::text::{encode_eof, encode_registry};
use prometheus_client::encoding::{DescriptorEncoder, EncodeLabelSet, MetricEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::{Registry, Unit};

use super::effects::Effects;
use super::numbers::{Histogram, Numbers, REASONS};
use super::process::Process;
use super::snapshot::{Row, Snapshot};

/// How the text is to be written.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Format {
    /// OpenMetrics 1.0, for who asks for it: Prometheus does.
    OpenMetrics,
    /// Prometheus' older text format, for everybody else.
    Plain,
}

impl Format {
    pub(super) const fn content_type(self) -> &'static str {
        match self {
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
            Self::Plain => "text/plain; version=0.0.4; charset=utf-8",
        }
    }
}

/// What doesn't change while the process runs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Build {
    pub(crate) version: &'static str,
    pub(crate) started_at: WallTime,
}

/// All series.
pub(super) fn text(snapshot: Arc<Snapshot>, build: Build, format: Format) -> String {
    let mut registry = Registry::default();
    registry.register_collector(Box::new(Collected { snapshot, process: Process::now(), build }));
    let mut text = String::with_capacity(64 * 1024);
    // A text takes every write.
    let _ = encode_registry(&mut text, &registry);
    match format {
        Format::OpenMetrics => {
            let _ = encode_eof(&mut text);
            text
        }
        Format::Plain => plain(&text),
    }
}

/// OpenMetrics in the older format: there a counter's description has the name of its
/// samples, and no other comments mean anything.
fn plain(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut help = None;
    for line in text.lines() {
        if let Some(described) = line.strip_prefix("# HELP ") {
            help = described.split_once(' ');
        } else if let Some((name, kind)) =
            line.strip_prefix("# TYPE ").and_then(|typed| typed.split_once(' '))
        {
            let total = if kind == "counter" { "_total" } else { "" };
            let help = help.take().map_or("", |(_, help)| help);
            out.extend(["# HELP ", name, total, " ", help, "\n# TYPE ", name, total, " ", kind, "\n"]);
        } else if !line.starts_with('#') {
            out.extend([line, "\n"]);
        }
    }
    out
}

#[derive(Debug)]
struct Collected {
    snapshot: Arc<Snapshot>,
    process: Process,
    build: Build,
}

impl Collector for Collected {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let mut page = Page(encoder);
        handshakes(&mut page, &self.snapshot.numbers)?;
        happenings(&mut page, &self.snapshot.numbers)?;
        work(&mut page, &self.snapshot.numbers, &self.snapshot.effects)?;
        self.broker(&mut page)?;
        self.tables(&mut page)?;
        self.troubles(&mut page)?;
        if let Some(rows) = &self.snapshot.rows {
            guests(&mut page, rows)?;
        }
        self.process(&mut page)
    }
}

impl Collected {
    fn broker(&self, page: &mut Page<'_>) -> fmt::Result {
        let Snapshot { verdicts, sessions, rows, bounds, .. } = &*self.snapshot;
        let build = [([("version", self.build.version)], 1.0)];
        page.gauges("castra_build_info", "The version that runs", None, build)?;
        let waiting = REASONS.map(|reason| (State::Waiting, Some(reason)));
        let known = [(State::Reachable, None)].into_iter().chain(waiting).map(|verdict| (verdict, 0));
        let mut counts: BTreeMap<_, _> = known.collect();
        counts.extend(verdicts);
        let counted = counts.into_iter().map(|((state, reason), count)| {
            ([("state", state.as_str()), ("reason", reason.map_or("", Reason::as_str))], count as f64)
        });
        page.gauges("castra_guests", "Guests by verdict", None, counted)?;
        page.gauge("castra_sessions", "Guests with an open session", *sessions)?;
        let omitted = u64::from(rows.is_none());
        let help = "Whether guests have no series of their own, for they are more than --metrics-guests";
        page.gauge("castra_guest_series_omitted", help, omitted)?;
        let (window, interval) = (bounds.window.as_secs_f64(), bounds.interval.as_secs_f64());
        let seconds = Some(&Unit::Seconds);
        page.gauge_of(
            "castra_window",
            "How old the newest proof of a reachable guest may be",
            seconds,
            window,
        )?;
        page.gauge_of("castra_interval", "How often guests are challenged", seconds, interval)
    }

    fn tables(&self, page: &mut Page<'_>) -> fmt::Result {
        let Snapshot { sizes, connections: (links, control), connections_max, bounds, .. } = &*self.snapshot;
        page.gauge("castra_guests_bounded", "Guests that count against the bound", sizes.guests as u64)?;
        page.gauge("castra_guests_limit", "Most guests without a token", bounds.guests as u64)?;
        let connections = [("link", links), ("control", control)];
        let connections = connections.map(|(via, count)| ([("via", via)], *count as f64));
        page.gauges("castra_connections", "Connections, closing ones included", None, connections)?;
        page.gauge("castra_connections_limit", "Most connections at once", *connections_max as u64)?;
        page.gauge(
            "castra_handshakes_open",
            "Links that have not proven themselves yet",
            sizes.half_open as u64,
        )?;
        page.gauge("castra_handshakes_open_limit", "Most of them", bounds.half_open as u64)?;
        page.gauge("castra_messages", "Messages between peers that are remembered", sizes.messages as u64)?;
        let bytes = Some(&Unit::Bytes);
        let help = "What they are reckoned to take";
        page.gauge_of("castra_messages", help, bytes, sizes.message_bytes as f64)?;
        page.gauge("castra_streams", "Streams to guests' terminals", sizes.streams as u64)?;
        page.gauge_of("castra_streams", "What they hold", bytes, sizes.stream_bytes as f64)?;
        page.gauge("castra_attachments", "Guests that are adopted", sizes.attachments as u64)?;
        page.gauge("castra_actions_waiting", "Actions for adopted guests that wait", sizes.actions as u64)?;
        page.gauge(
            "castra_manager_connections",
            "HTTP connections of adopted guests",
            sizes.http_clients as u64,
        )
    }

    fn troubles(&self, page: &mut Page<'_>) -> fmt::Result {
        let Snapshot { statistics, counters, .. } = &*self.snapshot;
        page.counter("castra_connections_accepted", "Connections accepted", counters.accepted)?;
        let help = "Accepts that failed for want of descriptors or memory";
        page.counter("castra_accept_failures", help, counters.accept_failures)?;
        page.counter_of("castra_received", "Read from connections", &Unit::Bytes, counters.received as f64)?;
        page.counter_of("castra_sent", "Written to connections", &Unit::Bytes, counters.sent as f64)?;
        let help = "Lines dropped because the log files could not keep up";
        page.counter("castra_log_lines_dropped", help, counters.lines_suppressed)?;
        let help = "Challenges not sent because the guest did not read";
        page.counter("castra_challenges_blocked", help, statistics.challenges_blocked)?;
        page.counter("castra_proofs_late", "Answers to forgotten challenges", statistics.late_proofs)?;
        page.counter("castra_proofs_wrong", "Wrong answers to challenges", statistics.strikes)?;
        let help = "Links closed before their proof to make room for others";
        page.counter("castra_handshakes_evicted", help, statistics.evictions)?;
        page.counter(
            "castra_clock_regressions",
            "Times the boot clock went back",
            statistics.clock_regressions,
        )?;
        let help = "Messages of the 0.1 bus dropped because a guest did not read";
        page.counter("castra_bus_messages_dropped", help, statistics.messages_dropped)
    }

    fn process(&self, page: &mut Page<'_>) -> fmt::Result {
        let Process { cpu_seconds, resident_bytes, open_descriptors, descriptors_max } = self.process;
        let started = self.build.started_at.unix_millis() as f64 / 1000.0;
        let seconds = &Unit::Seconds;
        page.gauge_of("process_start_time", "When it started, since 1970", Some(seconds), started)?;
        page.counter_of("process_cpu", "Processor time, user and system", seconds, cpu_seconds)?;
        if let Some(bytes) = resident_bytes {
            page.gauge_of("process_resident_memory", "Resident memory", Some(&Unit::Bytes), bytes as f64)?;
        }
        if let Some(open) = open_descriptors {
            page.gauge("process_open_fds", "Open descriptors", open)?;
        }
        if let Some(max) = descriptors_max {
            page.gauge("process_max_fds", "Most descriptors", max)?;
        }
        Ok(())
    }
}

fn handshakes(page: &mut Page<'_>, numbers: &Numbers) -> fmt::Result {
    let Numbers { begun, completed, failed, handshakes, ended, sessions, conflicts, .. } = numbers;
    page.counter("castra_handshakes_begun", "Valid hellos", *begun)?;
    let help = "Handshakes that succeeded, by proof";
    page.counters("castra_handshakes_completed", help, pairs(&completed.0))?;
    let help = "Handshakes that came to nothing, by code";
    page.counters("castra_handshakes_failed", help, pairs(&failed.0))?;
    page.histogram("castra_handshake", "From a guest's hello to its ok", handshakes)?;
    page.counters("castra_sessions_ended", "Sessions that ended, by reason", pairs(&ended.0))?;
    page.histogram("castra_session", "How long sessions lasted that ended", sessions)?;
    page.counter("castra_name_conflicts", "Connections that claimed a name in use", *conflicts)
}

fn happenings(page: &mut Page<'_>, numbers: &Numbers) -> fmt::Result {
    let Numbers { verdicts, stalls, stalled, sent, delivered, expired, events, turns, lags, .. } = numbers;
    page.counters("castra_verdict_changes", "Changes of a guest's verdict", pairs(&verdicts.0))?;
    let help = "Times the broker itself was not running, by cause";
    page.counters("castra_stalls", help, pairs(&stalls.0))?;
    let help = "How long the broker itself was not running, by cause";
    let seconds = &Unit::Seconds;
    let mut family = page.family("castra_stalled", help, Some(seconds), MetricType::Counter)?;
    for (labels, millis) in stalled {
        let value = Duration::from_millis(*millis).as_secs_f64();
        family.encode_family(labels)?.encode_counter::<NoLabelSet, f64, f64>(&value, None)?;
    }
    page.counter("castra_messages_sent", "Messages between peers that were taken", *sent)?;
    page.counter("castra_messages_delivered", "Messages that are in their inbox", *delivered)?;
    let help = "Messages that will not be delivered, by reason";
    page.counters("castra_messages_expired", help, pairs(&expired.0))?;
    page.counters("castra_events", "Events, by kind", pairs(&events.0))?;
    page.histogram("castra_loop_turn", "How long the loop was busy between two waits", turns)?;
    page.histogram("castra_loop_lag", "How late a turn began that had a deadline", lags)
}

fn work(page: &mut Page<'_>, numbers: &Numbers, effects: &Effects) -> fmt::Result {
    let stores = [&numbers.storage, &effects.storage];
    let help = "Failures to write, by what could not be written";
    let failures = stores.into_iter().flat_map(|store| pairs(&store.failures.0));
    page.counters("castra_storage_failures", help, failures)?;
    let help = "Whether the newest attempt to write failed, by what was to be written";
    let failing = stores.into_iter().flat_map(|store| pairs(&store.failing));
    let failing = failing.map(|(labels, failing)| (labels, f64::from(u8::from(failing))));
    page.gauges("castra_storage_failing", help, None, failing)?;
    page.counters("castra_effects", "Jobs of worker threads that ended", pairs(&effects.ended.0))?;
    let help = "From a job's order to its end, by kind";
    let mut family = page.family("castra_effect", help, Some(&Unit::Seconds), MetricType::Histogram)?;
    for (labels, times) in &effects.times {
        encode(&mut family.encode_family(labels)?, times)?;
    }
    let help = "Jobs of worker threads that wait or are being done, by kind";
    let waiting = effects.in_flight.iter().map(|(labels, count)| (*labels, *count as f64));
    page.gauges("castra_effects_in_flight", help, None, waiting)
}

fn pairs<K: Copy, V: Copy>(map: &BTreeMap<K, V>) -> impl Iterator<Item = (K, V)> {
    map.iter().map(|(labels, value)| (*labels, *value))
}

fn encode(to: &mut MetricEncoder<'_>, histogram: &Histogram) -> fmt::Result {
    let (sum, count, buckets) = (histogram.sum, histogram.count(), histogram.buckets());
    to.encode_histogram::<NoLabelSet>(sum, count, &buckets, None)
}

/// A family with a series for each guest: its name, its help, and what it says.
type Column<T> = (&'static str, &'static str, fn(&Row) -> T);

/// What is said of each guest alone. Without guests there is nothing to describe.
fn guests(page: &mut Page<'_>, rows: &[Row]) -> fmt::Result {
    if rows.is_empty() {
        return Ok(());
    }
    fn label(row: &Row) -> [(&'static str, &str); 1] {
        [("guest", row.name.as_str())]
    }
    let flag = |value: bool| f64::from(u8::from(value));
    let reachable = rows.iter().map(|row| (label(row), flag(row.reason.is_none())));
    page.gauges("castra_guest_reachable", "Whether the guest is reachable", None, reachable)?;
    let waiting = rows
        .iter()
        .filter_map(|row| Some(([("guest", row.name.as_str()), ("reason", row.reason?.as_str())], 1.0)));
    page.gauges("castra_guest_waiting", "Why the guest is not reachable", None, waiting)?;
    let keyed = rows.iter().map(|row| (label(row), flag(row.authenticated)));
    page.gauges("castra_guest_authenticated", "Whether its proof was made with a key", None, keyed)?;
    let ages: [Column<Option<Duration>>; 4] = [
        ("castra_guest_proof_age", "Age of its newest proof; none: no proof yet", |row| row.proof_age),
        ("castra_guest_window", "How old its newest proof may be", |row| row.window),
        ("castra_guest_session_age", "Age of its session; none: no session", |row| row.session_age),
        ("castra_guest_rtt", "How long its newest answer took", |row| row.rtt),
    ];
    for (name, help, of) in ages {
        let some = rows.iter().filter_map(|row| Some((label(row), of(row)?.as_secs_f64())));
        page.gauges(name, help, Some(&Unit::Seconds), some)?;
    }
    let counts: [Column<u64>; 3] = [
        ("castra_guest_exchanges", "Answered challenges, keepalives included", |row| row.exchanges),
        ("castra_guest_refusals", "Refused handshakes under this name", |row| row.refusals),
        ("castra_guest_takeovers", "Sessions that another connection superseded", |row| row.takeovers),
    ];
    for (name, help, of) in counts {
        page.counters(name, help, rows.iter().map(|row| (label(row), of(row))))?;
    }
    Ok(())
}

/// Families, written one after the other.
struct Page<'a>(DescriptorEncoder<'a>);

impl Page<'_> {
    fn gauge(&mut self, name: &str, help: &str, value: u64) -> fmt::Result {
        self.gauge_of(name, help, None, value as f64)
    }

    fn gauge_of(&mut self, name: &str, help: &str, unit: Option<&Unit>, value: f64) -> fmt::Result {
        self.family(name, help, unit, MetricType::Gauge)?.encode_gauge(&value)
    }

    fn gauges<L: EncodeLabelSet>(
        &mut self,
        name: &str,
        help: &str,
        unit: Option<&Unit>,
        values: impl IntoIterator<Item = (L, f64)>,
    ) -> fmt::Result {
        let mut family = self.family(name, help, unit, MetricType::Gauge)?;
        for (labels, value) in values {
            family.encode_family(&labels)?.encode_gauge(&value)?;
        }
        Ok(())
    }

    fn counter(&mut self, name: &str, help: &str, value: u64) -> fmt::Result {
        self.family(name, help, None, MetricType::Counter)?
            .encode_counter::<NoLabelSet, u64, f64>(&value, None)
    }

    fn counter_of(&mut self, name: &str, help: &str, unit: &Unit, value: f64) -> fmt::Result {
        self.family(name, help, Some(unit), MetricType::Counter)?
            .encode_counter::<NoLabelSet, f64, f64>(&value, None)
    }

    fn counters<L: EncodeLabelSet>(
        &mut self,
        name: &str,
        help: &str,
        values: impl IntoIterator<Item = (L, u64)>,
    ) -> fmt::Result {
        let mut family = self.family(name, help, None, MetricType::Counter)?;
        for (labels, value) in values {
            family.encode_family(&labels)?.encode_counter::<NoLabelSet, u64, f64>(&value, None)?;
        }
        Ok(())
    }

    fn histogram(&mut self, name: &str, help: &str, histogram: &Histogram) -> fmt::Result {
        let mut family = self.family(name, help, Some(&Unit::Seconds), MetricType::Histogram)?;
        encode(&mut family, histogram)
    }

    fn family<'s>(
        &'s mut self,
        name: &'s str,
        help: &str,
        unit: Option<&'s Unit>,
        kind: MetricType,
    ) -> Result<MetricEncoder<'s>, fmt::Error> {
        self.0.encode_descriptor(name, &format!("{help}."), unit, kind)
    }
}
