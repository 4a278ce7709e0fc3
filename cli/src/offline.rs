//! What a client can say when no broker does: the offline document.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use castra_core::capabilities::Capabilities;
use castra_core::id::GuestName;
use castra_core::status::{BrokerState, BrokerStatus, GuestStatus, Reason, SCHEMA, State, StatusOutcome};
use castra_core::time::WallTime;
use serde::Deserialize;

/// A record of more than this is none of ours.
const RECORD_MAX: u64 = 64 * 1024;

#[derive(Deserialize)]
struct Record {
    vm: Option<String>,
    timestamp: Option<u64>,
}

/// Every known guest as `offline`: those of `handshakes/*.json` in the state
/// directory, or only `names` (each of them, since without a broker nobody
/// can say that a name is unknown).
pub(crate) fn outcome(state_dir: &Path, names: &[GuestName], broker: BrokerState) -> StatusOutcome {
    let mut known = records(&state_dir.join("handshakes"));
    if !names.is_empty() {
        known.retain(|name, _| names.contains(name));
        for name in names {
            known.entry(*name).or_insert(None);
        }
    }
    let reason = match broker {
        BrokerState::NotAnswering => Reason::BrokerNotAnswering,
        BrokerState::Offline | BrokerState::Serving | BrokerState::Draining => Reason::NoBroker,
    };
    let rows = known.into_iter().map(|(name, seen)| absent_guest(name, seen, reason)).collect();
    let mut document = document(rows, broker);
    if broker == BrokerState::NotAnswering {
        let pid = crate::down::lock_holder(state_dir);
        document.broker.pid = pid.and_then(|pid| u32::try_from(pid.as_raw_pid()).ok());
    }
    document
}

/// The document around the rows.
pub(crate) fn document(guests: Vec<GuestStatus>, state: BrokerState) -> StatusOutcome {
    StatusOutcome {
        schema: SCHEMA,
        as_of: wall_now(),
        broker: BrokerStatus {
            state,
            pid: None,
            version: None,
            started_at: None,
            incarnation: None,
            listen: vec![],
            guests: u64::try_from(guests.len()).unwrap_or(u64::MAX),
            reachable: 0,
        },
        guests,
    }
}

/// A guest about whom only its last sign of life is known.
pub(crate) fn absent_guest(name: GuestName, seen: Option<WallTime>, reason: Reason) -> GuestStatus {
    GuestStatus {
        name,
        state: State::Offline,
        reachable: false,
        reason: Some(reason),
        warnings: vec![],
        proven: false,
        authenticated: false,
        last_handshake_age_ms: None,
        last_handshake_at: seen,
        session_age_ms: None,
        window_ms: None,
        interval_ms: None,
        epoch: None,
        boot: None,
        transport: None,
        remote: None,
        rtt_us: None,
        handshakes: 0,
        refusals: 0,
        takeovers: 0,
        capabilities: Capabilities::default(),
        peers: vec![],
        attachment: None,
    }
}

/// The castra 0.1 records: name and newest timestamp. A bad file is skipped:
/// it must cost nobody the answer.
fn records(folder: &Path) -> BTreeMap<GuestName, Option<WallTime>> {
    let mut known: BTreeMap<GuestName, Option<WallTime>> = BTreeMap::new();
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.extension().is_none_or(|extension| extension != "json") {
            continue;
        }
        let stem = path.file_stem().and_then(|stem| stem.to_str()).unwrap_or_default();
        let Some((name, seen)) = record(&path, stem) else { continue };
        let newest = known.entry(name).or_insert(seen);
        *newest = (*newest).max(seen);
    }
    known
}

fn record(path: &Path, stem: &str) -> Option<(GuestName, Option<WallTime>)> {
    // Not a FIFO or a device: opening one could block.
    if !path.symlink_metadata().ok()?.is_file() {
        return None;
    }
    let mut text = String::new();
    File::open(path).ok()?.take(RECORD_MAX).read_to_string(&mut text).ok()?;
    let record: Record = serde_json::from_str(&text).ok()?;
    let name = record.vm.as_deref().unwrap_or(stem).trim().parse().ok()?;
    let seen = record.timestamp.and_then(|seconds| i64::try_from(seconds).ok()?.checked_mul(1000));
    Some((name, seen.map(WallTime::from_unix_millis)))
}

/// Now, for display.
pub(crate) fn wall_now() -> WallTime {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    WallTime::from_unix_millis(i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn records_give_names_and_times_and_bad_ones_cost_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("handshakes");
        fs::create_dir(&folder).unwrap();
        for (file, text) in [
            ("devbox.json", r#"{"vm":"devbox","timestamp":1795188257,"bus":{}}"#),
            ("other.json", r#"{"vm":"devbox","timestamp":5}"#),
            ("builder.json", r#"{"timestamp":7}"#),
            ("torn.json", r#"{"vm":"to"#),
            ("evil.json", r#"{"vm":"../../etc","timestamp":7}"#),
            ("handshake-events.jsonl", "{}"),
        ] {
            fs::write(folder.join(file), text).unwrap();
        }
        fs::create_dir(folder.join("folder.json")).unwrap();
        let found = outcome(dir.path(), &[], BrokerState::Offline);
        let rows: Vec<_> =
            found.guests.iter().map(|row| (row.name.as_str(), row.last_handshake_at)).collect();
        let at = |seconds: i64| Some(WallTime::from_unix_millis(seconds * 1000));
        assert_eq!(rows, [("builder", at(7)), ("devbox", at(1_795_188_257))]);
        assert!(found.guests.iter().all(|row| !row.reachable && row.state == State::Offline));
    }

    #[test]
    fn a_name_that_was_asked_for_has_a_row_whether_known_or_not() {
        let dir = tempfile::tempdir().unwrap();
        let found = outcome(dir.path(), &["ghost".parse().unwrap()], BrokerState::NotAnswering);
        assert_eq!(found.guests.len(), 1);
        assert_eq!(found.guests[0].reason, Some(Reason::BrokerNotAnswering));
        assert_eq!(found.guests[0].last_handshake_at, None);
    }
}
