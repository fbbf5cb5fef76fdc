//! Room for connections: the process's limit of open descriptors.

use crate::limits::Limits;
use std::fmt;

/// Descriptors beside the connections: the standard streams, the poll, the waker, the signals,
/// the listening sockets, and some for whatever the process was started with.
const OTHERS: u64 = 32;

/// Without at least so many descriptors for connections that linger, clients that are turned away
/// while still sending could lose what they are told.
const MIN_LINGERING: u64 = 8;

/// The usual [`Limits`] for a server of at most `conns` connections that holds `open` descriptors
/// beside them, once the process may open that many: its soft limit is raised as far as it goes.
/// What is left of it bounds [`Limits::lingering`].
///
/// # Errors
/// [`TooMany`], if the hard limit does not allow it: better at the start than under load.
///
/// ```
/// let limits = pollstack::descriptors::reserve(100, 0)?;
/// assert!(limits.lingering > 0);
/// # Ok::<(), pollstack::descriptors::TooMany>(())
/// ```
pub fn reserve(conns: usize, open: usize) -> Result<Limits, TooMany> {
    let usual = Limits::default();
    let others = OTHERS + MIN_LINGERING;
    let needed = others.saturating_add(open as u64).saturating_add(conns as u64);
    let wanted = needed.saturating_add(usual.lingering as u64);
    // A system that does not say what it allows will say so when a connection is accepted.
    let limit = rlimit::increase_nofile_limit(wanted).unwrap_or(wanted);
    let rest = limit.checked_sub(needed).ok_or(TooMany { conns, needed, limit })?;
    let lingering = usize::try_from(rest + MIN_LINGERING).unwrap_or(usize::MAX);
    Ok(Limits { lingering: usual.lingering.min(lingering), ..usual })
}

/// More connections than the process may have descriptors for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooMany {
    conns: usize,
    needed: u64,
    limit: u64,
}

impl fmt::Display for TooMany {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let TooMany { conns, needed, limit } = self;
        write!(
            f,
            "{conns} connections need {needed} descriptors, but this process may open {limit}; \
             ask for fewer or raise the limit (ulimit -n)"
        )
    }
}

impl std::error::Error for TooMany {}
