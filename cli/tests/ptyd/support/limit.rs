//! A bound on what a process that runs may still have, as an operator would set it.

use rustix::process::{Pid, Resource, Rlimit, prlimit};

/// A process with less than it had, until this is dropped.
pub(crate) struct Limited {
    pid: Pid,
    resource: fn() -> Resource,
    before: Rlimit,
}

impl Limited {
    /// No file grows beyond that many bytes, or is written there.
    pub(crate) fn file_size(pid: u32, bytes: u64) -> Self {
        Self::new(pid, || Resource::Fsize, bytes)
    }

    /// No descriptor has that number or a higher one; those that are open stay.
    pub(crate) fn descriptors(pid: u32, count: u64) -> Self {
        Self::new(pid, || Resource::Nofile, count)
    }

    fn new(pid: u32, resource: fn() -> Resource, current: u64) -> Self {
        let pid = Pid::from_raw(pid.cast_signed()).unwrap();
        let mut limit = rustix::process::getrlimit(resource());
        limit.current = Some(current);
        let before = prlimit(Some(pid), resource(), limit).unwrap();
        Self { pid, resource, before }
    }
}

impl Drop for Limited {
    fn drop(&mut self) {
        // It may have ended.
        let _ = prlimit(Some(self.pid), (self.resource)(), self.before);
    }
}
