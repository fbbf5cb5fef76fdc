//! The promises to a tool around the loop: ids, listeners that come and go, wakes, the timer, the drop.

use super::*;

/// Lost otherwise: a message to the client of another loop, which has the same number there.
#[test]
fn an_id_of_another_loop_is_gone() {
    let (here, there) = (World::new(0), World::new(0));
    let (mut one, mut other) = (serve(&here, Probe::silent()), serve(&there, Probe::silent()));
    let clients = [here.connect(), there.connect()];
    here.settle(&mut one);
    there.settle(&mut other);
    let id = one.service().ids[0];
    other.call(|_, cx| {
        assert_eq!(cx.send(id, b"for the other"), Err(SendError::Gone));
        assert!(cx.peer(id).is_none() && cx.has_ended(id));
        cx.abort(id);
    });
    there.settle(&mut other);
    assert!(clients[1].read().is_empty() && !clients[1].is_closed());
    let listener = one.listen(ListenerConfig::unbound()).unwrap();
    let error = other.adopt(listener, there.stream().1, Peer::Unix).unwrap_err();
    assert_eq!(error.to_string(), "the loop has no such listener");
    assert_eq!(other.addresses(listener).unwrap(), []);
}

/// Lost otherwise: a client that is not told what all are told; and a service that is shown a connection it knows nothing of.
#[test]
fn the_connections_are_those_between_open_and_close() {
    let world = World::new(0);
    let probe = Probe::new(|cx, id, input| {
        cx.send(id, b".").unwrap();
        match input {
            b"half" => cx.shutdown_write(id),
            _ => cx.finish_lingering(id),
        }
        input.len()
    });
    let mut server = EventLoop::with_net(world.net(), probe, Limits::default());
    server.listen(listener(3, busy())).unwrap();
    let outgoing = server.listen(ListenerConfig::unbound().max_conns(1)).unwrap();
    let open = |server: &mut EventLoop<Probe, Sim>| {
        server.call(|_, cx| cx.connections().map(|id| id.to_string()).collect::<Vec<_>>())
    };
    assert!(open(&mut server).is_empty());
    let clients = [0; 3].map(|_| world.connect());
    world.settle(&mut server);
    let rejected = world.connect();
    rejected.set_room(0);
    world.settle(&mut server);
    assert_eq!(open(&mut server), ["#1", "#2", "#3"], "the rejected client is not among them");
    clients[0].send(b"lingers");
    clients[1].send(b"half");
    world.settle(&mut server);
    assert!(!clients[0].is_closed(), "the server waits for its end");
    assert_eq!(open(&mut server), ["#2", "#3"]);
    server.call(|_, cx| {
        let (before, id) = (cx.connections().count(), cx.connect(outgoing, "192.0.2.1:80".parse().unwrap()));
        assert_eq!(cx.connections().count(), before, "{id} has not been told");
    });
    world.settle(&mut server);
    assert_eq!(server.service().ids.len(), 4);
    let called = server.service().ids[3].to_string();
    assert!(open(&mut server).contains(&called), "its peer has not answered");
    server.call(|_, cx| cx.connections().collect::<Vec<_>>().into_iter().for_each(|id| cx.abort(id)));
    assert!(open(&mut server).is_empty());
    assert_eq!(server.stats().open, 0);
}

/// Lost otherwise: what an operator knows about the load.
#[test]
fn the_counts_are_those_of_the_traffic() {
    let world = World::new(0);
    let mut server = serve(&world, Probe::echo());
    let clients = [world.send(b"abc"), world.send(b"d")];
    world.settle(&mut server);
    clients[0].send(b"ef");
    world.settle(&mut server);
    clients[1].end();
    world.fail_accepts([ErrorKind::Other; 2]);
    let _late = world.connect();
    world.settle(&mut server);
    let stats = server.stats();
    assert_eq!((stats.received, stats.sent), (6, 6));
    assert_eq!((stats.opened, stats.open, stats.failed_accepts), (2, 1, 1));
}

/// Lost otherwise: the order of arrival, in a turn that knows a part of the events only.
#[test]
fn batches_hold_an_event_of_every_socket() {
    let world = World::new(0);
    let mut server = serve(&world, Probe::silent());
    assert_eq!((server.batches(10), server.batches(0)), (1, 2));
    let _clients: Vec<Client> = (0..29).map(|_| world.connect()).collect();
    world.settle(&mut server);
    assert_eq!((server.batches(10), server.batches(31)), (4, 1), "29 connections and a listener");
}

