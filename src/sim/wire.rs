//! One connection: what is on its way in both directions, and how far both ends have come.

use crate::net::{Interest, Ready, Source};
use std::collections::VecDeque;
use std::io::{self, ErrorKind};

/// The most that a kernel keeps back of bytes that are said to have more behind them: less than
/// a segment.
const SEGMENT: usize = 1460;

#[derive(Debug)]
pub(super) struct Wire {
    flavour: Flavour,
    /// Sent by the client; the server's buffer has no room for it yet.
    arriving: VecDeque<u8>,
    /// In the server's receive buffer.
    received: VecDeque<u8>,
    receive_buffer: usize,
    /// How many bytes the client has sent in all, and how many the server has read.
    position: (usize, usize),
    /// Where in the client's stream a read stops, though there is more: urgent marks, or passed
    /// descriptors.
    marks: VecDeque<usize>,
    /// Taken from the server and not on the wire: the client has no window for it, or it is corked.
    buffered: VecDeque<u8>,
    send_buffer: usize,
    /// How many of the last of `buffered` wait for more, or for the end.
    corked: usize,
    /// In the client's receive buffer: nothing but the client takes it out again.
    inbox: VecDeque<u8>,
    window: usize,
    /// How many bytes more the server's socket takes, if that is decided by hand. They are in the inbox
    /// at once.
    room: Option<usize>,
    /// How many of the next calls a signal interrupts.
    interruptions: usize,
    /// A write has come back short: the next room is an edge.
    wants_room: bool,
    /// The client has ended its half; that arrives behind all it has sent.
    ended: bool,
    client: End,
    server: End,
    /// The server has asked for it, and the client has not answered.
    connecting: bool,
    called: bool,
    accepted: bool,
    lost: bool,
    /// The client's reset has not been reported to the server yet.
    error: bool,
    watched: Option<(usize, Interest)>,
    /// It is on the list of edges.
    pub(super) edge: bool,
}

/// The kind of the socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Flavour {
    Tcp,
    /// Written bytes are the client's at once; there are no resets that destroy it, and no marks
    /// that are told of.
    Unix,
}

/// How far one side has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Open,
    /// It sends no more.
    Shut,
    /// It has closed.
    Closed,
    /// It has reset the connection.
    Reset,
}

/// The result of a change that a client wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Change {
    /// It is too late for it.
    None,
    /// The server will not notice yet.
    Quiet,
    Edge,
}

impl From<bool> for Change {
    fn from(edge: bool) -> Change {
        if edge { Change::Edge } else { Change::Quiet }
    }
}

/// The sizes of a connection's buffers, in bytes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Buffers {
    pub(super) receive: usize,
    pub(super) send: usize,
    /// The client's receive buffer.
    pub(super) window: usize,
}

impl Wire {
    pub(super) fn new(flavour: Flavour, buffers: Buffers) -> Wire {
        Wire {
            flavour,
            arriving: VecDeque::new(),
            received: VecDeque::new(),
            receive_buffer: buffers.receive,
            position: (0, 0),
            marks: VecDeque::new(),
            buffered: VecDeque::new(),
            send_buffer: buffers.send,
            corked: 0,
            inbox: VecDeque::new(),
            window: buffers.window,
            room: None,
            interruptions: 0,
            wants_room: false,
            ended: false,
            client: End::Open,
            server: End::Open,
            connecting: false,
            called: false,
            accepted: false,
            lost: false,
            error: false,
            watched: None,
            edge: false,
        }
    }

    // ---- the client's side ---------------------------------------------------------------------

    pub(super) fn send(&mut self, bytes: &[u8]) -> Change {
        if self.client != End::Open {
            return Change::None;
        }
        self.arriving.extend(bytes);
        self.position.0 += bytes.len();
        self.arrive().into()
    }

    /// Sends what is no byte of the stream, but stops reads that come to it.
    pub(super) fn mark(&mut self) -> Change {
        if self.client != End::Open {
            return Change::None;
        }
        if self.is_closed() {
            self.answer_with_reset();
            return Change::Quiet;
        }
        self.marks.push_back(self.position.0);
        Change::Edge
    }

    pub(super) fn end(&mut self) -> Change {
        if self.client != End::Open {
            return Change::None;
        }
        self.client = End::Shut;
        self.arrive().into()
    }

    pub(super) fn abort(&mut self) -> Change {
        if matches!(self.client, End::Reset) || matches!(self.server, End::Closed | End::Reset) {
            return Change::None;
        }
        self.client = End::Reset;
        self.error = true;
        self.arriving.clear();
        self.destroy();
        self.inbox.clear();
        Change::Edge
    }

    pub(super) fn refuse(&mut self) {
        self.server = End::Reset;
    }

