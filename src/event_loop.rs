//! The one loop: read, serve, flush, close, accept.
//!
//! # One turn
//!
//! 1. Streams that can go on, in the order in which they could: read, serve, flush.
//! 2. Deadlines that have passed.
//! 3. Newcomers, accepted in the turn before: let in or turned away, read and served.
//! 4. Accept, for the next turn.
//!
//! Whoever drives the loop waits in between, for as long as [`EventLoop::timeout`] allows.
//!
//! A newcomer is read before any registration: most requests are already there, and need nothing but
//! accept, recv, send, shutdown and close. The shutdown pushes the answer and our FIN out in one
//! packet, before the close: over input that has arrived meanwhile, a close is a reset, which
//! destroys what is still in the machine. What has happened before a
//! newcomer connected comes first, because a wait lies between its accept and its first read: a
//! request that was complete by then has been served, and a place that had come free is free. Only
//! when nobody is connected is there nobody to be ahead, and newcomers are served at once.
//!
//! # Effects
//!
//! A callback records what it wants in its [`Context`]. When it has returned, `settle` carries
//! that out, connection by connection: flush, close, or watch. What *that* tells the service may
//! record more, which goes to the end of the same list; so nothing is ever nested, and every
//! connection's budget for the turn bounds how long it can go on.

mod accept;
mod serve;
mod shutdown;

use crate::admission::{Admission, Listen};
use crate::connection::Seat;
use crate::connections::Table;
use crate::limits::{Limits, READ_BYTES};
use crate::net::{Address, Mio, Net, Peer, Ready, Source};
use crate::queue::Queue;
use crate::service::{Cause, Context, ListenerId, Service};
use std::collections::VecDeque;
use std::fmt;
use std::io::{self, ErrorKind};
use std::time::{Duration, Instant};

/// A connection loop: it owns the connections of a [`Service`] on a [`Net`].
///
/// It is not `Send`: connections share buffers without locks. To run it on another thread, make it
/// there, and send a [`Handle`](crate::net::Handle) back.
///
/// There are two ways to run it. [`run`](EventLoop::run) owns the poll and returns when the loop
/// has stopped. Or the loop is [`embedded`](EventLoop::embedded) in a poll of somebody else's, who
/// hands over [events](EventLoop::ready), calls [`turn`](EventLoop::turn), and sleeps no longer
/// than [`timeout`](EventLoop::timeout) says.
pub struct EventLoop<S: Service, N: Net = Mio> {
    pub(crate) net: N,
    service: S,
    table: Table,
    /// The other halves of the table's connections, under the same keys.
    ends: Vec<Option<End<N::Stream, S::Conn>>>,
    admissions: Vec<Admission>,
    doors: Vec<Door<N::Listener>>,
    /// The door that is accepted from first.
    next_door: usize,
    /// Accepted in this turn, to be let in or turned away in the next.
    newcomers: VecDeque<Newcomer<N::Stream>>,
    lingering: Queue<usize>,
    /// What every read reads into.
    scratch: Box<[u8]>,
    /// Until when nothing is accepted, because the system has no descriptor or memory for it.
    exhausted_until: Option<Instant>,
    /// When that was last logged.
    exhausted_logged: Option<Instant>,
    life: Life,
    stats: Stats,
}

/// The half of a connection that only the loop may touch. One that lingers has no state left.
struct End<Stream, Conn> {
    stream: Stream,
    conn: Option<Conn>,
}

/// A listening socket.
struct Door<Listener> {
    listener: Listener,
    /// The admission it counts with.
    admission: usize,
    backlog: u32,
    /// How many connections in a row were lost in the backlog.
    lost: usize,
    /// Somebody may be waiting. Cleared only by `WouldBlock`.
    ready: bool,
}

/// Somebody from the backlog, not judged yet.
struct Newcomer<Stream> {
    stream: Stream,
    peer: Peer,
    /// The admission of the door it came through.
    admission: usize,
}

#[derive(Clone, Copy, Debug)]
enum Life {
    Running,
    /// Those who are in the backlogs are still let in: for at most so many turns, and, if the system
    /// has no descriptors for them, until `last_try`.
    LastCall {
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

/// What a loop has done and holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Connections that are open now.
    pub open: usize,
    /// Connections that are closed for the service and linger now.
    pub lingering: usize,
    /// Connections opened so far.
    pub opened: u64,
    /// Newcomers turned away so far.
    pub rejected: u64,
    /// Connections evicted for a newcomer so far.
    pub evicted: u64,
}

impl<S: Service, N: Net> EventLoop<S, N> {
    /// A loop that runs `service` on `net`. For the real network see
    /// [`EventLoop::new`](EventLoop::new) and [`EventLoop::embedded`].
    pub fn on(net: N, service: S, limits: Limits) -> Self {
        let now = net.now();
        // With less than this nothing would ever be done.
        let limits =
            Limits { input: limits.input.max(1), turn: limits.turn.max(1), accepts: limits.accepts.max(1), ..limits };
        EventLoop {
            net,
            service,
            table: Table::new(limits, now),
            ends: Vec::new(),
            admissions: Vec::new(),
            doors: Vec::new(),
            next_door: 0,
            newcomers: VecDeque::new(),
            lingering: Queue::new(),
            scratch: vec![0; READ_BYTES].into(),
            exhausted_until: None,
            exhausted_logged: None,
            life: Life::Running,
            stats: Stats::default(),
        }
    }

