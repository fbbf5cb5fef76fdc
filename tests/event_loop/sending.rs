//! Output: short writes, limits, and the order of its pieces.

use super::*;

/// Lost otherwise: the tail of an answer, to a socket that takes it in pieces.
#[test]
fn a_short_write_waits_for_room_and_goes_on() {
    let world = World::new(0);
    let mut server = serve(&world, Probe::echo());
    let client = world.connect();
    client.set_room(3);
    client.send(b"abcdefgh");
    world.settle(&mut server);
    assert_eq!(client.interest(), Some(Interest::ReadWrite), "asked for only after a short write");
    assert_eq!(news(&server), ["#1 open"], "not drained yet");
    world.take_calls();
    client.set_room(3);
    world.settle(&mut server);
    assert_eq!(world.take_calls(), ["write"], "room is no input, and no reason to read");
    client.set_room(3);
    world.settle(&mut server);
    assert_eq!(client.read(), b"abcdefgh");
    assert_eq!(news(&server), ["#1 open", "#1 drain"], "drained once");
}

/// Lost otherwise: memory, and messages cut in two.
#[test]
fn send_takes_all_or_nothing_within_the_limit() {
    let world = World::new(0);
    let limits = Limits::default().output(10);
    let mut server = world.serve(Probe::silent(), limits, listener(10, Overload::Defer));
    let client = world.connect();
    world.settle(&mut server);
    client.set_room(0);
    let id = server.service().ids[0];
    server.call(|_, cx| {
        assert_eq!(cx.send_capacity(id), 10);
        assert_eq!(cx.send(id, b"123456789AB"), Err(SendError::TooLarge), "no drain can make room for it");
        assert_eq!(cx.send(id, b"1234567890"), Ok(()));
        assert_eq!(cx.send_capacity(id), 0);
        assert_eq!(cx.send(id, b"x"), Err(SendError::Full));
        assert_eq!(cx.send(id, b"0123456789"), Err(SendError::Full), "a drain makes room for it");
        assert_eq!(cx.send_shared(id, &Rc::from(&b"x"[..])), Err(SendError::Full));
        let file = Rc::new(tempfile::tempfile().unwrap());
        assert_eq!(cx.send_file(id, &file, 0, 1), Err(SendError::Full));
        assert_eq!(cx.send(id, b""), Ok(()));
    });
    client.set_room(100);
    world.settle(&mut server);
    assert_eq!(client.read(), b"1234567890");
    assert_eq!(news(&server), ["#1 open", "#1 drain"]);
    world.take_calls();
    server.call(|_, cx| cx.send(id, b"").unwrap());
    assert!(world.take_calls().is_empty(), "nothing is not written");
}

/// Lost otherwise: the order of an answer that is made of several kinds of pieces.
#[test]
fn bytes_shared_buffers_and_files_go_out_in_order() {
    let world = World::new(0);
    let mut server = serve(&world, Probe::silent());
    let client = world.connect();
    world.settle(&mut server);
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(b"0123456789").unwrap();
    let (file, shared, id) = (Rc::new(file), Rc::from(&b"<shared>"[..]), server.service().ids[0]);
    client.set_room(0);
    server.call(|_, cx| {
        cx.send(id, b"head ").unwrap();
        cx.send_shared(id, &shared).unwrap();
        cx.send(id, b" body ").unwrap();
        cx.send_file(id, &file, 3, 4).unwrap();
        cx.send_file(id, &file, 3, 0).unwrap();
        cx.send(id, b" tail").unwrap();
        cx.finish(id);
    });
    for _ in 0..20 {
        client.set_room(2);
        world.settle(&mut server);
    }
    assert!(client.is_closed());
    assert_eq!(client.read(), b"head <shared> body 3456 tail");
    assert_eq!(Rc::strong_count(&shared), 1, "the buffer is let go");
}

/// Lost otherwise: a system call, and a packet, for each piece of an answer.
#[test]
fn bytes_around_a_shared_buffer_go_out_in_one_write() {
    let world = World::new(0);
    let mut server = serve(&world, Probe::silent());
    let client = world.connect();
    world.settle(&mut server);
    let (shared, id) = (Rc::from(&b"<shared>"[..]), server.service().ids[0]);
    world.take_calls();
    server.call(|_, cx| {
        cx.send(id, b"head ").unwrap();
        cx.send_shared(id, &shared).unwrap();
        cx.send(id, b" tail").unwrap();
    });
    assert_eq!(world.take_calls(), ["write"]);
    assert_eq!(client.read(), b"head <shared> tail");
}

