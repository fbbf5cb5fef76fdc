//! The server: requests to handlers, and messages from the hub to subscribers.
//!
//! A subscriber that ends its half of the connection is taken for gone: browsers do not do so
//! before, and the count of subscribers is right then, not a heartbeat later.

use super::guard::{Guard, Origin};
use super::hub::{Counts, Delivery, Hub, Progress, Published, Seat};
use super::limits::{HEARTBEAT_STEP, MISSED_PONGS, RETRY_AFTER_STOP};
use super::message::Message;
use super::name::Name;
use super::page::Page;
use super::poll;
use super::publish;
use super::router::{Failure, Parameters, Router};
use super::sse;
use super::websocket::{Socket, close_frame};
use super::{channel::History, hub};
use pollstack::http::{Body, ExchangeId, Handler, Outcome, Request, Responder, Status};
use pollstack::{EofAction, SendError};
use std::collections::HashMap;
use std::mem;
use std::rc::Rc;
use std::time::{Duration, Instant};
use tungstenite::protocol::frame::coding::CloseCode;

/// The function that serves one kind of request: it responds, at once or later, or says why not.
pub(crate) type Route =
    fn(&mut Pubsub, &mut Responder<'_>, ExchangeId, &Request<'_>, &Parameters<'_>) -> Result<(), Failure>;

/// The application: its channels, and who is subscribed to them.
pub struct Pubsub {
    pub(crate) hub: Hub<Subscriber>,
    pub(crate) guard: Guard,
    pub(crate) page: Page,
    pub(crate) config: Config,
    pub(crate) stopping: bool,
    router: Rc<Router<Route>>,
    sessions: HashMap<ExchangeId, Session>,
    /// When the server began.
    start: Instant,
}

/// How the application is set up.
#[derive(Clone, Copy, Debug)]
pub struct Config {
    /// Bytes of a message.
    pub message: usize,
    /// Bytes that may wait for a subscriber.
    pub backlog: usize,
    /// How often silent connections are kept alive.
    pub heartbeat: Duration,
    /// The bounds of the hub.
    pub hub: hub::Limits,
}

/// A subscriber, as the hub knows it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Subscriber {
    id: ExchangeId,
    transport: Transport,
}

#[derive(Clone, Copy, Debug)]
pub(crate) enum Transport {
    Events,
    /// One answer, which a page of that origin may read.
    Poll(Option<Origin>),
    Socket,
}

/// The state of a subscriber beside its place in the hub.
struct Session {
    seat: Seat,
    transport: Transport,
    /// The channel to publish to, and the protocol.
    socket: Option<Box<(Name, Socket)>>,
}

impl Pubsub {
    /// Returns a server with these routes.
    pub(crate) fn with_router(router: Router<Route>, config: Config, guard: Guard, start: Instant, base: u64) -> Self {
        Pubsub {
            hub: Hub::new(config.hub, base),
            guard,
            page: Page::new(),
            config,
            stopping: false,
            router: Rc::new(router),
            sessions: HashMap::new(),
            start,
        }
    }

    /// Totals since the start, and what there is now.
    pub fn counts(&self) -> Counts {
        self.hub.counts()
    }

    pub(crate) fn check_origin(&self, request: &Request<'_>) -> Result<(), Failure> {
        match self.guard.allows_origin(request) {
            true => Ok(()),
            false => Err(Failure::refused(Status::FORBIDDEN, "Pages of other origins may not do that.")),
        }
    }

    /// Publishes a message, and sends it to all subscribers.
    pub(crate) fn publish(
        &mut self,
        http: &mut Responder<'_>,
        name: &Name,
        text: &str,
    ) -> Result<Published, hub::Busy> {
        let guard = &self.guard;
        let mut lost = Vec::new();
        let published = self.hub.publish(
            name.as_str(),
            text,
            |who, message| deliver(http, guard, who, message),
            |who| lost.push(who.id),
        );
        for id in lost {
            log::debug!("{id:?} does not read");
            http.abort(id);
        }
        published
    }

    /// Makes an exchange a subscriber.
    pub(crate) fn subscribe(
        &mut self,
        id: ExchangeId,
        name: &Name,
        next: u64,
        transport: Transport,
    ) -> Result<(), hub::Busy> {
        let seat = self.hub.subscribe(name.as_str(), Subscriber { id, transport }, next)?;
        self.sessions.insert(id, Session { seat, transport, socket: None });
        Ok(())
    }

