//! The one loop: wait, serve, fire deadlines, admit, accept.
//!
//! # One turn
//!
//! 1. Connections that can go on, in the order in which they could: read, serve, flush. A wake.
//! 2. Deadlines that have passed, and the timer.
//! 3. Connections accepted in the turn before: admitted or rejected, read and served.
//! 4. Accept, for the next turn. Connections that the service has asked for are begun.
//!
//! Between two turns the caller waits for events, for as long as [`EventLoop::timeout`] allows.
//!
//! A new connection is read before it is registered. Most requests are already there, and need no
//! more than accept, recv, send, shutdown and close. The shutdown pushes the answer and our FIN out in
//! one packet before the close: over input that has arrived meanwhile a close is a reset, which
//! destroys what is still in the machine.
//!
//! A wait lies between the accept of a connection and its first read, so all that happened before the
//! client connected comes first: a request that was complete by then has been served, and a place
//! that had come free is free. Only when there are no other connections is none ahead of it, and it
//! is served at once.
//!
//! # Effects
//!
//! A callback records effects in its [`Context`]. When it has returned, `settle` carries them out,
//! connection by connection: flush, close, or watch. The callbacks that this causes record their
//! effects at the end of the same list. So no callback runs inside another, and every connection's
//! budget for the turn bounds how long it can go on.

mod accept;
mod connect;
mod listen;
mod serve;
mod shutdown;

pub use self::listen::ListenError;

use crate::connection::Seat;
use crate::connections::Connections;
use crate::context::Context;
use crate::id::{ConnId, ListenerId};
use crate::limits::{Limits, READ_BYTES};
use crate::listener::Listener;
use crate::net::{Address, Mio, Net, Peer, Ready, Source};
use crate::queue::Queue;
use crate::service::{CloseReason, Service};
use crate::stats::Stats;
use std::collections::VecDeque;
use std::fmt;
use std::io;
use std::time::{Duration, Instant};

/// A connection loop: it owns the connections of a [`Service`] on a [`Net`].
///
/// It is not `Send`: connections share buffers without locks. To run it on another thread, make it
/// there, and send a [`Handle`](crate::net::Handle) back.
///
/// There are two ways to run it. [`run`](EventLoop::run) owns the poll and returns when the loop has
/// stopped. Or the loop is [`embedded`](EventLoop::embedded) in a poll of yours: hand over
/// [events](EventLoop::notify), call [`turn`](EventLoop::turn), and sleep no longer than
/// [`timeout`](EventLoop::timeout) says.
pub struct EventLoop<S: Service, N: Net = Mio> {
    pub(crate) net: N,
    service: S,
    connections: Connections,
    /// The other halves of the connections, under the same keys.
    io: Vec<Option<ConnectionIo<N::Stream, S::Conn>>>,
    listeners: Vec<Listener<N::Listener>>,
    /// The sockets of all listeners, under the indexes that their events carry.
    sockets: Vec<Option<SocketPlace>>,
    /// The socket that is accepted from first.
    next_socket: usize,
    /// Accepted in this turn, to be admitted or rejected in the next.
    pending: VecDeque<PendingConnection<N::Stream>>,
    lingering: Queue<usize>,
    /// The buffer that every read reads into.
    scratch: Box<[u8]>,
    /// Until when no connection is accepted, for lack of descriptors or memory.
    exhausted_until: Option<Instant>,
    /// When that was last logged.
    exhausted_logged: Option<Instant>,
    /// The service is to be told of a wake.
    woken: bool,
    state: State,
}

/// The half of a connection that only the loop may touch. A lingering connection has no state left.
struct ConnectionIo<Stream, Conn> {
    stream: Stream,
    conn: Option<Conn>,
}

/// Where a listening socket is: the listener, and which of its sockets.
#[derive(Clone, Copy, Debug)]
struct SocketPlace {
    listener: usize,
    socket: usize,
}

/// A connection that has been accepted and not been decided about.
struct PendingConnection<Stream> {
    stream: Stream,
    peer: Peer,
    listener: usize,
}

#[derive(Clone, Copy, Debug)]
enum State {
    Running,
    /// Accepting what is already queued, for at most `turns` more turns. If descriptors are lacking,
    /// it tries until `last_try`.
    DrainingBacklog {
        until: Option<Instant>,
        last_try: Option<Instant>,
        turns: usize,
    },
    /// No listener is open any more; `until` is the end of the grace period, if it has one.
    Draining {
        until: Option<Instant>,
        only_lingering: bool,
    },
    Stopped,
}

impl<S: Service, N: Net> fmt::Debug for EventLoop<S, N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EventLoop").field("state", &self.state).field("stats", &self.stats()).finish_non_exhaustive()
    }
}

