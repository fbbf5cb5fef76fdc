//! The state of a connection, and every transition of it.
//!
//! ```text
//!            no body, or all of it is there         response complete
//!   Head ─────────────────────────────────▶ AwaitingResponse ───────▶ Head
//!    │                                       ▲         │
//!    └── a body follows ──▶ Body ── its end ─┘         └── upgrade ──▶ Upgraded
//!
//!   any state ── rejected, or the last response is complete ──▶ Discarding
//! ```
//!
//! 1. A connection has at most one exchange that the handler knows of. It begins with the request and
//!    ends with the response, or with the connection.
//! 2. The next head is read when the response is complete and the body has been read, in either order: a
//!    body that outlasts its response is read past.
//! 3. `keep_alive` is decided by the head of a request; after that, it can only be taken back.
//! 4. `Discarding` is final.
//! 5. At most one [`Timeout`] is running, see [`Connection::due`].
//!
//! The fields of the state are private to this file. Three others are for the bookkeeping of [`Core`](super::exchange::Core).

use super::body::Decoder;
use super::framing::Length;
use super::head::{Search, empty_lines};
use super::id::ExchangeId;
use super::limits::Limits;
use super::status::Rejection;
use super::version::Version;
use crate::context::Context;
use crate::id::{ConnId, ListenerId};
use crate::queue::Place;
use std::mem;
use std::net::IpAddr;
use std::rc::Rc;
use std::time::Instant;

/// One connection.
#[derive(Debug)]
pub(super) struct Connection {
    id: ConnId,
    listener: ListenerId,
    /// The exchange that the handler knows of.
    exchange: Option<ExchangeId>,
    reading: Reading,
    response: Progress,

    /// The HTTP version of the current request.
    version: Version,
    /// It was a HEAD: the response has no content.
    head_only: bool,
    /// The client has said that it asks for nothing more.
    is_last: bool,
    /// The connection is kept when the response is complete.
    keep_alive: bool,

    /// It is being offered its input. The rest will be offered again at once.
    serving: bool,
    /// Its input waits for room in the output.
    blocked: bool,
    /// Its input waits for the handler.
    paused: bool,
    /// There is input that it has been offered and has not taken.
    unconsumed: bool,
    /// The client has ended its half.
    eof: bool,
    /// The handler has been told of that.
    eof_reported: bool,
    /// There is a file in what was sent to it and is not the kernel's.
    file: bool,
    /// All that was sent to it is the kernel's.
    drained: bool,
    /// The time of the last progress, of input or of output.
    since: Instant,
    /// The time at which the head of the current request was whole.
    begun: Instant,
    /// The handler's deadline for the exchange.
    deadline: Option<Instant>,
    /// Its deadline in the loop is to be set anew.
    pub(super) touched: bool,
    /// Its place among those that wait for a request.
    pub(super) idle: Option<Place>,
    /// Where its client is, if the connections of an address are counted.
    pub(super) address: Option<IpAddr>,
}

/// The part of a connection's input that is being read.
#[derive(Debug)]
pub(super) enum Reading {
    /// A head, or nothing yet.
    Head(Search),
    /// A body, and its use.
    Body(Decoder, Sink),
    /// Nothing: the request is there, and its response is not complete.
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
    /// It is dropped, up to this many bytes. Behind that, the connection is given up.
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

/// How far a response has come.
#[derive(Debug)]
pub(super) enum Progress {
    /// There is none, or none yet.
    None,
    /// The handler sends its content.
    Stream(Coding),
    /// The handler has given all of its content; the bytes from this one on are still to be sent.
    Rest(Content, usize),
}

/// How streamed content is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Coding {
    Chunked,
    /// This many bytes are still to come.
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

/// The result of a step with a head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Head {
    /// More has to come, or room.
    Part,
    /// This many bytes are no head, and can be passed over.
    EmptyLines(usize),
    /// These bytes are the head.
    Whole(usize),
}

/// The step that follows a complete response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Next {
    Finish,
    FinishLingering,
    /// Offer the input that waits.
    Resume,
    /// Nothing: the connection is being offered its input.
    GoOn,
}

impl Connection {
    pub(super) fn new(id: ConnId, listener: ListenerId, now: Instant) -> Self {
        Connection {
            id,
            listener,
            exchange: None,
            reading: Reading::Head(Search::default()),
            response: Progress::None,
            version: Version::Http11,
            head_only: false,
            is_last: false,
            keep_alive: true,
            serving: false,
            blocked: false,
            paused: false,
            unconsumed: false,
            eof: false,
            eof_reported: false,
            file: false,
            drained: true,
            since: now,
            begun: now,
            deadline: None,
            touched: false,
            idle: None,
            address: None,
        }
    }

    // ---- what it is ----------------------------------------------------------------------------

    pub(super) fn id(&self) -> ConnId {
        self.id
    }

