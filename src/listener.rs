//! A listener: its configuration, its sockets, the connections that it has admitted, and what becomes
//! of the one too many.

use crate::id::ListenerId;
use crate::net::{Address, FileRights, Socket, SocketOptions};
use crate::queue::{Place, Queue};
use std::borrow::Cow;
use std::io::{self, ErrorKind};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// The default capacity of a listener. Its connections fit the usual descriptor limit of 1024 and leave as
/// many descriptors for what a service opens itself.
pub const DEFAULT_MAX_CONNS: usize = 512;

/// The configuration of a listener: addresses whose connections are admitted and counted together, and the policy for
/// the one too many.
///
/// ```
/// use pollstack::{ListenerConfig, Overload};
/// use std::time::Duration;
///
/// let config = ListenerConfig::new("127.0.0.1:0".parse()?)
///     .address("[::1]:0".parse()?)
///     .max_conns(100)
///     .overload(Overload::EvictOldest { after: Duration::from_secs(10), otherwise: vec![0xFF].into() });
/// # Ok::<(), pollstack::net::ParseAddressError>(())
/// ```
#[derive(Clone, Debug)]
pub struct ListenerConfig {
    pub(crate) id: Option<ListenerId>,
    pub(crate) addresses: Vec<Address>,
    pub(crate) ready: Vec<Arc<Socket>>,
    pub(crate) socket: SocketOptions,
    pub(crate) max_conns: usize,
    pub(crate) overload: Overload,
}

impl ListenerConfig {
    /// Listens on `address` with [`DEFAULT_BACKLOG`](crate::DEFAULT_BACKLOG),
    /// [`DEFAULT_KEEPALIVE`](crate::DEFAULT_KEEPALIVE), [`DEFAULT_MAX_CONNS`] and [`Overload::Defer`].
    pub fn new(address: Address) -> Self {
        ListenerConfig::unbound().address(address)
    }

    /// Listens on no address: for connections that come by
    /// [`EventLoop::adopt`](crate::EventLoop::adopt) or [`Context::connect`](crate::Context::connect).
    pub fn unbound() -> Self {
        ListenerConfig {
            id: None,
            addresses: Vec::new(),
            ready: Vec::new(),
            socket: SocketOptions::default(),
            max_conns: DEFAULT_MAX_CONNS,
            overload: Overload::Defer,
        }
    }

    /// Gives the listener an id that the service knows already.
    pub fn id(mut self, id: ListenerId) -> Self {
        self.id = Some(id);
        self
    }

    /// Listens on a socket that is ready made: bound and listening, by systemd perhaps. Its connections
    /// count with the others. The [backlog](Self::backlog) stays as it is, and so does the file of a Unix
    /// socket when the listener closes.
    ///
    /// ```
    /// use pollstack::ListenerConfig;
    ///
    /// let socket = std::net::TcpListener::bind("127.0.0.1:0")?;
    /// let config = ListenerConfig::unbound().socket(socket);
    /// # Ok::<(), std::io::Error>(())
    /// ```
    pub fn socket(mut self, socket: impl Into<Socket>) -> Self {
        self.ready.push(Arc::new(socket.into()));
        self
    }

    /// Sets whether other sockets, of this process or another of the same user, may listen on the same TCP
    /// addresses (`SO_REUSEPORT`). Linux spreads new connections over them: one loop a core. It is off, so
    /// that a second server on an address is noticed. Systems without it refuse to listen.
    ///
    /// ```
    /// # #[cfg(target_os = "linux")] {
    /// use pollstack::{EventLoop, ListenerConfig, stack::StackService};
    ///
    /// let mut one = EventLoop::new(StackService::new(100))?;
    /// let listener = one.listen(ListenerConfig::new("127.0.0.1:0".parse()?).reuse_port(true))?;
    /// let address = one.addresses(listener)?[0].clone();
    /// let mut other = EventLoop::new(StackService::new(100))?;
    /// other.listen(ListenerConfig::new(address).reuse_port(true))?;
    /// # }
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn reuse_port(mut self, reuse_port: bool) -> Self {
        self.socket.reuse_port = reuse_port;
        self
    }

