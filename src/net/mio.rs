//! The real network: mio. This is the only file of the loop that names it.

use super::{Address, Interest, Net, Peer, Ready, SocketOptions, Source, tcp};
use crate::event_loop::EventLoop;
use crate::limits::Limits;
use crate::service::Service;
use mio::event::{self, Event};
use mio::net::{TcpListener, TcpStream};
use mio::{Events, Poll, Registry, Token, Waker};
use socket2::SockRef;
use std::fs::File;
use std::io::{self, ErrorKind, IoSlice, Read, Write};
use std::net::Shutdown;
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

#[cfg(unix)]
use super::unix::{self, SocketFile};
#[cfg(unix)]
use mio::net::{UnixListener, UnixStream};

/// The tokens below this are left to the [sources](EventLoop::register) of a tool that has its
/// own beside a loop that owns the poll.
pub const FOREIGN_TOKENS: usize = 1024;

/// How many events one wait may bring.
const EVENTS: usize = 1024;

/// How many listening sockets a loop can have. Their tokens come first, those of the connections
/// follow.
const DOORS: usize = 64;

/// Something to read, the end, or an urgent mark where a read would stop.
#[cfg(any(target_os = "linux", target_os = "android"))]
const READABLE: mio::Interest = mio::Interest::READABLE.add(mio::Interest::PRIORITY);
#[cfg(not(any(target_os = "linux", target_os = "android")))]
const READABLE: mio::Interest = mio::Interest::READABLE;

/// The token of a [`Handle`]'s waker, the first of a loop that owns its poll.
const WAKE: Token = Token(FOREIGN_TOKENS);

/// The real network, through a `mio::Registry`.
#[derive(Debug)]
pub struct Mio {
    registry: Registry,
    tokens: Range<usize>,
    /// Absent in a loop that is embedded in somebody else's poll.
    own: Option<Own>,
}

/// What only a loop that owns its poll has.
#[derive(Debug)]
struct Own {
    /// `run` has it while it runs.
    poll: Option<Poll>,
    handle: Handle,
}

/// Stops a loop from another thread.
///
/// ```
/// # use pollstack::{ConnId, Context, EventLoop, ListenerId, Service};
/// # struct Idle;
/// # impl Service for Idle {
/// #     type Conn = ();
/// #     fn on_open(&mut self, _: &mut Context<'_>, _: ConnId, _: ListenerId) {}
/// #     fn on_data(&mut self, _: &mut Context<'_>, _: ConnId, _: &mut (), input: &[u8]) -> usize { input.len() }
/// # }
/// use std::time::Duration;
///
/// let mut event_loop = EventLoop::new(Idle)?;
/// let handle = event_loop.handle()?;
/// std::thread::spawn(move || handle.stop(Duration::from_secs(5)));
/// event_loop.run()?;
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct Handle {
    stop: Arc<Mutex<Option<Duration>>>,
    waker: Arc<Waker>,
}

impl Handle {
    /// Asks the loop to stop, as [`EventLoop::stop`] does.
    ///
    /// # Errors
    /// The system's, if the loop cannot be woken.
    pub fn stop(&self, grace: Duration) -> io::Result<()> {
        let mut asked = self.stop.lock().unwrap_or_else(PoisonError::into_inner);
        *asked = Some(asked.map_or(grace, |earlier| earlier.min(grace)));
        self.waker.wake()
    }

