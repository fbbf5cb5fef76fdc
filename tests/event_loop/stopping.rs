//! The end of a loop.

use super::*;
use pollstack::DEFAULT_BACKLOG;
use pollstack::limits::DEFAULT_ACCEPTS;

/// Lost otherwise: requests under way at a stop, and those waiting in the backlog.
#[test]
fn a_stop_serves_its_clients_and_then_ends() {
    let world = World::new(0);
    let mut server = serve(&world, Probe::once());
    let slow = world.connect();
    world.settle(&mut server);
    let waiting = world.send(b"x");
    server.stop(Duration::from_secs(5));
    world.settle(&mut server);
    assert_eq!(waiting.read(), b".", "it came before the stop");
    assert!(!server.is_stopped());
    assert_eq!(server.timeout(), Some(Duration::from_secs(5)));
    slow.send(b"x");
    world.settle(&mut server);
    assert!(server.is_stopped());
    assert_eq!(slow.read(), b".");
    assert_eq!(news(&server)[3], "shutdown");
}

/// Lost otherwise: every client in a long backlog, also those without an event yet.
#[test]
fn a_stop_serves_the_whole_backlog() {
    let world = World::new(0);
    let mut server = serve(&world, Probe::once());
    let clients: Vec<Client> = (0..1_000).map(|_| world.send(b"x")).collect();
    server.stop(Duration::from_secs(5));
    while !server.is_stopped() {
        assert_eq!(server.timeout(), Some(Duration::ZERO));
        server.turn(); // no event is handed over
    }
    assert!(clients.iter().all(|client| client.read() == b"."));
}

/// Lost otherwise: the processor, to turns of a stop that have nothing to accept.
#[test]
fn an_idle_loop_stops_in_one_turn() {
    let world = World::new(0);
    let mut server = serve(&world, Probe::silent());
    server.stop(Duration::from_secs(5));
    let error = server.listen(listener(1, Overload::Defer)).unwrap_err();
    assert_eq!(error.to_string(), "the loop has been asked to stop");
    world.turn(&mut server);
    assert!(server.is_stopped());
}

/// Lost otherwise: a stop, to newcomers who never cease to come.
#[test]
fn a_flood_does_not_hold_up_a_stop() {
    let world = World::new(0);
    let mut server = serve(&world, Probe::once());
    server.stop(Duration::from_secs(5));
    // As many as a backlog may hold are let in, and no more.
    let mut clients = Vec::new();
    for _ in 0..=DEFAULT_BACKLOG as usize / DEFAULT_ACCEPTS {
        clients.extend((0..2 * DEFAULT_ACCEPTS).map(|_| world.send(b"x")));
        world.turn(&mut server);
    }
    assert!(server.is_stopped());
    assert!(clients.iter().any(|client| !client.is_accepted()));
}

/// Lost otherwise: a quick restart, to clients that have their answer and stay.
#[test]
fn lingering_connections_hold_up_a_stop_for_a_moment_only() {
    let world = World::new(0);
    let mut server = world.serve(Probe::silent(), Limits::default(), listener(0, busy()));
    let rejected = world.connect();
    world.settle(&mut server);
    assert_eq!(rejected.read(), b"busy");
    assert!(rejected.has_ended() && !rejected.is_closed());
    server.stop(Duration::from_secs(60));
    world.settle(&mut server);
    let last = server.timeout().unwrap();
    assert!(last <= Duration::from_millis(250), "{last:?}");
    world.advance(last);
    world.turn(&mut server);
    assert!(server.is_stopped());
}

/// Lost otherwise: the end of an answer that is still on its way, to a stop.
#[test]
fn a_stop_leaves_a_long_answer_its_time() {
    let world = World::new(0);
    let probe = Probe::new(|cx, id, input| {
        cx.send(id, &[b'.'; 20_000]).unwrap();
        cx.finish(id);
        input.len()
    });
    let mut server = serve(&world, probe);
    let client = world.send(b"x");
    world.settle(&mut server);
    assert_eq!(server.stats().lingering, 1, "the answer is more than leaves at once");
    server.stop(Duration::from_secs(60));
    world.settle(&mut server);
    assert_eq!(server.timeout(), Some(Limits::default().linger_time));
    assert_eq!(client.read().len(), 20_000);
}