    /// Answers a server that connects.
    pub(super) fn answer(&mut self) -> Change {
        if std::mem::take(&mut self.connecting) { Change::Edge } else { Change::None }
    }

    /// Moves what has been sent into the server's buffer; whether that is an edge for the server.
    fn arrive(&mut self) -> bool {
        if self.is_closed() {
            if !self.arriving.is_empty() {
                self.arriving.clear();
                self.answer_with_reset();
            }
            return false;
        }
        let n = self.arriving.len().min(self.receive_buffer - self.received.len().min(self.receive_buffer));
        self.received.extend(self.arriving.drain(..n));
        let ends = !self.ended && self.client == End::Shut && self.arriving.is_empty();
        self.ended |= ends;
        n > 0 || ends
    }

    /// A server that has closed answers bytes with a reset, which destroys what has not left it.
    fn answer_with_reset(&mut self) {
        if self.flavour == Flavour::Tcp {
            self.server = End::Reset;
            self.destroy();
        }
    }

    /// Bytes that have not left the server are lost.
    fn destroy(&mut self) {
        self.buffered.clear();
        self.corked = 0;
    }

    /// Takes what the client reads; and whether the server has got room that it has waited for.
    pub(super) fn take(&mut self, n: usize) -> (Vec<u8>, bool) {
        let n = n.min(self.inbox.len());
        let bytes = self.inbox.drain(..n).collect();
        self.transmit();
        let edge = self.wants_room && self.has_room();
        self.wants_room &= !edge;
        (bytes, edge)
    }

    pub(super) fn has_ended(&self) -> bool {
        matches!(self.server, End::Shut | End::Closed) && self.buffered.is_empty() && self.inbox.is_empty()
    }

    pub(super) fn was_reset(&self) -> bool {
        self.server == End::Reset
    }

    pub(super) fn is_closed(&self) -> bool {
        matches!(self.server, End::Closed | End::Reset)
    }

    pub(super) fn was_lost(&self) -> bool {
        self.lost
    }

    pub(super) fn is_accepted(&self) -> bool {
        self.accepted
    }

    pub(super) fn unread(&self) -> usize {
        self.arriving.len() + self.received.len()
    }

    /// Sets the room by hand.
    pub(super) fn set_room(&mut self, bytes: usize) -> Change {
        self.room = Some(bytes);
        self.transmit();
        let edge = bytes > 0;
        self.wants_room &= !edge;
        edge.into()
    }

    pub(super) fn interrupt(&mut self, calls: usize) {
        self.interruptions = calls;
    }

    // ---- the server's side ---------------------------------------------------------------------

    pub(super) fn begin_connecting(&mut self) {
        self.connecting = true;
        self.called = true;
    }

    pub(super) fn was_called(&self) -> bool {
        self.called
    }

    /// Returns whether the client has answered.
    pub(super) fn check_connecting(&mut self) -> io::Result<()> {
        match (self.take_error(), self.connecting) {
            (Some(_), true) => Err(ErrorKind::ConnectionRefused.into()),
            (Some(error), false) => Err(error),
            (None, true) => Err(ErrorKind::WouldBlock.into()),
            (None, false) => Ok(()),
        }
    }

    pub(super) fn lose(&mut self) {
        self.lost = true;
        self.refuse();
    }

    pub(super) fn accept(&mut self) {
        self.accepted = true;
    }

    pub(super) fn reads_stop_short(&self) -> bool {
        self.flavour == Flavour::Unix
    }

    /// Returns how much a read brings; an error if nothing ever will be.
    pub(super) fn readable(&mut self) -> io::Result<usize> {
        assert!(!self.connecting, "the loop knows what is connected");
        let (_, read) = self.position;
        while self.marks.front().is_some_and(|mark| *mark <= read) {
            self.marks.pop_front();
        }
        if !self.received.is_empty() {
            let to_mark = self.marks.front().map_or(usize::MAX, |mark| mark - read);
            return Ok(self.received.len().min(to_mark));
        }
        self.take_error().map_or(Ok(()), Err)?;
        if self.ended || self.client == End::Reset { Ok(0) } else { Err(ErrorKind::WouldBlock.into()) }
    }

    /// Reads `n` bytes of those that there are; and whether more has arrived in their place.
    pub(super) fn read(&mut self, n: usize) -> (Vec<u8>, bool) {
        let bytes = self.received.drain(..n).collect();
        self.position.1 += n;
        (bytes, self.arrive())
    }

    /// Returns how much can be written; an error if nothing ever can.
    pub(super) fn writable(&mut self) -> io::Result<usize> {
        assert!(!self.connecting, "the loop knows what is connected");
        if self.server == End::Shut {
            return Err(ErrorKind::BrokenPipe.into());
        }
        self.take_error().map_or(Ok(()), Err)?;
        if self.client == End::Reset {
            return Err(ErrorKind::BrokenPipe.into());
        }
        Ok(self.room.unwrap_or(self.free()))
    }

