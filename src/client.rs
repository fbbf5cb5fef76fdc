//! A blocking client of the stack server, for tools, tests and scripts.

use crate::net::Address;
use crate::stack::wire::{self, Item, Parsed, Request};
use socket2::Socket;
use std::error::Error;
use std::fmt;
use std::hash::{BuildHasher, RandomState};
use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
#[cfg(unix)]
use std::os::fd::OwnedFd;
#[cfg(unix)]
use std::os::unix::net::UnixStream;
use std::thread;
use std::time::{Duration, Instant};

/// The first pause before another try, on average. Each one is twice the one before.
const FIRST_PAUSE: Duration = Duration::from_millis(50);

/// The longest pause, on average.
const LONGEST_PAUSE: Duration = Duration::from_secs(2);

/// A client of the stack server at one address. Every request is a connection of its own.
///
/// ```no_run
/// use pollstack::client::Client;
///
/// let client = Client::new("127.0.0.1:8080".parse()?);
/// client.push(b"hello")?;
/// assert_eq!(client.pop()?, b"hello");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// A work queue between two processes: one pushes what is to be done, the other does it. Both wait for a
/// server that is busy, or being started again.
///
/// ```no_run
/// use pollstack::client::{Client, ClientError};
/// use std::time::Duration;
///
/// fn work(client: &Client) -> Result<(), ClientError> {
///     let client = client.clone().retries(10).timeout(Duration::from_secs(60));
///     loop {
///         match client.pop() {
///             Ok(job) => println!("doing {}", job.escape_ascii()),
///             Err(error) if error.is_timeout() => return Ok(()), // a minute without work
///             Err(error) => return Err(error),
///         }
///     }
/// }
/// ```
#[derive(Clone, Debug)]
pub struct Client {
    server: Address,
    timeout: Option<Duration>,
    retries: u32,
}

/// Why a request was not served. Reasons may be added.
#[derive(Debug)]
#[non_exhaustive]
pub enum ClientError {
    /// The item is empty or longer than [`MAX_ITEM`](wire::MAX_ITEM); this is its length in bytes.
    Length(usize),
    /// All places of the server are taken. Nothing was stored or taken; try again later.
    Busy,
    /// The server closed without an answer: it evicted this client, or is stopping. A pop took nothing;
    /// a push may or may not have been stored.
    Closed,
    /// The answer is not one of the protocol; these are its bytes.
    Protocol(Vec<u8>),
    /// There was no connection. Nothing was stored or taken.
    Unreachable(io::Error),
    /// The connection failed, or the answer did not come within the [timeout](Client::timeout).
    Io(io::Error),
}

impl ClientError {
    /// Returns whether the answer did not come in time. A pop took nothing; a push is cancelled if the server
    /// had not stored it.
    pub fn is_timeout(&self) -> bool {
        matches!(self, ClientError::Io(error) if matches!(error.kind(), ErrorKind::TimedOut | ErrorKind::WouldBlock))
    }
}

impl Client {
    /// Makes a client that waits as long as it takes: a pop from an empty stack waits for a push.
    pub fn new(server: SocketAddr) -> Self {
        Client::at(Address::Tcp(server))
    }

    /// Makes a client of a server at any address, of a Unix socket for example.
    pub fn at(server: Address) -> Self {
        Client { server, timeout: None, retries: 0 }
    }

    /// Sets how long to wait for an answer before giving up, which cancels the request. Zero waits as
    /// long as it takes.
    pub fn timeout(self, timeout: Duration) -> Self {
        Client { timeout: Some(timeout).filter(|timeout| !timeout.is_zero()), ..self }
    }

    /// Sets how often a request is tried again if the server is [busy](ClientError::Busy) or cannot be reached,
    /// so that it has certainly not been served. Pauses lie between, each twice as long as the one before up
    /// to two seconds, give or take a half, so that many clients do not come back at once.
    pub fn retries(self, retries: u32) -> Self {
        Client { retries, ..self }
    }

    /// Puts an item on the stack; waits while the stack is full.
    ///
    /// # Errors
    /// A [`ClientError`].
    pub fn push(&self, payload: &[u8]) -> Result<(), ClientError> {
        let item = Item::new(payload).ok_or(ClientError::Length(payload.len()))?;
        match self.request(item.frame())? {
            answer if answer == wire::STORED => Ok(()),
            answer => Err(error_of(answer)),
        }
    }

