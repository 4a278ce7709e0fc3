//! What `castra doctor` looks at, gathered once, so that the checks are functions of it.

use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use castra_core::control::reply::Info;
use castra_core::event::Event;
use castra_core::status::StatusOutcome;
use serde::Deserialize;
use serde_json::json;
use serde_json::value::RawValue;

use crate::client::{Client, ClientError};
use crate::paths::Place;

/// Default of `--timeout`: bounds each of the three questions.
pub(super) const TIMEOUT: Duration = Duration::from_secs(2);

/// Where the kernel shows the ports of a virtio-serial device, by name.
pub(super) const VIRTIO_PORTS: &str = "/dev/virtio-ports";

/// Everything that the checks may look at.
#[derive(Clone, Debug)]
pub(crate) struct Facts {
    pub(crate) state_dir: PathBuf,
    pub(crate) socket: PathBuf,
    /// Who asks.
    pub(crate) uid: u32,
    pub(crate) dir_entry: Option<Entry>,
    pub(crate) socket_entry: Option<Entry>,
    pub(crate) asked: Asked,
    /// The process that holds the state directory's lock.
    pub(crate) holder: Option<i32>,
    pub(crate) space: Option<Space>,
    /// Of the broker's process; none if it may not be looked at.
    pub(crate) descriptors: Option<Descriptors>,
    /// What there is in [`VIRTIO_PORTS`]; none without that directory.
    pub(crate) virtio_ports: Option<Vec<String>>,
    /// Devices that don't exist of those that an agent is to connect through.
    pub(crate) missing_devices: Vec<PathBuf>,
}

/// What came of asking.
#[derive(Clone, Debug)]
pub(crate) enum Asked {
    Answers(Box<Answers>),
    NoBroker,
    NotAnswering,
    Denied,
    Other(String),
}

/// What was answered.
#[derive(Clone, Debug)]
pub(crate) struct Answers {
    pub(crate) info: Info,
    /// None from an agent.
    pub(crate) status: Option<StatusOutcome>,
    /// Those that this program knows, oldest first.
    pub(crate) events: Vec<Event>,
}

/// Something in the file system.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Entry {
    pub(crate) uid: u32,
    /// Permissions alone.
    pub(crate) mode: u32,
    pub(crate) is_dir: bool,
    pub(crate) is_socket: bool,
}

/// Of the file system that holds the state directory.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Space {
    pub(crate) free_bytes: u64,
    pub(crate) free_files: u64,
    /// Some file systems count none.
    pub(crate) files: u64,
    pub(crate) read_only: bool,
}

/// Of a process.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Descriptors {
    /// A broker shows them to root alone.
    pub(crate) open: Option<u64>,
    pub(crate) soft: u64,
    pub(crate) hard: u64,
}

impl Facts {
    /// Asks whoever serves at `place`, and looks at what is around it.
    pub(crate) fn gather(place: &Place, bound: Duration) -> Self {
        let asked = ask(&place.socket, bound);
        let (mut descriptors, mut missing_devices) = (None, vec![]);
        if let Asked::Answers(answers) = &asked {
            descriptors = descriptors_of(answers.info.pid);
            if answers.info.link.is_some() {
                let devices =
                    answers.info.listen.iter().filter_map(|address| address.strip_prefix("serial:"));
                missing_devices = devices.map(PathBuf::from).filter(|device| !device.exists()).collect();
            }
        }
        Self {
            state_dir: place.state_dir.clone(),
            socket: place.socket.clone(),
            uid: rustix::process::geteuid().as_raw(),
            dir_entry: entry(&place.state_dir),
            socket_entry: entry(&place.socket),
            asked,
            holder: crate::down::lock_holder(&place.state_dir).map(|pid| pid.as_raw_pid()),
            space: space(&place.state_dir),
            descriptors,
            virtio_ports: names(Path::new(VIRTIO_PORTS)),
            missing_devices,
        }
    }

    pub(super) fn answers(&self) -> Option<&Answers> {
        match &self.asked {
            Asked::Answers(answers) => Some(answers),
            _ => None,
        }
    }
}

fn ask(socket: &Path, bound: Duration) -> Asked {
    match answers(socket, bound) {
        Ok(answers) => Asked::Answers(Box::new(answers)),
        Err(ClientError::NoBroker { .. }) => Asked::NoBroker,
        Err(ClientError::NotAnswering { .. } | ClientError::Closed { .. }) => Asked::NotAnswering,
        Err(ClientError::Denied { .. }) => Asked::Denied,
        Err(other) => Asked::Other(other.to_string()),
    }
}

fn answers(socket: &Path, bound: Duration) -> Result<Answers, ClientError> {
    #[derive(Deserialize)]
    struct Kept {
        events: Vec<Box<RawValue>>,
    }
    let mut client = Client::connect(socket, bound)?;
    let info: Info = client.request("info", json!({}), bound)?.parse()?;
    let kept: Kept = client.request("events", json!({"follow": false}), bound)?.parse()?;
    let status = match info.link {
        None => Some(client.request("status", json!({}), bound)?.parse()?),
        Some(_) => None,
    };
    // A kind that is newer than this program says nothing to it.
    let events = kept.events.iter().filter_map(|event| serde_json::from_str(event.get()).ok()).collect();
    Ok(Answers { info, status, events })
}

fn entry(path: &Path) -> Option<Entry> {
    let meta = fs::symlink_metadata(path).ok()?;
    let kind = meta.file_type();
    Some(Entry {
        uid: meta.uid(),
        mode: meta.mode() & 0o7777,
        is_dir: kind.is_dir(),
        is_socket: kind.is_socket(),
    })
}

fn space(dir: &Path) -> Option<Space> {
    let stat = rustix::fs::statvfs(dir).ok()?;
    Some(Space {
        free_bytes: stat.f_bavail.saturating_mul(stat.f_frsize),
        free_files: stat.f_favail,
        files: stat.f_files,
        read_only: stat.f_flag.contains(rustix::fs::StatVfsMountFlags::RDONLY),
    })
}

fn descriptors_of(pid: u32) -> Option<Descriptors> {
    let process = Path::new("/proc").join(pid.to_string());
    let open = fs::read_dir(process.join("fd")).ok().and_then(|open| u64::try_from(open.count()).ok());
    let limits = fs::read_to_string(process.join("limits")).ok()?;
    let (soft, hard) = open_files(&limits)?;
    Some(Descriptors { open, soft, hard })
}

/// The soft and the hard limit in `/proc/PID/limits`.
fn open_files(limits: &str) -> Option<(u64, u64)> {
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files"))?;
    let mut numbers = line.split_whitespace().map(|word| word.parse().unwrap_or(u64::MAX));
    Some((numbers.next()?, numbers.next()?))
}

fn names(dir: &Path) -> Option<Vec<String>> {
    let entries = fs::read_dir(dir).ok()?;
    Some(entries.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned()).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_limits_of_a_process_are_read() {
        let text = "Limit   Soft Limit  Hard Limit  Units\nMax open files            1024                 524288               files\n";
        assert_eq!(open_files(text), Some((1024, 524_288)));
        assert_eq!(open_files("Max open files   unlimited  unlimited  files"), Some((u64::MAX, u64::MAX)));
        assert_eq!(open_files("nothing"), None);
        let own = descriptors_of(std::process::id()).expect("our own may be looked at");
        assert!(own.open.is_some_and(|open| open >= 3 && own.soft >= open), "{own:?}");
    }
}
