//! Connections that the service asks for.

use super::*;

/// Returns a server, and the listener that its outgoing connections count with.
fn with_outgoing(world: &World, max_conns: usize) -> (EventLoop<Probe, Sim>, ListenerId) {
    let mut server = serve(world, Probe::silent());
    let outgoing = server.listen(ListenerConfig::unbound().max_conns(max_conns)).unwrap();
    (server, outgoing)
}

fn connect(server: &mut EventLoop<Probe, Sim>, outgoing: ListenerId) -> ConnId {
    server.call(|_, cx| cx.connect(outgoing, "192.0.2.1:80".parse().unwrap()))
}

/// Lost otherwise: what a service sends to a peer that it has just called, and the moment of its answer.
#[test]
fn what_is_sent_waits_for_the_answer() {
    let world = World::new(0);
    let (mut server, outgoing) = with_outgoing(&world, 10);
    let id = connect(&mut server, outgoing);
    server.call(|_, cx| {
        assert_eq!(cx.send(id, b"hello"), Ok(()));
        assert!(cx.is_open(id) && cx.peer(id) == Some(Peer::Tcp("192.0.2.1:80".parse().unwrap())));
    });
    assert_eq!(server.timeout(), Some(Duration::ZERO), "it is not forgotten");
    world.settle(&mut server);
    let peer = world.next_outgoing().unwrap();
    assert_eq!((news(&server), peer.read()), (vec!["#1 open"], vec![]));
    assert_eq!(server.timeout(), None);
    peer.answer();
    world.settle(&mut server);
    assert_eq!(news(&server), ["#1 open", "#1 connect", "#1 drain"]);
    assert_eq!(server.stats().opened, 1);
    assert_eq!(peer.read(), b"hello");
    peer.send(b"welcome");
    peer.end();
    world.settle(&mut server);
    assert_eq!(server.service().log[3..], ["#1 data 7 of 7", "#1 eof", "#1 close Finished unsent 0"]);
}

/// Lost otherwise: the end of a peer that answers, sends and ends at once: one event tells all three.
#[test]
fn an_end_that_comes_with_the_answer_is_seen() {
    let world = World::new(0);
    let (mut server, outgoing) = with_outgoing(&world, 10);
    connect(&mut server, outgoing);
    world.settle(&mut server);
    let peer = world.next_outgoing().unwrap();
    peer.send(b"all");
    peer.end();
    peer.answer();
    world.settle(&mut server);
    assert_eq!(
        server.service().log,
        ["#1 open", "#1 connect", "#1 data 3 of 3", "#1 eof", "#1 close Finished unsent 0"]
    );
}

/// Lost otherwise: the news that nothing will come, and why.
#[test]
fn a_connection_that_fails_is_closed_with_its_reason() {
    let world = World::new(0);
    let (mut server, outgoing) = with_outgoing(&world, 3);
    connect(&mut server, outgoing);
    world.settle(&mut server);
    world.next_outgoing().unwrap().abort();
    world.settle(&mut server);
    assert_eq!(news(&server), ["#1 open", "#1 close ConnectionRefused unsent 0"]);

    let silent = connect(&mut server, outgoing);
    server.call(|_, cx| {
        cx.send(silent, b"lost").unwrap();
        cx.set_deadline(silent, Some(cx.now() + Duration::from_secs(5)));
    });
    world.settle(&mut server);
    world.advance(Duration::from_secs(5));
    world.settle(&mut server);
    assert_eq!(news(&server)[2..], ["#2 open", "#2 deadline", "#2 close Aborted unsent 4"]);

    world.fail_accepts([ErrorKind::AddrNotAvailable]);
    connect(&mut server, outgoing);
    world.settle(&mut server);
    assert_eq!(news(&server)[5..], ["#3 open", "#3 close AddrNotAvailable unsent 0"]);
    assert_eq!(server.stats().open, 0);
}

/// Lost otherwise: the bound on connections, and a service that asks a listener that is not there.
#[test]
fn a_full_or_unknown_listener_takes_no_connection() {
    let world = World::new(0);
    let (mut server, outgoing) = with_outgoing(&world, 1);
    for listener in [outgoing, outgoing, ListenerId::new()] {
        connect(&mut server, listener);
    }
    world.settle(&mut server);
    let failed = news(&server).into_iter().filter(|line| line.contains("close")).collect::<Vec<_>>();
    assert_eq!(failed, ["#2 close ResourceBusy unsent 0", "#3 close InvalidInput unsent 0"]);
    assert_eq!(server.stats().open, 1);
}

