//! TLS around any network: the loop, and every service, as they are.
//!
//! [`Tls`] is a [`Net`] whose streams are encrypted by [rustls] (TLS 1.2 and 1.3) before they go to the
//! network inside. Listeners that were opened while an [`Identity`] was set speak TLS, the others do not, so one loop can
//! serve both. Connections that go out speak TLS while a [`Client`] is set.
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
//! An [`Identity`] can go to other threads. With one loop a core, all have clones of it: sessions are resumed by whichever
//! loop gets the connection, and [`reload`](Identity::reload) reaches all.
//!
//! ```no_run
//! # use pollstack::{ConnId, Context, EventLoop, Limits, ListenerConfig, ListenerId, Service, net::{Address, Mio}};
//! # use pollstack::tls::{Identity, Tls};
//! # struct Echo;
//! # impl Service for Echo {
//! #     type Conn = ();
//! #     fn on_open(&mut self, _: &mut Context<'_>, _: ConnId, _: ListenerId) {}
//! #     fn on_data(&mut self, _: &mut Context<'_>, _: ConnId, _: &mut (), input: &[u8]) -> usize { input.len() }
//! # }
//! fn work(address: Address, identity: Identity) -> std::io::Result<()> {
//!     let mut worker = EventLoop::with_net(Tls::new(Mio::new()?), Echo, Limits::default());
//!     worker.net_mut().set_identity(Some(identity));
//!     worker.listen(ListenerConfig::new(address).reuse_port(true))?;
//!     worker.run()
//! }
//!
//! let identity = Identity::load("cert.pem".as_ref(), "key.pem".as_ref())?;
//! let address: Address = "0.0.0.0:8443".parse()?;
//! std::thread::scope(|scope| {
//!     for _ in 0..std::thread::available_parallelism().map_or(1, |cores| cores.get()) {
//!         scope.spawn(|| work(address.clone(), identity.clone()));
//!     }
//! });
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! The example `workers` has the rest: errors, and signals that drain all of them.
//!
//! A handshake that takes too long is ended by the service's deadline for a first message; one that takes more
//! than [`HANDSHAKE_BYTES`] fails. A client that speaks plain HTTP reads a line that says so.
//!
//! A client that leaves without close_notify, as many do, closes as `Failed` with `UnexpectedEof`; one that breaks the
//! protocol, with `InvalidData`.

mod client;
mod identity;
mod pem;

pub use self::client::Client;
pub use self::identity::Identity;

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

/// Bytes of plaintext above which a session of rustls takes no more.
const PLAINTEXT: usize = 16 * 1024;

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
    /// The events that the network inside is asked for: a session that has ciphertext left waits for room, too.
    watched: Option<(usize, Interest)>,
}

#[derive(Debug)]
struct Session {
    tls: Connection,
    /// Plaintext that was encrypted, and whose ciphertext the network has not taken yet.
    accepted: usize,
    /// Ciphertext that has come before the handshake was complete.
    handshake: usize,
    /// A write, or the end of our half, waits for the handshake.
    is_awaited: bool,
    /// Ciphertext that waits until the plaintext before it is read.
    rest: Vec<u8>,
    /// Plaintext, or the peer's end, has been decrypted and not been read.
    holds_input: bool,
}

