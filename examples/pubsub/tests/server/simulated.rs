//! Tests that need a clock that jumps, or a network with faults.

use super::events::{Parser, chunks};
use pollstack::http::{Clock, Http};
use pollstack::sim::{Client, Faults, Sim, World};
use pollstack::{EventLoop, Limits, ListenerConfig};
use pubsub::{Config, Guard, Pubsub};
use std::time::{Duration, UNIX_EPOCH};

const BASE: u64 = 1_000_000;

fn serve(world: &World, config: Config) -> EventLoop<Http<Pubsub>, Sim> {
    let guard = Guard::new(&[], &[], false);
    let pubsub = Pubsub::new(config, guard, world.now(), BASE).unwrap();
    let http = Http::new(pubsub, Clock::new(world.now(), UNIX_EPOCH));
    let mut server = EventLoop::with_net(world.net(), http, Limits::default().output(config.unsent));
    server.listen(ListenerConfig::new("127.0.0.1:80".parse().unwrap())).unwrap();
    server
}

fn get(world: &World, server: &mut EventLoop<Http<Pubsub>, Sim>, target: &str, fields: &str) -> Client {
    let client = world.connect();
    client.send(format!("GET {target} HTTP/1.1\r\nHost: a\r\n{fields}\r\n").as_bytes());
    world.settle(server);
    client
}

fn post(text: &str) -> Vec<u8> {
    format!("POST /channels/c HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n{text}", text.len()).into_bytes()
}

/// The bytes that a subscriber has read, without the head.
fn content(bytes: &[u8]) -> Parser {
    let mut rest = match memchr::memmem::find(bytes, b"\r\n\r\n") {
        Some(end) => bytes[end + 4..].to_vec(),
        None => Vec::new(),
    };
    let mut parser = Parser::default();
    parser.feed(std::str::from_utf8(&chunks(&mut rest).0).unwrap());
    parser
}

/// Lost otherwise: streams, to proxies that take silence for death; and peace, at rest.
#[test]
fn heartbeats_come_in_time_and_together() {
    let world = World::new(1);
    let mut server = serve(&world, Config::default());
    let clients: Vec<Client> = (0..50)
        .map(|_| {
            world.advance(Duration::from_millis(9));
            get(&world, &mut server, "/channels/c/events", "")
        })
        .collect();
    clients.iter().for_each(|client| drop(client.read()));
    let mut turns = 0;
    for _ in 0..600 {
        world.advance(Duration::from_millis(100));
        turns += world.settle(&mut server);
    }
    for client in &clients {
        let bytes = client.read();
        let beats = memchr::memmem::find_iter(&bytes, b":\n").count();
        assert!((3..=4).contains(&beats), "{beats} in a minute");
    }
    assert!(turns < 20, "{turns} turns for 50 subscribers in a minute");
}

/// Lost otherwise: the processor, to heartbeats that are to be off.
#[test]
fn without_heartbeats_nothing_beats() {
    let world = World::new(1);
    let mut server = serve(&world, Config { heartbeat: Duration::ZERO, ..Config::default() });
    let client = get(&world, &mut server, "/channels/c/events", "");
    client.read();
    world.advance(Duration::from_secs(3600));
    world.settle(&mut server);
    assert_eq!((client.read(), server.timeout(), client.is_closed()), (Vec::new(), None, false));
}