/// Lost otherwise: a client, or the oldest call, that has to go for one more; and a service that waits for a call in vain.
#[test]
fn a_full_listener_fails_a_call_whatever_its_policy() {
    let evict = Overload::EvictOldest { after: Duration::ZERO, otherwise: b"busy".into() };
    for overload in [Overload::Defer, busy(), evict] {
        let world = World::new(0);
        let evicts = matches!(overload, Overload::EvictOldest { .. });
        let mut server = world.serve(Probe::silent(), Limits::default(), listener(1, Overload::Defer));
        let both = server.listen(ListenerConfig::new("127.0.0.1:2".parse().unwrap()).max_conns(1).overload(overload));
        let both = both.unwrap();
        connect(&mut server, both);
        world.settle(&mut server);
        world.advance(Duration::from_secs(60));
        let failed = connect(&mut server, both);
        server.call(|probe, cx| {
            probe.way = Some(probe.ids[0]);
            cx.send(failed, b"hello").unwrap();
        });
        world.settle(&mut server);
        assert_eq!(news(&server), ["#1 open", "#2 open", "#2 close ResourceBusy unsent 5"]);
        assert_eq!((server.stats().open, server.stats().rejected), (1, 0));
        assert!(world.next_outgoing().is_some() && world.next_outgoing().is_none(), "the second was not begun");

        // To its clients it is a connection as theirs are.
        server.call(|probe, _| probe.way = None);
        world.connect_to(1);
        world.settle(&mut server);
        assert_eq!(news(&server)[3..].first(), evicts.then_some(&"#1 close Evicted unsent 0"));
    }
}

/// Lost otherwise: the loop, to a false event about a peer that has not answered.
#[test]
fn a_false_event_is_no_answer() {
    let world = World::new(0);
    let (mut server, outgoing) = with_outgoing(&world, 1);
    connect(&mut server, outgoing);
    world.settle(&mut server);
    let peer = world.next_outgoing().unwrap();
    let all = Ready { readable: true, writable: true, read_closed: true, error: true, urgent: true };
    world.report(Source::Connection(peer.key().unwrap()), all);
    world.settle(&mut server);
    assert_eq!(news(&server), ["#1 open"]);
    peer.answer();
    world.settle(&mut server);
    assert_eq!(news(&server), ["#1 open", "#1 connect"]);
}

/// Lost otherwise: what a service does to a connection before there is one.
#[test]
fn effects_before_the_answer_are_carried_out() {
    let world = World::new(0);
    let (mut server, outgoing) = with_outgoing(&world, 9);
    let [aborted, finished, shut] = [0; 3].map(|_| connect(&mut server, outgoing));
    server.call(|probe, cx| {
        probe.on_eof = EofAction::Keep;
        cx.abort(aborted);
        for id in [finished, shut] {
            cx.send(id, b"bye").unwrap();
        }
        cx.finish(finished);
        cx.shutdown_write(shut);
    });
    world.settle(&mut server);
    assert_eq!(news(&server), ["#1 open", "#1 close Aborted unsent 0", "#2 open", "#3 open"]);
    let peers: Vec<Client> = std::iter::from_fn(|| world.next_outgoing()).collect();
    peers[1..].iter().for_each(Client::answer);
    world.settle(&mut server);
    for peer in &peers[1..] {
        assert_eq!(peer.read(), b"bye");
        assert!(peer.has_ended());
    }
    assert_eq!(news(&server)[4..], ["#2 connect", "#2 close Finished unsent 0", "#3 connect", "#3 drain"]);
}

/// Lost otherwise: what was sent to a peer that speaks first, to the reset of a close over its greeting.
#[test]
fn a_greeting_is_read_before_the_close_of_what_was_finished_early() {
    let world = World::new(0);
    let (mut server, outgoing) = with_outgoing(&world, 9);
    let id = connect(&mut server, outgoing);
    server.call(|_, cx| {
        cx.send(id, b"bye").unwrap();
        cx.finish(id);
    });
    world.settle(&mut server);
    let peer = world.next_outgoing().unwrap();
    peer.send(b"welcome");
    peer.answer();
    world.settle(&mut server);
    assert_eq!((peer.read(), peer.unread()), (b"bye".to_vec(), 0));
    assert!(peer.has_ended() && !peer.was_reset());
}

/// Lost otherwise: a deadline that passes while the connection is only asked for; and a stop that does
/// not end.
#[test]
fn a_stop_ends_connections_that_are_being_made() {
    let world = World::new(0);
    let (mut server, outgoing) = with_outgoing(&world, 9);
    let id = connect(&mut server, outgoing);
    server.call(|_, cx| cx.set_deadline(id, Some(cx.now())));
    world.advance(Duration::from_secs(1));
    world.settle(&mut server);
    assert_eq!(news(&server), ["#1 open", "#1 deadline", "#1 close Aborted unsent 0"]);
    connect(&mut server, outgoing);
    world.settle(&mut server);
    server.stop(Duration::from_secs(1));
    world.settle(&mut server);
    connect(&mut server, outgoing);
    world.settle(&mut server);
    assert_eq!(server.stats().open, 2, "a drain may need connections");
    world.advance(Duration::from_secs(1));
    world.settle(&mut server);
    assert!(server.is_stopped());
    let closes = server.service().log.iter().filter(|line| line.contains("close Shutdown")).count();
    assert_eq!(closes, 2);
}
