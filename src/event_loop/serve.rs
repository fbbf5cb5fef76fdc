//! A connection's turn: read, offer, flush, close.

use super::{End, EventLoop};
use crate::connection::{Phase, Seat, Step};
use crate::net::{Interest, Net};
use crate::service::{Cause, Closed, ConnId, Context, Eof, Service};
use std::io;
use std::io::ErrorKind::{Interrupted, WouldBlock};

impl<S: Service, N: Net> EventLoop<S, N> {
    /// Takes one connection as far as it goes within its budget.
    pub(super) fn serve(&mut self, key: usize) {
        let Some(began) = self.table.begin_service(key) else { return };
        if began.fault {
            self.check_fault(key);
        }
        self.settle();
        while let Some(step) = self.table.next_step(key) {
            match step {
                Step::Offer => self.offer(key, 0),
                Step::Read(room) => self.read(key, room),
                Step::Overflow => self.overflow(key),
                Step::End => self.end_of_input(key),
                Step::Discard => self.discard(key),
            }
            self.settle();
        }
        self.table.end_service(key, began);
    }

    /// Asks the socket when an event says that it is in error: a connection that is not being
    /// read would not notice its reset otherwise.
    fn check_fault(&mut self, key: usize) {
        let Some(end) = end_of(&mut self.ends, key) else { return };
        if let Some(error) = self.net.take_error(&mut end.stream) {
            self.close(key, Cause::Failed(error));
        }
    }

    /// Reads at most `room` bytes, and offers what came.
    fn read(&mut self, key: usize, room: usize) {
        let wanted = room.min(self.scratch.len());
        match self.receive(key, wanted) {
            Ok(Some(0) | None) => {}
            Ok(Some(n)) => self.offer(key, n),
            Err(error) => self.close(key, Cause::Failed(error)),
        }
    }

    /// Reads on although the input is full: the end may be all that is left.
    fn overflow(&mut self, key: usize) {
        match self.receive(key, 1) {
            Ok(Some(0) | None) => {}
            Ok(Some(_)) => self.close(key, Cause::InputFull),
            Err(error) => self.close(key, Cause::Failed(error)),
        }
    }

    /// Reads what the service does not want any more, and drops it.
    fn discard(&mut self, key: usize) {
        let lingers = self.table.connections[key].phase == Phase::Lingering;
        match self.receive(key, self.scratch.len()) {
            Ok(Some(n)) if n > 0 && self.table.may_discard(key, n) => {}
            Ok(None) => {}
            Ok(Some(0)) if !lingers => {} // the service is told
            Err(error) if !lingers => self.close(key, Cause::Failed(error)),
            Ok(Some(_)) | Err(_) => self.close(key, Cause::Finished),
        }
    }

