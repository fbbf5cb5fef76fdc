//! The effects that a protocol may ask of the loop.

use crate::connection::Connection;
use crate::connections::Connections;
use crate::id::{ConnId, ListenerId, SendError};
use crate::limits::Limits;
use crate::net::{Address, Peer};
use crate::stats::Stats;
use std::fs::File;
use std::rc::Rc;
use std::time::{Duration, Instant};

/// Effects on any connection, at any time: connect, send, shut down, finish, abort, pause, set a deadline,
/// stop.
///
/// A context makes no system call and calls nothing back. It records effects, and the loop carries
/// them out when the callback has returned, so no callback ever runs inside another. An effect on a
/// connection that has gone does nothing.
#[derive(Debug)]
pub struct Context<'a> {
    connections: &'a mut Connections,
}

impl<'a> Context<'a> {
    pub(crate) fn new(connections: &'a mut Connections) -> Self {
        Context { connections }
    }

    /// Lends the same context for a shorter time, to a layer that keeps it in a context of its own.
    pub fn reborrow(&mut self) -> Context<'_> {
        Context { connections: self.connections }
    }

    /// Returns the time at which this turn of the loop began.
    pub fn now(&self) -> Instant {
        self.connections.now
    }

    /// Returns the limits of the loop.
    pub fn limits(&self) -> &Limits {
        &self.connections.limits
    }

    /// Sends a copy of `bytes`: all of them, or none.
    ///
    /// # Errors
    /// [`Full`](SendError::Full) if they are more than the [`send_capacity`](Self::send_capacity),
    /// [`TooLarge`](SendError::TooLarge) if they are more than it can ever be,
    /// [`Gone`](SendError::Gone) if the connection cannot be sent to any more.
    #[inline(always)]
    pub fn send(&mut self, id: ConnId, bytes: &[u8]) -> Result<(), SendError> {
        self.connections.send(id, bytes.len(), |output| output.push_bytes(bytes))
    }

    /// Sends `bytes` without a copy: the same buffer can go to any number of connections. It
    /// counts in full against the [`send_capacity`](Self::send_capacity) of each.
    ///
    /// # Errors
    /// As [`send`](Self::send).
    pub fn send_shared(&mut self, id: ConnId, bytes: &Rc<[u8]>) -> Result<(), SendError> {
        self.connections.send(id, bytes.len(), |output| output.push_shared(bytes))
    }

    /// Sends `len` bytes of `file` from `offset`, by `sendfile` where the system has it. A file counts
    /// a few bytes against the [`send_capacity`](Self::send_capacity). If it turns out to be
    /// shorter, the connection fails with a reset, so that the peer cannot take a part for the whole.
    ///
    /// # Errors
    /// As [`send`](Self::send).
    pub fn send_file(&mut self, id: ConnId, file: &Rc<File>, offset: u64, len: u64) -> Result<(), SendError> {
        self.connections.send(id, usize::from(len > 0), |output| output.push_file(file, offset, len))
    }

    /// Returns how many bytes can be sent now: [`Limits::output`](crate::Limits::output) less what
    /// the kernel has not taken yet; 0 if the connection has gone.
    pub fn send_capacity(&self, id: ConnId) -> usize {
        self.connections.open(id).map_or(0, |connection| connection.send_capacity(&self.connections.limits))
    }

    /// Returns when the kernel last took bytes of the connection's output; `None` if it never has.
    ///
    /// A peer that does not read shows here. A slow reader may, too: kernels tell of room only when a
    /// third of their buffer is free. The loop tries to write once more before a
    /// [deadline](Self::set_deadline) passes.
    pub fn last_write(&self, id: ConnId) -> Option<Instant> {
        self.connections.get(id).and_then(|connection| connection.last_write)
    }

    /// Returns the counts of the loop. Those of connections are of the beginning of this turn.
    pub fn stats(&self) -> Stats {
        self.connections.stats
    }

    /// Returns all connections, of all listeners: from [`on_open`](crate::Service::on_open) on, until
    /// [`on_close`](crate::Service::on_close). The cost grows with the most connections that were ever open at once. One
    /// that cannot be [made](Self::connect) is not among them.
    ///
    /// To change them, collect the ids first. An id stays good for its connection, and reaches no other once that has
    /// closed, so a list may be worked off over several turns:
    ///
    /// ```
    /// # use pollstack::{ConnId, Context, ListenerId, Service};
    /// # use std::collections::VecDeque;
    /// const A_TURN: usize = 256;
    ///
    /// /// Tells all clients of a wake, a part of them in each turn.
    /// struct Crier(VecDeque<ConnId>);
    ///
    /// impl Service for Crier {
    /// #   type Conn = ();
    /// #   fn on_open(&mut self, _: &mut Context<'_>, _: ConnId, _: ListenerId) {}
    /// #   fn on_data(&mut self, _: &mut Context<'_>, _: ConnId, _: &mut (), input: &[u8]) -> usize { input.len() }
    ///     fn on_wake(&mut self, cx: &mut Context<'_>) {
    ///         self.0 = cx.connections().collect();
    ///         self.on_timer(cx);
    ///     }
    ///
    ///     fn on_timer(&mut self, cx: &mut Context<'_>) {
    ///         for id in self.0.drain(..self.0.len().min(A_TURN)) {
    ///             let _ = cx.send(id, b"news\n"); // one that has closed is gone
    ///         }
    ///         if !self.0.is_empty() {
    ///             cx.set_timer(Some(cx.now())); // in the next turn
    ///         }
    ///     }
    /// }
    /// ```
    ///
    /// For a part of the connections, or for something that is known of each, keep a [`ConnMap`](crate::ConnMap).
    pub fn connections(&self) -> impl Iterator<Item = ConnId> {
        self.connections.admitted()
    }

    /// Returns whether the connection can still be sent to. A connection whose peer [has ended](Self::has_ended) its half
    /// may be; one that has been finished is not.
    pub fn is_open(&self, id: ConnId) -> bool {
        self.connections.open(id).is_some()
    }

    /// Returns the address of the peer; `None` if the connection has gone.
    pub fn peer(&self, id: ConnId) -> Option<Peer> {
        self.connections.open(id).map(|connection| connection.peer)
    }

    /// Returns whether the end of the peer's half has been read, whether or not the service has been
    /// told. Also true once the connection has gone.
    ///
    /// ```
    /// # use pollstack::{ConnId, Context};
    /// # use std::collections::VecDeque;
    /// /// An item goes to the client that has waited longest, of those that are still there.
    /// fn hand_out(cx: &mut Context<'_>, waiting: &mut VecDeque<ConnId>, item: &[u8]) -> bool {
    ///     while let Some(id) = waiting.pop_front() {
    ///         if !cx.has_ended(id) && cx.send(id, item).is_ok() {
    ///             cx.resume(id);
    ///             return true;
    ///         }
    ///     }
    ///     false
    /// }
    /// ```
    pub fn has_ended(&self, id: ConnId) -> bool {
        self.connections.get(id).is_none_or(Connection::has_ended)
    }

    /// Closes the connection once everything sent has gone out. Call it when the peer's last message
    /// is complete: input is not delivered any more.
    ///
    /// The loop sends the FIN with the last of the output, before the close. The close lingers, as
    /// after [`finish_lingering`](Self::finish_lingering), if the peer has sent more than was taken,
    /// or was sent more than leaves the machine at once: a close over unread input makes the kernel
    /// send a reset, which destroys what it still holds.
    ///
    /// A peer that does not read keeps its place until it does. A [deadline](Self::set_deadline) stays
    /// in force and can end that.
    ///
    /// To end the output alone, and go on reading, call [`shutdown_write`](Self::shutdown_write).
    pub fn finish(&mut self, id: ConnId) {
        self.connections.change(id, Connection::finish);
    }

    /// Closes as [`finish`](Self::finish) does, for a peer that may still be sending. After the last
    /// answer and the FIN, the loop reads and drops what still comes, up to
    /// [`Limits::linger_time`](crate::Limits::linger_time) and
    /// [`Limits::linger_bytes`](crate::Limits::linger_bytes). The service sees the connection
    /// closed, and its place is free, as soon as the answer has gone out.
    pub fn finish_lingering(&mut self, id: ConnId) {
        self.connections.change(id, |connection| {
            connection.finish();
            connection.goes_on = true;
        });
    }

    /// Ends our half of the stream: the FIN follows the last of the output. Input is still offered, and
    /// its end told; nothing more can be sent ([`Gone`](SendError::Gone)). When both halves have ended, the
    /// loop closes the connection, as [`Finished`](crate::CloseReason::Finished).
    ///
    /// A peer may wait for our end before it answers, and a proxy passes one on:
    ///
    /// ```
    /// # use pollstack::{ConnId, Context, EofAction};
    /// # fn on_eof(cx: &mut Context<'_>, other: ConnId) -> EofAction {
    /// cx.shutdown_write(other);
    /// EofAction::Keep // the other side may still answer
    /// # }
    /// ```
    pub fn shutdown_write(&mut self, id: ConnId) {
        self.connections.change(id, Connection::shutdown_write);
    }

    /// Closes the connection at once. Output that has not gone out is lost, and counted in
    /// [`Closed::unsent`](crate::Closed::unsent). If any is, the peer's stream ends in a reset where
    /// streams have one (TCP), so that the peer cannot take a part for the whole.
    pub fn abort(&mut self, id: ConnId) {
        self.connections.change(id, Connection::abort);
    }

    /// Closes as [`abort`](Self::abort) does, and always with a reset, even if all output was sent: for a
    /// peer that must not take the part for the whole.
    ///
    /// ```
    /// # use pollstack::{CloseReason, Closed, ConnId, Context};
    /// // One side of a proxy has closed.
    /// fn on_close(cx: &mut Context<'_>, other: ConnId, closed: Closed) {
    ///     match closed.reason {
    ///         CloseReason::Finished => cx.finish(other),
    ///         _ => cx.reset(other),
    ///     }
    /// }
    /// ```
    pub fn reset(&mut self, id: ConnId) {
        self.connections.change(id, |connection| {
            connection.abort();
            connection.resets = true;
        });
    }

    /// Reads and drops what the peer sends from here on, and what is left of its input. Only its end
    /// is still told, before anything that other connections have sent by then is offered.
    ///
    /// This is for a peer that has asked for something and waits: once it has hung up, it must not be
    /// given what other connections bring.
    pub fn ignore_input(&mut self, id: ConnId) {
        self.connections.change(id, Connection::ignore_input);
    }

    /// Offers no input of the connection until [`resume`](Self::resume): the way to wait for something
    /// else than more input.
    ///
    /// The loop still reads, up to [`Limits::input`](crate::Limits::input), and then holds the peer
    /// back. So it notices the end, and tells it: with [`Service::on_eof`](crate::Service::on_eof) if no
    /// input is held back, else with [`Service::on_early_eof`](crate::Service::on_early_eof). A paused
    /// connection is never closed for a full input.
    ///
    /// A service that passes input on to another connection waits until that has room:
    ///
    /// ```
    /// use pollstack::{ConnId, Context};
    ///
    /// fn on_data(cx: &mut Context<'_>, from: ConnId, to: ConnId, input: &[u8]) -> usize {
    ///     let fits = input.len().min(cx.send_capacity(to));
    ///     if fits < input.len() {
    ///         cx.pause(from);
    ///     }
    ///     cx.send(to, &input[..fits]).map_or(0, |()| fits)
    /// }
    ///
    /// fn on_drain(cx: &mut Context<'_>, from: ConnId, _to: ConnId) {
    ///     cx.resume(from);
    /// }
    /// ```
    pub fn pause(&mut self, id: ConnId) {
        self.connections.change(id, |connection| connection.paused = true);
    }

    /// Offers input again, first what is left of it. Do not call it from
    /// [`Service::on_data`](crate::Service::on_data) for the connection that the call is about: the
    /// loop would offer the same input for ever.
    pub fn resume(&mut self, id: ConnId) {
        self.connections.change(id, |connection| {
            connection.paused = false;
            connection.reoffer = true;
        });
    }

    /// Sets, moves or clears the connection's deadline. When it passes, the loop calls
    /// [`Service::on_deadline`](crate::Service::on_deadline), once. A time that has passed already
    /// counts from the next turn on; a deadline that was due in this turn stays due.
    pub fn set_deadline(&mut self, id: ConnId, deadline: Option<Instant>) {
        if self.connections.get(id).is_some() {
            let next_turn = self.now() + Duration::from_nanos(1);
            // A deadline that is about to be met is not put off by setting it again.
            let before = self.connections.deadlines.get(id.key()).unwrap_or(next_turn);
            let deadline = deadline.map(|at| at.max(next_turn.min(before)));
            self.connections.deadlines.set(id.key(), deadline);
        }
    }

    /// Sets, moves or clears the timer of the service, which needs no connection. When the time has come,
    /// the loop calls [`Service::on_timer`](crate::Service::on_timer), once, in the next turn at the soonest.
    ///
    /// ```
    /// # use pollstack::{ConnId, Context, EventLoop, ListenerId, Service};
    /// use std::time::Duration;
    ///
    /// struct Countdown(u32);
    ///
    /// impl Service for Countdown {
    /// #   type Conn = ();
    /// #   fn on_open(&mut self, _: &mut Context<'_>, _: ConnId, _: ListenerId) {}
    /// #   fn on_data(&mut self, _: &mut Context<'_>, _: ConnId, _: &mut (), input: &[u8]) -> usize { input.len() }
    ///     fn on_timer(&mut self, cx: &mut Context<'_>) {
    ///         self.0 -= 1;
    ///         match self.0 {
    ///             0 => cx.stop(Duration::ZERO),
    ///             _ => cx.set_timer(Some(cx.now() + Duration::from_millis(1))),
    ///         }
    ///     }
    /// }
    ///
    /// let mut event_loop = EventLoop::new(Countdown(3))?;
    /// event_loop.call(|_, cx| cx.set_timer(Some(cx.now())));
    /// event_loop.run()?;
    /// assert_eq!(event_loop.service().0, 0);
    /// # Ok::<(), std::io::Error>(())
    /// ```
    pub fn set_timer(&mut self, at: Option<Instant>) {
        self.connections.timer = at;
    }

    /// Connects to `address`. The connection counts with those of `listener`, which may have no address
    /// ([`ListenerConfig::unbound`](crate::ListenerConfig::unbound)), and has the
    /// [keepalive](crate::ListenerConfig::keepalive) of that.
    ///
    /// An [`Address`] is an IP address with a port, or a path: names are not resolved, as that blocks. Resolve them before
    /// the loop runs ([`ToSocketAddrs`](std::net::ToSocketAddrs)), or on a thread that [wakes](crate::net::Handle::wake) it.
    ///
    /// The id is good at once: what is sent goes out when the connection has been made, and a
    /// [deadline](Self::set_deadline) bounds the wait (without one it is the system's, two minutes on
    /// Linux). The loop calls [`Service::on_open`](crate::Service::on_open) after this callback, for the state of the
    /// connection, and [`Service::on_connect`](crate::Service::on_connect) once the peer has answered. A
    /// [`ConnMap`](crate::ConnMap) of the service holds what `on_open` has to know of the call, under the id:
    ///
    /// ```
    /// # use pollstack::{ConnId, ConnMap, Context, ListenerId, Service, net::Address};
    /// struct Proxy {
    ///     upstream: Address,
    ///     outgoing: ListenerId,
    ///     /// The clients, by the ids of the connections that have been asked for.
    ///     called: ConnMap<ConnId>,
    /// }
    ///
    /// impl Service for Proxy {
    ///     /// The other side.
    ///     type Conn = ConnId;
    ///
    ///     fn on_open(&mut self, cx: &mut Context<'_>, id: ConnId, listener: ListenerId) -> ConnId {
    ///         if listener == self.outgoing {
    ///             return self.called.remove(id).unwrap_or(id);
    ///         }
    ///         let upstream = cx.connect(self.outgoing, self.upstream.clone());
    ///         self.called.insert(upstream, id);
    ///         upstream
    ///     }
    /// #   fn on_data(&mut self, _: &mut Context<'_>, _: ConnId, _: &mut ConnId, input: &[u8]) -> usize { input.len() }
    /// }
    /// ```
    ///
    /// A connection that cannot be made is [closed](crate::Service::on_close), without `on_connect`, as
    /// [`Failed`](crate::CloseReason::Failed). The kind of the error is `ConnectionRefused` if nothing listens there,
    /// `TimedOut`, `HostUnreachable` or `NetworkUnreachable` if there is no answer or no way, `NotFound` for a path
    /// without a socket, `WouldBlock` for one whose backlog is full. [`Closed::unsent`](crate::Closed::unsent) counts what
    /// was sent to it. After a deadline the reason is [`Aborted`](crate::CloseReason::Aborted), unless
    /// [`on_deadline`](crate::Service::on_deadline) says otherwise. To try again, wait
    /// ([`set_timer`](Self::set_timer)): a peer that refuses does so at once.
    ///
    /// If the listener is full, the connection fails in the same way at once, whatever the listener's
    /// [`Overload`](crate::Overload): the kind is `ResourceBusy`, and no packet has left. None is evicted for it, and it
    /// does not wait for a place. A client that was accepted before has the place. If the loop has no such listener, the
    /// kind is `InvalidInput`.
    ///
    /// ```
    /// use pollstack::{CloseReason, Closed, ConnId, Context, EventLoop, ListenerConfig, ListenerId, Service};
    /// use std::time::Duration;
    ///
    /// /// Asks a server, and stops when it has answered or has not.
    /// struct Ask(Vec<u8>);
    ///
    /// impl Service for Ask {
    ///     type Conn = ();
    ///     fn on_open(&mut self, _: &mut Context<'_>, _: ConnId, _: ListenerId) {}
    ///     fn on_data(&mut self, _: &mut Context<'_>, _: ConnId, _: &mut (), input: &[u8]) -> usize {
    ///         self.0.extend(input);
    ///         input.len()
    ///     }
    ///     fn on_close(&mut self, cx: &mut Context<'_>, _: ConnId, _: (), closed: Closed) {
    ///         if let CloseReason::Failed(error) = closed.reason {
    ///             self.0 = error.to_string().into_bytes();
    ///         }
    ///         cx.stop(Duration::ZERO);
    ///     }
    /// }
    ///
    /// let server = std::net::TcpListener::bind("127.0.0.1:0")?;
    /// let address = server.local_addr()?.into();
    /// # std::thread::spawn(move || std::io::Write::write_all(&mut server.accept()?.0, b"answer"));
    /// let mut asker = EventLoop::new(Ask(Vec::new()))?;
    /// let outgoing = asker.listen(ListenerConfig::unbound())?;
    /// asker.call(|_, cx| {
    ///     let id = cx.connect(outgoing, address);
    ///     cx.set_deadline(id, Some(cx.now() + Duration::from_secs(5)));
    ///     cx.send(id, b"question")
    /// })?;
    /// asker.run()?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn connect(&mut self, listener: ListenerId, address: Address) -> ConnId {
        self.connections.connect(listener, address)
    }

    /// Stops the loop, as [`EventLoop::stop`](crate::EventLoop::stop) does.
    pub fn stop(&mut self, grace: Duration) {
        self.connections.ask_to_stop(grace);
    }
}
