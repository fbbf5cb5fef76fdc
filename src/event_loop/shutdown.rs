//! The end of a loop: stop accepting, drain, close the rest.

use super::{EventLoop, Life};
use crate::net::Net;
use crate::service::{Cause, Context, Service};

impl<S: Service, N: Net> EventLoop<S, N> {
    /// Whether the next turn has something to do for a stop.
    pub(super) fn stop_is_due(&self) -> bool {
        match self.life {
            Life::Running => self.table.stop.is_some(),
            Life::Draining { .. } => self.table.connections.is_empty(),
            Life::Stopped => false,
        }
    }

    /// Has the last round of accepts look at every listener: who is in the backlog came before
    /// the stop, and would be reset by the close.
    pub(super) fn prepare_stop(&mut self) {
        if self.stop_is_due() {
            self.doors.iter_mut().for_each(|door| door.ready = true);
        }
    }

    /// Goes on with a stop that has been asked for.
    pub(super) fn advance_stop(&mut self) {
        if let (Life::Running, Some(grace)) = (self.life, self.table.stop) {
            self.greet_newcomers();
            self.close_doors(0);
            self.life = Life::Draining { until: self.table.now.checked_add(grace) };
            self.service.on_shutdown(&mut Context::new(&mut self.table));
            self.settle();
        }
        if let Life::Draining { until } = self.life {
            if until.is_some_and(|until| until <= self.table.now) {
                self.close_all();
            }
            if self.table.connections.is_empty() {
                self.life = Life::Stopped;
            }
        }
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
