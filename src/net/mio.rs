//! The real network: sockets that are registered with a poll of mio.

use super::{Address, Interest, Net, Peer, Ready, Socket, SocketOptions, Source, tcp};
use mio::event::{self, Event};
use mio::net::{TcpListener, TcpStream};
use mio::{Poll, Registry, Token, Waker};
use socket2::SockRef;
use std::fs::File;
use std::io::{self, ErrorKind, IoSlice, Read, Write};
use std::net::Shutdown;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

#[cfg(unix)]
use super::unix::{self, SocketFile};
#[cfg(unix)]
use mio::net::{UnixListener, UnixStream};

/// A loop with a poll of its own leaves the tokens below this one to the event sources that are
/// [registered](crate::EventLoop::register) beside it; all of them, also with the feature `signals`.
pub const RESERVED_TOKENS: usize = 1024;

/// How many listening sockets a loop can have. Their tokens come first; those of the connections
/// follow.
const LISTENERS: usize = 64;

/// Bytes to read, the end, or an urgent mark where a read would stop.
#[cfg(any(target_os = "linux", target_os = "android"))]
const READABLE: mio::Interest = mio::Interest::READABLE.add(mio::Interest::PRIORITY);
#[cfg(not(any(target_os = "linux", target_os = "android")))]
const READABLE: mio::Interest = mio::Interest::READABLE;

/// The token of a [`Handle`]'s waker, the first of a loop that owns its poll.
pub(crate) const WAKE: Token = Token(RESERVED_TOKENS);

/// The token of the [signals](crate::signals) of a loop that owns its poll.
pub(crate) const SIGNALS: Token = Token(RESERVED_TOKENS + 1);

/// The real network, through a `mio::Registry`.
#[derive(Debug)]
pub struct Mio {
    registry: Registry,
    tokens: Range<usize>,
    /// `None` in a loop that is embedded in another poll.
    pub(crate) own: Option<OwnPoll>,
}

/// The part of a loop with a poll of its own.
#[derive(Debug)]
pub(crate) struct OwnPoll {
    /// `None` while the loop runs.
    pub(crate) poll: Option<Poll>,
    pub(crate) handle: Handle,
}

/// Wakes or stops a loop from another thread.
///
/// A worker thread hands over its results through a channel, and wakes the loop behind each:
///
/// ```
/// use pollstack::{ConnId, Context, EventLoop, ListenerId, Service};
/// use std::sync::mpsc;
/// use std::time::Duration;
///
/// struct Sum(mpsc::Receiver<u64>, u64);
///
/// impl Service for Sum {
///     type Conn = ();
///     fn on_open(&mut self, _: &mut Context<'_>, _: ConnId, _: ListenerId) {}
///     fn on_data(&mut self, _: &mut Context<'_>, _: ConnId, _: &mut (), input: &[u8]) -> usize { input.len() }
///     fn on_wake(&mut self, cx: &mut Context<'_>) {
///         self.1 += self.0.try_iter().sum::<u64>();
///         if self.1 == 55 {
///             cx.stop(Duration::ZERO);
///         }
///     }
/// }
///
/// let (results, receiver) = mpsc::channel();
/// let mut event_loop = EventLoop::new(Sum(receiver, 0))?;
/// let handle = event_loop.handle()?;
/// std::thread::spawn(move || {
///     for n in 1..=10 {
///         results.send(n).expect("the loop runs");
///         handle.wake().expect("the loop can be woken");
///     }
/// });
/// event_loop.run()?;
/// # Ok::<(), std::io::Error>(())
/// ```
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
    woken: Arc<AtomicBool>,
    waker: Arc<Waker>,
}

impl Handle {
    /// Asks the loop to stop, as [`EventLoop::stop`](crate::EventLoop::stop) does. It succeeds, too, if the loop has gone.
    ///
    /// # Errors
    /// The system's, if the loop cannot be woken.
    pub fn stop(&self, grace: Duration) -> io::Result<()> {
        let mut asked = self.stop.lock().unwrap_or_else(PoisonError::into_inner);
        *asked = Some(asked.map_or(grace, |earlier| earlier.min(grace)));
        self.waker.wake()
    }

    /// Has the loop call [`Service::on_wake`](crate::Service::on_wake), soon. Wakes before that call are one,
    /// and cost no system call. It succeeds, too, if the loop has gone: a worker notices that by its channel.
    ///
    /// # Errors
    /// The system's, if the loop cannot be woken.
    pub fn wake(&self) -> io::Result<()> {
        if self.woken.swap(true, Ordering::AcqRel) { Ok(()) } else { self.waker.wake() }
    }

    /// Returns whether the loop has been woken since the last call.
    pub(crate) fn take_wake(&self) -> bool {
        self.woken.swap(false, Ordering::AcqRel)
    }