/// Lost otherwise: the room, to a subscriber that does not read: publishers wait for it a second, no longer.
#[test]
fn publishers_wait_for_who_reads_and_not_for_who_does_not() {
    let world = World::new(1);
    let mut config = Config::default();
    config.hub.history.messages = 2;
    let mut server = serve(&world, config);
    let stalled = get(&world, &mut server, "/channels/c/events", "");
    stalled.set_room(0);
    let publisher = world.connect();
    let long = "x".repeat(config.message);
    for _ in 0..20 {
        publisher.send(&post(&long));
        world.settle(&mut server);
    }
    let answers = |bytes: Vec<u8>| memchr::memmem::find_iter(&bytes, b"HTTP/1.1 200 ").count();
    let first = answers(publisher.read());
    assert!((8..15).contains(&first), "{first} fit the output and the history");
    world.advance(Duration::from_millis(500));
    world.settle(&mut server);
    assert_eq!((answers(publisher.read()), stalled.is_closed()), (0, false), "it may read yet");
    stalled.set_room(1 << 30);
    world.settle(&mut server);
    assert_eq!((first + answers(publisher.read()), stalled.is_closed()), (20, false), "it does");
    stalled.set_room(0);
    for _ in 0..20 {
        publisher.send(&post(&long));
        world.settle(&mut server);
    }
    let second = answers(publisher.read());
    assert!(second < 20, "they wait for it again");
    for _ in 0..20 {
        world.advance(Duration::from_millis(100));
        world.settle(&mut server);
    }
    assert_eq!((second + answers(publisher.read()), stalled.is_closed()), (20, true), "it does not");
}

/// Lost otherwise: a way to ask again, in time.
#[test]
fn a_long_poll_ends_when_it_said() {
    let world = World::new(1);
    let mut server = serve(&world, Config::default());
    for (query, seconds) in [("?timeout=5", 5), ("", 30), ("?timeout=1000", 60), ("?after=999999", 30)] {
        let client = get(&world, &mut server, &format!("/channels/c/poll{query}"), "");
        world.advance(Duration::from_secs(seconds) - Duration::from_nanos(1));
        world.settle(&mut server);
        assert_eq!(client.read(), b"", "{query}");
        world.advance(Duration::from_nanos(1));
        world.settle(&mut server);
        let reply = String::from_utf8(client.read()).unwrap();
        assert!(reply.starts_with("HTTP/1.1 204 ") && reply.contains("\r\nLast-Event-ID: 999999\r\n"), "{reply}");
        // And the connection is as good as new.
        client.send(b"GET /stats HTTP/1.1\r\nHost: a\r\n\r\n");
        world.settle(&mut server);
        assert!(client.read().starts_with(b"HTTP/1.1 200 "));
    }
}

/// Lost otherwise: places, to peers that are not there any more.
#[test]
fn a_websocket_that_does_not_pong_is_closed() {
    let world = World::new(1);
    let mut server = serve(&world, Config::default());
    let fields = "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
        Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
    let (dead, alive) = (0, 1);
    let clients = [dead, alive].map(|_| get(&world, &mut server, "/channels/c/ws", fields));
    clients.iter().for_each(|client| assert!(client.read().starts_with(b"HTTP/1.1 101 ")));
    for _ in 0..10 {
        world.advance(Duration::from_secs(8));
        world.settle(&mut server);
        clients[alive].send(&[0x8a, 0x80, 0, 0, 0, 0]);
        world.settle(&mut server);
    }
    let heard = clients[dead].read();
    assert_eq!(heard[..4], [0x89, 0, 0x89, 0], "two pings");
    assert_eq!(heard[4..8], [0x88, 9, 0x03, 0xe9], "and a close");
    assert!(clients[dead].has_ended());
    assert!(!clients[alive].is_closed() && clients[alive].read() == [0x89, 0].repeat(5), "a ping every 16 s");
}

