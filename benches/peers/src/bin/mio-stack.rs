//! The stack server on plain mio, as one writes it with the tutorial at hand: accept until
//! `WouldBlock`, register every connection, poll, read, decide, write, deregister, drop.
//!
//! Tokens are numbers that are not used again, as in mio's own example of a server: the first
//! client of the map is the oldest, and an event for a client that has just been closed finds
//! no client. mio asks for every source to be deregistered before it is dropped, and so it is.
//!
//! Left out: an item goes back on the stack if its response cannot be written; who is served is
//! closed at once, so that a client that sent too much may read a reset behind its response; out of
//! descriptors, those who wait in the backlog wait for the next newcomer. A response is at most
//! 128 bytes and the first on its connection, so the kernel always has room for it.

use mio::net::{TcpListener, TcpStream};
use mio::{Events, Interest, Poll, Registry, Token};
use pollstack_peers::stack::{BUSY, CAPACITY, Frame, Request, evict_after, max_clients};
use pollstack_peers::{address, announce, listen};
use std::collections::BTreeMap;
use std::error::Error;
use std::io::{self, ErrorKind, Read, Write};
use std::net::Shutdown;
use std::time::Instant;

const LISTENER: Token = Token(0);

struct Server {
    listener: TcpListener,
    registry: Registry,
    max_clients: usize,
    clients: BTreeMap<usize, Client>,
    /// A client that was one too many, until it has hung up.
    refused: BTreeMap<usize, TcpStream>,
    stack: Vec<Frame>,
    /// The lines: who waits, by place.
    pushes: BTreeMap<usize, usize>,
    pops: BTreeMap<usize, usize>,
    /// The last number given out, for a token or a place in a line.
    last: usize,
}

struct Client {
    stream: TcpStream,
    since: Instant,
    request: Frame,
    len: usize,
    /// Its place in `pushes` or `pops`, if it has been parked.
    place: Option<usize>,
}

impl Server {
    fn number(&mut self) -> usize {
        self.last += 1;
        self.last
    }

    fn accept(&mut self) {
        loop {
            match self.listener.accept() {
                // An error is that of the newcomer alone.
                Ok((stream, _)) => drop(self.open(stream)),
                Err(error) if matches!(error.kind(), ErrorKind::Interrupted | ErrorKind::ConnectionAborted) => {}
                Err(_) => return,
            }
        }
    }

    fn open(&mut self, mut stream: TcpStream) -> io::Result<()> {
        let token = self.number();
        if self.clients.len() == self.max_clients {
            let oldest = self.clients.first_key_value().filter(|(_, client)| client.since.elapsed() > evict_after());
            match oldest.map(|(&oldest, _)| oldest) {
                Some(oldest) => self.close(oldest),
                None => return self.refuse(token, stream),
            }
        }
        self.registry.register(&mut stream, Token(token), Interest::READABLE)?;
        let client = Client { stream, since: Instant::now(), request: Frame::EMPTY, len: 0, place: None };
        self.clients.insert(token, client);
        Ok(())
    }

    /// The request has often come by now. To close with it unread would be a reset, so the client
    /// may hang up first, unless too many take their time over it.
    fn refuse(&mut self, token: usize, mut stream: TcpStream) -> io::Result<()> {
        stream.write_all(BUSY)?;
        stream.shutdown(Shutdown::Write)?;
        if self.refused.len() == self.max_clients {
            self.refused.pop_first().map_or(Ok(()), |(_, mut oldest)| self.registry.deregister(&mut oldest))?;
        }
        self.registry.register(&mut stream, Token(token), Interest::READABLE)?;
        self.refused.insert(token, stream);
        Ok(())
    }

    /// Reads until `WouldBlock`, as events come only once, or until the client is served.
    fn read(&mut self, token: usize) {
        let mut ignored = [0; 1024];
        while let Some(client) = self.clients.get_mut(&token) {
            let read = match client.place {
                None => client.stream.read(&mut client.request.0[client.len..]),
                Some(_) => client.stream.read(&mut ignored),
            };
            match read {
                Ok(1..) if client.place.is_some() => {}
                Ok(n @ 1..) => {
                    client.len += n;
                    match client.request.request(client.len) {
                        None => {}
                        Some(Ok(Request::Push)) => self.push(token),
                        Some(Ok(Request::Pop)) => self.pop(token),
                        Some(Err(())) => self.close(token),
                    }
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Ok(0) | Err(_) => self.close(token),
            }
        }
    }

    /// Waits until a client that was one too many has hung up.
    fn discard(&mut self, token: usize) {
        let Some(stream) = self.refused.get_mut(&token) else { return };
        loop {
            match stream.read(&mut [0; 1024]) {
                Ok(1..) => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Ok(0) | Err(_) => break,
            }
        }
        self.refused.remove(&token).map(|mut stream| self.registry.deregister(&mut stream));
    }

    fn push(&mut self, token: usize) {
        let Some(client) = self.clients.get(&token) else { return };
        let item = client.request;
        if let Some((_, pop)) = self.pops.pop_first() {
            self.answer(pop, &item);
        } else if self.stack.len() < CAPACITY {
            self.stack.push(item);
        } else {
            let place = self.park(token);
            self.pushes.insert(place, token);
            return;
        }
        self.answer(token, &Frame::STORED);
    }

    fn pop(&mut self, token: usize) {
        let Some(item) = self.stack.pop() else {
            let place = self.park(token);
            self.pops.insert(place, token);
            return;
        };
        if let Some((_, push)) = self.pushes.pop_first() {
            self.stack.extend(self.clients.get(&push).map(|client| client.request));
            self.answer(push, &Frame::STORED);
        }
        self.answer(token, &item);
    }

    fn park(&mut self, token: usize) -> usize {
        let place = self.number();
        if let Some(client) = self.clients.get_mut(&token) {
            client.place = Some(place);
        }
        place
    }

    fn answer(&mut self, token: usize, response: &Frame) {
        if let Some(client) = self.clients.get_mut(&token) {
            let _ = client.stream.write_all(response.bytes()); // an error is a client that has gone
        }
        self.close(token);
    }

    fn close(&mut self, token: usize) {
        let Some(mut client) = self.clients.remove(&token) else { return };
        if let Some(place) = client.place {
            self.pushes.remove(&place);
            self.pops.remove(&place);
        }
        let _ = self.registry.deregister(&mut client.stream);
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let max_clients = max_clients()?;
    let mut listener = listen(address()?)?;
    let mut poll = Poll::new()?;
    poll.registry().register(&mut listener, LISTENER, Interest::READABLE)?;
    let mut server = Server {
        listener,
        registry: poll.registry().try_clone()?,
        max_clients,
        clients: BTreeMap::new(),
        refused: BTreeMap::new(),
        stack: Vec::with_capacity(CAPACITY),
        pushes: BTreeMap::new(),
        pops: BTreeMap::new(),
        last: LISTENER.0,
    };
    announce(server.listener.local_addr()?)?;
    let mut events = Events::with_capacity(1024);
    loop {
        match poll.poll(&mut events, None) {
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            result => result?,
        }
        for event in &events {
            match event.token() {
                LISTENER => server.accept(),
                Token(token) if server.clients.contains_key(&token) => server.read(token),
                Token(token) => server.discard(token),
            }
        }
    }
}
