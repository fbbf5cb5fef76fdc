//! The operating system as the loop sees it.
//!
//! [`Net`] is the seam between the loop and the kernel, in a dozen functions. [`Mio`] is the real one.
//! [`sim`](https://docs.rs/pollstack/latest/pollstack/sim/) is a network in memory with a clock of its
//! own, on which the same loop runs deterministically.

mod mio;
mod tcp;
#[cfg(unix)]
mod unix;

#[cfg(all(unix, feature = "signals"))]
pub(crate) use self::mio::SIGNALS;
#[cfg(feature = "tls")]
pub(crate) use self::mio::read_at;
pub use self::mio::{Handle, Listener, Mio, OnMio, RESERVED_TOKENS, Stream};
pub(crate) use self::mio::{OwnPoll, WAKE};
#[cfg(unix)]
pub use self::unix::SocketFile;

use crate::limits::{DEFAULT_BACKLOG, DEFAULT_KEEPALIVE};
use std::fmt;
use std::fs::File;
use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::ops::BitOrAssign;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::{Duration, Instant};

/// An operating system that a loop can run on: non-blocking stream sockets, edge-triggered
/// readiness, a clock.
///
/// All functions return at once. An error of kind [`WouldBlock`](io::ErrorKind::WouldBlock) means
/// that an event will follow when the call is worth trying again: for a stream, only once it has
/// been [watched](Net::watch); for a listener, from [`listen`](Net::listen) on.
/// [`Interrupted`](io::ErrorKind::Interrupted) means that it may be tried again at once.
///
/// The caller that drives the loop delivers events with
/// [`EventLoop::notify`](crate::EventLoop::notify). Events are hints: the loop survives those that are
/// late, doubled or about a connection that has gone. It cannot survive an edge that is never told.
/// A stream with room, and no output, is read: a network may have had bytes of its own to write before it could go on.
///
/// Functions may be added in a new minor version, with an implementation that is right for existing
/// networks. Nothing that is private to this crate is needed to implement the trait.
pub trait Net {
    /// A listening socket.
    type Listener;
    /// A connected stream socket.
    type Stream;

    /// Tells whether a read or write that moved less than it was offered has exhausted the socket, so
    /// that an edge follows without another call that says `WouldBlock`.
    const SHORT_IO_EXHAUSTS: bool;

    /// Returns how many connections can be told apart, if there is a bound.
    fn max_connections(&self) -> usize {
        usize::MAX
    }

    /// Opens a listening socket. Its events carry [`Source::Listener`] of `index`.
    fn listen(&mut self, address: &Address, options: &SocketOptions, index: usize) -> io::Result<Self::Listener>;

    /// Listens on a socket that is ready made, see [`ListenerConfig::socket`](crate::ListenerConfig::socket).
    fn listen_on(&mut self, _socket: Socket, _options: &SocketOptions, _index: usize) -> io::Result<Self::Listener> {
        Err(io::ErrorKind::Unsupported.into())
    }

    /// Begins to connect to `address`. Of `options`, those for connections count.
    fn connect(&mut self, _address: &Address, _options: &SocketOptions) -> io::Result<Self::Stream> {
        Err(io::ErrorKind::Unsupported.into())
    }

    /// Returns whether a stream that [`connect`](Net::connect) has made is connected. `WouldBlock`: not
    /// yet, and an event will follow. Any other error: it never will be.
    fn check_connecting(&mut self, _stream: &mut Self::Stream) -> io::Result<()> {
        Ok(())
    }

    /// Returns where a listener listens: the port is the one the system chose if 0 was asked for.
    fn local_address(&self, listener: &Self::Listener) -> io::Result<Address>;

    /// Takes the next connection from the backlog.
    fn accept(&mut self, listener: &mut Self::Listener) -> io::Result<(Self::Stream, Peer)>;

    /// Returns whether a read of this stream may stop short of what has arrived without an event that
    /// says so. A Unix socket's does at a passed descriptor. Such a stream is read until `WouldBlock`.
    fn reads_stop_short(&self, _stream: &Self::Stream) -> bool {
        false
    }

    /// Reads what has arrived. `Ok(0)` is the end of the peer's stream.
    fn read(&mut self, stream: &mut Self::Stream, buffer: &mut [u8]) -> io::Result<usize>;

