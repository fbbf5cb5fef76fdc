//! TLS around any network: the loop, and every service, as they are.
//!
//! [`Tls`] is a [`Net`] whose streams are encrypted by [rustls](https://docs.rs/rustls) (TLS 1.2 and 1.3) before
//! they go to the network inside. Listeners that were opened while an [`Identity`] was set speak TLS, the others
//! do not, so one loop can serve both. Connections that go out speak TLS while a [`Client`] is set.
//!
//! ```no_run
//! # use pollstack::{ConnId, Context, EventLoop, Limits, ListenerConfig, ListenerId, Service};
//! # struct Echo;
//! # impl Service for Echo {
//! #     type Conn = ();
//! #     fn on_open(&mut self, _: &mut Context<'_>, _: ConnId, _: ListenerId) {}
//! #     fn on_data(&mut self, _: &mut Context<'_>, _: ConnId, _: &mut (), input: &[u8]) -> usize { input.len() }
//! # }
//! use pollstack::net::Mio;
//! use pollstack::tls::{Identity, Tls};
//!
//! let identity = Identity::load("cert.pem".as_ref(), "key.pem".as_ref())?;
//! let mut server = EventLoop::with_net(Tls::new(Mio::new()?), Echo, Limits::default());
//! server.net_mut().set_identity(Some(identity.clone()));
//! server.listen(ListenerConfig::new("0.0.0.0:8443".parse()?))?;
//! server.run()?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! A handshake that takes too long is ended by the service's deadline for a first message; one that takes more
//! than [`HANDSHAKE_BYTES`] fails. A client that speaks plain HTTP reads a line that says so.

mod client;
mod identity;

pub use self::client::Client;
pub use self::identity::Identity;
pub use rustls::{ClientConfig, ServerConfig};

use crate::net::{Address, Interest, Mio, Net, OnMio, Peer, Socket, SocketOptions, read_at};
use rustls::{Connection, ServerConnection};
use std::fs::File;
use std::io::{self, ErrorKind, IoSlice, Read, Write};
use std::time::Instant;

/// Bytes that a peer may send before its handshake is complete. A usual one takes less than 1000, one with a
/// client certificate a few thousand.
pub const HANDSHAKE_BYTES: usize = 64 * 1024;

/// Bytes of ciphertext that one read asks the network for: a record of the largest size, and its head.
const RECORD: usize = 16 * 1024 + 256;

/// Records that one read may take before it brings a byte: an empty record costs its sender little.
const RECORDS: usize = 4;

/// Plaintext of a file that one call takes: as much as a connection's output holds.
const CHUNK: usize = 64 * 1024;

/// The answer to a client that speaks plain HTTP.
const PLAIN_HTTP: &[u8] = b"HTTP/1.1 400 Bad Request\r\nContent-Type: text/plain\r\nContent-Length: 44\r\n\
    Connection: close\r\n\r\nThis port speaks TLS: ask for https instead\n";

/// A network whose streams are encrypted.
#[derive(Debug)]
pub struct Tls<N> {
    inner: N,
    identity: Option<Identity>,
    client: Option<Client>,
    /// The buffer that ciphertext is read into.
    scratch: Box<[u8]>,
}

/// A listening socket, and the identity of its connections.
#[derive(Debug)]
pub struct Listener<L> {
    inner: L,
    identity: Option<Identity>,
}

/// A connection.
#[derive(Debug)]
pub struct Stream<S> {
    inner: S,
    session: Option<Box<Session>>,
    watched: Option<(usize, Interest)>,
}

#[derive(Debug)]
struct Session {
    tls: Connection,
    /// Plaintext that was encrypted, and whose ciphertext the network has not taken yet.
    accepted: usize,
    /// Ciphertext that has come before the handshake was complete.
    handshake: usize,
    /// A write waits for the handshake.
    is_awaited: bool,
}

