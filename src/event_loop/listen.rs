//! Listeners that open, and that close alone.

use super::{EventLoop, SocketPlace, State};
use crate::id::ListenerId;
use crate::listener::{Listener, ListenerConfig, ListeningSocket, Overload};
use crate::net::{Address, Net};
use crate::service::Service;
use std::fmt;
use std::io::{self, ErrorKind};

impl<S: Service, N: Net> EventLoop<S, N> {
    /// Opens a listener.
    ///
    /// # Errors
    /// A [`ListenError`] for an address that cannot be listened on; `InvalidInput` if the loop's
    /// [`Net`] cannot tell so many connections apart, if the listener would never accept one, if its id
    /// is that of another, or if the loop is stopping.
    pub fn listen(&mut self, config: ListenerConfig) -> io::Result<ListenerId> {
        self.check_running()?;
        self.check_tokens(config.max_conns)?;
        if config.max_conns == 0 && matches!(config.overload, Overload::Defer) {
            return Err(invalid("max_conns(0) with Overload::Defer never accepts a connection; admit at least 1"));
        }
        if config.id.is_some_and(|id| self.listener(id).is_ok()) {
            return Err(invalid("the loop has a listener of this id already"));
        }
        // The place of a listener that has closed, and has no connections left, is free again.
        let index = self.listeners.iter().position(Listener::is_over).unwrap_or(self.listeners.len());
        let mut listener = Listener::new(&config);
        if let Err(error) = self.open_sockets(&mut listener, index, &config) {
            self.close_sockets(listener.close());
            return Err(error);
        }
        let id = listener.id;
        match self.listeners.get_mut(index) {
            Some(over) => *over = listener,
            None => self.listeners.push(listener),
        }
        Ok(id)
    }

    /// Opens the sockets of the listener that will be under `index`.
    fn open_sockets(
        &mut self,
        listener: &mut Listener<N::Listener>,
        index: usize,
        config: &ListenerConfig,
    ) -> io::Result<()> {
        for address in &config.addresses {
            let free = self.free_socket_index();
            let socket = self.net.listen(address, &config.socket, free);
            let socket = socket.map_err(|error| ListenError { address: address.clone(), error }.into_io())?;
            self.add_socket(listener, index, socket, free);
        }
        for ready in &config.ready {
            let free = self.free_socket_index();
            let socket = ready.try_clone().and_then(|ready| self.net.listen_on(ready, &config.socket, free))?;
            self.add_socket(listener, index, socket, free);
        }
        Ok(())
    }

    /// Returns the least index that no socket has.
    fn free_socket_index(&self) -> usize {
        self.sockets.iter().position(Option::is_none).unwrap_or(self.sockets.len())
    }

    fn add_socket(&mut self, listener: &mut Listener<N::Listener>, index: usize, socket: N::Listener, free: usize) {
        let place = Some(SocketPlace { listener: index, socket: listener.sockets.len() });
        match self.sockets.get_mut(free) {
            Some(vacant) => *vacant = place,
            None => self.sockets.push(place),
        }
        listener.add_socket(socket, free);
    }

    /// Closes a listener alone. The connections in its backlog are reset; those that it has admitted
    /// stay, and those that have been accepted are still admitted or rejected.
    ///
    /// ```
    /// # use pollstack::{EventLoop, ListenerConfig, stack::StackService};
    /// let mut server = EventLoop::new(StackService::new(100))?;
    /// let old = server.listen(ListenerConfig::new("127.0.0.1:0".parse()?))?;
    /// let new = server.listen(ListenerConfig::new("127.0.0.1:0".parse()?))?;
    /// server.close_listener(old)?;
    /// assert!(server.addresses(old)?.is_empty() && server.close_listener(old).is_err());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// `InvalidInput` if the loop has no such listener.
    pub fn close_listener(&mut self, listener: ListenerId) -> io::Result<()> {
        let index = self.listener(listener)?;
        let sockets = self.listeners[index].close();
        self.close_sockets(sockets);
        Ok(())
    }

    pub(super) fn close_sockets(&mut self, sockets: Vec<ListeningSocket<N::Listener>>) {
        for socket in sockets {
            self.sockets[socket.index] = None;
            self.net.close_listener(socket.socket);
        }
    }

    /// Returns the index of a listener that has not closed.
    pub(super) fn listener(&self, id: ListenerId) -> io::Result<usize> {
        let found = self.listeners.iter().position(|listener| listener.id == id && !listener.is_closed());
        found.ok_or_else(|| invalid("the loop has no such listener"))
    }

    pub(super) fn check_running(&self) -> io::Result<()> {
        match self.state {
            State::Running if self.connections.stop.is_none() => Ok(()),
            _ => Err(invalid("the loop has been asked to stop")),
        }
    }

    fn check_tokens(&self, max_conns: usize) -> io::Result<()> {
        let admitted: usize = self.listeners.iter().map(Listener::capacity).sum();
        let rejected = 1; // at a time
        let asked = [max_conns, self.connections.limits.lingering, rejected];
        let asked = asked.into_iter().fold(admitted, usize::saturating_add);
        let names = self.net.max_connections();
        if asked <= names {
            return Ok(());
        }
        let text = format!(
            "cannot listen: {asked} connections, lingering ones included, need more than {names} tokens; lower max_conns"
        );
        Err(io::Error::new(ErrorKind::InvalidInput, text))
    }
}

/// An address that could not be listened on, with the reason and a remedy. It is the inner error of
/// what [`EventLoop::listen`] returns.
#[derive(Debug)]
pub struct ListenError {
    address: Address,
    error: io::Error,
}

fn invalid(text: &'static str) -> io::Error {
    io::Error::new(ErrorKind::InvalidInput, text)
}

impl ListenError {
    fn into_io(self) -> io::Error {
        io::Error::new(self.error.kind(), self)
    }

    /// Returns the address.
    pub fn address(&self) -> &Address {
        &self.address
    }
}

impl fmt::Display for ListenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let remedy = match self.error.kind() {
            ErrorKind::AddrInUse => "; is another server running there? Stop it, or take another address",
            ErrorKind::AddrNotAvailable => "; it has to be an address of this machine, 0.0.0.0 or [::] for all",
            ErrorKind::PermissionDenied => "; ports below 1024 and protected folders need privileges",
            _ => "",
        };
        write!(f, "cannot listen on {}: {}{remedy}", self.address, self.error)
    }
}

impl std::error::Error for ListenError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::error::Error;

    /// Lost otherwise: the system's own words, in a program that prints the causes of an error.
    #[test]
    fn a_listen_error_names_its_address_and_keeps_its_cause() {
        let error = ListenError { address: "127.0.0.1:80".parse().unwrap(), error: ErrorKind::AddrInUse.into() };
        assert!(error.to_string().starts_with("cannot listen on 127.0.0.1:80: "), "{error}");
        assert_eq!(error.source().unwrap().to_string(), error.error.to_string());
    }
}
