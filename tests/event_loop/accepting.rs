//! Newcomers: let in, put off, rejected; and a system without room for them.

use super::*;
use std::cell::RefCell;

/// Lost otherwise: the processor (a loop that tries again and again) or the service (one that
/// never does) when the system has no descriptor left.
#[test]
fn without_descriptors_it_waits_for_a_close_or_a_short_time() {
    let world = World::new(0);
    let mut server = serve(&world, Probe::silent());
    let (first, second) = (world.connect(), world.connect());
    world.settle(&mut server);
    for kind in [ErrorKind::Other, ErrorKind::OutOfMemory] {
        world.fail_accepts([kind]);
        let client = world.send(b"x");
        let turns = world.settle(&mut server);
        assert!(turns <= 2, "{turns} turns");
        assert_eq!(client.unread(), 1);
        let retry = server.timeout().expect("a time to try again, as nothing may ever close");
        assert!(retry > Duration::ZERO && retry <= Duration::from_millis(100));
        if kind == ErrorKind::Other {
            first.end();
        } else {
            world.advance(retry);
            world.turn(&mut server);
        }
        world.settle(&mut server);
        assert_eq!(client.unread(), 0, "accepted without a new edge of the listener");
        assert_eq!(server.timeout(), None);
    }
    assert!(!second.is_closed(), "no connection was closed for it");
}

/// Lost otherwise: newcomers, rejected for the sake of connections that are already over.
#[test]
fn without_descriptors_lingering_connections_go_first() {
    let world = World::new(0);
    let mut server = serve(&world, Probe::once());
    let lingering = world.send(&[b'x'; 70_000]);
    world.settle(&mut server);
    assert_eq!(server.stats().lingering, 1);
    world.fail_accepts([ErrorKind::Other]);
    let client = world.send(b"x");
    world.settle(&mut server);
    assert!(lingering.is_closed());
    assert_eq!(client.read(), b".");
}

/// Lost otherwise: those behind a connection that was lost in the backlog.
#[test]
fn an_aborted_connection_is_skipped() {
    let world = World::new(0);
    let mut server = serve(&world, Probe::once());
    let mut modest = world.serve(Probe::once(), Limits::default().accepts(1), listener(10, Overload::Defer));
    for server in [&mut server, &mut modest] {
        world.fail_accepts([ErrorKind::ConnectionAborted, ErrorKind::Interrupted, ErrorKind::NetworkDown]);
        let clients: Vec<Client> = (0..5).map(|_| world.send(b"x")).collect();
        world.settle(server);
        assert!(clients.iter().all(|client| client.read() == b"."));
        assert_eq!(server.timeout(), None, "without a pause");
    }
}

/// Lost otherwise: the processor, to an accept that fails every time and uses nothing up.
#[test]
fn an_error_that_stays_is_waited_out() {
    let world = World::new(0);
    let mut server = serve(&world, Probe::once());
    world.fail_accepts([ErrorKind::PermissionDenied; 1_000]);
    let client = world.send(b"x");
    let mut waits = 0;
    while client.read() != b"." {
        world.settle(&mut server);
        if let Some(retry) = server.timeout() {
            world.advance(retry);
            world.turn(&mut server);
        }
        waits += 1;
        assert!(waits < 20, "it goes on in the end");
    }
    assert!(waits > 5, "with a pause now and then");
}

/// Lost otherwise: half of the addresses of a server that is full.
#[test]
fn every_address_of_a_listener_gets_its_share_of_the_places() {
    let world = World::new(0);
    let mut server = EventLoop::with_net(world.net(), Probe::silent(), Limits::default());
    let both = ListenerConfig::new("127.0.0.1:1".parse().unwrap()).address("127.0.0.1:2".parse().unwrap());
    server.listen(both.max_conns(2)).unwrap();
    let _holder = world.connect_to(0);
    world.settle(&mut server);
    let queues = [0, 1].map(|door| (0..50).map(|_| world.connect_to(door)).collect::<Vec<_>>());
    for _ in 0..40 {
        world.settle(&mut server);
        queues.iter().flatten().filter(|client| client.is_accepted() && !client.is_closed()).for_each(Client::end);
    }
    let served = queues.map(|queue| queue.iter().filter(|client| client.is_accepted()).count());
    assert!(served[0].abs_diff(served[1]) <= 1, "{served:?}");
}

