//! Input: what is offered, what waits, what is too much.

use super::*;

/// Lost otherwise: the end of a client that sends its last bytes and its FIN together. After a
/// short read nothing but the event says that there is an end behind the data.
#[test]
fn an_end_behind_data_is_seen_without_an_edge_of_its_own() {
    let world = World::new(0);
    let mut server = serve(&world, Probe::silent());
    let client = world.connect();
    world.settle(&mut server);
    client.send(b"last");
    client.end();
    world.settle(&mut server);
    assert_eq!(news(&server), ["#1 open", "#1 eof", "#1 close Finished unsent 0"]);
}

/// Lost otherwise: the bytes behind an urgent one, or behind a passed descriptor. A read stops there, and no
/// event tells of what follows. The end is known when it has been read once.
#[test]
fn a_read_that_stops_at_a_mark_is_not_the_last() {
    for unix in [false, true] {
        let world = World::new(0);
        world.set_unix(unix);
        let mut server = serve(&world, Probe::silent());
        let client = world.connect();
        world.settle(&mut server);
        client.send(b"before");
        client.mark();
        client.send(b"behind");
        world.settle(&mut server);
        assert_eq!(client.unread(), 0);
        world.take_calls();
        client.end();
        world.settle(&mut server);
        assert_eq!(world.take_calls(), ["read", "shutdown_write", "close"]);
    }
}

/// Asks for something with the first of its bytes, and wants nothing more. Answers when it is called.
fn ignoring(world: &World) -> EventLoop<Probe, Sim> {
    let mut probe = Probe::new(|cx, id, _| {
        cx.ignore_input(id);
        1
    });
    probe.on_eof = EofAction::Keep;
    serve(world, probe)
}

/// Lost otherwise: memory and turns, to bytes that no service will take; and what hangs up meanwhile.
#[test]
fn ignored_input_is_dropped_and_its_end_told() {
    let world = World::new(0);
    let mut server = ignoring(&world);
    let client = world.send(b"ab");
    world.settle(&mut server);
    client.send(&[b'x'; 1_000_000]);
    world.settle(&mut server);
    assert_eq!(client.unread(), 0);
    let id = server.service().ids[0];
    server.call(|_, cx| cx.resume(id));
    world.settle(&mut server);
    assert_eq!(server.service().log, ["#1 open", "#1 data 1 of 2"], "what was left has been dropped");
    client.end();
    world.settle(&mut server);
    assert_eq!(server.service().log[2..], ["#1 eof"]);
}

/// Lost otherwise: what a client brings, to one that hung up in the same moment, and has its event later.
#[test]
fn the_end_of_a_client_that_waits_comes_before_what_others_bring() {
    for pauses in [true, false] {
        let world = World::new(0);
        let probe = Probe::new(move |cx, id, input| {
            match input {
                b"ask" if pauses => cx.pause(id),
                b"ask" => cx.ignore_input(id),
                _ => {}
            }
            input.len()
        });
        let mut server = serve(&world, probe);
        let (brings, asks) = (world.connect(), world.send(b"ask"));
        world.settle(&mut server);
        brings.send(b"item");
        asks.end();
        world.settle(&mut server);
        let log = &server.service().log[3..];
        assert_eq!(log, ["#2 eof", "#2 close Finished unsent 0", "#1 data 4 of 4"]);
    }
}

/// Lost otherwise: the reason why a client that waits has gone, if its reset comes behind its event.
#[test]
fn a_reset_that_a_read_meets_is_told() {
    let world = World::new(0);
    let mut server = ignoring(&world);
    let client = world.send(b"a");
    world.settle(&mut server);
    world.report(Source::Connection(client.key().unwrap()), Ready { readable: true, ..Ready::default() });
    world.turn_after(&mut server, || client.abort());
    assert_eq!(news(&server), ["#1 open", "#1 close ConnectionReset unsent 0"]);
}

/// Lost otherwise: what other clients bring, to a client that hung up as soon as it had asked.
#[test]
fn an_end_behind_a_request_is_read_at_once() {
    let world = World::new(0);
    let mut server = ignoring(&world);
    let client = world.send(b"a");
    client.end();
    world.settle(&mut server);
    assert_eq!(world.take_calls(), ["accept", "read", "read", "watch", "accept"], "the end, before any wait");
    assert_eq!(news(&server), ["#1 open", "#1 eof"]);
}

/// Lost otherwise: an answer, to the reset of a close over what a client sends behind its request; or five
/// seconds for each client that sends nothing more.
#[test]
fn a_close_lingers_for_peers_that_sent_more_than_was_taken() {
    for (request, lingers) in [(&b"a"[..], false), (b"ab", true)] {
        let world = World::new(0);
        let mut server = ignoring(&world);
        let client = world.send(request);
        world.settle(&mut server);
        let id = server.service().ids[0];
        server.call(|_, cx| {
            cx.send(id, b".").unwrap();
            cx.finish(id);
        });
        assert_eq!(client.read(), b".");
        assert_eq!(client.is_closed(), !lingers);
    }
}

