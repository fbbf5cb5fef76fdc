//! The loop in the hands of those who embed it: in a poll of their own, on a thread of its own,
//! beside sources of their own.
#![cfg(unix)]

use mio::net::UnixStream;
use mio::{Events, Interest, Poll};
use pollstack::client::{Client, ClientError};
use pollstack::net::{Address, Peer, RESERVED_TOKENS, Stream};
use pollstack::stack::StackService;
use pollstack::{
    CloseReason, Closed, ConnId, Context, EventLoop, Limits, ListenerConfig, ListenerId, Overload, Service,
};
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::thread;
use std::time::{Duration, Instant};
use test_support::{Server, TEST_TIMEOUT, example};

fn listen() -> ListenerConfig {
    ListenerConfig::new("127.0.0.1:0".parse().unwrap())
}

fn tcp(address: &Address) -> SocketAddr {
    match address {
        Address::Tcp(address) => *address,
        Address::Unix(path) => panic!("{} is not TCP", path.display()),
    }
}

/// Lost otherwise: tools that already have a poll. Two loops share one here.
#[test]
fn two_loops_live_in_one_poll() {
    let mut poll = Poll::new().unwrap();
    let mut events = Events::with_capacity(64);
    let mut loops = [0..1100, 5000..7000].map(|tokens| {
        let limits = Limits::default().lingering(100);
        EventLoop::embedded(StackService::new(10), limits, poll.registry(), tokens).unwrap()
    });
    let addresses = loops.each_mut().map(|server| {
        let listener = server.listen(listen().max_conns(100)).unwrap();
        Client::new(tcp(&server.addresses(listener).unwrap()[0])).timeout(TEST_TIMEOUT)
    });
    let clients = thread::spawn(move || {
        for (n, client) in addresses.iter().enumerate() {
            client.push(&[n as u8]).unwrap();
        }
        addresses.map(|client| client.pop().unwrap())
    });
    while !clients.is_finished() {
        let timeout = loops.iter_mut().filter_map(EventLoop::timeout).min();
        poll.poll(&mut events, Some(timeout.unwrap_or(Duration::from_millis(10)))).unwrap();
        for event in &events {
            let takers = loops.iter_mut().filter_map(|server| server.handle_event(event).then_some(())).count();
            assert_eq!(takers, 1, "every event has one owner");
        }
        loops.iter_mut().for_each(EventLoop::turn);
    }
    assert_eq!(clients.join().unwrap(), [[0], [1]], "each loop has its own stack");
}

/// Lost otherwise: tools that are clients, too. One loop connects to the other here, in one poll.
#[test]
fn a_loop_adopts_connections_that_go_out() {
    /// Pushes its number, and hears that it is stored.
    struct Pusher(usize);

    impl Service for Pusher {
        type Conn = ();
        fn on_open(&mut self, cx: &mut Context<'_>, id: ConnId, _: ListenerId) {
            cx.send(id, b"\x01x").unwrap();
        }
        fn on_data(&mut self, _: &mut Context<'_>, _: ConnId, (): &mut (), input: &[u8]) -> usize {
            assert_eq!(input, [0]);
            self.0 += 1;
            1
        }
    }

    let mut poll = Poll::new().unwrap();
    let mut events = Events::with_capacity(64);
    let limits = Limits::default().lingering(100);
    let mut server = EventLoop::embedded(StackService::new(10), limits, poll.registry(), 0..1100).unwrap();
    let listener = server.listen(listen()).unwrap();
    let address = tcp(&server.addresses(listener).unwrap()[0]);
    let mut clients = EventLoop::embedded(Pusher(0), limits, poll.registry(), 2000..3100).unwrap();
    let outgoing = clients.listen(ListenerConfig::unbound().max_conns(10)).unwrap();
    for _ in 0..10 {
        let stream = mio::net::TcpStream::connect(address).unwrap();
        clients.adopt(outgoing, Stream::Tcp(stream), Peer::Tcp(address)).unwrap();
    }
    let start = Instant::now();
    while clients.service().0 < 10 || clients.stats().open > 0 {
        assert!(start.elapsed() < TEST_TIMEOUT);
        let timeout = server.timeout().into_iter().chain(clients.timeout()).min();
        poll.poll(&mut events, Some(timeout.unwrap_or(Duration::from_millis(10)))).unwrap();
        for event in &events {
            assert!(server.handle_event(event) || clients.handle_event(event));
        }
        server.turn();
        clients.turn();
    }
    assert_eq!(server.service().items(), 10);
}

