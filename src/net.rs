//! The operating system as the loop sees it.
//!
//! [`Net`] is the lower seam of the house: what the loop needs of a kernel, in a dozen functions.
//! [`Mio`] is the real one. Another implementation, with a network in memory and a clock of its
//! own, runs the very same loop deterministically.

mod mio;
mod tcp;
#[cfg(unix)]
mod unix;

pub use self::mio::{FOREIGN_TOKENS, Handle, Listener, Mio, Stream};
#[cfg(unix)]
pub use self::unix::SocketFile;

use std::fmt;
use std::fs::File;
use std::io::{self, IoSlice};
use std::net::SocketAddr;
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
/// Events are delivered by whoever drives the loop, with
/// [`EventLoop::ready`](crate::EventLoop::ready). They are hints: the loop survives those that
/// are late, doubled or for somebody who has long gone. What it cannot survive is an edge that
/// is never told.
pub trait Net {
    /// A listening socket.
    type Listener;
    /// A connected stream socket.
    type Stream;

    /// Whether a read or write that moved less than it was offered has exhausted the socket, so
    /// that an edge will follow without another call that says `WouldBlock`.
    const SHORT_MEANS_DRAINED: bool;

    /// How many connections can be told apart, if there is a bound.
    fn max_connections(&self) -> usize {
        usize::MAX
    }

    /// Opens a listening socket. Its events carry [`Source::Listener`] of `index`.
    fn listen(&mut self, address: &Address, options: &SocketOptions, index: usize) -> io::Result<Self::Listener>;

    /// Where a listener listens: the port is the one the system chose if 0 was asked for.
    fn local_address(&self, listener: &Self::Listener) -> io::Result<Address>;

    /// Takes the next connection from the backlog.
    fn accept(&mut self, listener: &mut Self::Listener) -> io::Result<(Self::Stream, Peer)>;

    /// Whether a read of this stream may stop short of what has arrived although nothing says so: a
    /// Unix socket's does at a passed descriptor. Such a stream is read until `WouldBlock`.
    fn reads_stop_short(&self, _stream: &Self::Stream) -> bool {
        false
    }

    /// Reads what has arrived; `Ok(0)` is the end of the peer's stream.
    fn read(&mut self, stream: &mut Self::Stream, buffer: &mut [u8]) -> io::Result<usize>;

    /// Writes what the kernel will take of `slices`, in order.
    fn write(&mut self, stream: &mut Self::Stream, slices: &[IoSlice<'_>]) -> io::Result<usize>;

    /// As [`write`](Net::write), for bytes that are followed at once by those of a file or by
    /// [`shut`](Net::shut). The kernel may keep them back (cork them) until then and send both in
    /// one packet; a [`close`](Net::close) may destroy them until then.
    fn write_more(&mut self, stream: &mut Self::Stream, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        self.write(stream, slices)
    }

    /// Writes what the kernel will take of `len` bytes of `file` from `offset`; `Ok(0)` means
    /// that the file ends there.
    fn send_file(&mut self, stream: &mut Self::Stream, file: &File, offset: u64, len: usize) -> io::Result<usize>;

    /// As [`send_file`](Net::send_file), for bytes that are followed at once by the end of the
    /// stream, with which the kernel may send the last of them.
    fn send_file_end(&mut self, stream: &mut Self::Stream, file: &File, offset: u64, len: usize) -> io::Result<usize> {
        self.send_file(stream, file, offset, len)
    }

    /// Ends our half of the stream (FIN), and sends with it what was kept back. An error means that
    /// what was kept back has been lost.
    fn shut(&mut self, stream: &mut Self::Stream) -> io::Result<()>;

    /// Asks for events, which will carry [`Source::Connection`] of `key`. `before` is what was
    /// asked for until now. Whatever is ready already counts as an edge.
    fn watch(
        &mut self,
        stream: &mut Self::Stream,
        key: usize,
        before: Option<Interest>,
        interest: Interest,
    ) -> io::Result<()>;

    /// The error the socket is in, if any, without reading from it.
    fn take_error(&mut self, stream: &mut Self::Stream) -> Option<io::Error>;

    /// Closes a stream at once. No deregistration is needed. Over unread input, or when more input
    /// comes, this may be a reset (TCP), which destroys what has not left the machine yet.
    fn close(&mut self, stream: Self::Stream) {
        drop(stream);
    }

    /// The same, so that the peer sees a failure (RST) and not an end, where there is a way.
    fn reset(&mut self, stream: Self::Stream) {
        self.close(stream);
    }

    /// Closes a listener; who waits in its backlog is turned away.
    fn close_listener(&mut self, listener: Self::Listener) {
        drop(listener);
    }

    /// The time. The loop asks once a turn, and once before it sleeps until a deadline.
    fn now(&self) -> Instant;
}

/// What a listening socket is opened with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SocketOptions {
    /// How many connections may wait to be accepted.
    pub backlog: u32,
    /// After how much silence the peers of accepted connections (TCP) are asked whether they are
    /// still there; `None` never asks.
    pub keepalive: Option<Duration>,
}

/// What a stream is watched for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Interest {
    /// Something to read, or the end.
    Read,
    /// That, and room to write.
    ReadWrite,
}

/// Who an event is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// The listener opened with this index.
    Listener(usize),
    /// The stream watched with this key.
    Connection(usize),
}

/// What an event says; each bit is a hint that a call is worth trying.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ready {
    /// There is something to read, or somebody to accept.
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

/// Where a listener listens: `127.0.0.1:8080`, `[::1]:8080` or `unix:/run/pollstack.sock`.
///
/// ```
/// use pollstack::net::Address;
///
/// let address: Address = "[::1]:8080".parse()?;
/// assert_eq!(address.to_string(), "[::1]:8080");
/// assert!("8080".parse::<Address>().is_err());
/// # Ok::<(), pollstack::net::ParseAddressError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Address {
    /// TCP over IPv4 or IPv6. An IPv6 address takes IPv6 connections only, so that `0.0.0.0` and
    /// `[::]` can be had side by side on every system.
    Tcp(SocketAddr),
    /// A Unix domain socket, where there are such. The file is removed when the listener closes;
    /// one left behind by a server that died is replaced.
    Unix(PathBuf),
}

impl FromStr for Address {
    type Err = ParseAddressError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.strip_prefix("unix:") {
            Some("") => Err(ParseAddressError(text.to_owned())),
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

/// A text that is no [`Address`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ParseAddressError(String);

impl fmt::Display for ParseAddressError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}` is not an address; write IP:PORT, [IPV6]:PORT or unix:PATH", self.0)
    }
}

impl std::error::Error for ParseAddressError {}

/// Who is at the other end of a connection.
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