/// Lost otherwise: messages that the network cuts up. Input that is not taken is offered again in one
/// piece with what follows.
#[test]
fn input_that_is_left_is_offered_again_with_more() {
    let world = World::new(0);
    let mut server = serve(&world, Probe::new(|_, _, input| if input.len() < 4 { 0 } else { 3 }));
    let client = world.connect();
    for byte in b"abcdef" {
        client.send(&[*byte]);
        world.settle(&mut server);
    }
    let data: Vec<_> = server.service().log.iter().skip(1).map(|line| line.trim_start_matches("#1 data ")).collect();
    assert_eq!(data, ["0 of 1", "0 of 2", "0 of 3", "3 of 4", "0 of 1", "0 of 2", "0 of 3"]);
}

/// Lost otherwise: the news of a fault in a service. Where checks are off, the loop goes on as if all had been taken.
#[test]
#[cfg_attr(debug_assertions, should_panic(expected = "a service cannot take more than it is offered"))]
fn a_service_that_takes_too_much_is_noticed() {
    let world = World::new(0);
    let mut server = serve(&world, Probe::new(|_, _, input| if input.len() > 1 { 1 } else { 2 }));
    let _client = world.send(b"ab");
    world.settle(&mut server);
}

/// Lost otherwise: memory, to a client that sends faster than its service takes.
#[test]
fn a_paused_connection_is_not_read_and_resumes_without_an_event() {
    let world = World::new(0);
    let mut server = serve(&world, Probe::pausing(1));
    let client = world.send(b"abc");
    world.settle(&mut server);
    client.send(&[b'x'; 1_000_000]);
    world.settle(&mut server);
    let held = Limits::default().input - 2;
    assert_eq!(client.unread(), 1_000_000 - held, "a paused connection is read up to the limit, and not closed");
    for _ in 0..3 {
        let id = server.service().ids[0];
        server.call(|_, cx| cx.resume(id));
        world.settle(&mut server);
    }
    assert_eq!(server.service().log[1..4], ["#1 data 1 of 3", "#1 data 1 of 65536", "#1 data 1 of 65536"]);
}

/// Lost otherwise: what a client that has hung up is given, while it was paused.
#[test]
fn the_end_of_a_paused_connection_is_told() {
    let world = World::new(0);
    let mut server = serve(&world, Probe::pausing(1));
    let (idle, eager) = (world.send(b"a"), world.send(b"ab"));
    world.settle(&mut server);
    idle.end();
    world.settle(&mut server);
    assert_eq!(news(&server)[2..], ["#1 eof", "#1 close Finished unsent 0"], "nothing is held back: at once");
    let id = server.service().ids[1];
    assert!(!server.call(|_, cx| cx.has_ended(id)));
    eager.end();
    world.settle(&mut server);
    assert!(server.call(|_, cx| cx.has_ended(id)));
    assert_eq!(news(&server)[4..], ["#2 early eof"]);
    server.call(|_, cx| cx.resume(id));
    world.settle(&mut server);
    assert_eq!(news(&server)[5..], ["#2 eof", "#2 close Finished unsent 0"], "the end comes behind all input");
    assert_eq!(server.service().log.iter().filter(|line| line.contains("data")).count(), 3);
}

/// Lost otherwise: connections of a proxy whose other side is slow. A reset tells the client nothing.
#[test]
fn a_paused_connection_is_not_closed_for_a_full_input() {
    let world = World::new(0);
    let mut server = serve(&world, Probe::pausing(0));
    let client = world.send(&[b'x'; 1_000_000]);
    world.settle(&mut server);
    assert_eq!(news(&server), ["#1 open"]);
    assert_eq!(client.unread(), 1_000_000 - Limits::default().input);
}

/// Lost otherwise: places, to clients that have gone while they were not being read.
#[test]
fn a_reset_is_noticed_while_paused() {
    let world = World::new(0);
    let mut server = serve(&world, Probe::pausing(0));
    let client = world.send(b"abc");
    world.settle(&mut server);
    client.abort();
    world.settle(&mut server);
    assert_eq!(news(&server), ["#1 open", "#1 close ConnectionReset unsent 0"]);
}

/// Lost otherwise: memory, to a client that sends a message without end.
#[test]
fn a_full_input_that_is_not_taken_ends_the_connection() {
    let world = World::new(0);
    let mut server = serve(&world, Probe::new(|_, _, _| 0));
    world.send(&[b'x'; 1_000_000]);
    world.settle(&mut server);
    assert_eq!(news(&server), ["#1 open", "#1 close InputFull unsent 0"]);
    let log = world.take_log();
    let read = log.iter().map(|entry| if let Event::Read(bytes) = &entry.event { bytes.len() } else { 0 });
    assert!(read.sum::<usize>() <= Limits::default().input + 1, "a byte beyond the limit tells more from the end");
}