/// Lost otherwise: the end of a process, to a service that connects again whenever a connection closes.
#[test]
fn the_end_of_the_grace_is_the_end_of_reconnecting() {
    struct Reconnects(ListenerId);
    impl Service for Reconnects {
        type Conn = ();
        fn on_open(&mut self, _: &mut Context<'_>, _: ConnId, _: ListenerId) {}
        fn on_data(&mut self, _: &mut Context<'_>, _: ConnId, (): &mut (), input: &[u8]) -> usize {
            input.len()
        }
        fn on_close(&mut self, cx: &mut Context<'_>, _: ConnId, (): (), _: Closed) {
            cx.connect(self.0, "192.0.2.1:80".parse().unwrap());
        }
    }
    let (world, id) = (World::new(0), ListenerId::new());
    let mut server = world.serve(Reconnects(id), Limits::default(), listener(9, Overload::Defer));
    server.listen(ListenerConfig::unbound().id(id)).unwrap();
    let _client = world.connect();
    world.settle(&mut server);
    server.stop(Duration::from_secs(1));
    world.settle(&mut server);
    world.advance(Duration::from_secs(1));
    world.turn(&mut server);
    assert!(server.is_stopped());
    assert!(world.next_outgoing().is_none());
}

/// Lost otherwise: an operator's second thoughts.
#[test]
fn a_later_stop_can_only_be_sooner() {
    let world = World::new(0);
    let mut server = serve(&world, Probe::silent());
    let _client = world.connect();
    world.settle(&mut server);
    server.stop(Duration::from_secs(5));
    server.stop(Duration::from_secs(50));
    world.settle(&mut server);
    assert_eq!(server.timeout(), Some(Duration::from_secs(5)));
    server.stop(Duration::from_secs(1));
    world.settle(&mut server);
    assert_eq!(server.timeout(), Some(Duration::from_secs(1)));
    let listen = ListenerConfig::new("127.0.0.1:1".parse().unwrap());
    assert_eq!(server.listen(listen).unwrap_err().kind(), ErrorKind::InvalidInput, "a loop that stops opens nothing");
}

/// Lost otherwise: an operator's second thoughts, while there are no descriptors.
#[test]
fn a_later_stop_is_due_at_once_in_any_case() {
    let world = World::new(0);
    let mut server = serve(&world, Probe::silent());
    let _client = world.connect();
    world.settle(&mut server);
    world.fail_accepts([ErrorKind::Other]);
    let _waiting = world.connect();
    server.stop(Duration::from_secs(60));
    world.settle(&mut server);
    assert!(server.timeout().unwrap() > Duration::ZERO, "it tries again later");
    server.stop(Duration::ZERO);
    assert_eq!(server.timeout(), Some(Duration::ZERO));
    world.settle(&mut server);
    assert!(server.is_stopped());
}

/// Lost otherwise: a stop, to clients that never end.
#[test]
fn when_the_grace_is_over_the_rest_is_closed() {
    let world = World::new(0);
    let mut server = serve(&world, Probe::silent());
    let client = world.connect();
    world.settle(&mut server);
    server.stop(Duration::from_secs(5));
    world.settle(&mut server);
    world.advance(Duration::from_secs(5));
    world.turn(&mut server);
    assert!(client.is_closed() && server.is_stopped());
    assert_eq!(news(&server), ["#1 open", "shutdown", "#1 close Shutdown unsent 0"]);
}

/// Lost otherwise: the same, when the last connection is finished from outside of a turn.
#[test]
fn a_stop_that_waits_for_lingering_connections_only_is_due_at_once() {
    let world = World::new(0);
    let mut server = serve(&world, Probe::silent());
    let _client = world.connect();
    world.settle(&mut server);
    server.stop(Duration::from_secs(60));
    world.settle(&mut server);
    let id = server.service().ids[0];
    server.call(|_, cx| cx.finish_lingering(id));
    world.settle(&mut server);
    assert!(server.timeout().unwrap() <= Duration::from_millis(250));
}
