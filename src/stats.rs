//! The counts of a loop.

/// The counts of a loop. Counts may be added.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Stats {
    /// Connections that are open now.
    pub open: usize,
    /// Connections that linger now: closed for the service, waiting for the end of their peer.
    pub lingering: usize,
    /// Connections admitted so far.
    pub opened: u64,
    /// Connections rejected so far.
    pub rejected: u64,
    /// Connections evicted so far.
    pub evicted: u64,
    /// Accepts that have failed so far, for lack of descriptors or memory mostly.
    pub failed_accepts: u64,
    /// Bytes read from connections so far.
    pub received: u64,
    /// Bytes of output that the kernel has taken so far.
    pub sent: u64,
}