/// Lost otherwise: bulk transfers through an echo, whose input is full because its output is.
#[test]
fn backpressure_holds_and_lets_go() {
    let world = World::new(0);
    let mut server = serve(&world, Probe::echo());
    let data: Vec<u8> = (0..1_000_000u32).map(|n| (n % 251) as u8).collect();
    let client = world.connect();
    client.set_room(0);
    client.send(&data);
    world.settle(&mut server);
    assert!(client.unread() > 800_000, "reading stops while nothing can be written");
    let mut echoed = Vec::new();
    while echoed.len() < data.len() {
        client.set_room(9_999);
        world.settle(&mut server);
        let more = client.read();
        assert!(!more.is_empty(), "it goes on whenever there is room");
        echoed.extend(more);
    }
    assert!(echoed == data);
}

/// Lost otherwise: all other clients, to one that never stops sending.
#[test]
fn a_busy_connection_has_a_bounded_turn() {
    let world = World::new(0);
    let mut server = serve(&world, Probe::silent());
    let flood = world.connect();
    world.settle(&mut server);
    flood.send(&vec![b'x'; 10_000_000]);
    let quiet = world.send(b"quiet");
    world.turn(&mut server);
    assert!(flood.unread() > 9_000_000, "one turn is bounded");
    world.turn(&mut server);
    assert_eq!(quiet.unread(), 0, "the other is served in the next turn");
    assert!(flood.unread() > 9_000_000);
    world.settle(&mut server);
    assert_eq!(flood.unread(), 0, "and the rest needs no further event");
}

/// Lost otherwise: half of a turn's bound. Reads that fill the budget to the last byte get no other.
#[test]
fn a_turn_ends_with_the_last_byte_of_its_budget() {
    let world = World::new(0);
    let limits = Limits::default().input(1024).turn(2 * 1024); // a read, and an offer
    let mut server = world.serve(Probe::silent(), limits, listener(10, Overload::Defer));
    let client = world.connect();
    world.settle(&mut server);
    client.send(&[b'x'; 10_000]);
    world.turn(&mut server);
    assert_eq!(client.unread(), 10_000 - 1024);
}

/// Lost otherwise: all other clients, to a service that sends more whenever it may.
#[test]
fn a_service_that_always_sends_more_has_a_bounded_turn() {
    let world = World::new(0);
    let mut probe = Probe::echo();
    probe.on_drain = Box::new(|cx, id| cx.send(id, b"!").unwrap());
    let mut server = serve(&world, probe);
    let client = world.send(b"go");
    for _ in 0..3 {
        world.turn(&mut server);
        let received = client.read().len();
        assert!((1..=1024).contains(&received), "{received} writes in one turn");
    }
}

/// Lost otherwise: a request, to a signal that interrupts a system call.
#[test]
fn interrupted_calls_are_repeated() {
    let world = World::new(0);
    let mut server = serve(&world, Probe::once());
    world.fail_accepts([ErrorKind::Interrupted; 3]);
    let client = world.connect();
    client.interrupt(5);
    client.send(b"x");
    world.settle(&mut server);
    assert_eq!(client.read(), b".");
    let reader = world.connect();
    world.settle(&mut server);
    reader.interrupt(5);
    let id = server.service().ids[1];
    server.call(|_, cx| cx.send(id, b"news").unwrap());
    assert_eq!(reader.read(), b"news");
}

/// Lost otherwise: the tail of what a peer sends, if it ends its half while its input is held back
/// by its output.
#[test]
fn an_end_waits_for_input_that_is_held_back() {
    let world = World::new(0);
    let mut server = serve(&world, Probe::echo());
    let data: Vec<u8> = (0..100_000u32).map(|n| (n % 251) as u8).collect();
    let client = world.connect();
    client.set_room(0);
    client.send(&data);
    client.end();
    let mut echoed = Vec::new();
    for _ in 0..200 {
        world.settle(&mut server);
        echoed.extend(client.read());
        client.set_room(999);
    }
    assert!(echoed == data, "{} of {} bytes", echoed.len(), data.len());
    assert!(client.has_ended());
}

/// Lost otherwise: a message exactly as long as the limit, whose sender then ends its half.
#[test]
fn a_full_input_with_nothing_but_the_end_behind_it_is_no_overflow() {
    let world = World::new(0);
    let limits = Limits::default().input(8);
    let mut server = world.serve(Probe::new(|_, _, _| 0), limits, listener(1, Overload::Defer));
    let client = world.connect();
    client.send(b"12345678");
    client.end();
    world.settle(&mut server);
    assert_eq!(news(&server), ["#1 open", "#1 eof", "#1 close Finished unsent 0"]);
}

/// Lost otherwise: a loop with senseless limits would spin for ever.
#[test]
fn limits_of_zero_still_let_something_be_done() {
    let world = World::new(0);
    let limits = Limits::default().input(0).turn(0).accepts(0).lingering(0);
    let mut server = world.serve(Probe::once(), limits, listener(10, Overload::Defer));
    let clients = [world.send(b"x"), world.send(b"xyz")];
    world.settle(&mut server);
    assert!(clients.iter().all(|client| client.read() == b"." && client.is_closed()));
}
