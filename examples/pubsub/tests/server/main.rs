//! The publish and subscribe server: its rules over real sockets (`rules`), what subscribers read
//! (`streams`), nodes that share their channels in an engine (`shared`), WebSockets byte by byte and with a client that others have written (`sockets`), many
//! of them, and slow ones (`crowds`), and what needs a clock that jumps or a network that fails
//! (`simulated`).

mod crowds;
mod events;
mod rules;
mod secure;
mod shared;
#[allow(dead_code, reason = "a part is for its own main file only")]
mod simulated;
mod sockets;
mod streams;

use events::{Event, Stream};
use serde_json::{Value, json};
use test_support::replies::{Response, one};
use test_support::{Client, Server, command, wait_until};

/// The server on a free port.
fn start(args: &[&str]) -> Server {
    let mut all = vec!["--listen", "127.0.0.1:0"];
    all.extend(args);
    Server::spawn(command(env!("CARGO_BIN_EXE_pubsub"), &all), 1)
}

/// A request behind which the connection ends.
fn request(method: &str, target: &str, headers: &[(&str, &str)], body: &[u8]) -> Vec<u8> {
    let host = if headers.iter().any(|(name, _)| *name == "Host") { "" } else { "Host: localhost\r\n" };
    let fields: String = headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
    let length = if body.is_empty() { String::new() } else { format!("Content-Length: {}\r\n", body.len()) };
    let head = format!("{method} {target} HTTP/1.1\r\n{host}Connection: close\r\n{length}{fields}\r\n");
    [head.as_bytes(), body].concat()
}

fn ask(server: &Server, method: &str, target: &str, headers: &[(&str, &str)], body: &[u8]) -> Response {
    let reply = one(&server.send(&request(method, target, headers, body)).answer(), method);
    assert!(reply.closes(), "as it was asked to");
    reply
}

fn get(server: &Server, target: &str) -> Response {
    ask(server, "GET", target, &[], b"")
}

/// Publishes a message to the channel `c`; its id, and how many there are to get it.
fn publish(server: &Server, text: &str) -> (u64, u64) {
    publish_to(server, "c", text)
}

fn publish_to(server: &Server, channel: &str, text: &str) -> (u64, u64) {
    let target = format!("/channels/{channel}");
    let reply = ask(server, "POST", &target, &[("Content-Type", "text/plain")], text.as_bytes());
    assert_eq!(reply.status, 200, "{}", reply.text());
    let value: Value = serde_json::from_slice(&reply.body).unwrap();
    (value["id"].as_u64().unwrap(), value["subscribers"].as_u64().unwrap())
}

fn stats(server: &Server) -> Value {
    serde_json::from_slice(&get(server, "/stats").body).unwrap()
}

/// Waits until there are so many subscribers.
fn wait_for_subscribers(server: &Server, n: u64) {
    wait_until("they are subscribed", || (stats(server)["subscribers"] == n).then_some(()));
}

/// A stream of events of the channel `c`, once it is open.
fn subscribe(server: &Server, query: &str) -> Stream {
    let mut stream = Stream::new(server.send(&request("GET", &format!("/channels/c/events{query}"), &[], b"")));
    stream.open();
    stream
}
