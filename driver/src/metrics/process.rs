//! What the kernel says of this process, under the names that all Prometheus clients use.

use rustix::process::{Resource, getrlimit};
use rustix::time::{ClockId, clock_gettime};

/// The process's own resources. What can't be read is left out.
#[derive(Clone, Copy, PartialEq, Debug, Default)]
pub(super) struct Process {
    /// User and system time of all threads.
    pub(super) cpu_seconds: f64,
    pub(super) resident_bytes: Option<u64>,
    pub(super) open_descriptors: Option<u64>,
    pub(super) descriptors_max: Option<u64>,
}

impl Process {
    pub(super) fn now() -> Self {
        let cpu = clock_gettime(ClockId::ProcessCPUTime);
        let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
        let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:")?.strip_suffix("kB"));
        let resident = resident.and_then(|kibibytes| kibibytes.trim().parse::<u64>().ok());
        // The listing has a descriptor of its own.
        let open = std::fs::read_dir("/proc/self/fd").ok().map(|entries| entries.count().saturating_sub(1));
        Self {
            cpu_seconds: cpu.tv_sec as f64 + cpu.tv_nsec as f64 / 1e9,
            resident_bytes: resident.map(|kibibytes| kibibytes * 1024),
            open_descriptors: open.map(|count| count as u64),
            descriptors_max: getrlimit(Resource::Nofile).current,
        }
    }
}