/// A service that writes down how its outgoing connections end, and stops with the last.
struct Caller {
    outgoing: ListenerId,
    addresses: Vec<Address>,
    log: Vec<String>,
}

impl Service for Caller {
    type Conn = Vec<u8>;
    fn on_open(&mut self, cx: &mut Context<'_>, id: ConnId, _: ListenerId) -> Vec<u8> {
        cx.send(id, b"\x80").unwrap(); // a pop, before there is a connection
        Vec::new()
    }
    fn on_connect(&mut self, _: &mut Context<'_>, _: ConnId, _: &mut Vec<u8>) {
        self.log.push("connected".to_owned());
    }
    fn on_data(&mut self, _: &mut Context<'_>, _: ConnId, answer: &mut Vec<u8>, input: &[u8]) -> usize {
        answer.extend(input);
        input.len()
    }
    fn on_close(&mut self, cx: &mut Context<'_>, _: ConnId, answer: Vec<u8>, closed: Closed) {
        match closed.reason {
            CloseReason::Failed(error) => self.log.push(format!("{:?}", error.kind())),
            _ => self.log.push(String::from_utf8_lossy(&answer).into_owned()),
        }
        match self.addresses.pop() {
            Some(address) => drop(cx.connect(self.outgoing, address)),
            None => cx.stop(Duration::ZERO),
        }
    }
}

/// Lost otherwise: connections that a service asks for, over TCP and a Unix socket, and why there is
/// none.
#[test]
fn a_service_connects() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("stack.sock");
    let mut server = EventLoop::new(StackService::new(10)).unwrap();
    let unix = Address::Unix(path);
    let listener = server.listen(listen().address(unix.clone())).unwrap();
    let stack = server.addresses(listener).unwrap()[0].clone();
    let rejected = Address::Tcp(std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap());
    let busy = folder.path().join("busy.sock");
    let backlog = socket2::Socket::new(socket2::Domain::UNIX, socket2::Type::STREAM, None).unwrap();
    backlog.bind(&socket2::SockAddr::unix(&busy).unwrap()).unwrap();
    backlog.listen(0).unwrap();
    let _waits = std::os::unix::net::UnixStream::connect(&busy).unwrap();
    let client = Client::new(tcp(&stack)).timeout(TEST_TIMEOUT);
    let caller = thread::spawn(move || {
        let outgoing = ListenerId::new();
        let nowhere = Address::Unix(folder.path().join("missing"));
        let addresses = vec![nowhere, Address::Unix(busy), rejected, unix];
        let service = Caller { outgoing, addresses, log: Vec::new() };
        let mut event_loop = EventLoop::new(service).unwrap();
        event_loop.listen(ListenerConfig::unbound().id(outgoing)).unwrap();
        event_loop.call(|_, cx| cx.connect(outgoing, stack));
        event_loop.run().unwrap();
        event_loop.service().log.clone()
    });
    let pushes = thread::spawn(move || {
        client.push(b"one").unwrap();
        client.push(b"two").unwrap();
    });
    let handle = server.handle().unwrap();
    let log = thread::spawn(move || {
        pushes.join().unwrap();
        let log = caller.join().unwrap();
        handle.stop(Duration::ZERO).unwrap();
        log
    });
    server.run().unwrap();
    let log = log.join().unwrap();
    assert_eq!(log[0], "connected");
    assert_eq!(log[2], "connected", "a Unix socket, too");
    let mut popped = [log[1].trim_start_matches('\u{3}'), log[3].trim_start_matches('\u{3}')];
    popped.sort_unstable();
    assert_eq!(popped, ["one", "two"]);
    assert_eq!(log[4..], ["ConnectionRefused", "WouldBlock", "NotFound"]);
}

