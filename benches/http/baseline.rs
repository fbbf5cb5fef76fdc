//! The least that a message to many costs: a loop that sends it to each of them.
//!
//! It answers one request after the other, blocks while it reads one, and knows one channel. A subscriber
//! that does not read stops it.

use std::env;
use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::Command;

/// In the environment of a process that is to be the baseline.
const VARIABLE: &str = "POLLSTACK_HTTP_BASELINE";

/// Returns the command of the baseline: this program, as another process.
pub(crate) fn command() -> io::Result<Command> {
    let mut command = Command::new(env::current_exe()?);
    command.env(VARIABLE, "1");
    Ok(command)
}

/// Runs the baseline for as long as the process lives, if it was started as that.
pub(crate) fn run_if_asked() -> bool {
    let asked = env::var_os(VARIABLE).is_some();
    if asked {
        let _ = serve();
    }
    asked
}

fn serve() -> io::Result<()> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    println!("listening on {}", listener.local_addr()?);
    let mut subscribers = Vec::new();
    loop {
        let (stream, _) = listener.accept()?;
        stream.set_nodelay(true)?;
        let head = read_head(&stream)?;
        if head.starts_with(b"GET ") {
            (&stream).write_all(
                b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n",
            )?;
            subscribers.push(stream);
        } else {
            publish(&stream, head, &mut subscribers);
            subscribers.clear(); // the next publisher has subscribers of its own
        }
    }
}

/// Returns the head of a request, and what has come behind it.
fn read_head(mut stream: &TcpStream) -> io::Result<Vec<u8>> {
    let (mut bytes, mut part) = (Vec::new(), [0; 16 * 1024]);
    while memchr::memmem::find(&bytes, b"\r\n\r\n").is_none() {
        match stream.read(&mut part)? {
            0 => break,
            n => bytes.extend_from_slice(&part[..n]),
        }
    }
    Ok(bytes)
}

/// Sends every message of a publisher, which come with a request each in one read, to all subscribers.
fn publish(mut stream: &TcpStream, first: Vec<u8>, subscribers: &mut [TcpStream]) {
    let (mut request, mut id) = (first, 1_790_000_000_000_000_u64);
    while let Some(end) = memchr::memmem::find(&request, b"\r\n\r\n") {
        id += 1;
        let text = String::from_utf8_lossy(&request[end + 4..]).into_owned();
        let event = format!("id: {id}\ndata: {text}\n\n");
        let chunk = format!("{:x}\r\n{event}\r\n", event.len());
        for subscriber in &mut *subscribers {
            let _ = subscriber.write_all(chunk.as_bytes());
        }
        if stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").is_err() {
            return;
        }
        request = read_head(stream).unwrap_or_default();
    }
}
