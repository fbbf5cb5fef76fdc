//! What a handler can ask for: replies, for any request that has not been answered, at any time.

use super::clock::Date;
use super::connection::{Coding, Connection, Content, Progress, Reading, Sink};
use super::handler::Outcome;
use super::limits::Limits;
use super::reply::Reply;
use super::status::{Refusal, Status};
use crate::net::Peer;
use crate::service::{Context, ListenerId, SHARED_BYTES, SendError};
use slab::Slab;
use std::collections::VecDeque;
use std::rc::Rc;
use std::time::{Duration, Instant, SystemTime};

/// What a chunk costs beside its bytes: its size in hexadecimal, two line ends, and what the output
/// adds for a shared buffer. A chunk that is begun has to be sent whole.
const CHUNK_BYTES: usize = 16 + 2 + 2 + SHARED_BYTES;

/// The end of a chunked body.
const LAST_CHUNK: &[u8] = b"0\r\n\r\n";

/// A shared buffer below this is copied, which costs less than a piece of output of its own.
const SHARE_FROM: usize = 1024;

/// A request and its reply, from [`Handler::on_request`](super::Handler::on_request) until
/// [`Handler::on_close`](super::Handler::on_close). An id is never given out twice: once its
/// exchange is over, it reaches nobody.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ExchangeId {
    pub(super) serial: u64,
    pub(super) key: usize,
}

/// All exchanges of a server.
///
/// Nothing here calls the handler back: what it has to be told of comes when its callback has
/// returned. All of it is harmless for an exchange that is over.
#[derive(Debug)]
pub struct Exchanges<'a> {
    pub(super) cx: Context<'a>,
    pub(super) core: &'a mut Core,
}

/// What the layer keeps beside the handler.
#[derive(Debug)]
pub(super) struct Core {
    pub(super) connections: Slab<Connection>,
    pub(super) limits: Limits,
    pub(super) date: Date,
    /// The header line that names the server, if it is to be named.
    pub(super) server: Vec<u8>,
    /// The head of the reply that is being written.
    pub(super) head: Vec<u8>,
    /// How many exchanges there have been.
    pub(super) serial: u64,
    /// Exchanges that are over, of which the handler has not been told.
    pub(super) ended: VecDeque<(ExchangeId, Outcome)>,
    pub(super) stopping: bool,
}

