//! Listening TCP sockets, and the options that their connections inherit.

use super::SocketOptions;
#[cfg(any(target_os = "linux", target_os = "android"))]
#[cfg(any(target_os = "linux", target_os = "android"))]
use crate::limits::UNSENT_BYTES;
use socket2::{Domain, Protocol, SockRef, Socket, TcpKeepalive, Type};
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::time::Duration;

/// Opens a listening socket. mio's own bind asks for a backlog of 128 only.
pub(super) fn listen(address: SocketAddr, options: &SocketOptions) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    // Not on Windows, where it would let two servers have the same port.
    #[cfg(unix)]
    socket.set_reuse_address(true)?;
    if options.reuse_port {
        reuse_port(&socket)?;
    }
    set_options(SockRef::from(&socket), options)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(i32::try_from(options.backlog).unwrap_or(i32::MAX))?;
    Ok(socket.into())
}

/// Sets the options of a connection, or of a listener, from which its connections inherit them, so that
/// they cost no call. NODELAY: an answer in two writes must not wait for an acknowledgement. Keepalive: a
/// peer whose machine has vanished is noticed. NOTSENT_LOWAT: bytes that a peer has no window for wait in
/// the loop.
pub(super) fn set_options(socket: SockRef<'_>, options: &SocketOptions) -> io::Result<()> {
    socket.set_tcp_nodelay(true)?;
    if let Some(silence) = options.keepalive {
        socket.set_tcp_keepalive(&keepalive(silence))?;
    }
    #[cfg(any(target_os = "linux", target_os = "android"))]
    socket.set_tcp_notsent_lowat(UNSENT_BYTES)?;
    Ok(())
}

#[cfg(all(unix, not(any(target_os = "solaris", target_os = "illumos", target_os = "cygwin"))))]
fn reuse_port(socket: &Socket) -> io::Result<()> {
    socket.set_reuse_port(true)
}

#[cfg(not(all(unix, not(any(target_os = "solaris", target_os = "illumos", target_os = "cygwin")))))]
fn reuse_port(_: &Socket) -> io::Result<()> {
    Err(io::Error::new(io::ErrorKind::Unsupported, "this system has no SO_REUSEPORT"))
}

/// Returns a question after `silence`, and five more after a sixth of it each: a peer that answers none of
/// them is gone after less than twice that time.
fn keepalive(silence: Duration) -> TcpKeepalive {
    const SECOND: Duration = Duration::from_secs(1); // the unit of the systems
    let questions = TcpKeepalive::new().with_time(silence.max(SECOND)).with_interval((silence / 6).max(SECOND));
    #[cfg(unix)]
    let questions = questions.with_retries(5);
    questions
}
