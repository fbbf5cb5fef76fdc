//! The counts of a stack.

use super::histogram::Histogram;
use std::time::Duration;

/// Totals since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Counts {
    /// Requests to push that came whole.
    pub pushes: u64,
    /// Requests to pop.
    pub pops: u64,
    /// Requests that had to wait.
    pub parked: u64,
    /// Requests that waited when their client left.
    pub cancelled: u64,
    /// Popped items that did not reach their client, and went back on top.
    pub undelivered: u64,
    /// Requests that were answered in the turn in which their clients came.
    pub at_once: u64,
    /// From the coming of a client to its answer, of those that were answered later.
    pub service_times: Histogram,
    /// The same, of the requests that had to wait.
    pub waits: Histogram,
}

impl Counts {
    #[cold]
    pub(super) fn late(&mut self, parked: bool, time: Duration) {
        self.service_times.add(time);
        if parked {
            self.waits.add(time);
        }
    }
}
