//! A connection: its buffers, what is known of its socket, and what is to be done next.
//!
//! The loop keeps a connection in two halves under one slab key. This half, [`Connection`], is
//! what a [`Context`](crate::Context) may touch: it knows neither the type of the stream nor that
//! of the protocol's state. The other half, with both, stays in the event loop.

use crate::limits::{BURST_BYTES, CALL_BYTES, Limits};
use crate::net::{Interest, Peer, Ready};
use crate::output::Output;
use crate::queue::Place;
use crate::service::ConnId;
use std::collections::VecDeque;
use std::time::Instant;

/// One connection, from its accept until its descriptor is closed.
#[derive(Debug)]
pub(crate) struct Connection {
    pub(crate) serial: u64,
    pub(crate) peer: Peer,
    /// The listener it is counted with, by index.
    pub(crate) listener: usize,
    /// Where it is counted.
    pub(crate) seat: Seat,
    pub(crate) phase: Phase,
    /// To be closed at once: the service has aborted it.
    pub(crate) doomed: bool,
    /// Not to be read: the service has paused it.
    pub(crate) paused: bool,
    /// The input that is left is to be offered once more.
    pub(crate) again: bool,
    /// What it sends is read and dropped: nothing but its end is of interest.
    pub(crate) ignored: bool,
    /// The peer has sent more than the service wanted, and may go on.
    pub(crate) goes_on: bool,

    /// There may be bytes to read. Cleared only by an end, a short read or `WouldBlock`.
    pub(crate) unread: bool,
    /// There may be an end to read, behind the bytes: it gives no edge of its own.
    pub(crate) fin: bool,
    /// Reads stop at an urgent mark, with more behind it: a short one has not exhausted the socket.
    pub(crate) urgent: bool,
    /// The end has been read.
    pub(crate) eof: bool,
    /// The service has been told of the end.
    pub(crate) told_eof: bool,
    /// There may be room to write. Cleared only by a short write or `WouldBlock`.
    pub(crate) writable: bool,
    /// The socket may be in error.
    pub(crate) fault: bool,
    /// What the stream is watched for.
    pub(crate) watched: Option<Interest>,

    /// On the list of those to be settled.
    pub(crate) dirty: bool,
    /// On the run queue, or being served.
    pub(crate) queued: bool,
    /// The turn that `spent` belongs to.
    pub(crate) turn: u64,
    /// Bytes moved in that turn.
    pub(crate) spent: usize,
    /// Bytes dropped while it lingers.
    pub(crate) discarded: usize,
    /// When the kernel last took something of its output.
    pub(crate) last_taken: Option<Instant>,
    /// How many bytes the kernel has taken in all.
    pub(crate) sent: u64,
    /// How many of the last of them it may be keeping back until more comes.
    pub(crate) corked: u64,

    /// Received and not consumed. Empty, and without memory, on nearly all connections.
    pub(crate) input: Vec<u8>,
    /// Sent and not taken. `None` on nearly all connections.
    pub(crate) output: Option<Box<Output>>,
}

/// How far a connection has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Phase {
    Open,
    /// To be closed when its output is out.
    Finishing,
    /// Closed for the service, and our half has ended; what the peer still sends is dropped.
    Lingering,
}

/// Where a connection is counted, until it is closed or lingers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Seat {
    /// Among those that its listener has admitted.
    Admitted(Place),
    /// Among those that are closed for the service.
    Lingering(Place),
    /// Nowhere: it is being turned away.
    None,
}

/// What to do next for a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// Offer its input to the service once more.
    Offer,
    /// Read at most so many bytes.
    Read(usize),
    /// Its input is full, and nobody is going to take any of it: read on, and close if there is
    /// more than the end.
    Overflow,
    /// Tell the service that the peer has ended.
    End,
    /// Read, and drop what comes; one that lingers may send so much only.
    Discard,
}

impl Connection {
    /// A newcomer: nothing is known of its socket, so everything is worth trying.
    pub(crate) fn new(serial: u64, peer: Peer, listener: usize, seat: Seat) -> Self {
        Connection {
            serial,
            peer,
            listener,
            seat,
            phase: Phase::Open,
            doomed: false,
            paused: false,
            again: false,
            ignored: false,
            goes_on: false,
            unread: true,
            fin: false,
            urgent: false,
            eof: false,
            told_eof: false,
            writable: true,
            fault: false,
            watched: None,
            dirty: false,
            queued: false,
            turn: 0,
            spent: 0,
            discarded: 0,
            last_taken: None,
            sent: 0,
            corked: 0,
            input: Vec::new(),
            output: None,
        }
    }

    /// Notes what an event says. None of it is taken for a fact.
    pub(crate) fn hear(&mut self, ready: Ready) {
        self.unread |= ready.readable;
        self.fin |= ready.read_closed;
        self.writable |= ready.writable;
        self.fault |= ready.error;
        self.urgent |= ready.urgent;
    }

