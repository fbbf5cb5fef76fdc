//! The answer must not depend on how the input is cut: it comes in one piece, in any pieces, or through
//! a faulty network makes no difference to what it reads, or to what the server reports.
//!
//! The first eight bytes of the data are a seed for the pieces and the faults; the rest is sent.

use accio::Accio;
use chat::Chat;
use pollstack::http::{Body, Clock, ExchangeId, Handler, Http, Request, Responder, Status};
use pollstack::sim::{Faults, Sim, World};
use pollstack::stack::StackService;
use pollstack::{EventLoop, Limits, ListenerConfig, Overload, Service};
use std::time::{Duration, Instant, UNIX_EPOCH};

const CONTINUE: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";
const TIMEOUT: Duration = Duration::from_secs(10);

/// The stack server: one request.
pub fn stack(data: &[u8]) {
    same_in_any_pieces(data, || (StackService::new(2), Limits::default()), |_| Vec::new());
}

/// The chat server: one user, who may send to itself.
pub fn chat(data: &[u8]) {
    let chat = || {
        let chat = Chat::new(2, 1000, TIMEOUT);
        let limits = chat.limits(Limits::default());
        (chat, limits)
    };
    same_in_any_pieces(data, chat, |_| Vec::new());
}

/// The Accio server: one file.
pub fn accio(data: &[u8]) {
    let accio = || (Accio::new(TIMEOUT, None, true, Vec::new()), Limits::default());
    same_in_any_pieces(data, accio, |accio| accio.results.clone());
}

/// An HTTP server: requests of any kind, and what was understood of them.
pub fn http(data: &[u8]) {
    // It is always 1970, so that the dates are the same.
    let later = Instant::now() + Duration::from_secs(1_000_000);
    let http = || (Http::new(Tell::default(), Clock::new(later, UNIX_EPOCH)), Limits::default());
    same_in_any_pieces(data, http, |http| http.handler().heard.clone());
}

/// Answers with what it has heard, and takes every other body as it comes.
#[derive(Default)]
struct Tell {
    heard: Vec<u8>,
}

impl Handler for Tell {
    fn body(&mut self, request: &Request<'_>) -> Body {
        match request.target().len() % 3 {
            0 => Body::Stream,
            1 => Body::Collect(100),
            _ => Body::Skip,
        }
    }

    fn on_request(&mut self, http: &mut Responder<'_>, id: ExchangeId, request: &Request<'_>) {
        let line = format!("{} {} {:?}\n", request.method(), request.target(), request.host());
        self.heard.extend(line.bytes());
        for (name, value) in request.headers() {
            self.heard.extend([name.as_bytes(), b"=", value, b"\n"].concat());
        }
        self.heard.extend(request.body());
        http.respond(id, Status::OK).body(line.as_bytes());
    }

    fn on_data(&mut self, _: &mut Responder<'_>, _: ExchangeId, data: &[u8]) -> usize {
        self.heard.extend(data);
        data.len()
    }
}

/// `reported` is what a service says beside what it sends.
fn same_in_any_pieces<S: Service>(data: &[u8], service: impl Fn() -> (S, Limits), reported: fn(&S) -> Vec<u8>) {
    let Some((seed, bytes)) = data.split_first_chunk() else { return };
    let seed = u64::from_le_bytes(*seed);
    let whole = converse(seed, &[bytes], Faults::default(), service(), reported);
    let mut random = fastrand::Rng::with_seed(seed);
    let (mut pieces, mut rest) = (Vec::new(), bytes);
    while !rest.is_empty() {
        let (piece, behind) = rest.split_at(random.usize(1..=rest.len().min(40)));
        pieces.push(piece);
        rest = behind;
    }
    for faults in [Faults::default(), Faults::random(seed)] {
        let seen = converse(seed, &pieces, faults, service(), reported);
        assert_eq!((&seen.reported, seen.closed), (&whole.reported, whole.closed), "{faults:?}");
        // A reset destroys what is on its way, or comes too late for that.
        assert!(seen.reset || whole.reset || seen.read == whole.read, "{:?}, not {:?}", seen.read, whole.read);
    }
}

/// The output that a client and the operator have seen.
struct Seen {
    read: Vec<u8>,
    reset: bool,
    closed: bool,
    reported: Vec<u8>,
}

/// Sends the pieces to a server, one after the other.
fn converse<S: Service>(
    seed: u64,
    pieces: &[&[u8]],
    faults: Faults,
    (service, limits): (S, Limits),
    reported: fn(&S) -> Vec<u8>,
) -> Seen {
    let world = World::new(seed);
    world.set_faults(faults);
    let mut server: EventLoop<S, Sim> = EventLoop::with_net(world.net(), service, limits);
    let listen = ListenerConfig::new("127.0.0.1:1".parse().unwrap()).overload(Overload::Defer);
    server.listen(listen).unwrap();
    let (client, mut read) = (world.connect(), Vec::new());
    for piece in pieces {
        client.send(piece);
        world.settle(&mut server);
        read.extend(client.read());
    }
    client.end();
    world.settle(&mut server);
    read.extend(client.read());
    let read = without_continue(&read);
    Seen { read, reset: client.was_reset(), closed: client.is_closed(), reported: reported(server.service()) }
}

/// Whether a client is told to go on depends on whether it has.
fn without_continue(mut bytes: &[u8]) -> Vec<u8> {
    let mut rest = Vec::new();
    while let Some(at) = memchr::memmem::find(bytes, CONTINUE) {
        rest.extend(&bytes[..at]);
        bytes = &bytes[at + CONTINUE.len()..];
    }
    rest.extend(bytes);
    rest
}