    fn free(&self) -> usize {
        self.send_buffer - self.held().min(self.send_buffer)
    }

    /// Returns the bytes that count against the send buffer.
    fn held(&self) -> usize {
        match self.flavour {
            Flavour::Tcp => self.buffered.len(),
            Flavour::Unix => self.inbox.len(),
        }
    }

    /// Takes bytes from the server, and keeps the last of them back if there is `more` to come. A
    /// write that finds no room for all of its bytes keeps none back.
    pub(super) fn write(&mut self, bytes: &[u8], wanted: usize, more: bool) {
        self.buffered.extend(bytes);
        self.room = self.room.map(|room| room - bytes.len());
        self.wants_room = bytes.len() < wanted;
        let keeps = more && !self.wants_room && self.flavour == Flavour::Tcp;
        self.corked = if keeps { (self.corked + bytes.len()).min(SEGMENT) } else { 0 };
        self.transmit();
    }

    /// Sends what the client has a window for.
    fn transmit(&mut self) {
        let window = match self.flavour {
            Flavour::Tcp if self.room.is_none() => self.window - self.inbox.len().min(self.window),
            _ => usize::MAX,
        };
        let n = window.min(self.buffered.len() - self.corked);
        self.inbox.extend(self.buffered.drain(..n));
    }

    pub(super) fn wait_for_room(&mut self) {
        self.wants_room = true;
    }

    /// Linux tells of room when a third of a TCP socket's buffer is free, and when three quarters of a
    /// Unix socket's are.
    pub(super) fn has_room(&self) -> bool {
        match (self.room, self.flavour) {
            (Some(room), _) => room > 0,
            (None, Flavour::Tcp) => self.free() >= self.send_buffer.div_ceil(3),
            (None, Flavour::Unix) => self.free() >= (3 * self.send_buffer).div_ceil(4),
        }
    }

    pub(super) fn take_error(&mut self) -> Option<io::Error> {
        std::mem::take(&mut self.error).then(|| ErrorKind::ConnectionReset.into())
    }

    pub(super) fn shutdown_write(&mut self) -> io::Result<()> {
        assert!(!self.connecting, "the loop knows what is connected");
        if self.client == End::Reset {
            return Err(ErrorKind::NotConnected.into());
        }
        self.server = End::Shut;
        self.corked = 0;
        self.transmit();
        Ok(())
    }

    /// Closes. Over something unread, a TCP socket resets, which destroys what has not left yet;
    /// in all other cases, the rest is sent.
    pub(super) fn close(&mut self, reset: bool) {
        self.watched = None;
        self.server = End::Closed;
        let unread = !self.received.is_empty() || !self.marks.is_empty();
        if self.flavour == Flavour::Tcp && (reset || unread) {
            self.answer_with_reset();
        } else if unread {
            self.server = End::Reset; // behind what was written
        }
        self.corked = 0;
        self.transmit();
        self.received.clear();
        self.marks.clear();
        self.arrive();
    }

    /// Asks for events; whether there is one already.
    pub(super) fn watch(&mut self, key: usize, interest: Interest) -> bool {
        self.watched = Some((key, interest));
        self.wants_room |= interest == Interest::ReadWrite && !self.has_room();
        self.ready() != Ready::default()
    }

    /// Uses one of the interruptions up.
    pub(super) fn is_interrupted(&mut self) -> bool {
        let interrupted = self.interruptions > 0;
        self.interruptions -= usize::from(interrupted);
        interrupted
    }

    pub(super) fn key(&self) -> Option<usize> {
        self.watched.map(|(key, _)| key)
    }

    pub(super) fn interest(&self) -> Option<Interest> {
        self.watched.map(|(_, interest)| interest)
    }

    pub(super) fn is_watched(&self) -> bool {
        self.watched.is_some()
    }

    /// Returns the event behind an edge, if there still is one.
    pub(super) fn event(&mut self) -> Option<(Source, Ready)> {
        self.edge = false;
        let (key, _) = self.watched?;
        let ready = self.ready();
        (ready != Ready::default()).then_some((Source::Connection(key), ready))
    }

    fn ready(&self) -> Ready {
        if self.connecting && self.client != End::Reset {
            return Ready::default();
        }
        let reset = self.client == End::Reset;
        let wants_to_write = matches!(self.watched, Some((_, Interest::ReadWrite)));
        Ready {
            readable: reset || self.ended || !self.received.is_empty(),
            writable: wants_to_write && (reset || self.has_room()),
            read_closed: reset || self.ended,
            error: self.error,
            urgent: self.flavour == Flavour::Tcp && !self.marks.is_empty(),
        }
    }
}
