//! TLS to an engine. Where it is not built in, `plain` is in its place.

use super::duplex::Duplex;
use crate::net::{Address, Mio};
use crate::tls::Tls;
use rustls::{CertificateError, Error};
use std::io;
use std::net::TcpStream;
use std::path::Path;

pub(super) use crate::tls::Client;

/// The network of a server with a link to an engine: TLS around mio's sockets, where it is built in.
pub type Network = Tls<Mio>;

/// Reads the files of a client.
pub(super) fn load(authorities: &Path, own: Option<(&Path, &Path)>) -> Result<Client, String> {
    Client::load(authorities, own).map_err(|error| error.to_string())
}

/// Notes which host is at which address.
pub(super) fn set_names(client: &Client, hosts: &[(Address, &str)]) -> Result<(), String> {
    client.set_names(hosts.iter().cloned()).map_err(|error| error.to_string())
}

/// Makes a network whose connections that go out are those of `client`, or are not encrypted.
pub(super) fn network(client: Option<&Client>) -> io::Result<Network> {
    let mut net = Tls::new(Mio::new()?);
    net.set_client(client.cloned());
    Ok(net)
}

/// Encrypts a stream that blocks.
pub(super) fn encrypt(client: &Client, address: &Address, stream: TcpStream) -> io::Result<Box<dyn Duplex>> {
    client.connect(address, stream).map(|stream| Box::new(stream) as Box<dyn Duplex>)
}

/// Returns what an error says, and what helps.
pub(super) fn explain(error: &io::Error) -> String {
    let remedy = match error.get_ref().and_then(|error| error.downcast_ref()) {
        Some(Error::InvalidCertificate(CertificateError::UnknownIssuer)) => "; --engine-ca has to be its authority",
        Some(Error::InvalidCertificate(_)) => "; --engine has to name a host that its certificate holds for",
        Some(Error::AlertReceived(_)) => {
            "; it may ask for --engine-cert and --engine-key, of an authority that it trusts"
        }
        Some(Error::InvalidMessage(_)) => "; its port does not speak TLS: write redis://, or its port for TLS",
        _ => "",
    };
    format!("{error}{remedy}")
}
