//! An echo server on plain mio, and the baseline of the echo scenarios: nothing that is not needed.
//!
//! All connections read into one buffer of 64 KiB, and what was read is written at once. Bytes that the
//! kernel does not take is kept, and the connection is not read until it has gone out; only then
//! does it wait for WRITABLE. It reads until `WouldBlock`, as mio asks for: events come only once.
//!
//! With a second argument, `short`, a read that did not fill the buffer is taken for the last one,
//! as epoll(7) allows for streams and tokio does: that saves one call of two, on Linux.
//!
//! Left out: fairness. A client that sends without a pause keeps the loop until its bytes have come back.

use mio::net::{TcpListener, TcpStream};
use mio::{Events, Interest, Poll, Registry, Token};
use pollstack_peers::{address, announce, listen};
use slab::Slab;
use std::error::Error;
use std::io::{self, ErrorKind, Read, Write};

const LISTENER: Token = Token(usize::MAX);

struct Connection {
    stream: TcpStream,
    /// The bytes that were read but could not be written.
    pending: Vec<u8>,
}

enum Then {
    Wait,
    Close,
}

impl Connection {
    fn ready(&mut self, buffer: &mut [u8], short: bool, registry: &Registry, token: Token) -> io::Result<Then> {
        if !self.pending.is_empty() {
            let n = write(&mut self.stream, &self.pending)?;
            self.pending.drain(..n);
            if !self.pending.is_empty() {
                return Ok(Then::Wait);
            }
            self.pending = Vec::new(); // it may have been long, and the next may be far away
            registry.reregister(&mut self.stream, token, Interest::READABLE)?;
        }
        loop {
            let n = match self.stream.read(buffer) {
                Ok(0) => return Ok(Then::Close),
                Ok(n) => n,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(Then::Wait),
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            };
            let written = write(&mut self.stream, &buffer[..n])?;
            if written < n {
                self.pending.extend_from_slice(&buffer[written..n]);
                registry.reregister(&mut self.stream, token, Interest::WRITABLE)?;
                return Ok(Then::Wait);
            }
            if short && n < buffer.len() {
                return Ok(Then::Wait);
            }
        }
    }
}

/// Writes until `WouldBlock`.
fn write(stream: &mut TcpStream, bytes: &[u8]) -> io::Result<usize> {
    let mut written = 0;
    while written < bytes.len() {
        match stream.write(&bytes[written..]) {
            Ok(n) => written += n,
            Err(error) if error.kind() == ErrorKind::WouldBlock => break,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(written)
}

fn accept(listener: &TcpListener, connections: &mut Slab<Connection>, registry: &Registry) -> io::Result<()> {
    loop {
        match listener.accept() {
            Ok((mut stream, _)) => {
                let entry = connections.vacant_entry();
                registry.register(&mut stream, Token(entry.key()), Interest::READABLE)?;
                entry.insert(Connection { stream, pending: Vec::new() });
            }
            Err(error) if matches!(error.kind(), ErrorKind::Interrupted | ErrorKind::ConnectionAborted) => {}
            Err(_) => return Ok(()),
        }
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let short = std::env::args().nth(2).is_some_and(|argument| argument == "short");
    let mut listener = listen(address()?)?;
    let mut poll = Poll::new()?;
    let registry = poll.registry().try_clone()?;
    registry.register(&mut listener, LISTENER, Interest::READABLE)?;
    let mut connections: Slab<Connection> = Slab::new();
    let mut buffer = vec![0; 64 * 1024];
    announce(listener.local_addr()?)?;
    let mut events = Events::with_capacity(1024);
    loop {
        match poll.poll(&mut events, None) {
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            result => result?,
        }
        for event in &events {
            let token = event.token();
            if token == LISTENER {
                accept(&listener, &mut connections, &registry)?;
                continue;
            }
            let Some(connection) = connections.get_mut(token.0) else { continue };
            // The end of the stream has no event of its own if it came with the last bytes.
            let short = short && !event.is_read_closed();
            if !matches!(connection.ready(&mut buffer, short, &registry, token), Ok(Then::Wait)) {
                let _ = registry.deregister(&mut connection.stream);
                connections.remove(token.0);
            }
        }
    }
}
