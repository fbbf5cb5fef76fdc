//! The table of handlers, and the handlers.

use super::guard::Guard;
use super::hub::Busy;
use super::limits;
use super::name::Name;
use super::poll;
use super::publish;
use super::router::{Failure, Parameters, Query, Router, parse};
use super::service::{Config, Pubsub, Route, Transport};
use super::sse;
use super::start::Start;
use super::websocket::{self, Socket, text_frame};
use pollstack::http::{ExchangeId, Request, Responder, Status};
use std::time::{Duration, Instant};

impl Pubsub {
    /// Returns a server that begins at `start`, with channels that begin at the id `base`.
    ///
    /// # Errors
    /// The router's, if two routes clash.
    pub fn new(config: Config, guard: Guard, start: Instant, base: u64) -> Result<Self, matchit::InsertError> {
        Ok(Pubsub::with_router(router()?, config, guard, start, base))
    }
}

/// Returns the table of all requests that are served.
fn router() -> Result<Router<Route>, matchit::InsertError> {
    Router::new(&[
        ("GET", "/", page as Route),
        ("HEAD", "/", page),
        ("GET", "/stats", stats),
        ("POST", "/channels/{name}", publish),
        ("OPTIONS", "/channels/{name}", preflight),
        ("GET", "/channels/{name}/events", events),
        ("OPTIONS", "/channels/{name}/events", preflight),
        ("GET", "/channels/{name}/poll", long_poll),
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
    });
    let reply = http.respond(id, Status::OK).header("Content-Type", "application/json");
    reply.header("Cache-Control", "no-store").body(text.to_string().as_bytes());
    Ok(())
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
    let published = server.publish(http, &name, &message)?;
    let text = format!(r#"{{"id":{},"subscribers":{}}}"#, published.id, published.subscribers);
    let mut reply = http.respond(id, Status::OK).header("Content-Type", "application/json");
    if let Some(headers) = server.guard.headers(server.guard.origin(request)) {
        reply = reply.headers(headers);
    }
    reply.body(text.as_bytes());
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
    let (name, start) = begin(server, request, parameters)?;
    server.subscribe(id, &name, start.next, Transport::Events)?;
    let mut reply = http
        .respond(id, Status::OK)
        .header("Content-Type", "text/event-stream")
        .header("Cache-Control", "no-store")
        .header("X-Accel-Buffering", "no");
    if let Some(headers) = server.guard.headers(server.guard.origin(request)) {
        reply = reply.headers(headers);
    }
    reply.stream(None);
    server.open(http, id, sse::opening(start, limits::RETRY).as_bytes());
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
    let (name, start) = begin(server, request, parameters)?;
    let origin = server.guard.origin(request);
    let held = server.hub.messages(name.as_str(), start.next);
    if let Some((array, last)) = poll::arrays(start.gap, held, server.config.backlog) {
        poll::reply(http, id, Status::OK, server.guard.headers(origin), last).body(&array);
        return Ok(());
    }
    server.subscribe(id, &name, start.next, Transport::Poll(origin))?;
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
    let (name, start) = begin(server, request, parameters)?;
    let accept = websocket::accept(request)?;
    let socket = Socket::new(server.config.message);
    server.subscribe(id, &name, start.next, Transport::Socket)?;
    server.attach(id, name, socket);
    http.respond(id, Status::OK).header("Sec-WebSocket-Accept", accept).upgrade("websocket");
    let gap = start.gap.map(|gap| text_frame(poll::gap(gap).as_bytes()));
    server.open(http, id, &gap.unwrap_or_default());
    Ok(())
}

/// Returns the channel that a client wants to read, and where it begins. A browser that comes back says so
/// in `Last-Event-ID`, with the address that it began with: so that wins over `after`.
fn begin(server: &Pubsub, request: &Request<'_>, parameters: &Parameters<'_>) -> Result<(Name, Start), Failure> {
    let name: Name = parameters.get("name")?;
    let asked = Query(request.query()).get("after")?;
    let last = request.header("Last-Event-ID").map(|last| parse("Last-Event-ID", &String::from_utf8_lossy(last)));
    let after = last.transpose()?.or(asked);
    if server.stopping {
        return Err(busy("The server is stopping."));
    }
    let start = server.hub.start(name.as_str(), after);
    Ok((name, start))
}

/// There is no room for one more.
pub(crate) fn busy(why: &'static str) -> Failure {
    Failure::Refused(Status::SERVICE_UNAVAILABLE, why.into(), Some(("Retry-After", "2".to_owned())))
}

impl From<Busy> for Failure {
    fn from(full: Busy) -> Self {
        busy(match full {
            Busy::Channels => "There are too many channels.",
            Busy::Subscribers => "There are too many subscribers.",
        })
    }
}