/// Lost otherwise: socket activation. The sockets are bound before the loop, by another process perhaps.
#[test]
fn a_ready_made_socket_is_listened_on() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("ready.sock");
    let tcp_socket = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let (address, unix) = (tcp_socket.local_addr().unwrap(), std::os::unix::net::UnixListener::bind(&path).unwrap());
    let early = thread::spawn(move || Client::new(address).timeout(TEST_TIMEOUT).push(b"early"));
    let mut server = EventLoop::new(StackService::new(10)).unwrap();
    let listener = server.listen(ListenerConfig::unbound().socket(tcp_socket).socket(unix)).unwrap();
    assert_eq!(server.addresses(listener).unwrap(), [Address::Tcp(address), Address::Unix(path.clone())]);
    let handle = server.handle().unwrap();
    let clients = thread::spawn(move || {
        early.join().unwrap().unwrap();
        let mut client = std::os::unix::net::UnixStream::connect(&path).unwrap();
        client.write_all(b"\x80").unwrap();
        let mut popped = Vec::new();
        client.read_to_end(&mut popped).unwrap();
        handle.stop(Duration::ZERO).unwrap();
        (popped, path)
    });
    server.run().unwrap();
    let (popped, path) = clients.join().unwrap();
    assert_eq!(popped, b"\x05early");
    assert!(path.exists(), "the file is not the loop's to remove");
}

/// Lost otherwise: one loop a core, on one port; and the notice of a second server that was not meant.
#[test]
fn a_port_is_shared_only_by_those_that_say_so() {
    let loops = || EventLoop::new(StackService::new(10)).unwrap();
    let (mut one, mut two) = (loops(), loops());
    let id = one.listen(listen().reuse_port(true)).unwrap();
    let address = one.addresses(id).unwrap()[0].clone();
    two.listen(ListenerConfig::new(address.clone()).reuse_port(true)).unwrap();
    assert_eq!(loops().listen(ListenerConfig::new(address)).unwrap_err().kind(), ErrorKind::AddrInUse);
}

/// Lost otherwise: the loop's own events, to a source that has its token.
#[test]
fn a_token_of_the_loops_own_is_rejected() {
    let poll = Poll::new().unwrap();
    let mut socket = mio::net::UdpSocket::bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let own = EventLoop::new(StackService::new(1)).unwrap();
    let error = own.register(&mut socket, RESERVED_TOKENS, Interest::READABLE).unwrap_err();
    assert_eq!(error.to_string(), "token 1024 is the loop's; use one below 1024");
    let limits = Limits::default().lingering(10);
    let embedded = EventLoop::embedded(StackService::new(1), limits, poll.registry(), 5..1000).unwrap();
    let error = embedded.register(&mut socket, 5, Interest::READABLE).unwrap_err();
    assert_eq!(error.to_string(), "token 5 is the loop's; use one outside 5..1000");
    embedded.register(&mut socket, 4, Interest::READABLE).unwrap();
    assert!(embedded.reregister(&mut socket, 5, Interest::READABLE).is_err(), "nor can a source get one later");
}

/// Lost otherwise: an owner of a few tokens whose loop would take another loop's.
#[test]
fn more_connections_than_tokens_is_an_error_that_names_both() {
    let poll = Poll::new().unwrap();
    let limits = Limits::default().lingering(10);
    let mut server = EventLoop::embedded(StackService::new(1), limits, poll.registry(), 100..264).unwrap();
    let error = server.listen(listen().max_conns(191)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidInput);
    assert!(error.to_string().contains("202") && error.to_string().contains("100 tokens"), "{error}");
    assert!(server.listen(listen().max_conns(89)).is_ok());
    assert!(server.listen(listen().max_conns(1)).is_err(), "what is left counts");
}

/// Lost otherwise: an event without an owner, because a connection was given another loop's token.
#[test]
fn no_token_is_outside_of_the_range() {
    let mut poll = Poll::new().unwrap();
    let mut events = Events::with_capacity(64);
    let limits = Limits::default().lingering(3);
    let tokens = 1000..1064 + 1 + 3 + 1;
    let mut server = EventLoop::embedded(StackService::new(1), limits, poll.registry(), tokens).unwrap();
    let listen = listen().max_conns(1).overload(Overload::Reject(b"\xFF".into()));
    let listener = server.listen(listen).unwrap();
    let address = tcp(&server.addresses(listener).unwrap()[0]);
    let clients: Vec<TcpStream> = (0..20).map(|_| TcpStream::connect(address).unwrap()).collect();
    let mut turn = |server: &mut EventLoop<StackService>| {
        poll.poll(&mut events, server.timeout().or(Some(TEST_TIMEOUT))).unwrap();
        events.iter().for_each(|event| assert!(server.handle_event(event), "{event:?}"));
        server.turn();
    };
    while server.stats().opened + server.stats().rejected < 20 {
        turn(&mut server);
    }
    clients.iter().for_each(|client| drop(client.shutdown(std::net::Shutdown::Both)));
    while server.stats().lingering > 0 || server.stats().open > 0 {
        turn(&mut server);
    }
}

