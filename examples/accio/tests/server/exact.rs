//! The service on a network in memory, whose clock is moved by hand.

use super::{ACCIO, CONFIRM, CONFIRM_AGAIN};
use accio::{Accio, Results};
use pollstack::sim::{Client, Sim, World};
use pollstack::{EventLoop, Limits, ListenerConfig};
use std::time::Duration;

const TIMEOUT: Duration = Duration::from_secs(10);
const NANOSECOND: Duration = Duration::from_nanos(1);

type Server = EventLoop<Accio<Vec<u8>>, Sim>;

fn serve(clients: usize) -> (World, Server) {
    let world = World::new(0);
    let accio = Accio::new(TIMEOUT, None, false, Vec::new());
    let listener = ListenerConfig::new("127.0.0.1:1".parse().unwrap()).max_conns(clients);
    let server = world.serve(accio, Limits::default(), listener);
    (world, server)
}

/// The lines that the server has reported since the last time.
fn results(server: &mut Server) -> String {
    String::from_utf8(server.call(|accio, _| std::mem::take(&mut accio.results))).unwrap()
}

/// Lost otherwise: the tenth second. It is counted from the last byte, in every phase.
#[test]
fn the_deadline_moves_with_every_byte() {
    let whole = [CONFIRM, CONFIRM_AGAIN, b"file"].concat();
    for at in 0..=whole.len() {
        let (world, mut server) = serve(1);
        let client = world.connect();
        world.settle(&mut server);
        for byte in &whole[..at] {
            world.advance(TIMEOUT - NANOSECOND);
            client.send(&[*byte]);
            world.turn(&mut server);
            world.settle(&mut server);
        }
        world.advance(TIMEOUT - NANOSECOND);
        world.turn(&mut server);
        assert!(!client.is_closed(), "{at} bytes, 10 s less a nanosecond");
        world.advance(NANOSECOND);
        world.turn(&mut server);
        assert!(client.is_closed(), "{at} bytes, 10 s");
        assert_eq!(results(&mut server), "ERROR\n");
        let next = world.send(&whole);
        next.end();
        world.settle(&mut server);
        assert_eq!(results(&mut server), "4\n");
        assert_eq!(server.timeout(), None, "nothing is left to wait for");
    }
}

/// Lost otherwise: uploads, after the host was suspended. The clients had sent in time; that there are
/// more of them than one wait brings events does not make the rest silent.
#[test]
fn clients_that_sent_in_time_are_not_silent_after_a_suspension() {
    let (world, mut server) = serve(1500);
    let clients: Vec<Client> = (0..1500).map(|_| world.send(&[CONFIRM, CONFIRM_AGAIN].concat())).collect();
    world.settle(&mut server);
    clients.iter().for_each(|client| client.send(b"x"));
    world.advance(TIMEOUT);
    world.turn(&mut server);
    clients.iter().for_each(Client::end);
    world.settle(&mut server);
    let text = results(&mut server);
    assert_eq!((text.matches("1\n").count(), text.matches("ERROR\n").count()), (1500, 0));
}

/// A place for results that is full.
#[derive(Default)]
struct Full {
    lines: Vec<String>,
    room: usize,
}

impl Results for Full {
    fn try_line(&mut self, line: &str) -> bool {
        let fits = self.room > 0;
        if fits {
            self.room -= 1;
            self.lines.push(line.to_owned());
        }
        fits
    }
}

/// Lost otherwise: results, to a reader that is slow; or memory, to one that does not read at all.
#[test]
fn results_that_find_no_room_wait_and_hold_back_the_next_client() {
    let world = World::new(0);
    let accio = Accio::new(TIMEOUT, None, false, Full::default());
    let listener = ListenerConfig::new("127.0.0.1:1".parse().unwrap()).max_conns(1);
    let mut server = world.serve(accio, Limits::default(), listener);
    let whole = [CONFIRM, CONFIRM_AGAIN, b"file"].concat();
    let first = world.send(&whole);
    first.end();
    world.settle(&mut server);
    let next = world.send(&whole);
    next.end();
    world.settle(&mut server);
    world.advance(TIMEOUT * 10);
    world.turn(&mut server);
    assert_eq!(next.read(), b"", "it is not greeted, and not given up");
    server.call(|accio, _| accio.results.room = 1);
    server.wake();
    world.settle(&mut server);
    assert_eq!(next.read(), [ACCIO, ACCIO].concat());
    server.call(|accio, _| accio.results.room = 1);
    server.wake();
    world.settle(&mut server);
    assert_eq!(server.service().results.lines, ["4", "4"]);
    // Clients that leave before they are greeted leave no more than so many lines.
    let last = world.send(&whole);
    last.end();
    world.settle(&mut server);
    for _ in 0..3000 {
        world.connect().abort();
        world.settle(&mut server);
    }
    server.call(|accio, _| accio.results.room = 10_000);
    server.wake();
    world.settle(&mut server);
    let lines = &server.service().results.lines;
    assert!(lines[2] == "4" && lines.len() < 1100, "{}", lines.len());
}

/// Lost otherwise: one client at a time. The others are left in the backlog, in their order.
#[test]
fn the_others_are_not_even_accepted() {
    let (world, mut server) = serve(1);
    let clients: Vec<Client> =
        (0..11).map(|n| world.send(&[CONFIRM, CONFIRM_AGAIN, &vec![b'x'; n]].concat())).collect();
    for n in 0..clients.len() {
        world.settle(&mut server);
        assert_eq!(clients[n].read(), [ACCIO, ACCIO].concat());
        assert!(clients[n + 1..].iter().all(|client| !client.is_accepted()));
        clients[n].end();
        world.settle(&mut server);
        assert_eq!(results(&mut server), format!("{n}\n"));
    }
}