    pub(crate) fn attach(&mut self, id: ExchangeId, name: Name, socket: Socket) {
        if let Some(session) = self.sessions.get_mut(&id) {
            session.socket = Some(Box::new((name, socket)));
        }
    }

    /// Begins a stream, and sends what is held for it.
    pub(crate) fn open(&mut self, http: &mut Responder<'_>, id: ExchangeId, opening: &[u8]) {
        if http.send(id, opening).is_err() {
            return http.abort(id);
        }
        http.set_deadline(id, self.next_heartbeat(http.now()));
        self.advance(http, id);
    }

    /// Sends a subscriber what it has yet to have, as far as it has room.
    fn advance(&mut self, http: &mut Responder<'_>, id: ExchangeId) {
        let Some(session) = self.sessions.get(&id) else { return };
        let guard = &self.guard;
        if self.hub.advance(session.seat, |who, message| deliver(http, guard, who, message)) == Progress::Lost {
            http.abort(id);
        }
    }

    fn leave(&mut self, id: ExchangeId) {
        if let Some(session) = self.sessions.remove(&id) {
            self.hub.leave(session.seat);
        }
    }

    /// Rounded up, so that many are due at once.
    fn next_heartbeat(&self, now: Instant) -> Option<Instant> {
        let due = now.saturating_duration_since(self.start).saturating_add(self.config.heartbeat);
        let steps = due.as_millis().div_ceil(HEARTBEAT_STEP.as_millis());
        self.start.checked_add(HEARTBEAT_STEP.checked_mul(u32::try_from(steps).ok()?)?)
    }

    /// Answers a request that is not served.
    fn refuse(&self, http: &mut Responder<'_>, id: ExchangeId, request: &Request<'_>, failure: Failure) {
        let (status, why, field) = match failure {
            Failure::Refused(status, why, field) => (status, why, field),
            Failure::Broken(error) => {
                log::error!("{} {}: {error}", request.method(), request.target());
                (Status::INTERNAL_SERVER_ERROR, "Something is wrong with the server.".into(), None)
            }
        };
        let mut reply = http
            .respond(id, status)
            .header("Content-Type", "text/plain; charset=utf-8")
            .header("X-Content-Type-Options", "nosniff");
        if let Some((name, value)) = field {
            reply = reply.header(name, value);
        }
        if let Some(headers) = self.guard.headers(self.guard.origin(request)) {
            reply = reply.headers(headers);
        }
        reply.body(format!("{why}\n").as_bytes());
    }
}

/// Sends a message to a subscriber, in its form.
fn deliver(http: &mut Responder<'_>, guard: &Guard, who: Subscriber, message: &Message) -> Delivery {
    let sent = match who.transport {
        Transport::Events => http.send_shared(who.id, message.event()),
        Transport::Socket => http.send_shared(who.id, message.frame()),
        Transport::Poll(origin) => {
            poll::reply(http, who.id, Status::OK, guard.headers(origin), message.id).shared(message.array());
            return Delivery::Last;
        }
    };
    match sent {
        Ok(()) => Delivery::Taken,
        Err(SendError::Full | SendError::TooLarge) => Delivery::Full,
        Err(SendError::Gone) => Delivery::Gone,
    }
}

impl Handler for Pubsub {
    fn body(&mut self, request: &Request<'_>) -> Body {
        match request.method() {
            "POST" => Body::Collect(publish::body_limit(self.config.message)),
            _ => Body::Skip,
        }
    }

    fn on_request(&mut self, http: &mut Responder<'_>, id: ExchangeId, request: &Request<'_>) {
        let router = Rc::clone(&self.router);
        let done = match self.guard.allows_host(request, http.peer(id).as_ref()) {
            false => Err(Failure::refused(Status::FORBIDDEN, "This server does not go by that name.")),
            true => router
                .find(request.method(), request.path())
                .and_then(|(route, parameters)| route(self, http, id, request, &parameters)),
        };
        if let Err(failure) = done {
            self.refuse(http, id, request, failure);
        }
    }

    /// A WebSocket speaks.
    fn on_data(&mut self, http: &mut Responder<'_>, id: ExchangeId, data: &[u8]) -> usize {
        let Some(session) = self.sessions.get_mut(&id) else { return data.len() };
        let Some((name, socket)) = session.socket.as_deref_mut() else { return data.len() };
        let heard = socket.hear(data);
        let name = name.clone();
        for text in heard.texts.iter().filter(|text| !text.is_empty()) {
            if let Err(busy) = self.publish(http, &name, text) {
                log::debug!("a message is lost: {busy:?}");
            }
        }
        if http.send(id, &heard.reply) == Err(SendError::Full) {
            http.abort(id);
        }
        if heard.over {
            self.leave(id);
            http.finish(id);
        }
        data.len()
    }

