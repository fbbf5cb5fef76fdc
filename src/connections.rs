//! The connections of a loop, and which of them have something to do.

use crate::arena::Arena;
use crate::connection::{Connection, Phase, Seat, Step};
use crate::id::{ConnId, ListenerId, SERIALS, SendError, take_serials};
use crate::limits::{BURST_BYTES, Limits, OUTPUT_BYTES};
use crate::net::{Address, Peer, Ready};
use crate::output::Output;
use crate::queue::Place;
use crate::stats::Stats;
use crate::timers::Deadlines;
use std::collections::VecDeque;
use std::ops::{Index, IndexMut};
use std::time::{Duration, Instant};

/// How many empty output buffers are kept for the next connections that send something.
const SPARE_OUTPUTS: usize = 16;

/// A buffer that has grown beyond this is not kept.
const SPARE_BYTES: usize = 2 * OUTPUT_BYTES;

/// How a connection's turn began.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Began {
    /// The connection is on the run queue even so.
    queued: bool,
    /// Its socket may be in error.
    pub(crate) error: bool,
}

/// A connection that a callback has asked for.
#[derive(Debug)]
pub(crate) struct Connect {
    pub(crate) id: ConnId,
    pub(crate) listener: ListenerId,
    pub(crate) address: Address,
}

/// All connections of a loop.
#[derive(Debug)]
pub(crate) struct Connections {
    pub(crate) limits: Limits,
    arena: Arena<Connection>,
    /// The keys that the network can tell apart are less than this.
    keys: usize,
    pub(crate) deadlines: Deadlines,
    /// Those changed by the last callback.
    dirty: VecDeque<usize>,
    /// Those that can go on without another event, in the order in which they could.
    runnable: VecDeque<usize>,
    #[expect(clippy::vec_box, reason = "boxes move between here and the connections as they are")]
    spare: Vec<Box<Output>>,
    /// Those that have been asked for and not been made.
    connects: VecDeque<Connect>,
    /// When the service's timer goes off.
    pub(crate) timer: Option<Instant>,
    pub(crate) now: Instant,
    pub(crate) turn: u64,
    /// The counts of the loop. The numbers of connections are those of the turn's beginning.
    pub(crate) stats: Stats,
    /// The grace period of a stop that has been asked for.
    pub(crate) stop: Option<Duration>,
}

impl Connections {
    /// Makes an empty table for a network that can tell `keys` connections apart.
    pub(crate) fn new(limits: Limits, keys: usize, now: Instant) -> Self {
        Connections {
            limits,
            arena: Arena::starting_after(take_serials()),
            keys,
            deadlines: Deadlines::default(),
            dirty: VecDeque::new(),
            runnable: VecDeque::new(),
            spare: Vec::new(),
            connects: VecDeque::new(),
            timer: None,
            now,
            turn: 0,
            stats: Stats::default(),
            stop: None,
        }
    }

    /// Begins a turn, in which every connection has a new budget.
    pub(crate) fn begin_turn(&mut self, now: Instant) {
        self.now = now;
        self.turn += 1;
    }

    /// Asks the loop to stop. The shortest grace period that has been asked for counts.
    pub(crate) fn ask_to_stop(&mut self, grace: Duration) {
        self.stop = Some(self.stop.map_or(grace, |asked| asked.min(grace)));
    }

    pub(crate) fn len(&self) -> usize {
        self.arena.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.arena.is_empty()
    }

    pub(crate) fn keys(&self) -> Vec<usize> {
        self.arena.iter().map(|(index, _)| index.key()).collect()
    }

    /// Returns the connections that the service knows: admitted, and not closed.
    pub(crate) fn admitted(&self) -> impl Iterator<Item = ConnId> {
        self.arena.iter().filter(|(_, connection)| connection.is_admitted()).map(|(index, _)| ConnId(index))
    }

    /// Returns the connection under `key`, with its id.
    pub(crate) fn entry(&mut self, key: usize) -> Option<(ConnId, &mut Connection)> {
        self.arena.entry_at(key).map(|(index, connection)| (ConnId(index), connection))
    }

    /// Returns the key that the next connection will have.
    pub(crate) fn next_key(&self) -> usize {
        self.arena.next_index().key()
    }

    /// Adds a connection.
    pub(crate) fn insert(&mut self, peer: Peer, listener: usize, seat: Seat) -> ConnId {
        self.renew_serials();
        ConnId(self.arena.insert(Connection::new(peer, listener, seat)))
    }

