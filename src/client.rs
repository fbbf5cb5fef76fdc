//! A blocking client of the stack server, for tools, tests and scripts.

use crate::net::Address;
use crate::stack::wire::{self, Item, Parsed, Request};
use socket2::Socket;
#[cfg(unix)]
use socket2::{Domain, SockAddr, Type};
use std::error::Error;
use std::fmt;
use std::hash::{BuildHasher, RandomState};
use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

/// The first pause before another try, on average. Each one is twice the one before.
const FIRST_PAUSE: Duration = Duration::from_millis(50);

/// The longest pause, on average.
const LONGEST_PAUSE: Duration = Duration::from_secs(2);

/// How long a server has to say that a request was cancelled, or to bring the answer that has crossed that.
const CANCELLATION: Duration = Duration::from_secs(1);

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
    /// The answer did not come within the [timeout](Client::timeout), and the request was cancelled. A pop took
    /// nothing; a push was not stored, unless a server with a data file was storing it just then.
    Cancelled,
    /// The connection failed, or the server did not even end it when the request was cancelled. A push may have been
    /// stored, and the item of a pop may be lost.
    Io(io::Error),
}

impl ClientError {
    /// Returns whether the answer did not come in time: the request was [cancelled](ClientError::Cancelled), or it is
    /// not known what became of it.
    pub fn is_timeout(&self) -> bool {
        matches!(self, ClientError::Cancelled)
            || matches!(self, ClientError::Io(error) if error.kind() == ErrorKind::TimedOut)
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

    /// Sets how long to wait for a connection and an answer before the request is cancelled, which takes a second more
    /// at most: an answer that crosses the cancellation is returned. Zero waits as long as it takes.
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
            let result = connect(&self.server, end.map(|end| end.saturating_duration_since(Instant::now())))
                .map_err(ClientError::Unreachable)
                .and_then(|server| ask(server, request, end));
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
}

/// Connects to a server, within `timeout` if there is one.
///
/// # Errors
/// The system's; [`TimedOut`](ErrorKind::TimedOut) if the server does not take the connection in time.
pub fn connect(server: &Address, timeout: Option<Duration>) -> io::Result<Socket> {
    if timeout.is_some_and(|timeout| timeout.is_zero()) {
        return Err(ErrorKind::TimedOut.into());
    }
    match (server, timeout) {
        (Address::Tcp(server), None) => TcpStream::connect(server).map(Socket::from),
        (Address::Tcp(server), Some(timeout)) => TcpStream::connect_timeout(server, timeout).map(Socket::from),
        #[cfg(unix)]
        (Address::Unix(path), timeout) => {
            // A full backlog makes a connect wait as long as a write may.
            let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
            socket.set_write_timeout(timeout)?;
            let connected = socket.connect(&SockAddr::unix(path)?);
            connected.map(|()| socket).map_err(|error| match error.kind() {
                ErrorKind::WouldBlock => ErrorKind::TimedOut.into(),
                _ => error,
            })
        }
        #[cfg(not(unix))]
        (Address::Unix(_), _) => Err(ErrorKind::Unsupported.into()),
    }
}

/// Sends a request, and returns all that is answered by `end`. Then it ends its half of the stream, which cancels a
/// request that waits, and returns the answer that has crossed that, if there is one.
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
    let most = 2 + wire::MAX_ITEM;
    if read_by(&mut server, end, most, &mut answer)? {
        return Ok(answer);
    }
    server.shutdown(Shutdown::Write)?;
    match read_by(&mut server, Instant::now().checked_add(CANCELLATION), most, &mut answer)? {
        true if answer.is_empty() => Err(ClientError::Cancelled),
        true => Ok(answer),
        false => Err(io::Error::from(ErrorKind::TimedOut).into()),
    }
}

