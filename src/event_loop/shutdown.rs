//! The end of a loop: the last accepts, the drain, and the close of the rest.

use super::{EventLoop, Life};
use crate::admission::Admission;
use crate::net::Net;
use crate::service::{Cause, Context, Service};
use std::time::{Duration, Instant};

/// How long connections that only linger may still hold up a stop: what a peer that is there
/// needs to end its half.
const LAST_LINGER: Duration = Duration::from_millis(250);

/// How long a stop waits for descriptors for those in the backlogs: the connections that hold them
/// may be those that only the stop itself lets go.
const LAST_TRY: Duration = Duration::from_secs(1);

impl<S: Service, N: Net> EventLoop<S, N> {
    /// Whether the next turn has something to do for a stop.
    pub(super) fn stop_is_due(&self) -> bool {
        match self.life {
            Life::Running => self.table.stop.is_some(),
            Life::LastCall { .. } => self.table.stop.is_some() || self.exhausted_until.is_none(),
            Life::Draining { only_lingering: false, .. } if self.nobody_is_in() => true,
            Life::Draining { .. } => self.table.stop.is_some() || self.table.connections.is_empty(),
            Life::Stopped => false,
        }
    }

    /// Begins a stop that has been asked for. Who is in a backlog came before it, and would be
    /// reset by the close of the listener, so every listener is looked at once more.
    pub(super) fn begin_stop(&mut self) {
        let Some(grace) = self.table.stop.take() else { return };
        let asked = self.table.now.checked_add(grace);
        match &mut self.life {
            Life::Running => {
                self.doors.iter_mut().for_each(|door| door.ready = true);
                let longest = self.doors.iter().map(|door| door.backlog as usize).max().unwrap_or(0);
                let turns = longest.div_ceil(self.table.limits.accepts);
                let last_try = sooner(asked, self.table.now.checked_add(LAST_TRY));
                self.life = Life::LastCall { until: asked, last_try, turns };
            }
            Life::LastCall { until, .. } | Life::Draining { until, .. } => *until = sooner(*until, asked),
            Life::Stopped => {}
        }
    }

    /// Goes on with a stop.
    pub(super) fn advance_stop(&mut self) {
        let now = self.table.now;
        if let Life::LastCall { until, last_try, turns } = self.life {
            let over = [until, last_try].into_iter().flatten().any(|end| end <= now);
            let turns = if self.exhausted_until.is_none() { turns.checked_sub(1) } else { Some(turns) };
            match turns.filter(|_| !over && self.doors.iter().any(|door| self.has_place_for_more(door))) {
                Some(turns) => self.life = Life::LastCall { until, last_try, turns },
                None => self.end_accepting(until),
            }
        }
        if let Life::Draining { until, mut only_lingering } = self.life {
            if !only_lingering && self.nobody_is_in() {
                only_lingering = true;
                let soon = now.checked_add(LAST_LINGER);
                self.lingering.iter().for_each(|key| self.table.hurry(*key, soon));
            }
            if until.is_some_and(|until| until <= now) {
                self.close_all();
            }
            let over = self.table.connections.is_empty();
            self.life = if over { Life::Stopped } else { Life::Draining { until, only_lingering } };
        }
    }

    fn nobody_is_in(&self) -> bool {
        self.admissions.iter().all(Admission::is_empty)
    }

    fn end_accepting(&mut self, until: Option<Instant>) {
        self.greet_newcomers();
        self.close_doors(0);
        self.life = Life::Draining { until, only_lingering: false };
        self.service.on_shutdown(&mut Context::new(&mut self.table));
        self.settle();
    }

    /// Closes the listening sockets from index `from` on.
    pub(super) fn close_doors(&mut self, from: usize) {
        for door in self.doors.drain(from..) {
            self.net.close_listener(door.listener);
        }
    }

    fn close_all(&mut self) {
        let keys: Vec<usize> = self.table.connections.iter().map(|(key, _)| key).collect();
        for key in keys {
            self.close(key, Cause::Shutdown);
            self.settle();
        }
    }
}

/// The sooner of two times, of which none means never.
fn sooner(one: Option<Instant>, other: Option<Instant>) -> Option<Instant> {
    one.into_iter().chain(other).min()
}