    /// Takes the grace period of a stop that has been asked for since the last call.
    pub(crate) fn take_stop(&self) -> Option<Duration> {
        self.stop.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

/// A [`Net`] that is mio's, or lies around one that is: a loop on it [runs](crate::EventLoop::run), and hands over
/// the events of its poll.
pub trait OnMio: Net {
    /// Returns mio's network.
    fn mio(&self) -> &Mio;

    /// Returns mio's network, to be changed.
    fn mio_mut(&mut self) -> &mut Mio;
}

impl OnMio for Mio {
    fn mio(&self) -> &Mio {
        self
    }

    fn mio_mut(&mut self) -> &mut Mio {
        self
    }
}

impl Mio {
    /// Makes a network with a poll of its own.
    ///
    /// # Errors
    /// The system's, if it has no descriptor to spare.
    pub fn new() -> io::Result<Mio> {
        let poll = Poll::new()?;
        let registry = poll.registry().try_clone()?;
        let handle =
            Handle { stop: Arc::default(), woken: Arc::default(), waker: Arc::new(Waker::new(&registry, WAKE)?) };
        let own = Some(OwnPoll { poll: Some(poll), handle });
        Ok(Mio { registry, tokens: SIGNALS.0 + 1..usize::MAX, own })
    }

    /// Makes a network on another poll, which takes its tokens from `tokens`, see
    /// [`EventLoop::embedded`](crate::EventLoop::embedded).
    ///
    /// # Errors
    /// The system's, if the registry cannot be cloned.
    pub fn embedded(registry: &Registry, tokens: Range<usize>) -> io::Result<Mio> {
        Ok(Mio { registry: registry.try_clone()?, tokens, own: None })
    }

    /// Returns the registry, for an event source that is not the loop's, and the token, which has to be none of the
    /// loop's, either.
    pub(crate) fn foreign(&self, token: usize) -> io::Result<(&Registry, Token)> {
        if self.tokens.contains(&token) || (self.own.is_some() && token >= RESERVED_TOKENS) {
            let text = match self.own {
                Some(_) => format!("token {token} is the loop's; use one below {RESERVED_TOKENS}"),
                None => format!("token {token} is the loop's; use one outside {:?}", self.tokens),
            };
            return Err(io::Error::new(ErrorKind::InvalidInput, text));
        }
        Ok((&self.registry, Token(token)))
    }

    /// Registers the signals of a loop with a poll of its own.
    #[cfg(all(unix, feature = "signals"))]
    pub(crate) fn register_signals(&self, source: &mut impl event::Source) -> io::Result<()> {
        if self.own.is_none() {
            let text = "the event loop is embedded: the owner of its poll takes the signals over";
            return Err(io::Error::new(ErrorKind::InvalidInput, text));
        }
        self.registry.register(source, SIGNALS, mio::Interest::READABLE)
    }

    /// Returns what an event is about and what it says; `None` if it is not the loop's.
    pub(crate) fn translate(&self, event: &Event) -> Option<(Source, Ready)> {
        let Token(token) = event.token();
        if !self.tokens.contains(&token) {
            return None;
        }
        let source = match token - self.tokens.start {
            index if index < LISTENERS => Source::Listener(index),
            index => Source::Connection(index - LISTENERS),
        };
        let ready = Ready {
            readable: event.is_readable(),
            writable: event.is_writable(),
            read_closed: event.is_read_closed(),
            error: event.is_error(),
            urgent: event.is_priority(),
        };
        Some((source, ready))
    }

    fn watch_tcp(&self, listener: std::net::TcpListener, index: usize) -> io::Result<Listener> {
        let mut listener = TcpListener::from_std(listener);
        self.watch_listener(&mut listener, index)?;
        Ok(Listener::Tcp(listener))
    }

    #[cfg(unix)]
    fn watch_unix(
        &self,
        listener: std::os::unix::net::UnixListener,
        file: Option<SocketFile>,
        index: usize,
    ) -> io::Result<Listener> {
        let mut listener = UnixListener::from_std(listener);
        self.watch_listener(&mut listener, index)?;
        Ok(Listener::Unix(listener, file))
    }

    fn watch_listener(&self, listener: &mut impl event::Source, index: usize) -> io::Result<()> {
        if index >= LISTENERS {
            let text = format!("a loop has at most {LISTENERS} listening sockets");
            return Err(io::Error::new(ErrorKind::InvalidInput, text));
        }
        self.registry.register(listener, self.token(Source::Listener(index)), mio::Interest::READABLE)
    }

    fn token(&self, source: Source) -> Token {
        Token(match source {
            Source::Listener(index) => self.tokens.start + index,
            Source::Connection(key) => self.tokens.start + LISTENERS + key,
        })
    }
}

/// A listening socket. Kinds may be added.
#[derive(Debug)]
#[non_exhaustive]
pub enum Listener {
    /// Over IPv4 or IPv6.
    Tcp(TcpListener),
    /// In the file system.
    #[cfg(unix)]
    Unix(UnixListener, Option<SocketFile>),
}

/// A connection. Kinds may be added.
#[derive(Debug)]
#[non_exhaustive]
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

    /// Epoll and kqueue tell the next edge after a short read. Windows does so only after a `WouldBlock`.
    const SHORT_IO_EXHAUSTS: bool = cfg!(unix);

    fn max_connections(&self) -> usize {
        self.tokens.len().saturating_sub(LISTENERS)
    }

    fn listen(&mut self, address: &Address, options: &SocketOptions, index: usize) -> io::Result<Listener> {
        match address {
            Address::Tcp(address) => self.watch_tcp(tcp::listen(*address, options)?, index),
            #[cfg(unix)]
            Address::Unix(path) => {
                let (listener, file) = unix::listen(path, options)?;
                self.watch_unix(listener, Some(file), index)
            }
            #[cfg(not(unix))]
            Address::Unix(_) => Err(ErrorKind::Unsupported.into()),
        }
    }

    fn listen_on(&mut self, socket: Socket, options: &SocketOptions, index: usize) -> io::Result<Listener> {
        match socket {
            Socket::Tcp(listener) => {
                tcp::set_options(SockRef::from(&listener), options)?;
                listener.set_nonblocking(true)?;
                self.watch_tcp(listener, index)
            }
            #[cfg(unix)]
            Socket::Unix(listener) => {
                listener.set_nonblocking(true)?;
                self.watch_unix(listener, None, index)
            }
        }
    }

    fn connect(&mut self, address: &Address, options: &SocketOptions) -> io::Result<Stream> {
        match address {
            Address::Tcp(address) => {
                let stream = TcpStream::connect(*address)?;
                tcp::set_options(SockRef::from(&stream), options)?;
                Ok(Stream::Tcp(stream))
            }
            #[cfg(unix)]
            Address::Unix(path) => UnixStream::connect(path).map(Stream::Unix),
            #[cfg(not(unix))]
            Address::Unix(_) => Err(ErrorKind::Unsupported.into()),
        }
    }

    /// An event may be false, so the error is asked for first, and then the peer.
    fn check_connecting(&mut self, stream: &mut Stream) -> io::Result<()> {
        if let Some(error) = self.take_error(stream) {
            return Err(error);
        }
        let connected = match stream {
            Stream::Tcp(stream) => stream.peer_addr().map(drop),
            #[cfg(unix)]
            Stream::Unix(stream) => stream.peer_addr().map(drop),
        };
        connected.map_err(|error| match error.kind() {
            ErrorKind::NotConnected => ErrorKind::WouldBlock.into(),
            _ => error,
        })
    }

    fn local_address(&self, listener: &Listener) -> io::Result<Address> {
        match listener {
            Listener::Tcp(listener) => listener.local_addr().map(Address::Tcp),
            #[cfg(unix)]
            Listener::Unix(_, Some(file)) => Ok(Address::Unix(file.path().to_owned())),
            #[cfg(unix)]
            Listener::Unix(listener, None) => {
                let address = listener.local_addr()?;
                Ok(Address::Unix(address.as_pathname().unwrap_or("".as_ref()).to_owned()))
            }
        }
    }

    fn accept(&mut self, listener: &mut Listener) -> io::Result<(Stream, Peer)> {
        match listener {
            Listener::Tcp(listener) => listener.accept().map(|(stream, peer)| (Stream::Tcp(stream), Peer::Tcp(peer))),
            #[cfg(unix)]
            Listener::Unix(listener, _) => listener.accept().map(|(stream, _)| (Stream::Unix(stream), Peer::Unix)),
        }
    }

    /// A read of a Unix socket stops at a passed descriptor.
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

    /// Saves a packet for every answer that ends its connection.
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

    /// Saves a packet here, too: a corked socket sends what is left together with the FIN.
    #[cfg(any(target_os = "linux", target_os = "android"))]
    fn send_file_end(&mut self, stream: &mut Stream, file: &File, offset: u64, len: usize) -> io::Result<usize> {
        if let Stream::Tcp(stream) = &*stream {
            SockRef::from(stream).set_tcp_cork(true)?;
        }
        self.send_file(stream, file, offset, len)
    }

    fn shutdown_write(&mut self, stream: &mut Stream) -> io::Result<()> {
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
        #[cfg_attr(not(unix), allow(irrefutable_let_patterns))]
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

/// Returns where there is no sendfile that returns what it has sent also when it stops: read and write.
#[cfg(not(any(target_os = "linux", target_os = "android")))]
fn send_file(socket: &mut impl Write, file: &File, offset: u64, len: usize) -> io::Result<usize> {
    let mut buffer = [0; 16 * 1024];
    let wanted = len.min(buffer.len());
    let n = read_at(file, &mut buffer[..wanted], offset)?;
    if n == 0 { Ok(0) } else { socket.write(&buffer[..n]) }
}

/// Reads what there is of a file from `offset`, for those who cannot have the kernel send it.
#[cfg(any(feature = "tls", not(any(target_os = "linux", target_os = "android"))))]
pub(crate) fn read_at(file: &File, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
    #[cfg(unix)]
    return std::os::unix::fs::FileExt::read_at(file, buffer, offset);
    #[cfg(windows)]
    return std::os::windows::fs::FileExt::seek_read(file, buffer, offset);
}
