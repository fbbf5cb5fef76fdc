//! Requests cut up and glued together in every way, and in worlds where much goes wrong.

use super::*;
use fastrand::Rng;
use pollstack::sim::{Client, Faults};
use std::collections::VecDeque;

/// Requests of all forms, and what `Tell` answers.
const REQUESTS: [(&str, &str, &str); 7] = [
    ("GET", "GET /a?b HTTP/1.1\r\nHost: a\r\nAccept: */*\r\n\r\n", "GET /a?b "),
    ("HEAD", "HEAD /h HTTP/1.1\r\nHost: a\r\n\r\n", ""),
    ("POST", "POST /l HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\n\r\n\r\n", "POST /l \r\n\r\n"),
    (
        "PUT",
        "PUT /c HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3;x=y\r\na\r\n\r\n001\r\nb\r\n0\r\nT: x\r\n\r\n",
        "PUT /c a\r\nb",
    ),
    ("PUT", "PUT /e HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", "PUT /e "),
    ("GET", "\r\nGET http://x/1.0 HTTP/1.0\r\nConnection: keep-alive\r\n\r\n", "GET http://x/1.0 "),
    ("B", "B /e HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\nExpect: 100-continue\r\n\r\nhi", "B /e hi"),
];

/// The responses that a client has read, without the invitations that it may or may not have got.
fn told(bytes: &[u8], methods: &[&str]) -> Vec<String> {
    let (replies, len) =
        replies(bytes, methods).unwrap_or_else(|| panic!("{methods:?} are answered: {}", bytes.escape_ascii()));
    assert_eq!(len, bytes.len());
    replies.iter().filter(|reply| reply.status != 100).map(|reply| reply.text().to_owned()).collect()
}

/// Lost otherwise: requests that mean something else because of how the network cut them.
#[test]
fn pairs_of_requests_are_the_same_cut_at_every_byte() {
    for (first, one, answer_one) in REQUESTS {
        for (second, two, answer_two) in REQUESTS {
            let bytes = format!("{one}{two}").into_bytes();
            for cut in 0..=bytes.len() {
                let world = World::new(1);
                let mut server = serve(&world, Tell, pollstack::Limits::default());
                let client = world.connect();
                for piece in [&bytes[..cut], &bytes[cut..]] {
                    client.send(piece);
                    world.settle(&mut server);
                }
                assert_eq!(told(&client.read(), &[first, second]), [answer_one, answer_two], "cut at {cut}");
            }
        }
    }
}

/// Lost otherwise: the same, for clients that send a byte at a time.
#[test]
fn all_requests_are_the_same_a_byte_at_a_time() {
    let world = World::new(1);
    let mut server = serve(&world, Tell, pollstack::Limits::default());
    let client = world.connect();
    for byte in REQUESTS.map(|(_, request, _)| request).concat().bytes() {
        client.send(&[byte]);
        world.settle(&mut server);
    }
    assert_eq!(told(&client.read(), &REQUESTS.map(|(method, ..)| method)), REQUESTS.map(|(.., answer)| answer));
}

/// Answers at once or later, whole or streamed, at random, with what [`Tell`] answers.
struct Moody {
    random: Rng,
    held: Vec<(ExchangeId, Vec<u8>)>,
    streams: Vec<(ExchangeId, VecDeque<u8>)>,
}

impl Moody {
    fn answer(&mut self, http: &mut Responder<'_>, id: ExchangeId, text: Vec<u8>) {
        let reply = http.respond(id, Status::OK);
        match self.random.u8(..4) {
            0 => reply.shared(&text.into()),
            1 => reply.body(&text),
            n => {
                // Without a length, one of HTTP/1.0 would be the last.
                let length = n == 2 || text.starts_with(b"GET http://x/1.0");
                reply.stream(length.then_some(text.len() as u64));
                self.streams.push((id, text.into()));
                self.pour(http, id);
            }
        }
    }

