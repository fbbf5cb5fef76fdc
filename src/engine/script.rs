//! The script in the engine: its arguments, and what it returns. `stack.lua` says what it does.

use super::target::Target;
use crate::net::Address;
use crate::stack::wire::Item;
use crate::stack::{Ask, Asks, LEASE, Told};
use redis_protocol::resp3::decode::complete::decode;
use redis_protocol::resp3::types::OwnedFrame;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

/// The script, in [Lua](https://redis.io/docs/latest/develop/programmability/eval-intro/).
pub const SCRIPT: &str = include_str!("stack.lua");

/// The keys, behind the [prefix](Target::prefix).
const KEYS: [&str; 9] = ["meta", "items", "pushes", "pops", "payloads", "flight", "edges", "replies", "answers"];

/// How long a [`Session`] waits for each answer.
const TIMEOUT: Duration = Duration::from_secs(5);

/// Returns a command: an array of bulk strings
/// ([RESP](https://redis.io/docs/latest/develop/reference/protocol-spec/)).
pub(super) fn command<W: AsRef<[u8]>>(words: &[W]) -> Vec<u8> {
    let mut bytes = format!("*{}\r\n", words.len()).into_bytes();
    for word in words.iter().map(AsRef::as_ref) {
        bytes.extend(format!("${}\r\n", word.len()).bytes());
        bytes.extend(word);
        bytes.extend(b"\r\n");
    }
    bytes
}

/// Returns the command that runs the script, whose digest the engine has told, with a batch.
pub(super) fn run(digest: &[u8], target: &Target, capacity: usize, batch: &Asks) -> Vec<u8> {
    let number = batch.number.to_string();
    let mut words = call(digest, target, batch.edge, &number, capacity);
    for ask in &batch.asks {
        let (kind, id, item) = match ask {
            Ask::Push(id, item) => ("push", Some(id), Some(item)),
            Ask::Pop(id) => ("pop", Some(id), None),
            Ask::Cancel(id) => ("cancel", Some(id), None),
            Ask::Delivered(id) => ("delivered", Some(id), None),
            Ask::Undelivered(id) => ("undelivered", Some(id), None),
            Ask::Leave => ("leave", None, None),
        };
        words.push(kind.into());
        words.extend(id.map(|id| id.to_string().into_bytes()));
        words.extend(item.map(|item| item.payload().to_vec()));
    }
    command(&words)
}

fn call(digest: &[u8], target: &Target, edge: u64, number: &str, capacity: usize) -> Vec<Vec<u8>> {
    let mut words = vec![b"EVALSHA".to_vec(), digest.to_vec(), KEYS.len().to_string().into()];
    words.extend(KEYS.iter().map(|key| (target.prefix() + key).into_bytes()));
    words.extend([name(edge), number.to_owned(), capacity.to_string()].map(String::into_bytes));
    words.push(LEASE.as_millis().to_string().into());
    words
}

/// Returns the name of an edge in the engine.
pub(super) fn name(edge: u64) -> String {
    format!("{edge:016x}")
}

/// Returns the channel on which an edge is told that answers wait.
pub(super) fn channel(target: &Target, edge: u64) -> String {
    format!("{}edge:{}", target.prefix(), name(edge))
}

/// An answer of the engine, or a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Said {
    /// To a batch.
    Told(Told),
    /// The digest of the script.
    Digest(Vec<u8>),
    /// A message on a channel, or that one is listened to.
    Message,
    /// It has taken the edge for dead, or has lost its state.
    Expired,
    /// The stack has another capacity.
    Capacity(String),
    /// It is not the node that has the keys: that is at this address.
    Moved(Address),
    /// It does not do what it was asked for, now.
    Refused(String),
    /// Anything else.
    Other,
}

/// Reads one thing that the engine says from the beginning of `input`. Returns it with its length; `None` if it is
/// not complete.
///
/// # Errors
/// A text, if it is none.
pub(super) fn said(input: &[u8]) -> Result<Option<(Said, usize)>, String> {
    let frame = decode(input).map_err(|error| format!("it does not speak RESP: {error}"))?;
    Ok(frame.map(|(frame, len)| (interpret(frame), len)))
}

fn interpret(frame: OwnedFrame) -> Said {
    match frame {
        OwnedFrame::SimpleError { data, .. } => refusal(&data),
        OwnedFrame::BlobError { data, .. } => refusal(&String::from_utf8_lossy(&data)),
        OwnedFrame::Push { .. } => Said::Message,
        OwnedFrame::BlobString { data, .. } => Said::Digest(data),
        OwnedFrame::Array { data, .. } => told(data).map_or(Said::Other, Said::Told),
        _ => Said::Other,
    }
}