    /// Sets the rights to the files of Unix sockets. They are set before the socket listens, so no other client
    /// gets in meanwhile.
    ///
    /// ```
    /// # #[cfg(unix)] {
    /// use pollstack::net::FileRights;
    /// use pollstack::{EventLoop, ListenerConfig, stack::StackService};
    /// # let folder = tempfile::tempdir()?;
    /// # let path = folder.path().join("stack.sock");
    /// # let address = format!("unix:{}", path.display());
    ///
    /// let config = ListenerConfig::new(address.parse()?).file(FileRights::default().mode(0o600));
    /// EventLoop::new(StackService::new(100))?.listen(config)?;
    /// # }
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn file(mut self, rights: FileRights) -> Self {
        self.socket.file = rights;
        self
    }

    /// Listens on one more address. Its connections count with the others.
    pub fn address(mut self, address: Address) -> Self {
        self.addresses.push(address);
        self
    }

    /// Returns whether one of its addresses is [of loopback](Address::is_loopback), those of ready-made sockets
    /// included.
    pub fn is_on_loopback(&self) -> bool {
        let is_loopback = |socket: &Socket| match socket {
            Socket::Tcp(socket) => socket.local_addr().is_ok_and(|address| Address::Tcp(address).is_loopback()),
            #[cfg(unix)]
            Socket::Unix(_) => false,
        };
        self.addresses.iter().any(Address::is_loopback) || self.ready.iter().any(|socket| is_loopback(socket))
    }

    /// Sets how many connections may wait in the kernel, per address.
    pub fn backlog(mut self, backlog: u32) -> Self {
        self.socket.backlog = backlog;
        self
    }

    /// Sets the silence, in whole seconds, after which TCP peers are asked whether they are still
    /// there ([`DEFAULT_KEEPALIVE`](crate::DEFAULT_KEEPALIVE)); with `None` they are never asked.
    ///
    /// A peer that has vanished is asked six times. Its connection fails with a timeout after less
    /// than twice this time. Keepalive costs no system call.
    ///
    /// ```
    /// use pollstack::ListenerConfig;
    /// use std::time::Duration;
    ///
    /// let config = ListenerConfig::new("127.0.0.1:0".parse()?).keepalive(Some(Duration::from_secs(10)));
    /// # Ok::<(), pollstack::net::ParseAddressError>(())
    /// ```
    pub fn keepalive(mut self, silence: Option<Duration>) -> Self {
        self.socket.keepalive = silence;
        self
    }

    /// Sets how many connections may be open at the same time, over all addresses: at least one, or
    /// [`Overload::Defer`] would never accept any.
    pub fn max_conns(mut self, max_conns: usize) -> Self {
        self.max_conns = max_conns;
        self
    }

    /// Sets what happens to the one too many.
    pub fn overload(mut self, overload: Overload) -> Self {
        self.overload = overload;
        self
    }
}

/// The policy of a full listener for a new client. Policies may be added.
///
/// None is for a connection that goes out ([`Context::connect`](crate::Context::connect)): that one fails when its
/// listener is full. Once it has a place, it counts as a client does, and can be evicted for one. A listener
/// [without an address](ListenerConfig::unbound), for those that go out alone, evicts none.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Overload {
    /// Closes the oldest connection if it is older than `after`, strictly and counted from its
    /// accept. Otherwise the new client reads `otherwise` and the end of the stream.
    EvictOldest {
        /// The age up to which a connection is safe.
        after: Duration,
        /// The bytes that a client reads if no connection is old enough to be evicted for it.
        otherwise: Cow<'static, [u8]>,
    },
    /// The new client reads these bytes and the end of the stream.
    Reject(Cow<'static, [u8]>),
    /// Accepts no connection until another one closes. New clients wait in the backlog.
    Defer,
}