impl Session {
    fn new(mut tls: Connection) -> Box<Session> {
        tls.set_buffer_limit(None); // a write is a connection's output at the most
        Box::new(Session { tls, accepted: 0, handshake: 0, is_awaited: false })
    }
}

impl<N: Net> Tls<N> {
    /// Makes a network around `inner`. Without an identity and a client it changes nothing.
    pub fn new(inner: N) -> Tls<N> {
        Tls { inner, identity: None, client: None, scratch: vec![0; RECORD].into() }
    }

    /// Sets the identity of the listeners that are opened from here on; `None` for those without TLS.
    pub fn set_identity(&mut self, identity: Option<Identity>) {
        self.identity = identity;
    }

    /// Encrypts the connections that go out from here on; with `None`, it does not.
    pub fn set_client(&mut self, client: Option<Client>) {
        self.client = client;
    }

    /// Has the network take the ciphertext that there is.
    fn flush(&mut self, stream: &mut Stream<N::Stream>, more: bool) -> io::Result<()> {
        let Stream { inner, session: Some(session), .. } = stream else { return Ok(()) };
        while session.tls.wants_write() {
            session.tls.write_tls(&mut Ciphertext { net: &mut self.inner, stream: inner, more })?;
        }
        Ok(())
    }

    /// Takes what the network has, a record of it at the most. Returns how many bytes that were.
    fn receive(&mut self, stream: &mut Stream<N::Stream>) -> io::Result<usize> {
        let n = self.inner.read(&mut stream.inner, &mut self.scratch)?;
        let Some(session) = &mut stream.session else { return Ok(n) };
        let mut bytes = &self.scratch[..n];
        if session.tls.is_handshaking() {
            let is_first = session.handshake == 0 && matches!(session.tls, Connection::Server(_));
            if is_first && speaks_http(bytes) {
                let _ = self.inner.write(&mut stream.inner, &[IoSlice::new(PLAIN_HTTP)]);
                let _ = self.inner.shutdown_write(&mut stream.inner);
                return Err(io::Error::new(ErrorKind::InvalidData, "plain HTTP on a port for TLS"));
            }
            session.handshake += n;
            if session.handshake > HANDSHAKE_BYTES {
                return Err(io::Error::new(ErrorKind::InvalidData, "the TLS handshake is too long"));
            }
        }
        loop {
            session.tls.read_tls(&mut bytes)?;
            if let Err(error) = session.tls.process_new_packets() {
                let _ = self.flush(stream, false); // the alert
                return Err(io::Error::new(ErrorKind::InvalidData, error));
            }
            if bytes.is_empty() {
                break;
            }
        }
        if session.is_awaited && !session.tls.is_handshaking() {
            session.is_awaited = false;
            self.look_again(stream)?; // there may be room to write, which no event has said since
        }
        Ok(n)
    }

    /// Goes on with the handshake until it is complete: a rejection, or a protocol that speaks first, reads
    /// nothing before it writes.
    fn shake_hands(&mut self, stream: &mut Stream<N::Stream>) -> io::Result<()> {
        for _ in 0..RECORDS {
            self.flush(stream, false)?;
            if stream.session.as_ref().is_none_or(|session| !session.tls.is_handshaking()) {
                return Ok(());
            }
            if self.receive(stream)? == 0 {
                return Err(ErrorKind::UnexpectedEof.into());
            }
        }
        self.look_again(stream)?;
        Err(ErrorKind::WouldBlock.into())
    }

