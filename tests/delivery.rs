//! Answers arrive, and in order, whatever Linux makes of what clients do: bytes behind a request,
//! urgent bytes and passed descriptors within it, more events than one wait brings, a host that was
//! suspended, a process without descriptors.
#![cfg(target_os = "linux")]

use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
use socket2::SockRef;
use std::io::{ErrorKind, IoSlice, Read, Write};
use std::mem::MaybeUninit;
use std::net::SocketAddr;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use test_support::{Client, Server, pollstack, push, start, wait_until};

/// All that comes before the end of the stream or a reset: a reset may follow an answer, but nothing
/// replaces it.
fn until_end_or_reset(stream: &mut impl Read) -> Vec<u8> {
    let (mut answer, mut buffer) = (Vec::new(), [0; 256]);
    loop {
        match stream.read(&mut buffer) {
            Ok(0) => return answer,
            Ok(n) => answer.extend(&buffer[..n]),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            // Behind a FIN, Linux calls a reset a broken pipe.
            Err(error) if matches!(error.kind(), ErrorKind::ConnectionReset | ErrorKind::BrokenPipe) => return answer,
            Err(error) => panic!("{error}, behind {answer:?}"),
        }
    }
}

/// The bytes that a client reads that sends `request`, and then `stray` bytes, each in a packet of its own.
fn answer_with_stray_bytes(server: &Server, request: &[u8], stray: usize) -> Vec<u8> {
    let mut client = server.send(request);
    for _ in 0..stray {
        if client.stream().write_all(b"\xAA").is_err() {
            break; // the server has closed
        }
    }
    until_end_or_reset(&mut client)
}

/// Lost otherwise: items. A close over bytes that have just arrived is a reset, which destroys an
/// answer that is still corked; the server would call it delivered.
#[test]
fn stray_bytes_never_destroy_an_answer() {
    for stray in [1, 2, 12, 200] {
        let server = start!(&["--capacity", "1000"]);
        let _other = server.connect(); // newcomers are served at once only if they are alone
        server.barrier();
        for n in 0..1000u16 {
            let answer = answer_with_stray_bytes(&server, &push(&n.to_be_bytes()), stray);
            assert_eq!(answer, [0], "push {n} with {stray} stray bytes");
        }
        for n in (0..1000u16).rev() {
            let answer = answer_with_stray_bytes(&server, &[0x80], stray);
            assert_eq!(answer, push(&n.to_be_bytes()), "pop {n} with {stray} stray bytes");
        }
    }
}

/// Lost otherwise: the busy byte, to the same reset.
#[test]
fn stray_bytes_never_destroy_a_rejection() {
    let server = start!(&["--max-clients", "1", "--evict-after", "1h"]);
    let _holder = server.connect();
    server.barrier();
    for stray in [1, 2, 12, 200] {
        for n in 0..1000 {
            let answer = answer_with_stray_bytes(&server, &push(b"never stored"), stray);
            assert_eq!(answer, [0xFF], "rejection {n} with {stray} stray bytes");
        }
    }
}

/// Sends `request` with an urgent byte in front of its byte number `at`.
fn send_with_urgent_byte(client: &mut Client, request: &[u8], at: usize) {
    client.send(&request[..at]);
    SockRef::from(client.stream()).send_out_of_band(b"!").unwrap();
    client.send(&request[at..]);
}

/// Lost otherwise: clients whose requests hold an urgent byte, or are followed by one. A read stops
/// at its mark, and no further edge tells of what is behind it.
#[test]
fn urgent_bytes_neither_hide_a_request_nor_cost_its_answer() {
    let server = start!(&[]);
    let _other = server.connect();
    let request = push(b"hello");
    for round in 0..20 {
        for at in 0..=request.len() {
            // As a newcomer, as one that is known, and as one whose bytes are there in one piece.
            let mut newcomer = server.connect();
            send_with_urgent_byte(&mut newcomer, &request, at);
            let mut known = server.connect();
            server.barrier();
            send_with_urgent_byte(&mut known, &request, at);
            let mut suspended = server.connect();
            server.barrier();
            server.suspend();
            send_with_urgent_byte(&mut suspended, &request, at);
            server.signal("CONT");
            for (who, mut client) in [("newcomer", newcomer), ("known", known), ("suspended", suspended)] {
                let answer = until_end_or_reset(&mut client);
                assert_eq!(answer, [0], "round {round}, urgent byte at {at}, {who}");
                assert_eq!(server.popped(), b"hello");
            }
        }
    }
}

/// Sends one byte with a descriptor.
fn pass_descriptor(stream: &UnixStream, byte: u8) {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let (mut control, descriptors) = (SendAncillaryBuffer::new(&mut space), [stream.as_fd()]);
    assert!(control.push(SendAncillaryMessage::ScmRights(&descriptors)));
    sendmsg(stream, &[IoSlice::new(&[byte])], &mut control, SendFlags::empty()).unwrap();
}

