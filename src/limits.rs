//! The bounds of a loop, each with its default and the reason for it.

use std::time::Duration;

/// Bytes that one read may bring: enough that a bulk transfer costs few system calls, and few enough to
/// stay in a processor's cache. One such buffer serves all connections of a loop.
pub const READ_BYTES: usize = 64 * 1024;

/// Received but not yet consumed by the service, per connection: one full read.
pub const INPUT_BYTES: usize = READ_BYTES;

/// Sent by the service but not yet taken by the kernel, per connection: as many bytes as a full read
/// of requests.
pub const OUTPUT_BYTES: usize = 64 * 1024;

/// Bytes in and out for one connection before the next has its turn: four full reads, which take less
/// than 0.1 ms to copy.
pub const TURN_BYTES: usize = 4 * READ_BYTES;

/// The least that a system call counts against [`TURN_BYTES`], so that a peer that makes the loop move
/// single bytes has its turn cut short, too.
pub(crate) const CALL_BYTES: usize = 1024;

/// Connections accepted per address and turn: 0.1 ms of short requests, after which the admitted
/// connections have their turn. Each new connection pays a sixteenth of a wait for it. With 128, the
/// admitted connections waited milliseconds in a flood of new ones.
pub const DEFAULT_ACCEPTS: usize = 16;

/// The default number of connections that may wait in the kernel to be accepted, per address.
///
/// A flood of short connections arrives in bursts. A connection that overflows this queue costs its
/// client a retransmission, one second or more, or worse: with SYN cookies Linux may accept it after
/// dropping its first bytes, and what follows is taken for the beginning. A server cannot see that; a
/// queue that does not overflow prevents it. The kernel caps the number (on Linux,
/// `net.core.somaxconn`, 4096 by default).
pub const DEFAULT_BACKLOG: u32 = 4096;

/// The silence after which a TCP peer is asked whether it is still there. A peer whose machine has
/// vanished is closed within two minutes; the questions cost a silent peer a packet a minute.
pub const DEFAULT_KEEPALIVE: Duration = Duration::from_secs(60);

/// Connections that are closed for the service but wait for the peer to stop sending. Each holds a
/// descriptor and less than 400 bytes. Beyond this many the oldest is closed.
pub const LINGERING: usize = 1024;

/// How long a connection lingers, so that a peer can read its last answer over a slow path: 13 KB/s
/// for the 64 KiB that the kernel may hold. nginx gives the same five seconds between reads.
pub const LINGER_TIME: Duration = Duration::from_secs(5);

/// Bytes that a lingering connection may still send before it is cut off.
pub const LINGER_BYTES: usize = 1024 * 1024;

/// Bytes that leave the machine at once when a connection ends: the initial window of TCP, ten segments
/// (RFC 6928). More may still be in the kernel, so the close of such a connection lingers.
pub(crate) const BURST_BYTES: u64 = 10 * 1460;

/// Bytes that the kernel may hold while a TCP peer has no window for them (`TCP_NOTSENT_LOWAT`, on
/// Linux). The rest waits in the loop, which knows of it. Without this limit the kernel's send buffer
/// grows to 4 MiB, out of sight of deadlines, and a reset destroys all of it.
#[cfg(any(target_os = "linux", target_os = "android"))]
pub(crate) const UNSENT_BYTES: u32 = 64 * 1024;

/// How many connections in a row may be lost in the backlog before the error counts as lasting.
pub(crate) const LOST_IN_A_ROW: usize = 128;

/// How long the loop accepts nothing after the system ran out of descriptors or memory, unless a
/// connection closes first: ten tries a second.
pub(crate) const EXHAUSTED_RETRY: Duration = Duration::from_millis(100);

/// The bounds of one loop. All are finite, so its memory is bounded by configuration: at most about
/// three times `input + output` bytes for each open connection, as buffers grow in steps, and a fixed
/// part.
///
/// Bounds may be added: begin with the default.
///
/// ```
/// use pollstack::Limits;
///
/// let limits = Limits::default().output(1024 * 1024).lingering(100);
/// assert_eq!((limits.input, limits.output), (64 * 1024, 1024 * 1024));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Limits {
    /// Bytes received and not yet consumed, per connection ([`INPUT_BYTES`]).
    pub input: usize,
    /// Bytes sent and not yet taken by the kernel, per connection ([`OUTPUT_BYTES`]).
    pub output: usize,
    /// Bytes moved for one connection in one turn ([`TURN_BYTES`]).
    pub turn: usize,
    /// Connections accepted per address in one turn ([`DEFAULT_ACCEPTS`]).
    pub accepts: usize,
    /// Lingering connections, over all listeners ([`LINGERING`]).
    pub lingering: usize,
    /// How long a connection lingers ([`LINGER_TIME`]).
    pub linger_time: Duration,
    /// Bytes that a lingering connection may still send ([`LINGER_BYTES`]).
    pub linger_bytes: usize,
}

impl Limits {
    /// Sets the bytes received and not yet consumed, per connection.
    pub fn input(self, input: usize) -> Self {
        Limits { input, ..self }
    }

    /// Sets the bytes sent and not yet taken by the kernel, per connection.
    pub fn output(self, output: usize) -> Self {
        Limits { output, ..self }
    }

    /// Sets the bytes moved for one connection in one turn.
    pub fn turn(self, turn: usize) -> Self {
        Limits { turn, ..self }
    }

    /// Sets the number of connections accepted per address in one turn.
    pub fn accepts(self, accepts: usize) -> Self {
        Limits { accepts, ..self }
    }

    /// Sets the number of lingering connections, over all listeners.
    pub fn lingering(self, lingering: usize) -> Self {
        Limits { lingering, ..self }
    }

    /// Sets how long a connection lingers.
    pub fn linger_time(self, linger_time: Duration) -> Self {
        Limits { linger_time, ..self }
    }

    /// Sets the bytes that a lingering connection may still send.
    pub fn linger_bytes(self, linger_bytes: usize) -> Self {
        Limits { linger_bytes, ..self }
    }
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            input: INPUT_BYTES,
            output: OUTPUT_BYTES,
            turn: TURN_BYTES,
            accepts: DEFAULT_ACCEPTS,
            lingering: LINGERING,
            linger_time: LINGER_TIME,
            linger_bytes: LINGER_BYTES,
        }
    }
}
