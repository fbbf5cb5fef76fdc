//! The Accio server: its specification over real sockets (`rules`), what becomes of the files
//! (`files`), how it stops (`stopping`), and the service on a network in memory, for what must be
//! told to the nanosecond (`exact`).

mod exact;
mod files;
mod rules;
mod stopping;

use std::io::{ErrorKind, Read, Write};
use test_support::{Client, Server, TEST_TIMEOUT, command, run, wait_until};

const ACCIO: &[u8] = b"accio\r\n";
const CONFIRM: &[u8] = b"confirm-accio\r\n";
const CONFIRM_AGAIN: &[u8] = b"confirm-accio-again\r\n\r\n";

/// An Accio server on a free port.
fn start(args: &[&str]) -> Server {
    let mut all = vec!["0"];
    all.extend(args);
    Server::spawn_on_stderr(command(env!("CARGO_BIN_EXE_accio"), &all), 1)
}

/// A server on a free port, and how its clients reach it.
fn connect(server: &Server) -> Client {
    let port = server.address().port();
    Client::new(std::net::TcpStream::connect(("127.0.0.1", port)).expect("the server accepts"))
}

/// Waits for the command.
fn greeted(client: &mut Client) {
    let mut command = [0; ACCIO.len()];
    client.read_exact(&mut command).expect("the server commands");
    assert_eq!(command, ACCIO);
}

/// A client whose file is next.
fn confirmed(server: &Server) -> Client {
    let mut client = connect(server);
    greeted(&mut client);
    client.send(CONFIRM);
    greeted(&mut client);
    client.send(CONFIRM_AGAIN);
    client
}

/// Sends a file, in order, and returns what the server reports.
fn upload(server: &Server, bytes: &[u8]) -> String {
    let mut client = confirmed(server);
    client.send(bytes);
    client.fin();
    assert_eq!(client.answer(), b"", "the server closes");
    server.line()
}