    pub(super) fn listener(&self) -> ListenerId {
        self.listener
    }

    pub(super) fn exchange(&self) -> Option<ExchangeId> {
        self.exchange
    }

    pub(super) fn reading(&self) -> &Reading {
        &self.reading
    }

    pub(super) fn response(&self) -> &Progress {
        &self.response
    }

    pub(super) fn version(&self) -> Version {
        self.version
    }

    /// Returns whether the response to its request has no content.
    pub(super) fn is_head_only(&self) -> bool {
        self.head_only
    }

    pub(super) fn is_kept(&self) -> bool {
        self.keep_alive
    }

    pub(super) fn has_file(&self) -> bool {
        self.file
    }

    pub(super) fn has_ended(&self) -> bool {
        self.eof
    }

    /// Returns whether its input waits, for room in the output or for the handler.
    pub(super) fn is_waiting(&self) -> bool {
        match self.reading {
            Reading::Head(_) => self.blocked,
            _ => self.paused,
        }
    }

    /// Returns whether input that it was offered is left.
    pub(super) fn has_unconsumed(&self) -> bool {
        self.unconsumed
    }

    /// Returns whether it waits for a request, and nothing of one has come.
    pub(super) fn is_idle(&self) -> bool {
        !self.unconsumed && matches!(self.reading, Reading::Head(search) if search.is_fresh())
    }

    /// Returns whether nothing would be lost with it.
    pub(super) fn may_give_way(&self) -> bool {
        self.is_idle() && self.drained && self.exchange.is_none()
    }

    /// Returns whether it has its response, and the rest of its body is still being read past.
    pub(super) fn is_behind(&self) -> bool {
        self.exchange.is_none() && matches!(self.reading, Reading::Body(_, Sink::Skip(_)))
    }

    /// Returns whether the handler has yet to begin its response.
    pub(super) fn is_unanswered(&self) -> bool {
        self.exchange.is_some() && matches!(self.response, Progress::None)
    }

    // ---- input ---------------------------------------------------------------------------------

    /// Begins to offer it input.
    pub(super) fn offer(&mut self) {
        self.serving = true;
    }

    /// Ends the offer; `left` tells whether input is left.
    pub(super) fn offered(&mut self, left: bool) {
        self.serving = false;
        self.unconsumed = left;
    }

    /// Notes that something has come or gone, which renews what the client is given to go on.
    pub(super) fn progress(&mut self, now: Instant) {
        self.since = now;
    }

    /// Goes on with a head, of which `input` is what has come. `full` tells that a response would find
    /// no room. Returns the length of the empty lines in front of it, or of the head if it is whole.
    pub(super) fn head(&mut self, input: &[u8], full: bool, limits: &Limits, now: Instant) -> Result<Head, Rejection> {
        let Reading::Head(search) = &mut self.reading else { return Ok(Head::Part) };
        // As far as the first byte tells, in case the head is rejected.
        self.head_only = input.starts_with(b"HEAD ");
        if search.is_fresh() {
            match empty_lines(input) {
                Some(0) => {}
                skipped => return Ok(skipped.map_or(Head::Part, Head::EmptyLines)),
            }
        }
        self.blocked = !self.drained && full;
        if self.blocked {
            return Ok(Head::Part);
        }
        if search.is_behind(input) {
            self.since = now;
        }
        search.since.get_or_insert(now);
        Ok(search.end(input, limits)?.map_or(Head::Part, Head::Whole))
    }

    /// Takes a request, whose head is whole.
    pub(super) fn request(&mut self, version: Version, head_only: bool, keep_alive: bool, now: Instant) {
        self.version = version;
        self.head_only = head_only;
        self.is_last = !keep_alive;
        self.keep_alive = keep_alive;
        self.begun = now;
        self.since = now;
    }

    /// Reads nothing more until the response is complete.
    pub(super) fn await_response(&mut self) {
        self.reading = Reading::AwaitingResponse;
    }

    pub(super) fn read_body(&mut self, length: Length, sink: Sink) {
        self.reading = Reading::Body(Decoder::new(length), sink);
    }

    /// Returns the body that is being read.
    pub(super) fn body(&mut self) -> Option<(&mut Decoder, &mut Sink)> {
        match &mut self.reading {
            Reading::Body(decoder, sink) => Some((decoder, sink)),
            _ => None,
        }
    }

    /// Goes on behind the end of a body. Returns what the body was for.
    pub(super) fn body_end(&mut self, now: Instant) -> Option<Sink> {
        self.since = now;
        match mem::replace(&mut self.reading, Reading::AwaitingResponse) {
            Reading::Body(_, sink) => {
                if self.exchange.is_none() && !matches!(sink, Sink::Collect(_)) {
                    self.reading = Reading::Head(Search::default());
                }
                Some(sink)
            }
            reading => {
                self.reading = reading;
                None
            }
        }
    }

