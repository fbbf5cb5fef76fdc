//! New connections: accepted, admitted or rejected; and the lack of descriptors and memory.

use super::{ConnectionIo, EventLoop, PendingConnection, SocketPlace};
use crate::connection::{Connection, Seat};
use crate::context::Context;
use crate::id::ConnId;
use crate::limits::{EXHAUSTED_RETRY, LOST_IN_A_ROW};
use crate::listener::{Decision, Listener};
use crate::net::{Interest, Net};
use crate::service::{CloseReason, Service};
use std::io::{self, ErrorKind};
use std::time::Duration;

/// The lack of descriptors or memory is logged once in this time.
const EXHAUSTED_LOG: Duration = Duration::from_secs(10);

impl<S: Service, N: Net> EventLoop<S, N> {
    /// Admits or rejects the connections accepted in the turn before, in that order. All that happened
    /// before they connected is known by now: a wait lies in between, and its events come first.
    pub(super) fn admit_pending(&mut self) {
        for _ in 0..self.pending.len() {
            if let Some(pending) = self.pending.pop_front() {
                self.admit(pending);
            }
        }
    }

    fn admit(&mut self, pending: PendingConnection<N::Stream>) {
        let listener = &mut self.listeners[pending.listener];
        let is_welcome = self.service.is_welcome(listener.id, &pending.peer);
        if !is_welcome {
            listener.forget_pending();
        }
        match is_welcome && self.make_room(pending.listener) {
            true => {
                self.open(pending);
            }
            false => self.reject(pending),
        }
    }

    /// Decides about the next connection of a listener. Returns whether it is admitted, in the place of the
    /// oldest perhaps.
    pub(super) fn make_room(&mut self, listener: usize) -> bool {
        match self.listeners[listener].decide(self.connections.now) {
            Decision::Admit => true,
            Decision::Evict(oldest) => {
                self.evict(oldest);
                true
            }
            Decision::Reject => self.ask_to_make_way(listener),
        }
    }

    fn evict(&mut self, key: usize) {
        self.connections.stats.evicted += 1;
        self.close(key, CloseReason::Evicted);
        self.settle();
    }

    /// Asks the service for a connection of a full listener that gives way. Returns whether one has.
    fn ask_to_make_way(&mut self, listener: usize) -> bool {
        let Some(id) = self.service.make_way(self.listeners[listener].id) else { return false };
        // A connection that is still to be made has no place yet that it could give up.
        let has_place = |at: &Connection| at.is_admitted() && at.listener == listener;
        let gives_way = self.connections.get(id).is_some_and(has_place);
        if gives_way {
            self.evict(id.key());
        }
        gives_way
    }

    /// Takes connections from the backlogs, for the next turn.
    pub(super) fn accept_connections(&mut self) {
        if self.exhausted_until.is_some_and(|until| until <= self.connections.now) {
            self.exhausted_until = None;
        }
        // The first socket is the one behind that of the last accept, so that no address takes more
        // than its share of a capacity.
        let (sockets, first) = (self.sockets.len(), self.next_socket);
        for n in 0..sockets {
            self.accept_from((n + first) % sockets);
        }
    }

    fn accept_from(&mut self, index: usize) {
        let Some(SocketPlace { listener, socket }) = self.sockets[index] else { return };
        for _ in 0..self.connections.limits.accepts {
            let at = &mut self.listeners[listener];
            if self.exhausted_until.is_some() || !at.may_accept() {
                return;
            }
            let from = &mut at.sockets[socket];
            if !from.ready {
                return;
            }
            match self.net.accept(&mut from.socket) {
                Ok((stream, peer)) => {
                    from.lost = 0;
                    at.count_pending();
                    self.next_socket = index + 1;
                    let pending = PendingConnection { stream, peer, listener };
                    if self.connections.is_empty() && self.pending.is_empty() {
                        self.admit(pending); // no other connection can be ahead of it
                    } else {
                        self.pending.push_back(pending);
                    }
                }
                Err(error) => match error.kind() {
                    ErrorKind::WouldBlock => from.ready = false,
                    kind if concerns_one_connection(kind) && from.lost < LOST_IN_A_ROW => {
                        from.lost += 1;
                        log::debug!("a connection was lost in the backlog: {error}");
                    }
                    _ => {
                        from.lost = 0;
                        self.exhausted(&error);
                    }
                },
            }
        }
    }

