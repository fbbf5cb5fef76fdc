//! The end of a connection: once, in order, and to the right one.

use super::*;

/// Lost otherwise: what a service knows about what has arrived.
#[test]
fn a_close_happens_once_and_counts_what_never_left() {
    let world = World::new(0);
    let mut server = serve(&world, Probe::echo());
    let client = world.connect();
    client.set_room(2);
    client.send(b"abcdef");
    world.settle(&mut server);
    client.abort();
    client.end();
    world.settle(&mut server);
    let id = server.service().ids[0];
    server.call(|_, cx| {
        cx.abort(id);
        cx.finish(id);
    });
    assert_eq!(news(&server), ["#1 open", "#1 close ConnectionReset unsent 4"]);
}

/// Lost otherwise: bytes for another client, sent to the connection that has got the slot.
#[test]
fn a_stale_id_reaches_no_connection() {
    let world = World::new(0);
    let mut server = serve(&world, Probe::silent());
    let first = world.connect();
    world.settle(&mut server);
    let key = first.key();
    first.end();
    world.settle(&mut server);
    let second = world.connect();
    world.settle(&mut server);
    assert_eq!(second.key(), key, "the slot is used again");
    let stale = server.service().ids[0];
    server.call(|_, cx| {
        assert_eq!(cx.send(stale, b"for the first"), Err(SendError::Gone));
        assert_eq!(cx.send_capacity(stale), 0);
        assert!(cx.peer(stale).is_none());
        cx.abort(stale);
        cx.finish(stale);
        cx.pause(stale);
        cx.set_deadline(stale, Some(cx.now()));
    });
    assert_eq!(server.timeout(), None, "no deadline was set");
    second.send(b"still here");
    world.settle(&mut server);
    assert_eq!(second.read(), b"");
    assert_eq!(server.service().log.last().unwrap(), "#2 data 10 of 10");
}

/// Lost otherwise: a connection, to an event that was meant for the one before it.
#[test]
fn late_and_false_events_do_no_harm() {
    let world = World::new(0);
    let mut server = serve(&world, Probe::echo());
    let client = world.connect();
    world.settle(&mut server);
    let all = Ready { readable: true, writable: true, read_closed: true, error: true, urgent: true };
    let key = client.key().unwrap();
    for _ in 0..3 {
        world.report(Source::Connection(key), all);
        world.report(Source::Connection(key + 7), all);
        world.report(Source::Listener(0), all);
        world.report(Source::Listener(99), all);
        world.settle(&mut server);
    }
    client.send(b"hello");
    world.settle(&mut server);
    assert_eq!(client.read(), b"hello");
    assert_eq!(news(&server), ["#1 open", "#1 drain"]);
}

/// Lost otherwise: the loop itself, to services that close each other's connections.
#[test]
fn callbacks_may_end_any_connection() {
    let world = World::new(0);
    let mut server = serve(&world, Probe::silent());
    let clients: Vec<Client> = (0..3).map(|_| world.connect()).collect();
    world.settle(&mut server);
    let ids = server.service().ids.clone();
    let all = ids.clone();
    server.call(|probe, _| {
        probe.on_data = Box::new(move |cx, _, input| {
            all.iter().for_each(|id| cx.abort(*id));
            all.iter().for_each(|id| assert_eq!(cx.send(*id, b"x"), Err(SendError::Gone)));
            input.len()
        });
    });
    clients.iter().for_each(|client| client.send(b"all of you"));
    world.settle(&mut server);
    let closes = server.service().log.iter().filter(|line| line.ends_with("close Aborted unsent 0")).count();
    assert_eq!(closes, 3);
    assert_eq!(server.stats().open, 0);
}

/// Lost otherwise: the answer of a peer that waits for our end; and what was sent before ours.
#[test]
fn our_half_can_end_alone() {
    let world = World::new(0);
    let mut server = serve(&world, Probe::silent());
    server.call(|probe, _| probe.on_eof = EofAction::Keep);
    let client = world.connect();
    client.set_room(0);
    world.settle(&mut server);
    let id = server.service().ids[0];
    server.call(|_, cx| {
        cx.send(id, b"question").unwrap();
        cx.shutdown_write(id);
        assert_eq!(cx.send(id, b"more"), Err(SendError::Gone));
        assert!(!cx.is_open(id) && cx.send_capacity(id) == 0);
    });
    world.settle(&mut server);
    assert!(!client.has_ended(), "the output comes first");
    client.set_room(100);
    world.settle(&mut server);
    assert_eq!(client.read(), b"question");
    assert!(client.has_ended() && !client.is_closed());
    client.send(b"answer");
    world.settle(&mut server);
    assert_eq!(news(&server), ["#1 open", "#1 drain"]);
    assert_eq!(server.service().log.last().unwrap(), "#1 data 6 of 6", "input goes on");
    client.end();
    world.settle(&mut server);
    assert_eq!(news(&server)[2..], ["#1 eof", "#1 close Finished unsent 0"], "both halves have ended");
    assert!(client.is_closed() && !client.was_reset());
}