/// Lost otherwise: connections of other listeners, and of the closed one; and the room for the next.
#[test]
fn a_listener_can_be_closed_alone() {
    let world = World::new(0);
    let mut server = serve(&world, Probe::silent());
    let id = ListenerId::new();
    assert_eq!(server.listen(listener(1, Overload::Defer).id(id)).unwrap(), id);
    assert_eq!(server.addresses(id).unwrap(), ["127.0.0.1:1".parse().unwrap()]);
    assert_eq!(server.listen(listener(1, Overload::Defer).id(id)).unwrap_err().kind(), ErrorKind::InvalidInput);
    let stays = world.connect_to(1);
    world.settle(&mut server);
    server.close_listener(id).unwrap();
    assert_eq!(server.close_listener(id).unwrap_err().kind(), ErrorKind::InvalidInput);
    assert!(world.connect_to(1).was_reset(), "it does not listen");
    let other = world.send(b"x");
    stays.send(b"xy");
    world.settle(&mut server);
    assert_eq!((stays.unread(), other.unread()), (0, 0));
    for _ in 0..100 {
        let next = server.listen(listener(1, Overload::Defer)).unwrap();
        let client = world.connect_to(1);
        world.settle(&mut server);
        assert!(client.is_accepted(), "the socket's place is used again");
        client.abort();
        world.settle(&mut server);
        server.close_listener(next).unwrap();
    }
    server.stop(Duration::ZERO);
    world.settle(&mut server);
    assert!(server.is_stopped());
}

/// Lost otherwise: a server that listens, and serves no client, without a word.
#[test]
fn a_listener_that_would_never_accept_is_rejected() {
    let world = World::new(0);
    let mut server = serve(&world, Probe::silent());
    let error = server.listen(listener(0, Overload::Defer)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidInput);
    server.listen(listener(0, busy())).unwrap();
}

/// Lost otherwise: what another thread has to say.
#[test]
fn a_wake_is_told_once_and_for_all_before() {
    let world = World::new(0);
    let mut server = serve(&world, Probe::silent());
    let client = world.connect();
    world.settle(&mut server);
    let id = server.service().ids[0];
    server.call(|probe, _| probe.on_wake = Box::new(move |cx| cx.send(id, b"news").unwrap()));
    server.wake();
    server.wake();
    assert_eq!(server.timeout(), Some(Duration::ZERO));
    world.settle(&mut server);
    assert_eq!(client.read(), b"news");
    assert_eq!(news(&server), ["#1 open", "wake", "#1 drain"]);
    server.wake();
    world.settle(&mut server);
    assert_eq!(client.read(), b"news");
}

/// Lost otherwise: the time of a service that has no connection; or all the loop's, to a timer that
/// goes off for ever.
#[test]
fn the_timer_goes_off_once() {
    let world = World::new(0);
    let mut server = serve(&world, Probe::silent());
    server.call(|_, cx| cx.set_timer(Some(cx.now() + Duration::from_secs(3))));
    assert_eq!(server.timeout(), Some(Duration::from_secs(3)));
    world.advance(Duration::from_secs(2));
    world.turn(&mut server);
    assert!(news(&server).is_empty());
    world.advance(Duration::from_secs(1));
    // Under a flood, too: the connection is served again in every turn.
    let flood = world.send(&vec![b'x'; 10_000_000]);
    world.turn(&mut server);
    assert!(flood.unread() > 0 && server.service().log.contains(&"timer".to_owned()));
    world.settle(&mut server);
    assert_eq!(server.timeout(), None);

    server.call(|probe, cx| {
        probe.on_timer = Box::new(|cx| cx.set_timer(Some(cx.now())));
        cx.set_timer(Some(cx.now()));
    });
    for turns in 1..5 {
        world.turn(&mut server);
        assert_eq!(server.service().log.iter().filter(|line| *line == "timer").count(), 1 + turns, "once a turn");
    }
    server.call(|_, cx| cx.set_timer(None));
    assert_eq!(server.timeout(), None);
}

/// Lost otherwise: what a service keeps for its connections, files and places among it, when a tool
/// drops the loop.
#[test]
fn a_dropped_loop_closes_its_connections() {
    struct Counts(Rc<std::cell::Cell<usize>>);
    impl Service for Counts {
        type Conn = ();
        fn on_open(&mut self, cx: &mut Context<'_>, id: ConnId, _: ListenerId) {
            cx.send(id, b"lost").unwrap();
        }
        fn on_data(&mut self, _: &mut Context<'_>, _: ConnId, (): &mut (), input: &[u8]) -> usize {
            input.len()
        }
        fn on_close(&mut self, cx: &mut Context<'_>, _: ConnId, (): (), closed: Closed) {
            assert!(matches!(closed.reason, CloseReason::Shutdown));
            cx.set_timer(Some(cx.now())); // to no effect
            self.0.set(self.0.get() + 1);
        }
    }
    let (world, closes) = (World::new(0), Rc::default());
    let mut server = world.serve(Counts(Rc::clone(&closes)), Limits::default(), listener(2, Overload::Defer));
    let clients = [0; 4].map(|_| world.connect());
    clients[0].set_room(0);
    world.settle(&mut server);
    drop(server);
    assert_eq!(closes.get(), 2);
    assert!(clients.iter().all(Client::is_closed), "those in the backlog, too");
    assert!(clients[0].was_reset() && !clients[1].was_reset(), "a part is not taken for the whole");
}
