//! The client's side: the authorities and the names that servers are verified by.

use super::identity::provider;
use super::pem;
use crate::net::Address;
use rustls::client::Resumption;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use std::collections::HashMap;
use std::fmt;
use std::io::{self, ErrorKind, Read, Write};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The configuration of connections that go out, and the names of the servers that they go to. Clones share the names.
///
/// ```no_run
/// # use pollstack::{ConnId, Context, EventLoop, Limits, ListenerConfig, ListenerId, Service, net::{Address, Mio}};
/// # struct Caller;
/// # impl Service for Caller {
/// #     type Conn = ();
/// #     fn on_open(&mut self, _: &mut Context<'_>, _: ConnId, _: ListenerId) {}
/// #     fn on_data(&mut self, _: &mut Context<'_>, _: ConnId, _: &mut (), input: &[u8]) -> usize { input.len() }
/// # }
/// use pollstack::tls::{Client, Tls};
///
/// let server: Address = "192.0.2.1:443".parse()?;
/// let client = Client::load("authorities.pem".as_ref(), None)?;
/// client.set_names([(server.clone(), "example.org")])?;
/// let mut event_loop = EventLoop::with_net(Tls::new(Mio::new()?), Caller, Limits::default());
/// event_loop.net_mut().set_client(Some(client));
/// let outgoing = event_loop.listen(ListenerConfig::unbound())?;
/// event_loop.call(|_, cx| cx.connect(outgoing, server));
/// event_loop.run()?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone)]
pub struct Client {
    config: Arc<ClientConfig>,
    names: Arc<Mutex<Names>>,
}

type Names = HashMap<Address, ServerName<'static>>;

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client").field("names", &*self.names()).finish_non_exhaustive()
    }
}

impl Client {
    /// Makes a client of a configuration of rustls.
    pub fn new(config: Arc<ClientConfig>) -> Client {
        Client { config, names: Arc::default() }
    }

    /// Reads the certificates of authorities; and a certificate chain with its key, to be shown to servers that ask
    /// for one. All are PEM. Sessions are not resumed: each connection verifies its server.
    ///
    /// # Errors
    /// As those of [`Identity::load`](super::Identity::load).
    pub fn load(authorities: &Path, own: Option<(&Path, &Path)>) -> io::Result<Client> {
        let mut roots = RootCertStore::empty();
        for certificate in pem::certificates(authorities)? {
            roots.add(certificate).map_err(|error| pem::unusable(authorities, &error))?;
        }
        let config = ClientConfig::builder_with_provider(provider()).with_safe_default_protocol_versions();
        let config = config.map_err(io::Error::other)?.with_root_certificates(roots);
        let mut config = match own {
            None => config.with_no_client_auth(),
            Some((certificates, key)) => {
                let (chain, secret) = (pem::certificates(certificates)?, pem::key(key)?);
                config.with_client_auth_cert(chain, secret).map_err(|error| pem::misfit(certificates, key, &error))?
            }
        };
        config.resumption = Resumption::disabled();
        Ok(Client::new(Arc::new(config)))
    }

    /// Sets the names of the servers, by their addresses: DNS names or IP addresses. The certificate of a server has to
    /// hold for its name; that of a server without one, for its IP address. It is for connections from here on.
    ///
    /// # Errors
    /// `InvalidInput`: no certificate can have this name; nothing changes.
    pub fn set_names<'a>(&self, names: impl IntoIterator<Item = (Address, &'a str)>) -> io::Result<()> {
        let named = names.into_iter().map(|(address, name)| match ServerName::try_from(name.to_owned()) {
            Ok(server) => Ok((address, server)),
            Err(_) => Err(invalid(format!("cannot verify a server as `{name}`: give a DNS name or an IP address"))),
        });
        let named = named.collect::<io::Result<Names>>()?;
        *self.names() = named;
        Ok(())
    }

    fn names(&self) -> MutexGuard<'_, Names> {
        self.names.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Begins a session with the server at `address`.
    pub(super) fn session(&self, address: &Address) -> io::Result<ClientConnection> {
        let name = match (self.names().get(address).cloned(), address) {
            (Some(name), _) => name,
            (None, Address::Tcp(address)) => ServerName::from(address.ip()),
            (None, Address::Unix(_)) => {
                return Err(invalid(format!(
                    "cannot verify the server at {address}: it has no name; see `Client::set_names`"
                )));
            }
        };
        ClientConnection::new(Arc::clone(&self.config), name).map_err(io::Error::other)
    }

    /// Encrypts a stream that blocks, which is connected to `address`: returns when the handshake is complete.
    ///
    /// # Errors
    /// Those of the stream; `InvalidData` if the server is not to be trusted, or does not trust us.
    pub fn connect<S: Read + Write>(
        &self,
        address: &Address,
        stream: S,
    ) -> io::Result<StreamOwned<ClientConnection, S>> {
        let mut stream = StreamOwned::new(self.session(address)?, stream);
        while stream.conn.is_handshaking() {
            stream.conn.complete_io(&mut stream.sock)?;
        }
        Ok(stream)
    }
}

fn invalid(text: String) -> io::Error {
    io::Error::new(ErrorKind::InvalidInput, text)
}