/// Lost otherwise: the same for Unix sockets, whose reads stop at a passed descriptor; and their
/// answers, to bytes behind a request.
#[test]
fn passed_descriptors_do_not_hide_a_request() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("socket");
    let server = Server::spawn(pollstack!(&["--listen", &format!("unix:{}", path.display())]), 1);
    let request = push(b"hello");
    let _other = UnixStream::connect(&path).unwrap();
    for at in 0..request.len() {
        let mut client = UnixStream::connect(&path).unwrap();
        client.set_read_timeout(Some(test_support::TEST_TIMEOUT)).unwrap();
        server.wait_until_asleep();
        server.suspend();
        client.write_all(&request[..at]).unwrap();
        pass_descriptor(&client, request[at]);
        client.write_all(&request[at + 1..]).unwrap();
        pass_descriptor(&client, b'!');
        server.signal("CONT");
        assert_eq!(until_end_or_reset(&mut client), [0], "descriptor with byte {at}");
        for stray in [0, 1, 200] {
            let mut client = UnixStream::connect(&path).unwrap();
            client.write_all(&[0x80]).unwrap();
            let _ = (0..stray).try_for_each(|_| client.write_all(b"!"));
            let answer = until_end_or_reset(&mut client);
            assert_eq!(answer, push(b"hello"), "a pop with {stray} bytes behind it");
            let mut client = UnixStream::connect(&path).unwrap();
            client.write_all(&request).unwrap();
            assert_eq!(until_end_or_reset(&mut client), [0]);
        }
        let mut client = UnixStream::connect(&path).unwrap();
        client.write_all(&[0x80]).unwrap();
        assert_eq!(until_end_or_reset(&mut client), push(b"hello"));
    }
}

/// Lost otherwise: order, once more has happened than one wait of 1024 events brings: a client that
/// connected last would be served before thousands whose requests were whole by then.
#[test]
fn thousands_of_events_are_served_in_their_order() {
    rlimit::increase_nofile_limit(8000).unwrap();
    let server = start!(&["--max-clients", "5000", "--capacity", "5000"]);
    let clients: Vec<Client> = (0..2500).map(|_| server.connect()).collect();
    server.barrier();
    server.suspend();
    let mut clients = clients;
    clients.iter_mut().for_each(|client| client.send(&push(b"early")));
    let mut last = server.push(b"last");
    server.signal("CONT");
    assert_eq!(last.answer(), [0]);
    clients.iter_mut().for_each(|client| assert_eq!(client.answer(), [0]));
    assert_eq!(server.popped(), b"last", "it came after all the others");
}

/// Lost otherwise: an item, given to a client that had hung up before the item came. The descriptor
/// of the one who brings it has the earlier edge.
#[test]
fn a_client_that_hung_up_first_gets_no_item() {
    let server = start!(&[]);
    for round in 0..200u8 {
        let parked = server.pop();
        let mut slow = server.connect();
        server.barrier();
        server.suspend();
        slow.send(&[1]);
        drop(parked);
        slow.send(&[round]);
        server.signal("CONT");
        assert_eq!(slow.answer(), [0]);
        assert_eq!(server.popped(), [round], "it is still there");
    }
}

/// Lost otherwise: an item, given to a client that had sent its FIN with its request, but was parked.
#[test]
fn a_parked_newcomer_that_has_ended_gets_no_item() {
    let server = start!(&[]);
    let _other = server.connect();
    for round in 0..200u8 {
        server.barrier();
        server.suspend();
        let parked = server.pop();
        parked.fin();
        let mut pusher = server.push(&[round]);
        server.signal("CONT");
        assert_eq!(pusher.answer(), [0]);
        assert_eq!(server.popped(), [round], "it is still there");
    }
}

/// Lost otherwise: whole requests in the backlog of a server that is stopped while it has no
/// descriptors, although some come free at once.
#[test]
fn a_stop_without_descriptors_answers_the_backlog() {
    let mut server = start!(&["--grace", "20s"]);
    let holders: Vec<Client> = (0..5).map(|_| server.connect()).collect();
    server.barrier();
    // The wait of the barrier's own close is over when the server sleeps.
    server.wait_until_asleep();
    server.allow_descriptors(0);
    let mut waiting: Vec<Client> = (0..5).map(|n| server.push(&[n])).collect();
    let exhausted = || server.sleeps();
    let before = exhausted();
    wait_until("it has tried to accept", || (exhausted() > before).then_some(()));
    server.signal("TERM");
    drop(holders);
    waiting.iter_mut().for_each(|client| assert_eq!(client.answer(), [0]));
    assert!(server.wait().success());
}

/// Whether the kernel has a keepalive timer for the server's end of a connection.
fn has_keepalive(server: SocketAddr, client: SocketAddr) -> bool {
    let port = |address: SocketAddr| format!(":{:04X}", address.port());
    let table = std::fs::read_to_string("/proc/net/tcp").unwrap();
    let row = table.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    let mut row = row.filter(|row| row.len() > 5 && row[1].ends_with(&port(server)) && row[2].ends_with(&port(client)));
    row.any(|row| row[5].starts_with("02:"))
}

/// Lost otherwise: items, popped by clients whose machine has vanished, for good.
#[test]
fn a_parked_client_is_asked_whether_it_is_still_there() {
    let server = start!(&[]);
    let parked = server.pop();
    server.barrier();
    assert!(has_keepalive(server.address(), parked.stream().local_addr().unwrap()));
}