/// Lost otherwise: a client evicted a moment too early, or a newcomer rejected too late.
#[test]
fn the_oldest_is_evicted_only_beyond_its_age() {
    let (world, age, tick) = (World::new(0), Duration::from_secs(10), Duration::from_nanos(1));
    let evict = Overload::EvictOldest { after: age, otherwise: b"busy".into() };
    let mut server = world.serve(Probe::silent(), Limits::default(), listener(2, evict));
    let oldest = world.connect();
    world.settle(&mut server);
    world.advance(tick);
    let second = world.connect();
    world.settle(&mut server);
    for (passes, rejected) in [(age - tick - tick, true), (tick, true), (tick, false)] {
        world.advance(passes);
        let newcomer = world.connect();
        world.settle(&mut server);
        assert_eq!(newcomer.read(), if rejected { &b"busy"[..] } else { b"" });
        assert_eq!(oldest.is_closed(), !rejected);
    }
    assert!(!second.is_closed());
    assert_eq!(news(&server).last().unwrap(), &"#5 open");
    assert!(news(&server).contains(&"#1 close Evicted unsent 0"));
    world.advance(tick);
    let _newcomer = world.connect();
    world.settle(&mut server);
    assert!(second.is_closed(), "it has become the oldest");
}

/// Lost otherwise: a rejected client's reply, or more system calls than a flood of them is worth.
#[test]
fn a_rejection_costs_five_calls_or_lingers() {
    let world = World::new(0);
    let mut server = world.serve(Probe::silent(), Limits::default(), listener(1, busy()));
    let _holder = world.connect();
    world.settle(&mut server);
    world.take_calls();
    let ready = world.send(b"x");
    world.settle(&mut server);
    assert_eq!(world.take_calls(), ["accept", "accept", "read", "write_more", "shutdown_write", "close"]);
    let part = world.send(b"the first part");
    world.settle(&mut server);
    assert_eq!(world.take_calls(), ["accept", "accept", "read", "write_more", "shutdown_write", "watch"]);
    part.end();
    world.settle(&mut server);
    assert_eq!(world.take_calls(), ["read", "close"]);
    let late = world.connect();
    world.settle(&mut server);
    assert_eq!(world.take_calls(), ["accept", "accept", "read", "write_more", "shutdown_write", "watch"]);
    assert_eq!(server.stats().open, 1, "a lingering connection is no client");
    late.send(b"x");
    late.end();
    world.settle(&mut server);
    assert_eq!(world.take_calls(), ["read", "read", "close"]);
    for client in [&ready, &part, &late] {
        assert_eq!(client.read(), b"busy");
        assert!(client.has_ended() && client.is_closed());
    }
    assert_eq!(server.stats().rejected, 3);
    assert_eq!(news(&server), ["#1 open"], "the service never hears of them");
}

/// Lost otherwise: descriptors, to clients without a window for their rejection.
#[test]
fn a_rejection_that_finds_no_room_lingers() {
    let world = World::new(0);
    let mut server = world.serve(Probe::silent(), Limits::default(), listener(0, busy()));
    let clients = [0; 2].map(|_| world.send(b"x"));
    clients.iter().for_each(|client| client.set_room(0));
    world.settle(&mut server);
    assert_eq!(server.stats().lingering, 2);
    clients[0].set_room(10);
    world.settle(&mut server);
    assert_eq!((clients[0].read(), clients[0].is_closed()), (b"busy".to_vec(), true));
    world.advance(Limits::default().linger_time);
    world.settle(&mut server);
    assert!(clients[1].is_closed() && server.stats().lingering == 0);
}

/// Lost otherwise: clients that a server which serves one at a time would have to reject.
#[test]
fn a_deferring_listener_accepts_when_a_place_is_free() {
    let world = World::new(0);
    let mut server = world.serve(Probe::once(), Limits::default(), listener(1, Overload::Defer));
    let clients: Vec<Client> = (0..11).map(|_| world.connect()).collect();
    world.settle(&mut server);
    for (n, client) in clients.iter().enumerate() {
        assert_eq!(world.waiting(), 10 - n, "one at a time");
        client.send(b"x");
        world.settle(&mut server);
        assert_eq!(client.read(), b".");
    }
}

/// Lost otherwise: the operator's way in, while the service's own listener is full.
#[test]
fn each_listener_counts_its_own_connections() {
    let world = World::new(0);
    let mut server = world.serve(Probe::silent(), Limits::default(), listener(1, busy()));
    server.listen(listener(1, busy())).unwrap();
    let (first, _) = (world.connect_to(0), world.connect_to(0));
    let second = world.connect_to(1);
    world.settle(&mut server);
    assert_eq!((server.stats().open, server.stats().rejected), (2, 1));
    assert!(!first.is_closed() && !second.is_closed());
}

