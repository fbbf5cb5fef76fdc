//! The table of handlers, and the handlers.

use super::config::Config;
use super::limits;
use super::name::Name;
use super::poll;
use super::publish;
use super::reader::{How, Poll, Reader, Transport};
use super::router::{Failure, Parameters, Query, Router, busy};
use super::service::{Pubsub, Route};
use super::sse;
use super::start::{Gap, Start};
use super::websocket::{self, Socket, text_frame};
use pollstack::http::{Allowed, ExchangeId, Guard, Request, Responder, Status};
use std::time::{Duration, Instant};

impl Pubsub {
    /// Returns a server that begins at `start`, with channels that begin at the id `base`.
    ///
    /// # Errors
    /// The router's, if two routes clash.
    pub fn new(config: Config, guard: Guard, start: Instant, base: u64) -> Result<Self, matchit::InsertError> {
        Ok(Pubsub::with_router(router()?, read, config, guard, start, base))
    }
}

/// Returns the table of all requests that are served.
fn router() -> Result<Router<Route>, matchit::InsertError> {
    Router::new(&[
        ("GET", "/", page as Route),
        ("HEAD", "/", page),
        ("GET", "/stats", stats),
        ("HEAD", "/stats", stats),
        ("GET", "/channels/{name}", channel),
        ("HEAD", "/channels/{name}", channel),
        ("POST", "/channels/{name}", publish),
        ("OPTIONS", "/channels/{name}", preflight),
        ("GET", "/channels/{name}/events", events),
        ("HEAD", "/channels/{name}/events", events),
        ("OPTIONS", "/channels/{name}/events", preflight),
        ("GET", "/channels/{name}/poll", long_poll),
        ("HEAD", "/channels/{name}/poll", long_poll),
        ("OPTIONS", "/channels/{name}/poll", preflight),
        ("GET", "/channels/{name}/ws", socket),
    ])
}

type Done = Result<(), Failure>;

fn page(
    server: &mut Pubsub,
    http: &mut Responder<'_>,
    id: ExchangeId,
    request: &Request<'_>,
    _: &Parameters<'_>,
) -> Done {
    server.page.reply(http, id, request);
    Ok(())
}

fn stats(server: &mut Pubsub, http: &mut Responder<'_>, id: ExchangeId, _: &Request<'_>, _: &Parameters<'_>) -> Done {
    let counts = server.hub.counts();
    let text = serde_json::json!({
        "channels": counts.channels,
        "subscribers": counts.subscribers,
        "published": counts.published,
        "delivered": counts.delivered,
        "disconnected_slow": counts.disconnected_slow,
        "of": if server.is_shared() { "this node" } else { "this server" },
    });
    let reply = http.respond(id, Status::OK).header("Content-Type", "application/json");
    reply.header("Cache-Control", "no-store").body(text.to_string().as_bytes());
    Ok(())
}

/// How many there are in a channel, and the id of its last message.
fn channel(
    server: &mut Pubsub,
    http: &mut Responder<'_>,
    id: ExchangeId,
    request: &Request<'_>,
    parameters: &Parameters<'_>,
) -> Done {
    let name = parameters.get("name")?;
    let origin = server.guard.origin(request);
    match server.must_wait(&name, None) {
        true => server.wait(http, id, Reader::new(name, None, How::Summary(origin))),
        false => summary(server, http, id, &name, origin),
    }
    Ok(())
}

