//! The connections of a loop, and what is to be done for them.

use crate::connection::{Connection, Phase, Seat, Step};
use crate::deadline::Deadlines;
use crate::limits::{BURST_BYTES, Limits, OUTPUT_BYTES};
use crate::net::Peer;
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

/// How a connection's turn began.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Began {
    /// It is on the run queue even so.
    queued: bool,
    /// Its socket may be in error.
    pub(crate) fault: bool,
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

    /// A new connection.
    pub(crate) fn insert(&mut self, peer: Peer, listener: usize, seat: Seat) -> ConnId {
        self.serial += 1;
        let key = self.connections.insert(Connection::new(self.serial, peer, listener, seat));
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

    /// Has a newcomer that is turned away read `reply`, and then the end.
    pub(crate) fn dismiss(&mut self, key: usize, reply: &[u8]) {
        let connection = &mut self.connections[key];
        connection.phase = Phase::Finishing;
        if !reply.is_empty() {
            connection.output.get_or_insert_with(|| self.spare.pop().unwrap_or_default()).push_bytes(reply);
        }
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
        let connection = self.connections.remove(key);
        connection.corked + connection.output().map_or(0, Output::unsent)
    }

    /// Has the socket asked for input and for room once more, whatever is known of it, and whatever
    /// it has moved in this turn.
    pub(crate) fn look_again(&mut self, key: usize) {
        if let Some(connection) = self.connections.get_mut(key) {
            connection.unread = true;
            connection.writable |= connection.output.is_some();
            connection.spent = 0;
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

    /// Puts a connection on the run queue if it can go on without another event. One that can only
    /// end goes before all others: what they ask for must not be given to a peer that has left.
    pub(crate) fn queue_if_runnable(&mut self, key: usize) {
        let Some(connection) = self.connections.get_mut(key) else { return };
        if !connection.queued && connection.has_work(&self.limits) {
            connection.queued = true;
            match connection.ignored {
                true => self.runnable.push_front(key),
                false => self.runnable.push_back(key),
            }
        }
    }

    /// How many are on the run queue.
    pub(crate) fn runnable(&self) -> usize {
        self.runnable.len()
    }

    /// Takes the next from the run queue.
    pub(crate) fn next_runnable(&mut self) -> Option<usize> {
        let key = self.runnable.pop_front()?;
        if let Some(connection) = self.connections.get_mut(key) {
            connection.queued = false;
        }
        Some(key)
    }

    /// Begins a connection's turn, unless it has closed. It does not queue for what it is getting.
    pub(crate) fn begin_service(&mut self, key: usize) -> Option<Began> {
        let connection = self.connections.get_mut(key)?;
        if connection.can_write() {
            connection.mark_dirty(key, &mut self.dirty);
        }
        let (queued, fault) = (std::mem::replace(&mut connection.queued, true), std::mem::take(&mut connection.fault));
        Some(Began { queued, fault })
    }

    /// What is to be done next for a connection in its turn, if anything.
    pub(crate) fn next_step(&mut self, key: usize) -> Option<Step> {
        let connection = self.connections.get_mut(key)?;
        connection.has_budget(self.turn, &self.limits).then(|| connection.next_step(&self.limits))?
    }

    /// Ends a connection's turn; it queues again if it can go on.
    pub(crate) fn end_service(&mut self, key: usize, began: Began) {
        if let Some(connection) = self.connections.get_mut(key) {
            connection.queued = began.queued;
            self.queue_if_runnable(key);
        }
    }

    /// Whether a connection's input may be offered to the service.
    pub(crate) fn takes_input(&self, id: ConnId) -> bool {
        self.get(id).is_some_and(Connection::takes_input)
    }

    /// Counts a connection among those lingering, with a deadline of its own.
    pub(crate) fn seat_lingering(&mut self, key: usize, place: Place) {
        let connection = &mut self.connections[key];
        connection.seat = Seat::Lingering(place);
        connection.input = Vec::new();
        self.deadlines.set(key, self.now.checked_add(self.limits.linger_time));
    }

    /// Moves the deadline of a lingering connection to `at`, if that is sooner and nothing that it
    /// was sent can still be in this machine.
    pub(crate) fn hurry(&mut self, key: usize, at: Option<Instant>) {
        let sooner = at.is_some_and(|at| self.deadlines.get(key).is_none_or(|before| at < before));
        if sooner && self.connections[key].sent <= BURST_BYTES {
            self.deadlines.set(key, at);
        }
    }

    /// Counts what has been dropped of a connection's input; whether it may send more.
    pub(crate) fn may_discard(&mut self, key: usize, bytes: usize) -> bool {
        let connection = &mut self.connections[key];
        connection.goes_on = true;
        if connection.phase != Phase::Lingering {
            return true;
        }
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
            let id = table.insert(Peer::Unix, 0, Seat::None);
            table.send(id, size, |output| output.push_bytes(&vec![0; size])).unwrap();
            table.reclaim_output(id.key);
            assert_eq!(table.spare.len(), usize::from(size <= SPARE_BYTES));
        }
    }
}
