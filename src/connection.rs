//! One connection: its buffers, what is known of its socket, and the next step for it.
//!
//! The loop keeps a connection in two halves under one key. This half, [`Connection`], is what a
//! [`Context`](crate::Context) may touch: it knows neither the type of the stream nor that of the
//! protocol's state. The other half, with both, stays in the event loop.
//!
//! The state has four parts. `Phase` says how far the connection has come, `InputEnd` and `OutputEnd` how far its halves
//! have, and `Ready` what is known of the socket. Beside them are the wishes of the service (`paused`, `ignored`, `resets`),
//! notes of the loop for its next step (`connecting`, `reoffer`, `goes_on`), and two places in lists (`dirty`, `queued`).

use crate::limits::{BURST_BYTES, CALL_BYTES, Limits};
use crate::net::{Interest, Peer, Ready};
use crate::output::Output;
use crate::queue::Place;
use std::collections::VecDeque;
use std::time::Instant;

/// One connection, from its accept until its descriptor is closed.
#[derive(Debug)]
pub(crate) struct Connection {
    pub(crate) peer: Peer,
    /// The listener it counts with, by index.
    pub(crate) listener: usize,
    pub(crate) seat: Seat,
    pub(crate) phase: Phase,
    /// It is being made: neither input nor output moves yet.
    pub(crate) connecting: bool,
    pub(crate) input_end: InputEnd,
    pub(crate) output_end: OutputEnd,
    /// Readiness as events and calls have told it. A bit is cleared only by a call that found
    /// nothing: `WouldBlock`, a short read or write, an end.
    pub(crate) ready: Ready,
    /// The events that are asked for.
    pub(crate) watched: Option<Interest>,

    /// The service wants to be offered no input for now.
    pub(crate) paused: bool,
    /// The service wants no input any more, only the end of it.
    pub(crate) ignored: bool,
    /// It closes with a reset, whatever was sent.
    pub(crate) resets: bool,
    /// The input that is left is to be offered once more.
    pub(crate) reoffer: bool,
    /// The peer has sent more than the service wanted, and may go on.
    pub(crate) goes_on: bool,

    /// It is on the list of those to be settled.
    pub(crate) dirty: bool,
    /// It is on the run queue, or being served.
    pub(crate) queued: bool,
    /// The turn that `spent` belongs to.
    turn: u64,
    /// Bytes moved in that turn.
    pub(crate) spent: usize,
    /// Bytes dropped while it lingers.
    pub(crate) discarded: usize,
    /// When the kernel last took a part of its output.
    pub(crate) last_write: Option<Instant>,
    /// Bytes that the kernel has taken so far.
    pub(crate) sent: u64,
    /// The last of them, which the kernel may keep back until more comes.
    pub(crate) corked: u64,

    /// Received and not consumed. Empty, and without memory, on nearly all connections.
    pub(crate) input: Vec<u8>,
    /// Sent and not taken. `None` on nearly all connections.
    pub(crate) output: Option<Box<Output>>,
}

/// How far a connection has come. It goes on to later phases only.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Phase {
    Open,
    /// It closes when its output is out.
    Finishing,
    /// It closes at once.
    Aborted,
    /// It is closed for the service, and our half has ended. Bytes that the peer still sends are dropped.
    Lingering,
}

/// How far the peer's half has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum InputEnd {
    /// The peer may still send.
    NotRead,
    /// The end has been read.
    Read,
    /// The service has been told that an end follows the input that is held back.
    Announced,
    /// The service has been told of the end.
    Reported,
}

/// How far our half has come, on a connection that goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum OutputEnd {
    /// The service may still send.
    NotAsked,
    /// The end follows when the output is out.
    Asked,
    /// The end follows when there is room for it.
    Waits,
    /// The end is out.
    Sent,
}

/// Where a connection is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Seat {
    /// Among those that its listener has admitted.
    Admitted(Place),
    /// Among those that linger.
    Lingering(Place),
    /// Nowhere: it is being rejected, or is still to be made.
    None,
}

/// The next step for a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// Offer its input to the service once more.
    Offer,
    /// Read at most this many bytes.
    Read(usize),
    /// The input is full, and the service has taken nothing of it: read on, and close if there is
    /// more than the end.
    Overflow,
    /// Tell the service that the peer has ended, behind the input that is held back.
    AnnounceEnd,
    /// Tell the service that the peer has ended.
    End,
    /// Read, and drop what comes.
    Discard,
}

