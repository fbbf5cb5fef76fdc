//! Newcomers: who is let in, who is turned away, and what happens when the system has no room.

use super::{Door, End, EventLoop, Newcomer};
use crate::admission::Verdict;
use crate::connection::Seat;
use crate::limits::{EXHAUSTED_RETRY, LOST_IN_A_ROW};
use crate::net::{Interest, Net};
use crate::service::{Cause, ConnId, Context, ListenerId, Service};
use std::io::{self, ErrorKind};
use std::time::Duration;

/// A system that stays exhausted is logged no more often than this.
const EXHAUSTED_LOG: Duration = Duration::from_secs(10);

impl<S: Service, N: Net> EventLoop<S, N> {
    /// Lets in those accepted in the turn before, in that order. Whatever happened before they
    /// connected is known by now: another wait lies in between, and its events come first.
    pub(super) fn greet_newcomers(&mut self) {
        for _ in 0..self.newcomers.len() {
            if let Some(newcomer) = self.newcomers.pop_front() {
                self.greet(newcomer);
            }
        }
    }

    fn greet(&mut self, newcomer: Newcomer<N::Stream>) {
        match self.admissions[newcomer.admission].judge(self.table.now) {
            Verdict::Admit => {}
            Verdict::Evict(oldest) => {
                self.stats.evicted += 1;
                self.close(oldest, Cause::Evicted);
                self.settle();
            }
            Verdict::Reject => return self.reject(newcomer),
        }
        self.open(newcomer);
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
                    door.lost = 0;
                    self.next_door = index + 1;
                    let newcomer = Newcomer { stream, peer, admission: door.admission };
                    self.admissions[newcomer.admission].count_newcomer();
                    if self.table.connections.is_empty() && self.newcomers.is_empty() {
                        self.greet(newcomer); // nobody can be ahead of it
                    } else {
                        self.newcomers.push_back(newcomer);
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
        self.exhausted_until.is_none() && self.has_place_for_more(door)
    }

    /// Whether somebody may be waiting at a door, and has a place.
    pub(super) fn has_place_for_more(&self, door: &Door<N::Listener>) -> bool {
        door.ready && self.admissions[door.admission].may_accept()
    }

    /// Lets a newcomer in, and serves it before any registration.
    fn open(&mut self, Newcomer { stream, peer, admission }: Newcomer<N::Stream>) {
        self.stats.opened += 1;
        let place = self.admissions[admission].enter(self.table.next_key(), self.table.now);
        let id = self.table.insert(peer, admission, Seat::Admitted(place));
        log::debug!("{id} from {peer}");
        let conn = self.service.on_open(&mut Context::new(&mut self.table), id, ListenerId(admission));
        self.attach(id.key, End { stream, conn: Some(conn) });
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
    /// it can be closed; if its request is still to come, or still coming, the close lingers.
    fn reject(&mut self, Newcomer { stream, peer, admission }: Newcomer<N::Stream>) {
        self.stats.rejected += 1;
        let ConnId { key, serial } = self.table.insert(peer, admission, Seat::None);
        log::debug!("#{serial} from {peer} rejected");
        self.attach(key, End { stream, conn: None });
        let whole = match self.receive(key, self.scratch.len()) {
            Ok(Some(n)) => n == 0 || self.service.is_complete(ListenerId(admission), &self.scratch[..n]),
            Ok(None) => false,
            Err(error) => return self.close(key, Cause::Failed(error)),
        };
        self.table.connections[key].goes_on = !whole;
        self.table.dismiss(key, self.admissions[admission].reply());
        self.settle_one(key);
        if self.table.connections.get(key).is_some_and(|connection| connection.seat == Seat::None) {
            self.stay_behind(key); // the kernel has not taken the reply yet
        }
        self.table.queue_if_runnable(key);
    }

    /// Puts the loop's half of a connection beside the other.
    fn attach(&mut self, key: usize, end: End<N::Stream, S::Conn>) {
        match self.ends.get_mut(key) {
            Some(vacant) => *vacant = Some(end),
            None => self.ends.push(Some(end)), // keys grow one by one
        }
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
