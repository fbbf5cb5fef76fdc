//! Newcomers: who is let in, who is turned away, and what happens when the system has no room.

use super::{Door, End, EventLoop, Newcomer};
use crate::admission::Verdict;
use crate::connection::Connection;
use crate::limits::{EXHAUSTED_RETRY, LOST_IN_A_ROW};
use crate::net::{Interest, Net, Peer};
use crate::service::{Cause, ConnId, Context, ListenerId, Service};
use std::io::{self, ErrorKind, IoSlice};
use std::time::Duration;

/// A system that stays exhausted is logged no more often than this.
const EXHAUSTED_LOG: Duration = Duration::from_secs(10);

impl<S: Service, N: Net> EventLoop<S, N> {
    /// Lets in those accepted in the turn before, in that order. Whatever happened before they
    /// connected is known by now: another wait lies in between, and its events come first.
    pub(super) fn greet_newcomers(&mut self) {
        for _ in 0..self.newcomers.len() {
            if let Some(Newcomer { stream, peer, admission }) = self.newcomers.pop_front() {
                self.greet(stream, peer, admission);
            }
        }
    }

    fn greet(&mut self, stream: N::Stream, peer: Peer, listener: usize) {
        match self.admissions[listener].judge(self.table.now) {
            Verdict::Admit => self.open(listener, stream, peer),
            Verdict::Evict(oldest) => {
                self.stats.evicted += 1;
                self.close(oldest, Cause::Evicted);
                self.settle();
                self.open(listener, stream, peer);
            }
            Verdict::Reject => self.reject(listener, stream, peer),
        }
    }

    /// Takes newcomers from the backlogs, for the next turn.
    pub(super) fn accept_newcomers(&mut self) {
        if self.exhausted_until.is_some_and(|until| until <= self.table.now) {
            self.exhausted_until = None;
        }
        // The door behind the last one that somebody came through is the first, so that none has
        // more than its share of a capacity.
        let (doors, first) = (self.doors.len(), self.next_door);
        for n in 0..doors {
            self.accept_from((n + first) % doors);
        }
    }

    fn accept_from(&mut self, index: usize) {
        for _ in 0..self.table.limits.accepts {
            if !self.may_accept(&self.doors[index]) {
                return;
            }
            let door = &mut self.doors[index];
            match self.net.accept(&mut door.listener) {
                Ok((stream, peer)) => {
                    let admission = door.admission;
                    door.lost = 0;
                    self.next_door = index + 1;
                    self.admissions[admission].count_newcomer();
                    if self.table.connections.is_empty() && self.newcomers.is_empty() {
                        self.greet(stream, peer, admission); // nobody can be ahead of it
                    } else {
                        self.newcomers.push_back(Newcomer { stream, peer, admission });
                    }
                }
                Err(error) => match error.kind() {
                    ErrorKind::WouldBlock => door.ready = false,
                    kind if concerns_one_connection(kind) && door.lost < LOST_IN_A_ROW => {
                        door.lost += 1;
                        log::debug!("a connection was lost in the backlog: {error}");
                    }
                    _ => {
                        door.lost = 0;
                        self.exhausted(&error);
                    }
                },
            }
        }
    }

    pub(super) fn may_accept(&self, door: &Door<N::Listener>) -> bool {
        door.ready && self.exhausted_until.is_none() && self.admissions[door.admission].may_accept()
    }

    /// Lets a newcomer in, and serves it before any registration.
    fn open(&mut self, listener: usize, stream: N::Stream, peer: Peer) {
        self.stats.opened += 1;
        let id = self.insert(listener, stream, peer);
        log::debug!("{id} from {peer}");
        let place = self.admissions[listener].enter(id.key, self.table.now);
        self.table.connections[id.key].place = Some(place);
        let conn = self.service.on_open(&mut Context::new(&mut self.table), id, ListenerId(listener));
        if let Some(Some(end)) = self.ends.get_mut(id.key) {
            end.conn = Some(conn);
        }
        self.serve(id.key);
        if self.table.get(id).is_some() {
            if let Err(error) = self.watch(id.key, Interest::Read) {
                self.close(id.key, Cause::Failed(error));
                self.settle();
            }
        }
    }

    /// Turns a newcomer away with what its listener says. For the service it was never there.
    ///
    /// What it has sent already is read first. If that was its request, nothing is left unread and
    /// it can be closed; if its request is still to come, or still coming, a close would meet it
    /// with a reset that could destroy the reply.
    fn reject(&mut self, listener: usize, stream: N::Stream, peer: Peer) {
        self.stats.rejected += 1;
        let ConnId { key, serial } = self.insert(listener, stream, peer);
        log::debug!("#{serial} from {peer} rejected");
        let arrived = self.receive(key, self.scratch.len());
        if let Some(Some(end)) = self.ends.get_mut(key) {
            // An empty socket takes a reply of this size whole; if it does not, there is nobody to tell.
            let reply = [IoSlice::new(self.admissions[listener].reply())];
            let mut write = || self.net.write(&mut end.stream, &reply);
            while write().is_err_and(|error| error.kind() == ErrorKind::Interrupted) {}
        }
        let over = match arrived {
            Ok(Some(0)) | Err(_) => true,
            Ok(Some(n)) => {
                let drained = self.table.connections[key].is_drained();
                drained && self.service.is_complete(ListenerId(listener), &self.scratch[..n])
            }
            Ok(None) => false,
        };
        if over {
            self.close(key, Cause::Finished);
        } else {
            self.stay_behind(key);
        }
        self.table.queue_if_runnable(key);
    }

    fn insert(&mut self, listener: usize, stream: N::Stream, peer: Peer) -> ConnId {
        self.serial += 1;
        let key = self.table.connections.insert(Connection::new(self.serial, peer, listener));
        if key >= self.ends.len() {
            self.ends.resize_with(key + 1, || None);
        }
        self.ends[key] = Some(End { stream, conn: None });
        ConnId { serial: self.serial, key }
    }

    /// The system has no descriptor or no memory for another connection, or fails in a way nobody
    /// has thought of. The edge is not used up, so there is nothing to wait for: give up somebody
    /// who only lingers and go on, or else try again when somebody leaves or a short time is over.
    fn exhausted(&mut self, error: &io::Error) {
        if self.close_oldest_lingering() {
            return;
        }
        let now = self.table.now;
        self.exhausted_until = Some(now + EXHAUSTED_RETRY);
        if self.exhausted_logged.is_none_or(|at| now.saturating_duration_since(at) > EXHAUSTED_LOG) {
            self.exhausted_logged = Some(now);
            log::warn!("cannot accept: {error}; trying again as connections close (see `ulimit -n`)");
        }
    }
}

/// Whether an accept failed for the connection it would have returned, and not for the next.
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