impl Exchanges<'_> {
    /// The time at which this turn of the loop began.
    pub fn now(&self) -> Instant {
        self.cx.now()
    }

    /// What time it is on the wall, by the server's [`Clock`](super::Clock).
    pub fn time(&self) -> SystemTime {
        self.core.date.clock().time(self.now())
    }

    /// Begins a reply. Nothing of it is sent before its content is given.
    pub fn reply(&mut self, id: ExchangeId, status: Status) -> Reply<'_> {
        Reply::new(self.cx.reborrow(), self.core, id, status)
    }

    /// Whether the exchange is not over.
    pub fn is_open(&self, id: ExchangeId) -> bool {
        self.core.find(id).is_some_and(|connection| self.cx.is_open(connection.id))
    }

    /// Who is at the other end.
    pub fn peer(&self, id: ExchangeId) -> Option<Peer> {
        self.core.find(id).and_then(|connection| self.cx.peer(connection.id))
    }

    /// The listener through which the request came.
    pub fn listener(&self, id: ExchangeId) -> Option<ListenerId> {
        self.core.find(id).map(|connection| connection.listener)
    }

    /// How many bytes can be sent now in one piece; 0 if no reply is being streamed.
    pub fn room(&self, id: ExchangeId) -> usize {
        let Some(connection) = self.core.find(id) else { return 0 };
        let room = self.cx.room(connection.id);
        match connection.reply {
            Progress::Stream(Coding::Chunked) => room.saturating_sub(CHUNK_BYTES + LAST_CHUNK.len()),
            Progress::Stream(_) => room,
            Progress::None | Progress::Rest(..) => 0,
        }
    }

    /// Sends a copy of `bytes`, all of them or none, as content of a reply that is being
    /// [streamed](Reply::stream), or to a connection that has been [upgraded](Reply::upgrade).
    ///
    /// # Errors
    /// [`Full`](SendError::Full) if they are more than [`room`](Self::room) is left, and
    /// [`Handler::on_room`](super::Handler::on_room) tells when there is; [`Gone`](SendError::Gone)
    /// if nobody is there to send to, or if more than was promised is sent, which aborts the
    /// connection.
    pub fn send(&mut self, id: ExchangeId, bytes: &[u8]) -> Result<(), SendError> {
        self.send_with(id, bytes.len(), |cx, connection| cx.send(connection.id, bytes))
    }

    /// Sends `bytes` without a copy: the same buffer can go to any number of exchanges.
    ///
    /// # Errors
    /// As [`send`](Self::send).
    pub fn send_shared(&mut self, id: ExchangeId, bytes: &Rc<[u8]>) -> Result<(), SendError> {
        self.send_with(id, bytes.len(), |cx, connection| send_shared(cx, connection, bytes))
    }

    /// Ends a reply that is being streamed, or a connection that has been upgraded. A reply that
    /// falls short of the length it has promised ends in a reset, so that nobody takes it for
    /// whole. A request without a reply is answered `204`.
    pub fn finish(&mut self, id: ExchangeId) {
        let Some(connection) = self.core.find(id) else { return };
        let conn = connection.id;
        match connection.reply {
            Progress::Stream(Coding::Length(1..)) => {
                log::error!("{conn}: a reply was finished before its end");
                return self.cx.abort(conn);
            }
            Progress::Stream(Coding::Chunked) if self.cx.send(conn, LAST_CHUNK).is_err() => {
                return self.cx.abort(conn); // a part of the room is kept for it
            }
            Progress::Stream(coding) => self.core.sent(id.key, coding == Coding::Chunked),
            Progress::None => return self.reply(id, Status::NO_CONTENT).empty(),
            Progress::Rest(..) => return,
        }
        self.core.complete(&mut self.cx, id.key);
    }

    /// Ends an exchange without the rest of its reply, and its connection with it, at once: in a
    /// reset if something was on its way.
    pub fn abort(&mut self, id: ExchangeId) {
        if let Some(connection) = self.core.find(id) {
            self.cx.abort(connection.id);
        }
    }

    /// Goes on offering [data](super::Handler::on_data) of which not all was taken. Within the
    /// callback that offers it, this does nothing.
    pub fn resume(&mut self, id: ExchangeId) {
        let Some(connection) = self.core.find_mut(id) else { return };
        if connection.held && !connection.serving {
            connection.held = false;
            connection.since = self.cx.now();
            self.cx.resume(connection.id);
            self.core.arm(&mut self.cx, id.key);
        }
    }

    /// Sets, moves or clears the deadline of an exchange. When it passes,
    /// [`Handler::on_deadline`](super::Handler::on_deadline) is called, once. The end of the
    /// exchange clears it.
    pub fn set_deadline(&mut self, id: ExchangeId, deadline: Option<Instant>) {
        if let Some(connection) = self.core.find_mut(id) {
            connection.deadline = deadline;
            self.core.arm(&mut self.cx, id.key);
        }
    }

    /// Stops the loop, as [`EventLoop::stop`](crate::EventLoop::stop) does.
    pub fn stop(&mut self, grace: Duration) {
        self.cx.stop(grace);
    }

    /// What becomes of an exchange whose deadline has passed.
    pub(super) fn give_up(&mut self, id: ExchangeId) {
        match self.core.find(id) {
            Some(connection) if connection.is_unanswered() => self.reply(id, Status::SERVICE_UNAVAILABLE).page(),
            _ => self.abort(id),
        }
    }

    /// Sends `len` bytes of content with `push`, framed as they have to be.
    fn send_with(
        &mut self,
        id: ExchangeId,
        len: usize,
        push: impl FnOnce(&mut Context<'_>, &Connection) -> Result<(), SendError>,
    ) -> Result<(), SendError> {
        let room = self.room(id);
        let Some(connection) = self.core.find_mut(id) else { return Err(SendError::Gone) };
        let conn = connection.id;
        let Progress::Stream(coding) = &mut connection.reply else { return Err(SendError::Gone) };
        if !self.cx.is_open(conn) {
            return Err(SendError::Gone);
        }
        match coding {
            Coding::Dropped => return Ok(()),
            _ if len == 0 => return Ok(()), // an empty chunk would be the end
            _ if len > room => return Err(SendError::Full),
            Coding::ToTheEnd => push(&mut self.cx, connection)?,
            Coding::Length(left) => match left.checked_sub(len as u64) {
                Some(rest) => {
                    *left = rest;
                    push(&mut self.cx, connection)?;
                }
                None => {
                    log::error!("{conn}: more of a reply was sent than it has promised");
                    self.cx.abort(conn);
                    return Err(SendError::Gone);
                }
            },
            Coding::Chunked => {
                self.core.head.clear();
                push_size(&mut self.core.head, len);
                self.cx.send(conn, &self.core.head)?;
                if let Some(connection) = self.core.connections.get(id.key) {
                    push(&mut self.cx, connection)?;
                }
                self.cx.send(conn, b"\r\n")?;
            }
        }
        self.core.sent(id.key, true);
        self.core.arm(&mut self.cx, id.key);
        Ok(())
    }
}

/// Sends a shared buffer as it costs least.
pub(super) fn send_shared(cx: &mut Context<'_>, connection: &Connection, bytes: &Rc<[u8]>) -> Result<(), SendError> {
    match bytes.len() {
        SHARE_FROM.. => cx.send_shared(connection.id, bytes),
        _ => cx.send(connection.id, bytes),
    }
}

/// The line in front of a chunk.
fn push_size(text: &mut Vec<u8>, len: usize) {
    let digits = (usize::BITS - len.leading_zeros()).div_ceil(4).max(1);
    text.extend((0..digits).rev().map(|digit| b"0123456789abcdef"[len >> (4 * digit) & 15]));
    text.extend_from_slice(b"\r\n");
}

impl Core {
    /// The connection of an exchange that is not over.
    pub(super) fn find(&self, id: ExchangeId) -> Option<&Connection> {
        self.connections.get(id.key).filter(|connection| connection.exchange == id.serial)
    }

