//! The names of connections and listeners, and why nothing was sent to one.

use crate::arena::Index;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};

/// How many serial numbers a loop takes at a time, so that no two loops of a process give out the same.
/// They last for 268 million loops, or 68 billion connections before a loop takes more.
pub(crate) const SERIALS: u64 = 1 << 36;

/// Takes the next serial numbers of the process. Returns the one in front of them.
pub(crate) fn take_serials() -> u64 {
    static TAKEN: AtomicU64 = AtomicU64::new(0);
    TAKEN.fetch_add(SERIALS, Ordering::Relaxed)
}

/// A connection, for as long as it is open. An id is never given out twice, by any loop of the
/// process: once its connection has closed, and in another loop, it is [`Gone`](SendError::Gone).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ConnId(pub(crate) Index);

impl ConnId {
    pub(crate) fn key(self) -> usize {
        self.0.key()
    }

    /// Returns the number that it is written with: 1 for the first connection of a loop, 2 for the next.
    pub fn number(self) -> u64 {
        self.0.serial() % SERIALS
    }
}

impl fmt::Display for ConnId {
    /// Writes `#1` for the first connection of a loop, `#2` for the next.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "#{}", self.number())
    }
}

/// A listener of a loop, as returned by [`EventLoop::listen`](crate::EventLoop::listen). No two
/// listeners of a process have the same.
///
/// A service that has to know a listener from the beginning, to connect through it or to tell its
/// connections apart, is given an id that the listener gets [later](crate::ListenerConfig::id):
///
/// ```
/// # use pollstack::{ConnId, Context, EventLoop, ListenerConfig, ListenerId, Service};
/// struct Server {
///     admin: ListenerId,
/// }
///
/// impl Service for Server {
///     type Conn = bool;
///     fn on_open(&mut self, _: &mut Context<'_>, _: ConnId, listener: ListenerId) -> bool {
///         listener == self.admin
///     }
/// #   fn on_data(&mut self, _: &mut Context<'_>, _: ConnId, _: &mut bool, input: &[u8]) -> usize { input.len() }
/// }
///
/// let admin = ListenerId::new();
/// let mut server = EventLoop::new(Server { admin })?;
/// server.listen(ListenerConfig::new("127.0.0.1:0".parse()?))?;
/// server.listen(ListenerConfig::new("127.0.0.1:0".parse()?).id(admin).max_conns(10))?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ListenerId(u64);

impl ListenerId {
    /// Makes an id for a listener to come. Until it does, the id is that of no listener.
    #[expect(clippy::new_without_default, reason = "every id is another")]
    pub fn new() -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        ListenerId(NEXT.fetch_add(1, Ordering::Relaxed))
    }
}

/// The reason why nothing of a message was sent. There are no other reasons, so a `match` may be exhaustive.
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
