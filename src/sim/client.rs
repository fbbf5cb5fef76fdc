//! A client of a simulated server.

use super::wire::{Change, Wire};
use super::{Event, World};
use crate::net::Interest;

/// A client's end of a connection. Bytes that it does not [read](Client::read) stay in the server's way.
#[derive(Clone, Debug)]
pub struct Client {
    pub(super) world: World,
    pub(super) number: usize,
}

impl Client {
    /// Which client it is, in the order in which they connected.
    pub fn number(&self) -> usize {
        self.number
    }

    /// Sends `bytes`. Those that the server's buffer cannot hold are on their way until it can.
    pub fn send(&self, bytes: &[u8]) {
        self.change(Event::Sent(bytes.to_vec()), |wire| wire.send(bytes));
    }

    /// Sends an urgent byte, or passes a descriptor: the server is not given it, but a read stops
    /// there, with more behind it.
    pub fn mark(&self) {
        self.change(Event::Marked, Wire::mark);
    }

    /// Ends its half of the stream.
    pub fn end(&self) {
        self.change(Event::Ended, Wire::end);
    }

    /// Answers a server that [connects](World::next_outgoing). To refuse, it [aborts](Self::abort); until it
    /// does either, it is silent.
    pub fn answer(&self) {
        self.change(Event::Answered, Wire::answer);
    }

    /// Closes with a reset.
    pub fn abort(&self) {
        self.change(Event::Aborted, Wire::abort);
    }

    /// Reads all that has come.
    pub fn read(&self) -> Vec<u8> {
        self.read_at_most(usize::MAX)
    }

    /// Reads at most `n` bytes of what has come.
    pub fn read_at_most(&self, n: usize) -> Vec<u8> {
        let mut state = self.world.0.borrow_mut();
        let (bytes, edge) = state.wires[self.number].take(n);
        if edge {
            state.wire_edge(self.number);
        }
        bytes
    }

    /// Moves the wire by hand: from here on the server's socket takes `bytes` more, whose place is not
    /// limited otherwise. The server is told of the room.
    pub fn set_room(&self, bytes: usize) {
        let mut state = self.world.0.borrow_mut();
        if state.wires[self.number].set_room(bytes) == Change::Edge {
            state.wire_edge(self.number);
        }
    }

    /// Does the same, and the server is not told: a kernel tells of room only when there is much of it.
    pub fn set_room_silently(&self, bytes: usize) {
        self.world.0.borrow_mut().wires[self.number].set_room(bytes);
    }

    /// Has signals interrupt the next `calls` of the server on this connection.
    pub fn interrupt(&self, calls: usize) {
        self.world.0.borrow_mut().wires[self.number].interrupt(calls);
    }

    /// Returns the key under which the server watches the connection, if it does.
    pub fn key(&self) -> Option<usize> {
        self.world.0.borrow().wires[self.number].key()
    }

    /// Returns the events for which the server watches the connection, if it does.
    pub fn interest(&self) -> Option<Interest> {
        self.world.0.borrow().wires[self.number].interest()
    }

    /// Returns whether the server has ended the stream, and all has been read.
    pub fn has_ended(&self) -> bool {
        self.world.0.borrow().wires[self.number].has_ended()
    }

    /// Returns whether the connection has been reset by the server, or was refused. Bytes that had not left the
    /// server by then are lost. The client can still read those that have come.
    pub fn was_reset(&self) -> bool {
        self.world.0.borrow().wires[self.number].was_reset()
    }

    /// Returns whether the server has closed it.
    pub fn is_closed(&self) -> bool {
        self.world.0.borrow().wires[self.number].is_closed()
    }

    /// Returns whether it was lost in the backlog: its accept failed.
    pub fn was_lost(&self) -> bool {
        self.world.0.borrow().wires[self.number].was_lost()
    }

    /// Returns whether the server has connected to it, and not it to the server.
    pub fn was_called(&self) -> bool {
        self.world.0.borrow().wires[self.number].was_called()
    }

    /// Returns whether the server has accepted it.
    pub fn is_accepted(&self) -> bool {
        self.world.0.borrow().wires[self.number].is_accepted()
    }

    /// Returns how many bytes it has sent that the server has not read.
    pub fn unread(&self) -> usize {
        self.world.0.borrow().wires[self.number].unread()
    }

    fn change(&self, event: Event, change: impl FnOnce(&mut Wire) -> Change) {
        let mut state = self.world.0.borrow_mut();
        let change = change(&mut state.wires[self.number]);
        if change != Change::None {
            state.log(self.number, event);
        }
        if change == Change::Edge {
            state.wire_edge(self.number);
        }
    }
}