/// A listener of a loop.
#[derive(Debug)]
pub(crate) struct Listener<S> {
    pub(crate) id: ListenerId,
    pub(crate) sockets: Vec<ListeningSocket<S>>,
    pub(crate) options: SocketOptions,
    closed: bool,
    capacity: usize,
    overload: Overload,
    /// The connections that count, by key, in the order of their accept.
    admitted: Queue<(usize, Instant)>,
    /// How many have been accepted and not been decided about.
    pending: usize,
}

/// One of a listener's sockets.
#[derive(Debug)]
pub(crate) struct ListeningSocket<S> {
    pub(crate) socket: S,
    /// The index that its events carry.
    pub(crate) index: usize,
    /// Connections may be waiting. Cleared only by `WouldBlock`.
    pub(crate) ready: bool,
    /// How many connections in a row were lost in the backlog.
    pub(crate) lost: usize,
}

/// The decision about a new connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Decision {
    Admit,
    /// Admit it in the place of the connection with this key.
    Evict(usize),
    Reject,
}

impl<S> Listener<S> {
    /// Makes a listener that has no sockets yet.
    pub(crate) fn new(config: &ListenerConfig) -> Self {
        Listener {
            id: config.id.unwrap_or_else(ListenerId::new),
            sockets: Vec::new(),
            options: config.socket,
            closed: false,
            capacity: config.max_conns,
            overload: config.overload.clone(),
            admitted: Queue::new(),
            pending: 0,
        }
    }

    pub(crate) fn add_socket(&mut self, socket: S, index: usize) {
        self.sockets.push(ListeningSocket { socket, index, ready: false, lost: 0 });
    }

    /// Closes the listener alone. Its connections stay. Returns its sockets.
    pub(crate) fn close(&mut self) -> Vec<ListeningSocket<S>> {
        self.closed = true;
        std::mem::take(&mut self.sockets)
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.closed
    }

    /// Returns whether nothing is left of a listener that has closed.
    pub(crate) fn is_over(&self) -> bool {
        self.closed && self.is_empty() && self.pending == 0
    }

    /// Returns whether there is a place that no accepted connection will take.
    pub(crate) fn has_place(&self) -> bool {
        self.admitted.len() + self.pending < self.capacity
    }

    /// Returns the error for a connection that does not come through a socket, when there is no place for it.
    #[cold]
    pub(crate) fn full(&self) -> io::Error {
        let text =
            format!("the listener is full: it has {} of {} connections; raise max_conns", self.len(), self.capacity);
        io::Error::new(ErrorKind::ResourceBusy, text)
    }

    /// Counts a connection that has been accepted. [`decide`](Self::decide) must follow.
    pub(crate) fn count_pending(&mut self) {
        self.pending += 1;
    }

    /// Forgets a connection that has been accepted, and is rejected without a decision.
    pub(crate) fn forget_pending(&mut self) {
        self.pending = self.pending.saturating_sub(1);
    }

    /// Decides about a new connection at `now`. The oldest connection is the head of a queue in the
    /// order of accept, so this costs the same with ten connections and with a hundred thousand.
    pub(crate) fn decide(&mut self, now: Instant) -> Decision {
        self.forget_pending();
        if self.admitted.len() < self.capacity {
            return Decision::Admit;
        }
        match (&self.overload, self.admitted.front()) {
            (Overload::EvictOldest { after, .. }, Some(&(oldest, accepted_at)))
                if now.saturating_duration_since(accepted_at) > *after =>
            {
                Decision::Evict(oldest)
            }
            _ => Decision::Reject,
        }
    }

    /// Returns whether connections should be taken from the backlog at all.
    pub(crate) fn may_accept(&self) -> bool {
        self.has_place() || !matches!(self.overload, Overload::Defer)
    }