/// Promises a hundred bytes of a file that has five.
struct Short(std::rc::Rc<std::fs::File>);

impl Service for Short {
    type Conn = ();

    fn on_open(&mut self, cx: &mut Context<'_>, id: ConnId, _: ListenerId) {
        cx.send_file(id, &self.0, 0, 100).unwrap();
    }

    fn on_data(&mut self, _: &mut Context<'_>, _: ConnId, (): &mut (), input: &[u8]) -> usize {
        input.len()
    }
}

/// Lost otherwise: clients that know the end of a message by the end of the stream, and would take
/// a part of it for the whole.
#[test]
fn a_stream_cut_short_ends_in_a_reset() {
    let (sender, receiver) = std::sync::mpsc::channel();
    let server = thread::spawn(move || {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(b"short").unwrap();
        let mut server = EventLoop::new(Short(std::rc::Rc::new(file))).unwrap();
        let listener = server.listen(listen()).unwrap();
        sender.send((server.handle().unwrap(), tcp(&server.addresses(listener).unwrap()[0]))).unwrap();
        server.run().unwrap();
    });
    let (handle, address) = receiver.recv().unwrap();
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(TEST_TIMEOUT)).unwrap();
    let result = stream.read_to_end(&mut Vec::new());
    assert_eq!(result.unwrap_err().kind(), ErrorKind::ConnectionReset);
    handle.stop(TEST_TIMEOUT).unwrap();
    server.join().unwrap();
}

/// Lost otherwise: an owner who waits for ever in a call that cannot work.
#[test]
fn an_embedded_loop_cannot_run_by_itself() {
    let poll = Poll::new().unwrap();
    let mut server = EventLoop::embedded(StackService::new(1), Limits::default(), poll.registry(), 0..10_000).unwrap();
    assert_eq!(server.run().unwrap_err().kind(), ErrorKind::InvalidInput);
    assert!(server.handle().is_err());
}

/// Lost otherwise: programs that run the loop on a thread and want it back.
#[test]
fn a_handle_stops_the_loop_from_another_thread() {
    let (sender, receiver) = std::sync::mpsc::channel();
    let server = thread::spawn(move || {
        let mut server = EventLoop::new(StackService::new(10)).unwrap();
        let listener = server.listen(listen()).unwrap();
        sender.send((server.handle().unwrap(), tcp(&server.addresses(listener).unwrap()[0]))).unwrap();
        server.run().unwrap();
        server.run().expect("a loop that has stopped returns at once");
        (server.service().items(), server.addresses(listener).unwrap().len())
    });
    let (handle, address) = receiver.recv().unwrap();
    let client = Client::new(address).timeout(TEST_TIMEOUT);
    client.push(b"a").unwrap();
    client.push(b"b").unwrap();
    let _silent = TcpStream::connect(address).unwrap(); // and so the whole grace would be waited for
    handle.stop(Duration::from_millis(50)).unwrap();
    handle.stop(Duration::from_secs(3600)).unwrap();
    assert_eq!(server.join().unwrap(), (2, 0), "it stops, and its state can be looked at");
    assert!(matches!(client.pop(), Err(ClientError::Unreachable(_))), "the listener is closed");
}

/// Runs until it is stopped, and not beyond the test's time.
struct Idle;

impl Service for Idle {
    type Conn = ();

