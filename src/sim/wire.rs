//! One connection: what is on its way in both directions, and how far both ends have come.

use crate::net::{Interest, Ready, Source};
use std::collections::VecDeque;
use std::io::{self, ErrorKind};

#[derive(Debug)]
pub(super) struct Wire {
    /// Sent by the client; the server's buffer has no room for it yet.
    arriving: VecDeque<u8>,
    /// In the server's receive buffer.
    received: VecDeque<u8>,
    receive_buffer: usize,
    /// Taken from the server and not read by the client.
    sent: VecDeque<u8>,
    send_buffer: usize,
    /// A write has come back short: the next room is an edge.
    wants_room: bool,
    /// The client has ended its half; that arrives behind all it has sent.
    ended: bool,
    client: End,
    server: End,
    accepted: bool,
    /// The client's reset has not been reported to the server yet.
    error: bool,
    watched: Option<(usize, Interest)>,
    /// It is on the list of edges.
    pub(super) edge: bool,
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

/// What has become of something that a client wanted.
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

impl Wire {
    pub(super) fn new(receive_buffer: usize, send_buffer: usize) -> Wire {
        Wire {
            arriving: VecDeque::new(),
            received: VecDeque::new(),
            receive_buffer,
            sent: VecDeque::new(),
            send_buffer,
            wants_room: false,
            ended: false,
            client: End::Open,
            server: End::Open,
            accepted: false,
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
        self.arrive().into()
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
        self.sent.clear();
        Change::Edge
    }

    pub(super) fn refuse(&mut self) {
        self.server = End::Reset;
    }

    /// Moves what has been sent into the server's buffer; whether that is an edge for the server. One
    /// that has closed answers bytes with a reset, which destroys what the client has not read.
    fn arrive(&mut self) -> bool {
        if matches!(self.server, End::Closed | End::Reset) {
            if !self.arriving.is_empty() {
                self.arriving.clear();
                self.destroy();
            }
            return false;
        }
        let n = self.arriving.len().min(self.receive_buffer - self.received.len().min(self.receive_buffer));
        self.received.extend(self.arriving.drain(..n));
        let ends = !self.ended && self.client == End::Shut && self.arriving.is_empty();
        self.ended |= ends;
        n > 0 || ends
    }

    fn destroy(&mut self) {
        self.server = End::Reset;
        self.sent.clear();
    }

    /// Takes what the client reads; and whether the server has got room that it has waited for.
    pub(super) fn take(&mut self, n: usize) -> (Vec<u8>, bool) {
        let n = n.min(self.sent.len());
        let bytes = self.sent.drain(..n).collect();
        let edge = self.wants_room && self.has_room();
        self.wants_room &= !edge;
        (bytes, edge)
    }

    pub(super) fn has_ended(&self) -> bool {
        matches!(self.server, End::Shut | End::Closed) && self.sent.is_empty()
    }

    pub(super) fn was_reset(&self) -> bool {
        self.server == End::Reset
    }

    pub(super) fn is_closed(&self) -> bool {
        matches!(self.server, End::Closed | End::Reset)
    }

    pub(super) fn is_accepted(&self) -> bool {
        self.accepted
    }

    pub(super) fn unread(&self) -> usize {
        self.arriving.len() + self.received.len()
    }

    // ---- the server's side ---------------------------------------------------------------------

    pub(super) fn accept(&mut self) {
        self.accepted = true;
    }

    /// How much there is to read; an error if nothing ever will be.
    pub(super) fn readable(&mut self) -> io::Result<usize> {
        if !self.received.is_empty() {
            return Ok(self.received.len());
        }
        self.take_error().map_or(Ok(()), Err)?;
        if self.ended || self.client == End::Reset { Ok(0) } else { Err(ErrorKind::WouldBlock.into()) }
    }

    /// Reads `n` bytes of those that there are; and whether more has arrived in their place.
    pub(super) fn read(&mut self, n: usize) -> (Vec<u8>, bool) {
        let bytes = self.received.drain(..n).collect();
        (bytes, self.arrive())
    }

    /// How much can be written; an error if nothing ever can.
    pub(super) fn writable(&mut self) -> io::Result<usize> {
        self.take_error().map_or(Ok(()), Err)?;
        if self.client == End::Reset {
            return Err(ErrorKind::BrokenPipe.into());
        }
        Ok(self.send_buffer - self.sent.len().min(self.send_buffer))
    }

    /// Takes `bytes` from the server, which wanted to write `wanted`.
    pub(super) fn write(&mut self, bytes: &[u8], wanted: usize) {
        self.sent.extend(bytes);
        self.wants_room = bytes.len() < wanted;
    }

    pub(super) fn wait_for_room(&mut self) {
        self.wants_room = true;
    }

    /// Kernels tell of room when a third of the buffer is free.
    pub(super) fn has_room(&self) -> bool {
        self.send_buffer - self.sent.len().min(self.send_buffer) >= self.send_buffer.div_ceil(3)
    }

    pub(super) fn take_error(&mut self) -> Option<io::Error> {
        std::mem::take(&mut self.error).then(|| ErrorKind::ConnectionReset.into())
    }

    pub(super) fn shut(&mut self) -> io::Result<()> {
        if self.client == End::Reset {
            return Err(ErrorKind::NotConnected.into());
        }
        self.server = End::Shut;
        Ok(())
    }

    /// Closes. With something unread, that is a reset, which destroys what the client has not read.
    pub(super) fn close(&mut self, reset: bool) {
        self.watched = None;
        self.server = End::Closed;
        if reset || !self.received.is_empty() {
            self.destroy();
        }
        self.received.clear();
        self.arrive();
    }

    /// Asks for events; whether there is one already.
    pub(super) fn watch(&mut self, key: usize, interest: Interest) -> bool {
        self.watched = Some((key, interest));
        self.wants_room |= interest == Interest::ReadWrite && !self.has_room();
        self.ready() != Ready::default()
    }

    pub(super) fn is_watched(&self) -> bool {
        self.watched.is_some()
    }

    /// The event behind an edge, if there still is one.
    pub(super) fn event(&mut self) -> Option<(Source, Ready)> {
        self.edge = false;
        let (key, _) = self.watched?;
        let ready = self.ready();
        (ready != Ready::default()).then_some((Source::Connection(key), ready))
    }

    fn ready(&self) -> Ready {
        let reset = self.client == End::Reset;
        let wants_to_write = matches!(self.watched, Some((_, Interest::ReadWrite)));
        Ready {
            readable: reset || self.ended || !self.received.is_empty(),
            writable: wants_to_write && (reset || self.has_room()),
            read_closed: reset || self.ended,
            error: self.error,
        }
    }
}
