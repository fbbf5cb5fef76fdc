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
    patience: Option<Duration>,
}

/// Why a request was not served.
#[derive(Debug)]
pub enum ClientError {
    /// An item has 1 to [`MAX_ITEM`](wire::MAX_ITEM) bytes; this is how many were given.
    Length(usize),
    /// The server has all its clients. Nothing was stored or taken; try again later.
    Busy,
    /// The server closed without an answer: it has evicted this client, or is stopping. A pop has
    /// taken nothing; of a push it cannot be known whether it was stored.
    Closed,
    /// The answer was none that the protocol has.
    Protocol(Vec<u8>),
    /// The connection failed, or the server took longer than the client has patience.
    Io(io::Error),
}

impl Client {
    /// A client that waits as long as it takes: a pop from an empty stack waits for a push.
    pub fn new(server: SocketAddr) -> Self {
        Client { server, patience: None }
    }

    /// The same, which gives up on an answer after `patience`, and so cancels its request. A
    /// `patience` of zero is taken for none.
    pub fn patience(self, patience: Duration) -> Self {
        Client { patience: Some(patience).filter(|patience| !patience.is_zero()), ..self }
    }

    /// Puts an item on the stack; waits while the stack is full.
    ///
    /// # Errors
    /// As [`ClientError`] says.
    pub fn push(&self, payload: &[u8]) -> Result<(), ClientError> {
        let item = Item::new(payload).ok_or(ClientError::Length(payload.len()))?;
        match self.request(item.frame())? {
            answer if answer == wire::STORED => Ok(()),
            answer => Err(refusal(answer)),
        }
    }

    /// Takes the top item off the stack; waits while the stack is empty.
    ///
    /// # Errors
    /// As [`ClientError`] says.
    pub fn pop(&self) -> Result<Vec<u8>, ClientError> {
        let answer = self.request(&[wire::POP])?;
        match wire::parse(&answer) {
            Parsed::Request(Request::Push(payload), len) if len == answer.len() => Ok(payload.to_vec()),
            _ => Err(refusal(answer)),
        }
    }

    fn request(&self, request: &[u8]) -> Result<Vec<u8>, ClientError> {
        let mut stream = TcpStream::connect(self.server)?;
        stream.set_read_timeout(self.patience)?;
        let mut answer = Vec::new();
        // A server that is full may have answered and closed before it has read the request.
        match stream.write_all(request) {
            Err(error) if !matches!(error.kind(), ErrorKind::BrokenPipe | ErrorKind::ConnectionReset) => {
                return Err(error.into());
            }
            _ => {}
        }
        // One byte more than the longest answer shows that it is none.
        stream.take(2 + wire::MAX_ITEM as u64).read_to_end(&mut answer)?;
        Ok(answer)
    }
}

fn refusal(answer: Vec<u8>) -> ClientError {
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