    /// Notes that a read brought `n` of at most `wanted` bytes.
    pub(crate) fn has_read(&mut self, n: usize, wanted: usize, short_means_drained: bool) {
        self.spend(n);
        self.eof = n == 0;
        self.unread = n == wanted || (n > 0 && (self.urgent || !short_means_drained));
    }

    /// Notes that there was nothing to read, whatever events have said.
    pub(crate) fn has_drained(&mut self) {
        self.unread = false;
        self.fin = false;
    }

    /// Whether the kernel held nothing unread when it was last asked.
    pub(crate) fn is_drained(&self) -> bool {
        !self.unread
    }

    /// Whether a close may follow the end of our half at once: the peer is not known to be sending,
    /// and all that it was sent has left this machine. What it sends nevertheless may make the close
    /// a reset, which comes behind its answer.
    pub(crate) fn closes_at_once(&self) -> bool {
        self.eof || (self.is_drained() && !self.goes_on && self.input.is_empty() && self.sent <= BURST_BYTES)
    }

    /// Notes that the kernel took `n` bytes, and may keep them back if `corked`.
    pub(crate) fn has_written(&mut self, n: usize, corked: bool, now: Instant) {
        self.spend(n);
        self.last_taken = Some(now);
        self.sent += n as u64;
        self.corked = if corked { self.corked + n as u64 } else { 0 };
    }

    /// Notes that our half has ended, and with it all that the kernel kept back has left.
    pub(crate) fn has_shut(&mut self) {
        self.corked = 0;
    }

    /// What it sends from here on is read and dropped. Its end may have come with its request, so it
    /// is looked for at once.
    pub(crate) fn ignore_input(&mut self) {
        self.ignored = true;
        self.unread = true;
        self.drop_input();
    }

    /// Drops the input that the service will not take.
    fn drop_input(&mut self) {
        self.goes_on |= !self.input.is_empty();
        self.input = Vec::new();
    }

    /// Keeps what the service has left of its input, if it may still want it.
    pub(crate) fn keep_input(&mut self, left: Vec<u8>) {
        self.input = left;
        if self.ignored || self.phase != Phase::Open {
            self.drop_input();
        }
    }

    /// What is to be done next, if anything.
    pub(crate) fn next_step(&self, limits: &Limits) -> Option<Step> {
        let readable = !self.eof && (self.unread || self.fin);
        match self.phase {
            Phase::Lingering => readable.then_some(Step::Discard),
            Phase::Finishing => None,
            Phase::Open if self.doomed || self.paused => None,
            Phase::Open if self.ignored && readable => Some(Step::Discard),
            Phase::Open if self.again && !self.input.is_empty() => Some(Step::Offer),
            Phase::Open if readable && self.input.len() < limits.input => {
                Some(Step::Read(limits.input - self.input.len()))
            }
            // As long as something is to be written, the service may be waiting for room.
            Phase::Open if self.output.is_some() && !self.input.is_empty() => None,
            Phase::Open if readable => Some(Step::Overflow),
            Phase::Open => (self.eof && !self.told_eof).then_some(Step::End),
        }
    }

    /// Whether it can go on without another event.
    pub(crate) fn has_work(&self, limits: &Limits) -> bool {
        self.fault || self.can_write() || self.next_step(limits).is_some()
    }

    /// Whether it is the one that `id` names, and the service still knows it.
    pub(crate) fn is(&self, id: ConnId) -> bool {
        self.serial == id.serial && self.phase != Phase::Lingering
    }

    pub(crate) fn can_be_sent_to(&self) -> bool {
        self.phase == Phase::Open && !self.doomed
    }

    /// Whether its input may be offered to the service.
    pub(crate) fn takes_input(&self) -> bool {
        self.can_be_sent_to() && !self.paused && !self.ignored
    }

    /// Has the loop look at it before anything else happens.
    pub(crate) fn mark_dirty(&mut self, key: usize, dirty: &mut VecDeque<usize>) {
        if !self.dirty {
            self.dirty = true;
            dirty.push_back(key);
        }
    }

    pub(crate) fn can_write(&self) -> bool {
        self.writable && self.output.is_some()
    }

    pub(crate) fn output(&self) -> Option<&Output> {
        self.output.as_deref()
    }

    pub(crate) fn output_mut(&mut self) -> Option<&mut Output> {
        self.output.as_deref_mut()
    }

    pub(crate) fn room(&self, limits: &Limits) -> usize {
        limits.output.saturating_sub(self.output().map_or(0, Output::held))
    }

    /// Whether it may still move something in this turn.
    pub(crate) fn has_budget(&mut self, turn: u64, limits: &Limits) -> bool {
        if self.turn != turn {
            self.turn = turn;
            self.spent = 0;
        }
        self.spent < limits.turn
    }

    pub(crate) fn spend(&mut self, bytes: usize) {
        self.spent += bytes.max(CALL_BYTES);
    }
}