    /// Takes the top item off the stack; waits while the stack is empty.
    ///
    /// # Errors
    /// A [`ClientError`].
    pub fn pop(&self) -> Result<Vec<u8>, ClientError> {
        let answer = self.request(&[wire::POP])?;
        match wire::parse(&answer) {
            Parsed::Request(Request::Push(payload), len) if len == answer.len() => Ok(payload.to_vec()),
            _ => Err(error_of(answer)),
        }
    }

    fn request(&self, request: &[u8]) -> Result<Vec<u8>, ClientError> {
        let end = self.timeout.and_then(|timeout| Instant::now().checked_add(timeout));
        let (mut tried, mut pause) = (0, FIRST_PAUSE);
        loop {
            let result = self.connect().map_err(ClientError::Unreachable).and_then(|server| ask(server, request, end));
            let again = match &result {
                Ok(answer) => answer == wire::BUSY,
                Err(error) => matches!(error, ClientError::Unreachable(_)),
            };
            let jittered = pause.mul_f64(0.5 + RandomState::new().hash_one(tried) as f64 / u64::MAX as f64);
            if !again || tried >= self.retries || end.is_some_and(|end| Instant::now() + jittered >= end) {
                return result;
            }
            thread::sleep(jittered);
            pause = LONGEST_PAUSE.min(2 * pause);
            tried += 1;
        }
    }

    fn connect(&self) -> io::Result<Socket> {
        match &self.server {
            Address::Tcp(server) => TcpStream::connect(server).map(Socket::from),
            #[cfg(unix)]
            Address::Unix(path) => UnixStream::connect(path).map(|stream| OwnedFd::from(stream).into()),
            #[cfg(not(unix))]
            Address::Unix(_) => Err(ErrorKind::Unsupported.into()),
        }
    }
}

/// Sends a request, and returns all that is answered by `end`.
fn ask(mut server: Socket, request: &[u8], end: Option<Instant>) -> Result<Vec<u8>, ClientError> {
    // A server that is full may have answered and closed before it has read the request.
    match server.write_all(request) {
        Err(error) if !matches!(error.kind(), ErrorKind::BrokenPipe | ErrorKind::ConnectionReset) => {
            return Err(error.into());
        }
        _ => {}
    }
    let mut answer = Vec::new();
    // One byte more than the longest answer shows that this is not one.
    while answer.len() < 2 + wire::MAX_ITEM {
        let left = end.map(|end| end.saturating_duration_since(Instant::now()));
        if left.is_some_and(|left| left.is_zero()) {
            return Err(io::Error::from(ErrorKind::TimedOut).into());
        }
        server.set_read_timeout(left)?;
        let mut part = [0; 2 + wire::MAX_ITEM];
        match server.read(&mut part) {
            Ok(0) => break,
            Ok(n) => answer.extend_from_slice(&part[..n]),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(answer)
}

fn error_of(answer: Vec<u8>) -> ClientError {
    match &answer[..] {
        wire::BUSY => ClientError::Busy,
        [] => ClientError::Closed,
        _ => ClientError::Protocol(answer),
    }
}

impl From<io::Error> for ClientError {
    fn from(error: io::Error) -> Self {
        ClientError::Io(error)
    }
}

impl fmt::Display for ClientError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ClientError::Length(len) => write!(f, "an item has 1 to {} bytes, not {len}", wire::MAX_ITEM),
            ClientError::Busy => f.write_str("the server is busy; try again later"),
            ClientError::Closed => f.write_str("the server closed without an answer"),
            ClientError::Protocol(answer) => write!(f, "the answer is not of the protocol: {}", answer.escape_ascii()),
            ClientError::Unreachable(error) => write!(f, "cannot reach the server: {error}"),
            error if error.is_timeout() => f.write_str("there was no answer in time"),
            ClientError::Io(error) => error.fmt(f),
        }
    }
}

impl Error for ClientError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            ClientError::Io(error) | ClientError::Unreachable(error) => Some(error),
            _ => None,
        }
    }
}
