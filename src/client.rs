//! A blocking client of the stack server, for tools, tests and scripts.

use crate::stack::wire::{self, Item, Parsed, Request};
use std::error::Error;
use std::fmt;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

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
#[derive(Clone, Copy, Debug)]
pub struct Client {
    server: SocketAddr,
    timeout: Option<Duration>,
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
    /// The connection failed, or the answer did not come within the [timeout](Client::timeout).
    Io(io::Error),
}

impl Client {
    /// Makes a client that waits as long as it takes: a pop from an empty stack waits for a push.
    pub fn new(server: SocketAddr) -> Self {
        Client { server, timeout: None }
    }

    /// Sets how long to wait for an answer before giving up, which cancels the request. Zero waits as
    /// long as it takes.
    pub fn timeout(self, timeout: Duration) -> Self {
        Client { timeout: Some(timeout).filter(|timeout| !timeout.is_zero()), ..self }
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
        let mut stream = TcpStream::connect(self.server)?;
        stream.set_read_timeout(self.timeout)?;
        let mut answer = Vec::new();
        // A server that is full may have answered and closed before it has read the request.
        match stream.write_all(request) {
            Err(error) if !matches!(error.kind(), ErrorKind::BrokenPipe | ErrorKind::ConnectionReset) => {
                return Err(error.into());
            }
            _ => {}
        }
        // One byte more than the longest answer shows that this is not one.
        stream.take(2 + wire::MAX_ITEM as u64).read_to_end(&mut answer)?;
        Ok(answer)
    }
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
            ClientError::Io(error) => error.fmt(f),
        }
    }
}

impl Error for ClientError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            ClientError::Io(error) => Some(error),
            _ => None,
        }
    }
}