    /// Returns whether connections may be waiting that a listener has places for.
    pub(super) fn has_connections_to_accept(&self) -> bool {
        let waiting = |listener: &Listener<N::Listener>| listener.sockets.iter().any(|socket| socket.ready);
        self.listeners.iter().any(|listener| waiting(listener) && listener.may_accept())
    }

    /// Admits a connection, and serves it before any registration.
    pub(super) fn open(
        &mut self,
        PendingConnection { stream, peer, listener }: PendingConnection<N::Stream>,
    ) -> ConnId {
        self.connections.stats.opened += 1;
        let place = self.listeners[listener].enter(self.connections.next_key(), self.connections.now);
        let id = self.connections.insert(peer, listener, Seat::Admitted(place));
        log::debug!("{id} from {peer}");
        let conn = self.service.on_open(&mut Context::new(&mut self.connections), id, self.listeners[listener].id);
        self.attach(id.key(), ConnectionIo { stream, conn: Some(conn) });
        self.serve(id.key());
        if self.connections.get(id).is_some() {
            if let Err(error) = self.watch(id.key(), Interest::Read) {
                self.close(id.key(), CloseReason::Failed(error));
                self.settle();
            }
        }
        id
    }

    /// Rejects a client: it reads the bytes of its listener's policy. The service never sees the connection.
    ///
    /// The loop first reads what the client has sent. If that is a complete request, nothing is left
    /// unread and the connection can close. Otherwise the close lingers until the rest has come.
    pub(super) fn reject(&mut self, PendingConnection { stream, peer, listener }: PendingConnection<N::Stream>) {
        self.connections.stats.rejected += 1;
        let id = self.connections.insert(peer, listener, Seat::None);
        let key = id.key();
        log::debug!("{id} from {peer} rejected");
        self.attach(key, ConnectionIo { stream, conn: None });
        let complete = match self.receive(key, self.scratch.len()) {
            Ok(Some(n)) => n == 0 || self.is_request_complete(listener, n),
            Ok(None) => false,
            Err(error) => return self.close(key, CloseReason::Failed(error)),
        };
        self.connections[key].goes_on = !complete;
        self.connections.dismiss(key, self.listeners[listener].rejection());
        self.settle_one(key);
        if self.connections.at(key).is_some_and(|connection| connection.seat == Seat::None) {
            self.start_lingering(key); // the kernel has not taken the rejection yet
        }
        self.connections.queue_if_runnable(key);
    }

    /// Returns whether the first `n` bytes of scratch are a complete request.
    fn is_request_complete(&self, listener: usize, n: usize) -> bool {
        self.service.is_request_complete(self.listeners[listener].id, &self.scratch[..n])
    }

    /// Puts the loop's half of a connection beside the other.
    #[inline(always)] // 32 instructions a request
    pub(super) fn attach(&mut self, key: usize, io: ConnectionIo<N::Stream, S::Conn>) {
        match self.io.get_mut(key) {
            Some(vacant) => *vacant = Some(io),
            None => {
                self.io.resize_with(key, || None); // those between are of connections still to be made
                self.io.push(Some(io));
            }
        }
    }

    /// Handles an `accept` that failed for lack of descriptors or memory, or with an unknown error.
    ///
    /// The edge is not used up, so no event will follow. The loop gives up the oldest lingering
    /// connection and goes on. Without one it tries again when a connection closes, or after
    /// [`EXHAUSTED_RETRY`].
    fn exhausted(&mut self, error: &io::Error) {
        self.connections.stats.failed_accepts += 1;
        if self.close_oldest_lingering() {
            return;
        }
        let now = self.connections.now;
        self.exhausted_until = Some(now + EXHAUSTED_RETRY);
        if self.exhausted_logged.is_none_or(|at| now.saturating_duration_since(at) > EXHAUSTED_LOG) {
            self.exhausted_logged = Some(now);
            log::warn!("cannot accept: {error}; trying again as connections close (see `ulimit -n`)");
        }
    }
}

/// Returns whether an accept failed for the one connection that it would have returned.
fn concerns_one_connection(kind: ErrorKind) -> bool {
    use ErrorKind::{
        ConnectionAborted, ConnectionReset, HostUnreachable, Interrupted, NetworkDown, NetworkUnreachable,
        PermissionDenied, TimedOut,
    };
    // Pending errors of the new socket come out of accept on Linux, and a firewall's refusal does.
    matches!(
        kind,
        ConnectionAborted
            | ConnectionReset
            | HostUnreachable
            | Interrupted
            | NetworkDown
            | NetworkUnreachable
            | PermissionDenied
            | TimedOut
    )
}
