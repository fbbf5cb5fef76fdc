//! A connection: its buffers, what is known of its socket, and what is to be done next.
//!
//! The loop keeps a connection in two halves under one slab key. This half, [`Connection`], is
//! what a [`Context`](crate::Context) may touch: it knows neither the type of the stream nor that
//! of the protocol's state. The other half, with both, stays in the event loop.

use crate::deadline::Deadlines;
use crate::limits::{CALL_BYTES, Limits, OUTPUT_BYTES};
use crate::net::{Interest, Peer, Ready};
use crate::output::Output;
use crate::queue::Place;
use crate::service::{ConnId, SendError};
use slab::Slab;
use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// How many empty output buffers are kept for the next connections that send something.
const SPARE_OUTPUTS: usize = 16;

/// One that has grown beyond this is not kept.
const SPARE_BYTES: usize = 2 * OUTPUT_BYTES;

/// One connection, from its accept until its descriptor is closed.
#[derive(Debug)]
pub(crate) struct Connection {
    pub(crate) serial: u64,
    pub(crate) peer: Peer,
    /// The listener it is counted with, by index.
    pub(crate) listener: usize,
    /// Its place among those admitted by that listener, or among those lingering.
    pub(crate) place: Option<Place>,
    pub(crate) phase: Phase,
    /// To be closed at once: the service has aborted it.
    pub(crate) doomed: bool,
    /// Not to be read: the service has paused it.
    pub(crate) paused: bool,
    /// The input that is left is to be offered once more.
    pub(crate) again: bool,

    /// There may be bytes to read. Cleared only by an end, a short read or `WouldBlock`.
    unread: bool,
    /// There may be an end to read, behind the bytes: it gives no edge of its own.
    fin: bool,
    /// The end has been read.
    eof: bool,
    /// The service has been told of the end.
    pub(crate) told_eof: bool,
    /// There may be room to write. Cleared only by a short write or `WouldBlock`.
    pub(crate) writable: bool,
    /// The socket may be in error.
    fault: bool,
    /// What the stream is watched for.
    pub(crate) watched: Option<Interest>,

    /// On the list of those to be settled.
    dirty: bool,
    /// On the run queue, or being served.
    queued: bool,
    /// The turn that `spent` belongs to.
    turn: u64,
    /// Bytes moved in that turn.
    spent: usize,
    /// Bytes dropped while it lingers.
    discarded: usize,
    /// When the kernel last took something of its output.
    pub(crate) last_taken: Option<Instant>,

    /// Received and not consumed. Empty, and without memory, on nearly all connections.
    pub(crate) input: Vec<u8>,
    /// Sent and not taken. `None` on nearly all connections.
    output: Option<Box<Output>>,
}

/// How far a connection has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Phase {
    Open,
    /// To be closed when its output is out.
    Finishing,
    /// The same, and the peer may still be sending.
    FinishingLingering,
    /// Closed for the service; what the peer still sends is dropped.
    Lingering,
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
    /// Read, and drop what comes.
    Discard,
}

