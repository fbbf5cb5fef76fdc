//! The HTTP layer: the echo server rule by rule over real sockets (`rules`), what has to be
//! rejected (`rejections`), and handlers of all kinds in a simulated network, for what must be told to
//! the byte and the nanosecond (`handlers`) or happens only when much goes wrong (`splits`).

mod handlers;
mod rejections;
mod rules;
mod splits;

use pollstack::http::{
    Body, Clock, ExchangeId, Handler, Headers, Http, Limits, RejectedRequest, Request, Responder, Status,
};
use pollstack::sim::{Sim, World};
use pollstack::{EventLoop, ListenerConfig};
use std::time::{Duration, UNIX_EPOCH};
use test_support::replies::{Response, one, replies};
use test_support::{Client, Server, example};

/// The wall-clock time at which a simulated world begins.
const DATE: &str = "Sun, 06 Nov 1994 08:49:37 GMT";

/// The echo server on a free port.
fn start() -> Server {
    Server::spawn(example("http_echo", &["127.0.0.1:0"]), 1)
}

/// A handler in a simulated world.
fn serve<H: Handler>(world: &World, handler: H, limits: pollstack::Limits) -> EventLoop<Http<H>, Sim> {
    let clock = Clock::new(world.now(), UNIX_EPOCH + Duration::from_secs(784_111_777));
    let mut server = EventLoop::with_net(world.net(), Http::new(handler, clock), limits);
    server.listen(ListenerConfig::new("127.0.0.1:80".parse().unwrap())).unwrap();
    server
}

/// Answers with the method, the target and the body, as http_echo does, but tells them apart.
struct Tell;

impl Handler for Tell {
    fn on_request(&mut self, http: &mut Responder<'_>, id: ExchangeId, request: &Request<'_>) {
        let text = [request.method().as_bytes(), b" ", request.target().as_bytes(), b" ", request.body()].concat();
        http.respond(id, Status::OK).body(&text);
    }
}

/// All that a simulated client reads when it has sent `bytes` to `handler`, and the server rests.
fn answer<H: Handler>(handler: H, bytes: &[u8]) -> Vec<u8> {
    let world = World::new(1);
    let mut server = serve(&world, handler, pollstack::Limits::default());
    let client = world.connect();
    client.send(bytes);
    world.settle(&mut server);
    client.read()
}