    /// Returns what a rejected client reads.
    pub(crate) fn rejection(&self) -> &[u8] {
        match &self.overload {
            Overload::EvictOldest { otherwise: bytes, .. } | Overload::Reject(bytes) => bytes,
            Overload::Defer => &[],
        }
    }

    /// Counts a connection that is admitted.
    pub(crate) fn enter(&mut self, key: usize, accepted_at: Instant) -> Place {
        self.admitted.push_back((key, accepted_at))
    }

    /// Counts a connection no more.
    pub(crate) fn leave(&mut self, place: Place) {
        self.admitted.remove(place);
    }

    /// Returns how many connections count.
    pub(crate) fn len(&self) -> usize {
        self.admitted.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.admitted.is_empty()
    }

    /// Returns how many connections may count.
    pub(crate) fn capacity(&self) -> usize {
        if self.closed { self.len() + self.pending } else { self.capacity }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: Duration = Duration::from_secs(10);
    const TICK: Duration = Duration::from_nanos(1);

    fn stack(max_conns: usize) -> Listener<()> {
        let evict = Overload::EvictOldest { after: LIMIT, otherwise: vec![0xFF].into() };
        Listener::<()>::new(&ListenerConfig::new("127.0.0.1:0".parse().unwrap()).max_conns(max_conns).overload(evict))
    }

    /// Lost otherwise: a client's last moment. At exactly the limit no connection is evicted.
    #[test]
    fn evicts_only_the_strictly_older() {
        let (start, mut listener) = (Instant::now(), stack(1));
        listener.enter(7, start);
        assert_eq!(listener.decide(start + LIMIT - TICK), Decision::Reject);
        assert_eq!(listener.decide(start + LIMIT), Decision::Reject);
        assert_eq!(listener.decide(start + LIMIT + TICK), Decision::Evict(7));
    }

    /// Lost otherwise: a connection that need not go, or a younger one than the oldest.
    #[test]
    fn evicts_only_the_oldest_and_only_when_full() {
        let (start, mut listener) = (Instant::now(), stack(3));
        let first = listener.enter(1, start);
        listener.enter(2, start + TICK);
        let later = start + LIMIT * 3;
        assert_eq!(listener.decide(later), Decision::Admit, "room is left, whatever the age");
        listener.enter(3, later);
        assert_eq!(listener.decide(later), Decision::Evict(1));
        listener.leave(first);
        assert_eq!(listener.decide(later), Decision::Admit, "a closed connection counts no longer");
        listener.enter(4, later);
        assert_eq!(listener.decide(later), Decision::Evict(2));
    }

    /// Lost otherwise: memory, a little with each listener that closes; or connections, counted with the listener
    /// that took their place too early.
    #[test]
    fn a_closed_listener_is_over_when_its_connections_are() {
        let (now, mut listener) = (Instant::now(), stack(9));
        let state = |listener: &Listener<()>| (listener.capacity(), listener.is_over());
        assert_eq!(state(&listener), (9, false));
        let place = listener.enter(1, now);
        listener.count_pending();
        listener.close();
        assert_eq!(state(&listener), (2, false));
        listener.leave(place);
        assert_eq!(state(&listener), (1, false));
        assert_eq!(listener.decide(now), Decision::Admit);
        assert_eq!(state(&listener), (0, true));
    }

    /// Lost otherwise: clients that a deferring listener accepts and cannot serve.
    #[test]
    fn defers_at_capacity_and_not_below() {
        let mut listener = Listener::<()>::new(&ListenerConfig::new("127.0.0.1:0".parse().unwrap()).max_conns(1));
        assert!(listener.may_accept());
        listener.count_pending();
        assert!(!listener.may_accept(), "the pending connection takes the place");
        assert_eq!(listener.decide(Instant::now()), Decision::Admit);
        let place = listener.enter(0, Instant::now());
        assert!(!listener.may_accept());
        listener.leave(place);
        assert!(listener.may_accept());
        assert!(stack(0).may_accept(), "the other policies accept, to say no");
    }
}