/// Lost otherwise: a packet of its own for the head of every file.
#[test]
fn a_head_goes_out_with_the_file_behind_it() {
    let world = World::new(0);
    let mut server = serve(&world, Probe::silent());
    let client = world.connect();
    world.settle(&mut server);
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(b"0123456789").unwrap();
    let (file, id) = (Rc::new(file), server.service().ids[0]);
    world.take_calls();
    server.call(|_, cx| {
        cx.send(id, b"head ").unwrap();
        cx.send_file(id, &file, 0, 10).unwrap();
        cx.send(id, b" tail").unwrap();
    });
    assert_eq!(world.take_calls(), ["write_more", "send_file", "write"]);
    assert_eq!(client.read(), b"head 0123456789 tail");
}

/// Lost otherwise: a packet of its own for the end of a stream behind a file; or a fifth of a second,
/// where the end of a file is not that of the stream.
#[test]
fn only_the_last_of_a_file_that_ends_its_stream_is_sent_with_the_end() {
    let world = World::new(0);
    let mut server = serve(&world, Probe::silent());
    let client = world.connect();
    world.settle(&mut server);
    client.set_room(usize::MAX);
    let file = tempfile::tempfile().unwrap();
    file.set_len(1_500_000).unwrap();
    let (file, id) = (Rc::new(file), server.service().ids[0]);
    world.take_calls();
    server.call(|_, cx| cx.send_file(id, &file, 0, 1_500_000).unwrap());
    world.settle(&mut server);
    assert_eq!(world.take_calls(), ["send_file", "send_file"]);
    server.call(|_, cx| {
        cx.send_file(id, &file, 0, 1_500_000).unwrap();
        cx.finish(id);
    });
    world.settle(&mut server);
    assert_eq!(
        world.take_calls(),
        ["send_file", "send_file_end", "shutdown_write"],
        "so much may still be the kernel's"
    );
    client.end();
    world.settle(&mut server);
    assert_eq!(client.read().len(), 3_000_000);
    assert!(client.is_closed() && !client.was_reset());
}

/// Lost otherwise: a peer that takes a part of a file for the whole.
#[test]
fn a_file_that_ends_early_fails_the_connection() {
    let world = World::new(0);
    let mut server = serve(&world, Probe::silent());
    let _client = world.connect();
    world.settle(&mut server);
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(b"short").unwrap();
    let (file, id) = (Rc::new(file), server.service().ids[0]);
    server.call(|_, cx| cx.send_file(id, &file, 0, 100).unwrap());
    assert_eq!(news(&server), ["#1 open", "#1 close UnexpectedEof unsent 95"]);
}

/// Lost otherwise: the difference between a peer that reads slowly and one that does not read.
#[test]
fn a_service_can_tell_when_the_kernel_last_took_something() {
    let world = World::new(0);
    let mut server = serve(&world, Probe::silent());
    let client = world.connect();
    world.settle(&mut server);
    client.set_room(3);
    let (id, second, start) = (server.service().ids[0], Duration::from_secs(1), server.call(|_, cx| cx.now()));
    assert_eq!(server.call(|_, cx| cx.last_write(id)), None, "nothing has been sent");
    world.advance(second);
    server.call(|_, cx| cx.send(id, b"abcdef").unwrap());
    assert_eq!(server.call(|_, cx| cx.last_write(id)), Some(start + second));
    world.advance(second);
    server.call(|_, cx| cx.send(id, b"ghi").unwrap());
    assert_eq!(server.call(|_, cx| cx.last_write(id)), Some(start + second), "it takes no more");
    client.set_room(1);
    world.settle(&mut server);
    assert_eq!(server.call(|_, cx| cx.last_write(id)), Some(start + second * 2), "one byte is something");
    client.abort();
    world.settle(&mut server);
    assert_eq!(server.call(|_, cx| cx.last_write(id)), None, "it is gone");
}