    fn pour(&mut self, http: &mut Responder<'_>, id: ExchangeId) {
        let Some(at) = self.streams.iter().position(|(other, _)| *other == id) else { return };
        let (_, rest) = &mut self.streams[at];
        while !rest.is_empty() {
            let n = http.send_capacity(id).min(rest.len()).min(self.random.usize(1..40));
            if n == 0 {
                return;
            }
            let piece: Vec<u8> = rest.drain(..n).collect();
            http.send(id, &piece).unwrap();
        }
        self.streams.remove(at);
        http.finish(id);
    }
}

impl Handler for Moody {
    fn on_request(&mut self, http: &mut Responder<'_>, id: ExchangeId, request: &Request<'_>) {
        let filler = "+".repeat(if request.path() == "/a" { 1000 } else { 0 });
        let line = format!("{} {} ", request.method(), request.target());
        let text = [line.as_bytes(), request.body(), filler.as_bytes()].concat();
        if !self.held.is_empty() && self.random.bool() {
            let (id, text) = self.held.swap_remove(self.random.usize(..self.held.len()));
            self.answer(http, id, text);
        }
        match self.random.u8(..3) {
            0 => self.held.push((id, text)),
            _ => self.answer(http, id, text),
        }
    }

    fn on_room(&mut self, http: &mut Responder<'_>, id: ExchangeId) {
        self.pour(http, id);
    }
}

/// A client, its requests, and what it has read.
struct Caller {
    client: Client,
    unsent: VecDeque<u8>,
    asked: Vec<usize>,
    heard: Vec<u8>,
}

impl Caller {
    fn methods(&self) -> Vec<&'static str> {
        self.asked.iter().map(|n| REQUESTS[*n].0).collect()
    }

    fn is_answered(&self) -> bool {
        self.unsent.is_empty() && replies(&self.heard, &self.methods()).is_some()
    }
}

/// Lost otherwise: replies, torn, lost, or in another order than the requests, when the network and
/// the handler do their worst.
#[test]
fn pipelined_requests_are_answered_in_order_whatever_happens() {
    for seed in 0..300 {
        let (world, mut random) = (World::new(seed), Rng::with_seed(seed));
        if random.bool() {
            world.set_buffers(random.usize(10..200), random.usize(10..200));
        }
        world.set_faults(Faults::random(seed));
        let limits = match random.bool() {
            true => pollstack::Limits::default().output(random.usize(300..2000)).turn(random.usize(1..5000)),
            false => pollstack::Limits::default(),
        };
        let moody = Moody { random: random.fork(), held: Vec::new(), streams: Vec::new() };
        let mut server = serve(&world, moody, limits);
        let mut callers: Vec<Caller> = (0..random.usize(1..4))
            .map(|_| {
                let asked: Vec<usize> = (0..random.usize(1..12)).map(|_| random.usize(..REQUESTS.len())).collect();
                let unsent = asked.iter().flat_map(|n| REQUESTS[*n].1.bytes()).collect();
                Caller { client: world.connect(), unsent, asked, heard: Vec::new() }
            })
            .collect();
        for step in 0..100_000 {
            let n = random.usize(..callers.len());
            let caller = &mut callers[n];
            match random.u8(..4) {
                0 if !caller.unsent.is_empty() => {
                    let n = random.usize(1..=caller.unsent.len().min(100));
                    let piece: Vec<u8> = caller.unsent.drain(..n).collect();
                    caller.client.send(&piece);
                    if caller.unsent.is_empty() && random.bool() {
                        caller.client.end();
                    }
                }
                1 => caller.heard.extend(caller.client.read_at_most(random.usize(1..5000))),
                2 => server.call(|http, cx| {
                    http.call(cx, |moody, http| {
                        if let Some((id, text)) = moody.held.pop() {
                            moody.answer(http, id, text);
                        }
                    })
                }),
                _ => world.turn(&mut server),
            }
            if step % 64 == 0 && callers.iter().all(Caller::is_answered) {
                break;
            }
        }
        for caller in &callers {
            let filler = |n: &usize| if *n == 0 { "+".repeat(1000) } else { String::new() };
            let expected: Vec<String> = caller.asked.iter().map(|n| REQUESTS[*n].2.to_owned() + &filler(n)).collect();
            assert_eq!(told(&caller.heard, &caller.methods()), expected, "seed {seed}");
        }
    }
}
