//! Connections that the service has asked for.

use super::{ConnectionIo, EventLoop};
use crate::connection::Seat;
use crate::connections::Connect;
use crate::context::Context;
use crate::id::{ConnId, ListenerId};
use crate::net::{Address, Interest, Net};
use crate::service::{CloseReason, Closed, Service};
use std::io;

impl<S: Service, N: Net> EventLoop<S, N> {
    /// Makes the connections that callbacks have asked for so far.
    pub(super) fn make_connections(&mut self) {
        for _ in 0..self.connections.connects() {
            if let Some(connect) = self.connections.next_connect() {
                self.make_connection(connect);
                self.settle();
            }
        }
    }

    #[cold]
    fn make_connection(&mut self, Connect { id, listener, address }: Connect) {
        let result = self.begin_connecting(id, listener, &address);
        let conn = self.service.on_open(&mut Context::new(&mut self.connections), id, listener);
        let stream = match result {
            Ok(stream) => stream,
            Err(error) => {
                log::debug!("{id} to {address}: {error}");
                let unsent = self.connections.discard(id);
                return self.tell_closed(id, conn, Closed::new(CloseReason::Failed(error), unsent));
            }
        };
        log::debug!("{id} to {address}");
        self.connections.stats.opened += 1;
        self.attach(id.key(), ConnectionIo { stream, conn: Some(conn) });
        self.connections.touch(id.key()); // it may have been aborted
        if let Err(error) = self.watch(id.key(), Interest::ReadWrite) {
            self.close(id.key(), CloseReason::Failed(error));
        }
    }

    /// Begins to connect, if the listener has a place for it.
    fn begin_connecting(&mut self, id: ConnId, listener: ListenerId, address: &Address) -> io::Result<N::Stream> {
        let index = self.listener(listener)?;
        let at = &mut self.listeners[index];
        if !at.has_place() || self.connections.get(id).is_none() {
            return Err(at.full());
        }
        let stream = self.net.connect(address, &at.options)?;
        let place = at.enter(id.key(), self.connections.now);
        let connection = &mut self.connections[id.key()];
        connection.listener = index;
        connection.seat = Seat::Admitted(place);
        Ok(stream)
    }
}