    /// Opens a listener.
    ///
    /// # Errors
    /// The system's, for an address that cannot be listened on; `InvalidInput` if the loop's
    /// [`Net`] cannot tell so many connections apart, or if the loop is stopping.
    pub fn listen(&mut self, listen: Listen) -> io::Result<ListenerId> {
        if !matches!(self.life, Life::Running) || self.table.stop.is_some() {
            return Err(io::Error::new(ErrorKind::InvalidInput, "the loop has been asked to stop"));
        }
        let asked: usize = self.admissions.iter().map(Admission::capacity).sum();
        let asked = asked.saturating_add(listen.max_conns).saturating_add(self.table.limits.lingering);
        let asked = asked.saturating_add(1); // the one being turned away
        if asked > self.net.max_connections() {
            let names = self.net.max_connections();
            let text =
                format!("{asked} connections, lingering ones included, are more than the {names} tokens for them");
            return Err(io::Error::new(ErrorKind::InvalidInput, text));
        }
        let admission = self.admissions.len();
        let known = self.doors.len();
        for address in &listen.addresses {
            match self.net.listen(address, &listen.socket, self.doors.len()) {
                Ok(listener) => {
                    self.doors.push(Door { listener, admission, backlog: listen.socket.backlog, lost: 0, ready: false })
                }
                Err(error) => {
                    self.close_doors(known);
                    return Err(io::Error::new(error.kind(), ListenError { address: address.clone(), error }));
                }
            }
        }
        self.admissions.push(Admission::new(&listen));
        Ok(ListenerId(admission))
    }

    /// Takes in a connection that did not come through a listening socket: one that was made from
    /// here, inherited or handed over. It has to be non-blocking, and may still be connecting where
    /// a system answers reads and writes with `WouldBlock` until it has (Linux does). In the next
    /// turn it is admitted to `listener` as a newcomer is, or turned away, in the order of adoption.
    ///
    /// ```no_run
    /// # use pollstack::{ConnId, Context, EventLoop, Listen, ListenerId, Service};
    /// # struct Client;
    /// # impl Service for Client {
    /// #     type Conn = ();
    /// #     fn on_open(&mut self, _: &mut Context<'_>, _: ConnId, _: ListenerId) {}
    /// #     fn on_data(&mut self, _: &mut Context<'_>, _: ConnId, _: &mut (), input: &[u8]) -> usize { input.len() }
    /// # }
    /// use pollstack::net::{Peer, Stream};
    ///
    /// let mut clients = EventLoop::new(Client)?;
    /// let outgoing = clients.listen(Listen::nowhere().max_conns(100))?;
    /// let server = "192.0.2.1:8080".parse()?;
    /// let stream = mio::net::TcpStream::connect(server)?;
    /// clients.adopt(outgoing, Stream::Tcp(stream), Peer::Tcp(server))?;
    /// clients.run()?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// `ResourceBusy` if the listener [defers](crate::Overload::Defer) and is full: there is no
    /// backlog to wait in. `InvalidInput` for a listener that the loop does not have, or if it has
    /// been asked to stop. The stream is closed then.
    pub fn adopt(&mut self, listener: ListenerId, stream: N::Stream, peer: Peer) -> io::Result<()> {
        if !matches!(self.life, Life::Running) || self.table.stop.is_some() {
            return Err(io::Error::new(ErrorKind::InvalidInput, "the loop has been asked to stop"));
        }
        let unknown = || io::Error::new(ErrorKind::InvalidInput, "the loop has no such listener");
        let admission = self.admissions.get_mut(listener.0).ok_or_else(unknown)?;
        if !admission.may_accept() {
            return Err(io::Error::new(ErrorKind::ResourceBusy, "the listener is full"));
        }
        admission.count_newcomer();
        self.newcomers.push_back(Newcomer { stream, peer, admission: listener.0 });
        Ok(())
    }

    /// Where a listener listens, with the ports that the system chose; empty once it has closed.
    ///
    /// # Errors
    /// The system's, if it cannot say.
    pub fn addresses(&self, listener: ListenerId) -> io::Result<Vec<Address>> {
        let doors = self.doors.iter().filter(|door| door.admission == listener.0);
        doors.map(|door| self.net.local_address(&door.listener)).collect()
    }

    /// The service.
    pub fn service(&self) -> &S {
        &self.service
    }