/// Lost otherwise: places, to connections on which nothing can happen any more; or the input that was held
/// back on them.
#[test]
fn a_connection_closes_when_both_halves_have_ended() {
    let world = World::new(0);
    let mut server = serve(&world, Probe::silent());
    server.call(|probe, _| probe.on_eof = EofAction::Keep);
    let (client, held) = (world.send(b"a"), world.connect());
    world.settle(&mut server);
    let ids = server.service().ids.clone();
    client.end();
    server.call(|_, cx| cx.pause(ids[1]));
    held.send(b"held");
    held.end();
    world.settle(&mut server);
    assert_eq!(server.stats().open, 2, "the server may still send");
    server.call(|_, cx| ids.iter().for_each(|id| cx.shutdown_write(*id)));
    world.settle(&mut server);
    assert!(client.is_closed() && !held.is_closed());
    server.call(|_, cx| cx.resume(ids[1]));
    world.settle(&mut server);
    assert!(held.is_closed() && !held.was_reset());
    assert_eq!(server.service().log[server.service().log.len() - 3], "#2 data 4 of 4");
}

/// Lost otherwise: the difference between a whole answer and one that a proxy's upstream has cut.
#[test]
fn a_reset_is_one_though_all_was_sent() {
    let world = World::new(0);
    let mut server = serve(&world, Probe::silent());
    let (aborted, reset) = (world.connect(), world.connect());
    world.settle(&mut server);
    let ids = server.service().ids.clone();
    server.call(|_, cx| ids.iter().for_each(|id| cx.send(*id, b"all").unwrap()));
    server.call(|_, cx| {
        cx.abort(ids[0]);
        cx.reset(ids[1]);
    });
    assert!(aborted.is_closed() && !aborted.was_reset() && reset.was_reset());
}

/// Lost otherwise: the close of a connection that has ended its half before.
#[test]
fn finish_after_shutdown_write_ends_our_half_once() {
    let world = World::new(0);
    let mut server = serve(&world, Probe::silent());
    let client = world.connect();
    world.settle(&mut server);
    let id = server.service().ids[0];
    server.call(|_, cx| cx.shutdown_write(id));
    server.call(|_, cx| cx.finish(id));
    world.settle(&mut server);
    assert!(client.is_closed() && !client.was_reset());
    assert_eq!(world.take_calls().iter().filter(|call| **call == "shutdown_write").count(), 1);
}

/// Lost otherwise: an answer, to the reset of a close over unread input.
#[test]
fn finish_lingers_only_over_unread_input() {
    let world = World::new(0);
    let mut server = serve(&world, Probe::once());
    let modest = world.send(b"x");
    world.settle(&mut server);
    assert!(modest.is_closed() && !modest.was_reset(), "closed at once");
    let greedy = world.send(&[b'x'; 100_000]);
    world.settle(&mut server);
    assert_eq!(greedy.read(), b".");
    assert!(greedy.has_ended() && !greedy.is_closed(), "our half has ended");
    assert_eq!((server.stats().open, server.stats().lingering), (0, 1));
    assert_eq!(news(&server).last().unwrap(), &"#2 close Finished unsent 0", "for the service it has closed");
    greedy.send(&[b'x'; 100_000]);
    world.settle(&mut server);
    assert_eq!(greedy.unread(), 0, "further input is dropped");
    greedy.end();
    world.settle(&mut server);
    assert!(greedy.is_closed() && !greedy.was_reset());
}

/// Lost otherwise: descriptors, to clients that linger without end, without pause, or in numbers.
#[test]
fn lingering_is_bounded_in_time_bytes_and_number() {
    let world = World::new(0);
    let probe = Probe::new(|cx, id, input| {
        cx.finish_lingering(id);
        input.len()
    });
    let limits = Limits::default().lingering(3);
    let mut server = world.serve(probe, limits, listener(1, Overload::Defer));
    let linger = || world.send(b"x");
    let silent = linger();
    world.settle(&mut server);
    assert!(silent.has_ended() && !silent.is_closed(), "a rejection lingers although all has been read");
    assert_eq!(server.timeout(), Some(limits.linger_time));
    world.advance(limits.linger_time);
    world.settle(&mut server);
    assert!(silent.is_closed());

    let noisy = linger();
    world.settle(&mut server);
    for _ in 0..20 {
        noisy.send(&[b'x'; 100_000]);
        world.settle(&mut server);
    }
    assert!(noisy.is_closed(), "too much");

    let many: Vec<Client> = (0..5).map(|_| linger()).collect();
    world.settle(&mut server);
    let closed: Vec<bool> = many.iter().map(Client::is_closed).collect();
    assert_eq!(closed, [true, true, false, false, false], "the oldest go first; none takes a client's place");
    many[4].abort();
    world.settle(&mut server);
    assert!(many[4].is_closed());
}

