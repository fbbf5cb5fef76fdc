//! The effects that a handler may ask for: responses, for any request that has not been answered, at any
//! time.

use super::clock::Clock;
use super::connection::{Coding, Connection, Progress};
use super::exchange::{Core, send_shared};
use super::id::ExchangeId;
use super::limits::Limits;
use super::response::Response;
use super::status::Status;
use crate::context::Context;
use crate::id::{ConnId, ListenerId, SendError};
use crate::net::Peer;
use crate::output::INSERT_BYTES as SHARED_BYTES;
use std::rc::Rc;
use std::time::{Duration, Instant, SystemTime};

/// The cost of a chunk beside its bytes: its size in hexadecimal, two line ends, and what the output
/// adds for a shared buffer. A chunk that is begun has to be sent whole.
const CHUNK_BYTES: usize = CHUNK_LINE + 2 + SHARED_BYTES;

/// The longest line in front of a chunk.
const CHUNK_LINE: usize = 16 + 2;

/// The end of a chunked body.
const LAST_CHUNK: &[u8] = b"0\r\n\r\n";

/// The effects that a handler may ask for, on any exchange of the server.
///
/// Nothing here calls the handler back: events come when its callback has returned. All of it is
/// harmless for an exchange that is over.
#[derive(Debug)]
pub struct Responder<'a> {
    pub(super) cx: Context<'a>,
    pub(super) core: &'a mut Core,
}