impl Session {
    fn new(mut tls: Connection) -> Box<Session> {
        tls.set_buffer_limit(None); // a write is a connection's output at the most
        Box::new(Session { tls, accepted: 0, handshake: 0, is_awaited: false, rest: Vec::new(), holds_input: false })
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

    /// Encrypts the connections that go out from here on; with `None`, it does not. [`Client`] has an example.
    pub fn set_client(&mut self, client: Option<Client>) {
        self.client = client;
    }

    /// Writes the ciphertext that there is to the network.
    fn flush(&mut self, stream: &mut Stream<N::Stream>, more: bool) -> io::Result<()> {
        let Stream { inner, session: Some(session), .. } = stream else { return Ok(()) };
        while session.tls.wants_write() {
            session.tls.write_tls(&mut Inside { net: &mut self.inner, stream: inner, more })?;
        }
        Ok(())
    }

    /// Takes what the network has, a record of it at the most. Returns how many bytes that were.
    fn receive(&mut self, stream: &mut Stream<N::Stream>) -> io::Result<usize> {
        if let Some(session) = stream.session.as_mut().filter(|session| !session.rest.is_empty()) {
            let rest = std::mem::take(&mut session.rest);
            return self.decrypt(stream, &rest).map(|()| rest.len());
        }
        let n = self.inner.read(&mut stream.inner, &mut self.scratch)?;
        let Some(session) = &mut stream.session else { return Ok(n) };
        if session.tls.is_handshaking() {
            let is_first = session.handshake == 0 && matches!(session.tls, Connection::Server(_));
            if is_first && speaks_http(&self.scratch[..n]) {
                let _ = self.inner.write(&mut stream.inner, &[IoSlice::new(PLAIN_HTTP)]);
                let _ = self.inner.shutdown_write(&mut stream.inner);
                return Err(io::Error::new(ErrorKind::InvalidData, "plain HTTP on a port for TLS"));
            }
            session.handshake += n;
            if session.handshake > HANDSHAKE_BYTES {
                return Err(io::Error::new(ErrorKind::InvalidData, "the TLS handshake is too long"));
            }
        }
        let scratch = std::mem::take(&mut self.scratch);
        let result = self.decrypt(stream, &scratch[..n]);
        self.scratch = scratch;
        result.map(|()| n)
    }

    /// Decrypts ciphertext, as far as the session has room for plaintext. The rest waits until that is read.
    fn decrypt(&mut self, stream: &mut Stream<N::Stream>, mut bytes: &[u8]) -> io::Result<()> {
        let Some(session) = &mut stream.session else { return Ok(()) };
        loop {
            session.tls.read_tls(&mut bytes)?;
            let state = match session.tls.process_new_packets() {
                Ok(state) => state,
                Err(error) => {
                    let _ = self.flush(stream, false); // the alert
                    return Err(io::Error::new(ErrorKind::InvalidData, error));
                }
            };
            session.holds_input |= state.plaintext_bytes_to_read() > 0 || state.peer_has_closed();
            if state.peer_has_closed() {
                bytes = &[]; // a session takes nothing behind the end
            }
            if bytes.is_empty() || state.plaintext_bytes_to_read() > PLAINTEXT {
                break;
            }
        }
        session.rest = bytes.to_vec();
        if session.is_awaited && !session.tls.is_handshaking() {
            session.is_awaited = false;
            self.look_again(stream)?; // there may be room to write, which no event has said since
        }
        Ok(())
    }

    /// Goes on with the handshake until it is complete: a rejection, or a protocol that speaks first, reads
    /// nothing before it writes.
    fn shake_hands(&mut self, stream: &mut Stream<N::Stream>) -> io::Result<()> {
        if let Some(session) = &mut stream.session {
            session.is_awaited = session.tls.is_handshaking();
        }
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
            return Inside { net: &mut self.inner, stream: &mut stream.inner, more }.write_vectored(slices);
        };
        if session.tls.is_handshaking() {
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
                Err(error) if error.kind() == ErrorKind::Interrupted && taken > 0 => {} // no edge would follow
                Err(error) => return Err(error),
            }
        }
        Ok(taken)
    }

    /// Sends close_notify, and the FIN behind it. Both wait for the handshake, which they would end.
    fn end(&mut self, stream: &mut Stream<N::Stream>) -> io::Result<()> {
        self.shake_hands(stream)?;
        if let Some(session) = &mut stream.session {
            session.tls.send_close_notify();
        }
        self.flush(stream, true)?;
        self.inner.shutdown_write(&mut stream.inner)
    }

    /// Returns why a connection has failed: an alert may lie before the reset, and say so.
    fn explain(&mut self, stream: &mut Stream<N::Stream>, error: io::Error) -> io::Error {
        let is_reset = matches!(error.kind(), ErrorKind::ConnectionReset | ErrorKind::BrokenPipe);
        match (is_reset && stream.session.is_some()).then(|| self.receive(stream)) {
            Some(Err(alert)) if alert.kind() == ErrorKind::InvalidData => alert,
            _ => error,
        }
    }

    /// Asks for an event of room for the ciphertext that is left, and not only of input.
    fn wait_for_room(&mut self, stream: &mut Stream<N::Stream>) -> io::Result<()> {
        match stream.watched {
            Some((key, _)) => self.watch(stream, key, None, Interest::ReadWrite),
            None => Ok(()), // the first watch does
        }
    }

    /// Asks for an event of the input that is still to be read: this turn has had enough of it.
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

/// Returns whether a client begins as an HTTP method does, be it with a byte alone. A TLS record begins with 22.
fn speaks_http(bytes: &[u8]) -> bool {
    bytes.first().is_some_and(u8::is_ascii_uppercase)
}

/// Writes to the network inside, as it is.
struct Inside<'a, N: Net> {
    net: &'a mut N,
    stream: &'a mut N::Stream,
    more: bool,
}

impl<N: Net> Write for Inside<'_, N> {
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
        for records in 0..=RECORDS {
            let Some(session) = &mut stream.session else { return self.inner.read(&mut stream.inner, buffer) };
            match session.tls.reader().read(buffer) {
                Err(error) if error.kind() == ErrorKind::WouldBlock => session.holds_input = false,
                result => return result,
            }
            if records == RECORDS {
                break;
            }
            let write_waits = session.accepted > 0 && session.tls.wants_write();
            let received = self.receive(stream);
            match self.flush(stream, false) {
                Err(error) if error.kind() == ErrorKind::WouldBlock => self.wait_for_room(stream)?,
                Ok(()) if write_waits => self.look_again(stream)?, // this has used its room up, and perhaps its event
                result => result?,
            }
            received?;
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
        if n == 0 { Ok(0) } else { self.write(stream, &[IoSlice::new(&chunk[..n])]) }
    }

    fn holds_input(&self, stream: &Self::Stream) -> bool {
        stream.session.as_ref().is_some_and(|session| session.holds_input)
    }

    fn shutdown_write(&mut self, stream: &mut Self::Stream) -> io::Result<()> {
        self.end(stream).map_err(|error| self.explain(stream, error))
    }

    fn watch(
        &mut self,
        stream: &mut Self::Stream,
        key: usize,
        _: Option<Interest>,
        interest: Interest,
    ) -> io::Result<()> {
        let before = stream.watched.map(|(_, before)| before);
        let waits = stream.session.as_ref().is_some_and(|session| session.tls.wants_write());
        let interest = if waits || before == Some(Interest::ReadWrite) { Interest::ReadWrite } else { interest };
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