/// Reads to the end of a stream, or until there are `most` bytes. Returns whether that came by `end`, if there is one.
///
/// # Errors
/// The system's.
pub fn read_by(server: &mut Socket, end: Option<Instant>, most: usize, bytes: &mut Vec<u8>) -> io::Result<bool> {
    let mut part = [0; 4096];
    while bytes.len() < most {
        let left = end.map(|end| end.saturating_duration_since(Instant::now()));
        if left.is_some_and(|left| left.is_zero()) {
            return Ok(false);
        }
        server.set_read_timeout(left)?;
        let room = part.len().min(most - bytes.len());
        match server.read(&mut part[..room]) {
            Ok(0) => break,
            Ok(n) => bytes.extend_from_slice(&part[..n]),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) if is_late(&error) && left.is_some() => return Ok(false),
            Err(error) => return Err(error),
        }
    }
    Ok(true)
}

/// Returns whether a read has found nothing in its time: systems say so in two ways.
fn is_late(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut)
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
            ClientError::Cancelled => f.write_str("there was no answer in time; the request is cancelled"),
            error if error.is_timeout() => f.write_str(
                "there was no answer in time, nor one to the cancellation: the request may have been served",
            ),
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

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;
    use std::sync::mpsc::channel;

    /// Long enough for all that is to be over soon.
    const SOON: Duration = Duration::from_secs(30);

    /// Returns what a client with this timeout pops from a server that answers once the client has ended its half;
    /// `None` goes on saying nothing.
    fn pop_late(answer: Option<&'static [u8]>) -> Result<Vec<u8>, ClientError> {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let client = Client::new(listener.local_addr().unwrap()).timeout(Duration::from_millis(20));
        let server = thread::spawn(move || {
            let mut server = listener.accept().unwrap().0;
            let mut request = Vec::new();
            server.read_to_end(&mut request).unwrap();
            assert_eq!(request, [wire::POP]);
            server.write_all(answer.unwrap_or_default()).unwrap();
            answer.is_none().then_some(server)
        });
        let result = client.pop();
        drop(server.join().unwrap());
        result
    }

    /// Lost otherwise: an item that was on its way when the time was over; `pop --count 0` leaves that to each timeout.
    #[test]
    fn an_answer_that_crosses_the_cancellation_is_returned() {
        assert_eq!(pop_late(Some(b"\x04item")).unwrap(), b"item");
        let cancelled = pop_late(Some(b"")).unwrap_err();
        assert!(matches!(cancelled, ClientError::Cancelled) && cancelled.is_timeout(), "{cancelled}");
        let unknown = pop_late(None).unwrap_err();
        assert!(matches!(unknown, ClientError::Io(_)) && unknown.is_timeout(), "{unknown}");
    }

    /// Returns how a client with a short timeout fares, if that is known soon.
    fn pop_soon(server: Address) -> Option<Result<Vec<u8>, ClientError>> {
        let (sender, result) = channel();
        thread::spawn(move || sender.send(Client::at(server).timeout(Duration::from_millis(20)).pop()));
        result.recv_timeout(SOON).ok()
    }

    /// Lost otherwise: two minutes, to a host that does not answer.
    #[test]
    #[cfg(target_os = "linux")]
    fn a_connection_that_is_not_taken_is_given_up() {
        let timed_out = |result: Option<Result<_, _>>| matches!(result, Some(Err(ClientError::Unreachable(error))) if error.kind() == ErrorKind::TimedOut);
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("full");
        let tcp = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        tcp.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).unwrap();
        tcp.listen(1).unwrap();
        let unix = Socket::new(Domain::UNIX, Type::STREAM, None).unwrap();
        unix.bind(&SockAddr::unix(&path).unwrap()).unwrap();
        unix.listen(1).unwrap();
        for server in [Address::Tcp(tcp.local_addr().unwrap().as_socket().unwrap()), Address::Unix(path)] {
            let fill = || connect(&server, Some(Duration::from_millis(100))).ok();
            let held: Vec<Socket> = std::iter::from_fn(fill).take(100).collect();
            assert!(held.len() < 100, "the backlog is full");
            assert!(timed_out(pop_soon(server)));
        }
    }
}