    /// Calls into the service from outside, between two turns: for a timer or a signal that the
    /// tool around the loop keeps itself. Effects are carried out before this returns, within the
    /// limits of a turn.
    pub fn with<R>(&mut self, f: impl FnOnce(&mut S, &mut Context<'_>) -> R) -> R {
        self.table.begin_turn(self.net.now());
        let result = f(&mut self.service, &mut Context::new(&mut self.table));
        self.settle();
        result
    }

    /// What the loop has done and holds.
    pub fn stats(&self) -> Stats {
        let open = self.admissions.iter().map(Admission::len).sum();
        Stats { open, lingering: self.lingering.len(), ..self.stats }
    }

    /// Asks the loop to stop: it accepts whom it finds waiting and has a place for, closes its
    /// listeners, tells the service, and has [stopped](Self::is_stopped) when the last connection has closed, or when
    /// `grace` is over and the rest has been closed. A later call can shorten the grace.
    pub fn stop(&mut self, grace: Duration) {
        self.table.ask_to_stop(grace);
    }

    /// Whether the loop has stopped, and holds no connection any more.
    pub fn is_stopped(&self) -> bool {
        matches!(self.life, Life::Stopped)
    }

    /// How long the loop may be left alone: not at all if somebody can go on, until the next
    /// deadline, or (`None`) until an event. An idle loop never wakes.
    pub fn timeout(&mut self) -> Option<Duration> {
        if self.has_work() {
            return Some(Duration::ZERO);
        }
        let grace_ends = match self.life {
            Life::LastCall { until, .. } | Life::Draining { until, .. } => until,
            Life::Running | Life::Stopped => None,
        };
        let next = [self.table.deadlines.soonest(), self.exhausted_until, grace_ends].into_iter().flatten().min()?;
        Some(next.saturating_duration_since(self.net.now()))
    }

    /// Whether something can be done without an event.
    fn has_work(&self) -> bool {
        self.table.runnable() > 0
            || !self.newcomers.is_empty()
            || self.doors.iter().any(|door| self.may_accept(door))
            || self.stop_is_due()
    }

    /// How many batches of `events` events hold all that there may be now. Whoever drives the loop
    /// waits again, without a timeout, while a batch was full, at most so many times in all, and only
    /// then calls [`turn`](Self::turn): a turn that knows of a part of the events serves requests in
    /// another order than that in which they have come.
    pub fn batches(&self, events: usize) -> usize {
        // An edge that comes meanwhile goes to the end of the kernel's list.
        1 + (self.table.connections.len() + self.doors.len()) / events.max(1)
    }

    /// Takes note of an event. It is acted on in the next [`turn`](Self::turn).
    pub fn ready(&mut self, source: Source, ready: Ready) {
        match source {
            Source::Listener(index) => {
                if let Some(door) = self.doors.get_mut(index) {
                    door.ready |= ready.readable;
                }
            }
            Source::Connection(key) => {
                if let Some(connection) = self.table.connections.get_mut(key) {
                    connection.hear(ready);
                    self.table.queue_if_runnable(key);
                }
            }
        }
    }

    /// Does all that can be done now, within the limits of one turn, without waiting.
    pub fn turn(&mut self) {
        self.table.begin_turn(self.net.now());
        self.serve_ready();
        self.fire_deadlines();
        self.greet_newcomers();
        self.begin_stop();
        self.accept_newcomers();
        self.advance_stop();
    }

    /// Gives everybody on the run queue one turn; who queues again meanwhile waits for the next.
    fn serve_ready(&mut self) {
        for _ in 0..self.table.runnable() {
            if let Some(key) = self.table.next_runnable() {
                self.serve(key);
            }
        }
    }

    /// Fires what has passed. None is set anew to a time that has passed, so this ends.
    fn fire_deadlines(&mut self) {
        while let Some(key) = self.table.deadlines.first_passed(self.table.now) {
            // The clock was read after the wait, and may have jumped: what has come until now came in
            // time. And a kernel tells of room only when there is much of it; a peer that reads slowly
            // must not be taken for one that does not read. What is found may move the deadline.
            self.table.look_again(key);
            self.serve(key);
            if self.table.deadlines.take_passed(key, self.table.now) {
                self.fire(key);
                self.settle();
            }
        }
    }

    fn fire(&mut self, key: usize) {
        match self.table.connections[key].seat {
            Seat::Lingering(_) => self.close(key, Cause::Finished),
            Seat::Admitted(_) | Seat::None => {
                self.call(key, |service, cx, id, conn| service.on_deadline(cx, id, conn));
            }
        }
    }
}

/// An address that could not be listened on, why, and what can be done about it.
#[derive(Debug)]
struct ListenError {
    address: Address,
    error: io::Error,
}

impl fmt::Display for ListenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let remedy = match self.error.kind() {
            ErrorKind::AddrInUse => "; is another server running there? Stop it, or take another address",
            ErrorKind::AddrNotAvailable => "; it has to be an address of this machine, 0.0.0.0 or [::] for all",
            ErrorKind::PermissionDenied => "; ports below 1024 and protected folders need privileges",
            _ => "",
        };
        write!(f, "cannot listen on {}: {}{remedy}", self.address, self.error)
    }
}

impl std::error::Error for ListenError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.error)
    }
}