impl Connection {
    /// A newcomer: nothing is known of its socket, so everything is worth trying.
    fn new(serial: u64, peer: Peer, listener: usize, place: Option<Place>) -> Self {
        Connection {
            serial,
            peer,
            listener,
            place,
            phase: Phase::Open,
            doomed: false,
            paused: false,
            again: false,
            unread: true,
            fin: false,
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
    }

    /// Notes that a read brought `n` of at most `wanted` bytes.
    pub(crate) fn has_read(&mut self, n: usize, wanted: usize, short_means_drained: bool) {
        self.spend(n);
        self.eof = n == 0;
        self.unread = n == wanted || (n > 0 && !short_means_drained);
    }

    /// Notes that there was nothing to read, whatever events have said.
    pub(crate) fn has_drained(&mut self) {
        self.unread = false;
        self.fin = false;
    }

    /// Whether the kernel holds nothing unread, as far as can be known: a close will not reset.
    pub(crate) fn is_drained(&self) -> bool {
        !self.unread
    }

    /// What is to be done next, if anything.
    pub(crate) fn next_step(&self, limits: &Limits) -> Option<Step> {
        let readable = !self.eof && (self.unread || self.fin);
        match self.phase {
            Phase::Lingering => readable.then_some(Step::Discard),
            Phase::Finishing | Phase::FinishingLingering => None,
            Phase::Open if self.doomed || self.paused => None,
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

    /// Whether nothing more can come from the peer.
    pub(crate) fn has_ended(&self) -> bool {
        self.eof
    }

    /// Whether it can go on without another event.
    fn has_work(&self, limits: &Limits) -> bool {
        self.fault || self.can_write() || self.next_step(limits).is_some()
    }

    /// Whether it is the one that `id` names, and the service still knows it.
    fn is(&self, id: ConnId) -> bool {
        self.serial == id.serial && self.phase != Phase::Lingering
    }

    fn can_be_sent_to(&self) -> bool {
        self.phase == Phase::Open && !self.doomed
    }

    /// Has the loop look at it before anything else happens.
    fn mark_dirty(&mut self, key: usize, dirty: &mut VecDeque<usize>) {
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

/// All connections of a loop, and what is to be done for them.
#[derive(Debug)]
pub(crate) struct Table {
    pub(crate) limits: Limits,
    pub(crate) connections: Slab<Connection>,
    /// That of the newest connection.
    serial: u64,
    pub(crate) deadlines: Deadlines,
    /// Those changed by the last callback.
    dirty: VecDeque<usize>,
    /// Those that can go on without another event, in the order in which they could.
    runnable: VecDeque<usize>,
    #[expect(clippy::vec_box, reason = "boxes move between here and the connections as they are")]
    spare: Vec<Box<Output>>,
    pub(crate) now: Instant,
    pub(crate) turn: u64,
    /// The grace period of a stop that has been asked for.
    pub(crate) stop: Option<Duration>,
}

impl Table {
    pub(crate) fn new(limits: Limits, now: Instant) -> Self {
        Table {
            limits,
            connections: Slab::new(),
            serial: 0,
            deadlines: Deadlines::default(),
            dirty: VecDeque::new(),
            runnable: VecDeque::new(),
            spare: Vec::new(),
            now,
            turn: 0,
            stop: None,
        }
    }

    /// A new turn: everybody has a new budget.
    pub(crate) fn begin_turn(&mut self, now: Instant) {
        self.now = now;
        self.turn += 1;
    }

    /// Asks the loop to stop; of several grace periods the shortest counts.
    pub(crate) fn ask_to_stop(&mut self, grace: Duration) {
        self.stop = Some(self.stop.map_or(grace, |asked| asked.min(grace)));
    }

    /// The key that the next connection will have.
    pub(crate) fn next_key(&self) -> usize {
        self.connections.vacant_key()
    }

    /// A new connection; `place` is its place among those admitted by `listener`, if it is.
    pub(crate) fn insert(&mut self, peer: Peer, listener: usize, place: Option<Place>) -> ConnId {
        self.serial += 1;
        let key = self.connections.insert(Connection::new(self.serial, peer, listener, place));
        ConnId { serial: self.serial, key }
    }

    /// The connection `id`, unless it has closed for the service.
    pub(crate) fn get(&self, id: ConnId) -> Option<&Connection> {
        self.connections.get(id.key).filter(|connection| connection.is(id))
    }

    /// The connection `id`, if it can still be sent to.
    pub(crate) fn open(&self, id: ConnId) -> Option<&Connection> {
        self.get(id).filter(|connection| connection.can_be_sent_to())
    }

    /// Changes a connection, and has the loop look at it when the callback has returned.
    pub(crate) fn change(&mut self, id: ConnId, change: impl FnOnce(&mut Connection)) {
        if let Some(connection) = self.connections.get_mut(id.key).filter(|connection| connection.is(id)) {
            change(connection);
            connection.mark_dirty(id.key, &mut self.dirty);
        }
    }

    /// Puts `cost` bytes into a connection's output with `push`, if there is room for them.
    pub(crate) fn send(&mut self, id: ConnId, cost: usize, push: impl FnOnce(&mut Output)) -> Result<(), SendError> {
        let connection = self.connections.get_mut(id.key).filter(|connection| connection.is(id));
        let connection = connection.filter(|connection| connection.can_be_sent_to()).ok_or(SendError::Gone)?;
        if cost > connection.room(&self.limits) {
            return Err(SendError::Full);
        }
        if cost > 0 {
            push(connection.output.get_or_insert_with(|| self.spare.pop().unwrap_or_default()));
            connection.mark_dirty(id.key, &mut self.dirty);
        }
        Ok(())
    }

    /// Takes back the output of a connection that has none left.
    pub(crate) fn reclaim_output(&mut self, key: usize) {
        let output = self.connections[key].output.take().filter(|output| output.capacity() <= SPARE_BYTES);
        if self.spare.len() < SPARE_OUTPUTS {
            self.spare.extend(output);
        }
    }

    /// Forgets a connection; returns how many bytes sent to it never left.
    pub(crate) fn remove(&mut self, key: usize) -> u64 {
        self.deadlines.set(key, None);
        self.connections.remove(key).output().map_or(0, Output::unsent)
    }

    /// Has what waits for the kernel offered to it once more, whatever is known of its room.
    pub(crate) fn try_to_write(&mut self, key: usize) {
        if let Some(connection) = self.connections.get_mut(key).filter(|connection| connection.output.is_some()) {
            connection.writable = true;
            connection.mark_dirty(key, &mut self.dirty);
        }
    }

    /// The next connection that the last callback changed, of those that are still there.
    pub(crate) fn next_dirty(&mut self) -> Option<usize> {
        while let Some(key) = self.dirty.pop_front() {
            if let Some(connection) = self.connections.get_mut(key) {
                connection.dirty = false;
                return Some(key);
            }
        }
        None
    }

    /// Puts a connection on the run queue if it can go on without another event.
    pub(crate) fn queue_if_runnable(&mut self, key: usize) {
        let Some(connection) = self.connections.get_mut(key) else { return };
        if !connection.queued && connection.has_work(&self.limits) {
            connection.queued = true;
            self.runnable.push_back(key);
        }
    }

    /// How many are on the run queue.
    pub(crate) fn runnable(&self) -> usize {
        self.runnable.len()
    }

    /// Takes the next from the run queue.
    pub(crate) fn next_runnable(&mut self) -> Option<usize> {
        self.runnable.pop_front()
    }

    /// Begins a connection's turn, unless it has closed. It does not queue for what it is getting.
    /// Returns whether its socket may be in error.
    pub(crate) fn begin_service(&mut self, key: usize) -> Option<bool> {
        let connection = self.connections.get_mut(key)?;
        connection.queued = true;
        if connection.can_write() {
            connection.mark_dirty(key, &mut self.dirty);
        }
        Some(std::mem::take(&mut connection.fault))
    }

    /// What is to be done next for a connection in its turn, if anything.
    pub(crate) fn next_step(&mut self, key: usize) -> Option<Step> {
        let connection = self.connections.get_mut(key)?;
        connection.has_budget(self.turn, &self.limits).then(|| connection.next_step(&self.limits))?
    }

    /// Ends a connection's turn; it queues again if it can go on.
    pub(crate) fn end_service(&mut self, key: usize) {
        if let Some(connection) = self.connections.get_mut(key) {
            connection.queued = false;
            self.queue_if_runnable(key);
        }
    }

    /// Whether a connection's input may be offered to the service.
    pub(crate) fn takes_input(&self, id: ConnId) -> bool {
        self.open(id).is_some_and(|connection| !connection.paused)
    }

    /// Makes a connection one that lingers, with a deadline of its own.
    pub(crate) fn linger(&mut self, key: usize, place: Place) {
        let connection = &mut self.connections[key];
        connection.phase = Phase::Lingering;
        connection.place = Some(place);
        connection.input = Vec::new();
        self.deadlines.set(key, self.now.checked_add(self.limits.linger_time));
    }

    /// Counts what a lingering connection has sent; whether it may send more.
    pub(crate) fn may_discard(&mut self, key: usize, bytes: usize) -> bool {
        let connection = &mut self.connections[key];
        connection.discarded += bytes;
        connection.discarded < self.limits.linger_bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Were this to fail, sixteen connections that once sent much would cost that memory for good.
    #[test]
    fn a_large_output_buffer_is_not_kept() {
        let limits = Limits { output: 4 * SPARE_BYTES, ..Limits::default() };
        let mut table = Table::new(limits, Instant::now());
        for size in [SPARE_BYTES + 1, 100] {
            let id = table.insert(Peer::Unix, 0, None);
            table.send(id, size, |output| output.push_bytes(&vec![0; size])).unwrap();
            table.reclaim_output(id.key);
            assert_eq!(table.spare.len(), usize::from(size <= SPARE_BYTES));
        }
    }
}