    fn on_room(&mut self, http: &mut Responder<'_>, id: ExchangeId) {
        self.advance(http, id);
    }

    fn on_deadline(&mut self, http: &mut Responder<'_>, id: ExchangeId) {
        let next = self.next_heartbeat(http.now());
        let Some(session) = self.sessions.get_mut(&id) else { return http.abort(id) };
        let beat = match (session.transport, session.socket.as_deref_mut()) {
            (Transport::Poll(origin), _) => {
                let last = self.hub.next_of(session.seat).unwrap_or_default().saturating_sub(1);
                self.leave(id);
                return poll::reply(http, id, Status::NO_CONTENT, self.guard.headers(origin), last).empty();
            }
            (Transport::Socket, Some((_, socket))) => match socket.ping(MISSED_PONGS) {
                Some(ping) => http.send(id, &ping),
                None => {
                    let _ = http.send(id, &close_frame(CloseCode::Away, "no pong"));
                    self.leave(id);
                    return http.finish(id);
                }
            },
            _ => http.send(id, sse::HEARTBEAT),
        };
        // One whose output is full needs no heartbeat.
        if beat != Err(SendError::Gone) {
            http.set_deadline(id, next);
        }
    }

    fn on_eof(&mut self, _: &mut Responder<'_>, id: ExchangeId) -> EofAction {
        if self.sessions.contains_key(&id) { EofAction::Finish } else { EofAction::Keep }
    }

    fn on_close(&mut self, _: &mut Responder<'_>, id: ExchangeId, _: Outcome) {
        self.leave(id);
    }

    /// Subscribers are told when to come back, not all at once.
    fn on_shutdown(&mut self, http: &mut Responder<'_>) {
        self.stopping = true;
        for (id, session) in mem::take(&mut self.sessions) {
            self.hub.leave(session.seat);
            let retry = fastrand::u64(RETRY_AFTER_STOP);
            match session.transport {
                Transport::Events => drop(http.send(id, sse::farewell(retry).as_bytes())),
                Transport::Socket => drop(http.send(id, &close_frame(CloseCode::Away, "the server stops"))),
                Transport::Poll(origin) => {
                    let mut reply = http.respond(id, Status::SERVICE_UNAVAILABLE);
                    if let Some(headers) = self.guard.headers(origin) {
                        reply = reply.headers(headers);
                    }
                    reply.header("Retry-After", retry.div_ceil(1000).to_string()).error_page();
                    continue;
                }
            }
            http.finish(id);
        }
    }
}

impl Default for Config {
    fn default() -> Self {
        use super::limits;
        let history = History { messages: limits::HISTORY_MESSAGES, bytes: limits::HISTORY_BYTES };
        let hub = hub::Limits { channels: limits::CHANNELS, subscribers: limits::SUBSCRIBERS, history };
        Config { message: limits::MESSAGE_BYTES, backlog: limits::BACKLOG_BYTES, heartbeat: limits::HEARTBEAT, hub }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use pollstack::http::{Clock, Http};
    use pollstack::sim::World;
    use pollstack::{EventLoop, ListenerConfig};
    use std::time::UNIX_EPOCH;

    /// Lost otherwise: an answer to the client, and the server, when a handler fails.
    #[test]
    fn a_handler_that_fails_is_a_500() {
        let world = World::new(1);
        let mut pubsub = Pubsub::new(Config::default(), Guard::new(&[], &[], false), world.now(), 1).unwrap();
        let broken: Route = |_, _, _, _, _| Err(std::io::Error::other("a disk, for example").into());
        pubsub.router = Rc::new(Router::new(&[("GET", "/broken", broken)]).unwrap());
        let http = Http::new(pubsub, Clock::new(world.now(), UNIX_EPOCH));
        let mut server = EventLoop::with_net(world.net(), http, pollstack::Limits::default());
        server.listen(ListenerConfig::new("127.0.0.1:80".parse().unwrap())).unwrap();
        let client = world.connect();
        for _ in 0..2 {
            client.send(b"GET /broken HTTP/1.1\r\nHost: a\r\n\r\n");
            world.settle(&mut server);
            let reply = String::from_utf8(client.read()).unwrap();
            assert!(reply.starts_with("HTTP/1.1 500 ") && !reply.contains("disk"), "{reply}");
        }
    }
}