    /// Reads at most `wanted` bytes into the scratch buffer; `None` if there are none for now.
    pub(super) fn receive(&mut self, key: usize, wanted: usize) -> io::Result<Option<usize>> {
        let Some(end) = end_of(&mut self.ends, key) else { return Ok(None) };
        let connection = &mut self.table.connections[key];
        let result = loop {
            match self.net.read(&mut end.stream, &mut self.scratch[..wanted]) {
                Err(error) if error.kind() == Interrupted => {}
                result => break result,
            }
        };
        match result {
            Ok(n) => {
                connection.has_read(n, wanted, N::SHORT_MEANS_DRAINED && !self.net.reads_stop_short(&end.stream));
                Ok(Some(n))
            }
            Err(error) if error.kind() == WouldBlock => {
                connection.has_drained();
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    /// Offers the service what is left of a connection's input and `fresh` bytes of scratch
    /// behind it. Nothing is copied when nothing was left and everything is taken.
    fn offer(&mut self, key: usize, fresh: usize) {
        let Some(conn) = end_of(&mut self.ends, key).and_then(|end| end.conn.as_mut()) else { return };
        let connection = &mut self.table.connections[key];
        connection.spend(0);
        connection.again = false;
        let id = ConnId { serial: connection.serial, key };
        let mut kept = std::mem::take(&mut connection.input);
        if !kept.is_empty() {
            kept.extend_from_slice(&self.scratch[..fresh]);
        }
        let input = if kept.is_empty() { &self.scratch[..fresh] } else { &kept[..] };
        let mut taken = 0;
        loop {
            let n = self.service.on_data(&mut Context::new(&mut self.table), id, conn, &input[taken..]);
            debug_assert!(n <= input.len() - taken, "a service cannot take more than it is offered");
            taken = input.len().min(taken.saturating_add(n));
            if n == 0 || taken == input.len() || !self.table.takes_input(id) {
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
        self.table.connections[key].keep_input(left);
    }

    fn end_of_input(&mut self, key: usize) {
        self.table.connections[key].told_eof = true;
        self.call(key, |service, cx, id, conn| match service.on_eof(cx, id, conn) {
            Eof::Keep => {}
            Eof::Finish => cx.finish(id),
            Eof::Abort => cx.abort(id),
        });
    }

    /// Carries out what has been recorded, until nothing is.
    pub(super) fn settle(&mut self) {
        while let Some(key) = self.table.next_dirty() {
            self.settle_one(key);
            self.table.queue_if_runnable(key);
        }
    }

    pub(super) fn settle_one(&mut self, key: usize) {
        if self.table.connections[key].doomed {
            return self.close(key, Cause::Aborted);
        }
        let emptied = match self.flush(key) {
            Ok(emptied) => emptied,
            Err(error) => return self.close(key, Cause::Failed(error)),
        };
        let connection = &self.table.connections[key];
        match connection.phase {
            Phase::Open if emptied => self.call(key, |service, cx, id, conn| service.on_drain(cx, id, conn)),
            Phase::Open | Phase::Lingering => {}
            Phase::Finishing if connection.output().is_some() => {}
            Phase::Finishing => self.conclude(key),
        }
    }

    /// Ends a connection whose output is out. Our FIN goes first, and with it whatever the kernel has
    /// kept back of the output: from then on no close can destroy it, not even over input that has
    /// come in this very moment. Then the close, at once or after a drain.
    fn conclude(&mut self, key: usize) {
        let connection = &self.table.connections[key];
        if !connection.goes_on && !connection.is_drained() {
            // The peer may have sent nothing more: one look is cheaper than a drain.
            match self.receive(key, self.scratch.len()) {
                Ok(Some(n)) if n > 0 => self.table.connections[key].goes_on = true,
                Ok(_) | Err(_) => {}
            }
        }
        let Some(end) = end_of(&mut self.ends, key) else { return };
        match self.net.shut(&mut end.stream) {
            Ok(()) => self.table.connections[key].has_shut(),
            Err(error) => return self.close(key, Cause::Failed(error)),
        }
        if self.table.connections[key].closes_at_once() {
            self.close(key, Cause::Finished);
        } else {
            self.linger(key);
        }
    }

    /// Writes what the kernel takes and the budget allows; whether that was the last of it.
    fn flush(&mut self, key: usize) -> io::Result<bool> {
        let Some(end) = end_of(&mut self.ends, key) else { return Ok(false) };
        let connection = &mut self.table.connections[key];
        while connection.can_write() && connection.has_budget(self.table.turn, &self.table.limits) {
            let ends = connection.phase != Phase::Open;
            let Some(output) = connection.output_mut() else { break };
            match output.write_to(&mut self.net, &mut end.stream, ends) {
                Ok(written) => {
                    let emptied = output.is_empty();
                    connection.writable = written.all || !N::SHORT_MEANS_DRAINED;
                    connection.has_written(written.bytes, written.corked, self.table.now);
                    if emptied {
                        self.table.reclaim_output(key);
                        return Ok(true);
                    }
                }
                Err(error) if error.kind() == WouldBlock => connection.writable = false,
                Err(error) if error.kind() == Interrupted => connection.spend(0),
                Err(error) => return Err(error),
            }
        }
        if !connection.writable {
            self.watch(key, Interest::ReadWrite)?;
        }
        Ok(false)
    }

    /// Asks for events, unless they have been asked for already.
    pub(super) fn watch(&mut self, key: usize, interest: Interest) -> io::Result<()> {
        let Some(end) = end_of(&mut self.ends, key) else { return Ok(()) };
        let connection = &mut self.table.connections[key];
        match connection.watched {
            Some(before) if before == interest || before == Interest::ReadWrite => Ok(()),
            before => {
                connection.watched = Some(interest);
                self.net.watch(&mut end.stream, key, before, interest)
            }
        }
    }

    /// Closes a connection at once, and tells the service if it knows of it.
    pub(super) fn close(&mut self, key: usize, cause: Cause) {
        let Some(end) = self.ends.get_mut(key).and_then(Option::take) else { return };
        let connection = &self.table.connections[key];
        let id = ConnId { serial: connection.serial, key };
        match connection.seat {
            Seat::Lingering(place) => drop(self.lingering.remove(place)),
            Seat::Admitted(place) => self.admissions[connection.listener].leave(place),
            Seat::None => {}
        }
        let unsent = self.table.remove(key);
        match unsent {
            0 => self.net.close(end.stream),
            _ => self.net.reset(end.stream), // the peer must not take a part for the whole
        }
        self.exhausted_until = None;
        if let Some(conn) = end.conn {
            self.tell_closed(id, conn, Closed { cause, unsent });
        }
    }

    /// Closes a connection for the service; its descriptor stays until the peer has ended, too, or a
    /// limit is reached.
    fn linger(&mut self, key: usize) {
        let Some(end) = end_of(&mut self.ends, key) else { return };
        let conn = end.conn.take();
        let connection = &mut self.table.connections[key];
        connection.phase = Phase::Lingering;
        let id = ConnId { serial: connection.serial, key };
        self.stay_behind(key);
        if self.watch(key, Interest::Read).is_err() {
            self.close(key, Cause::Finished);
        }
        if let Some(conn) = conn {
            self.tell_closed(id, conn, Closed { cause: Cause::Finished, unsent: 0 });
        }
    }

    /// Counts a connection among those lingering, unless it is there already.
    pub(super) fn stay_behind(&mut self, key: usize) {
        let connection = &self.table.connections[key];
        match connection.seat {
            Seat::Lingering(_) => return,
            Seat::Admitted(place) => self.admissions[connection.listener].leave(place),
            Seat::None => {}
        }
        let place = self.lingering.push_back(key);
        self.table.seat_lingering(key, place);
        if self.lingering.len() > self.table.limits.lingering {
            self.close_oldest_lingering();
        }
    }

    /// Gives up the connection that has lingered longest; whether there was one.
    pub(super) fn close_oldest_lingering(&mut self) -> bool {
        let oldest = self.lingering.front().copied();
        if let Some(key) = oldest {
            self.close(key, Cause::Finished);
        }
        oldest.is_some()
    }

    fn tell_closed(&mut self, id: ConnId, conn: S::Conn, closed: Closed) {
        log::debug!("{id} closed: {:?}, {} bytes unsent", closed.cause, closed.unsent);
        self.service.on_close(&mut Context::new(&mut self.table), id, conn, closed);
    }

    /// Calls back about a connection that the service knows.
    pub(super) fn call(&mut self, key: usize, f: impl FnOnce(&mut S, &mut Context<'_>, ConnId, &mut S::Conn)) {
        let Some(conn) = end_of(&mut self.ends, key).and_then(|end| end.conn.as_mut()) else { return };
        let id = ConnId { serial: self.table.connections[key].serial, key };
        f(&mut self.service, &mut Context::new(&mut self.table), id, conn);
    }
}

/// The loop's half of a connection. Every connection in the table has one, once it has been opened.
fn end_of<Stream, Conn>(ends: &mut [Option<End<Stream, Conn>>], key: usize) -> Option<&mut End<Stream, Conn>> {
    ends.get_mut(key)?.as_mut()
}
