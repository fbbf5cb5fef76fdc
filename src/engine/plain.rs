//! No TLS to an engine: `secure` where it is not built in.

use super::duplex::Duplex;
use crate::net::{Address, Mio};
use std::io;
use std::net::TcpStream;
use std::path::Path;

/// The network of a server with a link to an engine.
pub type Network = Mio;

/// There is none.
#[derive(Clone, Debug)]
pub(super) enum Client {}

pub(super) fn load(_: &Path, _: Option<(&Path, &Path)>) -> Result<Client, String> {
    Err("there is no TLS in this build; use redis:// and a tunnel".to_owned())
}

pub(super) fn set_names(client: &Client, _: &[(Address, &str)]) -> Result<(), String> {
    match *client {}
}

pub(super) fn network(_: Option<&Client>) -> io::Result<Network> {
    Mio::new()
}

pub(super) fn encrypt(client: &Client, _: &Address, _: TcpStream) -> io::Result<Box<dyn Duplex>> {
    match *client {}
}

pub(super) fn explain(error: &io::Error) -> String {
    error.to_string()
}
