//! As much of an HTTP client as talking to a driver, or publishing a message, needs: one request,
//! one connection.

use crate::{Client, TEST_TIMEOUT};
use std::io::{ErrorKind, Read};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

/// A browser that starts on a busy machine takes its time.
const ANSWER_TIME: Duration = Duration::from_secs(4 * TEST_TIMEOUT.as_secs());

/// Sends a request with a text in it, and returns the status and the text of the reply.
pub fn ask(server: SocketAddr, method: &str, path: &str, media: &str, text: &str) -> (u16, String) {
    let mut client = Client::new(TcpStream::connect(server).expect("the server accepts"));
    client.stream().set_read_timeout(Some(ANSWER_TIME)).unwrap();
    let head = format!("{method} {path} HTTP/1.1\r\nHost: {server}\r\nConnection: close\r\nContent-Type: {media}\r\n");
    client.send(format!("{head}Content-Length: {}\r\n\r\n{text}", text.len()).as_bytes());
    let (mut reply, mut piece) = (Vec::new(), [0; 16 * 1024]);
    // A driver does not close the connection, whatever it is asked to do.
    loop {
        match client.read(&mut piece) {
            Ok(0) => panic!("{method} {path}: the reply ends after {} bytes", reply.len()),
            Ok(n) => reply.extend_from_slice(&piece[..n]),
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            Err(error) => panic!("{method} {path}: {error}"),
        }
        if let Some(whole) = parse(&reply) {
            return whole;
        }
    }
}

/// Returns the status, and what `Content-Length` says there is of the body; `None` if there is more to come.
fn parse(reply: &[u8]) -> Option<(u16, String)> {
    let end = memchr::memmem::find(reply, b"\r\n\r\n")?;
    let (head, body) = (std::str::from_utf8(&reply[..end]).expect("a head"), &reply[end + 4..]);
    let status = head.split(' ').nth(1).expect("a status").parse().expect("a number");
    let fields = head.lines().filter_map(|line| line.split_once(':'));
    let length = { fields }.find(|(name, _)| name.eq_ignore_ascii_case("content-length"));
    let length: usize = length.map_or(0, |(_, value)| value.trim().parse().expect("a length"));
    Some((status, String::from_utf8(body.get(..length)?.to_vec()).expect("a text")))
}
