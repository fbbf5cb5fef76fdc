//! Every bound of the loop, with its default and the reason for it.

use std::time::Duration;

/// What one read may bring: large enough that a bulk transfer costs few system calls, small
/// enough to stay in a processor's cache. One such buffer serves all connections of a loop.
pub const READ_BYTES: usize = 64 * 1024;

/// Received but not yet consumed by the service, per connection: one full read.
pub const INPUT_BYTES: usize = READ_BYTES;

/// Sent by the service but not yet taken by the kernel, per connection: what answers a full read
/// of requests with as many bytes.
pub const OUTPUT_BYTES: usize = 64 * 1024;

/// Bytes in and out for one connection before the next has its turn: four full reads, well under
/// a tenth of a millisecond of copying.
pub const TURN_BYTES: usize = 4 * READ_BYTES;

/// What a system call counts against [`TURN_BYTES`] at the least, so that a peer that makes us
/// move single bytes has its turn cut short too.
pub(crate) const CALL_BYTES: usize = 1024;

/// Newcomers accepted per address and turn: a tenth of a millisecond of short requests, after which
/// those who are in have their turn. Each newcomer pays a sixteenth of a wait for it; with 128, in
/// a flood of newcomers, those who were in waited milliseconds.
pub const ACCEPTS: usize = 16;

/// Connections that are closed for the service but wait for the peer to stop sending. They hold
/// a descriptor and no memory to speak of; beyond this many the oldest goes.
pub const LINGERING: usize = 1024;

/// How long a connection lingers: what a peer needs to read its last answer over a slow path, 13
/// KB a second for what the kernel holds of it. nginx gives the same five seconds between reads.
pub const LINGER_TIME: Duration = Duration::from_secs(5);

/// How much a lingering connection may still send before it is cut off.
pub const LINGER_BYTES: usize = 1024 * 1024;

/// What leaves a machine at once when a connection ends: the initial window of TCP, ten segments
/// (RFC 6928). What was sent beyond may still be in the kernel, so the close of such a connection
/// lingers.
pub(crate) const BURST_BYTES: u64 = 10 * 1460;

/// How much the kernel may hold of what a TCP peer has no window for (`TCP_NOTSENT_LOWAT`, on
/// Linux): the rest waits in the loop, which knows of it. Without, it is as much as the kernel's
/// send buffer grows to, 4 MiB: out of sight of deadlines, and destroyed by a reset.
pub(crate) const UNSENT_BYTES: u32 = 64 * 1024;

/// How many connections in a row may be lost in the backlog before the error is taken for one
/// that stays.
pub(crate) const LOST_IN_A_ROW: usize = 128;

/// How long nothing is accepted after the system ran out of descriptors or memory, unless a
/// connection closes first. Ten tries a second cost nothing and keep the wait short.
pub(crate) const EXHAUSTED_RETRY: Duration = Duration::from_millis(100);

/// The bounds of one loop. All are finite, so its memory is bounded by configuration: a few times
/// `input + output` bytes for each open connection, as buffers grow in steps, and a fixed part.
///
/// ```
/// use pollstack::Limits;
///
/// let limits = Limits { output: 1024 * 1024, ..Limits::default() };
/// assert_eq!(limits.input, 64 * 1024);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bytes received and not yet consumed, per connection ([`INPUT_BYTES`]).
    pub input: usize,
    /// Bytes sent and not yet taken by the kernel, per connection ([`OUTPUT_BYTES`]).
    pub output: usize,
    /// Bytes moved for one connection in one turn ([`TURN_BYTES`]).
    pub turn: usize,
    /// Newcomers accepted per address in one turn ([`ACCEPTS`]).
    pub accepts: usize,
    /// Lingering connections, over all listeners ([`LINGERING`]).
    pub lingering: usize,
    /// How long one lingers ([`LINGER_TIME`]).
    pub linger_time: Duration,
    /// How much one that lingers may still send ([`LINGER_BYTES`]).
    pub linger_bytes: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            input: INPUT_BYTES,
            output: OUTPUT_BYTES,
            turn: TURN_BYTES,
            accepts: ACCEPTS,
            lingering: LINGERING,
            linger_time: LINGER_TIME,
            linger_bytes: LINGER_BYTES,
        }
    }
}