/// Lost otherwise: requests that mean something else because of how the network cut them.
#[test]
fn requests_are_the_same_cut_at_every_byte() {
    let bytes = [post("one"), b"GET /channels/c/events?after=0 HTTP/1.1\r\nHost: a\r\n\r\n".to_vec()].concat();
    for cut in 0..=bytes.len() {
        let world = World::new(1);
        let mut server = serve(&world, Config::default());
        let client = world.connect();
        for piece in [&bytes[..cut], &bytes[cut..]] {
            client.send(piece);
            world.settle(&mut server);
        }
        let read = client.read();
        let reply = test_support::replies::replies(&read, &["POST"]).unwrap();
        assert_eq!(reply.0[0].text(), r#"{"id":1000000,"subscribers":0}"#, "cut at {cut}");
        let events = content(&read[reply.1..]).events;
        assert_eq!((events.len(), &*events[0].data, events[0].id), (1, "one", BASE), "cut at {cut}");
    }
}

/// Lost otherwise: a message to any subscriber, in a network with faults. Every subscriber
/// reads every message in order, once, or its connection has ended; and when it comes back it is
/// told if there is a gap.
#[test]
fn nothing_is_lost_unsaid_in_a_network_that_fails() {
    let (mut gaps, mut slow) = (0, 0);
    for seed in 0..60 {
        let mut random = fastrand::Rng::with_seed(seed);
        let world = World::new(seed);
        let mut config = Config { message: 400, unsent: 16 * 1024, ..Config::default() };
        config.hub.history.messages = random.usize(1..40);
        let mut server = serve(&world, config);
        world.set_faults(Faults::random(seed));
        world.set_buffers(2048, random.usize(500..4000));
        let publisher = world.connect();
        let mut readers: Vec<Reader> = (0..6).map(|_| Reader::new(&world, 0)).collect();
        let mut published = 0;
        for _ in 0..400 {
            match random.u8(..10) {
                0..3 => {
                    let text = format!("{} {}", BASE + published, "y\n".repeat(random.usize(..150)));
                    publisher.send(&post(&text));
                    published += 1;
                    publisher.read();
                }
                3..7 => {
                    let n = random.usize(..readers.len());
                    readers[n].read(&world, random.usize(1..3000));
                }
                7 => {
                    let n = random.usize(..readers.len());
                    readers[n].client.abort();
                    readers[n].reconnect(&world);
                }
                _ => world.turn(&mut server),
            }
        }
        world.set_faults(Faults::default());
        for _ in 0..2000 {
            world.advance(Duration::from_millis(200));
            world.settle(&mut server);
            publisher.read();
            readers.iter_mut().for_each(|reader| reader.read(&world, usize::MAX));
            if readers.iter().all(|reader| reader.last + 1 == BASE + published) {
                break;
            }
        }
        for reader in &readers {
            assert_eq!(reader.last + 1, BASE + published, "seed {seed}");
            gaps += reader.gaps;
        }
        slow += server.call(|http, _| http.handler().counts().disconnected_slow);
    }
    assert!(gaps > 0 && slow > 0, "{gaps} gaps, and {slow} who did not read");
}

/// A browser.
struct Reader {
    client: Client,
    /// The part of the head, or of a chunk, that has come.
    bytes: Vec<u8>,
    begun: bool,
    parser: Parser,
    /// The last id that it knows.
    last: u64,
    gaps: usize,
}

impl Reader {
    fn new(world: &World, last: u64) -> Reader {
        let client = world.connect();
        client.send(format!("GET /channels/c/events?after={last} HTTP/1.1\r\nHost: a\r\n\r\n").as_bytes());
        Reader { client, bytes: Vec::new(), begun: false, parser: Parser::default(), last, gaps: 0 }
    }

    /// Reads some, and checks that it is what comes next.
    fn read(&mut self, world: &World, n: usize) {
        self.bytes.extend(self.client.read_at_most(n));
        if let Some(end) = memchr::memmem::find(&self.bytes, b"\r\n\r\n").filter(|_| !self.begun) {
            self.bytes.drain(..end + 4);
            self.begun = true;
        }
        if self.begun {
            let (content, _) = chunks(&mut self.bytes);
            self.parser.feed(std::str::from_utf8(&content).unwrap());
        }
        for event in self.parser.events.drain(..) {
            match &*event.name {
                "gap" => assert!(event.id >= self.last, "a gap goes forward"),
                _ => assert!(self.last == 0 && event.id == BASE || event.id == self.last + 1, "{event:?}"),
            }
            assert!(event.name == "gap" || event.data.starts_with(&event.id.to_string()), "{event:?}");
            self.gaps += usize::from(event.name == "gap");
            self.last = event.id;
        }
        if self.last == 0 {
            self.last = self.parser.last_id;
        }
        if self.client.was_reset() || self.client.has_ended() {
            self.reconnect(world);
        }
    }

    fn reconnect(&mut self, world: &World) {
        *self = Reader { gaps: self.gaps, ..Reader::new(world, self.last) };
    }
}