fn summary(server: &mut Pubsub, http: &mut Responder<'_>, id: ExchangeId, name: &Name, origin: Option<Allowed>) {
    let last = server.hub.start(name.as_str(), None).next.saturating_sub(1);
    let text = format!(r#"{{"subscribers":{},"last":{last}}}"#, server.hub.subscribers(name.as_str()));
    let mut reply = http.respond(id, Status::OK).header("Content-Type", "application/json");
    if let Some(headers) = server.guard.headers(origin) {
        reply = reply.headers(headers);
    }
    reply.header("Cache-Control", "no-store").body(text.as_bytes());
}

/// Publishes a message to a channel.
fn publish(
    server: &mut Pubsub,
    http: &mut Responder<'_>,
    id: ExchangeId,
    request: &Request<'_>,
    parameters: &Parameters<'_>,
) -> Done {
    server.check_origin(request)?;
    let name: Name = parameters.get("name")?;
    let message = publish::message(request, server.config.message)?;
    server.publish(http, id, name, &message, server.guard.origin(request))?;
    Ok(())
}

/// Answers the preflight request of a page of another origin that wants to publish.
fn preflight(
    server: &mut Pubsub,
    http: &mut Responder<'_>,
    id: ExchangeId,
    request: &Request<'_>,
    _: &Parameters<'_>,
) -> Done {
    server.check_origin(request)?;
    let mut reply = http.respond(id, Status::NO_CONTENT);
    if let Some(headers) = server.guard.headers(server.guard.origin(request)) {
        reply = reply
            .headers(headers)
            .header("Access-Control-Allow-Methods", "GET, POST")
            .header("Access-Control-Allow-Headers", "Content-Type, Last-Event-ID")
            .header("Access-Control-Max-Age", "600");
    }
    reply.empty();
    Ok(())
}

/// Server-sent events.
fn events(
    server: &mut Pubsub,
    http: &mut Responder<'_>,
    id: ExchangeId,
    request: &Request<'_>,
    parameters: &Parameters<'_>,
) -> Done {
    let (name, after) = begin(server, request, parameters)?;
    let (is_head, waits) = (request.method() == "HEAD", server.must_wait(&name, after.as_deref()));
    let start = start(server, &name, after.as_deref());
    if !is_head && !waits {
        server.subscribe(id, &name, start.next, Transport::Events)?;
    }
    let mut reply = http
        .respond(id, Status::OK)
        .header("Content-Type", "text/event-stream")
        .header("Cache-Control", "no-store")
        .header("X-Accel-Buffering", "no");
    if let Some(headers) = server.guard.headers(server.guard.origin(request)) {
        reply = reply.headers(headers);
    }
    reply.stream(None);
    if is_head {
        http.finish(id);
    } else if waits {
        server.wait(http, id, Reader::new(name, after, How::Events));
    } else {
        server.open(http, id, sse::opening(start, limits::RETRY).as_bytes());
    }
    Ok(())
}

/// A long poll.
fn long_poll(
    server: &mut Pubsub,
    http: &mut Responder<'_>,
    id: ExchangeId,
    request: &Request<'_>,
    parameters: &Parameters<'_>,
) -> Done {
    let seconds = Query(request.query()).get("timeout")?.unwrap_or(limits::POLL_TIME).min(limits::LONGEST_POLL);
    let (name, after) = begin(server, request, parameters)?;
    let poll = Poll { origin: server.guard.origin(request), seconds, is_head: request.method() == "HEAD" };
    if server.must_wait(&name, after.as_deref()) {
        server.wait(http, id, Reader::new(name, after, How::Poll(poll)));
        return Ok(());
    }
    poll_now(server, http, id, &name, after.as_deref(), poll)
}

/// Answers a long poll with what there is, or has it wait for more.
fn poll_now(
    server: &mut Pubsub,
    http: &mut Responder<'_>,
    id: ExchangeId,
    name: &Name,
    after: Option<&str>,
    Poll { origin, seconds, is_head }: Poll,
) -> Done {
    let start = start(server, name, after);
    let held = server.hub.messages(name.as_str(), start.next);
    if let Some((array, last)) = poll::arrays(start.gap, held, server.config.unsent) {
        poll::reply(http, id, Status::OK, server.guard.headers(origin), last).body(&array);
        return Ok(());
    }
    if is_head {
        let last = start.next.saturating_sub(1);
        poll::reply(http, id, Status::NO_CONTENT, server.guard.headers(origin), last).empty();
        return Ok(());
    }
    server.subscribe(id, name, start.next, Transport::Poll(origin))?;
    http.set_deadline(id, http.now().checked_add(Duration::from_secs(seconds)));
    Ok(())
}

/// A WebSocket.
fn socket(
    server: &mut Pubsub,
    http: &mut Responder<'_>,
    id: ExchangeId,
    request: &Request<'_>,
    parameters: &Parameters<'_>,
) -> Done {
    server.check_origin(request)?;
    let (name, after) = begin(server, request, parameters)?;
    let (accept, waits) = (websocket::accept(request)?, server.must_wait(&name, after.as_deref()));
    let socket = Socket::new(server.config.message);
    let start = start(server, &name, after.as_deref());
    if !waits {
        server.subscribe(id, &name, start.next, Transport::Socket)?;
    }
    http.respond(id, Status::OK).header("Sec-WebSocket-Accept", accept).upgrade("websocket");
    if waits {
        server.wait(http, id, Reader::new(name, after, How::Socket(Box::new(socket))));
    } else {
        server.attach(id, name, socket);
        server.open(http, id, &told(start));
    }
    Ok(())
}

/// Returns what a WebSocket is told first: nothing, or that there is a gap.
fn told(start: Start) -> Vec<u8> {
    start.gap.map(|gap| text_frame(poll::gap(gap).as_bytes())).unwrap_or_default()
}

/// Begins to read a channel for a client that has waited for it.
fn read(server: &mut Pubsub, http: &mut Responder<'_>, id: ExchangeId, reader: Reader) -> Done {
    let Reader { name, after, how, .. } = reader;
    let start = start(server, &name, after.as_deref());
    match how {
        How::Summary(origin) => summary(server, http, id, &name, origin),
        How::Poll(poll) => poll_now(server, http, id, &name, after.as_deref(), poll)?,
        How::Events => {
            server.subscribe(id, &name, start.next, Transport::Events)?;
            server.open(http, id, sse::opening(start, limits::RETRY).as_bytes());
        }
        How::Socket(socket) => {
            server.subscribe(id, &name, start.next, Transport::Socket)?;
            server.attach(id, name, *socket);
            server.open(http, id, &told(start));
            http.resume(id);
        }
    }
    Ok(())
}

/// Returns the channel that a client wants to read, and the message that it has. A browser that comes back says so
/// in `Last-Event-ID`, with the address that it began with: so that wins over `after`. Libraries that stand in for
/// `EventSource` say it in the address.
fn begin(
    server: &Pubsub,
    request: &Request<'_>,
    parameters: &Parameters<'_>,
) -> Result<(Name, Option<String>), Failure> {
    let name: Name = parameters.get("name")?;
    let query = Query(request.query());
    let last = request.header("Last-Event-ID").map(|last| String::from_utf8_lossy(last).into_owned());
    let said = last.or(query.get("lastEventId")?).filter(|id| !id.is_empty());
    let after = said.or(query.get("after")?).filter(|id| !id.is_empty());
    if server.stopping {
        return Err(busy("The server is stopping."));
    }
    Ok((name, after))
}

/// Returns where a client begins that has the message `after`. An id that no server of this kind has given is one
/// of another server: there may be anything behind it.
fn start(server: &Pubsub, name: &Name, after: Option<&str>) -> Start {
    match after.map(str::parse::<u64>) {
        None => server.hub.start(name.as_str(), None),
        Some(Ok(after)) => server.hub.start(name.as_str(), Some(after)),
        Some(Err(_)) => {
            let start = server.hub.start(name.as_str(), Some(u64::MAX));
            Start { gap: start.gap.map(|gap| Gap { after: 0, ..gap }), ..start }
        }
    }
}
