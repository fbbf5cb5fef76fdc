//! The cost of an ordinary request, and the order in which requests are served.

use super::*;

/// Lost otherwise: the speed that is the point of it all.
#[test]
fn an_immediate_request_costs_five_calls() {
    let world = World::new(0);
    let mut server = serve(&world, Probe::once());
    let clients: Vec<Client> = (0..10).map(|_| world.send(b"x")).collect();
    assert_eq!(world.settle(&mut server), 1, "one turn, and so one wait");
    let mut expected = ["accept", "read", "write_more", "shutdown_write", "close"].repeat(10);
    expected.push("accept"); // which finds the backlog empty
    assert_eq!(world.take_calls(), expected);
    assert!(clients.iter().all(|client| client.read() == b"." && client.has_ended()));
}

/// Lost otherwise: the same, for connections that have to wait: one registration, for reading.
#[test]
fn a_request_that_comes_late_costs_one_registration() {
    let world = World::new(0);
    let mut server = serve(&world, Probe::once());
    let client = world.connect();
    world.settle(&mut server);
    assert_eq!(world.take_calls(), ["accept", "read", "watch", "accept"]);
    assert_eq!(client.interest(), Some(Interest::Read));
    client.send(b"x");
    world.settle(&mut server);
    assert_eq!(world.take_calls(), ["read", "write_more", "shutdown_write", "close"]);
}

/// Lost otherwise: five seconds of a descriptor, and a registration, for each request as long as its read.
#[test]
fn a_full_read_costs_one_look_before_the_close() {
    let world = World::new(0);
    world.take_calls();
    let mut server = world.serve(Probe::once(), Limits::default().input(1), listener(10, Overload::Defer));
    let client = world.send(b"x");
    world.settle(&mut server);
    assert_eq!(world.take_calls(), ["accept", "read", "write_more", "read", "shutdown_write", "close", "accept"]);
    assert!(client.is_closed());
}

/// Lost otherwise: a fifth of a second, for which a kernel may keep an answer back that is said to
/// have more behind it.
#[test]
fn only_what_ends_a_stream_has_more_behind_it() {
    let world = World::new(0);
    let mut probe = Probe::new(|cx, id, input| {
        cx.send(id, input).unwrap();
        if input == b"bye" {
            cx.finish(id);
        }
        input.len()
    });
    probe.on_eof = EofAction::Keep;
    let mut server = serve(&world, probe);
    let client = world.send(b"hello");
    world.settle(&mut server);
    assert_eq!(world.take_calls(), ["accept", "read", "write", "watch", "accept"]);
    client.send(b"bye");
    world.settle(&mut server);
    assert_eq!(world.take_calls(), ["read", "write_more", "shutdown_write", "close"]);
}

/// Lost otherwise: order. While others are connected, a wait lies between a newcomer's accept and
/// its service, so that what was complete before it came goes first, although the loop learns of
/// it later.
#[test]
fn a_request_complete_earlier_is_served_before_a_newcomer() {
    let world = World::new(0);
    let mut server = serve(&world, Probe::silent());
    let early = world.connect();
    world.settle(&mut server);
    // The loop's wait has returned; now both come, and the accept of that turn finds the second.
    early.send(b"early");
    let _late = world.send(b"late");
    server.notify(Source::Listener(0), Ready { readable: true, ..Ready::default() });
    server.turn();
    world.settle(&mut server);
    assert_eq!(server.service().log, ["#1 open", "#1 data 5 of 5", "#2 open", "#2 data 4 of 4"]);
}
