//! The end of a loop: the last accepts, the drain, and the close of the rest.

use super::{EventLoop, State};
use crate::context::Context;
use crate::listener::Listener;
use crate::net::Net;
use crate::service::{CloseReason, Service};
use std::time::{Duration, Instant};

/// How long lingering connections may still hold up a stop: a peer that is there ends its half within
/// this time.
const LAST_LINGER: Duration = Duration::from_millis(250);

/// How long a stop waits for descriptors for the connections in the backlogs. Those that hold the
/// descriptors may be closed by the stop itself only.
const LAST_TRY: Duration = Duration::from_secs(1);

impl<S: Service, N: Net> EventLoop<S, N> {
    /// Returns whether the next turn has something to do for a stop.
    pub(super) fn stop_is_due(&self) -> bool {
        match self.state {
            State::Running => self.connections.stop.is_some(),
            State::DrainingBacklog { .. } => self.connections.stop.is_some() || self.exhausted_until.is_none(),
            State::Draining { only_lingering: false, .. } if self.no_connection_is_open() => true,
            State::Draining { .. } => self.connections.stop.is_some() || self.connections.is_empty(),
            State::Stopped => false,
        }
    }

    /// Begins a stop that has been asked for. The connections in the backlogs came before it, and the
    /// close of a listener would reset them, so every listener is asked once more.
    pub(super) fn begin_stop(&mut self) {
        let Some(grace) = self.connections.stop.take() else { return };
        let asked = self.connections.now.checked_add(grace);
        match &mut self.state {
            State::Running => {
                let sockets = self.listeners.iter_mut().flat_map(|listener| &mut listener.sockets);
                sockets.for_each(|socket| socket.ready = true);
                let longest =
                    self.listeners.iter().map(|listener| listener.options.backlog as usize).max().unwrap_or(0);
                let turns = longest.div_ceil(self.connections.limits.accepts);
                let last_try = sooner(asked, self.connections.now.checked_add(LAST_TRY));
                self.state = State::DrainingBacklog { until: asked, last_try, turns };
            }
            State::DrainingBacklog { until, .. } | State::Draining { until, .. } => *until = sooner(*until, asked),
            State::Stopped => {}
        }
    }

    /// Goes on with a stop.
    pub(super) fn advance_stop(&mut self) {
        let now = self.connections.now;
        if let State::DrainingBacklog { until, last_try, turns } = self.state {
            let over = [until, last_try].into_iter().flatten().any(|end| end <= now);
            let turns = if self.exhausted_until.is_none() { turns.checked_sub(1) } else { Some(turns) };
            match turns.filter(|_| !over && self.has_connections_to_accept()) {
                Some(turns) => self.state = State::DrainingBacklog { until, last_try, turns },
                None => self.end_accepting(until),
            }
        }
        if let State::Draining { until, mut only_lingering } = self.state {
            if !only_lingering && self.no_connection_is_open() {
                only_lingering = true;
                let soon = now.checked_add(LAST_LINGER);
                self.lingering.iter().for_each(|key| self.connections.hurry(*key, soon));
            }
            if until.is_some_and(|until| until <= now) {
                self.close_all();
            }
            let over = self.connections.is_empty();
            self.state = if over { State::Stopped } else { State::Draining { until, only_lingering } };
        }
    }

    fn no_connection_is_open(&self) -> bool {
        self.listeners.iter().all(Listener::is_empty)
    }

    fn end_accepting(&mut self, until: Option<Instant>) {
        self.admit_pending();
        self.close_listeners();
        self.state = State::Draining { until, only_lingering: false };
        self.service.on_shutdown(&mut Context::new(&mut self.connections));
        self.settle();
    }

    fn close_listeners(&mut self) {
        let sockets = self.listeners.iter_mut().flat_map(|listener| listener.sockets.drain(..)).collect();
        self.close_sockets(sockets);
    }

    /// Closes all connections. Those that the closes ask for are not made.
    fn close_all(&mut self) {
        for key in self.connections.keys() {
            self.close(key, CloseReason::Shutdown);
            self.settle();
        }
        self.connections.forget_connects();
    }
}

/// Connections that are left have a close, too. It is not told while a panic unwinds, out of the service
/// perhaps.
impl<S: Service, N: Net> Drop for EventLoop<S, N> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            return;
        }
        self.connections.keys().into_iter().for_each(|key| self.close(key, CloseReason::Shutdown));
        self.pending.drain(..).for_each(|pending| self.net.close(pending.stream));
        self.close_listeners();
    }
}

/// Returns the sooner of two times; `None` means never.
fn sooner(one: Option<Instant>, other: Option<Instant>) -> Option<Instant> {
    one.into_iter().chain(other).min()
}
