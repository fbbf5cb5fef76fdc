//! The proxy example between real sockets: what it passes on, and how it ends.
#![cfg(unix)]

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::thread;
use std::time::Duration;
use test_support::{Server, TEST_TIMEOUT, example};

/// Starts the proxy in front of `upstream`.
fn proxy(upstream: SocketAddr) -> Server {
    Server::spawn(example("proxy", &["127.0.0.1:0", &upstream.to_string()]), 1)
}

fn upstream() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    (listener, address)
}

fn connect(server: &Server) -> TcpStream {
    let stream = TcpStream::connect(server.address()).unwrap();
    stream.set_read_timeout(Some(TEST_TIMEOUT)).unwrap();
    stream.set_write_timeout(Some(TEST_TIMEOUT)).unwrap();
    stream
}

/// Returns `n` bytes that no shift or loss leaves the same.
fn data(n: u32, from: u32) -> Vec<u8> {
    (from..from + n).flat_map(|n| n.wrapping_mul(2_654_435_761).to_le_bytes()).collect()
}

/// Sends `bytes` and the end, while it reads all that comes.
fn exchange(stream: TcpStream, bytes: Vec<u8>) -> Vec<u8> {
    let mut reader = stream.try_clone().unwrap();
    let writer = thread::spawn(move || {
        (&stream).write_all(&bytes).unwrap();
        stream.shutdown(Shutdown::Write).unwrap();
    });
    let mut received = Vec::new();
    reader.read_to_end(&mut received).unwrap();
    writer.join().unwrap();
    received
}

/// Lost otherwise: bytes, in either direction, however the buffers fill.
#[test]
fn both_directions_arrive_whole() {
    let (listener, address) = upstream();
    let proxy = proxy(address);
    let answers = thread::spawn(move || exchange(listener.accept().unwrap().0, data(5_000_000, 7)));
    let received = exchange(connect(&proxy), data(5_000_000, 0));
    assert!(received == data(5_000_000, 7));
    assert!(answers.join().unwrap() == data(5_000_000, 0));
}

/// Lost otherwise: the answer of a server that waits for the end of the question; and the question of a
/// client to a server that speaks first and ends.
#[test]
fn either_side_may_end_first() {
    let (listener, address) = upstream();
    let proxy = proxy(address);
    let server = thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut question = Vec::new();
        stream.read_to_end(&mut question).unwrap();
        stream.write_all(&question).unwrap();
        drop(stream);
        let (mut stream, _) = listener.accept().unwrap();
        stream.write_all(b"greeting").unwrap();
        stream.shutdown(Shutdown::Write).unwrap();
        let mut late = Vec::new();
        stream.read_to_end(&mut late).unwrap();
        late
    });
    assert_eq!(exchange(connect(&proxy), vec![b'q'; 1000]), [b'q'; 1000]);
    let mut client = connect(&proxy);
    let mut greeting = Vec::new();
    client.read_to_end(&mut greeting).unwrap();
    assert_eq!(greeting, b"greeting");
    client.write_all(b"late").unwrap();
    drop(client);
    assert_eq!(server.join().unwrap(), b"late");
}

/// Lost otherwise: the truth about an answer that was cut, or about an upstream that is not there.
#[test]
fn a_failure_of_one_side_is_a_reset_of_the_other() {
    let (listener, address) = upstream();
    let proxy = proxy(address);
    let mut client = connect(&proxy);
    let (stream, _) = listener.accept().unwrap();
    (&stream).write_all(b"half").unwrap();
    client.read_exact(&mut [0; 4]).unwrap();
    client.write_all(b"unread").unwrap(); // a close over it is a reset
    stream.peek(&mut [0; 6]).unwrap();
    drop(stream);
    assert_eq!(client.read(&mut [0; 1]).unwrap_err().kind(), ErrorKind::ConnectionReset);
    drop(listener);
    let mut client = connect(&proxy);
    assert_eq!(client.read(&mut [0; 1]).unwrap_err().kind(), ErrorKind::ConnectionReset);
}

/// Lost otherwise: the proxy's memory, to an upstream that does not read.
#[test]
fn a_slow_side_holds_the_other_back() {
    let (listener, address) = upstream();
    let proxy = proxy(address);
    let client = connect(&proxy);
    let (mut stream, _) = listener.accept().unwrap();
    client.set_write_timeout(Some(Duration::from_millis(300))).unwrap();
    let (before, mut sent) = (proxy.memory(), 0);
    // Until nothing goes on: the kernels' buffers are full, and the proxy's.
    let full = loop {
        match (&client).write(&[b'x'; 65536]) {
            Ok(n) => sent += n,
            Err(error) => break error,
        }
    };
    assert_eq!(full.kind(), ErrorKind::WouldBlock);
    assert!(proxy.memory() - before < 2 << 20, "{} KiB for a slow side", (proxy.memory() - before) >> 10);
    drop(client);
    let mut received = Vec::new();
    stream.read_to_end(&mut received).unwrap();
    assert_eq!(received.len(), sent, "all that was taken arrives");
}

/// Lost otherwise: clients, or their places, when there are many.
#[test]
fn hundreds_of_clients_have_each_their_own_upstream() {
    let (listener, address) = upstream();
    let proxy = proxy(address);
    let server = thread::spawn(move || {
        for _ in 0..400 {
            let (mut stream, _) = listener.accept().unwrap();
            let mut name = [0; 4];
            stream.read_exact(&mut name).unwrap();
            stream.write_all(&name).unwrap();
        }
    });
    let clients: Vec<TcpStream> = (0..400u32)
        .map(|n| {
            let mut client = connect(&proxy);
            client.write_all(&n.to_le_bytes()).unwrap();
            client
        })
        .collect();
    for (n, mut client) in (0u32..).zip(clients) {
        let mut name = Vec::new();
        client.read_to_end(&mut name).unwrap();
        assert_eq!(name, n.to_le_bytes());
    }
    server.join().unwrap();
}
