//! A connection as the HTTP layer sees it: how far its request has been read, how far that has
//! been answered, and what it waits for.

use super::body::Decoder;
use super::head::Search;
use super::limits::Limits;
use super::version::Version;
use crate::context::Context;
use crate::id::{ConnId, ListenerId};
use std::rc::Rc;
use std::time::Instant;

/// One connection.
#[derive(Debug)]
pub(super) struct Connection {
    pub(super) id: ConnId,
    pub(super) listener: ListenerId,
    /// The exchange that the handler knows of; 0 if there is none.
    pub(super) exchange: u64,
    pub(super) reading: Reading,
    pub(super) reply: Progress,

    /// The HTTP version of the current request.
    pub(super) version: Version,
    /// It was a HEAD: the reply has no content.
    pub(super) head_only: bool,
    /// The client has said that it asks for nothing more.
    pub(super) is_last: bool,
    /// Whether the connection is kept when the reply is complete.
    pub(super) keep_alive: bool,

    /// It is being offered its input; what is left will be offered again at once.
    pub(super) serving: bool,
    /// Its input waits for room in the output.
    pub(super) blocked: bool,
    /// Its input waits for the handler.
    pub(super) paused: bool,
    /// There is input that it has been offered and has not taken.
    pub(super) unconsumed: bool,
    /// The client has ended its half.
    pub(super) eof: bool,
    /// The exchange whose handler has been told of that.
    pub(super) eof_reported: u64,
    /// There is a file in what was sent to it and is not the kernel's.
    pub(super) file: bool,
    /// All that was sent to it is the kernel's.
    pub(super) drained: bool,
    /// When something came of it last, or went out.
    pub(super) since: Instant,
    /// When the head of the current request was whole.
    pub(super) begun: Instant,
    /// The handler's deadline for the exchange.
    pub(super) deadline: Option<Instant>,
}

/// The part of a connection's input that is being read.
#[derive(Debug)]
pub(super) enum Reading {
    /// A head, or nothing yet.
    Head(Search),
    /// A body, for whom.
    Body(Decoder, Sink),
    /// Nothing: the request is there, and its reply is not complete.
    AwaitingResponse,
    /// Behind an upgrade: bytes for the handler.
    Upgraded,
    /// Further input is dropped: the connection ends with the response.
    Discarding,
}

/// The use of a body.
#[derive(Debug)]
pub(super) enum Sink {
    /// It is collected, and then handed over with its request.
    Collect(Box<Collected>),
    /// So many bytes more of it are dropped before its connection is given up.
    Skip(u64),
    /// It is for the handler.
    Stream,
}

/// A request that waits for its body.
#[derive(Debug)]
pub(super) struct Collected {
    pub(super) head: Vec<u8>,
    pub(super) body: Vec<u8>,
    pub(super) limit: usize,
}

/// How far a reply has come.
#[derive(Debug)]
pub(super) enum Progress {
    /// There is none, or none yet.
    None,
    /// The handler sends its content.
    Stream(Coding),
    /// The handler has given all of its content, and that from this byte on is still to be sent.
    Rest(Content, usize),
}

/// How streamed content is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Coding {
    Chunked,
    /// So many bytes are still to come.
    Length(u64),
    /// As it is, up to the end of the connection.
    ToTheEnd,
    /// Not at all: the handler has not asked for it.
    Dropped,
}

#[derive(Debug)]
pub(super) enum Content {
    Bytes(Vec<u8>),
    Shared(Rc<[u8]>),
}

impl Content {
    pub(super) fn bytes(&self) -> &[u8] {
        match self {
            Content::Bytes(bytes) => bytes,
            Content::Shared(bytes) => bytes,
        }
    }
}

/// The phase in which a connection has taken too long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Timeout {
    /// A request's head, from its first byte on.
    Head,
    /// More of a body, or all of one that is collected or read past.
    Body,
    /// Another request.
    Idle,
    /// To take something of what waits for it.
    Stalled,
}

impl Connection {
    pub(super) fn new(id: ConnId, listener: ListenerId, now: Instant) -> Self {
        Connection {
            id,
            listener,
            exchange: 0,
            reading: Reading::Head(Search::default()),
            reply: Progress::None,
            version: Version::Http11,
            head_only: false,
            is_last: false,
            keep_alive: true,
            serving: false,
            blocked: false,
            paused: false,
            unconsumed: false,
            eof: false,
            eof_reported: 0,
            file: false,
            drained: true,
            since: now,
            begun: now,
            deadline: None,
        }
    }

    /// Whether it waits for a request, and nothing of one has come.
    pub(super) fn is_idle(&self) -> bool {
        !self.unconsumed && matches!(self.reading, Reading::Head(search) if search.is_fresh())
    }

    /// Whether it has its reply, and the rest of its body is still being read past.
    pub(super) fn is_behind(&self) -> bool {
        self.exchange == 0 && matches!(self.reading, Reading::Body(_, Sink::Skip(_)))
    }

    /// Whether the handler has yet to begin its reply.
    pub(super) fn is_unanswered(&self) -> bool {
        self.exchange != 0 && matches!(self.reply, Progress::None)
    }

    /// When it will have taken too long, and for what.
    pub(super) fn due(&self, cx: &Context<'_>, limits: &Limits) -> Option<(Instant, Timeout)> {
        let after = |since: Instant, time, late| since.checked_add(time).map(|at| (at, late));
        match self.reading {
            Reading::Body(_, Sink::Stream) if !self.paused => after(self.since, limits.read_time, Timeout::Body),
            Reading::Body(..) if !self.paused => {
                let whole = self.begun.checked_add(limits.body_time);
                let more = self.since.checked_add(limits.read_time);
                whole.into_iter().chain(more).min().map(|at| (at, Timeout::Body))
            }
            Reading::Head(Search { since: Some(since), .. }) if !self.blocked => {
                let whole = since.checked_add(limits.head_time);
                let more = self.since.checked_add(limits.read_time);
                whole.into_iter().chain(more).min().map(|at| (at, Timeout::Head))
            }
            Reading::Head(_) if self.drained => after(self.since, limits.idle_time, Timeout::Idle),
            _ if self.drained => None,
            _ => {
                let taken = cx.last_write(self.id).map_or(self.since, |taken| taken.max(self.since));
                after(taken, limits.stall_time, Timeout::Stalled)
            }
        }
    }
}