    /// Writes what the kernel takes of `slices`, in order. A write that is retried after `WouldBlock` or
    /// `Interrupted` begins with the same bytes, and may offer more of them.
    fn write(&mut self, stream: &mut Self::Stream, slices: &[IoSlice<'_>]) -> io::Result<usize>;

    /// Writes as [`write`](Net::write) does, for bytes that are followed at once by those of a file or by
    /// [`shutdown_write`](Net::shutdown_write). The kernel may keep them back (cork them) until then
    /// and send both in one packet. Until then a [`close`](Net::close) may destroy them.
    fn write_more(&mut self, stream: &mut Self::Stream, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        self.write(stream, slices)
    }

    /// Writes what the kernel takes of `len` bytes of `file` from `offset`. `Ok(0)` means that the file
    /// ends there.
    fn send_file(&mut self, stream: &mut Self::Stream, file: &File, offset: u64, len: usize) -> io::Result<usize>;

    /// Writes as [`send_file`](Net::send_file) does, for bytes that are followed at once by the end of
    /// the stream. The kernel may send the last of them together with it.
    fn send_file_end(&mut self, stream: &mut Self::Stream, file: &File, offset: u64, len: usize) -> io::Result<usize> {
        self.send_file(stream, file, offset, len)
    }

    /// Returns whether the stream holds input that no event will tell of: a write may have to read first, as TLS
    /// does. The loop asks after a write, and reads.
    fn holds_input(&self, _stream: &Self::Stream) -> bool {
        false
    }

    /// Ends our half of the stream (FIN), and sends what was kept back with it. `WouldBlock` means that
    /// there is no room yet for an end that the network adds; any other error, that what was kept back is lost.
    fn shutdown_write(&mut self, stream: &mut Self::Stream) -> io::Result<()>;

    /// Asks for events, which carry [`Source::Connection`] of `key`. `before` is the interest until now.
    /// A stream that is ready already counts as an edge.
    fn watch(
        &mut self,
        stream: &mut Self::Stream,
        key: usize,
        before: Option<Interest>,
        interest: Interest,
    ) -> io::Result<()>;

    /// Returns the error that the socket is in, if any, without reading from it.
    fn take_error(&mut self, stream: &mut Self::Stream) -> Option<io::Error>;

    /// Closes a stream at once. No deregistration is needed. Over unread input, or when more input
    /// comes, this may be a reset (TCP), which destroys what has not left the machine yet.
    fn close(&mut self, stream: Self::Stream) {
        drop(stream);
    }

    /// Closes a stream at once, so that the peer sees a failure (RST) and not an end, where streams have
    /// one.
    fn reset(&mut self, stream: Self::Stream) {
        self.close(stream);
    }

    /// Closes a listener. The connections in its backlog are reset.
    fn close_listener(&mut self, listener: Self::Listener) {
        drop(listener);
    }

    /// Returns the time. The loop asks once a turn, and once before it sleeps until a deadline.
    fn now(&self) -> Instant;
}

/// The options of a listening socket. Options may be added: begin with the default.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SocketOptions {
    /// How many connections may wait to be accepted.
    pub backlog: u32,
    /// The silence after which the peers of accepted TCP connections are asked whether they are still
    /// there; with `None` they are never asked.
    pub keepalive: Option<Duration>,
    /// Other sockets may listen on the same TCP address (`SO_REUSEPORT`).
    pub reuse_port: bool,
    /// The rights to the file of a Unix socket.
    pub file: FileRights,
}

/// A [backlog](crate::DEFAULT_BACKLOG), a [keepalive](crate::DEFAULT_KEEPALIVE), and nothing else.
impl Default for SocketOptions {
    fn default() -> Self {
        let (backlog, keepalive) = (DEFAULT_BACKLOG, Some(DEFAULT_KEEPALIVE));
        SocketOptions { backlog, keepalive, reuse_port: false, file: FileRights::default() }
    }
}

/// The rights to the file of a Unix socket: a client needs the right to write it. `None` leaves a part as the
/// system makes it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct FileRights {
    /// Its mode, as 0o660.
    pub mode: Option<u32>,
    /// Its user, by number.
    pub user: Option<u32>,
    /// Its group, by number.
    pub group: Option<u32>,
}

impl FileRights {
    /// Sets the mode, as 0o660.
    pub fn mode(mut self, mode: u32) -> Self {
        self.mode = Some(mode);
        self
    }

    /// Sets the owners; `None` leaves one as it is.
    pub fn owners(mut self, user: Option<u32>, group: Option<u32>) -> Self {
        (self.user, self.group) = (user, group);
        self
    }
}

/// A listening socket that is ready made. A `match` may be exhaustive.
#[derive(Debug)]
pub enum Socket {
    /// Over IPv4 or IPv6.
    Tcp(std::net::TcpListener),
    /// In the file system.
    #[cfg(unix)]
    Unix(std::os::unix::net::UnixListener),
}

