//! Many subscribers, slow ones, and more than there may be.

use super::*;
use socket2::{Domain, Socket, Type};

/// So many requests of one connection, which publish `text` each.
fn posts(count: usize, text: &str) -> Vec<u8> {
    let last = request("POST", "/channels/c", &[("Content-Type", "text/plain")], text.as_bytes());
    let kept = String::from_utf8(last.clone()).unwrap().replace("Connection: close\r\n", "");
    [kept.repeat(count - 1).into_bytes(), last].concat()
}

/// Lost otherwise: all subscribers' messages, or the machine's memory, to one who does not read.
#[test]
fn only_the_subscriber_that_does_not_read_is_disconnected() {
    let server = start(&["--max-message", "8192"]);
    let descriptors = server.descriptors();
    let narrow: Vec<Client> = (0..20)
        .map(|n| {
            let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
            socket.set_recv_buffer_size(4096).unwrap();
            socket.connect(&server.address().into()).unwrap();
            let mut client = Client::new(socket.into());
            client.send(&request(
                "GET",
                if n % 2 == 0 { "/channels/c/events" } else { "/channels/c/events?after=0" },
                &[],
                b"",
            ));
            client
        })
        .collect();
    let mut readers: Vec<Stream> = (0..5).map(|_| subscribe(&server, "")).collect();
    wait_for_subscribers(&server, 25);
    let text = "x".repeat(8192);
    let posts = posts(20, &text);
    // Far more than the kernel and the output hold of it.
    wait_until("they are disconnected", || {
        server.send(&posts).answer();
        for reader in &mut readers {
            assert!(reader.texts(20).iter().all(|read| *read == text));
        }
        (stats(&server)["disconnected_slow"] == 20).then_some(())
    });
    assert_eq!(stats(&server)["subscribers"], 5);
    // The five, and some that have just asked and are on their way out.
    assert!(server.descriptors() <= descriptors + 10, "nothing is left of them");
    assert!(server.peak_memory() < 40 << 20, "{} bytes were resident", server.peak_memory());
    drop(narrow);
}

/// Lost otherwise: the subscribers that read, to a burst that is more than a turn of the loop may write.
#[test]
fn a_burst_disconnects_no_subscriber_that_reads() {
    let server = start(&["--max-message", "8192"]);
    let mut readers: Vec<Stream> = (0..5).map(|_| subscribe(&server, "")).collect();
    let longest = "\n".repeat(8192);
    let _publisher = server.send(&posts(8, &longest));
    for reader in &mut readers {
        assert!(reader.texts(8).iter().all(|text| *text == longest));
    }
    assert_eq!((&stats(&server)["disconnected_slow"], &stats(&server)["subscribers"]), (&json!(0), &json!(5)));
}

/// Lost otherwise: every other client's time, to one that publishes as fast as it can; messages of that one, or a
/// subscriber that reads them.
#[test]
fn a_flood_waits_for_its_readers_and_holds_up_no_other_client() {
    let server = start(&[]);
    let mut readers: Vec<Stream> = (0..40).map(|_| subscribe(&server, "")).collect();
    let mut flood = sockets::raw(&server);
    wait_for_subscribers(&server, 41);
    let count = 9000;
    let frames: Vec<u8> = (0..count).flat_map(|_| sockets::frame(0x81, b"x")).collect();
    std::thread::scope(|scope| {
        // It reads, too: all that it has said comes back.
        let back = flood.stream().try_clone().unwrap();
        scope.spawn(move || {
            let mut bytes = vec![0; 1 << 16];
            let (mut back, mut messages) = (back, 0);
            while messages < count {
                let n = std::io::Read::read(&mut back, &mut bytes).unwrap();
                messages += memchr::memmem::find_iter(&bytes[..n], b"\"data\"").count();
                assert!(n > 0, "it is not cut");
            }
        });
        for reader in &mut readers {
            scope.spawn(move || assert_eq!(reader.texts(count).len(), count));
        }
        // Far from the end of the flood, others are served: they came when it did.
        server.suspend();
        flood.send(&frames);
        let mut other = server.send(&request("POST", "/channels/other", &[], b"between"));
        let mut asking = server.send(&request("GET", "/stats", &[], b""));
        server.signal("CONT");
        assert_eq!(one(&other.answer(), "POST").status, 200);
        let then: Value = serde_json::from_slice(&one(&asking.answer(), "GET").body).unwrap();
        assert!(then["published"].as_u64().unwrap() < count as u64 / 2, "{then}");
    });
    assert_eq!((&stats(&server)["disconnected_slow"], &stats(&server)["published"]), (&json!(0), &json!(count + 1)));
}