impl Connection {
    /// Makes a new connection. Nothing is known of its socket, so everything is worth trying.
    pub(crate) fn new(peer: Peer, listener: usize, seat: Seat) -> Self {
        Connection {
            peer,
            listener,
            seat,
            phase: Phase::Open,
            connecting: false,
            input_end: InputEnd::NotRead,
            output_end: OutputEnd::NotAsked,
            ready: Ready { readable: true, writable: true, ..Ready::default() },
            watched: None,
            paused: false,
            ignored: false,
            resets: false,
            reoffer: false,
            goes_on: false,
            dirty: false,
            queued: false,
            turn: 0,
            spent: 0,
            discarded: 0,
            last_write: None,
            sent: 0,
            corked: 0,
            input: Vec::new(),
            output: None,
        }
    }

    /// Notes what an event says. None of it is taken for a fact. While the connection is being made,
    /// every event is one to ask the socket about.
    pub(crate) fn update_readiness(&mut self, ready: Ready) {
        match self.connecting {
            true => self.ready.error = true,
            false => {
                self.ready |= ready;
                self.ready.readable |= ready.writable && self.output.is_none();
            }
        }
    }

    /// Notes that the connection is being made.
    pub(crate) fn begin_connecting(&mut self) {
        self.connecting = true;
        self.ready = Ready::default();
    }

    /// Notes that the connection has been made. The peer's end may have come with its answer, and the event
    /// that said so has been used up: it is read until there is nothing more.
    pub(crate) fn has_connected(&mut self) {
        self.connecting = false;
        self.ready = Ready { readable: true, writable: true, read_closed: true, ..Ready::default() };
    }

    /// Notes that a read of at most `wanted` bytes brought `n`.
    pub(crate) fn has_read(&mut self, n: usize, wanted: usize, short_io_exhausts: bool) {
        self.spend(n);
        if n == 0 {
            self.input_end = InputEnd::Read;
        }
        self.ready.readable = n == wanted || (n > 0 && (self.ready.urgent || !short_io_exhausts));
    }

    /// Notes that there was nothing to read, whatever events have said.
    pub(crate) fn has_drained(&mut self) {
        self.ready.readable = false;
        self.ready.read_closed = false;
    }

    /// Returns whether the kernel held nothing unread when it was last asked.
    pub(crate) fn is_drained(&self) -> bool {
        !self.ready.readable
    }

    /// Returns whether a close may follow the end of our half at once: the peer is not known to be
    /// sending, and all that was sent to it has left this machine. If the peer sends more all the
    /// same, the close may become a reset, which comes behind the answer.
    pub(crate) fn closes_at_once(&self) -> bool {
        self.has_ended() || (self.is_drained() && !self.goes_on && self.input.is_empty() && self.sent <= BURST_BYTES)
    }

    /// Notes that the kernel took `n` bytes, and may keep them back if `corked`.
    pub(crate) fn has_written(&mut self, n: usize, corked: bool, now: Instant) {
        self.spend(n);
        self.last_write = Some(now);
        self.sent += n as u64;
        self.corked = if corked { self.corked + n as u64 } else { 0 };
    }

    /// Notes that our half has ended. All that the kernel kept back has left with it.
    pub(crate) fn has_shut_down(&mut self) {
        self.corked = 0;
        self.output_end = OutputEnd::Sent;
    }

    /// Notes that there is no room yet for the end of our half.
    pub(crate) fn waits_to_shut_down(&mut self) {
        self.ready.writable = false;
        self.output_end = OutputEnd::Waits;
    }

    /// Ends our half when the output is out.
    pub(crate) fn shutdown_write(&mut self) {
        if self.can_be_sent_to() {
            self.output_end = OutputEnd::Asked;
        }
    }

    /// Returns whether the stream ends behind the output.
    pub(crate) fn output_ends(&self) -> bool {
        self.phase != Phase::Open || self.output_end != OutputEnd::NotAsked
    }

    /// Returns whether both halves have ended, and the service has been told of all.
    pub(crate) fn is_over(&self) -> bool {
        self.input_end == InputEnd::Reported && self.output_end == OutputEnd::Sent && self.input.is_empty()
    }

    /// Reads and drops what the peer sends from here on. The end may have come with the request, so
    /// it is looked for at once.
    pub(crate) fn ignore_input(&mut self) {
        self.ignored = true;
        self.update_readiness(Ready { readable: true, ..Ready::default() });
        self.drop_input();
    }

    /// Drops the input that the service will not take.
    fn drop_input(&mut self) {
        self.goes_on |= !self.input.is_empty();
        self.input = Vec::new();
    }