    /// Takes more serial numbers from those of the process when the loop's are used up.
    fn renew_serials(&mut self) {
        if self.arena.last_serial() % SERIALS == SERIALS - 1 {
            self.arena.skip_to(take_serials());
        }
    }

    /// Returns whether the network can tell one more connection apart.
    pub(crate) fn has_key(&self) -> bool {
        self.next_key() < self.keys
    }

    /// Asks for a connection to `address`. It is in the table at once, and can be sent to.
    #[cold]
    pub(crate) fn connect(&mut self, listener: ListenerId, address: Address) -> ConnId {
        let peer = match &address {
            Address::Tcp(address) => Peer::Tcp(*address),
            Address::Unix(_) => Peer::Unix,
        };
        let id = match self.has_key() {
            true => self.insert(peer, 0, Seat::None),
            false => {
                self.renew_serials();
                ConnId(self.arena.skip())
            }
        };
        // It may have the key of the connection that is being served.
        if let Some(connection) = self.arena.get_mut(id.0) {
            connection.begin_connecting();
        }
        self.connects.push_back(Connect { id, listener, address });
        id
    }

    /// Returns how many connections have been asked for and not been made.
    pub(crate) fn connects(&self) -> usize {
        self.connects.len()
    }

    /// Takes the next connection that has been asked for.
    pub(crate) fn next_connect(&mut self) -> Option<Connect> {
        self.connects.pop_front()
    }

    /// Forgets the connections that have been asked for. The service does not know them yet.
    pub(crate) fn forget_connects(&mut self) {
        while let Some(Connect { id, .. }) = self.connects.pop_front() {
            self.discard(id);
        }
    }

    /// Removes the connection `id`, if it is there. Returns how many bytes that were sent to it never left.
    #[cold]
    pub(crate) fn discard(&mut self, id: ConnId) -> u64 {
        if self.arena.get(id.0).is_some() { self.remove(id.key()) } else { 0 }
    }

    /// Returns the connection under `key`, whatever its phase.
    pub(crate) fn at(&self, key: usize) -> Option<&Connection> {
        self.arena.at(key)
    }

    /// Returns the connection `id`, unless it has closed for the service.
    pub(crate) fn get(&self, id: ConnId) -> Option<&Connection> {
        self.arena.get(id.0).filter(|connection| connection.is_known())
    }

    /// Returns the connection `id`, if it can still be sent to.
    pub(crate) fn open(&self, id: ConnId) -> Option<&Connection> {
        self.get(id).filter(|connection| connection.can_be_sent_to())
    }

    /// Notes what an event says of the connection under `key`.
    pub(crate) fn update_readiness(&mut self, key: usize, ready: Ready) {
        if let Some(connection) = self.arena.at_mut(key) {
            connection.update_readiness(ready);
            self.queue_if_runnable(key);
        }
    }

    /// Changes a connection, and has the loop look at it when the callback has returned.
    pub(crate) fn change(&mut self, id: ConnId, change: impl FnOnce(&mut Connection)) {
        if let Some(connection) = self.arena.get_mut(id.0).filter(|connection| connection.is_known()) {
            change(connection);
            connection.mark_dirty(id.key(), &mut self.dirty);
        }
    }

    /// Has the loop look at a connection when the callback has returned.
    pub(crate) fn touch(&mut self, key: usize) {
        if let Some(connection) = self.arena.at_mut(key) {
            connection.mark_dirty(key, &mut self.dirty);
        }
    }

    /// Adds to a connection's output with `push`, if there is room for the `cost` bytes that it takes.
    #[inline(always)]
    pub(crate) fn send(&mut self, id: ConnId, cost: usize, push: impl FnOnce(&mut Output)) -> Result<(), SendError> {
        let connection = self.arena.get_mut(id.0).filter(|connection| connection.can_be_sent_to());
        let connection = connection.ok_or(SendError::Gone)?;
        if cost > connection.send_capacity(&self.limits) {
            return Err(if cost > self.limits.output { SendError::TooLarge } else { SendError::Full });
        }
        if cost > 0 {
            push(connection.output.get_or_insert_with(|| self.spare.pop().unwrap_or_default()));
            connection.mark_dirty(id.key(), &mut self.dirty);
        }
        Ok(())
    }

    /// Has the peer of a connection that is rejected read `reply`, and then the end.
    pub(crate) fn dismiss(&mut self, key: usize, reply: &[u8]) {
        let connection = &mut self.arena[key];
        connection.finish();
        if !reply.is_empty() {
            connection.output.get_or_insert_with(|| self.spare.pop().unwrap_or_default()).push_bytes(reply);
        }
    }

