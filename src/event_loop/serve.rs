//! A connection's turn: read, offer, flush, close.

use super::{ConnectionIo, EventLoop};
use crate::connection::{InputEnd, OutputEnd, Phase, Seat, Step};
use crate::context::Context;
use crate::id::ConnId;
use crate::net::{Interest, Net};
use crate::service::{CloseReason, Closed, EofAction, Service};
use std::io;
use std::io::ErrorKind::{Interrupted, WouldBlock};
use std::sync::Once;

impl<S: Service, N: Net> EventLoop<S, N> {
    /// Takes one connection as far as it goes within its budget.
    pub(super) fn serve(&mut self, key: usize) {
        let Some(began) = self.connections.begin_service(key) else { return };
        if began.error {
            self.check_error(key);
        }
        self.settle();
        while let Some(step) = self.connections.next_step(key) {
            match step {
                Step::Offer => self.offer_again(key),
                Step::Read(room) => self.read(key, room),
                Step::Overflow => self.overflow(key),
                Step::AnnounceEnd => self.announce_end(key),
                Step::End => self.end_of_input(key),
                Step::Discard => self.discard(key),
            }
            self.settle();
        }
        self.connections.end_service(key, began);
    }

    /// Asks the socket for the error that an event has told. A connection that is not being read would
    /// not notice its reset otherwise.
    fn check_error(&mut self, key: usize) {
        if self.connections[key].connecting {
            return self.check_connecting(key);
        }
        let Some(io) = io_of(&mut self.io, key) else { return };
        if let Some(error) = self.net.take_error(&mut io.stream) {
            self.close(key, CloseReason::Failed(error));
        }
    }

    /// Asks the socket whether its connection has been made.
    #[cold]
    fn check_connecting(&mut self, key: usize) {
        let Some(io) = io_of(&mut self.io, key) else { return };
        let result = loop {
            match self.net.check_connecting(&mut io.stream) {
                Err(error) if error.kind() == Interrupted => {}
                result => break result,
            }
        };
        match result {
            Ok(()) => {
                self.connections[key].has_connected();
                self.connections.touch(key);
                self.call_back(key, |service, cx, id, conn| service.on_connect(cx, id, conn));
            }
            Err(error) if error.kind() == WouldBlock => {}
            Err(error) => self.close(key, CloseReason::Failed(error)),
        }
    }

    /// Reads at most `room` bytes, and offers what came, unless the service has paused the connection.
    fn read(&mut self, key: usize, room: usize) {
        let wanted = room.min(self.scratch.len());
        match self.receive(key, wanted) {
            Ok(Some(0) | None) => {}
            Ok(Some(n)) if self.connections[key].paused => {
                self.connections[key].input.extend_from_slice(&self.scratch[..n]);
            }
            Ok(Some(n)) => self.offer(key, n),
            Err(error) => self.close(key, CloseReason::Failed(error)),
        }
    }

    /// Reads on although the input is full: the end may be all that is left.
    fn overflow(&mut self, key: usize) {
        match self.receive(key, 1) {
            Ok(Some(0) | None) => {}
            Ok(Some(_)) => self.close(key, CloseReason::InputFull),
            Err(error) => self.close(key, CloseReason::Failed(error)),
        }
    }

    /// Reads what the service does not want any more, and drops it.
    fn discard(&mut self, key: usize) {
        let lingers = self.connections[key].phase == Phase::Lingering;
        match self.receive(key, self.scratch.len()) {
            Ok(Some(n)) if n > 0 && self.connections.may_discard(key, n) => {}
            Ok(None) => {}
            Ok(Some(0)) if !lingers => {} // the service is told
            Err(error) if !lingers => self.close(key, CloseReason::Failed(error)),
            Ok(Some(_)) | Err(_) => self.close(key, CloseReason::Finished),
        }
    }