    /// What has been asked since the last time.
    fn asked(&self) -> Option<Duration> {
        self.stop.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

impl<S: Service> EventLoop<S, Mio> {
    /// A loop with a poll of its own and the usual [`Limits`].
    ///
    /// # Errors
    /// The system's, if it has no descriptor to spare.
    pub fn new(service: S) -> io::Result<Self> {
        Self::with_limits(service, Limits::default())
    }

    /// A loop with a poll of its own.
    ///
    /// # Errors
    /// As [`new`](Self::new).
    pub fn with_limits(service: S, limits: Limits) -> io::Result<Self> {
        let poll = Poll::new()?;
        let registry = poll.registry().try_clone()?;
        let handle = Handle { stop: Arc::default(), waker: Arc::new(Waker::new(&registry, WAKE)?) };
        let own = Some(Own { poll: Some(poll), handle });
        Ok(Self::on(Mio { registry, tokens: WAKE.0 + 1..usize::MAX, own }, service, limits))
    }

    /// A loop that lives in somebody else's poll. All its tokens are taken from `tokens`: 64 are
    /// for listening sockets, and the rest has to be enough for the capacities of all listeners,
    /// for [`Limits::lingering`] and for one more.
    ///
    /// Its owner waits no longer than [`timeout`](Self::timeout), hands over
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
    /// let mut poll = mio::Poll::new()?;
    /// let mut events = mio::Events::with_capacity(256);
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
        Ok(Self::on(Mio { registry: registry.try_clone()?, tokens, own: None }, service, limits))
    }

    /// Runs until the loop has [stopped](Self::is_stopped).
    ///
    /// # Errors
    /// The system's, if it fails to wait; `InvalidInput` for a loop that is
    /// [embedded](Self::embedded), which its owner has to drive.
    pub fn run(&mut self) -> io::Result<()> {
        self.run_with(|_, _| {})
    }

    /// As [`run`](Self::run), for a tool with event sources of its own in the same poll:
    /// `foreign` gets the events that are not the loop's. See [`register`](Self::register).
    ///
    /// # Errors
    /// As [`run`](Self::run).
    pub fn run_with(&mut self, mut foreign: impl FnMut(&mut Self, &Event)) -> io::Result<()> {
        let Own { poll, handle } = self.net.own.as_mut().ok_or_else(embedded)?;
        let (mut poll, handle) = (poll.take().ok_or_else(embedded)?, handle.clone());
        let result = self.drive(&mut poll, &handle, &mut foreign);
        if let Some(own) = &mut self.net.own {
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
                        if let Some(grace) = handle.asked() {
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

    /// Registers an event source beside the loop, for [`run_with`](Self::run_with).
    ///
    /// # Errors
    /// The system's; `InvalidInput` for a token that is not below [`FOREIGN_TOKENS`].
    pub fn register(&self, source: &mut impl event::Source, token: usize) -> io::Result<()> {
        if token >= FOREIGN_TOKENS {
            let text = format!("token {token} is the loop's; use one below {FOREIGN_TOKENS}");
            return Err(io::Error::new(ErrorKind::InvalidInput, text));
        }
        self.net.registry.register(source, Token(token), mio::Interest::READABLE)
    }

    /// A handle that stops the loop from another thread.
    ///
    /// # Errors
    /// `InvalidInput` for a loop that is [embedded](Self::embedded): its owner wakes its poll and
    /// calls [`stop`](Self::stop).
    pub fn handle(&self) -> io::Result<Handle> {
        self.net.own.as_ref().map(|own| own.handle.clone()).ok_or_else(embedded)
    }

    /// Takes an event of the poll; `false` if it is not the loop's.
    pub fn handle_event(&mut self, event: &Event) -> bool {
        let Token(token) = event.token();
        if !self.net.tokens.contains(&token) {
            return false;
        }
        let source = match token - self.net.tokens.start {
            index if index < DOORS => Source::Listener(index),
            index => Source::Connection(index - DOORS),
        };
        let ready = Ready {
            readable: event.is_readable(),
            writable: event.is_writable(),
            read_closed: event.is_read_closed(),
            error: event.is_error(),
            urgent: event.is_priority(),
        };
        self.ready(source, ready);
        true
    }
}

fn embedded() -> io::Error {
    io::Error::new(ErrorKind::InvalidInput, "the loop has no poll of its own to run on; its owner drives it")
}

impl Mio {
    fn token(&self, source: Source) -> Token {
        Token(match source {
            Source::Listener(index) => self.tokens.start + index,
            Source::Connection(key) => self.tokens.start + DOORS + key,
        })
    }
}

/// A listening socket.
#[derive(Debug)]
pub enum Listener {
    /// Over IPv4 or IPv6.
    Tcp(TcpListener),
    /// In the file system.
    #[cfg(unix)]
    Unix(UnixListener, SocketFile),
}

/// A connection.
#[derive(Debug)]
pub enum Stream {
    /// Over IPv4 or IPv6.
    Tcp(TcpStream),
    /// On this machine.
    #[cfg(unix)]
    Unix(UnixStream),
}

impl Net for Mio {
    type Listener = Listener;
    type Stream = Stream;

    /// True of epoll and kqueue. Windows gives the next event only after a `WouldBlock`.
    const SHORT_MEANS_DRAINED: bool = cfg!(unix);

    fn max_connections(&self) -> usize {
        self.tokens.len().saturating_sub(DOORS)
    }

    fn listen(&mut self, address: &Address, options: &SocketOptions, index: usize) -> io::Result<Listener> {
        if index >= DOORS {
            return Err(io::Error::new(
                ErrorKind::InvalidInput,
                format!("a loop has at most {DOORS} listening sockets"),
            ));
        }
        let token = self.token(Source::Listener(index));
        match address {
            Address::Tcp(address) => {
                let mut listener = TcpListener::from_std(tcp::listen(*address, options)?);
                self.registry.register(&mut listener, token, mio::Interest::READABLE)?;
                Ok(Listener::Tcp(listener))
            }
            #[cfg(unix)]
            Address::Unix(path) => {
                let (listener, file) = unix::listen(path, options.backlog)?;
                let mut listener = UnixListener::from_std(listener);
                self.registry.register(&mut listener, token, mio::Interest::READABLE)?;
                Ok(Listener::Unix(listener, file))
            }
            #[cfg(not(unix))]
            Address::Unix(_) => Err(ErrorKind::Unsupported.into()),
        }
    }

    fn local_address(&self, listener: &Listener) -> io::Result<Address> {
        match listener {
            Listener::Tcp(listener) => listener.local_addr().map(Address::Tcp),
            #[cfg(unix)]
            Listener::Unix(_, file) => Ok(Address::Unix(file.path().to_owned())),
        }
    }

    fn accept(&mut self, listener: &mut Listener) -> io::Result<(Stream, Peer)> {
        match listener {
            Listener::Tcp(listener) => listener.accept().map(|(stream, peer)| (Stream::Tcp(stream), Peer::Tcp(peer))),
            #[cfg(unix)]
            Listener::Unix(listener, _) => listener.accept().map(|(stream, _)| (Stream::Unix(stream), Peer::Unix)),
        }
    }

    /// The read of a Unix socket stops at a passed descriptor.
    fn reads_stop_short(&self, stream: &Stream) -> bool {
        !matches!(stream, Stream::Tcp(_))
    }

    fn read(&mut self, stream: &mut Stream, buffer: &mut [u8]) -> io::Result<usize> {
        match stream {
            Stream::Tcp(stream) => stream.read(buffer),
            #[cfg(unix)]
            Stream::Unix(stream) => stream.read(buffer),
        }
    }

    fn write(&mut self, stream: &mut Stream, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        match (stream, slices) {
            (Stream::Tcp(stream), [slice]) => stream.write(slice),
            (Stream::Tcp(stream), slices) => stream.write_vectored(slices),
            #[cfg(unix)]
            (Stream::Unix(stream), [slice]) => stream.write(slice),
            #[cfg(unix)]
            (Stream::Unix(stream), slices) => stream.write_vectored(slices),
        }
    }

    /// One packet less for every answer that ends its connection.
    #[cfg(any(target_os = "linux", target_os = "android"))]
    fn write_more(&mut self, stream: &mut Stream, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        match (&*stream, slices) {
            (Stream::Tcp(stream), [slice]) => SockRef::from(stream).send_with_flags(slice, libc::MSG_MORE),
            (Stream::Tcp(stream), slices) => SockRef::from(stream).send_vectored_with_flags(slices, libc::MSG_MORE),
            (Stream::Unix(_), slices) => self.write(stream, slices), // it has no packets
        }
    }

    fn send_file(&mut self, stream: &mut Stream, file: &File, offset: u64, len: usize) -> io::Result<usize> {
        match stream {
            Stream::Tcp(stream) => send_file(stream, file, offset, len),
            #[cfg(unix)]
            Stream::Unix(stream) => send_file(stream, file, offset, len),
        }
    }

    /// A packet less here, too: a corked socket sends what is left together with the end.
    #[cfg(any(target_os = "linux", target_os = "android"))]
    fn send_file_end(&mut self, stream: &mut Stream, file: &File, offset: u64, len: usize) -> io::Result<usize> {
        if let Stream::Tcp(stream) = &*stream {
            SockRef::from(stream).set_tcp_cork(true)?;
        }
        self.send_file(stream, file, offset, len)
    }

    fn shut(&mut self, stream: &mut Stream) -> io::Result<()> {
        match stream {
            Stream::Tcp(stream) => stream.shutdown(Shutdown::Write),
            #[cfg(unix)]
            Stream::Unix(stream) => stream.shutdown(Shutdown::Write),
        }
    }

    fn watch(
        &mut self,
        stream: &mut Stream,
        key: usize,
        before: Option<Interest>,
        interest: Interest,
    ) -> io::Result<()> {
        let token = self.token(Source::Connection(key));
        let source: &mut dyn event::Source = match stream {
            Stream::Tcp(stream) => stream,
            #[cfg(unix)]
            Stream::Unix(stream) => stream,
        };
        let interest = match interest {
            Interest::Read => READABLE,
            Interest::ReadWrite => READABLE | mio::Interest::WRITABLE,
        };
        match before {
            None => source.register(&self.registry, token, interest),
            Some(_) => source.reregister(&self.registry, token, interest),
        }
    }

    fn take_error(&mut self, stream: &mut Stream) -> Option<io::Error> {
        match stream {
            Stream::Tcp(stream) => stream.take_error(),
            #[cfg(unix)]
            Stream::Unix(stream) => stream.take_error(),
        }
        .unwrap_or_else(Some)
    }

    fn reset(&mut self, stream: Stream) {
        if let Stream::Tcp(stream) = &stream {
            let _ = SockRef::from(stream).set_linger(Some(Duration::ZERO));
        }
    }

    fn now(&self) -> Instant {
        Instant::now()
    }
}

#[cfg(any(target_os = "linux", target_os = "android"))]
fn send_file(socket: &impl std::os::fd::AsFd, file: &File, offset: u64, len: usize) -> io::Result<usize> {
    let Some(count) = std::num::NonZeroUsize::new(len) else { return Ok(0) };
    let offset = usize::try_from(offset).map_err(|_| ErrorKind::FileTooLarge)?;
    SockRef::from(socket).sendfile(file, offset, Some(count))
}

/// Where there is no sendfile that returns what it has sent also when it stops: read and write.
#[cfg(not(any(target_os = "linux", target_os = "android")))]
fn send_file(socket: &mut impl Write, file: &File, offset: u64, len: usize) -> io::Result<usize> {
    let mut buffer = [0; 16 * 1024];
    let wanted = len.min(buffer.len());
    #[cfg(unix)]
    let n = std::os::unix::fs::FileExt::read_at(file, &mut buffer[..wanted], offset)?;
    #[cfg(windows)]
    let n = std::os::windows::fs::FileExt::seek_read(file, &mut buffer[..wanted], offset)?;
    if n == 0 { Ok(0) } else { socket.write(&buffer[..n]) }
}