    fn on_open(&mut self, _: &mut Context<'_>, _: ConnId, _: ListenerId) {}

    fn on_data(&mut self, _: &mut Context<'_>, _: ConnId, (): &mut (), input: &[u8]) -> usize {
        input.len()
    }

    fn on_timer(&mut self, _: &mut Context<'_>) {
        panic!("the test's time is over");
    }
}

fn idle_loop() -> EventLoop<Idle> {
    let mut event_loop = EventLoop::new(Idle).unwrap();
    event_loop.call(|_, cx| cx.set_timer(Some(cx.now() + TEST_TIMEOUT)));
    event_loop
}

/// Lost otherwise: what a source of one's own could not write at once.
#[test]
fn a_foreign_source_is_told_of_room() {
    let mut event_loop = idle_loop();
    let (mut near, mut far) = UnixStream::pair().unwrap();
    event_loop.register(&mut near, RESERVED_TOKENS - 1, Interest::WRITABLE).unwrap();
    far.write_all(b"not asked for").unwrap();
    let mut events = 0;
    event_loop
        .run_with(|event_loop, event| {
            assert_eq!((event.token().0, event.is_writable()), (RESERVED_TOKENS - 1, true), "{event:?}");
            events += 1;
            if events == 2 {
                return event_loop.stop(Duration::ZERO);
            }
            while near.write(&[0; 4096]).is_ok() {}
            while far.read(&mut [0; 4096]).is_ok() {}
        })
        .unwrap();
    assert_eq!(events, 2);
}

/// Lost otherwise: datagrams that a source of one's own leaves for later, so that clients have their turn.
#[test]
fn a_foreign_source_that_is_registered_again_is_told_again() {
    let mut event_loop = idle_loop();
    let mut socket = mio::net::UdpSocket::bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let sender = UdpSocket::bind("127.0.0.1:0").unwrap();
    let address = socket.local_addr().unwrap();
    (0..3).for_each(|n| assert_eq!(sender.send_to(&[n], address).unwrap(), 1));
    event_loop.register(&mut socket, 0, Interest::READABLE).unwrap();
    let mut received = Vec::new();
    event_loop
        .run_with(|event_loop, event| {
            assert!(event.is_readable(), "{event:?}");
            let mut buffer = [0];
            socket.recv(&mut buffer).unwrap();
            received.extend(buffer);
            match received.len() {
                3 => event_loop.stop(Duration::ZERO),
                _ => event_loop.reregister(&mut socket, 0, Interest::READABLE).unwrap(),
            }
        })
        .unwrap();
    assert_eq!(received, [0, 1, 2]);
}

/// Lost otherwise: half-open listeners, when one of several addresses cannot be had.
#[test]
fn a_listener_opens_all_its_addresses_or_none() {
    let mut server = EventLoop::new(StackService::new(1)).unwrap();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    // On an address without other sockets, it stays free.
    let free = std::net::TcpListener::bind("127.0.0.77:0").unwrap().local_addr().unwrap();
    let both = ListenerConfig::new(free.into()).address(taken.local_addr().unwrap().into());
    let error = server.listen(both.overload(Overload::Defer)).unwrap_err();
    assert!(error.to_string().contains(&taken.local_addr().unwrap().to_string()), "{error}");
    assert!(TcpStream::connect(free).is_err(), "the first has been closed again");
    server.listen(listen()).unwrap();
}

/// Lost otherwise: what the client tells its callers about a request that was not served.
#[test]
fn the_client_says_why() {
    let server = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let client = Client::new(server.local_addr().unwrap()).timeout(Duration::from_millis(50));
    assert!(matches!(client.push(b""), Err(ClientError::Length(0))));
    assert!(matches!(client.push(&[0; 128]), Err(ClientError::Length(128))));
    assert!(matches!(client.pop(), Err(ClientError::Io(_))), "an answer that does not come");
    let client = client.timeout(TEST_TIMEOUT);
    let answer = |answer: &'static [u8]| {
        let listener = server.try_clone().unwrap();
        thread::spawn(move || {
            loop {
                let mut stream = listener.accept().unwrap().0;
                if stream.read(&mut [0]).unwrap() > 0 {
                    return stream.write_all(answer).unwrap();
                }
            }
        });
    };
    // The connection that gave up above is still in the backlog; it has sent its request.
    drop(server.accept().unwrap());
    answer(b"\xFF");
    assert!(matches!(client.pop(), Err(ClientError::Busy)));
    answer(b"");
    assert!(matches!(client.pop(), Err(ClientError::Closed)));
    for wrong in [&b"\x05hell"[..], b"\x05hello!", b"\x80", b"\x00"] {
        answer(wrong);
        assert!(matches!(client.pop(), Err(ClientError::Protocol(_))), "{wrong:?}");
    }
    answer(b"\x05hello");
    assert_eq!(client.pop().unwrap(), b"hello");
}