    /// Encrypts `slices`, and has the network take them. Those that it does not take at once are encrypted all the
    /// same, and begin the next call.
    fn send(&mut self, stream: &mut Stream<N::Stream>, slices: &[IoSlice<'_>], more: bool) -> io::Result<usize> {
        let Some(session) = &mut stream.session else {
            return match more {
                true => self.inner.write_more(&mut stream.inner, slices),
                false => self.inner.write(&mut stream.inner, slices),
            };
        };
        if session.tls.is_handshaking() {
            session.is_awaited = true;
            self.shake_hands(stream)?;
        }
        let offered: usize = slices.iter().map(|slice| slice.len()).sum();
        let mut taken = 0;
        while let Some(session) = stream.session.as_mut().filter(|_| taken < offered) {
            if session.accepted == 0 {
                session.accepted = encrypt(&mut session.tls, slices, taken)?;
            }
            match self.flush(stream, more) {
                Ok(()) => taken += stream.session.as_mut().map_or(0, |session| std::mem::take(&mut session.accepted)),
                Err(error) if error.kind() == ErrorKind::WouldBlock && taken > 0 => break,
                Err(error) => return Err(error),
            }
        }
        Ok(taken)
    }

    /// Returns why a connection has failed: an alert may lie before the reset, and say so.
    fn explain(&mut self, stream: &mut Stream<N::Stream>, error: io::Error) -> io::Error {
        let is_reset = matches!(error.kind(), ErrorKind::ConnectionReset | ErrorKind::BrokenPipe);
        match (is_reset && stream.session.is_some()).then(|| self.receive(stream)) {
            Some(Err(alert)) if alert.kind() == ErrorKind::InvalidData => alert,
            _ => error,
        }
    }

    /// Has an event tell of what is still to be read: this turn has had enough of it.
    fn look_again(&mut self, stream: &mut Stream<N::Stream>) -> io::Result<()> {
        match stream.watched {
            Some((key, interest)) => self.inner.watch(&mut stream.inner, key, Some(interest), interest),
            None => Ok(()), // the first watch tells
        }
    }
}

/// Encrypts what lies behind the first `skip` bytes of `slices`. Returns how many bytes that were.
fn encrypt(tls: &mut Connection, slices: &[IoSlice<'_>], mut skip: usize) -> io::Result<usize> {
    let mut accepted = 0;
    for slice in slices {
        let rest = &slice[skip.min(slice.len())..];
        skip -= slice.len() - rest.len();
        accepted += tls.writer().write(rest)?;
    }
    Ok(accepted)
}

/// Returns whether a client begins with an HTTP method. A TLS record begins with 22.
fn speaks_http(bytes: &[u8]) -> bool {
    bytes.len() >= 4 && bytes[..4].iter().all(|byte| byte.is_ascii_uppercase() || *byte == b' ')
}

/// Writes ciphertext to the network.
struct Ciphertext<'a, N: Net> {
    net: &'a mut N,
    stream: &'a mut N::Stream,
    more: bool,
}

impl<N: Net> Write for Ciphertext<'_, N> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.write_vectored(&[IoSlice::new(bytes)])
    }

    fn write_vectored(&mut self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        match self.more {
            true => self.net.write_more(self.stream, slices),
            false => self.net.write(self.stream, slices),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<N: Net> Net for Tls<N> {
    type Listener = Listener<N::Listener>;
    type Stream = Stream<N::Stream>;

    const SHORT_IO_EXHAUSTS: bool = N::SHORT_IO_EXHAUSTS;

    fn max_connections(&self) -> usize {
        self.inner.max_connections()
    }

    fn listen(&mut self, address: &Address, options: &SocketOptions, index: usize) -> io::Result<Self::Listener> {
        let inner = self.inner.listen(address, options, index)?;
        Ok(Listener { inner, identity: self.identity.clone() })
    }

    fn listen_on(&mut self, socket: Socket, options: &SocketOptions, index: usize) -> io::Result<Self::Listener> {
        let inner = self.inner.listen_on(socket, options, index)?;
        Ok(Listener { inner, identity: self.identity.clone() })
    }

    fn connect(&mut self, address: &Address, options: &SocketOptions) -> io::Result<Self::Stream> {
        let session = self.client.as_ref().map(|client| client.session(address)).transpose()?;
        let inner = self.inner.connect(address, options)?;
        Ok(Stream { inner, session: session.map(|tls| Session::new(tls.into())), watched: None })
    }

    /// The handshake begins when the connection is made. Reads and writes go on with it.
    fn check_connecting(&mut self, stream: &mut Self::Stream) -> io::Result<()> {
        self.inner.check_connecting(&mut stream.inner)?;
        self.flush(stream, false)
    }

    fn local_address(&self, listener: &Self::Listener) -> io::Result<Address> {
        self.inner.local_address(&listener.inner)
    }

    fn accept(&mut self, listener: &mut Self::Listener) -> io::Result<(Self::Stream, Peer)> {
        let (inner, peer) = self.inner.accept(&mut listener.inner)?;
        let session = match &listener.identity {
            None => None,
            Some(identity) => {
                let tls = ServerConnection::new(identity.config()).map_err(io::Error::other)?;
                Some(Session::new(tls.into()))
            }
        };
        Ok((Stream { inner, session, watched: None }, peer))
    }

    /// A session may hold another record. A write is short only where the network inside is.
    fn reads_stop_short(&self, stream: &Self::Stream) -> bool {
        stream.session.is_some() || self.inner.reads_stop_short(&stream.inner)
    }

    fn read(&mut self, stream: &mut Self::Stream, buffer: &mut [u8]) -> io::Result<usize> {
        for _ in 0..RECORDS {
            let Some(session) = &mut stream.session else { return self.inner.read(&mut stream.inner, buffer) };
            match session.tls.reader().read(buffer) {
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                result => return result,
            }
            self.receive(stream)?;
            match self.flush(stream, false) {
                Err(error) if error.kind() != ErrorKind::WouldBlock => return Err(error),
                _ => {} // the next read or write goes on with it
            }
        }
        self.look_again(stream)?;
        Err(ErrorKind::WouldBlock.into())
    }

    fn write(&mut self, stream: &mut Self::Stream, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        self.send(stream, slices, false).map_err(|error| self.explain(stream, error))
    }

    fn write_more(&mut self, stream: &mut Self::Stream, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        self.send(stream, slices, true).map_err(|error| self.explain(stream, error))
    }

    fn send_file(&mut self, stream: &mut Self::Stream, file: &File, offset: u64, len: usize) -> io::Result<usize> {
        if stream.session.is_none() {
            return self.inner.send_file(&mut stream.inner, file, offset, len);
        }
        let mut chunk = vec![0; len.min(CHUNK)];
        let n = read_at(file, &mut chunk, offset)?;
        if n == 0 { Ok(0) } else { self.send(stream, &[IoSlice::new(&chunk[..n])], false) }
    }

    /// Sends close_notify, and the FIN behind it.
    fn shutdown_write(&mut self, stream: &mut Self::Stream) -> io::Result<()> {
        if let Some(session) = &mut stream.session {
            session.tls.send_close_notify();
        }
        match self.flush(stream, true) {
            Err(error) if !matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => Err(error),
            _ => self.inner.shutdown_write(&mut stream.inner),
        }
    }

    fn watch(
        &mut self,
        stream: &mut Self::Stream,
        key: usize,
        before: Option<Interest>,
        interest: Interest,
    ) -> io::Result<()> {
        stream.watched = Some((key, interest));
        self.inner.watch(&mut stream.inner, key, before, interest)
    }

    fn take_error(&mut self, stream: &mut Self::Stream) -> Option<io::Error> {
        let error = self.inner.take_error(&mut stream.inner)?;
        Some(self.explain(stream, error))
    }

    fn close(&mut self, stream: Self::Stream) {
        self.inner.close(stream.inner);
    }

    fn reset(&mut self, stream: Self::Stream) {
        self.inner.reset(stream.inner);
    }

    fn close_listener(&mut self, listener: Self::Listener) {
        self.inner.close_listener(listener.inner);
    }

    fn now(&self) -> Instant {
        self.inner.now()
    }
}

impl<N: OnMio> OnMio for Tls<N> {
    fn mio(&self) -> &Mio {
        self.inner.mio()
    }

    fn mio_mut(&mut self) -> &mut Mio {
        self.inner.mio_mut()
    }
}
