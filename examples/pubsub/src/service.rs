//! The server: requests to handlers, and messages from the hub to subscribers.
//!
//! A subscriber that ends its half of the connection is taken for gone: browsers do not do so
//! before, and the count of subscribers is right then, not a heartbeat later.

use super::config::Config;
use super::hub;
use super::hub::{Counts, Delivery, Hub, Progress, Seat};
use super::limits::{
    HEARTBEAT_STEP, LOOK_AGAIN, MISSED_PONGS, PUBLISH_TIME, RETRY_AFTER_STOP, STALLED, TRIES, TURN_COST,
};
use super::message::Message;
use super::name::Name;
use super::page::Page;
use super::poll;
use super::publish;
use super::reader::{Author, Reader, Subscriber, Transport};
use super::remote::Remote;
use super::router::{Failure, Parameters, Router, busy};
use super::sse;
use super::websocket::{Heard, Next, Socket, close_frame, text_frame};
use pollstack::http::{
    Allowed, Body, ExchangeId, Guard, Handler, Headers, Outcome, RejectedRequest, Request, Responder, Status,
};
use pollstack::operate::{EngineState, Metrics, Text};
use pollstack::{EofAction, SendError};
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::mem;
use std::rc::Rc;
use std::time::{Duration, Instant};
use tungstenite::Utf8Bytes;
use tungstenite::protocol::frame::coding::CloseCode;

