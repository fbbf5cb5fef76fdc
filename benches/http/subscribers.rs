//! Many subscribers of server-sent events, and one publisher.

use crate::contender::Contender;
use mio::net::TcpStream;
use mio::{Events, Interest, Poll, Token};
use socket2::{Domain, Socket, Type};
use std::io::{self, ErrorKind, Read, Write};
use std::net::SocketAddr;
use std::time::{Duration, Instant};
use test_support::TEST_TIMEOUT;

/// A byte that is in every message once, and in nothing else that is sent.
const MARK: u8 = b'$';

/// Subscribers that read whatever comes.
pub(crate) struct Subscribers {
    poll: Poll,
    events: Events,
    streams: Vec<TcpStream>,
    buffer: Vec<u8>,
    /// How many messages have come, over all subscribers.
    pub(crate) messages: u64,
}

impl Subscribers {
    /// Subscribes so many to the channel; all of them have been answered.
    pub(crate) fn connect(contender: &Contender, count: usize) -> io::Result<Subscribers> {
        let (poll, events) = (Poll::new()?, Events::with_capacity(1024));
        let mut streams = Vec::with_capacity(count);
        for n in 0..count {
            let mut stream = subscribe(contender.address, None)?;
            let mut status = [0; 12];
            stream.read_exact(&mut status)?; // it is being answered
            if status != *b"HTTP/1.1 200" {
                return Err(io::Error::other(format!("to subscribe is answered {}", status.escape_ascii())));
            }
            stream.set_nonblocking(true)?;
            let mut stream = TcpStream::from_std(stream);
            poll.registry().register(&mut stream, Token(n), Interest::READABLE)?;
            streams.push(stream);
        }
        Ok(Subscribers { poll, events, streams, buffer: vec![0; 1 << 16], messages: 0 })
    }

    pub(crate) fn count(&self) -> u64 {
        self.streams.len() as u64
    }

    /// Reads until so many messages have come in all.
    pub(crate) fn read_until(&mut self, messages: u64) -> io::Result<()> {
        let start = Instant::now();
        while self.messages < messages {
            if start.elapsed() > TEST_TIMEOUT {
                let text = format!("{} messages have come, and not {messages}", self.messages);
                return Err(io::Error::new(ErrorKind::TimedOut, text));
            }
            self.poll.poll(&mut self.events, Some(Duration::from_secs(1)))?;
            for event in &self.events {
                self.messages += drain(&mut self.streams[event.token().0], &mut self.buffer)?;
            }
        }
        Ok(())
    }
}

/// Reads what is there, and counts the messages.
fn drain(stream: &mut TcpStream, buffer: &mut [u8]) -> io::Result<u64> {
    let mut messages = 0;
    loop {
        match stream.read(buffer) {
            Ok(0) => return Err(io::Error::new(ErrorKind::UnexpectedEof, "a subscriber was disconnected")),
            Ok(n) => messages += memchr::memchr_iter(MARK, &buffer[..n]).count() as u64,
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(messages),
            Err(error) => return Err(error),
        }
    }
}

/// A subscriber, with room for so much of what it does not read.
pub(crate) fn subscribe(address: SocketAddr, room: Option<usize>) -> io::Result<std::net::TcpStream> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
    if let Some(room) = room {
        socket.set_recv_buffer_size(room)?;
    }
    socket.connect(&address.into())?;
    socket.set_read_timeout(Some(TEST_TIMEOUT))?;
    let mut stream = std::net::TcpStream::from(socket);
    stream.write_all(b"GET /channels/bench/events HTTP/1.1\r\nHost: 127.0.0.1\r\nAccept: text/event-stream\r\n\r\n")?;
    Ok(stream)
}

/// Publishes on one connection.
pub(crate) struct Publisher {
    stream: std::net::TcpStream,
    request: Vec<u8>,
    reply: Vec<u8>,
}

impl Publisher {
    pub(crate) fn connect(address: SocketAddr, bytes: usize) -> io::Result<Publisher> {
        let stream = std::net::TcpStream::connect(address)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(TEST_TIMEOUT))?;
        let head = format!(
            "POST /channels/bench HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: text/plain\r\nContent-Length: {bytes}\r\n\r\n"
        );
        let mut request = head.into_bytes();
        request.push(MARK);
        request.resize(request.len() + bytes - 1, b'x');
        Ok(Publisher { stream, request, reply: Vec::new() })
    }

    /// Publishes a message; the answer is read with the next one.
    pub(crate) fn publish(&mut self) -> io::Result<()> {
        self.stream.write_all(&self.request)
    }

    /// Reads the answer.
    pub(crate) fn answer(&mut self) -> io::Result<()> {
        self.reply.clear();
        let mut part = [0; 1024];
        loop {
            match self.stream.read(&mut part)? {
                0 => return Err(ErrorKind::UnexpectedEof.into()),
                n => self.reply.extend_from_slice(&part[..n]),
            }
            let text = String::from_utf8_lossy(&self.reply);
            let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
            if !head.starts_with("HTTP/1.1 20") {
                return Err(io::Error::other(format!("publishing is answered {head}")));
            }
            let length = head.lines().find_map(|line| {
                let (name, value) = line.split_once(": ")?;
                value.parse::<usize>().ok().filter(|_| name.eq_ignore_ascii_case("content-length"))
            });
            if body.len() >= length.unwrap_or(0) {
                return Ok(());
            }
        }
    }
}