impl Responder<'_> {
    /// Returns the time at which this turn of the loop began.
    pub fn now(&self) -> Instant {
        self.cx.now()
    }

    /// Returns the wall-clock time, by the server's [`Clock`](super::Clock). The `Date` of responses that follow is not
    /// before it.
    pub fn time(&mut self) -> SystemTime {
        self.core.head.time(self.cx.now())
    }

    /// Begins a response. Nothing of it is sent before its content is given.
    pub fn respond(&mut self, id: ExchangeId, status: Status) -> Response<'_> {
        Response::new(self.cx.reborrow(), self.core, id, status)
    }

    /// Returns whether the exchange is not over.
    pub fn is_open(&self, id: ExchangeId) -> bool {
        self.core.find(id).is_some_and(|connection| self.cx.is_open(connection.id()))
    }

    /// Returns the address of the peer.
    pub fn peer(&self, id: ExchangeId) -> Option<Peer> {
        self.core.find(id).and_then(|connection| self.cx.peer(connection.id()))
    }

    /// Returns the connection of an exchange that is not over.
    pub fn connection(&self, id: ExchangeId) -> Option<ConnId> {
        self.core.find(id).map(|connection| connection.id())
    }

    /// Returns when the kernel last took something of what was sent to the client, see
    /// [`Context::last_write`](crate::Context::last_write).
    pub fn last_write(&self, id: ExchangeId) -> Option<Instant> {
        self.core.find(id).and_then(|connection| self.cx.last_write(connection.id()))
    }

    /// Sets the limits, see [`Http::set_limits`](super::Http::set_limits).
    pub fn set_limits(&mut self, limits: Limits) {
        self.core.limits = limits;
    }

    /// Sets the clock anew, see [`Http::set_clock`](super::Http::set_clock).
    pub fn set_clock(&mut self, clock: Clock) {
        self.core.head.set_clock(clock);
    }

    /// Returns the listener through which the request came.
    pub fn listener(&self, id: ExchangeId) -> Option<ListenerId> {
        self.core.find(id).map(|connection| connection.listener())
    }

    /// Returns how many bytes can be sent now in one piece; 0 if no response is being streamed.
    pub fn send_capacity(&self, id: ExchangeId) -> usize {
        let Some(connection) = self.core.find(id) else { return 0 };
        room_for_content(connection.response(), self.cx.send_capacity(connection.id()))
    }

    /// Sends a copy of `bytes`, all of them or none, as content of a response that is being
    /// [streamed](Response::stream), or to a connection that has been [upgraded](Response::upgrade).
    ///
    /// # Errors
    /// [`Full`](SendError::Full) if they are more than [`send_capacity`](Self::send_capacity);
    /// [`Handler::on_room`](super::Handler::on_room) tells of more room. [`TooLarge`](SendError::TooLarge)
    /// if there can never be room for them. [`Gone`](SendError::Gone) if the exchange is over, or if they
    /// are more than the response has promised, which aborts the connection.
    pub fn send(&mut self, id: ExchangeId, bytes: &[u8]) -> Result<(), SendError> {
        self.send_with(id, bytes.len(), |cx, connection| cx.send(connection.id(), bytes))
    }

    /// Sends `bytes` without a copy: the same buffer can go to any number of exchanges.
    ///
    /// # Errors
    /// As [`send`](Self::send).
    pub fn send_shared(&mut self, id: ExchangeId, bytes: &Rc<[u8]>) -> Result<(), SendError> {
        self.send_with(id, bytes.len(), |cx, connection| send_shared(cx, connection, bytes))
    }

    /// Ends a response that is being streamed, or a connection that has been upgraded. A response that
    /// falls short of the length it has promised ends in a reset, so that no client takes it for
    /// whole. A request without a response is answered `204`.
    pub fn finish(&mut self, id: ExchangeId) {
        let Some(connection) = self.core.find_mut(id) else { return };
        let conn = connection.id();
        match connection.response() {
            Progress::Stream(Coding::Length(1..)) => {
                log::error!("{conn}: a response was finished before its end");
                return self.cx.abort(conn);
            }
            Progress::Stream(Coding::Chunked) => {
                if self.cx.send(conn, LAST_CHUNK).is_err() {
                    return self.cx.abort(conn); // a part of the room is kept for it
                }
                connection.sent();
            }
            Progress::Stream(_) => {}
            Progress::None => return self.respond(id, Status::NO_CONTENT).empty(),
            Progress::Rest(..) => return,
        }
        if let Some(key) = self.core.key(id) {
            self.core.complete(&mut self.cx, key);
        }
    }

    /// Ends an exchange and its connection at once, without the rest of the response: in a reset if
    /// something was on its way.
    pub fn abort(&mut self, id: ExchangeId) {
        if let Some(connection) = self.core.find(id) {
            self.cx.abort(connection.id());
        }
    }

    /// Holds back the client of an exchange behind an upgrade until [`resume`](Self::resume): for a handler that waits
    /// for something else than more bytes. Without it, what the client goes on sending may come to more than the
    /// input holds.
    pub fn pause(&mut self, id: ExchangeId) {
        if let Some(connection) = self.core.find_mut(id) {
            connection.pause(true);
            self.cx.pause(connection.id());
        }
    }

    /// Goes on offering [data](super::Handler::on_data) of which not all was taken. Within the
    /// callback that offers it, this does nothing.
    pub fn resume(&mut self, id: ExchangeId) {
        let now = self.now();
        let Some(connection) = self.core.find_mut(id) else { return };
        if connection.resume(now) {
            self.cx.resume(connection.id());
        }
    }

    /// Sets, moves or clears the deadline of an exchange. When it passes,
    /// [`Handler::on_deadline`](super::Handler::on_deadline) is called, once. The end of the
    /// exchange clears it.
    pub fn set_deadline(&mut self, id: ExchangeId, deadline: Option<Instant>) {
        if let Some(connection) = self.core.find_mut(id) {
            connection.set_deadline(deadline);
        }
    }

    /// Sets, moves or clears the one timer of the server, see
    /// [`Context::set_timer`](crate::Context::set_timer). When it expires,
    /// [`Handler::on_timer`](super::Handler::on_timer) is called, once.
    pub fn set_timer(&mut self, at: Option<Instant>) {
        self.cx.set_timer(at);
    }

    /// Stops the loop, as [`EventLoop::stop`](crate::EventLoop::stop) does.
    pub fn stop(&mut self, grace: Duration) {
        self.cx.stop(grace);
    }

    /// Ends an exchange whose deadline has passed.
    pub(super) fn give_up(&mut self, id: ExchangeId) {
        match self.core.find(id) {
            Some(connection) if connection.is_unanswered() => {
                self.respond(id, Status::SERVICE_UNAVAILABLE).error_page()
            }
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
        let room = self.send_capacity(id);
        let Some(connection) = self.core.find_mut(id) else { return Err(SendError::Gone) };
        let (conn, most) = (connection.id(), room_for_content(connection.response(), self.cx.limits().output));
        let Progress::Stream(coding) = *connection.response() else { return Err(SendError::Gone) };
        if !self.cx.is_open(conn) {
            return Err(SendError::Gone);
        }
        match coding {
            Coding::Dropped => return Ok(()),
            _ if len == 0 => return Ok(()), // an empty chunk would be the end
            _ if len > most => return Err(SendError::TooLarge),
            _ if len > room => return Err(SendError::Full),
            Coding::ToTheEnd => push(&mut self.cx, connection)?,
            Coding::Length(left) => match left.checked_sub(len as u64) {
                Some(rest) => {
                    connection.stream(Coding::Length(rest));
                    push(&mut self.cx, connection)?;
                }
                None => {
                    log::error!("{conn}: more of a response was sent than it has promised");
                    self.cx.abort(conn);
                    return Err(SendError::Gone);
                }
            },
            Coding::Chunked => {
                self.cx.send(conn, chunk_line(&mut [0; CHUNK_LINE], len))?;
                push(&mut self.cx, connection)?;
                self.cx.send(conn, b"\r\n")?;
            }
        }
        connection.sent();
        Ok(())
    }
}

/// Returns how many bytes of content can be sent in one piece where there is `room`.
fn room_for_content(response: &Progress, room: usize) -> usize {
    match response {
        Progress::Stream(Coding::Chunked) => room.saturating_sub(CHUNK_BYTES + LAST_CHUNK.len()),
        Progress::Stream(_) => room,
        Progress::None | Progress::Rest(..) => 0,
    }
}

/// Writes the line in front of a chunk of `len` bytes.
fn chunk_line(line: &mut [u8; CHUNK_LINE], len: usize) -> &[u8] {
    let digits = (usize::BITS - len.leading_zeros()).div_ceil(4).max(1) as usize;
    for (at, byte) in line.iter_mut().take(digits).enumerate() {
        *byte = b"0123456789abcdef"[len >> (4 * (digits - 1 - at)) & 15];
    }
    line[digits..digits + 2].copy_from_slice(b"\r\n");
    &line[..digits + 2]
}