    fn find_mut(&mut self, id: ExchangeId) -> Option<&mut Connection> {
        self.connections.get_mut(id.key).filter(|connection| connection.exchange == id.serial)
    }

    /// Notes that something has been sent.
    pub(super) fn sent(&mut self, key: usize, something: bool) {
        if let Some(connection) = self.connections.get_mut(key) {
            connection.drained &= !something;
        }
    }

    /// Begins the exchange of a request that is to be handed over.
    pub(super) fn begin(&mut self, key: usize) -> ExchangeId {
        self.serial += 1;
        if let Some(connection) = self.connections.get_mut(key) {
            connection.exchange = self.serial;
        }
        ExchangeId { serial: self.serial, key }
    }

    /// The exchange that the handler knows of on a connection.
    pub(super) fn current(&self, key: usize) -> Option<ExchangeId> {
        let serial = self.connections.get(key)?.exchange;
        (serial != 0).then_some(ExchangeId { serial, key })
    }

    /// The exchange on a connection whose reply the handler is streaming.
    pub(super) fn streaming(&self, key: usize) -> Option<ExchangeId> {
        let streams = matches!(self.connections.get(key)?.reply, Progress::Stream(_));
        self.current(key).filter(|_| streams)
    }

    /// The exchange on a connection is over.
    pub(super) fn end(&mut self, key: usize, outcome: Outcome) {
        if let Some(id) = self.current(key) {
            self.ended.push_back((id, outcome));
        }
        if let Some(connection) = self.connections.get_mut(key) {
            connection.exchange = 0;
            connection.reply = Progress::None;
            connection.deadline = None;
        }
    }

    /// The reply on a connection is complete: on to the next request, if there may be one.
    pub(super) fn complete(&mut self, cx: &mut Context<'_>, key: usize) {
        self.end(key, Outcome::Complete);
        let Some(connection) = self.connections.get_mut(key) else { return };
        connection.since = cx.now();
        connection.held = false;
        if !connection.keep_alive || self.stopping {
            let whole = matches!(connection.reading, Reading::Whole);
            connection.reading = Reading::Over;
            match whole {
                true => cx.finish(connection.id),
                false => cx.finish_lingering(connection.id),
            }
            return self.arm(cx, key);
        }
        match &mut connection.reading {
            Reading::Body(_, sink @ Sink::Stream) => *sink = Sink::Skip(self.limits.skip),
            Reading::Whole => connection.reading = Reading::Head(Default::default()),
            _ => {}
        }
        if !connection.serving {
            match connection.eof && connection.is_idle() {
                true => cx.finish(connection.id),
                false => cx.resume(connection.id),
            }
        }
        self.arm(cx, key);
    }

    /// Answers a request that is not served with a page, and ends its connection. If a reply has
    /// begun already, that cannot be completed.
    pub(super) fn refuse(&mut self, cx: &mut Context<'_>, key: usize, refusal: Refusal) {
        let Some(connection) = self.connections.get_mut(key) else { return };
        let begun = !matches!(connection.reply, Progress::None);
        // What is left of its body concerns nobody any more.
        let answered = connection.exchange == 0 && matches!(connection.reading, Reading::Body(_, Sink::Skip(_)));
        connection.keep_alive = false;
        connection.reading = Reading::Over;
        let conn = connection.id;
        log::debug!("{conn}: {}: {}", refusal.status, refusal.why);
        if begun {
            return cx.abort(conn);
        }
        self.end(key, Outcome::Lost);
        if !answered {
            self.send_page(cx, key, refusal);
        }
        cx.finish_lingering(conn);
        self.arm(cx, key);
    }

    /// Sends more of a reply's content, which the handler has given in one piece.
    pub(super) fn send_rest(&mut self, cx: &mut Context<'_>, key: usize) {
        let Some(connection) = self.connections.get_mut(key) else { return };
        let Progress::Rest(content, sent) = &mut connection.reply else { return };
        let rest = content.bytes().get(*sent..).unwrap_or_default();
        let n = rest.len().min(cx.room(connection.id));
        if cx.send(connection.id, rest.get(..n).unwrap_or_default()).is_ok() {
            *sent += n;
        }
        connection.drained &= n == 0;
        if n == rest.len() {
            self.complete(cx, key);
        }
    }

    /// Keeps content that does not fit, to be sent when it does.
    pub(super) fn keep_rest(&mut self, cx: &mut Context<'_>, key: usize, content: Content) {
        if let Some(connection) = self.connections.get_mut(key) {
            connection.reply = Progress::Rest(content, 0);
            self.send_rest(cx, key);
            self.arm(cx, key);
        }
    }

    /// Sets the deadline of a connection to the sooner one of the layer's and the handler's.
    pub(super) fn arm(&self, cx: &mut Context<'_>, key: usize) {
        let Some(connection) = self.connections.get(key) else { return };
        let due = connection.due(cx, &self.limits).map(|(at, _)| at);
        cx.set_deadline(connection.id, due.into_iter().chain(connection.deadline).min());
    }
}
