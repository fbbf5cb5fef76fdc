//! Sockets that a service manager has opened before the server was started, and the word that it waits for.
//!
//! The manager keeps the sockets while the server is started again, so no client is refused meanwhile
//! (sd_listen_fds(3), sd_notify(3)).

use crate::listener::ListenerConfig;
use crate::net::Socket;
use listenfd::ListenFd;
use sd_notify::NotifyState;
use std::env;
use std::io;

/// Sockets that were handed over, each with its name.
#[derive(Debug, Default)]
pub struct Activated(Vec<(String, Socket)>);

impl Activated {
    /// Takes the sockets that were handed to this process; none if it was started otherwise.
    ///
    /// # Errors
    /// The system's, if one of them is no listening socket of TCP or of a Unix path.
    pub fn from_env() -> io::Result<Activated> {
        let names = env::var("LISTEN_FDNAMES").unwrap_or_default();
        let mut names = names.split(':').map(str::to_owned);
        let mut sockets = ListenFd::from_env();
        let mut taken = Vec::new();
        for n in 0..sockets.len() {
            let tcp = sockets.take_tcp_listener(n).ok().flatten().map(Socket::from);
            let socket = match tcp {
                Some(socket) => Some(socket),
                None => sockets.take_unix_listener(n)?.map(Socket::from),
            };
            let name = names.next().unwrap_or_default();
            taken.extend(socket.map(|socket| (name, socket)));
        }
        Ok(Activated(taken))
    }

    /// Takes the sockets that `is` chooses by their names, as a listener; `None` if there are none.
    pub fn listener(&mut self, is: impl Fn(&str) -> bool) -> Option<ListenerConfig> {
        let (chosen, rest): (Vec<_>, Vec<_>) = std::mem::take(&mut self.0).into_iter().partition(|(name, _)| is(name));
        self.0 = rest;
        let config = ListenerConfig::unbound();
        (!chosen.is_empty()).then(|| chosen.into_iter().fold(config, |config, (_, socket)| config.socket(socket)))
    }
}

/// Tells the service manager, if there is one that waits for it, that the server is ready.
pub fn tell_ready() {
    if let Err(error) = sd_notify::notify(&[NotifyState::Ready]) {
        log::warn!("cannot tell the service manager that the server is ready: {error}");
    }
}