// ---- the examples -------------------------------------------------------------------------------

/// Lost otherwise: the first thing a reader tries.
#[test]
fn the_echo_example_echoes_more_than_any_buffer_holds() {
    let echo = Server::spawn(example("echo", &["127.0.0.1:0"]), 1);
    let stream = TcpStream::connect(echo.address()).unwrap();
    stream.set_read_timeout(Some(TEST_TIMEOUT)).unwrap();
    let data: Vec<u8> = (0..20_000_000u32).map(|n| (n % 251) as u8).collect();
    let (mut reader, sent) = (stream.try_clone().unwrap(), data.clone());
    let writer = thread::spawn(move || {
        (&stream).write_all(&sent).unwrap();
        stream.shutdown(std::net::Shutdown::Write).unwrap();
    });
    let mut echoed = Vec::new();
    reader.read_to_end(&mut echoed).unwrap();
    writer.join().unwrap();
    assert!(echoed == data, "{} of {} bytes came back", echoed.len(), data.len());
}

/// Lost otherwise: the pattern that embedders copy.
#[test]
fn the_embed_example_serves_the_stack_beside_its_own_socket() {
    let embed = Server::spawn(example("embed", &["127.0.0.1:0", "127.0.0.1:0"]), 1);
    let client = Client::new(embed.address()).timeout(TEST_TIMEOUT);
    client.push(b"one").unwrap();
    client.push(b"two").unwrap();
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.set_read_timeout(Some(TEST_TIMEOUT)).unwrap();
    let mut answer = [0; 200];
    for (expected, pop) in [("2 items", true), ("1 items", false)] {
        socket.send_to(b"?", embed.address_behind("udp ")).unwrap();
        let n = socket.recv(&mut answer).unwrap();
        let text = String::from_utf8_lossy(&answer[..n]);
        assert!(text.starts_with(expected), "{text}");
        if pop {
            assert_eq!(client.pop().unwrap(), b"two");
        }
    }
}

/// Lost otherwise: a container that is stopped: SIGTERM ends no process of number 1 that does not ask for it. And the
/// way to start an example, for a reader who does not know it.
#[test]
fn examples_obey_sigterm_and_help() {
    for (name, args) in [("echo", &["127.0.0.1:0"][..]), ("embed", &["127.0.0.1:0", "127.0.0.1:0"])] {
        let mut server = Server::spawn(example(name, args), 1);
        server.signal("TERM");
        assert_eq!(server.wait().code(), Some(0), "{name}");
    }
    for name in ["echo", "http_echo"] {
        let help = test_support::run(example(name, &["--help"]));
        assert!(help.status.success() && help.stdout.starts_with(b"usage: "), "{help:?}");
    }
}

/// Lost otherwise: all cores but one; and clients of the other workers, when a signal stops one.
#[test]
#[cfg(target_os = "linux")]
fn the_workers_example_shares_a_port_and_drains_all() {
    use std::io::{BufRead, BufReader};
    let mut workers = Server::spawn(example("workers", &["127.0.0.1:0", "3"]), 1);
    let mut clients = Vec::new();
    let mut seen = std::collections::BTreeSet::new();
    while seen.len() < 3 {
        assert!(clients.len() < 500, "only {seen:?} have served 500 clients");
        let stream = TcpStream::connect(workers.address()).unwrap();
        stream.set_read_timeout(Some(TEST_TIMEOUT)).unwrap();
        let (mut client, mut line) = (BufReader::new(stream), String::new());
        client.read_line(&mut line).unwrap();
        seen.insert(line);
        clients.push(client);
    }
    assert!(seen.iter().map(String::as_str).eq(["worker 1\n", "worker 2\n", "worker 3\n"]));
    workers.signal("TERM");
    for client in &mut clients {
        // Those that are in are still served.
        client.get_mut().write_all(b"still\n").unwrap();
        let mut line = String::new();
        client.read_line(&mut line).unwrap();
        assert_eq!(line, "still\n");
    }
    drop(clients);
    assert!(workers.wait().success());
}