impl<S: Service, N: Net> EventLoop<S, N> {
    /// Makes a loop that runs `service` on `net`. For the real network see [`EventLoop::new`] and
    /// [`EventLoop::embedded`].
    pub fn with_net(net: N, service: S, limits: Limits) -> Self {
        let (keys, now) = (net.max_connections(), net.now());
        // With less than this the loop would never get anything done.
        let limits =
            Limits { input: limits.input.max(1), turn: limits.turn.max(1), accepts: limits.accepts.max(1), ..limits };
        EventLoop {
            net,
            service,
            connections: Connections::new(limits, keys, now),
            io: Vec::new(),
            listeners: Vec::new(),
            sockets: Vec::new(),
            next_socket: 0,
            pending: VecDeque::new(),
            lingering: Queue::new(),
            scratch: vec![0; READ_BYTES].into(),
            exhausted_until: None,
            exhausted_logged: None,
            woken: false,
            state: State::Running,
        }
    }

    /// Takes in a connection that did not come through a listening socket: one that was made from
    /// here, inherited or handed over. It has to be non-blocking, and may still be connecting on systems
    /// that answer reads and writes with `WouldBlock` until it has connected (Linux does);
    /// [`Context::connect`] works on all. It is admitted to `listener` at once, and served.
    ///
    /// ```no_run
    /// # use pollstack::{ConnId, Context, EventLoop, ListenerConfig, ListenerId, Service};
    /// # struct Client;
    /// # impl Service for Client {
    /// #     type Conn = ();
    /// #     fn on_open(&mut self, _: &mut Context<'_>, _: ConnId, _: ListenerId) {}
    /// #     fn on_data(&mut self, _: &mut Context<'_>, _: ConnId, _: &mut (), input: &[u8]) -> usize { input.len() }
    /// # }
    /// use pollstack::mio::net::TcpStream;
    /// use pollstack::net::{Peer, Stream};
    ///
    /// let mut clients = EventLoop::new(Client)?;
    /// let outgoing = clients.listen(ListenerConfig::unbound().max_conns(100))?;
    /// let server = "192.0.2.1:8080".parse()?;
    /// let stream = TcpStream::connect(server)?;
    /// clients.adopt(outgoing, Stream::Tcp(stream), Peer::Tcp(server))?;
    /// clients.run()?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// `ResourceBusy` if the listener is full. Its policy decides about the stream ([`Overload`](crate::Overload)): if
    /// that [defers](crate::Overload::Defer), the stream is closed, as there is no backlog to wait in. `InvalidInput` for a
    /// listener that the loop does not have, or if it has been asked to stop; the stream is closed then.
    pub fn adopt(&mut self, listener: ListenerId, stream: N::Stream, peer: Peer) -> io::Result<ConnId> {
        self.check_running()?;
        let listener = self.listener(listener)?;
        let at = &mut self.listeners[listener];
        if !at.may_accept() {
            return Err(at.full());
        }
        at.count_pending();
        self.connections.begin_turn(self.net.now());
        let (admitted, pending) = (self.make_room(listener), PendingConnection { stream, peer, listener });
        let id = match admitted {
            true => Some(self.open(pending)),
            false => {
                self.reject(pending);
                None
            }
        };
        self.settle();
        id.ok_or_else(|| self.listeners[listener].full())
    }

    /// Returns where a listener listens, with the ports that the system chose. Once it has closed,
    /// there are none.
    ///
    /// # Errors
    /// The system's, if it cannot say.
    pub fn addresses(&self, listener: ListenerId) -> io::Result<Vec<Address>> {
        let sockets = self.listener(listener).into_iter().flat_map(|index| &self.listeners[index].sockets);
        sockets.map(|socket| self.net.local_address(&socket.socket)).collect()
    }

    /// Returns the network, to be changed: a layer of it may have settings.
    pub fn net_mut(&mut self) -> &mut N {
        &mut self.net
    }

    /// Returns the service.
    pub fn service(&self) -> &S {
        &self.service
    }