    /// Keeps what the service has left of the input, if it may still want it.
    pub(crate) fn keep_input(&mut self, left: Vec<u8>) {
        self.input = left;
        if self.ignored || self.phase != Phase::Open {
            self.drop_input();
        }
    }

    /// Returns whether the end of the peer's half has been read.
    pub(crate) fn has_ended(&self) -> bool {
        self.input_end != InputEnd::NotRead
    }

    /// Returns the next step, if the connection can take one without another event.
    pub(crate) fn next_step(&self, limits: &Limits) -> Option<Step> {
        // An end behind the bytes gives no edge of its own.
        let readable = !self.has_ended() && (self.ready.readable || self.ready.read_closed);
        match self.phase {
            Phase::Lingering => readable.then_some(Step::Discard),
            Phase::Finishing | Phase::Aborted => None,
            Phase::Open if self.ignored && readable => Some(Step::Discard),
            Phase::Open if self.reoffer && !self.paused && !self.input.is_empty() => Some(Step::Offer),
            Phase::Open if readable && self.input.len() < limits.input => {
                Some(Step::Read(limits.input - self.input.len()))
            }
            Phase::Open if self.paused && !self.input.is_empty() => {
                (self.input_end == InputEnd::Read).then_some(Step::AnnounceEnd)
            }
            // As long as something is to be written, the service may be waiting for room.
            Phase::Open if self.output.is_some() && !self.input.is_empty() => None,
            Phase::Open if readable => Some(Step::Overflow),
            Phase::Open => matches!(self.input_end, InputEnd::Read | InputEnd::Announced).then_some(Step::End),
        }
    }

    /// Returns whether the connection can go on without another event.
    pub(crate) fn has_work(&self, limits: &Limits) -> bool {
        self.ready.error || self.can_write() || self.next_step(limits).is_some()
    }

    /// Returns whether the service still knows the connection.
    pub(crate) fn is_known(&self) -> bool {
        self.phase != Phase::Lingering
    }

    /// Returns whether the service has been told of it, and not of its close.
    pub(crate) fn is_admitted(&self) -> bool {
        matches!(self.seat, Seat::Admitted(_))
    }

    pub(crate) fn can_be_sent_to(&self) -> bool {
        self.phase == Phase::Open && self.output_end == OutputEnd::NotAsked
    }

    /// Returns whether its input may be offered to the service.
    pub(crate) fn takes_input(&self) -> bool {
        self.phase == Phase::Open && !self.paused && !self.ignored
    }

    /// Closes the connection when its output is out, unless it has come further already.
    pub(crate) fn finish(&mut self) {
        self.phase = self.phase.max(Phase::Finishing);
    }

    /// Closes the connection at once, unless the service does not know it any more.
    pub(crate) fn abort(&mut self) {
        self.phase = self.phase.max(Phase::Aborted);
    }

    /// Puts the connection on the list of those to be settled.
    pub(crate) fn mark_dirty(&mut self, key: usize, dirty: &mut VecDeque<usize>) {
        if !self.dirty {
            self.dirty = true;
            dirty.push_back(key);
        }
    }

    pub(crate) fn can_write(&self) -> bool {
        self.ready.writable && (self.output.is_some() || self.output_end == OutputEnd::Waits)
    }

    pub(crate) fn output(&self) -> Option<&Output> {
        self.output.as_deref()
    }

    pub(crate) fn output_mut(&mut self) -> Option<&mut Output> {
        self.output.as_deref_mut()
    }

    pub(crate) fn send_capacity(&self, limits: &Limits) -> usize {
        limits.output.saturating_sub(self.output().map_or(0, Output::held))
    }

    /// Returns whether the connection may move more bytes in this turn.
    pub(crate) fn has_budget(&mut self, turn: u64, budget: usize) -> bool {
        if self.turn != turn {
            self.turn = turn;
            self.spent = 0;
        }
        self.spent < budget
    }

    pub(crate) fn spend(&mut self, bytes: usize) {
        self.spent += bytes.max(CALL_BYTES);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Lost otherwise: the end of a stream, or the processor, under a layer that has no room for it (TLS).
    #[test]
    fn an_end_without_room_waits_for_an_event() {
        let mut connection = Connection::new(Peer::Unix, 0, Seat::None);
        connection.shutdown_write();
        connection.waits_to_shut_down();
        assert!(!connection.can_write());
        connection.update_readiness(Ready { writable: true, ..Ready::default() });
        assert!(connection.can_write());
        connection.has_shut_down();
        assert!(!connection.can_write());
    }
}