    /// Reads at most `wanted` bytes into the scratch buffer. Returns `None` if there are none for now.
    pub(super) fn receive(&mut self, key: usize, wanted: usize) -> io::Result<Option<usize>> {
        let Some(io) = io_of(&mut self.io, key) else { return Ok(None) };
        let connection = &mut self.connections[key];
        let result = loop {
            match self.net.read(&mut io.stream, &mut self.scratch[..wanted]) {
                Err(error) if error.kind() == Interrupted => {}
                result => break result,
            }
        };
        match result {
            Ok(n) => {
                connection.has_read(n, wanted, N::SHORT_IO_EXHAUSTS && !self.net.reads_stop_short(&io.stream));
                self.connections.stats.received += n as u64;
                Ok(Some(n))
            }
            Err(error) if error.kind() == WouldBlock => {
                connection.has_drained();
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    /// Offers the service what is left of a connection's input and `fresh` bytes of scratch behind it.
    /// If nothing was left and all of it is consumed, nothing is copied.
    fn offer(&mut self, key: usize, fresh: usize) {
        let Some(conn) = io_of(&mut self.io, key).and_then(|io| io.conn.as_mut()) else { return };
        let Some((id, connection)) = self.connections.entry(key) else { return };
        connection.spend(0);
        connection.reoffer = false;
        let mut kept = std::mem::take(&mut connection.input);
        if !kept.is_empty() {
            kept.extend_from_slice(&self.scratch[..fresh]);
        }
        let input = if kept.is_empty() { &self.scratch[..fresh] } else { &kept[..] };
        let mut taken = 0;
        loop {
            let n = self.service.on_data(&mut Context::new(&mut self.connections), id, conn, &input[taken..]);
            if n > input.len() - taken {
                overtaken(id, n, input.len() - taken);
            }
            taken = input.len().min(taken.saturating_add(n));
            if n == 0 || taken == input.len() || !self.connections.takes_input(id) {
                break;
            }
        }
        if taken == input.len() {
            return;
        }
        let left = if kept.is_empty() {
            self.scratch[taken..fresh].to_vec()
        } else {
            kept.drain(..taken);
            kept
        };
        self.connections[key].keep_input(left);
    }

    /// Offers what is left of the input. It may be the last of a connection whose halves have both ended.
    fn offer_again(&mut self, key: usize) {
        self.connections.touch(key);
        self.offer(key, 0);
    }

    #[cold]
    fn announce_end(&mut self, key: usize) {
        self.connections[key].input_end = InputEnd::Announced;
        self.call_back(key, |service, cx, id, conn| service.on_early_eof(cx, id, conn));
    }

    fn end_of_input(&mut self, key: usize) {
        self.connections.touch(key);
        self.connections[key].input_end = InputEnd::Reported;
        self.call_back(key, |service, cx, id, conn| match service.on_eof(cx, id, conn) {
            EofAction::Keep => {}
            EofAction::Finish => cx.finish(id),
            EofAction::Abort => cx.abort(id),
        });
    }

    /// Carries out the recorded effects, until there are none.
    pub(super) fn settle(&mut self) {
        while let Some(key) = self.connections.next_dirty() {
            self.settle_one(key);
            self.connections.queue_if_runnable(key);
        }
    }

    pub(super) fn settle_one(&mut self, key: usize) {
        if self.connections[key].phase == Phase::Aborted {
            return self.close(key, CloseReason::Aborted);
        }
        let emptied = match self.flush(key) {
            Ok(emptied) => emptied,
            Err(error) => return self.close(key, CloseReason::Failed(error)),
        };
        let connection = &self.connections[key];
        match connection.phase {
            Phase::Finishing if connection.output().is_none() => self.conclude(key),
            Phase::Open if connection.output_end != OutputEnd::NotAsked => self.end_output(key, emptied),
            Phase::Open if emptied => self.call_back(key, |service, cx, id, conn| service.on_drain(cx, id, conn)),
            Phase::Open | Phase::Finishing | Phase::Aborted | Phase::Lingering => {}
        }
    }

    /// Ends our half of a connection that goes on, once its output is out. When both halves have ended,
    /// it closes.
    #[cold]
    fn end_output(&mut self, key: usize, emptied: bool) {
        let connection = &self.connections[key];
        if connection.output_end != OutputEnd::Sent && connection.output().is_none() && !connection.connecting {
            if let Err(error) = self.shutdown_write(key) {
                return self.close(key, CloseReason::Failed(error));
            }
        }
        if emptied {
            self.call_back(key, |service, cx, id, conn| service.on_drain(cx, id, conn));
        }
        if self.connections[key].is_over() {
            self.close(key, CloseReason::Finished);
        }
    }

    /// Ends our half. Returns whether the end is out; if not, an event tells of room for it.
    fn shutdown_write(&mut self, key: usize) -> io::Result<bool> {
        let Some(io) = io_of(&mut self.io, key) else { return Ok(true) };
        let result = self.net.shutdown_write(&mut io.stream);
        if self.net.holds_input(&io.stream) {
            self.connections[key].ready.readable = true;
        }
        match result {
            Ok(()) => {
                self.connections[key].has_shut_down();
                Ok(true)
            }
            Err(error) => self.delay_shutdown(key, error),
        }
    }

    /// Goes on after an end that is not out, for this reason.
    #[cold]
    fn delay_shutdown(&mut self, key: usize, error: io::Error) -> io::Result<bool> {
        match error.kind() {
            Interrupted => self.shutdown_write(key),
            WouldBlock => {
                self.connections[key].waits_to_shut_down();
                self.watch(key, Interest::ReadWrite).map(|()| false)
            }
            _ => Err(error),
        }
    }

    /// Ends a connection whose output is out. Our FIN goes first, together with what the kernel has kept
    /// back of the output: from then on no close can destroy it, not even over input that has just
    /// arrived. The close follows, at once or after a drain.
    fn conclude(&mut self, key: usize) {
        let connection = &self.connections[key];
        if connection.connecting {
            return; // what was sent comes first
        }
        if !connection.goes_on && !connection.is_drained() {
            // The peer may have sent nothing more: one look is cheaper than a drain.
            if let Ok(Some(_)) = self.receive(key, self.scratch.len()) {
                self.connections[key].goes_on = true; // or it has ended, and closes at once
            }
        }
        let is_sent = self.connections[key].output_end == OutputEnd::Sent;
        match if is_sent { Ok(true) } else { self.shutdown_write(key) } {
            Err(error) => self.close(key, CloseReason::Failed(error)),
            Ok(false) => self.start_lingering(key), // as long as a client may take that does not read
            Ok(true) if self.connections[key].closes_at_once() => self.close(key, CloseReason::Finished),
            Ok(true) => self.linger(key),
        }
    }

    /// Writes what the kernel takes and the budget allows. Returns whether that was the last of it.
    fn flush(&mut self, key: usize) -> io::Result<bool> {
        let Some(io) = io_of(&mut self.io, key) else { return Ok(false) };
        let (now, turn) = (self.connections.now, self.connections.turn);
        let budget = self.connections.limits.turn;
        let connection = &mut self.connections[key];
        let mut sent = 0;
        let result = loop {
            if !connection.can_write() || !connection.has_budget(turn, budget) {
                break Ok(false);
            }
            let ends = connection.output_ends();
            let Some(output) = connection.output_mut() else { break Ok(false) };
            match output.write_to(&mut self.net, &mut io.stream, ends) {
                Ok(written) => {
                    let emptied = output.is_empty();
                    sent += written.bytes as u64;
                    connection.ready.writable = written.all || !N::SHORT_IO_EXHAUSTS;
                    connection.has_written(written.bytes, written.corked, now);
                    if emptied {
                        break Ok(true);
                    }
                }
                Err(error) if error.kind() == WouldBlock => connection.ready.writable = false,
                Err(error) if error.kind() == Interrupted => connection.spend(0),
                Err(error) => break Err(error),
            }
        };
        let is_full = !connection.ready.writable;
        if self.net.holds_input(&io.stream) {
            connection.ready.readable = true;
        }
        self.connections.stats.sent += sent;
        match result {
            Ok(true) => self.connections.reclaim_output(key),
            Ok(false) if is_full => self.watch(key, Interest::ReadWrite)?,
            _ => {}
        }
        result
    }

    /// Asks for events, unless they have been asked for already.
    pub(super) fn watch(&mut self, key: usize, interest: Interest) -> io::Result<()> {
        let Some(io) = io_of(&mut self.io, key) else { return Ok(()) };
        let connection = &mut self.connections[key];
        match connection.watched {
            Some(before) if before == interest || before == Interest::ReadWrite => Ok(()),
            before => {
                connection.watched = Some(interest);
                self.net.watch(&mut io.stream, key, before, interest)
            }
        }
    }

    /// Closes a connection at once, and tells the service if it knows the connection.
    pub(super) fn close(&mut self, key: usize, reason: CloseReason) {
        let Some(io) = self.io.get_mut(key).and_then(Option::take) else { return };
        let Some((id, connection)) = self.connections.entry(key) else { return };
        match connection.seat {
            Seat::Lingering(place) => drop(self.lingering.remove(place)),
            Seat::Admitted(place) => self.listeners[connection.listener].leave(place),
            Seat::None => {}
        }
        let resets = connection.resets;
        let unsent = self.connections.remove(key);
        match unsent {
            0 if !resets => self.net.close(io.stream),
            _ => self.net.reset(io.stream), // the peer must not take a part for the whole
        }
        self.exhausted_until = None;
        if let Some(conn) = io.conn {
            self.tell_closed(id, conn, Closed::new(reason, unsent));
        }
    }

    /// Closes a connection for the service. Its descriptor stays until the peer has ended its half, too,
    /// or a limit is reached.
    fn linger(&mut self, key: usize) {
        let Some(io) = io_of(&mut self.io, key) else { return };
        let conn = io.conn.take();
        let Some((id, connection)) = self.connections.entry(key) else { return };
        connection.phase = Phase::Lingering;
        self.start_lingering(key);
        if self.watch(key, Interest::Read).is_err() {
            self.close(key, CloseReason::Finished);
        }
        if let Some(conn) = conn {
            self.tell_closed(id, conn, Closed::new(CloseReason::Finished, 0));
        }
    }

    /// Counts a connection among those that linger, unless it is there already.
    pub(super) fn start_lingering(&mut self, key: usize) {
        let connection = &self.connections[key];
        match connection.seat {
            Seat::Lingering(_) => return,
            Seat::Admitted(place) => self.listeners[connection.listener].leave(place),
            Seat::None => {}
        }
        let place = self.lingering.push_back(key);
        self.connections.seat_lingering(key, place);
        if self.lingering.len() > self.connections.limits.lingering {
            self.close_oldest_lingering();
        }
    }

    /// Closes the connection that has lingered longest. Returns whether there was one.
    pub(super) fn close_oldest_lingering(&mut self) -> bool {
        let oldest = self.lingering.front().copied();
        if let Some(key) = oldest {
            self.close(key, CloseReason::Finished);
        }
        oldest.is_some()
    }

    pub(super) fn tell_closed(&mut self, id: ConnId, conn: S::Conn, closed: Closed) {
        log::debug!("{id} closed: {:?}, {} bytes unsent", closed.reason, closed.unsent);
        self.service.on_close(&mut Context::new(&mut self.connections), id, conn, closed);
    }

    /// Calls back about a connection that the service knows.
    pub(super) fn call_back(&mut self, key: usize, f: impl FnOnce(&mut S, &mut Context<'_>, ConnId, &mut S::Conn)) {
        let Some(conn) = io_of(&mut self.io, key).and_then(|io| io.conn.as_mut()) else { return };
        let Some((id, _)) = self.connections.entry(key) else { return };
        f(&mut self.service, &mut Context::new(&mut self.connections), id, conn);
    }
}

/// A service has said that it took more than it was offered. The loop goes on as if it had taken all.
#[cold]
fn overtaken(id: ConnId, taken: usize, offered: usize) {
    static LOGGED: Once = Once::new();
    LOGGED.call_once(|| log::error!("{id}: the service took {taken} of {offered} bytes: a fault in its on_data"));
    debug_assert!(taken <= offered, "a service cannot take more than it is offered");
}

/// Returns the loop's half of a connection. Every connection in the table has one, once it has been opened.
fn io_of<Stream, Conn>(
    all: &mut [Option<ConnectionIo<Stream, Conn>>],
    key: usize,
) -> Option<&mut ConnectionIo<Stream, Conn>> {
    all.get_mut(key)?.as_mut()
}
