//! All that somebody who writes a protocol has to read.
//!
//! A [`Service`] is told what happens on its connections and answers through a [`Context`]. It
//! never sees a socket, a token or a clock. The context only *records* what is wanted; the loop
//! carries it out when the callback has returned, so no callback ever runs inside another.

use crate::connection::{Connection, Phase};
use crate::connections::Table;
use crate::net::Peer;
use std::fmt;
use std::fs::File;
use std::io;
use std::rc::Rc;
use std::time::{Duration, Instant};

/// A protocol: what to do when connections open, bring data, and close.
///
/// Every connection sees [`on_open`](Service::on_open) first and
/// [`on_close`](Service::on_close) last, each exactly once.
///
/// ```
/// use pollstack::{ConnId, Context, ListenerId, Service};
///
/// struct Echo;
///
/// impl Service for Echo {
///     type Conn = ();
///     fn on_open(&mut self, _: &mut Context<'_>, _: ConnId, _: ListenerId) {}
///     fn on_data(&mut self, cx: &mut Context<'_>, id: ConnId, _: &mut (), input: &[u8]) -> usize {
///         let fits = input.len().min(cx.room(id));
///         cx.send(id, &input[..fits]).map_or(0, |()| fits)
///     }
///     fn on_drain(&mut self, cx: &mut Context<'_>, id: ConnId, _: &mut ()) {
///         cx.resume(id); // there is room again for the input that was left
///     }
/// }
/// ```
pub trait Service {
    /// What the protocol keeps for one connection. The loop stores it, lends it to the callbacks
    /// of that connection and gives it back in [`on_close`](Service::on_close).
    type Conn;

    /// A client has come in through `listener`.
    fn on_open(&mut self, cx: &mut Context<'_>, id: ConnId, listener: ListenerId) -> Self::Conn;

    /// Input has come: `input` is all that has not been consumed yet, oldest byte first.
    ///
    /// Returns how many bytes it took from the front. The rest is offered again, in one piece
    /// with what follows, as soon as more arrives; a service that cannot go on for another reason
    /// takes what it can and calls [`Context::resume`] when it can go on. It is called again at
    /// once for the rest as long as it takes something.
    ///
    /// `input` never grows beyond [`Limits::input`](crate::Limits::input). A service that waits
    /// for more than that has its connection closed with [`Cause::InputFull`]; better refuse
    /// such a message with an error of the protocol's own before.
    fn on_data(&mut self, cx: &mut Context<'_>, id: ConnId, conn: &mut Self::Conn, input: &[u8]) -> usize;

    /// The peer has ended its half of the stream. All it sent has been offered; what was not
    /// taken, although nothing stood in the way, will not be completed any more. The peer may
    /// still read.
    fn on_eof(&mut self, _cx: &mut Context<'_>, _id: ConnId, _conn: &mut Self::Conn) -> Eof {
        Eof::Finish
    }

    /// Everything sent to this connection is now the kernel's. Not called once
    /// [`Context::finish`] has been: [`on_close`](Service::on_close) says the same then.
    fn on_drain(&mut self, _cx: &mut Context<'_>, _id: ConnId, _conn: &mut Self::Conn) {}

    /// The deadline set with [`Context::set_deadline`] has passed. It is cleared. What waited for
    /// the kernel has just been offered to it once more; if [`on_drain`](Self::on_drain) has moved
    /// or cleared the deadline, this is not called.
    fn on_deadline(&mut self, cx: &mut Context<'_>, id: ConnId, _conn: &mut Self::Conn) {
        cx.abort(id);
    }

    /// The connection has closed, for the reason in `closed`; `id` is [`Gone`](SendError::Gone)
    /// from here on.
    fn on_close(&mut self, _cx: &mut Context<'_>, _id: ConnId, _conn: Self::Conn, _closed: Closed) {}

    /// Whether `input`, which is what a newcomer has sent whom the listener turns away, is all
    /// that is to come of it for now. Then the newcomer can be closed as soon as it has its reply;
    /// otherwise, and unless a service knows better, the close [lingers](Context::finish_lingering)
    /// until the rest has come, which costs a few system calls more.
    fn is_complete(&self, _listener: ListenerId, _input: &[u8]) -> bool {
        false
    }

    /// The loop has been asked to stop: nobody is accepted any more, and who is still there when
    /// the grace period is over will be closed. The time to say goodbye, or to hurry.
    fn on_shutdown(&mut self, _cx: &mut Context<'_>) {}
}

/// A connection, for as long as it is open. An id is never given out twice: once its connection
/// has closed, it reaches nobody.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ConnId {
    pub(crate) serial: u64,
    pub(crate) key: usize,
}

impl fmt::Display for ConnId {
    /// The connections of a loop are numbered from 1 in the order of their accept.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "#{}", self.serial)
    }
}

/// The listener that a connection came through, as returned by
/// [`EventLoop::listen`](crate::EventLoop::listen).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ListenerId(pub(crate) usize);

/// What to do when the peer has ended its half of the stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Eof {
    /// Go on sending; the connection stays until it is finished or aborted.
    Keep,
    /// As [`Context::finish`].
    Finish,
    /// As [`Context::abort`].
    Abort,
}

/// How a connection ended.
#[derive(Debug)]
pub struct Closed {
    /// Why.
    pub cause: Cause,
    /// How many bytes that were sent to it never reached the kernel, or were still kept back by it to
    /// leave with the end, which failed. With 0, all has left for the peer or, if it was much, is the
    /// kernel's while the close lingers; it may still have been lost on its way.
    pub unsent: u64,
}

/// Why a connection ended.
#[derive(Debug)]
pub enum Cause {
    /// The service finished it, and all its output went out.
    Finished,
    /// The service aborted it.
    Aborted,
    /// A newcomer took its place ([`Overload::EvictOldest`](crate::Overload::EvictOldest)).
    Evicted,
    /// The service took nothing of a full input buffer, and the peer went on sending.
    InputFull,
    /// The loop stopped, and its grace period was over.
    Shutdown,
    /// The network or the kernel gave it up; a reset, for example.
    Failed(io::Error),
}

/// What a shared buffer counts against the room beside its bytes.
#[cfg(feature = "http")]
pub(crate) const SHARED_BYTES: usize = crate::output::INSERT_BYTES;

/// Why something was not sent. Nothing of it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SendError {
    /// The connection has closed, or has been finished or aborted.
    Gone,
    /// There is no room for it before the peer reads; [`Service::on_drain`] tells when it has.
    Full,
}

impl fmt::Display for SendError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            SendError::Gone => "the connection is gone",
            SendError::Full => "the connection's output buffer is full",
        })
    }
}