    /// Calls into the service from outside, between two turns: for a timer or a signal that the
    /// tool around the loop keeps itself. Effects are carried out before this returns, within the
    /// limits of a turn.
    pub fn call<R>(&mut self, f: impl FnOnce(&mut S, &mut Context<'_>) -> R) -> R {
        self.connections.begin_turn(self.net.now());
        let result = f(&mut self.service, &mut Context::new(&mut self.connections));
        self.settle();
        result
    }

    /// Has [`Service::on_wake`] called in the next turn. A loop with a poll of its own is woken from any
    /// thread by [`Handle::wake`](crate::net::Handle::wake).
    pub fn wake(&mut self) {
        self.woken = true;
    }

    /// Returns the counts of the loop.
    pub fn stats(&self) -> Stats {
        let open = self.listeners.iter().map(Listener::len).sum();
        Stats { open, lingering: self.lingering.len(), ..self.connections.stats }
    }

    /// Asks the loop to stop. It accepts the waiting connections that it has places for, closes its
    /// listeners and tells the service. It has [stopped](Self::is_stopped) when the last connection
    /// has closed; when `grace` is over it closes the rest. A later call can shorten the grace.
    pub fn stop(&mut self, grace: Duration) {
        self.connections.ask_to_stop(grace);
    }

    /// Returns whether the loop has stopped. It holds no connection then.
    pub fn is_stopped(&self) -> bool {
        matches!(self.state, State::Stopped)
    }

    /// Returns how long the caller may wait for events: not at all if a connection can go on, until
    /// the next deadline, or (`None`) without end. An idle loop never wakes.
    pub fn timeout(&mut self) -> Option<Duration> {
        if self.has_work() {
            return Some(Duration::ZERO);
        }
        let grace_ends = match self.state {
            State::DrainingBacklog { until, .. } | State::Draining { until, .. } => until,
            State::Running | State::Stopped => None,
        };
        let (deadline, timer) = (self.connections.deadlines.soonest(), self.connections.timer);
        let next = [deadline, timer, self.exhausted_until, grace_ends];
        let next = next.into_iter().flatten().min()?;
        Some(next.saturating_duration_since(self.net.now()))
    }

    /// Returns whether the next turn has something to do without another event.
    fn has_work(&self) -> bool {
        self.connections.runnable() > 0
            || self.woken
            || self.connections.connects() > 0
            || !self.pending.is_empty()
            || (self.exhausted_until.is_none() && self.has_connections_to_accept())
            || self.stop_is_due()
    }

    /// Returns how many batches of `events` events hold all the events there may be now.
    ///
    /// The caller waits again, without a timeout, while a batch was full, at most this many times in
    /// all, and only then calls [`turn`](Self::turn). A turn that knows a part of the events only would
    /// serve requests in another order than that of their arrival.
    pub fn batches(&self, events: usize) -> usize {
        // An edge that comes meanwhile goes to the end of the kernel's list.
        1 + (self.connections.len() + self.sockets.len()) / events.max(1)
    }

    /// Takes note of an event, for the next [`turn`](Self::turn).
    pub fn notify(&mut self, source: Source, ready: Ready) {
        match source {
            Source::Listener(index) => {
                if let Some(SocketPlace { listener, socket }) = self.sockets.get(index).copied().flatten() {
                    self.listeners[listener].sockets[socket].ready |= ready.readable;
                }
            }
            Source::Connection(key) => self.connections.update_readiness(key, ready),
        }
    }

    /// Does all that can be done now, within the limits of one turn, without waiting.
    pub fn turn(&mut self) {
        self.connections.begin_turn(self.net.now());
        self.connections.stats = self.stats();
        self.make_connections();
        self.serve_ready();
        self.tell_woken();
        self.fire_deadlines();
        self.fire_timer();
        self.admit_pending();
        self.begin_stop();
        self.accept_connections();
        self.make_connections();
        self.advance_stop();
    }

    fn tell_woken(&mut self) {
        if std::mem::take(&mut self.woken) {
            self.service.on_wake(&mut Context::new(&mut self.connections));
            self.settle();
        }
    }

    /// Fires the service's timer, if its time has come.
    fn fire_timer(&mut self) {
        if self.connections.timer.is_some_and(|at| at <= self.connections.now) {
            self.connections.timer = None;
            self.service.on_timer(&mut Context::new(&mut self.connections));
            self.settle();
        }
    }

    /// Serves every connection on the run queue once. Those that queue again wait for the next turn.
    fn serve_ready(&mut self) {
        for _ in 0..self.connections.runnable() {
            if let Some(key) = self.connections.next_runnable() {
                self.serve(key);
            }
        }
    }

    /// Fires the deadlines that have passed. None is set anew to a time that has passed, so this ends.
    fn fire_deadlines(&mut self) {
        while let Some(key) = self.connections.deadlines.first_passed(self.connections.now) {
            // The clock was read after the wait, and may have jumped: what has arrived until now came
            // in time. A kernel tells of room only when there is much of it, and a peer that reads
            // slowly must not be taken for one that does not read. The callbacks may move the deadline.
            self.connections.look_again(key);
            self.serve(key);
            if self.connections.deadlines.take_passed(key, self.connections.now) {
                self.fire(key);
                self.settle();
            }
        }
    }

    fn fire(&mut self, key: usize) {
        match self.connections[key].seat {
            Seat::Lingering(_) => self.close(key, CloseReason::Finished),
            Seat::Admitted(_) | Seat::None => {
                self.call_back(key, |service, cx, id, conn| service.on_deadline(cx, id, conn));
            }
        }
    }
}