    /// Drops all further input: the connection ends with the response.
    pub(super) fn discard(&mut self) {
        self.keep_alive = false;
        self.reading = Reading::Discarding;
    }

    /// Keeps what is left of the input until the handler resumes.
    pub(super) fn pause(&mut self, paused: bool) {
        self.paused = paused;
    }

    /// Goes on offering input to the handler. Returns whether that was to be done.
    pub(super) fn resume(&mut self, now: Instant) -> bool {
        let resumes = self.paused && !self.serving;
        if resumes {
            self.paused = false;
            self.since = now;
        }
        resumes
    }

    /// Notes that the client has ended its half.
    pub(super) fn eof(&mut self) {
        self.eof = true;
    }

    /// Returns the exchange whose handler is to be told of that, once.
    pub(super) fn report_eof(&mut self) -> Option<ExchangeId> {
        self.exchange.filter(|_| !mem::replace(&mut self.eof_reported, true))
    }

    // ---- output --------------------------------------------------------------------------------

    /// Notes that something has been sent.
    pub(super) fn sent(&mut self) {
        self.drained = false;
    }

    /// Notes that a file has been sent.
    pub(super) fn sent_file(&mut self) {
        self.file = true;
    }

    /// Notes that all that was sent is the kernel's. Returns whether a head waits for that.
    pub(super) fn drained(&mut self, now: Instant) -> bool {
        self.drained = true;
        self.file = false;
        self.since = now;
        mem::take(&mut self.blocked)
    }

    // ---- exchanges -----------------------------------------------------------------------------

    pub(super) fn begin(&mut self, id: ExchangeId) {
        self.exchange = Some(id);
        self.eof_reported = false;
    }

    /// Ends the exchange. Returns its id.
    pub(super) fn end(&mut self) -> Option<ExchangeId> {
        self.response = Progress::None;
        self.deadline = None;
        self.exchange.take()
    }

    pub(super) fn set_deadline(&mut self, deadline: Option<Instant>) {
        self.deadline = deadline;
    }

    /// Clears the handler's deadline if it has passed. Returns the exchange that it was set for.
    pub(super) fn take_deadline(&mut self, now: Instant) -> Option<ExchangeId> {
        self.deadline.take_if(|at| *at <= now).and(self.exchange)
    }

    /// Closes the connection with the response.
    pub(super) fn close_after_response(&mut self) {
        self.keep_alive = false;
    }

    /// Leaves the content of the response to the handler.
    pub(super) fn stream(&mut self, coding: Coding) {
        self.response = Progress::Stream(coding);
    }

    /// Keeps content, which is sent as there is room.
    pub(super) fn keep(&mut self, content: Content) {
        self.response = Progress::Rest(content, 0);
    }

    /// Returns the content that is still to be sent.
    pub(super) fn rest(&self) -> Option<&[u8]> {
        match &self.response {
            Progress::Rest(content, sent) => content.bytes().get(*sent..),
            _ => None,
        }
    }

    /// Notes that `n` bytes of it have been sent.
    pub(super) fn sent_rest(&mut self, n: usize) {
        if let Progress::Rest(_, sent) = &mut self.response {
            *sent += n;
        }
    }

    /// Changes to another protocol. Returns whether the client may have sent some of it ahead.
    pub(super) fn upgrade(&mut self) -> bool {
        self.stream(Coding::ToTheEnd);
        self.reading = Reading::Upgraded;
        self.keep_alive = false;
        !self.serving && !self.eof
    }

    /// Goes on to the next request if there may be one, behind a response that is complete. A body that
    /// is still to come is read past, up to `skip` bytes.
    pub(super) fn complete(&mut self, skip: u64, now: Instant) -> Next {
        self.since = now;
        self.paused = false;
        if !self.keep_alive {
            // A client that expected to go on may be sending already.
            let quiet = self.is_last && matches!(self.reading, Reading::AwaitingResponse);
            self.discard();
            return if quiet { Next::Finish } else { Next::FinishLingering };
        }
        match &mut self.reading {
            Reading::Body(_, sink @ Sink::Stream) => *sink = Sink::Skip(skip),
            Reading::AwaitingResponse => self.reading = Reading::Head(Search::default()),
            _ => {}
        }
        match self.serving {
            true => Next::GoOn,
            false if self.eof && self.is_idle() => Next::Finish,
            false => Next::Resume,
        }
    }

    // ---- time ----------------------------------------------------------------------------------

    /// Returns the time for which its deadline in the loop is set: the layer's or the handler's,
    /// whichever is sooner.
    pub(super) fn deadline(&self, cx: &Context<'_>, limits: &Limits) -> Option<Instant> {
        let due = self.due(cx, limits).map(|(at, _)| at);
        due.into_iter().chain(self.deadline).min()
    }

    /// Returns when it will have taken too long, and for what.
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
