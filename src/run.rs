//! The loop on a poll of mio: one of its own, which `run` waits on, or another that it is embedded in.

use crate::event_loop::EventLoop;
use crate::limits::Limits;
use crate::net::{Handle, Mio, OnMio, OwnPoll, WAKE};
use crate::service::Service;
use mio::event::{self, Event};
use mio::{Events, Interest, Poll, Registry};
use std::io::{self, ErrorKind};
use std::ops::Range;
use std::time::Duration;

/// How many events one wait may bring.
const EVENTS: usize = 1024;

impl<S: Service> EventLoop<S, Mio> {
    /// Makes a loop with a poll of its own and the default [`Limits`].
    ///
    /// # Errors
    /// The system's, if it has no descriptor to spare.
    pub fn new(service: S) -> io::Result<Self> {
        Self::with_limits(service, Limits::default())
    }

    /// Makes a loop with a poll of its own.
    ///
    /// # Errors
    /// As [`new`](Self::new).
    pub fn with_limits(service: S, limits: Limits) -> io::Result<Self> {
        Ok(Self::with_net(Mio::new()?, service, limits))
    }

    /// Makes a loop that lives in another poll. It takes all its tokens from `tokens`: 64 are for
    /// listening sockets, and the rest has to be enough for the capacities of all listeners, for
    /// [`Limits::lingering`] and for one more.
    ///
    /// The caller waits no longer than [`timeout`](Self::timeout), hands over
    /// [events](Self::handle_event), waits again while there may be [more](Self::batches), and calls
    /// [`turn`](Self::turn):
    ///
    /// ```
    /// # use pollstack::{ConnId, Context, EventLoop, Limits, ListenerId, Service};
    /// # use std::time::Duration;
    /// # struct Idle;
    /// # impl Service for Idle {
    /// #     type Conn = ();
    /// #     fn on_open(&mut self, _: &mut Context<'_>, _: ConnId, _: ListenerId) {}
    /// #     fn on_data(&mut self, _: &mut Context<'_>, _: ConnId, _: &mut (), input: &[u8]) -> usize { input.len() }
    /// # }
    /// use pollstack::mio::{Events, Poll};
    ///
    /// let mut poll = Poll::new()?;
    /// let mut events = Events::with_capacity(256);
    /// let mut server = EventLoop::embedded(Idle, Limits::default(), poll.registry(), 1000..5000)?;
    /// # server.stop(Duration::ZERO);
    /// while !server.is_stopped() {
    ///     let mut timeout = server.timeout();
    ///     for _ in 0..server.batches(256) {
    ///         poll.poll(&mut events, timeout)?;
    ///         for event in &events {
    ///             if !server.handle_event(event) {
    ///                 // the event of a source of our own
    ///             }
    ///         }
    ///         if events.iter().count() < 256 {
    ///             break;
    ///         }
    ///         timeout = Some(Duration::ZERO);
    ///     }
    ///     server.turn();
    /// }
    /// # Ok::<(), std::io::Error>(())
    /// ```
    ///
    /// # Errors
    /// The system's, if the registry cannot be cloned.
    pub fn embedded(service: S, limits: Limits, registry: &Registry, tokens: Range<usize>) -> io::Result<Self> {
        Ok(Self::with_net(Mio::embedded(registry, tokens)?, service, limits))
    }
}

/// On mio, or on a network around it.
impl<S: Service, N: OnMio> EventLoop<S, N> {
    /// Runs until the loop has [stopped](Self::is_stopped).
    ///
    /// # Errors
    /// The system's, if it fails to wait; `InvalidInput` for a loop that is
    /// [embedded](Self::embedded): drive it with [`turn`](Self::turn).
    pub fn run(&mut self) -> io::Result<()> {
        self.run_with(|_, _| {})
    }

    /// Runs as [`run`](Self::run) does, and hands the events that are not the loop's to `foreign`: for
    /// a tool with event sources of its own in the same poll. See [`register`](Self::register).
    ///
    /// # Errors
    /// As [`run`](Self::run).
    pub fn run_with(&mut self, mut foreign: impl FnMut(&mut Self, &Event)) -> io::Result<()> {
        let OwnPoll { poll, handle } = self.net.mio_mut().own.as_mut().ok_or_else(embedded)?;
        let (mut poll, handle) = (poll.take().ok_or_else(embedded)?, handle.clone());
        let result = self.drive(&mut poll, &handle, &mut foreign);
        if let Some(own) = &mut self.net.mio_mut().own {
            own.poll = Some(poll);
        }
        result
    }

