//! What a shell counts.

/// What went on, in numbers.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[non_exhaustive]
pub struct Counters {
    /// Connections accepted.
    pub accepted: u64,
    /// Accepts that failed for want of descriptors or memory.
    pub accept_failures: u64,
    /// Bytes read from connections.
    pub received: u64,
    /// Bytes written to connections.
    pub sent: u64,
    /// Words about connections that are gone.
    pub stale: u64,
    /// Transmits over the room that the engine knew of.
    pub overruns: u64,
    /// Outputs or effects that this shell doesn't know.
    pub unknown_outputs: u64,
    /// Log lines dropped because the files could not keep up.
    pub lines_suppressed: u64,
}