impl std::error::Error for SendError {}

/// What a service can ask of the loop, for any connection and at any time.
///
/// Nothing here makes a system call or calls back: effects are recorded, and carried out when the
/// callback has returned. All of it is harmless for a connection that has gone.
#[derive(Debug)]
pub struct Context<'a> {
    table: &'a mut Table,
}

impl<'a> Context<'a> {
    pub(crate) fn new(table: &'a mut Table) -> Self {
        Context { table }
    }

    /// The same context, for a shorter time: for a layer that keeps it in a context of its own.
    pub fn reborrow(&mut self) -> Context<'_> {
        Context { table: self.table }
    }

    /// The time at which this turn of the loop began.
    pub fn now(&self) -> Instant {
        self.table.now
    }

    /// Sends a copy of `bytes`: all of them, or none.
    ///
    /// # Errors
    /// [`Full`](SendError::Full) if they are more than [`room`](Self::room) is left,
    /// [`Gone`](SendError::Gone) if nobody is there to send to.
    pub fn send(&mut self, id: ConnId, bytes: &[u8]) -> Result<(), SendError> {
        self.table.send(id, bytes.len(), |output| output.push_bytes(bytes))
    }

    /// Sends `bytes` without a copy: the same buffer can go to any number of connections. It
    /// counts in full against the room of each.
    ///
    /// # Errors
    /// As [`send`](Self::send).
    pub fn send_shared(&mut self, id: ConnId, bytes: &Rc<[u8]>) -> Result<(), SendError> {
        self.table.send(id, bytes.len(), |output| output.push_shared(bytes))
    }

    /// Sends `len` bytes of `file` from `offset`, with the kernel's own copy where it has one.
    /// The file counts next to nothing against the room. If it turns out to be shorter, the
    /// connection fails with a reset: the peer must not take a part for the whole.
    ///
    /// # Errors
    /// As [`send`](Self::send).
    pub fn send_file(&mut self, id: ConnId, file: &Rc<File>, offset: u64, len: u64) -> Result<(), SendError> {
        self.table.send(id, usize::from(len > 0), |output| output.push_file(file, offset, len))
    }

    /// How many bytes can be sent now: [`Limits::output`](crate::Limits::output) less what the
    /// kernel has not taken yet; 0 if the connection has gone.
    pub fn room(&self, id: ConnId) -> usize {
        self.table.open(id).map_or(0, |connection| connection.room(&self.table.limits))
    }

    /// When the kernel last took something of what was sent to the connection; `None` if it never
    /// has. A peer that does not read shows here. One that reads slowly hardly does: kernels tell
    /// of room only when a good part of their buffer is free, but they are asked once more before
    /// a [deadline](Self::set_deadline) passes.
    pub fn last_taken(&self, id: ConnId) -> Option<Instant> {
        self.table.get(id).and_then(|connection| connection.last_taken)
    }

    /// Whether the connection is still there to be sent to.
    pub fn is_open(&self, id: ConnId) -> bool {
        self.table.open(id).is_some()
    }

    /// Who is at the other end.
    pub fn peer(&self, id: ConnId) -> Option<Peer> {
        self.table.open(id).map(|connection| connection.peer)
    }

    /// Closes once everything sent has gone out. To be called when the peer's last message has
    /// come in whole; input is not delivered any more. Our FIN leaves with the last of the output,
    /// before the close. If the peer has sent more than was taken, or was sent more than leaves the
    /// machine at once, the close lingers, as that of [`finish_lingering`](Self::finish_lingering):
    /// closing over unread input makes the kernel send a reset, which destroys what it still holds.
    ///
    /// A peer that does not read keeps its place until it does; a
    /// [deadline](Self::set_deadline) stays in force and can end that.
    pub fn finish(&mut self, id: ConnId) {
        self.end(id, false);
    }

    /// As [`finish`](Self::finish), for a peer that may still be sending: after the last answer
    /// and our FIN, what still comes is read and dropped, up to
    /// [`Limits::linger_time`](crate::Limits::linger_time) and
    /// [`Limits::linger_bytes`](crate::Limits::linger_bytes). The service sees the connection
    /// closed, and its place is free, as soon as the answer has gone out.
    pub fn finish_lingering(&mut self, id: ConnId) {
        self.end(id, true);
    }

    /// Closes at once; what has not gone out is lost, and counted in [`Closed::unsent`]. If there
    /// is any, the peer's stream ends in a reset, where streams have one (TCP): it must not take a
    /// part for the whole.
    pub fn abort(&mut self, id: ConnId) {
        self.table.change(id, |connection| connection.doomed = true);
    }

    /// Reads and drops what the connection sends from here on, and what is left of its input. Only
    /// its end is of interest, and is told before anything that other connections have sent by then
    /// is offered: for a peer that has asked for something and waits for it, which must not be given
    /// what others bring once it has left.
    pub fn ignore_input(&mut self, id: ConnId) {
        self.table.change(id, Connection::ignore_input);
    }

    /// Stops reading from the connection, so that the peer is held back.
    pub fn pause(&mut self, id: ConnId) {
        self.table.change(id, |connection| connection.paused = true);
    }

    /// Goes on reading, and offers again what input is left. Not to be called from
    /// [`Service::on_data`] for the connection that it is about: that would be for ever.
    pub fn resume(&mut self, id: ConnId) {
        self.table.change(id, |connection| {
            connection.paused = false;
            connection.again = true;
        });
    }

    /// Sets, moves or clears the connection's deadline. When it passes,
    /// [`Service::on_deadline`] is called, once. One that has passed already does so in the next
    /// turn, or in this one if it was set before.
    pub fn set_deadline(&mut self, id: ConnId, deadline: Option<Instant>) {
        if self.table.get(id).is_some() {
            let next_turn = self.now() + Duration::from_nanos(1);
            // One that is about to be met is not put off by setting it again.
            let before = self.table.deadlines.get(id.key).unwrap_or(next_turn);
            let deadline = deadline.map(|at| at.max(next_turn.min(before)));
            self.table.deadlines.set(id.key, deadline);
        }
    }

    /// Stops the loop, as [`EventLoop::stop`](crate::EventLoop::stop) does.
    pub fn stop(&mut self, grace: Duration) {
        self.table.ask_to_stop(grace);
    }

    fn end(&mut self, id: ConnId, goes_on: bool) {
        self.table.change(id, |connection| {
            connection.phase = Phase::Finishing;
            connection.goes_on |= goes_on;
        });
    }
}