/// The function that serves one kind of request: it responds, at once or later, or says why not.
pub(crate) type Route =
    fn(&mut Pubsub, &mut Responder<'_>, ExchangeId, &Request<'_>, &Parameters<'_>) -> Result<(), Failure>;

/// The function that begins to read a channel for a client that has waited for it.
pub(crate) type Read = fn(&mut Pubsub, &mut Responder<'_>, ExchangeId, Reader) -> Result<(), Failure>;

/// The application: its channels, and who is subscribed to them.
pub struct Pubsub {
    pub(crate) hub: Hub<Subscriber>,
    pub(crate) guard: Guard,
    pub(crate) page: Page,
    pub(crate) config: Config,
    pub(crate) stopping: bool,
    router: Rc<Router<Route>>,
    /// Begins to read a channel.
    pub(crate) read: Read,
    pub(crate) sessions: HashMap<ExchangeId, Session>,
    /// Publishers that wait, see [`Hub::may_publish`].
    waiting: VecDeque<Publisher>,
    /// The engine that has the channels, if one has.
    pub(crate) remote: Option<Remote<Author>>,
    /// Readers of channels that are being read from it.
    pub(crate) readers: BTreeMap<ExchangeId, Reader>,
    /// The channel, and the length of its last message, whose readers the engine waits for.
    pub(crate) behind: Option<(Name, usize)>,
    /// How it does.
    pub(crate) engine: Option<EngineState>,
    /// When there is more to do.
    pub(crate) timer: Option<Instant>,
    /// The turn of the loop, and what is left of its [budget](TURN_COST).
    turn: Instant,
    budget: usize,
    /// When the server began.
    start: Instant,
}

/// A publisher that waits.
enum Publisher {
    /// A WebSocket, with its message.
    Socket(ExchangeId),
    /// A request.
    Post { id: ExchangeId, name: Name, text: String, origin: Option<Allowed> },
}

/// The state of a subscriber beside its place in the hub.
pub(crate) struct Session {
    seat: Seat,
    transport: Transport,
    socket: Option<Box<Speaker>>,
}

/// The other half of a WebSocket: it publishes.
struct Speaker {
    /// The channel to publish to.
    name: Name,
    socket: Socket,
    /// The message that waits.
    waiting: Option<Utf8Bytes>,
}

impl Pubsub {
    /// Returns a server with these routes.
    pub(crate) fn with_router(
        router: Router<Route>,
        read: Read,
        config: Config,
        guard: Guard,
        start: Instant,
        base: u64,
    ) -> Self {
        Pubsub {
            hub: Hub::new(config.hub, base),
            guard,
            page: Page::new(),
            config,
            stopping: false,
            router: Rc::new(router),
            read,
            sessions: HashMap::new(),
            waiting: VecDeque::new(),
            remote: None,
            readers: BTreeMap::new(),
            behind: None,
            engine: None,
            timer: None,
            turn: start,
            budget: TURN_COST,
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
            false => Err(Failure::rejected(Status::FORBIDDEN, "Pages of other origins may not do that.")),
        }
    }

    /// Returns whether the head of a request leaves it open how that is answered. Otherwise the client need not
    /// send its body first.
    fn takes_body(&self, request: &Request<'_>) -> bool {
        self.check_host(request).is_ok()
            && self.check_origin(request).is_ok()
            && publish::media(request).is_ok()
            && self
                .router
                .find(request.method(), request.path())
                .is_ok_and(|(_, parameters)| parameters.get::<Name>("name").is_ok())
    }

    fn check_host(&self, request: &Request<'_>) -> Result<(), Failure> {
        match self.guard.allows_host(request) {
            true => Ok(()),
            false => Err(Failure::rejected(Status::FORBIDDEN, "This server does not go by that name.")),
        }
    }

    /// Returns whether a message may be published now.
    fn may_publish(&self, http: &Responder<'_>, name: &Name, text: &str) -> bool {
        self.remote.as_ref().is_none_or(Remote::takes_messages) && self.gives(http, name, text.len())
    }

    /// Returns whether the readers of a channel are ready for one more message.
    pub(crate) fn gives(&self, http: &Responder<'_>, name: &Name, len: usize) -> bool {
        let since = http.now().checked_sub(STALLED);
        self.hub.may_publish(name.as_str(), len, |who: Subscriber| http.last_write(who.id) >= since)
    }

    /// Publishes a message for a request, now or when it may, and answers then.
    pub(crate) fn publish(
        &mut self,
        http: &mut Responder<'_>,
        id: ExchangeId,
        name: Name,
        text: &str,
        origin: Option<Allowed>,
    ) -> Result<(), hub::Busy> {
        if !self.waiting.is_empty() || !self.may_publish(http, &name, text) {
            self.waiting.push_back(Publisher::Post { id, name, text: text.to_owned(), origin });
            http.set_deadline(id, http.now().checked_add(PUBLISH_TIME));
            self.work(http);
            return Ok(());
        }
        match self.put(&name, text, Author { id, origin, is_socket: false })? {
            Some(published) => {
                self.work(http);
                publish::reply(http, id, published, self.guard.headers(origin));
            }
            None => http.set_deadline(id, http.now().checked_add(PUBLISH_TIME)),
        }
        Ok(())
    }

    /// Gives subscribers what has been published, as far as the turn's budget goes, and sees to it that it
    /// goes on.
    pub(crate) fn work(&mut self, http: &mut Responder<'_>) {
        if http.now() != self.turn {
            (self.turn, self.budget) = (http.now(), TURN_COST);
        }
        let (guard, before) = (&self.guard, self.budget);
        let mut lost = Vec::new();
        let more =
            self.hub.work(&mut self.budget, |who, message| deliver(http, guard, who, message), |who| lost.push(who.id));
        for id in lost {
            log::debug!("{id:?} does not read");
            http.abort(id);
        }
        self.look_behind(http);
        let again = match self.waiting.is_empty() && self.behind.is_none() {
            true => more.then_some(Duration::ZERO),
            false if more || self.budget < before => Some(Duration::ZERO), // one of them may go on
            false => Some(LOOK_AGAIN),
        };
        self.timer = again.and_then(|time| http.now().checked_add(time));
        http.set_timer(self.timer);
    }

    /// Has publishers that wait try again, in their order, a bounded number of them.
    pub(crate) fn publish_waiting(&mut self, http: &mut Responder<'_>) {
        for _ in 0..self.waiting.len().min(TRIES) {
            match self.waiting.pop_front() {
                Some(Publisher::Socket(id)) => self.hear_again(http, id),
                Some(Publisher::Post { id, name, text, origin }) => {
                    if !self.may_publish(http, &name, &text) {
                        self.waiting.push_back(Publisher::Post { id, name, text, origin });
                        continue;
                    }
                    match self.put(&name, &text, Author { id, origin, is_socket: false }) {
                        Ok(Some(published)) => publish::reply(http, id, published, self.guard.headers(origin)),
                        Ok(None) => {}
                        Err(busy) => self.reject(http, id, origin, busy.into()),
                    }
                }
                None => return,
            }
        }
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
            session.socket = Some(Box::new(Speaker { name, socket, waiting: None }));
        }
    }

    /// Hears a WebSocket out, up to a message that may not be published yet. Returns whether it came to the end
    /// of what there is.
    fn hear(&mut self, http: &mut Responder<'_>, id: ExchangeId, data: &mut &[u8]) -> bool {
        loop {
            let Some(speaker) = self.sessions.get_mut(&id).and_then(|session| session.socket.as_deref_mut()) else {
                *data = &[];
                return true;
            };
            let Some(text) = speaker.waiting.take() else {
                let Heard { reply, next } = speaker.socket.hear(data);
                if http.send(id, &reply) == Err(SendError::Full) {
                    self.hub.count_slow();
                    http.abort(id); // it asks for answers, and does not read them
                }
                match next {
                    Next::Text(text) => speaker.waiting = Some(text),
                    Next::More => return true,
                    Next::Over => {
                        self.leave(id);
                        http.finish(id);
                    }
                }
                continue;
            };
            let name = speaker.name.clone();
            if !self.may_publish(http, &name, &text) {
                if let Some(speaker) = self.sessions.get_mut(&id).and_then(|session| session.socket.as_deref_mut()) {
                    speaker.waiting = Some(text);
                }
                self.waiting.push_back(Publisher::Socket(id));
                return false;
            }
            if let Err(why) = publish::check(&text)
                .and_then(|()| Ok(self.put(&name, &text, Author { id, origin: None, is_socket: true })?))
            {
                let _ = http.send(id, &text_frame(poll::error(&why).as_bytes()));
            }
            self.work(http);
        }
    }

    /// Goes on with a WebSocket whose message had to wait.
    fn hear_again(&mut self, http: &mut Responder<'_>, id: ExchangeId) {
        if self.hear(http, id, &mut &[][..]) {
            http.resume(id);
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

    /// Gives up a request that waited too long to be published.
    fn give_up_publishing(&mut self, http: &mut Responder<'_>, id: ExchangeId) {
        let at = self.waiting.iter().position(|publisher| publisher.id() == id);
        match at.and_then(|at| self.waiting.remove(at)) {
            Some(Publisher::Post { origin, .. }) => self.reject(http, id, origin, busy("The channel is behind.")),
            _ if self.is_shared() => self.reject(http, id, None, busy("The engine does not answer.")),
            _ => http.abort(id),
        }
    }

    /// Rounded up, so that many are due at once.
    pub(crate) fn next_heartbeat(&self, now: Instant) -> Option<Instant> {
        if self.config.heartbeat.is_zero() {
            return None;
        }
        let due = now.saturating_duration_since(self.start).saturating_add(self.config.heartbeat);
        let steps = due.as_millis().div_ceil(HEARTBEAT_STEP.as_millis());
        self.start.checked_add(HEARTBEAT_STEP.checked_mul(u32::try_from(steps).ok()?)?)
    }

    /// Answers a request that is not served.
    pub(crate) fn reject(&self, http: &mut Responder<'_>, id: ExchangeId, origin: Option<Allowed>, failure: Failure) {
        let (status, why, field) = match failure {
            Failure::Rejected(status, why, field) => (status, why, field),
            Failure::Broken(error) => {
                log::error!("a request cannot be served: {error}");
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
        if status == Status::UPGRADE_REQUIRED {
            reply = reply.offer("websocket");
        }
        if let Some(headers) = self.guard.headers(origin) {
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
            "POST" if self.takes_body(request) => Body::Collect(publish::body_limit(self.config.message)),
            _ => Body::Skip,
        }
    }

    fn on_request(&mut self, http: &mut Responder<'_>, id: ExchangeId, request: &Request<'_>) {
        let router = Rc::clone(&self.router);
        let done = self.check_host(request).and_then(|()| {
            let (route, parameters) = router.find(request.method(), request.path())?;
            route(self, http, id, request, &parameters)
        });
        if let Err(failure) = done {
            self.reject(http, id, self.guard.origin(request), failure);
        }
    }

    /// A page of an allowed origin may read why its request is rejected.
    fn on_rejection(&mut self, _: &mut Responder<'_>, rejection: &RejectedRequest<'_>) -> Headers {
        let origin = rejection.header("Origin").and_then(|origin| self.guard.find(origin));
        self.guard.headers(origin).cloned().unwrap_or_default()
    }

    /// A WebSocket speaks.
    fn on_data(&mut self, http: &mut Responder<'_>, id: ExchangeId, data: &[u8]) -> usize {
        if self.readers.contains_key(&id) {
            http.pause(id); // it is heard when it can read
            return 0;
        }
        let speaker = self.sessions.get(&id).and_then(|session| session.socket.as_deref());
        if speaker.is_some_and(|speaker| speaker.waiting.is_some()) {
            return 0;
        }
        let mut left = data;
        if !self.hear(http, id, &mut left) {
            http.pause(id);
        }
        self.work(http);
        data.len() - left.len()
    }

    fn on_room(&mut self, http: &mut Responder<'_>, id: ExchangeId) {
        self.advance(http, id);
        if !self.waiting.is_empty() || self.behind.is_some() {
            self.publish_waiting(http);
            self.work(http);
        }
    }

    /// There is more to give, or a publisher waits.
    fn on_timer(&mut self, http: &mut Responder<'_>) {
        (self.turn, self.budget) = (http.now(), TURN_COST);
        self.publish_waiting(http);
        self.work(http);
    }

    fn on_deadline(&mut self, http: &mut Responder<'_>, id: ExchangeId) {
        let next = self.next_heartbeat(http.now());
        if self.readers.contains_key(&id) {
            return self.has_waited(http, id, next);
        }
        let Some(session) = self.sessions.get_mut(&id) else { return self.give_up_publishing(http, id) };
        let beat = match (session.transport, session.socket.as_deref_mut()) {
            (Transport::Poll(origin), _) => {
                let last = self.hub.next_of(session.seat).unwrap_or_default().saturating_sub(1);
                self.leave(id);
                return poll::reply(http, id, Status::NO_CONTENT, self.guard.headers(origin), last).empty();
            }
            (Transport::Socket, Some(speaker)) => match speaker.socket.ping(MISSED_PONGS) {
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
        if self.sessions.contains_key(&id) || self.readers.contains_key(&id) {
            EofAction::Finish
        } else {
            EofAction::Keep
        }
    }

    fn on_close(&mut self, _: &mut Responder<'_>, id: ExchangeId, _: Outcome) {
        self.leave(id);
        self.readers.remove(&id);
        self.waiting.retain(|publisher| publisher.id() != id);
    }

    /// Subscribers are told when to come back, not all at once.
    fn on_shutdown(&mut self, http: &mut Responder<'_>) {
        self.stopping = true;
        for publisher in mem::take(&mut self.waiting) {
            if let Publisher::Post { id, origin, .. } = publisher {
                self.reject(http, id, origin, busy("The server is stopping."));
            }
        }
        for (id, reader) in mem::take(&mut self.readers) {
            self.reject_reader(http, id, reader.stage(), busy("The server is stopping."));
        }
        let mut sessions: Vec<_> = mem::take(&mut self.sessions).into_iter().collect();
        sessions.sort_by_key(|(id, _)| *id);
        for (id, session) in sessions {
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

impl Metrics for Pubsub {
    fn metrics(&self, text: &mut Text) {
        let counts = self.counts();
        text.one("channels", "gauge", "Channels that are kept.", counts.channels);
        text.one("subscribers", "gauge", "Subscribers that are there.", counts.subscribers);
        text.one("published_total", "counter", "Messages that were published.", counts.published);
        text.one("delivered_total", "counter", "Messages that were sent, once for each subscriber.", counts.delivered);
        let slow = "Connections that were cut because they did not read.";
        text.one("disconnected_slow_total", "counter", slow, counts.disconnected_slow);
        if let Some(engine) = &self.engine {
            engine.metrics(text);
        }
        if let Some(remote) = &self.remote {
            remote.metrics(text);
        }
        text.one("waiting_publishers", "gauge", "Publishers that wait for subscribers.", self.waiting.len());
    }
}

impl Publisher {
    fn id(&self) -> ExchangeId {
        match self {
            Publisher::Socket(id) | Publisher::Post { id, .. } => *id,
        }
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