/// Lost otherwise: the truth. A reader that is behind, and does not read, is not a subscriber when what it would
/// have to read next is not held any more.
#[test]
fn who_is_left_behind_by_the_history_is_disconnected() {
    let server = start(&["--history", "100", "--history-bytes", "8000000"]);
    let text = "x".repeat(64 << 10);
    for _ in 0..100 {
        publish(&server, &text);
    }
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.set_recv_buffer_size(4096).unwrap();
    socket.connect(&server.address().into()).unwrap();
    let mut behind = Client::new(socket.into());
    behind.send(&request("GET", "/channels/c/events?after=0", &[], b""));
    wait_for_subscribers(&server, 1);
    for _ in 0..150 {
        publish(&server, &text);
    }
    assert_eq!((publish(&server, "a").1, &stats(&server)["disconnected_slow"]), (0, &json!(1)));
}

/// Lost otherwise: memory or descriptors, a little with every client that comes and goes.
#[test]
fn a_thousand_come_and_go() {
    rlimit::increase_nofile_limit(4096).unwrap();
    let server = start(&[]);
    let before = server.descriptors();
    let mut memory = 0;
    for round in 0..4 {
        let mut clients: Vec<Client> = (0..1000)
            .map(|n| match n % 3 {
                0 => server.send(&request("GET", "/channels/c/events", &[], b"")),
                1 => server.send(&request("GET", &format!("/channels/{n}/events?after=1"), &[], b"")),
                _ => server.send(&request("GET", "/channels/c/poll", &[], b"")),
            })
            .collect();
        wait_for_subscribers(&server, 1000);
        clients.drain(..500).for_each(Client::reset);
        drop(clients);
        wait_for_subscribers(&server, 0);
        assert_eq!(stats(&server)["channels"], 0, "forgotten");
        wait_until("descriptors return", || (server.descriptors() <= before + 1).then_some(()));
        match round {
            0 => memory = server.memory(),
            _ => assert!(server.memory() < memory + (2 << 20), "{memory} bytes, then {}", server.memory()),
        }
    }
}

/// Lost otherwise: a reason, for one too many.
#[test]
fn there_are_so_many_and_no_more() {
    let server = start(&["--max-subscribers", "2", "--max-channels", "2"]);
    let one = subscribe(&server, "");
    let other = server.send(&request("GET", "/channels/d/events", &[], b""));
    wait_for_subscribers(&server, 2);
    let reply = get(&server, "/channels/c/events");
    assert_eq!((reply.status, reply.header("Retry-After")), (503, Some("2")));
    assert_eq!(get(&server, "/channels/c/poll").status, 503);
    let post = |name: &str| ask(&server, "POST", &format!("/channels/{name}"), &[], b"a");
    assert_eq!(post("e").status, 503, "both channels are listened to");
    drop(other);
    wait_for_subscribers(&server, 1);
    assert_eq!(post("e").status, 200);
    assert_eq!(post("f").status, 200, "e has no subscribers");
    assert_eq!(stats(&server)["channels"], 2);
    assert_eq!(get(&server, "/channels/f/poll?after=0").status, 200);
    drop(one);
}

/// Lost otherwise: a WebSocket that publishes faster than its channel's readers read, or those readers.
#[test]
fn a_socket_that_floods_is_held_back() {
    let server = start(&[]);
    flood(&server, &server);
}

/// Has a WebSocket publish at `one` as fast as it can, and readers at `two` read all of it.
pub(crate) fn flood(one: &Server, two: &Server) {
    let mut streams: Vec<Stream> = (0..40).map(|_| subscribe(two, "")).collect();
    wait_for_subscribers(two, 40);
    let mut socket = sockets::connect(one, "");
    let mut echo = socket.get_ref().try_clone().unwrap();
    std::thread::spawn(move || std::io::copy(&mut echo, &mut std::io::sink()));
    let reads = |stream: &mut Stream| {
        for n in 0..2000 {
            let event = stream.next().expect("a message");
            assert_eq!(event.data.split(' ').next(), Some(n.to_string().as_str()));
        }
    };
    std::thread::scope(|scope| {
        streams.iter_mut().for_each(|stream| drop(scope.spawn(move || reads(stream))));
        let text = "x".repeat(200);
        (0..2000).for_each(|n| socket.send(tungstenite::Message::text(format!("{n} {text}"))).unwrap());
    });
    assert_eq!(stats(two)["disconnected_slow"], 0);
}
