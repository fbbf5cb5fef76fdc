//! The limit of open descriptors of the process, raised to what the connections need.

use crate::limits::Limits;
use std::fmt;

/// Descriptors beside the connections: the standard streams, the poll, the waker, the signals,
/// the listening sockets, and some that the process was started with.
const OTHERS: u64 = 32;

/// The fewest descriptors for lingering connections. With fewer, clients that are rejected while still
/// sending could lose their rejection.
const MIN_LINGERING: u64 = 8;

/// Raises the soft limit of open descriptors for at most `conns` connections and `open` descriptors
/// beside them. Returns the default [`Limits`], with [`Limits::lingering`] bounded by the descriptors
/// that are left.
///
/// # Errors
/// [`InsufficientDescriptors`], if the hard limit does not allow as many.
///
/// ```
/// let limits = pollstack::descriptors::reserve(100, 0)?;
/// assert!(limits.lingering > 0);
/// # Ok::<(), pollstack::descriptors::InsufficientDescriptors>(())
/// ```
pub fn reserve(conns: usize, open: usize) -> Result<Limits, InsufficientDescriptors> {
    let usual = Limits::default();
    let others = OTHERS + MIN_LINGERING;
    let needed = others.saturating_add(open as u64).saturating_add(conns as u64);
    let wanted = needed.saturating_add(usual.lingering as u64);
    // A system that does not tell its limit enforces it when a connection is accepted.
    let limit = rlimit::increase_nofile_limit(wanted).unwrap_or(wanted);
    let rest = limit.checked_sub(needed).ok_or(InsufficientDescriptors { conns, needed, limit })?;
    let lingering = usize::try_from(rest + MIN_LINGERING).unwrap_or(usize::MAX);
    Ok(Limits { lingering: usual.lingering.min(lingering), ..usual })
}

/// Raises the soft limit of open descriptors as [`reserve`] does, for `wanted` descriptors more. Returns how
/// many of them there will be.
///
/// ```
/// let files = pollstack::descriptors::spare(100, 0, 50);
/// assert!(files <= 50);
/// ```
pub fn spare(conns: usize, open: usize, wanted: usize) -> usize {
    let reserved = OTHERS.saturating_add(Limits::default().lingering as u64);
    let needed = reserved.saturating_add(open as u64).saturating_add(conns as u64);
    let all = needed.saturating_add(wanted as u64);
    let limit = rlimit::increase_nofile_limit(all).unwrap_or(all);
    usize::try_from(limit.saturating_sub(needed)).unwrap_or(usize::MAX).min(wanted)
}

/// The process may not open as many descriptors as the connections need.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InsufficientDescriptors {
    conns: usize,
    needed: u64,
    limit: u64,
}

impl fmt::Display for InsufficientDescriptors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let InsufficientDescriptors { conns, needed, limit } = self;
        write!(
            f,
            "{conns} connections need {needed} descriptors, but this process may open {limit}; \
             ask for fewer or raise the limit (ulimit -n)"
        )
    }
}

impl std::error::Error for InsufficientDescriptors {}