    /// Takes back the output buffer of a connection that has nothing left to write.
    pub(crate) fn reclaim_output(&mut self, key: usize) {
        let output = self.arena[key].output.take().filter(|output| output.capacity() <= SPARE_BYTES);
        if self.spare.len() < SPARE_OUTPUTS {
            self.spare.extend(output);
        }
    }

    /// Removes a connection. Returns how many bytes that were sent to it never left.
    #[inline(always)]
    pub(crate) fn remove(&mut self, key: usize) -> u64 {
        self.deadlines.set(key, None);
        let Some(connection) = self.arena.remove_at(key) else { return 0 };
        connection.corked + connection.output().map_or(0, Output::unsent)
    }

    /// Has the socket asked for input and for room once more, whatever is known of it and whatever
    /// it has moved in this turn.
    pub(crate) fn look_again(&mut self, key: usize) {
        if let Some(connection) = self.arena.at_mut(key) {
            let writable = connection.output.is_some();
            connection.update_readiness(Ready { readable: true, writable, ..Ready::default() });
            connection.spent = 0;
        }
    }

    /// Returns the next connection that the last callback changed, of those that are still there.
    pub(crate) fn next_dirty(&mut self) -> Option<usize> {
        while let Some(key) = self.dirty.pop_front() {
            if let Some(connection) = self.arena.at_mut(key) {
                connection.dirty = false;
                return Some(key);
            }
        }
        None
    }

    /// Puts a connection on the run queue if it can go on without another event. A connection whose input
    /// is not wanted goes to the front: what the others bring must not be given to a peer that has left.
    pub(crate) fn queue_if_runnable(&mut self, key: usize) {
        let Some(connection) = self.arena.at_mut(key) else { return };
        if !connection.queued && connection.has_work(&self.limits) {
            connection.queued = true;
            match connection.ignored || connection.paused {
                true => self.runnable.push_front(key),
                false => self.runnable.push_back(key),
            }
        }
    }

    /// Returns how many connections are on the run queue.
    pub(crate) fn runnable(&self) -> usize {
        self.runnable.len()
    }

    /// Takes the next connection from the run queue.
    pub(crate) fn next_runnable(&mut self) -> Option<usize> {
        let key = self.runnable.pop_front()?;
        if let Some(connection) = self.arena.at_mut(key) {
            connection.queued = false;
        }
        Some(key)
    }

    /// Begins a connection's turn, unless it has closed. It does not queue again while it is served.
    pub(crate) fn begin_service(&mut self, key: usize) -> Option<Began> {
        let connection = self.arena.at_mut(key)?;
        if connection.can_write() {
            connection.mark_dirty(key, &mut self.dirty);
        }
        let (queued, error) =
            (std::mem::replace(&mut connection.queued, true), std::mem::take(&mut connection.ready.error));
        Some(Began { queued, error })
    }

    /// Returns the next step for a connection in its turn, if there is one and budget for it.
    #[inline(always)]
    pub(crate) fn next_step(&mut self, key: usize) -> Option<Step> {
        let connection = self.arena.at_mut(key)?;
        connection.has_budget(self.turn, self.limits.turn).then(|| connection.next_step(&self.limits))?
    }

    /// Ends a connection's turn. It queues again if it can go on.
    pub(crate) fn end_service(&mut self, key: usize, began: Began) {
        if let Some(connection) = self.arena.at_mut(key) {
            connection.queued = began.queued;
            self.queue_if_runnable(key);
        }
    }

    /// Returns whether a connection's input may be offered to the service.
    pub(crate) fn takes_input(&self, id: ConnId) -> bool {
        self.get(id).is_some_and(Connection::takes_input)
    }

    /// Counts a connection among those that linger, with a deadline of its own.
    pub(crate) fn seat_lingering(&mut self, key: usize, place: Place) {
        let connection = &mut self.arena[key];
        connection.seat = Seat::Lingering(place);
        connection.input = Vec::new();
        self.deadlines.set(key, self.now.checked_add(self.limits.linger_time));
    }

    /// Moves the deadline of a lingering connection to `at`, if that is sooner and all that was sent to
    /// it has left this machine.
    pub(crate) fn hurry(&mut self, key: usize, at: Option<Instant>) {
        let sooner = at.is_some_and(|at| self.deadlines.get(key).is_none_or(|before| at < before));
        if sooner && self.arena[key].sent <= BURST_BYTES {
            self.deadlines.set(key, at);
        }
    }

