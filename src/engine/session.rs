//! A connection to an engine that waits for each answer: for a server that is about to start, for tools and tests.

use super::duplex::Duplex;
use super::resp::{Reader, Reply, command, evalsha, moved};
use super::script::{self, SCRIPT};
use super::security;
use super::target::Target;
use crate::net::Address;
use crate::stack::{Asks, Told};
use std::io::{self, ErrorKind};
use std::net::TcpStream;
use std::time::{Duration, Instant};

/// How long it waits for each answer, and for each piece of it.
const TIMEOUT: Duration = Duration::from_secs(5);

/// The most bytes that an answer may have: fifty times those of a full batch.
const LONGEST: usize = 1024 * 1024;

/// A connection with a script.
#[derive(Debug)]
pub struct Session {
    target: Target,
    stream: Box<dyn Duplex>,
    input: Vec<u8>,
    reader: Reader,
    digest: Vec<u8>,
}

impl Session {
    /// Connects, and brings a script: [`SCRIPT`], for the stack.
    ///
    /// # Errors
    /// A text: it cannot be reached, or answers with an error.
    pub fn open(target: &Target, address: &Address, script: &str) -> Result<Session, String> {
        let Address::Tcp(tcp) = address else { return Err("it is not on TCP".to_owned()) };
        let stream = TcpStream::connect_timeout(tcp, TIMEOUT).map_err(|error| error.to_string())?;
        stream.set_read_timeout(Some(TIMEOUT)).map_err(|error| error.to_string())?;
        stream.set_write_timeout(Some(TIMEOUT)).map_err(|error| error.to_string())?;
        let stream = match target.client()? {
            None => Box::new(stream),
            Some(client) => security::encrypt(client, address, stream).map_err(|error| unencrypted(&error))?,
        };
        let (input, reader, digest) = Default::default();
        let mut session = Session { target: target.clone(), stream, input, reader, digest };
        session.ask(&target.hello())?;
        match session.ask(&["SCRIPT", "LOAD", script])? {
            Reply::Text(digest) => Ok(Session { digest, ..session }),
            _ => Err("it does not take scripts".to_owned()),
        }
    }

    /// Has the engine apply a batch.
    ///
    /// # Errors
    /// A text: the engine has gone, or answers with an error: with `EXPIRED`, for an edge that it does not know.
    pub fn apply(&mut self, capacity: usize, batch: &Asks) -> Result<Told, String> {
        let reply = self.run(&script::args(capacity, batch))?;
        script::told(&reply).ok_or_else(|| format!("{reply:?} is no answer to a batch"))
    }

    fn run(&mut self, args: &[Vec<u8>]) -> Result<Reply, String> {
        let request = evalsha(&self.digest, &script::keys(&self.target), args);
        self.say(&request)
    }

    /// Runs any other command.
    ///
    /// # Errors
    /// As [`apply`](Self::apply).
    pub fn ask<W: AsRef<[u8]>>(&mut self, words: &[W]) -> Result<Reply, String> {
        self.say(&command(words))
    }

    fn say(&mut self, request: &[u8]) -> Result<Reply, String> {
        let (written, start) = (self.stream.write_all(request), Instant::now());
        loop {
            if let Some((answer, len)) = self.reader.read(&self.input)? {
                self.input.drain(..len);
                return match answer {
                    Reply::Error(text) => Err(text),
                    answer => Ok(answer),
                };
            }
            if self.input.len() > LONGEST {
                return Err(format!("its answer is longer than {LONGEST} bytes"));
            }
            if start.elapsed() > TIMEOUT {
                return Err(trouble("the rest of an answer", &ErrorKind::TimedOut.into()));
            }
            let mut buffer = [0; 4096];
            // The answer to a request that was not taken may lie before the reset.
            match (self.stream.read(&mut buffer), &written) {
                (Ok(0), Err(error)) => return Err(trouble("the request", error)),
                (Ok(0), Ok(())) => return Err("it has closed the connection".to_owned()),
                (Ok(len), _) => self.input.extend(&buffer[..len]),
                (Err(error), _) => return Err(trouble("no answer", &error)),
            }
        }
    }
}

/// Returns a text that says why a handshake has failed.
fn unencrypted(error: &io::Error) -> String {
    let text = trouble("the TLS handshake", error);
    match error.kind() {
        ErrorKind::InvalidData => text, // it has answered
        _ => format!("{text}; its port may be one without TLS"),
    }
}

/// Returns a text that says what has failed, and why.
fn trouble(step: &str, error: &io::Error) -> String {
    match error.kind() {
        ErrorKind::WouldBlock | ErrorKind::TimedOut => format!("{step}: it does not answer within {TIMEOUT:?}"),
        ErrorKind::UnexpectedEof => format!("{step}: it has closed the connection"),
        ErrorKind::ConnectionReset => format!("{step}: {error}; if it speaks TLS, write rediss://"),
        _ => format!("{step}: {}", security::explain(error)),
    }
}

/// Asks the engine whether it can share a stack of `capacity` items: before the server starts.
///
/// # Errors
/// A text: it cannot be reached, answers with an error, or has a stack of another capacity.
pub fn check(target: &Target, addresses: &[Address], capacity: usize) -> Result<(), String> {
    let ask = |address: &Address| Session::open(target, address, SCRIPT)?.run(&script::question(capacity));
    first(addresses, |address| {
        let asked = ask(address).or_else(|error| moved(&error).map_or(Err(error), |address| ask(&address)));
        asked.map(drop).map_err(|error| match error.starts_with("CAPACITY ") {
            true => script::other_capacity(&error, capacity),
            false => error,
        })
    })
}

/// Asks the engine whether it is there, and takes `script`.
///
/// # Errors
/// A text: it cannot be reached, or answers with an error.
pub fn check_script(target: &Target, addresses: &[Address], script: &str) -> Result<(), String> {
    first(addresses, |address| Session::open(target, address, script).map(drop))
}

/// Tries one address after the other. Returns the last error, with its address.
fn first(addresses: &[Address], check: impl Fn(&Address) -> Result<(), String>) -> Result<(), String> {
    let mut result = Err("it has no address".to_owned());
    for address in addresses {
        result = check(address).map_err(|error| format!("{address}: {error}"));
        if result.is_ok() {
            break;
        }
    }
    result
}