/// Lost otherwise: five seconds for every peer that has ended before it is answered.
#[test]
fn no_connection_lingers_for_a_peer_that_has_ended() {
    let world = World::new(0);
    let mut probe = Probe::silent();
    probe.on_eof = EofAction::Keep;
    let mut server = serve(&world, probe);
    let client = world.connect();
    client.send(b"x");
    client.end();
    world.settle(&mut server);
    let id = server.service().ids[0];
    server.call(|_, cx| {
        cx.send(id, b"late answer").unwrap();
        cx.finish_lingering(id);
    });
    assert_eq!(client.read(), b"late answer");
    assert!(client.is_closed() && !client.was_reset());
}

/// Lost otherwise: a peer that takes what came before a failure for the whole.
#[test]
fn an_answer_cut_short_ends_in_a_reset() {
    let world = World::new(0);
    let mut server = serve(&world, Probe::silent());
    let (cut, whole) = (world.connect(), world.connect());
    world.settle(&mut server);
    let ids = server.service().ids.clone();
    cut.set_room(4);
    server.call(|_, cx| ids.iter().for_each(|id| cx.send(*id, b"long answer").unwrap()));
    server.call(|_, cx| ids.iter().for_each(|id| cx.abort(*id)));
    assert!(cut.was_reset() && !whole.was_reset());
    assert!(cut.is_closed() && whole.is_closed());
}

/// Lost otherwise: an item. The answer is still kept back for its end when the client resets, and would
/// be taken for delivered.
#[test]
fn an_answer_whose_end_fails_has_not_been_sent() {
    let file = tempfile::tempfile().unwrap();
    file.set_len(10).unwrap();
    let file = Rc::new(file);
    for (call, unsent) in [("write_more", 1), ("send_file_end", 10)] {
        let (world, file) = (World::new(0), Rc::clone(&file));
        let probe = Probe::new(move |cx, id, input| {
            match unsent {
                1 => cx.send(id, b".").unwrap(),
                _ => cx.send_file(id, &file, 0, unsent).unwrap(),
            }
            cx.finish(id);
            input.len()
        });
        let mut server = serve(&world, probe);
        let client = world.connect();
        world.settle(&mut server);
        client.send(b"x");
        world.after(3, move || client.abort()); // the wait, and the first two of these calls
        world.take_calls();
        world.settle(&mut server);
        assert_eq!(world.take_calls(), ["read", call, "shutdown_write", "reset"]);
        assert_eq!(news(&server)[1..], [format!("#1 close NotConnected unsent {unsent}")]);
    }
}

/// Lost otherwise: the difference between a file that is out and one that is kept back.
#[test]
fn a_file_that_went_out_is_not_unsent() {
    let world = World::new(0);
    let mut server = serve(&world, Probe::silent());
    let client = world.connect();
    world.settle(&mut server);
    let file = tempfile::tempfile().unwrap();
    file.set_len(10).unwrap();
    let (file, id) = (Rc::new(file), server.service().ids[0]);
    server.call(|_, cx| cx.send_file(id, &file, 0, 10).unwrap());
    client.abort();
    world.settle(&mut server);
    assert_eq!(news(&server), ["#1 open", "#1 drain", "#1 close ConnectionReset unsent 0"]);
}

/// Lost otherwise: descriptors, to a service that keeps the names of connections that have closed for it.
#[test]
fn a_lingering_connection_is_out_of_reach() {
    let world = World::new(0);
    let mut server = serve(&world, Probe::once());
    let client = world.send(&[b'x'; 100_000]);
    world.settle(&mut server);
    assert_eq!(server.stats().lingering, 1);
    let id = server.service().ids[0];
    server.call(|_, cx| {
        assert!(cx.has_ended(id) && cx.last_write(id).is_none());
        cx.set_deadline(id, None);
    });
    assert_eq!(server.timeout(), Some(Limits::default().linger_time));
    assert!(!client.is_closed());
}
