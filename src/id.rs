//! The names of connections and listeners, and why nothing was sent to one.

use crate::arena::Index;
use std::fmt;

/// A connection, for as long as it is open. An id is never given out twice: once its connection
/// has closed, it is [`Gone`](SendError::Gone).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ConnId(pub(crate) Index);

impl ConnId {
    pub(crate) fn key(self) -> usize {
        self.0.key()
    }
}

impl fmt::Display for ConnId {
    /// Writes `#1` for the first connection that a loop accepts, `#2` for the next.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "#{}", self.0.serial())
    }
}

/// A listener of a loop, as returned by [`EventLoop::listen`](crate::EventLoop::listen).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ListenerId(pub(crate) usize);

/// Why nothing of a message was sent. There are no other reasons, so a `match` may be exhaustive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SendError {
    /// The connection has closed, or its output has been ended: finished, aborted or shut down.
    Gone,
    /// The output buffer has no room for the message until the peer reads. The loop then calls
    /// [`Service::on_drain`](crate::Service::on_drain).
    Full,
    /// The message is larger than [`Limits::output`](crate::Limits::output), and never fits: send it in
    /// parts, or raise the limit.
    TooLarge,
}

impl fmt::Display for SendError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            SendError::Gone => "the connection is gone",
            SendError::Full => "the connection's output buffer is full",
            SendError::TooLarge => "the message is larger than the output buffer may grow (Limits::output)",
        })
    }
}

impl std::error::Error for SendError {}