    fn drive(
        &mut self,
        poll: &mut Poll,
        handle: &Handle,
        foreign: &mut impl FnMut(&mut Self, &Event),
    ) -> io::Result<()> {
        let mut events = Events::with_capacity(EVENTS);
        'turns: while !self.is_stopped() {
            let mut timeout = self.timeout();
            for _ in 0..self.batches(EVENTS) {
                match poll.poll(&mut events, timeout) {
                    Err(error) if error.kind() == ErrorKind::Interrupted => continue 'turns,
                    result => result?,
                }
                for event in &events {
                    if event.token() == WAKE {
                        if handle.take_wake() {
                            self.wake();
                        }
                        if let Some(grace) = handle.take_stop() {
                            self.stop(grace);
                        }
                    } else if !self.handle_event(event) {
                        foreign(self, event);
                    }
                }
                if events.iter().count() < EVENTS {
                    break;
                }
                timeout = Some(Duration::ZERO);
            }
            self.turn();
        }
        Ok(())
    }

    /// Registers an event source beside the loop, for [`run_with`](Self::run_with): a UDP socket, a pipe, a device.
    ///
    /// Events are edges, as mio's are: [`is_readable`](Event::is_readable) says that more can be read than at the last
    /// event, [`is_writable`](Event::is_writable) that there is room again. Read, and write, until `WouldBlock`; what is
    /// left before is not told again. To go on with it later, [`reregister`](Self::reregister) the source. To end it,
    /// drop the source.
    ///
    /// A UDP socket sends each datagram back, when there is room, and at most 64 of them before clients have their turn:
    ///
    /// ```
    /// # use pollstack::{ConnId, Context, EventLoop, ListenerId, Service};
    /// # struct Idle;
    /// # impl Service for Idle {
    /// #     type Conn = ();
    /// #     fn on_open(&mut self, _: &mut Context<'_>, _: ConnId, _: ListenerId) {}
    /// #     fn on_data(&mut self, _: &mut Context<'_>, _: ConnId, _: &mut (), input: &[u8]) -> usize { input.len() }
    /// # }
    /// use pollstack::mio::{Interest, net::UdpSocket};
    /// use std::io::ErrorKind;
    ///
    /// const ECHO: usize = 0; // the token
    /// let both = Interest::READABLE | Interest::WRITABLE;
    /// let mut event_loop = EventLoop::new(Idle)?;
    /// let mut socket = UdpSocket::bind("127.0.0.1:0".parse()?)?;
    /// # let client = std::net::UdpSocket::bind("127.0.0.1:0")?;
    /// # (0..100).try_for_each(|n| client.send_to(&[n], socket.local_addr()?).map(drop))?;
    /// # let handle = event_loop.handle()?;
    /// # let client = std::thread::spawn(move || {
    /// #     (0..100).for_each(|n| assert_eq!((client.recv(&mut [n; 2]).ok(), n), (Some(1), n)));
    /// #     handle.stop(std::time::Duration::ZERO)
    /// # });
    /// event_loop.register(&mut socket, ECHO, both)?;
    ///
    /// let (mut buffer, mut unsent) = ([0; 1500], None);
    /// event_loop.run_with(|event_loop, _| {
    ///     for _ in 0..64 {
    ///         if let Some((len, peer)) = unsent {
    ///             match socket.send_to(&buffer[..len], peer) {
    ///                 Err(error) if error.kind() == ErrorKind::WouldBlock => return, // an event tells of room
    ///                 _ => unsent = None,
    ///             }
    ///         }
    ///         match socket.recv_from(&mut buffer) {
    ///             Ok(datagram) => unsent = Some(datagram),
    ///             Err(_) => return, // an event tells of more
    ///         }
    ///     }
    ///     event_loop.reregister(&mut socket, ECHO, both).expect("it is registered");
    /// })?;
    /// # client.join().expect("no panic")?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// The system's; `InvalidInput` for a token of the loop's own: one that is not below
    /// [`RESERVED_TOKENS`](crate::net::RESERVED_TOKENS), or among those of a loop that is embedded.
    pub fn register(&self, source: &mut impl event::Source, token: usize, interest: Interest) -> io::Result<()> {
        let (registry, token) = self.net.mio().foreign(token)?;
        registry.register(source, token, interest)
    }

    /// Changes the events that a [registered](Self::register) source is told of. If it is ready, it is told so once
    /// more, after the turn: so a source may be left before `WouldBlock`.
    ///
    /// # Errors
    /// As [`register`](Self::register).
    pub fn reregister(&self, source: &mut impl event::Source, token: usize, interest: Interest) -> io::Result<()> {
        let (registry, token) = self.net.mio().foreign(token)?;
        registry.reregister(source, token, interest)
    }

    /// Returns a handle that wakes or stops the loop from another thread.
    ///
    /// # Errors
    /// `InvalidInput` for a loop that is [embedded](Self::embedded): wake its poll and call
    /// [`wake`](Self::wake) or [`stop`](Self::stop).
    pub fn handle(&self) -> io::Result<Handle> {
        self.net.mio().own.as_ref().map(|own| own.handle.clone()).ok_or_else(embedded)
    }

    /// Takes note of an event of the poll. Returns whether it is the loop's.
    pub fn handle_event(&mut self, event: &Event) -> bool {
        let known = self.net.mio().translate(event);
        known.inspect(|(source, ready)| self.notify(*source, *ready)).is_some()
    }
}

fn embedded() -> io::Error {
    io::Error::new(ErrorKind::InvalidInput, "the event loop is embedded: drive it with `turn`, not `run`")
}
