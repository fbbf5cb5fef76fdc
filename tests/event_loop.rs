//! The loop's own promises, in situations that a real kernel hardly ever produces. The network is
//! in memory and the clock is moved by hand, so every test is the same each time.
#![cfg(unix)]

mod fake;

use fake::{Fake, Wire, World};
use pollstack::net::{Interest, Ready, Source};
use pollstack::stack::{StackService, wire};
use pollstack::{
    Cause, Closed, ConnId, Context, Eof, EventLoop, Limits, Listen, ListenerId, Overload, SendError, Service,
};
use std::io::ErrorKind;
use std::io::Write;
use std::rc::Rc;
use std::time::Duration;

type OnData = Box<dyn FnMut(&mut Context<'_>, ConnId, &[u8]) -> usize>;
type Then = Box<dyn FnMut(&mut Context<'_>, ConnId)>;

/// A service that writes down what it is told, and does as the test says.
struct Probe {
    log: Vec<String>,
    ids: Vec<ConnId>,
    on_data: OnData,
    on_drain: Then,
    on_deadline: Then,
    on_eof: Eof,
    deadline: Option<Duration>,
}

impl Probe {
    fn new(on_data: impl FnMut(&mut Context<'_>, ConnId, &[u8]) -> usize + 'static) -> Probe {
        Probe {
            log: Vec::new(),
            ids: Vec::new(),
            on_data: Box::new(on_data),
            on_drain: Box::new(|_, _| {}),
            on_deadline: Box::new(|cx, id| cx.abort(id)),
            on_eof: Eof::Finish,
            deadline: None,
        }
    }

    /// Takes everything and answers nothing.
    fn silent() -> Probe {
        Probe::new(|_, _, input| input.len())
    }

    fn echo() -> Probe {
        let mut probe = Probe::new(|cx, id, input| {
            let fits = input.len().min(cx.room(id));
            cx.send(id, &input[..fits]).unwrap();
            fits
        });
        probe.on_drain = Box::new(|cx, id| cx.resume(id));
        probe
    }

    /// Answers with one byte, and is done.
    fn once() -> Probe {
        Probe::new(|cx, id, input| {
            cx.send(id, b".").unwrap();
            cx.finish(id);
            input.len()
        })
    }
}

impl Service for Probe {
    type Conn = ();

    fn on_open(&mut self, cx: &mut Context<'_>, id: ConnId, _: ListenerId) {
        self.log.push(format!("{id} open"));
        self.ids.push(id);
        cx.set_deadline(id, self.deadline.map(|after| cx.now() + after));
    }

    fn on_data(&mut self, cx: &mut Context<'_>, id: ConnId, (): &mut (), input: &[u8]) -> usize {
        let taken = (self.on_data)(cx, id, input);
        self.log.push(format!("{id} data {} of {}", taken, input.len()));
        taken
    }

    fn on_eof(&mut self, _: &mut Context<'_>, id: ConnId, (): &mut ()) -> Eof {
        self.log.push(format!("{id} eof"));
        self.on_eof
    }

    fn on_drain(&mut self, cx: &mut Context<'_>, id: ConnId, (): &mut ()) {
        self.log.push(format!("{id} drain"));
        (self.on_drain)(cx, id);
    }

    fn on_deadline(&mut self, cx: &mut Context<'_>, id: ConnId, (): &mut ()) {
        self.log.push(format!("{id} deadline"));
        (self.on_deadline)(cx, id);
    }

    fn on_close(&mut self, cx: &mut Context<'_>, id: ConnId, (): (), closed: Closed) {
        assert!(!cx.is_open(id), "a closed connection is gone");
        let cause = match closed.cause {
            Cause::Failed(error) => format!("{:?}", error.kind()),
            cause => format!("{cause:?}"),
        };
        self.log.push(format!("{id} close {cause} unsent {}", closed.unsent));
    }

    fn on_shutdown(&mut self, _: &mut Context<'_>) {
        self.log.push("shutdown".to_owned());
    }
}

fn serve(world: &World, probe: Probe) -> EventLoop<Probe, Fake> {
    world.serve(probe, Limits::default(), 1000, Overload::Defer)
}

/// The log, without the lines about data.
fn news(event_loop: &EventLoop<Probe, Fake>) -> Vec<&str> {
    event_loop.service().log.iter().map(String::as_str).filter(|line| !line.contains("data")).collect()
}

fn busy() -> Overload {
    Overload::Reject(b"busy".into())
}

// ---- the hot path -------------------------------------------------------------------------------

/// Lost otherwise: the speed that is the point of it all.
#[test]
fn an_immediate_request_costs_accept_read_write_close() {
    let world = World::new();
    let mut server = serve(&world, Probe::once());
    let clients: Vec<Wire> = (0..10).map(|_| world.send(b"x")).collect();
    assert_eq!(world.settle(&mut server), 1, "one turn, and so one wait");
    let mut expected = ["accept", "read", "write", "close"].repeat(10);
    expected.push("accept"); // which finds nobody
    assert_eq!(world.calls(), expected);
    assert!(clients.iter().all(|client| client.received() == b"." && client.ended()));
}

/// Lost otherwise: the same, for connections that have to wait: one registration, for reading.
#[test]
fn a_request_that_comes_late_costs_one_registration() {
    let world = World::new();
    let mut server = serve(&world, Probe::once());
    let client = world.connect();
    world.settle(&mut server);
    assert_eq!(world.calls(), ["accept", "read", "watch", "accept"]);
    assert_eq!(client.watched(), Some(Interest::Read));
    client.send(b"x");
    world.settle(&mut server);
    assert_eq!(world.calls(), ["read", "write", "close"]);
}

/// Lost otherwise: order. While others are connected, a wait lies between a newcomer's accept and
/// its service, so that what was complete before it came goes first, although the loop learns of
/// it later.
#[test]
fn a_request_complete_earlier_is_served_before_a_newcomer() {
    let world = World::new();
    let mut server = serve(&world, Probe::silent());
    let early = world.connect();
    world.settle(&mut server);
    // The loop's wait has returned; now both come, and the accept of that turn finds the second.
    early.send(b"early");
    let _late = world.send(b"late");
    server.ready(Source::Listener(0), Ready { readable: true, ..Ready::default() });
    server.turn();
    world.settle(&mut server);
    assert_eq!(server.service().log, ["#1 open", "#1 data 5 of 5", "#2 open", "#2 data 4 of 4"]);
}

// ---- reading ------------------------------------------------------------------------------------

/// Lost otherwise: the end of a client that sends its last bytes and its FIN together. After a
/// short read nothing but the event says that there is an end behind the data.
#[test]
fn an_end_behind_data_is_seen_without_an_edge_of_its_own() {
    let world = World::new();
    let mut server = serve(&world, Probe::silent());
    let client = world.connect();
    world.settle(&mut server);
    client.send_and_fin(b"last");
    world.settle(&mut server);
    assert_eq!(news(&server), ["#1 open", "#1 eof", "#1 close Finished unsent 0"]);
}

/// Lost otherwise: messages that the network cuts up. What is not taken is offered again in one
/// piece with what follows.
#[test]
fn input_that_is_left_is_offered_again_with_more() {
    let world = World::new();
    let mut server = serve(&world, Probe::new(|_, _, input| if input.len() < 4 { 0 } else { 3 }));
    let client = world.connect();
    for byte in b"abcdef" {
        client.send(&[*byte]);
        world.settle(&mut server);
    }
    let data: Vec<_> = server.service().log.iter().skip(1).map(|line| line.trim_start_matches("#1 data ")).collect();
    assert_eq!(data, ["0 of 1", "0 of 2", "0 of 3", "3 of 4", "0 of 1", "0 of 2", "0 of 3"]);
}

/// Lost otherwise: memory, to a client that sends faster than its service takes.
#[test]
fn a_paused_connection_is_not_read_and_resumes_without_an_event() {
    let world = World::new();
    let mut server = serve(
        &world,
        Probe::new(|cx, id, input| {
            cx.pause(id);
            input.len().min(1)
        }),
    );
    let client = world.send(b"abc");
    world.settle(&mut server);
    client.send(&[b'x'; 1_000_000]);
    world.settle(&mut server);
    assert_eq!(client.unread(), 1_000_000, "a paused connection is not read");
    for _ in 0..3 {
        let id = server.service().ids[0];
        server.with(|_, cx| cx.resume(id));
        world.settle(&mut server);
    }
    assert_eq!(server.service().log[1..4], ["#1 data 1 of 3", "#1 data 1 of 2", "#1 data 1 of 1"]);
    assert!(server.service().log[4].contains("data 1 of 65536"), "and then it reads on: {}", server.service().log[4]);
}

/// Lost otherwise: places, to clients that have gone while they were not being read.
#[test]
fn a_reset_is_noticed_while_paused() {
    let world = World::new();
    let mut server = serve(
        &world,
        Probe::new(|cx, id, _| {
            cx.pause(id);
            0
        }),
    );
    let client = world.send(b"abc");
    world.settle(&mut server);
    client.reset();
    world.settle(&mut server);
    assert_eq!(news(&server), ["#1 open", "#1 close ConnectionReset unsent 0"]);
}

/// Lost otherwise: memory, to a client that sends a message without end.
#[test]
fn a_full_input_buffer_that_nobody_empties_ends_the_connection() {
    let world = World::new();
    let mut server = serve(&world, Probe::new(|_, _, _| 0));
    let client = world.send(&[b'x'; 1_000_000]);
    world.settle(&mut server);
    assert_eq!(news(&server), ["#1 open", "#1 close InputFull unsent 0"]);
    assert!(client.unread() > 900_000, "no more was read than the limit");
}

/// Lost otherwise: bulk transfers through an echo, whose input is full because its output is.
#[test]
fn backpressure_holds_and_lets_go() {
    let world = World::new();
    let mut server = serve(&world, Probe::echo());
    let data: Vec<u8> = (0..1_000_000u32).map(|n| (n % 251) as u8).collect();
    let client = world.connect();
    client.set_window(0);
    client.send(&data);
    world.settle(&mut server);
    assert!(client.unread() > 800_000, "reading stops while nothing can be written");
    let mut echoed = Vec::new();
    while echoed.len() < data.len() {
        client.set_window(9_999);
        world.settle(&mut server);
        let more = client.received();
        assert!(!more.is_empty(), "it goes on whenever there is room");
        echoed.extend(more);
    }
    assert!(echoed == data);
}

/// Lost otherwise: everybody else, to one client that never stops sending.
#[test]
fn a_busy_connection_has_a_bounded_turn() {
    let world = World::new();
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

/// Lost otherwise: everybody else, to a service that sends more whenever it may.
#[test]
fn a_service_that_always_sends_more_has_a_bounded_turn() {
    let world = World::new();
    let mut probe = Probe::echo();
    probe.on_drain = Box::new(|cx, id| cx.send(id, b"!").unwrap());
    let mut server = serve(&world, probe);
    let client = world.send(b"go");
    for _ in 0..3 {
        world.turn(&mut server);
        let received = client.received().len();
        assert!((1..=1024).contains(&received), "{received} writes in one turn");
    }
}

/// Lost otherwise: a request, to a signal that interrupts a system call.
#[test]
fn interrupted_calls_are_repeated() {
    let world = World::new();
    let mut server = serve(&world, Probe::once());
    world.fail_accepts([ErrorKind::Interrupted; 3]);
    let client = world.connect();
    client.interrupt(5);
    client.send(b"x");
    world.settle(&mut server);
    assert_eq!(client.received(), b".");
}

/// Lost otherwise: the tail of what a peer sends, if it ends its half while its input is held back
/// by its output.
#[test]
fn an_end_waits_for_input_that_is_held_back() {
    let world = World::new();
    let mut server = serve(&world, Probe::echo());
    let data: Vec<u8> = (0..100_000u32).map(|n| (n % 251) as u8).collect();
    let client = world.connect();
    client.set_window(0);
    client.send_and_fin(&data);
    let mut echoed = Vec::new();
    for _ in 0..200 {
        world.settle(&mut server);
        echoed.extend(client.received());
        client.set_window(999);
    }
    assert!(echoed == data, "{} of {} bytes", echoed.len(), data.len());
    assert!(client.ended());
}

/// Lost otherwise: a message exactly as long as the limit, whose sender then ends its half.
#[test]
fn a_full_input_with_nothing_but_the_end_behind_it_is_no_overflow() {
    let world = World::new();
    let limits = Limits { input: 8, ..Limits::default() };
    let mut server = world.serve(Probe::new(|_, _, _| 0), limits, 1, Overload::Defer);
    let client = world.connect();
    client.send_and_fin(b"12345678");
    world.settle(&mut server);
    assert_eq!(news(&server), ["#1 open", "#1 eof", "#1 close Finished unsent 0"]);
}

/// Lost otherwise: a loop with senseless limits would spin for ever.
#[test]
fn limits_of_zero_still_let_something_be_done() {
    let world = World::new();
    let limits = Limits { input: 0, turn: 0, accepts: 0, lingering: 0, ..Limits::default() };
    let mut server = world.serve(Probe::once(), limits, 10, Overload::Defer);
    let clients = [world.send(b"x"), world.send(b"xyz")];
    world.settle(&mut server);
    assert!(clients.iter().all(|client| client.received() == b"." && client.closed()));
}

// ---- sending ------------------------------------------------------------------------------------

/// Lost otherwise: the tail of an answer, to a socket that takes it in pieces.
#[test]
fn a_short_write_waits_for_room_and_goes_on() {
    let world = World::new();
    let mut server = serve(&world, Probe::echo());
    let client = world.connect();
    client.set_window(3);
    client.send(b"abcdefgh");
    world.settle(&mut server);
    assert_eq!(client.watched(), Some(Interest::ReadWrite), "asked for only after a short write");
    assert_eq!(news(&server), ["#1 open"], "not drained yet");
    client.set_window(3);
    world.settle(&mut server);
    client.set_window(3);
    world.settle(&mut server);
    assert_eq!(client.received(), b"abcdefgh");
    assert_eq!(news(&server), ["#1 open", "#1 drain"], "drained once");
}

/// Lost otherwise: memory, and messages cut in two.
#[test]
fn send_takes_all_or_nothing_within_the_limit() {
    let world = World::new();
    let limits = Limits { output: 10, ..Limits::default() };
    let mut server = world.serve(Probe::silent(), limits, 10, Overload::Defer);
    let client = world.connect();
    world.settle(&mut server);
    client.set_window(0);
    let id = server.service().ids[0];
    server.with(|_, cx| {
        assert_eq!(cx.room(id), 10);
        assert_eq!(cx.send(id, b"123456789AB"), Err(SendError::Full));
        assert_eq!(cx.send(id, b"1234567890"), Ok(()));
        assert_eq!(cx.room(id), 0);
        assert_eq!(cx.send(id, b"x"), Err(SendError::Full));
        assert_eq!(cx.send_shared(id, &Rc::from(&b"x"[..])), Err(SendError::Full));
        let file = Rc::new(tempfile::tempfile().unwrap());
        assert_eq!(cx.send_file(id, &file, 0, 1), Err(SendError::Full));
        assert_eq!(cx.send(id, b""), Ok(()));
    });
    client.set_window(100);
    world.settle(&mut server);
    assert_eq!(client.received(), b"1234567890");
    assert_eq!(news(&server), ["#1 open", "#1 drain"]);
}

/// Lost otherwise: the order of an answer that is made of several kinds of pieces.
#[test]
fn bytes_shared_buffers_and_files_go_out_in_order() {
    let world = World::new();
    let mut server = serve(&world, Probe::silent());
    let client = world.connect();
    world.settle(&mut server);
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(b"0123456789").unwrap();
    let (file, shared, id) = (Rc::new(file), Rc::from(&b"<shared>"[..]), server.service().ids[0]);
    client.set_window(0);
    server.with(|_, cx| {
        cx.send(id, b"head ").unwrap();
        cx.send_shared(id, &shared).unwrap();
        cx.send(id, b" body ").unwrap();
        cx.send_file(id, &file, 3, 4).unwrap();
        cx.send(id, b" tail").unwrap();
        cx.finish(id);
    });
    for _ in 0..20 {
        client.set_window(2);
        world.settle(&mut server);
    }
    assert!(client.closed());
    assert_eq!(client.received(), b"head <shared> body 3456 tail");
    assert_eq!(Rc::strong_count(&shared), 1, "the buffer is let go");
}

/// Lost otherwise: a peer that takes a part of a file for the whole.
#[test]
fn a_file_that_ends_early_fails_the_connection() {
    let world = World::new();
    let mut server = serve(&world, Probe::silent());
    let _client = world.connect();
    world.settle(&mut server);
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(b"short").unwrap();
    let (file, id) = (Rc::new(file), server.service().ids[0]);
    server.with(|_, cx| cx.send_file(id, &file, 0, 100).unwrap());
    assert_eq!(news(&server), ["#1 open", "#1 close UnexpectedEof unsent 95"]);
}

// ---- closing ------------------------------------------------------------------------------------

/// Lost otherwise: what a service knows about what has arrived.
#[test]
fn a_close_happens_once_and_counts_what_never_left() {
    let world = World::new();
    let mut server = serve(&world, Probe::echo());
    let client = world.connect();
    client.set_window(2);
    client.send(b"abcdef");
    world.settle(&mut server);
    client.reset();
    client.fin();
    world.settle(&mut server);
    let id = server.service().ids[0];
    server.with(|_, cx| {
        cx.abort(id);
        cx.finish(id);
    });
    assert_eq!(news(&server), ["#1 open", "#1 close ConnectionReset unsent 4"]);
}

/// Lost otherwise: somebody else's bytes, sent to the connection that has got the slot.
#[test]
fn a_stale_id_reaches_nobody() {
    let world = World::new();
    let mut server = serve(&world, Probe::silent());
    let first = world.connect();
    world.settle(&mut server);
    let key = first.key();
    first.fin();
    world.settle(&mut server);
    let second = world.connect();
    world.settle(&mut server);
    assert_eq!(second.key(), key, "the slot is used again");
    let stale = server.service().ids[0];
    server.with(|_, cx| {
        assert_eq!(cx.send(stale, b"for the first"), Err(SendError::Gone));
        assert_eq!(cx.room(stale), 0);
        assert!(cx.peer(stale).is_none());
        cx.abort(stale);
        cx.finish(stale);
        cx.pause(stale);
        cx.set_deadline(stale, Some(cx.now()));
    });
    assert_eq!(server.timeout(), None, "no deadline was set");
    second.send(b"still here");
    world.settle(&mut server);
    assert_eq!(second.received(), b"");
    assert_eq!(server.service().log.last().unwrap(), "#2 data 10 of 10");
}

/// Lost otherwise: a connection, to an event that was meant for the one before it.
#[test]
fn late_and_false_events_harm_nobody() {
    let world = World::new();
    let mut server = serve(&world, Probe::echo());
    let client = world.connect();
    world.settle(&mut server);
    let all = Ready { readable: true, writable: true, read_closed: true, error: true };
    for _ in 0..3 {
        world.rumour(Source::Connection(client.key()), all);
        world.rumour(Source::Connection(client.key() + 7), all);
        world.rumour(Source::Listener(0), all);
        world.rumour(Source::Listener(99), all);
        world.settle(&mut server);
    }
    client.send(b"hello");
    world.settle(&mut server);
    assert_eq!(client.received(), b"hello");
    assert_eq!(news(&server), ["#1 open", "#1 drain"]);
}

/// Lost otherwise: the loop itself, to services that close each other's connections.
#[test]
fn callbacks_may_end_any_connection() {
    let world = World::new();
    let mut server = serve(&world, Probe::silent());
    let clients: Vec<Wire> = (0..3).map(|_| world.connect()).collect();
    world.settle(&mut server);
    let ids = server.service().ids.clone();
    let all = ids.clone();
    server.with(|probe, _| {
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

/// Lost otherwise: an answer, to the reset of a close over unread input.
#[test]
fn finish_lingers_only_over_unread_input() {
    let world = World::new();
    let mut server = serve(&world, Probe::once());
    let modest = world.send(b"x");
    world.settle(&mut server);
    assert!(modest.closed() && !modest.destroyed(), "closed at once");
    let greedy = world.send(&[b'x'; 100_000]);
    world.settle(&mut server);
    assert!(greedy.ended() && !greedy.closed(), "our half has ended");
    assert_eq!((server.stats().open, server.stats().lingering), (0, 1));
    assert_eq!(news(&server).last().unwrap(), &"#2 close Finished unsent 0", "for the service it has closed");
    greedy.send(&[b'x'; 100_000]);
    world.settle(&mut server);
    assert_eq!(greedy.unread(), 0, "what still comes is dropped");
    greedy.fin();
    world.settle(&mut server);
    assert!(greedy.closed() && !greedy.destroyed());
    assert_eq!(greedy.received(), b".");
}

/// Lost otherwise: descriptors, to clients that linger without end, without pause, or in numbers.
#[test]
fn lingering_is_bounded_in_time_bytes_and_number() {
    let world = World::new();
    let probe = Probe::new(|cx, id, input| {
        cx.finish_lingering(id);
        input.len()
    });
    let limits = Limits { lingering: 3, ..Limits::default() };
    let mut server = world.serve(probe, limits, 1, Overload::Defer);
    let linger = || world.send(b"x");
    let silent = linger();
    world.settle(&mut server);
    assert!(silent.ended() && !silent.closed(), "refuse lingers although all has been read");
    assert_eq!(server.timeout(), Some(limits.linger_time));
    world.pass(limits.linger_time);
    world.settle(&mut server);
    assert!(silent.closed());

    let noisy = linger();
    world.settle(&mut server);
    for _ in 0..20 {
        noisy.send(&[b'x'; 100_000]);
        world.settle(&mut server);
    }
    assert!(noisy.closed(), "too much");

    let many: Vec<Wire> = (0..5).map(|_| linger()).collect();
    world.settle(&mut server);
    let closed: Vec<bool> = many.iter().map(Wire::closed).collect();
    assert_eq!(closed, [true, true, false, false, false], "the oldest go first; none takes a client's place");
    many[4].reset();
    world.settle(&mut server);
    assert!(many[4].closed());
}

/// Lost otherwise: five seconds for every peer that has ended before it is answered.
#[test]
fn nobody_lingers_for_a_peer_that_has_ended() {
    let world = World::new();
    let mut probe = Probe::silent();
    probe.on_eof = Eof::Keep;
    let mut server = serve(&world, probe);
    let client = world.connect();
    client.send_and_fin(b"x");
    world.settle(&mut server);
    let id = server.service().ids[0];
    server.with(|_, cx| {
        cx.send(id, b"late answer").unwrap();
        cx.finish_lingering(id);
    });
    assert_eq!(client.received(), b"late answer");
    assert!(client.closed() && !client.was_reset());
}

/// Lost otherwise: a peer that takes what came before a failure for the whole.
#[test]
fn an_answer_cut_short_ends_in_a_reset() {
    let world = World::new();
    let mut server = serve(&world, Probe::silent());
    let (cut, whole) = (world.connect(), world.connect());
    world.settle(&mut server);
    let ids = server.service().ids.clone();
    cut.set_window(4);
    server.with(|_, cx| ids.iter().for_each(|id| cx.send(*id, b"long answer").unwrap()));
    server.with(|_, cx| ids.iter().for_each(|id| cx.abort(*id)));
    assert!(cut.was_reset() && !whole.was_reset());
    assert!(cut.closed() && whole.closed());
}

// ---- deadlines ----------------------------------------------------------------------------------

/// Lost otherwise: a parked client's two seconds, which become thirty while others are busy.
#[test]
fn a_deadline_is_met_under_a_flood_of_newcomers() {
    let world = World::new();
    let mut probe = Probe::once();
    probe.deadline = Some(Duration::from_secs(2));
    let mut server = serve(&world, probe);
    let parked = world.connect();
    world.settle(&mut server);
    assert_eq!(server.timeout(), Some(Duration::from_secs(2)));
    (0..5_000).for_each(|_| drop(world.send(b"x")));
    world.turn(&mut server);
    world.pass(Duration::from_secs(2));
    world.turn(&mut server);
    assert!(parked.closed());
    assert!(world.waiting() > 4_000, "while most of the flood still waits");
    world.settle(&mut server);
    assert_eq!(server.timeout(), None, "no deadline is left behind");
}

/// Lost otherwise: rest. A deadline that has been moved or cleared wakes nobody.
#[test]
fn a_moved_deadline_wakes_at_its_new_time_only() {
    let world = World::new();
    let mut server = serve(&world, Probe::silent());
    let client = world.connect();
    world.settle(&mut server);
    let (id, second) = (server.service().ids[0], Duration::from_secs(1));
    let mut set = |after: Option<Duration>| {
        server.with(|_, cx| cx.set_deadline(id, after.map(|after| cx.now() + after)));
        server.timeout()
    };
    assert_eq!(set(Some(second)), Some(second));
    assert_eq!(set(Some(second * 10)), Some(second * 10));
    assert_eq!(set(None), None);
    assert_eq!(set(Some(second * 3)), Some(second * 3));
    world.pass(second * 3 - Duration::from_nanos(1));
    world.turn(&mut server);
    assert!(!client.closed());
    world.pass(Duration::from_nanos(1));
    world.turn(&mut server);
    assert_eq!(news(&server), ["#1 open", "#1 deadline", "#1 close Aborted unsent 0"]);
}

/// Lost otherwise: every other deadline, to one that is always set to a time that has passed.
#[test]
fn a_deadline_in_the_past_starves_no_other() {
    let world = World::new();
    let mut probe = Probe::silent();
    probe.deadline = Some(Duration::from_secs(1));
    let mut server = serve(&world, probe);
    let clients: Vec<Wire> = (0..5).map(|_| world.connect()).collect();
    world.settle(&mut server);
    let first = server.service().ids[0];
    server.with(|probe, _| {
        probe.on_deadline =
            Box::new(move |cx, id| if id == first { cx.set_deadline(id, Some(cx.now())) } else { cx.abort(id) });
    });
    world.pass(Duration::from_secs(1));
    world.turn(&mut server);
    assert!(clients[1..].iter().all(Wire::closed), "the others fire in the same turn");
    let fired = |server: &EventLoop<Probe, Fake>| news(server).iter().filter(|line| **line == "#1 deadline").count();
    assert_eq!(fired(&server), 1);
    world.pass(Duration::from_millis(1));
    world.turn(&mut server);
    assert_eq!(fired(&server), 2, "and once a turn from then on");
}

// ---- accepting ----------------------------------------------------------------------------------

/// Lost otherwise: the processor (a loop that tries again and again) or the service (one that
/// never does) when the system has no descriptor left.
#[test]
fn without_descriptors_it_waits_for_a_close_or_a_short_time() {
    let world = World::new();
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
            first.fin();
        } else {
            world.pass(retry);
            world.turn(&mut server);
        }
        world.settle(&mut server);
        assert_eq!(client.unread(), 0, "accepted without a new edge of the listener");
        assert_eq!(server.timeout(), None);
    }
    assert!(!second.closed(), "nobody was closed for it");
}

/// Lost otherwise: newcomers, turned away for the sake of connections that are already over.
#[test]
fn without_descriptors_who_lingers_goes_first() {
    let world = World::new();
    let mut server = serve(&world, Probe::once());
    let lingering = world.send(&[b'x'; 70_000]);
    world.settle(&mut server);
    assert_eq!(server.stats().lingering, 1);
    world.fail_accepts([ErrorKind::Other]);
    let client = world.send(b"x");
    world.settle(&mut server);
    assert!(lingering.closed());
    assert_eq!(client.received(), b".");
}

/// Lost otherwise: those behind a connection that was lost in the backlog.
#[test]
fn an_aborted_connection_is_skipped() {
    let world = World::new();
    let mut server = serve(&world, Probe::once());
    world.fail_accepts([ErrorKind::ConnectionAborted, ErrorKind::Interrupted, ErrorKind::NetworkDown]);
    let clients: Vec<Wire> = (0..5).map(|_| world.send(b"x")).collect();
    world.settle(&mut server);
    assert!(clients.iter().all(|client| client.received() == b"."));
}

/// Lost otherwise: the processor, to an accept that is refused every time and uses nothing up.
#[test]
fn an_error_that_stays_is_waited_out() {
    let world = World::new();
    let mut server = serve(&world, Probe::once());
    world.fail_accepts([ErrorKind::PermissionDenied; 1_000]);
    let client = world.send(b"x");
    let mut waits = 0;
    while client.received() != b"." {
        world.settle(&mut server);
        if let Some(retry) = server.timeout() {
            world.pass(retry);
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
    let world = World::new();
    let mut server = EventLoop::on(Fake::of(&world), Probe::silent(), Limits::default());
    let both = Listen::new("127.0.0.1:1".parse().unwrap()).and("127.0.0.1:2".parse().unwrap());
    server.listen(both.max_conns(2)).unwrap();
    let _holder = world.connect_to(0);
    world.settle(&mut server);
    let queues = [0, 1].map(|door| (0..50).map(|_| world.connect_to(door)).collect::<Vec<_>>());
    for _ in 0..40 {
        world.settle(&mut server);
        queues.iter().flatten().filter(|client| client.is_accepted() && !client.closed()).for_each(Wire::fin);
    }
    let served = queues.map(|queue| queue.iter().filter(|client| client.is_accepted()).count());
    assert!(served[0].abs_diff(served[1]) <= 1, "{served:?}");
}

/// Lost otherwise: a client evicted a moment too early, or a newcomer turned away too late.
#[test]
fn the_oldest_is_evicted_only_beyond_its_age() {
    let (world, age, tick) = (World::new(), Duration::from_secs(10), Duration::from_nanos(1));
    let evict = Overload::EvictOldest { after: age, otherwise: b"busy".into() };
    let mut server = world.serve(Probe::silent(), Limits::default(), 2, evict);
    let oldest = world.connect();
    world.settle(&mut server);
    world.pass(tick);
    let second = world.connect();
    world.settle(&mut server);
    for (passes, rejected) in [(age - tick - tick, true), (tick, true), (tick, false)] {
        world.pass(passes);
        let newcomer = world.connect();
        world.settle(&mut server);
        assert_eq!(newcomer.received(), if rejected { &b"busy"[..] } else { b"" });
        assert_eq!(oldest.closed(), !rejected);
    }
    assert!(!second.closed());
    assert_eq!(news(&server).last().unwrap(), &"#5 open");
    assert!(news(&server).contains(&"#1 close Evicted unsent 0"));
}

/// Lost otherwise: a rejected client's reply, or more system calls than a flood of them is worth.
#[test]
fn a_rejection_costs_four_calls_or_lingers() {
    let world = World::new();
    let mut server = world.serve(Probe::silent(), Limits::default(), 1, busy());
    let _holder = world.connect();
    world.settle(&mut server);
    world.calls();
    let ready = world.send(b"x");
    world.settle(&mut server);
    assert_eq!(world.calls(), ["accept", "accept", "read", "write", "close"]);
    let late = world.connect();
    world.settle(&mut server);
    assert_eq!(world.calls(), ["accept", "accept", "read", "write", "shut", "watch"]);
    assert_eq!(server.stats().open, 1, "who lingers is no client");
    late.send(b"x");
    late.fin();
    world.settle(&mut server);
    assert_eq!(world.calls(), ["read", "read", "close"]);
    for client in [&ready, &late] {
        assert_eq!(client.received(), b"busy");
        assert!(client.ended() && client.closed());
    }
    assert_eq!(server.stats().rejected, 2);
    assert_eq!(news(&server), ["#1 open"], "the service never hears of them");
}

/// Lost otherwise: clients that a server which serves one at a time would have to refuse.
#[test]
fn a_deferring_listener_accepts_when_a_place_is_free() {
    let world = World::new();
    let mut server = world.serve(Probe::once(), Limits::default(), 1, Overload::Defer);
    let clients: Vec<Wire> = (0..11).map(|_| world.connect()).collect();
    world.settle(&mut server);
    for (n, client) in clients.iter().enumerate() {
        assert_eq!(world.waiting(), 10 - n, "one at a time");
        client.send(b"x");
        world.settle(&mut server);
        assert_eq!(client.received(), b".");
    }
}

/// Lost otherwise: the operator's way in, while the service's own listener is full.
#[test]
fn each_listener_counts_its_own_connections() {
    let world = World::new();
    let mut server = world.serve(Probe::silent(), Limits::default(), 1, busy());
    world.listen(&mut server, 1, busy());
    let (first, _) = (world.connect_to(0), world.connect_to(0));
    let second = world.connect_to(1);
    world.settle(&mut server);
    assert_eq!((server.stats().open, server.stats().rejected), (2, 1));
    assert!(!first.closed() && !second.closed());
}

// ---- stopping -----------------------------------------------------------------------------------

/// Lost otherwise: requests under way at a stop, and those waiting in the backlog.
#[test]
fn a_stop_serves_who_is_there_and_then_ends() {
    let world = World::new();
    let mut server = serve(&world, Probe::once());
    let slow = world.connect();
    world.settle(&mut server);
    let waiting = world.send(b"x");
    server.stop(Duration::from_secs(5));
    world.settle(&mut server);
    assert_eq!(waiting.received(), b".", "it came before the stop");
    assert!(!server.is_stopped());
    assert_eq!(server.timeout(), Some(Duration::from_secs(5)));
    slow.send(b"x");
    world.settle(&mut server);
    assert!(server.is_stopped());
    assert_eq!(slow.received(), b".");
    assert_eq!(news(&server)[3], "shutdown");
}

/// Lost otherwise: everybody in a long backlog, and those of whom the loop has not heard yet.
#[test]
fn a_stop_serves_the_whole_backlog() {
    let world = World::new();
    let mut server = serve(&world, Probe::once());
    let clients: Vec<Wire> = (0..1_000).map(|_| world.send(b"x")).collect();
    server.stop(Duration::from_secs(5));
    while !server.is_stopped() {
        assert_eq!(server.timeout(), Some(Duration::ZERO));
        server.turn(); // no event is handed over
    }
    assert!(clients.iter().all(|client| client.received() == b"."));
}

/// Lost otherwise: a stop, to newcomers who never cease to come.
#[test]
fn a_flood_does_not_hold_up_a_stop() {
    let world = World::new();
    let mut server = serve(&world, Probe::once());
    server.stop(Duration::from_secs(5));
    for _ in 0..100 {
        (0..200).for_each(|_| drop(world.send(b"x")));
        world.turn(&mut server);
    }
    assert!(server.is_stopped());
    assert!(world.waiting() > 0);
}

/// Lost otherwise: a quick restart, to clients that have their answer and stay.
#[test]
fn who_lingers_holds_up_a_stop_for_a_moment_only() {
    let world = World::new();
    let mut server = world.serve(Probe::silent(), Limits::default(), 0, busy());
    let rejected = world.connect();
    world.settle(&mut server);
    assert!(rejected.ended() && !rejected.closed());
    server.stop(Duration::from_secs(60));
    world.settle(&mut server);
    let last = server.timeout().unwrap();
    assert!(last <= Duration::from_millis(250), "{last:?}");
    world.pass(last);
    world.turn(&mut server);
    assert!(server.is_stopped());
}

/// Lost otherwise: an operator's second thoughts.
#[test]
fn a_later_stop_can_only_be_sooner() {
    let world = World::new();
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
    let listen = Listen::new("127.0.0.1:1".parse().unwrap());
    assert_eq!(server.listen(listen).unwrap_err().kind(), ErrorKind::InvalidInput, "a loop that stops opens nothing");
}

/// Lost otherwise: a stop, to clients that never end.
#[test]
fn when_the_grace_is_over_the_rest_is_closed() {
    let world = World::new();
    let mut server = serve(&world, Probe::silent());
    let client = world.connect();
    world.settle(&mut server);
    server.stop(Duration::from_secs(5));
    world.settle(&mut server);
    world.pass(Duration::from_secs(5));
    world.turn(&mut server);
    assert!(client.closed() && server.is_stopped());
    assert_eq!(news(&server), ["#1 open", "shutdown", "#1 close Shutdown unsent 0"]);
}

// ---- the stack on it ----------------------------------------------------------------------------

fn stack(world: &World, capacity: usize) -> EventLoop<StackService, Fake> {
    world.serve(StackService::new(capacity), Limits::default(), 100, Overload::Reject(wire::BUSY.into()))
}

/// Lost otherwise: an item whose response could not be sent.
#[test]
fn an_undelivered_item_goes_back_on_top_or_to_the_next() {
    let world = World::new();
    let mut server = stack(&world, 100);
    world.send(b"\x01a");
    world.send(b"\x01b");
    world.settle(&mut server);

    let unlucky = world.send(b"\x80");
    unlucky.set_window(1); // the header of the response, and no more
    world.settle(&mut server);
    assert_eq!(server.service().items(), 1, "b is on its way");
    unlucky.reset();
    world.settle(&mut server);
    assert_eq!(server.service().items(), 2, "b is back");
    let (first, second) = (world.send(b"\x80"), world.send(b"\x80"));
    world.settle(&mut server);
    assert_eq!((first.received(), second.received()), (b"\x01b".to_vec(), b"\x01a".to_vec()));

    let (dead, next) = (world.send(b"\x80"), world.send(b"\x80"));
    world.settle(&mut server);
    dead.set_window(0);
    world.send(b"\x01c");
    world.settle(&mut server);
    dead.reset();
    world.settle(&mut server);
    assert_eq!(next.received(), b"\x01c", "the next in line gets it");
}

/// Lost otherwise: the bound of the stack, when an item comes back to a place that was given away.
#[test]
fn a_parked_push_waits_until_the_popped_item_has_left() {
    let world = World::new();
    let mut server = stack(&world, 1);
    world.send(b"\x01a");
    let parked = world.send(b"\x01b");
    let slow = world.send(b"\x80");
    slow.set_window(0);
    world.settle(&mut server);
    assert_eq!(parked.received(), b"", "a may come back");
    slow.set_window(100);
    world.settle(&mut server);
    assert_eq!((slow.received(), parked.received()), (b"\x01a".to_vec(), b"\x00".to_vec()));
}

/// Lost otherwise: an item, if an embedder leaves too little room for a response.
#[test]
fn an_item_that_has_no_room_in_the_output_stays() {
    let world = World::new();
    let limits = Limits { output: 2, ..Limits::default() };
    let mut server = world.serve(StackService::new(10), limits, 10, Overload::Defer);
    world.send(b"\x05hello");
    let pops = [world.send(b"\x80"), world.send(b"\x80")];
    world.settle(&mut server);
    assert_eq!(server.service().items(), 1);
    assert!(pops.iter().all(Wire::closed), "they are told, and do not wait");
}