fn refusal(text: &str) -> Said {
    let mut words = text.split(' ');
    match (words.next(), words.next(), words.next()) {
        (Some("EXPIRED"), ..) => Said::Expired,
        (Some("CAPACITY"), Some(capacity), _) => Said::Capacity(capacity.to_owned()),
        (Some("MOVED"), _, Some(address)) => address
            .parse()
            .map_or_else(|_| Said::Refused(text.to_owned()), |address| Said::Moved(Address::Tcp(address))),
        _ => Said::Refused(text.to_owned()),
    }
}

fn told(frames: Vec<OwnedFrame>) -> Option<Told> {
    let mut frames = frames.into_iter();
    let mut number = || match frames.next()? {
        OwnedFrame::Number { data, .. } => u64::try_from(data).ok(),
        _ => None,
    };
    let told = Told {
        number: number()?,
        items: usize::try_from(number()?).ok()?,
        waiting: (usize::try_from(number()?).ok()?, usize::try_from(number()?).ok()?),
        more: number()? == 1,
        answers: Vec::new(),
    };
    let mut texts = frames.map(|frame| match frame {
        OwnedFrame::BlobString { data, .. } => Some(data),
        _ => None,
    });
    let mut answers = Vec::new();
    while let Some(id) = texts.next() {
        let (id, item) = (String::from_utf8(id?).ok()?.parse().ok()?, texts.next()??);
        answers.push((id, if item.is_empty() { None } else { Some(Item::new(&item)?) }));
    }
    Some(Told { answers, ..told })
}

/// A connection to an engine that waits for each answer: for a server that is about to start, for tools and tests.
#[derive(Debug)]
pub struct Session {
    target: Target,
    stream: TcpStream,
    input: Vec<u8>,
    digest: Vec<u8>,
}

impl Session {
    /// Connects, and brings the script, which is [`SCRIPT`].
    ///
    /// # Errors
    /// A text: it cannot be reached, or refuses.
    pub fn open(target: &Target, address: &Address, script: &str) -> Result<Session, String> {
        let Address::Tcp(address) = address else { return Err("it is not on TCP".to_owned()) };
        let stream = TcpStream::connect_timeout(address, TIMEOUT).map_err(|error| error.to_string())?;
        stream.set_read_timeout(Some(TIMEOUT)).map_err(|error| error.to_string())?;
        let (input, digest) = Default::default();
        let mut session = Session { target: target.clone(), stream, input, digest };
        session.ask(&target.hello())?;
        match session.ask(&["SCRIPT", "LOAD", script])? {
            Said::Digest(digest) => Ok(Session { digest, ..session }),
            _ => Err("it does not take scripts".to_owned()),
        }
    }

    /// Has the engine apply a batch.
    ///
    /// # Errors
    /// A text: the engine has gone, or refuses.
    pub fn apply(&mut self, capacity: usize, batch: &Asks) -> Result<Said, String> {
        self.say(&run(&self.digest, &self.target, capacity, batch))
    }

    /// Runs any other command.
    ///
    /// # Errors
    /// As [`apply`](Self::apply).
    pub fn ask<W: AsRef<[u8]>>(&mut self, words: &[W]) -> Result<Said, String> {
        self.say(&command(words))
    }

    fn say(&mut self, request: &[u8]) -> Result<Said, String> {
        self.stream.write_all(request).map_err(|error| error.to_string())?;
        loop {
            if let Some((answer, len)) = said(&self.input)? {
                self.input.drain(..len);
                return match answer {
                    Said::Refused(text) => Err(text),
                    answer => Ok(answer),
                };
            }
            let mut buffer = [0; 4096];
            match self.stream.read(&mut buffer).map_err(|error| format!("no answer: {error}"))? {
                0 => return Err("it has closed the connection".to_owned()),
                len => self.input.extend(&buffer[..len]),
            }
        }
    }
}

/// Asks the engine whether it can share a stack of `capacity` items: before the server starts.
///
/// # Errors
/// A text: it cannot be reached, refuses, or has a stack of another capacity.
pub fn check(target: &Target, addresses: &[Address], capacity: usize) -> Result<(), String> {
    let mut result = Err("it has no address".to_owned());
    for address in addresses {
        result = check_at(target, address, capacity).map_err(|error| format!("{address}: {error}"));
        if result.is_ok() {
            break;
        }
    }
    result
}

fn check_at(target: &Target, address: &Address, capacity: usize) -> Result<(), String> {
    let mut session = Session::open(target, address, SCRIPT)?;
    let question = call(&session.digest, target, 0, "-1", capacity);
    match session.ask(&question)? {
        Said::Capacity(other) => Err(other_capacity(&other, capacity)),
        Said::Moved(address) => Err(format!("it is not the node for this name, which is {address}")),
        _ => Ok(()),
    }
}

/// Says that the stack in the engine is not the one that is wanted.
pub(super) fn other_capacity(other: &str, capacity: usize) -> String {
    format!("its stack holds {other} items, and --capacity is {capacity}")
}