/// Lost otherwise: connections that were made from here, inherited or handed over; and the bound
/// on them.
#[test]
fn an_adopted_connection_is_admitted_as_a_newcomer_is() {
    let world = World::new(0);
    let mut server = EventLoop::with_net(world.net(), Probe::once(), Limits::default());
    let outgoing = server.listen(ListenerConfig::unbound().max_conns(2).overload(busy())).unwrap();
    assert_eq!(server.addresses(outgoing).unwrap(), []);
    let (clients, streams): (Vec<Client>, Vec<Stream>) = (0..3).map(|_| world.stream()).unzip();
    let adopted: Vec<_> = streams.into_iter().map(|stream| server.adopt(outgoing, stream, Peer::Unix)).collect();
    let ids: Vec<ConnId> = adopted[..2].iter().map(|id| *id.as_ref().unwrap()).collect();
    assert_eq!(server.service().ids, ids, "the service is told of the id at once");
    assert_eq!(adopted[2].as_ref().unwrap_err().kind(), ErrorKind::ResourceBusy);
    world.settle(&mut server);
    assert_eq!(clients[2].read(), b"busy");
    assert_eq!((server.stats().open, server.stats().rejected), (2, 1));
    clients[0].send(b"x");
    world.settle(&mut server);
    assert_eq!(clients[0].read(), b".");

    let few = server.listen(ListenerConfig::unbound().max_conns(1)).unwrap();
    server.adopt(few, world.stream().1, Peer::Unix).unwrap();
    let error = server.adopt(few, world.stream().1, Peer::Unix).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ResourceBusy, "it would never be admitted");
    world.settle(&mut server);
    assert_eq!(server.stats().open, 2);

    server.stop(Duration::ZERO);
    world.settle(&mut server);
    assert!(clients[1].is_closed());
    let error = server.adopt(outgoing, world.stream().1, Peer::Unix).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidInput, "it would never be closed");
}

/// Lost otherwise: a place, to a client that has more than its share; or the service's say in who goes.
#[test]
fn a_service_may_reject_and_make_way() {
    let world = World::new(0);
    let mut server = world.serve(Probe::silent(), Limits::default(), listener(2, busy()));
    let clients = [world.connect(), world.connect()];
    world.settle(&mut server);
    server.call(|probe, _| probe.welcome = false);
    clients[0].end();
    world.settle(&mut server);
    let unwelcome = world.send(b"x");
    world.settle(&mut server);
    assert_eq!(unwelcome.read(), b"busy", "though there is a place");
    server.call(|probe, _| probe.welcome = true);
    let third = world.connect();
    world.settle(&mut server);
    let ids = server.service().ids.clone();
    assert_eq!((ids.len(), third.is_closed()), (3, false));
    // The one that the service names goes, if it is there to go.
    for (way, evicted) in [(None, false), (Some(ids[0]), false), (Some(ids[2]), true)] {
        server.call(|probe, _| probe.way = way);
        let late = world.send(b"x");
        world.settle(&mut server);
        assert_eq!((late.read() == b"busy", third.is_closed()), (!evicted, evicted), "{way:?}");
    }
    assert_eq!((server.stats().evicted, server.stats().open), (1, 2));
    assert!(!clients[1].is_closed(), "the other one stays");
    server.listen(listener(1, busy())).unwrap();
    let elsewhere = world.connect_to(1);
    world.settle(&mut server);
    server.call(|probe, _| probe.way = probe.ids.last().copied());
    let late = world.send(b"x");
    world.settle(&mut server);
    assert_eq!((late.read() == b"busy", elsewhere.is_closed()), (true, false), "a place elsewhere is no use");
}

/// Lost otherwise: the place of each client that a service has rejected.
#[test]
fn an_unwelcome_client_takes_no_place() {
    let world = World::new(0);
    let mut server = world.serve(Probe::silent(), Limits::default(), listener(1, Overload::Defer));
    server.call(|probe, _| probe.welcome = false);
    let unwelcome = world.send(b"x");
    world.settle(&mut server);
    assert!(unwelcome.is_closed());
    server.call(|probe, _| probe.welcome = true);
    let client = world.connect();
    world.settle(&mut server);
    assert!(client.is_accepted() && !client.is_closed());
}

thread_local! {
    static WARNINGS: RefCell<Vec<String>> = const { RefCell::new(Vec::new()) };
}

/// Keeps the warnings of each test apart: each has a thread of its own.
struct Warnings;

impl log::Log for Warnings {
    fn enabled(&self, _: &log::Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &log::Record<'_>) {
        WARNINGS.with_borrow_mut(|lines| lines.push(record.args().to_string()));
    }

    fn flush(&self) {}
}

/// Lost otherwise: the news that descriptors are lacking, or all other news in the log.
#[test]
fn a_lack_of_descriptors_is_logged_once_in_ten_seconds() {
    log::set_logger(&Warnings).unwrap();
    log::set_max_level(log::LevelFilter::Warn);
    let world = World::new(0);
    let mut server = serve(&world, Probe::silent());
    let _waiting = world.connect();
    world.fail_accepts([ErrorKind::Other; 3]);
    for (passes, lines) in [(0, 1), (9, 1), (2, 2)] {
        world.advance(Duration::from_secs(passes));
        world.settle(&mut server);
        world.turn(&mut server);
        WARNINGS.with_borrow(|all| assert_eq!(all.len(), lines, "{all:?}"));
    }
}