impl Socket {
    /// Returns a second handle of the same socket.
    pub(crate) fn try_clone(&self) -> io::Result<Socket> {
        match self {
            Socket::Tcp(socket) => socket.try_clone().map(Socket::Tcp),
            #[cfg(unix)]
            Socket::Unix(socket) => socket.try_clone().map(Socket::Unix),
        }
    }
}

impl From<std::net::TcpListener> for Socket {
    fn from(socket: std::net::TcpListener) -> Self {
        Socket::Tcp(socket)
    }
}

#[cfg(unix)]
impl From<std::os::unix::net::UnixListener> for Socket {
    fn from(socket: std::os::unix::net::UnixListener) -> Self {
        Socket::Unix(socket)
    }
}

/// The events that a stream is watched for. A `match` may be exhaustive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Interest {
    /// Something to read, or the end.
    Read,
    /// That, and room to write.
    ReadWrite,
}

/// The source of an event. A `match` may be exhaustive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// The listener opened with this index.
    Listener(usize),
    /// The stream watched with this key.
    Connection(usize),
}

/// The content of an event. Each bit is a hint that a call is worth trying. Bits may be added: begin
/// with the default.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ready {
    /// There are bytes to read, or connections to accept.
    pub readable: bool,
    /// There is room to write.
    pub writable: bool,
    /// The peer has ended its half, behind whatever is still to be read.
    pub read_closed: bool,
    /// The socket is in error.
    pub error: bool,
    /// There is urgent data (TCP): a read stops at its mark, with more behind it.
    pub urgent: bool,
}

impl BitOrAssign for Ready {
    fn bitor_assign(&mut self, other: Ready) {
        self.readable |= other.readable;
        self.writable |= other.writable;
        self.read_closed |= other.read_closed;
        self.error |= other.error;
        self.urgent |= other.urgent;
    }
}

/// The address of a listener: `127.0.0.1:8080`, `[::1]:8080` or `unix:/run/pollstack.sock`.
///
/// ```
/// use pollstack::net::Address;
///
/// let address: Address = "[::1]:8080".parse()?;
/// assert_eq!(address.to_string(), "[::1]:8080");
/// assert!("8080".parse::<Address>().is_err());
/// # Ok::<(), pollstack::net::ParseAddressError>(())
/// ```
///
/// A `match` may be exhaustive.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Address {
    /// TCP over IPv4 or IPv6. An IPv6 address takes IPv6 connections only, so that `0.0.0.0` and
    /// `[::]` can be had side by side on every system.
    Tcp(SocketAddr),
    /// A Unix domain socket, where the system has them. The file is removed when the listener closes. A
    /// file that a dead server left behind is replaced.
    Unix(PathBuf),
}

impl Address {
    /// Returns whether it is a TCP address of loopback. Programs of this machine reach it, and so do browsers with pages
    /// of other sites.
    pub fn is_loopback(&self) -> bool {
        matches!(self, Address::Tcp(address) if address.ip().to_canonical().is_loopback())
    }
}

impl FromStr for Address {
    type Err = ParseAddressError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.strip_prefix("unix:") {
            // An abstract name, which other programs write so: as a file's name it would be a trap.
            Some(path) if path.is_empty() || path.starts_with('@') => Err(ParseAddressError(text.to_owned())),
            Some(path) => Ok(Address::Unix(path.into())),
            None => text.parse().map(Address::Tcp).map_err(|_| ParseAddressError(text.to_owned())),
        }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Address::Tcp(address) => address.fmt(f),
            Address::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

impl From<SocketAddr> for Address {
    fn from(address: SocketAddr) -> Self {
        Address::Tcp(address)
    }
}

/// A text that is not an [`Address`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ParseAddressError(String);

impl fmt::Display for ParseAddressError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let hint = if self.0.starts_with("unix:@") { "; a file of this name is unix:./@NAME" } else { "" };
        write!(f, "`{}` is not an address; write IP:PORT, [IPV6]:PORT or unix:PATH{hint}", self.0)
    }
}

impl std::error::Error for ParseAddressError {}

/// The address of the peer of a connection. A `match` may be exhaustive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Peer {
    /// A TCP peer's address and port.
    Tcp(SocketAddr),
    /// A process on this machine.
    Unix,
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Peer::Tcp(address) => address.fmt(f),
            Peer::Unix => f.write_str("unix"),
        }
    }
}