    /// Counts what has been dropped of a connection's input. Returns whether it may send more.
    pub(crate) fn may_discard(&mut self, key: usize, bytes: usize) -> bool {
        let connection = &mut self.arena[key];
        connection.goes_on = true;
        if connection.phase != Phase::Lingering {
            return true;
        }
        connection.discarded += bytes;
        connection.discarded < self.limits.linger_bytes
    }
}

/// For keys of connections that are there.
impl Index<usize> for Connections {
    type Output = Connection;

    fn index(&self, key: usize) -> &Connection {
        &self.arena[key]
    }
}

impl IndexMut<usize> for Connections {
    fn index_mut(&mut self, key: usize) -> &mut Connection {
        &mut self.arena[key]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::output::INSERT_BYTES;
    use std::rc::Rc;

    /// Lost otherwise: memory, for good, to sixteen connections that once sent much.
    #[test]
    fn a_large_output_buffer_is_not_kept() {
        let limits = Limits { output: 4 * SPARE_BYTES, ..Limits::default() };
        let mut connections = Connections::new(limits, usize::MAX, Instant::now());
        for size in [SPARE_BYTES + 1, 100] {
            let id = connections.insert(Peer::Unix, 0, Seat::None);
            connections.send(id, size, |output| output.push_bytes(&vec![0; size])).unwrap();
            connections.reclaim_output(id.key());
            assert_eq!(connections.spare.len(), usize::from(size <= SPARE_BYTES));
        }
        connections.spare.clear();
        let (id, byte) = (connections.insert(Peer::Unix, 0, Seat::None), Rc::from(&b"x"[..]));
        for _ in 0..=SPARE_BYTES / INSERT_BYTES {
            connections.send(id, 1, |output| output.push_shared(&byte)).unwrap();
        }
        connections.reclaim_output(id.key());
        assert_eq!(connections.spare.len(), 0, "the places of shared buffers are memory, too");
    }

    /// Lost otherwise: an allocation for each answer as long as the default limit.
    #[test]
    fn an_output_buffer_that_was_full_is_kept() {
        let mut connections = Connections::new(Limits::default(), usize::MAX, Instant::now());
        let id = connections.insert(Peer::Unix, 0, Seat::None);
        for part in [OUTPUT_BYTES - 1000, 1000] {
            connections.send(id, part, |output| output.push_bytes(&vec![0; part])).unwrap();
        }
        connections.reclaim_output(id.key());
        assert_eq!(connections.spare.len(), 1);
    }

    /// Lost otherwise: the bound on the memory that waits for the next output, or the reuse of it.
    #[test]
    fn sixteen_output_buffers_are_kept() {
        let mut connections = Connections::new(Limits::default(), usize::MAX, Instant::now());
        let ids: Vec<ConnId> = (0..=SPARE_OUTPUTS).map(|_| connections.insert(Peer::Unix, 0, Seat::None)).collect();
        ids.iter().for_each(|id| connections.send(*id, 1, |output| output.push_bytes(b"x")).unwrap());
        ids.iter().for_each(|id| connections.reclaim_output(id.key()));
        assert_eq!(connections.spare.len(), SPARE_OUTPUTS);
    }

    /// Lost otherwise: bytes for one connection, sent to another of the same name in another loop.
    #[test]
    fn a_loop_takes_new_serials_before_its_own_are_used_up() {
        let mut connections = Connections::new(Limits::default(), usize::MAX, Instant::now());
        connections.arena.skip_to(connections.arena.last_serial() + SERIALS - 2);
        let numbers = [0; 3].map(|_| connections.insert(Peer::Unix, 0, Seat::None).0.serial() % SERIALS);
        assert_eq!(numbers, [SERIALS - 1, 1, 2]);
    }

    /// Lost otherwise: a connection, to one that the network cannot tell from it.
    #[test]
    fn a_connection_without_a_key_is_gone() {
        let mut connections = Connections::new(Limits::default(), 1, Instant::now());
        let ids = [0; 3].map(|_| connections.connect(ListenerId::new(), "192.0.2.1:80".parse().unwrap()));
        assert!(connections.open(ids[0]).is_some() && connections.open(ids[1]).is_none());
        assert_eq!((connections.len(), connections.connects()), (1, 3), "the service is told of all");
        assert!(ids.is_sorted_by(|one, next| one < next), "{ids:?}");
    }
}
